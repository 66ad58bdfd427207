#include "mount/url.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/mutant.h"
#include "base/text.h"

namespace dagstore {
namespace {

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// What may stand unescaped, next to the unreserved characters.
constexpr std::string_view kSubDelimiters = "!$&'()*+,;=";
constexpr std::string_view kInUserinfo = "!$&'()*+,;=:";
constexpr std::string_view kInPath = "!$&'()*+,;=:@/";
// Servers differ in how they read a query's punctuation: all of it is escaped.
constexpr std::string_view kInQuery = "";

absl::StatusOr<std::string> Decode(std::string_view text, std::string_view part) {
  std::optional<std::string> decoded = PercentDecode(text);
  if (!decoded.has_value()) return InvalidArgument("URL has a '%' without two hex digits in its {}", part);
  return *std::move(decoded);
}

void AppendEncoded(std::string& out, std::string_view bytes, std::string_view also_plain) {
  if (Mutant(kMutantUrlSlashes)) return AppendPercentEncoded(out, bytes, std::string(also_plain) + "/%");
  AppendPercentEncoded(out, bytes, also_plain);
}

bool IsScheme(std::string_view text) {
  return text.size() >= 2 && text.size() <= kSchemeBytesMax && IsLower(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return IsLower(c) || IsDigit(c) || c == '+' || c == '-' || c == '.';
         });
}

bool IsIpv6(std::string_view host) {
  return host.find(':') != std::string_view::npos &&
         std::all_of(host.begin(), host.end(),
                     [](char c) { return HexDigit(c) >= 0 || c == ':' || c == '.'; });
}

absl::Status CheckPort(std::string_view port) {
  unsigned value = 0;
  for (char c : port) {
    if (!IsDigit(c) || port.size() > 5) return InvalidArgument("URL has a port that is no number");
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  if (value > 65535) return InvalidArgument("URL has a port above 65535");
  return absl::OkStatus();
}

// [userinfo "@"] host [":" port]. The last '@' counts, so that a password with a raw '@' cannot end
// up in the host.
absl::Status ParseAuthority(std::string_view text, Url& url) {
  url.has_authority = true;
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    ASSIGN_OR_RETURN(url.userinfo, Decode(text.substr(0, at), "user"));
    text.remove_prefix(at + 1);
  }
  std::string_view after_host;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return InvalidArgument("URL has a '[' without a ']'");
    const std::string_view address = text.substr(1, close - 1);
    if (!IsIpv6(address)) return InvalidArgument("URL has no IPv6 address between the brackets");
    url.host = address;
    after_host = text.substr(close + 1);
    if (!after_host.empty() && after_host[0] != ':') {
      return InvalidArgument("URL has text between ']' and the port");
    }
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    ASSIGN_OR_RETURN(url.host, Decode(text.substr(0, colon), "host"));
    after_host = text.substr(colon);
  }
  if (!after_host.empty()) after_host.remove_prefix(1);
  RETURN_IF_ERROR(CheckPort(after_host));
  url.port = after_host;
  return absl::OkStatus();
}

absl::Status ParseQuery(std::string_view text, Url& url) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view item = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (item.empty()) continue;
    const size_t equals = std::min(item.find('='), item.size());
    ASSIGN_OR_RETURN(std::string key, Decode(item.substr(0, equals), "query"));
    ASSIGN_OR_RETURN(std::string value,
                     Decode(item.substr(std::min(equals + 1, item.size())), "query"));
    url.query.emplace_back(std::move(key), std::move(value));
  }
  return absl::OkStatus();
}

void AppendHostAndPort(std::string& out, const Url& url) {
  if (IsIpv6(url.host)) {
    out += '[' + url.host + ']';
  } else {
    AppendEncoded(out, url.host, kSubDelimiters);
  }
  if (!url.port.empty()) out += ':' + url.port;
}

void AppendPath(std::string& out, const Url& url) {
  std::string_view path = url.path;
  // "//" at the start would read as an authority.
  if (!url.has_authority && path.starts_with("//")) {
    out += "/%2F";
    path.remove_prefix(2);
  }
  AppendEncoded(out, path, kInPath);
}

