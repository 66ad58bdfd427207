// Any bytes as a multihash, and as the data of one. Properties: what is parsed is written back byte for byte; data
// match the digest that is made of them and no other; no digest and data make the check do more than answer.
#include "base/check.h"
#include "base/hashing.h"
#include "base/multihash.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const auto parsed = ParseMultihash(input);
  if (!parsed.ok()) {
    DAGSTORE_CHECK(!Multihash::FromBytes(input).ok());
    return;
  }
  DAGSTORE_CHECK(parsed->size <= input.size() && parsed->value.digest.size() <= kDigestBytesMax);
  Bytes written;
  AppendMultihash(written, parsed->value);
  DAGSTORE_CHECK(SameBytes(written, input.first(parsed->size)));
  DAGSTORE_CHECK(Multihash(parsed->value).view() == parsed->value);
  const Span data = input.subspan(parsed->size);
  const HashCheck check = VerifyBlock(parsed->value, data);
  HashJob job{.hash = parsed->value, .data = data};
  VerifyBlocks({&job, 1});
  DAGSTORE_CHECK(job.result == check);
  if (const auto digest = Digest(parsed->value.code, data); digest.ok()) {
    const MultihashView own{parsed->value.code, *digest};
    const HashCheck of_own = VerifyBlock(own, data);
    DAGSTORE_CHECK(of_own == HashCheck::kMatch || of_own == HashCheck::kUnverifiable);
    Bytes wrong = *digest;
    if (!wrong.empty() && of_own == HashCheck::kMatch) {
      wrong.back() ^= 1;
      DAGSTORE_CHECK(VerifyBlock({parsed->value.code, wrong}, data) == HashCheck::kMismatch);
    }
  }
}

}  // namespace dagstore
