// Engine owns every shard and advances them, one task at a time.
//
// Invariants:
//   1. A shard's state changes only in Step(), and only by a row of shard/transition.h.
//   2. Nothing leaves the engine (job, answer, directory entry) before the batch it rests on is durable.
//   3. A turn runs at most turn_tasks_max tasks.
//   4. Every accepted request is answered exactly once. A stop or a deadline concerns one request; the last who wanted
//      a job stops it, and is answered when it has stopped (docs/architecture.md#stops-and-deadlines).
//   5. Readers pass a shard's gate (dagstore/reader_gate.h) only while it is Available or Serving. Before any operation
//      but Acquire, Serve and Release looks at a shard, the gate is closed and the readers inside are counted.
// Never: opens a file, waits, takes a lock that is held long, reads the wall clock for logic.
//
// Order of effects: memory, store, jobs, answers.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <absl/container/inlined_vector.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "base/thread_role.h"
#include "dagstore/event_log.h"
#include "dagstore/histogram.h"
#include "dagstore/job.h"
#include "dagstore/log.h"
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

// What Close is doing.
enum class ClosePhase : uint8_t {
  kOpen,       // not closing
  kDraining,   // what runs may finish; newcomers of dying jobs are answered
  kStopping,   // everyone who waits is stopped, every job told to end; waiting for the workers
  kReleasing,  // waiting for accessors
};

