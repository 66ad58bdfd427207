#include "tools/dagstore/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "dagstore/otlp.h"
#include "mount/file_mount.h"
#include "mount/registry.h"
#include "tools/dagstore/config.h"

namespace dagstore::cli {

// ---- Errors ----

namespace {

// What a person can do about it; empty if nothing is known.
std::string_view HintFor(const absl::Status& status) {
  const std::string_view message = Message(status);
  const auto says = [&](std::string_view words) {
    return message.find(words) != std::string_view::npos;
  };
  if (says("another process has the repository open"))
    return "wait until the other dagstore command has ended";
  if (status.code() == absl::StatusCode::kResourceExhausted && says("Too many open files")) {
    return "raise the limit of open files (ulimit -n)";
  }
  return {};
}

}  // namespace

void Complain(std::string_view line) { fmt::print(stderr, "dagstore: {}\n", LineText(line)); }

int Fail(std::string_view what, const absl::Status& status) {
  std::string line = fmt::format("{}: {}", what, Message(status));
  if (const std::string_view hint = HintFor(status); !hint.empty())
    line += fmt::format(" ({})", hint);
  Complain(line);
  return absl::IsNotFound(status) ? kExitNotFound : kExitFailed;
}

int UsageError(std::string_view what) {
  Complain(what);
  return kExitUsage;
}

int Worse(int a, int b) {
  // A failure hides that something else was not found; not found hides success.
  const auto rank = [](int code) {
    return code == kExitOk ? 0 : code == kExitNotFound ? 1 : code == kExitUsage ? 3 : 2;
  };
  return rank(a) >= rank(b) ? a : b;
}

// ---- The store ----

namespace {

absl::StatusOr<MountSetup> SetUpMounts(const std::string& path) {
  auto config = std::make_shared<Config>();
  if (!path.empty()) {
    ASSIGN_OR_RETURN(*config, LoadConfig(path, [](const char* name) { return getenv(name); }));
  }
  MountSetup setup;
  ASSIGN_OR_RETURN(setup.clients, NetworkClients::Make(config->network));
  auto registry = std::make_shared<MountRegistry>(DefaultMounts(config->files));
  RETURN_IF_ERROR(RegisterNetworkMounts(config->network, setup.clients, *registry));
  setup.registry = std::move(registry);
  setup.config = std::move(config);
  return setup;
}

}  // namespace

const MountSetup* Mounts(const Context& context) {
  if (!context.mounts.has_value()) {
    absl::StatusOr<MountSetup> setup = SetUpMounts(context.config);
    if (!setup.ok()) {
      Fail("read the configuration", setup.status());
      return nullptr;
    }
    context.mounts = *std::move(setup);
  }
  return &*context.mounts;
}

namespace {

const char* GetEnvironment(const char* name) { return getenv(name); }

// What --trace and the environment ask for; null if nothing.
absl::StatusOr<std::shared_ptr<Tracer>> TracerOf(const Context& context, TraceConfig& config) {
  ASSIGN_OR_RETURN(config, TraceConfig::FromEnvironment(GetEnvironment));
  if (context.trace.empty()) return NewTracer(config);
  ASSIGN_OR_RETURN(std::unique_ptr<SpanExporter> exporter,
                   NewOtlpFileExporter(context.trace, config.resource));
  return Tracer::Start(config.tracer, std::move(exporter));
}

// The span of the whole command; the requests of its store are its children.
class CommandSpan {
 public:
  absl::Status Begin(const Context& context, Options& options) {
    TraceConfig config;
    ASSIGN_OR_RETURN(tracer_, TracerOf(context, config));
    if (tracer_ == nullptr) return absl::OkStatus();
    SpanContext parent;
    if (const char* header = getenv("TRACEPARENT"); header != nullptr && *header != '\0') {
      // A malformed one means a trace of our own, as the recommendation has it.
      parent = SpanContext::FromTraceparent(header).value_or(SpanContext());
    }
    std::random_device random;
    SpanIds ids((uint64_t{random()} << 32) | random());
    SpanContext span = parent.IsValid() ? parent.Child(ids.Next()) : ids.Root(false);
    const bool sampled = config.sampler.Sample(parent, span);
    span.flags = static_cast<uint8_t>((span.flags & ~1) | (sampled ? 1 : 0));
    options.trace.sink = tracer_;
    options.trace.sampler = config.sampler;
    options.trace.parent = span;
    if (!sampled) return absl::OkStatus();
    record_.emplace("dagstore.command", span, parent, Clock::Real().Now());
    record_->AddText("dagstore.command", context.name);
    return absl::OkStatus();
  }
  void End(int code) {
    if (!record_.has_value()) return;
    record_->end = Clock::Real().Now();
    record_->Add("process.exit.code", code);
    if (code != kExitOk) record_->status = SpanStatus::kError;
    tracer_->Record(*std::exchange(record_, std::nullopt));
  }
  // What was lost, for a person who asked for spans.
  void Report() const {
    if (tracer_ == nullptr) return;
    (void)tracer_->Flush(absl::Seconds(3));
    const SpanSinkStats stats = tracer_->Stats();
    if (stats.recorded == stats.exported) return;
    Complain(fmt::format("{} of {} spans are lost: {}", stats.recorded - stats.exported, stats.recorded,
                         stats.last_error.ok() ? "they were too many" : Message(stats.last_error)));
  }

