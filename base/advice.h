// What the kernel is told about memory. Hints: a failure changes nothing, and nothing is told of it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace dagstore {

inline constexpr size_t kHugePageBytes = 2 << 20;

// Of memory that is about to be filled: by huge pages, where the system has them. A page fault for each 4 KiB of memory
// that is used once costs more than writing the memory does.
inline void AdviseHugePages(void* data, size_t bytes) {
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data) + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePageBytes * kHugePageBytes;
  if (from < to) (void)madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
}

// Of a part of a mapped file that is about to be read: at once, not page by page.
inline void AdviseWillRead(Span mapped) {
  constexpr uintptr_t kPage = 4096;
  const uintptr_t from = reinterpret_cast<uintptr_t>(mapped.data()) / kPage * kPage;
  const uintptr_t to = reinterpret_cast<uintptr_t>(mapped.data() + mapped.size());
  (void)madvise(reinterpret_cast<void*>(from), to - from, MADV_WILLNEED);
}

}  // namespace dagstore
