// The whole store over sources behind a network: what is fetched, kept, given up and asked again.
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "dag/traversal.h"
#include "dagstore/indexed_blockstore.h"
#include "index/car_index.h"
#include "shard/car_reader.h"
#include "tests/dagstore/store_testing.h"
#include "tests/mount/remote_mount.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

using Twist = std::function<void(std::vector<std::pair<Bytes, uint64_t>>&)>;

// A CARv2 of `payload` with an index of form 0x0401. `twist` may spoil the entries.
Bytes IndexedCarOf(const Bytes& payload, const Twist& twist = {}) {
  const auto source = NewMemoryReader(Span(payload));
  const auto reader = ValueOf(CarReader::Open(*source));
  std::vector<std::pair<Bytes, uint64_t>> entries;
  CarSection section;
  while (ValueOf(reader->NextHead(section)))
    entries.emplace_back(Bytes(section.cid.hash.digest.begin(), section.cid.hash.digest.end()), section.offset);
  if (twist) twist(entries);
  std::sort(entries.begin(), entries.end());
  Bytes out(kCarV2Pragma.begin(), kCarV2Pragma.end());
  out.resize(out.size() + 16);  // characteristics
  Append64(out, kCarV2HeaderBytes);
  Append64(out, payload.size());
  Append64(out, kCarV2HeaderBytes + payload.size());
  AppendBytes(out, payload);
  AppendVarint(out, kCodecCarMultihashIndexSorted);
  Append32(out, 1);
  Append64(out, kSha2_256);
  Append32(out, 1);
  Append32(out, 40);
  Append64(out, 40 * entries.size());
  for (const auto& entry : entries) {
    AppendBytes(out, entry.first);
    Append64(out, entry.second);
  }
  return out;
}
Bytes MakeIndexedCar(uint64_t seed, uint64_t blocks, const Twist& twist = {}) {
  return IndexedCarOf(MakeCar(seed, blocks), twist);
}

