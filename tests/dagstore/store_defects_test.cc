// The defects of the Go original that show only in the whole store, by their row in docs/testing.md. The others have
// their tests beside the module that they are about.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <stdexcept>

#include "dagstore/indexed_blockstore.h"
#include "tests/dagstore/store_testing.h"
#include "tests/fakes/fake_kv.h"
#include "tests/mount/remote_mount.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

std::set<std::string> FilesBelow(const std::string& dir) {
  std::set<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) out.insert(entry.path().lexically_relative(dir).string());
  }
  return out;
}

size_t OpenDescriptors() {
  size_t n = 0;
  DIR* dir = opendir("/proc/self/fd");
  REQUIRE(dir != nullptr);
  while (readdir(dir) != nullptr) ++n;
  closedir(dir);
  return n;
}

// A store with one remote source beside the local mounts.
struct RemoteStore {
  explicit RemoteStore(const std::string& dir) : options(StoreOptions(dir)) {
    MountRegistry mounts = DefaultMounts(FileMountConfig());
    REQUIRE_STATUS_OK(mounts.Register("remote", RemoteMountFactory(source)));
    options.mounts = std::make_shared<const MountRegistry>(std::move(mounts));
  }
  std::unique_ptr<DagStore> Open() const { return ValueOf(DagStore::Open(options)); }

  RemoteSource source;
  Options options;
};
constexpr char kRemoteUrl[] = "remote://me:CANARY@host/a.car?sig=CANARY";

TEST_CASE(
    "store: row 12: a shard in use keeps its local copy, whatever its state; an idle one gives it up and fetches "
    "again") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  const auto store = world.Open();
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  {
    const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
    CHECK_EQ(ValueOf(store->Gc()).copies_removed, 0);
    accessor.ReportDamage(DataLoss("all of it"), Damage::kShard);
    CHECK(ValueOf(store->GetShardInfo("k")).state == ShardState::kErrored);
    CHECK_EQ(ValueOf(store->Gc()).copies_removed, 0);
    CHECK_EQ(FilesBelow(dir.File("repo/transients")).size(), 1);
  }
  REQUIRE_STATUS_OK(store->RecoverShardSync("k"));
  const int opens = world.source.opens;
  const GcResult gc = ValueOf(store->Gc());
  CHECK_EQ(gc.copies_removed, 1);
  CHECK_EQ(gc.bytes_removed, world.source.content.size());
  CHECK_EQ(FilesBelow(dir.File("repo/transients")).size(), 0);
  CHECK_EQ(ValueOf(store->GetShardInfo("k")).copy_bytes, 0);
  CheckServes(*store, "k", 1, 20);
  CHECK_EQ(world.source.opens, opens + 1);
}

TEST_CASE(
    "store: row 17: destroying a shard removes its index, postings and roots; registering the key again indexes the "
    "new content") {
  const TempDir dir;
  for (const size_t inline_bytes_max : {size_t{0}, size_t{64} << 10}) {
    CAPTURE(inline_bytes_max);
    const std::string name = inline_bytes_max == 0 ? "files" : "values";
    RemoteStore world(dir.File(name));
    world.options.inline_index_bytes_max = inline_bytes_max;
    world.source.content = MakeCar(1, 30);
    const auto store = world.Open();
    const std::set<std::string> empty_indexes = FilesBelow(dir.File(name + "/indexes"));
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
    CheckServes(*store, "k", 1, 30);
    REQUIRE_STATUS_OK(store->DestroyShardSync("k"));
    CHECK(FilesBelow(dir.File(name + "/transients")).empty());
    (void)ValueOf(store->lookup().indexes->EmptyTrash());  // which a thread of its own does when it comes to it
    CHECK(FilesBelow(dir.File(name + "/indexes")) == empty_indexes);
    CHECK_EQ(ValueOf(store->ShardsContainingMultihash(MakeBlock(1, 3).cid.hash())).size(), 0);
    CHECK_EQ(ValueOf(store->ShardsWithRoot(MakeBlock(1, 0).cid)).size(), 0);

    world.source.content = MakeCar(2, 25);  // the same URL has other content now
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
    CheckServes(*store, "k", 2, 25);
    CHECK_EQ(ValueOf(store->GetShardInfo("k")).blocks, 25);
    CHECK_EQ(ValueOf(store->ShardsContainingMultihash(MakeBlock(1, 3).cid.hash())).size(), 0);
    CHECK_EQ(ValueOf(store->ShardsWithRoot(MakeBlock(1, 0).cid)).size(), 0);
    CHECK_EQ(ValueOf(store->ShardsWithRoot(MakeBlock(2, 0).cid)).size(), 1);
  }
}

