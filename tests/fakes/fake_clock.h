// FakeClock: time that moves when the test says so. Any thread.
#pragma once

#include <absl/time/time.h>

#include <atomic>

#include "base/check.h"
#include "base/clock.h"

namespace dagstore {

class FakeClock final : public Clock {
 public:
  MonotonicNanos Now() const override { return now_.load(std::memory_order_acquire); }
  absl::Time WallNow() const override {
    return absl::FromUnixNanos(wall_offset_.load(std::memory_order_acquire) + Now());
  }

  // Both clocks go on together, as they do while nobody sets them.
  void Advance(absl::Duration by) {
    DAGSTORE_CHECK(by >= absl::ZeroDuration());
    now_.fetch_add(absl::ToInt64Nanoseconds(by), std::memory_order_acq_rel);
  }
  // Somebody sets the wall clock, also backwards. The monotonic clock does not notice.
  void SetWall(absl::Time wall) {
    wall_offset_.store(absl::ToUnixNanos(wall) - Now(), std::memory_order_release);
  }

 private:
  std::atomic<MonotonicNanos> now_{1'000'000'000};                   // not zero: zero would hide uninitialised instants
  std::atomic<int64_t> wall_offset_{1'700'000'000'000'000'000};  // 2023-11-14
};

}  // namespace dagstore
