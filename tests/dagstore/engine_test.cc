// The engine with held jobs, held commits and a clock that obeys: no threads, no sleeps.
#include <array>
#include <cstdlib>
#include <random>

#include "tests/dagstore/engine_world.h"

namespace dagstore {
namespace {

constexpr absl::Duration kSecond = absl::Seconds(1);

// ---- Registering ----

TEST_CASE("engine: a lazy registration is answered once it is durable, and starts no job") {
  EngineWorld world;
  const Ticket ticket = world.Register("k", /*lazy=*/true);
  world.Run();
  CHECK_FALSE(world.Answered(ticket));
  CHECK_FALSE(world.StoredRecord("k").has_value());
  world.commits.Finish();
  world.Run();
  CHECK_STATUS_OK(world.Answer(ticket).status);
  CHECK_EQ(world.State("k"), "New");
  CHECK(world.StoredRecord("k")->lazy);
  CHECK_EQ(world.jobs.started(), 0);
  CHECK(world.directory.alive() == 0);
}

TEST_CASE(
    "engine: row 25: an eager registration rests on two commits, the job on the first, the answer on the second") {
  EngineWorld world;
  const Ticket ticket = world.Register("k");
  world.Run();
  CHECK_EQ(world.jobs.started(), 0);  // the record is not durable
  world.commits.Finish();
  world.Run();
  REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  const Ordinal ordinal = world.jobs.held()[0].ordinal;
  CHECK(world.StoredNextOrdinal() > ordinal);
  world.Finish(JobKind::kInitialize);
  world.Run();
  CHECK_FALSE(world.Answered(ticket));
  CHECK_FALSE(world.directory.IsAlive(ordinal));  // not found before it is durable
  CHECK(world.StoredRecord("k")->state == ShardState::kNew);
  world.commits.Finish();
  world.Run();
  CHECK_STATUS_OK(world.Answer(ticket).status);
  CHECK(world.directory.KeyOf(ordinal) == ShardKey("k"));
  CHECK(world.StoredRecord("k")->state == ShardState::kAvailable);
  CHECK_EQ(world.Stats().active_shards, 0);  // at rest
}

TEST_CASE("engine: a key is registered once, whatever the state, and the refusal waits for the record it speaks of") {
  EngineWorld world;
  const Ticket first = world.Register("k", /*lazy=*/true);
  const Ticket second = world.Register("k", /*lazy=*/true);
  world.Run();
  CHECK_FALSE(world.Answered(second));
  world.commits.Finish();
  world.Run();
  CHECK_STATUS_OK(world.Answer(first).status);
  CHECK_CODE(world.Answer(second).status, kAlreadyExists);
}

TEST_CASE("engine: row 24: an initialisation that comes late, because an acquirer was first, is ignored") {
  EngineWorld world;
  const Ticket registered = world.Register("k");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(registered).status);
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(acquired).status);
  CHECK_EQ(world.failures.published(), 0);
}

TEST_CASE("engine: requests for a shard that is not there are NotFound") {
  EngineWorld world;
  const Ticket tickets[] = {world.Acquire("k"), world.Destroy("k"), world.Recover("k"), world.Collect("k")};
  world.Run();
  for (const Ticket ticket : tickets) CHECK_CODE(world.Answer(ticket).status, kNotFound);
}

// ---- Acquiring ----

TEST_CASE("engine: acquirers of a shard that is being indexed wait, and one open serves them all") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  std::vector<Ticket> tickets;
  for (int i = 0; i < 100; ++i) tickets.push_back(world.Acquire("k"));
  world.Settle();
  CHECK_EQ(world.jobs.started(), 1);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  for (int i = 0; i < 100; ++i) tickets.push_back(world.Acquire("k"));  // while it is being opened
  world.Settle();
  CHECK_EQ(world.jobs.started(), 2);
  world.Finish(JobKind::kOpen);
  world.Settle();
  tickets.push_back(world.Acquire("k"));  // while it is open
  world.Settle();
  CHECK_EQ(world.jobs.started(), 2);
  CHECK_EQ(world.Look("k")->references, 201);
  for (const Ticket ticket : tickets) CHECK_STATUS_OK(world.Answer(ticket).status);
  world.Run();
  CHECK_EQ(world.Look("k")->references, 0);  // answers that were dropped have released
  CHECK_EQ(world.State("k"), "Available");
  CHECK_EQ(world.answers_twice, 0);
}

TEST_CASE("engine: acquiring and releasing an open shard touches neither disk nor workers") {
  EngineWorld world;
  world.MakeAvailable("k");
  world.MustAcquire("k").Close();
  world.Settle();
  const EngineStats before = world.Stats();
  for (int i = 0; i < 1000; ++i) world.MustAcquire("k").Close();
  world.Settle();
  CHECK_EQ(world.Stats().jobs_started, before.jobs_started);
  CHECK_EQ(world.Stats().commits, before.commits);
}

TEST_CASE("engine: row 18: closing an accessor again, or one that was moved from, releases nothing more") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor one = world.MustAcquire("k");
  Accessor two = world.MustAcquire("k");
  one.Close();
  one.Close();
  Accessor moved = std::move(two);
  two.Close();
  world.Run();
  CHECK_EQ(world.Look("k")->references, 1);
  CHECK_EQ(world.State("k"), "Serving");
  moved = Accessor();
  world.Run();
  CHECK_EQ(world.Look("k")->references, 0);
  CHECK_EQ(world.State("k"), "Available");
}

TEST_CASE("engine: rows 39 and 40: an answer that nobody takes releases its shard when the channel is dropped") {
  EngineWorld world;
  world.MakeAvailable("k");
  {
    const Channel<ShardResult> mine(1);
    Request request(TaskMeta(SpanContext(), Deadline::Infinite(), 1'000'000));
    request.op = ShardOp::kAcquire;
    request.key = ShardKey("k");
    request.reply = *mine.Reserve();
    REQUIRE_STATUS_OK(world.queues->PushRequest(std::move(request)));
    world.Settle();
    world.Finish(JobKind::kOpen);
    world.Settle();
    CHECK_EQ(world.Look("k")->references, 1);
  }
  world.Settle();
  CHECK_EQ(world.Look("k")->references, 0);
}

// ---- The queues ----

TEST_CASE("engine: internal tasks go before completions, completions before requests") {
  EngineWorld world;
  const auto trace = world.traces.Subscribe(100);
  world.MakeAvailable("a");
  Accessor accessor = world.MustAcquire("a");
  while (trace->Next(Deadline::At(0), world.clock)) {
  }
  // Requests first in time, then the completion.
  world.Register("b");
  world.Register("c", /*lazy=*/true);
  accessor.Close();
  world.Run();
  std::vector<std::string> steps;
  while (auto event = trace->Next(Deadline::At(0), world.clock)) {
    steps.push_back(event->key.bytes() + " " + std::string(OpName(event->op)));
  }
  CHECK(steps == std::vector<std::string>{"a Release", "b Register", "b Initialize", "c Register"});
}

TEST_CASE("engine: neither completions nor requests starve, however many of the other there are") {
  Options options;
  options.completions_per_request = 4;
  options.turn_tasks_max = 10;
  EngineWorld world(options);
  world.MakeAvailable("a");
  std::vector<Accessor> accessors;
  for (int i = 0; i < 40; ++i) accessors.push_back(world.MustAcquire("a"));
  const auto trace = world.traces.Subscribe(1000);
  for (int i = 0; i < 40; ++i) world.Recover("a");  // refused: a cheap request; it leaves no trace
  std::vector<Ticket> requests;
  for (int i = 0; i < 40; ++i) requests.push_back(world.Acquire("a"));
  accessors.clear();  // 40 completions
  std::string order;
  bool more = true;
  int turns = 0;
  while (more) {
    more = world.Turn();
    ++turns;
  }
  CHECK(turns >= 12);  // 120 tasks, 10 a turn
  while (auto event = trace->Next(Deadline::At(0), world.clock)) order += event->op == ShardOp::kRelease ? 'c' : 'r';
  // 4 completions, one request (the first 40 leave no trace), until the completions are used up.
  CHECK_EQ(order, std::string(40, 'c') + std::string(40, 'r'));
  for (const Ticket ticket : requests) CHECK_STATUS_OK(world.Answer(ticket).status);
  world.Run();

  // And the other way round: completions that keep coming let requests through.
  accessors.clear();
  for (int i = 0; i < 20; ++i) accessors.push_back(world.MustAcquire("a"));
  const Ticket late = world.Acquire("a");
  accessors.clear();
  world.Turn();
  CHECK(world.Answered(late));  // within the first 10 tasks, though 20 completions were there
}

