// IndexedBlockstore: blocks by CID over all shards of a store. Lookup in the top-level index, choice of a shard, a
// cache of accessors, verified bytes; a shard whose bytes are wrong is reported, and the next one is asked.
//
// Owns accessors, so a shard in its cache counts as in use until it is evicted, has been idle too long, or Trim is
// called.
// Threads: any, concurrently. The store must outlive it.
#pragma once

#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <vector>

#include "dag/block_getter.h"
#include "dagstore/blockstore.h"
#include "dagstore/dagstore.h"

namespace dagstore {

// A shard that may hold the block.
struct ShardCandidate {
  ShardKey key = {};
  Ordinal ordinal = 0;
  bool cached = false;      // an accessor is at hand: nothing needs to be opened
  bool served_bad = false;  // a block of it did not match its CID lately
};
// Puts the shards in the order in which they are to be asked; those it removes are not asked. Any thread.
using ShardSelector = std::function<void(const CidView& cid, std::vector<ShardCandidate>& candidates)>;

struct IndexedBlockstoreOptions {
  size_t accessors_max = 128;                       // shards held open; a descriptor each
  absl::Duration accessor_ttl = absl::Seconds(30);  // idle accessors are released after this, at the next call
  ShardSelector selector = {};                      // empty: cached first, those that served bad blocks last
  size_t candidates_max = 64;                       // shards asked for one block, so that a popular one costs no more
  WorkContext work = {};                            // of every call: when it is to give up opening shards
};

struct IndexedBlockstoreStats {
  uint64_t gets = 0;
  uint64_t cache_hits = 0;
  uint64_t cache_misses = 0;
  uint64_t evictions = 0;
  uint64_t bad_blocks = 0;  // bytes that did not match, or an index that did not; the next shard was asked
  size_t accessors = 0;
};

class IndexedBlockstore final : public Blockstore {
 public:
  explicit IndexedBlockstore(DagStore& store, const IndexedBlockstoreOptions& options = {});
  ~IndexedBlockstore() override;

  absl::StatusOr<bool> Has(const CidView& cid) const override;
  absl::StatusOr<uint64_t> GetSize(const CidView& cid) const override;
  // NotFound if no shard holds it. If shards should hold it but none could serve it: what the last one said.
  absl::Status Get(const CidView& cid, Block& block) const override;
  absl::Status GetView(const CidView& cid, BlockView& view) const override;
  // To the shards that are at hand and behind a network.
  void WillGet(std::span<const CidView> cids) const override;
  // Not the keys of every shard: walk ListShards and GetIterableIndex for that. Unimplemented.
  absl::Status ForEachKey(absl::FunctionRef<bool(const MultihashView&)> visit) const override;

  // Releases every accessor that nobody is using at this moment.
  void Trim();
  IndexedBlockstoreStats Stats() const;

 private:
  class Cache;
  using ReadFromShard =
      absl::FunctionRef<absl::Status(const std::shared_ptr<const OpenShard>& shard, bool* index_damaged)>;
  absl::StatusOr<std::vector<ShardCandidate>> Candidates(const CidView& cid) const;
  // Reads the block from one candidate after another, until one has it.
  absl::Status AskShards(const CidView& cid, ReadFromShard read) const;
  absl::StatusOr<std::optional<IndexEntry>> FindEntry(const CidView& cid, bool* inferred = nullptr) const;

  DagStore& store_;
  const IndexedBlockstoreOptions options_;
  const std::unique_ptr<Cache> cache_;
};

// A Blockstore as the source of dag/ walks. `blocks` must outlive it. Threads: as `blocks`.
class BlockstoreGetter final : public BlockGetter {
 public:
  explicit BlockstoreGetter(const Blockstore& blocks) : blocks_(blocks) {}
  absl::StatusOr<BlockData> Get(const CidView& cid) override;
  void Prefetch(std::span<const CidView> next) override { blocks_.WillGet(next); }

 private:
  const Blockstore& blocks_;
};

}  // namespace dagstore
