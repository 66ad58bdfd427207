// Goal: what docs/architecture.md#stops-and-deadlines promises to each of several callers of one job.
// Method: the engine with jobs, commits and time in the test's hands; at the end random schedules of everything.
// DAGSTORE_SCHEDULES says how many (tools/schedules.sh runs a million); a seed that fails is printed.
#include <cstdlib>
#include <random>

#include "tests/dagstore/engine_world.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr absl::Duration kSecond = absl::Seconds(1);

// A shard whose data is to be indexed when somebody wants it.
void MakeLazy(EngineWorld& world, const std::string& key = "k") {
  const Ticket ticket = world.Register(key, /*lazy=*/true);
  world.Settle();
  REQUIRE_STATUS_OK(world.Answer(ticket).status);
}
const JobSpec& OnlyJob(const EngineWorld& world) {
  REQUIRE_EQ(world.jobs.held().size(), 1);
  return world.jobs.held()[0];
}
void SetProgress(const EngineWorld& world, uint64_t done, uint64_t total) {
  OnlyJob(world).control->progress.SetTotal(total);
  OnlyJob(world).control->progress.SetDone(done);
}
void FinishBoth(EngineWorld& world) {
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
}

// ---- Who leaves ----

TEST_CASE("tickets: CancelOfOneKeepsOthers") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket stays = world.Acquire("k"), leaves = world.Acquire("k");
  world.Settle();
  world.Stop(leaves);
  world.Settle();
  const ShardResult result = world.Answer(leaves);
  CHECK_CODE(result.status, kCancelled);
  CHECK(result.stop_reason == StopReason::kStopped);
  CHECK_FALSE(OnlyJob(world).cancel->cancelled());
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(stays).status);
}

TEST_CASE("tickets: CancelOfFirstKeepsOthers") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket first = world.Acquire("k"), second = world.Acquire("k");
  world.Settle();
  world.Stop(first);
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kCancelled);
  CHECK_FALSE(OnlyJob(world).cancel->cancelled());
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(second).status);
}

TEST_CASE("tickets: LastLeaverCancelsAndWaits") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket first = world.Acquire("k"), second = world.Acquire("k");
  world.Settle();
  world.Stop(first);
  world.Stop(second);
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kCancelled);
  CHECK_FALSE(world.Answered(second));
  CHECK(OnlyJob(world).cancel->cancelled());
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  const ShardResult result = world.Answer(second);
  CHECK_CODE(result.status, kCancelled);
  CHECK_FALSE(result.work_abandoned);
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
}

TEST_CASE("tickets: the last who leaves before the job has begun takes it out of the queue") {
  Options options;
  options.jobs_running_max = 1;
  EngineWorld world(options);
  MakeLazy(world, "a");
  MakeLazy(world, "b");
  const Ticket a = world.Acquire("a");
  world.Settle();
  const Ticket b = world.Acquire("b");
  world.Settle();
  CHECK_EQ(world.Stats().jobs_waiting, 1);
  world.Stop(b);
  world.Settle();
  CHECK_CODE(world.Answer(b).status, kCancelled);
  CHECK_EQ(world.State("b"), "New");
  const Ticket again = world.Acquire("b");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(a).status);
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(again).status);
  CHECK_EQ(world.jobs.started(), 4);  // none for the one who left
}

TEST_CASE("tickets: a destroy does not answer one who waits for his job to stop before it has") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket leaves = world.Acquire("k");
  world.Settle();
  world.Stop(leaves);
  const Ticket destroy = world.Destroy("k");
  world.Settle();
  CHECK_FALSE(world.Answered(leaves));
  CHECK_FALSE(world.Answered(destroy));
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(leaves).status, kCancelled);
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroy).status);
}

// ---- Cache fills ----

