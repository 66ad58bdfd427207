#include "base/huge_array.h"

#include <cstdlib>
#include <new>
#include <vector>

#include "base/advice.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kKeptBytesMax = 0;  // who uses memory that he has freed is to be found
#else
constexpr size_t kKeptBytesMax = kHugeKeptBytesMax;
#endif

struct Kept {
  Mutex mu;
  size_t bytes ABSL_GUARDED_BY(mu) = 0;
  std::vector<HugeMemory> blocks ABSL_GUARDED_BY(mu);
};
Kept& TheKept() {
  static Kept* kept = new Kept;  // never destroyed: arrays may outlive whatever is static
  return *kept;
}

}  // namespace

HugeMemory AllocateHuge(size_t bytes) {
  HugeMemory memory{nullptr, bytes};
  if (bytes < kHugePageBytes) {
    memory.data = std::malloc(bytes);
    if (memory.data == nullptr && bytes != 0) throw std::bad_alloc();
    return memory;
  }
  {
    Kept& kept = TheKept();
    const MutexLock lock(kept.mu);
    for (HugeMemory& block : kept.blocks) {
      if (block.bytes < bytes || block.bytes / 2 > bytes) continue;
      memory = block;
      block = kept.blocks.back();
      kept.blocks.pop_back();
      kept.bytes -= memory.bytes;
      return memory;
    }
  }
  memory.bytes = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  memory.data = std::aligned_alloc(kHugePageBytes, memory.bytes);
  if (memory.data == nullptr) throw std::bad_alloc();
  AdviseHugePages(memory.data, memory.bytes);
  return memory;
}

void FreeHuge(const HugeMemory& memory) {
  if (memory.bytes >= kHugePageBytes) {
    Kept& kept = TheKept();
    const MutexLock lock(kept.mu);
    if (kept.bytes + memory.bytes <= kKeptBytesMax) {
      kept.bytes += memory.bytes;
      kept.blocks.push_back(memory);
      return;
    }
  }
  std::free(memory.data);
}

}  // namespace dagstore
