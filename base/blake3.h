// BLAKE3, plain hash mode, any output length. Own code: Debian packages no library for it.
// Spec: github.com/BLAKE3-team/BLAKE3-specs.
//
// Threads: values; one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

class Blake3Hasher {
 public:
  static constexpr size_t kChunkBytes = 1024;
  using Words = std::array<uint32_t, 8>;  // a chaining value

  Blake3Hasher();
  void Update(Span data);
  // Writes any number of output bytes. May be called at any time; changes nothing.
  void Finish(uint8_t* out, size_t out_size) const;

 private:
  // 2^64 bytes of input are 2^54 chunks, so the tree is never deeper.
  static constexpr size_t kDepthMax = 54;

  void PushChunk(const Words& chaining);

  std::array<Words, kDepthMax> stack_;  // roots of the finished subtrees, largest first
  size_t stack_size_ = 0;
  uint64_t chunks_ = 0;  // finished ones
  std::array<uint8_t, kChunkBytes> buffer_;
  size_t buffered_ = 0;
};

}  // namespace dagstore
