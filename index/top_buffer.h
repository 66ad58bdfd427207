// TopBuffer: the newest entries of the top-level index, in memory: a log of entries, chained by hash. An insertion is
// one append and one store, whatever the number of equal keys, so a block that every shard holds costs no more than
// others.
//
// Threads: one writer at a time (the caller's lock); Find at any time from any thread, without a lock.
#pragma once

#include <absl/functional/function_ref.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "index/top_run.h"

namespace dagstore {

class TopBuffer {
 public:
  // 20 bytes an entry of addresses; memory is used as entries come.
  explicit TopBuffer(size_t entries_max);
  TopBuffer(const TopBuffer&) = delete;
  TopBuffer& operator=(const TopBuffer&) = delete;

  size_t size() const { return size_.load(std::memory_order_acquire); }
  size_t room() const { return entries_max_ - size(); }

  // The writer. Adds `sorted` (ascending; equal neighbours once) until it ends or the table is full; returns how many
  // of `sorted` were taken.
  size_t Add(Ordinal ordinal, std::span<const Fingerprint> sorted);

  void Prefetch(RunKey key) const { __builtin_prefetch(&heads_.get()[Head(key)]); }
  // The entry that a chain begins with is prefetched; to be given to Find.
  uint32_t Begin(RunKey key) const {
    const uint32_t first = std::atomic_ref<uint32_t>(heads_.get()[Head(key)]).load(std::memory_order_acquire);
    if (first != 0) __builtin_prefetch(&entries_[first - 1]);
    return first;
  }
  // Until `visit(ordinal)` says false; newest first.
  template <typename Visit>
  void Find(RunKey key, uint32_t first, Visit visit) const {
    for (uint32_t at = first; at != 0; at = entries_[at - 1].next) {
      if (entries_[at - 1].key == key && !visit(entries_[at - 1].ordinal)) return;
    }
  }

  // The entries by (key, ordinal), repeats included. The writer must have ended.
  std::vector<RunEntry> Sorted() const;

  // Ordinals sealed while this was the table that took entries: covered once this table's run is. The caller's lock.
  std::vector<Ordinal> sealed;

 private:
  struct Entry {
    RunKey key;
    Ordinal ordinal;
    uint32_t next;  // 1 + position of the next entry of the chain; 0: none
  };
  struct Free {
    void operator()(uint32_t* heads) const { std::free(heads); }
  };
  size_t Head(RunKey key) const { return static_cast<size_t>(key >> (kRunKeyBits - head_bits_)); }

  const size_t entries_max_;
  const int head_bits_;
  const std::unique_ptr<Entry[]> entries_;
  const std::unique_ptr<uint32_t, Free> heads_;  // 1 + position of the newest entry of each chain
  std::atomic<size_t> size_{0};
};

// Sorts by (key, ordinal): two radix passes and small sorts. `scratch` is as large as `entries`; both are overwritten.
void SortRunEntries(std::vector<RunEntry>& entries, std::vector<RunEntry>& scratch);

}  // namespace dagstore
