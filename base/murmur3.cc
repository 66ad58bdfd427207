#include "base/murmur3.h"

#include <algorithm>
#include <bit>

namespace dagstore {
namespace {

constexpr uint64_t kC1 = 0x87c37b91114253d5;
constexpr uint64_t kC2 = 0x4cf5ad432745937f;

uint64_t Scramble1(uint64_t k) { return std::rotl(k * kC1, 31) * kC2; }
uint64_t Scramble2(uint64_t k) { return std::rotl(k * kC2, 33) * kC1; }

void MixBlock(const uint8_t* block, uint64_t& h1, uint64_t& h2) {
  h1 ^= Scramble1(Load64(block));
  h1 = (std::rotl(h1, 27) + h2) * 5 + 0x52dce729;
  h2 ^= Scramble2(Load64(block + 8));
  h2 = (std::rotl(h2, 31) + h1) * 5 + 0x38495ab5;
}

uint64_t Finalize(uint64_t h) {
  h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
  h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
  return h ^ h >> 33;
}

}  // namespace

void Murmur3::Update(Span data) {
  while (!data.empty()) {
    const size_t filled = size_ % buffer_.size();
    const size_t n = std::min(data.size(), buffer_.size() - filled);
    std::memcpy(buffer_.data() + filled, data.data(), n);
    size_ += n;
    data = data.subspan(n);
    if (filled + n == buffer_.size()) MixBlock(buffer_.data(), h1_, h2_);
  }
}

uint64_t Murmur3::Value() const {
  std::array<uint8_t, 16> tail = {};
  std::copy_n(buffer_.begin(), size_ % buffer_.size(), tail.begin());
  uint64_t h1 = h1_ ^ Scramble1(Load64(tail.data()));  // of an empty tail: nothing, as of 0
  uint64_t h2 = h2_ ^ Scramble2(Load64(tail.data() + 8));
  h1 ^= size_;
  h2 ^= size_;
  h1 += h2;
  h2 += h1;
  return Finalize(h1) + Finalize(h2);
}

uint64_t Murmur3X64_64(Span data) {
  Murmur3 state;
  state.Update(data);
  return state.Value();
}

}  // namespace dagstore
