// Any bytes in every base, and any text as multibase. Properties: bytes come back from each base; what a text decodes
// to encodes to a text that decodes to the same.
#include "base/check.h"
#include "base/multibase.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  constexpr std::string_view kPrefixes = "079fFbBcCvVtThkKzZmMuU";
  const Span bytes = input.first(std::min<size_t>(input.size(), 256));  // some bases cost the square
  for (const char prefix : kPrefixes) {
    const auto base = static_cast<Base>(prefix);
    const std::string text = EncodeMultibase(base, bytes);
    DAGSTORE_CHECK(text.front() == prefix && text.substr(1) == EncodeBase(base, bytes));
    const auto back = DecodeMultibase(text);
    DAGSTORE_CHECK(back.ok() && SameBytes(*back, bytes));
    DecodeBase(base, AsText(bytes)).status().IgnoreError();
  }
  const auto decoded = DecodeMultibase(AsText(input));
  if (!decoded.ok()) return;
  DAGSTORE_CHECK(decoded->size() <= input.size());
  const auto again = DecodeMultibase(EncodeMultibase(static_cast<Base>(input[0]), *decoded));
  DAGSTORE_CHECK(again.ok() && *again == *decoded);
}

}  // namespace dagstore
