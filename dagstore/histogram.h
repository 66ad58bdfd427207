// Histogram: counts of values in fixed ranges, each four times as wide as the one before. Adding one costs a few
// instructions and no lock: its owner collects it when somebody asks.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace dagstore {

// One owner, one thread; a copy is a value.
struct Histogram {
  // Ranges end at 1, 4, 16 ... 4^13; the last has no end. Of microseconds: 1 us to 67 s.
  static constexpr size_t kRanges = 15;
  static constexpr uint64_t End(size_t range) { return uint64_t{1} << (2 * range); }

  std::array<uint64_t, kRanges> counts = {};
  uint64_t count = 0;
  uint64_t sum = 0;  // in the unit of the values

  void Add(uint64_t value) {
    // The first range whose end is not below the value.
    const size_t range = value <= 1 ? 0 : (static_cast<size_t>(std::bit_width(value - 1)) + 1) / 2;
    ++counts[std::min(range, kRanges - 1)];
    ++count;
    sum += value;
  }
  // Times are kept in microseconds.
  void AddNanos(int64_t nanos) { Add(nanos <= 0 ? 0 : static_cast<uint64_t>(nanos) / 1000); }
};

}  // namespace dagstore
