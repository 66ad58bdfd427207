// Engine owns every shard and advances them, one task at a time.
//
// Invariants:
//   1. A shard's state changes only in Step(), and only by a row of shard/transition.h.
//   2. Nothing leaves the engine (job, answer, directory entry) before the batch it rests on is durable.
//   3. A turn runs at most turn_tasks_max tasks.
//   4. Every accepted request is answered exactly once.
//   5. Readers pass a shard's gate (dagstore/reader_gate.h) only while it is Available or Serving. Before any operation
//      but Acquire, Serve and Release looks at a shard, the gate is closed and the readers inside are counted.
// Never: opens a file, waits, takes a lock that is held long, reads the wall clock for logic.
//
// Order of effects: memory, store, jobs, answers.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "base/thread_role.h"
#include "dagstore/event_log.h"
#include "dagstore/job.h"
#include "dagstore/open_leases.h"
#include "dagstore/options.h"
#include "dagstore/queues.h"
#include "dagstore/result.h"
#include "dagstore/shard_table.h"
#include "shard/transition.h"

namespace dagstore {

// Keys of table kMeta that the engine writes.
inline constexpr char kMetaNextOrdinal[] = "next-ordinal";
// Ordinals reserved by one write of that key: a crash skips at most so many.
inline constexpr uint32_t kOrdinalsReserved = 1 << 16;

struct EngineStats {
  uint64_t shards_by_state[kShardStates + 1] = {};
  uint64_t turns = 0;
  uint64_t tasks = 0;
  uint64_t stale_completions = 0;  // of a dead incarnation or generation; dropped
  uint64_t jobs_started = 0;
  uint64_t jobs_running = 0;
  uint64_t jobs_waiting = 0;
  uint64_t timers = 0;  // deadlines that are waited for, some of requests that were answered
  uint64_t commits = 0;
  uint64_t changes_committed = 0;  // steps that wrote something
  uint64_t answers = 0;
  uint64_t acquires = 0;         // through the loop and without it
  uint64_t acquires_inline = 0;  // of these, without it
  uint64_t active_shards = 0;
  uint64_t open_shards = 0;
  uint64_t turns_over_5ms = 0;
  int64_t turn_nanos_max = 0;
  absl::Status store_error = absl::OkStatus();
};

// What the loop knows of a shard.
struct ShardSnapshot {
  ShardState state = ShardState::kNew;
  uint32_t references = 0;
  Ordinal ordinal = 0;
  bool lazy = false;
  bool has_copy = false;
  absl::Status error = absl::OkStatus();
};

class Engine {
 public:
  struct Seams {
    std::shared_ptr<TaskQueues> queues;
    JobRunner* jobs = nullptr;
    CommitSink* commits = nullptr;
    Directory* directory = nullptr;
    TopIndex* top = nullptr;
    EventLog<FailureEvent>* failures = nullptr;
    EventLog<TraceEvent>* traces = nullptr;
    const Clock* clock = nullptr;
    OpenLeases* leases = nullptr;  // null: nobody looks them up by key
  };
  // Everything in `seams` must outlive the engine.
  Engine(const Options& options, Seams seams);

