#include "base/clock.h"

#include <limits>

#include "tests/fakes/fake_clock.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("clock: the real one never goes back") {
  MonotonicNanos last = Clock::Real().Now();
  for (int i = 0; i < 1000; ++i) {
    const MonotonicNanos now = Clock::Real().Now();
    CHECK_GE(now, last);
    last = now;
  }
  CHECK_GT(Clock::Real().WallNow(), absl::FromUnixSeconds(1'600'000'000));
}

TEST_CASE("deadline: the default never passes and is after all others") {
  const Deadline never;
  CHECK(never.IsInfinite());
  CHECK_EQ(never, Deadline::Infinite());
  CHECK_FALSE(never.Passed(std::numeric_limits<MonotonicNanos>::max()));
  CHECK_EQ(never.Remaining(5), absl::InfiniteDuration());
  CHECK_LT(Deadline::At(std::numeric_limits<MonotonicNanos>::max() - 1), never);
}

TEST_CASE("deadline: passes at its instant, not before") {
  const FakeClock clock;
  const MonotonicNanos now = clock.Now();
  const Deadline deadline = Deadline::After(clock, absl::Nanoseconds(10));
  CHECK_FALSE(deadline.Passed(now + 9));
  CHECK_EQ(deadline.Remaining(now + 9), absl::Nanoseconds(1));
  CHECK(deadline.Passed(now + 10));
  CHECK_EQ(deadline.Remaining(now + 10), absl::ZeroDuration());
  CHECK_EQ(deadline.Remaining(now + 99), absl::ZeroDuration());
}

TEST_CASE("deadline: a budget beyond the clock's range saturates below infinity") {
  const FakeClock clock;
  CHECK(Deadline::After(clock, absl::InfiniteDuration()).IsInfinite());
  for (const absl::Duration budget :
       {absl::Hours(24) * 365 * 1000, absl::Nanoseconds(std::numeric_limits<int64_t>::max())}) {
    const Deadline deadline = Deadline::After(clock, budget);
    CHECK_FALSE(deadline.IsInfinite());
    CHECK_FALSE(deadline.Passed(clock.Now()));
    CHECK_GT(deadline, Deadline::At(clock.Now()));
  }
  CHECK(Deadline::After(clock, absl::Seconds(-1)).Passed(clock.Now()));
  CHECK(Deadline::After(clock, -absl::InfiniteDuration()).Passed(clock.Now()));
}

TEST_CASE("deadline: min and max pick by instant") {
  const Deadline early = Deadline::At(1), late = Deadline::At(2), never;
  CHECK_EQ(early.Min(late), early);
  CHECK_EQ(late.Min(early), early);
  CHECK_EQ(early.Max(late), late);
  CHECK_EQ(late.Max(early), late);
  CHECK_EQ(never.Min(late), late);
  CHECK_EQ(late.Max(never), never);
}

}  // namespace
}  // namespace dagstore
