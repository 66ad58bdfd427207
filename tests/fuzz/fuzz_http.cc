// Any bytes as a URL, as an address, and as the answer of a web server: a status, headers, an empty line, a body.
// Properties: a URL that is read is written and read again as itself, and so is what a Location makes of it; a range
// gives at most what was asked for, at the end or not at all; a list names nothing outside its prefix.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "mount/http_mount.h"
#include "mount/s3_mount.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

// What the input says.
struct Answer {
  int status = 200;
  HttpHeaders headers = {};
  std::string body = {};
};

Answer ParseAnswer(std::string_view input) {
  static constexpr int kStatuses[] = {200, 206, 416, 404, 412, 503, 204, 302};
  Answer answer;
  if (input.empty()) return answer;
  answer.status = kStatuses[static_cast<unsigned char>(input[0]) % std::size(kStatuses)];
  input.remove_prefix(1);
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (line.empty()) break;
    const size_t colon = line.find(':');
    if (colon != line.npos) answer.headers.emplace_back(line.substr(0, colon), line.substr(colon + 1));
  }
  answer.body = input;
  return answer;
}

class FixedResponse final : public HttpResponse {
 public:
  FixedResponse(const Answer& answer, HttpUrl url) : answer_(answer), url_(std::move(url)) {}
  int status() const override { return answer_.status; }
  const HttpHeaders& headers() const override { return answer_.headers; }
  const HttpUrl& url() const override { return url_; }
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    const size_t n = std::min(size, answer_.body.size() - at_);
    if (n > 0) std::memcpy(out, answer_.body.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  const Answer& answer_;
  const HttpUrl url_;
  size_t at_ = 0;
};

class FixedClient final : public HttpClient {
 public:
  explicit FixedClient(Answer answer) : answer_(std::move(answer)) {}
  absl::StatusOr<std::unique_ptr<HttpResponse>> Send(const HttpRequest& request, const WorkContext&) override {
    return std::make_unique<FixedResponse>(answer_, request.url);
  }
  void CloseIdle() override {}
  uint64_t bytes_received() const override { return 0; }

 private:
  const Answer answer_;
};

void CheckUrl(std::string_view text) {
  const absl::StatusOr<HttpUrl> url = HttpUrl::Parse(text);
  if (url.ok()) {
    const absl::StatusOr<HttpUrl> again = HttpUrl::Parse(url->Text());
    DAGSTORE_CHECK(again.ok() && *again == *url);
  }
  static const HttpUrl base = *HttpUrl::Parse("https://h.example:8443/a/b?c");
  if (const absl::StatusOr<HttpUrl> to = base.Resolve(text); to.ok()) {
    const absl::StatusOr<HttpUrl> again = HttpUrl::Parse(to->Text());
    DAGSTORE_CHECK(again.ok() && *again == *to);
  }
  if (const absl::StatusOr<IpAddress> address = IpAddress::Parse(text); address.ok()) {
    const absl::StatusOr<IpAddress> again = IpAddress::Parse(address->ToString());
    DAGSTORE_CHECK(again.ok() && *again == *address);
  }
}

void CheckMount(const std::shared_ptr<HttpClient>& client) {
  const auto mount = HttpMountFactory(client, std::make_shared<Credentials>())(*Url::Parse("http://h.example/a.car"));
  DAGSTORE_CHECK(mount.ok());
  (*mount)->Stat(Io::Posix(), {}).IgnoreError();
  constexpr ByteRange kRange = {2, 7};
  absl::StatusOr<MountRange> range = (*mount)->OpenRange(Io::Posix(), {}, kRange, {});
  if (!range.ok()) return;
  uint64_t read = 0;
  uint8_t block[64];
  for (;;) {
    const absl::StatusOr<size_t> n = range->stream->Next(sizeof(block), block);
    if (!n.ok() || *n == 0) break;
    read += *n;
    DAGSTORE_CHECK(read <= kRange.size);
  }
  if (range->stat.size_known && read > 0) DAGSTORE_CHECK(kRange.offset + read <= range->stat.size);
}

void CheckList(const std::shared_ptr<HttpClient>& client) {
  S3Config config;
  config.client = client;
  const Url folder = *Url::Parse("s3://bucket/cars/");
  S3MountLister(config)(folder, {}, [](const MountListEntry& entry) -> absl::Status {
    DAGSTORE_CHECK(entry.url.host == "bucket" && entry.url.path.starts_with("/cars/"));
    return absl::OkStatus();
  }).IgnoreError();
}

}  // namespace

void FuzzOne(Span input) {
  const std::string_view text = AsText(input);
  CheckUrl(text);
  const auto client = std::make_shared<FixedClient>(ParseAnswer(text));
  CheckMount(client);
  CheckList(client);
}

}  // namespace dagstore
