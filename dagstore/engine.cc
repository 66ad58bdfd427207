#include "dagstore/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// A turn over 5 ms starves I/O and timers: a metric, and a test failure.
constexpr MonotonicNanos kSlowTurn = 5'000'000;
// Turns without work before a batch goes with fewer callers than came back last time: about 10 us of a 250 us sync.
constexpr int kGatherLooks = 64;

// Timers of answered requests that may wait for their time; 24 bytes each. More are swept, so that long deadlines of
// many short requests cost no memory.
constexpr size_t kTimersAnsweredMax = 1024;

// Idle shards looked at for one that nobody uses, before the oldest is closed all the same.
constexpr size_t kEvictLooksMax = 64;

// The duration of every so many'th task is measured: a clock costs as much as half of an acquire.
constexpr uint64_t kStepsPerMeasure = 64;

// The copy of ours that a job ended with. It may be older than the job, and have the name of another ordinal.
std::string CopyMadeBy(const JobResult& result) {
  return result.status.ok() && result.record.has_value() ? result.record->OwnCopy() : std::string();
}

const char* SpanNameOf(JobKind kind) {
  switch (kind) {
    case JobKind::kInitialize:
      return "shard.initialize";
    case JobKind::kOpen:
      return "shard.open";
    case JobKind::kCollect:
      return "shard.collect";
    case JobKind::kDestroy:
      return "shard.destroy";
    case JobKind::kDiscard:
      return "shard.discard";
  }
  return "shard";
}

}  // namespace

const char* JobName(JobKind kind) { return SpanNameOf(kind) + sizeof("shard.") - 1; }

const char* StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kNone:
      return "";
    case StopReason::kStopped:
      return "stopped";
    case StopReason::kDeadline:
      return "deadline";
    case StopReason::kShuttingDown:
      return "shutting_down";
    case StopReason::kJobTimeMax:
      return "job_time_max";
  }
  return "";
}

Engine::Engine(const Options& options, Seams seams)
    : options_(options), seams_(std::move(seams)), ids_(seams_.span_seed) {
  active_.emplace_back();  // place 0 means "none"
}

// ---- Restore ----

void Engine::Restore(std::string_view key, const RecordHead& head) {
  const uint32_t index = shards_.Insert(key);
  Slot& slot = shards_[index];
  slot.state = StateAfterRestart(head.state);
  slot.lazy = head.lazy;
  slot.has_copy = head.has_copy;
  slot.ordinal = head.ordinal;
  if (slot.ordinal != 0) seams_.directory->Set(slot.ordinal, slot.key());
  ++stats_.shards_by_state[static_cast<size_t>(slot.state)];
  if (slot.state == ShardState::kNew && !slot.lazy && !Mutant(kMutantEagerForgotten)) {
    internal_.push_back({ShardOp::kInitialize, index, slot.incarnation, OwnMeta()});  // accepted, never answered
  }
  if (slot.state == ShardState::kErrored) {
    slot.recover_on_acquire = options_.recover_on_start == RecoverOnStart::kOnAcquire;
    if (options_.recover_on_start == RecoverOnStart::kNow) {
      internal_.push_back({ShardOp::kRecover, index, slot.incarnation, OwnMeta()});
    }
  }
}

void Engine::RestoreError(std::string_view key, absl::Status cause, uint32_t attempts) {
  const uint32_t index = shards_.Find(key);
  DAGSTORE_CHECK(index != kNoSlot);
  ActiveShard& active = Activate(index);
  active.error = std::move(cause);
  active.attempts = attempts;
}

void Engine::RestoreDestroying(std::string_view key) {
  const uint32_t index = shards_.Find(key);
  if (index == kNoSlot) return;  // its record was quarantined
  Slot& slot = shards_[index];
  --stats_.shards_by_state[static_cast<size_t>(slot.state)];
  slot.state = ShardState::kDestroying;
  ++stats_.shards_by_state[static_cast<size_t>(slot.state)];
  if (slot.ordinal != 0) seams_.directory->Clear(slot.ordinal);
  internal_.push_back({ShardOp::kDestroy, index, slot.incarnation, OwnMeta()});
}

// ---- Where it comes from ----

TaskMeta Engine::OwnMeta() {
  SpanContext span = ids_.Root(false);
  if (seams_.spans != nullptr && seams_.sampler.Sample({}, span)) span.flags |= 1;
  return TaskMeta(span, Deadline::Infinite(), 0);
}

TaskMeta Engine::Aside(const TaskMeta& cause) {
  const TaskMeta own = OwnMeta();
  return cause.Detached(own.span, own.deadline);
}

void Engine::Record(SpanRecord&& span) {
  if (seams_.spans == nullptr) return;
  ++stats_.spans;
  seams_.spans->Record(std::move(span));
}

void Engine::Log(LogLevel level, const SpanContext& span, std::string_view message) {
  if (seams_.log != nullptr) seams_.log->Write(level, span, message);
}

void Engine::RestoreOrdinals(Ordinal next, Ordinal durable) {
  next_ordinal_ = next;
  ordinals_reserved_ = durable;
  ordinals_durable_ = durable;
}

// ---- The turn ----

bool Engine::Turn() {
  const MonotonicNanos begin = seams_.clock->Now();
  seams_.queues->Take(completions_, requests_, stops_taken_);
  if (!stops_taken_.empty()) {
    stopped_early_.insert(stops_taken_.begin(), stops_taken_.end());
    stops_taken_.clear();
  }
  size_t tasks = 0;
  while (tasks < options_.turn_tasks_max) {
    const bool measured = (stats_.tasks + tasks) % kStepsPerMeasure == 0;
    const MonotonicNanos step_begin = measured ? seams_.clock->Now() : 0;
    if (!internal_.empty()) {
      const Internal task = internal_.front();
      internal_.pop_front();
      RunInternal(task);
    } else if (!completions_.empty() &&
               (requests_.empty() || completions_in_a_row_ < options_.completions_per_request ||
                requests_.begin()->stop)) {  // a result that has arrived beats a stop
      ++completions_in_a_row_;
      RunCompletion(completions_.Pop());
    } else if (!requests_.empty()) {
      completions_in_a_row_ = 0;
      RunRequest(requests_.Pop());
    } else {
      break;
    }
    ++tasks;
    if (measured) stats_.step_time.AddNanos(seams_.clock->Now() - step_begin);
  }
  // Completions that have arrived beat deadlines that pass in the same turn.
  if (completions_.empty()) FireTimers();
  if (close_phase_ == ClosePhase::kDraining && close_grace_.Passed(begin) && !Mutant(kMutantGraceHasNoEnd)) {
    StopEverything();
  }
  StartBacklog();
  EvictIdle();

  SendBatch(/*idle=*/tasks == 0);
  for (JobSpec& job : jobs_out_) seams_.jobs->Start(std::move(job));
  jobs_out_.clear();
  if (!answers_out_.empty()) DeliverAnswers();
  if (close_phase_ != ClosePhase::kOpen) AwaitAccessors();

  if (tasks != 0) {
    ++stats_.turns;
    stats_.tasks += tasks;
    const MonotonicNanos took = seams_.clock->Now() - begin;
    stats_.turn_nanos_max = std::max(stats_.turn_nanos_max, took);
    stats_.turn_time.AddNanos(took);
    if (took > kSlowTurn) ++stats_.turns_over_5ms;
  }
  return !internal_.empty() || !completions_.empty() || !requests_.empty() || seams_.queues->HasWork() ||
         (!committing_ && (!batch_.empty() || !closed_.empty()));
}

Deadline Engine::NextTimer() const {
  Deadline next = timers_.empty() ? Deadline::Infinite() : Deadline::At(timers_.top().at);
  if (close_phase_ != ClosePhase::kOpen) next = next.Min(close_grace_);
  return next;
}

void Engine::RunRequest(Request request) {
  if (request.inspect != nullptr) {
    request.inspect(*this);
    return;
  }
  if (request.stop) {
    stopped_early_.erase(request.meta.ticket);
    ++stats_.stops;
    if (Stop(request.meta.ticket, StopReason::kStopped) == StopOutcome::kAlreadyDone) ++stats_.stops_late;
    return;
  }
  request.reply.op = request.op;
  if (request.reply.asked != 0) {
    const MonotonicNanos waited = seams_.clock->Now() - request.reply.asked;
    stats_.queue_wait.AddNanos(waited);
    if (request.reply.trace != nullptr) request.reply.trace->Add("dagstore.queue.wait_us", waited / 1000);
  }
  Cause cause(request.meta);
  cause.reply = std::move(request.reply);
  cause.registration = request.registration.get();
  // Expired or stopped while it was queued: no work, and it joins nothing.
  const bool expired = !request.meta.deadline.IsInfinite() && request.meta.deadline.Passed(seams_.clock->Now());
  if (expired || (!stopped_early_.empty() && stopped_early_.contains(request.meta.ticket))) {
    if (expired) ++stats_.deadlines_missed;
    return AnswerUnrun(request, cause,
                       expired ? DeadlineExceeded("{}: the deadline passed before the request ran", OpName(request.op))
                               : Cancelled("{}: stopped by its caller before it ran", OpName(request.op)),
                       expired ? StopReason::kDeadline : StopReason::kStopped);
  }

  uint32_t index = shards_.Find(request.key.bytes());
  if (index == kNoSlot) {
    if (request.op != ShardOp::kRegister)
      return AnswerUnrun(request, cause, NotFound("no shard \"{}\"", request.key.Printable()));
    if (!store_error_.ok())
      return AnswerUnrun(request, cause, Unavailable("the store is read-only: {}", ToString(store_error_)));
    index = shards_.Insert(request.key.bytes());
    Slot& slot = shards_[index];
    slot.lazy = request.registration->lazy;
    ++stats_.shards_by_state[static_cast<size_t>(slot.state)];
    cause.fresh = true;
  }
  if (request.begins_nothing && !Mutant(kMutantFsckDestroys) && shards_[index].state != ShardState::kDestroying) {
    return AnswerUnrun(request, cause, absl::OkStatus());
  }
  if (request.op == ShardOp::kAcquire) ++stats_.acquires;
  Step(index, request.op, cause);
}

