// Unsigned varints of multiformats: LEB128, minimal form, at most 9 bytes, values < 2^63.
// Spec: github.com/multiformats/unsigned-varint; docs/format.md#varint.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

inline constexpr size_t kVarintBytesMax = 9;

struct Varint {
  uint64_t value = 0;
  size_t size = 0;  // bytes consumed, 1..9
};

enum class VarintError : uint8_t {
  kNone,
  kTruncated,   // the bytes end inside the number; zero bytes are truncated too
  kOverflow,    // a tenth byte would be needed
  kNotMinimal,  // ends in 0x00
};

// Never allocates. On an error `out` is unchanged.
inline VarintError DecodeVarint(Span bytes, Varint& out) {
  uint64_t value = 0;
  for (size_t i = 0; i < kVarintBytesMax; ++i) {
    if (i >= bytes.size()) return VarintError::kTruncated;
    const uint8_t byte = bytes[i];
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      if (byte == 0 && i != 0) return VarintError::kNotMinimal;
      out = {value, i + 1};
      return VarintError::kNone;
    }
  }
  return VarintError::kOverflow;
}

// DataLoss with a reason on an error.
absl::StatusOr<Varint> ReadVarint(Span bytes);
absl::Status VarintStatus(VarintError error);

inline size_t VarintSize(uint64_t value) {
  size_t size = 1;
  while (value >= 0x80) { value >>= 7; ++size; }
  return size;
}

template <typename Out>
void AppendVarint(Out& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<typename Out::value_type>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<typename Out::value_type>(value));
}

}  // namespace dagstore
