#include "base/utf8.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

// The definition in numbers: encode every code point, and look at every sequence of up to three bytes.
std::string Encode(uint32_t rune) {
  std::string out;
  if (rune < 0x80) return std::string(1, static_cast<char>(rune));
  const int more = rune < 0x800 ? 1 : rune < 0x10000 ? 2 : 3;
  const uint32_t lead = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
  out += static_cast<char>(lead | rune >> (6 * more));
  for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | (rune >> (6 * i) & 0x3f));
  return out;
}

TEST_CASE("utf8: every character is well formed, and surrogates are none") {
  for (uint32_t rune = 0; rune <= 0x110000; ++rune) {
    const std::string text = Encode(rune);
    const bool surrogate = rune >= 0xd800 && rune <= 0xdfff;
    const size_t expected = surrogate || rune > 0x10ffff ? 0 : text.size();
    if (Utf8Length(AsSpan(text)) != expected) FAIL("U+", rune);
  }
}

TEST_CASE("utf8: of all sequences of two and three bytes, exactly the encodings are well formed") {
  uint32_t twos = 0, threes = 0;
  for (uint32_t i = 0; i < 1 << 24; ++i) {
    const uint8_t bytes[] = {static_cast<uint8_t>(i >> 16), static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)};
    if (i < 1 << 16) twos += Utf8Length(Span(bytes + 1, 2)) == 2 ? 1 : 0;
    threes += Utf8Length(Span(bytes, 3)) == 3 ? 1 : 0;
  }
  CHECK_EQ(twos, 0x800 - 0x80);
  CHECK_EQ(threes, 0x10000 - 0x800 - 0x800);
}

TEST_CASE("utf8: a text is well formed if all of it is") {
  const struct {
    std::string_view text;
    bool good;
  } kCases[] = {
      {"", true},
      {"abc", true},
      {"gr\xc3\xbc\xc3\x9f", true},
      {"\xe2\x82\xac", true},
      {"\xf0\x9f\x98\x80!", true},
      {"\x80", false},
      {"a\xc3", false},
      {"\xc0\xaf", false},
      {"\xe0\x80\xaf", false},
      {"\xed\xa0\x80", false},
      {"\xf4\x90\x80\x80", false},
      {"\xf5\x80\x80\x80", false},
      {"ok\xff", false},
      {"\xe2\x82", false},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.text);
    CHECK_EQ(IsUtf8(AsSpan(c.text)), c.good);
  }
  CHECK_EQ(Utf8Length(Span()), 0);
}

}  // namespace
}  // namespace dagstore
