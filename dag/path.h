// Paths: "CID/a/b" through UnixFS directories, HAMT directories, and the maps and lists of dag-cbor and dag-json.
// Spec: trustless gateway and path gateway specs; docs/format.md#paths.
//
// Threads: one per call.
// Limits: PathOptions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/reader.h"
#include "dag/block_getter.h"

namespace dagstore {

inline constexpr size_t kPathTextBytesMax = 64 << 10;  // a URL is far shorter
inline constexpr size_t kPathSegmentsMax = 1024;       // as boxo's depth limit

struct DagPath {
  Cid root = {};
  std::vector<std::string> segments = {};  // compared as bytes; "." and ".." mean nothing
};
// "CID", "CID/a/b", "/ipfs/CID/a/b" or "ipfs://CID/a/b". Empty segments are passed over; percent-decoding is the
// caller's business. InvalidArgument if there is no CID or the text or the segments are too many.
absl::StatusOr<DagPath> ParseDagPath(std::string_view text);

struct PathOptions {
  uint64_t blocks_max = 4096;           // a segment takes one block, or one per HAMT level
  uint64_t held_bytes_max = 64 << 20;   // of the blocks returned
  WorkContext work = {};
};

struct PathBlock {
  Cid cid = {};  // as its parent spells it
  BlockData data = {};
};

struct ResolvedPath {
  // The blocks from the root to the terminus, every HAMT shard on the way included, each once.
  std::vector<PathBlock> blocks = {};
  // Segments that lead to a value inside the terminus (dag-cbor, dag-json), and that value; empty if the path ends at
  // the terminus itself.
  std::vector<std::string> remainder = {};
  Span value = {};  // in the terminus; lives as long as `blocks`

  const PathBlock& terminus() const { return blocks.back(); }
};

// NotFound: a segment does not exist (the message names it), or a block is missing. DataLoss: a block on the way is
// malformed. Unimplemented: a codec that cannot be walked here. ResourceExhausted: a limit. On an error
// `resolved.blocks` holds the blocks that were read before it.
absl::Status ResolvePath(BlockGetter& getter, const DagPath& path, const PathOptions& options,
                         ResolvedPath& resolved);

}  // namespace dagstore
