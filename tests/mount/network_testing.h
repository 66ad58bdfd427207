// What the tests of network mounts share.
#pragma once

#include <memory>
#include <string>

#include "mount/file_mount.h"
#include "mount/network_mounts.h"
#include "tests/testing.h"

namespace dagstore {

// Everything may be reached on 127.0.0.1, and nothing else that is not public.
inline NetworkMountConfig LoopbackConfig() {
  NetworkMountConfig config;
  config.network.addresses = std::make_shared<AddressPolicy>(ValueOf(AddressPolicy::Allowing({"127.0.0.0/8"})));
  return config;
}

// Registry and clients, as a program has them.
struct Network {
  explicit Network(const NetworkMountConfig& config)
      : clients(ValueOf(NetworkClients::Make(config))), registry(DefaultMounts(FileMountConfig())) {
    CHECK_STATUS_OK(RegisterNetworkMounts(config, clients, registry));
  }
  std::unique_ptr<Mount> Make(std::string_view url) const { return ValueOf(registry.Make(ValueOf(Url::Parse(url)))); }

  NetworkClients clients;
  MountRegistry registry;
};

inline std::shared_ptr<const Credentials> OneCredential(const std::string& id, Credential credential) {
  auto credentials = std::make_shared<Credentials>();
  CHECK_STATUS_OK(credentials->Add(id, std::move(credential)));
  return credentials;
}

}  // namespace dagstore
