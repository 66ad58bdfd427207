#include "base/clock.h"

#include <absl/time/clock.h>

#include <ctime>

namespace dagstore {
namespace {

class SystemClock final : public Clock {
 public:
  MonotonicNanos Now() const override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  }
  absl::Time WallNow() const override { return absl::Now(); }
};

}  // namespace

const Clock& Clock::Real() {
  static const SystemClock clock;
  return clock;
}

Deadline Deadline::After(const Clock& clock, absl::Duration budget) {
  if (budget == absl::InfiniteDuration()) return Infinite();
  const MonotonicNanos now = clock.Now();
  const int64_t nanos = absl::ToInt64Nanoseconds(budget);
  return nanos > kInfinite - 1 - now ? At(kInfinite - 1) : At(now + nanos);
}

absl::Duration Deadline::Remaining(MonotonicNanos now) const {
  if (IsInfinite()) return absl::InfiniteDuration();
  return at_ <= now ? absl::ZeroDuration() : absl::Nanoseconds(at_ - now);
}

}  // namespace dagstore
