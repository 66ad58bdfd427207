#include "base/hashing.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/blake2.h"
#include "base/blake3.h"
#include "base/check.h"
#include "base/keccak.h"
#include "base/murmur3.h"
#include "base/sha256_lanes.h"

namespace dagstore {
namespace {

// Algorithms of OpenSSL; the order of kEvpNames.
enum class Evp : uint8_t {
  kSha1,
  kSha2_224,
  kSha2_256,
  kSha2_384,
  kSha2_512,
  kSha2_512_224,
  kSha2_512_256,
  kSha3_224,
  kSha3_256,
  kSha3_384,
  kSha3_512,
  kShake128,
  kShake256,
  kMd5,
  kCount,
};
constexpr size_t kEvpCount = static_cast<size_t>(Evp::kCount);
constexpr std::array<const char*, kEvpCount> kEvpNames = {
    "SHA1",       "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512",  "SHA2-512/224", "SHA2-512/256",
    "SHA3-224",   "SHA3-256", "SHA3-384", "SHA3-512", "SHAKE-128", "SHAKE-256",    "MD5"};

enum class Kind : uint8_t { kIdentity, kEvp, kDoubleSha256, kBlake2b, kBlake2s, kBlake3, kKeccak, kMurmur3 };

struct Function {
  Kind kind = Kind::kEvp;
  Evp evp = Evp::kCount;
  uint8_t size = 0;      // native digest
  uint8_t size_max = 0;  // longest digest
};

// The algorithm, or null where this OpenSSL was built or configured without it. Fetched once: a fetch costs more than
// the digest of a small block. Never freed, because threads may hash until the process is gone.
const EVP_MD* Fetched(Evp evp) {
  static const std::array<EVP_MD*, kEvpCount> all = [] {
    std::array<EVP_MD*, kEvpCount> fetched;
    for (size_t i = 0; i < kEvpCount; ++i) fetched[i] = EVP_MD_fetch(nullptr, kEvpNames[i], nullptr);
    return fetched;
  }();
  return all[static_cast<size_t>(evp)];
}

std::optional<Function> FindUnchecked(uint64_t code) {
  const auto evp = [](Evp algorithm, uint8_t size) {
    return Function{Kind::kEvp, algorithm, size, size};
  };
  const auto own = [](Kind kind, size_t size) {
    return Function{kind, Evp::kCount, static_cast<uint8_t>(size), static_cast<uint8_t>(size)};
  };
  if (code >= kBlake2b8 && code <= kBlake2b512) return own(Kind::kBlake2b, code - kBlake2b8 + 1);
  if (code >= kBlake2s8 && code <= kBlake2s256) return own(Kind::kBlake2s, code - kBlake2s8 + 1);
  switch (code) {
    case kIdentity: return own(Kind::kIdentity, 0);
    case kSha1: return evp(Evp::kSha1, 20);
    case kSha2_224: return evp(Evp::kSha2_224, 28);
    case kSha2_256: return evp(Evp::kSha2_256, 32);
    case kSha2_384: return evp(Evp::kSha2_384, 48);
    case kSha2_512: return evp(Evp::kSha2_512, 64);
    case kSha2_512_224: return evp(Evp::kSha2_512_224, 28);
    case kSha2_512_256: return evp(Evp::kSha2_512_256, 32);
    case kSha3_224: return evp(Evp::kSha3_224, 28);
    case kSha3_256: return evp(Evp::kSha3_256, 32);
    case kSha3_384: return evp(Evp::kSha3_384, 48);
    case kSha3_512: return evp(Evp::kSha3_512, 64);
    case kShake128: return evp(Evp::kShake128, 32);
    case kShake256: return evp(Evp::kShake256, 64);
    case kMd5: return evp(Evp::kMd5, 16);
    case kDblSha2_256: return Function{Kind::kDoubleSha256, Evp::kSha2_256, 32, 32};
    case kKeccak224: return own(Kind::kKeccak, 28);
    case kKeccak256: return own(Kind::kKeccak, 32);
    case kKeccak384: return own(Kind::kKeccak, 48);
    case kKeccak512: return own(Kind::kKeccak, 64);
    case kBlake3: return Function{Kind::kBlake3, Evp::kCount, 32, kHashOutputBytesMax};
    case kMurmur3X64_64: return own(Kind::kMurmur3, 8);
    default: return std::nullopt;
  }
}

// Nothing if it cannot be computed here.
std::optional<Function> Find(uint64_t code) {
  const std::optional<Function> found = FindUnchecked(code);
  if (found && found->evp != Evp::kCount && Fetched(found->evp) == nullptr) return std::nullopt;
  return found;
}

absl::Status Unknown(uint64_t code) {
  return Unimplemented("hash function {} cannot be computed here", HashName(code));
}

struct ContextFree {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, ContextFree>;

// Fails only if memory is exhausted.
void EvpBegin(EVP_MD_CTX* context, Evp evp) {
  DAGSTORE_CHECK(EVP_DigestInit_ex2(context, Fetched(evp), nullptr) == 1);
}
void EvpUpdate(EVP_MD_CTX* context, Span data) {
  DAGSTORE_CHECK(EVP_DigestUpdate(context, data.data(), data.size()) == 1);
}
void EvpFinish(EVP_MD_CTX* context, Evp evp, size_t size, uint8_t* out) {
  const bool extendable = evp == Evp::kShake128 || evp == Evp::kShake256;
  DAGSTORE_CHECK((extendable ? EVP_DigestFinalXOF(context, out, size)
                             : EVP_DigestFinal_ex(context, out, nullptr)) == 1);
}

// One context for each thread and algorithm: a context that changes its algorithm allocates.
void EvpDigest(Evp evp, size_t size, Span data, uint8_t* out) {
  thread_local std::array<Context, kEvpCount> contexts;
  Context& context = contexts[static_cast<size_t>(evp)];
  if (context == nullptr) {
    context.reset(EVP_MD_CTX_new());
    DAGSTORE_CHECK(context != nullptr);
  }
  EvpBegin(context.get(), evp);
  EvpUpdate(context.get(), data);
  EvpFinish(context.get(), evp, size, out);
}

void StoreMurmur3(uint64_t value, uint8_t* out) { Store64(out, __builtin_bswap64(value)); }

// Writes max(length, native size) bytes; `out` has room for kHashOutputBytesMax.
void Compute(const Function& function, Span data, size_t length, uint8_t* out) {
  switch (function.kind) {
    case Kind::kIdentity:
      break;
    case Kind::kEvp:
      EvpDigest(function.evp, function.size, data, out);
      return;
    case Kind::kDoubleSha256:
      Sha256(data, out);
      Sha256({out, 32}, out);
      return;
    case Kind::kBlake2b: {
      Blake2b state(function.size);
      state.Update(data);
      state.Finish(out);
      return;
    }
    case Kind::kBlake2s: {
      Blake2s state(function.size);
      state.Update(data);
      state.Finish(out);
      return;
    }
    case Kind::kBlake3:
      Blake3(data, out, std::max<size_t>(length, function.size));
      return;
    case Kind::kKeccak: {
      Keccak state(function.size);
      state.Update(data);
      state.Finish(out);
      return;
    }
    case Kind::kMurmur3:
      StoreMurmur3(Murmur3X64_64(data), out);
      return;
  }
  DAGSTORE_CHECK_MSG(false, "identity has nothing to compute");
}

class EvpHasher final : public Hasher {
 public:
  explicit EvpHasher(const Function& function) : function_(function), context_(EVP_MD_CTX_new()) {
    DAGSTORE_CHECK(context_ != nullptr);
    EvpBegin(context_.get(), function_.evp);
  }
  void Update(Span data) override { EvpUpdate(context_.get(), data); }
  Bytes Finish() override {
    Bytes out(function_.size);
    EvpFinish(context_.get(), function_.evp, out.size(), out.data());
    if (function_.kind == Kind::kDoubleSha256) Sha256(out, out.data());
    return out;
  }