struct World {
  explicit World(uint64_t quota = UINT64_MAX) {
    options = StoreOptions(dir.File("repo"));
    auto mounts = std::make_shared<MountRegistry>(DefaultMounts(FileMountConfig()));
    REQUIRE_STATUS_OK(mounts->Register("remote", [this](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
      return std::make_unique<RemoteMount>(sources[url.host], url);
    }));
    options.mounts = mounts;
    options.copies.bytes_max = quota;
    options.sources.backoff_min = options.sources.backoff_max = absl::ZeroDuration();
    options.partial.promote_share = 2;
    Restart();
  }
  void Restart() {
    store.reset();
    store = ValueOf(DagStore::Open(options));
  }
  RemoteSource& Source(const std::string& host, Bytes content, bool ranges = true) {
    RemoteSource& source = sources[host];
    source.content = std::move(content);
    source.ranges = ranges;
    return source;
  }
  absl::Status Register(const std::string& host, const RegisterOptions& with = {}) {
    return store->RegisterShardSync(host, MountOfUrl(*store, "remote://" + host + "/a.car"), with);
  }
  // Source "a", of MakeCar(3, 20'000), breaks off in the middle of its registration, and is asked once only. `before`
  // may spoil what it sends.
  RemoteSource& BreakOff(const std::function<void(RemoteSource&)>& before = {}) {
    options.sources.attempts_max = 1;
    Restart();
    RemoteSource& source = Source("a", MakeCar(3, 20'000));
    source.fail_at = source.content.size() / 2;
    if (before) before(source);
    CHECK_CODE(Register("a"), kUnavailable);
    return source;
  }
  // A reader says so, and has left when the shard is Errored.
  void FindDamaged(const std::string& host) {
    ValueOf(store->AcquireShardSync(ShardKey(host))).ReportDamage(DataLoss("said so by the test"), Damage::kShard);
    while (ValueOf(store->GetShardInfo(ShardKey(host))).state != ShardState::kErrored) std::this_thread::yield();
  }
  uint64_t BytesOnDisk() const {
    uint64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(options.dir + "/transients")) {
      std::error_code gone;
      const auto stat = Io::Posix().Stat(entry.path().string(), Follow::kNever);
      if (stat.ok() && stat->is_regular) bytes += stat->allocated;
    }
    return bytes;
  }

  TempDir dir;
  std::map<std::string, RemoteSource> sources;
  Options options;
  std::unique_ptr<DagStore> store;
};

TEST_CASE("remote store: an indexed CARv2 is registered after a few requests, and a block costs one more") {
  World world;
  RemoteSource& source = world.Source("a", MakeIndexedCar(1, 20'000));
  REQUIRE_STATUS_OK(world.Register("a"));
  CHECK_LE(source.bytes_sent, source.content.size() / 3);  // mostly its index: 800 KB for 10 MB of small blocks
  const ShardInfo info = ValueOf(world.store->GetShardInfo(ShardKey("a")));
  CHECK(info.inferred_index);
  CHECK_FALSE(info.verified);
  CHECK_EQ(info.blocks, 20'000);
  CHECK(info.copy_partial);

  const int requests = source.requests;
  {
    const Accessor accessor = ValueOf(world.store->AcquireShardSync(ShardKey("a")));
    CHECK_EQ(source.requests, requests);
    const auto blocks = accessor.NewBlockstore();
    Block block;
    const TestBlock want = MakeBlock(1, 7777);
    REQUIRE_STATUS_OK(blocks->Get(want.cid.view(), block));
    CHECK(SameBytes(block.data(), want.data));
    CHECK_LE(source.requests, requests + 1);
    for (const uint64_t i : {0, 1, 500, 19'999}) {
      CHECK_EQ(ValueOf(blocks->GetSize(MakeBlock(1, i).cid.view())), MakeBlock(1, i).data.size());
    }
  }
  // Once all bytes are here the index is built from them.
  CHECK_STATUS_OK(world.store->FetchWhole(ShardKey("a")));
  world.Restart();
  CheckServes(*world.store, "a", 1, 300);
  const ShardInfo after = ValueOf(world.store->GetShardInfo(ShardKey("a")));
  CHECK_FALSE(after.inferred_index);
  CHECK(after.verified);
  CHECK_FALSE(after.copy_partial);
  CHECK_EQ(after.blocks, 20'000);
}

// Defect 49: an index embedded in a foreign CAR was believed.
TEST_CASE("remote store: row 49: an embedded index that lies is not used, or serves nothing wrong") {
  using Entries = std::vector<std::pair<Bytes, uint64_t>>;
  World world;
  int n = 0;
  const std::function<void(Entries&)> twists[] = {
      [](Entries& e) { e[0].second = e[1].second; },
      [](Entries& e) { for (auto& entry : e) entry.second += 1; },
      [](Entries& e) { for (size_t i = 0; i + 1 < e.size(); i += 2) std::swap(e[i].first, e[i + 1].first); },
      [](Entries& e) { for (auto& entry : e) entry.first[5] ^= 1; },
      [](Entries& e) { e.resize(e.size() / 4); },
      [](Entries& e) { e.clear(); },
  };
  for (const auto& twist : twists) {
    CAPTURE(n);
    const std::string key = "s" + std::to_string(n++);
    world.Source(key, MakeIndexedCar(100 + n, 500, twist));
    REQUIRE_STATUS_OK(world.Register(key));
    CHECK_FALSE(ValueOf(world.store->GetShardInfo(ShardKey(key))).inferred_index);
    CheckServes(*world.store, key, 100 + n, 500);
  }
  // One wrong entry among thousands may pass; the block behind it is refused.
  world.Source("b", MakeIndexedCar(50, 5000, [](Entries& e) { std::swap(e[2001].first, e[2002].first); }));
  REQUIRE_STATUS_OK(world.Register("b"));
  const Accessor accessor = ValueOf(world.store->AcquireShardSync(ShardKey("b")));
  Block block;
  const TestBlock want = MakeBlock(50, 2001);
  const absl::Status status = accessor.NewBlockstore()->Get(want.cid.view(), block);
  if (status.ok()) CHECK(SameBytes(block.data(), want.data));
  if (!status.ok()) CHECK_CODE(status, kDataLoss);
}

TEST_CASE("remote store: a CARv1 is fetched, hashed, indexed and kept while it crosses the network once") {
  for (const bool ranges : {true, false}) {
    World world;
    RemoteSource& source = world.Source("a", MakeCar(2, 20'000), ranges);
    REQUIRE_STATUS_OK(world.Register("a"));
    CHECK_LE(source.bytes_sent, source.content.size() + (uint64_t{2} << kGranuleBitsMin));
    CHECK(ValueOf(world.store->GetShardInfo(ShardKey("a"))).verified);
    const uint64_t sent = source.bytes_sent;
    source.exists = false;  // the copy serves alone, also after a restart
    CheckServes(*world.store, "a", 2, 500);
    world.Restart();
    CheckServes(*world.store, "a", 2, 500);
    CHECK_EQ(source.bytes_sent, sent);
  }
}

TEST_CASE("remote store: a fetch knows the trace of the request that it is made for") {
  World world;
  SpanContext seen;
  world.Source("one", MakeCar(3, 20), /*ranges=*/false).on_open = [&seen](const SpanContext& span) { seen = span; };
  RegisterOptions options;
  options.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  REQUIRE_STATUS_OK(world.Register("one", options));
  CHECK_EQ(ToHex(seen.trace_id), "0af7651916cd43dd8448eb211c80319c");
  CHECK(seen.IsSampled());
  CHECK_FALSE(seen.is_remote);  // the job's own
}

TEST_CASE("remote store: row 20: a registration that breaks off goes on where it was, when it is asked for again") {
  World world;
  RemoteSource& source = world.BreakOff();
  const ShardInfo failed = ValueOf(world.store->GetShardInfo(ShardKey("a")));
  CHECK(failed.state == ShardState::kErrored);
  REQUIRE_EQ(failed.locations.size(), 1);
  CHECK_GE(failed.locations[0].failures, 1);
  CHECK_CODE(failed.locations[0].last_error, kUnavailable);
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CHECK_LE(source.bytes_sent, source.content.size() + (uint64_t{8} << kGranuleBitsMin));
  CheckServes(*world.store, "a", 3, 500);
}

TEST_CASE("remote store: what a source lied about before it broke off does not stick") {
  World world;
  // Fetched, and not looked at yet when the body ends.
  const auto twist = [](RemoteSource& a) { a.content[a.content.size() / 2 - (80 << 10)] ^= 1; };
  RemoteSource& source = world.BreakOff(twist);
  twist(source);
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 3, 500);
}

TEST_CASE("remote store: a source that breaks off at the same byte each time is given up, though it begins anew") {
  World world;
  world.options.sources.attempts_max = 3;
  world.Restart();
  RemoteSource& source = world.Source("a", MakeCar(3, 2000), /*ranges=*/false);
  source.fail_at = source.content.size() / 2;
  CHECK_CODE(world.Register("a"), kUnavailable);
  CHECK_EQ(source.opens, 3);
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 3, 100);
}

TEST_CASE("remote store: what rots of a fetch that broke off is fetched again by the next process") {
  World world;
  RemoteSource& source = world.BreakOff();
  world.store.reset();
  size_t rotten = 0;
  for (const auto& entry : fs::directory_iterator(world.options.dir + "/transients")) {
    if (entry.path().extension() != ".part") continue;
    // A head that names a hash function which nobody knows: no hash would notice.
    const Cid cid = MakeBlock(3, 7).cid;
    const auto at = std::search(source.content.begin(), source.content.end(), cid.bytes().begin(), cid.bytes().end());
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at - source.content.begin() + 2);
    file.put(static_cast<char>(at[2] ^ 0x40));
    REQUIRE(file.good());
    ++rotten;
  }
  REQUIRE_EQ(rotten, 1);
  const uint64_t before = source.bytes_sent;
  world.Restart();
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 3, 500);
  CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("a"))).unverified_blocks, 0);
  CHECK_EQ(ValueOf(world.store->Stats()).upgrader.granules_rotten, 1);
  CHECK_LE(source.bytes_sent - before, source.content.size() / 2 + (uint64_t{8} << kGranuleBitsMin));
}

TEST_CASE("remote store: destroying a shard leaves nothing of a fetch that broke off") {
  World world;
  world.BreakOff();
  CHECK_GT(world.BytesOnDisk(), 0);
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  REQUIRE_STATUS_OK(world.store->DestroyShardSync(ShardKey("a")));
  CHECK_EQ(world.BytesOnDisk(), 0);
}

constexpr uint64_t kOverhead = 16 << 10;  // of a partial copy, besides its extents

TEST_CASE("remote store: what the first location sent before it failed takes no room of the copy from the second") {
  World world;
  world.options.sources.attempts_max = 1;
  world.Restart();
  RemoteSource& first = world.Source("a", MakeCar(3, 20'000));
  first.fail_at = first.content.size() / 2;
  RemoteSource& second = world.Source("mirror", MakeCar(3, 20'000));
  second.validator = "mirror's own";
  RegisterOptions with;
  with.also = {"remote://mirror/a.car"};
  REQUIRE_STATUS_OK(world.Register("a", with));
  CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, second.content.size() + kOverhead);
  CheckServes(*world.store, "a", 3, 500);
  REQUIRE_STATUS_OK(world.store->DestroyShardSync(ShardKey("a")));
  CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, 0);
}

TEST_CASE("remote store: a fetch that broke off makes room for a copy that somebody wants") {
  World world;
  world.options.copies.wait_max = absl::Seconds(30);  // in vain
  world.options.copies.bytes_max = MakeCar(3, 20'000).size() * 5 / 4;
  world.BreakOff();
  CHECK_EQ(ValueOf(world.store->Stats()).copies.copies, 1);
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  RemoteSource& wanted = world.Source("b", MakeCar(4, 20'000), /*ranges=*/false);
  CHECK_STATUS_OK(world.Register("b"));
  CheckServes(*world.store, "b", 4, 500);
  CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, wanted.content.size());
  CHECK_EQ(ValueOf(world.store->Stats()).copies.evictions, 1);
  CHECK_LE(world.BytesOnDisk(), wanted.content.size() + 8192);
}

TEST_CASE("remote store: what broke off of one version of a source does not outlive a copy of the next") {
  World world;
  RemoteSource& source = world.BreakOff();
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(world.options.dir + "/transients"))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  };
  const std::vector<std::string> first = files();
  REQUIRE_EQ(first.size(), 2);  // .map and .part
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  source.validator = "v2";
  SUBCASE("one that breaks off, too") {
    CHECK_CODE(world.store->RecoverShardSync(ShardKey("a")), kUnavailable);
    const std::vector<std::string> second = files();
    CHECK_EQ(second.size(), 2);
    for (const std::string& name : first) CHECK_EQ(std::count(second.begin(), second.end(), name), 0);
    CHECK_EQ(ValueOf(world.store->Stats()).copies.copies, 1);
    source.validator = "v3";
  }
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CHECK_EQ(files().size(), 1);
  CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, source.content.size() + kOverhead);
  CheckServes(*world.store, "a", 3, 500);
  REQUIRE_STATUS_OK(world.store->DestroyShardSync(ShardKey("a")));
  CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, 0);
}

TEST_CASE("remote store: copies of errored shards make room, and are fetched again when those recover") {
  World world;
  world.options.copies.wait_max = absl::Seconds(30);  // in vain
  RemoteSource& source = world.Source("a", MakeCar(3, 2000), /*ranges=*/false);
  world.options.copies.bytes_max = source.content.size() * 3 / 2;
  world.Restart();
  REQUIRE_STATUS_OK(world.Register("a"));
  world.FindDamaged("a");
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  SUBCASE("gc removes them, too") {
    const GcResult gc = ValueOf(world.store->Gc());
    CHECK_EQ(gc.copies_removed, 1);
    CHECK_EQ(gc.bytes_removed, source.content.size());
    CHECK_EQ(ValueOf(world.store->Stats()).copies.bytes, 0);
  }
  world.Source("b", MakeCar(4, 2000), /*ranges=*/false);
  REQUIRE_STATUS_OK(world.Register("b"));
  const ShardInfo info = ValueOf(world.store->GetShardInfo(ShardKey("a")));
  CHECK(info.state == ShardState::kErrored);
  CHECK_EQ(info.copy_bytes, 0);
  CheckServes(*world.store, "b", 4, 500);
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 3, 500);
}

