// Any bytes as a binary CID, and as its text. Properties: views lie inside the input; binary and text forms lead back
// to the same CID in every base; a CID that was accepted is found again at the head of longer bytes.
#include "base/check.h"
#include "base/cid.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void CheckCid(const Cid& cid) {
  const CidView view = cid.view();
  DAGSTORE_CHECK(SameBytes(view.bytes, cid.bytes()) && view.bytes.size() <= kCidBytesMax);
  const auto again = Cid::FromBytes(cid.bytes());
  DAGSTORE_CHECK(again.ok() && *again == cid);
  const auto canonical = Cid::FromText(cid.ToText());
  DAGSTORE_CHECK(canonical.ok() && *canonical == cid);
  const Cid v1 = cid.ToV1();
  DAGSTORE_CHECK(v1.version() == 1 && v1.codec() == cid.codec() && v1.hash() == cid.hash() && v1.ToV1() == v1);
  for (const Base base : {Base::kBase16, Base::kBase32, Base::kBase36, Base::kBase58Btc, Base::kBase64Url}) {
    const auto same = Cid::FromText(cid.ToText(base));
    DAGSTORE_CHECK(same.ok() && same->ToV1() == v1);
  }
  CheckIdentity(view).IgnoreError();
}

}  // namespace

void FuzzOne(Span input) {
  if (const auto view = ParseCid(input); view.ok()) {
    DAGSTORE_CHECK(view->bytes.data() == input.data() && view->bytes.size() <= input.size());
    DAGSTORE_CHECK(view->hash.digest.data() + view->hash.digest.size() == view->bytes.data() + view->bytes.size());
    DAGSTORE_CHECK(view->version <= 1);
    const auto cid = Cid::FromBytes(view->bytes);
    DAGSTORE_CHECK(cid.ok());
    DAGSTORE_CHECK(Cid::FromBytes(input).ok() == (view->bytes.size() == input.size()));
    CheckCid(*cid);
  } else {
    DAGSTORE_CHECK(!Cid::FromBytes(input).ok());
  }
  if (const auto cid = Cid::FromText(AsText(input)); cid.ok()) CheckCid(*cid);
}

}  // namespace dagstore
