#include "mount/bytes_mount.h"

#include "mount/file_mount.h"
#include "tests/conformance/mount_suite.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("bytes mount: passes the suite") {
  MountUnderTest test;
  test.registry = DefaultMounts({});
  test.put = [](const Bytes& content) { return ValueOf(NewBytesMount(content)); };
  CheckMount(test);
}

TEST_CASE("bytes mount: the content is the path, in base64url") {
  CHECK_EQ(ValueOf(NewBytesMount(Bytes{'h', 'e', 'l', 'l', 'o'}))->url().Encoded(),
           "bytes:aGVsbG8");
  CHECK_EQ(ValueOf(NewBytesMount(Bytes{0xff, 0xef}))->url().Encoded(), "bytes:_-8");
  CHECK_EQ(ValueOf(NewBytesMount({}))->url().Encoded(), "bytes:");
}

TEST_CASE("bytes mount: what is no content is refused") {
  const MountRegistry registry = DefaultMounts({});
  for (const char* text : {"bytes:a", "bytes:!!!!",
                           "bytes:aGVsbG8=", "bytes:+/==", "bytes://h/aGVsbG8", "bytes:aGVs?a=b"}) {
    CAPTURE(text);
    CHECK_CODE(registry.Make(ValueOf(Url::Parse(text))), kInvalidArgument);
  }
}

TEST_CASE("bytes mount: content is limited to 1 MiB, exactly") {
  const MountRegistry registry = DefaultMounts({});
  const auto largest = ValueOf(NewBytesMount(TestContent(kBytesMountBytesMax)));
  CHECK_STATUS_OK(registry.Represent(*largest));
  CHECK_CODE(NewBytesMount(TestContent(kBytesMountBytesMax + 1)), kResourceExhausted);
  Url url = largest->url();
  url.path += "AAAA";
  CHECK_CODE(registry.Make(url), kResourceExhausted);
}

TEST_CASE("bytes mount: a reader outlives its mount") {
  std::unique_ptr<RandomReader> reader =
      ValueOf(ValueOf(NewBytesMount(TestContent(100)))->OpenRandom(Io::Posix(), WorkContext()));
  CHECK(SameBytes(reader->Memory(), TestContent(100)));
}

}  // namespace
}  // namespace dagstore
