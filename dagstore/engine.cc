#include "dagstore/engine.h"

#include <algorithm>
#include <utility>

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

// Work the store starts for nobody in particular.
TaskMeta OwnMeta() { return TaskMeta(SpanContext(), Deadline::Infinite(), 0); }

}  // namespace

Engine::Engine(const Options& options, Seams seams) : options_(options), seams_(std::move(seams)) {
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

void Engine::RestoreOrdinals(Ordinal next, Ordinal durable) {
  next_ordinal_ = next;
  ordinals_reserved_ = durable;
  ordinals_durable_ = durable;
}

// ---- The turn ----

bool Engine::Turn() {
  const MonotonicNanos begin = seams_.clock->Now();
  seams_.queues->Take(completions_, requests_);
  size_t tasks = 0;
  while (tasks < options_.turn_tasks_max) {
    if (!internal_.empty()) {
      const Internal task = internal_.front();
      internal_.pop_front();
      RunInternal(task);
    } else if (!completions_.empty() &&
               (requests_.empty() || completions_in_a_row_ < options_.completions_per_request)) {
      ++completions_in_a_row_;
      RunCompletion(completions_.Pop());
    } else if (!requests_.empty()) {
      completions_in_a_row_ = 0;
      RunRequest(requests_.Pop());
    } else {
      break;
    }
    ++tasks;
  }
  // Completions that have arrived beat deadlines that pass in the same turn.
  if (completions_.empty()) FireTimers();
  if (closing_ && close_grace_.Passed(begin) && !Mutant(kMutantGraceHasNoEnd)) StopEverything();
  StartBacklog();
  EvictIdle();

  SendBatch(/*idle=*/tasks == 0);
  for (JobSpec& job : jobs_out_) seams_.jobs->Start(std::move(job));
  jobs_out_.clear();
  stats_.answers += answers_out_.size();
  for (Answer& answer : answers_out_) answer.reply.Deliver(std::move(answer.result));
  answers_out_.clear();

  if (tasks != 0) {
    ++stats_.turns;
    stats_.tasks += tasks;
    const MonotonicNanos took = seams_.clock->Now() - begin;
    stats_.turn_nanos_max = std::max(stats_.turn_nanos_max, took);
    if (took > kSlowTurn) ++stats_.turns_over_5ms;
  }
  return !internal_.empty() || !completions_.empty() || !requests_.empty() || seams_.queues->HasWork() ||
         (!committing_ && !batch_.empty());
}

Deadline Engine::NextTimer() const {
  Deadline next = timers_.empty() ? Deadline::Infinite() : Deadline::At(timers_.top().at);
  if (closing_) next = next.Min(close_grace_);
  return next;
}

void Engine::RunRequest(Request request) {
  if (request.inspect != nullptr) {
    request.inspect(*this);
    return;
  }
  if (request.stop) {
    Stop(request.meta.ticket, Cancelled("stopped by its caller"));
    return;
  }
  Cause cause(request.meta);
  cause.reply = std::move(request.reply);
  cause.registration = request.registration.get();
  if (!request.meta.deadline.IsInfinite() && request.meta.deadline.Passed(seams_.clock->Now())) {
    ShardResult result;
    result.key = std::move(request.key);
    result.ticket = request.meta.ticket;
    result.status = DeadlineExceeded("{}: the deadline passed before the request ran", OpName(request.op));
    SendAnswer(std::move(cause.reply), std::move(result), kNothingPending);
    return;
  }

  uint32_t index = shards_.Find(request.key.bytes());
  if (index == kNoSlot) {
    if (request.op != ShardOp::kRegister || !store_error_.ok()) {
      ShardResult result;
      result.status = request.op == ShardOp::kRegister
                          ? Unavailable("the store is read-only: {}", ToString(store_error_))
                          : NotFound("no shard \"{}\"", request.key.Printable());
      result.key = std::move(request.key);
      result.ticket = request.meta.ticket;
      SendAnswer(std::move(cause.reply), std::move(result), kNothingPending);
      return;
    }
    index = shards_.Insert(request.key.bytes());
    Slot& slot = shards_[index];
    slot.lazy = request.registration->lazy;
    ++stats_.shards_by_state[static_cast<size_t>(slot.state)];
    cause.fresh = true;
  }
  if (request.op == ShardOp::kAcquire) ++stats_.acquires;
  Step(index, request.op, cause);
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
  const TaskMeta meta = OwnMeta();
  Cause cause(meta);
  if (completion.kind == Completion::Kind::kRelease) {
    Step(completion.slot, ShardOp::kRelease, cause);
    return;
  }
  TakeDamage(completion.slot, completion.ordinal, std::move(completion.status), completion.damage);
}

// Damage concerns the index and the copy that were read; a newer one is not to blame.
void Engine::TakeDamage(uint32_t index, Ordinal ordinal, absl::Status status, Damage damage) {
  const Slot& slot = shards_[index];
  const bool other = slot.ordinal != ordinal && !Mutant(kMutantOldDamageTaken);
  if (other || (slot.state != ShardState::kServing && slot.state != ShardState::kAvailable)) {
    ++stats_.stale_completions;
    return;
  }
  if (damage == Damage::kBlock) {
    Notify(slot, slot.state, slot.state, status);
    return;
  }
  const TaskMeta meta = OwnMeta();
  Cause cause(meta);
  cause.status = std::move(status);
  cause.index_damaged = damage == Damage::kIndex;
  Step(index, ShardOp::kFail, cause);
}

void Engine::JobDone(Completion& done) {
  --jobs_running_;
  if (done.job == JobKind::kDiscard) return;
  DAGSTORE_CHECK(shards_.Lives(done.slot, done.incarnation));  // a shard is not forgotten while a job of it runs
  Slot& slot = shards_[done.slot];
  ActiveShard& active = Activate(done.slot);
  --active.jobs_running;
  if (done.job == JobKind::kDestroy) active.destroy_running = false;

  const TaskMeta meta = OwnMeta();
  JobResult& result = *done.result;
  if (done.generation != slot.generation && !Mutant(kMutantStaleCompletionTaken)) {
    ++stats_.stale_completions;
    if (result.open != nullptr) seams_.jobs->DropLater(std::move(result.open));
    if (done.job == JobKind::kInitialize) Discard(slot.key(), done.ordinal);
    if (slot.state == ShardState::kDestroying) StartDestroy(done.slot, meta);
    MaybeRest(done.slot);
    return;
  }
  const bool asked_to_stop = active.cancel->cancelled();
  active.cancel.reset();
  if (result.status.code() == absl::StatusCode::kCancelled && !asked_to_stop) {
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
  cause.status = result.status;
  cause.index_damaged = result.index_damaged;
  cause.ordinal = done.ordinal;
  if (!result.status.ok()) {
    if (done.job == JobKind::kInitialize && !Mutant(kMutantDeadIndexKept)) Discard(slot.key(), done.ordinal);
    Step(done.slot, ShardOp::kFail, cause);
    return;
  }
  switch (done.job) {
    case JobKind::kInitialize:
      Step(done.slot, ShardOp::kMakeAvailable, cause);
      return;
    case JobKind::kOpen:
      StoreCopy(done.slot, result);
      SetOpen(active, std::move(result.open));
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
    if (waiter.op != ShardOp::kCollect && !waiter.stopping) {
      active.waiters.push_back(std::move(waiter));  // an acquirer who came meanwhile
      continue;
    }
    parked_.erase(waiter.ticket);
    ShardResult answer;
    answer.key = ShardKey(slot.key());
    answer.ticket = waiter.ticket;
    answer.status = waiter.stopping ? waiter.stop_reason : result.status;
    if (Mutant(kMutantCollectUnanswered)) continue;
    SendAnswer(std::move(waiter.reply), std::move(answer), active.pending);
  }
  StartOpen(index, OwnMeta());
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
  if (op == ShardOp::kFail || op == ShardOp::kRecover || (op == ShardOp::kAcquire && from == ShardState::kErrored)) {
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
    SetOpen(active, nullptr);  // reads by the old index
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
  if ((row.effects & kNotify) != 0 && !Mutant(kMutantFailureUntold)) Notify(slot, from, row.next, cause.status);
  if ((row.effects & kFailParked) != 0) {
    FailParked(index, op == ShardOp::kDestroy ? FailedPrecondition("the shard is being destroyed") : cause.status);
  }
  if ((row.effects & kServe) != 0) {
    Waiter waiter;
    waiter.ticket = cause.meta.ticket;
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
  if ((row.effects & kStartInitialize) != 0) QueueInitializeJob(index, cause.meta);
  if ((row.effects & kStartOpen) != 0) StartOpen(index, cause.meta);
  if ((row.effects & kStartCollect) != 0) StartCollect(index, cause.meta);
  if ((row.effects & kStartDestroy) != 0) StartDestroy(index, cause.meta);

  if ((row.effects & kErase) != 0) {
    --stats_.shards_by_state[static_cast<size_t>(slot.state)];
    ActiveShard& active = Activate(index);
    DAGSTORE_CHECK(active.jobs_running == 0 && active.waiters.empty() && slot.references == 0);
    SetOpen(active, nullptr);
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
    if (row.op == ShardOp::kMakeAvailable) Discard(slot.key(), cause.ordinal);
    return;
  }
  std::string key(slot.key());
  if ((row.effects & kPersistDestroying) != 0) {
    if (!Mutant(kMutantDestroyingNotStored)) batch_.Put(KvTable::kDestroying, std::move(key), {});
  } else if ((row.effects & kErase) != 0) {
    batch_.Append(std::move(cause.result->batch));
    if (!Mutant(kMutantDestroyMarkStays)) batch_.Delete(KvTable::kDestroying, key);
    if (!Mutant(kMutantRecordOutlivesShard)) batch_.Delete(KvTable::kRecords, std::move(key));
  } else if (cause.registration != nullptr) {
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(*cause.registration));
  } else if (row.op == ShardOp::kMakeAvailable) {
    slot.has_copy = cause.result->record->copy.has_value();
    batch_.Append(std::move(cause.result->batch));
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(*cause.result->record));
    gathering_.publications.push_back({index, slot.incarnation, cause.ordinal, slot.ordinal});
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
    batch_.Put(KvTable::kRecords, std::move(key), EncodeRecord(record));
  }
  active.pending = batch_sequence_;
  gathering_.touched.push_back(index);
  ++gathering_.changes;
}

void Engine::Park(uint32_t index, ShardOp op, Cause& cause) {
  if (cause.reply.empty()) return;  // the store asked itself
  Waiter waiter;
  waiter.op = op;
  waiter.ticket = cause.meta.ticket;
  waiter.span = cause.meta.span;
  waiter.reply = std::move(cause.reply);
  parked_[waiter.ticket] = index;
  if (!cause.meta.deadline.IsInfinite()) timers_.push({cause.meta.deadline.at(), waiter.ticket, index});
  Activate(index).waiters.push_back(std::move(waiter));
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
  result.ticket = waiter.ticket;
  result.accessor = Accessor(active.lease);
  SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
}

void Engine::ServeParked(uint32_t index) {
  ActiveShard& active = Activate(index);
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (waiter.op != ShardOp::kAcquire) {
      active.waiters.push_back(std::move(waiter));
      continue;
    }
    parked_.erase(waiter.ticket);
    if (waiter.stopping) {
      ShardResult result;
      result.key = active.open->key;
      result.ticket = waiter.ticket;
      result.status = waiter.stop_reason;
      if (Mutant(kMutantStoppedUnanswered)) continue;
      SendAnswer(std::move(waiter.reply), std::move(result), kNothingPending);
    } else {
      Serve(index, waiter);
    }
  }
}

void Engine::ReplyParked(uint32_t index) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (waiter.op == ShardOp::kAcquire && !waiter.stopping) {
      active.waiters.push_back(std::move(waiter));  // waits for the data to be open
      continue;
    }
    parked_.erase(waiter.ticket);
    ShardResult result;
    result.key = ShardKey(slot.key());
    result.ticket = waiter.ticket;
    if (waiter.stopping) result.status = waiter.stop_reason;
    SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
  }
}

