// OpenShard: the data and the index of one shard, open for reading. Immutable once it is shared; shared by every
// accessor of the shard, and kept for a while after the last.
//
// Threads: any.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/reader.h"
#include "dagstore/options.h"
#include "index/shard_index.h"
#include "shard/record.h"
#include "shard/key.h"

namespace dagstore {

struct OpenShard {
  ShardKey key = {};
  uint32_t ordinal = 0;                             // of the index: names this version of the shard
  std::unique_ptr<const RandomReader> source = {};  // the whole CAR file
  std::shared_ptr<const ShardIndex> index = {};
  CarOptions car = {};
  bool verify = true;  // hash every block before handing it out
  ShardRecord record = {};  // as it was when the shard was opened
  bool sealed = false;      // `source` is a whole local copy of ours, which nobody changes: it may be mapped

  // The whole CAR file, if it lies in memory. Mapped when it is first asked for; threads that ask at the same time find
  // the same mapping.
  Span InMemory() const {
    if (!looked_.load(std::memory_order_acquire)) {
      Span found = source->Memory();
      if (found.empty() && sealed) found = source->Map().value_or(Span());
      memory_.store(found.data(), std::memory_order_relaxed);
      memory_bytes_.store(found.size(), std::memory_order_relaxed);
      looked_.store(true, std::memory_order_release);
    }
    return Span(memory_.load(std::memory_order_relaxed), memory_bytes_.load(std::memory_order_relaxed));
  }

 private:
  mutable std::atomic<bool> looked_{false};
  mutable std::atomic<const uint8_t*> memory_{nullptr};
  mutable std::atomic<size_t> memory_bytes_{0};
};

}  // namespace dagstore