TEST_CASE("tickets: LastLeaverKeepsFill") {
  constexpr uint64_t kMiB = 1 << 20;
  const struct {
    const char* name;
    uint64_t done, total;
    bool kept;
  } kCases[] = {
      {"size unknown", 90 * kMiB, 0, false},
      {"just begun", 1 * kMiB, 1000 * kMiB, false},
      {"just below 80 %", 799 * kMiB, 1000 * kMiB, false},
      {"80 %", 800 * kMiB, 1000 * kMiB, true},
      {"64 MiB left, of which little is done", 1 * kMiB, 65 * kMiB, true},
      {"65 MiB left, of which little is done", 1 * kMiB, 66 * kMiB, false},
      {"80 %, but more than 8 GiB left", 900'000 * kMiB, 1'000'000 * kMiB, false},
      {"all is there, the index is not", 1000 * kMiB, 1000 * kMiB, true},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    EngineWorld world;
    MakeLazy(world);
    const Ticket leaves = world.Acquire("k");
    world.Settle();
    SetProgress(world, c.done, c.total);
    world.Stop(leaves);
    world.Settle();
    CHECK_EQ(OnlyJob(world).cancel->cancelled(), !c.kept);
    CHECK_EQ(world.Answered(leaves), c.kept);
    CHECK_EQ(world.Stats().fills_kept, c.kept ? 1 : 0);
    CHECK_EQ(world.Stats().fills_running, c.kept ? 1 : 0);
    world.Finish(JobKind::kInitialize, c.kept ? absl::OkStatus() : Cancelled("stopped"));
    world.Settle();
    CHECK_CODE(world.Answer(leaves).status, kCancelled);
    CHECK_EQ(world.State("k"), c.kept ? "Available" : "New");
    CHECK_EQ(world.Stats().fills_running, 0);
  }
}

TEST_CASE("tickets: a fill has a limit in time and in number, and none is kept while the store closes") {
  Options options;
  options.fills_running_max = 1;
  EngineWorld world(options);
  MakeLazy(world, "a");
  MakeLazy(world, "b");
  const Ticket a = world.Acquire("a"), b = world.Acquire("b");
  world.Settle();
  for (const JobSpec& job : world.jobs.held()) {
    job.control->progress.SetTotal(100);
    job.control->progress.SetDone(99);
  }
  world.Stop(a);
  world.Stop(b);
  world.Settle();
  CHECK_CODE(world.Answer(a).status, kCancelled);
  CHECK_FALSE(world.Answered(b));  // the second is one too many
  CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
  CHECK(world.jobs.held()[1].cancel->cancelled());
  world.FinishAt(1, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(b).status, kCancelled);
  world.Finish(JobKind::kDiscard);
  world.clock.Advance(options.fill_time_max);
  world.Settle();
  CHECK(OnlyJob(world).cancel->cancelled());
  CHECK_EQ(world.Stats().fills_running, 0);
  world.FinishAt(0, Cancelled("stopped"));
  world.Settle();
  CHECK_EQ(world.State("a"), "New");
}

TEST_CASE("tickets: FillJoinedByNewcomer") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket leaves = world.Acquire("k");
  world.Settle();
  SetProgress(world, 99, 100);
  world.Stop(leaves);
  world.Settle();
  CHECK_CODE(world.Answer(leaves).status, kCancelled);
  const Ticket joins = world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.jobs.started(), 1);
  // Who joined may leave again; the cache stays.
  const Ticket passes = world.Acquire("k");
  world.Stop(passes);
  world.Settle();
  CHECK_CODE(world.Answer(passes).status, kCancelled);
  // The end of the fill's time is not the end of one who joined.
  world.clock.Advance(absl::Minutes(10));
  world.Settle();
  CHECK_FALSE(OnlyJob(world).cancel->cancelled());
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(joins).status);
}

// ---- Dying jobs ----

