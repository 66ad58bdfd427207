// EngineWorld: an engine with everything around it in the test's hands: time, jobs, commits. One thread, which is the
// loop.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dagstore/engine.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_jobs.h"
#include "tests/fakes/fake_spans.h"
#include "tests/testing.h"

namespace dagstore {

class EngineWorld {
 public:
  explicit EngineWorld(Options with = {}, size_t channel_capacity = 1 << 16)
      : options(std::move(with)),
        kv(NewMemoryKv()),
        queues(std::make_shared<TaskQueues>(options.requests_max)),
        jobs(queues),
        commits(*kv, queues),
        out(channel_capacity),
        engine(options, MakeSeams()) {
    Claim();
  }
  ~EngineWorld() { queues->Shut(); }

  // ---- Asking ----

  absl::StatusOr<Ticket> Ask(ShardOp op, const std::string& key, Deadline deadline = Deadline::Infinite(),
                             std::unique_ptr<ShardRecord> registration = nullptr) {
    const Ticket ticket = next_ticket_++;
    SpanContext span = ids.RootOf(ticket);
    if (traced) span.flags |= 1;
    Request request(TaskMeta(span, deadline, ticket));
    request.op = op;
    request.key = ShardKey(key);
    auto slot = out.Reserve();
    if (!slot.has_value()) return ResourceExhausted("the channel is full");
    request.reply = *std::move(slot);
    if (traced) BeginSpan(request, SpanContext(), clock.Now());
    request.registration = std::move(registration);
    RETURN_IF_ERROR(queues->PushRequest(std::move(request)));
    return ticket;
  }
  Ticket Register(const std::string& key, bool lazy = false, Deadline deadline = Deadline::Infinite()) {
    auto record = std::make_unique<ShardRecord>();
    record->lazy = lazy;
    record->url = "test:" + key;
    return ValueOf(Ask(ShardOp::kRegister, key, deadline, std::move(record)));
  }
  Ticket Acquire(const std::string& key, Deadline deadline = Deadline::Infinite()) {
    return ValueOf(Ask(ShardOp::kAcquire, key, deadline));
  }
  Ticket Destroy(const std::string& key) { return ValueOf(Ask(ShardOp::kDestroy, key)); }
  Ticket Recover(const std::string& key) { return ValueOf(Ask(ShardOp::kRecover, key)); }
  Ticket Collect(const std::string& key) { return ValueOf(Ask(ShardOp::kCollect, key)); }
  void Stop(Ticket ticket) {
    Request stop(TaskMeta(SpanContext(), Deadline::Infinite(), ticket));
    stop.stop = true;
    REQUIRE_STATUS_OK(queues->PushRequest(std::move(stop)));
  }
  StopOutcome StopNow(Ticket ticket) {
    engine.AssertLoop();
    return engine.StopNow(ticket);
  }
  void BeginClose(Deadline grace) {
    Request close(TaskMeta(SpanContext(), Deadline::Infinite(), 0));
    close.inspect = [grace](Engine& e) {
      e.AssertLoop();
      e.BeginClose(grace);
    };
    queues->CloseDoor(std::move(close));
  }

  // ---- Driving ----

  // Turns until nothing is left to do without the test.
  void Run() {
    engine.AssertLoop();
    while (engine.Turn()) {
    }
    Collect();
  }
  bool Turn() {
    engine.AssertLoop();
    const bool more = engine.Turn();
    Collect();
    return more;
  }
  // Runs, and stores what wants to be stored, until nothing does.
  void Settle() {
    Run();
    while (commits.holds()) {
      commits.Finish();
      Run();
    }
  }

  static absl::Status NoError() { return absl::OkStatus(); }

