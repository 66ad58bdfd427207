#include "mount/http_source.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

namespace dagstore {
namespace {

constexpr uint64_t kToTheEnd = std::numeric_limits<uint64_t>::max();

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<uint64_t> ContentLength(const HttpResponse& response) {
  const std::string* text = response.Header("content-length");
  return text == nullptr ? std::nullopt : ParseNumber(*text);
}

// Content-Range: bytes FIRST-LAST/TOTAL, or bytes */TOTAL; TOTAL may be '*'.
struct ContentRange {
  bool has_range = false;
  uint64_t first = 0;
  uint64_t last = 0;
  std::optional<uint64_t> total = {};
};

std::optional<ContentRange> ParseContentRange(const HttpResponse& response) {
  const std::string* header = response.Header("content-range");
  if (header == nullptr) return std::nullopt;
  std::string_view text = *header;
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  const size_t slash = text.find('/');
  if (slash == text.npos) return std::nullopt;
  ContentRange range;
  if (const std::string_view total = text.substr(slash + 1); total != "*") {
    range.total = ParseNumber(total);
    if (!range.total.has_value()) return std::nullopt;
  }
  text = text.substr(0, slash);
  if (text == "*") return range;
  const size_t dash = text.find('-');
  if (dash == text.npos) return std::nullopt;
  const std::optional<uint64_t> first = ParseNumber(text.substr(0, dash));
  const std::optional<uint64_t> last = ParseNumber(text.substr(dash + 1));
  if (!first.has_value() || !last.has_value() || *first > *last || *last == kToTheEnd) return std::nullopt;
  if (range.total.has_value() && *last >= *range.total) return std::nullopt;
  range.has_range = true;
  range.first = *first;
  range.last = *last;
  return range;
}

bool IsStrong(std::string_view validator) { return validator.starts_with('"'); }

absl::Status Changed(const HttpResponse& response) {
  return FailedPrecondition("{}: the source has changed", response.url().Redacted());
}

// What makes a body something else than the bytes of the file.
absl::Status CheckEncoding(const HttpResponse& response) {
  const std::string* encoding = response.Header("content-encoding");
  if (encoding != nullptr && !encoding->empty() && *encoding != "identity") {
    return DataLoss("{}: the server sends its body encoded, though nobody asked", response.url().Redacted());
  }
  const std::string* type = response.Header("content-type");
  if (response.status() == 206 && type != nullptr && type->starts_with("multipart/byteranges")) {
    return DataLoss("{}: the server sends several ranges, though one was asked for", response.url().Redacted());
  }
  return absl::OkStatus();
}

// A body of `size` bytes, or of unknown size; no byte more, and none less.
class BodyStream final : public ByteStream {
 public:
  BodyStream(std::unique_ptr<HttpResponse> response, std::optional<uint64_t> size)
      : response_(std::move(response)), left_(size) {}

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    if (left_ == uint64_t{0}) {
      // Ends the transfer, so that its connection is used again; and sees a body that goes on.
      if (response_ == nullptr) return size_t{0};
      uint8_t byte;
      ASSIGN_OR_RETURN(const size_t more, response_->Next(1, &byte));
      if (more > 0) return DataLoss("{}: more bytes than it said", response_->url().Redacted());
      response_.reset();
      return size_t{0};
    }
    if (size == 0) return size_t{0};
    ASSIGN_OR_RETURN(const size_t n, response_->Next(std::min<uint64_t>(size, left_.value_or(size)), out));
    if (n == 0 && left_.has_value()) {
      return Unavailable("{}: {} bytes less than it said", response_->url().Redacted(), *left_);
    }
    if (left_.has_value()) *left_ -= n;
    return n;
  }

 private:
  std::unique_ptr<HttpResponse> response_;
  std::optional<uint64_t> left_;
};

// One request for each read. What reads often should read through the upgrader.
class SourceReader final : public RandomReader {
 public:
  SourceReader(std::shared_ptr<const HttpSource> source, uint64_t size, std::string validator)
      : source_(std::move(source)), size_(size), validator_(std::move(validator)) {}

  uint64_t Size() const override { return size_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= size_ || size == 0) return size_t{0};
    const uint64_t want = std::min<uint64_t>(size, size_ - offset);
    ASSIGN_OR_RETURN(MountRange range, source_->OpenRange({}, {offset, want}, validator_));
    if (range.stat.size_known && range.stat.size != size_) {
      return FailedPrecondition("the source has {} bytes now, and had {} when it was opened", range.stat.size, size_);
    }
    size_t read = 0;
    while (true) {
      uint8_t beyond;
      const bool full = read == want;
      ASSIGN_OR_RETURN(const size_t n,
                       range.stream->Next(full ? 1 : want - read, full ? &beyond : out + read));
      if (n == 0) break;
      read += n;
    }
    return read;
  }

 private:
  const std::shared_ptr<const HttpSource> source_;
  const uint64_t size_;
  const std::string validator_;
};

}  // namespace

void HttpSource::Refine(const HttpResponse&, MountStat*) const {}
absl::Status HttpSource::ErrorOf(const HttpResponse& response) const { return HttpError(response); }

