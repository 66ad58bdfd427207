// Readers who come and go without the loop: the word, tried in every interleaving; the engine, which closes the gate
// before it looks; and the whole store under threads.
#include "dagstore/reader_gate.h"

#include <doctest/doctest.h>

#include <atomic>
#include <deque>
#include <set>
#include <thread>
#include <tuple>

#include "mount/bytes_mount.h"
#include "tests/dagstore/engine_world.h"
#include "tests/dagstore/store_testing.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// ---- The word ----

// Goal: however the steps of readers and loop interleave, the loop's count after closing is exact.
// Method: a load and a compare-exchange are steps of their own, as in ReaderGate::Change; every order is tried.
struct Model {
  static constexpr int kReaders = 3;
  enum Step : uint8_t { kLoadEnter, kSwapEnter, kLoadLeave, kSwapLeave, kReport, kGone };
  struct Reader {
    Step step = kLoadEnter;
    uint64_t seen = 0;
    bool inside = false;
    auto operator<=>(const Reader&) const = default;
  };
  uint64_t word = 0;
  Reader readers[kReaders] = {};
  bool closed = false;
  int counted = 0;   // by the loop
  int reports = 0;   // not yet taken by the loop

  auto Key() const {
    return std::tuple(word, readers[0], readers[1], readers[2], closed, counted, reports);
  }
};

TEST_CASE("reader gate: in every interleaving the loop counts exactly who is inside") {
  std::set<decltype(Model().Key())> seen;
  std::deque<Model> open{Model()};
  size_t refused = 0, ends = 0;
  while (!open.empty()) {
    const Model at = open.front();
    open.pop_front();
    if (!seen.insert(at.Key()).second) continue;
    int inside = 0;
    for (const Model::Reader& reader : at.readers) inside += reader.inside ? 1 : 0;
    // Whoever is inside is known: by the word while it is open, by the loop afterwards.
    if (!at.closed) {
      REQUIRE_EQ(static_cast<int>(ReaderGate::ReadersOf(at.word)), inside);
      REQUIRE_EQ(at.counted, 0);
    } else {
      REQUIRE(at.counted >= inside);  // those who are about to report are counted until they have
      if (at.counted == 0) REQUIRE_EQ(inside, 0);
    }
    bool moved = false;
    for (int r = 0; r < Model::kReaders; ++r) {
      Model next = at;
      Model::Reader& reader = next.readers[r];
      switch (reader.step) {
        case Model::kLoadEnter:
        case Model::kLoadLeave: {
          reader.seen = next.word;
          const bool enters = reader.step == Model::kLoadEnter;
          const uint64_t wanted =
              enters ? ReaderGate::AfterEnter(reader.seen) : ReaderGate::AfterLeave(reader.seen);
          if (wanted != reader.seen) {
            reader.step = enters ? Model::kSwapEnter : Model::kSwapLeave;
          } else {
            reader.step = enters ? Model::kGone : Model::kReport;
            refused += enters ? 1 : 0;
          }
          break;
        }
        case Model::kSwapEnter:
        case Model::kSwapLeave: {
          const bool enters = reader.step == Model::kSwapEnter;
          if (next.word != reader.seen) {
            reader.step = enters ? Model::kLoadEnter : Model::kLoadLeave;
            break;
          }
          next.word = enters ? ReaderGate::AfterEnter(reader.seen) : ReaderGate::AfterLeave(reader.seen);
          reader.inside = enters;
          reader.step = enters ? Model::kLoadLeave : Model::kGone;
          break;
        }
        case Model::kReport:
          reader.inside = false;
          ++next.reports;
          reader.step = Model::kGone;
          break;
        case Model::kGone:
          continue;
      }
      moved = true;
      open.push_back(next);
    }
    if (!at.closed) {
      Model next = at;
      next.closed = true;
      next.counted = static_cast<int>(ReaderGate::ReadersOf(next.word));
      next.word |= ReaderGate::kClosed;
      open.push_back(next);
      moved = true;
    }
    if (at.closed && at.reports != 0) {
      Model next = at;
      --next.reports;
      --next.counted;
      REQUIRE(next.counted >= 0);
      open.push_back(next);
      moved = true;
    }
    if (!moved) {
      ++ends;
      REQUIRE_EQ(at.counted, 0);
    }
  }
  CHECK(seen.size() > 1000);
  CHECK(refused > 0);
  CHECK(ends > 0);
}

