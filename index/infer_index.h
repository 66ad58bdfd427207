// InferIndex: makes the index of a remote CARv2 from the one it carries, so that a CAR of any size is usable after a
// few requests. Sections to be hashed are drawn with a secret, so that whoever made the file cannot know which.
//
// What it gives is an inferred index: offsets are the file's word, sizes are upper bounds (up to the next section that
// is listed), summary().verified is false and every entry counts as unverified. Blocks read through it are hashed like
// any other, so a lie costs a failed read, never a wrong byte. The store replaces it once it has all bytes.
#pragma once

#include "base/siphash.h"
#include "index/index_builder.h"
#include "index/shard_index.h"

namespace dagstore {

struct InferOptions {
  uint64_t bytes_max = 64 << 20;  // of the embedded index
  int samples = 8;
  SipKey seed = {};
};

// Worker thread. OutOfRange if the embedded index is larger than bytes_max, NotFound if there is none, Unimplemented
// for the form 0x0400 (it does not say which hash functions it lists), DataLoss if it is malformed or a sample is not
// what it says: the caller then indexes the payload. Else what the source says, or `context`.
absl::StatusOr<BuiltIndex> InferIndex(const RandomReader& source, const IndexBuildOptions& options,
                                      const IndexOutput& output, const WorkContext& context, const InferOptions& infer);

// True for an index that InferIndex made: its sizes are upper bounds.
inline bool IsInferred(const IndexSummary& summary) {
  return !summary.verified && summary.entries != 0 && summary.unverified == summary.entries;
}

}  // namespace dagstore