absl::StatusOr<std::unique_ptr<HttpResponse>> HttpSource::Send(const WorkContext& work, const std::string& method,
                                                               const HttpHeaders& headers) const {
  const size_t count = servers();
  if (count == 0) return FailedPrecondition("no server is configured for this kind of URL");
  const size_t first = std::min(preferred_.load(std::memory_order_relaxed), count - 1);
  absl::StatusOr<std::unique_ptr<HttpResponse>> best = Unavailable("no server was asked");
  // "Not there" of one server says little while another could not be asked.
  const auto is_better = [&best](const absl::StatusOr<std::unique_ptr<HttpResponse>>& other) {
    const auto is_missing = [](const absl::StatusOr<std::unique_ptr<HttpResponse>>& answer) {
      return answer.ok() && ((*answer)->status() == 404 || (*answer)->status() == 410);
    };
    return is_missing(best) && !is_missing(other);
  };
  for (size_t n = 0; n < count; ++n) {
    RETURN_IF_ERROR(work.Check());
    const size_t server = n == 0 ? first : n <= first ? n - 1 : n;
    absl::StatusOr<std::unique_ptr<HttpResponse>> answer = FailedPrecondition("");
    if (absl::StatusOr<HttpRequest> request = NewRequest(server, method, headers); request.ok()) {
      answer = client_->Send(*request, work);
    } else {
      answer = request.status();
    }
    RETURN_IF_ERROR(work.Check());
    if (answer.ok() && ((*answer)->status() < 400 || (*answer)->status() == 412 || (*answer)->status() == 416)) {
      preferred_.store(server, std::memory_order_relaxed);
      return answer;
    }
    if (n == 0 || is_better(answer)) best = std::move(answer);
  }
  return best;
}

MountStat HttpSource::StatOf(const HttpResponse& response) const {
  MountStat stat;
  stat.exists = true;
  stat.ready = true;
  const std::optional<ContentRange> range = ParseContentRange(response);
  const std::optional<uint64_t> size = response.status() == 206 ? (range ? range->total : std::nullopt)
                                                                : ContentLength(response);
  stat.size_known = size.has_value();
  stat.size = size.value_or(0);
  if (const std::string* etag = response.Header("etag"); etag != nullptr && etag->size() > 2) {
    stat.validator = *etag;
    // A weak one may outlive a change of bytes; with the size it is at least no worse than a date.
    if (!IsStrong(*etag) && stat.size_known) stat.validator += fmt::format(";{}", stat.size);
  } else if (const std::string* date = response.Header("last-modified"); date != nullptr && !date->empty()) {
    stat.validator = fmt::format("{};{}", *date, stat.size);
  }
  Refine(response, &stat);
  return stat;
}

absl::StatusOr<MountStat> HttpSource::Stat(const WorkContext& work) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpResponse> response, Send(work, "HEAD", {}));
  switch (response->status()) {
    case 200:
      RETURN_IF_ERROR(CheckEncoding(*response));
      return StatOf(*response);
    case 404:
    case 410:
      return MountStat();
    case 403:  // a signed URL is for one method
    case 405:
    case 501:
      return StatByGet(work);
    default:
      return ErrorOf(*response);
  }
}

absl::StatusOr<MountStat> HttpSource::StatByGet(const WorkContext& work) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpResponse> response, Send(work, "GET", {{"Range", "bytes=0-0"}}));
  switch (response->status()) {
    case 200:
    case 206:
      RETURN_IF_ERROR(CheckEncoding(*response));
      return StatOf(*response);
    case 404:
    case 410:
      return MountStat();
    case 416: {
      MountStat stat;
      stat.exists = stat.ready = true;
      const std::optional<ContentRange> range = ParseContentRange(*response);
      stat.size_known = range.has_value() && range->total.has_value();
      stat.size = stat.size_known ? *range->total : 0;
      return stat;
    }
    default:
      return ErrorOf(*response);
  }
}

absl::StatusOr<MountRange> HttpSource::OpenNothing(const WorkContext& work, const std::string& validator) const {
  MountRange opened;
  ASSIGN_OR_RETURN(opened.stat, Stat(work));
  if (!opened.stat.exists) return NotFound("the source has vanished");
  if (!validator.empty() && opened.stat.validator != validator) {
    return FailedPrecondition("the source has changed");
  }
  opened.stream = NewEmptyStream(work);
  return opened;
}

