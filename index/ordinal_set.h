// OrdinalSet: shard ordinals, one bit each; memory in chunks of 4 KiB for 32 Ki ordinals, so a million take 128 KiB.
//
// Threads: any, without locks; each call is atomic by itself.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/check.h"

namespace dagstore {

class OrdinalSet {
 public:
  static constexpr uint32_t kChunkOrdinals = 32768;
  static constexpr uint32_t kChunkWords = kChunkOrdinals / 64;
  static constexpr uint32_t kChunks = (uint64_t{1} << 32) / kChunkOrdinals;
  using Words = std::array<uint64_t, kChunkWords>;

  // calloc: the table spans 1 MiB of addresses, and only the pages that are used cost memory.
  OrdinalSet() : chunks_(static_cast<Chunk**>(std::calloc(kChunks, sizeof(Chunk*)))) {
    DAGSTORE_CHECK(chunks_ != nullptr);
  }
  ~OrdinalSet() {
    for (uint32_t i = 0; i < end_chunk_.load(); ++i) delete chunks_.get()[i];
  }
  OrdinalSet(const OrdinalSet&) = delete;
  OrdinalSet& operator=(const OrdinalSet&) = delete;

  bool Contains(uint32_t ordinal) const {
    const Chunk* chunk = Find(ordinal / kChunkOrdinals);
    if (chunk == nullptr) return false;
    const uint64_t word = (*chunk)[ordinal % kChunkOrdinals / 64].load(std::memory_order_acquire);
    return (word >> (ordinal % 64) & 1) != 0;
  }
  // True if it was not there.
  bool Insert(uint32_t ordinal) {
    const uint64_t bit = uint64_t{1} << (ordinal % 64);
    return (InsertWord(ordinal / 64, bit) & bit) == 0;
  }
  // Adds the ordinals 64 * word + (bits of `bits`). Returns the bits before.
  uint64_t InsertWord(uint32_t word, uint64_t bits) {
    return Make(word / kChunkWords)[word % kChunkWords].fetch_or(bits, std::memory_order_acq_rel);
  }
  // The ordinals 64 * word + i, as bits.
  uint64_t Word(uint32_t word) const {
    const Chunk* chunk = Find(word / kChunkWords);
    return chunk == nullptr ? 0 : (*chunk)[word % kChunkWords].load(std::memory_order_acquire);
  }
  void Read(uint32_t chunk, Words& out) const {
    for (uint32_t i = 0; i < kChunkWords; ++i) out[i] = Word(chunk * kChunkWords + i);
  }
  void Write(uint32_t chunk, const Words& words) {
    Chunk& to = Make(chunk);
    for (uint32_t i = 0; i < kChunkWords; ++i) to[i].store(words[i], std::memory_order_release);
  }
  // One past the greatest member.
  uint64_t End() const {
    for (uint64_t word = uint64_t{end_chunk_.load()} * kChunkWords; word-- > 0;) {
      const uint64_t bits = Word(static_cast<uint32_t>(word));
      if (bits != 0) return word * 64 + std::bit_width(bits);
    }
    return 0;
  }

 private:
  using Chunk = std::array<std::atomic<uint64_t>, kChunkWords>;
  struct Free {
    void operator()(Chunk** chunks) const { std::free(chunks); }
  };

  Chunk* Find(uint32_t chunk) const {
    return std::atomic_ref<Chunk*>(chunks_.get()[chunk]).load(std::memory_order_acquire);
  }
  Chunk& Make(uint32_t chunk) {
    if (Chunk* found = Find(chunk); found != nullptr) return *found;
    auto made = std::make_unique<Chunk>();
    for (std::atomic<uint64_t>& word : *made) word.store(0, std::memory_order_relaxed);
    Chunk* expected = nullptr;
    if (!std::atomic_ref<Chunk*>(chunks_.get()[chunk]).compare_exchange_strong(expected, made.get()))
      return *expected;
    uint32_t end = end_chunk_.load();
    while (end <= chunk && !end_chunk_.compare_exchange_weak(end, chunk + 1)) {
    }
    return *made.release();
  }

  std::unique_ptr<Chunk*, Free> chunks_;
  std::atomic<uint32_t> end_chunk_{0};  // one past the last chunk that exists
};

}  // namespace dagstore