TEST_CASE("engine: a full door and a full channel refuse, and what was accepted is still answered") {
  Options options;
  options.requests_max = 3;
  EngineWorld world(options);
  std::vector<Ticket> accepted;
  for (int i = 0; i < 3; ++i) accepted.push_back(world.Acquire("k"));
  CHECK_CODE(world.Ask(ShardOp::kAcquire, "k"), kResourceExhausted);
  world.Run();
  for (const Ticket ticket : accepted) CHECK_CODE(world.Answer(ticket).status, kNotFound);
  CHECK_STATUS_OK(world.Ask(ShardOp::kAcquire, "k"));

  EngineWorld narrow({}, /*channel_capacity=*/2);
  narrow.Acquire("k");
  narrow.Acquire("k");
  CHECK_CODE(narrow.Ask(ShardOp::kAcquire, "k"), kResourceExhausted);
  narrow.Run();
  CHECK_STATUS_OK(narrow.Ask(ShardOp::kAcquire, "k"));
}

// ---- Stops ----

TEST_CASE("engine: a stop in the queue, twice, after the answer, or of an unknown ticket") {
  EngineWorld world;
  world.Stop(4711);
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket queued = world.Acquire("k");
  world.Stop(queued);
  world.Stop(queued);
  world.Settle();
  // The job had not begun, so there is nothing to wait for.
  CHECK_CODE(world.Answer(queued).status, kCancelled);
  world.Stop(queued);
  world.Settle();
  CHECK_FALSE(world.Answered(queued));
  CHECK_EQ(world.answers_twice, 0);
}

TEST_CASE("engine: a stop of one leaves the job and the others alone, whoever came first") {
  for (const size_t leaver : {0, 1, 2}) {
    CAPTURE(leaver);
    EngineWorld world;
    world.Register("k", /*lazy=*/true);
    world.Settle();
    std::vector<Ticket> tickets;
    for (int i = 0; i < 3; ++i) tickets.push_back(world.Acquire("k"));
    world.Settle();
    world.Stop(tickets[leaver]);
    world.Settle();
    CHECK_CODE(world.Answer(tickets[leaver]).status, kCancelled);
    CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
    world.Finish(JobKind::kInitialize);
    world.Settle();
    world.Finish(JobKind::kOpen);
    world.Settle();
    for (size_t i = 0; i < 3; ++i) {
      if (i != leaver) CHECK_STATUS_OK(world.Answer(tickets[i]).status);
    }
  }
}

TEST_CASE("engine: the last who leaves stops the job, is answered when it has stopped, and nothing is Errored") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket first = world.Acquire("k");
  const Ticket second = world.Acquire("k");
  world.Settle();
  world.Stop(first);
  world.Stop(second);
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kCancelled);
  CHECK_FALSE(world.Answered(second));
  REQUIRE(world.jobs.held()[0].cancel->cancelled());
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(second).status, kCancelled);
  CHECK_EQ(world.State("k"), "New");
  CHECK_EQ(world.failures.published(), 0);
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
}

TEST_CASE("engine: a newcomer does not join a dying job but gets one of his own") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket leaver = world.Acquire("k");
  world.Settle();
  world.Stop(leaver);
  const Ticket newcomer = world.Acquire("k");
  world.Settle();
  const Ordinal dead = world.Finish(JobKind::kInitialize, Cancelled("stopped")).ordinal;
  world.Settle();
  CHECK_CODE(world.Answer(leaver).status, kCancelled);
  CHECK_FALSE(world.Answered(newcomer));
  REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  CHECK_EQ(world.Finish(JobKind::kDiscard).ordinal, dead);
  CHECK(world.jobs.held()[0].ordinal != dead);
  CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(newcomer).status);
}

TEST_CASE("engine: a newcomer to the new job of others may stop it again") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket leaver = world.Acquire("k");
  world.Settle();
  world.Stop(leaver);
  const Ticket newcomer = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  world.Stop(newcomer);
  world.Settle();
  CHECK(world.jobs.held()[world.jobs.Find(JobKind::kInitialize)].cancel->cancelled());
}

TEST_CASE("engine: a dying job that ends well all the same serves those who came after") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket leaver = world.Acquire("k");
  world.Settle();
  world.Stop(leaver);
  const Ticket newcomer = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_CODE(world.Answer(leaver).status, kCancelled);
  CHECK_EQ(world.State("k"), "Available");
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(newcomer).status);
}

TEST_CASE("engine: an acquirer who stopped is answered though the open he waited for ends well") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket leaver = world.Acquire("k");
  world.Settle();
  world.Stop(leaver);
  world.Settle();
  CHECK_FALSE(world.Answered(leaver));
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_CODE(world.Answer(leaver).status, kCancelled);
  CHECK_EQ(world.Look("k")->references, 0);
  CHECK_EQ(world.State("k"), "Available");
}

TEST_CASE("engine: row 23: the job of a registration belongs to those who wait, and its stop ends it") {
  EngineWorld world;
  const Ticket ticket = world.Register("k");
  world.Settle();
  world.Stop(ticket);
  world.Settle();
  REQUIRE(world.jobs.held()[0].cancel->cancelled());
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kCancelled);
  CHECK_EQ(world.State("k"), "New");
  CHECK(world.StoredRecord("k").has_value());  // it is registered; indexed when somebody wants it
}

TEST_CASE("engine: an acquirer who leaves does not stop what the store does for itself") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket first = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kOpen, DataLoss("the index is torn"), /*index_damaged=*/true);
  world.Settle();
  CHECK_EQ(world.State("k"), "Recovering");
  world.Stop(first);
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kCancelled);
  CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("k"), "Available");
}

TEST_CASE("engine: a source that says Cancelled unasked is not asked again and again") {
  EngineWorld world;
  const Ticket ticket = world.Register("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, Cancelled("says the source"));
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kUnavailable);
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
  CHECK_EQ(world.State("k"), "Errored");
}

// ---- Deadlines ----

TEST_CASE("engine: a request whose deadline has passed in the queue does nothing") {
  EngineWorld world;
  const Deadline deadline = Deadline::After(world.clock, kSecond);
  const Ticket registered = world.Register("k", /*lazy=*/true, deadline);
  const Ticket acquired = world.Acquire("k", deadline);
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK_CODE(world.Answer(registered).status, kDeadlineExceeded);
  CHECK_CODE(world.Answer(acquired).status, kDeadlineExceeded);
  CHECK_EQ(world.State("k"), "none");
  CHECK_EQ(world.jobs.started(), 0);
}

TEST_CASE("engine: a deadline fires while nothing else happens, and concerns its own ticket only") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket patient = world.Acquire("k");
  const Ticket hasty = world.Acquire("k", Deadline::After(world.clock, kSecond));
  world.Settle();
  CHECK(world.NextTimer() == Deadline::After(world.clock, kSecond));
  world.clock.Advance(kSecond - absl::Nanoseconds(1));
  world.Settle();
  CHECK_FALSE(world.Answered(hasty));
  world.clock.Advance(absl::Nanoseconds(1));
  world.Settle();
  CHECK_CODE(world.Answer(hasty).status, kDeadlineExceeded);
  CHECK_FALSE(world.Answered(patient));
  CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
  CHECK(world.NextTimer().IsInfinite());
}

TEST_CASE("engine: row 19: the deadline of the first waiter is not the deadline of the job others wait for") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket hasty = world.Acquire("k", Deadline::After(world.clock, kSecond));
  const Ticket patient = world.Acquire("k");
  world.Settle();
  CHECK(world.jobs.held()[0].meta.deadline.IsInfinite());
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK_CODE(world.Answer(hasty).status, kDeadlineExceeded);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK(world.jobs.held()[0].meta.deadline.IsInfinite());
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(patient).status);
}

TEST_CASE("engine: the last whose deadline passes stops the job and is told DeadlineExceeded when it has stopped") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket ticket = world.Acquire("k", Deadline::After(world.clock, kSecond));
  world.Settle();
  world.clock.Advance(kSecond);
  world.Settle();
  CHECK_FALSE(world.Answered(ticket));
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kDeadlineExceeded);
  CHECK_EQ(world.State("k"), "New");
}

TEST_CASE("engine: a result that has arrived beats a deadline that passes in the same turn") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket ticket = world.Acquire("k", Deadline::After(world.clock, kSecond));
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.clock.Advance(2 * kSecond);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(ticket).status);
}

TEST_CASE("engine: deadlines of requests that were answered in time do not pile up") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket patient = world.Acquire("k", Deadline::After(world.clock, absl::Hours(2)));
  for (int i = 0; i < 10'000; ++i) {
    const Ticket ticket = world.Acquire("k", Deadline::After(world.clock, absl::Hours(1)));
    world.Stop(ticket);
    world.Settle();
    CHECK_CODE(world.Answer(ticket).status, kCancelled);
    REQUIRE(world.Stats().timers <= 1100);
  }
  world.clock.Advance(absl::Hours(2));
  world.Settle();
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  CHECK_CODE(world.Answer(patient).status, kDeadlineExceeded);
  CHECK_EQ(world.Stats().timers, 0);
}

// ---- Failing and recovering ----

