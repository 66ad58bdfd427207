// The suite of all mounts, run on the mount that is as if behind a network.
#pragma once

#include "tests/conformance/mount_suite.h"
#include "tests/mount/remote_mount.h"

namespace dagstore {

inline void CheckRemoteMount(RemoteSource& source) {
  MountUnderTest test;
  REQUIRE_STATUS_OK(test.registry.Register("remote", RemoteMountFactory(source)));
  test.put = [&](const Bytes& content) {
    source.content = content;
    source.exists = true;
    return ValueOf(test.registry.Make(ValueOf(Url::Parse("remote://me:pw@host/a%00b?k=v"))));
  };
  test.remove = [&] { source.exists = false; };
  CheckMount(test);
}

}  // namespace dagstore
