// CBOR items, read one at a time without recursion, from bytes of unknown origin. For CAR
// headers and dag-cbor.
// Spec: RFC 8949; ipld dag-cbor; docs/format.md#dag-cbor.
//
// Never allocates: strings are views, declared counts are only counted down, and a count that the
// remaining bytes cannot hold is refused at once (an item takes at least one byte). Indefinite
// lengths, reserved heads and simple values other than true, false, null and undefined are refused
// in both modes.
//
// Limits: depth (open arrays, maps and tags) <= kCborDepthMax.
//
// Threads: one.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

// Real nodes nest below 20; far above that, a megabyte of nothing but array heads is still refused.
inline constexpr int kCborDepthMax = 128;

enum class CborKind : uint8_t {
  kUnsigned,  // value
  kNegative,  // -1 - value
  kBytes,     // bytes
  kText,      // bytes; not checked for UTF-8 in lenient mode
  kArray,     // value = items that follow
  kMap,       // value = pairs that follow
  kTag,       // value; one item follows
  kBool,      // value 0 or 1
  kNull,
  kUndefined,  // lenient mode only
  kFloat,      // number
};

struct CborItem {
  CborKind kind = CborKind::kNull;
  uint64_t value = 0;
  Span bytes = {};
  double number = 0;
};

enum class CborMode : uint8_t {
  // Definite lengths only, but any order, any integer width, short floats, any text, any tag.
  kLenient,
  // dag-cbor/DRISL: shortest integers and lengths, 64-bit finite floats, UTF-8 text, string keys
  // sorted and unique, tag 42 only and only around a byte string that begins with 0x00 (the CID in
  // it is the caller's to parse).
  kStrict,
};

class CborReader {
 public:
  explicit CborReader(Span bytes, CborMode mode = CborMode::kLenient)
      : bytes_(bytes), mode_(mode) {}

  // The next item's head (with its bytes, if a string). DataLoss if malformed, truncated or too
  // deep. Callers count the items of arrays and maps themselves, or use Skip. After an error the
  // reader is of no more use.
  absl::StatusOr<CborItem> Next();
  // Reads one whole item, with all it contains, and throws it away.
  absl::Status Skip();
  // All bytes are used. True in the middle of an array only if the array lacks items: see depth().
  bool AtEnd() const { return offset_ == bytes_.size(); }
  size_t offset() const { return offset_; }
  // Arrays, maps and tags that still wait for items; 0 between top-level items.
  int depth() const { return depth_; }

 private:
  // An open array, map or tag. Trivial, so that an unused frame costs nothing.
  struct Frame {
    uint64_t items_left;      // two per pair of a map
    const uint8_t* last_key;  // strict mode, maps; null before the first
    size_t last_key_size;
    CborKind kind;
  };

  absl::Status ReadNumber(uint8_t info, uint64_t& value);
  absl::Status ReadSimple(uint8_t info, CborItem& item);
  absl::Status CheckPlace(const CborItem& item, size_t start);
  absl::Status Enter(const CborItem& item, size_t start);

  const Span bytes_;
  const CborMode mode_;
  size_t offset_ = 0;
  int depth_ = 0;
  // The first depth_ are alive; the rest is left uninitialised on purpose.
  std::array<Frame, kCborDepthMax> frames_;
};

}  // namespace dagstore
