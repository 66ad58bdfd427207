#include "dagstore/indexed_blockstore.h"

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <list>

#include "base/mutant.h"
#include "base/mutex.h"
#include "index/infer_index.h"

namespace dagstore {
namespace {

constexpr size_t kLiarsMax = 4096;  // shards remembered for bad blocks; they are asked last

}  // namespace

// Accessors by ordinal, least recently used first out. One that is being read is kept alive by its reader, and evicting
// it only lets go of the cache's share: a reader never finds it closed.
class IndexedBlockstore::Cache {
 public:
  Cache(DagStore& store, const IndexedBlockstoreOptions& options) : store_(store), options_(options) {}

  ShardCandidate Describe(ShardKey key, Ordinal ordinal) const {
    MutexLock lock(mu_);
    return {std::move(key), ordinal, by_ordinal_.contains(ordinal), liars_.contains(ordinal)};
  }
  void MarkLiar(Ordinal ordinal) {
    MutexLock lock(mu_);
    ++stats_.bad_blocks;
    if (liars_.size() < kLiarsMax) liars_.insert(ordinal);
  }

  absl::StatusOr<std::shared_ptr<const Accessor>> Get(const ShardKey& key, Ordinal ordinal) {
    std::vector<std::shared_ptr<const Accessor>> released;  // outlives the lock: releasing is not done under it
    {
      MutexLock lock(mu_);
      Expire(released);
      if (const auto it = by_ordinal_.find(ordinal); it != by_ordinal_.end()) {
        ++stats_.cache_hits;
        entries_.splice(entries_.end(), entries_, it->second);
        it->second->used = store_clock().Now();
        return it->second->accessor;
      }
      ++stats_.cache_misses;
    }
    ASSIGN_OR_RETURN(Accessor opened, store_.AcquireShardFor(key, options_.work));
    auto accessor = std::make_shared<const Accessor>(std::move(opened));
    const Ordinal actual = accessor->shard()->ordinal;
    MutexLock lock(mu_);
    if (by_ordinal_.contains(actual)) return accessor;  // another reader was faster; both are right
    entries_.push_back({actual, accessor, store_clock().Now()});
    by_ordinal_[actual] = std::prev(entries_.end());
    while (entries_.size() > options_.accessors_max) {
      ++stats_.evictions;
      Remove(entries_.begin(), released);
    }
    return accessor;
  }

  void Forget(Ordinal ordinal) {
    std::vector<std::shared_ptr<const Accessor>> released;
    MutexLock lock(mu_);
    if (const auto it = by_ordinal_.find(ordinal); it != by_ordinal_.end()) Remove(it->second, released);
  }

  void Trim() {
    std::vector<std::shared_ptr<const Accessor>> released;
    MutexLock lock(mu_);
    while (!entries_.empty()) Remove(entries_.begin(), released);
  }

  // Those that heed hints.
  absl::flat_hash_map<Ordinal, std::shared_ptr<const Accessor>> Remote() const {
    absl::flat_hash_map<Ordinal, std::shared_ptr<const Accessor>> remote;
    MutexLock lock(mu_);
    for (const Entry& entry : entries_) {
      if (entry.accessor->shard()->source->HeedsHints()) remote.emplace(entry.ordinal, entry.accessor);
    }
    return remote;
  }
  void CountGet() {
    MutexLock lock(mu_);
    ++stats_.gets;
  }
  IndexedBlockstoreStats Stats() const {
    MutexLock lock(mu_);
    IndexedBlockstoreStats stats = stats_;
    stats.accessors = entries_.size();
    return stats;
  }

 private:
  struct Entry {
    Ordinal ordinal = 0;
    std::shared_ptr<const Accessor> accessor = {};
    MonotonicNanos used = 0;
  };
  using Entries = std::list<Entry>;

