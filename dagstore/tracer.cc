#include "dagstore/tracer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <system_error>
#include <thread>

#include "base/text.h"

namespace dagstore {

// ---- The ring ----

absl::StatusOr<std::shared_ptr<Tracer>> Tracer::Start(const TracerOptions& options,
                                                      std::unique_ptr<SpanExporter> exporter) {
  try {
    return std::make_shared<Tracer>(options, std::move(exporter));
  } catch (const std::system_error& error) {
    return ResourceExhausted("cannot start the thread that exports spans: {}", error.code().message());
  }
}

Tracer::Tracer(const TracerOptions& options, std::unique_ptr<SpanExporter> exporter)
    : options_(options),
      exporter_(std::move(exporter)),
      slots_(std::max<size_t>(options.spans_waiting_max, 1)),
      ring_(std::make_unique<Slot[]>(slots_)) {
  thread_ = Thread("dagstore-trace", [this] { Run(); });
}

Tracer::~Tracer() {
  {
    MutexLock lock(mu_);
    ending_ = true;
  }
  wanted_.NotifyAll();
  {
    const Clock& clock = Clock::Real();
    const Deadline end = Deadline::After(clock, options_.shutdown_timeout);
    MutexLock lock(mu_);
    while (!ended_ && !end.Passed(clock.Now())) flushed_.WaitFor(mu_, end.Remaining(clock.Now()));
  }
  cancel_.Cancel();
  thread_.Join();
}

// A place is taken under the lock and filled without it. The lock's end would wait for the lines of the slot, which
// were last with the exporter's core; a mark beside the span does not.
void Tracer::Record(SpanRecord&& span) {
  uint64_t number = 0;
  bool wake = false;
  {
    MutexLock lock(mu_);
    ++stats_.recorded;
    if (next_ - first_ == slots_) {
      ++stats_.dropped_full;
      ++done_;
      return;
    }
    number = next_++;
    wake = next_ - first_ == std::min(options_.batch_spans_max, slots_);
  }
  Slot& slot = ring_[number % slots_];
  slot.span = std::move(span);
  slot.filled.store(number + 1, std::memory_order_release);
  if (wake) wanted_.NotifyOne();
}

// The slots from `first` on were taken, and are filled in a moment. Nobody writes them until first_ is behind them.
std::vector<SpanRecord> Tracer::TakeBatch(uint64_t first, size_t n) {
  std::vector<SpanRecord> batch;
  batch.reserve(n);
  for (uint64_t number = first; number < first + n; ++number) {
    Slot& slot = ring_[number % slots_];
    while (slot.filled.load(std::memory_order_acquire) != number + 1) std::this_thread::yield();
    batch.push_back(std::move(slot.span));
  }
  const MutexLock lock(mu_);
  first_ = first + n;
  return batch;
}

void Tracer::Run() {
  const Clock& clock = Clock::Real();
  for (;;) {
    uint64_t first = 0;
    size_t spans = 0;
    {
      MutexLock lock(mu_);
      const Deadline due = Deadline::After(clock, options_.delay);
      while (!ending_ && next_ - first_ < std::min(options_.batch_spans_max, slots_) &&
             (next_ == first_ || done_ >= flush_until_)) {
        const absl::Duration left = due.Remaining(clock.Now());
        if (left <= absl::ZeroDuration()) break;
        wanted_.WaitFor(mu_, left);
      }
      if (next_ == first_) {
        if (!ending_) continue;
        ended_ = true;
        flushed_.NotifyAll();
        return;
      }
      first = first_;
      spans = std::min<size_t>(next_ - first_, std::max<size_t>(options_.batch_spans_max, 1));
    }
    std::vector<SpanRecord> batch = TakeBatch(first, spans);
    absl::StatusOr<size_t> delivered = Cancelled("the tracer ended before its spans were exported");
    if (!cancel_.cancelled()) {
      WorkContext work;
      work.cancel = &cancel_;
      work.clock = &clock;
      work.deadline = Deadline::After(clock, options_.export_timeout);
      delivered = exporter_->Export(std::move(batch), work);
    }
    MutexLock lock(mu_);
    done_ += spans;
    const size_t exported = delivered.ok() ? std::min(*delivered, spans) : 0;
    stats_.exported += exported;
    stats_.dropped_failed += spans - exported;
    if (!delivered.ok()) stats_.last_error = delivered.status();
    flushed_.NotifyAll();
  }
}

absl::Status Tracer::Flush(absl::Duration timeout) {
  const Clock& clock = Clock::Real();
  const Deadline until = Deadline::After(clock, timeout);
  MutexLock lock(mu_);
  const uint64_t target = stats_.recorded;
  flush_until_ = std::max(flush_until_, target);
  wanted_.NotifyOne();
  while (done_ < target) {
    const absl::Duration left = until.Remaining(clock.Now());
    if (left <= absl::ZeroDuration()) return DeadlineExceeded("{} spans are not exported yet", target - done_);
    flushed_.WaitFor(mu_, left);
  }
  return absl::OkStatus();
}

SpanSinkStats Tracer::Stats() const {
  MutexLock lock(mu_);
  return stats_;
}

// ---- The environment ----

namespace {

// "key=value,key=value", the values percent-encoded.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParsePairs(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = TrimBlanks(text.substr(begin, end - begin));
    begin = end + 1;
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos || TrimBlanks(part.substr(0, equals)).empty()) {
      return InvalidArgument("\"key=value\" is expected between commas");
    }
    std::optional<std::string> value = PercentDecode(TrimBlanks(part.substr(equals + 1)));
    if (!value.has_value()) return InvalidArgument("a % is not followed by two hexadecimal digits");
    pairs.emplace_back(TrimBlanks(part.substr(0, equals)), *std::move(value));
  }
  return pairs;
}

