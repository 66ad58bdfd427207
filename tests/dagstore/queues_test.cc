#include "dagstore/queues.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/testing.h"

namespace dagstore {
namespace {

Request Asking(TicketId ticket) {
  Request request(TaskMeta(SpanContext(), Deadline::Infinite(), ticket));
  request.key = ShardKey("k");
  return request;
}

const TaskMeta kOwn(SpanContext(), Deadline::Infinite(), 0);

struct Taken {
  Inbox<Completion> completions;
  Inbox<Request> requests;
  std::vector<TicketId> stops;
};

TEST_CASE("task queues: give back in order what was pushed, requests and completions apart") {
  TaskQueues queues(10);
  CHECK_FALSE(queues.HasWork());
  for (TicketId ticket = 1; ticket <= 3; ++ticket) REQUIRE_STATUS_OK(queues.PushRequest(Asking(ticket)));
  queues.PushRelease(kOwn, 7, 8);
  queues.PushDamage(kOwn, 9, 10, 11, DataLoss("x"), Damage::kIndex);
  queues.PushCommitDone(12, Unavailable("y"));
  JobSpec job(TaskMeta(SpanContext(), Deadline::Infinite(), 0));
  job.kind = JobKind::kOpen;
  job.slot = 1, job.incarnation = 2, job.generation = 3, job.ordinal = 4;
  queues.PushJobDone(job, std::make_unique<JobResult>());
  CHECK(queues.HasWork());
  Taken taken;
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK_FALSE(queues.HasWork());
  REQUIRE_EQ(taken.requests.size(), 3);
  for (size_t i = 0; i < 3; ++i) CHECK_EQ(taken.requests[i].meta.ticket, i + 1);
  REQUIRE_EQ(taken.completions.size(), 4);
  CHECK(taken.completions[0].kind == Completion::Kind::kRelease);
  CHECK_EQ(taken.completions[0].slot, 7);
  CHECK_EQ(taken.completions[0].incarnation, 8);
  CHECK(taken.completions[1].kind == Completion::Kind::kDamage);
  CHECK(taken.completions[1].damage == Damage::kIndex);
  CHECK_EQ(taken.completions[1].ordinal, 11);
  CHECK(taken.completions[2].kind == Completion::Kind::kCommit);
  CHECK_EQ(taken.completions[2].sequence, 12);
  CHECK_CODE(taken.completions[2].status, kUnavailable);
  CHECK(taken.completions[3].job == JobKind::kOpen);
  CHECK_EQ(taken.completions[3].generation, 3);
  CHECK_EQ(taken.completions[3].ordinal, 4);
}

TEST_CASE("task queues: requests beyond the limit are refused; completions never are") {
  TaskQueues queues(2);
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(1)));
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(2)));
  CHECK_CODE(queues.PushRequest(Asking(3)), kResourceExhausted);
  for (int i = 0; i < 100; ++i) queues.PushRelease(kOwn, 1, 1);
  Taken taken;
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK_EQ(taken.completions.size(), 100);
  CHECK_STATUS_OK(queues.PushRequest(Asking(4)));
  // The loop is busy with what it has: the door stays as full as it is.
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK_EQ(taken.requests.size(), 2);
  CHECK(queues.HasWork());
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(5)));
  CHECK_CODE(queues.PushRequest(Asking(6)), kResourceExhausted);
  taken.requests.clear();
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK_EQ(taken.requests.size(), 2);
}

TEST_CASE("task queues: a closed door lets one last request in, whatever the limit, and completions") {
  TaskQueues queues(1);
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(1)));
  queues.CloseDoor(Asking(2));
  CHECK_CODE(queues.PushRequest(Asking(3)), kFailedPrecondition);
  queues.PushRelease(kOwn, 1, 1);
  Taken taken;
  queues.Take(taken.completions, taken.requests, taken.stops);
  REQUIRE_EQ(taken.requests.size(), 2);
  CHECK_EQ(taken.requests[1].meta.ticket, 2);
  CHECK_EQ(taken.completions.size(), 1);
}

