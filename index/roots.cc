#include "index/roots.h"

#include "base/mutant.h"
#include "base/varint.h"

namespace dagstore {
namespace {

// See docs/format.md#roots. The length before the CID keeps one CID's keys apart from those of a CID it begins.
std::string RootPrefix(const Cid& cid) {
  std::string key;
  AppendVarint(key, cid.bytes().size());
  AppendBytes(key, cid.bytes());
  return key;
}

absl::Status CheckRoots(std::span<const Cid> roots) {
  if (roots.size() > kRootsOfShardMax)
    return FailedPrecondition("{} roots: a shard may have {}", roots.size(), kRootsOfShardMax);
  for (const Cid& root : roots) {
    if (root.empty()) return InvalidArgument("a root is not a CID");
  }
  return absl::OkStatus();
}

std::string RootKey(const Cid& cid, Ordinal ordinal) {
  std::string key = RootPrefix(cid);
  Append32Big(key, ordinal);
  return key;
}

}  // namespace

absl::Status AppendRoots(KvBatch& batch, Ordinal ordinal, std::span<const Cid> roots) {
  RETURN_IF_ERROR(CheckRoots(roots));
  for (const Cid& root : roots) batch.Put(KvTable::kRoots, RootKey(root, ordinal), {});
  return absl::OkStatus();
}

absl::Status AppendRootsRemoval(KvBatch& batch, Ordinal ordinal, std::span<const Cid> roots) {
  RETURN_IF_ERROR(CheckRoots(roots));
  if (Mutant(kMutantRootsOfOthers)) return absl::OkStatus();
  for (const Cid& root : roots) batch.Delete(KvTable::kRoots, RootKey(root, ordinal));
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SweepRoots(Kv& kv, absl::FunctionRef<bool(Ordinal)> is_dead, KvBatch& batch) {
  uint64_t removed = 0;
  const std::unique_ptr<KvCursor> cursor = kv.Scan(KvTable::kRoots);
  for (; cursor->Valid(); cursor->Next()) {
    const Span key = AsSpan(cursor->key());
    if (key.size() < 4 || !is_dead(Load32Big(key.last(4).data()))) continue;
    batch.Delete(KvTable::kRoots, std::string(cursor->key()));
    ++removed;
  }
  RETURN_IF_ERROR(cursor->status());
  return removed;
}

absl::StatusOr<RootsPage> ShardsWithRoot(Kv& kv, const Cid& cid, Ordinal after, size_t limit) {
  if (cid.empty()) return InvalidArgument("not a CID");
  if (limit == 0) return InvalidArgument("a page of 0 shards");
  RootsPage page;
  if (after == UINT32_MAX) return page;
  const std::string prefix = RootPrefix(cid);
  const std::unique_ptr<KvCursor> cursor = kv.Scan(KvTable::kRoots, RootKey(cid, after + 1), prefix);
  for (; cursor->Valid(); cursor->Next()) {
    if (page.ordinals.size() == limit) {
      page.next_after = page.ordinals.back();
      return page;
    }
    const Span ordinal = AsSpan(cursor->key()).subspan(prefix.size());
    if (ordinal.size() != 4) return DataLoss("the roots table has a key of {} bytes", cursor->key().size());
    page.ordinals.push_back(Load32Big(ordinal.data()));
  }
  RETURN_IF_ERROR(cursor->status());
  return page;
}

}  // namespace dagstore
