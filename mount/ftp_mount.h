// ftp: and ftps: mounts.
//
//   ftp://host/pub/a.car           anonymous; the path is from the folder of the login
//   ftp://host//srv/a.car          from the root of the server
//   ftp://archive@host/a.car       with the credential "archive" (basic)
//   ftps://host/a.car              over TLS: AUTH TLS, or from the first byte on port 990
//
// Sequential, from any offset (REST). The validator is the time of the last change with the size.
#pragma once

#include <memory>

#include "base/ftp.h"
#include "mount/credentials.h"
#include "mount/registry.h"

namespace dagstore {

MountFactory FtpMountFactory(std::shared_ptr<FtpClient> client, std::shared_ptr<const Credentials> credentials);

}  // namespace dagstore
