// Any bytes as keys of the roots table, and as roots that are stored. Properties: a page is ascending and not larger
// than was asked for; every shard that has a root is found by it; a sweep takes what is dead and nothing else.
#include "base/check.h"
#include "index/roots.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const auto kv = NewMemoryKv();
  KvBatch batch;
  std::vector<Cid> roots;
  for (Span rest = input; rest.size() > 2;) {
    const size_t size = std::min<size_t>(rest[0] % 80, rest.size() - 2);
    const Span part = rest.subspan(2, size);
    if (const auto cid = Cid::FromBytes(part); cid.ok()) {
      roots.push_back(*cid);
      const std::vector<Cid> one = {*cid};
      DAGSTORE_CHECK_OK(AppendRoots(batch, 1 + rest[1], one));
    } else {
      batch.Put(KvTable::kRoots, std::string(AsText(part)), {});
    }
    rest = rest.subspan(2 + size);
  }
  DAGSTORE_CHECK_OK(kv->Commit(batch, true));
  for (const Cid& root : roots) {
    Ordinal after = 0;
    for (int pages = 0; pages < 100; ++pages) {
      const auto page = ShardsWithRoot(*kv, root, after, 2);
      if (!page.ok()) break;
      DAGSTORE_CHECK(page->ordinals.size() <= 2);
      for (const Ordinal ordinal : page->ordinals) {
        DAGSTORE_CHECK(ordinal > after);
        after = ordinal;
      }
      DAGSTORE_CHECK(pages > 0 || !page->ordinals.empty());
      if (page->next_after == 0) break;
    }
  }
  KvBatch sweep;
  const auto removed = SweepRoots(*kv, [](Ordinal ordinal) { return ordinal % 2 == 0; }, sweep);
  DAGSTORE_CHECK(removed.ok() && *removed == sweep.changes().size());
}

}  // namespace dagstore
