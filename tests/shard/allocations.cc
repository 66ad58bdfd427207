#include "tests/shard/allocations.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
thread_local size_t largest = 0;
}  // namespace

namespace dagstore {
void ForgetAllocations() { largest = 0; }
size_t LargestAllocation() { return largest; }
}  // namespace dagstore

// In a file of its own, so that no compiler sees a pair of new and delete half replaced.
void* operator new(size_t size) {
  largest = std::max(largest, size);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
