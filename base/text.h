// What several formats do with ASCII text, and no locale changes. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dagstore {

inline bool IsDigit(int c) { return c >= '0' && c <= '9'; }

// A-Z become a-z; every other byte stays.
std::string LowerAscii(std::string_view text);

// Without the spaces and tabs at both ends.
std::string_view TrimBlanks(std::string_view text);

// As one line for people: control bytes escaped as \xNN, the rest as it is. AsciiLineText: bytes above 0x7e as well.
std::string LineText(std::string_view bytes);
std::string AsciiLineText(std::string_view bytes);
// \xNN
void AppendEscaped(std::string& out, char c);

// Percent-encoding of RFC 3986. Letters, digits, "-._~" and the bytes of `also_plain` stay as they are.
void AppendPercentEncoded(std::string& out, std::string_view bytes, std::string_view also_plain);
// Nullopt if a '%' is not followed by two hexadecimal digits.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace dagstore