 private:
  std::shared_ptr<Tracer> tracer_;
  std::optional<SpanRecord> record_;
};

absl::Status BeginLog(const Context& context, Options& options) {
  if (context.log.empty()) return absl::OkStatus();
  static constexpr std::pair<const char*, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                                 {"info", LogLevel::kInfo},
                                                                 {"warning", LogLevel::kWarning},
                                                                 {"error", LogLevel::kError}};
  LogOptions log;
  log.file = context.log == "-" ? std::string() : context.log;
  const auto at = std::find_if(std::begin(kLevels), std::end(kLevels),
                               [&](const auto& level) { return context.log_level == level.first; });
  if (at == std::end(kLevels)) {
    return InvalidArgument("--log-level {}: debug, info, warning or error is expected",
                           context.log_level);
  }
  log.level = at->second;
  ASSIGN_OR_RETURN(options.log, NewLogSink(log));
  return absl::OkStatus();
}

}  // namespace

int WithStore(const Context& context, OpenMode mode, Options options,
              absl::FunctionRef<int(DagStore&)> use) {
  if (context.repo.empty()) {
    return UsageError(
        "no repository is named: use --repo DIR, or set DAGSTORE_REPO (or HOME for ~/.dagstore)");
  }
  if (mode == OpenMode::kExisting) {
    const absl::Status marker = Io::Posix().Stat(context.repo + "/DAGSTORE").status();
    // A folder of something else is for the store to explain.
    if (absl::IsNotFound(marker) &&
        Io::Posix().List(context.repo).value_or(std::vector<std::string>()).empty()) {
      Complain(fmt::format(
          "no repository at {}: add a CAR with `dagstore add`, or choose another with --repo",
          context.repo));
      return kExitFailed;  // not kExitNotFound: that answers a question about a shard or a CID
    }
  }
  options.dir = context.repo;
  const MountSetup* mounts = Mounts(context);
  if (mounts == nullptr) return kExitFailed;
  mounts->config->ApplyTo(&options);
  options.mounts = mounts->registry;
  if (context.cache_bytes != UINT64_MAX) options.copies.bytes_max = context.cache_bytes;
  options.recover_on_start =
      RecoverOnStart::kNever;  // `dagstore recover` is how a person asks for it
  CommandSpan span;
  for (const absl::Status& status : {BeginLog(context, options), span.Begin(context, options)}) {
    if (!status.ok()) return UsageError(Message(status));
  }
  absl::StatusOr<std::unique_ptr<DagStore>> store = DagStore::Open(std::move(options));
  if (!store.ok()) {
    Fail(fmt::format("open repository {}", context.repo), store.status());
    return kExitFailed;
  }
  int code = use(**store);
  if (const absl::Status closed = (*store)->Close(); !closed.ok()) {
    Fail(fmt::format("close repository {}", context.repo), closed);
    code = Worse(code, kExitFailed);
  }
  span.End(code);
  span.Report();
  return code;
}