void Engine::AnswerUnrun(Request& request, Cause& cause, absl::Status status, StopReason reason) {
  ShardResult result;
  result.key = std::move(request.key);
  result.ticket = request.meta.ticket;
  result.status = std::move(status);
  result.stop_reason = reason;
  SendAnswer(std::move(cause.reply), std::move(result), kNothingPending);
}

void Engine::RunInternal(const Internal& task) {
  if (!shards_.Lives(task.slot, task.incarnation)) {
    ++stats_.stale_completions;
    return;
  }
  Cause cause(task.meta);
  Step(task.slot, task.op, cause);
}

void Engine::RunCompletion(Completion completion) {
  switch (completion.kind) {
    case Completion::Kind::kCommit:
      CommitDone(completion.sequence, completion.status);
      return;
    case Completion::Kind::kJob:
      JobDone(completion);
      return;
    case Completion::Kind::kRelease:
    case Completion::Kind::kDamage:
      break;
  }
  if (!shards_.Lives(completion.slot, completion.incarnation) && !Mutant(kMutantStaleRelease)) {
    ++stats_.stale_completions;
    return;
  }
  if (completion.kind == Completion::Kind::kRelease) {
    Cause cause(completion.meta);
    Step(completion.slot, ShardOp::kRelease, cause);
    return;
  }
  TakeDamage(completion.slot, completion.ordinal, std::move(completion.status), completion.damage, completion.meta);
}

// Damage concerns the index and the copy that were read; a newer one is not to blame.
void Engine::TakeDamage(uint32_t index, Ordinal ordinal, absl::Status status, Damage damage,
                        const TaskMeta& reported) {
  const Slot& slot = shards_[index];
  const bool other = slot.ordinal != ordinal && !Mutant(kMutantOldDamageTaken);
  if (other || (slot.state != ShardState::kServing && slot.state != ShardState::kAvailable)) {
    ++stats_.stale_completions;
    return;
  }
  if (damage == Damage::kBlock) {
    Notify(slot, slot.state, slot.state, status, reported);
    return;
  }
  const TaskMeta meta = Aside(reported);
  Cause cause(meta);
  cause.status = std::move(status);
  cause.index_damaged = damage == Damage::kIndex;
  Step(index, ShardOp::kFail, cause);
}

void Engine::JobDone(Completion& done) {
  --jobs_running_;
  const auto at = jobs_.find(done.job_id);
  DAGSTORE_CHECK(at != jobs_.end());
  const std::unique_ptr<Job> job = std::move(at->second);
  jobs_.erase(at);
  EndJob(*job, done.result->status);
  if (done.job == JobKind::kDiscard) return;
  DAGSTORE_CHECK(shards_.Lives(done.slot, done.incarnation));  // a shard is not forgotten while a job of it runs
  Slot& slot = shards_[done.slot];
  ActiveShard& active = Activate(done.slot);
  --active.jobs_running;
  if (done.job == JobKind::kDestroy) active.destroy_running = false;
  if (done.job == JobKind::kCollect) active.collect_running = false;
  if (active.job == job.get()) active.job = nullptr;
  AnswerStopped(done.slot);

  // What follows is done for nobody in particular, but it comes from this job.
  const TaskMeta meta(done.meta.span, Deadline::Infinite(), 0);
  JobResult& result = *done.result;
  std::string made = CopyMadeBy(result);  // goes, should the job have been for nothing
  if (done.generation != slot.generation && !Mutant(kMutantStaleCompletionTaken)) {
    ++stats_.stale_completions;
    if (result.open != nullptr) seams_.jobs->DropLater(std::move(result.open));
    if (done.job == JobKind::kInitialize) Discard(slot.key(), done.ordinal, meta, std::move(made));
    if (done.job == JobKind::kCollect) {
      // What stopped it was no request of those who wait for it.
      if (absl::IsCancelled(result.status)) {
        result.status = FailedPrecondition("shard \"{}\" is {} by now", job->key.Printable(), StateName(slot.state));
      }
      result.record.reset();  // that of the shard may be newer; it names a copy that is gone, which the next open mends
      CollectDone(done.slot, result);
    }
    if (slot.state == ShardState::kDestroying) StartDestroy(done.slot, meta);
    MaybeRest(done.slot);
    return;
  }
  const bool dying = job->dying();
  if (dying && !result.status.ok()) {
    // It was told to stop. Whatever it says of its end, that is no failure of the shard.
    result.index_damaged = false;
    result.status = job->time_is_up ? DeadlineExceeded("the job ran longer than the store lets it")
                                    : Cancelled("the job was stopped");
  } else if (result.status.code() == absl::StatusCode::kCancelled) {
    // Whoever is parked would get another job, and that one would end the same way, for ever.
    result.status = Unavailable("the source broke off, though nobody asked it to: {}", Message(result.status));
  }
  if (result.status.ok() && (done.job == JobKind::kInitialize || done.job == JobKind::kCollect) && !store_error_.ok()) {
    result.status = Unavailable("the store is read-only: {}", ToString(store_error_));  // what it did cannot be stored
  }
  if (done.job == JobKind::kCollect) {
    CollectDone(done.slot, result);
    return;
  }
  Cause cause(meta);
  cause.result = &result;
  cause.dying = dying;
  cause.status = result.status;
  cause.index_damaged = result.index_damaged;
  cause.ordinal = done.ordinal;
  if (!result.status.ok()) {
    if (done.job == JobKind::kInitialize && !Mutant(kMutantDeadIndexKept)) {
      Discard(slot.key(), done.ordinal, meta, std::move(made));
    }
    Step(done.slot, ShardOp::kFail, cause);
    return;
  }
  switch (done.job) {
    case JobKind::kInitialize:
      Step(done.slot, ShardOp::kMakeAvailable, cause);
      return;
    case JobKind::kOpen:
      StoreCopy(done.slot, result);
      SetOpen(active, std::move(result.open), meta);
      Step(done.slot, ShardOp::kServe, cause);
      return;
    case JobKind::kDestroy:
      Step(done.slot, ShardOp::kForget, cause);
      return;
    case JobKind::kCollect:
    case JobKind::kDiscard:
      break;
  }
}

// A job made or removed a local copy: the record says so. The state does not change, so there is no row for it.
void Engine::StoreCopy(uint32_t index, JobResult& result) {
  if (!result.record.has_value() || !store_error_.ok() || Mutant(kMutantCopyNotStored)) return;
  MakeRoomInBatch(0);
  Slot& slot = shards_[index];
  batch_.Put(KvTable::kRecords, std::string(slot.key()), EncodeRecord(*result.record));
  slot.has_copy = result.record->copy.has_value();
  Activate(index).pending = batch_sequence_;
  gathering_.touched.push_back(index);
  ++gathering_.changes;
}

void Engine::CollectDone(uint32_t index, JobResult& result) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  if (result.status.ok()) StoreCopy(index, result);
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (!waiter.collects() || waiter.stopping) {
      active.waiters.push_back(std::move(waiter));  // an acquirer who came meanwhile
      continue;
    }
    parked_.erase(waiter.meta.ticket);
    ShardResult answer;
    answer.key = ShardKey(slot.key());
    answer.ticket = waiter.meta.ticket;
    answer.status = result.status;
    if (Mutant(kMutantCollectUnanswered)) continue;
    SendAnswer(std::move(waiter.reply), std::move(answer), active.pending);
  }
  StartOpen(index);
  MaybeRest(index);
}

// ---- One step ----