void Engine::FailParked(uint32_t index, const absl::Status& status) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  // A cancelled job answers those who stopped it; whoever came later gets a job of his own.
  const bool cancelled = status.code() == absl::StatusCode::kCancelled && !closing_;
  std::vector<Waiter> waiters = std::exchange(active.waiters, {});
  for (Waiter& waiter : waiters) {
    if (cancelled && !waiter.stopping) {
      active.waiters.push_back(std::move(waiter));
      continue;
    }
    parked_.erase(waiter.ticket);
    if (Mutant(kMutantFirstFailedUnanswered) && &waiter == &waiters.front()) continue;
    ShardResult result;
    result.key = ShardKey(slot.key());
    result.ticket = waiter.ticket;
    result.status = waiter.stopping
                        ? waiter.stop_reason
                        : Annotate(status, fmt::format("{} shard \"{}\"", OpName(waiter.op), result.key.Printable()));
    SendAnswer(std::move(waiter.reply), std::move(result), active.pending);
  }
  if (active.waiters.empty()) return;
  const TaskMeta meta(active.waiters.front().span, Deadline::Infinite(), active.waiters.front().ticket);
  if (slot.state == ShardState::kNew) {
    internal_.push_back({ShardOp::kInitialize, index, slot.incarnation, meta});
  } else if (slot.state == ShardState::kErrored) {
    internal_.push_back({ShardOp::kRecover, index, slot.incarnation, meta});
  } else {
    StartOpen(index, meta);
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
  return options_.inline_acquire && !closing_ && !seams_.traces->HasSubscribers();
}

