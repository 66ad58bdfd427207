// Goal: scrub and fsck find each kind of damage, and say which part is to blame.
// Method: a store on real CARs, in which one thing at a time is broken behind its back.
#include <filesystem>

#include "dagstore/fsck.h"
#include "dagstore/scrub.h"
#include "index/roots.h"
#include "mount/file_mount.h"
#include "shard/car_writer.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

Options OptionsFor(const std::string& dir) {
  Options options;
  options.dir = dir;
  options.mounts = std::make_shared<const MountRegistry>(DefaultMounts(FileMountConfig()));
  options.recover_on_start = RecoverOnStart::kNever;
  return options;
}

void Register(DagStore& store, const std::string& key, const std::string& path) {
  Url url;
  url.scheme = "file";
  url.has_authority = true;
  url.path = path;
  REQUIRE_STATUS_OK(store.RegisterShardSync(key, ValueOf(store.mounts().Make(url))));
}

std::vector<FsckProblem> Problems(DagStore& store) {
  std::vector<FsckProblem> problems;
  const FsckReport report = ValueOf(
      CheckStore(store, WorkContext(), [&](const FsckProblem& p) { problems.push_back(p); }));
  CHECK_EQ(report.problems, problems.size());
  return problems;
}

void CheckOnly(DagStore& store, FsckPart part, const std::string& key) {
  const std::vector<FsckProblem> problems = Problems(store);
  REQUIRE_EQ(problems.size(), 1);
  CHECK_EQ(std::string(FsckPartName(problems[0].part)), FsckPartName(part));
  CHECK_EQ(problems[0].key.bytes(), key);
}

TEST_CASE("scrub: a sound shard is counted to the last block") {
  const auto store = ValueOf(DagStore::Open(OptionsFor("")));
  Register(*store, "s", TestDataPath("go-car/sample-v1.car"));
  const Accessor shard = ValueOf(store->AcquireShardSync("s"));
  uint64_t done = 0, total = 0;
  const ScrubReport report = ValueOf(VerifyShard(shard, WorkContext(), [&](uint64_t d, uint64_t t) {
    CHECK(d >= done);
    done = d;
    total = t;
  }));
  CHECK(report.sound());
  CHECK_EQ(report.blocks, 1049);
  CHECK_EQ(report.block_bytes, 438130);
  CHECK_EQ(report.bad_blocks, 0);
  CHECK_EQ(report.unverifiable_blocks, 0);
  CHECK_EQ(done, total);
  CHECK_EQ(total, fs::file_size(TestDataPath("go-car/sample-v1.car")));

  CancelFlag cancel;
  cancel.Cancel();
  WorkContext work;
  work.cancel = &cancel;
  CHECK_CODE(VerifyShard(shard, work), kCancelled);
}

// A sound CAR of exactly `size` bytes: one raw block.
void WriteOther(const std::string& path, uint64_t size) {
  const Cid any = ValueOf(Cid::Of(kCodecRaw, kSha2_256, Span()));
  const Bytes header = EncodeCarHeader({any});
  const size_t head = EncodeSectionHead(any.bytes(), 1000).size();
  const std::string data(size - header.size() - head, 'x');
  const Cid cid = ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan(data)));
  std::ofstream file(path, std::ios::binary);
  const Bytes section = EncodeSectionHead(cid.bytes(), data.size());
  file << AsText(header) << AsText(section) << data;
}

TEST_CASE("scrub: the CAR is to blame for bad bytes, the index if only it differs") {
  const std::string original = TestDataPath("go-car/simple-unixfs.car");
  const uint64_t size = fs::file_size(original);
  struct Case {
    const char* name;
    std::function<void(const std::string& path)> spoil;
    Damage damage;
    uint64_t bad_blocks;
  };
  const Case cases[] = {
      {"last byte",
       [&](const std::string& path) {
         std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
         file.seekp(static_cast<std::streamoff>(size - 1));
         file.put('\xff');
       },
       Damage::kShard, 1},
      {"cut off", [&](const std::string& path) { fs::resize_file(path, size - 1); }, Damage::kShard,
       0},
      {"empty", [](const std::string& path) { fs::resize_file(path, 0); }, Damage::kShard, 0},
      {"another CAR", [&](const std::string& path) { WriteOther(path, size); }, Damage::kIndex, 0},
  };
  for (const Case& c : cases) {
    CAPTURE(std::string(c.name));
    const TempDir dir;
    fs::copy_file(original, dir.File("x.car"));
    const auto store = ValueOf(DagStore::Open(OptionsFor("")));
    Register(*store, "x", dir.File("x.car"));
    const Accessor shard = ValueOf(store->AcquireShardSync("x"));
    c.spoil(dir.File("x.car"));
    const ScrubReport report = ValueOf(VerifyShard(shard, WorkContext()));
    CHECK(!report.sound());
    CHECK_CODE(report.status, kDataLoss);
    CHECK(report.damage == c.damage);
    CHECK_EQ(report.bad_blocks, c.bad_blocks);
    CHECK_EQ(report.findings.size(), c.bad_blocks);
  }
}

