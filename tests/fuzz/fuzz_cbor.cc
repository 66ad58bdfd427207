// Any bytes through the CBOR reader. Properties: what the strict mode reads the lenient mode reads
// too, item for item; strings lie inside the input; Skip and item-by-item reading end at the same
// place.
#include <cmath>

#include "base/cbor.h"
#include "base/check.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void ReadAll(Span bytes, CborMode mode) {
  CborReader items(bytes, mode);
  CborReader lenient(bytes);
  size_t steps = 0;
  while (!items.AtEnd()) {
    const auto item = items.Next();
    const auto same = lenient.Next();
    if (!item.ok()) return;
    DAGSTORE_CHECK(same.ok() && same->kind == item->kind && same->value == item->value);
    DAGSTORE_CHECK(items.offset() == lenient.offset() && items.depth() == lenient.depth());
    DAGSTORE_CHECK(items.depth() >= 0 && items.depth() <= kCborDepthMax);
    if (item->kind == CborKind::kBytes || item->kind == CborKind::kText) {
      DAGSTORE_CHECK(item->bytes.data() >= bytes.data());
      DAGSTORE_CHECK(item->bytes.data() + item->bytes.size() == bytes.data() + items.offset());
    }
    if (mode == CborMode::kStrict && item->kind == CborKind::kFloat)
      DAGSTORE_CHECK(std::isfinite(item->number));
    DAGSTORE_CHECK(++steps <= bytes.size());
  }
}

void SkipAll(Span bytes, CborMode mode) {
  CborReader skipping(bytes, mode);
  CborReader items(bytes, mode);
  while (!skipping.AtEnd()) {
    if (!skipping.Skip().ok()) return;
    DAGSTORE_CHECK(skipping.depth() == 0);
    do {
      DAGSTORE_CHECK(items.Next().ok());
    } while (items.depth() > 0);
    DAGSTORE_CHECK(items.offset() == skipping.offset());
  }
}

}  // namespace

void FuzzOne(Span input) {
  for (const auto mode : {CborMode::kLenient, CborMode::kStrict}) {
    ReadAll(input, mode);
    SkipAll(input, mode);
  }
}

}  // namespace dagstore
