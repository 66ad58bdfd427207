// Bytes: views, little- and big-endian numbers, and a bounds-checked reader. Header only, no allocation.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace dagstore {

using Span = std::span<const uint8_t>;
using Bytes = std::vector<uint8_t>;

inline Span AsSpan(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(Span bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline bool SameBytes(Span a, Span b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}
inline bool StartsWith(Span bytes, Span prefix) {
  return bytes.size() >= prefix.size() && SameBytes(bytes.first(prefix.size()), prefix);
}
// memcmp order, a prefix before what it is a prefix of.
inline int CompareBytes(Span a, Span b) {
  const size_t n = a.size() < b.size() ? a.size() : b.size();
  if (const int order = n == 0 ? 0 : std::memcmp(a.data(), b.data(), n); order != 0) return order;
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

// Host is little endian; checked so that a port to another kind does not compile by accident.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
inline uint16_t Load16(const uint8_t* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }
inline uint32_t Load32(const uint8_t* p) { uint32_t v; std::memcpy(&v, p, 4); return v; }
inline uint64_t Load64(const uint8_t* p) { uint64_t v; std::memcpy(&v, p, 8); return v; }
inline uint32_t Load32Big(const uint8_t* p) { return __builtin_bswap32(Load32(p)); }
inline uint64_t Load64Big(const uint8_t* p) { return __builtin_bswap64(Load64(p)); }
inline void Store32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }
inline void Store64(uint8_t* p, uint64_t v) { std::memcpy(p, &v, 8); }

// Appending writers, for std::string and Bytes alike.
template <typename Out>
void AppendBytes(Out& out, Span bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }
template <typename Out>
void Append32(Out& out, uint32_t v) { uint8_t b[4]; Store32(b, v); AppendBytes(out, b); }
template <typename Out>
void Append64(Out& out, uint64_t v) { uint8_t b[8]; Store64(b, v); AppendBytes(out, b); }
template <typename Out>
void Append32Big(Out& out, uint32_t v) { Append32(out, __builtin_bswap32(v)); }
template <typename Out>
void Append64Big(Out& out, uint64_t v) { Append64(out, __builtin_bswap64(v)); }

std::string ToHex(Span bytes);
// 0 to 15, or -1.
int HexDigit(char c);
absl::StatusOr<Bytes> FromHex(std::string_view text);

}  // namespace dagstore