TEST_CASE("remote store: a damaged copy goes when its shard is recovered, also if that fails") {
  World world;
  world.options.sources.attempts_max = 1;
  world.Restart();
  bool partial = false;
  SUBCASE("a whole one") {}
  SUBCASE("one that is not whole") { partial = true; }
  RemoteSource& source = world.Source("a", partial ? MakeIndexedCar(3, 20'000) : MakeCar(3, 2000));
  REQUIRE_STATUS_OK(world.Register("a"));
  CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("a"))).copy_partial, partial);
  world.FindDamaged("a");
  CHECK_GT(ValueOf(world.store->Stats()).copies.bytes, 0);
  source.open_error = Unavailable("connection refused");
  SUBCASE("by the same process") {}
  SUBCASE("by the next") { world.Restart(); }
  CHECK_CODE(world.store->RecoverShardSync(ShardKey("a")), kUnavailable);
  while (ValueOf(world.store->Stats()).copies.bytes != 0) std::this_thread::yield();
  CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("a"))).copy_bytes, 0);
  source.open_error = absl::OkStatus();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 3, 500);
}

TEST_CASE("remote store: a copy that no record names makes room, not the one that is read") {
  World world;
  RemoteSource& source = world.Source("a", MakeCar(3, 2000));
  REQUIRE_STATUS_OK(world.Register("a"));  // ordinal 1
  const std::string folder = world.options.dir + "/transients/" + ShardKey("a").FileStem();
  world.store.reset();
  for (const char* name : {".7.car", ".8.part"}) WriteBytes(folder + name, Bytes(300'000, 1));
  world.options.copies.wait_max = absl::Seconds(30);  // in vain
  world.options.copies.bytes_max = source.content.size() + 1'000'000;
  world.Restart();
  const Accessor reads = ValueOf(world.store->AcquireShardSync(ShardKey("a")));
  world.Source("b", MakeCar(4, 1700), /*ranges=*/false);
  CHECK_STATUS_OK(world.Register("b"));
  CHECK_FALSE(fs::exists(folder + ".7.car"));
  CHECK_FALSE(fs::exists(folder + ".8.part"));
  CHECK_GT(ValueOf(world.store->GetShardInfo("a")).copy_bytes, 0);
  CheckServes(*world.store, "a", 3, 500);
}

TEST_CASE("remote store: gc spares what an earlier process fetched while a job goes on with it") {
  World world;
  RemoteSource& source = world.BreakOff();
  world.Restart();
  source.fail_at.reset();
  std::atomic<int> reads{0};  // the first only asks what the source is now
  source.before_read = [&](uint64_t) {
    if (++reads != 4) return;
    CHECK_EQ(ValueOf(world.store->Gc()).orphans_removed, 0);
  };
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  source.before_read = nullptr;
  CHECK_GE(reads.load(), 4);
  CHECK_EQ(ValueOf(world.store->GetShardInfo("a")).copy_bytes, source.content.size());
  const int asked = source.requests + source.opens;
  CheckServes(*world.store, "a", 3, 500);
  CHECK_EQ(source.requests + source.opens, asked);
}

TEST_CASE("remote store: a copy that an earlier process began and that is replaced later does not stay") {
  World world;
  RemoteSource& source = world.BreakOff();
  world.Restart();
  source.fail_at.reset();
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  world.FindDamaged("a");
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  world.Restart();
  CheckServes(*world.store, "a", 3, 500);
  CHECK_LE(world.BytesOnDisk(), source.content.size() + (64 << 10));
}

TEST_CASE("remote store: another location is asked when one fails, at registration and later") {
  World world;
  world.options.sources.attempts_max = 1;
  world.Restart();
  RemoteSource& first = world.Source("a", MakeIndexedCar(4, 2000));
  RemoteSource& second = world.Source("mirror", MakeIndexedCar(4, 2000));
  second.validator = "mirror's own";
  RegisterOptions with;
  with.also = {"remote://mirror/a.car"};
  SUBCASE("because it is gone") { first.exists = false; }
  SUBCASE("because it does not answer") { first.open_error = Unavailable("connection refused"); }
  SUBCASE("because it has other bytes") {
    for (size_t i = 1000; i < first.content.size(); i += 100) first.content[i] ^= 1;
  }
  REQUIRE_STATUS_OK(world.Register("a", with));
  CheckServes(*world.store, "a", 4, 500);
  const ShardInfo info = ValueOf(world.store->GetShardInfo(ShardKey("a")));
  REQUIRE_EQ(info.locations.size(), 2);
  CHECK_EQ(info.locations[1].url, "remote://mirror/a.car");
  CHECK_EQ(info.locations[1].failures, 0);
  world.Restart();
  CheckServes(*world.store, "a", 4, 500);
  RegisterOptions bad;
  bad.also = {"unknown://x"};
  CHECK_CODE(world.Register("mirror", bad), kInvalidArgument);
}

TEST_CASE("remote store: 32 readers of one cold shard cause one transfer") {
  World world;
  RemoteSource& source = world.Source("a", MakeCar(5, 20'000), /*ranges=*/false);
  RegisterOptions lazy;
  lazy.lazy = true;
  REQUIRE_STATUS_OK(world.Register("a", lazy));
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] { right += world.store->AcquireShardSync(ShardKey("a")).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(right, 32);
  CHECK_EQ(source.opens, 1);
}

TEST_CASE("remote store: the quota holds at every moment, under a working set that is larger") {
  constexpr uint64_t kBlocks = 2000;
  constexpr int kShards = 6;
  World world(/*quota=*/uint64_t{3} << 20);  // of about 6 MiB
  for (int i = 0; i < kShards; ++i) {
    const std::string key = "s" + std::to_string(i);
    world.Source(key, MakeCar(20 + i, kBlocks), /*ranges=*/i % 2 == 0);
    REQUIRE_STATUS_OK(world.Register(key));
    CHECK_LE(world.BytesOnDisk(), world.options.copies.bytes_max);
  }
  REQUIRE_STATUS_OK(world.store->Pin(ShardKey("s0")));
  REQUIRE_STATUS_OK(world.store->FetchWhole(ShardKey("s0")));
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < kShards; ++i) {
      CheckServes(*world.store, "s" + std::to_string(i), 20 + i, 200);
      CHECK_LE(world.BytesOnDisk(), world.options.copies.bytes_max);
    }
  }
  const StoreStats stats = ValueOf(world.store->Stats());
  CHECK_LE(stats.copies.bytes_peak, world.options.copies.bytes_max);
  CHECK_GE(stats.copies.evictions, 3);
  const std::string metrics = ValueOf(world.store->MetricsText());
  CHECK(metrics.find(fmt::format("dagstore_copy_evictions_total{{outcome=\"ok\"}} {}\n", stats.copies.evictions)) !=
        std::string::npos);
  CHECK(metrics.find(fmt::format("dagstore_source_requests_total {}\n", stats.sources.requests)) != std::string::npos);
  CHECK(metrics.find("dagstore_copies{pinned=\"yes\"} 1\n") != std::string::npos);
  CHECK_EQ(stats.engine.shards_by_state[static_cast<size_t>(ShardState::kErrored)], 0);
  const ShardInfo pinned = ValueOf(world.store->GetShardInfo(ShardKey("s0")));
  CHECK(pinned.pinned);
  CHECK_FALSE(pinned.copy_partial);
  CHECK_GT(pinned.copy_bytes, 0);
}

TEST_CASE("remote store: pins are durable, gc spares them, and go with their shard") {
  World world;
  for (const char* key : {"a", "b"}) {
    world.Source(key, MakeCar(8, 500));
    REQUIRE_STATUS_OK(world.Register(key));
  }
  REQUIRE_STATUS_OK(world.store->Pin(ShardKey("a")));
  CHECK_CODE(world.store->Pin(ShardKey("nobody")), kNotFound);
  world.Restart();
  CHECK(ValueOf(world.store->GetShardInfo(ShardKey("a"))).pinned);
  CHECK_EQ(ValueOf(world.store->Gc()).copies_removed, 1);
  CHECK_GT(ValueOf(world.store->GetShardInfo(ShardKey("a"))).copy_bytes, 0);
  CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("b"))).copy_bytes, 0);
  REQUIRE_STATUS_OK(world.store->Unpin(ShardKey("a")));
  CHECK_EQ(ValueOf(world.store->Gc()).copies_removed, 1);
  REQUIRE_STATUS_OK(world.store->Pin(ShardKey("a")));
  REQUIRE_STATUS_OK(world.store->DestroyShardSync(ShardKey("a")));
  REQUIRE_STATUS_OK(world.Register("a"));
  CHECK_FALSE(ValueOf(world.store->GetShardInfo(ShardKey("a"))).pinned);
  CheckServes(*world.store, "b", 8, 500);
}

