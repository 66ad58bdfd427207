// BlockGetter: where the walks of dag/ get their blocks from, and BlockData, the bytes of one block.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "base/cid.h"

namespace dagstore {

// The bytes of a block, with whatever keeps them where they are. Copies share the keeper; a value.
class BlockData {
 public:
  BlockData() = default;
  // Takes the bytes over.
  explicit BlockData(Bytes bytes) {
    auto owner = std::make_shared<const Bytes>(std::move(bytes));
    bytes_ = *owner;
    keeper_ = std::move(owner);
  }
  // Views bytes that live while `keeper` does (a pinned mapping, a cache entry); null: longer than every walk.
  BlockData(Span bytes, std::shared_ptr<const void> keeper)
      : bytes_(bytes), keeper_(std::move(keeper)) {}

  Span bytes() const { return bytes_; }

 private:
  Span bytes_ = {};
  std::shared_ptr<const void> keeper_;
};

// Any thread that the implementation allows; a walk calls it from one.
class BlockGetter {
 public:
  virtual ~BlockGetter() = default;

  // The block, already checked against its CID if the implementation verifies. NotFound if it is not held here. `cid`
  // is the spelling of the link that was followed, so a section can be written with it.
  virtual absl::StatusOr<BlockData> Get(const CidView& cid) = 0;

  // A hint: these blocks will be asked for soon, nearest first. Must not block. Views live until it returns.
  virtual void Prefetch(std::span<const CidView> /*next*/) {}
};

// As getter.Get, but an identity CID is answered from the CID itself, and never asked for. DataLoss if such a CID holds
// more than kIdentityDigestBytesMax bytes.
absl::StatusOr<BlockData> GetBlock(BlockGetter& getter, const CidView& cid);

// For messages: the canonical text of a CID.
std::string CidText(const CidView& cid);

}  // namespace dagstore
