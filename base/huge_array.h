// HugeArray: many values of a trivial type, uninitialised. Large ones lie in huge pages where the system has them
// (AdviseHugePages).
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace dagstore {

// Memory of `bytes` bytes, uninitialised; std::bad_alloc where there is none. What is freed of 2 MiB and more is kept
// for the next who asks for about as much, kHugeKeptBytesMax of it: memory that is new must be cleared by the system
// first, which takes longer than filling it. Any thread.
inline constexpr size_t kHugeKeptBytesMax = 32 << 20;
void* AllocateHuge(size_t bytes);
void FreeHuge(void* data);

// Owns its memory. One owner.
template <typename T>
class HugeArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  HugeArray() = default;
  // Like new[], std::bad_alloc where there is no memory.
  explicit HugeArray(size_t size) : size_(size), data_(static_cast<T*>(AllocateHuge(size * sizeof(T)))) {}
  HugeArray(HugeArray&& other) noexcept : size_(std::exchange(other.size_, 0)), data_(std::move(other.data_)) {}
  HugeArray& operator=(HugeArray&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  size_t size() const { return size_; }
  T* data() { return data_.get(); }
  T* begin() { return data_.get(); }
  T* end() { return data_.get() + size_; }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* data) const { FreeHuge(data); }
  };
  size_t size_ = 0;
  std::unique_ptr<T, Free> data_;
};

}  // namespace dagstore
