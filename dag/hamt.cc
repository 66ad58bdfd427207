#include "dag/hamt.h"

#include <bit>

#include "base/mutant.h"

namespace dagstore {
namespace {

constexpr int kHashBits = 64;

// Upper-case hex, zero padded: the prefix of the names in a bucket.
struct Prefix {
  uint8_t digits[4];
};
Prefix PrefixOf(uint64_t bucket, size_t size) {
  Prefix prefix = {};
  for (size_t i = size; i-- > 0; bucket >>= 4) prefix.digits[i] = static_cast<uint8_t>("0123456789ABCDEF"[bucket & 15]);
  return prefix;
}

HamtEntry EntryOf(const PbLink& link, size_t prefix_size) {
  const Span name = link.name.value_or(Span());
  return {link, name.size() == prefix_size, name.subspan(prefix_size)};
}

}  // namespace

absl::StatusOr<HamtShard> HamtShard::Open(const PbNode& node, const UnixFs& fs) {
  const uint64_t fanout = fs.fanout();
  if (fs.kind() != UnixFsKind::kHamtShard) return DataLoss("HAMT: a {} is not a shard", UnixFsKindName(fs.kind()));
  if ((!std::has_single_bit(fanout) || fanout % 8 != 0 || fanout > kHamtFanoutMax) && !Mutant(kMutantAnyFanout)) {
    return DataLoss("HAMT: fanout {}", fanout);
  }
  if (fs.hash_type() != kMurmur3X64_64) return DataLoss("HAMT: hash function 0x{:x}", fs.hash_type());

  HamtShard shard;
  shard.node_ = node;
  shard.bits_ = std::countr_zero(fanout);
  shard.prefix_size_ = static_cast<size_t>(shard.bits_ + 3) / 4;
  shard.bitmap_ = fs.data();
  if (shard.bitmap_.size() > fanout / 8) {
    return DataLoss("HAMT: bitmap of {} bytes for fanout {}", shard.bitmap_.size(), fanout);
  }

  // One link per set bit, in the order of the buckets.
  PbNode::Cursor at(node);
  for (uint64_t bucket = 0; bucket < fanout; ++bucket) {
    if (!shard.BitSet(bucket)) continue;
    PbLink link;
    if (!at.Next(link)) return DataLoss("HAMT: more bits than the {} links", node.link_count());
    const Prefix prefix = PrefixOf(bucket, shard.prefix_size_);
    if (!link.name || !StartsWith(*link.name, Span(prefix.digits, shard.prefix_size_))) {
      return DataLoss("HAMT: the link of bucket {} is not named after it", bucket);
    }
  }
  PbLink extra;
  if (at.Next(extra)) return DataLoss("HAMT: fewer bits than the {} links", node.link_count());
  return shard;
}

bool HamtShard::BitSet(uint64_t bucket) const {
  const size_t byte = bucket / 8;
  return byte < bitmap_.size() && (bitmap_[bitmap_.size() - 1 - byte] >> (bucket % 8) & 1) != 0;
}

bool HamtShard::Cursor::Next(HamtEntry& entry) {
  PbLink link;
  if (!links_.Next(link)) return false;
  entry = EntryOf(link, prefix_size_);
  return true;
}

absl::StatusOr<HamtEntry> HamtShard::Find(Span name, uint64_t hash, int bits_used) const {
  if (bits_used + bits_ > kHashBits) return DataLoss("HAMT: deeper than the {} bits of its hash", kHashBits);
  const uint64_t bucket = hash << bits_used >> (kHashBits - bits_);
  const absl::Status absent = NotFound("no entry \"{}\"", AsText(name));
  if (!BitSet(bucket)) return absent;
  PbNode::Cursor at(node_);
  PbLink link;
  for (uint64_t before = 0; before < bucket; ++before) {
    if (BitSet(before)) at.Next(link);
  }
  at.Next(link);
  const HamtEntry entry = EntryOf(link, prefix_size_);
  if (!entry.is_shard && !SameBytes(entry.name, name)) return absent;
  return entry;
}

}  // namespace dagstore