  const Clock& store_clock() const {
    return store_.options().clock != nullptr ? *store_.options().clock : Clock::Real();
  }
  void Remove(Entries::iterator it, std::vector<std::shared_ptr<const Accessor>>& released)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    released.push_back(std::move(it->accessor));
    by_ordinal_.erase(it->ordinal);
    entries_.erase(it);
  }
  void Expire(std::vector<std::shared_ptr<const Accessor>>& released) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const MonotonicNanos limit = store_clock().Now() - absl::ToInt64Nanoseconds(options_.accessor_ttl);
    while (!entries_.empty() && entries_.front().used < limit) Remove(entries_.begin(), released);
  }

  DagStore& store_;
  const IndexedBlockstoreOptions& options_;
  mutable Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Ordinal, Entries::iterator> by_ordinal_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Ordinal> liars_ ABSL_GUARDED_BY(mu_);
  IndexedBlockstoreStats stats_ ABSL_GUARDED_BY(mu_);
};

IndexedBlockstore::IndexedBlockstore(DagStore& store, const IndexedBlockstoreOptions& options)
    : store_(store), options_(options), cache_(std::make_unique<Cache>(store, options_)) {}

IndexedBlockstore::~IndexedBlockstore() = default;

absl::StatusOr<std::vector<ShardCandidate>> IndexedBlockstore::Candidates(const CidView& cid) const {
  RETURN_IF_ERROR(store_.AwaitLookups());
  const DagStore::Lookup& lookup = store_.lookup();
  std::vector<ShardCandidate> candidates;
  RETURN_IF_ERROR(lookup.FindCandidates(
      {&cid.hash, 1}, options_.candidates_max,
      [&](size_t, Ordinal ordinal, const ShardKey& key) { candidates.push_back(cache_->Describe(key, ordinal)); }));
  if (options_.selector) {
    options_.selector(cid, candidates);
  } else {
    std::stable_partition(candidates.begin(), candidates.end(), [](const ShardCandidate& c) { return c.cached; });
    std::stable_partition(candidates.begin(), candidates.end(), [](const ShardCandidate& c) { return !c.served_bad; });
  }
  return candidates;
}

absl::StatusOr<std::optional<IndexEntry>> IndexedBlockstore::FindEntry(const CidView& cid,
                                                                          bool* inferred) const {
  ASSIGN_OR_RETURN(const std::vector<ShardCandidate> candidates, Candidates(cid));
  const DagStore::Lookup& lookup = store_.lookup();
  absl::Status error = absl::OkStatus();
  for (const ShardCandidate& candidate : candidates) {
    const auto entry = [&]() -> absl::StatusOr<std::optional<IndexEntry>> {
      std::shared_ptr<const ShardIndex> index;
      if (candidate.cached) {
        ASSIGN_OR_RETURN(const auto accessor, cache_->Get(candidate.key, candidate.ordinal));
        index = accessor->shard()->index;
      } else {
        ASSIGN_OR_RETURN(index, lookup.CurrentIndex(candidate.key));
      }
      if (index == nullptr) return std::nullopt;
      if (inferred != nullptr) *inferred = IsInferred(index->summary());
      std::optional<IndexEntry> first;
      RETURN_IF_ERROR(index->Find(cid.hash, [&](const IndexEntry& e) {
                        first = e;
                        first->hash = {};  // a view into the index, which may go
                        return false;
                      }).status());
      return first;
    }();
    if (entry.ok() && entry->has_value()) return entry;
    if (!entry.ok() && !absl::IsNotFound(entry.status())) error = entry.status();  // NotFound: destroyed meanwhile
  }
  RETURN_IF_ERROR(error);
  return std::optional<IndexEntry>();
}

absl::StatusOr<bool> IndexedBlockstore::Has(const CidView& cid) const {
  if (cid.IsIdentity()) return true;
  ASSIGN_OR_RETURN(const std::optional<IndexEntry> entry, FindEntry(cid));
  return entry.has_value();
}

absl::StatusOr<uint64_t> IndexedBlockstore::GetSize(const CidView& cid) const {
  if (cid.IsIdentity()) return cid.hash.digest.size();
  bool inferred = false;
  ASSIGN_OR_RETURN(const std::optional<IndexEntry> entry, FindEntry(cid, &inferred));
  if (!entry.has_value()) return NotFound("no shard has block {}", CidText(cid));
  if (!inferred) return entry->data_size;
  // The index has only an upper bound: what the head of the section says is it.
  uint64_t size = 0;
  RETURN_IF_ERROR(AskShards(cid, [&](const std::shared_ptr<const OpenShard>& shard, bool*) -> absl::Status {
    ASSIGN_OR_RETURN(size, ReadShardBlockSize(*shard, cid));
    return absl::OkStatus();
  }));
  return size;
}

