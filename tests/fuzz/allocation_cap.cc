// Counts live memory. Under a sanitizer by its hooks, which see malloc too; else by replacing operator new.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "tests/fuzz/fuzz.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DAGSTORE_SANITIZER_HOOKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DAGSTORE_SANITIZER_HOOKS 1
#endif
#endif

#ifdef DAGSTORE_SANITIZER_HOOKS
// Of the sanitizers' own interface; g++ ships the functions without the header.
extern "C" {
size_t __sanitizer_get_allocated_size(const volatile void* p);
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, size_t),
                                              void (*free_hook)(const volatile void*));
}
#else
#include <malloc.h>
#endif

namespace dagstore {
namespace {

constexpr int64_t kNoCap = INT64_MAX;
std::atomic<int64_t> cap{kNoCap};
std::atomic<int64_t> live{0};
std::atomic<int64_t> peak{0};

// May not allocate: it runs inside an allocation.
void Count(int64_t bytes) {
  const int64_t now = live.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (bytes < 0) return;
  if (now > peak.load(std::memory_order_relaxed)) peak.store(now, std::memory_order_relaxed);
  const int64_t most = cap.load(std::memory_order_relaxed);
  if (now <= most) return;
  cap.store(kNoCap, std::memory_order_relaxed);
  char text[160];
  const int size = std::snprintf(text, sizeof(text), "allocation cap: %lld bytes live after %lld more, at most %lld\n",
                                 static_cast<long long>(now), static_cast<long long>(bytes),
                                 static_cast<long long>(most));
  if (write(STDERR_FILENO, text, static_cast<size_t>(size)) != size) std::abort();
  std::abort();
}

#ifdef DAGSTORE_SANITIZER_HOOKS
void OnMalloc(const volatile void*, size_t size) { Count(static_cast<int64_t>(size)); }
void OnFree(const volatile void* p) {
  if (p != nullptr) Count(-static_cast<int64_t>(__sanitizer_get_allocated_size(p)));
}
#endif

}  // namespace

void CapAllocations(uint64_t bytes) {
#ifdef DAGSTORE_SANITIZER_HOOKS
  static const int installed = __sanitizer_install_malloc_and_free_hooks(OnMalloc, OnFree);
  if (installed == 0) std::abort();
#endif
  live.store(0);
  peak.store(0);
  cap.store(static_cast<int64_t>(bytes));
}
void LiftAllocationCap() { cap.store(kNoCap); }
uint64_t AllocatedBytesPeak() { return static_cast<uint64_t>(peak.load()); }

}  // namespace dagstore

#ifndef DAGSTORE_SANITIZER_HOOKS
// The array and nothrow forms call these.
void* operator new(size_t size) {
  void* p = std::malloc(size == 0 ? 1 : size);
  if (p == nullptr) std::abort();
  dagstore::Count(static_cast<int64_t>(malloc_usable_size(p)));
  return p;
}
void* operator new(size_t size, std::align_val_t alignment) {
  void* p = nullptr;
  if (posix_memalign(&p, static_cast<size_t>(alignment), size == 0 ? 1 : size) != 0) std::abort();
  dagstore::Count(static_cast<int64_t>(malloc_usable_size(p)));
  return p;
}
void operator delete(void* p) noexcept {
  if (p != nullptr) dagstore::Count(-static_cast<int64_t>(malloc_usable_size(p)));
  std::free(p);
}
void operator delete(void* p, size_t) noexcept { operator delete(p); }
void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { operator delete(p); }
#endif
