// OTLP: spans as the OpenTelemetry protocol has them, and exporters that speak it.
//
// Our own writer: about thirty fields whose numbers are fixed for ever, no schema files, no generated classes. The
// tests
// decode what it writes with protoc. Spec: opentelemetry-proto v1.x trace.proto, OTLP/HTTP; JSON as the protocol wants
// it (ids in hex, enums as numbers, 64-bit numbers as strings), which protobuf's own JSON is not.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/http.h"
#include "dagstore/tracer.h"

namespace dagstore {

// An ExportTraceServiceRequest. `wall_offset`: nanoseconds to add to the monotonic clock to get the time since 1970.
std::string EncodeOtlpProtobuf(const TraceResource& resource, std::span<const SpanRecord> spans, int64_t wall_offset);
// The same in JSON, on one line without its end.
std::string EncodeOtlpJson(const TraceResource& resource, std::span<const SpanRecord> spans, int64_t wall_offset);

// Posts to a collector. Only 429, 502, 503, 504 and a failed connection are tried again, after Retry-After or with
// doubling pauses; a partial success never. Redirects are not followed.
struct OtlpHttpOptions {
  std::string endpoint = {};  // the whole URL
  std::vector<std::pair<std::string, std::string>> headers = {};
  absl::Duration request_timeout = absl::Seconds(10);
  bool json = false;
  TraceResource resource = {};
  absl::Duration first_pause = absl::Seconds(1);  // doubled each time, with jitter
  absl::Duration pause_max = absl::Seconds(10);
};
// InvalidArgument for an endpoint that is no http(s) URL.
absl::StatusOr<std::unique_ptr<SpanExporter>> NewOtlpHttpExporter(const OtlpHttpOptions& options,
                                                                  std::shared_ptr<HttpClient> client);

// Appends to a file, one request in JSON a line: what collectors read as "otlp json file". "-": stderr. Unavailable if
// it
// cannot be opened.
absl::StatusOr<std::unique_ptr<SpanExporter>> NewOtlpFileExporter(const std::string& path,
                                                                  const TraceResource& resource);

// The tracer that the environment asks for; null if it asks for none.
absl::StatusOr<std::shared_ptr<Tracer>> NewTracer(const TraceConfig& config);

}  // namespace dagstore
