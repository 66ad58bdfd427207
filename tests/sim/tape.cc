#include "tests/sim/tape.h"

#include <algorithm>
#include <charconv>

namespace dagstore::sim {

const char* StreamName(Stream stream) {
  static constexpr const char* kNames[kStreams] = {"config", "work", "schedule", "fault", "crash", "source",
      "identity"};
  return kNames[static_cast<size_t>(stream)];
}

Tape::Tape(uint64_t seed) {
  uint64_t state = seed;
  for (uint64_t& s : state_) s = NextSplitMix(state);
}

TapeWords Tape::Used() const {
  TapeWords used = words_;
  if (!playing_) return used;
  for (size_t s = 0; s < kStreams; ++s) used[s].resize(std::min(used[s].size(), at_[s]));
  return used;
}

std::string EncodeTape(const TapeWords& words) {
  std::string out;
  for (size_t s = 0; s < kStreams; ++s) {
    out += StreamName(static_cast<Stream>(s));
    for (const uint32_t word : words[s]) out += fmt::format(" {}", word);
    out += '\n';
  }
  return out;
}

absl::StatusOr<TapeWords> DecodeTape(std::string_view text) {
  TapeWords words;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const size_t space = std::min(line.find(' '), line.size());
    const std::string_view name = line.substr(0, space);
    line.remove_prefix(space);
    size_t s = 0;
    while (s < kStreams && name != StreamName(static_cast<Stream>(s))) ++s;
    if (s == kStreams) return InvalidArgument("a tape has no stream \"{}\"", name);
    while (!line.empty()) {
      line.remove_prefix(1);
      uint32_t word = 0;
      const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), word);
      if (error != std::errc()) return InvalidArgument("stream \"{}\" of the tape holds something else than numbers",
          name);
      words[s].push_back(word);
      line.remove_prefix(static_cast<size_t>(rest - line.data()));
    }
  }
  return words;
}

}  // namespace dagstore::sim