int WithStore(const Context& context, absl::FunctionRef<int(DagStore&)> use) {
  return WithStore(context, OpenMode::kExisting, Options(), use);
}

// ---- Interrupts ----

namespace {

CancelFlag g_interrupted;
mode_t g_umask = 022;

void OnSignal(int) { g_interrupted.Cancel(); }

}  // namespace

void SetUpProcess() {
  g_umask = umask(0);
  umask(g_umask);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one is not ours
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A reader that went away (`| head`) is an error of a write, so that the store is closed in
  // order.
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
}

const CancelFlag& Interrupted() { return g_interrupted; }

WorkContext InterruptibleWork() {
  WorkContext work;
  work.cancel = &g_interrupted;
  return work;
}

// ---- Output ----

namespace {

int g_output_error = 0;  // errno of the first write to stdout that failed

bool WriteStdout(std::string_view text) {
  if (g_output_error != 0) return false;
  if (fwrite(text.data(), 1, text.size(), stdout) != text.size()) g_output_error = errno;
  return g_output_error == 0;
}

}  // namespace

bool Print(std::string_view text) { return WriteStdout(text); }

bool PrintLine(const nlohmann::ordered_json& line) {
  // Keys are bytes and may be no UTF-8, which JSON cannot hold.
  return WriteStdout(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                     "\n");
}

int FinishOutput() {
  if (g_output_error == 0 && fflush(stdout) != 0) g_output_error = errno;
  if (g_output_error == 0) return kExitOk;
  if (g_output_error != EPIPE)
    Complain(fmt::format("write to stdout: {}", strerror(g_output_error)));
  return kExitFailed;
}

bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) == 1; }

