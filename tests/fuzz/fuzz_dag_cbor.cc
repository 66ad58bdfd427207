// Any bytes as a dag-cbor block. Properties: what is strictly valid is read leniently with the same links; what
// renders as dag-json reads as dag-json, with as many links; looked-up values lie inside the block.
#include "base/check.h"
#include "dag/dag_cbor.h"
#include "dag/dag_json.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void Run(Span block) {
  size_t links = 0;
  const absl::Status lenient = ForEachDagCborLink(block, [&](const CidView& cid) {
    DAGSTORE_CHECK(cid.bytes.data() >= block.data() &&
                   cid.bytes.data() + cid.bytes.size() <= block.data() + block.size());
    return ++links > 0;
  });
  const absl::Status strict = ValidateDagCbor(block);
  const absl::Status dasl = ValidateDagCbor(block, CborProfile::kDasl);
  DAGSTORE_CHECK(!strict.ok() || lenient.ok());
  DAGSTORE_CHECK(!dasl.ok() || strict.ok());

  const auto json = ToDagJson(kCodecDagCbor, block);
  DAGSTORE_CHECK(!json.ok() || lenient.ok());
  if (json.ok()) {
    size_t in_json = 0;
    DAGSTORE_CHECK_OK(ForEachDagJsonLink(AsSpan(*json), [&](const CidView&) { return ++in_json > 0; }));
    DAGSTORE_CHECK(in_json == links);
  }
  for (const char* segment : {"0", "1", "a", "", "foo"}) {
    const auto found = LookupDagCbor(block, segment);
    if (!found.ok()) continue;
    DAGSTORE_CHECK(found->value.data() >= block.data() &&
                   found->value.data() + found->value.size() <= block.data() + block.size());
    if (!found->link) (void)LookupDagCbor(found->value, segment);
  }
}

}  // namespace

void FuzzOne(Span input) {
  Run(input);
}

}  // namespace dagstore