  // Before the loop runs, by whoever opens the store: what the records say.
  void Reserve(size_t shards) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { shards_.Reserve(shards); }
  void Restore(std::string_view key, const RecordHead& head) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RestoreError(std::string_view key, absl::Status cause, uint32_t attempts) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RestoreDestroying(std::string_view key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Ordinals from `next` up to `durable` are reserved on disk.
  void RestoreOrdinals(Ordinal next, Ordinal durable) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // The loop thread claims and gives up the engine.
  void EnterLoop() ABSL_EXCLUSIVE_LOCK_FUNCTION(loop_) { loop_.Enter(); }
  void LeaveLoop() ABSL_UNLOCK_FUNCTION(loop_) { loop_.Leave(); }
  void AssertLoop() const ABSL_ASSERT_EXCLUSIVE_LOCK(loop_) { loop_.AssertHeld(); }

  // Loop thread. Runs one turn. True if work is left.
  bool Turn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Loop thread. When Turn wants to be called even if nothing arrives.
  Deadline NextTimer() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // Loop thread. No more requests come; running jobs may finish until `grace`, then they are stopped.
  void BeginClose(Deadline grace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Loop thread. It is closing, everything is answered, nothing runs, nothing waits to be stored.
  bool Finished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // Loop thread (through Request::inspect).
  std::optional<ShardSnapshot> Look(std::string_view key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  EngineStats Stats() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // From here every reader comes and goes through the loop, until its shard is served anew with nobody listening.
  void CloseGates() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Changes that belong to a shard but are no step of it (manifests): stored with the next batch, then answered.
  // NotFound if there is no such shard, or it is being destroyed.
  void StoreBeside(const ShardKey& key, KvBatch changes, const TaskMeta& meta, Channel<ShardResult>::Slot reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Somebody who reads without an accessor found the index `ordinal` of a shard damaged.
  void ReportDamage(const ShardKey& key, Ordinal ordinal, absl::Status status, Damage damage)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Keys of shards with a local copy that is not in use, at most `keys_max`.
  std::vector<ShardKey> Collectable(size_t keys_max) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  size_t shards() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { return shards_.size(); }
  Ordinal next_ordinal() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { return next_ordinal_; }

 private:
  static constexpr uint32_t kNoActive = 0;
  static constexpr uint64_t kNothingPending = 0;
  static constexpr uint64_t kNeverDurable = UINT64_MAX;  // the store has failed

  struct Waiter {
    ShardOp op = ShardOp::kAcquire;
    TicketId ticket = 0;
    bool stopping = false;               // answered when the job has stopped
    absl::Status stop_reason = absl::OkStatus();
    SpanContext span = {};
    Channel<ShardResult>::Slot reply = {};
  };

  // What a shard needs while something happens to it.
  struct ActiveShard {
    uint32_t slot = kNoSlot;
    std::vector<Waiter> waiters = {};
    std::shared_ptr<const OpenShard> open = {};
    std::shared_ptr<const Lease> lease = {};  // of `open`, for its accessors; set if and only if `open` is
    bool listed = false;                      // in Seams::leases
    std::shared_ptr<CancelFlag> cancel = {};  // of the current job
    bool stoppable = false;                   // the last waiter who leaves stops it; false: the store wants it itself
    uint32_t jobs_running = 0;                // stale ones included
    bool destroy_running = false;
    bool in_backlog = false;
    uint64_t pending = kNothingPending;       // the batch its state rests on, if that is not durable yet
    uint32_t attempts = 0;
    absl::Status error = absl::OkStatus();    // the cause, while Errored
    uint32_t idle_prev = kNoActive, idle_next = kNoActive;
    bool idle = false;                        // in the list of open shards without references
  };

  struct Internal {
    ShardOp op = ShardOp::kInitialize;
    uint32_t slot = 0;
    uint32_t incarnation = 0;
    TaskMeta meta;
  };

  struct Answer {
    Channel<ShardResult>::Slot reply = {};
    ShardResult result = {};
  };
  struct Publication {
    uint32_t slot = 0;
    uint32_t incarnation = 0;
    Ordinal ordinal = 0;
    Ordinal old_ordinal = 0;
  };
  // What waits for a batch.
  struct Gate {
    std::vector<Publication> publications = {};
    std::vector<JobSpec> jobs = {};
    std::vector<Answer> answers = {};
    std::vector<uint32_t> touched = {};  // active slots whose state rests on it
    Ordinal ordinals_reserved = 0;       // if it reserves some: up to here
    uint64_t changes = 0;
  };

  struct Cause {
    const TaskMeta& meta;
    Channel<ShardResult>::Slot reply = {};
    JobResult* result = nullptr;
    const ShardRecord* registration = nullptr;
    absl::Status status = absl::OkStatus();
    bool index_damaged = false;
    bool fresh = false;
    Ordinal ordinal = 0;  // of the job that reports
    explicit Cause(const TaskMeta& task_meta) : meta(task_meta) {}
  };

  struct Timer {
    MonotonicNanos at = 0;
    TicketId ticket = 0;
    uint32_t slot = 0;
    bool operator<(const Timer& other) const { return at > other.at; }  // earliest first
  };

  void RunRequest(Request request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RunCompletion(Completion completion) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RunInternal(const Internal& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void JobDone(Completion& done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StoreCopy(uint32_t index, JobResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CollectDone(uint32_t slot, JobResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CommitDone(uint64_t sequence, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void TakeDamage(uint32_t index, Ordinal ordinal, absl::Status status, Damage damage)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Step(uint32_t index, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Refuse(const Slot& slot, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Adds what `row` makes durable to the batch.
  void Persist(uint32_t index, const Row& row, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Park(uint32_t index, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Serve(uint32_t index, Waiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void ServeParked(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void ReplyParked(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void FailParked(uint32_t index, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Unref(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Closes the gate, if it is open, and counts who is inside.
  void TakeReaders(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  std::shared_ptr<const Lease> NewLease(const ActiveShard& active) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  bool GatesMayOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  uint32_t ReadersInside(const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CancelJobs(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void QueueInitializeJob(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartBacklog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartOpen(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartDestroy(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartCollect(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Discard(std::string_view key, Ordinal ordinal) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  JobSpec NewJob(uint32_t index, JobKind kind, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartJob(JobSpec job, uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void Stop(TicketId ticket, absl::Status reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void FireTimers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StopEverything() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void SendAnswer(Channel<ShardResult>::Slot reply, ShardResult result, uint64_t rests_on)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Null if nothing needs to wait.
  Gate* GateFor(uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void SendBatch(bool idle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Open(Gate gate) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  uint64_t PendingOf(const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  ActiveShard& Activate(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  ActiveShard* ActiveOf(const Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void MaybeRest(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void IdleAdd(uint32_t active) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void IdleRemove(uint32_t active) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void EvictIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void SetOpen(ActiveShard& active, std::shared_ptr<const OpenShard> open) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Notify(const Slot& slot, ShardState from, ShardState to, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // Constant after construction.
  const Options options_;
  const Seams seams_;

  LoopThread loop_;

  ShardTable shards_ ABSL_GUARDED_BY(loop_);
  std::vector<std::unique_ptr<ActiveShard>> active_ ABSL_GUARDED_BY(loop_);  // [0] is unused
  std::vector<uint32_t> active_free_ ABSL_GUARDED_BY(loop_);
  uint32_t idle_first_ ABSL_GUARDED_BY(loop_) = kNoActive;  // least recently released
  uint32_t idle_last_ ABSL_GUARDED_BY(loop_) = kNoActive;
  size_t idle_count_ ABSL_GUARDED_BY(loop_) = 0;
  size_t open_count_ ABSL_GUARDED_BY(loop_) = 0;
  absl::flat_hash_map<TicketId, uint32_t> parked_ ABSL_GUARDED_BY(loop_);  // ticket -> slot
  std::priority_queue<Timer> timers_ ABSL_GUARDED_BY(loop_);

  // Queues. Internal is drained first, so that an outside caller never sees half a step.
  std::deque<Internal> internal_ ABSL_GUARDED_BY(loop_);
  Inbox<Completion> completions_ ABSL_GUARDED_BY(loop_);
  Inbox<Request> requests_ ABSL_GUARDED_BY(loop_);
  size_t completions_in_a_row_ ABSL_GUARDED_BY(loop_) = 0;

  // Shards whose Initialize job waits for a free place.
  struct Waiting {
    uint32_t slot = 0;
    uint32_t incarnation = 0;
    TaskMeta meta;
  };
  std::deque<Waiting> backlog_ ABSL_GUARDED_BY(loop_);
  uint64_t jobs_running_ ABSL_GUARDED_BY(loop_) = 0;

  // The batch that gathers, and the one that is being stored.
  KvBatch batch_ ABSL_GUARDED_BY(loop_);
  uint64_t batch_sequence_ ABSL_GUARDED_BY(loop_) = 1;
  Gate gathering_ ABSL_GUARDED_BY(loop_);
  bool committing_ ABSL_GUARDED_BY(loop_) = false;
  Gate in_flight_ ABSL_GUARDED_BY(loop_);
  // After a commit its callers come back with their next requests: worth a few looks before the next batch goes.
  uint64_t gather_target_ ABSL_GUARDED_BY(loop_) = 0;  // changes to wait for
  int gather_looks_ ABSL_GUARDED_BY(loop_) = 0;        // turns without a task that are left
  uint64_t durable_ ABSL_GUARDED_BY(loop_) = 0;         // batches up to here are stored
  absl::Status store_error_ ABSL_GUARDED_BY(loop_);     // the first failed commit; OK while healthy
  Ordinal next_ordinal_ ABSL_GUARDED_BY(loop_) = 1;
  Ordinal ordinals_reserved_ ABSL_GUARDED_BY(loop_) = 1;  // in this batch or an earlier one
  Ordinal ordinals_durable_ ABSL_GUARDED_BY(loop_) = 1;

  // What leaves at the end of the turn.
  std::vector<JobSpec> jobs_out_ ABSL_GUARDED_BY(loop_);
  std::vector<Answer> answers_out_ ABSL_GUARDED_BY(loop_);

  bool closing_ ABSL_GUARDED_BY(loop_) = false;
  Deadline close_grace_ ABSL_GUARDED_BY(loop_);
  bool stopped_everything_ ABSL_GUARDED_BY(loop_) = false;  // jobs that start after it are told to stop at once
  EngineStats stats_ ABSL_GUARDED_BY(loop_);
};

}  // namespace dagstore
