// MurmurHash3 x64, the first 64 of its 128 bits, seed 0: multihash 0x22, the bucket function of UnixFS HAMT
// directories. Not a cryptographic hash. As a multihash digest it is written big-endian.
//
// Threads: values; one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

// Any thread.
uint64_t Murmur3X64_64(Span data);

class Murmur3 {
 public:
  void Update(Span data);
  // May be called at any time; changes nothing.
  uint64_t Value() const;

 private:
  uint64_t h1_ = 0;
  uint64_t h2_ = 0;
  uint64_t size_ = 0;  // bytes given so far
  std::array<uint8_t, 16> buffer_ = {};
};

}  // namespace dagstore
