// Tape: every choice of a simulated run, in one stream for each purpose, so that a draw more in one does not shift the
// others. From a seed it makes the words and remembers them; from remembered words it plays them, and past their end
// says 0. Zero is always the tamest choice: no fault, the oldest fiber, the first operation. So cutting words out of a
// tape, or putting zeros in, gives a tamer run: that is what the shrinker does.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/splitmix.h"
#include "base/status.h"

namespace dagstore::sim {

enum class Stream : uint8_t { kConfig, kWork, kSchedule, kFault, kCrash, kSource, kIdentity };
inline constexpr size_t kStreams = 7;
const char* StreamName(Stream stream);

using TapeWords = std::array<std::vector<uint32_t>, kStreams>;

class Tape {
 public:
  explicit Tape(uint64_t seed);
  explicit Tape(TapeWords words) : words_(std::move(words)), playing_(true) {}

  // 0 .. n-1; n is at least 1.
  uint32_t Draw(Stream stream, uint32_t n) {
    const auto s = static_cast<size_t>(stream);
    if (playing_) {
      if (at_[s] >= words_[s].size()) return 0;
      return words_[s][at_[s]++] % n;
    }
    const auto word = static_cast<uint32_t>(((NextSplitMix(state_[s]) >> 32) * n) >> 32);
    words_[s].push_back(word);
    return word;
  }
  // True `per_mille` times of a thousand.
  bool Chance(Stream stream, uint32_t per_mille) {
    return per_mille != 0 && Draw(stream, 1000) >= 1000 - per_mille;
  }
  const TapeWords& words() const { return words_; }
  // What was drawn so far; of a tape that is played, without what was not reached.
  TapeWords Used() const;

 private:
  TapeWords words_;
  std::array<size_t, kStreams> at_ = {};
  std::array<uint64_t, kStreams> state_ = {};
  bool playing_ = false;
};

// One line a stream: its name and its words.
std::string EncodeTape(const TapeWords& words);
absl::StatusOr<TapeWords> DecodeTape(std::string_view text);

}  // namespace dagstore::sim