TEST_CASE("store: rows 25 and 26: nothing is acknowledged that the database did not take, and reads go on") {
  const TempDir dir;
  Options options = StoreOptions(dir.File("repo"));
  FakeKv* kv = nullptr;
  options.kv_wrapper = FakeKv::Wrapper(&kv);
  WriteBytes(dir.File("a.car"), MakeCar(1, 10));
  {
    const auto store = ValueOf(DagStore::Open(options));
    REQUIRE_STATUS_OK(store->RegisterShardSync("a", MountOfFile(*store, dir.File("a.car"))));
    kv->FailCommit(1, Unavailable("no disk"));
    CHECK_CODE(store->RegisterShardSync("b", MountOfFile(*store, dir.File("a.car"))), kUnavailable);
    CHECK_CODE(store->DestroyShardSync("a"), kUnavailable);
    CHECK_CODE(store->RegisterShardSync("c", MountOfFile(*store, dir.File("a.car"))), kUnavailable);
    CheckServes(*store, "a", 1, 10);
    CHECK_CODE(ValueOf(store->Stats()).engine.store_error, kUnavailable);
    CHECK_CODE(store->Close(), kUnavailable);
  }
  options.kv_wrapper = nullptr;
  const auto store = ValueOf(DagStore::Open(options));
  CheckServes(*store, "a", 1, 10);
  CHECK_CODE(store->GetShardInfo("b"), kNotFound);
  CHECK_CODE(store->GetShardInfo("c"), kNotFound);
}

TEST_CASE("store: row 27: a record that cannot be decoded is set aside and listed, and nothing of its shard is swept") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.options.inline_index_bytes_max = 0;
  world.source.content = MakeCar(1, 20);
  {
    const auto store = world.Open();
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
    REQUIRE_STATUS_OK(store->RegisterShardSync("l", MountOfUrl(*store, kRemoteUrl)));
  }
  std::string damaged;
  {
    const auto kv = ValueOf(OpenRocksKv(dir.File("repo/db"), RocksKvOptions()));
    damaged = *ValueOf(kv->Get(KvTable::kRecords, "k"));
    damaged[20] = static_cast<char>(damaged[20] ^ 1);
    KvBatch batch;
    batch.Put(KvTable::kRecords, "k", damaged);
    REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/true));
  }
  const auto copies = FilesBelow(dir.File("repo/transients"));
  const auto indexes = FilesBelow(dir.File("repo/indexes"));
  REQUIRE_EQ(copies.size(), 2);
  for (int life = 0; life < 2; ++life) {
    CAPTURE(life);
    const auto store = world.Open();
    CHECK_CODE(store->GetShardInfo("k"), kNotFound);
    CheckServes(*store, "l", 1, 20);
    const auto listed = ValueOf(store->ListQuarantined());
    REQUIRE_EQ(listed.size(), 1);
    CHECK_EQ(listed[0].key, "k");
    CHECK(listed[0].reason.find("checksum") != std::string::npos);
    (void)ValueOf(store->Gc({.copy_bytes_target = UINT64_MAX}));
    CHECK(FilesBelow(dir.File("repo/transients")) == copies);
    CHECK(FilesBelow(dir.File("repo/indexes")) == indexes);
    CHECK(*ValueOf(store->lookup().kv->Get(KvTable::kQuarantine, "k")) == damaged);
  }
  // Given up, it owns nothing any more.
  const auto store = world.Open();
  CHECK_CODE(store->DropQuarantined("l"), kNotFound);
  REQUIRE_STATUS_OK(store->DropQuarantined("k"));
  CHECK_CODE(store->DropQuarantined("k"), kNotFound);
  CHECK(ValueOf(store->ListQuarantined()).empty());
  CHECK_EQ(ValueOf(store->Stats()).quarantined, 0);
  CHECK(ValueOf(store->Gc({.copy_bytes_target = UINT64_MAX})).orphans_removed > 0);
  CHECK_EQ(FilesBelow(dir.File("repo/transients")).size(), 1);
  CheckServes(*store, "l", 1, 20);
}