TEST_CASE("tickets: JoinDyingStartsNextGen") {
  for (const absl::Status& end : {Cancelled("stopped"), Unavailable("connection reset"), DataLoss("half a block")}) {
    CAPTURE(ToString(end));
    EngineWorld world;
    MakeLazy(world);
    const Ticket leaves = world.Acquire("k");
    world.Settle();
    world.Stop(leaves);
    const Ticket late = world.Acquire("k"), later = world.Acquire("k");
    world.Settle();
    CHECK_EQ(world.jobs.started(), 1);
    world.Finish(JobKind::kInitialize, end);  // an error of a dying job is nobody's
    world.Settle();
    CHECK_CODE(world.Answer(leaves).status, kCancelled);
    REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
    world.Finish(JobKind::kDiscard);
    CHECK_FALSE(OnlyJob(world).cancel->cancelled());
    FinishBoth(world);
    CHECK_STATUS_OK(world.Answer(late).status);
    CHECK_STATUS_OK(world.Answer(later).status);
    CHECK_EQ(world.failures.published(), 0);
  }
}

TEST_CASE("tickets: one who came too late for a dying job may leave at once") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket leaves = world.Acquire("k");
  world.Settle();
  world.Stop(leaves);
  const Ticket late = world.Acquire("k");
  world.Settle();
  world.Stop(late);
  world.Settle();
  CHECK_CODE(world.Answer(late).status, kCancelled);
  CHECK_FALSE(world.Answered(leaves));
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(leaves).status, kCancelled);
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
}

TEST_CASE("tickets: DyingCompletesServesNextGen") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket leaves = world.Acquire("k");
  world.Settle();
  world.Stop(leaves);
  const Ticket late = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_CODE(world.Answer(leaves).status, kCancelled);  // his reason stands
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(late).status);
  CHECK_EQ(world.jobs.started(), 2);
}

// ---- Errors ----

TEST_CASE("tickets: ErrorNotSticky") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket first = world.Acquire("k"), second = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kOpen, Unavailable("connection refused"));
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kUnavailable);
  CHECK_CODE(world.Answer(second).status, kUnavailable);
  const Ticket third = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(third).status);
}

TEST_CASE("tickets: CancelIsNotFailure") {
  for (const absl::Status& end : {Cancelled("stopped"), Unavailable("connection reset"), DataLoss("half a block"),
                                  NotFound("gone"), Internal("confused")}) {
    CAPTURE(ToString(end));
    for (const bool available : {false, true}) {
      EngineWorld world;
      if (available) {
        world.MakeAvailable("k");
      } else {
        MakeLazy(world);
      }
      const Ticket leaves = world.Acquire("k");
      world.Settle();
      world.Stop(leaves);
      world.Settle();
      world.FinishAt(0, end, /*index_damaged=*/available && end.code() == absl::StatusCode::kDataLoss);
      world.Settle();
      CHECK_CODE(world.Answer(leaves).status, kCancelled);
      CHECK_EQ(world.State("k"), available ? "Available" : "New");
      CHECK_EQ(world.failures.published(), 0);
      CHECK(world.StoredRecord("k")->state != ShardState::kErrored);
    }
  }
}

// ---- Deadlines ----

TEST_CASE("tickets: PerTicketDeadline") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket one = world.Acquire("k", Deadline::After(world.clock, kSecond));
  const Ticket two = world.Acquire("k", Deadline::After(world.clock, 2 * kSecond));
  const Ticket none = world.Acquire("k");
  world.Settle();
  world.clock.Advance(kSecond);
  world.Settle();
  const ShardResult result = world.Answer(one);
  CHECK_CODE(result.status, kDeadlineExceeded);
  CHECK(result.stop_reason == StopReason::kDeadline);
  CHECK_FALSE(world.Answered(two));
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK_CODE(world.Answer(two).status, kDeadlineExceeded);
  CHECK_FALSE(OnlyJob(world).cancel->cancelled());
  CHECK_EQ(world.Stats().deadlines_missed, 2);
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(none).status);
}

