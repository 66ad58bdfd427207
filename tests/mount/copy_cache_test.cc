#include "mount/copy_cache.h"

#include <map>
#include <set>
#include <thread>

#include "base/splitmix.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_io.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

struct World {
  explicit World(uint64_t bytes_max = 1000) {
    options.bytes_max = bytes_max;
    Make();
  }
  void Make() {
    cache = std::make_unique<CopyCache>(options, io, Clock::Real());
    cache->SetEvictor([this](std::vector<CopyCache::Victim> victims) {
      for (CopyCache::Victim& victim : victims) asked.push_back(std::move(victim.name));
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

// Counts how many copies a choice of victims looks at.
class CountingPolicy final : public EvictionPolicy {
 public:
  explicit CountingPolicy(uint64_t& looks) : looks_(looks) {}
  void Insert(const std::string& name) override { lru_->Insert(name); }
  void Touch(const std::string& name) override { lru_->Touch(name); }
  void Remove(const std::string& name) override { lru_->Remove(name); }
  void Walk(absl::FunctionRef<bool(const std::string&)> visit) const override {
    lru_->Walk([&](const std::string& name) {
      ++looks_;
      return visit(name);
    });
  }

 private:
  uint64_t& looks_;
  const std::unique_ptr<EvictionPolicy> lru_ = NewSegmentedLru();
};

TEST_CASE("copy cache: a hundred thousand copies, and no call looks at more than a few") {
  constexpr uint64_t kCopies = 100'000;
  constexpr uint64_t kLooks = 1000;
  World world(kCopies);
  uint64_t looks = 0;
  world.options.policy = [&] { return std::make_unique<CountingPolicy>(looks); };
  world.Make();
  for (uint64_t i = 0; i < kCopies * 9 / 10; ++i) {
    world.Put("c" + std::to_string(i), 1);
    if (i % 3 == 0) world.cache->Pin("of c" + std::to_string(i), true);
  }
  uint64_t most = 0;
  const auto take = [&](uint64_t bytes) {
    looks = 0;
    const bool taken = world.cache->TryTake(bytes);
    most = std::max(most, looks);
    return taken;
  };
  CHECK(take(kCopies / 10 - 1));
  CHECK_GT(world.asked.size(), 0);
  // None of them may go: all are in use.
  for (int i = 0; i < 100; ++i) {
    CHECK_FALSE(take(kCopies));
    for (const std::string& victim : std::exchange(world.asked, {})) world.cache->EvictionRefused(victim);
  }
  // Nobody answers.
  for (int i = 0; i < 100; ++i) CHECK_FALSE(take(kCopies));
  CHECK_LE(most, kLooks);
}

TEST_CASE("copy cache: above the high watermark the least used go, down to the low one") {
  World world;
  for (const char* name : {"a", "b", "c"}) world.Put(name, 300);
  CHECK(world.asked.empty());
  CHECK(world.cache->TryTake(100));  // 1000 of 1000
  world.cache->Add("d", 100);
  CHECK_EQ(world.asked, std::vector<std::string>{"a"});
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
    for (const std::string& victim : std::exchange(world.asked, {})) {
      CHECK_NE(victim, "hot");
      world.cache->Gone(victim);
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
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"used"});
  world.cache->EvictionRefused("used");
  CHECK_EQ(world.cache->Stats().evictions_refused, 1);
  CHECK_FALSE(world.cache->TryTake(500));  // asked again the next time
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"used"});
  world.cache->EvictionRefused("used");
  world.cache->Pin("of pinned", false);
  CHECK_FALSE(world.cache->TryTake(500));
  CHECK_EQ(world.asked.front(), "pinned");
}

TEST_CASE("copy cache: two copies of one owner are given up, or stay, each by itself") {
  World world;
  for (const char* name : {"old", "new"}) {
    world.cache->Own(name, "k");
    REQUIRE_STATUS_OK(world.cache->Take(400, {}));
    world.cache->Add(name, 400);
  }
  REQUIRE_STATUS_OK(world.cache->Take(160, {}));
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"old"});
  world.cache->EvictionRefused("old");
  CHECK_FALSE(world.cache->TryTake(500));
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"new"});
  world.cache->Gone("new");
  CHECK_EQ(world.cache->BytesOf("old"), 400);
  CHECK_EQ(world.cache->Stats().bytes, 560);
}

