// Any bytes as varints, one after the other. Properties: what is read is written back byte for byte, and nothing else
// is accepted: every other spelling of the number is refused.
#include "base/check.h"
#include "base/varint.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  for (Span rest = input; !rest.empty();) {
    Varint number;
    const VarintError error = DecodeVarint(rest, number);
    const absl::StatusOr<Varint> same = ReadVarint(rest);
    DAGSTORE_CHECK(same.ok() == (error == VarintError::kNone));
    if (error != VarintError::kNone) return;
    DAGSTORE_CHECK(same->value == number.value && same->size == number.size);
    DAGSTORE_CHECK(number.size >= 1 && number.size <= kVarintBytesMax && number.size <= rest.size());
    DAGSTORE_CHECK(number.size == VarintSize(number.value));
    Bytes written;
    AppendVarint(written, number.value);
    DAGSTORE_CHECK(SameBytes(written, rest.first(number.size)));
    DAGSTORE_CHECK(DecodeVarint(rest.first(number.size - 1), number) == VarintError::kTruncated);
    rest = rest.subspan(written.size());
  }
}

}  // namespace dagstore