std::shared_ptr<const Lease> Engine::NewLease(const ActiveShard& active) const {
  return std::make_shared<const Lease>(active.open, seams_.queues, active.slot, shards_[active.slot].incarnation,
                                       GatesMayOpen());
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
  if (active->cancel != nullptr) active->cancel->Cancel();
  active->cancel.reset();
  active->in_backlog = false;
  ++slot.generation;  // what they report is dropped
}

// ---- Jobs ----

JobSpec Engine::NewJob(uint32_t index, JobKind kind, const TaskMeta& meta) {
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  JobSpec job(meta);
  job.kind = kind;
  job.slot = index;
  job.incarnation = slot.incarnation;
  job.generation = ++slot.generation;
  job.key = ShardKey(slot.key());
  job.ordinal = slot.ordinal;
  job.attempts = active.attempts;
  // Waiters leave by their own deadlines, and the last of them stops the job.
  if (!Mutant(kMutantFirstDeadlineIsJobs)) job.meta.deadline = Deadline::Infinite();
  job.cancel = std::make_shared<CancelFlag>();
  if (stopped_everything_ && kind != JobKind::kDestroy) job.cancel->Cancel();
  active.stoppable = meta.ticket != 0 || kind == JobKind::kOpen;
  active.cancel = job.cancel;
  ++active.jobs_running;
  return job;
}

