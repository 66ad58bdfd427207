// TopIndex: which shards may hold a multihash. Derived data: everything in it can be made again from the shard indexes,
// so nothing on the ingest path is synced. Format and recovery: docs/format.md#top-level-index.
//
// Keys are keyed 64-bit fingerprints of multihashes (a secret per store), values are shard ordinals. An answer is a set
// of candidates: no shard that holds the multihash is missing (no false negatives, ever), and a few that do not hold it
// may be present; callers confirm each in its shard index. Ordinals are never reused, so removing a shard is forgetting
// its ordinal: the caller drops dead candidates, and merges drop dead entries.
//
// Threads: any. Add and Find never wait for a merge.
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

Fingerprint FingerprintOf(const SipKey& secret, const MultihashView& hash);

struct TopIndexOptions {
  std::string dir = {};                  // runs live here; empty: memory only
  size_t buffer_entries_max = 4 << 20;   // 12 to 16 bytes each; full = written as a run
  int merge_fan_in = 8;                  // runs of one tier before they are merged
};

struct TopIndexStats {
  uint64_t entries = 0;         // dead ones included
  uint64_t buffered = 0;        // of these, in memory only
  uint64_t dead = 0;            // entries of dropped ordinals, as far as counted
  uint64_t runs = 0;
  uint64_t bytes = 0;           // on disk
  uint64_t merges = 0;          // since open
};

class TopIndex {
 public:
  virtual ~TopIndex() = default;

  // Adds fingerprints of one shard, any number of times; `sorted` is ascending, duplicates are kept once. Large parts may
  // be written as a run of their own by the calling (worker) thread. Found by Find once this returns.
  virtual absl::Status Add(Ordinal ordinal, std::vector<Fingerprint> sorted) = 0;
  // Everything of this shard has been added: from the next flush on, Covers(ordinal) may be true.
  virtual void Seal(Ordinal ordinal) = 0;

  // Forgets an ordinal: Find never returns it again. Constant time.
  virtual void Drop(Ordinal ordinal) = 0;

  // For each key, `visit(index into keys, ordinal)` for every candidate, in no particular order, each ordinal once per key.
  // Built for batches: pass many keys at once. `visit` runs with no lock held.
  virtual void Find(std::span<const Fingerprint> keys, absl::FunctionRef<void(size_t, Ordinal)> visit) const = 0;

  // True if runs on disk hold all of this ordinal: asked at open, to know which shards must be added again.
  virtual bool Covers(Ordinal ordinal) const = 0;

  // Writes the buffer as a run and records what the runs cover. At Close, and by tests.
  virtual absl::Status Flush() = 0;

  virtual TopIndexStats Stats() const = 0;
  // Checks every checksum of every run. DataLoss names the damaged run.
  virtual absl::Status CheckAll() const = 0;
};

// Opens what `kv` (table kTopIndex) and the folder say, dropping runs that are damaged or not listed (their shards are
// then not covered). `kv` and `io` must outlive the index.
absl::StatusOr<std::unique_ptr<TopIndex>> OpenTopIndex(const TopIndexOptions& options, Kv& kv, Io& io);

}  // namespace dagstore