TEST_CASE("tickets: one whose time is up while he waits for his job to stop is told so") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket ticket = world.Acquire("k", Deadline::After(world.clock, kSecond));
  world.Settle();
  world.Stop(ticket);
  world.Settle();
  world.clock.Advance(kSecond);
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kDeadlineExceeded);
}

// What a transport would tell a peer: the latest of all deadlines, which a later joiner may raise and nobody lowers.
TEST_CASE("tickets: WireDeadlineIsMaxAndExtends") {
  EngineWorld world;
  MakeLazy(world);
  const Deadline soon = Deadline::After(world.clock, kSecond), late = Deadline::After(world.clock, 3 * kSecond);
  const Ticket first = world.Acquire("k", soon);
  world.Settle();
  const std::shared_ptr<JobControl> control = OnlyJob(world).control;
  CHECK(control->deadline() == soon);
  world.Acquire("k", late);
  world.Settle();
  CHECK(control->deadline() == late);
  world.Acquire("k", Deadline::After(world.clock, 2 * kSecond));
  world.Settle();
  CHECK(control->deadline() == late);
  world.Stop(first);
  world.Settle();
  CHECK(control->deadline() == late);
  world.Acquire("k");
  world.Settle();
  CHECK(control->deadline().IsInfinite());
  CHECK(OnlyJob(world).meta.deadline.IsInfinite());  // locally, waiters leave by their own
}

TEST_CASE("tickets: ExpiredInQueueNotRun") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket expired = world.Acquire("k", Deadline::After(world.clock, kSecond));
  const Ticket stopped = world.Acquire("k");
  world.Stop(stopped);
  world.Stop(stopped);
  world.clock.Advance(kSecond);
  const Ticket good = world.Acquire("k");
  world.Settle();
  CHECK_CODE(world.Answer(expired).status, kDeadlineExceeded);
  CHECK_CODE(world.Answer(stopped).status, kCancelled);
  CHECK_EQ(OnlyJob(world).meta.ticket, good);
  // The queue goes on.
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(good).status);
  CHECK_EQ(world.answers_twice, 0);
}

TEST_CASE("tickets: a request that is stopped in the queue begins no work") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket stopped = world.Acquire("k");
  world.Stop(stopped);
  world.Settle();
  CHECK_CODE(world.Answer(stopped).status, kCancelled);
  CHECK_EQ(world.jobs.started(), 0);
}

TEST_CASE("tickets: IdleDeadlineFires") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket ticket = world.Acquire("k", Deadline::After(world.clock, kSecond));
  world.Settle();
  CHECK(world.NextTimer() == Deadline::After(world.clock, kSecond));  // until then the loop may sleep
  world.clock.Advance(kSecond);
  world.Turn();  // nothing has arrived
  CHECK(OnlyJob(world).cancel->cancelled());
  CHECK(world.NextTimer() == Deadline::After(world.clock, world.options.stop_grace));
  world.clock.Advance(world.options.stop_grace);
  world.Turn();
  const ShardResult result = world.Answer(ticket);
  CHECK_CODE(result.status, kDeadlineExceeded);
  CHECK(result.work_abandoned);
}

TEST_CASE("tickets: a job that runs longer than the store lets it is stopped, whoever waits") {
  Options options;
  options.job_time_max = kSecond;
  EngineWorld world(options);
  MakeLazy(world);
  const Ticket waits = world.Acquire("k");
  world.Settle();
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK(OnlyJob(world).cancel->cancelled());
  CHECK_FALSE(world.Answered(waits));
  const Ticket late = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  const ShardResult result = world.Answer(waits);
  CHECK_CODE(result.status, kDeadlineExceeded);
  CHECK(result.stop_reason == StopReason::kJobTimeMax);
  CHECK_EQ(world.failures.published(), 0);
  world.Finish(JobKind::kDiscard);
  FinishBoth(world);
  CHECK_STATUS_OK(world.Answer(late).status);
  CHECK(world.NextTimer().IsInfinite());
}

// ---- After the end ----