TEST_CASE("engine: a failed job is told to all, stored with its cause, and asked again only on request") {
  EngineWorld world;
  const Ticket registered = world.Register("k");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  const Ordinal dead = world.Finish(JobKind::kInitialize, DataLoss("torn")).ordinal;
  world.Run();
  CHECK_FALSE(world.Answered(registered));  // the error is durable first
  world.Settle();
  CHECK_CODE(world.Answer(registered).status, kDataLoss);
  CHECK_CODE(world.Answer(acquired).status, kDataLoss);
  CHECK(world.StoredRecord("k")->state == ShardState::kErrored);
  CHECK_EQ(world.StoredRecord("k")->error, "torn");
  CHECK_EQ(world.Finish(JobKind::kDiscard).ordinal, dead);
  CHECK_EQ(world.failures.published(), 1);
  const Ticket refused = world.Acquire("k");
  world.Settle();
  CHECK_CODE(world.Answer(refused).status, kDataLoss);
  CHECK_EQ(world.jobs.held().size(), 0);
  const Ticket recovered = world.Recover("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(recovered).status);
  CHECK_EQ(world.State("k"), "Available");
  CHECK_EQ(world.StoredRecord("k")->error, "");
}

TEST_CASE("engine: row 20: an error is not remembered; every recovery asks the source again") {
  EngineWorld world;
  world.Register("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, Unavailable("down"));
  world.Settle();
  for (uint32_t attempt = 1; attempt <= 5; ++attempt) {
    CHECK_EQ(world.StoredRecord("k")->attempts, attempt);
    const Ticket ticket = world.Recover("k");
    world.Settle();
    world.Finish(JobKind::kInitialize, Unavailable("still down"));
    world.Settle();
    CHECK_CODE(world.Answer(ticket).status, kUnavailable);
  }
  const Ticket ticket = world.Recover("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(ticket).status);
  CHECK_EQ(world.StoredRecord("k")->attempts, 0);
}

TEST_CASE("engine: a limit of ours changes nothing durable") {
  EngineWorld world;
  const Ticket ticket = world.Register("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, ResourceExhausted("no descriptors"));
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kResourceExhausted);
  CHECK_EQ(world.State("k"), "New");
  CHECK(world.StoredRecord("k")->state == ShardState::kNew);
  world.MakeAvailable("l");
  const Ticket acquired = world.Acquire("l");
  world.Settle();
  world.Finish(JobKind::kOpen, ResourceExhausted("no descriptors"));
  world.Settle();
  CHECK_CODE(world.Answer(acquired).status, kResourceExhausted);
  CHECK_EQ(world.State("l"), "Available");
  CHECK(world.StoredRecord("l")->state == ShardState::kAvailable);
  CHECK_EQ(world.failures.published(), 0);
}

TEST_CASE("engine: row 10: an Errored shard stays Errored when its last reader leaves, and keeps the cause") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  accessor.ReportDamage(DataLoss("the file is another"), Damage::kShard);
  world.Settle();
  CHECK_EQ(world.State("k"), "Errored");
  CHECK(world.StoredRecord("k")->state == ShardState::kErrored);
  accessor.Close();
  world.Settle();
  CHECK_EQ(world.State("k"), "Errored");
  CHECK_EQ(world.Look("k")->references, 0);
  CHECK_CODE(world.Look("k")->error, kDataLoss);
}

TEST_CASE("engine: row 11: releases count while a shard recovers, so it can be destroyed afterwards") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  accessor.ReportDamage(DataLoss("index"), Damage::kIndex);
  world.Settle();
  CHECK_EQ(world.State("k"), "Recovering");
  accessor.Close();
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("k"), "Available");
  CHECK_EQ(world.Look("k")->references, 0);
  const Ticket ticket = world.Destroy("k");
  world.Settle();
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(ticket).status);
}

TEST_CASE(
    "engine: damage to a block is noted, to the index repaired, to the shard final, and an old index is not to blame") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  const Ordinal old_ordinal = world.Look("k")->ordinal;
  accessor.ReportDamage(DataLoss("a block"), Damage::kBlock);
  world.Settle();
  CHECK_EQ(world.State("k"), "Serving");
  CHECK_EQ(world.failures.published(), 1);

  accessor.ReportDamage(DataLoss("the index"), Damage::kIndex);
  accessor.ReportDamage(DataLoss("the index"), Damage::kIndex);  // the first repairs it
  const Ticket waiting = world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.State("k"), "Recovering");
  REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  CHECK(world.StoredRecord("k")->state == ShardState::kAvailable);  // a restart finds the damage again by itself
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("k"), "Serving");  // the reader of the old one is still there
  CHECK_FALSE(world.directory.IsAlive(old_ordinal));
  CHECK(world.top.Dropped(old_ordinal));
  CHECK(world.directory.IsAlive(world.Look("k")->ordinal));
  CHECK_EQ(world.jobs.Take(world.jobs.Find(JobKind::kDiscard)).ordinal, old_ordinal);
  world.Finish(JobKind::kOpen);
  world.Settle();
  const ShardResult served = world.Answer(waiting);
  REQUIRE_STATUS_OK(served.status);
  CHECK(served.accessor.shard()->ordinal != old_ordinal);

  accessor.ReportDamage(DataLoss("the old index, once more"), Damage::kIndex);
  world.Settle();
  CHECK_EQ(world.State("k"), "Serving");
  served.accessor.ReportDamage(DataLoss("all of it"), Damage::kShard);
  world.Settle();
  CHECK_EQ(world.State("k"), "Errored");
}

TEST_CASE("engine: a repair that fails by a limit leaves the shard Errored with the damage as its cause") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  accessor.ReportDamage(DataLoss("the index is torn"), Damage::kIndex);
  world.Settle();
  world.Finish(JobKind::kInitialize, ResourceExhausted("disk full"));
  world.Settle();
  CHECK_EQ(world.State("k"), "Errored");
  CHECK_CODE(world.Look("k")->error, kDataLoss);
  CHECK(world.StoredRecord("k")->state == ShardState::kAvailable);
}

TEST_CASE("engine: row 16: a completion of an older job changes nothing; recoveries are one at a time") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  world.MakeAvailable("l");
  const Ticket opening = world.Acquire("l");
  world.Settle();
  const JobSpec stale = world.jobs.Take(world.jobs.Find(JobKind::kOpen));
  world.engine.AssertLoop();
  world.engine.ReportDamage(ShardKey("l"), world.Look("l")->ordinal, DataLoss("index"), Damage::kIndex);
  world.Settle();
  CHECK_EQ(world.State("l"), "Recovering");
  CHECK(stale.cancel->cancelled());
  world.jobs.Report(stale, world.ResultOf(stale, DataLoss("late")));
  world.Settle();
  CHECK_EQ(world.State("l"), "Recovering");
  const Ticket again = world.Recover("l");
  world.Settle();
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(again).status);
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(opening).status);
  CHECK(world.Stats().stale_completions >= 1);
}

// ---- Destroying ----

TEST_CASE("engine: a destroy is durable before anything is removed, and answered when all is gone") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ordinal ordinal = world.Look("k")->ordinal;
  const Ticket first = world.Destroy("k");
  world.Run();
  CHECK_FALSE(world.directory.KeyOf(ordinal).has_value());
  // A merge leaves out what is dropped, and gc sweeps what is dead. If the power goes now the shard is found alive, and
  // must be found by CID and by its roots.
  CHECK_FALSE(world.top.Dropped(ordinal));
  CHECK(world.directory.IsAlive(ordinal));
  CHECK_EQ(world.jobs.Count(JobKind::kDestroy), 0);
  world.commits.Finish();
  world.Run();
  CHECK(world.StoredDestroying("k"));
  CHECK_EQ(world.jobs.Count(JobKind::kDestroy), 1);
  const Ticket second = world.Destroy("k");  // joins
  const Ticket refused = world.Acquire("k");
  const Ticket exists = world.Register("k");
  const Ticket recover = world.Recover("k");
  world.Run();
  CHECK_CODE(world.Answer(refused).status, kNotFound);
  CHECK_CODE(world.Answer(exists).status, kAlreadyExists);
  CHECK_CODE(world.Answer(recover).status, kFailedPrecondition);
  CHECK_EQ(world.jobs.Count(JobKind::kDestroy), 1);
  world.Finish(JobKind::kDestroy);
  world.Run();
  CHECK(world.top.Dropped(ordinal));
  CHECK_FALSE(world.directory.IsAlive(ordinal));
  CHECK_FALSE(world.Answered(first));
  world.commits.Finish();
  world.Run();
  CHECK_STATUS_OK(world.Answer(first).status);
  CHECK_STATUS_OK(world.Answer(second).status);
  CHECK_EQ(world.State("k"), "none");
  CHECK_FALSE(world.StoredRecord("k").has_value());
  CHECK_FALSE(world.StoredDestroying("k"));
  CHECK_EQ(world.directory.alive(), 0);
}

TEST_CASE("engine: a shard in use is not destroyed") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor accessor = world.MustAcquire("k");
  Ticket ticket = world.Destroy("k");
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kFailedPrecondition);
  CHECK_EQ(world.State("k"), "Serving");
  accessor.ReportDamage(DataLoss("gone"), Damage::kShard);
  ticket = world.Destroy("k");
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kFailedPrecondition);
  CHECK_EQ(world.State("k"), "Errored");
  CHECK_FALSE(world.StoredDestroying("k"));
}