size_t TextWidth(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

std::string PadRight(std::string_view text, size_t width) {
  std::string out(text);
  if (const size_t have = TextWidth(text); have < width) out.append(width - have, ' ');
  return out;
}

std::string Count(uint64_t n, std::string_view noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

std::string HumanBytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1023.95 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string TimeText(absl::Time time) {
  if (time == absl::UnixEpoch()) return "-";
  return std::string(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone()));
}

namespace {

// NotFound is about shards and CIDs, and has an exit code of its own; a folder that is missing has failed.
absl::Status OfOutput(const absl::Status& status) {
  return Recoded(status, absl::StatusCode::kNotFound, absl::StatusCode::kFailedPrecondition);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Output>> Output::Open(const std::string& path) {
  std::unique_ptr<Output> output(new Output());
  if (path.empty() || path == "-") return output;
  const absl::StatusOr<FileStat> there = Io::Posix().Stat(path);
  if (there.ok() && !there->is_regular) {
    return InvalidArgument("{} is not a regular file: redirect stdout to it instead of using -o",
                           path);
  }
  const size_t slash = path.rfind('/');
  output->path_ = path;
  output->dir_ = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  output->temp_path_ = fmt::format("{}.{}.tmp", path, getpid());
  absl::StatusOr<std::unique_ptr<WritableFile>> file = Io::Posix().Create(output->temp_path_);
  RETURN_IF_ERROR(OfOutput(file.status()));
  output->file_ = *std::move(file);
  for (const std::string& name : {output->path_, output->temp_path_}) {
    const absl::StatusOr<FileStat> file = Io::Posix().Stat(name, Follow::kNever);
    if (file.ok()) output->ours_.push_back(*file);
  }
  return output;
}

bool Output::IsOurs(const FileStat& file) const {
  return std::any_of(ours_.begin(), ours_.end(), [&](const FileStat& ours) {
    return ours.device == file.device && ours.inode == file.inode;
  });
}

Output::~Output() {
  if (file_ == nullptr) return;
  file_.reset();
  (void)Io::Posix().Remove(temp_path_);
}

absl::Status Output::Append(Span bytes) {
  bytes_ += bytes.size();
  if (file_ != nullptr) return file_->Append(bytes);
  // What a closed pipe means is said by FinishOutput, or not at all.
  return WriteStdout(AsText(bytes)) ? absl::OkStatus() : Cancelled("stdout is closed");
}

absl::Status Output::WriteAt(uint64_t offset, Span bytes) {
  if (file_ == nullptr) return FailedPrecondition("stdout cannot be written to at a place");
  return file_->WriteAt(offset, bytes);
}

absl::Status Output::Finish() {
  if (file_ == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Close());
  // The store's own files are for their owner alone; this one is the user's.
  if (chmod(temp_path_.c_str(), 0666 & ~g_umask) != 0)
    return OfOutput(ErrnoStatus(errno, fmt::format("chmod {}", temp_path_)));
  RETURN_IF_ERROR(OfOutput(Io::Posix().Rename(temp_path_, path_)));
  file_.reset();
  return OfOutput(Io::Posix().SyncDir(dir_));
}

// ---- Progress ----

namespace {

constexpr MonotonicNanos kRedraw = 100'000'000;  // 10 times a second is smooth and costs nothing

std::string ShortDuration(double seconds) {
  const auto s = static_cast<uint64_t>(std::llround(seconds));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

size_t TerminalColumns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Progress::Progress(const Context& context, std::string verb)
    : enabled_(!context.quiet && isatty(STDERR_FILENO) == 1),
      verb_(std::move(verb)),
      started_(Clock::Real().Now()) {}

void Progress::Update(uint64_t done, uint64_t total, std::string_view unit, uint64_t bytes_done,
                      uint64_t bytes_total) {
  if (!enabled_) return;
  const MonotonicNanos now = Clock::Real().Now();
  if (now - std::max(drawn_, started_) < kRedraw) return;
  drawn_ = now;
  visible_ = true;

  const double share = std::min(
      1.0, bytes_total != 0 ? static_cast<double>(bytes_done) / static_cast<double>(bytes_total)
           : total != 0     ? static_cast<double>(done) / static_cast<double>(total)
                            : 0.0);
  const double seconds = static_cast<double>(now - started_) / 1e9;
  std::string tail = fmt::format(" {:3.0f}%", share * 100);
  if (total != 0) tail += fmt::format("  {}/{} {}", done, total, unit);
  if (bytes_done != 0) {
    tail +=
        fmt::format("  {}{}  {}/s", HumanBytes(bytes_done),
                    bytes_total != 0 ? " of " + HumanBytes(bytes_total) : "",
                    HumanBytes(static_cast<uint64_t>(static_cast<double>(bytes_done) / seconds)));
  }
  if (share > 0.01 && share < 1)
    tail += fmt::format("  ETA {}", ShortDuration(seconds / share * (1 - share)));

  constexpr size_t kBarMax = 30;
  const size_t columns = TerminalColumns();
  const size_t used = verb_.size() + tail.size() + 4;
  const size_t bar = used + 5 < columns ? std::min(kBarMax, columns - used) : 0;
  std::string line = verb_ + " ";
  if (bar != 0) {
    const auto full = static_cast<size_t>(share * static_cast<double>(bar));
    line += "[" + std::string(full, '#') + std::string(bar - full, '.') + "]";
  }
  line += tail;
  if (line.size() >= columns) line.resize(columns - 1);
  fmt::print(stderr, "\r{}\x1b[K", line);
  (void)fflush(stderr);
}

void Progress::Clear() {
  if (!visible_) return;
  visible_ = false;
  fmt::print(stderr, "\r\x1b[K");
  (void)fflush(stderr);
}

}  // namespace dagstore::cli
