// What a shard leaves in the database when it goes or is replaced, and a source that is replaced under it: gaps that
// mutants found, because no test noticed them.
#include <algorithm>
#include <filesystem>

#include "tests/dagstore/store_testing.h"

namespace dagstore {
namespace {

size_t ManifestsOf(const DagStore& store, const std::string& key) {
  return ValueOf(store.ReadManifests().List(key, std::nullopt, nullptr, 10)).size();
}

TEST_CASE("store: the manifests of a shard go with it, and the next one of its key has none") {
  const TempDir dir;
  WriteBytes(dir.File("k.car"), MakeCar(1, 8));
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  const std::vector<Cid> cids = {MakeBlock(1, 0).cid};
  REQUIRE_STATUS_OK(store->AddManifest("k", "rule", 1, cids));
  REQUIRE_EQ(ManifestsOf(*store, "k"), 1);
  REQUIRE_STATUS_OK(store->DestroyShardSync("k"));
  CHECK_EQ(ManifestsOf(*store, "k"), 0);
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  CHECK_EQ(ManifestsOf(*store, "k"), 0);
}

TEST_CASE("store: a recovery that finds other content leaves neither roots nor index of the old") {
  for (const size_t inline_bytes : {size_t{0}, size_t{64} << 10}) {
    CAPTURE(inline_bytes);
    const TempDir dir;
    const std::string car = dir.File("k.car");
    WriteBytes(car, MakeCar(1, 8));
    Options options = StoreOptions(dir.File("repo"));
    options.inline_index_bytes_max = inline_bytes;
    {
      const auto store = ValueOf(DagStore::Open(options));
      REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, car)));
      std::filesystem::remove(car);
      REQUIRE_FALSE(store->AcquireShardSync("k").ok());
      WriteBytes(car, MakeCar(2, 8));
      REQUIRE_STATUS_OK(store->RecoverShardSync("k"));
      CheckServes(*store, "k", 2, 8);
      REQUIRE_STATUS_OK(store->Close());
    }
    const auto store = ValueOf(DagStore::Open(options));  // which knows that what is not owned now never will be
    REQUIRE_STATUS_OK(store->AwaitLookups());
    CheckServes(*store, "k", 2, 8);
    CHECK(ValueOf(store->ShardsWithRoot(MakeBlock(1, 0).cid)).empty());
    CHECK_EQ(ValueOf(store->lookup().indexes->Totals()).indexes, 1);
    CHECK_EQ(ValueOf(store->Gc()).orphans_removed, 0);
  }
}

TEST_CASE("store: what is acknowledged has been synced") {
  const TempDir dir;
  WriteBytes(dir.File("k.car"), MakeCar(1, 8));
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  const uint64_t before = ValueOf(store->Stats()).syncs;
  RegisterOptions lazy;
  lazy.lazy = true;
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car")), lazy));
  const uint64_t registered = ValueOf(store->Stats()).syncs;
  CHECK(registered > before);
  REQUIRE_STATUS_OK(store->DestroyShardSync("k"));
  CHECK(ValueOf(store->Stats()).syncs > registered);
}

TEST_CASE("store: what a collection has found once it does not find again") {
  const TempDir dir;
  const Options options = StoreOptions(dir.File("repo"));
  REQUIRE_STATUS_OK(ValueOf(DagStore::Open(options))->Close());
  {
    const auto kv = ValueOf(OpenRocksKv(dir.File("repo/db"), RocksKvOptions()));
    KvBatch orphan;
    orphan.Put(KvTable::kIndexes, IndexKey(7), "an index that no record owns");
    REQUIRE_STATUS_OK(kv->Commit(orphan, /*sync=*/true));
  }
  const auto store = ValueOf(DagStore::Open(options));
  CHECK_EQ(ValueOf(store->Gc()).orphans_removed, 1);
  CHECK_EQ(ValueOf(store->Gc()).orphans_removed, 0);
}

// Where `part` first stands in `whole`.
size_t PlaceOf(Span part, Span whole) {
  const auto at = std::search(whole.begin(), whole.end(), part.begin(), part.end());
  REQUIRE(at != whole.end());
  return static_cast<size_t>(at - whole.begin());
}

TEST_CASE("store: a section that has come to have another CID is refused even where nothing is hashed") {
  const TempDir dir;
  Bytes car = MakeCar(1, 8);
  WriteBytes(dir.File("k.car"), car);
  Options options = StoreOptions(dir.File("repo"));
  options.verify_reads = VerifyReads::kNever;
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  const TestBlock block = MakeBlock(1, 3);
  car[PlaceOf(block.cid.hash().digest, car)] ^= 1;
  WriteBytes(dir.File("k.car"), car);
  const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
  Block out;
  CHECK_CODE(accessor.NewBlockstore()->Get(block.cid.view(), out), kDataLoss);
}

TEST_CASE("store: a block that stands twice is served while one of the two is sound") {
  const TempDir dir;
  const TestBlock block = MakeBlock(1, 0);
  const Bytes car = CarOf(std::vector{block, block});
  WriteBytes(dir.File("k.car"), car);
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  const size_t first = PlaceOf(block.data, car);
  const size_t second = first + 1 + PlaceOf(block.data, Span(car).subspan(first + 1));
  for (const size_t damaged : {first, second}) {
    CAPTURE(damaged);
    Bytes changed = car;
    changed[damaged] ^= 1;
    WriteBytes(dir.File("k.car"), changed);
    const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
    Block out;
    REQUIRE_STATUS_OK(accessor.NewBlockstore()->Get(block.cid.view(), out));
    CHECK(SameBytes(out.data(), block.data));
  }
}

TEST_CASE("store: a source that changed is refused when it is opened, not read by the index of what it was") {
  const TempDir dir;
  const std::string car = dir.File("k.car");
  WriteBytes(car, MakeCar(1, 8));
  const Options options = StoreOptions(dir.File("repo"));
  {
    const auto store = ValueOf(DagStore::Open(options));
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, car)));
    REQUIRE_STATUS_OK(store->Close());
  }
  WriteBytes(car, MakeCar(2, 9));
  const auto store = ValueOf(DagStore::Open(options));
  CHECK_CODE(store->AcquireShardSync("k").status(), kFailedPrecondition);
}

}  // namespace
}  // namespace dagstore