TEST_CASE("engine: row 14: a shard destroyed while a job of it runs does not come back when the job ends") {
  for (const absl::StatusCode outcome :
       {absl::StatusCode::kOk, absl::StatusCode::kCancelled, absl::StatusCode::kDataLoss}) {
    CAPTURE(static_cast<int>(outcome));
    EngineWorld world;
    const Ticket registered = world.Register("k");
    const Ticket acquired = world.Acquire("k");
    world.Settle();
    const Ticket destroyed = world.Destroy("k");
    world.Settle();
    CHECK_CODE(world.Answer(registered).status, kFailedPrecondition);
    CHECK_CODE(world.Answer(acquired).status, kFailedPrecondition);
    CHECK(world.jobs.held()[0].cancel->cancelled());
    CHECK_EQ(world.jobs.Count(JobKind::kDestroy), 0);  // waits for the job
    const Ordinal dead = world.Finish(JobKind::kInitialize, MakeStatus(outcome, "late")).ordinal;
    world.Settle();
    CHECK_EQ(world.State("k"), "Destroying");
    CHECK(world.top.Dropped(dead));
    CHECK_EQ(world.Finish(JobKind::kDiscard).ordinal, dead);  // its index
    world.Finish(JobKind::kDestroy);
    world.Settle();
    CHECK_STATUS_OK(world.Answer(destroyed).status);
    CHECK_EQ(world.State("k"), "none");
    CHECK_FALSE(world.StoredRecord("k").has_value());
    CHECK_FALSE(world.directory.IsAlive(dead));
  }
}

TEST_CASE("engine: a copy that a dead job went on with goes with it, whatever its name") {
  EngineWorld world;
  const Ticket registered = world.Register("k");
  world.Settle();
  const Ticket destroyed = world.Destroy("k");
  world.Settle();
  CHECK_CODE(world.Answer(registered).status, kFailedPrecondition);
  const JobSpec job = world.jobs.Take(world.jobs.Find(JobKind::kInitialize));
  JobResult made;
  made.record.emplace();
  made.record->copy = TransientRecord{.name = "of-an-earlier-process.1.car", .size = 5, .owned = true};
  world.jobs.Report(job, std::move(made));
  world.Settle();
  CHECK_EQ(world.Finish(JobKind::kDiscard).old_copy, "of-an-earlier-process.1.car");
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroyed).status);
}

TEST_CASE("engine: row 15: an acquire behind a destroy is refused, and stores nothing") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket destroyed = world.Destroy("k");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  CHECK_CODE(world.Answer(acquired).status, kNotFound);
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroyed).status);
  CHECK_FALSE(world.StoredRecord("k").has_value());
}

TEST_CASE("engine: row 17: a key that is registered again after its destruction has nothing of the old shard") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  world.copies = false;
  const Ordinal old_ordinal = world.Look("k")->ordinal;
  Accessor accessor = world.MustAcquire("k");
  accessor.Close();
  const Ticket destroyed = world.Destroy("k");
  world.Settle();
  world.Finish(JobKind::kDestroy);
  const Ticket registered = world.Register("k");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroyed).status);
  CHECK_EQ(world.Look("k")->ordinal, 0);
  CHECK_FALSE(world.Look("k")->has_copy);
  REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  const JobSpec& job = world.jobs.held()[0];
  CHECK(job.ordinal != old_ordinal);
  CHECK_EQ(job.old_ordinal, 0);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  REQUIRE_EQ(world.jobs.Count(JobKind::kOpen), 1);  // the open files of the old one are not used
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(registered).status);
  CHECK(world.Answer(acquired).accessor.shard()->ordinal != old_ordinal);
}

TEST_CASE("engine: a release and a report of an earlier life of the key are dropped") {
  EngineWorld world;
  world.MakeAvailable("k");
  Accessor dead = world.MustAcquire("k");
  const std::shared_ptr<const OpenShard> shard = dead.shard();
  dead.Close();
  world.Settle();
  const Ticket destroyed = world.Destroy("k");
  world.Settle();
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroyed).status);
  world.MakeAvailable("k");
  const Accessor living = world.MustAcquire("k");
  const uint64_t stale = world.Stats().stale_completions;
  const TaskMeta own(SpanContext(), Deadline::Infinite(), 0);
  for (uint32_t incarnation = 0; incarnation < 2; ++incarnation) {  // of lives before this one
    world.queues->PushRelease(own, 0, incarnation);
    world.queues->PushDamage(own, 0, incarnation, shard->ordinal, DataLoss("old"), Damage::kShard);
  }
  world.Settle();
  CHECK_EQ(world.Stats().stale_completions, stale + 4);
  CHECK_EQ(world.Look("k")->references, 1);
  CHECK_EQ(world.State("k"), "Serving");
}

TEST_CASE("engine: a destroy that fails stays Destroying, and may be asked again") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Ticket first = world.Destroy("k");
  world.Settle();
  world.Finish(JobKind::kDestroy, Unavailable("busy"));
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kUnavailable);
  CHECK_EQ(world.State("k"), "Destroying");
  CHECK(world.StoredDestroying("k"));
  const Ticket second = world.Destroy("k");
  world.Settle();
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(second).status);
}

// ---- Local copies ----

TEST_CASE("engine: row 12: the local copy of a shard in use, or being opened, is not collected") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  CHECK(world.Look("k")->has_copy);
  const Ticket opening = world.Acquire("k");
  world.Settle();
  const Ticket during = world.Collect("k");
  world.Settle();
  CHECK_CODE(world.Answer(during).status, kFailedPrecondition);
  world.Finish(JobKind::kOpen);
  world.Settle();
  ShardResult served = world.Answer(opening);
  const Ticket in_use = world.Collect("k");
  world.Settle();
  CHECK_CODE(world.Answer(in_use).status, kFailedPrecondition);
  served.accessor.ReportDamage(DataLoss("x"), Damage::kShard);  // Errored, but somebody reads
  const Ticket errored = world.Collect("k");
  world.Settle();
  CHECK_CODE(world.Answer(errored).status, kFailedPrecondition);
  CHECK_EQ(world.jobs.Count(JobKind::kCollect), 0);
}

TEST_CASE("engine: a copy is collected once nobody uses it; whoever comes meanwhile waits and is served") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  world.MustAcquire("k").Close();
  world.Settle();
  const Ticket collected = world.Collect("k");
  world.Settle();
  REQUIRE_EQ(world.jobs.Count(JobKind::kCollect), 1);
  CHECK_EQ(world.Stats().open_shards, 0);
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.jobs.Count(JobKind::kOpen), 0);
  world.Finish(JobKind::kCollect);
  world.Run();
  CHECK_FALSE(world.Answered(collected));
  world.Settle();
  CHECK_STATUS_OK(world.Answer(collected).status);
  CHECK_FALSE(world.Look("k")->has_copy);
  CHECK_FALSE(world.StoredRecord("k")->copy.has_value());
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(acquired).status);
}

TEST_CASE("engine: the copy of an errored shard goes too, once nobody reads it; its cause stays") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  Accessor reads = world.MustAcquire("k");
  reads.ReportDamage(DataLoss("x"), Damage::kShard);
  world.Settle();
  REQUIRE_EQ(world.State("k"), "Errored");
  const auto evict = [&](const std::string& victim) {
    world.engine.AssertLoop();
    const bool begun = world.engine.Evict(ShardKey("k"), victim);
    world.Settle();
    return begun;
  };
  const auto collectable = [&] {
    world.engine.AssertLoop();
    return world.engine.Collectable(10).size();
  };
  CHECK_EQ(collectable(), 0);
  // What an attempt left is nobody's, and the job refuses should it be the record's.
  CHECK(evict("copy"));
  CHECK_EQ(world.jobs.Count(JobKind::kCollect), 0);
  world.Finish(JobKind::kDiscard, FailedPrecondition("it is"));
  world.Settle();
  reads.Close();
  world.Settle();
  CHECK_EQ(collectable(), 1);
  SUBCASE("it was asked for") {
    const Ticket collected = world.Collect("k");
    world.Settle();
    CHECK_EQ(world.Stats().open_shards, 0);
    world.Finish(JobKind::kCollect);
    world.Settle();
    CHECK_STATUS_OK(world.Answer(collected).status);
  }
  SUBCASE("for room") {
    CHECK(evict("copy"));
    CHECK(evict("left"));  // beside it
    world.Finish(JobKind::kCollect);
    world.Settle();
  }
  CHECK_FALSE(world.Look("k")->has_copy);
  CHECK_EQ(world.State("k"), "Errored");
  CHECK_FALSE(world.StoredRecord("k")->copy.has_value());
  CHECK_EQ(world.StoredRecord("k")->error, "x");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  CHECK_CODE(world.Answer(acquired).status, kDataLoss);
  const Ticket again = world.Collect("k");
  world.Settle();
  CHECK_CODE(world.Answer(again).status, kFailedPrecondition);
}