TEST_CASE("store: row 27: a record that was set aside comes back, with all of its shard, once it can be read") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 20));
  std::string record;
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("a.car"))));
    REQUIRE_STATUS_OK(store->RegisterShardSync("again", MountOfFile(*store, dir.File("a.car"))));
  }
  {
    const auto kv = ValueOf(OpenRocksKv(dir.File("repo/db"), RocksKvOptions()));
    KvBatch batch;
    for (const char* key : {"k", "again"}) {  // as an older program leaves them that could not read them
      record = *ValueOf(kv->Get(KvTable::kRecords, key));
      batch.Put(KvTable::kQuarantine, key, record);
    }
    batch.Delete(KvTable::kRecords, "k");
    REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/true));
  }
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  REQUIRE_STATUS_OK(store->AwaitLookups());
  CheckServes(*store, "k", 1, 20);
  CheckServes(*store, "again", 1, 20);
  const auto listed = ValueOf(store->ListQuarantined());  // that key was registered again: it stays as evidence
  REQUIRE_EQ(listed.size(), 1);
  CHECK_EQ(listed[0].key, "again");
  CHECK(listed[0].reason.find("registered again") != std::string::npos);
  CHECK_EQ(ValueOf(store->Stats()).quarantined, 1);
}

TEST_CASE(
    "store: a key registered again after its half-destroyed record was set aside is not destroyed at the next start") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 5));
  { (void)ValueOf(DagStore::Open(StoreOptions(dir.File("repo")))); }
  {
    const auto kv = ValueOf(OpenRocksKv(dir.File("repo/db"), RocksKvOptions()));
    KvBatch batch;
    batch.Put(KvTable::kRecords, "k", "torn");
    batch.Put(KvTable::kDestroying, "k", "");
    REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/true));
  }
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
    CHECK_EQ(ValueOf(store->ListQuarantined()).size(), 1);
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("a.car"))));
  }
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  CheckServes(*store, "k", 1, 5);
}

TEST_CASE("store: row 47: a repository where others may write is refused") {
  const TempDir dir;
  const std::string repo = dir.File("repo");
  REQUIRE_EQ(::mkdir(repo.c_str(), 0755), 0);
  for (const mode_t mode : {0775, 0757, 01777}) {
    CAPTURE(mode);
    REQUIRE_EQ(::chmod(repo.c_str(), mode), 0);
    CHECK_CODE(DagStore::Open(StoreOptions(repo)).status(), kFailedPrecondition);
    CHECK(FilesBelow(repo).empty());
  }
  REQUIRE_EQ(::chmod(repo.c_str(), 0755), 0);
  CHECK_STATUS_OK(DagStore::Open(StoreOptions(repo)).status());
}

TEST_CASE("store: row 28: a repository under another spelling of its path, with strangers inside, loses nothing") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  {
    const auto store = world.Open();
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  }
  const auto copies = FilesBelow(dir.File("repo/transients"));
  for (const char* place :
       {"repo/transients/foreign.car", "repo/transients/k", "repo/indexes/notes.txt", "repo/top/x"}) {
    WriteBytes(dir.File(place), AsSpan("not ours"));
  }
  fs::create_directory_symlink(dir.File("repo"), dir.File("link"));
  for (const std::string& spelling : {dir.File("link"), dir.File("./repo/"), dir.File("repo/../repo")}) {
    CAPTURE(spelling);
    world.options.dir = spelling;
    world.source.exists = false;  // the copy is the only one
    const auto store = world.Open();
    (void)ValueOf(store->Gc({.copy_bytes_target = UINT64_MAX}));
    CheckServes(*store, "k", 1, 20);
  }
  for (const char* place :
       {"repo/transients/foreign.car", "repo/transients/k", "repo/indexes/notes.txt", "repo/top/x"}) {
    CHECK(fs::exists(dir.File(place)));
  }
  for (const std::string& copy : copies) CHECK(fs::exists(dir.File("repo/transients/" + copy)));

  fs::rename(dir.File("repo"), dir.File("moved"));
  world.options.dir = dir.File("moved");
  CheckServes(*world.Open(), "k", 1, 20);
}

