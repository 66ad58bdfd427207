#include "base/huge_array.h"

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "base/advice.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("huge array: holds what is put into it, of any size, and is moved whole") {
  const size_t sizes[] = {0, 1, 1000, kHugePageBytes - 1, kHugePageBytes, 5 * kHugePageBytes + 1};
  for (const size_t size : sizes) {
    CAPTURE(size);
    HugeArray<uint8_t> array(size);
    REQUIRE_EQ(array.size(), size);
    REQUIRE_EQ(array.end() - array.begin(), static_cast<std::ptrdiff_t>(size));
    for (size_t i = 0; i < size; i += 997) array[i] = static_cast<uint8_t>(i);
    HugeArray<uint8_t> moved(std::move(array));
    HugeArray<uint8_t> again(3);
    again = std::move(moved);
    REQUIRE_EQ(again.size(), size);
    for (size_t i = 0; i < size; i += 997) REQUIRE_EQ(again[i], static_cast<uint8_t>(i));
  }
}

TEST_CASE("huge array: memory that was given back serves the next, and two never share it") {
  for (int round = 0; round < 3; ++round) {
    std::vector<HugeArray<uint64_t>> arrays;
    for (uint64_t i = 0; i < 24; ++i) {
      arrays.emplace_back((1 + i % 3) * kHugePageBytes / sizeof(uint64_t));
      for (uint64_t& value : arrays.back()) value = i;
    }
    for (uint64_t i = 0; i < arrays.size(); ++i) {
      for (const uint64_t value : arrays[i]) REQUIRE_EQ(value, i);
    }
  }
}

}  // namespace
}  // namespace dagstore