TEST_CASE("reader gate: the counts of the word do not run into each other") {
  ReaderGate gate(true);
  for (int i = 0; i < 5; ++i) REQUIRE(gate.TryEnter());
  for (int i = 0; i < 2; ++i) REQUIRE(gate.TryLeave());
  CHECK_EQ(gate.readers(), 3);
  CHECK_EQ(gate.entered(), 5);
  CHECK(gate.TakeUsed());
  CHECK_FALSE(gate.TakeUsed());
  CHECK_EQ(gate.Close(), 3);
  CHECK_EQ(gate.Close(), 0);
  CHECK_EQ(gate.readers(), 0);
  CHECK_FALSE(gate.TryEnter());
  CHECK_FALSE(gate.TryLeave());
  CHECK_EQ(gate.entered(), 5);
  // A full count refuses, it does not carry.
  const uint64_t full = ReaderGate::kReadersMask;
  CHECK_EQ(ReaderGate::AfterEnter(full), full);
  CHECK_EQ(ReaderGate::ReadersOf(ReaderGate::AfterEnter(full - 1)), full);
}

// ---- The engine ----

TEST_CASE("engine: a shard with a reader who came through the gate is not destroyed") {
  EngineWorld world;
  world.MakeAvailable("a");
  std::shared_ptr<const Lease> lease;
  {
    const Accessor by_loop = world.MustAcquire("a");
    lease = by_loop.lease();
  }
  world.Run();
  CHECK_EQ(world.State("a"), "Available");
  Accessor reader = Accessor::TryEnter(lease);
  REQUIRE_FALSE(reader.empty());
  CHECK_EQ(world.State("a"), "Serving");
  CHECK_EQ(world.Look("a")->references, 1);
  CHECK_EQ(world.Stats().acquires_inline, 1);

  const Ticket refused = world.Destroy("a");
  world.Settle();
  CHECK_CODE(world.Answer(refused).status, kFailedPrecondition);
  CHECK(Accessor::TryEnter(lease).empty());  // the gate is closed now
  CHECK_EQ(world.Look("a")->references, 1);

  reader.Close();
  world.Run();
  CHECK_EQ(world.State("a"), "Available");
  CHECK_EQ(world.Look("a")->references, 0);
  const Ticket destroyed = world.Destroy("a");
  world.Settle();
  world.Finish(JobKind::kDestroy);
  world.Settle();
  CHECK_STATUS_OK(world.Answer(destroyed).status);
  CHECK(Accessor::TryEnter(lease).empty());
}

TEST_CASE("engine: a shard served again after its gate was closed has a gate that is open") {
  EngineWorld world;
  world.MakeAvailable("a");
  const Accessor first = world.MustAcquire("a");
  const Ticket refused = world.Destroy("a");
  world.Settle();
  CHECK_FALSE(world.Answer(refused).status.ok());
  CHECK(Accessor::TryEnter(first.lease()).empty());
  const Accessor second = world.MustAcquire("a");
  CHECK(second.lease() != first.lease());
  CHECK_FALSE(Accessor::TryEnter(second.lease()).empty());
}

TEST_CASE("engine: a damaged index closes the gate, and readers inside keep reading") {
  EngineWorld world;
  world.MakeAvailable("a");
  std::shared_ptr<const Lease> lease = world.MustAcquire("a").lease();
  world.Run();
  Accessor reader = Accessor::TryEnter(lease);
  REQUIRE_FALSE(reader.empty());
  reader.ReportDamage(DataLoss("page 3"), Damage::kIndex);
  world.Settle();
  CHECK_EQ(world.State("a"), "Recovering");
  CHECK(Accessor::TryEnter(lease).empty());
  CHECK_EQ(world.Look("a")->references, 1);
  CHECK_EQ(reader.key().bytes(), "a");
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(world.State("a"), "Serving");
  reader.Close();
  world.Run();
  CHECK_EQ(world.State("a"), "Available");
}

TEST_CASE("engine: with a trace subscriber or by option, every acquire and release is a step") {
  Options options;
  SUBCASE("trace") {}
  SUBCASE("option") { options.inline_acquire = false; }
  EngineWorld world(options);
  std::shared_ptr<EventLog<TraceEvent>::Subscription> subscription;
  if (options.inline_acquire) subscription = world.traces.Subscribe(100);
  world.MakeAvailable("a");
  const Accessor accessor = world.MustAcquire("a");
  CHECK(Accessor::TryEnter(accessor.lease()).empty());
}

