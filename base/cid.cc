#include "base/cid.h"

#include "base/check.h"
#include "base/hashing.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

constexpr size_t kV0Size = 34;  // 0x12 0x20 digest[32]
constexpr size_t kV0DigestSize = 32;
constexpr size_t kV0TextSize = 46;
// The longest accepted text is a CID of kCidBytesMax bytes in base 2.
constexpr size_t kCidTextBytesMax = kCidBytesMax * 8 + 1;

bool IsV0(Span bytes) { return bytes.size() >= 2 && bytes[0] == kSha2_256 && bytes[1] == kV0DigestSize; }

absl::Status VersionError(uint64_t version) {
  if (version == kSha2_256) return DataLoss("CIDv0 is not a sha2-256 multihash of 32 bytes");
  return DataLoss("CID version {} does not exist", version);
}

}  // namespace

std::string CodecName(uint64_t codec) {
  switch (codec) {
    case kCodecCbor: return "cbor";
    case kCodecRaw: return "raw";
    case kCodecDagPb: return "dag-pb";
    case kCodecDagCbor: return "dag-cbor";
    case kCodecLibp2pKey: return "libp2p-key";
    case kCodecGitRaw: return "git-raw";
    case 0x80: return "blake3-hashseq";
    case kCodecDagJose: return "dag-jose";
    case 0x86: return "dag-cose";
    case kCodecDagJson: return "dag-json";
    case kCodecJson: return "json";
    case kCodecCar: return "car";
    case 0x0400: return "car-index-sorted";
    case 0x0401: return "car-multihash-index-sorted";
    case kCodecFilCommitmentUnsealed: return "fil-commitment-unsealed";
    case kCodecFilCommitmentSealed: return "fil-commitment-sealed";
    default: return fmt::format("0x{:x}", codec);
  }
}

absl::StatusOr<CidView> ParseCid(Span bytes) {
  if (IsV0(bytes)) {
    if (bytes.size() < kV0Size) return DataLoss("CIDv0 cut off after {} bytes", bytes.size());
    return CidView{0, kCodecDagPb, {kSha2_256, bytes.subspan(2, kV0DigestSize)}, bytes.first(kV0Size)};
  }
  Varint version, codec;
  if (const VarintError error = DecodeVarint(bytes, version); error != VarintError::kNone) {
    return Annotate(VarintStatus(error), "CID version");
  }
  if (version.value != 1) return VersionError(version.value);
  if (const VarintError error = DecodeVarint(bytes.subspan(version.size), codec);
      error != VarintError::kNone) {
    return Annotate(VarintStatus(error), "CID codec");
  }
  const size_t head = version.size + codec.size;
  ASSIGN_OR_RETURN(const ParsedMultihash hash, ParseMultihash(bytes.subspan(head)));
  return CidView{1, codec.value, hash.value, bytes.first(head + hash.size)};
}

absl::Status CheckIdentity(const CidView& cid) {
  if (!cid.IsIdentity() || cid.hash.digest.size() <= kIdentityDigestBytesMax) return absl::OkStatus();
  if (Mutant(kMutantIdentityUnlimited)) return absl::OkStatus();
  return InvalidArgument("identity CID inlines {} bytes, at most {} are accepted", cid.hash.digest.size(),
                         kIdentityDigestBytesMax);
}

Cid Cid::V0(Span sha256_digest) {
  DAGSTORE_CHECK(sha256_digest.size() == kV0DigestSize);
  std::string bytes;
  bytes.reserve(kV0Size);
  AppendMultihash(bytes, {kSha2_256, sha256_digest});
  return Cid(std::move(bytes));
}

Cid Cid::V1(uint64_t codec, const MultihashView& hash) {
  DAGSTORE_CHECK(hash.digest.size() <= kDigestBytesMax);
  std::string bytes;
  bytes.reserve(1 + 3 * kVarintBytesMax + hash.digest.size());
  AppendVarint(bytes, 1);
  AppendVarint(bytes, codec);
  AppendMultihash(bytes, hash);
  return Cid(std::move(bytes));
}

absl::StatusOr<Cid> Cid::Of(uint64_t codec, uint64_t hash_code, Span data) {
  if (hash_code == kIdentity) RETURN_IF_ERROR(CheckIdentity({1, codec, {kIdentity, data}, {}}));
  ASSIGN_OR_RETURN(const Bytes digest, Digest(hash_code, data));
  return V1(codec, {hash_code, digest});
}

absl::StatusOr<Cid> Cid::FromBytes(Span bytes) {
  ASSIGN_OR_RETURN(const CidView view, ParseCid(bytes));
  if (view.bytes.size() != bytes.size() && !Mutant(kMutantCidTailTaken)) {
    return DataLoss("{} bytes follow the CID", bytes.size() - view.bytes.size());
  }
  return Cid(view);
}

absl::StatusOr<Cid> Cid::FromText(std::string_view text) {
  for (const std::string_view prefix : {"/ipfs/", "ipfs://"}) {
    if (text.starts_with(prefix)) {
      text.remove_prefix(prefix.size());
      break;
    }
  }
  if (text.empty()) return InvalidArgument("empty text is not a CID");
  if (text.size() > kCidTextBytesMax) {
    return InvalidArgument("CID text of {} bytes, at most {}", text.size(), kCidTextBytesMax);
  }
  const bool is_v0 = text.size() == kV0TextSize && text.starts_with("Qm");
  auto bytes = is_v0 ? DecodeBase(Base::kBase58Btc, text) : DecodeMultibase(text);
  if (!bytes.ok()) return Annotate(bytes.status(), "CID text");
  if (!is_v0 && !bytes->empty() && (*bytes)[0] == kSha2_256) {
    return InvalidArgument("CID text: a CIDv0 must not have a multibase prefix");
  }
  absl::StatusOr<Cid> cid = FromBytes(*bytes);
  if (!cid.ok()) return InvalidArgument("CID text: {}", Message(cid.status()));
  return cid;
}

CidView Cid::view() const {
  const auto view = ParseCid(bytes());
  DAGSTORE_CHECK_MSG(view.ok(), "an empty Cid has no view");
  return *view;
}

std::string Cid::ToText() const {
  if (IsV0(bytes())) return EncodeBase(Base::kBase58Btc, bytes());
  return EncodeMultibase(Base::kBase32, bytes());
}

std::string Cid::ToText(Base base) const { return EncodeMultibase(base, ToV1().bytes()); }

Cid Cid::ToV1() const {
  const CidView v = view();
  return v.version == 1 ? *this : V1(v.codec, v.hash);
}

}  // namespace dagstore