TEST_CASE("engine: an errored shard is recovered, acquired or destroyed while its copy goes: each waits for that") {
  enum class Then { kRecover, kRecoverFails, kRecoverIsStopped, kAcquire, kDestroy };
  for (const Then then :
       {Then::kRecover, Then::kRecoverFails, Then::kRecoverIsStopped, Then::kAcquire, Then::kDestroy}) {
    CAPTURE(static_cast<int>(then));
    Options options;
    options.recover_on_start = RecoverOnStart::kOnAcquire;
    EngineWorld world(options);
    world.copies = true;
    world.RestoreErrored("k", DataLoss("was torn"), /*copy=*/true);
    const Ticket collected = world.Collect("k");
    world.Settle();
    REQUIRE_EQ(world.jobs.Count(JobKind::kCollect), 1);
    const Ticket asked = then == Then::kDestroy   ? world.Destroy("k")
                         : then == Then::kAcquire ? world.Acquire("k")
                                                  : world.Recover("k");
    world.Settle();
    // The next job might take up the copy that this one removes.
    CHECK_EQ(world.jobs.held().size(), 1);
    if (then == Then::kRecoverIsStopped) {
      world.Stop(asked);
      world.Settle();
      CHECK_CODE(world.Answer(asked).status, kCancelled);
      CHECK_EQ(world.State("k"), "Errored");
    }
    CHECK_FALSE(world.Answered(collected));
    world.Finish(JobKind::kCollect);
    world.Settle();
    CHECK_STATUS_OK(world.Answer(collected).status);
    switch (then) {
      case Then::kRecoverIsStopped:
        CHECK_EQ(world.jobs.held().size(), 0);
        CHECK_FALSE(world.StoredRecord("k")->copy.has_value());
        continue;
      case Then::kDestroy:
        world.Finish(JobKind::kDestroy);
        break;
      case Then::kRecoverFails:
        CHECK_FALSE(world.StoredRecord("k")->copy.has_value());
        world.Finish(JobKind::kInitialize, Unavailable("gone"));
        break;
      case Then::kRecover:
      case Then::kAcquire:
        CHECK_FALSE(world.StoredRecord("k")->copy.has_value());
        world.Finish(JobKind::kInitialize);
        break;
    }
    world.Settle();
    if (then == Then::kAcquire) world.Finish(JobKind::kOpen);
    while (world.jobs.Count(JobKind::kDiscard) != 0) world.Finish(JobKind::kDiscard);
    world.Settle();
    CHECK_EQ(world.jobs.held().size(), 0);
    const ShardResult result = world.Answer(asked);
    if (then == Then::kRecoverFails) {
      CHECK_CODE(result.status, kUnavailable);
      CHECK_EQ(world.State("k"), "Errored");
    } else {
      CHECK_STATUS_OK(result.status);
    }
    CHECK_EQ(world.StoredRecord("k").has_value(), then != Then::kDestroy);
    CHECK_EQ(world.answers_twice, 0);
  }
}

TEST_CASE("engine: a shard whose index is found damaged while its copy goes is indexed again once that is gone") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  const Ticket collected = world.Collect("k");
  world.Settle();
  REQUIRE_EQ(world.jobs.Count(JobKind::kCollect), 1);
  world.engine.AssertLoop();
  world.engine.ReportDamage(ShardKey("k"), world.StoredRecord("k")->ordinal, DataLoss("torn"), Damage::kIndex);
  world.Settle();
  CHECK_EQ(world.State("k"), "Recovering");
  CHECK_EQ(world.jobs.held().size(), 1);
  world.Finish(JobKind::kCollect);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(collected).status);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("k"), "Available");
}

TEST_CASE("engine: room is made by the copy that was named, of a record or left by an attempt, never by one in use") {
  EngineWorld world;
  world.copies = true;
  const auto evict = [&](const std::string& key, const std::string& victim) {
    world.engine.AssertLoop();
    const bool begun = world.engine.Evict(ShardKey(key), victim);
    world.Settle();
    return begun;
  };
  const auto finish = [&](JobKind kind, const std::string& key, const std::string& victim) {
    REQUIRE_EQ(world.jobs.Count(kind), 1);
    const JobSpec& job = world.jobs.held()[world.jobs.Find(kind)];
    CHECK_EQ(job.key.bytes(), key);
    CHECK_EQ(job.victim, victim);
    world.Finish(kind);
    world.Settle();
  };
  world.MakeAvailable("k");
  {
    const Accessor reads = world.MustAcquire("k");
    CHECK_FALSE(evict("k", "copy"));
  }
  world.Settle();
  // The job looks whether it is the record's.
  CHECK(evict("k", "copy"));
  CHECK_FALSE(evict("k", "another"));
  finish(JobKind::kCollect, "k", "copy");
  CHECK_FALSE(world.Look("k")->has_copy);
  CHECK(evict("k", "left"));
  finish(JobKind::kDiscard, "k", "left");
  CHECK(evict("", "of nobody"));
  finish(JobKind::kDiscard, "", "of nobody");

  world.Register("fails");
  world.Settle();
  world.Finish(JobKind::kInitialize, Unavailable("the source broke off"));
  world.Settle();
  while (world.jobs.Count(JobKind::kDiscard) != 0) world.Finish(JobKind::kDiscard);
  world.Settle();
  CHECK(world.Look("fails")->state == ShardState::kErrored);
  CHECK(evict("fails", "left"));
  finish(JobKind::kDiscard, "fails", "left");
}

TEST_CASE("engine: who leaves while a copy is collected: an acquirer is answered at once, the collector at its end") {
  EngineWorld world;
  world.copies = true;
  world.MakeAvailable("k");
  const Ticket collected = world.Collect("k");
  const Ticket acquired = world.Acquire("k");
  world.Settle();
  world.Stop(collected);
  world.Stop(acquired);
  world.Settle();
  CHECK_CODE(world.Answer(acquired).status, kCancelled);
  CHECK_FALSE(world.Answered(collected));
  world.Finish(JobKind::kCollect);
  world.Settle();
  CHECK_CODE(world.Answer(collected).status, kCancelled);
}

// ---- Commits ----

TEST_CASE(
    "engine: row 26: after a failed commit nothing says OK that is not durable, and open shards are still served") {
  EngineWorld world;
  world.MakeAvailable("open");
  const Accessor held = world.MustAcquire("open");
  world.MakeAvailable("closed");
  world.MakeAvailable("damaged");
  const Ticket lazy = world.Register("a", /*lazy=*/true);
  const Ticket eager = world.Register("b");
  world.Run();
  const Ticket next_batch = world.Register("c", /*lazy=*/true);
  const Ticket destroyed = world.Destroy("closed");
  const Ticket parked = world.Acquire("b");
  world.Run();
  CHECK_EQ(world.answers.size(), 0);
  world.commits.Finish(Unavailable("the disk is gone"));
  world.Run();
  for (const Ticket ticket : {lazy, eager, next_batch, destroyed, parked}) {
    CHECK_CODE(world.Answer(ticket).status, kUnavailable);
  }
  CHECK_FALSE(world.commits.holds());
  CHECK_CODE(world.Stats().store_error, kUnavailable);
  const Ticket after[] = {world.Register("d"), world.Register("a"), world.Destroy("damaged"), world.Destroy("open")};
  world.Run();
  for (const Ticket ticket : after) CHECK_CODE(world.Answer(ticket).status, kUnavailable);
  const Ticket served = world.Acquire("open");
  const Ticket opened = world.Acquire("damaged");
  const Ticket never = world.Acquire("a");
  world.Run();
  CHECK_STATUS_OK(world.Answer(served).status);
  while (!world.jobs.held().empty()) {
    world.FinishAt(0, absl::OkStatus());
    world.Run();
  }
  CHECK_STATUS_OK(world.Answer(opened).status);
  CHECK_CODE(world.Answer(never).status, kUnavailable);
  CHECK_FALSE(world.commits.holds());
  CHECK(world.Close(Deadline::Infinite()));
}

TEST_CASE("engine: a job that ends after the store has failed makes nothing Available") {
  EngineWorld world;
  const Ticket indexing = world.Register("a");
  world.Settle();
  world.Register("b", /*lazy=*/true);
  world.Run();
  world.commits.Finish(Unavailable("the disk is gone"));
  world.Run();
  const Ordinal dead = world.Finish(JobKind::kInitialize).ordinal;
  world.Run();
  CHECK_CODE(world.Answer(indexing).status, kUnavailable);
  CHECK_EQ(world.State("a"), "New");
  CHECK(world.top.Dropped(dead));
  CHECK(world.Close(Deadline::Infinite()));
}

TEST_CASE("engine: while a batch is being stored the next one gathers, and one commit serves many") {
  EngineWorld world;
  std::vector<Ticket> first, second;
  first.push_back(world.Register("0", /*lazy=*/true));
  world.Run();
  for (int i = 1; i <= 500; ++i) second.push_back(world.Register(std::to_string(i), /*lazy=*/true));
  world.Run();
  world.commits.Finish();
  world.Run();
  CHECK(world.Answered(first[0]));
  CHECK_FALSE(world.Answered(second[0]));
  world.commits.Finish();
  world.Run();
  for (const Ticket ticket : second) CHECK_STATUS_OK(world.Answer(ticket).status);
  CHECK_EQ(world.Stats().commits, 2);
  CHECK_EQ(world.Stats().changes_committed, 501);
}

