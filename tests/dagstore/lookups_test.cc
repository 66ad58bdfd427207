// Lookups by CID while shards break, go and are indexed again: no lookup says of a block that is here that it is not.
#include <atomic>
#include <filesystem>
#include <thread>

#include "dagstore/fsck.h"
#include "dagstore/indexed_blockstore.h"
#include "tests/dagstore/store_testing.h"
#include "tests/fakes/fake_kv.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

struct World {
  explicit World(Options with = {}) : options(std::move(with)) {
    const Options usual = StoreOptions(dir.File("repo"));
    options.dir = usual.dir;
    options.mounts = usual.mounts;
    options.index_threads = usual.index_threads;
    if (!options.kv_wrapper) options.kv_wrapper = FakeKv::Wrapper(&kv);
    store = ValueOf(DagStore::Open(options));
  }
  void Add(const std::string& key, uint64_t seed, uint64_t blocks) {
    WriteBytes(dir.File(key), MakeCar(seed, blocks));
    REQUIRE_STATUS_OK(store->RegisterShardSync(key, MountOfFile(*store, dir.File(key))));
  }
  void Reopen() {
    store.reset();
    store = ValueOf(DagStore::Open(options));
  }
  std::string IndexFile(const std::string& key) const {
    return fmt::format("{}/indexes/{:08x}.idx", options.dir, ValueOf(store->lookup().ReadRecord(key)).ordinal);
  }
  // Its index is lost; the next who opens it has it made again, under another ordinal.
  void IndexAgain(const std::string& key) {
    const Ordinal before = ValueOf(store->lookup().ReadRecord(key)).ordinal;
    {
      const Accessor accessor = ValueOf(store->AcquireShardSync(key));
      accessor.ReportDamage(DataLoss("says the test"), Damage::kIndex);
    }
    while (ValueOf(store->lookup().ReadRecord(key)).ordinal == before) std::this_thread::yield();
  }
  std::vector<std::string> Holders(uint64_t seed) const {
    std::vector<std::string> keys;
    for (const ShardKey& key : ValueOf(store->ShardsContainingMultihash(MakeBlock(seed, 0).cid.hash()))) {
      keys.push_back(key.bytes());
    }
    return keys;
  }

  const TempDir dir;
  Options options;
  FakeKv* kv = nullptr;
  std::unique_ptr<DagStore> store;
};

using Keys = std::vector<std::string>;

TEST_CASE("lookups: the blocks of a CAR that is gone are an error that names it, not blocks that nobody has") {
  World world;
  world.Add("gone.car", 1, 4);
  world.Add("here.car", 2, 4);
  fs::remove(world.dir.File("gone.car"));
  for (int life = 0; life < 2; ++life) {
    world.Reopen();
    const IndexedBlockstore blocks(*world.store);
    Block block;
    const absl::Status got = blocks.Get(MakeBlock(1, 0).cid.view(), block);
    CHECK_CODE(got, kFailedPrecondition);
    CHECK(Message(got).find("gone.car") != std::string::npos);
    CHECK_CODE(world.store->AcquireShardSync("gone.car"), kFailedPrecondition);
    CHECK_CODE(world.store->RecoverShardSync("gone.car"), kFailedPrecondition);
    CHECK_CODE(world.store->FetchWhole("gone.car"), kFailedPrecondition);
    CHECK_EQ(ValueOf(world.store->GetShardInfo("gone.car")).state, ShardState::kErrored);
    // These are not here, and that is what NotFound says.
    CHECK_CODE(blocks.Get(MakeBlock(3, 0).cid.view(), block), kNotFound);
    CHECK_CODE(world.store->AcquireShardSync("never.car"), kNotFound);
    CHECK_STATUS_OK(blocks.Get(MakeBlock(2, 0).cid.view(), block));
  }
}

