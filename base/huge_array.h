// HugeArray: many values of a trivial type, uninitialised. Large ones lie in huge pages where the system has them
// (AdviseHugePages).
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace dagstore {

struct HugeMemory {
  void* data = nullptr;
  size_t bytes = 0;  // as many as were asked for, or more
};

// Memory of `bytes` bytes, uninitialised; std::bad_alloc where there is none. What is freed of 2 MiB and more is kept
// for the next who asks for about as much, kHugeKeptBytesMax of it: memory that is new must be cleared by the system
// first, which takes longer than filling it. Any thread.
inline constexpr size_t kHugeKeptBytesMax = 32 << 20;
HugeMemory AllocateHuge(size_t bytes);
void FreeHuge(const HugeMemory& memory);

// Owns its memory. One owner.
template <typename T>
class HugeArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  HugeArray() = default;
  // Like new[], std::bad_alloc where there is no memory.
  explicit HugeArray(size_t size) : size_(size), memory_(AllocateHuge(size * sizeof(T))) {}
  ~HugeArray() { FreeHuge(memory_); }
  HugeArray(HugeArray&& other) noexcept
      : size_(std::exchange(other.size_, 0)), memory_(std::exchange(other.memory_, {})) {}
  HugeArray& operator=(HugeArray&& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(memory_, other.memory_);
    return *this;
  }

  size_t size() const { return size_; }
  T* data() { return static_cast<T*>(memory_.data); }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return static_cast<const T*>(memory_.data)[i]; }

 private:
  size_t size_ = 0;
  HugeMemory memory_;
};

}  // namespace dagstore
