// CID: names a block by the hash of its bytes. CIDv0 (34 bytes, dag-pb, sha2-256) and CIDv1.
// Spec: github.com/multiformats/cid; docs/format.md#cid.
//
// Threads: values; immutable after construction.
// Limits: kCidBytesMax; an identity digest longer than kIdentityDigestBytesMax parses, and is refused by CheckIdentity.
// Equality is that of the bytes: a CIDv0 and the CIDv1 of the same block differ, as do two codecs of one multihash.
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "base/multibase.h"
#include "base/multihash.h"

namespace dagstore {

// Content codecs of the multicodec table.
enum Codec : uint64_t {
  kCodecCbor = 0x51,
  kCodecRaw = 0x55,
  kCodecDagPb = 0x70,
  kCodecDagCbor = 0x71,
  kCodecLibp2pKey = 0x72,
  kCodecGitRaw = 0x78,
  kCodecDagJose = 0x85,
  kCodecDagJson = 0x0129,
  kCodecJson = 0x0200,
  kCodecCar = 0x0202,
  kCodecFilCommitmentUnsealed = 0xf101,
  kCodecFilCommitmentSealed = 0xf102,
};
std::string CodecName(uint64_t codec);

inline constexpr size_t kCidBytesMax = 2048 + 32;       // digest limit plus version, codec, code and length
inline constexpr size_t kIdentityDigestBytesMax = 128;  // IPIP-512: a block inlined in its CID is small

// A view of a CID in someone else's bytes.
struct CidView {
  uint8_t version = 1;  // 0 or 1
  uint64_t codec = kCodecRaw;
  MultihashView hash = {};
  Span bytes = {};  // the whole CID as it stands

  bool IsIdentity() const { return hash.code == kIdentity; }
};

// Parses the CID at the head of `bytes`; `view.bytes.size()` says how many were used. DataLoss if malformed. Bytes that
// begin with 0x12 0x20 are a CIDv0; otherwise only version 1 exists: 0 is never written out, 2 and 3 are reserved, and
// 18 would be a CIDv0 with a digest of another size.
absl::StatusOr<CidView> ParseCid(Span bytes);

// InvalidArgument for an identity CID that inlines more than kIdentityDigestBytesMax. For doors (requests, new blocks):
// old archives may hold longer ones, which are still readable.
absl::Status CheckIdentity(const CidView& cid);

class Cid {
 public:
  Cid() = default;  // empty: no CID
  explicit Cid(const CidView& view) : bytes_(AsText(view.bytes)) {}

  static Cid V0(Span sha256_digest);                       // 32 bytes, CHECKed
  static Cid V1(uint64_t codec, const MultihashView& hash);
  // Hashes `data`. Unimplemented if the function is not computable here; InvalidArgument for identity of too much.
  static absl::StatusOr<Cid> Of(uint64_t codec, uint64_t hash_code, Span data);

  // Whole input must be one CID. DataLoss if not.
  static absl::StatusOr<Cid> FromBytes(Span bytes);
  // CIDv0 base58btc without prefix, or CIDv1 in any base of multibase.h. Also accepts a leading "/ipfs/" or "ipfs://",
  // but nothing after the CID. InvalidArgument if it is not a CID.
  static absl::StatusOr<Cid> FromText(std::string_view text);

  bool empty() const { return bytes_.empty(); }
  Span bytes() const { return AsSpan(bytes_); }
  const std::string& binary() const { return bytes_; }
  // Valid while *this lives. CHECKs that it is not empty.
  CidView view() const;
  uint8_t version() const { return view().version; }
  uint64_t codec() const { return view().codec; }
  MultihashView hash() const { return view().hash; }
  bool IsIdentity() const { return view().IsIdentity(); }

  // v0: base58btc; v1: base32 lower, the canonical forms.
  std::string ToText() const;
  // In `base`; a v0 CID can only be base58btc without prefix, so it is shown as its v1 form.
  std::string ToText(Base base) const;
  Cid ToV1() const;

  friend bool operator==(const Cid&, const Cid&) = default;
  friend auto operator<=>(const Cid&, const Cid&) = default;  // order of the binary form
  template <typename H>
  friend H AbslHashValue(H h, const Cid& c) { return H::combine(std::move(h), c.bytes_); }

 private:
  explicit Cid(std::string bytes) : bytes_(std::move(bytes)) {}
  std::string bytes_;
};

}  // namespace dagstore
