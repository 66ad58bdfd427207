// NetworkMounts: every mount that needs a network, with one configuration. For main(), and for programs that embed the
// store:
//
//   NetworkMountConfig config;
//   config.network.addresses = ...                      // which private networks may be reached; default none
//   ASSIGN_OR_RETURN(NetworkClients clients, NetworkClients::Make(config));
//   MountRegistry mounts = DefaultMounts(files);
//   RETURN_IF_ERROR(RegisterNetworkMounts(config, clients, mounts));
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ftp.h"
#include "base/http.h"
#include "mount/credentials.h"
#include "mount/nfs_mount.h"
#include "mount/piece_mount.h"
#include "mount/registry.h"
#include "mount/s3_mount.h"

namespace dagstore {

struct NetworkMountConfig {
  HttpClientOptions network = {};  // addresses, resolver and timeouts: for all schemes
  std::shared_ptr<const Credentials> credentials = std::make_shared<Credentials>();
  std::map<std::string, S3Endpoint> s3 = {};
  std::vector<PieceEndpoint> piece = {};
  std::optional<int> nfs_uid = {};
  std::optional<int> nfs_gid = {};
};

// The clients own the idle connections. Mounts keep them alive.
struct NetworkClients {
  std::shared_ptr<HttpClient> http = {};
  std::shared_ptr<FtpClient> ftp = {};
  std::shared_ptr<NfsClient> nfs = {};

  static absl::StatusOr<NetworkClients> Make(const NetworkMountConfig& config);
  void CloseIdle() const;
  uint64_t bytes_received() const;  // of all, since the start
};

// http, https, s3, ftp, ftps, nfs, piece. AlreadyExists if one of them is registered.
absl::Status RegisterNetworkMounts(const NetworkMountConfig& config, const NetworkClients& clients,
                                   MountRegistry& mounts);

}  // namespace dagstore
