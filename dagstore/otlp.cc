#include "dagstore/otlp.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>

#include "base/bytes.h"
#include "base/protobuf.h"
#include "base/utf8.h"

namespace dagstore {
namespace {

constexpr char kScopeName[] = "dagstore";
constexpr size_t kRequestBytesMax = 64 << 20;   // the specification's limit of a body
constexpr size_t kResponseBytesMax = 4 << 20;   // and of an answer

// Texts must be UTF-8; keys of shards are bytes. What is none is escaped.
std::string Utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t size = Utf8Length(AsSpan(bytes));
    if (size == 0) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(bytes[0]));
    } else {
      out.append(bytes.substr(0, size));
    }
    bytes.remove_prefix(std::max<size_t>(size, 1));
  }
  return out;
}

uint32_t FlagsOf(const SpanContext& span, bool parent_is_remote) {
  constexpr uint32_t kRemoteKnown = 0x100, kIsRemote = 0x200;
  return span.flags | kRemoteKnown | (parent_is_remote ? kIsRemote : 0);
}

// The status message is no attribute on the wire.
bool IsMessage(const SpanRecord::Attribute& attribute) { return attribute.key == std::string_view(kStatusMessage); }

uint64_t WallNanos(MonotonicNanos at, int64_t offset) {
  return static_cast<uint64_t>(std::max<int64_t>(at + offset, 0));
}

// ---- Protobuf ----

class ProtoWriter {
 public:
  void Varint(uint32_t field, uint64_t value) {
    if (value == 0) return;
    AlwaysVarint(field, value);
  }
  void AlwaysVarint(uint32_t field, uint64_t value) {
    Tag(field, 0);
    Raw(value);
  }
  void Fixed64(uint32_t field, uint64_t value) {
    Tag(field, 1);
    Append64(out_, value);
  }
  void Fixed32(uint32_t field, uint32_t value) {
    Tag(field, 5);
    Append32(out_, value);
  }
  void Bytes(uint32_t field, std::string_view value) {
    Tag(field, 2);
    Raw(value.size());
    out_.append(value);
  }
  void Text(uint32_t field, std::string_view value) {
    if (!value.empty()) Bytes(field, value);
  }
  const std::string& str() const { return out_; }

 private:
  void Tag(uint32_t field, uint32_t type) { Raw(field << 3 | type); }
  void Raw(uint64_t value) { AppendProtoVarint(out_, value); }
  std::string out_;
};

std::string_view IdText(Span id) { return {reinterpret_cast<const char*>(id.data()), id.size()}; }

std::string ProtoTextAttribute(std::string_view key, std::string_view value) {
  ProtoWriter any, pair;
  any.Bytes(1, value);
  pair.Bytes(1, key);
  pair.Bytes(2, any.str());
  return pair.str();
}

std::string ProtoAttribute(const SpanRecord& span, const SpanRecord::Attribute& attribute) {
  using Type = SpanRecord::Attribute::Type;
  if (attribute.type == Type::kText) return ProtoTextAttribute(attribute.key, Utf8(span.Text(attribute)));
  ProtoWriter any, pair;
  any.AlwaysVarint(attribute.type == Type::kBool ? 2 : 3, static_cast<uint64_t>(attribute.number));
  pair.Bytes(1, attribute.key);
  pair.Bytes(2, any.str());
  return pair.str();
}

std::string ProtoSpan(const SpanRecord& span, int64_t offset) {
  ProtoWriter out;
  out.Bytes(1, IdText(span.span.trace_id));
  out.Bytes(2, IdText(span.span.span_id));
  if (span.tracestate != nullptr) out.Text(3, *span.tracestate);
  if (span.parent.IsValid()) out.Bytes(4, IdText(span.parent.span_id));
  out.Text(5, span.name);
  out.Varint(6, static_cast<uint64_t>(span.kind));
  out.Fixed64(7, WallNanos(span.start, offset));
  out.Fixed64(8, WallNanos(span.end, offset));
  std::string message;
  for (size_t i = 0; i < span.attribute_count; ++i) {
    const SpanRecord::Attribute& attribute = span.attributes[i];
    if (IsMessage(attribute)) {
      message = Utf8(span.Text(attribute));
    } else {
      out.Bytes(9, ProtoAttribute(span, attribute));
    }
  }
  out.Varint(10, span.attributes_dropped);
  for (const SpanContext& other : span.links) {
    ProtoWriter link;
    link.Bytes(1, IdText(other.trace_id));
    link.Bytes(2, IdText(other.span_id));
    link.Fixed32(6, FlagsOf(other, other.is_remote));
    out.Bytes(13, link.str());
  }
  out.Varint(14, span.links_dropped);
  if (span.status != SpanStatus::kUnset) {
    ProtoWriter status;
    status.Text(2, message);
    status.Varint(3, static_cast<uint64_t>(span.status));
    out.Bytes(15, status.str());
  }
  out.Fixed32(16, FlagsOf(span.span, span.parent.is_remote));
  return out.str();
}