// ---- Ordinals ----

TEST_CASE("engine: ordinals are reserved durably before they are used and never given out again, past 65,536 of them") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  Ordinal last = 0;
  // Each attempt takes one, whatever becomes of it.
  for (int i = 0; i < 70'000; ++i) {
    const Ticket ticket = world.Acquire("k");
    world.Settle();
    const Ordinal ordinal = world.jobs.held()[world.jobs.Find(JobKind::kInitialize)].ordinal;
    REQUIRE(ordinal > last);
    REQUIRE(world.StoredNextOrdinal() > ordinal);
    last = ordinal;
    world.Finish(JobKind::kInitialize, ResourceExhausted("not now"));
    world.Settle();
    world.Finish(JobKind::kDiscard);
    world.Settle();
    REQUIRE(world.Answered(ticket));
    world.answers.clear();
  }
}

TEST_CASE("engine: many jobs at once wait for the reservation of their ordinals") {
  Options options;
  options.jobs_running_max = 100'000;
  options.requests_max = 100'000;
  EngineWorld world(options, /*channel_capacity=*/200'000);
  constexpr int kShards = 70'000;
  for (int i = 0; i < kShards; ++i) {
    world.Register(std::to_string(i), /*lazy=*/true);
    if (i % 1000 == 0) world.Settle();
  }
  world.Settle();
  world.answers.clear();
  for (int i = 0; i < kShards; ++i) {
    world.Acquire(std::to_string(i));
    if (i % 10'000 == 0) {
      world.Run();  // commits are held meanwhile
    }
  }
  world.Run();
  std::set<Ordinal> seen;
  const auto check = [&] {
    for (const JobSpec& job : world.jobs.held()) {
      REQUIRE(job.ordinal < world.StoredNextOrdinal());
      REQUIRE(seen.insert(job.ordinal).second);
    }
    while (!world.jobs.held().empty()) world.jobs.Take(world.jobs.held().size() - 1);
  };
  check();
  while (world.commits.holds()) {
    world.commits.Finish();
    world.Run();
    check();
  }
  CHECK_EQ(seen.size(), kShards);
}

TEST_CASE("engine: after a failed commit a job whose ordinal is not reserved is refused, not forgotten") {
  EngineWorld world;
  world.engine.AssertLoop();
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.engine.RestoreOrdinals(100, 100);  // none are reserved
  world.Register("l", /*lazy=*/true);
  world.Run();
  world.commits.Finish(Unavailable("the disk is gone"));
  world.Run();
  const Ticket ticket = world.Acquire("k");
  world.Run();
  CHECK_CODE(world.Answer(ticket).status, kUnavailable);
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
  CHECK(world.Close(Deadline::Infinite()));
}

// ---- Open shards ----

TEST_CASE("engine: open shards that nobody uses are closed, the longest unused first, and never one in use") {
  Options options;
  options.open_shards_max = 2;
  EngineWorld world(options);
  std::vector<Accessor> accessors;
  for (const char* key : {"a", "b", "c", "d", "e"}) {
    world.MakeAvailable(key);
    accessors.push_back(world.MustAcquire(key));
  }
  CHECK_EQ(world.Stats().open_shards, 5);  // in use, all of them
  for (const size_t at : {2, 0, 1}) {      // c, a, b
    accessors[at].Close();
    world.Settle();
  }
  CHECK_EQ(world.Stats().open_shards, 4);
  CHECK_EQ(world.jobs.dropped(), 1);
  const size_t started = world.jobs.started();
  accessors[0] = world.MustAcquire("a");  // open still
  accessors[1] = world.MustAcquire("b");
  CHECK_EQ(world.jobs.started(), started);
  accessors[2] = world.MustAcquire("c");
  CHECK_EQ(world.jobs.started(), started + 1);
  accessors.clear();
  world.Settle();
  CHECK_EQ(world.Stats().open_shards, 2);
  CHECK_EQ(world.Stats().active_shards, 2);
}

TEST_CASE("engine: no more jobs run than are allowed, and those that wait run in their order") {
  Options options;
  options.jobs_running_max = 2;
  EngineWorld world(options);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 10; ++i) tickets.push_back(world.Register(std::to_string(i)));
  world.Settle();
  for (int i = 0; i < 10; ++i) {
    REQUIRE(world.jobs.held().size() <= 2);
    CHECK_EQ(world.Finish(JobKind::kInitialize).key.bytes(), std::to_string(i));
    world.Settle();
    CHECK_STATUS_OK(world.Answer(tickets[i]).status);
  }
}

// ---- Restarting ----

TEST_CASE("engine: row 13: whatever state a restart finds, somebody owns what comes next") {
  const auto head = [](ShardState state, Ordinal ordinal, bool lazy = false) {
    RecordHead h;
    h.state = state;
    h.ordinal = ordinal;
    h.lazy = lazy;
    return h;
  };
  for (const RecoverOnStart policy : {RecoverOnStart::kNever, RecoverOnStart::kOnAcquire, RecoverOnStart::kNow}) {
    CAPTURE(static_cast<int>(policy));
    Options options;
    options.recover_on_start = policy;
    EngineWorld world(options);
    world.engine.AssertLoop();
    struct Given {
      const char* key;
      ShardState state;
      bool lazy;
    };
    for (const auto& [key, state, lazy] :
         {Given{"new", ShardState::kNew, false}, Given{"lazy", ShardState::kNew, true},
          Given{"initializing", ShardState::kInitializing, false}, Given{"available", ShardState::kAvailable, false},
          Given{"serving", ShardState::kServing, false}, Given{"recovering", ShardState::kRecovering, false},
          Given{"errored", ShardState::kErrored, false}, Given{"destroying", ShardState::kAvailable, false}}) {
      ShardRecord record;
      record.state = state;
      record.lazy = lazy;
      KvBatch batch;
      batch.Put(KvTable::kRecords, key, EncodeRecord(record));
      REQUIRE_STATUS_OK(world.kv->Commit(batch, true));
    }
    world.engine.RestoreOrdinals(100, 200);
    world.engine.Restore("new", head(ShardState::kNew, 0));
    world.engine.Restore("lazy", head(ShardState::kNew, 0, true));
    world.engine.Restore("initializing", head(ShardState::kInitializing, 0));
    world.engine.Restore("available", head(ShardState::kAvailable, 5));
    world.engine.Restore("serving", head(ShardState::kServing, 6));
    world.engine.Restore("recovering", head(ShardState::kRecovering, 7));
    world.engine.RestoreError("recovering", DataLoss("was torn"), 1);
    world.engine.Restore("errored", head(ShardState::kErrored, 0));
    world.engine.RestoreError("errored", DataLoss("was torn"), 1);
    world.engine.Restore("destroying", head(ShardState::kAvailable, 8));
    world.engine.RestoreDestroying("destroying");
    world.Settle();
    CHECK_EQ(world.State("new"), "Initializing");
    CHECK_EQ(world.State("lazy"), "New");
    CHECK_EQ(world.State("initializing"), "Initializing");
    CHECK_EQ(world.State("available"), "Available");
    CHECK_EQ(world.State("serving"), "Available");
    CHECK_EQ(world.State("destroying"), "Destroying");
    CHECK_FALSE(world.directory.IsAlive(8));
    const bool now = policy == RecoverOnStart::kNow;
    CHECK_EQ(world.State("recovering"), now ? "Recovering" : "Errored");
    CHECK_EQ(world.State("errored"), now ? "Recovering" : "Errored");
    const Ticket acquired = world.Acquire("errored");
    world.Settle();
    if (policy == RecoverOnStart::kNever) {
      CHECK_CODE(world.Answer(acquired).status, kDataLoss);
    } else {
      CHECK_EQ(world.State("errored"), "Recovering");
    }
    while (!world.jobs.held().empty()) {
      world.FinishAt(0, absl::OkStatus());
      world.Settle();
    }
    CHECK_EQ(world.State("destroying"), "none");
    CHECK_EQ(world.State("new"), "Available");
    if (policy != RecoverOnStart::kNever) CHECK_STATUS_OK(world.Answer(acquired).status);
  }
}

TEST_CASE("engine: a shard errored before a restart is recovered by an acquirer once, not by every one") {
  EngineWorld world;
  world.RestoreErrored("k", DataLoss("was torn"));
  world.Settle();
  const Ticket first = world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, DataLoss("still torn"));
  world.Settle();
  CHECK_CODE(world.Answer(first).status, kDataLoss);
  world.Finish(JobKind::kDiscard);
  const Ticket second = world.Acquire("k");
  world.Settle();
  CHECK_CODE(world.Answer(second).status, kDataLoss);
  CHECK_EQ(world.jobs.held().size(), 0);
}