TEST_CASE("store: row 33: closing answers all that was accepted, and it is there afterwards") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 5));
  constexpr int kShards = 50;
  const Channel<ShardResult> out(kShards);
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
    for (int i = 0; i < kShards; ++i) {
      REQUIRE_STATUS_OK(store->RegisterShard(std::to_string(i), MountOfFile(*store, dir.File("a.car")), out));
    }
    REQUIRE_STATUS_OK(store->Close());
    CHECK_STATUS_OK(store->Close());
    CHECK_CODE(store->GetShardInfo("0"), kFailedPrecondition);
  }
  for (int i = 0; i < kShards; ++i) {
    const auto result = out.TryReceive();
    REQUIRE(result.has_value());
    CHECK_STATUS_OK(result->status);
  }
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  CHECK_EQ(ValueOf(store->ListShards({.state = ShardState::kAvailable})).shards.size(), kShards);
}

TEST_CASE("store: row 34: closing stops jobs past its grace, and nothing is written after it returned") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 5));
  Options options = StoreOptions(dir.File("repo"));
  options.close_grace = absl::ZeroDuration();
  std::atomic<int> running{0};
  options.indexer = [&running](const RandomReader&, const IndexBuildOptions&, const IndexOutput&,
                               const WorkContext& work) -> absl::StatusOr<BuiltIndex> {
    running.fetch_add(1);
    while (work.Check().ok()) std::this_thread::yield();
    running.fetch_sub(1);
    return work.Check();
  };
  const Channel<ShardResult> out(1);
  {
    const auto store = ValueOf(DagStore::Open(options));
    REQUIRE_STATUS_OK(store->RegisterShard("k", MountOfFile(*store, dir.File("a.car")), out));
    while (running.load() == 0) std::this_thread::yield();
    REQUIRE_STATUS_OK(store->Close());
    CHECK_EQ(running.load(), 0);
    CHECK_CODE(out.TryReceive()->status, kCancelled);
  }
  options.indexer = nullptr;
  const auto store = ValueOf(DagStore::Open(options));  // goes on with it by itself
  CheckServes(*store, "k", 1, 5);
}

TEST_CASE("store: row 35: a start that was interrupted at any file operation is finished by the next") {
  // A repository whose marker, or database, or folders are not there yet.
  for (const char* missing : {"DAGSTORE", "indexes", "top", "transients"}) {
    CAPTURE(missing);
    const TempDir dir;
    { (void)ValueOf(DagStore::Open(StoreOptions(dir.File("repo")))); }
    fs::remove_all(dir.File(std::string("repo/") + missing));
    if (std::string(missing) == "DAGSTORE") WriteBytes(dir.File("repo/DAGSTORE.123.tmp"), AsSpan("dagst"));
    CHECK_STATUS_OK(DagStore::Open(StoreOptions(dir.File("repo"))));
    CHECK(fs::file_size(dir.File("repo/DAGSTORE")) > 0);
  }
  // One that is not ours, or not whole, is left alone.
  const TempDir dir;
  fs::create_directory(dir.File("home"));
  WriteBytes(dir.File("home/thesis.tex"), AsSpan("x"));
  CHECK_CODE(DagStore::Open(StoreOptions(dir.File("home"))), kFailedPrecondition);
  CHECK(FilesBelow(dir.File("home")) == std::set<std::string>{"thesis.tex"});
  { (void)ValueOf(DagStore::Open(StoreOptions(dir.File("repo")))); }
  WriteBytes(dir.File("repo/DAGSTORE"), AsSpan(""));
  CHECK_CODE(DagStore::Open(StoreOptions(dir.File("repo"))), kFailedPrecondition);
}

TEST_CASE("store: the temporary of a marker that a crash left behind is swept, in a whole repository too") {
  const TempDir dir;
  { (void)ValueOf(DagStore::Open(StoreOptions(dir.File("repo")))); }
  WriteBytes(dir.File("repo/DAGSTORE.123.tmp"), AsSpan("dagst"));
  WriteBytes(dir.File("repo/DAGSTORE.txt"), AsSpan("of the user"));
  { (void)ValueOf(DagStore::Open(StoreOptions(dir.File("repo")))); }
  CHECK_FALSE(fs::exists(dir.File("repo/DAGSTORE.123.tmp")));
  CHECK(fs::exists(dir.File("repo/DAGSTORE.txt")));
}

