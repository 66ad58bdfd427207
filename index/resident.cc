#include "index/resident.h"

#include <sys/mman.h>

#include <cstring>

#include "base/check.h"

namespace dagstore {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = 2 << 20;

}  // namespace

ResidentBytes::ResidentBytes(Span bytes) {
  const size_t unit = bytes.size() < kHugePage ? kCacheLine : kHugePage;
  const size_t size = (bytes.size() + unit - 1) / unit * unit;
  if (size == 0) return;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(unit, size)));
  DAGSTORE_CHECK(data_ != nullptr);
  if (unit == kHugePage) ::madvise(data_.get(), size, MADV_HUGEPAGE);  // only advice: a failure changes nothing
  std::memcpy(data_.get(), bytes.data(), bytes.size());
}

}  // namespace dagstore