void Engine::StartJob(JobSpec job, uint64_t rests_on) {
  ++jobs_running_;
  ++stats_.jobs_started;
  if (Mutant(kMutantJobBeforeCommit)) rests_on = kNothingPending;
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
  Activate(index).in_backlog = true;
  backlog_.push_back({index, shards_[index].incarnation, meta});
}

void Engine::StartBacklog() {
  while (!backlog_.empty() && (jobs_running_ < options_.jobs_running_max || Mutant(kMutantJobsUnlimited))) {
    const Waiting next = backlog_.front();
    backlog_.pop_front();
    if (!shards_.Lives(next.slot, next.incarnation)) continue;
    Slot& slot = shards_[next.slot];
    if (slot.state != ShardState::kInitializing && slot.state != ShardState::kRecovering) {
      MaybeRest(next.slot);
      continue;  // destroyed while it waited
    }
    ActiveShard& active = Activate(next.slot);
    if (!active.in_backlog) continue;
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
    } else if (ordinal >= ordinals_durable_) {
      rests_on = std::max(rests_on, ordinal < in_flight_.ordinals_reserved ? batch_sequence_ - 1 : batch_sequence_);
    }
    JobSpec job = NewJob(next.slot, JobKind::kInitialize, next.meta);
    job.old_ordinal = slot.ordinal;
    job.ordinal = ordinal;
    StartJob(std::move(job), rests_on);
  }
}

