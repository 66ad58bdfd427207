// BLAKE2b and BLAKE2s without key, any output size. Own code because OpenSSL 3.0 computes only the full sizes, while
// Filecoin's main hash is BLAKE2b with 32 bytes. Spec: RFC 7693.
//
// Threads: values; one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

// Word is uint64_t for BLAKE2b, uint32_t for BLAKE2s.
template <typename Word>
class Blake2 {
 public:
  static constexpr size_t kBlockBytes = 16 * sizeof(Word);
  static constexpr size_t kDigestBytesMax = 8 * sizeof(Word);

  // `digest_size` is 1..kDigestBytesMax, CHECKed; it goes into the hash, so a shorter digest is not a prefix.
  explicit Blake2(size_t digest_size);

  void Update(Span data);
  // Writes digest_size bytes. Once; nothing may follow.
  void Finish(uint8_t* out);

 private:
  void Compress(const uint8_t* block, bool last);

  std::array<Word, 8> chain_;
  uint64_t consumed_ = 0;  // bytes; the upper half of the spec's counter is unreachable
  std::array<uint8_t, kBlockBytes> buffer_;
  size_t buffered_ = 0;
  const size_t digest_size_;
};

using Blake2b = Blake2<uint64_t>;
using Blake2s = Blake2<uint32_t>;
extern template class Blake2<uint64_t>;
extern template class Blake2<uint32_t>;

}  // namespace dagstore
