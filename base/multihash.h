// Multihash: `varint code | varint length | digest[length]`. The length is part of identity.
// Spec: github.com/multiformats/multihash; docs/format.md#multihash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/varint.h"

namespace dagstore {

// Codes of the multicodec table. Only those that some code here names.
enum HashCode : uint64_t {
  kIdentity = 0x00,
  kSha1 = 0x11,
  kSha2_256 = 0x12,
  kSha2_512 = 0x13,
  kSha3_512 = 0x14,
  kSha3_384 = 0x15,
  kSha3_256 = 0x16,
  kSha3_224 = 0x17,
  kShake128 = 0x18,
  kShake256 = 0x19,
  kKeccak224 = 0x1a,
  kKeccak256 = 0x1b,
  kKeccak384 = 0x1c,
  kKeccak512 = 0x1d,
  kBlake3 = 0x1e,
  kSha2_384 = 0x20,
  kMurmur3X64_64 = 0x22,
  kDblSha2_256 = 0x56,
  kMd5 = 0xd5,
  kSha2_224 = 0x1013,
  kSha2_512_224 = 0x1014,
  kSha2_512_256 = 0x1015,
  kBlake2b8 = 0xb201,
  kBlake2b256 = 0xb220,
  kBlake2b512 = 0xb240,
  kBlake2s8 = 0xb241,
  kBlake2s256 = 0xb260,
};

// A digest longer than this is refused wherever a multihash is parsed, so that a CID stays small.
inline constexpr size_t kDigestBytesMax = 2048;  // as go-car's MaxIndexCidSize

// A view of a multihash; the bytes belong to someone else.
struct MultihashView {
  uint64_t code = kSha2_256;
  Span digest = {};

  friend bool operator==(const MultihashView& a, const MultihashView& b) {
    return a.code == b.code && SameBytes(a.digest, b.digest);
  }
  // Order of the CARv2 index 0x0401: code, then digest length, then digest bytes.
  friend bool operator<(const MultihashView& a, const MultihashView& b) {
    if (a.code != b.code) return a.code < b.code;
    if (a.digest.size() != b.digest.size()) return a.digest.size() < b.digest.size();
    return CompareBytes(a.digest, b.digest) < 0;
  }
};

struct ParsedMultihash {
  MultihashView value;
  size_t size = 0;  // bytes consumed
};

// Parses one multihash at the head of `bytes`. DataLoss if it is malformed or longer than kDigestBytesMax.
absl::StatusOr<ParsedMultihash> ParseMultihash(Span bytes);

template <typename Out>
void AppendMultihash(Out& out, const MultihashView& hash) {
  AppendVarint(out, hash.code);
  AppendVarint(out, hash.digest.size());
  AppendBytes(out, hash.digest);
}

// A multihash that owns its bytes (the encoded form). Cheap to hash and to compare; used as a map key.
class Multihash {
 public:
  Multihash() = default;
  explicit Multihash(const MultihashView& view) { AppendMultihash(bytes_, view); }
  // Whole input must be one multihash.
  static absl::StatusOr<Multihash> FromBytes(Span bytes);

  MultihashView view() const;
  Span bytes() const { return AsSpan(bytes_); }
  const std::string& binary() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }

  friend bool operator==(const Multihash&, const Multihash&) = default;
  friend auto operator<=>(const Multihash&, const Multihash&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Multihash& m) { return H::combine(std::move(h), m.bytes_); }

 private:
  std::string bytes_;
};

// "sha2-256", or "0x1234" for a code without a name here.
std::string HashName(uint64_t code);
// Code of a name as in the multicodec table; NotFound otherwise.
absl::StatusOr<uint64_t> HashCodeOf(std::string_view name);

}  // namespace dagstore
