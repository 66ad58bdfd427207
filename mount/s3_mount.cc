#include "mount/s3_mount.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "mount/http_source.h"
#include "mount/sigv4.h"

namespace dagstore {
namespace {

constexpr char kDefaultEndpoint[] = "default";
// A page is 1000 objects of at most 1 KiB each, escaped, and some lines about each.
constexpr size_t kListPageBytesMax = 8 << 20;

using Config = std::shared_ptr<const S3Config>;

// A bucket as part of a host name or a path: what AWS allows, and the capitals and '_' that others do.
bool IsBucket(std::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && name.front() != '.' && name.front() != '-' && name.back() != '.' &&
         name.find("..") == name.npos && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                  c == '_';
         });
}

// What a server says is printed only if it can be one.
bool IsRegion(std::string_view name) {
  return !name.empty() && name.size() <= 32 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

std::string EndpointOf(const Url& url) { return url.query.empty() ? kDefaultEndpoint : url.query[0].second; }

absl::Status CheckUrl(const Url& url) {
  if (!url.has_authority || !IsBucket(url.host) || !url.userinfo.empty() || !url.port.empty()) {
    return InvalidArgument("s3: URL is s3://bucket/key; the host and the credential are configuration");
  }
  if (!url.query.empty() && (url.query.size() != 1 || url.query[0].first != "endpoint")) {
    return InvalidArgument("s3: URL with a query that is not one endpoint=");
  }
  return absl::OkStatus();
}

// Where `url` lies, as a request that is not signed yet, and who signs it.
struct Target {
  HttpUrl url = {};
  std::optional<SigV4Key> key = {};
};

// `object`: the key; empty for the bucket itself.
absl::StatusOr<Target> Locate(const S3Config& config, const Url& url, std::string_view object) {
  const std::string name = EndpointOf(url);
  S3Endpoint endpoint;
  if (const auto found = config.endpoints.find(name); found != config.endpoints.end()) {
    endpoint = found->second;
  } else if (name != kDefaultEndpoint) {
    return FailedPrecondition("the S3 endpoint \"{}\" is not configured", name);
  }
  if (endpoint.url.empty()) endpoint.url = fmt::format("https://s3.{}.amazonaws.com", endpoint.region);
  Target target;
  ASSIGN_OR_RETURN(target.url, HttpUrl::Parse(endpoint.url));
  if (target.url.target != "/") return FailedPrecondition("the S3 endpoint \"{}\" has a path in its URL", name);
  const std::string origin = target.url.Origin();
  const std::string key = AwsEncode(object, /*keep_slash=*/true);
  if (endpoint.path_style) {
    target.url.target = fmt::format("/{}{}{}", url.host, object.empty() ? "" : "/", key);
  } else {
    ASSIGN_OR_RETURN(HttpUrl with_bucket,
                     HttpUrl::Parse(fmt::format("{}://{}.{}:{}/", target.url.scheme, url.host, target.url.host,
                                                target.url.port)));
    target.url = std::move(with_bucket);
    target.url.target = "/" + key;
  }
  if (!endpoint.credential.empty()) {
    ASSIGN_OR_RETURN(const Credential* credential,
                     config.credentials->Find(endpoint.credential, {Credential::Kind::kAws}, origin));
    target.key = SigV4Key{.access_key_id = credential->user,
                          .secret_access_key = credential->secret,
                          .session_token = credential->session_token,
                          .region = endpoint.region};
  }
  return target;
}

HttpRequest NewS3Request(const S3Config& config, const Target& target, const std::string& method,
                         const HttpHeaders& headers) {
  HttpRequest request;
  request.method = method;
  request.url = target.url;
  request.headers = headers;
  request.follow_redirects = false;  // a signature is for one host
  if (target.key.has_value()) SignV4(&request, *target.key, config.clock->WallNow());
  return request;
}

// An error that names the region to ask, where the server says that it was the wrong one.
absl::Status S3Error(const S3Config& config, const Url& url, const HttpResponse& response) {
  const std::string* region = response.Header("x-amz-bucket-region");
  const int status = response.status();
  const bool may_be_region = status == 301 || status == 307 || status == 400 || status == 403;
  const auto known = config.endpoints.find(EndpointOf(url));
  const std::string asked = known == config.endpoints.end() ? S3Endpoint().region : known->second.region;
  if (region == nullptr || !may_be_region || *region == asked || !IsRegion(*region)) return HttpError(response);
  return FailedPrecondition("{} answered {}: the bucket is in the region \"{}\", and the endpoint \"{}\" is of \"{}\": "
                            "set its `region`, or add an endpoint",
                            response.url().Redacted(), status, *region, EndpointOf(url), asked);
}

class S3Source final : public HttpSource {
 public:
  S3Source(Config config, Url url) : HttpSource(config->client), config_(std::move(config)), url_(std::move(url)) {}

 protected:
  absl::StatusOr<HttpRequest> NewRequest(size_t, const std::string& method,
                                         const HttpHeaders& headers) const override {
    ASSIGN_OR_RETURN(const Target target, Locate(*config_, url_, std::string_view(url_.path).substr(1)));
    return NewS3Request(*config_, target, method, headers);
  }

  absl::Status ErrorOf(const HttpResponse& response) const override { return S3Error(*config_, url_, response); }

  void Refine(const HttpResponse& response, MountStat* stat) const override {
    const std::string* storage = response.Header("x-amz-storage-class");
    if (storage == nullptr || (*storage != "GLACIER" && *storage != "DEEP_ARCHIVE")) return;
    const std::string* restored = response.Header("x-amz-restore");
    stat->ready = restored != nullptr && restored->find("ongoing-request=\"false\"") != restored->npos;
  }

 private:
  const Config config_;
  const Url url_;
};

// ---- Listing ----

// The text of the next <name> in *xml, which is cut behind it. Enough for the answers of one API, which we do not
// trust: what is not found is not there.
std::optional<std::string_view> TakeElement(std::string_view* xml, std::string_view name) {
  const std::string open = fmt::format("<{}>", name);
  const std::string close = fmt::format("</{}>", name);
  const size_t begin = xml->find(open);
  if (begin == xml->npos) return std::nullopt;
  const size_t end = xml->find(close, begin + open.size());
  if (end == xml->npos) return std::nullopt;
  const std::string_view text = xml->substr(begin + open.size(), end - begin - open.size());
  xml->remove_prefix(end + close.size());
  return text;
}

std::optional<std::string_view> FindElement(std::string_view xml, std::string_view name) {
  return TakeElement(&xml, name);
}

std::string XmlText(std::string_view text) {
  static constexpr std::pair<std::string_view, char> kEntities[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&#39;", '\''}, {"&#34;", '"'}};
  std::string out;
  while (!text.empty()) {
    size_t taken = 0;
    for (const auto& entity : kEntities) {
      if (!text.starts_with(entity.first)) continue;
      out += entity.second;
      taken = entity.first.size();
      break;
    }
    if (taken == 0) {
      out += text[0];
      taken = 1;
    }
    text.remove_prefix(taken);
  }
  return out;
}

// With encoding-type=url a key is escaped; '+' is a space there.
absl::StatusOr<std::string> DecodeKey(std::string_view text) {
  std::string plain = XmlText(text);
  std::replace(plain.begin(), plain.end(), '+', ' ');
  std::string out;
  for (size_t i = 0; i < plain.size(); ++i) {
    unsigned byte = 0;
    if (plain[i] != '%') {
      out += plain[i];
      continue;
    }
    const char* begin = plain.data() + i + 1;
    if (plain.size() - i < 3 || std::from_chars(begin, begin + 2, byte, 16).ptr != begin + 2) {
      return DataLoss("the S3 server lists a key that cannot be decoded");
    }
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

absl::Status ListS3(const S3Config& config, const Url& folder, const WorkContext& work, const MountListed& listed) {
  RETURN_IF_ERROR(CheckUrl(folder));
  const std::string prefix = folder.path.empty() ? std::string() : folder.path.substr(1);
  std::string token;
  for (;;) {
    RETURN_IF_ERROR(work.Check());
    ASSIGN_OR_RETURN(Target target, Locate(config, folder, {}));
    target.url.target += "?encoding-type=url&list-type=2&prefix=" + AwsEncode(prefix, /*keep_slash=*/false);
    if (!token.empty()) target.url.target += "&continuation-token=" + AwsEncode(token, /*keep_slash=*/false);
    ASSIGN_OR_RETURN(const std::unique_ptr<HttpResponse> response,
                     config.client->Send(NewS3Request(config, target, "GET", {}), work));
    if (response->status() != 200) return S3Error(config, folder, *response);
    ASSIGN_OR_RETURN(const std::string page, ReadBody(*response, kListPageBytesMax));
    if (page.find("<ListBucketResult") == page.npos) {
      return DataLoss("{}: the answer is no list of a bucket", response->url().Redacted());
    }
    const bool url_encoded = FindElement(page, "EncodingType") == "url";
    std::string_view rest = page;
    while (const std::optional<std::string_view> object = TakeElement(&rest, "Contents")) {
      const std::optional<std::string_view> key = FindElement(*object, "Key");
      const std::optional<std::string_view> size = FindElement(*object, "Size");
      if (!key.has_value()) return DataLoss("the S3 server lists an object without a key");
      std::string name = XmlText(*key);
      if (url_encoded) {
        ASSIGN_OR_RETURN(name, DecodeKey(*key));
      }
      if (name.empty() || name.back() == '/') continue;  // stands for a folder
      // What was not asked for is not taken: a server may not choose other objects.
      if (!name.starts_with(prefix)) return DataLoss("the S3 server lists an object outside the prefix");
      MountListEntry entry;
      entry.url = folder;
      entry.url.path = "/" + name;
      if (size.has_value()) {
        const char* end = size->data() + size->size();
        entry.size_known = std::from_chars(size->data(), end, entry.size).ptr == end;
      }
      RETURN_IF_ERROR(listed(entry));
    }
    if (FindElement(page, "IsTruncated") != "true") return absl::OkStatus();
    const std::optional<std::string_view> next = FindElement(page, "NextContinuationToken");
    std::string next_token = next.has_value() ? XmlText(*next) : std::string();
    if (next_token.empty() || next_token == token) return DataLoss("the S3 server lists without an end");
    token = std::move(next_token);
  }
}

}  // namespace

MountFactory S3MountFactory(const S3Config& config) {
  return [config = std::make_shared<const S3Config>(config)](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    RETURN_IF_ERROR(CheckUrl(url));
    if (url.path.size() < 2 || url.path.back() == '/') return InvalidArgument("s3: URL names no object");
    return std::make_unique<HttpSourceMount>(url, std::make_shared<S3Source>(config, url));
  };
}

MountLister S3MountLister(const S3Config& config) {
  return [config = std::make_shared<const S3Config>(config)](const Url& folder, const WorkContext& work,
                                                             const MountListed& listed) {
    return Annotate(ListS3(*config, folder, work, listed), "list " + folder.Redacted());
  };
}

}  // namespace dagstore
