// TopIndex: which shards may hold a multihash. Derived data: everything in it can be made again from the shard indexes,
// so nothing on the ingest path is synced. Format and recovery: docs/format.md#top-level-index.
//
// Keys are keyed 64-bit fingerprints of multihashes (a secret per store), values are shard ordinals. An answer is a set
// of candidates: no shard that holds the multihash is missing (no false negatives, ever), and a few that do not hold it
// may be present (entries / 2^51 a miss); callers confirm each in its shard index. Ordinals are never reused, not even
// after a crash (see OrdinalsEnd), so removing a shard is forgetting its ordinal: Find skips dead entries, merges drop
// them.
//
// Shape: a table in memory takes new entries; when it is full it is frozen and a thread of the index writes it as an
// immutable sorted run, and merges runs of similar size. Readers hold a snapshot: they never wait for a write or merge.
//
// Owner's protocol. Open; DropAllExcept(ordinals of the records); for each live ordinal without Covers: Add, Seal.
// After that: Add any number of times and Seal once for each new shard, Drop for each that goes; Flush before closing.
// When Find says DataLoss: DropDamaged, then Add and Seal what it returned. Find never claims to be complete while it
// is not.
//
// Threads: any, but Add, Seal, Flush, CheckAll, DropDamaged and the destructor may wait for the disk: never on the
// loop.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/io.h"
#include "base/kv.h"
#include "base/multihash.h"
#include "base/siphash.h"

namespace dagstore {

using Ordinal = uint32_t;  // one per built shard index; 0 is never used
using Fingerprint = uint64_t;

// SipHash of `varint code | varint length | digest`.
Fingerprint FingerprintOf(const SipKey& secret, const MultihashView& hash);

struct TopIndexOptions {
  std::string dir = {};                 // runs live here, made if absent; empty: memory only
  size_t buffer_entries_max = 4 << 20;  // 20 bytes each, 72 while one table is written; full = written as a run
  int merge_fan_in = 8;                 // runs of one tier before they are merged; at least 2
  // Entries of one run, about. What a merge would make larger is split by ranges of keys, each merged with its like
  // only from then on: so a merge needs at most merge_fan_in times this in extra space (5 GB), however large the whole
  // index is.
  uint64_t run_entries_max = uint64_t{64} << 20;
  // Runs of at most so many entries have a filter, 1.25 bytes an entry: a key that is not there then costs one cache
  // line in each of them. 0: no filters. All runs have one by default, as entries are 8 bytes from 3 million on.
  uint64_t filter_entries_max = uint64_t{128} << 20;
  // Bytes of directories (0.2 an entry) and filters kept in memory, replaced runs included until their last reader is
  // gone. A run for which too little is left keeps 0.01 bytes an entry (not counted here) and reads 4.6 KB for each
  // key: for an index larger than memory.
  uint64_t resident_bytes_max = uint64_t{1} << 30;
};

struct TopIndexStats {
  uint64_t entries = 0;       // dead ones included
  uint64_t buffered = 0;      // of these, in the tables in memory only
  uint64_t dead = 0;          // entries in runs of dropped ordinals, as last estimated by the merging thread
  uint64_t runs = 0;
  uint64_t runs_damaged = 0;  // of these; see DropDamaged
  uint64_t awaited = 0;       // ordinals that must be sealed before Find is complete
  uint64_t bytes = 0;         // of the runs
  uint64_t lists = 0;         // in runs: of keys that more than 64 shards hold
  uint64_t resident_bytes = 0;  // of resident_bytes_max
  uint64_t flushes = 0;       // tables written since open
  uint64_t merges = 0;        // since open
  uint64_t merge_failures = 0;  // since open: no space, say; tried again at the next write or drop
};

class TopIndex {
 public:
  virtual ~TopIndex() = default;  // stops a merge; what is not in runs is forgotten, as by a crash

