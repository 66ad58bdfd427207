#include "base/multihash.h"

#include "base/check.h"

namespace dagstore {
namespace {

struct NamedCode {
  uint64_t code;
  std::string_view name;
};

// The BLAKE2 families are computed from their codes, see HashName.
constexpr NamedCode kHashNames[] = {
    {kIdentity, "identity"},
    {kSha1, "sha1"},
    {kSha2_256, "sha2-256"},
    {kSha2_512, "sha2-512"},
    {kSha3_512, "sha3-512"},
    {kSha3_384, "sha3-384"},
    {kSha3_256, "sha3-256"},
    {kSha3_224, "sha3-224"},
    {kShake128, "shake-128"},
    {kShake256, "shake-256"},
    {kKeccak224, "keccak-224"},
    {kKeccak256, "keccak-256"},
    {kKeccak384, "keccak-384"},
    {kKeccak512, "keccak-512"},
    {kBlake3, "blake3"},
    {kSha2_384, "sha2-384"},
    {kMurmur3X64_64, "murmur3-x64-64"},
    {kDblSha2_256, "dbl-sha2-256"},
    {kMd5, "md5"},
    {kSha2_224, "sha2-224"},
    {kSha2_512_224, "sha2-512-224"},
    {kSha2_512_256, "sha2-512-256"},
    // Never computable from a block's bytes; named because Filecoin data is full of them.
    {0x1011, "fr32-sha256-trunc254-padbintree"},
    {0x1012, "sha2-256-trunc254-padded"},
    {0xb401, "poseidon-bls12_381-a2-fc1"},
};

}  // namespace

absl::StatusOr<ParsedMultihash> ParseMultihash(Span bytes) {
  Varint code, length;
  if (const VarintError error = DecodeVarint(bytes, code); error != VarintError::kNone) {
    return Annotate(VarintStatus(error), "multihash code");
  }
  bytes = bytes.subspan(code.size);
  if (const VarintError error = DecodeVarint(bytes, length); error != VarintError::kNone) {
    return Annotate(VarintStatus(error), "multihash length");
  }
  bytes = bytes.subspan(length.size);
  if (length.value > kDigestBytesMax) {
    return DataLoss("multihash digest of {} bytes, at most {} are accepted", length.value,
                    kDigestBytesMax);
  }
  if (length.value > bytes.size()) {
    return DataLoss("multihash digest of {} bytes, only {} follow", length.value, bytes.size());
  }
  return ParsedMultihash{{code.value, bytes.first(length.value)},
                         code.size + length.size + length.value};
}

absl::StatusOr<Multihash> Multihash::FromBytes(Span bytes) {
  ASSIGN_OR_RETURN(const ParsedMultihash parsed, ParseMultihash(bytes));
  if (parsed.size != bytes.size()) {
    return DataLoss("{} bytes follow the multihash", bytes.size() - parsed.size);
  }
  return Multihash(parsed.value);
}

MultihashView Multihash::view() const {
  const auto parsed = ParseMultihash(bytes());
  DAGSTORE_CHECK_MSG(parsed.ok(), "an empty Multihash has no view");
  return parsed->value;
}

std::string HashName(uint64_t code) {
  for (const NamedCode& named : kHashNames) {
    if (named.code == code) return std::string(named.name);
  }
  if (code >= kBlake2b8 && code <= kBlake2b512) {
    return fmt::format("blake2b-{}", (code - kBlake2b8 + 1) * 8);
  }
  if (code >= kBlake2s8 && code <= kBlake2s256) {
    return fmt::format("blake2s-{}", (code - kBlake2s8 + 1) * 8);
  }
  return fmt::format("0x{:x}", code);
}

absl::StatusOr<uint64_t> HashCodeOf(std::string_view name) {
  for (const NamedCode& named : kHashNames) {
    if (named.name == name) return named.code;
  }
  for (uint64_t code = kBlake2b8; code <= kBlake2s256; ++code) {
    if (HashName(code) == name) return code;
  }
  return NotFound("no hash function is named \"{}\"", name);
}

}  // namespace dagstore
