// The store as a caller sees it: real files, real database, real threads.
#include <filesystem>

#include "dagstore/dagstore.h"
#include "dagstore/indexed_blockstore.h"
#include "mount/bytes_mount.h"
#include "mount/file_mount.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

Options TestOptions(const std::string& dir) {
  FileMountConfig files;
  Options options;
  options.dir = dir;
  options.mounts = std::make_shared<const MountRegistry>(DefaultMounts(files));
  return options;
}

std::unique_ptr<Mount> MountOf(const DagStore& store, const std::string& path) {
  Url url;
  url.scheme = "file";
  url.has_authority = true;
  url.path = path;
  return ValueOf(store.mounts().Make(url));
}

TEST_CASE("store: registers a CAR, finds its blocks, serves them verified, and still does after a restart") {
  const TempDir dir;
  const Cid cid = ValueOf(Cid::FromText("bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw"));
  const Bytes expected = ReadTestData("go-car/bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw.block");
  for (int life = 0; life < 3; ++life) {
    CAPTURE(life);
    const auto store = ValueOf(DagStore::Open(TestOptions(dir.File("repo"))));
    if (life == 0) {
      REQUIRE_STATUS_OK(store->RegisterShardSync("one", MountOf(*store, TestDataPath("go-car/sample-v1.car"))));
      REQUIRE_STATUS_OK(store->RegisterShardSync("two", MountOf(*store, TestDataPath("go-car/sample-wrapped-v2.car"))));
      CHECK_CODE(store->RegisterShardSync("one", MountOf(*store, TestDataPath("go-car/sample-v1.car"))),
                 kAlreadyExists);
    }
    const ShardInfo info = ValueOf(store->GetShardInfo("one"));
    CHECK(info.state == ShardState::kAvailable);
    CHECK_EQ(info.blocks, 1049);
    CHECK(info.verified);

    const auto keys = ValueOf(store->ShardsContainingMultihash(cid.hash()));
    REQUIRE_EQ(keys.size(), 2);
    CHECK_EQ(keys[0].bytes(), "one");
    CHECK_EQ(keys[1].bytes(), "two");

    Block block;
    {
      Accessor accessor = ValueOf(store->AcquireShardSync("one"));
      CHECK(ValueOf(store->GetShardInfo("one")).state == ShardState::kServing);
      REQUIRE_STATUS_OK(accessor.NewBlockstore()->Get(cid.view(), block));
      CHECK(SameBytes(block.data(), expected));
      CHECK_CODE(store->DestroyShardSync("one"), kFailedPrecondition);
    }
    CHECK(ValueOf(store->GetShardInfo("one")).state == ShardState::kAvailable);

    IndexedBlockstore blocks(*store);
    Block again;
    REQUIRE_STATUS_OK(blocks.Get(cid.view(), again));
    CHECK(SameBytes(again.data(), expected));
    CHECK_EQ(ValueOf(blocks.GetSize(cid.view())), expected.size());
    blocks.Trim();
    if (life == 2) {
      REQUIRE_STATUS_OK(store->DestroyShardSync("one"));
      CHECK_CODE(store->GetShardInfo("one"), kNotFound);
      CHECK_EQ(ValueOf(store->ShardsContainingMultihash(cid.hash())).size(), 1);
    }
    REQUIRE_STATUS_OK(store->Close());
  }
}

TEST_CASE("store: a lazy shard is indexed by its first acquirer") {
  const auto store = ValueOf(DagStore::Open(TestOptions("")));
  RegisterOptions lazy;
  lazy.lazy = true;
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOf(*store, TestDataPath("boxo/hello.car")), lazy));
  CHECK(ValueOf(store->GetShardInfo("k")).state == ShardState::kNew);
  const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
  CHECK_EQ(accessor.index().summary().entries, 1);
}

TEST_CASE("store: a CAR with bad blocks is Errored with the reason, and recovers when the file is mended") {
  const TempDir dir;
  const std::string path = dir.File("x.car");
  std::filesystem::copy_file(TestDataPath("nft.storage/corrupt.car"), path);
  const auto store = ValueOf(DagStore::Open(TestOptions(dir.File("repo"))));
  CHECK_CODE(store->RegisterShardSync("x", MountOf(*store, path)), kDataLoss);
  const ShardInfo info = ValueOf(store->GetShardInfo("x"));
  CHECK(info.state == ShardState::kErrored);
  CHECK_CODE(info.error, kDataLoss);
  CHECK_CODE(store->AcquireShardSync("x"), kDataLoss);
  CHECK_EQ(store->FailureLog().size(), 1);
  std::filesystem::remove(path);
  std::filesystem::copy_file(TestDataPath("boxo/hello.car"), path);
  REQUIRE_STATUS_OK(store->RecoverShardSync("x"));
  CHECK(ValueOf(store->GetShardInfo("x")).state == ShardState::kAvailable);
}

}  // namespace
}  // namespace dagstore
