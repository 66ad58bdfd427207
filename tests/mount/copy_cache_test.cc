#include "mount/copy_cache.h"

#include <thread>

#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_io.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

struct World {
  explicit World(uint64_t bytes_max = 1000) {
    options.bytes_max = bytes_max;
    cache = std::make_unique<CopyCache>(options, io, Clock::Real());
    cache->SetEvictor([this](std::vector<std::string> owners) {
      for (std::string& owner : owners) asked.push_back(std::move(owner));
    });
  }
  void Put(const std::string& name, uint64_t bytes) {
    cache->Own(name, "of " + name);
    REQUIRE_STATUS_OK(cache->Take(bytes, {}));
    cache->Add(name, bytes);
  }

  FakeIo io;
  CopyCacheOptions options;
  std::vector<std::string> asked;
  std::unique_ptr<CopyCache> cache;
};

TEST_CASE("copy cache: above the high watermark the least used go, down to the low one") {
  World world;
  for (const char* name : {"a", "b", "c"}) world.Put(name, 300);
  CHECK(world.asked.empty());
  CHECK(world.cache->TryTake(100));  // 1000 of 1000
  world.cache->Add("d", 100);
  CHECK_EQ(world.asked, std::vector<std::string>{"of a"});
  CHECK_FALSE(world.cache->TryTake(1));  // named is not gone
  CHECK_EQ(world.asked.size(), 1);
  world.cache->Gone("a");
  CHECK(world.cache->TryTake(1));
  CHECK_EQ(world.cache->Stats().evictions, 1);
  CHECK_EQ(world.cache->Stats().bytes_peak, 1000);
}

TEST_CASE("copy cache: a scan does not empty what is used again") {
  World world;
  world.Put("hot", 200);
  world.cache->Used("hot");
  for (int i = 0; i < 20; ++i) {
    const std::string name = "scan" + std::to_string(i);
    world.Put(name, 200);
    for (const std::string& owner : std::exchange(world.asked, {})) {
      CHECK_NE(owner, "of hot");
      world.cache->Gone(owner.substr(3));
    }
  }
  CHECK_EQ(world.cache->BytesOf("hot"), 200);
}

TEST_CASE("copy cache: pinned copies, copies without an owner, and copies in use stay") {
  World world;
  world.Put("pinned", 300);
  world.cache->Pin("of pinned", true);
  REQUIRE_STATUS_OK(world.cache->Take(300, {}));
  world.cache->Add("nobodys", 300);
  world.Put("used", 300);
  CHECK_FALSE(world.cache->TryTake(500));
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"of used"});
  world.cache->EvictionRefused("of used");
  CHECK_EQ(world.cache->Stats().evictions_refused, 1);
  CHECK_FALSE(world.cache->TryTake(500));  // asked again the next time
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"of used"});
  world.cache->EvictionRefused("of used");
  world.cache->Pin("of pinned", false);
  CHECK_FALSE(world.cache->TryTake(500));
  CHECK_EQ(world.asked.front(), "of pinned");
}

TEST_CASE("copy cache: who does not fit waits in line, and leaves it by a stop or a deadline") {
  World world;
  world.Put("a", 900);
  CancelFlag stop;
  absl::Status first, second;
  std::atomic<int> done = 0;
  std::thread waits([&] {
    first = world.cache->Take(800, {.cancel = &stop});
    ++done;
  });
  while (world.cache->Stats().waiting != 1) std::this_thread::yield();
  std::thread behind([&] {
    second = world.cache->Take(50, {});  // would fit, but came later
    ++done;
  });
  while (world.cache->Stats().waiting != 2) std::this_thread::yield();
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK_EQ(done, 0);
  stop.Cancel();
  waits.join();
  behind.join();
  CHECK_CODE(first, kCancelled);
  CHECK_STATUS_OK(second);

  FakeClock clock;
  CHECK_CODE(world.cache->Take(900, {.clock = &clock, .deadline = Deadline::At(clock.Now())}), kDeadlineExceeded);
  CHECK_CODE(world.cache->Take(1001, {}), kResourceExhausted);  // never fits: no wait
  CHECK_EQ(world.cache->Stats().waiting, 0);
  CHECK_EQ(world.cache->Stats().bytes, 950);
}

TEST_CASE("copy cache: room that is made goes to the first in line") {
  World world;
  world.Put("a", 900);
  world.cache->SetEvictor([&](const std::vector<std::string>& owners) {
    for (const std::string& owner : owners) world.cache->Gone(owner.substr(3));
  });
  CHECK_STATUS_OK(world.cache->Take(800, {}));
  CHECK_EQ(world.cache->Stats().bytes, 800);
  CHECK_EQ(world.cache->Stats().bytes_peak, 900);
}

TEST_CASE("copy cache: what was found at the start counts, also above the quota") {
  World world;
  world.cache->Found("a", 5000);
  world.cache->Own("a", "of a");
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK_EQ(world.asked, std::vector<std::string>{"of a"});
  world.cache->Gone("a");
  CHECK(world.cache->TryTake(1000));
}

}  // namespace
}  // namespace dagstore
