#include "base/blake3.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/hashing.h"

namespace dagstore {
namespace {

using Words = Blake3Hasher::Words;
constexpr size_t kBlockBytes = 64;

enum Flags : uint32_t {
  kChunkStart = 1,
  kChunkEnd = 2,
  kParent = 4,
  kRoot = 8,
};

constexpr Words kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

constexpr int kRounds = 7;
// Row r: which message words round r uses, the fixed permutation applied r times.
constexpr std::array<std::array<uint8_t, 16>, kRounds> kSchedule = [] {
  constexpr uint8_t kPermutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
  std::array<std::array<uint8_t, 16>, kRounds> rows = {};
  for (uint8_t i = 0; i < 16; ++i) rows[0][i] = i;
  for (int r = 1; r < kRounds; ++r) {
    for (int i = 0; i < 16; ++i) rows[r][i] = rows[r - 1][kPermutation[i]];
  }
  return rows;
}();

[[gnu::always_inline]] inline void Mix(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d, uint32_t x,
                                       uint32_t y) {
  a += b + x;
  d = std::rotr(d ^ a, 16);
  c += d;
  b = std::rotr(b ^ c, 12);
  a += b + y;
  d = std::rotr(d ^ a, 8);
  c += d;
  b = std::rotr(b ^ c, 7);
}

template <int kRound>
[[gnu::always_inline]] inline void Round(uint32_t* v, const uint32_t* m) {
  constexpr const auto& s = kSchedule[kRound];
  Mix(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
  Mix(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
  Mix(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
  Mix(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
  Mix(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
  Mix(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
  Mix(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
  Mix(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
}

template <int... kRound>
[[gnu::always_inline]] inline void AllRounds(uint32_t* v, const uint32_t* m,
                                             std::integer_sequence<int, kRound...>) {
  (Round<kRound>(v, m), ...);
}

// The compression function with all that goes into it, kept so that the root can be asked for more output.
struct Node {
  Words chaining;
  std::array<uint32_t, 16> message;
  uint64_t counter;
  uint32_t size;
  uint32_t flags;

  // 16 words: the first 8 are the chaining value.
  void Compress(uint64_t at, uint32_t more_flags, uint32_t* out) const {
    uint32_t v[16];
    std::copy_n(chaining.data(), 8, v);
    std::copy_n(kStart.data(), 4, v + 8);
    v[12] = static_cast<uint32_t>(at);
    v[13] = static_cast<uint32_t>(at >> 32);
    v[14] = size;
    v[15] = flags | more_flags;
    AllRounds(v, message.data(), std::make_integer_sequence<int, kRounds>());
    for (int i = 0; i < 8; ++i) {
      out[i] = v[i] ^ v[i + 8];
      out[i + 8] = v[i + 8] ^ chaining[i];
    }
  }

  Words Value() const {
    uint32_t out[16];
    Compress(counter, 0, out);
    Words value;
    std::copy_n(out, 8, value.begin());
    return value;
  }
};

// The last block of a chunk of 0..1024 bytes, all before it compressed.
Node LastOfChunk(Span chunk, uint64_t number) {
  Node node = {kStart, {}, number, kBlockBytes, kChunkStart};
  while (chunk.size() > kBlockBytes) {
    std::memcpy(node.message.data(), chunk.data(), kBlockBytes);
    node.chaining = node.Value();
    node.flags = 0;
    chunk = chunk.subspan(kBlockBytes);
  }
  node.message = {};
  if (!chunk.empty()) std::memcpy(node.message.data(), chunk.data(), chunk.size());
  node.size = static_cast<uint32_t>(chunk.size());
  node.flags |= kChunkEnd;
  return node;
}

Node ParentOf(const Words& left, const Words& right) {
  Node node = {kStart, {}, 0, kBlockBytes, kParent};
  std::copy_n(left.begin(), 8, node.message.begin());
  std::copy_n(right.begin(), 8, node.message.begin() + 8);
  return node;
}

}  // namespace

Blake3Hasher::Blake3Hasher() = default;

void Blake3Hasher::PushChunk(const Words& chaining) {
  // As many subtrees end with this chunk as its number has trailing zeros.
  ++chunks_;
  Words value = chaining;
  for (uint64_t n = chunks_; (n & 1) == 0; n >>= 1) {
    value = ParentOf(stack_[--stack_size_], value).Value();
  }
  stack_[stack_size_++] = value;
}

void Blake3Hasher::Update(Span data) {
  // The last chunk may be the root, so a full buffer waits until more data comes.
  while (!data.empty()) {
    if (buffered_ == kChunkBytes) {
      PushChunk(LastOfChunk(buffer_, chunks_).Value());
      buffered_ = 0;
    }
    if (buffered_ == 0) {
      for (; data.size() > kChunkBytes; data = data.subspan(kChunkBytes)) {
        PushChunk(LastOfChunk(data.first(kChunkBytes), chunks_).Value());
      }
    }
    const size_t n = std::min(data.size(), kChunkBytes - buffered_);
    std::memcpy(buffer_.data() + buffered_, data.data(), n);
    buffered_ += n;
    data = data.subspan(n);
  }
}

void Blake3Hasher::Finish(uint8_t* out, size_t out_size) const {
  Node root = LastOfChunk(Span(buffer_).first(buffered_), chunks_);
  for (size_t i = stack_size_; i > 0; --i) root = ParentOf(stack_[i - 1], root.Value());
  for (uint64_t at = 0; out_size > 0; ++at) {
    uint32_t words[16];
    root.Compress(at, kRoot, words);
    const size_t n = std::min(out_size, sizeof(words));
    std::memcpy(out, words, n);
    out += n;
    out_size -= n;
  }
}

void Blake3(Span data, uint8_t* out, size_t out_size) {
  Blake3Hasher hasher;
  hasher.Update(data);
  hasher.Finish(out, out_size);
}

}  // namespace dagstore
