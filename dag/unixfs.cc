#include "dag/unixfs.h"

#include "base/check.h"
#include "base/protobuf.h"

namespace dagstore {
namespace {

enum DataField : uint64_t {
  kType = 1,
  kData = 2,
  kFileSize = 3,
  kBlockSizes = 4,
  kHashType = 5,
  kFanout = 6,
  kMode = 7,
  kMtime = 8,
};
constexpr uint64_t kMtimeSeconds = 1;
constexpr uint64_t kSizeMax = uint64_t{INT64_MAX};  // so that offsets and lengths can be added without care

// Seconds of the UnixTime message; nothing if it has none. False if malformed.
bool ReadMtime(Span message, std::optional<int64_t>& seconds) {
  while (!message.empty()) {
    ProtoField field;
    if (!TakeProtoField(message, field)) return false;
    if (field.number == kMtimeSeconds && field.type == WireType::kVarint) {
      seconds = static_cast<int64_t>(field.value);
    }
  }
  return true;
}

}  // namespace

std::string_view UnixFsKindName(UnixFsKind kind) {
  switch (kind) {
    case UnixFsKind::kRaw: return "raw";
    case UnixFsKind::kDirectory: return "directory";
    case UnixFsKind::kFile: return "file";
    case UnixFsKind::kMetadata: return "metadata";
    case UnixFsKind::kSymlink: return "symlink";
    case UnixFsKind::kHamtShard: return "hamt-shard";
  }
  return "unknown";
}

absl::StatusOr<UnixFs> UnixFs::Decode(Span message) {
  UnixFs node;
  node.message_ = message;
  uint32_t seen = 0;  // bit n: field n
  for (Span rest = message; !rest.empty();) {
    ProtoField field;
    if (!TakeProtoField(rest, field)) return DataLoss("UnixFS: malformed message");
    if (field.number > kMtime) continue;
    const bool is_bytes = field.number == kData || field.number == kMtime ||
                          (field.number == kBlockSizes && field.type == WireType::kBytes);
    if (field.type != (is_bytes ? WireType::kBytes : WireType::kVarint)) {
      return DataLoss("UnixFS: field {} with wire type {}", field.number, static_cast<int>(field.type));
    }
    if (field.number != kBlockSizes) {
      if ((seen >> field.number & 1) != 0) return DataLoss("UnixFS: field {} twice", field.number);
      seen |= 1u << field.number;
    }
    switch (field.number) {
      case kType:
        if (field.value > static_cast<uint64_t>(UnixFsKind::kHamtShard)) {
          return DataLoss("UnixFS: type {} does not exist", field.value);
        }
        node.kind_ = static_cast<UnixFsKind>(field.value);
        break;
      case kData:
        node.data_ = field.bytes;
        break;
      case kFileSize:
        node.declared_size_ = field.value;
        break;
      case kHashType:
        node.hash_type_ = field.value;
        break;
      case kFanout:
        node.fanout_ = field.value;
        break;
      case kMode:
        node.mode_ = field.value;
        break;
      case kMtime:
        if (!ReadMtime(field.bytes, node.mtime_seconds_)) return DataLoss("UnixFS: malformed mtime");
        break;
      case kBlockSizes: {
        Span packed = field.bytes;
        do {
          uint64_t size = field.value;
          if (is_bytes && packed.empty()) break;
          if (is_bytes && !TakeProtoVarint(packed, size)) return DataLoss("UnixFS: malformed blocksizes");
          if (size > kSizeMax - node.block_size_sum_) return DataLoss("UnixFS: blocksizes above 2^63");
          node.block_size_sum_ += size;
          ++node.block_size_count_;
        } while (is_bytes);
        break;
      }
    }
  }
  if ((seen >> kType & 1) == 0) return DataLoss("UnixFS: no Type");
  if (node.block_size_sum_ > kSizeMax - node.data_.size()) return DataLoss("UnixFS: size above 2^63");
  return node;
}

absl::Status UnixFs::CheckFile(uint64_t link_count) const {
  if (!IsFile()) return DataLoss("UnixFS: a {} where a file was expected", UnixFsKindName(kind_));
  if (block_size_count_ != link_count) {
    return DataLoss("UnixFS: {} blocksizes for {} links", block_size_count_, link_count);
  }
  if (declared_size_ && *declared_size_ != content_size()) {
    return DataLoss("UnixFS: file declares {} bytes, its parts have {}", *declared_size_, content_size());
  }
  return absl::OkStatus();
}

bool UnixFs::SizeCursor::Next(uint64_t& size) {
  while (packed_.empty()) {
    if (rest_.empty()) return false;
    ProtoField field;
    DAGSTORE_CHECK(TakeProtoField(rest_, field));
    if (field.number != kBlockSizes) continue;
    if (field.type == WireType::kVarint) {
      size = field.value;
      return true;
    }
    packed_ = field.bytes;
  }
  DAGSTORE_CHECK(TakeProtoVarint(packed_, size));
  return true;
}

}  // namespace dagstore
