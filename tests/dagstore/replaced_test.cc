// What a shard leaves in the database when it goes or is replaced, and a source that is replaced under it: gaps that
// mutants found, because no test noticed them.
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