TEST_CASE("tickets: StopAfterDone") {
  EngineWorld world;
  MakeLazy(world);
  CHECK(world.StopNow(4711) == StopOutcome::kAlreadyDone);  // never given out
  const Ticket one = world.Acquire("k"), two = world.Acquire("k");
  world.Settle();
  CHECK(world.StopNow(one) == StopOutcome::kStopped);
  CHECK(world.StopNow(one) == StopOutcome::kAlreadyDone);
  CHECK(world.StopNow(two) == StopOutcome::kStopping);
  CHECK(world.StopNow(two) == StopOutcome::kStopping);
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK(world.StopNow(two) == StopOutcome::kAlreadyDone);
  CHECK_CODE(world.Answer(one).status, kCancelled);
  CHECK_CODE(world.Answer(two).status, kCancelled);

  // Served, not yet taken: the result is the channel's.
  world.MakeAvailable("open");
  const Accessor accessor = world.MustAcquire("open");
  const Ticket served = world.Acquire("open");
  world.Settle();
  CHECK(world.StopNow(served) == StopOutcome::kAlreadyDone);
  CHECK_EQ(world.Look("open")->references, 2);
  CHECK_STATUS_OK(world.Answer(served).status);
  CHECK_EQ(world.answers_twice, 0);
  CHECK_EQ(world.Stats().stops, 7);
  CHECK_EQ(world.Stats().stops_late, 4);
}

TEST_CASE("tickets: a result that has arrived beats a stop and a deadline of the same turn") {
  for (const bool by_deadline : {false, true}) {
    CAPTURE(by_deadline);
    EngineWorld world;
    world.MakeAvailable("k");
    const Ticket ticket =
        world.Acquire("k", by_deadline ? Deadline::After(world.clock, kSecond) : Deadline::Infinite());
    world.Settle();
    // More completions than one request lets pass, with the one that counts at their end.
    const TaskMeta own(SpanContext(), Deadline::Infinite(), 0);
    for (int i = 0; i < 40; ++i) world.queues->PushRelease(own, 0, 99);
    world.Finish(JobKind::kOpen);
    if (by_deadline) {
      world.clock.Advance(kSecond);
    } else {
      world.Stop(ticket);
    }
    world.Settle();
    CHECK_STATUS_OK(world.Answer(ticket).status);
  }
}

TEST_CASE("tickets: AbandonedSinkReleasesAccessor") {
  EngineWorld world;
  world.MakeAvailable("k");
  {
    const Channel<ShardResult> out(4);
    for (const bool taken : {true, false}) {
      Request request(TaskMeta(SpanContext(), Deadline::Infinite(), taken ? 101 : 102));
      request.op = ShardOp::kAcquire;
      request.key = ShardKey("k");
      request.reply = *out.Reserve();
      REQUIRE_STATUS_OK(world.queues->PushRequest(std::move(request)));
    }
    world.Settle();
    world.Finish(JobKind::kOpen);
    world.Settle();
    CHECK_EQ(world.Look("k")->references, 2);
    const ShardResult taken = out.Receive();
    CHECK_STATUS_OK(taken.status);
  }
  world.Settle();
  CHECK_EQ(world.Look("k")->references, 0);
  CHECK_EQ(world.State("k"), "Available");
}

