#include "dagstore/channel.h"

#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/fakes/fake_clock.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("channel: places are reserved before a value comes, and given back when it is taken or never will") {
  const Channel<int> channel(2);
  auto first = channel.Reserve();
  auto second = channel.Reserve();
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK_FALSE(channel.Reserve().has_value());
  second.reset();
  CHECK(channel.Reserve().has_value());  // and dropped again
  first->Deliver(1);
  CHECK(first->empty());
  auto third = channel.Reserve();
  REQUIRE(third.has_value());
  CHECK_FALSE(channel.Reserve().has_value());  // the value that nobody took counts
  CHECK(channel.TryReceive() == 1);
  CHECK(channel.TryReceive() == std::nullopt);
  CHECK(channel.Reserve().has_value());
}

TEST_CASE("channel: a slot that is assigned over gives its place back, one that is moved does not") {
  const Channel<int> channel(2);
  auto one = *channel.Reserve();
  auto two = *channel.Reserve();
  Channel<int>::Slot moved = std::move(one);
  CHECK(one.empty());  // NOLINT: that is the question
  CHECK_FALSE(channel.Reserve().has_value());
  moved = std::move(two);
  CHECK(channel.Reserve().has_value());
  moved.Deliver(7);
  CHECK_EQ(channel.Receive(), 7);
}

TEST_CASE("channel: values come in order, through any number of growths and wraps") {
  const Channel<int> channel(1000);
  int put = 0, taken = 0;
  for (int round = 1; round < 100; ++round) {
    for (int i = 0; i < round; ++i) {
      auto slot = channel.Reserve();
      if (slot.has_value()) slot->Deliver(put++);
    }
    for (int i = 0; i < round / 2; ++i) CHECK(channel.TryReceive() == taken++);
  }
  while (const auto value = channel.TryReceive()) CHECK_EQ(*value, taken++);
  CHECK_EQ(taken, put);
}

TEST_CASE("channel: dropping the last handle drops what is inside, also what is delivered afterwards") {
  const auto alive = std::make_shared<int>(0);
  Channel<std::shared_ptr<int>>::Slot late;
  {
    const Channel<std::shared_ptr<int>> channel(2);
    channel.Reserve()->Deliver(alive);
    late = *channel.Reserve();
    CHECK_EQ(alive.use_count(), 2);
  }
  CHECK_EQ(alive.use_count(), 2);  // the slot keeps the queue
  late.Deliver(alive);
  CHECK_EQ(alive.use_count(), 1);
}

TEST_CASE("channel: waiting ends with a value, or at the deadline") {
  FakeClock clock;
  const Channel<int> channel(1);
  CHECK(channel.Receive(Deadline::At(clock.Now()), clock) == std::nullopt);
  channel.Reserve()->Deliver(1);
  CHECK(channel.Receive(Deadline::At(clock.Now()), clock) == 1);
}

TEST_CASE("channel: rows 1 and 2: a reader who does not read stops nobody, and every value has one reader") {
  constexpr int kWriters = 3, kReaders = 3, kValues = 20'000;
  const Channel<int> channel(64);
  const Channel<int> unread(1);
  unread.Reserve()->Deliver(0);
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&] {
      for (int i = 0; i < kValues; ++i) {
        if (!unread.Reserve().has_value()) refused.fetch_add(1);
        for (;;) {
          if (auto slot = channel.Reserve()) {
            slot->Deliver(1);
            break;
          }
          std::this_thread::yield();
        }
      }
    });
  }
  std::atomic<int> sum{0};
  for (int r = 0; r < kReaders; ++r) {
    threads.emplace_back([&] {
      for (int i = 0; i < kWriters * kValues / kReaders; ++i) sum.fetch_add(channel.Receive());
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(sum.load(), kWriters * kValues);
  CHECK_EQ(refused.load(), kWriters * kValues);
  CHECK(channel.TryReceive() == std::nullopt);
}

TEST_CASE("channel: of one place: a reader who falls asleep as the value comes is woken") {
  const Channel<int> out(1);
  std::atomic<int> asked{0};
  std::optional<Channel<int>::Slot> slot;
  constexpr int kRounds = 20'000;
  std::thread writer([&] {
    for (int i = 1; i <= kRounds; ++i) {
      while (asked.load() != i) {
      }
      for (int wait = 0; wait < i % 400; ++wait) (void)asked.load();
      std::exchange(slot, std::nullopt)->Deliver(int{i});
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    slot = out.Reserve();
    REQUIRE(slot.has_value());
    CHECK_FALSE(out.Reserve().has_value());
    asked.store(i);
    REQUIRE_EQ(out.Receive(/*spin=*/i % 7 == 0), i);
  }
  writer.join();
  CHECK_FALSE(out.TryReceive().has_value());
}

TEST_CASE("channel: of one place: many readers, and each value has one") {
  const Channel<int> out(1);
  constexpr int kReaders = 3, kValues = 3000;
  std::atomic<int> sum{0};
  std::vector<std::thread> readers;
  for (int r = 0; r < kReaders; ++r) {
    readers.emplace_back([&] {
      for (int value = out.Receive(/*spin=*/false); value != 0; value = out.Receive(/*spin=*/false)) sum += value;
    });
  }
  int sent = 0;
  for (int i = 1; i <= kValues + kReaders; ++i) {
    std::optional<Channel<int>::Slot> slot = out.Reserve();
    while (!slot.has_value()) slot = out.Reserve();
    const int value = i <= kValues ? i : 0;
    slot->Deliver(int{value});
    sent += value;
  }
  for (std::thread& reader : readers) reader.join();
  CHECK_EQ(sum.load(), sent);
}

}  // namespace
}  // namespace dagstore
