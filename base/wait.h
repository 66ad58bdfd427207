// WaitPoint: where work waits for other work (a flight that somebody else began, space that somebody must free, a pause
// before the next attempt). Made by Io::NewWaitPoint, so that the simulator puts its own in: nothing else of jobs may
// block a thread.
#pragma once

#include <absl/time/time.h>

#include <memory>

#include "base/mutex.h"
#include "base/reader.h"

namespace dagstore {

// Any thread. Belongs to one mutex of the caller's.
class WaitPoint {
 public:
  virtual ~WaitPoint() = default;
  // Gives up `mu`, waits until NotifyAll or for `at_most`, and takes it again. May return early: look again.
  virtual void Wait(Mutex& mu, absl::Duration at_most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) = 0;
  virtual void NotifyAll() = 0;

  static std::unique_ptr<WaitPoint> Real();
};

// A job looks at its cancel flag at least so often while it waits.
inline constexpr absl::Duration kWaitSlice = absl::Milliseconds(20);

// Whoever lends a thread to work that may wait long: for room, for its turn, for a network. Meanwhile another one takes
// its place, so that what is queued behind does not wait with it. Any thread.
class StandIns {
 public:
  virtual ~StandIns() = default;
  virtual void BeginWait() = 0;
  virtual void EndWait() = 0;
};

// A long wait, as long as this object. None in another.
class LongWait {
 public:
  explicit LongWait(StandIns* stand_ins) : stand_ins_(stand_ins) {
    if (stand_ins_ != nullptr) stand_ins_->BeginWait();
  }
  ~LongWait() {
    if (stand_ins_ != nullptr) stand_ins_->EndWait();
  }
  LongWait(const LongWait&) = delete;

 private:
  StandIns* const stand_ins_;
};

// Waits until `done()`, which is called with `mu` held. OK, or what work.Check() says.
template <typename Done>
absl::Status WaitUntil(WaitPoint& point, Mutex& mu, const WorkContext& work, Done done)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
  while (!done()) {
    if (absl::Status status = work.Check(); !status.ok()) return status;
    const bool asked = work.cancel != nullptr || !work.deadline.IsInfinite();
    point.Wait(mu, asked ? kWaitSlice : absl::Seconds(1));
  }
  return absl::OkStatus();
}

}  // namespace dagstore