void Engine::Step(uint32_t index, ShardOp op, Cause& cause) {
  if (op != ShardOp::kAcquire && op != ShardOp::kServe && op != ShardOp::kRelease && op != ShardOp::kCount) {
    TakeReaders(index);
  }
  Slot& slot = shards_[index];
  const ActiveShard* before = ActiveOf(slot);
  const auto code = cause.status.code();
  Facts facts;
  facts.fresh = cause.fresh;
  facts.lazy = slot.lazy;
  facts.open = before != nullptr && before->open != nullptr;
  facts.refs = slot.references;
  facts.has_acquirers =
      before != nullptr && std::any_of(before->waiters.begin(), before->waiters.end(),
                                       [](const Waiter& w) { return w.op == ShardOp::kAcquire && !w.stopping; });
  facts.transient_error = code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kCancelled ||
                          code == absl::StatusCode::kDeadlineExceeded || !store_error_.ok() ||
                          (code == absl::StatusCode::kUnavailable &&
                           (slot.state == ShardState::kAvailable || slot.state == ShardState::kServing));
  if (Mutant(kMutantLimitChangesState)) facts.transient_error &= code != absl::StatusCode::kResourceExhausted;
  if (Mutant(kMutantCancelIsFailure)) facts.transient_error &= code != absl::StatusCode::kCancelled;
  facts.index_damaged = cause.index_damaged;
  facts.recover_on_acquire =
      (slot.recover_on_acquire && (before == nullptr || before->attempts < options_.recover_attempts_max)) ||
      Mutant(kMutantRecoversForEver);
  facts.jobs_running = before != nullptr && before->jobs_running != 0;
  facts.has_copy = slot.has_copy;

  const Row& row = Decide(slot.state, op, facts);
  if (row.verdict == Verdict::kBug) {
    DAGSTORE_CHECK_MSG(false, fmt::format("{} in state {} of shard \"{}\"", OpName(op), StateName(slot.state),
                                          ShardKey(slot.key()).Printable()));
  }
  const bool writes = (row.effects & (kPersist | kPersistDestroying | kErase)) != 0;
  const bool would_write = writes || (row.effects & kStartCollect) != 0;
  if (row.verdict != Verdict::kStep || (would_write && !store_error_.ok() && !cause.reply.empty())) {
    Refuse(slot, op, cause);
    return;
  }

  // Memory.
  const ShardState from = slot.state;
  --stats_.shards_by_state[static_cast<size_t>(from)];
  ++stats_.shards_by_state[static_cast<size_t>(row.next)];
  slot.state = row.next;
  // Used up by an attempt that ends; one that was stopped, or met a limit of ours, was none.
  if ((op == ShardOp::kFail && (!facts.transient_error || Mutant(kMutantStoppedAttemptCounts))) ||
      op == ShardOp::kMakeAvailable) {
    slot.recover_on_acquire = false;
  }
  if (row.next == ShardState::kErrored && from != ShardState::kErrored) {
    ActiveShard& active = Activate(index);
    if (!facts.transient_error) active.error = cause.status;
    if (!facts.transient_error) ++active.attempts;
  }
  if (op == ShardOp::kFail && row.next == ShardState::kRecovering) {
    Activate(index).error = cause.status;  // the cause, should it not recover
  }
  if (op == ShardOp::kMakeAvailable) {
    ActiveShard& active = Activate(index);
    active.error = absl::OkStatus();
    active.attempts = 0;
    Close(active);  // reads by the old index
  }
  if ((row.effects & kUnref) != 0) Unref(index);
  if ((row.effects & kCancelJobs) != 0 && !Mutant(kMutantDestroyCancelsNothing)) CancelJobs(index);
  // Only hidden: what the top-level index drops, its next merge leaves out for good, what is dead in the directory gc
  // sweeps, and until the batch is durable a restart may find the shard alive.
  if ((row.effects & kHide) != 0 && slot.ordinal != 0 && !Mutant(kMutantNotHidden)) {
    seams_.directory->Hide(slot.ordinal);
    if (Mutant(kMutantTopDroppedEarly)) seams_.top->Drop(slot.ordinal);
  }
  if (seams_.traces->HasSubscribers()) {
    seams_.traces->Publish({seams_.clock->WallNow(), ShardKey(slot.key()), op, from, row.next, slot.references,
                            cause.meta.span, cause.status});
  }

  // Store.
  if (writes) Persist(index, row, cause);

  // Jobs and answers; Outgoing holds them until what they rest on is durable.
  if ((row.effects & kNotify) != 0 && !Mutant(kMutantFailureUntold)) {
    Notify(slot, from, row.next, cause.status, cause.meta);
  }
  if ((row.effects & kFailParked) != 0) {
    FailParked(index, op == ShardOp::kDestroy ? FailedPrecondition("the shard is being destroyed") : cause.status,
               cause.dying);
  }
  if ((row.effects & kServe) != 0) {
    Waiter waiter(cause.meta);
    waiter.reply = std::move(cause.reply);
    Serve(index, waiter);
  }
  if ((row.effects & kServeParked) != 0) ServeParked(index);
  if ((row.effects & kReply) != 0 && !cause.reply.empty()) {
    ShardResult result;
    result.key = ShardKey(slot.key());
    result.ticket = cause.meta.ticket;
    SendAnswer(std::move(cause.reply), std::move(result), PendingOf(slot));
  }
  if ((row.effects & kReplyParked) != 0) ReplyParked(index);
  if ((row.effects & kPark) != 0) Park(index, op, cause);
  if ((row.effects & kQueueInitialize) != 0) {
    internal_.push_back({ShardOp::kInitialize, index, slot.incarnation, cause.meta});
  }
  if ((row.effects & kStartInitialize) != 0) {  // after a failed job: by the store itself, linked to that job
    QueueInitializeJob(index, cause.result != nullptr ? Aside(cause.meta) : cause.meta);
  }
  if ((row.effects & kStartOpen) != 0) StartOpen(index);
  if ((row.effects & kStartCollect) != 0) StartCollect(index, cause);
  if ((row.effects & kStartDestroy) != 0) StartDestroy(index, cause.meta);

  if ((row.effects & kErase) != 0) {
    --stats_.shards_by_state[static_cast<size_t>(slot.state)];
    ActiveShard& active = Activate(index);
    DAGSTORE_CHECK(active.jobs_running == 0 && active.waiters.empty() && slot.references == 0);
    Close(active);
    if (slot.ordinal != 0) {  // the mark of its destruction is durable
      seams_.directory->Clear(slot.ordinal);
      seams_.top->Drop(slot.ordinal);
    }
    active.slot = kNoSlot;
    active_free_.push_back(slot.active);
    shards_.Erase(index);
    return;
  }
  MaybeRest(index);
}

void Engine::Refuse(const Slot& slot, ShardOp op, Cause& cause) {
  if (cause.reply.empty() || Mutant(kMutantRefusedUnanswered)) return;
  ShardResult result;
  result.key = ShardKey(slot.key());
  result.ticket = cause.meta.ticket;
  const std::string key = result.key.Printable();
  const ActiveShard* active = ActiveOf(slot);
  if (!store_error_.ok() && op != ShardOp::kAcquire) {
    result.status = Unavailable("the store is read-only: {}", ToString(store_error_));
  } else if (op == ShardOp::kRegister) {
    result.status = AlreadyExists("shard \"{}\" exists, state {}", key, StateName(slot.state));
  } else if (op == ShardOp::kAcquire && slot.state == ShardState::kErrored) {
    result.status = active == nullptr || active->error.ok()
                        ? FailedPrecondition("shard \"{}\" is Errored", key)
                        : Annotate(active->error, fmt::format("shard \"{}\" is Errored", key));
  } else if (op == ShardOp::kAcquire) {
    result.status = NotFound("shard \"{}\" is being destroyed", key);
  } else if (op == ShardOp::kDestroy) {
    result.status = FailedPrecondition("shard \"{}\" is in use by {} accessors", key, slot.references);
  } else if (op == ShardOp::kRecover) {
    result.status = FailedPrecondition("shard \"{}\" is {}, not Errored", key, StateName(slot.state));
  } else if (op == ShardOp::kCollect) {
    result.status = FailedPrecondition("shard \"{}\" has no local copy that is not in use", key);
  } else {
    result.status = FailedPrecondition("{} of shard \"{}\" in state {}", OpName(op), key, StateName(slot.state));
  }
  SendAnswer(std::move(cause.reply), std::move(result), PendingOf(slot));
}

void Engine::Persist(uint32_t index, const Row& row, Cause& cause) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  if (!store_error_.ok()) {
    active.pending = kNeverDurable;
    if (row.op == ShardOp::kMakeAvailable) Discard(slot.key(), cause.ordinal, cause.meta, CopyMadeBy(*cause.result));
    return;
  }
  MakeRoomInBatch(cause.result != nullptr ? cause.result->batch.bytes() : 0);
  std::string key(slot.key());
  if ((row.effects & kPersistDestroying) != 0) {
    if (!Mutant(kMutantDestroyingNotStored)) batch_.Put(KvTable::kDestroying, std::move(key), {});
  } else if ((row.effects & kErase) != 0) {
    DAGSTORE_CHECK(cause.result != nullptr);
    batch_.Append(std::move(cause.result->batch));
    if (!Mutant(kMutantDestroyMarkStays)) batch_.Delete(KvTable::kDestroying, key);
    if (!Mutant(kMutantRecordOutlivesShard)) batch_.Delete(KvTable::kRecords, std::move(key));
  } else if (cause.registration != nullptr) {
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(*cause.registration));
  } else if (row.op == ShardOp::kMakeAvailable) {
    DAGSTORE_CHECK(cause.result != nullptr);
    slot.has_copy = cause.result->record->copy.has_value();
    batch_.Append(std::move(cause.result->batch));
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(*cause.result->record));
    gathering_.publications.push_back({index, slot.incarnation, cause.ordinal, slot.ordinal,
                                       std::move(cause.result->old_copy), cause.meta});
    slot.ordinal = cause.ordinal;
  } else {  // Errored
    if (Mutant(kMutantErroredNotStored)) return;
    ShardRecord record;
    if (cause.result != nullptr && cause.result->record.has_value()) {
      record = std::move(*cause.result->record);
    } else if (active.open != nullptr) {
      record = active.open->record;
    } else {
      return;  // its record cannot be read; it is found Errored in memory, and as it was after a restart
    }
    record.state = ShardState::kErrored;
    record.error_code = static_cast<int>(active.error.code());
    record.error = std::string(Message(active.error));
    record.attempts = active.attempts;
    slot.has_copy = record.copy.has_value();
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(record));
    if (cause.result != nullptr && !cause.result->old_copy.empty() && !Mutant(kMutantDamagedCopyKept)) {
      if (slot.references == 0) Close(active);  // it reads that copy, which would be spared
      Discard(slot.key(), 0, cause.meta, std::move(cause.result->old_copy), batch_sequence_);
    }
  }
  active.pending = batch_sequence_;
  gathering_.touched.push_back(index);
  ++gathering_.changes;
}