TEST_CASE("tickets: StragglerReported") {
  EngineWorld world;
  MakeLazy(world);
  const Ticket ticket = world.Acquire("k");
  world.Settle();
  world.Stop(ticket);
  world.Settle();
  world.clock.Advance(world.options.stop_grace - absl::Nanoseconds(1));
  world.Settle();
  CHECK_FALSE(world.Answered(ticket));
  CHECK(world.Stragglers().empty());
  world.clock.Advance(absl::Nanoseconds(1));
  world.Settle();
  const ShardResult result = world.Answer(ticket);
  CHECK_CODE(result.status, kCancelled);
  CHECK(result.work_abandoned);
  CHECK_EQ(world.Stats().stragglers, 1);
  CHECK_EQ(world.Stats().work_abandoned, 1);
  REQUIRE_EQ(world.Stragglers().size(), 1);
  CHECK_EQ(world.Stragglers()[0], "initialize of shard \"k\" (job 1)");
  CHECK_EQ(world.failures.published(), 1);
  // Who comes now waits for its end; never are there two.
  const Ticket late = world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.jobs.started(), 1);
  // Close waits for it.
  world.BeginClose(Deadline::After(world.clock, absl::ZeroDuration()));
  world.Settle();
  CHECK_CODE(world.Answer(late).status, kCancelled);
  CHECK_FALSE(world.Finished());
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  world.Finish(JobKind::kDiscard);
  world.Settle();
  CHECK(world.Finished());
  CHECK_EQ(world.Stats().stragglers, 0);
}

// ---- Close ----

TEST_CASE("tickets: CloseInEveryState") {
  enum class At { kIdle, kLazy, kBacklog, kInitializing, kDying, kFill, kOpening, kServing, kCommitting, kDestroying,
                  kCollecting, kErrored, kErroredCollecting, kEnd };
  for (int at = 0; at < static_cast<int>(At::kEnd); ++at) {
    for (const bool drain : {false, true}) {
      CAPTURE(at);
      CAPTURE(drain);
      Options options;
      options.jobs_running_max = static_cast<At>(at) == At::kBacklog ? 1 : 16;
      EngineWorld world(options);
      world.copies = true;
      std::vector<Ticket> tickets;
      Accessor accessor;
      switch (static_cast<At>(at)) {
        case At::kIdle:
        case At::kEnd:
          break;
        case At::kLazy:
          MakeLazy(world);
          break;
        case At::kBacklog:
          tickets.push_back(world.Register("busy"));
          world.Settle();
          [[fallthrough]];
        case At::kInitializing:
        case At::kErrored:
          tickets.push_back(world.Register("k"));
          world.Settle();
          if (static_cast<At>(at) == At::kErrored) {
            world.Finish(JobKind::kInitialize, DataLoss("no CAR"));
            world.Settle();
          }
          break;
        case At::kDying:
        case At::kFill:
          MakeLazy(world);
          tickets.push_back(world.Acquire("k"));
          world.Settle();
          if (static_cast<At>(at) == At::kFill) SetProgress(world, 99, 100);
          world.Stop(tickets.back());
          tickets.push_back(world.Acquire("k"));
          world.Settle();
          break;
        case At::kOpening:
          world.MakeAvailable("k");
          tickets.push_back(world.Acquire("k"));
          world.Settle();
          break;
        case At::kServing:
          world.MakeAvailable("k");
          accessor = world.MustAcquire("k");
          break;
        case At::kCommitting:
          tickets.push_back(world.Register("k"));
          world.Run();
          break;
        case At::kDestroying:
          world.MakeAvailable("k");
          tickets.push_back(world.Destroy("k"));
          world.Settle();
          break;
        case At::kCollecting:
          world.MakeAvailable("k");
          tickets.push_back(world.Collect("k"));
          tickets.push_back(world.Acquire("k"));
          world.Settle();
          break;
        case At::kErroredCollecting:
          world.RestoreErrored("k", DataLoss("was torn"), /*copy=*/true);
          tickets.push_back(world.Collect("k"));
          tickets.push_back(world.Recover("k"));
          world.Settle();
          break;
      }
      CHECK(world.Close(Deadline::After(world.clock, drain ? kSecond : absl::ZeroDuration())));
      for (const Ticket ticket : tickets) CHECK(world.Answered(ticket));
      CHECK_EQ(world.answers_twice, 0);
      CHECK_EQ(world.jobs.held().size(), 0);
      CHECK_CODE(world.Ask(ShardOp::kAcquire, "k"), kFailedPrecondition);
    }
  }
}

