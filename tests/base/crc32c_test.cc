#include "base/crc32c.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("crc32c: the vectors of RFC 3720, by instruction and by table") {
  Bytes up(32), down(32);
  for (uint8_t i = 0; i < 32; ++i) {
    up[i] = i;
    down[i] = static_cast<uint8_t>(31 - i);
  }
  const Bytes read_command = ValueOf(FromHex(
      "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"));
  const std::string_view digits = "123456789";
  const struct { Bytes data; uint32_t crc; } kCases[] = {
      {{}, 0},
      {Bytes(32, 0x00), 0x8a9136aa},
      {Bytes(32, 0xff), 0x62a8ab43},
      {up, 0x46dd794e},
      {down, 0x113fdb5c},
      {read_command, 0xd9963a56},
      {Bytes(digits.begin(), digits.end()), 0xe3069283},
  };
  for (const auto& c : kCases) {
    CAPTURE(ToHex(c.data));
    CHECK_EQ(Crc32c(c.data), c.crc);
    CHECK_EQ(Crc32cPortable(0, c.data), c.crc);
  }
}

TEST_CASE("crc32c: instruction and table agree for every length, alignment and split") {
  Bytes data(320);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * i + i / 7);
  for (size_t size = 0; size <= 300; ++size) {
    const Span part = Span(data).subspan(size % 9, size);
    CAPTURE(size);
    const uint32_t crc = Crc32cPortable(0, part);
    CHECK_EQ(Crc32c(part), crc);
    const size_t split = size * 2 / 3;
    CHECK_EQ(Crc32c(Crc32c(part.first(split)), part.subspan(split)), crc);
    CHECK_EQ(Crc32cPortable(Crc32cPortable(0, part.first(split)), part.subspan(split)), crc);
  }
  // Long enough for parts that are computed side by side.
  Bytes pages(64 << 10);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<uint8_t>(i * i + i / 7 + (i >> 9));
  for (const size_t size : {4031, 4032, 4033, 4092, 4096, 8063, 8064, 12345, 65535, 65536}) {
    CAPTURE(size);
    const Span part = Span(pages).first(size);
    CHECK_EQ(Crc32c(part), Crc32cPortable(0, part));
    CHECK_EQ(Crc32c(Crc32c(part.first(size / 3)), part.subspan(size / 3)), Crc32cPortable(0, part));
  }
}

}  // namespace
}  // namespace dagstore
