// JobControl: what a running job and the loop share, and all they share: the stop flag, how far the job is, and until
// when anybody wants it. Atomics, by themselves; no lock and no callback between the two.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/reader.h"

namespace dagstore {

// A job and the loop hold it together; both may be gone before the other. Any thread.
struct JobControl {
  CancelFlag cancel;
  Progress progress;

  // The latest deadline of all who want the job: what an outbound request of it inherits when it is sent. It only
  // rises while the job runs (a later joiner may want more); a transport that has told its peer less sends an update.
  Deadline deadline() const { return Deadline::At(deadline_.load(std::memory_order_relaxed)); }
  void SetDeadline(Deadline deadline) { deadline_.store(deadline.at(), std::memory_order_relaxed); }

 private:
  std::atomic<MonotonicNanos> deadline_{Deadline::Infinite().at()};
};

}  // namespace dagstore