  // What the real job would report for `job`, given this outcome.
  JobResult ResultOf(const JobSpec& job, const absl::Status& status) {
    JobResult result;
    result.status = status;
    if (job.kind == JobKind::kDiscard) return result;
    if (const auto record = StoredRecord(job.key.bytes())) result.record = *record;
    if (!status.ok()) return result;
    switch (job.kind) {
      case JobKind::kInitialize:
        result.record->state = ShardState::kAvailable;
        result.record->ordinal = job.ordinal;
        result.record->attempts = 0;
        result.record->error_code = 0;
        result.record->error.clear();
        if (copies) result.record->copy = TransientRecord{"copy", 1, /*owned=*/true};
        break;
      case JobKind::kOpen: {
        auto open = std::make_shared<OpenShard>();
        open->key = job.key;
        open->ordinal = job.ordinal;
        open->record = *result.record;
        result.open = std::move(open);
        result.record.reset();
        break;
      }
      case JobKind::kCollect:
        result.record->copy.reset();
        break;
      case JobKind::kDestroy:
      case JobKind::kDiscard:
        result.record.reset();
        break;
    }
    return result;
  }
  // Ends the oldest job of this kind.
  JobSpec Finish(JobKind kind, const absl::Status& status = absl::OkStatus(), bool index_damaged = false) {
    return FinishAt(jobs.Find(kind), status, index_damaged);
  }
  JobSpec FinishAt(size_t at, const absl::Status& status, bool index_damaged = false) {
    JobSpec job = jobs.Take(at);
    JobResult result = ResultOf(job, status);
    result.index_damaged = index_damaged;
    jobs.Report(job, std::move(result));
    return job;
  }
  // Before anything runs: a shard that was Errored when the last process ended.
  void RestoreErrored(const std::string& key, absl::Status cause, bool copy = false) {
    engine.AssertLoop();
    ShardRecord record;
    record.state = ShardState::kErrored;
    if (copy) record.copy = TransientRecord{"copy", 1, /*owned=*/true};
    KvBatch batch;
    batch.Put(KvTable::kRecords, key, EncodeRecord(record));
    REQUIRE_STATUS_OK(kv->Commit(batch, true));
    RecordHead head;
    head.state = ShardState::kErrored;
    head.has_copy = copy;
    engine.Restore(key, head);
    engine.RestoreError(key, std::move(cause), 1);
  }
  // A shard that is Available, at rest.
  void MakeAvailable(const std::string& key) {
    const Ticket ticket = Register(key);
    Settle();
    Finish(JobKind::kInitialize);
    Settle();
    REQUIRE_STATUS_OK(Answer(ticket).status);
  }
  Accessor MustAcquire(const std::string& key) {
    const Ticket ticket = Acquire(key);
    Settle();
    if (jobs.Count(JobKind::kOpen) != 0) {
      Finish(JobKind::kOpen);
      Settle();
    }
    ShardResult result = Answer(ticket);
    REQUIRE_STATUS_OK(result.status);
    return std::move(result.accessor);
  }
  // Everything ends: jobs as they were told, commits well. True if the engine is then finished.
  bool Close(Deadline grace) {
    BeginClose(grace);
    for (int round = 0; round < 1000; ++round) {
      Settle();
      engine.AssertLoop();
      if (engine.Finished()) return true;
      if (jobs.held().empty()) return false;
      const JobSpec& job = jobs.held().front();
      const bool stop = job.cancel != nullptr && job.cancel->cancelled();
      FinishAt(0, stop ? Cancelled("stopped") : absl::OkStatus());
    }
    return false;
  }

  // ---- Looking ----

  bool Answered(Ticket ticket) const { return answers.contains(ticket); }
  // Takes the answer out; there must be one.
  ShardResult Answer(Ticket ticket) {
    const auto it = answers.find(ticket);
    REQUIRE_MESSAGE(it != answers.end(), "ticket ", ticket, " has no answer");
    ShardResult result = std::move(it->second);
    answers.erase(it);
    return result;
  }
  std::optional<ShardSnapshot> Look(const std::string& key) const {
    engine.AssertLoop();
    return engine.Look(key);
  }
  std::string State(const std::string& key) const {
    const auto snapshot = Look(key);
    return snapshot.has_value() ? std::string(StateName(snapshot->state)) : "none";
  }
  EngineStats Stats() const {
    engine.AssertLoop();
    return engine.Stats();
  }
  std::vector<std::string> Stragglers() const {
    engine.AssertLoop();
    return engine.Stragglers();
  }
  bool Finished() const {
    engine.AssertLoop();
    return engine.Finished();
  }
  Deadline NextTimer() const {
    engine.AssertLoop();
    return engine.NextTimer();
  }
  std::optional<ShardRecord> StoredRecord(const std::string& key) const {
    const auto value = ValueOf(kv->Get(KvTable::kRecords, key));
    if (!value.has_value()) return std::nullopt;
    return ValueOf(DecodeRecord(AsSpan(*value)));
  }
  bool StoredDestroying(const std::string& key) const {
    return ValueOf(kv->Get(KvTable::kDestroying, key)).has_value();
  }
  uint32_t StoredNextOrdinal() const {
    const auto value = ValueOf(kv->Get(KvTable::kMeta, kMetaNextOrdinal));
    return value.has_value() ? Load32(AsSpan(*value).data()) : 1;
  }

  const Options options;
  const std::unique_ptr<Kv> kv;  // what is durable
  FakeClock clock;
  const std::shared_ptr<TaskQueues> queues;
  Directory directory;
  FakeTopIndex top;
  EventLog<FailureEvent> failures{1024};
  EventLog<TraceEvent> traces{0};
  FakeJobRunner jobs;
  FakeCommitSink commits;
  const Channel<ShardResult> out;
  FakeSpanSink spans;
  const SpanIds ids{42};
  bool traced = false;  // what is asked from now on is sampled
  bool copies = false;  // indexing makes a local copy
  Engine engine;
  std::map<Ticket, ShardResult> answers;  // not yet looked at
  size_t answers_twice = 0;               // must stay 0

 private:
  Engine::Seams MakeSeams() {
    Engine::Seams seams{queues, &jobs, &commits, &directory, &top, &failures, &traces, &clock};
    seams.spans = &spans;
    return seams;
  }
  void Claim() ABSL_NO_THREAD_SAFETY_ANALYSIS { engine.EnterLoop(); }
  void Collect() {
    while (auto result = out.TryReceive()) {
      const Ticket ticket = result->ticket;
      if (!seen_.insert(ticket).second) ++answers_twice;
      answers.insert_or_assign(ticket, *std::move(result));
    }
  }

  Ticket next_ticket_ = 1;
  std::set<Ticket> seen_;
};

}  // namespace dagstore