void Engine::StartOpen(uint32_t index, const TaskMeta& meta) {
  Slot& slot = shards_[index];
  if (slot.state != ShardState::kAvailable && slot.state != ShardState::kServing) return;
  ActiveShard* active = ActiveOf(slot);
  if (active == nullptr || (active->cancel != nullptr && !Mutant(kMutantSecondOpen))) return;  // one runs
  const bool wanted = std::any_of(active->waiters.begin(), active->waiters.end(),
                                  [](const Waiter& w) { return w.op == ShardOp::kAcquire && !w.stopping; });
  if (!wanted) return;
  StartJob(NewJob(index, JobKind::kOpen, meta), active->pending);
}

void Engine::StartCollect(uint32_t index, const TaskMeta& meta) {
  ActiveShard& active = Activate(index);
  if (active.open != nullptr) SetOpen(active, nullptr);  // unused, or the row would not have fired
  StartJob(NewJob(index, JobKind::kCollect, meta), active.pending);
}

void Engine::StartDestroy(uint32_t index, const TaskMeta& meta) {
  ActiveShard& active = Activate(index);
  if (active.jobs_running != 0 && !Mutant(kMutantDestroyIgnoresJobs)) return;  // the last of them asks again
  if (active.destroy_running) return;
  if (active.open != nullptr) SetOpen(active, nullptr);
  active.destroy_running = true;
  StartJob(NewJob(index, JobKind::kDestroy, meta), active.pending);
}

void Engine::Discard(std::string_view key, Ordinal ordinal) {
  if (ordinal == 0) return;
  seams_.top->Drop(ordinal);
  JobSpec job(OwnMeta());
  job.kind = JobKind::kDiscard;
  job.slot = kNoSlot;
  job.key = ShardKey(key);
  job.ordinal = ordinal;
  StartJob(std::move(job), kNothingPending);
}

// ---- Stops and deadlines ----

void Engine::Stop(TicketId ticket, absl::Status reason) {
  const auto it = parked_.find(ticket);
  if (it == parked_.end()) return;  // answered already, or never accepted
  const uint32_t index = it->second;
  Slot& slot = shards_[index];
  ActiveShard& active = Activate(index);
  const auto waiter = std::find_if(active.waiters.begin(), active.waiters.end(),
                                   [&](const Waiter& w) { return w.ticket == ticket; });
  DAGSTORE_CHECK(waiter != active.waiters.end());
  if (waiter->stopping) return;
  const auto others = std::count_if(active.waiters.begin(), active.waiters.end(),
                                    [](const Waiter& w) { return !w.stopping; });
  const bool cancellable =
      slot.state != ShardState::kDestroying && active.cancel != nullptr && active.stoppable &&
      !Mutant(kMutantStopLeavesJob);
  if ((others == 1 || Mutant(kMutantStopEndsJobOfOthers)) && cancellable) {
    // The last who wanted it: the job ends, and he is answered when it has.
    active.cancel->Cancel();
    waiter->stopping = true;
    waiter->stop_reason = std::move(reason);
    if (!Mutant(kMutantStoppedAtOnce)) return;
    reason = waiter->stop_reason;
  }
  ShardResult result;
  result.key = ShardKey(slot.key());
  result.ticket = ticket;
  result.status = std::move(reason);
  SendAnswer(std::move(waiter->reply), std::move(result), kNothingPending);
  active.waiters.erase(waiter);
  parked_.erase(it);
  MaybeRest(index);
}

