// HugeArray: many values of a trivial type, uninitialised. Large ones lie in huge pages where the system has them
// (AdviseHugePages).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "base/advice.h"

namespace dagstore {

// Owns its memory. One owner.
template <typename T>
class HugeArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  HugeArray() = default;
  // Like new[], std::bad_alloc where there is no memory.
  explicit HugeArray(size_t size) : size_(size) {
    const size_t bytes = size * sizeof(T);
    const bool huge = bytes >= kHugePageBytes;
    const size_t rounded = huge ? (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes : bytes;
    data_.reset(static_cast<T*>(huge ? std::aligned_alloc(kHugePageBytes, rounded) : std::malloc(bytes)));
    if (data_ == nullptr && bytes != 0) throw std::bad_alloc();
    if (huge) AdviseHugePages(data_.get(), rounded);
  }
  HugeArray(HugeArray&& other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
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
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace dagstore