TEST_CASE("tickets: a closing store lets what runs finish, then stops it and says so") {
  EngineWorld world;
  MakeLazy(world, "a");
  MakeLazy(world, "b");
  const Ticket a = world.Acquire("a"), b = world.Acquire("b");
  world.Settle();
  world.BeginClose(Deadline::After(world.clock, kSecond));
  world.Settle();
  CHECK(world.Stats().close_phase == ClosePhase::kDraining);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(a).status);  // an accessor that nobody keeps is released
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK(world.Stats().close_phase == ClosePhase::kStopping);
  CHECK(OnlyJob(world).cancel->cancelled());
  CHECK_FALSE(world.Answered(b));
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  const ShardResult result = world.Answer(b);
  CHECK_CODE(result.status, kCancelled);
  CHECK(result.stop_reason == StopReason::kShuttingDown);
  world.Finish(JobKind::kDiscard);
  world.Settle();
  CHECK(world.Finished());
}

TEST_CASE("tickets: a closing store waits for accessors as long as it is told") {
  for (const bool released : {true, false}) {
    Options options;
    options.close_accessor_wait = kSecond;
    EngineWorld world(options);
    world.MakeAvailable("k");
    Accessor accessor = world.MustAcquire("k");
    world.BeginClose(Deadline::After(world.clock, absl::ZeroDuration()));
    world.Settle();
    CHECK(world.Stats().close_phase == ClosePhase::kReleasing);
    CHECK_FALSE(world.Finished());
    CHECK(world.NextTimer() == Deadline::After(world.clock, kSecond));
    if (released) {
      accessor.Close();
      world.Settle();
    } else {
      world.clock.Advance(kSecond);
    }
    CHECK(world.Finished());
  }
}

// ---- Everything, in any order ----

class Schedule {
 public:
  explicit Schedule(uint64_t seed) : random_(seed) {}

  void Run() {
    world_.copies = Chance(30);
    for (int i = 0; i < kSteps; ++i) Act();
    CheckStopping();
    accessors_.clear();
    // The end: whatever is held ends, in whatever way.
    world_.BeginClose(Deadline::After(world_.clock, Chance(50) ? kSecond : absl::ZeroDuration()));
    for (int round = 0; round < 200; ++round) {
      world_.Turn();
      Look();
      if (world_.commits.holds()) {
        world_.commits.Finish();
      } else if (!world_.jobs.held().empty()) {
        FinishOne();
      } else if (world_.Finished()) {
        break;
      } else {
        world_.clock.Advance(kSecond);
      }
    }
    REQUIRE(world_.Finished());
    Look();
    REQUIRE_EQ(world_.answers_twice, 0);
    REQUIRE_EQ(answered_, asked_.size());  // exactly one each
    REQUIRE_EQ(world_.Stats().references, 0);
  }

 private:
  static constexpr int kSteps = 24;
  static constexpr const char* kKeys[] = {"a", "b"};