TEST_CASE("engine: closing gates counts who is inside, and closing the store closes gates") {
  EngineWorld world;
  world.MakeAvailable("a");
  std::shared_ptr<const Lease> lease = world.MustAcquire("a").lease();
  world.Run();
  Accessor reader = Accessor::TryEnter(lease);
  world.engine.AssertLoop();
  world.engine.CloseGates();
  CHECK_EQ(world.State("a"), "Serving");
  CHECK_EQ(world.Look("a")->references, 1);
  reader.Close();
  world.Run();
  CHECK_EQ(world.State("a"), "Available");
  lease = world.MustAcquire("a").lease();
  world.Run();
  CHECK_FALSE(Accessor::TryEnter(lease).empty());
  CHECK(world.Close(Deadline::Infinite()));
  CHECK(Accessor::TryEnter(lease).empty());
}

TEST_CASE("engine: the open shard that nobody used for longest is closed, whoever came through gates included") {
  Options options;
  options.open_shards_max = 2;
  EngineWorld world(options);
  std::map<std::string, std::shared_ptr<const Lease>> leases;
  for (const char* key : {"a", "b", "c"}) {
    world.MakeAvailable(key);
    if (key == std::string("c")) {
      (void)leases["b"]->gate.TakeUsed();
      CHECK_FALSE(Accessor::TryEnter(leases["a"]).empty());  // the oldest by release, the newest by use
    }
    leases[key] = world.MustAcquire(key).lease();
    world.Run();
  }
  CHECK_FALSE(Accessor::TryEnter(leases["a"]).empty());
  CHECK(Accessor::TryEnter(leases["b"]).empty());
  CHECK_FALSE(Accessor::TryEnter(leases["c"]).empty());
  CHECK_EQ(world.Stats().open_shards, 2);
}

// ---- The store ----

class TestStore {
 public:
  TestStore() : store_(ValueOf(DagStore::Open(StoreOptions("")))) {}
  DagStore& store() const { return *store_; }
  std::unique_ptr<Mount> BytesCar(int seed) const {
    return ValueOf(NewBytesMount(MakeCar(static_cast<uint64_t>(seed), 3)));
  }

 private:
  const std::unique_ptr<DagStore> store_;
};

TEST_CASE("store: a shard acquired by key or by reference does not trouble the loop, and is released") {
  const TestStore world;
  DagStore& store = world.store();
  REQUIRE_STATUS_OK(store.RegisterShardSync(ShardKey("a"), world.BytesCar(1)));
  CHECK_CODE(store.Resolve(ShardKey("none")), kNotFound);
  ShardRef ref = ValueOf(store.Resolve(ShardKey("a")));
  { const Accessor first = ValueOf(ref.Acquire()); }
  const EngineStats before = ValueOf(store.Stats()).engine;
  const Channel<ShardResult> out(4);
  for (int i = 0; i < 100; ++i) {
    const Accessor by_ref = ValueOf(ref.Acquire());
    const Accessor by_key = ValueOf(store.AcquireShardSync(ShardKey("a")));
    REQUIRE_STATUS_OK(store.AcquireShard(ShardKey("a"), out).status());
    const std::optional<ShardResult> result = out.TryReceive();
    REQUIRE(result.has_value());
    REQUIRE_FALSE(result->accessor.empty());
  }
  const EngineStats after = ValueOf(store.Stats()).engine;
  CHECK_EQ(after.acquires_inline - before.acquires_inline, 300);
  CHECK(after.tasks - before.tasks <= 5);  // looking is a task, too
  CHECK_EQ(ValueOf(store.GetShardInfo(ShardKey("a"))).references, 0);
  REQUIRE_STATUS_OK(store.DestroyShardSync(ShardKey("a")));
  CHECK_CODE(ref.Acquire(), kNotFound);
}