TEST_CASE("remote store: a source that has changed is refused, and taken only by a recovery") {
  World world;
  RemoteSource& source = world.Source("a", MakeIndexedCar(9, 20'000));
  REQUIRE_STATUS_OK(world.Register("a"));
  source.content = MakeIndexedCar(10, 2000);
  source.validator = "v2";
  {
    const Accessor accessor = ValueOf(world.store->AcquireShardSync(ShardKey("a")));
    int refused = 0;
    for (uint64_t i = 0; i < 20'000; i += 500) {  // a few are here
      Block block;
      const TestBlock want = MakeBlock(9, i);
      const absl::Status status = accessor.NewBlockstore()->Get(want.cid.view(), block);
      if (status.ok()) CHECK(SameBytes(block.data(), want.data));
      if (!status.ok()) CHECK_CODE(status, kFailedPrecondition);
      refused += status.ok() ? 0 : 1;
    }
    CHECK_GE(refused, 10);
    accessor.ReportDamage(DataLoss("for the test"), Damage::kShard);
  }
  REQUIRE_STATUS_OK(world.store->RecoverShardSync(ShardKey("a")));
  CheckServes(*world.store, "a", 10, 300);
}

TEST_CASE("remote store: bytes of a partial copy that have rotten are fetched again") {
  World world;
  world.Source("a", MakeIndexedCar(11, 3000));
  REQUIRE_STATUS_OK(world.Register("a"));
  CheckServes(*world.store, "a", 11, 1000);
  for (const auto& entry : fs::directory_iterator(world.options.dir + "/transients")) {
    if (entry.path().extension() != ".part") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100'000);
    file << std::string(100'000, 'x');
    REQUIRE(file.good());
  }
  CheckServes(*world.store, "a", 11, 1000);
  CHECK_EQ(ValueOf(world.store->Stats()).engine.shards_by_state[static_cast<size_t>(ShardState::kErrored)], 0);
}

// What no CID covers: a head that names another hash function, or the roots.
TEST_CASE("remote store: a lost index is not built from a copy whose section heads or roots have rotten") {
  for (const bool of_user : {false, true}) {
    for (const bool header : {false, true}) {
      CAPTURE(of_user);
      CAPTURE(header);
      World world;
      world.options.inline_index_bytes_max = 0;
      world.Restart();
      RemoteSource& source = world.Source("a", MakeCar(3, 300), /*ranges=*/false);
      const std::string of_users = world.dir.File("user.car");
      RegisterOptions with;
      if (of_user) {
        WriteBytes(of_users, source.content);
        with.existing_transient = of_users;
      }
      REQUIRE_STATUS_OK(world.Register("a", with));
      const std::string ours = world.options.dir + "/transients/" + ShardKey("a").FileStem() + ".1.car";
      const std::string& copy = of_user ? of_users : ours;
      world.store.reset();
      REQUIRE(fs::exists(copy));

      Bytes rotten = source.content;
      const Cid cid = MakeBlock(3, header ? 0 : 7).cid;  // a root is a CID of the header
      const auto at = std::search(rotten.begin(), rotten.end(), cid.view().bytes.begin(), cid.view().bytes.end());
      REQUIRE(at != rotten.end());
      at[header ? 10 : 2] ^= header ? 1 : 0x40;  // a digest; a hash function that nobody knows
      WriteBytes(copy, rotten);
      WriteBytes(world.options.dir + "/indexes/00000001.idx", AsSpan("rotten as well"));

      const int opens = source.opens;
      world.Restart();
      CheckServes(*world.store, "a", 3, 300);
      CHECK_EQ(source.opens, opens + 1);
      CHECK_EQ(ValueOf(world.store->ShardsWithRoot(MakeBlock(3, 0).cid)).size(), 1);
      CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("a"))).unverified_blocks, 0);
      if (of_user) CHECK(fs::exists(of_users));
    }
  }
}