TEST_CASE("store: info of a shard whose record cannot be read is an error, not that of an empty shard") {
  const TempDir dir;
  WriteBytes(dir.File("k.car"), MakeCar(1, 8));
  Options options = StoreOptions(dir.File("repo"));
  FakeKv* kv = nullptr;
  options.kv_wrapper = FakeKv::Wrapper(&kv);
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
  kv->FailGets(Unavailable("the disk stalls"));
  CHECK_CODE(store->GetShardInfo("k"), kUnavailable);
  kv->FailGets(absl::OkStatus());
  CHECK_EQ(ValueOf(store->GetShardInfo("k")).blocks, 8);
}

TEST_CASE("store: rows 36 and 37: an address survives restarts, whatever bytes it has and whatever stat says") {
  const TempDir dir;
  const std::string names[] = {"plain.car",   "with space.car", "per%2Fcent.car",
                               "q?x=1#y.car", "\xff\xfe.car",   "a&b=c;d.car"};
  uint64_t seed = 1;
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
    for (const std::string& name : names) {
      WriteBytes(dir.File(name), MakeCar(seed, 3));
      REQUIRE_STATUS_OK(store->RegisterShardSync(name, MountOfFile(*store, dir.File(name))));
      ++seed;
    }
    REQUIRE_STATUS_OK(store->RegisterShardSync(
        "inline", MountOfUrl(*store, "bytes:" + EncodeBase(Base::kBase64Url, MakeCar(99, 3)))));
  }
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  seed = 1;
  for (const std::string& name : names) CheckServes(*store, name, seed++, 3);
  CheckServes(*store, "inline", 99, 3);
  // A source that cannot be looked at now is still known afterwards.
  fs::rename(dir.File("plain.car"), dir.File("away"));
  fs::create_directory(dir.File("plain.car"));
  CHECK_FALSE(store->RecoverShardSync("plain.car").ok());
  const std::string url = ValueOf(store->GetShardInfo("plain.car")).url;
  CHECK(url.find("plain.car") != std::string::npos);
}

TEST_CASE("store: rows 38 and 45: keys of any bytes are themselves, and none is a path") {
  const TempDir dir;
  const std::string keys[] = {"a/b", "a//b", "a/./b", "../../evil", "/etc/evil", std::string("z\0", 2),
                              "z",   "..",   "\n"};
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("a/b/repo"))));
    RemoteSource unused;
    for (size_t i = 0; i < std::size(keys); ++i) {
      WriteBytes(dir.File(std::to_string(i)), MakeCar(i, 2));
      REQUIRE_STATUS_OK(store->RegisterShardSync(keys[i], MountOfFile(*store, dir.File(std::to_string(i)))));
    }
  }
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("a/b/repo"))));
  CHECK_EQ(ValueOf(store->ListShards()).shards.size(), std::size(keys));
  for (size_t i = 0; i < std::size(keys); ++i) CheckServes(*store, keys[i], i, 2);
  REQUIRE_STATUS_OK(store->DestroyShardSync("a//b"));
  CheckServes(*store, "a/b", 0, 2);
  for (const std::string& file : FilesBelow(dir.path())) CHECK(file.find("evil") == std::string::npos);
}

TEST_CASE("store: rows 39 and 41: stopped acquires and many blockstores leave no descriptor and no reference") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 20));
  Options options = StoreOptions(dir.File("repo"));
  options.open_shards_max = 0;
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("a.car"))));
  { const Accessor warm = ValueOf(store->AcquireShardSync("k")); }
  const size_t before = OpenDescriptors();
  for (int i = 0; i < 200; ++i) {
    const Channel<ShardResult> out(1);
    const Ticket ticket = ValueOf(store->AcquireShard("k", out));
    REQUIRE_STATUS_OK(store->Stop(ticket));
    if (i % 2 == 0) (void)out.Receive();  // the others are abandoned
  }
  {
    const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
    std::vector<std::unique_ptr<Blockstore>> blockstores;
    for (int i = 0; i < 100; ++i) blockstores.push_back(accessor.NewBlockstore());
    CHECK(OpenDescriptors() <= before + 8);
  }
  REQUIRE_STATUS_OK(store->DestroyShardSync("k"));  // nobody holds it
  REQUIRE_STATUS_OK(store->Close());
  CHECK(OpenDescriptors() <= before);
}

