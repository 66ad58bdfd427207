// Roots: root CID -> the ordinals of the shards that have it as a root, in table kRoots. Identity CIDs included: a root
// that is an identity CID has no section, so this is the only place where its shards are found by it.
// Format: docs/format.md#roots.
//
// Threads: any; free functions over a Kv, which has its own.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/cid.h"
#include "base/kv.h"
#include "index/top_index.h"

namespace dagstore {

// Of one shard; far above any CAR in use (most have 1), so that one header cannot make millions of keys.
inline constexpr size_t kRootsOfShardMax = 100'000;

// Adds to `batch` that the shard has these roots. Repeats are stored once. FailedPrecondition above kRootsOfShardMax;
// InvalidArgument for an empty CID; `batch` is then unchanged.
absl::Status AppendRoots(KvBatch& batch, Ordinal ordinal, std::span<const Cid> roots);
// Adds to `batch` that it has them no more. The same errors.
absl::Status AppendRootsRemoval(KvBatch& batch, Ordinal ordinal, std::span<const Cid> roots);

// Adds to `batch` the removal of every entry whose ordinal `is_dead`: those of a shard whose index was lost before they
// could be taken from it. Walks the whole table. Returns how many.
absl::StatusOr<uint64_t> SweepRoots(Kv& kv, absl::FunctionRef<bool(Ordinal)> is_dead, KvBatch& batch);

struct RootsPage {
  std::vector<Ordinal> ordinals;  // ascending
  Ordinal next_after = 0;         // pass it as `after` for the next page; 0: this was the last
};

// The first `limit` ordinals greater than `after` (0: from the first) of shards with the root `cid`. The very CID: the
// same multihash under another version or codec is another root. DataLoss if the table has a key that is not one of
// ours.
absl::StatusOr<RootsPage> ShardsWithRoot(Kv& kv, const Cid& cid, Ordinal after, size_t limit);

}  // namespace dagstore