TEST_CASE("task queues: once shut everything is dropped, its slots are given back, and nobody is woken") {
  TaskQueues queues(10);
  int woken = 0;
  queues.SetWaker([&woken] { ++woken; });
  const Channel<ShardResult> out(1);
  Request request = Asking(1);
  request.reply = *out.Reserve();
  REQUIRE_STATUS_OK(queues.PushRequest(std::move(request)));
  queues.Shut();
  CHECK(out.Reserve().has_value());
  CHECK(queues.PrepareSleep());
  queues.PushRelease(kOwn, 1, 1);
  CHECK_CODE(queues.PushRequest(Asking(2)), kFailedPrecondition);
  CHECK_EQ(woken, 0);
}

TEST_CASE("task queues: a sleeper is woken once for many posts, and one that is awake is not") {
  TaskQueues queues(100);
  int woken = 0;
  queues.SetWaker([&woken] { ++woken; });
  queues.PushRelease(kOwn, 1, 1);
  CHECK_EQ(woken, 0);
  CHECK_FALSE(queues.PrepareSleep());  // there is work
  Taken taken;
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK(queues.PrepareSleep());
  for (int i = 0; i < 10; ++i) queues.PushRelease(kOwn, 1, 1);
  CHECK_EQ(woken, 1);
  queues.Awake();
  queues.Take(taken.completions, taken.requests, taken.stops);
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(1)));
  CHECK_EQ(woken, 1);
}

// Goal: no wake-up is lost between a pusher who looks whether the loop sleeps and a loop that looks whether there is
// work. Method: a consumer that sleeps only by the protocol; a lost wake-up leaves it asleep, which the guard reports.
TEST_CASE("task queues: no wake-up is lost, however pushes and sleeps fall") {
  constexpr int kProducers = 4;
  constexpr int kPushes = 20'000;
  TaskQueues queues(1 << 20);
  std::mutex mu;
  std::condition_variable cv;
  bool wake = false;
  queues.SetWaker([&] {
    const std::lock_guard lock(mu);
    wake = true;
    cv.notify_one();
  });

  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queues, p] {
      for (int i = 0; i < kPushes; ++i) {
        if (i % 2 == 0) {
          queues.PushRelease(kOwn, static_cast<uint32_t>(p), static_cast<uint32_t>(i / 2));
        } else {
          DAGSTORE_CHECK_OK(
              queues.PushRequest(Asking(static_cast<TicketId>(p) * kPushes + static_cast<TicketId>(i / 2))));
        }
        if (i % 64 == 0) std::this_thread::yield();
      }
    });
  }
  int seen = 0;
  bool lost = false;
  uint32_t next_release[kProducers] = {};
  uint64_t next_request[kProducers] = {};
  bool in_order = true;
  while (seen < kProducers * kPushes && !lost) {
    Taken taken;
    queues.Take(taken.completions, taken.requests, taken.stops);
    seen += static_cast<int>(taken.completions.size() + taken.requests.size());
    for (const Completion& c : taken.completions) in_order &= c.incarnation == next_release[c.slot]++;
    for (const Request& r : taken.requests)
      in_order &= r.meta.ticket % kPushes == next_request[r.meta.ticket / kPushes]++;
    if (queues.HasWork() || seen == kProducers * kPushes || !queues.PrepareSleep()) continue;
    std::unique_lock lock(mu);
    lost = !cv.wait_for(lock, std::chrono::minutes(2), [&] { return wake; });
    wake = false;
    queues.Awake();
  }
  for (std::thread& producer : producers) producer.join();
  CHECK_FALSE(lost);
  CHECK_EQ(seen, kProducers * kPushes);
  CHECK(in_order);  // of each producer
}

TEST_CASE("task queues: tell of the stops among what was taken") {
  TaskQueues queues(10);
  REQUIRE_STATUS_OK(queues.PushRequest(Asking(1)));
  Request stop = Asking(1);
  stop.stop = true;
  REQUIRE_STATUS_OK(queues.PushRequest(std::move(stop)));
  Taken taken;
  queues.Take(taken.completions, taken.requests, taken.stops);
  CHECK_EQ(taken.requests.size(), 2);
  CHECK(taken.stops == std::vector<TicketId>{1});
  Request later = Asking(2);
  later.stop = true;
  REQUIRE_STATUS_OK(queues.PushRequest(std::move(later)));
  queues.Take(taken.completions, taken.requests, taken.stops);  // the loop is busy: neither is taken
  CHECK_EQ(taken.stops.size(), 1);
}

}  // namespace
}  // namespace dagstore