TEST_CASE("store: row 40: a cache that evicts closes nothing under a reader, and errors are not hidden") {
  const TempDir dir;
  auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  for (uint64_t i = 0; i < 4; ++i) {
    WriteBytes(dir.File(std::to_string(i)), MakeCar(i, 50));
    REQUIRE_STATUS_OK(store->RegisterShardSync(std::to_string(i), MountOfFile(*store, dir.File(std::to_string(i)))));
  }
  IndexedBlockstoreOptions small;
  small.accessors_max = 1;
  std::optional<IndexedBlockstore> kept(std::in_place, *store, small);
  const IndexedBlockstore& blocks = *kept;
  std::atomic<int> bad{0};
  std::vector<std::thread> readers;
  for (uint64_t reader = 0; reader < 4; ++reader) {
    readers.emplace_back([&, reader] {
      Block block;
      for (uint64_t i = 0; i < 200; ++i) {
        const TestBlock want = MakeBlock((reader + i) % 4, i % 50);
        if (!blocks.Get(want.cid.view(), block).ok() || !SameBytes(block.data(), want.data)) bad.fetch_add(1);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  CHECK_EQ(bad.load(), 0);
  CHECK(blocks.Stats().evictions > 0);
  kept.reset();
  // A shard whose index is damaged is an error, not an absence.
  const ShardRecord record = ValueOf(store->lookup().ReadRecord("0"));
  KvBatch batch;
  batch.Put(KvTable::kIndexes, IndexKey(record.ordinal), "torn");
  store.reset();
  {
    const auto kv = ValueOf(OpenRocksKv(dir.File("repo/db"), RocksKvOptions()));
    REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/true));
  }
  const auto again = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  const absl::StatusOr<bool> has = IndexedBlockstore(*again).Has(MakeBlock(0, 0).cid.view());
  CHECK((!has.ok() || *has));
}

TEST_CASE("store: row 44: sources and folders that cannot be looked at are errors, not crashes") {
  const TempDir dir;
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  WriteBytes(dir.File("file"), AsSpan("x"));
  CHECK_FALSE(store->RegisterShardSync("below a file", MountOfFile(*store, dir.File("file/x.car"))).ok());
  CHECK_FALSE(store->RegisterShardSync("folder", MountOfFile(*store, dir.path())).ok());
  CHECK_CODE(store->RegisterShardSync("absent", MountOfFile(*store, dir.File("absent.car"))), kFailedPrecondition);
  CHECK_FALSE(store->RegisterShardSync("long", MountOfFile(*store, dir.File(std::string(300, 'x')))).ok());
  fs::remove_all(dir.File("repo/indexes"));
  fs::remove_all(dir.File("repo/transients"));
  (void)store->Gc();
  CHECK_STATUS_OK(store->Stats());
  CHECK_EQ(ValueOf(store->ListShards({.state = ShardState::kErrored})).shards.size(), 4);
}

TEST_CASE(
    "store: row 46: a copy that the user gave is read, and neither destroy, recover nor gc removes or changes it") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  WriteBytes(dir.File("mine.car"), world.source.content);
  // Inside the folder of copies, too: whose it is does not follow from where it is.
  const auto store = world.Open();
  WriteBytes(dir.File("repo/transients/mine.car"), world.source.content);
  for (const std::string& path : {dir.File("mine.car"), dir.File("repo/transients/mine.car")}) {
    CAPTURE(path);
    RegisterOptions options;
    options.existing_transient = path;
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl), options));
    CHECK_EQ(world.source.opens, 0);
    CheckServes(*store, "k", 1, 20);
    CHECK_EQ(ValueOf(store->Gc()).copies_removed, 0);
    REQUIRE_STATUS_OK(store->DestroyShardSync("k"));
    CHECK(fs::exists(path));
    CHECK_EQ(fs::file_size(path), world.source.content.size());
  }
}

