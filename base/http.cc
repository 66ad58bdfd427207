#include "base/http.h"

#include <absl/strings/cord.h>
#include <absl/time/time.h>

#include <algorithm>
#include <charconv>

#include "base/multibase.h"
#include "base/text.h"

namespace dagstore {
namespace {

bool IsAlpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
// 0 for schemes whose port is always written.
uint16_t DefaultPort(std::string_view scheme) { return scheme == "https" ? 443 : scheme == "http" ? 80 : 0; }

bool IsName(std::string_view host) {
  return !host.empty() && host.size() <= 253 && host.front() != '.' && host.front() != '-' &&
         std::all_of(host.begin(), host.end(),
                     [](char c) { return IsAlpha(c) || IsDigit(c) || c == '-' || c == '.' || c == '_'; });
}

// A name whose last label begins with a digit is an address to some resolvers: 127.1, 0x7f.1, 017700000001.
bool LooksLikeAddress(std::string_view host) {
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  const size_t dot = host.rfind('.');
  const std::string_view last = dot == host.npos ? host : host.substr(dot + 1);
  return !last.empty() && IsDigit(last[0]) &&
         (std::all_of(last.begin(), last.end(), IsDigit) || last.starts_with("0x") || last.starts_with("0X"));
}

absl::Status ParseAuthority(std::string_view text, HttpUrl* url) {
  if (text.find('@') != text.npos) return InvalidArgument("HTTP URL with a user name");
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == text.npos) return InvalidArgument("HTTP URL with an unclosed '['");
    const absl::StatusOr<IpAddress> address = IpAddress::Parse(text.substr(1, close - 1));
    if (!address.ok()) return InvalidArgument("HTTP URL with a bad IPv6 address");
    url->host = address->ToString();
    port = text.substr(close + 1);
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    url->host = LowerAscii(text.substr(0, colon));
    port = text.substr(colon);
    if (!IsName(url->host)) return InvalidArgument("HTTP URL with a bad host name");
    if (LooksLikeAddress(url->host) && !IpAddress::Parse(url->host).ok()) {
      return InvalidArgument("HTTP URL with a short or octal address: write a.b.c.d");
    }
  }
  url->port = DefaultPort(url->scheme);
  if (port.empty() || port == ":") return absl::OkStatus();
  const auto [end, error] = std::from_chars(port.data() + 1, port.data() + port.size(), url->port);
  if (port[0] != ':' || error != std::errc() || end != port.data() + port.size() || url->port == 0) {
    return InvalidArgument("HTTP URL with a bad port");
  }
  return absl::OkStatus();
}

// As RFC 3986, 5.2.4, for a path that starts with '/'.
std::string RemoveDotSegments(std::string_view path) {
  std::vector<std::string_view> segments;
  bool folder = false;
  while (!path.empty()) {
    path.remove_prefix(1);
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, end);
    folder = segment == "." || segment == "..";
    if (segment == ".." && !segments.empty()) segments.pop_back();
    if (!folder) segments.push_back(segment);
    path.remove_prefix(end);
  }
  std::string out;
  for (const std::string_view segment : segments) out.append("/").append(segment);
  if (folder || out.empty()) out += '/';
  return out;
}

}  // namespace

absl::StatusOr<HttpUrl> HttpUrl::Parse(std::string_view text) {
  if (text.size() > kHttpUrlBytesMax) return InvalidArgument("HTTP URL of {} bytes", text.size());
  // Servers differ in what they make of these; a browser would repair them.
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7F && c != '\\'; })) {
    return InvalidArgument("HTTP URL with a space, a backslash, or a byte that is not ASCII");
  }
  text = text.substr(0, text.find('#'));
  HttpUrl url;
  const size_t colon = text.find("://");
  if (colon == text.npos) return InvalidArgument("no absolute HTTP URL");
  url.scheme = LowerAscii(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") return InvalidArgument("the scheme is neither http nor https");
  text.remove_prefix(colon + 3);
  const size_t end = std::min(text.find_first_of("/?"), text.size());
  RETURN_IF_ERROR(ParseAuthority(text.substr(0, end), &url));
  url.target = text.substr(end);
  if (url.target.empty() || url.target[0] != '/') url.target = '/' + url.target;
  return url;
}

