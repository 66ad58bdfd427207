// CAR export: the answer to a gateway request or `dag export`: blocks of the path, then of the scope, as one CARv1.
// Spec: trustless gateway (IPIP-402, IPIP-412); docs/format.md#traversal.
//
// Threads: one per call.
#pragma once

#include "dag/path.h"
#include "dag/traversal.h"
#include "shard/car_writer.h"

namespace dagstore {

struct CarExportOptions {
  // Absent: kEntity if there are entity_bytes, else kAll.
  std::optional<DagScope> scope = {};
  std::optional<EntityRange> entity_bytes = {};  // counts only with kEntity, and only for files
  bool dups = false;
  // Write identity CIDs as sections, as kubo `dag export` does. Gateway answers must not hold them.
  bool identity_sections = false;
  PathOptions path = {};
  // Budgets, opaque policy, prefetch and work; scope, range, dups and visit_identity are set from the fields above.
  TraverseOptions limits = {};
};

struct CarExportStats {
  TraverseStats walk = {};  // path blocks included
  uint64_t bytes_written = 0;
};

// Nothing is written before the path is resolved and the block at its end is at hand: until then an error is an
// answer of its own (NotFound: see ResolvePath). Later errors leave a CAR that is cut off at a section. The header's
// root is path.root. A path that ends inside a block (dag-cbor, dag-json) gives the blocks of the path and nothing
// below.
absl::Status ExportCar(BlockGetter& getter, const DagPath& path, const CarExportOptions& options,
                       ByteSink sink, CarExportStats* stats = nullptr);

}  // namespace dagstore
