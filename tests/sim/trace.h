// Trace: what happened in a run, as one number, and as text for people if asked for. The number depends on nothing but
// the tape and the code: no address, no thread, no clock of the machine.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace dagstore::sim {

class Trace {
 public:
  void Add(uint64_t value) {
    hash_ = (hash_ ^ value) * 0x9fb21c651e98df25;
    hash_ ^= hash_ >> 29;
  }
  void Add(std::string_view text) {
    Add(text.size());
    uint64_t word = 0;
    size_t n = 0;
    for (const char c : text) {
      word = word << 8 | static_cast<uint8_t>(c);
      if (++n % 8 == 0) Add(word);
    }
    if (n % 8 != 0) Add(word);
  }
  uint64_t hash() const { return hash_; }

  // Lines for people go here, if it is set.
  std::function<void(std::string)> listener = {};
  bool verbose() const { return listener != nullptr; }

 private:
  uint64_t hash_ = 0x243f6a8885a308d3;
};

}  // namespace dagstore::sim