// ---- JSON ----

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string JsonTextAttribute(std::string_view key, std::string_view value) {
  return fmt::format(R"({{"key":{},"value":{{"stringValue":{}}}}})", Quoted(key), Quoted(value));
}

std::string JsonAttribute(const SpanRecord& span, const SpanRecord::Attribute& attribute) {
  switch (attribute.type) {
    case SpanRecord::Attribute::Type::kInt:
      return fmt::format(R"({{"key":{},"value":{{"intValue":"{}"}}}})", Quoted(attribute.key), attribute.number);
    case SpanRecord::Attribute::Type::kBool:
      return fmt::format(R"({{"key":{},"value":{{"boolValue":{}}}}})", Quoted(attribute.key), attribute.number != 0);
    case SpanRecord::Attribute::Type::kText:
      break;
  }
  return JsonTextAttribute(attribute.key, Utf8(span.Text(attribute)));
}

void AppendListed(std::string& out, std::string_view item, bool& first) {
  if (!first) out += ',';
  first = false;
  out += item;
}

std::string JsonSpan(const SpanRecord& span, int64_t offset) {
  std::string out =
      fmt::format(R"({{"traceId":"{}","spanId":"{}")", ToHex(span.span.trace_id), ToHex(span.span.span_id));
  if (span.tracestate != nullptr) out += fmt::format(R"(,"traceState":{})", Quoted(*span.tracestate));
  if (span.parent.IsValid()) out += fmt::format(R"(,"parentSpanId":"{}")", ToHex(span.parent.span_id));
  out += fmt::format(R"(,"name":{},"kind":{},"startTimeUnixNano":"{}","endTimeUnixNano":"{}","attributes":[)",
                     Quoted(span.name), static_cast<int>(span.kind), WallNanos(span.start, offset),
                     WallNanos(span.end, offset));
  std::string message;
  bool first = true;
  for (size_t i = 0; i < span.attribute_count; ++i) {
    const SpanRecord::Attribute& attribute = span.attributes[i];
    if (IsMessage(attribute)) {
      message = Utf8(span.Text(attribute));
    } else {
      AppendListed(out, JsonAttribute(span, attribute), first);
    }
  }
  out += ']';
  if (span.attributes_dropped != 0) out += fmt::format(R"(,"droppedAttributesCount":{})", span.attributes_dropped);
  if (!span.links.empty()) {
    out += R"(,"links":[)";
    first = true;
    for (const SpanContext& link : span.links) {
      AppendListed(out, fmt::format(R"({{"traceId":"{}","spanId":"{}","flags":{}}})", ToHex(link.trace_id),
                                    ToHex(link.span_id), FlagsOf(link, link.is_remote)), first);
    }
    out += ']';
  }
  if (span.links_dropped != 0) out += fmt::format(R"(,"droppedLinksCount":{})", span.links_dropped);
  if (span.status != SpanStatus::kUnset) {
    out += fmt::format(R"(,"status":{{"message":{},"code":{}}})", Quoted(message), static_cast<int>(span.status));
  }
  return out + fmt::format(R"(,"flags":{}}})", FlagsOf(span.span, span.parent.is_remote));
}

int64_t WallOffset() {
  const Clock& clock = Clock::Real();
  return absl::ToUnixNanos(clock.WallNow()) - clock.Now();
}

}  // namespace

