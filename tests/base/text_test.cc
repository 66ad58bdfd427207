#include "base/text.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("text: lower case touches the letters of ASCII and nothing else") {
  std::string all, expected;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    expected += static_cast<char>(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
  }
  CHECK_EQ(LowerAscii(all), expected);
}

TEST_CASE("text: one line holds no control byte, and a plain one nothing above ASCII") {
  const std::string text = std::string("a\0\x1b\n\"\\\x7f", 7) + "\u00e9";
  CHECK_EQ(LineText(text), "a\\x00\\x1b\\x0a\"\\\\x7f\u00e9");
  CHECK_EQ(AsciiLineText(text), "a\\x00\\x1b\\x0a\"\\\\x7f\\xc3\\xa9");
}

TEST_CASE("text: blanks go from the ends, not from the middle, and other white space stays") {
  const struct {
    std::string_view text, trimmed;
  } kCases[] = {{"", ""}, {" \t ", ""}, {"a", "a"}, {"\t a \tb ", "a \tb"}, {"\na\r", "\na\r"}};
  for (const auto& c : kCases) CHECK_EQ(TrimBlanks(c.text), c.trimmed);
}

TEST_CASE("text: every byte survives percent-encoding") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (const std::string_view plain : {"", "/", "!$&'()*+,;=:@/"}) {
    std::string encoded;
    AppendPercentEncoded(encoded, all, plain);
    const std::optional<std::string> decoded = PercentDecode(encoded);
    REQUIRE(decoded.has_value());
    CHECK_EQ(*decoded, all);
  }
  std::string encoded;
  AppendPercentEncoded(encoded, "a~/ %\xff", "/");
  CHECK_EQ(encoded, "a~/%20%25%FF");
}

TEST_CASE("text: a percent sign wants two hexadecimal digits") {
  for (const std::string_view bad : {"%", "%4", "a%", "%4g", "%g4", "%%41", "%41%"}) {
    CAPTURE(bad);
    CHECK_FALSE(PercentDecode(bad).has_value());
  }
  CHECK_EQ(*PercentDecode("%41%e2%82%AC+ "), "A\xe2\x82\xac+ ");
}

}  // namespace
}  // namespace dagstore
