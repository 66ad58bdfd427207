// ShardIndex: where each block of one shard lies. Immutable once built; read in place, never loaded whole.
// Format: docs/format.md#shard-index.
//
// Threads: any, concurrently. A view into the index lives as long as the index object.
#pragma once

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cid.h"

namespace dagstore {

// One section of the payload, as the index knows it.
struct IndexEntry {
  MultihashView hash = {};
  uint64_t offset = 0;      // of the section, from the start of the payload
  uint32_t head_size = 0;   // varint and CID of that section
  uint32_t data_size = 0;   // bytes of the block
  uint64_t codec = 0;       // of the section's CID

  uint64_t size() const { return uint64_t{head_size} + data_size; }
};

// What the index says of the whole shard.
struct IndexSummary {
  uint64_t entries = 0;          // sections, duplicates and identity CIDs included
  uint64_t identity_entries = 0;
  uint64_t block_bytes = 0;      // sum of data sizes
  uint64_t payload_offset = 0;   // where the payload begins in the source
  uint64_t payload_size = 0;     // bytes, up to where it ended
  uint64_t source_size = 0;      // bytes of the whole source when it was indexed
  uint64_t unverified = 0;       // blocks whose hash function is not known here
  bool verified = false;         // every other block was hashed while indexing
  int car_version = 1;
};

class ShardIndex {
 public:
  virtual ~ShardIndex() = default;

  virtual const IndexSummary& summary() const = 0;
  virtual const std::vector<Cid>& roots() const = 0;

  // Every section with this multihash, by ascending offset; `visit` returns false to stop. Returns the number visited.
  // DataLoss if the part of the index that had to be read is damaged: an error, never "not found"; sections visited
  // before it are sound. At most two page faults, as a rule, when nothing is in memory.
  virtual absl::StatusOr<size_t> Find(const MultihashView& hash,
                                      absl::FunctionRef<bool(const IndexEntry&)> visit) const = 0;
  // All entries in index order (code, digest length, digest, offset); `visit` returns false to stop. DataLoss as Find.
  virtual absl::Status ForEach(absl::FunctionRef<bool(const IndexEntry&)> visit) const = 0;
  // Bytes of the stored form.
  virtual uint64_t SizeBytes() const = 0;
  // Stands for the exact contents: a record keeps it, and whoever opens the stored form compares. Constant time.
  virtual uint32_t Checksum() const = 0;
  // Reads everything and checks every checksum, the order and the sums. DataLoss if anything differs.
  virtual absl::Status CheckAll() const = 0;

  absl::StatusOr<bool> Contains(const MultihashView& hash) const {
    absl::StatusOr<size_t> visited = Find(hash, [](const IndexEntry&) { return false; });
    if (!visited.ok()) return visited.status();
    return *visited != 0;
  }
};

}  // namespace dagstore
