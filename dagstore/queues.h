// TaskQueues: how other threads reach the loop. Two of the three queues: completions (jobs, commits, releases) and
// external requests; the third, internal, belongs to the engine alone.
//
// Threads: Push* any; Take the loop. One lock, held for a vector push or swap; one wake-up for many posts.
// The queues outlive the store: an accessor released after Close finds them closed, and nothing happens.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/any_invocable.h>

#include <atomic>
#include <functional>
#include <iterator>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "dagstore/job.h"
#include "dagstore/result.h"
#include "dagstore/span.h"

namespace dagstore {

class Engine;

// Where the answer of a request goes, and what is told about the request on the way. Move-only.
struct Reply {
  Channel<ShardResult>::Slot slot = {};
  std::unique_ptr<SpanRecord> trace = {};  // of the request; null unless it is sampled
  MonotonicNanos asked = 0;                // when it was accepted; 0: its time is not measured
  ShardOp op = ShardOp::kInitialize;       // which nobody outside asks for: an answer that is counted as "other"

  Reply() = default;
  Reply(Channel<ShardResult>::Slot to) : slot(std::move(to)) {}  // NOLINT: a slot is a reply that nobody measures
  bool empty() const { return slot.empty(); }
};

// A request from outside.
struct Request {
  ShardOp op = ShardOp::kAcquire;
  bool stop = false;  // not an op: end the ticket in `meta`
  bool begins_nothing = false;  // Destroy: to hear of the end of one that is under way
  ShardKey key = {};
  TaskMeta meta;
  Reply reply = {};
  std::unique_ptr<ShardRecord> registration = {};          // Register
  absl::AnyInvocable<void(Engine&)> inspect = nullptr;      // a look at the loop's state; then op and key mean nothing

  explicit Request(const TaskMeta& task_meta) : meta(task_meta) {}
};

// "dagstore.acquire"; the name of the span of such a request.
const char* RequestSpanName(ShardOp op);
// The request is sampled: its span begins now. Its meta, op and key are set.
void BeginSpan(Request& request, const SpanContext& parent, MonotonicNanos now,
               std::shared_ptr<const std::string> tracestate = nullptr);

struct Completion {
  enum class Kind : uint8_t { kJob, kCommit, kRelease, kDamage };
  Kind kind = Kind::kJob;
  JobKind job = JobKind::kInitialize;
  Damage damage = Damage::kBlock;     // Damage
  uint32_t slot = 0;
  uint32_t incarnation = 0;
  uint32_t generation = 0;
  uint64_t job_id = 0;
  uint32_t ordinal = 0;               // Job: of the index it was given. Damage: of the index that was read
  uint64_t sequence = 0;              // Commit
  absl::Status status = absl::OkStatus();    // Commit, Damage
  std::unique_ptr<JobResult> result = {};    // Job
  TaskMeta meta;

  explicit Completion(const TaskMeta& task_meta) : meta(task_meta) {}
};
// What is queued says whose it is: without a meta it does not compile.
static_assert(!std::is_default_constructible_v<Request> && !std::is_default_constructible_v<Completion> &&
              !std::is_default_constructible_v<JobSpec>);

// What the loop has taken and not yet run, oldest first. Loop thread.
template <typename T>
class Inbox {
 public:
  bool empty() const { return next_ == items_.size(); }
  size_t size() const { return items_.size() - next_; }
  const T& operator[](size_t i) const { return items_[next_ + i]; }
  auto begin() const { return items_.begin() + static_cast<std::ptrdiff_t>(next_); }
  auto end() const { return items_.end(); }
  T Pop() { return std::move(items_[next_++]); }
  void clear() {
    items_.clear();
    next_ = 0;
  }
  // Takes everything out of `from`: a swap, unless something is left here.
  void Take(std::vector<T>& from) {
    if (empty()) {
      clear();
      items_.swap(from);
    } else {
      std::move(from.begin(), from.end(), std::back_inserter(items_));
      from.clear();
    }
  }

 private:
  std::vector<T> items_;
  size_t next_ = 0;
};

class TaskQueues {
 public:
  explicit TaskQueues(size_t requests_max) : requests_max_(requests_max) {}

  // Called when the loop may be asleep and there is work. Set before any push; must be callable from any thread.
  void SetWaker(std::function<void()> wake) {
    MutexLock lock(mu_);
    wake_ = std::move(wake);
  }

  // Any thread. ResourceExhausted if Options::requests_max are waiting, FailedPrecondition after Close.
  // `woke`, if given: the loop was asleep and is being woken, so an answer is not to be expected at once.
  absl::Status PushRequest(Request request, bool* woke = nullptr);
  // Any thread. Bounded by what is under way: jobs, commits, accessors.
  void PushJobDone(const JobSpec& job, std::unique_ptr<JobResult> result);
  void PushCommitDone(uint64_t sequence, absl::Status status);
  // `meta`: of what the reader was opened for.
  void PushRelease(const TaskMeta& meta, uint32_t slot, uint32_t incarnation);
  void PushDamage(const TaskMeta& meta, uint32_t slot, uint32_t incarnation, uint32_t ordinal, absl::Status status,
                  Damage damage);

  // Loop thread. Moves what waits to the end of the given lists; requests only if the loop has none left, so that a
  // busy loop pushes back at the door instead of piling them up.
  // Adds to `stops` the tickets of the stops among the requests taken, so that work that is stopped need not begin.
  void Take(Inbox<Completion>& completions, Inbox<Request>& requests, std::vector<TicketId>& stops);
  // Any thread. True if Take would find something; may lag behind a push for a moment. Empty() does not.
  bool HasWork() const { return has_work_.load(std::memory_order_acquire); }

  bool Empty();

  // Loop thread, before it sleeps. False if there is work after all; then it must not sleep.
  bool PrepareSleep();
  void Awake() { asleep_.store(false, std::memory_order_seq_cst); }

  // Any thread. `last` is the last request, whatever the limit; then no more, but releases and completions still count.
  void CloseDoor(Request last);
  // Loop thread, at its end. Everything pushed later is dropped.
  void Shut();

 private:
  void PushCompletion(Completion completion);
  // True if the loop was asleep.
  bool Wake() ABSL_LOCKS_EXCLUDED(mu_);

  const size_t requests_max_;
  // Apart from what is written under the lock: the loop looks at the first all the time, pushers at the second.
  alignas(64) std::atomic<bool> has_work_{false};
  alignas(64) std::atomic<bool> asleep_{false};
  // What every push and every take needs is one line with the lock: lines that move from core to core are what a round
  // trip costs.
  alignas(64) Mutex mu_;
  std::vector<Completion> completions_ ABSL_GUARDED_BY(mu_);
  std::vector<Request> requests_ ABSL_GUARDED_BY(mu_);
  bool door_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool shut_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<TicketId> stops_ ABSL_GUARDED_BY(mu_);  // among requests_
  std::function<void()> wake_ ABSL_GUARDED_BY(mu_);
};

}  // namespace dagstore