TEST_CASE("engine: an attempt to recover that its caller stopped does not use up the one that a restart allows") {
  for (const absl::Status& end : {Cancelled("stopped"), ResourceExhausted("no descriptors")}) {
    Options options;
    options.recover_on_start = RecoverOnStart::kOnAcquire;
    EngineWorld world(options);
    world.RestoreErrored("k", DataLoss("was torn"));
    const Ticket first = world.Acquire("k");
    world.Settle();
    if (absl::IsCancelled(end)) world.Stop(first);
    world.Settle();
    world.Finish(JobKind::kInitialize, end);
    world.Settle();
    CHECK_FALSE(world.Answer(first).status.ok());
    const Ticket second = world.Acquire("k");
    world.Settle();
    REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
    while (world.jobs.Count(JobKind::kDiscard) != 0) world.Finish(JobKind::kDiscard);
    world.Finish(JobKind::kInitialize, DataLoss("still torn"));
    world.Settle();
    CHECK_CODE(world.Answer(second).status, kDataLoss);
    while (world.jobs.Count(JobKind::kDiscard) != 0) world.Finish(JobKind::kDiscard);
    const Ticket third = world.Acquire("k");  // that attempt was one
    world.Settle();
    CHECK_CODE(world.Answer(third).status, kDataLoss);
    CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 0);
  }
}

TEST_CASE("engine: results that come during a slow commit are stored in batches that the database takes") {
  Options options;
  options.commit_batch_bytes = 4096;
  options.jobs_running_max = 8;
  EngineWorld world(options);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 20; ++i) tickets.push_back(world.Register(std::to_string(i)));
  world.Run();
  while (world.jobs.Count(JobKind::kInitialize) < 8) {
    REQUIRE(world.commits.holds());
    world.commits.Finish();
    world.Run();
  }
  // One result is being stored, the others come meanwhile.
  const auto finish = [&world] {
    JobSpec job = world.jobs.Take(world.jobs.Find(JobKind::kInitialize));
    JobResult result = world.ResultOf(job, absl::OkStatus());
    result.batch.Put(KvTable::kRoots, "root of " + job.key.bytes(), std::string(1500, 'x'));
    world.jobs.Report(job, std::move(result));
    world.Run();
  };
  for (int i = 0; i < 8; ++i) finish();
  REQUIRE(world.commits.holds());
  CHECK_EQ(world.jobs.Count(JobKind::kInitialize), 3);  // begun before the first batch was full, and none since
  size_t batches = 0;
  for (; world.commits.holds(); ++batches) {
    CHECK(world.commits.batch().bytes() <= 4096 + 1500);
    world.commits.Finish();
    world.Run();
    while (world.jobs.Count(JobKind::kInitialize) != 0) finish();
  }
  CHECK(batches >= 20 / 3);
  for (size_t i = 0; i < tickets.size(); ++i) {
    CHECK_STATUS_OK(world.Answer(tickets[i]).status);
    CHECK_EQ(world.State(std::to_string(i)), "Available");
    CHECK_EQ(world.StoredRecord(std::to_string(i))->state, ShardState::kAvailable);
    CHECK(world.directory.KeyOf(world.StoredRecord(std::to_string(i))->ordinal).has_value());
  }
  CHECK_STATUS_OK(world.Stats().store_error);
}

TEST_CASE("engine: an acquirer who leaves does not stop the indexing that a restart has to finish") {
  EngineWorld world;
  world.engine.AssertLoop();
  KvBatch batch;
  batch.Put(KvTable::kRecords, "k", EncodeRecord(ShardRecord()));
  REQUIRE_STATUS_OK(world.kv->Commit(batch, true));
  world.engine.Restore("k", RecordHead());
  world.Settle();
  const Ticket ticket = world.Acquire("k");
  world.Settle();
  world.Stop(ticket);
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kCancelled);
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("k"), "Available");
}

// ---- Closing ----

TEST_CASE("engine: row 33: closing answers what was accepted, and lets running jobs finish") {
  EngineWorld world;
  std::vector<Ticket> tickets;
  for (int i = 0; i < 50; ++i) tickets.push_back(world.Register(std::to_string(i)));
  CHECK(world.Close(Deadline::Infinite()));
  for (const Ticket ticket : tickets) CHECK_STATUS_OK(world.Answer(ticket).status);
  CHECK_CODE(world.Ask(ShardOp::kAcquire, "0"), kFailedPrecondition);
}

TEST_CASE("engine: row 34: closing past its grace stops jobs and waits for them; nobody is left unanswered") {
  Options options;
  options.jobs_running_max = 3;  // others wait
  EngineWorld world(options);
  std::vector<Ticket> tickets;
  for (int i = 0; i < 10; ++i) tickets.push_back(world.Register(std::to_string(i)));
  world.Settle();
  world.BeginClose(Deadline::After(world.clock, kSecond));
  world.Settle();
  CHECK(world.NextTimer() == Deadline::After(world.clock, kSecond));
  CHECK_FALSE(world.jobs.held()[0].cancel->cancelled());
  world.clock.Advance(kSecond);
  world.Settle();
  for (const JobSpec& job : world.jobs.held()) {
    if (job.kind == JobKind::kInitialize) CHECK(job.cancel->cancelled());
  }
  world.engine.AssertLoop();
  CHECK_FALSE(world.engine.Finished());
  while (!world.jobs.held().empty()) {
    world.FinishAt(0, world.jobs.held()[0].kind == JobKind::kInitialize ? Cancelled("stopped") : absl::OkStatus());
    world.Settle();
  }
  CHECK(world.engine.Finished());
  for (const Ticket ticket : tickets) CHECK_CODE(world.Answer(ticket).status, kCancelled);
  for (int i = 0; i < 10; ++i) CHECK(world.StoredRecord(std::to_string(i))->state == ShardState::kNew);
}

TEST_CASE("engine: past the grace of a close a job that starts is told to stop at once") {
  EngineWorld world;
  world.MakeAvailable("k");
  const Accessor accessor = world.MustAcquire("k");
  world.BeginClose(Deadline::At(world.clock.Now()));
  world.Settle();
  accessor.ReportDamage(DataLoss("torn"), Damage::kIndex);
  world.Settle();
  REQUIRE_EQ(world.jobs.Count(JobKind::kInitialize), 1);
  CHECK(world.jobs.held()[0].cancel->cancelled());
  world.engine.AssertLoop();
  CHECK_FALSE(world.engine.Finished());
  world.Finish(JobKind::kInitialize, Cancelled("stopped"));
  world.Settle();
  world.Finish(JobKind::kDiscard);
  world.Settle();
  CHECK(world.engine.Finished());
}

TEST_CASE("engine: past the grace of a close who waits is told so, though his job ends well all the same") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  const Ticket ticket = world.Acquire("k");
  world.Settle();
  world.BeginClose(Deadline::At(world.clock.Now()));
  world.Settle();
  world.Finish(JobKind::kInitialize);  // it did not look
  world.Settle();
  CHECK_CODE(world.Answer(ticket).status, kCancelled);
  CHECK_EQ(world.jobs.Count(JobKind::kOpen), 0);
  CHECK_EQ(world.State("k"), "Available");
  world.engine.AssertLoop();
  CHECK(world.engine.Finished());
}

TEST_CASE("engine: closing past its grace lets a destroy finish that waits for an indexing job") {
  Options options;
  options.jobs_running_max = 1;
  EngineWorld world(options);
  world.Register("busy");
  world.Register("k");
  world.Settle();
  const Ticket destroyed = world.Destroy("k");
  world.BeginClose(Deadline::At(world.clock.Now()));
  world.Settle();
  CHECK_FALSE(world.Answered(destroyed));
  while (!world.jobs.held().empty()) {
    world.FinishAt(0, world.jobs.held()[0].kind == JobKind::kInitialize ? Cancelled("stopped") : absl::OkStatus());
    world.Settle();
  }
  CHECK_STATUS_OK(world.Answer(destroyed).status);
  CHECK_EQ(world.failures.published(), 0);
}

// ---- Random schedules ----

// One schedule: requests, stops, deadlines, job and commit outcomes in any order, and then a close. The oracle knows
// what may be answered to whom; the engine's own CHECKs know the rest (a Bug row of the table ends the process).
class Schedule {
 public:
  explicit Schedule(uint64_t seed) : seed_(seed), random_(seed), world_(MakeOptions()) {
    world_.copies = Chance(30);
    store_may_fail_ = Chance(10);
  }

  void Play() {
    CAPTURE(seed_);
    const int steps = static_cast<int>(20 + Below(60));
    for (int i = 0; i < steps; ++i) {
      Act();
      if (Chance(60)) Turn();
    }
    Close();
  }

 private:
  struct Asked {
    ShardOp op = ShardOp::kAcquire;
    std::string key = {};
    bool stopped = false;
    bool has_deadline = false;
    bool store_had_failed = false;
  };

  Options MakeOptions() {
    Options options;
    options.turn_tasks_max = Chance(50) ? 1 + Below(4) : 1024;
    options.jobs_running_max = Chance(50) ? 1 + Below(3) : 1024;
    options.completions_per_request = 1 + Below(4);
    options.open_shards_max = Below(3);
    return options;
  }
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(uint64_t percent) { return Below(100) < percent; }
  std::string Key() { return std::string(1, static_cast<char>('a' + Below(3))); }

