// Keccak with its original padding, as Ethereum uses it: not SHA-3, and OpenSSL 3.0 does not have it.
//
// Threads: values; one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

class Keccak {
 public:
  // `digest_size` is 28, 32, 48 or 64, CHECKed.
  explicit Keccak(size_t digest_size);

  void Update(Span data);
  // Writes digest_size bytes. Once; nothing may follow.
  void Finish(uint8_t* out);

 private:
  std::array<uint64_t, 25> state_ = {};
  const size_t digest_size_;
  const size_t rate_;  // bytes absorbed between permutations
  size_t filled_ = 0;  // bytes of the current block already in state_
};

}  // namespace dagstore
