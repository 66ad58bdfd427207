// Blocks that are looked at where they lie.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "dagstore/indexed_blockstore.h"
#include "mount/bytes_mount.h"
#include "tests/dagstore/store_testing.h"
#include "tests/mount/remote_mount.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr uint64_t kBlocks = 40;

// A store with a shard of each kind: "copy" (of ours, of a source without ranges), "bytes", "file" (of the user).
struct World {
  World() {
    options = StoreOptions(dir.File("repo"));
    auto mounts = std::make_shared<MountRegistry>(DefaultMounts(FileMountConfig()));
    REQUIRE_STATUS_OK(mounts->Register("remote", [this](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
      return std::make_unique<RemoteMount>(source, url);
    }));
    options.mounts = mounts;
    source.content = MakeCar(1, kBlocks);
    store = ValueOf(DagStore::Open(options));
    REQUIRE_STATUS_OK(store->RegisterShardSync("copy", MountOfUrl(*store, "remote://host/a.car")));
    REQUIRE_STATUS_OK(store->RegisterShardSync("bytes", ValueOf(NewBytesMount(MakeCar(2, kBlocks)))));
    WriteBytes(dir.File("user.car"), Span(MakeCar(3, kBlocks)));
    REQUIRE_STATUS_OK(store->RegisterShardSync("file", MountOfUrl(*store, "file://" + dir.File("user.car"))));
  }
  // The only copy there is.
  std::string CopyPath() const {
    std::string found;
    for (const auto& entry : std::filesystem::directory_iterator(options.dir + "/transients")) {
      if (entry.path().extension() == ".car") found = entry.path().string();
    }
    REQUIRE_FALSE(found.empty());
    return found;
  }

  TempDir dir;
  RemoteSource source;
  Options options;
  std::unique_ptr<DagStore> store;
};

TEST_CASE("block view: shows what lies in memory of ours, and copies what lies in a user's file") {
  World world;
  const struct {
    const char* key;
    uint64_t seed;
    bool copied;
  } kinds[] = {{"copy", 1, false}, {"bytes", 2, false}, {"file", 3, true}};
  const IndexedBlockstore all(*world.store);
  BlockView view;  // one object for all
  for (const auto& kind : kinds) {
    CAPTURE(kind.key);
    const Accessor accessor = ValueOf(world.store->AcquireShardSync(kind.key));
    const auto one = accessor.NewBlockstore();
    for (uint64_t i = 0; i < kBlocks; ++i) {
      const TestBlock want = MakeBlock(kind.seed, i);
      for (const Blockstore* blocks : std::initializer_list<const Blockstore*>{one.get(), &all}) {
        REQUIRE_STATUS_OK(blocks->GetView(want.cid.view(), view));
        REQUIRE(SameBytes(view.data(), want.data));
        REQUIRE_EQ(view.copied(), kind.copied);
      }
    }
    CHECK_CODE(one->GetView(MakeBlock(99, 0).cid.view(), view), kNotFound);
    CHECK(view.data().empty());
  }
  CHECK_CODE(all.GetView(MakeBlock(99, 0).cid.view(), view), kNotFound);
  const Cid identity = ValueOf(Cid::FromText("bafkqaaa"));  // of no bytes
  REQUIRE_STATUS_OK(all.GetView(identity.view(), view));
  CHECK(view.data().empty());
}

TEST_CASE("block view: what is looked at stays, though the shard is destroyed") {
  World world;
  const TestBlock want = MakeBlock(1, 7);
  BlockView view;
  {
    const Accessor accessor = ValueOf(world.store->AcquireShardSync("copy"));
    REQUIRE_STATUS_OK(accessor.NewBlockstore()->GetView(want.cid.view(), view));
  }
  const std::string path = world.CopyPath();
  REQUIRE_STATUS_OK(world.store->DestroyShardSync("copy"));
  CHECK_FALSE(std::filesystem::exists(path));
  REQUIRE_STATUS_OK(world.store->Close());
  world.store.reset();
  CHECK_FALSE(view.copied());
  CHECK(SameBytes(view.data(), want.data));
}

TEST_CASE("block view: bytes that have rotten are not shown, and another shard is asked") {
  World world;
  REQUIRE_STATUS_OK(world.store->RegisterShardSync("again", ValueOf(NewBytesMount(MakeCar(1, kBlocks)))));
  const TestBlock want = MakeBlock(1, 7);
  BlockView view;
  const Accessor accessor = ValueOf(world.store->AcquireShardSync("copy"));
  const auto one = accessor.NewBlockstore();
  REQUIRE_STATUS_OK(one->GetView(want.cid.view(), view));
  view = BlockView();
  {
    const std::string path = world.CopyPath();
    Bytes content = ValueOf(ReadSmallFile(Io::Posix(), path, 1 << 20));
    const auto at = std::search(content.begin(), content.end(), want.data.begin(), want.data.end());
    REQUIRE(at != content.end());
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at - content.begin());
    file.put(static_cast<char>(*at ^ 1));
  }
  CHECK_CODE(one->GetView(want.cid.view(), view), kDataLoss);
  CHECK(view.data().empty());
  const IndexedBlockstore all(*world.store);
  REQUIRE_STATUS_OK(all.GetView(want.cid.view(), view));
  CHECK(SameBytes(view.data(), want.data));
}

TEST_CASE("block view: threads that ask at the same time find the same bytes") {
  World world;
  const Accessor accessor = ValueOf(world.store->AcquireShardSync("copy"));
  const auto blocks = accessor.NewBlockstore();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      BlockView view;
      for (uint64_t i = 0; i < kBlocks; ++i) {
        const TestBlock want = MakeBlock(1, i);
        if (!blocks->GetView(want.cid.view(), view).ok() || !SameBytes(view.data(), want.data)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace dagstore
