#include "mount/network_mounts.h"

#include "mount/ftp_mount.h"
#include "mount/http_mount.h"

namespace dagstore {

absl::StatusOr<NetworkClients> NetworkClients::Make(const NetworkMountConfig& config) {
  NetworkClients clients;
  ASSIGN_OR_RETURN(clients.http, NewHttpClient(config.network));
  ASSIGN_OR_RETURN(clients.ftp, NewFtpClient(config.network));
  NfsOptions nfs;
  nfs.addresses = config.network.addresses;
  nfs.resolver = config.network.resolver;
  nfs.stall_timeout = config.network.stall_timeout;
  nfs.uid = config.nfs_uid;
  nfs.gid = config.nfs_gid;
  clients.nfs = NewNfsClient(nfs);
  return clients;
}

void NetworkClients::CloseIdle() const {
  http->CloseIdle();
  ftp->CloseIdle();
  nfs->CloseIdle();
}

uint64_t NetworkClients::bytes_received() const {
  return http->bytes_received() + ftp->bytes_received() + nfs->bytes_received();
}

absl::Status RegisterNetworkMounts(const NetworkMountConfig& config, const NetworkClients& clients,
                                   MountRegistry& mounts) {
  for (const char* scheme : {"http", "https"}) {
    RETURN_IF_ERROR(mounts.Register(scheme, HttpMountFactory(clients.http, config.credentials)));
  }
  for (const char* scheme : {"ftp", "ftps"}) {
    RETURN_IF_ERROR(mounts.Register(scheme, FtpMountFactory(clients.ftp, config.credentials)));
  }
  S3Config s3;
  s3.client = clients.http;
  s3.credentials = config.credentials;
  s3.endpoints = config.s3;
  RETURN_IF_ERROR(mounts.Register("s3", S3MountFactory(s3)));
  RETURN_IF_ERROR(mounts.RegisterLister("s3", S3MountLister(s3)));
  RETURN_IF_ERROR(mounts.Register("nfs", NfsMountFactory(clients.nfs)));
  return mounts.Register("piece", PieceMountFactory(clients.http, config.credentials, config.piece));
}

}  // namespace dagstore