TEST_CASE("store: requests with a passed deadline or a trace subscriber go through the loop") {
  const TestStore world;
  DagStore& store = world.store();
  REQUIRE_STATUS_OK(store.RegisterShardSync(ShardKey("a"), world.BytesCar(1)));
  { const Accessor first = ValueOf(store.AcquireShardSync(ShardKey("a"))); }
  AcquireOptions late;
  late.deadline = Deadline::At(1);
  CHECK_CODE(store.AcquireShardSync(ShardKey("a"), late), kDeadlineExceeded);
  const uint64_t before = ValueOf(store.Stats()).engine.acquires_inline;
  const auto subscription = store.SubscribeTrace();
  { const Accessor seen = ValueOf(store.AcquireShardSync(ShardKey("a"))); }
  CHECK_EQ(ValueOf(store.Stats()).engine.acquires_inline, before);
  TraceEvent event = *subscription->Next();
  if (event.op == ShardOp::kRelease) event = *subscription->Next();  // of the accessor before
  CHECK(event.op == ShardOp::kAcquire);
}

TEST_CASE("store: after Close no gate lets anybody in") {
  const TestStore world;
  DagStore& store = world.store();
  REQUIRE_STATUS_OK(store.RegisterShardSync(ShardKey("a"), world.BytesCar(1)));
  ShardRef ref = ValueOf(store.Resolve(ShardKey("a")));
  { const Accessor first = ValueOf(ref.Acquire()); }
  REQUIRE_STATUS_OK(store.Close());
  CHECK_CODE(ref.Acquire(), kFailedPrecondition);
  CHECK_CODE(store.AcquireShardSync(ShardKey("a")), kFailedPrecondition);
}

// Goal: under threads, a destroy that is answered OK means that nobody was reading, and one that is refused that
// somebody was. Method: readers say when they are inside; the destroyer registers the shard again each time.
TEST_CASE("store: readers through gates and a destroyer never meet") {
  const TestStore world;
  DagStore& store = world.store();
  constexpr int kReaders = 3, kShards = 2;
  const int rounds = 300;
  std::atomic<bool> stop{false};
  std::atomic<int> inside[kShards] = {};
  std::atomic<uint64_t> served{0};
  for (int s = 0; s < kShards; ++s) {
    REQUIRE_STATUS_OK(store.RegisterShardSync(ShardKey(std::to_string(s)), world.BytesCar(s)));
  }
  std::vector<std::thread> readers;
  for (int r = 0; r < kReaders; ++r) {
    readers.emplace_back([&, r] {
      std::vector<ShardRef> refs;
      for (uint64_t i = 0; !stop.load(); ++i) {
        const int s = static_cast<int>((i + static_cast<uint64_t>(r)) % kShards);
        const ShardKey key(std::to_string(s));
        absl::StatusOr<Accessor> accessor = absl::UnknownError("");
        if (r == 0) {
          accessor = store.AcquireShardSync(key);
        } else {
          absl::StatusOr<ShardRef> ref = store.Resolve(key);
          for (int again = 0; again < 20 && ref.ok(); ++again) {
            accessor = ref->Acquire();
            if (!accessor.ok()) break;
            inside[s].fetch_add(1);
            served.fetch_add(1);
            inside[s].fetch_sub(1);
          }
        }
        if (!accessor.ok()) continue;
        inside[s].fetch_add(1);
        served.fetch_add(1);
        CHECK_EQ(accessor->key().bytes(), key.bytes());
        inside[s].fetch_sub(1);
      }
    });
  }
  int destroyed = 0, refused = 0;
  for (int round = 0; round < rounds; ++round) {
    const int s = round % kShards;
    const ShardKey key(std::to_string(s));
    const absl::Status status = store.DestroyShardSync(key);
    if (!status.ok()) {
      CHECK_CODE(status, kFailedPrecondition);
      ++refused;
      continue;
    }
    REQUIRE_EQ(inside[s].load(), 0);
    ++destroyed;
    REQUIRE_STATUS_OK(store.RegisterShardSync(key, world.BytesCar(s)));
  }
  stop.store(true);
  for (std::thread& reader : readers) reader.join();
  CHECK_EQ(destroyed + refused, rounds);
  CHECK(served.load() > 0);
  for (int s = 0; s < kShards; ++s) {
    CHECK_EQ(ValueOf(store.GetShardInfo(ShardKey(std::to_string(s)))).references, 0);
    CHECK_STATUS_OK(store.DestroyShardSync(ShardKey(std::to_string(s))));
  }
}

}  // namespace
}  // namespace dagstore