size_t TextBytesMax(std::string_view scheme) {
  return scheme == "bytes" ? kBytesUrlBytesMax : kUrlBytesMax;
}

}  // namespace

absl::StatusOr<Url> Url::Parse(std::string_view text) {
  const size_t colon = text.substr(0, kSchemeBytesMax + 1).find(':');
  if (colon == std::string_view::npos) {
    return InvalidArgument("URL has no scheme: write for example file:///path/of/a.car");
  }
  Url url;
  url.scheme = text.substr(0, colon);
  url.scheme = LowerAscii(url.scheme);
  if (url.scheme.size() == 1) {
    return InvalidArgument(
        "URL has a scheme of one letter: write a path as file:///C:/path/of/a.car");
  }
  if (!IsScheme(url.scheme)) return InvalidArgument("URL has no valid scheme");
  if (const size_t max = TextBytesMax(url.scheme); text.size() > max) {
    return ResourceExhausted("URL of {} bytes is above the limit of {}", text.size(), max);
  }
  std::string_view rest = text.substr(colon + 1);
  if (std::any_of(rest.begin(), rest.end(), IsControl)) {
    return InvalidArgument("URL has a control byte that is not escaped");
  }
  if (rest.find('#') != std::string_view::npos) {
    return InvalidArgument("URL has a fragment: write '#' as %23");
  }

  std::string_view query;
  if (const size_t mark = rest.find('?'); mark != std::string_view::npos) {
    query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
  }
  if (rest.starts_with("//")) {
    rest.remove_prefix(2);
    const size_t slash = std::min(rest.find('/'), rest.size());
    RETURN_IF_ERROR(ParseAuthority(rest.substr(0, slash), url));
    rest.remove_prefix(slash);
  }
  ASSIGN_OR_RETURN(url.path, Decode(rest, "path"));
  RETURN_IF_ERROR(ParseQuery(query, url));
  return url;
}

absl::Status Url::Validate() const {
  if (!IsScheme(scheme)) return InvalidArgument("URL has no valid scheme");
  if (!has_authority && !(userinfo.empty() && host.empty() && port.empty())) {
    return InvalidArgument("URL has a host, a port or a user without an authority");
  }
  if (has_authority && !path.empty() && path[0] != '/') {
    return InvalidArgument("URL has a relative path after a host");
  }
  RETURN_IF_ERROR(CheckPort(port));
  if (const size_t size = Encoded().size(), max = TextBytesMax(scheme); size > max) {
    return ResourceExhausted("URL of {} bytes is above the limit of {}", size, max);
  }
  return absl::OkStatus();
}

std::string Url::Encoded() const {
  std::string out = scheme + ':';
  out.reserve(out.size() + path.size() + 16);
  if (has_authority) {
    out += "//";
    if (!userinfo.empty()) {
      AppendEncoded(out, userinfo, kInUserinfo);
      out += '@';
    }
    AppendHostAndPort(out, *this);
  }
  AppendPath(out, *this);
  char mark = '?';
  for (const auto& [key, value] : query) {
    out += mark;
    AppendEncoded(out, key, kInQuery);
    out += '=';
    AppendEncoded(out, value, kInQuery);
    mark = '&';
  }
  return out;
}

std::string Url::Redacted() const {
  if (Mutant(kMutantSecretsPrinted)) return Encoded();
  std::string out = scheme + ':';
  if (has_authority) {
    out += "//";
    AppendHostAndPort(out, *this);
  }
  AppendPath(out, *this);
  char mark = '?';
  for (const auto& [key, value] : query) {
    out += mark;
    if (!value.empty()) {
      AppendEncoded(out, key, kInQuery);
      out += '=';
    }
    out += "...";
    mark = '&';
  }
  if (out.size() > kRedactedBytesMax) {
    const size_t size = out.size();
    out.resize(kRedactedBytesMax - 32);
    out += fmt::format("...({} bytes)", size);
  }
  return out;
}

}  // namespace dagstore