void Engine::FireTimers() {
  if (timers_.empty() || Mutant(kMutantDeadlinesIgnored)) return;
  if (timers_.size() > 2 * parked_.size() + kTimersAnsweredMax) {  // most belong to requests that were answered in time
    std::vector<Timer> parked;
    for (; !timers_.empty(); timers_.pop()) {
      if (parked_.contains(timers_.top().ticket)) parked.push_back(timers_.top());
    }
    timers_ = std::priority_queue<Timer>(std::less<Timer>(), std::move(parked));
  }
  const MonotonicNanos now = seams_.clock->Now();
  while (!timers_.empty() && timers_.top().at <= now) {
    const TicketId ticket = timers_.top().ticket;
    timers_.pop();
    Stop(ticket, DeadlineExceeded("the deadline passed while the request waited"));
  }
}

void Engine::BeginClose(Deadline grace) {
  closing_ = true;
  close_grace_ = grace;
  CloseGates();
}

void Engine::StopEverything() {
  for (const Waiting& waiting : backlog_) {
    if (!shards_.Lives(waiting.slot, waiting.incarnation)) continue;
    Slot& slot = shards_[waiting.slot];
    ActiveShard* active = ActiveOf(slot);
    if (active == nullptr || !active->in_backlog) continue;
    active->in_backlog = false;
    const TaskMeta meta = OwnMeta();
    Cause cause(meta);
    cause.status = Cancelled("the store is closing");
    Step(waiting.slot, ShardOp::kFail, cause);
  }
  backlog_.clear();
  for (const auto& active : active_) {
    if (active != nullptr && active->slot != kNoSlot && active->cancel != nullptr &&
        shards_[active->slot].state != ShardState::kDestroying) {
      active->cancel->Cancel();
    }
  }
  close_grace_ = Deadline::Infinite();  // once
  stopped_everything_ = true;
}

bool Engine::Finished() const {
  return closing_ && internal_.empty() && completions_.empty() && requests_.empty() && backlog_.empty() &&
         (jobs_running_ == 0 || Mutant(kMutantCloseLeavesJobs)) && !committing_ && batch_.empty() &&
         parked_.empty() && answers_out_.empty() &&
         seams_.queues->Empty();
}

// ---- Gates ----

uint64_t Engine::PendingOf(const Slot& slot) const {
  return slot.active == kNoActive ? kNothingPending : active_[slot.active]->pending;
}

Engine::Gate* Engine::GateFor(uint64_t rests_on) {
  if (rests_on <= durable_) return nullptr;
  if (rests_on == batch_sequence_) return &gathering_;
  DAGSTORE_CHECK(committing_);
  return &in_flight_;
}

