#include "tests/fakes/s3_server.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <set>

namespace dagstore {
namespace {

std::string Hex(const unsigned char* bytes, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

std::string Hash(const std::string& text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr);
  return Hex(digest, size);
}

std::string Mac(const std::string& key, const std::string& text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), digest, &size);
  return std::string(reinterpret_cast<const char*>(digest), size);
}

std::string Between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t begin = text.find(from);
  if (begin == text.npos) return {};
  const size_t end = std::min(text.find(to, begin + from.size()), text.size());
  return text.substr(begin + from.size(), end - begin - from.size());
}

std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string Escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::multiset<std::string> Split(const std::string& query) {
  std::multiset<std::string> items;
  for (size_t at = 0; at < query.size();) {
    const size_t end = std::min(query.find('&', at), query.size());
    std::string item = query.substr(at, end - at);
    if (item.find('=') == item.npos) item += '=';
    items.insert(item);
    at = end + 1;
  }
  return items;
}

// Empty if the request is signed as it should be.
std::string WrongIn(const HttpServer::Request& request) {
  const std::string authorization = request.Header("authorization");
  if (!authorization.starts_with("AWS4-HMAC-SHA256 ")) return "AccessDenied";
  const std::string scope = Between(authorization, std::string("Credential=") + FakeS3::kAccessKey + "/", ",");
  if (scope.empty()) return "InvalidAccessKeyId";
  const std::string date = request.Header("x-amz-date");
  if (scope != fmt::format("{}/{}/s3/aws4_request", date.substr(0, 8), FakeS3::kRegion)) return "WrongScope";
  if (request.Header("x-amz-content-sha256") != Hash(request.body)) return "XAmzContentSHA256Mismatch";
  const std::string names = Between(authorization, "SignedHeaders=", ",");
  const size_t question = std::min(request.target.find('?'), request.target.size());
  std::string canonical = request.method + "\n" + request.target.substr(0, question) + "\n";
  bool first = true;
  for (const std::string& item : Split(request.target.substr(std::min(question + 1, request.target.size())))) {
    canonical += (first ? "" : "&") + item;
    first = false;
  }
  canonical += "\n";
  bool host = false;
  for (size_t at = 0; at < names.size();) {
    const size_t end = std::min(names.find(';', at), names.size());
    const std::string name = names.substr(at, end - at);
    host = host || name == "host";
    canonical += name + ":" + request.Header(name) + "\n";
    at = end + 1;
  }
  if (!host) return "HostNotSigned";
  canonical += "\n" + names + "\n" + request.Header("x-amz-content-sha256");
  const std::string to_sign = "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + Hash(canonical);
  std::string key = Mac(std::string("AWS4") + FakeS3::kSecretKey, date.substr(0, 8));
  for (const std::string& part : {std::string(FakeS3::kRegion), std::string("s3"), std::string("aws4_request")}) {
    key = Mac(key, part);
  }
  const std::string signature = Mac(key, to_sign);
  const bool right = Between(authorization, "Signature=", ",") ==
                     Hex(reinterpret_cast<const unsigned char*>(signature.data()), signature.size());
  return right ? "" : "SignatureDoesNotMatch";
}

}  // namespace

FakeS3::FakeS3()
    : server_([this](const HttpServer::Request& request, HttpServer::Connection& connection) {
        Serve(request, connection);
      }) {}

void FakeS3::Put(const std::string& bucket, const std::string& key, std::string content) {
  MutexLock lock(mu_);
  Object& object = buckets_[bucket][key];
  object.content = std::move(content);
  object.etag = fmt::format("\"etag-{}\"", ++puts_);
}

void FakeS3::Remove(const std::string& bucket, const std::string& key) {
  MutexLock lock(mu_);
  buckets_[bucket].erase(key);
}

void FakeS3::SetHeaders(const std::string& bucket, const std::string& key, std::string headers) {
  MutexLock lock(mu_);
  buckets_[bucket][key].headers = std::move(headers);
}

std::string FakeS3::List(const std::string& bucket, const std::map<std::string, std::string>& query) const {
  const auto value = [&](const char* name) {
    const auto found = query.find(name);
    return found == query.end() ? std::string() : found->second;
  };
  std::string xml = "<?xml version=\"1.0\"?><ListBucketResult><Name>" + bucket +
                    "</Name><EncodingType>url</EncodingType>";
  MutexLock lock(mu_);
  const auto found = buckets_.find(bucket);
  size_t count = 0;
  std::string next;
  if (found != buckets_.end()) {
    for (const auto& [key, object] : found->second) {
      if (!key.starts_with(value("prefix")) || key <= value("continuation-token")) continue;
      if (count == page_size_) {
        xml += "<NextContinuationToken>" + next + "</NextContinuationToken>";
        break;
      }
      ++count;
      next = key;
      xml += fmt::format("<Contents><Key>{}</Key><Size>{}</Size></Contents>", Escape(key), object.content.size());
    }
  }
  const bool more = xml.find("<NextContinuationToken>") != xml.npos;
  return xml + fmt::format("<IsTruncated>{}</IsTruncated></ListBucketResult>", more);
}

void FakeS3::Serve(const HttpServer::Request& request, HttpServer::Connection& connection) {
  const std::string host = request.Header("host");
  const size_t question = std::min(request.target.find('?'), request.target.size());
  std::string path = Unescape(request.target.substr(0, question));
  // bucket.s3.test, or the first part of the path.
  std::string bucket = Between("|" + host, "|", ".s3.test");
  if (host.find(".s3.test") == host.npos) {
    const size_t slash = std::min(path.find('/', 1), path.size());
    bucket = path.substr(1, slash - 1);
    path = path.substr(slash);
  }
  const std::string wrong = bucket.starts_with("public") ? std::string() : WrongIn(request);
  if (!wrong.empty()) {
    connection.Answer(403, "X-Wrong: " + wrong + "\r\n", request.method == "HEAD" ? "" : "<Error/>");
    return;
  }
  if (path.size() <= 1) {
    std::map<std::string, std::string> query;
    for (const std::string& item : Split(request.target.substr(std::min(question + 1, request.target.size())))) {
      query[item.substr(0, item.find('='))] = Unescape(item.substr(item.find('=') + 1));
    }
    connection.Answer(200, "", List(bucket, query));
    return;
  }
  Object object;
  bool there = false;
  {
    MutexLock lock(mu_);
    const auto found = buckets_.find(bucket);
    if (found != buckets_.end()) {
      const auto at = found->second.find(path.substr(1));
      there = at != found->second.end();
      if (there) object = at->second;
    }
  }
  if (!there) {
    connection.Answer(404, "", "");
    return;
  }
  if (!object.headers.empty()) {
    connection.Answer(200, object.headers + "ETag: " + object.etag + "\r\n", "");
    return;
  }
  ServeContent(request, connection, object.content, object.etag);
}

}  // namespace dagstore