TEST_CASE("lookups: a shard whose index cannot be read is named, and hides no other") {
  Options options;
  options.inline_index_bytes_max = 0;  // files
  World world(options);
  world.Add("a", 1, 4);
  world.Add("b", 1, 4);
  world.Add("c", 2, 4);
  for (const char* key : {"a", "c"}) {
    const std::string file = world.IndexFile(key);
    REQUIRE(fs::remove(file));
  }
  world.Reopen();
  CHECK_EQ(world.Holders(1), Keys{"b"});
  const ShardHoldersPage page = ValueOf(world.store->FindShards(MakeBlock(1, 1).cid));
  REQUIRE_EQ(page.shards.size(), 1);
  CHECK_EQ(page.shards[0].key, ShardKey("b"));
  REQUIRE_EQ(page.unread.size(), 1);
  CHECK_EQ(page.unread[0].key, ShardKey("a"));
  CHECK_CODE(page.unread[0].error, kDataLoss);
  // Nobody else has it: an error, not an absence.
  CHECK_CODE(world.store->ShardsContainingMultihash(MakeBlock(2, 0).cid.hash()), kDataLoss);
  const IndexedBlockstore blocks(*world.store);
  CHECK(ValueOf(blocks.Has(MakeBlock(1, 1).cid.view())));
  CHECK_CODE(blocks.Has(MakeBlock(2, 1).cid.view()), kDataLoss);
  // Read, it is built again.
  Block block;
  (void)blocks.Get(MakeBlock(2, 1).cid.view(), block);
  while (!world.store->ShardsContainingMultihash(MakeBlock(2, 0).cid.hash()).ok()) std::this_thread::yield();
  CHECK_EQ(world.Holders(2), Keys{"c"});
}

TEST_CASE("lookups: a shard that is destroyed under a question has nothing, and is no error") {
  World world;
  world.Add("k", 1, 4);
  bool once = false;
  world.kv->OnGet([&](KvTable table, std::string_view) {
    if (table == KvTable::kRecords && !std::exchange(once, true)) {
      REQUIRE_STATUS_OK(world.store->DestroyShardSync("k"));
    }
    return absl::OkStatus();
  });
  CHECK_FALSE(ValueOf(IndexedBlockstore(*world.store).Has(MakeBlock(1, 1).cid.view())));
  CHECK(once);
}

TEST_CASE("lookups: a shard that is indexed again while a page is looked into is in it") {
  World world;
  world.Add("a", 1, 4);
  world.Add("b", 1, 4);
  std::atomic<bool> once{false};
  world.kv->OnGet([&](KvTable table, std::string_view key) {
    // The page is known, and its first shard is being looked into.
    if (table == KvTable::kRecords && key == "a" && !once.exchange(true)) world.IndexAgain("b");
    return absl::OkStatus();
  });
  CHECK_EQ(world.Holders(1), Keys{"a", "b"});
  CHECK(once);
}

TEST_CASE("lookups: a shard is found all the while that it is indexed again, over and over") {
  World world;
  world.Add("k", 1, 4);
  std::atomic<bool> done{false};
  std::atomic<uint64_t> asked{0}, missed{0};
  std::thread reader([&] {
    const IndexedBlockstore blocks(*world.store);
    while (!done) {
      const absl::StatusOr<bool> has = blocks.Has(MakeBlock(1, asked % 4).cid.view());
      if (has.ok() && !*has) ++missed;
      const auto keys = world.store->ShardsContainingMultihash(MakeBlock(1, 0).cid.hash());
      if (keys.ok() && keys->empty()) ++missed;
      ++asked;
    }
  });
  for (int i = 0; i < 40; ++i) world.IndexAgain("k");
  while (asked < 100) std::this_thread::yield();
  done = true;
  reader.join();
  CHECK_EQ(missed.load(), 0);
}