// A resource error changes nothing durable: the shard is as it was, and the next attempt works.
TEST_CASE("remote store: a copy that does not fit the quota leaves its shard as it was") {
  World world(/*quota=*/100'000);
  world.options.copies.wait_max = absl::ZeroDuration();
  world.Restart();
  world.Source("a", MakeCar(12, 2000), /*ranges=*/false);
  CHECK_CODE(world.Register("a"), kResourceExhausted);
  CHECK(ValueOf(world.store->GetShardInfo(ShardKey("a"))).state == ShardState::kNew);
  CHECK_EQ(world.BytesOnDisk(), 0);
  world.options.copies.bytes_max = UINT64_MAX;
  world.Restart();
  CheckServes(*world.store, "a", 12, 300);
}

TEST_CASE("remote store: the size of a block is asked of the head of its section, where the index has a bound only") {
  const std::vector<TestBlock> blocks = LargeBlocks(20, 500'000);
  World world;
  world.options.embedded_index_samples = 2;
  world.Restart();
  RemoteSource& source = world.Source("a", IndexedCarOf(CarOf(blocks)));
  REQUIRE_STATUS_OK(world.Register("a"));
  REQUIRE(ValueOf(world.store->GetShardInfo(ShardKey("a"))).inferred_index);
  const IndexedBlockstore all(*world.store);
  const Accessor accessor = ValueOf(world.store->AcquireShardSync(ShardKey("a")));
  const auto one = accessor.NewBlockstore();
  uint64_t sent = source.bytes_sent;
  CHECK_EQ(ValueOf(all.GetSize(blocks[7].cid.view())), 500'000);
  CHECK_LE(source.bytes_sent - sent, 2 * 65536);
  sent = source.bytes_sent;
  CHECK_EQ(ValueOf(one->GetSize(blocks[12].cid.view())), 500'000);
  CHECK_LE(source.bytes_sent - sent, 2 * 65536);
  CHECK_CODE(all.GetSize(MakeBlock(1, 1).cid.view()).status(), kNotFound);
}

TEST_CASE("remote store: a walk says what it reads next, so that a partial copy fetches it together") {
  // The leaves lie in the file the other way round: nobody goes forward.
  std::vector<TestBlock> blocks = LargeBlocks(100, 100'000);
  Bytes list = {0x98, static_cast<uint8_t>(blocks.size())};
  for (const TestBlock& leaf : blocks) {
    AppendBytes(list, Bytes{0xd8, 0x2a, 0x58, static_cast<uint8_t>(leaf.cid.view().bytes.size() + 1), 0});
    AppendBytes(list, leaf.cid.view().bytes);
  }
  std::reverse(blocks.begin(), blocks.end());
  blocks.insert(blocks.begin(), {ValueOf(Cid::Of(kCodecDagCbor, kSha2_256, list)), list});
  const Bytes car = IndexedCarOf(CarOf(blocks));
  const auto requests_of_walk = [&](size_t links) {
    World world;
    world.options.embedded_index_samples = 2;
    world.Restart();
    RemoteSource& source = world.Source("a", car);
    REQUIRE_STATUS_OK(world.Register("a"));
    const int before = source.requests;
    const IndexedBlockstore all(*world.store);
    BlockstoreGetter getter(all);
    TraverseOptions options;
    options.prefetch_links_max = links;
    uint64_t bytes = 0;
    CHECK_STATUS_OK(Traverse(getter, blocks.front().cid.view(), options, [&](const CidView&, const BlockData& data) {
      bytes += data.bytes().size();
      return absl::OkStatus();
    }));
    CHECK_EQ(bytes, list.size() + 100 * 100'000);
    CHECK_LE(source.bytes_sent, source.content.size());
    return source.requests - before;
  };
  CHECK_GE(requests_of_walk(0), 90);
  // 10 MB, at most 8 MiB each, and the reader's own.
  CHECK_LE(requests_of_walk(TraverseOptions().prefetch_links_max), 20);
}

TEST_CASE("remote store: copies that wait for room hold up nobody else who opens or registers") {
  World world(/*quota=*/1'600'000);
  world.options.open_threads = world.options.index_threads = 1;
  world.Restart();
  constexpr uint64_t kBlocks = 2000;  // 1 MB: the quota is for one
  for (int i = 0; i < 4; ++i) world.Source("s" + std::to_string(i), MakeCar(30 + i, kBlocks), /*ranges=*/false);
  WriteBytes(world.dir.File("local.car"), MakeCar(40, 20));
  const auto register_local = [&](const std::string& key) {
    return world.store->RegisterShardSync(key, MountOfFile(*world.store, world.dir.File("local.car")));
  };
  REQUIRE_STATUS_OK(register_local("local"));
  for (const char* key : {"s0", "s1", "s2"}) {
    REQUIRE_STATUS_OK(world.Register(key));
    CHECK_EQ(ValueOf(world.store->Gc()).copies_removed, 1);
  }
  {
    const Accessor in_use = ValueOf(world.store->AcquireShardSync(ShardKey("s0")));
    const Channel<ShardResult> opened(2), registered(1);
    const Ticket waiting[] = {
        ValueOf(world.store->AcquireShard(ShardKey("s1"), opened)),
        ValueOf(world.store->AcquireShard(ShardKey("s2"), opened)),
        ValueOf(world.store->RegisterShard(ShardKey("s3"), MountOfUrl(*world.store, "remote://s3/a.car"), registered))};
    // Behind them, in the same lines.
    CheckServes(*world.store, "local", 40, 20);
    REQUIRE_STATUS_OK(register_local("another"));
    CheckServes(*world.store, "another", 40, 20);
    CHECK_FALSE(opened.TryReceive().has_value());
    CHECK_FALSE(registered.TryReceive().has_value());
    for (const Ticket ticket : waiting) CHECK_STATUS_OK(world.store->Stop(ticket));
  }
  CheckServes(*world.store, "s1", 31, kBlocks);
}

TEST_CASE("remote store: gc removes a partial copy that a killed process left behind, and only that") {
  World world;
  world.Source("a", MakeIndexedCar(50, 2000));
  REQUIRE_STATUS_OK(world.Register("a"));  // ordinal 1
  REQUIRE_STATUS_OK(world.store->DestroyShardSync(ShardKey("a")));
  REQUIRE_STATUS_OK(world.Register("a"));
  world.store.reset();
  const std::string folder = world.options.dir + "/transients/";
  std::set<std::string> living;
  for (const auto& entry : fs::directory_iterator(folder)) living.insert(entry.path().filename());
  CHECK_EQ(living.size(), 2);
  const std::string stem = ShardKey("a").FileStem();
  for (const char* name : {".1.part", ".1.map"}) WriteBytes(folder + stem + name, AsSpan("left"));
  for (const std::string& name : {stem + ".1.part.bak", std::string("notes.part"), stem + ".map"}) {
    WriteBytes(folder + name, AsSpan("of somebody else"));
    living.insert(name);
  }
  world.Restart();
  CHECK_EQ(ValueOf(world.store->Gc({.copy_bytes_target = UINT64_MAX})).orphans_removed, 1);
  std::set<std::string> left;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) left.insert(entry.path().filename());
  }
  CHECK(left == living);
  CheckServes(*world.store, "a", 50, 100);
}

}  // namespace
}  // namespace dagstore
