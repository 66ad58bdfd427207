#include "base/cbor.h"

#include <bit>
#include <cmath>

#include "base/utf8.h"

namespace dagstore {
namespace {

enum Major : uint8_t {
  kUint = 0,
  kNegint = 1,
  kByteString = 2,
  kTextString = 3,
  kArrayOf = 4,
  kMapOf = 5,
  kTagged = 6
};

constexpr uint64_t kCidTag = 42;

uint64_t LoadBig(const uint8_t* p, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value = value << 8 | p[i];
  return value;
}

double HalfToDouble(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int fraction = half & 0x3ff;
  double value = exponent == 0      ? std::ldexp(fraction, -24)
                 : exponent == 0x1f ? (fraction == 0 ? INFINITY : NAN)
                                    : std::ldexp(fraction + 1024, exponent - 25);
  return (half & 0x8000) != 0 ? -value : value;
}

// The order of dag-cbor map keys: by encoded bytes, so shorter keys come first.
int CompareKeys(Span a, Span b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return CompareBytes(a, b);
}

}  // namespace

// The argument of a head: `info` itself, or the 1, 2, 4 or 8 bytes it announces.
absl::Status CborReader::ReadNumber(uint8_t info, uint64_t& value) {
  if (info < 24) {
    value = info;
    return absl::OkStatus();
  }
  if (info == 31) return DataLoss("CBOR item of indefinite length at byte {}", offset_ - 1);
  if (info > 27) return DataLoss("CBOR head at byte {} is reserved", offset_ - 1);
  const size_t size = size_t{1} << (info - 24);
  if (bytes_.size() - offset_ < size)
    return DataLoss("CBOR head at byte {} is truncated", offset_ - 1);
  value = LoadBig(bytes_.data() + offset_, size);
  const uint64_t shortest = info == 24 ? 24 : uint64_t{1} << (size * 4);
  if (mode_ == CborMode::kStrict && value < shortest) {
    return DataLoss("CBOR number {} at byte {} is not in its shortest form", value, offset_ - 1);
  }
  offset_ += size;
  return absl::OkStatus();
}

absl::Status CborReader::ReadSimple(uint8_t info, CborItem& item) {
  const size_t start = offset_ - 1;
  switch (info) {
    case 20:
    case 21:
      item.kind = CborKind::kBool;
      item.value = info - 20;
      return absl::OkStatus();
    case 22:
      item.kind = CborKind::kNull;
      return absl::OkStatus();
    case 23:
      if (mode_ == CborMode::kStrict) return DataLoss("CBOR undefined at byte {}", start);
      item.kind = CborKind::kUndefined;
      return absl::OkStatus();
    case 25:
    case 26:
    case 27: {
      const size_t size = size_t{1} << (info - 24);
      if (bytes_.size() - offset_ < size)
        return DataLoss("CBOR float at byte {} is truncated", start);
      const uint64_t bits = LoadBig(bytes_.data() + offset_, size);
      offset_ += size;
      item.kind = CborKind::kFloat;
      item.number = size == 2   ? HalfToDouble(static_cast<uint16_t>(bits))
                    : size == 4 ? std::bit_cast<float>(static_cast<uint32_t>(bits))
                                : std::bit_cast<double>(bits);
      if (mode_ == CborMode::kStrict && (size != 8 || !std::isfinite(item.number))) {
        return DataLoss("CBOR float at byte {} is not a finite 64-bit number", start);
      }
      return absl::OkStatus();
    }
    default:
      return DataLoss("CBOR simple value {} at byte {} means nothing here", info, start);
  }
}

// Strict mode: what may stand where.
absl::Status CborReader::CheckPlace(const CborItem& item, size_t start) {
  if (item.kind == CborKind::kText && !IsUtf8(item.bytes))
    return DataLoss("CBOR text at byte {} is not UTF-8", start);
  if (item.kind == CborKind::kTag && item.value != kCidTag)
    return DataLoss("CBOR tag {} at byte {}", item.value, start);
  if (depth_ == 0) return absl::OkStatus();
  Frame& frame = frames_[depth_ - 1];
  if (frame.kind == CborKind::kTag) {
    if (item.kind != CborKind::kBytes || item.bytes.empty() || item.bytes[0] != 0) {
      return DataLoss("CBOR tag 42 before byte {} is not around a CID", start);
    }
  } else if (frame.kind == CborKind::kMap && frame.items_left % 2 == 0) {
    if (item.kind != CborKind::kText) return DataLoss("CBOR map key at byte {} is not text", start);
    if (frame.last_key != nullptr &&
        CompareKeys({frame.last_key, frame.last_key_size}, item.bytes) >= 0) {
      return DataLoss("CBOR map key at byte {} is out of order or repeated", start);
    }
    frame.last_key = item.bytes.data();
    frame.last_key_size = item.bytes.size();
  }
  return absl::OkStatus();
}

// Counts the item in the container around it, and opens it if it has items of its own.
absl::Status CborReader::Enter(const CborItem& item, size_t start) {
  uint64_t items = 0;
  if (item.kind == CborKind::kTag) {
    items = 1;
  } else if (item.kind == CborKind::kArray || item.kind == CborKind::kMap) {
    const uint64_t each = item.kind == CborKind::kMap ? 2 : 1;
    if (item.value > (bytes_.size() - offset_) / each) {
      return DataLoss("CBOR container at byte {} declares {} entries in {} bytes", start,
                      item.value, bytes_.size() - offset_);
    }
    items = item.value * each;
  }
  if (depth_ > 0) --frames_[depth_ - 1].items_left;
  if (items > 0) {
    if (depth_ == kCborDepthMax)
      return DataLoss("CBOR at byte {} is nested deeper than {}", start, kCborDepthMax);
    frames_[depth_++] = Frame{items, nullptr, 0, item.kind};
  } else {
    while (depth_ > 0 && frames_[depth_ - 1].items_left == 0) --depth_;
  }
  return absl::OkStatus();
}

absl::StatusOr<CborItem> CborReader::Next() {
  const size_t start = offset_;
  if (AtEnd()) return DataLoss("CBOR ends at byte {} where an item was expected", start);
  const uint8_t head = bytes_[offset_++];
  const uint8_t major = head >> 5;
  const uint8_t info = head & 0x1f;
  CborItem item;
  if (major > kTagged) {
    RETURN_IF_ERROR(ReadSimple(info, item));
  } else {
    RETURN_IF_ERROR(ReadNumber(info, item.value));
  }
  switch (major) {
    case kUint:
      item.kind = CborKind::kUnsigned;
      break;
    case kNegint:
      item.kind = CborKind::kNegative;
      break;
    case kByteString:
    case kTextString:
      item.kind = major == kByteString ? CborKind::kBytes : CborKind::kText;
      if (item.value > bytes_.size() - offset_) {
        return DataLoss("CBOR string at byte {} declares {} bytes where {} are left", start,
                        item.value, bytes_.size() - offset_);
      }
      item.bytes = bytes_.subspan(offset_, item.value);
      offset_ += item.bytes.size();
      break;
    case kArrayOf:
      item.kind = CborKind::kArray;
      break;
    case kMapOf:
      item.kind = CborKind::kMap;
      break;
    case kTagged:
      item.kind = CborKind::kTag;
      break;
    default:
      break;  // simple: done above
  }
  if (mode_ == CborMode::kStrict) RETURN_IF_ERROR(CheckPlace(item, start));
  RETURN_IF_ERROR(Enter(item, start));
  return item;
}

absl::Status CborReader::Skip() {
  const int depth = depth_;
  do {
    if (const auto item = Next(); !item.ok()) return item.status();
  } while (depth_ > depth);
  return absl::OkStatus();
}

}  // namespace dagstore
