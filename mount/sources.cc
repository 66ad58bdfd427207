#include "mount/sources.h"

#include <algorithm>
#include <utility>

#include "base/http.h"
#include "base/siphash.h"
#include "base/splitmix.h"

namespace dagstore {
namespace {

// Bytes may run ahead of the cap by so much, so that a fast link is not cut into tiny pieces.
constexpr MonotonicNanos kBurst = 100'000'000;
// Servers close a connection that was idle for longer, as does the client.
constexpr MonotonicNanos kConnectionKept = 60'000'000'000;
constexpr size_t kHostsKeptMax = 4096;

std::string HostOf(const Url& url) { return url.scheme + "://" + url.host + ":" + url.port; }

}  // namespace

bool IsWorthRetrying(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

Sources::Sources(const SourceLimits& limits, Io& io, const Clock& clock, uint64_t seed)
    : limits_(limits), clock_(clock), changed_(io.NewWaitPoint()), random_(seed) {}

Sources::Permit::Permit(Permit&& other) noexcept
    : sources_(std::exchange(other.sources_, nullptr)), host_(std::move(other.host_)) {}

Sources::Permit& Sources::Permit::operator=(Permit&& other) noexcept {
  if (this == &other) return *this;
  Release();
  sources_ = std::exchange(other.sources_, nullptr);
  host_ = std::move(other.host_);
  return *this;
}

void Sources::Permit::Release() {
  if (sources_ != nullptr) std::exchange(sources_, nullptr)->End(host_);
}

absl::StatusOr<Sources::Permit> Sources::Begin(const Url& url, const WorkContext& work) {
  std::string host = HostOf(url);
  const Deadline turn = Deadline::After(clock_, limits_.turn_wait_max);
  const MutexLock lock(mu_);
  const auto may_begin = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {  // it is held
    const auto of_host = running_by_host_.find(host);
    return running_ < limits_.requests_max &&
           (of_host == running_by_host_.end() || of_host->second < limits_.requests_per_host_max);
  };
  bool late = false;
  absl::Status waited = work.Check();
  if (waited.ok() && !may_begin()) {
    const LongWait wait(work.stand_ins);
    ++waiting_;
    waited = WaitUntil(*changed_, mu_, work, [&] {
      late = turn.Passed(clock_.Now());
      return late || may_begin();
    });
    --waiting_;
  }
  RETURN_IF_ERROR(waited);
  if (late) {
    return ResourceExhausted("no request to {} could begin within {}: {} run, the limits are {} and {} to a host", host,
                             absl::FormatDuration(limits_.turn_wait_max), running_, limits_.requests_max,
                             limits_.requests_per_host_max);
  }
  return Take(std::move(host));
}

Sources::Permit Sources::Take(std::string host) {
  ++running_;
  ++running_by_host_[host];
  ++stats_.requests;
  return Permit(this, std::move(host));
}

std::optional<Sources::Permit> Sources::TryBegin(const Url& url) {
  std::string host = HostOf(url);
  const MutexLock lock(mu_);
  const auto of_host = running_by_host_.find(host);
  const size_t running_there = of_host == running_by_host_.end() ? 0 : of_host->second;
  if (running_ >= limits_.requests_max / 2 || running_there >= limits_.requests_per_host_max / 2) return std::nullopt;
  return Take(std::move(host));
}

bool Sources::FirstInAWhile(const Url& url) {
  const std::string host = HostOf(url);
  const MonotonicNanos now = clock_.Now();
  const MutexLock lock(mu_);
  if (used_by_host_.size() >= kHostsKeptMax) used_by_host_.clear();
  const auto [it, fresh] = used_by_host_.try_emplace(host, now);
  const bool first = fresh || now - it->second > kConnectionKept;
  it->second = now;
  return first && !running_by_host_.contains(host);
}

void Sources::End(const std::string& host) {
  {
    const MutexLock lock(mu_);
    if (const auto used = used_by_host_.find(host); used != used_by_host_.end()) used->second = clock_.Now();
    --running_;
    const auto it = running_by_host_.find(host);
    if (--it->second == 0) running_by_host_.erase(it);
  }
  changed_->NotifyAll();
}

absl::Status Sources::Received(uint64_t bytes, const WorkContext& work) {
  const MutexLock lock(mu_);
  stats_.bytes += bytes;
  if (limits_.bytes_per_second_max == 0) return absl::OkStatus();
  const MonotonicNanos now = clock_.Now();
  bytes_due_ = std::max(bytes_due_, now - kBurst) +
               static_cast<MonotonicNanos>(static_cast<double>(bytes) * 1e9 /
                                           static_cast<double>(limits_.bytes_per_second_max));
  return SleepUntil(bytes_due_, work);
}

absl::Status Sources::SleepUntil(MonotonicNanos until, const WorkContext& work) {
  if (clock_.Now() >= until) return absl::OkStatus();
  const LongWait wait(work.stand_ins);
  while (clock_.Now() < until) {
    RETURN_IF_ERROR(work.Check());
    changed_->Wait(mu_, std::min<absl::Duration>(kWaitSlice, absl::Nanoseconds(until - clock_.Now())));
  }
  return absl::OkStatus();
}

absl::Duration Sources::Backoff(int repetition, const absl::Status& error) {
  absl::Duration pause = limits_.backoff_min;
  for (int i = 1; i < repetition && pause < limits_.backoff_max; ++i) pause *= 2;
  pause = std::min(pause, limits_.backoff_max);
  // Between half and one and a half: those who failed together do not come back together.
  pause *= 0.5 + static_cast<double>(NextSplitMix(random_) >> 11) / 9007199254740992.0;
  return std::max(pause, std::min(RetryAfterOf(error, clock_.WallNow()), limits_.retry_after_max));
}

absl::Status Sources::Pause(int attempt, const absl::Status& error, const WorkContext& work) {
  if (attempt > limits_.attempts_max || !IsWorthRetrying(error)) return error;
  RETURN_IF_ERROR(work.Check());
  const MutexLock lock(mu_);
  ++stats_.retries;
  return SleepUntil(clock_.Now() + absl::ToInt64Nanoseconds(Backoff(attempt - 1, error)), work);
}

void Sources::Report(const Url& url, const absl::Status& status) {
  const bool of_ours = absl::IsCancelled(status) || absl::IsResourceExhausted(status);
  if (of_ours) return;
  const uint64_t id = IdOf(url);
  const MutexLock lock(mu_);
  if (status.ok()) {
    if (failures_.erase(id) != 0) failures_order_.erase(std::find(failures_order_.begin(), failures_order_.end(), id));
    return;
  }
  if (!failures_.contains(id)) {
    if (limits_.failures_kept_max == 0) return;
    if (failures_.size() >= limits_.failures_kept_max) {
      failures_.erase(failures_order_.front());
      failures_order_.pop_front();
    }
    failures_order_.push_back(id);
  }
  SourceFailure& failure = failures_[id];
  ++failure.failures;
  failure.last_error = status;
  failure.last = clock_.WallNow();
  failure.next_try =
      failure.last + Backoff(static_cast<int>(std::min<uint64_t>(failure.failures, 64)), status);
}

SourceFailure Sources::FailureOf(const Url& url) const {
  const MutexLock lock(mu_);
  const auto it = failures_.find(IdOf(url));
  return it == failures_.end() ? SourceFailure() : it->second;
}

bool Sources::Resting(const Url& url) const {
  const SourceFailure failure = FailureOf(url);
  return failure.failures != 0 && clock_.WallNow() < failure.next_try;
}

SourceStats Sources::Stats() const {
  const MutexLock lock(mu_);
  SourceStats stats = stats_;
  stats.requests_running = running_;
  stats.requests_waiting = waiting_;
  stats.locations_failed = failures_.size();
  return stats;
}

uint64_t Sources::IdOf(const Url& url) {
  constexpr SipKey kKey = {'d', 'a', 'g', 's', 't', 'o', 'r', 'e', ' ', 's', 'o', 'u', 'r', 'c', 'e', '1'};
  return SipHash(kKey, AsSpan(url.Encoded()));
}

}  // namespace dagstore