 private:
  const Function function_;
  const Context context_;
};

// For Blake2 and Keccak.
template <typename State>
class SizedHasher final : public Hasher {
 public:
  explicit SizedHasher(size_t size) : state_(size), size_(size) {}
  void Update(Span data) override { state_.Update(data); }
  Bytes Finish() override {
    Bytes out(size_);
    state_.Finish(out.data());
    return out;
  }

 private:
  State state_;
  const size_t size_;
};

class Blake3StreamHasher final : public Hasher {
 public:
  void Update(Span data) override { state_.Update(data); }
  Bytes Finish() override {
    Bytes out(32);
    state_.Finish(out.data(), out.size());
    return out;
  }

 private:
  Blake3Hasher state_;
};

class Murmur3StreamHasher final : public Hasher {
 public:
  void Update(Span data) override { state_.Update(data); }
  Bytes Finish() override {
    Bytes out(8);
    StoreMurmur3(state_.Value(), out.data());
    return out;
  }

 private:
  Murmur3 state_;
};

}  // namespace

size_t DigestSize(uint64_t code) {
  const std::optional<Function> function = Find(code);
  return function ? function->size : 0;
}

bool CanHash(uint64_t code) { return Find(code).has_value(); }

absl::StatusOr<Bytes> Digest(uint64_t code, Span data, size_t length) {
  const std::optional<Function> function = Find(code);
  if (!function) return Unknown(code);
  if (function->kind == Kind::kIdentity) {
    if (length != 0 && length != data.size()) {
      return InvalidArgument("an identity digest of {} bytes of data cannot have {}", data.size(), length);
    }
    return Bytes(data.begin(), data.end());
  }
  if (length > function->size_max) {
    return InvalidArgument("{} gives at most {} bytes, not {}", HashName(code), function->size_max, length);
  }
  uint8_t digest[kHashOutputBytesMax];
  Compute(*function, data, length, digest);
  return Bytes(digest, digest + (length == 0 ? function->size : length));
}

void Sha256(Span data, uint8_t* out) {
  DAGSTORE_CHECK_MSG(Fetched(Evp::kSha2_256) != nullptr, "OpenSSL has no sha2-256");
  EvpDigest(Evp::kSha2_256, 32, data, out);
}

HashCheck VerifyBlock(const MultihashView& hash, Span data) {
  const std::optional<Function> function = Find(hash.code);
  if (!function) return HashCheck::kUnverifiable;
  if (function->kind == Kind::kIdentity) {
    return SameBytes(hash.digest, data) ? HashCheck::kMatch : HashCheck::kMismatch;
  }
  if (hash.digest.size() < kVerifiableDigestBytesMin) return HashCheck::kUnverifiable;
  if (hash.digest.size() > function->size_max) return HashCheck::kMismatch;
  uint8_t digest[kHashOutputBytesMax];
  Compute(*function, data, hash.digest.size(), digest);
  return SameBytes(hash.digest, {digest, hash.digest.size()}) ? HashCheck::kMatch : HashCheck::kMismatch;
}

void VerifyBlocks(std::span<HashJob> jobs) {
  constexpr size_t kBatch = 256;  // enough to keep all lanes busy, 14 KiB of stack
  Sha256Job batch[kBatch];
  HashJob* owners[kBatch];
  size_t count = 0;
  const auto flush = [&] {
    Sha256Many({batch, count});
    for (size_t i = 0; i < count; ++i) {
      const Span wanted = owners[i]->hash.digest;
      const bool same = SameBytes(wanted, Span(batch[i].digest).first(wanted.size()));
      owners[i]->result = same ? HashCheck::kMatch : HashCheck::kMismatch;
    }
    count = 0;
  };
  for (HashJob& job : jobs) {
    const size_t size = job.hash.digest.size();
    if (job.hash.code != kSha2_256 || size < kVerifiableDigestBytesMin || size > batch[0].digest.size()) {
      job.result = VerifyBlock(job.hash, job.data);
      continue;
    }
    batch[count].data = job.data;
    owners[count++] = &job;
    if (count == kBatch) flush();
  }
  if (count > 0) flush();
}

absl::StatusOr<std::unique_ptr<Hasher>> NewHasher(uint64_t code) {
  const std::optional<Function> function = Find(code);
  if (!function) return Unknown(code);
  switch (function->kind) {
    case Kind::kIdentity:
      return Unimplemented("identity has no incremental digest");
    case Kind::kEvp:
    case Kind::kDoubleSha256:
      return std::make_unique<EvpHasher>(*function);
    case Kind::kBlake2b:
      return std::make_unique<SizedHasher<Blake2b>>(function->size);
    case Kind::kBlake2s:
      return std::make_unique<SizedHasher<Blake2s>>(function->size);
    case Kind::kBlake3:
      return std::make_unique<Blake3StreamHasher>();
    case Kind::kKeccak:
      return std::make_unique<SizedHasher<Keccak>>(function->size);
    case Kind::kMurmur3:
      return std::make_unique<Murmur3StreamHasher>();
  }
  return Unknown(code);
}

}  // namespace dagstore
