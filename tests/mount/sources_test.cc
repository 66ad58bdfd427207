#include "mount/sources.h"

#include <thread>

#include "base/http.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_io.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// Time that passes only in waits.
class TimeIo final : public Io {
 public:
  explicit TimeIo(FakeClock& clock) : clock_(clock) {}
  std::unique_ptr<WaitPoint> NewWaitPoint() override {
    class Point final : public WaitPoint {
     public:
      explicit Point(FakeClock& clock) : clock_(clock) {}
      void Wait(Mutex&, absl::Duration at_most) override { clock_.Advance(at_most); }
      void NotifyAll() override {}

     private:
      FakeClock& clock_;
    };
    return std::make_unique<Point>(clock_);
  }
  static absl::Status No() { return Unimplemented("only waits"); }
  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string&, Follow) override { return No(); }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string&) override { return No(); }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string&) override { return No(); }
  absl::StatusOr<FileStat> Stat(const std::string&, Follow) override { return No(); }
  absl::Status Rename(const std::string&, const std::string&) override { return No(); }
  absl::Status Remove(const std::string&) override { return No(); }
  absl::Status MakeDir(const std::string&) override { return No(); }
  absl::Status SyncDir(const std::string&) override { return No(); }
  absl::StatusOr<std::vector<std::string>> List(const std::string&) override { return No(); }

 private:
  FakeClock& clock_;
};

Url UrlOf(const std::string& text) { return ValueOf(Url::Parse(text)); }

TEST_CASE("sources: attempts are as many as the limit says, with pauses that double, and only for what may pass") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.attempts_max = 4;
  Sources sources(limits, io, clock, 1);
  const absl::Status down = Unavailable("503");
  absl::Duration expected = limits.backoff_min;
  for (int attempt = 2; attempt <= 4; ++attempt) {
    const MonotonicNanos before = clock.Now();
    REQUIRE_STATUS_OK(sources.Pause(attempt, down, {}));
    const absl::Duration took = absl::Nanoseconds(clock.Now() - before);
    CHECK(took >= expected / 2);
    CHECK(took <= expected * 3 / 2 + kWaitSlice);
    expected *= 2;
  }
  CHECK(sources.Pause(5, down, {}) == down);
  for (const absl::Status& never : {NotFound("404"), FailedPrecondition("changed"), DataLoss("bad"),
                                    ResourceExhausted("EMFILE"), Cancelled("stop")}) {
    const MonotonicNanos before = clock.Now();
    CHECK(sources.Pause(2, never, {}) == never);
    CHECK_EQ(clock.Now(), before);
  }
  CHECK_EQ(sources.Stats().retries, 3);
  CancelFlag stop;
  stop.Cancel();
  CHECK_CODE(sources.Pause(2, down, {.cancel = &stop}), kCancelled);
}

// A 503 with this Retry-After.
absl::Status Busy(const std::string& retry_after) {
  class Answer final : public HttpResponse {
   public:
    explicit Answer(const std::string& retry_after) : headers_({{"retry-after", retry_after}}) {}
    absl::StatusOr<size_t> Next(size_t, uint8_t*) override { return size_t{0}; }
    int status() const override { return 503; }
    const HttpHeaders& headers() const override { return headers_; }
    const HttpUrl& url() const override { return url_; }

   private:
    const HttpHeaders headers_;
    const HttpUrl url_ = ValueOf(HttpUrl::Parse("http://h/"));
  };
  return HttpError(Answer(retry_after));
}

TEST_CASE("sources: a server that asks for a longer pause gets it, up to a limit") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.retry_after_max = absl::Seconds(60);
  Sources sources(limits, io, clock, 1);
  const auto pause = [&](const absl::Status& error) {
    const MonotonicNanos before = clock.Now();
    CHECK_STATUS_OK(sources.Pause(2, error, {}));
    return absl::Nanoseconds(clock.Now() - before);
  };
  CHECK(pause(Busy("20")) >= absl::Seconds(20));
  CHECK(pause(Busy("20")) <= absl::Seconds(20) + kWaitSlice);
  CHECK(pause(Busy("7200")) >= absl::Seconds(60));
  CHECK(pause(Busy("7200")) <= absl::Seconds(60) + kWaitSlice);
  CHECK(pause(Busy("0")) <= limits.backoff_min * 3 / 2 + kWaitSlice);
  // Others are asked first for as long.
  const Url url = UrlOf("http://h/a.car");
  sources.Report(url, Busy("20"));
  CHECK(sources.Resting(url));
  clock.Advance(absl::Seconds(19));
  CHECK(sources.Resting(url));
  clock.Advance(absl::Seconds(2));
  CHECK_FALSE(sources.Resting(url));
}

