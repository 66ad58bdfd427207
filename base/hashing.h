// Hash functions of multihash: which can be computed, one-shot digests, incremental digests, and checking a block
// against its multihash. OpenSSL does the work with fetched algorithms and reused contexts; what it lacks is ours
// (blake2.h, blake3.h, keccak.h, murmur3.h).
//
// Threads: free functions are thread-safe (contexts are per thread); a Hasher belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/multihash.h"

namespace dagstore {

// What a function can give at most; go-multihash has the same limit for BLAKE3, whose output has no natural end.
inline constexpr size_t kHashOutputBytesMax = 128;

// Shorter digests prove nothing, because a second block with the same digest can be made; boxo's verifcid, which guards
// what IPFS nodes accept from each other, draws the line in the same place.
inline constexpr size_t kVerifiableDigestBytesMin = 20;

// Native digest size in bytes, or 0 if the function has none here (unknown, or identity).
size_t DigestSize(uint64_t code);
// True for identity and for every function Digest() can compute.
bool CanHash(uint64_t code);

// The digest of `data`, cut to `length` bytes (0 = the native size). Unimplemented for an unknown function,
// InvalidArgument if `length` exceeds the native size (BLAKE3: kHashOutputBytesMax). Identity gives the data itself,
// and accepts no other length.
absl::StatusOr<Bytes> Digest(uint64_t code, Span data, size_t length = 0);

// Fixed outputs for the callers that need no allocation. `out` has 32 bytes.
void Sha256(Span data, uint8_t* out);
void Blake3(Span data, uint8_t* out, size_t out_size = 32);

enum class HashCheck : uint8_t {
  kMatch,
  kMismatch,
  kUnverifiable,  // the function is not known here, or the digest is too short to mean anything: storable and
                  // indexable, but nobody vouches for the bytes
};
// Recomputes and compares. A digest longer than the function gives is a mismatch; a digest of less than
// kVerifiableDigestBytesMin is unverifiable whatever the data is, except identity's, which is the data. No allocation.
HashCheck VerifyBlock(const MultihashView& hash, Span data);

// A block to be checked with others of its kind.
struct HashJob {
  MultihashView hash = {};
  Span data = {};
  HashCheck result = HashCheck::kMismatch;  // filled in
};
// Same results as VerifyBlock on each, in the fastest way this machine has for many blocks: sha2-256, which nearly all
// blocks have, goes through sha256_lanes.h. Give it 64 blocks and more at a time if you can. Allocates nothing.
void VerifyBlocks(std::span<HashJob> jobs);

// Incremental, for files that do not fit in memory.
class Hasher {
 public:
  virtual ~Hasher() = default;
  virtual void Update(Span data) = 0;
  // Native size. Call once.
  virtual Bytes Finish() = 0;
};
// Unimplemented for an unknown function, and for identity, whose digest is as large as the data.
absl::StatusOr<std::unique_ptr<Hasher>> NewHasher(uint64_t code);

}  // namespace dagstore
