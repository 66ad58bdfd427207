// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): numbers that look
// random, of a state of 64 bits. For jitter, ids, samples and tests. Whoever has seen one can tell the others: where an
// enemy must not guess, base/siphash.h.
#pragma once

#include <cstdint>

namespace dagstore {

inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15;  // the golden ratio: successive states are far apart

// A bijection that leaves no trace of its argument's order (the generator's finaliser).
constexpr uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr uint64_t NextSplitMix(uint64_t& state) { return MixBits(state += kSplitMixStep); }

}  // namespace dagstore
