#include "dagstore/log.h"

#include <spdlog/async.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include "base/bytes.h"
#include "base/text.h"

namespace dagstore {
namespace {

constexpr size_t kMessageBytesMax = 4096;

spdlog::level::level_enum LevelOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// A thread of its own and a queue with a limit: the loop hands a line over and goes on.
class SpdLog final : public LogSink {
 public:
  SpdLog(const LogOptions& options, const std::shared_ptr<spdlog::sinks::sink>& sink)
      : level_(options.level),
        pool_(std::make_shared<spdlog::details::thread_pool>(std::max<size_t>(options.lines_waiting_max, 1), 1)),
        logger_(std::make_shared<spdlog::async_logger>("dagstore", sink, pool_,
                                                       spdlog::async_overflow_policy::overrun_oldest)) {
    logger_->set_level(LevelOf(options.level));
    logger_->flush_on(spdlog::level::info);
    logger_->set_formatter(std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                                                                       spdlog::pattern_time_type::utc));
    logger_->set_error_handler([](const std::string&) {});  // there is no one left to tell
  }

  void Write(LogLevel level, const SpanContext& span, std::string_view message) override {
    if (level < level_) return;
    const std::string line = LogLine(span, message);
    logger_->log(LevelOf(level), spdlog::string_view_t(line.data(), line.size()));
  }

 private:
  const LogLevel level_;
  const std::shared_ptr<spdlog::details::thread_pool> pool_;  // ends when what is queued is written
  const std::shared_ptr<spdlog::async_logger> logger_;
};

}  // namespace

std::string LogLine(const SpanContext& span, std::string_view message) {
  std::string line;
  if (span.IsValid()) line = fmt::format("trace_id={} span_id={} ", ToHex(span.trace_id), ToHex(span.span_id));
  line += LineText(message.substr(0, kMessageBytesMax));
  if (message.size() > kMessageBytesMax) line += "...";
  return line;
}

absl::StatusOr<std::unique_ptr<LogSink>> NewLogSink(const LogOptions& options) {
  try {
    std::shared_ptr<spdlog::sinks::sink> sink;
    if (options.file.empty()) {
      sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    } else {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    }
    return std::make_unique<SpdLog>(options, sink);
  } catch (const std::exception& error) {
    return Unavailable("cannot open the log {}: {}", options.file, error.what());
  }
}

}  // namespace dagstore
