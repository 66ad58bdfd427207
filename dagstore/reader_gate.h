// ReaderGate: the packed word of an open shard, by which readers come and go without the loop.
//
//     bits 0..23   readers inside
//     bit  24      closed: nobody comes in, and whoever leaves tells the loop
//     bit  25      somebody came in since the loop last looked (eviction by use)
//     bits 26..63  how many came in, ever (wraps; a statistic)
//
// Readers change the counts while the gate is open, which it is only while the shard is Available or Serving. The loop
// alone closes it, and does before it destroys, fails, recovers or collects the shard: closing tells how many readers
// are inside, exactly, and from then on the loop counts them, because each of them reports when it leaves. A closed
// gate never opens; the shard gets a new one with its next lease, so the word needs no generation.
//
// Threads: TryEnter, TryLeave, readers any; Close, TakeUsed the loop.
#pragma once

#include <atomic>
#include <cstdint>

namespace dagstore {

class ReaderGate {
 public:
  static constexpr uint64_t kReadersMask = (uint64_t{1} << 24) - 1;
  static constexpr uint64_t kClosed = uint64_t{1} << 24;
  static constexpr uint64_t kUsed = uint64_t{1} << 25;
  static constexpr int kEnteredShift = 26;
  static constexpr uint64_t kEnter = (uint64_t{1} << kEnteredShift) + 1;

  // The word after a step that is allowed in `word`; `word` itself if it is not. Pure, so that a test can try every
  // interleaving.
  static constexpr uint64_t AfterEnter(uint64_t word) {
    if ((word & kClosed) != 0 || (word & kReadersMask) == kReadersMask) return word;
    return (word + kEnter) | kUsed;
  }
  static constexpr uint64_t AfterLeave(uint64_t word) { return (word & kClosed) != 0 ? word : word - 1; }
  static constexpr uint32_t ReadersOf(uint64_t word) { return static_cast<uint32_t>(word & kReadersMask); }

  explicit ReaderGate(bool open) : word_(open ? 0 : kClosed) {}

  // False: by the loop, then.
  bool TryEnter() { return Change(AfterEnter, std::memory_order_acquire); }
  // Once for each TryEnter that succeeded. False: the loop counts this reader and must be told that it left.
  bool TryLeave() { return Change(AfterLeave, std::memory_order_release); }

  bool open() const { return (word_.load(std::memory_order_relaxed) & kClosed) == 0; }
  // Inside, as far as the loop has not taken over their count.
  uint32_t readers() const {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    return (word & kClosed) != 0 ? 0 : ReadersOf(word);
  }
  uint64_t entered() const { return word_.load(std::memory_order_relaxed) >> kEnteredShift; }

  // Returns how many are inside: the loop's to count from now on. 0 if it was closed already.
  uint32_t Close() {
    const uint64_t before = word_.fetch_or(kClosed, std::memory_order_acq_rel);
    return (before & kClosed) != 0 ? 0 : ReadersOf(before);
  }
  // True if somebody came in since it was last asked.
  bool TakeUsed() {
    return (word_.load(std::memory_order_relaxed) & kUsed) != 0 &&
           (word_.fetch_and(~kUsed, std::memory_order_relaxed) & kUsed) != 0;
  }

 private:
  template <typename Next>
  bool Change(Next next, std::memory_order order) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t wanted = next(word);
      if (wanted == word) return false;
      if (word_.compare_exchange_weak(word, wanted, order, std::memory_order_relaxed)) return true;
    }
  }

  std::atomic<uint64_t> word_;
};

}  // namespace dagstore
