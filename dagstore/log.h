// LogSink: what people should read of what the store does. A line has a level, a message, and the ids of the trace it
// belongs to; dagstore/log.cc writes them to stderr or a file.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/task_meta.h"

namespace dagstore {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

// Any thread. Never blocks, never fails: what there is no place for is dropped and counted.
class LogSink {
 public:
  virtual ~LogSink() = default;
  // `span` invalid: the line belongs to no trace.
  virtual void Write(LogLevel level, const SpanContext& span, std::string_view message) = 0;
};

struct LogOptions {
  LogLevel level = LogLevel::kWarning;  // and above
  std::string file = {};                // appended to; empty: stderr
  size_t lines_waiting_max = 8192;      // beyond it the oldest are dropped: the disk is slower than we are
};

// Writes lines on a thread of its own: "2026-01-02T03:04:05.678Z warning trace_id=... span_id=... message". Control
// bytes in a message are escaped, so that one call is one line. Unavailable if the file cannot be opened.
absl::StatusOr<std::unique_ptr<LogSink>> NewLogSink(const LogOptions& options);

// The line without time and level.
std::string LogLine(const SpanContext& span, std::string_view message);

}  // namespace dagstore
