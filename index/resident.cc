#include "index/resident.h"

#include <cstring>

#include "base/advice.h"
#include "base/check.h"

namespace dagstore {
namespace {

constexpr size_t kCacheLine = 64;

}  // namespace

ResidentBytes::ResidentBytes(Span bytes) {
  const size_t unit = bytes.size() < kHugePageBytes ? kCacheLine : kHugePageBytes;
  const size_t size = (bytes.size() + unit - 1) / unit * unit;
  if (size == 0) return;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(unit, size)));
  DAGSTORE_CHECK(data_ != nullptr);
  AdviseHugePages(data_.get(), size);
  std::memcpy(data_.get(), bytes.data(), bytes.size());
}

}  // namespace dagstore