void Engine::Park(uint32_t index, ShardOp op, Cause& cause) {
  if (cause.reply.empty()) return;  // the store asked itself
  Waiter waiter(cause.meta);
  waiter.op = op;
  waiter.reply = std::move(cause.reply);
  parked_[waiter.meta.ticket] = index;
  if (!waiter.meta.deadline.IsInfinite()) {
    timers_.push({waiter.meta.deadline.at(), waiter.meta.ticket, Timer::Kind::kTicket});
  }
  ActiveShard& active = Activate(index);
  if (active.job != nullptr && Wants(op, active.job->kind)) {
    if (active.job->dying()) {
      waiter.next_gen = true;
    } else {
      Join(*active.job, waiter);
    }
  }
  active.waiters.push_back(std::move(waiter));
}

void Engine::Serve(uint32_t index, Waiter& waiter) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  IdleRemove(slot.active);
  if (!Mutant(kMutantRefsNotCounted)) ++slot.references;
  if (!active.lease->gate.open() && GatesMayOpen()) active.lease = NewLease(active);
  if (seams_.leases != nullptr && !active.listed && active.pending == kNothingPending && active.lease->gate.open()) {
    seams_.leases->Set(slot.key(), active.lease);
    active.listed = true;
  }
  ShardResult result;
  result.key = active.open->key;
  result.ticket = waiter.meta.ticket;
  result.accessor = Accessor(active.lease);
  SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
}

void Engine::ServeParked(uint32_t index) {
  ActiveShard& active = Activate(index);
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (waiter.op != ShardOp::kAcquire || waiter.stopping) {
      active.waiters.push_back(std::move(waiter));
      continue;
    }
    parked_.erase(waiter.meta.ticket);
    Serve(index, waiter);
  }
}

void Engine::ReplyParked(uint32_t index) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (waiter.op == ShardOp::kAcquire || waiter.collects() || waiter.stopping) {
      waiter.next_gen = false;  // the job has ended, well
      active.waiters.push_back(std::move(waiter));  // an acquirer waits for the data to be open
      continue;
    }
    parked_.erase(waiter.meta.ticket);
    ShardResult result;
    result.key = ShardKey(slot.key());
    result.ticket = waiter.meta.ticket;
    SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
  }
}

void Engine::FailParked(uint32_t index, const absl::Status& status, bool dying) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  const bool closing = close_phase_ != ClosePhase::kOpen;
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (waiter.stopping || waiter.collects()) {  // his job still runs
      active.waiters.push_back(std::move(waiter));
      continue;
    }
    if (dying && waiter.next_gen && !closing) {
      waiter.next_gen = false;
      active.waiters.push_back(std::move(waiter));
      continue;
    }
    parked_.erase(waiter.meta.ticket);
    if (Mutant(kMutantFirstFailedUnanswered) && &waiter == &waiters.front()) continue;
    if (dying) {
      waiter.stop_reason = closing ? StopReason::kShuttingDown : StopReason::kJobTimeMax;
      ShardResult result = StopResult(waiter, index);
      SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
      continue;
    }
    ShardResult result;
    result.key = ShardKey(slot.key());
    result.ticket = waiter.meta.ticket;
    result.status = Annotate(status, fmt::format("{} shard \"{}\"", OpName(waiter.op), result.key.Printable()));
    SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
  }
  // One new job for all who came too late for the dying one. Each of them sees this once at most.
  const auto first = std::find_if(active.waiters.begin(), active.waiters.end(), [](const Waiter& waiter) {
    return !waiter.stopping && !waiter.collects();
  });
  if (first == active.waiters.end()) return;
  const TaskMeta meta = first->meta;
  if (slot.state == ShardState::kNew) {
    internal_.push_back({ShardOp::kInitialize, index, slot.incarnation, meta});
  } else if (slot.state == ShardState::kErrored) {
    internal_.push_back({ShardOp::kRecover, index, slot.incarnation, meta});
  } else {
    StartOpen(index);
  }
}

ShardResult Engine::StopResult(const Waiter& waiter, uint32_t index) const {
  ShardResult result;
  result.key = ShardKey(shards_[index].key());
  result.ticket = waiter.meta.ticket;
  result.stop_reason = waiter.stop_reason;
  const std::string what = fmt::format("{} shard \"{}\"", OpName(waiter.op), result.key.Printable());
  // A caller whose own time is up has no use for another reason.
  if (!waiter.meta.deadline.IsInfinite() && waiter.meta.deadline.Passed(seams_.clock->Now())) {
    result.stop_reason = StopReason::kDeadline;
  }
  switch (result.stop_reason) {
    case StopReason::kNone:
    case StopReason::kStopped:
      result.status = Cancelled("{}: stopped by its caller", what);
      break;
    case StopReason::kDeadline:
      result.status = DeadlineExceeded("{}: the deadline passed while the request waited", what);
      break;
    case StopReason::kShuttingDown:
      result.status = Cancelled("{}: the store is closing", what);
      break;
    case StopReason::kJobTimeMax:
      result.status = DeadlineExceeded("{}: its job ran longer than the store lets it", what);
      break;
  }
  return result;
}

