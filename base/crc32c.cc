#include "base/crc32c.h"

#include <array>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace dagstore {
namespace {

// Reflected form of the polynomial 0x1EDC6F41.
constexpr uint32_t kPolynomial = 0x82f63b78;

// kTables[k][b]: the effect of byte b followed by k zero bytes ("slicing by 8").
constexpr std::array<std::array<uint32_t, 256>, 8> kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables = {};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][b] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t before = tables[k - 1][b];
      tables[k][b] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}();

uint32_t ExtendPortable(uint32_t crc, Span data) {
  const uint8_t* p = data.data();
  size_t n = data.size();
  for (; n >= 8; n -= 8, p += 8) {
    const uint64_t word = Load64(p) ^ crc;
    crc = kTables[7][word & 0xff] ^ kTables[6][word >> 8 & 0xff] ^ kTables[5][word >> 16 & 0xff] ^
          kTables[4][word >> 24 & 0xff] ^ kTables[3][word >> 32 & 0xff] ^
          kTables[2][word >> 40 & 0xff] ^ kTables[1][word >> 48 & 0xff] ^ kTables[0][word >> 56];
  }
  for (; n > 0; --n, ++p) crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xff];
  return crc;
}

#if defined(__x86_64__)
// The instruction takes three cycles and one can begin in each, so three parts of a page are computed side by side.
constexpr size_t kPartBytes = 1344;

// kSkip[k][b]: the effect of byte k of a state, if it is b, after kPartBytes zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 4> kSkip = [] {
  std::array<uint32_t, 32> of_bit = {};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t i = 0; i < kPartBytes; ++i) crc = (crc >> 8) ^ kTables[0][crc & 0xff];
    of_bit[bit] = crc;
  }
  std::array<std::array<uint32_t, 256>, 4> tables = {};
  for (uint32_t k = 0; k < 4; ++k) {
    for (uint32_t b = 0; b < 256; ++b) {
      for (uint32_t bit = 0; bit < 8; ++bit) tables[k][b] ^= (b >> bit & 1) != 0 ? of_bit[8 * k + bit] : 0;
    }
  }
  return tables;
}();

uint32_t SkipPart(uint32_t crc) {
  return kSkip[0][crc & 0xff] ^ kSkip[1][crc >> 8 & 0xff] ^ kSkip[2][crc >> 16 & 0xff] ^ kSkip[3][crc >> 24];
}

__attribute__((target("sse4.2"))) uint32_t ExtendSse42(uint32_t crc, Span data) {
  const uint8_t* p = data.data();
  size_t n = data.size();
  for (; n >= 3 * kPartBytes; n -= 3 * kPartBytes, p += 3 * kPartBytes) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kPartBytes; i += 8) {
      a = _mm_crc32_u64(a, Load64(p + i));
      b = _mm_crc32_u64(b, Load64(p + kPartBytes + i));
      c = _mm_crc32_u64(c, Load64(p + 2 * kPartBytes + i));
    }
    crc = SkipPart(SkipPart(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^ static_cast<uint32_t>(c);
  }
  uint64_t wide = crc;
  for (; n >= 8; n -= 8, p += 8) wide = _mm_crc32_u64(wide, Load64(p));
  crc = static_cast<uint32_t>(wide);
  for (; n > 0; --n, ++p) crc = _mm_crc32_u8(crc, *p);
  return crc;
}
#endif

}  // namespace

uint32_t Crc32c(uint32_t crc, Span data) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (has_instruction) return ~ExtendSse42(~crc, data);
#endif
  return ~ExtendPortable(~crc, data);
}

uint32_t Crc32cPortable(uint32_t crc, Span data) { return ~ExtendPortable(~crc, data); }

}  // namespace dagstore