TEST_CASE("copy cache: victims are named a few at a time, until the low watermark is reached") {
  World world;
  for (int i = 0; i < 950; ++i) world.Put("c" + std::to_string(i), 1);
  CHECK(world.cache->TryTake(1));
  CHECK_LE(world.asked.size(), 64);
  size_t gone = 0;
  while (!world.asked.empty()) {
    for (const std::string& victim : std::exchange(world.asked, {})) {
      world.cache->Gone(victim);
      ++gone;
    }
  }
  CHECK_EQ(world.cache->Stats().bytes, 850);
  CHECK_EQ(gone, 101);
}

TEST_CASE("copy cache: what was found and is nobody's goes too, once it is known to be") {
  World world;
  world.cache->Found("a", 500);
  world.cache->Found("b", 500);
  world.cache->Own("a", "of a");
  world.cache->Pin("of a", true);
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK(world.asked.empty());
  world.cache->OrphanOthers();
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK_EQ(std::exchange(world.asked, {}), std::vector<std::string>{"b"});
  // A job has gone on with it.
  world.cache->EvictionRefused("b");
  world.cache->Own("b", "of a");
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK(world.asked.empty());
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
  world.cache->SetEvictor([&](const std::vector<CopyCache::Victim>& victims) {
    for (const CopyCache::Victim& victim : victims) world.cache->Gone(victim.name);
  });
  CHECK_STATUS_OK(world.cache->Take(800, {}));
  CHECK_EQ(world.cache->Stats().bytes, 800);
  CHECK_EQ(world.cache->Stats().bytes_peak, 900);
}

TEST_CASE("copy cache: the counts of copies and of pinned ones are right after each of a thousand steps") {
  World world(1 << 30);
  std::map<std::string, uint64_t> bytes;
  std::map<std::string, std::string> owners;
  std::set<std::string> pinned;
  uint64_t random = 1;
  const auto below = [&random](uint64_t n) { return NextSplitMix(random) % n; };
  for (int step = 0; step < 1000; ++step) {
    CAPTURE(step);
    const std::string name = "c" + std::to_string(below(6)), owner = "o" + std::to_string(below(3));
    switch (below(5)) {
      case 0:
        REQUIRE_STATUS_OK(world.cache->Take(10, {}));
        world.cache->Add(name, 10);
        bytes[name] += 10;
        break;
      case 1:
        world.cache->Drop(name, 10);
        if (bytes[name] != 0) bytes[name] -= 10;
        break;
      case 2:
        world.cache->Gone(name);
        bytes.erase(name);
        owners.erase(name);
        break;
      case 3:
        world.cache->Own(name, owner);
        owners[name] = owner;
        break;
      case 4: {
        const bool pin = below(2) != 0;
        world.cache->Pin(owner, pin);
        if (pin) {
          pinned.insert(owner);
        } else {
          pinned.erase(owner);
        }
        break;
      }
    }
    uint64_t taken = 0, copies = 0, copies_pinned = 0;
    for (const auto& [copy, size] : bytes) {
      taken += size;
      if (size != 0) ++copies;
      if (size != 0 && owners.contains(copy) && pinned.contains(owners[copy])) ++copies_pinned;
    }
    const CopyCacheStats stats = world.cache->Stats();
    CHECK_EQ(stats.bytes, taken);
    CHECK_EQ(stats.copies, copies);
    CHECK_EQ(stats.pinned, copies_pinned);
  }
}

TEST_CASE("copy cache: what was found at the start counts, also above the quota") {
  World world;
  world.cache->Found("a", 5000);
  world.cache->Own("a", "of a");
  CHECK_FALSE(world.cache->TryTake(1));
  CHECK_EQ(world.asked, std::vector<std::string>{"a"});
  world.cache->Gone("a");
  CHECK(world.cache->TryTake(1000));
}

}  // namespace
}  // namespace dagstore
