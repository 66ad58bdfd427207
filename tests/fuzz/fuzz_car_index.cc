// CARv2 indexes: what is accepted is written back byte for byte, and holds what it claims.
#include "base/check.h"
#include "index/car_index.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const uint64_t payload_size = input.size() == 0 ? 0 : uint64_t{1} << (input[input.size() - 1] % 64);
  const absl::StatusOr<CarIndexView> view = ParseCarIndex(input, payload_size);
  if (!view.ok()) return;
  uint64_t entries = 0;
  for (const CarIndexBucket& bucket : view->buckets) {
    for (uint64_t i = 0; i < bucket.count; ++i) {
      DAGSTORE_CHECK(bucket.offset(i) < payload_size);
      DAGSTORE_CHECK(i == 0 || CompareBytes(bucket.digest(i - 1), bucket.digest(i)) <= 0);
    }
    entries += bucket.count;
  }
  DAGSTORE_CHECK(entries == view->entries);
  DAGSTORE_CHECK(SameBytes(EncodeCarIndex(*view), input));
}

}  // namespace dagstore
