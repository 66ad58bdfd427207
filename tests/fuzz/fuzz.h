// What fuzz targets share: each defines FuzzOne, and fuzz_one.cc calls it under a cap on memory.
//
// Cap: at no time more bytes are live that were allocated for an input than 4 times its size and 1 MiB. It counts every
// allocation of the process, the target's own included, and ends the process at the first one above, with its stack.
// Threads: FuzzOne is called by one; threads that it starts are counted and end before it returns.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

// The target: looks at any bytes, CHECKs what must hold, returns.
void FuzzOne(Span input);

inline constexpr uint64_t kFuzzBytesPerInputByte = 4;
inline constexpr uint64_t kFuzzBytesFree = 1 << 20;

// Starts counting anew: at most `bytes` may be live from here on.
void CapAllocations(uint64_t bytes);
void LiftAllocationCap();
// The most that was live since CapAllocations.
uint64_t AllocatedBytesPeak();

}  // namespace dagstore
