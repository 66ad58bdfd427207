#include "mount/extent_map.h"

#include <map>
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
    std::map<uint64_t, uint32_t> sums;
    for (int i = 0; i < 1000 && map.granules() != 0; ++i) {
      const uint64_t granule = random() % map.granules();
      if (random() % 2 == 0) {
        map.Clear(granule);
        sums.erase(granule);
      } else {
        map.Set(granule, static_cast<uint32_t>(i));
        sums[granule] = static_cast<uint32_t>(i);
      }
    }
    for (const auto& [granule, sum] : sums) CHECK_EQ(map.SumOf(granule), sum);
    CHECK_EQ(map.there(), sums.size());
    for (uint64_t g = 0; g < map.granules(); ++g) there += map.Has(g) ? map.RangeOf(g, g + 1).size : 0;
    CHECK_EQ(map.BytesThere(), there);
    map.sources = {{7, "\"etag\""}, {9, "other"}};
    CHECK(ValueOf(ExtentMap::Decode(AsSpan(map.Encode()))) == map);
    for (uint64_t g = 0; g < map.granules(); ++g) map.Set(g, static_cast<uint32_t>(g));
    CHECK(map.Whole());
    CHECK_EQ(map.BytesThere(), bytes);
    const std::string encoded = map.Encode();
    CHECK_LE(encoded.size(), kExtentMapBytesMax);
    CHECK(ValueOf(ExtentMap::Decode(AsSpan(encoded))) == map);
  }
}

TEST_CASE("extent map: checksums are those of whole granules, in whatever pieces the bytes come") {
  Bytes bytes(3 * 65536 + 77);
  std::mt19937 random(1);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (const size_t step : {size_t{1}, size_t{999}, size_t{65536}, size_t{100'000}, bytes.size()}) {
    CAPTURE(step);
    std::vector<uint32_t> sums;
    GranuleSums of(65536, bytes.size());
    const auto add = [&](uint64_t at, size_t size) {
      of.Add(at, Span(bytes).subspan(at, size), [&](uint64_t granule, uint32_t sum) {
        CHECK_EQ(granule, sums.size());
        sums.push_back(sum);
      });
    };
    add(0, 1000);  // and once more from the start
    for (uint64_t at = 0; at < bytes.size(); at += step) add(at, std::min(step, bytes.size() - at));
    REQUIRE_EQ(sums.size(), 4);
    for (size_t g = 0; g < 4; ++g)
      CHECK_EQ(sums[g], Crc32c(Span(bytes).subspan(g * 65536, std::min<size_t>(65536, bytes.size() - g * 65536))));
  }
}

TEST_CASE("extent map: every cut and every flipped bit is refused") {
  ExtentMap map(5'000'000);
  for (const uint64_t g : {0, 1, 2, 40, 76}) map.Set(g, 0xabcd0000 + static_cast<uint32_t>(g));
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
  const std::string head = std::string("DSEM\x02", 5);
  CHECK_STATUS_OK(ExtentMap::Decode(AsSpan(sealed(head + std::string("\x05\x00", 2)))));
  for (const std::string& bad : {
           head, head + std::string("\x05\x11", 2), head + std::string("\x05\x01", 2),
           head + std::string("\x05\x00\x00\x00", 4),  // an empty run
           head + std::string("\x05\x00\x00\x02", 4),  // past the end
           head + std::string("\x05\x00\x02\x01", 4),
           head + std::string("\x05\x00\x00\x01sum", 7),  // cut off in a checksum
           head + std::string("\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00", 10)}) {
    CHECK_CODE(ExtentMap::Decode(AsSpan(sealed(bad))), kDataLoss);
  }
  CHECK_CODE(ExtentMap::Decode(AsSpan(sealed(std::string("DSEM\x03\x05\x00", 7)))), kFailedPrecondition);
  CHECK_CODE(ExtentMap::Decode(AsSpan(sealed(std::string("DSEM\x01\x05\x00", 7)))), kDataLoss);  // has no checksums
}

}  // namespace
}  // namespace dagstore
