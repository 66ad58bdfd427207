// CBOR items, read one at a time without recursion, from bytes of unknown origin. Leaf for CAR headers and dag-cbor.
// Spec: RFC 8949; ipld dag-cbor; docs/format.md#dag-cbor.
//
// Never allocates from a declared length: strings are views, counts are only counted down.
// Limits: depth (open arrays, maps and tags) <= kCborDepthMax.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

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
  kLenient,  // definite lengths only, but any order, any integer width, short floats, any text
  kStrict,   // dag-cbor/DRISL: shortest integers and lengths, 64-bit finite floats, tag 42 only,
             // UTF-8 text, string keys sorted and unique (checked by the reader)
};

class CborReader {
 public:
  explicit CborReader(Span bytes, CborMode mode = CborMode::kLenient) : bytes_(bytes), mode_(mode) {}

  // The next item's head (with its bytes, if a string). DataLoss if malformed, truncated or too deep. Callers count the
  // items of arrays and maps themselves, or use Skip.
  absl::StatusOr<CborItem> Next();
  // Reads one whole item, with all it contains, and throws it away.
  absl::Status Skip();
  bool AtEnd() const { return offset_ == bytes_.size(); }
  size_t offset() const { return offset_; }

 private:
  const Span bytes_;
  const CborMode mode_;
  size_t offset_ = 0;
};

}  // namespace dagstore
