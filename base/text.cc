#include "base/text.h"

#include "base/bytes.h"

namespace dagstore {
namespace {

bool IsUnreserved(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::string Escaped(std::string_view bytes, uint8_t plain_max) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte != 0x7f && byte <= plain_max) {
      out += c;
    } else {
      AppendEscaped(out, c);
    }
  }
  return out;
}

}  // namespace

void AppendEscaped(std::string& out, char c) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const auto byte = static_cast<uint8_t>(c);
  out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
}

std::string LineText(std::string_view bytes) { return Escaped(bytes, 0xff); }
std::string AsciiLineText(std::string_view bytes) { return Escaped(bytes, 0x7e); }

std::string LowerAscii(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

void AppendPercentEncoded(std::string& out, std::string_view bytes, std::string_view also_plain) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char c : bytes) {
    if (IsUnreserved(c) || also_plain.find(c) != std::string_view::npos) {
      out.push_back(c);
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out.push_back('%');
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 15]);
  }
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = text.size() - i > 2 ? HexDigit(text[i + 1]) : -1;
    const int low = text.size() - i > 2 ? HexDigit(text[i + 2]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return out;
}

}  // namespace dagstore
