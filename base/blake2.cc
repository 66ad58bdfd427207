#include "base/blake2.h"

#include <algorithm>
#include <bit>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace dagstore {
namespace {

template <typename Word>
struct Constants;

template <>
struct Constants<uint64_t> {
  static constexpr int kRounds = 12;
  static constexpr int kRotations[4] = {32, 24, 16, 63};
  static constexpr std::array<uint64_t, 8> kStart = {
      0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
      0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
};

template <>
struct Constants<uint32_t> {
  static constexpr int kRounds = 10;
  static constexpr int kRotations[4] = {16, 12, 8, 7};
  static constexpr std::array<uint32_t, 8> kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

constexpr uint8_t kSigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

template <typename Word>
[[gnu::always_inline]] inline void Mix(Word& a, Word& b, Word& c, Word& d, Word x, Word y) {
  constexpr const int* r = Constants<Word>::kRotations;
  a += b + x;
  d = std::rotr(d ^ a, r[0]);
  c += d;
  b = std::rotr(b ^ c, r[1]);
  a += b + y;
  d = std::rotr(d ^ a, r[2]);
  c += d;
  b = std::rotr(b ^ c, r[3]);
}

// The round number is a constant, so that every message index is one.
template <int kRound, typename Word>
[[gnu::always_inline]] inline void Round(Word* v, const Word* m) {
  constexpr const uint8_t* s = kSigma[kRound % 10];
  Mix(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
  Mix(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
  Mix(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
  Mix(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
  Mix(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
  Mix(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
  Mix(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
  Mix(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
}

template <typename Word, int... kRound>
[[gnu::always_inline]] inline void AllRounds(Word* v, const Word* m,
                                             std::integer_sequence<int, kRound...>) {
  (Round<kRound>(v, m), ...);
}

}  // namespace

template <typename Word>
Blake2<Word>::Blake2(size_t digest_size) : chain_(Constants<Word>::kStart), digest_size_(digest_size) {
  DAGSTORE_CHECK(digest_size >= 1 && digest_size <= kDigestBytesMax);
  chain_[0] ^= 0x01010000 ^ static_cast<Word>(digest_size);  // parameter block: depth 1, fanout 1, no key
}

template <typename Word>
void Blake2<Word>::Compress(const uint8_t* block, bool last) {
  constexpr auto& kStart = Constants<Word>::kStart;
  Word m[16];
  std::memcpy(m, block, sizeof(m));
  Word v[16];
  for (int i = 0; i < 8; ++i) {
    v[i] = chain_[i];
    v[i + 8] = kStart[i];
  }
  v[12] ^= static_cast<Word>(consumed_);
  if constexpr (sizeof(Word) == 4) v[13] ^= static_cast<Word>(consumed_ >> 32);
  if (last) v[14] = ~v[14];
  AllRounds(v, m, std::make_integer_sequence<int, Constants<Word>::kRounds>());
  for (int i = 0; i < 8; ++i) chain_[i] ^= v[i] ^ v[i + 8];
}

template <typename Word>
void Blake2<Word>::Update(Span data) {
  // The last block is compressed in Finish, so a full buffer waits until more data comes.
  while (!data.empty()) {
    if (buffered_ == kBlockBytes) {
      consumed_ += kBlockBytes;
      Compress(buffer_.data(), false);
      buffered_ = 0;
    }
    if (buffered_ == 0) {
      for (; data.size() > kBlockBytes; data = data.subspan(kBlockBytes)) {
        consumed_ += kBlockBytes;
        Compress(data.data(), false);
      }
    }
    const size_t n = std::min(data.size(), kBlockBytes - buffered_);
    std::memcpy(buffer_.data() + buffered_, data.data(), n);
    buffered_ += n;
    data = data.subspan(n);
  }
}

template <typename Word>
void Blake2<Word>::Finish(uint8_t* out) {
  consumed_ += buffered_;
  std::fill(buffer_.begin() + buffered_, buffer_.end(), 0);
  Compress(buffer_.data(), true);
  std::memcpy(out, chain_.data(), digest_size_);
}

template class Blake2<uint64_t>;
template class Blake2<uint32_t>;

}  // namespace dagstore
