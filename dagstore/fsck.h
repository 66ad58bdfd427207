// Fsck: checks that everything a repository knows fits together. Reads records, indexes, the
// top-level index, roots and manifests; not the CAR files, which are for scrub.h.
//
// Changes nothing. Shards whose destruction is under way are waited for.
// Threads: Worker thread. Others may use the store meanwhile; a shard that changes under its check
// is passed over.
#pragma once

#include <absl/functional/function_ref.h>

#include <functional>
#include <string>

#include "dagstore/dagstore.h"

namespace dagstore {

enum class FsckPart : uint8_t {
  kRecord,      // cannot be decoded, or says what cannot be
  kQuarantine,  // was set aside because it could not be decoded
  kIndex,       // a shard index is missing or damaged
  kLookup,      // the top-level index is damaged, or does not lead to a block that a shard has
  kRoots,       // the roots table does not lead to a shard that has the root
  kManifest,    // a manifest cannot be read
  kDestroying,  // a shard should be gone and is not
};
const char* FsckPartName(FsckPart part);  // "index"

struct FsckProblem {
  FsckPart part = FsckPart::kRecord;
  ShardKey key = {};  // empty: of no single shard
  absl::Status status = absl::OkStatus();
};

struct FsckReport {
  uint64_t shards = 0;
  uint64_t errored = 0;  // known to be bad, with their cause: no problem of the repository
  uint64_t quarantined = 0;
  uint64_t indexes = 0;    // opened and checked
  uint64_t entries = 0;    // looked up by their multihash
  uint64_t roots = 0;      // looked up
  uint64_t manifests = 0;  // read
  uint64_t orphans = 0;    // indexes that no record owns: harmless, `gc` removes them
  uint64_t problems = 0;
};

// Told after each shard: shards done, shards in all.
using FsckProgress = std::function<void(uint64_t done, uint64_t total)>;

// Calls `visit` for each problem. An error means that the check could not go on: Cancelled,
// DeadlineExceeded, or the database.
absl::StatusOr<FsckReport> CheckStore(DagStore& store, const WorkContext& work,
                                      absl::FunctionRef<void(const FsckProblem&)> visit,
                                      const FsckProgress& progress = {});

}  // namespace dagstore
