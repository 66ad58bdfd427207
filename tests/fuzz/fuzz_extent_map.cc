// Any bytes as the map of a partial copy, and as one whose checksum is right. Properties: what is accepted lies inside
// its file, adds up, and means the same when it is written again, in no more than the limit.
#include "base/check.h"
#include "base/crc32c.h"
#include "mount/extent_map.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

constexpr uint64_t kGranulesLooked = 1 << 14;  // one after the other; a million takes too long for a fuzzer

void Check(Span input) {
  const absl::StatusOr<ExtentMap> map = ExtentMap::Decode(input);
  if (!map.ok()) return;
  DAGSTORE_CHECK(map->granules() <= kGranulesMax && map->file_bytes() <= kExtentFileBytesMax);
  if (map->granules() <= kGranulesLooked) {
    uint64_t bytes = 0, there = 0;
    for (uint64_t g = 0; g < map->granules(); ++g) {
      if (!map->Has(g)) continue;
      const ByteRange range = map->RangeOf(g, g + 1);
      DAGSTORE_CHECK(range.size != 0 && range.offset + range.size <= map->file_bytes());
      (void)map->SumOf(g);
      bytes += range.size;
      ++there;
    }
    DAGSTORE_CHECK(bytes == map->BytesThere() && there == map->there());
    DAGSTORE_CHECK(map->Whole() == (bytes == map->file_bytes()));
  }
  const std::string text = map->Encode();
  DAGSTORE_CHECK(text.size() <= kExtentMapBytesMax);
  const absl::StatusOr<ExtentMap> again = ExtentMap::Decode(AsSpan(text));
  DAGSTORE_CHECK(again.ok() && *again == *map);
}

}  // namespace

void FuzzOne(Span input) {
  Check(input);
  Bytes summed(input.begin(), input.end());
  Append32(summed, Crc32c(summed));
  Check(summed);
}

}  // namespace dagstore