absl::StatusOr<HttpUrl> HttpUrl::Resolve(std::string_view reference) const {
  reference = reference.substr(0, reference.find('#'));
  const size_t colon = reference.find(':');
  if (colon != reference.npos && reference.find_first_of("/?") > colon) return Parse(reference);
  if (reference.starts_with("//")) return Parse(scheme + ":" + std::string(reference));
  if (reference.starts_with('/')) return Parse(Origin() + std::string(reference));
  const std::string path = target.substr(0, target.find('?'));
  if (reference.empty()) return Parse(Origin() + target);
  if (reference.starts_with('?')) return Parse(Origin() + path + std::string(reference));
  const std::string_view query =
      reference.find('?') == reference.npos ? std::string_view() : reference.substr(reference.find('?'));
  const std::string merged =
      path.substr(0, path.rfind('/') + 1) + std::string(reference.substr(0, reference.size() - query.size()));
  return Parse(Origin() + RemoveDotSegments(merged) + std::string(query));
}

std::string HttpUrl::Origin() const {
  std::string out = scheme + "://";
  out += host.find(':') == host.npos ? host : '[' + host + ']';
  if (port != DefaultPort(scheme)) out += fmt::format(":{}", port);
  return out;
}

std::string HttpUrl::Redacted() const {
  const size_t query = target.find('?');
  std::string out = Origin() + target.substr(0, std::min<size_t>(query, 256));
  if (query != target.npos) out += "?...";
  return out;
}

std::pair<std::string, Secret> BasicAuthorization(const std::string& user, const Secret& password) {
  return {"Authorization", Secret("Basic " + EncodeBase(Base::kBase64Pad, AsSpan(user + ":" + password.Reveal())))};
}

std::pair<std::string, Secret> BearerAuthorization(const Secret& token) {
  return {"Authorization", Secret("Bearer " + token.Reveal())};
}

const std::string* HttpResponse::Header(std::string_view name) const {
  for (const auto& header : headers()) {
    if (header.first == name) return &header.second;
  }
  return nullptr;
}

absl::StatusOr<std::string> ReadBody(HttpResponse& response, size_t size_max) {
  std::string body;
  char block[16 * 1024];
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, response.Next(sizeof(block), reinterpret_cast<uint8_t*>(block)));
    if (n == 0) return body;
    if (n > size_max - body.size()) {
      return ResourceExhausted("the answer of {} is above the limit of {} bytes", response.url().Redacted(), size_max);
    }
    body.append(block, n);
  }
}

namespace {

constexpr char kRetryAfter[] = "dagstore.retry-after";  // of a status: the header as it came
constexpr size_t kRetryAfterBytesMax = 64;              // of a date: 29

absl::Status WithRetryAfter(absl::Status status, const HttpResponse& response) {
  const std::string* header = response.Header("retry-after");
  if (header != nullptr && header->size() <= kRetryAfterBytesMax) status.SetPayload(kRetryAfter, absl::Cord(*header));
  return status;
}

}  // namespace

absl::Duration RetryAfterOf(const absl::Status& status, absl::Time now) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryAfter);
  if (!payload.has_value()) return absl::ZeroDuration();
  const std::string text(*payload);
  uint32_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error == std::errc() && end == text.data() + text.size()) return absl::Seconds(seconds);
  absl::Time until;
  std::string ignored;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", text, absl::UTCTimeZone(), &until, &ignored))
    return absl::ZeroDuration();
  return std::max(absl::ZeroDuration(), until - now);
}

absl::Status HttpError(const HttpResponse& response) {
  const int status = response.status();
  const std::string what = fmt::format("{} answered {}", response.url().Redacted(), status);
  switch (status) {
    case 404:
    case 410:
      return NotFound("{}", what);
    case 412:
      return FailedPrecondition("{}: it has changed", what);
    case 401:
    case 403:
    case 407:
      return FailedPrecondition("{}: forbidden", what);
    case 408:
    case 425:
      return Unavailable("{}: not now", what);
    case 429:
      return WithRetryAfter(Unavailable("{}: not now", what), response);
    default:
      break;
  }
  if (status >= 500) return WithRetryAfter(Unavailable("{}", what), response);
  return FailedPrecondition("{}", what);
}

}  // namespace dagstore