TEST_CASE("sources: what nobody needs takes no more than half of the places, and a host is new once a minute") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.requests_max = 100;
  limits.requests_per_host_max = 4;
  Sources sources(limits, io, clock, 1);
  const Url url = UrlOf("http://h/a.car"), other = UrlOf("http://h/b.car");
  CHECK(sources.FirstInAWhile(url));
  CHECK_FALSE(sources.FirstInAWhile(other));
  std::optional<Sources::Permit> first = sources.TryBegin(url), second = sources.TryBegin(other);
  CHECK(first.has_value());
  CHECK(second.has_value());
  CHECK_FALSE(sources.TryBegin(url).has_value());
  CHECK(sources.TryBegin(UrlOf("http://elsewhere/")).has_value());
  CHECK_STATUS_OK(sources.Begin(url, {}).status());  // who needs it gets the rest
  clock.Advance(absl::Minutes(2));
  CHECK_FALSE(sources.FirstInAWhile(url));  // they run still
  clock.Advance(absl::Minutes(2));
  first.reset();
  second.reset();
  CHECK_FALSE(sources.FirstInAWhile(url));
  clock.Advance(absl::Minutes(2));
  CHECK(sources.FirstInAWhile(url));
}

// Defect 43: limits defaulted to none.
TEST_CASE("sources: no more requests run than the limits say, to one host and in all, and a stop leaves the line") {
  FakeIo io;
  SourceLimits limits;
  limits.requests_max = 3;
  limits.requests_per_host_max = 2;
  Sources sources(limits, io, Clock::Real(), 1);
  Sources::Permit a1 = ValueOf(sources.Begin(UrlOf("http://a/x"), {}));
  Sources::Permit a2 = ValueOf(sources.Begin(UrlOf("http://a/y"), {}));
  CancelFlag stop;
  stop.Cancel();
  CHECK_CODE(sources.Begin(UrlOf("http://a/z"), {.cancel = &stop}), kCancelled);
  Sources::Permit b = ValueOf(sources.Begin(UrlOf("http://b/x"), {}));
  CHECK_CODE(sources.Begin(UrlOf("http://c/x"), {.cancel = &stop}), kCancelled);
  std::thread waits([&] { CHECK_STATUS_OK(sources.Begin(UrlOf("http://a/z"), {})); });
  while (sources.Stats().requests_waiting != 1) std::this_thread::yield();
  a1.Release();
  waits.join();
  CHECK_EQ(sources.Stats().requests_running, 2);
}

TEST_CASE("sources: a wait for a turn ends with ResourceExhausted, which changes nothing durable") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.requests_max = 1;
  Sources sources(limits, io, clock, 1);
  const Sources::Permit one = ValueOf(sources.Begin(UrlOf("http://a/x"), {}));
  CHECK_CODE(sources.Begin(UrlOf("http://b/x"), {}), kResourceExhausted);
  CHECK(clock.Now() >= absl::ToInt64Nanoseconds(limits.turn_wait_max));
}

TEST_CASE("sources: bytes come no faster than the cap") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.bytes_per_second_max = 1 << 20;
  Sources sources(limits, io, clock, 1);
  const MonotonicNanos before = clock.Now();
  for (int i = 0; i < 100; ++i) REQUIRE_STATUS_OK(sources.Received(100 << 10, {}));
  const double seconds = static_cast<double>(clock.Now() - before) / 1e9;
  CHECK_GE(seconds, 9.6);
  CHECK_LE(seconds, 10.0);
}

TEST_CASE("sources: a failed location is remembered until it serves, and rests meanwhile") {
  FakeClock clock;
  TimeIo io(clock);
  SourceLimits limits;
  limits.failures_kept_max = 2;
  Sources sources(limits, io, clock, 1);
  const Url a = UrlOf("http://a/x"), b = UrlOf("http://b/x"), c = UrlOf("http://c/x");
  sources.Report(a, Unavailable("503"));
  sources.Report(a, Unavailable("504"));
  CHECK_EQ(sources.FailureOf(a).failures, 2);
  CHECK_EQ(Message(sources.FailureOf(a).last_error), "504");
  CHECK(sources.FailureOf(a).next_try > clock.WallNow());
  CHECK(sources.Resting(a));
  clock.Advance(limits.backoff_max * 2);
  CHECK_FALSE(sources.Resting(a));
  sources.Report(a, Cancelled("stop"));
  sources.Report(a, ResourceExhausted("EMFILE"));
  CHECK_EQ(sources.FailureOf(a).failures, 2);
  sources.Report(b, NotFound("404"));
  sources.Report(c, NotFound("404"));  // the oldest is forgotten
  CHECK_EQ(sources.FailureOf(a).failures, 0);
  CHECK_EQ(sources.Stats().locations_failed, 2);
  sources.Report(b, absl::OkStatus());
  CHECK_EQ(sources.FailureOf(b).failures, 0);
  CHECK_FALSE(sources.Resting(b));
}

}  // namespace
}  // namespace dagstore