absl::StatusOr<MountRange> HttpSource::OpenRange(const WorkContext& work, ByteRange range,
                                                 const std::string& validator) const {
  if (range.size == 0 || range.offset == kToTheEnd) return OpenNothing(work, validator);
  const uint64_t last = range.size >= kToTheEnd - range.offset ? kToTheEnd : range.offset + range.size - 1;
  std::string asked = fmt::format("bytes={}-", range.offset);
  if (last != kToTheEnd) asked += std::to_string(last);
  HttpHeaders headers = {{"Range", asked}};
  if (IsStrong(validator)) headers.emplace_back("If-Match", validator);
  ASSIGN_OR_RETURN(std::unique_ptr<HttpResponse> response, Send(work, "GET", headers));
  switch (response->status()) {
    case 200:
    case 206:
      break;
    case 412:
      return Changed(*response);
    case 416:
      return OpenNothing(work, validator);
    default:
      return ErrorOf(*response);
  }
  RETURN_IF_ERROR(CheckEncoding(*response));
  MountRange opened;
  opened.stat = StatOf(*response);
  if (!validator.empty() && opened.stat.validator != validator) return Changed(*response);
  std::optional<uint64_t> body_size = ContentLength(*response);
  if (response->status() == 200) {
    // No ranges here. All of the file is as good where all of it was asked for.
    if (range.offset != 0 || (last != kToTheEnd && (!body_size.has_value() || *body_size > range.size))) {
      return Unimplemented("{}: the server serves no ranges", response->url().Redacted());
    }
  } else {
    const std::optional<ContentRange> got = ParseContentRange(*response);
    const bool right = got.has_value() && got->has_range && got->first == range.offset &&
                       (got->total.has_value() ? got->last == std::min(last, *got->total - 1) : got->last <= last);
    if (!right) return DataLoss("{}: the server sent another range than was asked for", response->url().Redacted());
    const uint64_t size = got->last - got->first + 1;
    if (body_size.has_value() && *body_size != size) {
      return DataLoss("{}: the length of the answer is not that of its range", response->url().Redacted());
    }
    body_size = size;
  }
  opened.stream = std::make_unique<BodyStream>(std::move(response), body_size);
  return opened;
}

absl::StatusOr<MountRange> HttpSource::OpenTail(const WorkContext& work, uint64_t size) const {
  ASSIGN_OR_RETURN(std::unique_ptr<HttpResponse> response,
                   Send(work, "GET", {{"Range", fmt::format("bytes=-{}", size)}}));
  if (response->status() == 200) {
    return Unimplemented("{}: the server serves no ranges", response->url().Redacted());
  }
  if (response->status() == 416) return OpenNothing(work, {});  // an empty file has no last byte
  if (response->status() != 206) return ErrorOf(*response);
  RETURN_IF_ERROR(CheckEncoding(*response));
  const std::optional<ContentRange> got = ParseContentRange(*response);
  const std::optional<uint64_t> body_size = ContentLength(*response);
  const bool right = got.has_value() && got->has_range && got->total.has_value() && got->last == *got->total - 1 &&
                     got->first == *got->total - std::min(size, *got->total) &&
                     (!body_size.has_value() || *body_size == *got->total - got->first);
  if (!right) return DataLoss("{}: the server sent another range than was asked for", response->url().Redacted());
  MountRange opened;
  opened.stat = StatOf(*response);
  opened.stream = std::make_unique<BodyStream>(std::move(response), *got->total - got->first);
  return opened;
}

absl::StatusOr<std::unique_ptr<ByteStream>> HttpSource::OpenStream(const WorkContext& work, uint64_t offset) const {
  if (offset > 0) {
    ASSIGN_OR_RETURN(MountRange range, OpenRange(work, {offset, kToTheEnd}, {}));
    return std::move(range.stream);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<HttpResponse> response, Send(work, "GET", {}));
  if (response->status() != 200) return ErrorOf(*response);  // also 206, for what was no range
  RETURN_IF_ERROR(CheckEncoding(*response));
  const std::optional<uint64_t> size = ContentLength(*response);
  return std::make_unique<BodyStream>(std::move(response), size);
}

absl::StatusOr<std::unique_ptr<RandomReader>> HttpSource::OpenRandom(const WorkContext& work,
                                                                     const std::string& validator) const {
  // The first byte shows that there are ranges.
  ASSIGN_OR_RETURN(const MountRange first, OpenRange(work, {0, 1}, validator));
  if (!first.stat.size_known) return Unimplemented("the server does not tell the size of the source");
  return std::make_unique<SourceReader>(shared_from_this(), first.stat.size, first.stat.validator);
}

absl::StatusOr<MountStat> HttpSourceMount::Stat(Io&, const WorkContext& work) const { return source_->Stat(work); }
absl::StatusOr<std::unique_ptr<RandomReader>> HttpSourceMount::OpenRandom(Io&, const WorkContext& work) const {
  return source_->OpenRandom(work, {});
}
absl::StatusOr<std::unique_ptr<RandomReader>> HttpSourceMount::OpenRandomIf(Io&, const WorkContext& work,
                                                                            const std::string& validator) const {
  return source_->OpenRandom(work, validator);
}
absl::StatusOr<MountRange> HttpSourceMount::OpenRange(Io&, const WorkContext& work, ByteRange range,
                                                      const std::string& validator) const {
  return source_->OpenRange(work, range, validator);
}
absl::StatusOr<MountRange> HttpSourceMount::OpenTail(Io&, const WorkContext& work, uint64_t size) const {
  return source_->OpenTail(work, size);
}
absl::StatusOr<std::unique_ptr<ByteStream>> HttpSourceMount::OpenStream(Io&, const WorkContext& work,
                                                                        uint64_t offset) const {
  return source_->OpenStream(work, offset);
}

}  // namespace dagstore
