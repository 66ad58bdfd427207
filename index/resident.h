// Memory that an index keeps for itself, so that a lookup waits for one read at most; and the budget it comes from.
//
// Threads: a budget may be used by any; bytes are written by one thread before others read them.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/bytes.h"

namespace dagstore {

// How many bytes may be resident. Shared by those who take of it.
class ResidentBudget {
 public:
  explicit ResidentBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // All of it or, if there is too little, none.
  bool Take(uint64_t bytes) {
    uint64_t taken = taken_.load(std::memory_order_relaxed);
    do {
      if (bytes > bytes_max_ - taken) return false;
    } while (!taken_.compare_exchange_weak(taken, taken + bytes));
    return true;
  }
  void Return(uint64_t bytes) { taken_ -= bytes; }
  uint64_t taken() const { return taken_.load(std::memory_order_relaxed); }

 private:
  const uint64_t bytes_max_;
  std::atomic<uint64_t> taken_{0};
};

// A copy of bytes, in huge pages if it is large: random reads then miss no address translation.
class ResidentBytes {
 public:
  ResidentBytes() = default;
  explicit ResidentBytes(Span bytes);
  const uint8_t* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

}  // namespace dagstore
