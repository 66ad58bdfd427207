// UnixFS: the Data message inside a dag-pb node.
// Spec: specs.ipfs.tech/unixfs; docs/format.md#unixfs.
//
// Threads: values over bytes that belong to someone else.
// Limits: nothing is allocated; a message is as large as its block.
#pragma once

#include <optional>

#include "base/bytes.h"

namespace dagstore {

enum class UnixFsKind : uint8_t {
  kRaw = 0,
  kDirectory = 1,
  kFile = 2,
  kMetadata = 3,
  kSymlink = 4,
  kHamtShard = 5,
};
std::string_view UnixFsKindName(UnixFsKind kind);

// A decoded Data message; `data` and the block sizes are views.
class UnixFs {
 public:
  // DataLoss if the message is malformed, has no Type or an unknown one, repeats a field that is not repeatable, or its
  // sizes do not fit 63 bits. Unknown fields are passed over, as protobuf wants.
  static absl::StatusOr<UnixFs> Decode(Span message);

  UnixFsKind kind() const { return kind_; }
  bool IsFile() const { return kind_ == UnixFsKind::kFile || kind_ == UnixFsKind::kRaw; }
  Span data() const { return data_; }
  std::optional<uint64_t> declared_size() const { return declared_size_; }
  uint64_t block_size_count() const { return block_size_count_; }
  uint64_t block_size_sum() const { return block_size_sum_; }
  // Content bytes of a file: inline data and children. Below 2^63.
  uint64_t content_size() const { return data_.size() + block_size_sum_; }
  uint64_t hash_type() const { return hash_type_; }
  uint64_t fanout() const { return fanout_; }
  std::optional<uint64_t> mode() const { return mode_; }
  std::optional<int64_t> mtime_seconds() const { return mtime_seconds_; }

  // DataLoss unless this is a file or raw node with one block size per link, and a declared size (if any) that is the
  // sum of its parts.
  absl::Status CheckFile(uint64_t link_count) const;

  // The size of each child, in link order: `for (UnixFs::SizeCursor at(file); at.Next(size);)`.
  class SizeCursor {
   public:
    explicit SizeCursor(const UnixFs& node) : rest_(node.message_) {}
    bool Next(uint64_t& size);

   private:
    Span rest_;         // fields not looked at yet
    Span packed_ = {};  // sizes of the packed field at hand
  };

 private:
  Span message_ = {};
  UnixFsKind kind_ = UnixFsKind::kRaw;
  Span data_ = {};
  std::optional<uint64_t> declared_size_;
  uint64_t block_size_count_ = 0;
  uint64_t block_size_sum_ = 0;
  uint64_t hash_type_ = 0;
  uint64_t fanout_ = 0;
  std::optional<uint64_t> mode_;
  std::optional<int64_t> mtime_seconds_;
};

}  // namespace dagstore