  void Act() {
    switch (Below(14)) {
      case 0:
      case 1:
      case 2: return Ask(ShardOp::kAcquire);
      case 3: return Ask(ShardOp::kRegister);
      case 4: return Chance(50) ? Ask(ShardOp::kDestroy) : Ask(ShardOp::kRecover);
      case 5: return Ask(ShardOp::kCollect);
      case 6:
        if (asked_.empty()) return;
        {
          auto it = asked_.lower_bound(1 + Below(asked_.rbegin()->first));
          it->second.stopped = true;
          world_.Stop(it->first);
        }
        return;
      case 7: return world_.clock.Advance(absl::Milliseconds(Below(40)));
      case 8:
        if (!accessors_.empty())
          accessors_.erase(accessors_.begin() + static_cast<std::ptrdiff_t>(Below(accessors_.size())));
        return;
      case 9:
        if (!accessors_.empty() && Chance(40)) {
          const Damage damage = std::array{Damage::kBlock, Damage::kShard, Damage::kIndex}[Below(3)];
          accessors_[Below(accessors_.size())].ReportDamage(DataLoss("seen by a reader"), damage);
        }
        return;
      case 10:
      case 11: return FinishCommit();
      default: return FinishJob();
    }
  }

  void Ask(ShardOp op) {
    Asked asked;
    asked.op = op;
    asked.key = Key();
    asked.has_deadline = Chance(20);
    asked.store_had_failed = store_failed_;
    const Deadline deadline = asked.has_deadline ? Deadline::After(world_.clock, absl::Milliseconds(Below(60)))
                                                 : Deadline::Infinite();
    std::unique_ptr<ShardRecord> record;
    if (op == ShardOp::kRegister) {
      record = std::make_unique<ShardRecord>();
      record->lazy = Chance(50);
    }
    asked_.emplace(ValueOf(world_.Ask(op, asked.key, deadline, std::move(record))), asked);
  }

  void FinishCommit() {
    if (!world_.commits.holds()) return;
    const bool fail = store_failed_ || (store_may_fail_ && Chance(10));
    store_failed_ = fail;
    world_.commits.Finish(fail ? Unavailable("the disk is gone") : absl::OkStatus());
    Turn();
  }

  void FinishJob() {
    if (world_.jobs.held().empty()) return;
    const size_t at = Below(world_.jobs.held().size());
    const JobSpec& job = world_.jobs.held()[at];
    absl::Status status;
    bool index_damaged = false;
    if (job.cancel != nullptr && job.cancel->cancelled() && Chance(70)) {
      status = Cancelled("stopped");
    } else if (Chance(25)) {
      const absl::StatusCode codes[] = {absl::StatusCode::kDataLoss, absl::StatusCode::kUnavailable,
                                        absl::StatusCode::kResourceExhausted, absl::StatusCode::kNotFound,
                                        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled};
      status = MakeStatus(codes[Below(std::size(codes))], "by lot");
      index_damaged = job.kind == JobKind::kOpen && Chance(50);
    }
    CheckJob(job);
    world_.FinishAt(at, status, index_damaged);
  }

  // What a job rests on is durable before it runs.
  void CheckJob(const JobSpec& job) {
    if (job.kind == JobKind::kDiscard) return;
    CHECK(world_.StoredRecord(job.key.bytes()).has_value());
    if (job.kind == JobKind::kInitialize) {
      CHECK(job.ordinal < world_.StoredNextOrdinal());
      if (checked_.insert(job.ordinal).second) CHECK(job.ordinal != job.old_ordinal);
    }
    if (job.kind == JobKind::kOpen) CHECK_EQ(world_.StoredRecord(job.key.bytes())->ordinal, job.ordinal);
    if (job.kind == JobKind::kDestroy) CHECK(world_.StoredDestroying(job.key.bytes()));
  }

  void Turn() {
    world_.Turn();
    while (!world_.answers.empty()) {
      const auto node = world_.answers.extract(world_.answers.begin());
      CheckAnswer(node.key(), node.mapped());
      if (!node.mapped().accessor.empty()) accessors_.push_back(std::move(node.mapped().accessor));
    }
    CHECK_EQ(world_.answers_twice, 0);
  }

  void CheckAnswer(Ticket ticket, const ShardResult& result) {
    const auto it = asked_.find(ticket);
    REQUIRE(it != asked_.end());
    const Asked& asked = it->second;
    INFO(OpName(asked.op), " ", asked.key, ": ", ToString(result.status));
    CHECK_EQ(result.key.bytes(), asked.key);
    CHECK_EQ(result.accessor.empty(), !(result.status.ok() && asked.op == ShardOp::kAcquire));
    switch (result.status.code()) {
      case absl::StatusCode::kOk:
        if (asked.op != ShardOp::kAcquire) CHECK_FALSE(asked.store_had_failed);
        if (asked.op == ShardOp::kRegister || asked.op == ShardOp::kAcquire) {
          CHECK(world_.StoredRecord(asked.key).has_value());
        }
        if (asked.op == ShardOp::kAcquire) CHECK(result.accessor.key() == ShardKey(asked.key));
        break;
      case absl::StatusCode::kCancelled:
        CHECK((asked.stopped || closing_));
        break;
      case absl::StatusCode::kDeadlineExceeded:  // his own, or what the source said
        break;
      case absl::StatusCode::kAlreadyExists:
        CHECK(asked.op == ShardOp::kRegister);
        break;
      default:
        break;
    }
    asked_.erase(it);
  }

  void Close() {
    closing_ = true;
    world_.BeginClose(Chance(50) ? Deadline::Infinite() : Deadline::After(world_.clock, absl::Milliseconds(Below(30))));
    for (int round = 0;; ++round) {
      REQUIRE(round < 10'000);
      while (world_.Turn()) {
      }
      Turn();
      world_.engine.AssertLoop();
      if (world_.engine.Finished()) break;
      if (Chance(30)) world_.clock.Advance(absl::Milliseconds(10));
      Chance(50) ? FinishCommit() : FinishJob();
    }
    CHECK_EQ(asked_.size(), 0);
    CHECK_EQ(world_.jobs.held().size(), 0);
    // References are accessors that are out, shard by shard; then none.
    std::map<std::string, uint32_t> out;
    for (const Accessor& accessor : accessors_) ++out[accessor.key().bytes()];
    for (const char* key : {"a", "b", "c"}) {
      const auto look = world_.Look(key);
      CHECK_EQ(look.has_value() ? look->references : 0, out[key]);
    }
    accessors_.clear();
    while (world_.Turn()) {
    }
    size_t alive = 0;
    for (const char* key : {"a", "b", "c"}) {
      const auto look = world_.Look(key);
      if (!look.has_value()) continue;
      CHECK_EQ(look->references, 0);
      CHECK(look->state != ShardState::kServing);
      CHECK(look->state != ShardState::kInitializing);
      CHECK(look->state != ShardState::kRecovering);
      if (store_failed_) continue;
      // What is durable is what is in memory.
      const auto record = world_.StoredRecord(key);
      REQUIRE(record.has_value());
      CHECK_EQ(world_.StoredDestroying(key), look->state == ShardState::kDestroying);
      if (look->state == ShardState::kAvailable) CHECK(record->state == ShardState::kAvailable);
      if (look->state == ShardState::kNew) CHECK(record->state == ShardState::kNew);
      if (look->state != ShardState::kDestroying) {
        CHECK_EQ(record->ordinal, look->ordinal);
        CHECK_EQ(world_.directory.IsAlive(look->ordinal), look->ordinal != 0);
        alive += look->ordinal != 0 ? 1 : 0;
      } else {
        CHECK_FALSE(world_.directory.KeyOf(look->ordinal).has_value());
        alive += world_.directory.IsAlive(look->ordinal) ? 1 : 0;  // until it is gone
      }
      if (look->state == ShardState::kErrored) CHECK_FALSE(look->error.ok());
    }
    if (!store_failed_) CHECK_EQ(world_.directory.alive(), alive);
  }

  const uint64_t seed_;
  std::mt19937_64 random_;
  EngineWorld world_;
  std::map<Ticket, Asked> asked_;  // and not answered
  std::vector<Accessor> accessors_;
  std::set<Ordinal> checked_;
  bool store_may_fail_ = false;
  bool store_failed_ = false;
  bool closing_ = false;
};

TEST_CASE("engine: 20,000 random schedules: one answer each, references are accessors, everything ends") {
  uint64_t first = 1, count = 20'000;
  if (const char* seed = std::getenv("DAGSTORE_SEED")) {
    first = std::strtoull(seed, nullptr, 10);
    count = 1;
  }
  MESSAGE("seeds ", first, " to ", first + count - 1, "; DAGSTORE_SEED=<n> plays one");
  for (uint64_t seed = first; seed < first + count; ++seed) Schedule(seed).Play();
}

}  // namespace
}  // namespace dagstore
