#include "dagstore/fsck.h"

#include <thread>

#include "tests/dagstore/store_testing.h"
#include "tests/fakes/fake_kv.h"

namespace dagstore {
namespace {

std::string ProblemsOf(DagStore& store) {
  std::string problems;
  (void)ValueOf(CheckStore(store, WorkContext{}, [&problems](const FsckProblem& problem) {
    problems += fmt::format("{}: {}\n", problem.key.Printable(), ToString(problem.status));
  }));
  return problems;
}

// Found by tools/kill_loop.sh: a start goes on with the destructions that a kill interrupted, and fsck came between the
// removal of an index and the commit that removes its record.
TEST_CASE("fsck: a shard whose destruction waits for a commit is no problem") {
  const TempDir dir;
  WriteBytes(dir.File("k.car"), MakeCar(1, 8));
  Options options = StoreOptions(dir.File("repo"));
  options.inline_index_bytes_max = 0;  // a file, gone before the commit
  FakeKv* kv = nullptr;
  options.kv_wrapper = FakeKv::Wrapper(&kv);
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  kv->Hold();
  const Channel<ShardResult> results(1);
  REQUIRE_STATUS_OK(store->DestroyShard("k", results).status());
  kv->WaitUntilWaiting(1);  // hidden from lookups, and not yet durable
  CHECK_EQ(ProblemsOf(*store), "");
  kv->Release(1);
  while (store->GetShardInfo("k").ok()) std::this_thread::yield();  // its index is gone, its record is not
  CHECK_EQ(ProblemsOf(*store), "");

  kv->ReleaseAll();
  CHECK_STATUS_OK(results.Receive().status);
  CHECK_EQ(ValueOf(CheckStore(*store, WorkContext{}, [](const FsckProblem&) {})).shards, 0);
}

// fsck asked for their destruction again, one after the other.
TEST_CASE("fsck: a shard that is registered again while others are still being destroyed is not destroyed with them") {
  const TempDir dir;
  WriteBytes(dir.File("k.car"), MakeCar(1, 8));
  FakeKv* kv = nullptr;
  Options options = StoreOptions(dir.File("repo"));
  options.kv_wrapper = FakeKv::Wrapper(&kv);
  const auto store = ValueOf(DagStore::Open(options));
  for (const char* key : {"a", "b"}) {
    REQUIRE_STATUS_OK(store->RegisterShardSync(key, MountOfFile(*store, dir.File("k.car"))));
  }
  // Fsck has read that both are being destroyed when it comes to `a`, the first.
  KvBatch marks;
  marks.Put(KvTable::kDestroying, "a", {});
  marks.Put(KvTable::kDestroying, "b", {});
  REQUIRE_STATUS_OK(kv->Commit(marks, /*sync=*/true));
  (void)ProblemsOf(*store);
  CHECK_EQ(ValueOf(store->GetShardInfo("a")).state, ShardState::kAvailable);
  CHECK_EQ(ValueOf(store->GetShardInfo("b")).state, ShardState::kAvailable);
}

}  // namespace
}  // namespace dagstore
