#include "base/varint.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("varint: reads and writes the vectors of the spec") {
  const struct { uint64_t value; std::string_view hex; } kCases[] = {
      {0, "00"}, {1, "01"}, {127, "7f"}, {128, "8001"}, {255, "ff01"}, {300, "ac02"}, {16384, "808001"},
      {(uint64_t{1} << 63) - 1, "ffffffffffffffff7f"},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.hex);
    Bytes encoded;
    AppendVarint(encoded, c.value);
    CHECK_EQ(ToHex(encoded), c.hex);
    CHECK_EQ(VarintSize(c.value), encoded.size());
    const Varint decoded = ValueOf(ReadVarint(encoded));
    CHECK_EQ(decoded.value, c.value);
    CHECK_EQ(decoded.size, encoded.size());
  }
}

TEST_CASE("varint: refuses what is not minimal, too long or cut off") {
  const struct { std::string_view hex; VarintError error; } kCases[] = {
      {"8000", VarintError::kNotMinimal}, {"8100", VarintError::kNotMinimal}, {"808000", VarintError::kNotMinimal},
      {"ffffffffffffffffff01", VarintError::kOverflow}, {"808080808080808080", VarintError::kOverflow},
      {"8181", VarintError::kTruncated}, {"", VarintError::kTruncated},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.hex);
    Varint out;
    CHECK(DecodeVarint(ValueOf(FromHex(c.hex)), out) == c.error);
    CHECK_EQ(out.size, 0);
    CHECK_CODE(ReadVarint(ValueOf(FromHex(c.hex))), kDataLoss);
  }
}

}  // namespace
}  // namespace dagstore
