// Traversal: walks a DAG depth first, each block before its links, links in encoded order. No recursion: chains of
// millions of blocks are ordinary (Filecoin).
// Spec: trustless gateway dag-scope and entity-bytes (IPIP-402), dups (IPIP-412); docs/format.md#traversal.
//
// Threads: a walk belongs to one thread; the getter decides where it may be called.
// Memory: the links not followed yet (pending_bytes_max), four bytes per level of depth, and without dups the keys of
// all blocks seen (about 90 bytes each).
#pragma once

#include <absl/functional/function_ref.h>

#include <optional>
#include <string_view>

#include "base/reader.h"
#include "dag/block_getter.h"

namespace dagstore {

enum class DagScope : uint8_t {
  kBlock,   // the root block
  kEntity,  // a whole UnixFS file, or all shards of a HAMT directory; of anything else the root block
  kAll,     // everything below
};

// entity-bytes: both ends inclusive, but for a negative `to` (see ResolveRange); negative counts from the end; no `to`
// is the end ("*").
struct EntityRange {
  int64_t from = 0;
  std::optional<int64_t> to = {};
};
// "from:to". InvalidArgument if it is malformed, or from > to with the same sign.
absl::StatusOr<EntityRange> ParseByteRange(std::string_view text);

// Bytes [begin, end) of something.
struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool empty() const { return begin >= end; }
};
// What `range` means for `size` bytes; empty if it lies outside. A negative `to` names the first byte that is left
// out: 0:-1 is all but the last byte, as in go-trustless-utils and the vectors of @ipld/specs.
Extent ResolveRange(const EntityRange& range, uint64_t size);

enum class OpaquePolicy : uint8_t {
  kLeaf,   // a block whose codec is not known here has no links
  kError,  // it ends the walk: Unimplemented
};

struct TraverseOptions {
  DagScope scope = DagScope::kAll;
  // kEntity only: of a file, only blocks with bytes in the range (and the root). Ignored for anything but files.
  std::optional<EntityRange> range = {};
  // Visit a block each time it is met. If not: the first time only, and what is below it is not walked again. Blocks
  // are the same if multihash and codec are.
  bool dups = false;
  // Visit identity CIDs too. Their links are followed in any case.
  bool visit_identity = false;
  OpaquePolicy opaque = OpaquePolicy::kLeaf;

  // Budgets: ResourceExhausted above. The defaults are what no honest DAG of one shard reaches; with dups a small DAG
  // can have any number of visits.
  uint64_t blocks_max = uint64_t{1} << 32;        // visits
  uint64_t bytes_max = uint64_t{1} << 46;         // of visited blocks
  uint64_t links_max = uint64_t{1} << 34;         // links read
  uint64_t depth_max = uint64_t{1} << 26;         // links from the root to a block
  uint64_t pending_bytes_max = uint64_t{1} << 28; // of links read and not followed yet: 256 MiB of memory

  // Links of each block passed to BlockGetter::Prefetch, at most; 0: none. As many as a partial copy takes.
  size_t prefetch_links_max = 256;
  // Looked at before each block.
  WorkContext work = {};
};

// What a walk has seen.
struct TraverseStats {
  uint64_t blocks = 0;  // visits
  uint64_t bytes = 0;   // of visited blocks
  uint64_t links = 0;   // read
};

// The status of the visitor, if not OK, ends the walk.
using BlockVisitor = absl::FunctionRef<absl::Status(const CidView& cid, const BlockData& data)>;

// Walks from `root`. `cid` of a visit is the link as its block spells it.
// NotFound: a block is missing; the message names it and the way to it by link numbers. DataLoss: a block is not of its
// codec, or not the file or shard its place requires. ResourceExhausted: a budget. Or what the getter or visitor says.
absl::Status Traverse(BlockGetter& getter, const CidView& root, const TraverseOptions& options,
                      BlockVisitor visit, TraverseStats* stats = nullptr);

// As above, with the root block already at hand.
absl::Status TraverseFrom(BlockGetter& getter, const CidView& root, const BlockData& root_data,
                          const TraverseOptions& options, BlockVisitor visit,
                          TraverseStats* stats = nullptr);

}  // namespace dagstore