inline constexpr size_t kStatusCodes = 17;  // absl's

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
  uint64_t answers_by_code[kShardOps][kStatusCodes] = {};
  uint64_t stops = 0;             // messages of Stop()
  uint64_t stops_late = 0;        // of these, for tickets that were answered or never given out
  uint64_t deadlines_missed = 0;  // requests that were ended by theirs
  uint64_t work_abandoned = 0;    // requests answered before the work they stopped had ended
  uint64_t stragglers = 0;        // jobs that have been told to stop and have not, for longer than stop_grace
  uint64_t fills_kept = 0;        // copies that went on when their last caller left
  uint64_t fills_running = 0;
  uint64_t jobs_done[kJobKinds][3] = {};       // by outcome: ok, failed, stopped
  uint64_t jobs_running_by_kind[kJobKinds] = {};
  uint64_t failures_by_code[kStatusCodes] = {};  // entries of the failure log
  uint64_t requests_waiting = 0;
  uint64_t completions_waiting = 0;
  uint64_t references = 0;         // accessors out
  uint64_t spans = 0;              // recorded by the engine
  Histogram turn_time = {};
  Histogram step_time = {};        // of every 64th task
  Histogram queue_wait = {};       // of requests whose time is measured: every 64th acquire, all others
  Histogram latency[kShardOps] = {};
  Histogram job_time[kJobKinds] = {};
  Histogram batch_changes = {};    // counted, not timed: changes of one commit
  Histogram commit_time = {};
  ClosePhase close_phase = ClosePhase::kOpen;
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
    SpanSink* spans = nullptr;     // null: nothing is traced
    TraceSampler sampler = {};     // for what the store does by itself
    uint64_t span_seed = 1;        // the same seed, the same ids
    LogSink* log = nullptr;        // null: nothing is logged
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

  // Loop thread. No more requests come; running jobs may finish until `grace`, then they are stopped. Accessors that
  // are then still out are waited for as Options::close_accessor_wait says.
  void BeginClose(Deadline grace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Loop thread. "initialize of shard "k" (job 7)", for each job that has been told to stop and has not within
  // stop_grace.
  std::vector<std::string> Stragglers() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Loop thread (through Request::inspect). As the message, and says what it did.
  StopOutcome StopNow(TicketId ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Loop thread. It is closing, everything is answered, nothing runs, nothing waits to be stored.
  bool Finished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // Loop thread (through Request::inspect).
  std::optional<ShardSnapshot> Look(std::string_view key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  EngineStats Stats() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // From here every reader comes and goes through the loop, until its shard is served anew with nobody listening.
  void CloseGates() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Changes that belong to a shard but are no step of it (manifests): stored with the next batch, then answered.
  // NotFound if there is no such shard, or it is being destroyed.
  void StoreBeside(const ShardKey& key, KvBatch changes, const TaskMeta& meta, Reply reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Whether the index of this process with that ordinal may still become the index of a shard.
  bool MayPublish(Ordinal ordinal) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Somebody who reads without an accessor found the index `ordinal` of a shard damaged.
  void ReportDamage(const ShardKey& key, Ordinal ordinal, absl::Status status, Damage damage)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Keys of shards with a local copy that is not in use, at most `keys_max`.
  std::vector<ShardKey> Collectable(size_t keys_max) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Begins to remove the local copy `victim`, of its record or not, of a shard, or of nobody (an empty key). False if
  // it may be in use.
  bool Evict(const ShardKey& key, const std::string& victim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  size_t shards() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { return shards_.size(); }
  Ordinal next_ordinal() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { return next_ordinal_; }

 private:
  static constexpr uint32_t kNoActive = 0;
  static constexpr uint64_t kNothingPending = 0;
  static constexpr uint64_t kNeverDurable = UINT64_MAX;  // the store has failed

  // A ticket: one accepted request that is not answered yet.
  struct Waiter {
    ShardOp op = ShardOp::kAcquire;
    bool next_gen = false;               // came while a job died: gets what that makes, else a job of its own
    bool stopping = false;               // answered when `waits_for` has stopped
    uint64_t waits_for = 0;              // job
    StopReason stop_reason = StopReason::kNone;
    TaskMeta meta;
    Reply reply = {};

    explicit Waiter(const TaskMeta& task_meta) : meta(task_meta) {}
    // Answered when the job that removes the copy has ended, whatever becomes of the shard meanwhile.
    bool collects() const { return op == ShardOp::kCollect; }
  };

  // Work that runs, and those who want it. It belongs to jobs_ until it has reported, whatever becomes of its shard.
  struct Job {
    struct Member {
      TicketId ticket = 0;
      SpanContext span = {};
    };
    static constexpr size_t kMembersMax = SpanRecord::kLinksMax;  // named; all are counted

    JobKind kind = JobKind::kInitialize;
    uint64_t id = 0;
    Ordinal ordinal = 0;  // of the index that it makes or uses
    ShardKey key = {};
    std::shared_ptr<JobControl> control = {};
    bool stoppable = false;  // the last waiter who leaves stops it; false: the store wants it itself
    bool time_is_up = false;  // stopped by job_time_max
    bool fill = false;        // goes on as a cache fill: the cache is a member, too
    bool straggler = false;
    bool sampled = false;     // it or a member
    MonotonicNanos started = 0;
    MonotonicNanos fill_started = 0;
    uint64_t members_ever = 0;
    absl::InlinedVector<Member, 1> members = {};  // all there ever were, for spans and logs
    SpanContext initiator = {};
    TaskMeta meta;

    explicit Job(const TaskMeta& task_meta) : meta(task_meta) {}
    bool dying() const { return control->cancel.cancelled(); }
  };

  // What a shard needs while something happens to it.
  struct ActiveShard {
    uint32_t slot = kNoSlot;
    std::vector<Waiter> waiters = {};
    std::shared_ptr<const OpenShard> open = {};
    std::shared_ptr<const Lease> lease = {};  // of `open`, for its accessors; set if and only if `open` is
    bool listed = false;                      // in Seams::leases
    std::optional<TaskMeta> opened_by = {};   // the job that opened it, while `open` is set
    Job* job = nullptr;                       // the current one; in jobs_
    bool backlog_stoppable = false;           // the last waiter who leaves takes it out of the backlog
    uint32_t backlog_entry = 0;               // the one that counts
    uint32_t jobs_running = 0;                // stale ones included
    bool destroy_running = false;
    bool collect_running = false;             // what it removes no other job may take up
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
    Reply reply = {};
    ShardResult result = {};
  };
  struct Publication {
    uint32_t slot = 0;
    uint32_t incarnation = 0;
    Ordinal ordinal = 0;
    Ordinal old_ordinal = 0;
    std::string old_copy = {};
    TaskMeta meta;
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

  // Gathers nothing any more.
  struct ClosedBatch {
    uint64_t sequence = 0;
    KvBatch batch = {};
    Gate gate = {};
  };

  struct Cause {
    const TaskMeta& meta;
    Reply reply = {};
    JobResult* result = nullptr;
    bool dying = false;  // the job that reports had been told to stop
    const ShardRecord* registration = nullptr;
    absl::Status status = absl::OkStatus();
    bool index_damaged = false;
    bool fresh = false;
    Ordinal ordinal = 0;  // of the job that reports
    std::string victim = {};
    explicit Cause(const TaskMeta& task_meta) : meta(task_meta) {}
  };

  struct Timer {
    enum class Kind : uint8_t {
      kTicket,    // its deadline
      kStopGrace, // of a job that has been told to stop
      kFill,      // the end of a cache fill
      kTimeMax,   // of a job
    };
    MonotonicNanos at = 0;
    uint64_t id = 0;  // of the ticket or the job
    Kind kind = Kind::kTicket;
    bool operator<(const Timer& other) const { return at > other.at; }  // earliest first
  };

  void RunRequest(Request request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RunCompletion(Completion completion) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void RunInternal(const Internal& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void JobDone(Completion& done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StoreCopy(uint32_t index, JobResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CollectDone(uint32_t index, JobResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CommitDone(uint64_t sequence, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void TakeDamage(uint32_t index, Ordinal ordinal, absl::Status status, Damage damage, const TaskMeta& reported)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Step(uint32_t index, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Refuse(const Slot& slot, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Adds what `row` makes durable to the batch.
  void Persist(uint32_t index, const Row& row, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Park(uint32_t index, ShardOp op, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Serve(uint32_t index, Waiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void ServeParked(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void ReplyParked(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // `dying`: the job that failed had been told to stop, so those who came later get one of their own.
  void FailParked(uint32_t index, const absl::Status& status, bool dying) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Answers those whose job has stopped, or whose job is `abandoned`: it does not stop.
  void AnswerStopped(uint32_t index, const Job* abandoned = nullptr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Why a ticket ends without its work.
  ShardResult StopResult(const Waiter& waiter, uint32_t index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Unref(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Closes the gate, if it is open, and counts who is inside.
  void TakeReaders(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  std::shared_ptr<const Lease> NewLease(const ActiveShard& active) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  bool GatesMayOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  uint32_t ReadersInside(const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CancelJobs(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void QueueInitializeJob(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartBacklog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartOpen(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);  // for the first acquirer who waits
  void StartDestroy(uint32_t index, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartCollect(uint32_t index, Cause& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Discard(std::string_view key, Ordinal ordinal, const TaskMeta& meta, std::string old_copy = {},
               uint64_t rests_on = kNothingPending)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StartDiscard(JobSpec job, uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  JobSpec NewJob(uint32_t index, JobKind kind, const TaskMeta& meta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // `initiator`: the span whose child the job's is.
  void StartJob(JobSpec job, const SpanContext& initiator, uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // ---- Who wants a job ----

  static bool Wants(ShardOp op, JobKind kind);
  void Join(Job& job, Waiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  size_t MembersOf(const ActiveShard& active) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  bool WorthFinishing(const Job& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CancelJob(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void EndJob(Job& job, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  std::string NameOf(const Job& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  StopOutcome Stop(TicketId ticket, StopReason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void FireTimers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void FireTimer(const Timer& timer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  bool Lives(const Timer& timer) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void AfterGrace(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void StopEverything() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void AwaitAccessors() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  uint64_t ReferencesOut() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // All but accessors.
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  // ---- Where it comes from ----

  // Of work that the store does by itself: a trace of its own.
  TaskMeta OwnMeta() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Of a side effect: the same, linked to its cause.
  TaskMeta Aside(const TaskMeta& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Record(SpanRecord&& span) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Log(LogLevel level, const SpanContext& span, std::string_view message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  void SendAnswer(Reply reply, ShardResult result, uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void DeliverAnswers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Null if nothing needs to wait.
  Gate* GateFor(uint64_t rests_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // Nothing came of the request.
  void AnswerUnrun(Request& request, Cause& cause, absl::Status status, StopReason reason = StopReason::kNone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // `bytes` more are about to be gathered, in one step.
  void MakeRoomInBatch(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void CloseBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // A batch waits for another to be stored.
  bool BatchesQueue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_) { return closed_.size() > (committing_ ? 1 : 0); }
  // The batch that reserves it; kNothingPending: a durable one.
  uint64_t ReservationOf(Ordinal ordinal) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void SendBatch(bool idle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Open(Gate gate) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  uint64_t PendingOf(const Slot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);

  ActiveShard& Activate(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  ActiveShard* ActiveOf(const Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void MaybeRest(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void IdleAdd(uint32_t place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void IdleRemove(uint32_t place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void EvictIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  // `meta`: of the job that opened it.
  void SetOpen(ActiveShard& active, std::shared_ptr<const OpenShard> open, const TaskMeta& meta)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Close(ActiveShard& active) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop_);
  void Notify(const Slot& slot, ShardState from, ShardState to, const absl::Status& status, const TaskMeta& meta)
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
  std::map<uint64_t, std::unique_ptr<Job>> jobs_ ABSL_GUARDED_BY(loop_);  // id -> what runs; walked in this order
  uint64_t next_job_ ABSL_GUARDED_BY(loop_) = 1;
  size_t fills_running_ ABSL_GUARDED_BY(loop_) = 0;
  SpanIds ids_ ABSL_GUARDED_BY(loop_);
  std::priority_queue<Timer> timers_ ABSL_GUARDED_BY(loop_);

  // Queues. Internal is drained first, so that an outside caller never sees half a step.
  std::deque<Internal> internal_ ABSL_GUARDED_BY(loop_);
  Inbox<Completion> completions_ ABSL_GUARDED_BY(loop_);
  Inbox<Request> requests_ ABSL_GUARDED_BY(loop_);
  size_t completions_in_a_row_ ABSL_GUARDED_BY(loop_) = 0;
  // Tickets whose stop has been taken and has not run: if their request has not run either, it does not.
  std::vector<TicketId> stops_taken_ ABSL_GUARDED_BY(loop_);
  absl::flat_hash_set<TicketId> stopped_early_ ABSL_GUARDED_BY(loop_);

  // Shards whose Initialize job waits for a free place.
  struct Waiting {
    uint32_t slot = 0;
    uint32_t incarnation = 0;
    uint32_t entry = 0;
    TaskMeta meta;
  };
  std::deque<Waiting> backlog_ ABSL_GUARDED_BY(loop_);
  uint64_t jobs_running_ ABSL_GUARDED_BY(loop_) = 0;

  // The batch that gathers, and the one that is being stored.
  KvBatch batch_ ABSL_GUARDED_BY(loop_);
  uint64_t batch_sequence_ ABSL_GUARDED_BY(loop_) = 1;
  Gate gathering_ ABSL_GUARDED_BY(loop_);
  // In order, without gaps; `batch_` comes after them. While `committing_` the first is being stored.
  std::deque<ClosedBatch> closed_ ABSL_GUARDED_BY(loop_);
  bool committing_ ABSL_GUARDED_BY(loop_) = false;
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

  ClosePhase close_phase_ ABSL_GUARDED_BY(loop_) = ClosePhase::kOpen;
  Deadline close_grace_ ABSL_GUARDED_BY(loop_);  // of the phase
  MonotonicNanos commit_started_ ABSL_GUARDED_BY(loop_) = 0;
  EngineStats stats_ ABSL_GUARDED_BY(loop_);
};

}  // namespace dagstore