  // Worker thread. Adds fingerprints of one shard, any number of times; `sorted` is ascending, duplicates are kept
  // once. From buffer_entries_max / 4 on they are written as a run of their own by the calling thread. Found by Find
  // once this returns. Waits while one full table is being written and the next is full too; the error if that write
  // fails: part may have been added then, and adding all again is right.
  virtual absl::Status Add(Ordinal ordinal, std::vector<Fingerprint> sorted) = 0;
  // Worker thread. Everything of this shard has been added: once runs hold it all, Covers(ordinal) is true.
  virtual void Seal(Ordinal ordinal) = 0;

  // Any thread. Forgets an ordinal: Find never returns it again. Constant time, no disk; not stored: at the next open
  // DropAllExcept says it again.
  virtual void Drop(Ordinal ordinal) = 0;
  // After open and before anything else. Forgets every ordinal that `live` (by ordinal) does not name. Live ordinals
  // that are not covered are awaited: Find is Unavailable until each was sealed or dropped.
  virtual void DropAllExcept(const std::vector<bool>& live) = 0;

  // Any thread. For each key, `visit(index into keys, ordinal)` for every candidate, each ordinal once per key; those
  // of a key together, and the keys in order. Built for batches: pass many keys at once. `visit` runs with no lock
  // held. At most `ordinals_max` for each key, whichever: who asks for strangers limits it, as memory grows with the
  // candidates of 16 keys, 8 bytes each; fewer than that are all there are.
  // On an error what was visited is right but may not be all: DataLoss names a damaged run; Unavailable while awaited
  // shards have not been added.
  virtual absl::Status Find(std::span<const Fingerprint> keys,
                            absl::FunctionRef<void(size_t, Ordinal)> visit,
                            size_t ordinals_max = SIZE_MAX) const = 0;
  // Any thread. A page of the candidates of one key, however many it has: the least `ordinals_max` above `after`,
  // ascending; fewer: that was all. Begin after 0, go on after the last. Candidates that are there from the first page
  // to the last are in one of them. Memory: at most 24 bytes for each of `ordinals_max`. Errors as Find.
  virtual absl::Status FindPage(Fingerprint key, Ordinal after, size_t ordinals_max,
                                std::vector<Ordinal>& page) const = 0;

  // Any thread. True if runs on disk hold all of this ordinal: asked at open, to know which shards must be added again.
  virtual bool Covers(Ordinal ordinal) const = 0;
  // Any thread. One past the greatest ordinal that any run or the coverage knows; the owner's counter starts no lower.
  virtual uint64_t OrdinalsEnd() const = 0;

  // Worker thread. Writes the table as a run and records what the runs cover. At Close, and by tests.
  virtual absl::Status Flush() = 0;

  // Any thread. OK, or DataLoss naming the first run known to be damaged.
  virtual absl::Status Health() const = 0;
  // Worker thread. Takes damaged runs away, and their ordinals out of the coverage, in one synced commit. Returns the
  // ordinals to be added and sealed again, which are awaited from here on. Not between an Add and its Seal.
  virtual absl::StatusOr<std::vector<Ordinal>> DropDamaged() = 0;

  virtual TopIndexStats Stats() const = 0;
  // Worker thread. Checks every checksum of every run. DataLoss names the damaged run.
  virtual absl::Status CheckAll() const = 0;
  // Worker thread. Writes what is in memory and merges all runs, to one for each range of keys. Lookups are fastest
  // then; takes twice the space meanwhile.
  virtual absl::Status Compact() = 0;
  // Worker thread. Waits until nothing is left to write or merge. For tests and benchmarks.
  virtual void AwaitIdle() = 0;
};

// Opens what `kv` (table kTopIndex) and the folder say, dropping runs that are damaged or absent (the ordinals in their
// range are then not covered) and deleting runs that are not listed. Each directory and filter is read once.
// FailedPrecondition if a newer version wrote it. Errors of the disk that may pass are returned and change nothing.
// `kv` and `io` must outlive the index.
absl::StatusOr<std::unique_ptr<TopIndex>> OpenTopIndex(const TopIndexOptions& options, Kv& kv, Io& io);

}  // namespace dagstore
