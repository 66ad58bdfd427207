#include "mount/registry.h"

#include "mount/bytes_mount.h"
#include "mount/file_mount.h"
#include "tests/mount/remote_mount.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("registry: a scheme is registered once, in lower case") {
  MountRegistry registry;
  CHECK_STATUS_OK(registry.Register("one", BytesMountFactory()));
  CHECK_CODE(registry.Register("one", BytesMountFactory()), kAlreadyExists);
  CHECK_CODE(registry.Register("Two", BytesMountFactory()), kInvalidArgument);
  CHECK_CODE(registry.Register("", BytesMountFactory()), kInvalidArgument);
  CHECK_EQ(registry.Schemes(), std::vector<std::string>{"one"});
}

TEST_CASE(
    "registry: an unknown scheme is refused with the known ones and without the rest of the url") {
  const MountRegistry registry = DefaultMounts({});
  const Url url = ValueOf(Url::Parse("gopher://me:CANARY@CANARY/CANARY?CANARY=CANARY"));
  CHECK_CODE(registry.Make(url), kInvalidArgument);
  CHECK_EQ(Message(registry.Make(url).status()),
           "no mount for the scheme 'gopher'; known: bytes, file");
}

TEST_CASE("registry: an invalid url makes no mount") {
  Url url = ValueOf(Url::Parse("file:a.car"));
  url.host = "h";
  CHECK_CODE(DefaultMounts({}).Make(url), kInvalidArgument);
}

TEST_CASE("registry: a mount that a restart could not make again is refused now") {
  RemoteSource source;
  MountRegistry registry;
  REQUIRE_STATUS_OK(registry.Register("remote", RemoteMountFactory(source)));
  const auto represent = [&](const Url& url) {
    return registry.Represent(RemoteMount(source, url));
  };

  const Url good = ValueOf(Url::Parse("remote://h/a"));
  CHECK(ValueOf(represent(good)) == good);
  Url bad = good;
  bad.scheme = "other";
  CHECK_CODE(represent(bad), kInvalidArgument);
  bad = good;
  bad.path = "irrecoverable";
  CHECK_CODE(represent(bad), kInvalidArgument);
}

}  // namespace
}  // namespace dagstore