void Engine::SendAnswer(Channel<ShardResult>::Slot reply, ShardResult result, uint64_t rests_on) {
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

void Engine::SendBatch(bool idle) {
  if (committing_ || batch_.empty()) return;
  if (gathering_.changes < gather_target_ && gather_looks_ > 0) {
    if (idle) --gather_looks_;
    return;
  }
  gather_target_ = 0;
  committing_ = true;
  ++stats_.commits;
  stats_.changes_committed += gathering_.changes;
  in_flight_ = std::exchange(gathering_, {});
  seams_.commits->Commit(batch_sequence_, std::exchange(batch_, {}));
  ++batch_sequence_;
}

void Engine::CommitDone(uint64_t sequence, const absl::Status& status) {
  DAGSTORE_CHECK(committing_ && sequence + 1 == batch_sequence_);
  committing_ = false;
  if (status.ok() || Mutant(kMutantCommitErrorIgnored)) {
    durable_ = sequence;
    if (in_flight_.answers.size() > 1) {  // nobody waits for a lone caller
      gather_target_ = gathering_.changes + in_flight_.answers.size();
      gather_looks_ = kGatherLooks;
    }
    Open(std::exchange(in_flight_, {}));
    return;
  }
  // Nothing more is stored. What was promised on this batch, or gathered for the next, is answered with the error.
  store_error_ = status;
  batch_ = {};
  Gate gates[] = {std::exchange(in_flight_, {}), std::exchange(gathering_, {})};
  for (Gate& gate : gates) {
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
  for (const Publication& publication : gate.publications) {
    if (publication.old_ordinal != 0) {
      seams_.directory->Clear(publication.old_ordinal);
      // The slot lives: to be erased it needs a job that rests on this batch.
      if (!Mutant(kMutantOldIndexKept)) Discard(shards_[publication.slot].key(), publication.old_ordinal);
    }
    if (shards_.Lives(publication.slot, publication.incarnation) &&
        shards_[publication.slot].ordinal == publication.ordinal &&
        shards_[publication.slot].state != ShardState::kDestroying) {
      seams_.directory->Set(publication.ordinal, shards_[publication.slot].key());
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

void Engine::SetOpen(ActiveShard& active, std::shared_ptr<const OpenShard> open) {
  const uint32_t place = shards_[active.slot].active;
  if (active.open != nullptr) {
    TakeReaders(active.slot);
    IdleRemove(place);
    --open_count_;
    active.lease.reset();
    seams_.jobs->DropLater(std::move(active.open));
  }
  active.open = std::move(open);
  if (active.open == nullptr) return;
  active.lease = NewLease(active);
  ++open_count_;
  if (shards_[active.slot].references == 0) IdleAdd(place);
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
    SetOpen(active, nullptr);
    MaybeRest(index);
  }
}

void Engine::Notify(const Slot& slot, ShardState from, ShardState to, const absl::Status& status) {
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

void Engine::StoreBeside(const ShardKey& key, KvBatch changes, const TaskMeta& meta, Channel<ShardResult>::Slot reply) {
  ShardResult result;
  result.key = key;
  result.ticket = meta.ticket;
  const uint32_t index = shards_.Find(key.bytes());
  if (index == kNoSlot || shards_[index].state == ShardState::kDestroying) {
    result.status = NotFound("no shard \"{}\"", key.Printable());
    SendAnswer(std::move(reply), std::move(result), kNothingPending);
    return;
  }
  if (!store_error_.ok()) {
    SendAnswer(std::move(reply), std::move(result), kNeverDurable);
    return;
  }
  batch_.Append(std::move(changes));
  ++gathering_.changes;
  SendAnswer(std::move(reply), std::move(result), batch_sequence_);
}

void Engine::ReportDamage(const ShardKey& key, Ordinal ordinal, absl::Status status, Damage damage) {
  const uint32_t index = shards_.Find(key.bytes());
  if (index != kNoSlot) TakeDamage(index, ordinal, std::move(status), damage);
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
  return stats;
}

std::vector<ShardKey> Engine::Collectable(size_t keys_max) const {
  std::vector<ShardKey> keys;
  for (uint32_t index = 0; index < shards_.slots() && keys.size() < keys_max; ++index) {
    const Slot& slot = shards_[index];
    if (slot.key_bytes != nullptr && slot.has_copy && slot.references == 0 && ReadersInside(slot) == 0 &&
        slot.state == ShardState::kAvailable) {
      keys.emplace_back(slot.key());
    }
  }
  return keys;
}

}  // namespace dagstore
