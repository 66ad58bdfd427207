#include "mount/sigv4.h"

#include <openssl/hmac.h>

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/hashing.h"
#include "base/text.h"

namespace dagstore {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";

Bytes Hmac(Span key, std::string_view text) {
  Bytes out(32);
  unsigned size = 0;
  DAGSTORE_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                      reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &size) != nullptr);
  DAGSTORE_CHECK(size == out.size());
  return out;
}

std::string Sha256Hex(std::string_view text) {
  uint8_t digest[32];
  Sha256(AsSpan(text), digest);
  return ToHex(Span(digest, 32));
}

// Without spaces around it, and with single ones inside.
std::string Folded(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c != ' ') {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string CanonicalQuery(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> items;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view item = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (item.empty()) continue;
    const size_t equals = std::min(item.find('='), item.size());
    items.emplace_back(item.substr(0, equals), item.substr(std::min(equals + 1, item.size())));
  }
  std::sort(items.begin(), items.end());
  std::string out;
  for (const auto& item : items) out += (out.empty() ? "" : "&") + item.first + "=" + item.second;
  return out;
}

std::string HostHeader(const HttpUrl& url) { return url.Origin().substr(url.scheme.size() + 3); }

}  // namespace

std::string AwsEncode(std::string_view text, bool keep_slash) {
  std::string out;
  AppendPercentEncoded(out, text, keep_slash ? "/" : "");
  return out;
}

std::string SigV4CanonicalRequest(const HttpRequest& request, const std::string& payload_sha256,
                                  std::string* signed_headers) {
  std::map<std::string, std::string> headers;  // sorted, values of one name joined in their order
  const auto add = [&headers](const std::string& name, const std::string& value) {
    const auto [at, is_new] = headers.try_emplace(LowerAscii(name), Folded(value));
    if (!is_new) at->second += "," + Folded(value);
  };
  add("host", HostHeader(request.url));
  for (const auto& header : request.headers) add(header.first, header.second);
  for (const auto& header : request.private_headers) add(header.first, header.second.Reveal());

  const std::string& target = request.url.target;
  const size_t query = std::min(target.find('?'), target.size());
  std::string out = request.method + "\n" + target.substr(0, query) + "\n" +
                    CanonicalQuery(std::string_view(target).substr(std::min(query + 1, target.size()))) + "\n";
  signed_headers->clear();
  for (const auto& header : headers) {
    out += header.first + ":" + header.second + "\n";
    *signed_headers += (signed_headers->empty() ? "" : ";") + header.first;
  }
  return out + "\n" + *signed_headers + "\n" + payload_sha256;
}

void SignV4(HttpRequest* request, const SigV4Key& key, absl::Time now) {
  const std::string time = absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone());
  const std::string day = time.substr(0, 8);
  const std::string payload = Sha256Hex(request->body);
  if (key.service == "s3") request->private_headers.emplace_back("X-Amz-Content-Sha256", Secret(payload));
  request->private_headers.emplace_back("X-Amz-Date", Secret(time));
  if (!key.session_token.empty()) request->private_headers.emplace_back("X-Amz-Security-Token", key.session_token);

  std::string signed_headers;
  const std::string canonical = SigV4CanonicalRequest(*request, payload, &signed_headers);
  const std::string scope = fmt::format("{}/{}/{}/aws4_request", day, key.region, key.service);
  const std::string to_sign = fmt::format("{}\n{}\n{}\n{}", kAlgorithm, time, scope, Sha256Hex(canonical));
  Bytes signing = Hmac(AsSpan("AWS4" + key.secret_access_key.Reveal()), day);
  signing = Hmac(signing, key.region);
  signing = Hmac(signing, key.service);
  signing = Hmac(signing, "aws4_request");
  request->private_headers.emplace_back(
      "Authorization", Secret(fmt::format("{} Credential={}/{}, SignedHeaders={}, Signature={}", kAlgorithm,
                                          key.access_key_id, scope, signed_headers, ToHex(Hmac(signing, to_sign)))));
}

}  // namespace dagstore