std::string EncodeOtlpProtobuf(const TraceResource& resource, std::span<const SpanRecord> spans, int64_t wall_offset) {
  ProtoWriter res, scope, scope_spans, resource_spans, request;
  for (const auto& attribute : resource.attributes) {
    res.Bytes(1, ProtoTextAttribute(Utf8(attribute.first), Utf8(attribute.second)));
  }
  scope.Text(1, kScopeName);
  scope_spans.Bytes(1, scope.str());
  for (const SpanRecord& span : spans) scope_spans.Bytes(2, ProtoSpan(span, wall_offset));
  resource_spans.Bytes(1, res.str());
  resource_spans.Bytes(2, scope_spans.str());
  request.Bytes(1, resource_spans.str());
  return request.str();
}

std::string EncodeOtlpJson(const TraceResource& resource, std::span<const SpanRecord> spans, int64_t wall_offset) {
  std::string out = R"({"resourceSpans":[{"resource":{"attributes":[)";
  bool first = true;
  for (const auto& attribute : resource.attributes) {
    AppendListed(out, JsonTextAttribute(Utf8(attribute.first), Utf8(attribute.second)), first);
  }
  out += fmt::format(R"(]}},"scopeSpans":[{{"scope":{{"name":"{}"}},"spans":[)", kScopeName);
  first = true;
  for (const SpanRecord& span : spans) AppendListed(out, JsonSpan(span, wall_offset), first);
  return out + "]}]}]}";
}

// ---- HTTP ----

namespace {

bool MayRetry(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

// Seconds, or a date.
std::optional<absl::Duration> ParseRetryAfter(const std::string* value) {
  if (value == nullptr) return std::nullopt;
  uint32_t seconds = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), seconds);
  if (error == std::errc() && end == value->data() + value->size()) return absl::Seconds(seconds);
  absl::Time at;
  std::string why;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", *value, &at, &why)) return std::nullopt;
  return std::max(at - Clock::Real().WallNow(), absl::ZeroDuration());
}

// ExportTraceServiceResponse.partial_success.rejected_spans: field 1 of the messages in field 1. 0 if there is none, or
// the answer makes no sense.
uint64_t RejectedSpans(Span response) {
  ProtoField field;
  while (!response.empty() && TakeProtoField(response, field)) {
    if (field.number != 1 || field.type != WireType::kBytes) continue;
    Span partial = field.bytes;
    while (!partial.empty() && TakeProtoField(partial, field)) {
      if (field.number == 1 && field.type == WireType::kVarint) return field.value;
    }
  }
  return 0;
}

class OtlpHttpExporter final : public SpanExporter {
 public:
  OtlpHttpExporter(const OtlpHttpOptions& options, HttpUrl url, std::shared_ptr<HttpClient> client)
      : options_(options), url_(std::move(url)), client_(std::move(client)), ids_(WallOffset()) {}

  absl::StatusOr<size_t> Export(std::vector<SpanRecord> batch, const WorkContext& work) override {
    HttpRequest request;
    request.method = "POST";
    request.url = url_;
    request.follow_redirects = false;
    request.headers.emplace_back("content-type", options_.json ? "application/json" : "application/x-protobuf");
    for (const auto& header : options_.headers) {  // may hold a token
      request.private_headers.emplace_back(header.first, Secret(header.second));
    }
    request.body = options_.json ? EncodeOtlpJson(options_.resource, batch, WallOffset())
                                 : EncodeOtlpProtobuf(options_.resource, batch, WallOffset());
    if (request.body.size() > kRequestBytesMax) {
      return ResourceExhausted("a batch of {} spans takes {} bytes", batch.size(), request.body.size());
    }
    absl::Duration pause = options_.first_pause;
    for (;;) {
      std::optional<absl::Duration> after;
      const absl::StatusOr<uint64_t> rejected = Post(request, work, after);
      if (rejected.ok()) return batch.size() - std::min<uint64_t>(*rejected, batch.size());
      if (rejected.status().code() != absl::StatusCode::kUnavailable) return rejected.status();
      // Jitter, so that a collector that comes back is not met by all at once.
      const double jitter = 0.5 + static_cast<double>(ids_.Root(false).trace_id[0]) / 512;
      const absl::Duration wait = after.value_or(pause * jitter);
      if (!work.deadline.IsInfinite() && wait >= work.deadline.Remaining(work.clock->Now())) return rejected.status();
      if (!Wait(wait, work)) return rejected.status();
      pause = std::min(pause * 2, options_.pause_max);
    }
  }

