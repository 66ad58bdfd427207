// Indexes as CARv2 files carry them: IndexSorted (0x0400) and MultihashIndexSorted (0x0401). Spec: ipld.io CARv2, and
// docs/format.md#car for what its prose leaves out. Written byte for byte as go-car does.
//
// A foreign index is input like any other: it is checked as a whole, and what it says of the payload is believed only
// after the payload has been walked (UseEmbeddedIndex).
// Threads: any; values.
#pragma once

#include <absl/functional/function_ref.h>

#include <memory>
#include <vector>

#include "index/index_builder.h"
#include "index/shard_index.h"

namespace dagstore {

inline constexpr uint64_t kCodecCarIndexSorted = 0x0400;
inline constexpr uint64_t kCodecCarMultihashIndexSorted = 0x0401;

// Entries of one width: `count` times digest and 64-bit offset.
struct CarIndexBucket {
  uint64_t code = 0;  // of the multihash; unknown (0) in 0x0400
  uint32_t digest_size = 0;
  uint64_t count = 0;
  Span entries = {};

  size_t width() const { return digest_size + 8; }
  Span digest(uint64_t i) const { return entries.subspan(i * width(), digest_size); }
  uint64_t offset(uint64_t i) const { return Load64(entries.data() + i * width() + digest_size); }
};

// A parsed index: views into the bytes it was parsed from.
struct CarIndexView {
  uint64_t codec = 0;
  uint64_t entries = 0;
  std::vector<CarIndexBucket> buckets = {};  // in file order: codes ascending, then widths ascending
};

// Parses a whole index: nothing may follow it. Checks every count and length against the bytes that are there, that
// codes and widths ascend without repeats, that digests ascend, and that offsets are below `payload_size`.
// DataLoss names what is wrong and where; Unimplemented for another index codec. Allocates a bucket list, no entries.
absl::StatusOr<CarIndexView> ParseCarIndex(Span bytes, uint64_t payload_size = ~uint64_t{0});

// The bytes of a parsed index again.
Bytes EncodeCarIndex(const CarIndexView& index);

// Which entries an exported index has. CARv2: identity CIDs are in it exactly if the file is marked as fully indexed.
enum class Identities : uint8_t { kLeaveOut, kInclude };

// Writes `index` front to back into `sink`. Duplicates come by ascending offset.
// DataLoss if the index is damaged; what the sink says. ResourceExhausted if 0x0400, whose order needs all entries in
// memory, would take more than 1 GiB.
absl::Status WriteCarIndex(const ShardIndex& index, uint64_t codec, Identities identities, IndexSink& sink);
absl::StatusOr<Bytes> EncodeCarIndex(const ShardIndex& index, uint64_t codec, Identities identities);

// Worker thread. Uses the index that the CARv2 itself carries, for registrations that do not hash: walks the heads of
// all sections and gives back the index of what is there, if the embedded one lists exactly that - every section, with
// or without the identity CIDs (with, if the header claims to be fully indexed), and nothing else.
// DataLoss says where they differ, NotFound that there is no embedded index, ResourceExhausted that it has more than
// `embedded_bytes_max`: the caller then builds an index as for any other CAR (and reports what it found).
inline constexpr uint64_t kEmbeddedIndexBytesMax = 256 << 20;  // 6.7 million entries; above it, build instead
absl::StatusOr<BuiltIndex> UseEmbeddedIndex(const RandomReader& source, const IndexBuildOptions& options,
                                            const IndexOutput& output, const WorkContext& context,
                                            const IndexProgress& progress = {},
                                            uint64_t embedded_bytes_max = kEmbeddedIndexBytesMax);

}  // namespace dagstore
