#include "mount/extent_map.h"

#include <random>

#include "base/crc32c.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("extent map: what is set is there, and survives being written and read") {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{65536}, uint64_t{65537}, uint64_t{9'000'001},
                               uint64_t{1} << 40, kExtentFileBytesMax}) {
    CAPTURE(bytes);
    ExtentMap map(bytes);
    CHECK_LE(map.granules(), kGranulesMax);
    std::mt19937_64 random(bytes);
    uint64_t there = 0;
    for (int i = 0; i < 1000 && map.granules() != 0; ++i) map.Set(random() % map.granules(), random() % 2 != 0);
    for (uint64_t g = 0; g < map.granules(); ++g) there += map.Has(g) ? map.RangeOf(g, g + 1).size : 0;
    CHECK_EQ(map.BytesThere(), there);
    map.sources = {{7, "\"etag\""}, {9, "other"}};
    CHECK(ValueOf(ExtentMap::Decode(AsSpan(map.Encode()))) == map);
    for (uint64_t g = 0; g < map.granules(); ++g) map.Set(g, true);
    CHECK(map.Whole());
    CHECK_EQ(map.BytesThere(), bytes);
    const std::string encoded = map.Encode();
    CHECK_LE(encoded.size(), kExtentMapBytesMax);
    CHECK(ValueOf(ExtentMap::Decode(AsSpan(encoded))) == map);
  }
}

TEST_CASE("extent map: every cut and every flipped bit is refused") {
  ExtentMap map(5'000'000);
  for (const uint64_t g : {0, 1, 2, 40, 76}) map.Set(g, true);
  map.sources = {{7, "\"etag\""}};
  const std::string encoded = map.Encode();
  for (size_t size = 0; size < encoded.size(); ++size) CHECK_FALSE(ExtentMap::Decode(AsSpan(encoded).first(size)).ok());
  for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    std::string flipped = encoded;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    CHECK_FALSE(ExtentMap::Decode(AsSpan(flipped)).ok());
  }
}

TEST_CASE("extent map: what no program of ours writes is refused, though the checksum is right") {
  const auto sealed = [](std::string content) {
    Append32(content, Crc32c(AsSpan(content)));
    return content;
  };
  const std::string head = std::string("DSEM\x01", 5);
  CHECK_STATUS_OK(ExtentMap::Decode(AsSpan(sealed(head + std::string("\x05\x00", 2)))));
  for (const std::string& bad : {
           head, head + std::string("\x05\x11", 2), head + std::string("\x05\x01", 2),
           head + std::string("\x05\x00\x00\x00", 4),  // an empty run
           head + std::string("\x05\x00\x00\x02", 4),  // past the end
           head + std::string("\x05\x00\x02\x01", 4),
           head + std::string("\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00", 10)}) {
    CHECK_CODE(ExtentMap::Decode(AsSpan(sealed(bad))), kDataLoss);
  }
  CHECK_CODE(ExtentMap::Decode(AsSpan(sealed(std::string("DSEM\x02\x05\x00", 7)))), kFailedPrecondition);
}

}  // namespace
}  // namespace dagstore
