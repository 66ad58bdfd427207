// nfs: mounts, in user space (libnfs, NFS version 3): no mount(8), no root, no hung process when the server is gone.
//
//   nfs://host/export/path/a.car                      ports by the server's portmapper
//   nfs://host:2049/export/path/a.car?mountport=20048 without one
//
// The validator is file id, size and time of change. Who asks is a number in the configuration (AUTH_SYS), which the
// server believes: NFS belongs into networks that the operator has listed.
#pragma once

#include <memory>
#include <optional>

#include "base/address.h"
#include "mount/registry.h"

namespace dagstore {

struct NfsOptions {
  std::shared_ptr<const AddressPolicy> addresses = std::make_shared<AddressPolicy>();
  std::shared_ptr<Resolver> resolver = Resolver::System();
  // Without an answer of the server.
  absl::Duration stall_timeout = absl::Seconds(30);
  // Mounted exports kept for the next request; each costs two descriptors.
  size_t idle_connections_max = 8;
  // Of AUTH_SYS; absent: those of the process.
  std::optional<int> uid = {};
  std::optional<int> gid = {};
};

// The connections to NFS servers, shared by all mounts. Any thread, never the loop.
class NfsClient {
 public:
  virtual ~NfsClient() = default;
  virtual void CloseIdle() = 0;
  virtual uint64_t bytes_received() const = 0;  // of files, since the start
};
std::shared_ptr<NfsClient> NewNfsClient(const NfsOptions& options);

// InvalidArgument from the factory: no host or file, a user, a query other than mountport=.
MountFactory NfsMountFactory(std::shared_ptr<NfsClient> client);

}  // namespace dagstore