TEST_CASE("store: row 47: the repository is its owner's alone, and a planted link is not written through") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.options.inline_index_bytes_max = 0;
  world.source.content = MakeCar(1, 20);
  WriteBytes(dir.File("victim"), AsSpan("precious"));
  { (void)world.Open(); }
  const std::string stem = ShardKey("k").FileStem();
  for (uint64_t generation = 0; generation < 10; ++generation) {
    fs::create_symlink(dir.File("victim"), dir.File(fmt::format("repo/transients/{}.{}.car", stem, generation)));
    fs::create_symlink(dir.File("victim"), dir.File(fmt::format("repo/indexes/{:08x}.idx", generation)));
  }
  const auto store = world.Open();
  (void)store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl));
  CHECK(SameBytes(ReadSmallFile(Io::Posix(), dir.File("victim"), 100).value(), AsSpan("precious")));
  for (const auto& entry : fs::recursive_directory_iterator(dir.File("repo"))) {
    if (entry.is_symlink()) continue;
    // The database keeps to the umask; its folder is closed.
    if (entry.path().string().find("/db/") != std::string::npos) continue;
    CAPTURE(entry.path().string());
    CHECK((entry.status().permissions() & (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none);
  }
}

TEST_CASE("store: row 48: no secret of a URL is in errors, listings or the failure log") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  const auto store = world.Open();
  const auto failures = store->SubscribeFailures();
  world.source.stat_error = Unavailable("the server is down");
  std::string said = ToString(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  world.source.stat_error = absl::OkStatus();
  world.source.content = Bytes(100, 0xff);
  said += ToString(store->RecoverShardSync("k"));
  world.source.exists = false;
  said += ToString(store->RecoverShardSync("k"));
  said += ToString(store->AcquireShardSync("k").status());
  for (const FailureEvent& event : store->FailureLog()) said += ToString(event.status);
  for (const ShardInfo& info : ValueOf(store->ListShards()).shards) said += info.url + ToString(info.error);
  CHECK(said.find("remote://") != std::string::npos);
  CHECK_MESSAGE(said.find("CANARY") == std::string::npos, said);
}

TEST_CASE("store: row 49: the index that comes inside a foreign CARv2 is not taken at its word") {
  const TempDir dir;
  // The offsets of the embedded index are moved; the payload stays sound.
  Bytes car = ReadTestData("go-car/sample-wrapped-v2.car");
  const uint64_t index_offset = Load64(car.data() + 43);
  REQUIRE(index_offset < car.size());
  for (size_t at = index_offset + 64; at + 1 < car.size(); at += 40) car[at] ^= 0x55;
  WriteBytes(dir.File("liar.car"), car);
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  const absl::Status registered = store->RegisterShardSync("k", MountOfFile(*store, dir.File("liar.car")));
  REQUIRE_STATUS_OK(registered);
  const Cid cid = ValueOf(Cid::FromText("bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw"));
  const Accessor accessor = ValueOf(store->AcquireShardSync("k"));
  Block block;
  REQUIRE_STATUS_OK(accessor.NewBlockstore()->Get(cid.view(), block));
  CHECK(SameBytes(block.data(),
                  ReadTestData("go-car/bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw.block")));
}

TEST_CASE("store: row 50: bytes that do not match their CID are not served; a sound shard is asked instead") {
  const TempDir dir;
  const Bytes car = MakeCar(1, 10);
  WriteBytes(dir.File("a.car"), car);
  WriteBytes(dir.File("b.car"), car);
  const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
  REQUIRE_STATUS_OK(store->RegisterShardSync("a", MountOfFile(*store, dir.File("a.car"))));
  REQUIRE_STATUS_OK(store->RegisterShardSync("b", MountOfFile(*store, dir.File("b.car"))));
  Bytes rotten = car;
  rotten.back() ^= 1;  // of the last block
  WriteBytes(dir.File("a.car"), rotten);
  const TestBlock last = MakeBlock(1, 9);
  Block block;
  {
    const Accessor accessor = ValueOf(store->AcquireShardSync("a"));
    const auto blocks = accessor.NewBlockstore();
    CHECK_CODE(blocks->Get(last.cid.view(), block), kDataLoss);
    CHECK_STATUS_OK(blocks->Get(MakeBlock(1, 8).cid.view(), block));
  }
  IndexedBlockstore blocks(*store);
  for (int i = 0; i < 10; ++i) {
    REQUIRE_STATUS_OK(blocks.Get(last.cid.view(), block));
    CHECK(SameBytes(block.data(), last.data));
  }
  CHECK(blocks.Stats().bad_blocks <= 1);  // the liar is asked last afterwards
}

TEST_CASE("store: row 51: an indexer that throws fails its job, not the process") {
  const TempDir dir;
  WriteBytes(dir.File("a.car"), MakeCar(1, 5));
  Options options = StoreOptions(dir.File("repo"));
  int calls = 0;
  options.index_threads = 1;
  options.indexer = [&calls](const RandomReader&, const IndexBuildOptions&, const IndexOutput&,
                             const WorkContext&) -> absl::StatusOr<BuiltIndex> {
    if (++calls == 1) throw std::runtime_error("panic");
    throw 42;
  };
  const auto store = ValueOf(DagStore::Open(options));
  const absl::Status first = store->RegisterShardSync("k", MountOfFile(*store, dir.File("a.car")));
  CHECK_CODE(first, kInternal);
  CHECK(ToString(first).find("panic") != std::string::npos);
  CHECK_CODE(store->RecoverShardSync("k"), kInternal);
  CHECK(ValueOf(store->GetShardInfo("k")).state == ShardState::kErrored);
}

TEST_CASE("store: gc removes copies that a killed process left behind, and only those") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  const std::string stem = ShardKey("k").FileStem();
  {
    const auto store = world.Open();
    REQUIRE_STATUS_OK(store->RegisterShardSync("gone", MountOfUrl(*store, kRemoteUrl)));  // ordinal 1
    REQUIRE_STATUS_OK(store->DestroyShardSync("gone"));
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  }
  const auto living = FilesBelow(dir.File("repo/transients"));
  REQUIRE_EQ(living.size(), 1);
  const std::string left = stem + ".1.car", not_yet = stem + ".4000000000.car", foreign = "x.1.car.bak";
  for (const std::string& name : {left, not_yet, foreign}) {
    WriteBytes(dir.File("repo/transients/" + name), world.source.content);
  }
  const auto store = world.Open();
  CHECK_EQ(ValueOf(store->Gc({.copy_bytes_target = UINT64_MAX})).orphans_removed, 1);
  std::set<std::string> expected = living;
  expected.insert({not_yet, foreign});
  CHECK(FilesBelow(dir.File("repo/transients")) == expected);
  CheckServes(*store, "k", 1, 20);
}