void Set(std::vector<std::pair<std::string, std::string>>& pairs, std::string key, std::string value) {
  for (auto& pair : pairs) {
    if (pair.first == key) {
      pair.second = std::move(value);
      return;
    }
  }
  pairs.emplace_back(std::move(key), std::move(value));
}

}  // namespace

absl::StatusOr<TraceConfig> TraceConfig::FromEnvironment(absl::FunctionRef<const char*(const char* name)> get) {
  TraceConfig config;
  absl::Status status;
  // As the specification has it, an empty variable is one that is not set.
  const auto text = [&](const char* name) -> std::string {
    const char* value = get(name);
    return value == nullptr ? std::string() : std::string(TrimBlanks(value));
  };
  const auto complain = [&](const char* name, std::string_view why) {
    if (status.ok()) status = InvalidArgument("{}: {}", name, why);
  };
  const auto number = [&](const char* name, uint64_t most) -> std::optional<uint64_t> {
    const std::string value = text(name);
    if (value.empty()) return std::nullopt;
    uint64_t parsed = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (error != std::errc() || end != value.data() + value.size() || parsed > most) {
      complain(name, "a whole number is expected");
      return std::nullopt;
    }
    return parsed;
  };
  constexpr uint64_t kMillisMax = 86'400'000;
  const auto millis = [&](const char* name, absl::Duration& into) {
    if (const auto value = number(name, kMillisMax)) into = absl::Milliseconds(static_cast<int64_t>(*value));
  };

  const std::string base = text("OTEL_EXPORTER_OTLP_ENDPOINT");
  config.endpoint = text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
  if (config.endpoint.empty() && !base.empty()) {
    config.endpoint = base + (base.back() == '/' ? "" : "/") + "v1/traces";
  }
  const std::string exporter = LowerAscii(text("OTEL_TRACES_EXPORTER"));
  if (!exporter.empty() && exporter != "otlp" && exporter != "none") {
    complain("OTEL_TRACES_EXPORTER", "\"otlp\" or \"none\" is expected");
  }
  if (config.endpoint.empty() && exporter == "otlp") config.endpoint = "http://localhost:4318/v1/traces";
  config.enabled = !config.endpoint.empty() && exporter != "none" && LowerAscii(text("OTEL_SDK_DISABLED")) != "true";

  std::string protocol = text("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
  if (protocol.empty()) protocol = text("OTEL_EXPORTER_OTLP_PROTOCOL");
  if (protocol == "http/json") {
    config.json = true;
  } else if (!protocol.empty() && protocol != "http/protobuf") {
    complain("OTEL_EXPORTER_OTLP_PROTOCOL", "\"http/protobuf\" or \"http/json\" is expected");
  }
  for (const char* name : {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"}) {
    const auto pairs = ParsePairs(text(name));
    if (!pairs.ok()) {
      complain(name, Message(pairs.status()));
      continue;
    }
    for (const auto& pair : *pairs) Set(config.headers, LowerAscii(pair.first), pair.second);
  }
  for (const char* name : {"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"}) {
    if (std::string file = text(name); !file.empty()) config.ca_file = std::move(file);
  }
  millis("OTEL_EXPORTER_OTLP_TIMEOUT", config.request_timeout);
  millis("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", config.request_timeout);

  if (const auto pairs = ParsePairs(text("OTEL_RESOURCE_ATTRIBUTES")); pairs.ok()) {
    for (const auto& pair : *pairs) Set(config.resource.attributes, pair.first, pair.second);
  } else {
    complain("OTEL_RESOURCE_ATTRIBUTES", Message(pairs.status()));
  }
  if (const std::string name = text("OTEL_SERVICE_NAME"); !name.empty()) {
    Set(config.resource.attributes, "service.name", name);
  }

  const std::string argument = text("OTEL_TRACES_SAMPLER_ARG");
  double ratio = 1;
  if (!argument.empty()) {
    char* end = nullptr;
    ratio = std::strtod(argument.c_str(), &end);
    if (*end != '\0' || !(ratio >= 0 && ratio <= 1)) {
      complain("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1 is expected");
    }
  }
  const std::string sampler = LowerAscii(text("OTEL_TRACES_SAMPLER"));
  using Kind = TraceSampler::Kind;
  if (sampler.empty() || sampler == "parentbased_always_on") {
    config.sampler = TraceSampler(Kind::kParentBased, 1);
  } else if (sampler == "always_on") {
    config.sampler = TraceSampler(Kind::kRatio, 1);
  } else if (sampler == "always_off") {
    config.sampler = TraceSampler(Kind::kRatio, 0);
  } else if (sampler == "traceidratio") {
    config.sampler = TraceSampler(Kind::kRatio, ratio);
  } else if (sampler == "parentbased_always_off") {
    config.sampler = TraceSampler(Kind::kParentBased, 0);
  } else if (sampler == "parentbased_traceidratio") {
    config.sampler = TraceSampler(Kind::kParentBased, ratio);
  } else {
    complain("OTEL_TRACES_SAMPLER", "no such sampler");
  }

  constexpr uint64_t kSpansMax = 1 << 20;
  if (const auto value = number("OTEL_BSP_MAX_QUEUE_SIZE", kSpansMax)) config.tracer.spans_waiting_max = *value;
  if (const auto value = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", kSpansMax)) config.tracer.batch_spans_max = *value;
  if (config.tracer.spans_waiting_max == 0) complain("OTEL_BSP_MAX_QUEUE_SIZE", "must be greater than 0");
  if (config.tracer.batch_spans_max == 0) complain("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "must be greater than 0");
  millis("OTEL_BSP_SCHEDULE_DELAY", config.tracer.delay);
  millis("OTEL_BSP_EXPORT_TIMEOUT", config.tracer.export_timeout);
  RETURN_IF_ERROR(status);
  return config;
}

}  // namespace dagstore