  bool Chance(int percent) { return static_cast<int>(random_() % 100) < percent; }
  std::string Key() { return kKeys[random_() % 2]; }
  Deadline SomeDeadline() {
    return Chance(60) ? Deadline::Infinite()
                      : Deadline::After(world_.clock, absl::Milliseconds(static_cast<int64_t>(random_() % 2000)));
  }
  void Ask(ShardOp op, std::unique_ptr<ShardRecord> registration = nullptr) {
    world_.traced = Chance(30);
    asked_.push_back(ValueOf(world_.Ask(op, Key(), SomeDeadline(), std::move(registration))));
  }
  void FinishOne() {
    const size_t at = random_() % world_.jobs.held().size();
    const JobSpec& job = world_.jobs.held()[at];
    const bool dying = job.cancel != nullptr && job.cancel->cancelled();
    absl::Status status;
    if (dying && Chance(70)) {
      status = Cancelled("stopped");
    } else if (job.kind != JobKind::kDestroy && job.kind != JobKind::kDiscard && Chance(30)) {
      static const absl::Status kErrors[] = {Unavailable("no answer"), DataLoss("torn"), NotFound("gone"),
                                             ResourceExhausted("no descriptors"), Cancelled("for fun")};
      status = kErrors[random_() % std::size(kErrors)];
    }
    world_.FinishAt(at, status, job.kind == JobKind::kOpen && Chance(20));
  }
  void Act() {
    switch (random_() % 16) {
      case 0:
      case 1: {
        auto record = std::make_unique<ShardRecord>();
        record->lazy = Chance(60);
        record->url = "test:x";
        Ask(ShardOp::kRegister, std::move(record));
        break;
      }
      case 2:
      case 3:
      case 4:
      case 5:
        Ask(ShardOp::kAcquire);
        break;
      case 6:
        Ask(Chance(50) ? ShardOp::kRecover : Chance(50) ? ShardOp::kCollect : ShardOp::kDestroy);
        break;
      case 7:
      case 8:
        if (!asked_.empty()) world_.Stop(asked_[random_() % asked_.size()]);
        break;
      case 9:
      case 10:
        if (!world_.jobs.held().empty()) FinishOne();
        break;
      case 11:
        if (world_.commits.holds()) world_.commits.Finish();
        break;
      case 12:
        world_.clock.Advance(absl::Milliseconds(static_cast<int64_t>(random_() % (Chance(10) ? 8000 : 500))));
        break;
      case 13:
        if (!world_.jobs.held().empty()) {
          const JobSpec& job = world_.jobs.held()[random_() % world_.jobs.held().size()];
          job.control->progress.SetTotal(100 << 20);
          job.control->progress.SetDone(random_() % (101 << 20));
        }
        break;
      case 14:
        if (!accessors_.empty()) accessors_.pop_back();
        break;
      default:
        break;
    }
    if (Chance(60)) world_.Turn();
    Look();
  }
  // Takes what has been answered.
  void Look() {
    for (auto& entry : world_.answers) {
      ShardResult& result = entry.second;
      ++answered_;
      if (result.status.ok() && Chance(70)) accessors_.push_back(std::move(result.accessor));
      if (result.status.code() == absl::StatusCode::kCancelled) REQUIRE(result.stop_reason != StopReason::kNone);
      if (result.work_abandoned) REQUIRE_FALSE(result.status.ok());
    }
    world_.answers.clear();
  }
  // Who waits for a job to stop waits for one that has been told to, and has not.
  void CheckStopping() {
    world_.Settle();
    Look();
    for (const Ticket ticket : asked_) {
      const uint64_t before = world_.Stats().stops;
      if (world_.StopNow(ticket) == StopOutcome::kStopping) {
        REQUIRE(std::any_of(world_.jobs.held().begin(), world_.jobs.held().end(),
                            [](const JobSpec& job) { return job.cancel != nullptr && job.cancel->cancelled(); }));
      }
      REQUIRE_EQ(world_.Stats().stops, before + 1);
    }
  }

  std::mt19937_64 random_;
  EngineWorld world_;
  std::vector<Ticket> asked_;
  std::vector<Accessor> accessors_;
  size_t answered_ = 0;
};

TEST_CASE("tickets: ResultExactlyOnce in random schedules") {
  const char* wanted = std::getenv("DAGSTORE_SCHEDULES");
  const uint64_t schedules = wanted == nullptr ? 3000 : std::strtoull(wanted, nullptr, 10);
  const char* first = std::getenv("DAGSTORE_SCHEDULE_FIRST");
  const uint64_t begin = first == nullptr ? 1 : std::strtoull(first, nullptr, 10);
  for (uint64_t seed = begin; seed < begin + schedules; ++seed) {
    CAPTURE(seed);
    Schedule(seed).Run();
  }
  if (wanted != nullptr) MESSAGE(schedules, " schedules, one result for each request");
}

}  // namespace
}  // namespace dagstore
