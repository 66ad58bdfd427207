// SHA-256 of many messages at once: several are hashed side by side, because one alone leaves most of a core idle.
// Chosen at run time: AVX-512 with 16 lanes, the SHA instructions with 2, else OpenSSL one by one.
//
// Messages may have any mix of lengths: a lane whose message ends takes the next one. Few messages, and the last ones
// of a batch, go to the narrower kernel, which wins there. Batches of 64 and more pay most.
//
// Any thread. Allocates nothing; 8 KiB of stack.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/bytes.h"

namespace dagstore {

struct Sha256Job {
  Span data = {};
  std::array<uint8_t, 32> digest = {};  // filled in
};

enum class Sha256Kernel : uint8_t {
  kOneByOne,     // OpenSSL; everywhere
  kShaNi,        // 2 lanes
  kAvx512,       // 16 lanes, for processors without the SHA instructions
  kAvx512ShaNi,  // 16 lanes, and 2 where fewer than 10 would be in use
};
inline constexpr Sha256Kernel kSha256Kernels[] = {Sha256Kernel::kOneByOne, Sha256Kernel::kShaNi,
                                                  Sha256Kernel::kAvx512, Sha256Kernel::kAvx512ShaNi};

// Whether this processor and system can run it.
bool CanRun(Sha256Kernel kernel);
Sha256Kernel BestSha256Kernel();

void Sha256Many(std::span<Sha256Job> jobs);
// With a kernel of the caller's choice, for tests and benchmarks; CHECKs that it can run.
void Sha256Many(std::span<Sha256Job> jobs, Sha256Kernel kernel);

}  // namespace dagstore