 private:
  // Unavailable: may be tried again. Returns how many spans were rejected.
  absl::StatusOr<uint64_t> Post(const HttpRequest& request, const WorkContext& work,
                                std::optional<absl::Duration>& after) {
    WorkContext once = work;
    once.deadline = work.deadline.Min(Deadline::After(*work.clock, options_.request_timeout));
    absl::StatusOr<std::unique_ptr<HttpResponse>> response = client_->Send(request, once);
    if (absl::IsDeadlineExceeded(response.status())) {
      return Unavailable("POST {}: no answer in time", url_.Redacted());
    }
    RETURN_IF_ERROR(response.status());
    const int code = (*response)->status();
    if (code < 200 || code > 299) {
      after = ParseRetryAfter((*response)->Header("retry-after"));
      const std::string what = fmt::format("POST {}: status {}", url_.Redacted(), code);
      return MayRetry(code) ? Unavailable("{}", what) : FailedPrecondition("{}", what);
    }
    // Delivered, whatever becomes of the rest of the answer.
    const absl::StatusOr<std::string> body = ReadBody(**response, kResponseBytesMax);
    return body.ok() && !options_.json ? RejectedSpans(AsSpan(*body)) : uint64_t{0};
  }

  // False if the tracer wants to end.
  static bool Wait(absl::Duration time, const WorkContext& work) {
    pollfd wake = {work.cancel == nullptr ? -1 : work.cancel->WakeFd(), POLLIN, 0};
    (void)poll(&wake, 1, static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(time) + 1, 3'600'000)));
    return work.cancel == nullptr || !work.cancel->cancelled();
  }

  const OtlpHttpOptions options_;
  const HttpUrl url_;
  const std::shared_ptr<HttpClient> client_;
  SpanIds ids_;  // for jitter
};

class OtlpFileExporter final : public SpanExporter {
 public:
  OtlpFileExporter(std::FILE* file, TraceResource resource) : file_(file), resource_(std::move(resource)) {}
  ~OtlpFileExporter() override {
    if (file_ != stderr) (void)std::fclose(file_);
  }

  absl::StatusOr<size_t> Export(std::vector<SpanRecord> batch, const WorkContext&) override {
    const std::string line = EncodeOtlpJson(resource_, batch, WallOffset()) + "\n";
    if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0) {
      return ErrnoStatus(errno, "write spans");
    }
    return batch.size();
  }

 private:
  std::FILE* const file_;
  const TraceResource resource_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SpanExporter>> NewOtlpHttpExporter(const OtlpHttpOptions& options,
                                                                  std::shared_ptr<HttpClient> client) {
  absl::StatusOr<HttpUrl> url = HttpUrl::Parse(options.endpoint);
  if (!url.ok()) return Annotate(url.status(), "endpoint for spans");
  return std::make_unique<OtlpHttpExporter>(options, *std::move(url), std::move(client));
}

absl::StatusOr<std::unique_ptr<SpanExporter>> NewOtlpFileExporter(const std::string& path,
                                                                  const TraceResource& resource) {
  std::FILE* file = path == "-" ? stderr : std::fopen(path.c_str(), "ae");
  if (file == nullptr) return ErrnoStatus(errno, fmt::format("open {} for spans", path));
  return std::make_unique<OtlpFileExporter>(file, resource);
}

absl::StatusOr<std::shared_ptr<Tracer>> NewTracer(const TraceConfig& config) {
  if (!config.enabled) return nullptr;
  HttpClientOptions http;
  // The operator has named the collector himself; it usually stands on this machine.
  http.addresses = std::make_shared<AddressPolicy>(AddressPolicy::AllowingAll());
  http.ca_file = config.ca_file;
  http.idle_connections_max = 1;
  ASSIGN_OR_RETURN(std::shared_ptr<HttpClient> client, NewHttpClient(http));
  OtlpHttpOptions otlp;
  otlp.endpoint = config.endpoint;
  otlp.headers = config.headers;
  otlp.request_timeout = config.request_timeout;
  otlp.json = config.json;
  otlp.resource = config.resource;
  ASSIGN_OR_RETURN(std::unique_ptr<SpanExporter> exporter, NewOtlpHttpExporter(otlp, std::move(client)));
  return Tracer::Start(config.tracer, std::move(exporter));
}

}  // namespace dagstore