void Engine::AnswerStopped(uint32_t index, const Job* abandoned) {
  ActiveShard& active = Activate(index);
  for (size_t i = 0; i < active.waiters.size();) {
    Waiter& waiter = active.waiters[i];
    const bool due = abandoned != nullptr ? waiter.waits_for == abandoned->id : !jobs_.contains(waiter.waits_for);
    if (!waiter.stopping || !due) {
      ++i;
      continue;
    }
    parked_.erase(waiter.meta.ticket);
    ShardResult result = StopResult(waiter, index);
    if (abandoned != nullptr) {
      result.work_abandoned = true;
      result.status = Annotate(result.status, "its work has not stopped yet");
      ++stats_.work_abandoned;
    }
    if (abandoned != nullptr || !Mutant(kMutantStoppedUnanswered)) {
      SendAnswer(std::move(waiter.reply), std::move(result), kNothingPending);
    }
    active.waiters.erase(active.waiters.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Engine::Unref(uint32_t index) {
  Slot& slot = shards_[index];
  DAGSTORE_CHECK(slot.references > 0);
  --slot.references;
  if (slot.references == 0 && slot.active != kNoActive && active_[slot.active]->open != nullptr) IdleAdd(slot.active);
}

void Engine::TakeReaders(uint32_t index) {
  Slot& slot = shards_[index];
  ActiveShard* active = ActiveOf(slot);
  if (active == nullptr || active->lease == nullptr || !active->lease->gate.open()) return;
  ReaderGate& gate = active->lease->gate;
  const uint32_t readers = gate.Close();
  stats_.acquires_inline += gate.entered();
  if (std::exchange(active->listed, false)) seams_.leases->Clear(slot.key());
  if (readers == 0) return;
  if (!Mutant(kMutantInlineReadersLost)) slot.references += readers;
  IdleRemove(slot.active);
  if (slot.state != ShardState::kAvailable) return;
  const TaskMeta meta = OwnMeta();
  Cause cause(meta);
  Step(index, ShardOp::kCount, cause);
}

bool Engine::GatesMayOpen() const {
  return options_.inline_acquire && close_phase_ == ClosePhase::kOpen && !seams_.traces->HasSubscribers();
}

std::shared_ptr<const Lease> Engine::NewLease(const ActiveShard& active) const {
  return std::make_shared<const Lease>(active.open, seams_.queues, active.slot, shards_[active.slot].incarnation,
                                       *active.opened_by, GatesMayOpen());
}

uint32_t Engine::ReadersInside(const Slot& slot) const {
  if (slot.active == kNoActive || active_[slot.active]->lease == nullptr) return 0;
  return active_[slot.active]->lease->gate.readers();
}

void Engine::CloseGates() {
  for (size_t place = 1; place < active_.size(); ++place) {
    if (active_[place]->slot != kNoSlot) TakeReaders(active_[place]->slot);
  }
}

void Engine::CancelJobs(uint32_t index) {
  Slot& slot = shards_[index];
  ActiveShard* active = ActiveOf(slot);
  if (active == nullptr) return;
  if (active->job != nullptr) CancelJob(*active->job);
  active->job = nullptr;
  active->in_backlog = false;
  ++slot.generation;  // what they report is dropped
}

// ---- Jobs ----

bool Engine::Wants(ShardOp op, JobKind kind) {
  switch (kind) {
    case JobKind::kInitialize:
      return op == ShardOp::kRegister || op == ShardOp::kAcquire || op == ShardOp::kRecover;
    case JobKind::kOpen:
      return op == ShardOp::kAcquire;
    case JobKind::kCollect:
      return op == ShardOp::kCollect;
    case JobKind::kDestroy:
      return op == ShardOp::kDestroy;
    case JobKind::kDiscard:
      break;
  }
  return false;
}

void Engine::Join(Job& job, Waiter& waiter) {
  // What an outbound request inherits is the latest deadline of all; it only rises.
  job.control->SetDeadline(job.members_ever == 0 ? waiter.meta.deadline
                                                 : job.control->deadline().Max(waiter.meta.deadline));
  ++job.members_ever;
  if (job.members.size() < Job::kMembersMax) job.members.push_back({waiter.meta.ticket, waiter.meta.span});
  job.sampled = job.sampled || waiter.meta.span.IsSampled();
  if (waiter.reply.trace != nullptr && !(waiter.meta.span == job.initiator)) waiter.reply.trace->Link(job.meta.span);
}

size_t Engine::MembersOf(const ActiveShard& active) const {
  if (active.job == nullptr) return 0;
  return static_cast<size_t>(std::count_if(active.waiters.begin(), active.waiters.end(), [&](const Waiter& waiter) {
    return !waiter.stopping && !waiter.next_gen && Wants(waiter.op, active.job->kind);
  }));
}

// Squid's three thresholds: what is nearly done is worth finishing, what is far from it is not.
bool Engine::WorthFinishing(const Job& job) const {
  const uint64_t total = job.control->progress.total(), done = job.control->progress.done();
  if (job.kind != JobKind::kInitialize && job.kind != JobKind::kOpen) return false;
  if (close_phase_ != ClosePhase::kOpen || total == 0 || done > total) return false;
  if (fills_running_ >= options_.fills_running_max) return false;
  const uint64_t left = total - done;
  if (left <= options_.fill_left_bytes_min) return true;
  if (left > options_.fill_left_bytes_max) return false;
  return static_cast<double>(done) * 100 >= static_cast<double>(total) * options_.fill_done_percent;
}

void Engine::CancelJob(Job& job) {
  if (job.dying()) return;
  job.control->cancel.Cancel();
  const Deadline grace = Deadline::After(*seams_.clock, options_.stop_grace);
  if (!grace.IsInfinite()) timers_.push({grace.at(), job.id, Timer::Kind::kStopGrace});
}

void Engine::EndJob(Job& job, const absl::Status& status) {
  const MonotonicNanos now = seams_.clock->Now();
  if (job.fill) --fills_running_;
  --stats_.jobs_running_by_kind[static_cast<size_t>(job.kind)];
  ++stats_.jobs_done[static_cast<size_t>(job.kind)][status.ok() ? 0 : job.dying() ? 2 : 1];
  stats_.job_time[static_cast<size_t>(job.kind)].AddNanos(now - job.started);
  if (job.straggler) {
    --stats_.stragglers;
    Log(LogLevel::kWarning, job.meta.span, fmt::format("{} has stopped at last", NameOf(job)));
  }
  if (seams_.spans == nullptr || !job.sampled) return;
  SpanRecord span(SpanNameOf(job.kind), job.meta.span, job.initiator, job.started);
  span.end = now;
  span.Link(job.meta.cause);
  span.AddText("dagstore.shard.key", job.key.bytes());
  span.Add("dagstore.job.id", static_cast<int64_t>(job.id));
  span.Add("dagstore.job.waiters", static_cast<int64_t>(job.members_ever));
  if (const uint64_t bytes = job.control->progress.done(); bytes != 0) {
    span.Add("dagstore.bytes", static_cast<int64_t>(bytes));
  }
  if (job.dying()) span.AddText("dagstore.stop_reason", job.time_is_up ? "job_time_max" : "stopped");
  // Its parent was not sampled, so its trace has holes.
  if (!job.meta.span.IsSampled()) span.AddBool("dagstore.trace.partial", true);
  span.SetStatus(status);
  for (const Job::Member& member : job.members) {
    if (member.span.IsSampled() && !(member.span == job.initiator)) span.Link(member.span);
  }
  if (job.members_ever > job.members.size()) {
    span.links_dropped += static_cast<uint32_t>(job.members_ever - job.members.size());
  }
  if (job.fill_started != 0) {
    SpanRecord fill("shard.cache_fill", ids_.Root(true), {}, job.fill_started);
    fill.end = now;
    fill.Link(job.meta.span);
    fill.AddText("dagstore.shard.key", job.key.bytes());
    fill.Add("dagstore.job.id", static_cast<int64_t>(job.id));
    fill.SetStatus(status);
    Record(std::move(fill));
  }
  Record(std::move(span));
}

std::string Engine::NameOf(const Job& job) const {
  return fmt::format("{} of shard \"{}\" (job {})", JobName(job.kind), job.key.Printable(), job.id);
}

JobSpec Engine::NewJob(uint32_t index, JobKind kind, const TaskMeta& meta) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  TaskMeta child = meta.Child(ids_.Next());
  child.cause = meta.cause;
  // Waiters leave by their own deadlines, and the last of them stops the job.
  if (!Mutant(kMutantFirstDeadlineIsJobs)) child.deadline = Deadline::Infinite();
  JobSpec job(child);
  job.kind = kind;
  job.slot = index;
  job.incarnation = slot.incarnation;
  job.generation = ++slot.generation;
  job.key = ShardKey(slot.key());
  job.ordinal = slot.ordinal;
  job.attempts = active.attempts;
  job.control = std::make_shared<JobControl>();
  job.cancel = std::shared_ptr<CancelFlag>(job.control, &job.control->cancel);
  ++active.jobs_running;
  return job;
}

void Engine::StartJob(JobSpec job, const SpanContext& initiator, uint64_t rests_on) {
  ++jobs_running_;
  ++stats_.jobs_started;
  if (Mutant(kMutantJobBeforeCommit)) rests_on = kNothingPending;
  ++stats_.jobs_running_by_kind[static_cast<size_t>(job.kind)];
  job.id = next_job_++;
  auto running = std::make_unique<Job>(job.meta);
  running->kind = job.kind;
  running->id = job.id;
  running->ordinal = job.ordinal;
  running->key = job.key;
  running->control = job.control;
  running->started = seams_.clock->Now();
  running->initiator = initiator;
  running->sampled = job.meta.span.IsSampled();
  if (job.slot != kNoSlot) {
    ActiveShard& active = Activate(job.slot);
    running->stoppable = job.meta.ticket != 0 || job.kind == JobKind::kOpen;
    active.job = running.get();
    for (Waiter& waiter : active.waiters) {
      if (!waiter.stopping && Wants(waiter.op, job.kind)) {
        waiter.next_gen = false;
        Join(*running, waiter);
      }
    }
    const Deadline time_max = Deadline::After(*seams_.clock, options_.job_time_max);
    if (!time_max.IsInfinite()) timers_.push({time_max.at(), job.id, Timer::Kind::kTimeMax});
    if (close_phase_ > ClosePhase::kDraining && job.kind != JobKind::kDestroy) CancelJob(*running);
  }
  jobs_.emplace(job.id, std::move(running));
  if (rests_on == kNeverDurable) {
    auto result = std::make_unique<JobResult>();
    result->status = Unavailable("the store is read-only: {}", ToString(store_error_));
    seams_.queues->PushJobDone(job, std::move(result));
    return;
  }
  if (Gate* gate = GateFor(rests_on)) {
    gate->jobs.push_back(std::move(job));
  } else {
    jobs_out_.push_back(std::move(job));
  }
}

void Engine::QueueInitializeJob(uint32_t index, const TaskMeta& meta) {
  ActiveShard& active = Activate(index);
  active.in_backlog = true;
  active.backlog_stoppable = meta.ticket != 0;
  ++active.backlog_entry;
  backlog_.push_back({index, shards_[index].incarnation, active.backlog_entry, meta});
}

void Engine::StartBacklog() {
  // Results that cannot be stored yet lie in memory: no more of them while a full batch waits for another.
  std::vector<Waiting> held;
  while (!backlog_.empty() && !BatchesQueue() &&
         (jobs_running_ < options_.jobs_running_max || Mutant(kMutantJobsUnlimited))) {
    const Waiting next = backlog_.front();
    backlog_.pop_front();
    if (!shards_.Lives(next.slot, next.incarnation)) continue;
    Slot& slot = shards_[next.slot];
    if (slot.state != ShardState::kInitializing && slot.state != ShardState::kRecovering) {
      MaybeRest(next.slot);
      continue;  // destroyed while it waited
    }
    ActiveShard& active = Activate(next.slot);
    if (!active.in_backlog || active.backlog_entry != next.entry) continue;  // everybody left, or it was queued anew
    if (active.collect_running && !Mutant(kMutantCollectUnawaited)) {
      held.push_back(next);
      continue;
    }
    active.in_backlog = false;
    if (next_ordinal_ == UINT32_MAX) {
      const TaskMeta meta = OwnMeta();
      Cause cause(meta);
      cause.status = ResourceExhausted("all {} index ordinals are used", next_ordinal_);
      Step(next.slot, ShardOp::kFail, cause);
      continue;
    }
    const Ordinal ordinal = next_ordinal_++;
    if (ordinal + kOrdinalsReserved / 2 >= ordinals_reserved_ && store_error_.ok()) {
      ordinals_reserved_ = std::min<uint64_t>(uint64_t{ordinal} + kOrdinalsReserved, UINT32_MAX);
      std::string value;
      Append32(value, ordinals_reserved_);
      if (!Mutant(kMutantOrdinalsNotReserved)) batch_.Put(KvTable::kMeta, kMetaNextOrdinal, std::move(value));
      gathering_.ordinals_reserved = ordinals_reserved_;
    }
    uint64_t rests_on = active.pending;
    if (!store_error_.ok()) {
      rests_on = kNeverDurable;  // what it makes could not be stored, and its ordinal may not be reserved
    } else {
      rests_on = std::max(rests_on, ReservationOf(ordinal));
    }
    JobSpec job = NewJob(next.slot, JobKind::kInitialize, next.meta);
    job.old_ordinal = slot.ordinal;
    job.ordinal = ordinal;
    StartJob(std::move(job), next.meta.span, rests_on);
  }
  backlog_.insert(backlog_.begin(), held.begin(), held.end());
}

void Engine::StartOpen(uint32_t index) {
  Slot& slot = shards_[index];
  if (slot.state != ShardState::kAvailable && slot.state != ShardState::kServing) return;
  ActiveShard* active = ActiveOf(slot);
  if (active == nullptr || (active->job != nullptr && !Mutant(kMutantSecondOpen))) return;  // one runs
  const auto first = std::find_if(active->waiters.begin(), active->waiters.end(),
                                  [](const Waiter& w) { return w.op == ShardOp::kAcquire && !w.stopping; });
  if (first == active->waiters.end()) return;
  const TaskMeta meta = first->meta;
  StartJob(NewJob(index, JobKind::kOpen, meta), meta.span, active->pending);
}

void Engine::StartCollect(uint32_t index, Cause& cause) {
  ActiveShard& active = Activate(index);
  if (active.open != nullptr) Close(active);  // unused, or the row would not have fired
  JobSpec job = NewJob(index, JobKind::kCollect, cause.meta);
  job.victim = std::move(cause.victim);
  active.collect_running = true;
  StartJob(std::move(job), cause.meta.span, active.pending);
}

void Engine::StartDestroy(uint32_t index, const TaskMeta& meta) {
  ActiveShard& active = Activate(index);
  if (active.jobs_running != 0 && !Mutant(kMutantDestroyIgnoresJobs)) return;  // the last of them asks again
  if (active.destroy_running) return;
  if (active.open != nullptr) Close(active);
  active.destroy_running = true;
  StartJob(NewJob(index, JobKind::kDestroy, meta), meta.span, active.pending);
}

void Engine::Discard(std::string_view key, Ordinal ordinal, const TaskMeta& meta, std::string old_copy,
                     uint64_t rests_on) {
  if (ordinal == 0 && old_copy.empty()) return;
  if (ordinal != 0) seams_.top->Drop(ordinal);
  JobSpec job(Aside(meta));
  job.key = ShardKey(key);
  job.ordinal = ordinal;
  job.old_copy = std::move(old_copy);
  StartDiscard(std::move(job), rests_on);
}

void Engine::StartDiscard(JobSpec job, uint64_t rests_on) {
  job.kind = JobKind::kDiscard;
  job.slot = kNoSlot;
  job.control = std::make_shared<JobControl>();  // for its bytes; nobody stops it
  StartJob(std::move(job), SpanContext(), rests_on);
}

// ---- Stops and deadlines ----

StopOutcome Engine::StopNow(TicketId ticket) {
  ++stats_.stops;
  const StopOutcome outcome = Stop(ticket, StopReason::kStopped);
  if (outcome == StopOutcome::kAlreadyDone) ++stats_.stops_late;
  return outcome;
}

StopOutcome Engine::Stop(TicketId ticket, StopReason reason) {
  const auto it = parked_.find(ticket);
  if (it == parked_.end()) return StopOutcome::kAlreadyDone;  // answered already, or never accepted
  const uint32_t index = it->second;
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  const auto waiter = std::find_if(active.waiters.begin(), active.waiters.end(),
                                   [&](const Waiter& w) { return w.meta.ticket == ticket; });
  DAGSTORE_CHECK(waiter != active.waiters.end());
  if (waiter->stopping) return StopOutcome::kStopping;
  waiter->stop_reason = reason;
  if (reason == StopReason::kDeadline) ++stats_.deadlines_missed;

  Job* const job = active.job;
  const bool member = job != nullptr && !waiter->next_gen && Wants(waiter->op, job->kind);
  if (member && !job->dying() && job->stoppable && !job->fill && slot.state != ShardState::kDestroying &&
      (MembersOf(active) == 1 || Mutant(kMutantStopEndsJobOfOthers)) && !Mutant(kMutantStopLeavesJob)) {
    if (WorthFinishing(*job)) {
      job->fill = true;  // the cache is the last member
      job->fill_started = seams_.clock->Now();
      ++fills_running_;
      ++stats_.fills_kept;
      const Deadline end = Deadline::After(*seams_.clock, options_.fill_time_max);
      job->control->SetDeadline(job->control->deadline().Max(end));
      if (!end.IsInfinite()) timers_.push({end.at(), job->id, Timer::Kind::kFill});
    } else {
      CancelJob(*job);
    }
  }
  if (member && job->dying() && !Mutant(kMutantStoppedAtOnce)) {
    // The last who wanted it, or one whom the end of the store stops: he is answered when it has ended.
    waiter->stopping = true;
    waiter->waits_for = job->id;
    return StopOutcome::kStopping;
  }
  Reply reply = std::move(waiter->reply);
  ShardResult result = StopResult(*waiter, index);
  active.waiters.erase(waiter);
  parked_.erase(it);
  SendAnswer(std::move(reply), std::move(result), kNothingPending);
  const bool wanted = std::any_of(active.waiters.begin(), active.waiters.end(),
                                  [](const Waiter& w) { return !w.stopping && !w.collects(); });
  if (active.in_backlog && active.backlog_stoppable && !wanted) {  // its job had not begun
    active.in_backlog = false;
    const TaskMeta meta = OwnMeta();
    Cause cause(meta);
    cause.status = Cancelled("everybody who wanted it has left");
    cause.dying = true;
    Step(index, ShardOp::kFail, cause);
  } else {
    MaybeRest(index);
  }
  return StopOutcome::kStopped;
}

bool Engine::Lives(const Timer& timer) const {
  return timer.kind == Timer::Kind::kTicket ? parked_.contains(timer.id) : jobs_.contains(timer.id);
}

void Engine::FireTimers() {
  if (timers_.empty() || Mutant(kMutantDeadlinesIgnored)) return;
  if (timers_.size() > 2 * (parked_.size() + jobs_.size()) + kTimersAnsweredMax) {  // most belong to what ended in time
    std::vector<Timer> living;
    for (; !timers_.empty(); timers_.pop()) {
      if (Lives(timers_.top())) living.push_back(timers_.top());
    }
    timers_ = std::priority_queue<Timer>(std::less<Timer>(), std::move(living));
  }
  const MonotonicNanos now = seams_.clock->Now();
  while (!timers_.empty() && (timers_.top().at <= now || !Lives(timers_.top()))) {
    const Timer timer = timers_.top();
    timers_.pop();
    FireTimer(timer);
  }
}

void Engine::FireTimer(const Timer& timer) {
  if (timer.kind == Timer::Kind::kTicket) {
    (void)Stop(timer.id, StopReason::kDeadline);
    return;
  }
  const auto at = jobs_.find(timer.id);
  if (at == jobs_.end()) return;
  Job& job = *at->second;
  switch (timer.kind) {
    case Timer::Kind::kTicket:
      break;
    case Timer::Kind::kStopGrace:
      AfterGrace(job);
      break;
    case Timer::Kind::kFill: {
      const uint32_t index = shards_.Find(job.key.bytes());
      const ActiveShard* active = index == kNoSlot ? nullptr : ActiveOf(shards_[index]);
      if (active != nullptr && active->job == &job && MembersOf(*active) == 0) CancelJob(job);
      if (job.fill) --fills_running_;
      job.fill = false;  // whoever joined goes on alone
      break;
    }
    case Timer::Kind::kTimeMax:
      if (job.dying()) break;
      job.time_is_up = true;
      CancelJob(job);
      break;
  }
}

// It does not stop. Who waits for that is answered; the job is named, and Close waits for it.
void Engine::AfterGrace(Job& job) {
  job.straggler = true;
  ++stats_.stragglers;
  const uint32_t index = shards_.Find(job.key.bytes());
  if (index == kNoSlot) return;
  Slot& slot = shards_[index];
  const absl::Status status =
      DeadlineExceeded("{} was told to stop and has not within {}", NameOf(job),
                       absl::FormatDuration(options_.stop_grace));
  Notify(slot, slot.state, slot.state, status, job.meta);
  AnswerStopped(index, &job);
}

std::vector<std::string> Engine::Stragglers() const {
  std::vector<std::string> names;
  for (const auto& entry : jobs_) {
    if (entry.second->straggler) names.push_back(NameOf(*entry.second));
  }
  return names;
}

// ---- Close ----

void Engine::BeginClose(Deadline grace) {
  if (close_phase_ != ClosePhase::kOpen) return;
  close_phase_ = ClosePhase::kDraining;
  close_grace_ = grace;
  CloseGates();
  Log(LogLevel::kInfo, {}, fmt::format("closing: {} requests and {} jobs may finish", parked_.size(), jobs_.size()));
  // Who came too late for a dying job would need a new one.
  std::vector<TicketId> late;
  for (const auto& active : active_) {
    if (active == nullptr || active->slot == kNoSlot) continue;
    for (const Waiter& waiter : active->waiters) {
      if (waiter.next_gen && !waiter.stopping) late.push_back(waiter.meta.ticket);
    }
  }
  for (const TicketId ticket : late) (void)Stop(ticket, StopReason::kShuttingDown);
}

// Once nothing else is left.
void Engine::AwaitAccessors() {
  if (close_phase_ == ClosePhase::kReleasing || !Idle()) return;
  close_phase_ = ClosePhase::kReleasing;
  close_grace_ = Deadline::After(*seams_.clock, options_.close_accessor_wait);
  if (const uint64_t out = ReferencesOut(); out != 0) {
    Log(LogLevel::kInfo, {}, fmt::format("closing: {} accessors are still out", out));
  }
}

// Drained, or out of time: everyone who waits is told so, and every job to end.
void Engine::StopEverything() {
  close_phase_ = ClosePhase::kStopping;
  close_grace_ = Deadline::Infinite();
  Log(LogLevel::kInfo, {}, fmt::format("closing: stopping {} requests and {} jobs", parked_.size(), jobs_.size()));
  for (const auto& entry : jobs_) {
    Job& job = *entry.second;
    if (job.kind != JobKind::kDestroy && job.kind != JobKind::kDiscard) CancelJob(job);
  }
  std::vector<TicketId> waiting;
  for (const auto& active : active_) {
    if (active == nullptr || active->slot == kNoSlot) continue;
    if (shards_[active->slot].state == ShardState::kDestroying) continue;
    for (const Waiter& waiter : active->waiters) waiting.push_back(waiter.meta.ticket);
  }
  for (const TicketId ticket : waiting) (void)Stop(ticket, StopReason::kShuttingDown);
  for (const Waiting& next : backlog_) {
    if (!shards_.Lives(next.slot, next.incarnation)) continue;
    ActiveShard* active = ActiveOf(shards_[next.slot]);
    if (active == nullptr || !active->in_backlog) continue;
    active->in_backlog = false;
    const TaskMeta meta = OwnMeta();
    Cause cause(meta);
    cause.dying = true;
    cause.status = Cancelled("the store is closing");
    Step(next.slot, ShardOp::kFail, cause);
  }
  backlog_.clear();
}

uint64_t Engine::ReferencesOut() const {
  uint64_t out = 0;
  for (const auto& active : active_) {
    if (active == nullptr || active->slot == kNoSlot) continue;
    out += shards_[active->slot].references + ReadersInside(shards_[active->slot]);
  }
  return out;
}

bool Engine::Idle() const {
  return internal_.empty() && completions_.empty() && requests_.empty() && backlog_.empty() &&
         (jobs_running_ == 0 || Mutant(kMutantCloseLeavesJobs)) && batch_.empty() && closed_.empty() &&
         parked_.empty() && answers_out_.empty() && seams_.queues->Empty();
}

bool Engine::Finished() const {
  if (close_phase_ != ClosePhase::kReleasing || !Idle()) return false;
  return close_grace_.Passed(seams_.clock->Now()) || ReferencesOut() == 0;
}

// ---- Gates ----

uint64_t Engine::PendingOf(const Slot& slot) const {
  return slot.active == kNoActive ? kNothingPending : active_[slot.active]->pending;
}

Engine::Gate* Engine::GateFor(uint64_t rests_on) {
  if (rests_on <= durable_) return nullptr;
  if (rests_on == batch_sequence_) return &gathering_;
  const uint64_t place = rests_on - durable_ - 1;
  DAGSTORE_CHECK(place < closed_.size() && closed_[place].sequence == rests_on);
  return &closed_[place].gate;
}

// What is gathered while a commit takes long must not grow until the database refuses it.
void Engine::MakeRoomInBatch(uint64_t bytes) {
  const bool fits = batch_.bytes() + bytes <= options_.commit_batch_bytes;
  if (batch_.empty() || fits || Mutant(kMutantBatchesUnlimited)) return;
  CloseBatch();
}

void Engine::CloseBatch() {
  closed_.push_back({batch_sequence_++, std::exchange(batch_, {}), std::exchange(gathering_, {})});
}

uint64_t Engine::ReservationOf(Ordinal ordinal) const {
  if (ordinal < ordinals_durable_) return kNothingPending;
  for (const ClosedBatch& closed : closed_) {
    if (ordinal < closed.gate.ordinals_reserved) return closed.sequence;
  }
  return batch_sequence_;
}

void Engine::SendAnswer(Reply reply, ShardResult result, uint64_t rests_on) {
  if (reply.empty()) return;
  if (Mutant(kMutantAckBeforeCommit)) rests_on = kNothingPending;
  if (rests_on == kNeverDurable) {
    result.status = Unavailable("the store is read-only: {}", ToString(store_error_));
    result.accessor = Accessor();
    answers_out_.push_back({std::move(reply), std::move(result)});
    return;
  }
  Gate* gate = GateFor(rests_on);
  (gate == nullptr ? answers_out_ : gate->answers).push_back({std::move(reply), std::move(result)});
}

void Engine::DeliverAnswers() {
  stats_.answers += answers_out_.size();
  MonotonicNanos now = 0;  // read once, if anybody wants to know
  for (Answer& answer : answers_out_) {
    Reply& reply = answer.reply;
    const size_t code = std::min(static_cast<size_t>(answer.result.status.code()), kStatusCodes - 1);
    ++stats_.answers_by_code[static_cast<size_t>(reply.op)][code];
    if (reply.asked != 0) {
      if (now == 0) now = seams_.clock->Now();
      stats_.latency[static_cast<size_t>(reply.op)].AddNanos(now - reply.asked);
    }
    if (reply.trace != nullptr) {
      if (now == 0) now = seams_.clock->Now();
      SpanRecord& span = *reply.trace;
      span.end = std::max(now, span.start);
      if (answer.result.stop_reason != StopReason::kNone) {
        span.AddText("dagstore.stop_reason", StopReasonName(answer.result.stop_reason));
      }
      if (answer.result.work_abandoned) span.AddBool("dagstore.work_abandoned", true);
      span.SetStatus(answer.result.status);
      Record(std::move(span));
    }
    reply.slot.Deliver(std::move(answer.result));
  }
  answers_out_.clear();
}

void Engine::SendBatch(bool idle) {
  if (committing_ || (batch_.empty() && closed_.empty())) return;
  if (closed_.empty()) {
    if (gathering_.changes < gather_target_ && gather_looks_ > 0) {
      if (idle) --gather_looks_;
      return;
    }
    CloseBatch();
  }
  ClosedBatch& next = closed_.front();
  gather_target_ = 0;
  committing_ = true;
  ++stats_.commits;
  stats_.changes_committed += next.gate.changes;
  stats_.batch_changes.Add(next.gate.changes);
  commit_started_ = seams_.clock->Now();
  seams_.commits->Commit(next.sequence, std::exchange(next.batch, {}));
}

void Engine::CommitDone(uint64_t sequence, const absl::Status& status) {
  DAGSTORE_CHECK(committing_ && sequence == closed_.front().sequence);
  committing_ = false;
  stats_.commit_time.AddNanos(seams_.clock->Now() - commit_started_);
  if (status.ok() || Mutant(kMutantCommitErrorIgnored)) {
    durable_ = sequence;
    Gate gate = std::move(closed_.front().gate);
    closed_.pop_front();
    if (gate.answers.size() > 1) {  // nobody waits for a lone caller
      gather_target_ = gathering_.changes + gate.answers.size();
      gather_looks_ = kGatherLooks;
    }
    Open(std::move(gate));
    return;
  }
  // Nothing more is stored. What was promised on this batch, or gathered for the next, is answered with the error.
  store_error_ = status;
  Log(LogLevel::kError, {}, fmt::format("a commit failed, the store is read-only from now on: {}", ToString(status)));
  CloseBatch();
  for (ClosedBatch& closed : std::exchange(closed_, {})) {
    Gate& gate = closed.gate;
    for (uint32_t index : gate.touched) {
      if (ActiveShard* active = ActiveOf(shards_[index])) active->pending = kNeverDurable;
    }
    for (JobSpec& job : gate.jobs) {
      auto result = std::make_unique<JobResult>();
      result->status = Unavailable("the store is read-only: {}", ToString(store_error_));
      seams_.queues->PushJobDone(job, std::move(result));
    }
    for (Answer& answer : gate.answers) SendAnswer(std::move(answer.reply), std::move(answer.result), kNeverDurable);
  }
}

void Engine::Open(Gate gate) {
  ordinals_durable_ = std::max(ordinals_durable_, gate.ordinals_reserved);
  // All that is new before anything old dies: a lookup beside this finds a shard by the one or by the other.
  for (const Publication& publication : gate.publications) {
    if (shards_.Lives(publication.slot, publication.incarnation) &&
        shards_[publication.slot].ordinal == publication.ordinal &&
        shards_[publication.slot].state != ShardState::kDestroying) {
      seams_.directory->Set(publication.ordinal, shards_[publication.slot].key());
    }
  }
  for (Publication& publication : gate.publications) {
    if (publication.old_ordinal != 0) seams_.directory->Clear(publication.old_ordinal);
    // The slot lives: to be erased it needs a job that rests on this batch.
    if ((publication.old_ordinal != 0 || !publication.old_copy.empty()) && !Mutant(kMutantOldIndexKept)) {
      Discard(shards_[publication.slot].key(), publication.old_ordinal, publication.meta,
              std::move(publication.old_copy));
    }
  }
  for (uint32_t index : gate.touched) {
    Slot& slot = shards_[index];
    ActiveShard* active = ActiveOf(slot);
    if (active == nullptr) continue;
    if (active->pending <= durable_) active->pending = kNothingPending;
    MaybeRest(index);
  }
  for (JobSpec& job : gate.jobs) jobs_out_.push_back(std::move(job));
  for (Answer& answer : gate.answers) answers_out_.push_back(std::move(answer));
}

// ---- Active shards ----

Engine::ActiveShard* Engine::ActiveOf(const Slot& slot) {
  return slot.active == kNoActive ? nullptr : active_[slot.active].get();
}

Engine::ActiveShard& Engine::Activate(uint32_t index) {
  Slot& slot = shards_[index];
  if (slot.active != kNoActive) return *active_[slot.active];
  if (active_free_.empty()) {
    active_free_.push_back(static_cast<uint32_t>(active_.size()));
    active_.push_back(std::make_unique<ActiveShard>());
  }
  slot.active = active_free_.back();
  active_free_.pop_back();
  ActiveShard& active = *active_[slot.active];
  std::vector<Waiter> waiters = std::move(active.waiters);  // keeps its memory
  waiters.clear();
  active = ActiveShard();
  active.waiters = std::move(waiters);
  active.slot = index;
  return active;
}

void Engine::MaybeRest(uint32_t index) {
  if (index >= shards_.slots()) return;
  Slot& slot = shards_[index];
  ActiveShard* active = ActiveOf(slot);
  if (active == nullptr || !active->waiters.empty() || active->open != nullptr || active->jobs_running != 0 ||
      active->in_backlog || active->pending != kNothingPending || !active->error.ok() || active->attempts != 0) {
    return;
  }
  active->slot = kNoSlot;
  active_free_.push_back(slot.active);
  slot.active = kNoActive;
}

void Engine::Close(ActiveShard& active) {
  if (active.open == nullptr) return;
  TakeReaders(active.slot);
  IdleRemove(shards_[active.slot].active);
  --open_count_;
  active.lease.reset();
  seams_.jobs->DropLater(std::move(active.open));
  active.open = nullptr;
}

void Engine::SetOpen(ActiveShard& active, std::shared_ptr<const OpenShard> open, const TaskMeta& meta) {
  Close(active);
  active.open = std::move(open);
  if (active.open == nullptr) return;
  active.opened_by = meta;
  active.lease = NewLease(active);
  ++open_count_;
  if (shards_[active.slot].references == 0) IdleAdd(shards_[active.slot].active);
}

void Engine::IdleAdd(uint32_t place) {
  ActiveShard& active = *active_[place];
  if (active.idle) return;
  active.idle = true;
  active.idle_prev = idle_last_;
  active.idle_next = kNoActive;
  (idle_last_ == kNoActive ? idle_first_ : active_[idle_last_]->idle_next) = place;
  idle_last_ = place;
  ++idle_count_;
}

void Engine::IdleRemove(uint32_t place) {
  ActiveShard& active = *active_[place];
  if (!active.idle) return;
  active.idle = false;
  (active.idle_prev == kNoActive ? idle_first_ : active_[active.idle_prev]->idle_next) = active.idle_next;
  (active.idle_next == kNoActive ? idle_last_ : active_[active.idle_next]->idle_prev) = active.idle_prev;
  active.idle_prev = active.idle_next = kNoActive;
  --idle_count_;
}

void Engine::EvictIdle() {
  for (size_t looks = 0; idle_count_ > options_.open_shards_max; ++looks) {
    const uint32_t place = idle_first_;
    ActiveShard& active = *active_[place];
    const uint32_t index = active.slot;
    if (looks < kEvictLooksMax && active.lease->gate.TakeUsed()) {  // released last, but not used last
      IdleRemove(place);
      IdleAdd(place);
      continue;
    }
    TakeReaders(index);
    if (!active.idle) continue;  // somebody is inside
    Close(active);
    MaybeRest(index);
  }
}

void Engine::Notify(const Slot& slot, ShardState from, ShardState to, const absl::Status& status,
                    const TaskMeta& meta) {
  ++stats_.failures_by_code[std::min(static_cast<size_t>(status.code()), kStatusCodes - 1)];
  if (seams_.log != nullptr) {
    Log(LogLevel::kWarning, meta.span,
        fmt::format("shard \"{}\" {} -> {}: {}", ShardKey(slot.key()).Printable(), StateName(from), StateName(to),
                    ToString(status)));
  }
  seams_.failures->Publish({seams_.clock->WallNow(), ShardKey(slot.key()), from, to, status});
}

// ---- Looking ----

std::optional<ShardSnapshot> Engine::Look(std::string_view key) const {
  const uint32_t index = shards_.Find(key);
  if (index == kNoSlot) return std::nullopt;
  const Slot& slot = shards_[index];
  ShardSnapshot snapshot;
  snapshot.references = slot.references + ReadersInside(slot);
  snapshot.state =
      slot.state == ShardState::kAvailable && snapshot.references != 0 ? ShardState::kServing : slot.state;
  snapshot.ordinal = slot.ordinal;
  snapshot.lazy = slot.lazy;
  snapshot.has_copy = slot.has_copy;
  if (slot.active != kNoActive) snapshot.error = active_[slot.active]->error;
  return snapshot;
}

void Engine::StoreBeside(const ShardKey& key, KvBatch changes, const TaskMeta& meta, Reply reply) {
  ShardResult result;
  result.key = key;
  result.ticket = meta.ticket;
  const uint32_t index = shards_.Find(key.bytes());
  if (!meta.deadline.IsInfinite() && meta.deadline.Passed(seams_.clock->Now())) {
    result.status = DeadlineExceeded("the deadline passed before the request ran");
    SendAnswer(std::move(reply), std::move(result), kNothingPending);
    return;
  }
  if (index == kNoSlot || shards_[index].state == ShardState::kDestroying) {
    result.status = NotFound("no shard \"{}\"", key.Printable());
    SendAnswer(std::move(reply), std::move(result), kNothingPending);
    return;
  }
  if (!store_error_.ok()) {
    SendAnswer(std::move(reply), std::move(result), kNeverDurable);
    return;
  }
  MakeRoomInBatch(changes.bytes());
  batch_.Append(std::move(changes));
  ++gathering_.changes;
  SendAnswer(std::move(reply), std::move(result), batch_sequence_);
}

bool Engine::MayPublish(Ordinal ordinal) const {
  const auto in = [ordinal](const Gate& gate) {
    return std::any_of(gate.publications.begin(), gate.publications.end(),
                       [ordinal](const Publication& publication) { return publication.ordinal == ordinal; });
  };
  return in(gathering_) ||
         std::any_of(closed_.begin(), closed_.end(), [&](const ClosedBatch& closed) { return in(closed.gate); }) ||
         std::any_of(jobs_.begin(), jobs_.end(), [ordinal](const auto& job) {
           return job.second->kind == JobKind::kInitialize && job.second->ordinal == ordinal;
         });
}

void Engine::ReportDamage(const ShardKey& key, Ordinal ordinal, absl::Status status, Damage damage) {
  const uint32_t index = shards_.Find(key.bytes());
  if (index != kNoSlot) TakeDamage(index, ordinal, std::move(status), damage, OwnMeta());
}

EngineStats Engine::Stats() const {
  EngineStats stats = stats_;
  stats.jobs_running = jobs_running_;
  stats.jobs_waiting = backlog_.size();
  stats.timers = timers_.size();
  stats.active_shards = active_.size() - 1 - active_free_.size();
  stats.open_shards = open_count_;
  stats.store_error = store_error_;
  for (const auto& active : active_) {
    if (active == nullptr || active->slot == kNoSlot || active->lease == nullptr) continue;
    const ReaderGate& gate = active->lease->gate;
    if (!gate.open()) continue;
    stats.acquires_inline += gate.entered();
    if (gate.readers() != 0 && shards_[active->slot].state == ShardState::kAvailable) {
      --stats.shards_by_state[static_cast<size_t>(ShardState::kAvailable)];
      ++stats.shards_by_state[static_cast<size_t>(ShardState::kServing)];
    }
  }
  stats.acquires += stats.acquires_inline;
  stats.fills_running = fills_running_;
  stats.requests_waiting = requests_.size();
  stats.completions_waiting = completions_.size();
  stats.references = ReferencesOut();
  stats.close_phase = close_phase_;
  return stats;
}

std::vector<ShardKey> Engine::Collectable(size_t keys_max) const {
  std::vector<ShardKey> keys;
  for (uint32_t index = 0; index < shards_.slots() && keys.size() < keys_max; ++index) {
    const Slot& slot = shards_[index];
    if (slot.key_bytes != nullptr && slot.has_copy && slot.references == 0 && ReadersInside(slot) == 0 &&
        (slot.state == ShardState::kAvailable || slot.state == ShardState::kErrored)) {
      keys.emplace_back(slot.key());
    }
  }
  return keys;
}

bool Engine::Evict(const ShardKey& key, const std::string& victim) {
  if (!store_error_.ok()) return false;
  const uint32_t index = shards_.Find(key.bytes());
  const TaskMeta meta = OwnMeta();
  bool of_record = false;
  if (index != kNoSlot) {
    const Slot& slot = shards_[index];
    const ActiveShard* active = ActiveOf(slot);
    const bool busy = slot.references != 0 || ReadersInside(slot) != 0 ||
                      (active != nullptr && (active->jobs_running != 0 || !active->waiters.empty()));
    if (busy && (slot.state == ShardState::kAvailable || slot.state == ShardState::kServing)) return false;
    if (slot.state == ShardState::kDestroying) return false;  // all its copies go
    const bool errored = slot.state == ShardState::kErrored && !busy && !Mutant(kMutantErroredCopyKept);
    of_record = slot.has_copy && (slot.state == ShardState::kAvailable || errored);
  }
  if (!of_record) {
    // What an attempt left for another, or nobody knows. The job sees whether it is in use.
    JobSpec job(Aside(meta));
    job.key = key;
    job.victim = victim;
    StartDiscard(std::move(job), kNothingPending);
    return true;
  }
  Cause cause(meta);
  cause.victim = victim;
  Step(index, ShardOp::kCollect, cause);
  // A reader may have slipped in, and then nothing began.
  const ActiveShard* now = ActiveOf(shards_[index]);
  return now != nullptr && now->jobs_running != 0;
}

}  // namespace dagstore