TEST_CASE("store: a shard with a local copy is served while its source cannot be asked") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  {
    const auto store = world.Open();
    REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  }
  world.source.stat_error = Unavailable("the server is down");
  CheckServes(*world.Open(), "k", 1, 20);
}

TEST_CASE("store: a copy that was found damaged is not what the shard recovers from") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  const auto store = world.Open();
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  for (const std::string& copy : FilesBelow(dir.File("repo/transients"))) {
    Bytes rotten = world.source.content;
    rotten.back() ^= 1;
    WriteBytes(dir.File("repo/transients/" + copy), rotten);
  }
  { ValueOf(store->AcquireShardSync("k")).ReportDamage(DataLoss("rot"), Damage::kShard); }
  REQUIRE_STATUS_OK(store->RecoverShardSync("k"));
  CHECK_EQ(world.source.opens, 2);
  CheckServes(*store, "k", 1, 20);
}

TEST_CASE("store: copies that nobody will read again do not pile up") {
  const TempDir dir;
  RemoteStore world(dir.File("repo"));
  world.source.content = MakeCar(1, 20);
  const auto store = world.Open();
  REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfUrl(*store, kRemoteUrl)));
  for (uint64_t i = 2; i < 6; ++i) {
    // The source has changed, and the shard is indexed again.
    world.source.content = MakeCar(i, 20);
    world.source.validator = fmt::format("v{}", i);
    { ValueOf(store->AcquireShardSync("k")).ReportDamage(DataLoss("changed"), Damage::kShard); }
    REQUIRE_STATUS_OK(store->RecoverShardSync("k"));
    CheckServes(*store, "k", i, 20);
  }
  REQUIRE_STATUS_OK(store->Close());
  CHECK_EQ(FilesBelow(dir.File("repo/transients")).size(), 1);
}

}  // namespace
}  // namespace dagstore
