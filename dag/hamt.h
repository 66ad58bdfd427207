// HAMT directories of UnixFS: one shard, its buckets, and the path of a name through the shards.
// Spec: specs.ipfs.tech/unixfs (HAMTShard); docs/format.md#hamt. Bits of the hash are used from the most significant
// end, as boxo does; the specification's wording misleads.
//
// Threads: values over a block that belongs to someone else.
// Limits: kHamtFanoutMax, checked before anything is derived from a fanout; nothing is allocated.
#pragma once

#include <string_view>

#include "dag/dag_pb.h"
#include "dag/unixfs.h"

namespace dagstore {

inline constexpr uint64_t kHamtFanoutMax = 1024;  // as kubo; CVE-2023-23625 and its kin had none

// What a link of a shard is.
struct HamtEntry {
  PbLink link = {};
  bool is_shard = false;  // a child shard: the link name is nothing but the bucket prefix
  Span name = {};         // of an entry: the link name without the prefix
};

class HamtShard {
 public:
  // DataLoss unless `fs` is the Data of `node` and a well-formed shard: fanout a power of two, a multiple of 8 and at
  // most kHamtFanoutMax; murmur3-x64-64; a bitmap no wider than the fanout with one bit per link; link names that
  // begin with the prefixes of those buckets.
  static absl::StatusOr<HamtShard> Open(const PbNode& node, const UnixFs& fs);

  int bits() const { return bits_; }  // of the hash used by this shard

  // Walks all links in encoded order.
  class Cursor {
   public:
    explicit Cursor(const HamtShard& shard) : links_(shard.node_), prefix_size_(shard.prefix_size_) {}
    bool Next(HamtEntry& entry);

   private:
    PbNode::Cursor links_;
    size_t prefix_size_;
  };

  // The link of the bucket of `name`, if that is the name's entry or a child shard to go on in. `hash` is
  // Murmur3X64_64 of the name, `bits_used` is what the shards above took of it. NotFound if the name is not here;
  // DataLoss if the hash has no bits left.
  absl::StatusOr<HamtEntry> Find(Span name, uint64_t hash, int bits_used) const;

 private:
  bool BitSet(uint64_t bucket) const;

  PbNode node_;
  Span bitmap_ = {};  // big endian, without leading zero bytes
  int bits_ = 0;
  size_t prefix_size_ = 0;  // hex digits
};

}  // namespace dagstore
