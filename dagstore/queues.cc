#include "dagstore/queues.h"

#include "base/mutant.h"

namespace dagstore {

const char* RequestSpanName(ShardOp op) {
  switch (op) {
    case ShardOp::kRegister:
      return "dagstore.register";
    case ShardOp::kAcquire:
      return "dagstore.acquire";
    case ShardOp::kRecover:
      return "dagstore.recover";
    case ShardOp::kCollect:
      return "dagstore.collect";
    case ShardOp::kDestroy:
      return "dagstore.destroy";
    default:
      return "dagstore.other";  // nobody outside asks for it
  }
}

void BeginSpan(Request& request, const SpanContext& parent, MonotonicNanos now,
               std::shared_ptr<const std::string> tracestate) {
  request.reply.asked = now;
  request.reply.trace = std::make_unique<SpanRecord>(RequestSpanName(request.op), request.meta.span, parent, now);
  request.reply.trace->tracestate = std::move(tracestate);
  request.reply.trace->AddText("dagstore.shard.key", request.key.bytes());
}

absl::Status TaskQueues::PushRequest(Request request, bool* woke) {
  {
    MutexLock lock(mu_);
    if (door_closed_ && !Mutant(kMutantDoorStaysOpen)) return FailedPrecondition("the store is closed");
    // A stop finds room where a request does not: it is what makes room.
    const size_t most = request.stop ? 2 * requests_max_ : requests_max_;
    if (requests_.size() >= most && !Mutant(kMutantRequestsUnbounded)) {
      return ResourceExhausted("{} requests are waiting already", requests_max_);
    }
    if (request.stop) stops_.push_back(request.meta.ticket);
    requests_.push_back(std::move(request));
  }
  has_work_.store(true, std::memory_order_release);  // after the lock is free: the loop takes it at once
  const bool was_asleep = Wake();
  if (woke != nullptr) *woke = was_asleep;
  return absl::OkStatus();
}

void TaskQueues::PushCompletion(Completion completion) {
  {
    MutexLock lock(mu_);
    if (shut_) return;
    completions_.push_back(std::move(completion));
  }
  has_work_.store(true, std::memory_order_release);
  Wake();
}

void TaskQueues::PushJobDone(const JobSpec& job, std::unique_ptr<JobResult> result) {
  Completion done(job.meta);
  done.kind = Completion::Kind::kJob;
  done.job_id = job.id;
  done.job = job.kind;
  done.slot = job.slot;
  done.incarnation = job.incarnation;
  done.generation = job.generation;
  done.ordinal = job.ordinal;
  done.result = std::move(result);
  PushCompletion(std::move(done));
}

void TaskQueues::PushCommitDone(uint64_t sequence, absl::Status status) {
  Completion done(TaskMeta(SpanContext(), Deadline::Infinite(), 0));  // a batch has many causes, so none
  done.kind = Completion::Kind::kCommit;
  done.sequence = sequence;
  done.status = std::move(status);
  PushCompletion(std::move(done));
}

void TaskQueues::PushRelease(const TaskMeta& meta, uint32_t slot, uint32_t incarnation) {
  Completion release(meta);
  release.kind = Completion::Kind::kRelease;
  release.slot = slot;
  release.incarnation = incarnation;
  PushCompletion(std::move(release));
}

void TaskQueues::PushDamage(const TaskMeta& meta, uint32_t slot, uint32_t incarnation, uint32_t ordinal,
                            absl::Status status, Damage damage) {
  Completion report(meta);
  report.kind = Completion::Kind::kDamage;
  report.slot = slot;
  report.incarnation = incarnation;
  report.ordinal = ordinal;
  report.status = std::move(status);
  report.damage = damage;
  PushCompletion(std::move(report));
}

void TaskQueues::Take(Inbox<Completion>& completions, Inbox<Request>& requests, std::vector<TicketId>& stops) {
  if (!HasWork()) return;
  // Before looking: a push that comes after says so again. Said once too often costs one look.
  has_work_.store(false, std::memory_order_seq_cst);
  MutexLock lock(mu_);
  completions.Take(completions_);
  if (requests.empty()) {
    requests.Take(requests_);
    stops.insert(stops.end(), stops_.begin(), stops_.end());
    stops_.clear();
  }
  if (!requests_.empty()) has_work_.store(true, std::memory_order_release);
}

bool TaskQueues::Empty() {
  MutexLock lock(mu_);
  return completions_.empty() && requests_.empty();
}

// A pusher pushes under the lock and then looks at asleep_; the loop sets asleep_ and then looks under the lock.
// Whoever comes second sees the other, so no wake-up is lost. (libuv before 1.53 wants that fence from its callers,
// too.)
bool TaskQueues::PrepareSleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  MutexLock lock(mu_);
  if (completions_.empty() && requests_.empty()) return true;
  asleep_.store(false, std::memory_order_seq_cst);
  return false;
}

bool TaskQueues::Wake() {
  if (!asleep_.load(std::memory_order_seq_cst)) return false;
  if (!asleep_.exchange(false, std::memory_order_seq_cst)) return true;  // somebody else wakes it
  MutexLock lock(mu_);
  if (!shut_ && wake_ != nullptr) wake_();
  return true;
}

void TaskQueues::CloseDoor(Request last) {
  {
    MutexLock lock(mu_);
    door_closed_ = true;
    if (shut_) return;
    if (Mutant(kMutantCloseDropsQueue)) requests_.clear();
    requests_.push_back(std::move(last));
    has_work_.store(true, std::memory_order_release);
  }
  Wake();
}

void TaskQueues::Shut() {
  std::vector<Completion> completions;
  std::vector<Request> requests;
  MutexLock lock(mu_);
  door_closed_ = true;
  shut_ = true;
  wake_ = nullptr;
  completions.swap(completions_);
  requests.swap(requests_);
}

}  // namespace dagstore