TEST_CASE("fsck: a store in order has no problems") {
  const TempDir dir;
  const auto store = ValueOf(DagStore::Open(OptionsFor(dir.File("repo"))));
  Register(*store, "a", TestDataPath("go-car/sample-v1.car"));
  Register(*store, "b", TestDataPath("boxo/hello.car"));
  const Cid cid = ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan("kept")));
  REQUIRE_STATUS_OK(store->AddManifest("a", "rule", 3, {&cid, 1}));
  CHECK(Problems(*store).empty());
  const FsckReport report = ValueOf(CheckStore(*store, WorkContext(), [](const FsckProblem&) {}));
  CHECK_EQ(report.shards, 2);
  CHECK_EQ(report.indexes, 2);
  CHECK_EQ(report.entries, 1050);
  CHECK_EQ(report.roots, 2);
  CHECK_EQ(report.manifests, 1);
  CHECK_EQ(report.orphans, 0);
}

TEST_CASE("fsck: a shard that its CIDs do not lead to is named") {
  const auto store = ValueOf(DagStore::Open(OptionsFor("")));
  Register(*store, "a", TestDataPath("go-car/simple-unixfs.car"));
  Register(*store, "b", TestDataPath("boxo/hello.car"));
  store->lookup().top->Drop(ValueOf(store->GetShardInfo("a")).ordinal);
  CheckOnly(*store, FsckPart::kLookup, "a");
}

TEST_CASE("fsck: a root that is missing in the roots table is named") {
  const auto store = ValueOf(DagStore::Open(OptionsFor("")));
  Register(*store, "a", TestDataPath("boxo/hello.car"));
  Register(*store, "b", TestDataPath("boxo/hello.car"));
  KvBatch batch;
  const auto roots = ValueOf(store->GetIterableIndex("b"))->roots();
  REQUIRE_STATUS_OK(AppendRootsRemoval(batch, ValueOf(store->GetShardInfo("b")).ordinal, roots));
  REQUIRE_STATUS_OK(store->lookup().kv->Commit(batch, /*sync=*/true));
  CheckOnly(*store, FsckPart::kRoots, "b");
}

TEST_CASE("fsck: a damaged manifest and an index without a shard") {
  const auto store = ValueOf(DagStore::Open(OptionsFor("")));
  Register(*store, "a", TestDataPath("boxo/hello.car"));
  const Cid cid = ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan("kept")));
  REQUIRE_STATUS_OK(store->AddManifest("a", "rule", 3, {&cid, 1}));
  KvBatch batch;
  const auto cursor = store->lookup().kv->Scan(KvTable::kManifests);
  for (; cursor->Valid(); cursor->Next()) {
    std::string value(cursor->value());
    if (value.empty()) continue;
    value.back() ^= 1;
    batch.Put(KvTable::kManifests, std::string(cursor->key()), value);
  }
  REQUIRE_STATUS_OK(store->lookup().kv->Commit(batch, /*sync=*/true));
  const std::vector<FsckProblem> problems = Problems(*store);
  REQUIRE(!problems.empty());
  for (const FsckProblem& problem : problems) {
    CHECK(problem.part == FsckPart::kManifest);
    CHECK_EQ(problem.key.bytes(), "a");
  }
}

TEST_CASE("fsck: a record that cannot be decoded is in quarantine, and listed") {
  const TempDir dir;
  const std::string repo = dir.File("repo");
  {
    const auto store = ValueOf(DagStore::Open(OptionsFor(repo)));
    Register(*store, "a", TestDataPath("boxo/hello.car"));
    Register(*store, "b", TestDataPath("go-car/simple-unixfs.car"));
    REQUIRE_STATUS_OK(store->Close());
  }
  {
    const auto kv = ValueOf(OpenRocksKv(repo + "/db", RocksKvOptions()));
    KvBatch batch;
    batch.Put(KvTable::kRecords, "a", "no record");
    REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/true));
  }
  const auto store = ValueOf(DagStore::Open(OptionsFor(repo)));
  CheckOnly(*store, FsckPart::kQuarantine, "a");
  const FsckReport report = ValueOf(CheckStore(*store, WorkContext(), [](const FsckProblem&) {}));
  CHECK_EQ(report.shards, 1);
  CHECK_EQ(report.quarantined, 1);
}

}  // namespace
}  // namespace dagstore
