// Time. Logic uses the monotonic clock only; the wall clock is for people.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <limits>

namespace dagstore {

// An instant of the monotonic clock, in nanoseconds from an origin that means nothing.
using MonotonicNanos = int64_t;

// Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicNanos Now() const = 0;
  virtual absl::Time WallNow() const = 0;

  static const Clock& Real();
};

// When an operation stops being useful. A value; arithmetic saturates.
class Deadline {
 public:
  constexpr Deadline() = default;  // infinite
  static constexpr Deadline Infinite() { return Deadline(); }
  static constexpr Deadline At(MonotonicNanos at) { return Deadline(at); }
  static Deadline After(const Clock& clock, absl::Duration budget);

  constexpr bool IsInfinite() const { return at_ == kInfinite; }
  constexpr MonotonicNanos at() const { return at_; }
  bool Passed(MonotonicNanos now) const { return !IsInfinite() && now >= at_; }
  // The form that crosses wires: time left, never an instant. Zero if passed.
  absl::Duration Remaining(MonotonicNanos now) const;
  constexpr Deadline Min(Deadline other) const { return at_ < other.at_ ? *this : other; }
  constexpr Deadline Max(Deadline other) const { return at_ < other.at_ ? other : *this; }

  friend constexpr auto operator<=>(Deadline, Deadline) = default;

 private:
  static constexpr MonotonicNanos kInfinite = std::numeric_limits<MonotonicNanos>::max();
  explicit constexpr Deadline(MonotonicNanos at) : at_(at) {}
  MonotonicNanos at_ = kInfinite;
};

}  // namespace dagstore