TEST_CASE("lookups: what could not be added after a crash is added by the next who looks, and left out by none") {
  for (const absl::Status& error : {Unavailable("the database is busy"), ResourceExhausted("no descriptors")}) {
    World world;
    world.Add("a", 1, 4);
    world.Add("b", 2, 4);
    world.store.reset();
    std::atomic<bool> failing{true};
    world.options.rebuild_top_index = true;
    world.options.kv_wrapper = [&](std::unique_ptr<Kv> inner) {
      auto fake = std::make_unique<FakeKv>(std::move(inner));
      fake->OnGet([&](KvTable table, std::string_view key) {
        return failing && table == KvTable::kRecords && key == "b" ? error : absl::OkStatus();
      });
      return fake;
    };
    world.store = ValueOf(DagStore::Open(world.options));
    REQUIRE_STATUS_OK(world.store->AwaitLookups());
    const IndexedBlockstore blocks(*world.store);
    for (int i = 0; i < 3; ++i) {
      CHECK_EQ(world.store->ShardsContainingMultihash(MakeBlock(2, 0).cid.hash()).status().code(), error.code());
      CHECK_EQ(blocks.Has(MakeBlock(2, 0).cid.view()).status().code(), error.code());
    }
    CHECK_EQ(ValueOf(world.store->Stats()).top.awaited, 1);
    failing = false;
    CHECK_EQ(world.Holders(2), Keys{"b"});
    CHECK_EQ(world.Holders(1), Keys{"a"});
    CHECK(ValueOf(blocks.Has(MakeBlock(2, 0).cid.view())));
    CHECK_EQ(ValueOf(world.store->Stats()).top.awaited, 0);
    CHECK_EQ(ValueOf(world.store->GetShardInfo("b")).state, ShardState::kAvailable);
  }
}

TEST_CASE("lookups: a shard whose entries are lost while it is being published is found once it is") {
  Options options;
  options.top_index_buffer_entries_max = 64;
  World world(options);
  world.Add("a", 1, 4);
  WriteBytes(world.dir.File("b"), MakeCar(2, 40));  // enough for a run of its own
  world.kv->Hold([](const KvBatch& batch) {
    return std::any_of(batch.changes().begin(), batch.changes().end(),
                       [](const KvBatch::Change& change) { return change.table == KvTable::kRoots; });
  });
  const Channel<ShardResult> results(1);
  REQUIRE_STATUS_OK(world.store->RegisterShard("b", MountOfFile(*world.store, world.dir.File("b")), results).status());
  world.kv->WaitUntilWaiting(1);  // its index is written and sealed, and not published
  for (const auto& entry : fs::directory_iterator(world.options.dir + "/top")) {
    if (entry.path().extension() != ".top") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const Bytes ruin(fs::file_size(entry.path()) - 4096, 0x5a);  // all behind its first page
    file.seekp(4096);
    file.write(reinterpret_cast<const char*>(ruin.data()), static_cast<std::streamsize>(ruin.size()));
  }
  uint64_t unsure = 0;  // whoever meets the damage has it mended, and hears that not all is there yet
  for (uint64_t i = 0; i < 40; ++i) {
    const auto found = world.store->ShardsContainingMultihash(MakeBlock(2, i).cid.hash());
    if (found.ok()) CHECK(found->empty());  // not published
    if (!found.ok()) CHECK_CODE(found, kUnavailable);
    unsure += !found.ok();
  }
  CHECK(unsure > 0);
  world.kv->ReleaseAll();
  REQUIRE_STATUS_OK(results.Receive().status);
  CheckServes(*world.store, "b", 2, 40);
  CheckServes(*world.store, "a", 1, 4);
}

TEST_CASE("lookups: fetching all of a shard ends when its caller has had enough, also while it is being indexed") {
  std::atomic<bool> begun{false};
  Options options;
  options.indexer = [&](const RandomReader&, const IndexBuildOptions&, const IndexOutput&,
                        const WorkContext& work) -> absl::StatusOr<BuiltIndex> {
    begun = true;
    while (work.Check().ok()) std::this_thread::yield();
    return work.Check();
  };
  World world(options);
  WriteBytes(world.dir.File("k"), MakeCar(1, 4));
  RegisterOptions lazy;
  lazy.lazy = true;
  REQUIRE_STATUS_OK(world.store->RegisterShardSync("k", MountOfFile(*world.store, world.dir.File("k")), lazy));
  CancelFlag cancel;
  absl::Status status;
  const WorkContext work{&cancel, nullptr, Deadline::Infinite()};
  std::thread caller([&] { status = world.store->FetchWhole("k", work); });
  while (!begun) std::this_thread::yield();
  cancel.Cancel();
  caller.join();
  CHECK_CODE(status, kCancelled);
}

}  // namespace
}  // namespace dagstore
