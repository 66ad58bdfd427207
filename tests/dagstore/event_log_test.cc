#include "dagstore/event_log.h"

#include <thread>

#include "tests/fakes/fake_clock.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("event log: keeps the last events, newest first, and counts all") {
  EventLog<int> log(3);
  CHECK(log.Last(10).empty());
  for (int i = 1; i <= 5; ++i) log.Publish(i);
  CHECK(log.Last(10) == std::vector<int>{5, 4, 3});
  CHECK(log.Last(2) == std::vector<int>{5, 4});
  CHECK_EQ(log.published(), 5);
  EventLog<int> none(0);
  none.Publish(1);
  CHECK(none.Last(10).empty());
}

TEST_CASE("event log: rows 1 and 3: a subscriber who does not read loses the oldest and is told how many") {
  FakeClock clock;
  EventLog<int> log(0);
  CHECK_FALSE(log.HasSubscribers());
  const auto slow = log.Subscribe(3);
  auto quick = log.Subscribe(100);
  CHECK(log.HasSubscribers());
  for (int i = 1; i <= 10; ++i) log.Publish(i);
  CHECK_EQ(slow->dropped(), 7);
  CHECK(slow->Next(Deadline::At(0), clock) == 8);
  CHECK(slow->Next(Deadline::At(0), clock) == 9);
  CHECK(slow->Next(Deadline::At(0), clock) == 10);
  CHECK(slow->Next(Deadline::At(0), clock) == std::nullopt);
  for (int i = 1; i <= 10; ++i) CHECK(quick->Next(Deadline::At(0), clock) == i);
  CHECK_EQ(quick->dropped(), 0);
  quick.reset();
  log.Publish(11);
  CHECK(slow->Next() == 11);
}

TEST_CASE("event log: subscribers come and go while others publish") {
  constexpr int kEvents = 5000;
  EventLog<int> log(16);
  std::thread publisher([&log] {
    for (int i = 1; i <= kEvents; ++i) log.Publish(i);
  });
  for (int i = 0; i < 200; ++i) {
    const auto subscription = log.Subscribe(4);
    std::this_thread::yield();
  }
  const auto reader = log.Subscribe(kEvents);
  publisher.join();
  log.Publish(kEvents + 1);
  int last = 0;
  while (last != kEvents + 1) {
    const auto event = reader->Next();
    REQUIRE(event.has_value());
    CHECK(*event > last);
    last = *event;
  }
  CHECK_EQ(log.published(), kEvents + 1);
}

}  // namespace
}  // namespace dagstore
