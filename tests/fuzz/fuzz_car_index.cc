// CARv2 indexes: what is accepted is written back byte for byte, and holds what it claims.
#include "base/check.h"
#include "index/car_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dagstore;
  const Span bytes(data, size);
  const uint64_t payload_size = size == 0 ? 0 : uint64_t{1} << (data[size - 1] % 64);
  const absl::StatusOr<CarIndexView> view = ParseCarIndex(bytes, payload_size);
  if (!view.ok()) return 0;
  uint64_t entries = 0;
  for (const CarIndexBucket& bucket : view->buckets) {
    for (uint64_t i = 0; i < bucket.count; ++i) {
      DAGSTORE_CHECK(bucket.offset(i) < payload_size);
      DAGSTORE_CHECK(i == 0 || CompareBytes(bucket.digest(i - 1), bucket.digest(i)) <= 0);
    }
    entries += bucket.count;
  }
  DAGSTORE_CHECK(entries == view->entries);
  DAGSTORE_CHECK(SameBytes(EncodeCarIndex(*view), bytes));
  return 0;
}
