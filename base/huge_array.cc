#include "base/huge_array.h"

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "base/advice.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

// In front of what is handed out, a cache line long.
struct Header {
  size_t bytes = 0;  // behind it
  bool huge = false;
};
constexpr size_t kSmallHeader = 64;

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kKeptBytesMax = 0;  // who uses memory that he has freed is to be found
#else
constexpr size_t kKeptBytesMax = kHugeKeptBytesMax;
#endif

struct Kept {
  Mutex mu;
  size_t bytes ABSL_GUARDED_BY(mu) = 0;
  std::vector<Header*> blocks ABSL_GUARDED_BY(mu);
};
Kept& TheKept() {
  static Kept* kept = new Kept;  // never destroyed: arrays may outlive whatever is static
  return *kept;
}

}  // namespace

void* AllocateHuge(size_t bytes) {
  static_assert(sizeof(Header) <= kSmallHeader);
  if (bytes < kHugePageBytes - kSmallHeader) {
    void* memory = std::malloc(kSmallHeader + bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return reinterpret_cast<uint8_t*>(new (memory) Header{bytes, false}) + kSmallHeader;
  }
  {
    Kept& kept = TheKept();
    const MutexLock lock(kept.mu);
    for (Header*& block : kept.blocks) {
      if (block->bytes < bytes || block->bytes / 2 > bytes) continue;
      Header* const found = block;
      block = kept.blocks.back();
      kept.blocks.pop_back();
      kept.bytes -= found->bytes;
      return reinterpret_cast<uint8_t*>(found) + kSmallHeader;
    }
  }
  const size_t rounded = (kSmallHeader + bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  void* memory = std::aligned_alloc(kHugePageBytes, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  AdviseHugePages(memory, rounded);
  return reinterpret_cast<uint8_t*>(new (memory) Header{rounded - kSmallHeader, true}) + kSmallHeader;
}

void FreeHuge(void* data) {
  if (data == nullptr) return;
  Header* const header = reinterpret_cast<Header*>(static_cast<uint8_t*>(data) - kSmallHeader);
  if (header->huge) {
    Kept& kept = TheKept();
    const MutexLock lock(kept.mu);
    if (kept.bytes + header->bytes <= kKeptBytesMax) {
      kept.bytes += header->bytes;
      kept.blocks.push_back(header);
      return;
    }
  }
  std::free(header);
}

}  // namespace dagstore
