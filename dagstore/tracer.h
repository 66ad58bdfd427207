// Tracer: where finished spans go, and out of the process. A ring that any thread puts spans into, and a thread that
// takes them out in batches and hands them to an exporter. The store knows nothing of exporters, and none of their
// failures reach it: what finds no place in the ring, or cannot be delivered, is dropped and counted.
//
// docs/operations.md#tracing: what the spans are, and how to look at them.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/function_ref.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/reader.h"
#include "base/thread.h"
#include "dagstore/span.h"

namespace dagstore {

// Takes batches out of the process. Used by the tracer's thread alone.
class SpanExporter {
 public:
  virtual ~SpanExporter() = default;
  // Delivers or gives up, by the deadline and within 50 ms of a cancel. Returns how many were delivered; an error means
  // that the batch is lost.
  virtual absl::StatusOr<size_t> Export(std::vector<SpanRecord> batch, const WorkContext& work) = 0;
};

// What is said of the process in every export.
struct TraceResource {
  std::vector<std::pair<std::string, std::string>> attributes = {{"service.name", "dagstore"}};
};

struct TracerOptions {
  // The defaults of the OpenTelemetry specification for its batch processor.
  size_t spans_waiting_max = 2048;  // 0.6 KiB each
  size_t batch_spans_max = 512;
  absl::Duration delay = absl::Seconds(5);            // a span waits no longer for others
  absl::Duration export_timeout = absl::Seconds(30);  // of one batch, retries included
  absl::Duration shutdown_timeout = absl::Seconds(3);  // for all that is left when the tracer ends
};

// Threads: Record, Flush and Stats any. The destructor exports what is left, within shutdown_timeout.
class Tracer final : public SpanSink {
 public:
  // Errors: ResourceExhausted if the system has no thread left, where the constructor throws std::system_error.
  static absl::StatusOr<std::shared_ptr<Tracer>> Start(const TracerOptions& options,
                                                       std::unique_ptr<SpanExporter> exporter);
  Tracer(const TracerOptions& options, std::unique_ptr<SpanExporter> exporter);
  ~Tracer() override;
  Tracer(const Tracer&) = delete;

  void Record(SpanRecord&& span) override;
  // Exports what was recorded so far. DeadlineExceeded if that is not done in time.
  absl::Status Flush(absl::Duration timeout) override;
  SpanSinkStats Stats() const override;

 private:
  void Run();
  struct Slot {
    std::atomic<uint64_t> filled{0};  // with the span of that number, counted from 1
    SpanRecord span;
  };

  std::vector<SpanRecord> TakeBatch(uint64_t first, size_t n);

  const TracerOptions options_;
  const std::unique_ptr<SpanExporter> exporter_;

  mutable Mutex mu_;
  CondVar wanted_;   // the thread has something to do
  CondVar flushed_;  // a batch is done, or the thread has ended
  CancelFlag cancel_;
  const size_t slots_;
  const std::unique_ptr<Slot[]> ring_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;   // numbers of spans: the next to be recorded,
  uint64_t first_ ABSL_GUARDED_BY(mu_) = 0;  // and the first that has not been taken out
  uint64_t done_ ABSL_GUARDED_BY(mu_) = 0;         // spans exported or lost
  uint64_t flush_until_ ABSL_GUARDED_BY(mu_) = 0;  // export without waiting for more, up to this many
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  SpanSinkStats stats_ ABSL_GUARDED_BY(mu_);
  Thread thread_;
};

// ---- The environment ----

// What OTEL_* variables ask for; docs/operations.md#tracing lists those that are read.
struct TraceConfig {
  bool enabled = false;     // an endpoint is named, and OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER do not forbid it
  std::string endpoint = {};  // of traces: http://host:4318/v1/traces
  std::vector<std::pair<std::string, std::string>> headers = {};
  absl::Duration request_timeout = absl::Seconds(10);
  bool json = false;        // instead of protobuf
  std::string ca_file = {};  // of the collector's certificate, instead of the system's
  TraceResource resource = {};
  TraceSampler sampler = TraceSampler(TraceSampler::Kind::kParentBased, 1);
  TracerOptions tracer = {};

  // `get` returns null for a variable that is not set. InvalidArgument for values that make no sense, by name.
  static absl::StatusOr<TraceConfig> FromEnvironment(absl::FunctionRef<const char*(const char* name)> get);
};

}  // namespace dagstore
