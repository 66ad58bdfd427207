// Blockstore: blocks by CID. Over one shard (Accessor::NewBlockstore) or over all (IndexedBlockstore).
//
// Bytes are hashed before they are handed out, and those that do not match their CID are not. Options::verify_reads may
// ask for less: kOncePerCopy does not hash again what was hashed while indexing, as long as the source's validator is
// the same; kNever hashes nothing. The multihash in the section's head is compared always. What cannot be verified
// (base/hashing.h: functions that are not known, short digests) is handed out as it is.
#pragma once

#include <absl/functional/function_ref.h>

#include <memory>

#include "base/cid.h"

namespace dagstore {

// One block. Owns its bytes; reuse one object for many Gets to reuse its memory.
class Block {
 public:
  Span data() const { return {buffer_.get() + begin_, size_}; }

  // For blockstores: room for `size` bytes, uninitialised; the block is then [begin, begin + length) of it.
  uint8_t* Room(size_t size) {
    if (size > capacity_) {
      buffer_ = std::make_unique_for_overwrite<uint8_t[]>(size);
      capacity_ = size;
    }
    return buffer_.get();
  }
  void SetData(size_t begin, size_t length) {
    begin_ = begin;
    size_ = length;
  }
  void Assign(Span bytes) {
    if (!bytes.empty()) std::memcpy(Room(bytes.size()), bytes.data(), bytes.size());
    SetData(0, bytes.size());
  }

 private:
  std::unique_ptr<uint8_t[]> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t size_ = 0;
};

// A block where it lies, if that is in memory of ours (a mapped local copy, a `bytes:` shard), else a copy of it. Keeps
// alive what it looks at: the files stay open, whatever becomes of the shard. One owner; reuse one object for many
// GetViews.
class BlockView {
 public:
  Span data() const { return data_; }
  bool copied() const { return pin_ == nullptr; }

  // For blockstores.
  void Look(Span data, std::shared_ptr<const void> pin) {
    data_ = data;
    pin_ = std::move(pin);
  }
  Block& copy() { return copy_; }
  void LookAtCopy() { Look(copy_.data(), nullptr); }

 private:
  Span data_;
  std::shared_ptr<const void> pin_;
  Block copy_;
};

// Any thread, concurrently.
class Blockstore {
 public:
  virtual ~Blockstore() = default;
  // By the index alone; nothing is read. Identity CIDs: true.
  virtual absl::StatusOr<bool> Has(const CidView& cid) const = 0;
  // Bytes, by the index alone, unless the index is an inferred one (index/infer_index.h): then the section's head is
  // read. NotFound.
  virtual absl::StatusOr<uint64_t> GetSize(const CidView& cid) const = 0;
  // NotFound; DataLoss if the bytes there are not the block's; on an error `block` holds nothing of use.
  virtual absl::Status Get(const CidView& cid, Block& block) const = 0;
  // As Get, checks included, without copying the bytes if they need not be.
  virtual absl::Status GetView(const CidView& cid, BlockView& view) const;
  // These blocks will be got soon, in this order: what lies behind a network may be fetched together and ahead. A hint.
  virtual void WillGet(std::span<const CidView> cids) const { (void)cids; }
  // The multihash of every block, identity CIDs and duplicates included; `visit` returns false to stop.
  virtual absl::Status ForEachKey(absl::FunctionRef<bool(const MultihashView&)> visit) const = 0;
};

// The block that an identity CID holds in itself. InvalidArgument if it is longer than such a CID may be.
absl::Status AnswerIdentity(const CidView& cid, Block& block);

struct OpenShard;
// Reads a block of one shard. The building block of both stores.
// DataLoss also if index and payload disagree; `index_damaged` then says which of them to blame.
absl::Status ReadShardBlock(const OpenShard& shard, const CidView& cid, Block& block, bool* index_damaged = nullptr);
absl::Status ViewShardBlock(const std::shared_ptr<const OpenShard>& shard, const CidView& cid, BlockView& view,
                            bool* index_damaged = nullptr);
// What GetSize of one shard says.
absl::StatusOr<uint64_t> ReadShardBlockSize(const OpenShard& shard, const CidView& cid);
// What WillGet of one shard does: nothing where its source is local.
void HintShardBlocks(const OpenShard& shard, std::span<const CidView> cids);
// Blocks of `shard`, which stays open as long as the blockstore.
std::unique_ptr<Blockstore> NewShardBlockstore(std::shared_ptr<const OpenShard> shard);

}  // namespace dagstore
