// The store as a caller sees it: real files, real database, real threads.
#include <algorithm>
#include <filesystem>
#include <set>

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

TEST_CASE("store: the shards of a popular block come in pages, while shards come and go between them") {
  const auto store = ValueOf(DagStore::Open(TestOptions("")));
  const Cid root = ValueOf(Cid::FromText("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"));
  constexpr int kShards = 150;
  for (int i = 0; i < kShards; ++i) {
    REQUIRE_STATUS_OK(
        store->RegisterShardSync(fmt::format("s{:03}", i), MountOf(*store, TestDataPath("boxo/hello.car"))));
  }
  const auto all = ValueOf(store->ShardsContainingMultihash(root.hash()));
  REQUIRE_EQ(all.size(), kShards);
  CHECK(std::is_sorted(all.begin(), all.end()));
  CHECK_EQ(ValueOf(store->ShardsContainingMultihash(root.hash(), 0)).size(), 0);
  CHECK_EQ(ValueOf(store->ShardsContainingMultihash(root.hash(), 7)).size(), 7);
  for (const bool with_roots : {false, true}) {
    for (const size_t page_size : {1, 7, 64, 150, 1000}) {
      CAPTURE(page_size);
      FindShardsOptions find;
      find.shards_max = page_size;
      std::set<std::string> seen;
      int pages = 0;
      do {
        const ShardHoldersPage page = ValueOf(with_roots ? store->FindShards(root, find)
                                                         : store->ShardsContainingMultihashPage(root.hash(), find));
        CHECK_LE(page.shards.size(), page_size);
        for (const ShardHolder& holder : page.shards) {
          CHECK(holder.block);
          CHECK_EQ(holder.root, with_roots);
          CHECK(seen.insert(holder.key.bytes()).second);
        }
        find.after = page.next_after;
        ++pages;
      } while (find.after != 0);
      CHECK_EQ(seen.size(), kShards);
      CHECK_LE(pages, kShards / static_cast<int>(page_size) + 1);
    }
  }
  FindShardsOptions find;
  find.shards_max = 50;
  const ShardHoldersPage first = ValueOf(store->FindShards(root, find));
  REQUIRE_EQ(first.shards.size(), 50);
  for (const char* key : {"s010", "s060", "s149"}) REQUIRE_STATUS_OK(store->DestroyShardSync(key));
  REQUIRE_STATUS_OK(store->RegisterShardSync("new", MountOf(*store, TestDataPath("boxo/hello.car"))));
  std::set<std::string> later;
  for (find.after = first.next_after; find.after != 0;) {
    const ShardHoldersPage page = ValueOf(store->FindShards(root, find));
    for (const ShardHolder& holder : page.shards) later.insert(holder.key.bytes());
    find.after = page.next_after;
  }
  CHECK_EQ(later.size(), kShards - 50 - 2 + 1);
  CHECK_FALSE(later.contains("s060"));
  CHECK(later.contains("new"));
  find = {};
  find.shards_max = 0;
  CHECK_CODE(store->FindShards(root, find), kInvalidArgument);

  // A reader is given as many as it asked for, though some are gone.
  IndexedBlockstoreOptions few;
  few.candidates_max = 2;
  std::vector<ShardCandidate> asked;
  few.selector = [&](const CidView&, std::vector<ShardCandidate>& candidates) { asked = candidates; };
  const IndexedBlockstore blocks(*store, few);
  CHECK(ValueOf(blocks.Has(root.view())));
  CHECK_EQ(asked.size(), 2);
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