void IndexedBlockstore::WillGet(std::span<const CidView> cids) const {
  const absl::flat_hash_map<Ordinal, std::shared_ptr<const Accessor>> remote = cache_->Remote();
  if (remote.empty()) return;
  std::vector<MultihashView> hashes;
  hashes.reserve(cids.size());
  for (const CidView& cid : cids) hashes.push_back(cid.hash);
  // Each of one shard only: it will be read from one.
  std::vector<bool> named(cids.size());
  absl::flat_hash_map<Ordinal, std::vector<CidView>> by_shard;
  const auto note = [&](size_t i, Ordinal ordinal, const ShardKey&) {
    if (named[i] || !remote.contains(ordinal)) return;
    named[i] = true;
    by_shard[ordinal].push_back(cids[i]);
  };
  const absl::Status found = store_.lookup().FindCandidates(hashes, options_.candidates_max, note);
  if (!found.ok()) return;  // whoever gets the block is told
  for (const auto& [ordinal, of_shard] : by_shard) HintShardBlocks(*remote.at(ordinal)->shard(), of_shard);
}

absl::Status IndexedBlockstore::Get(const CidView& cid, Block& block) const {
  if (cid.IsIdentity()) return AnswerIdentity(cid, block);
  return AskShards(cid, [&](const std::shared_ptr<const OpenShard>& shard, bool* index_damaged) {
    return ReadShardBlock(*shard, cid, block, index_damaged);
  });
}

absl::Status IndexedBlockstore::GetView(const CidView& cid, BlockView& view) const {
  if (cid.IsIdentity()) return Blockstore::GetView(cid, view);
  view.Look({}, nullptr);
  return AskShards(cid, [&](const std::shared_ptr<const OpenShard>& shard, bool* index_damaged) {
    return ViewShardBlock(shard, cid, view, index_damaged);
  });
}

absl::Status IndexedBlockstore::AskShards(const CidView& cid, ReadFromShard read) const {
  cache_->CountGet();
  ASSIGN_OR_RETURN(const std::vector<ShardCandidate> candidates, Candidates(cid));
  absl::Status error = absl::OkStatus();
  for (const ShardCandidate& candidate : candidates) {
    RETURN_IF_ERROR(options_.work.Check());
    const auto accessor = cache_->Get(candidate.key, candidate.ordinal);
    if (!accessor.ok()) {
      if (!absl::IsNotFound(accessor.status())) error = accessor.status();  // NotFound: destroyed meanwhile
      continue;
    }
    bool index_damaged = false;
    const absl::Status status = read((*accessor)->shard(), &index_damaged);
    if (status.ok()) return status;
    if (status.code() == absl::StatusCode::kNotFound) continue;  // another multihash with this fingerprint
    error = status;
    if (status.code() == absl::StatusCode::kDataLoss) {
      (*accessor)->ReportDamage(status, index_damaged ? Damage::kIndex : Damage::kBlock);
      if (index_damaged) cache_->Forget(candidate.ordinal);
      cache_->MarkLiar(candidate.ordinal);
      if (Mutant(kMutantLiarStopsReading)) return error;
    }
  }
  RETURN_IF_ERROR(error);
  return NotFound("no shard has block {}", CidText(cid));
}

absl::Status IndexedBlockstore::ForEachKey(absl::FunctionRef<bool(const MultihashView&)>) const {
  return Unimplemented("walking the keys of all shards: use ListShards and GetIterableIndex");
}

void IndexedBlockstore::Trim() { cache_->Trim(); }
IndexedBlockstoreStats IndexedBlockstore::Stats() const { return cache_->Stats(); }

absl::StatusOr<BlockData> BlockstoreGetter::Get(const CidView& cid) {
  auto view = std::make_shared<BlockView>();
  RETURN_IF_ERROR(blocks_.GetView(cid, *view));
  const Span data = view->data();
  return BlockData(data, std::move(view));
}

}  // namespace dagstore
