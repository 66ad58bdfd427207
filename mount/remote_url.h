// What the URLs of the network mounts have in common. Any thread; no I/O.
#pragma once

#include "base/http.h"
#include "mount/url.h"

namespace dagstore {

// OK if nobody stands before the '@', or the id of a credential. InvalidArgument otherwise: records and listings keep
// URLs, and a password has no place in them.
absl::Status CheckUserinfo(const Url& url);

// The host and port, read as strictly as those of HTTP: the same resolvers read them. A port that is not there is 80.
absl::StatusOr<HttpUrl> ParseHost(const Url& url);

}  // namespace dagstore
