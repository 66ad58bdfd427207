// http: and https: mounts.
//
//   https://host/path/a.car             anybody may read it
//   https://archive@host/path/a.car     with the credential "archive" (basic or bearer), if that is for this origin
//   https://host/a.car?X-Amz-...        a signed URL: the query is secret, and is never shown
//
// The validator is the ETag; else the date of the last change with the size.
#pragma once

#include <memory>

#include "base/http.h"
#include "mount/credentials.h"
#include "mount/registry.h"

namespace dagstore {

// InvalidArgument from the factory: a password in the URL, a host or port that is none. FailedPrecondition from the
// mount: the credential is not configured, or not for this origin.
MountFactory HttpMountFactory(std::shared_ptr<HttpClient> client, std::shared_ptr<const Credentials> credentials);

}  // namespace dagstore
