#include "index/index_store.h"

#include <set>

#include "tests/fakes/fake_io.h"
#include "tests/index/index_testing.h"

namespace dagstore {
namespace {

// A store in a folder, which can be closed and opened again as by another process.
struct Repository {
  explicit Repository(size_t inline_bytes_max = 1000) { Reopen(inline_bytes_max); }

  void Reopen(size_t inline_bytes_max = 1000) {
    store.reset();
    IndexStoreOptions options{.dir = dir.File("indexes"), .boot_id = fmt::format("b{}", ++boots)};
    options.inline_bytes_max = inline_bytes_max;
    options.open_files_max = 2;
    options.open_heap_bytes_max = 1500;
    store = ValueOf(OpenIndexStore(options, *kv, Io::Posix()));
  }
  StoredIndex Write(Ordinal ordinal, size_t entries) {
    return ValueOf(store->Write(ordinal, [&](const IndexOutput& output) -> absl::StatusOr<BuiltIndex> {
      return BuildFrom(UniformEntries(entries, fmt::format("{}:", ordinal)), output);
    }));
  }
  // Writes and commits, as a registration does.
  StoredIndex Add(Ordinal ordinal, size_t entries) {
    StoredIndex stored = Write(ordinal, entries);
    KvBatch batch;
    store->AppendTo(batch, stored);
    CHECK_STATUS_OK(kv->Commit(batch, true));
    return stored;
  }
  std::string File(Ordinal ordinal) const { return dir.File(fmt::format("indexes/{:08x}.idx", ordinal)); }
  void Put(const std::string& name, std::string_view content) const {
    std::ofstream(dir.File("indexes/" + name), std::ios::binary) << content;
  }
  std::vector<std::string> Files() const { return ValueOf(Io::Posix().List(dir.File("indexes"))); }

  TempDir dir;
  std::unique_ptr<Kv> kv = NewMemoryKv();
  std::unique_ptr<IndexStore> store;
  int boots = 0;
};

constexpr size_t kSmall = 10;   // 640 bytes
constexpr size_t kLarge = 100;  // 4.8 KB

TEST_CASE("index store: small indexes are values, large ones files, and both open after a restart") {
  Repository r;
  const StoredIndex small = r.Add(1, kSmall);
  const StoredIndex large = r.Add(0xabcdef, kLarge);
  CHECK(r.Files() == std::vector<std::string>{"00abcdef.idx", "trash"});
  CHECK(ValueOf(r.kv->Get(KvTable::kIndexes, std::string("\0\0\0\1", 4))).has_value());
  for (int i = 0; i < 2; ++i) {
    const auto small_index = ValueOf(r.store->Open(1, small.bytes, small.checksum));
    const auto large_index = ValueOf(r.store->Open(0xabcdef, large.bytes, large.checksum));
    CHECK_EQ(small_index->summary().entries, kSmall);
    CHECK_EQ(large_index->summary().entries, kLarge);
    CHECK(ValueOf(large_index->Contains({kSha2_256, Sha256Of("11259375:7")})));
    CHECK_FALSE(ValueOf(large_index->Contains({kSha2_256, Sha256Of("1:7")})));
    CHECK_STATUS_OK(large_index->CheckAll());
    r.Reopen();
  }
  CHECK_FALSE(ValueOf(r.store->Stat(1)).in_file);
  CHECK_EQ(ValueOf(r.store->Stat(1)).bytes, small.bytes);
  CHECK(ValueOf(r.store->Stat(0xabcdef)).in_file);
  CHECK_EQ(ValueOf(r.store->Stat(0xabcdef)).bytes, large.bytes);
  CHECK_CODE(r.store->Stat(2), kNotFound);
  const IndexTotals totals = ValueOf(r.store->Totals());
  CHECK_EQ(totals.indexes, 2);
  CHECK_EQ(totals.bytes, small.bytes + large.bytes);
}

TEST_CASE("index store: what was written can be read before it is committed") {
  Repository r;
  const StoredIndex small = r.Write(1, kSmall);
  REQUIRE(small.index != nullptr);
  CHECK_EQ(AllOf(*small.index).size(), kSmall);
  CHECK_EQ(AllOf(*r.Write(2, kLarge).index).size(), kLarge);
}

TEST_CASE("index store: an uncommitted value is gone, and an uncommitted file is swept") {
  Repository r;
  const StoredIndex small = r.Write(1, kSmall);
  const StoredIndex large = r.Write(2, kLarge);
  r.Reopen();
  CHECK_CODE(r.store->Open(1, small.bytes, small.checksum), kNotFound);
  KvBatch batch;
  const IndexSweep sweep = ValueOf(r.store->Sweep([](Ordinal) { return false; }, batch));
  CHECK_EQ(sweep.files, 1);
  CHECK_EQ(sweep.values, 0);
  CHECK(batch.empty());
  CHECK_CODE(r.store->Open(2, large.bytes, large.checksum), kNotFound);
}

TEST_CASE("index store: changing the limit leaves what is stored readable") {
  Repository r;
  const StoredIndex small = r.Add(1, kSmall);
  const StoredIndex large = r.Add(2, kLarge);
  r.Reopen(100);
  CHECK_STATUS_OK(r.store->Open(1, small.bytes, small.checksum));
  CHECK_STATUS_OK(r.store->Open(2, large.bytes, large.checksum));
  r.Reopen(100'000);
  CHECK_STATUS_OK(r.store->Open(1, small.bytes, small.checksum));
  CHECK_STATUS_OK(r.store->Open(2, large.bytes, large.checksum));
}

// Goal: existence is not validity. Method: the file as a crash, a bad disk or a stranger may leave it.
TEST_CASE("index store: row 29: a torn index file is refused and rebuilt, not served") {
  Repository r;
  const StoredIndex stored = r.Add(7, kLarge);
  const Bytes good = ValueOf(ReadSmallFile(Io::Posix(), r.File(7), 1 << 20));
  const auto write = [&](Span content) {
    r.Reopen();
    std::ofstream(r.File(7), std::ios::binary | std::ios::trunc) << AsText(content);
  };
  for (size_t size : {size_t{0}, size_t{1}, size_t{100}, size_t{4096}, good.size() - 1}) {
    INFO(size);
    write(Span(good).first(size));
    CHECK_CODE(r.store->Open(7, stored.bytes, stored.checksum), kDataLoss);
  }
  write(Bytes(good.size(), 0));  // the size arrived, the data did not
  CHECK_CODE(r.store->Open(7, stored.bytes, stored.checksum), kDataLoss);
  Bytes torn = good;  // the first part arrived
  std::fill(torn.begin() + 1000, torn.end(), 0);
  write(torn);
  const auto opened = r.store->Open(7, stored.bytes, stored.checksum);
  REQUIRE_STATUS_OK(opened);  // the header is whole: pages speak for themselves
  CHECK_CODE((*opened)->CheckAll(), kDataLoss);
  CHECK_CODE((*opened)->Contains({kSha2_256, Sha256Of("7:3")}), kDataLoss);
  std::filesystem::remove(r.File(7));
  r.Reopen();
  CHECK_CODE(r.store->Open(7, stored.bytes, stored.checksum), kNotFound);
  // Rebuilt, it is the same one.
  const StoredIndex again = r.Add(7, kLarge);
  CHECK_EQ(again.checksum, stored.checksum);
  CHECK_STATUS_OK(ValueOf(r.store->Open(7, stored.bytes, stored.checksum))->CheckAll());
}

// Goal: at whatever step the machine stops, what a restart finds is the whole index or nothing that is served.
// Method: the disk stops at its n-th call, for every n, and loses what a disk may lose.
TEST_CASE("index store: row 29: a crash at any step loses an index that was not acknowledged, never tears one") {
  const std::vector<OwnedEntry> entries = UniformEntries(kLarge);
  for (const FakeIo::Lost lost : {FakeIo::Lost::kAll, FakeIo::Lost::kData, FakeIo::Lost::kHalfData}) {
    bool finished = false;
    for (uint64_t step = 1; !finished; ++step) {
      INFO(static_cast<int>(lost), " ", step);
      FakeIo io;
      const auto kv = NewMemoryKv();
      const auto open = [&](const char* boot) {
        return ValueOf(OpenIndexStore({.dir = "/indexes", .boot_id = boot, .inline_bytes_max = 1000}, *kv, io));
      };
      auto store = open("b1");
      io.StopAtNth(step);
      // Little memory, so that the file of runs is part of it.
      absl::StatusOr<StoredIndex> stored =
          store->Write(7, [&](const IndexOutput& output) -> absl::StatusOr<BuiltIndex> {
            IndexBuilder builder(output, 1000);
            for (const OwnedEntry& entry : entries) RETURN_IF_ERROR(builder.Add(entry.view()));
            return builder.Finish({}, SummaryOf(entries));
          });
      const BuiltIndex wanted = BuildFrom(entries);
      finished = stored.ok();
      stored = absl::CancelledError("");
      store.reset();
      io.Crash(lost);

      store = open("b2");
      const auto found = store->Open(7, wanted.bytes, wanted.checksum);
      if (finished) REQUIRE_STATUS_OK(found);
      if (found.ok()) {
        CHECK_STATUS_OK((*found)->CheckAll());
      } else {
        CHECK((absl::IsNotFound(found.status()) || absl::IsDataLoss(found.status())));
      }
      KvBatch batch;
      CHECK_STATUS_OK(store->Sweep([](Ordinal) { return false; }, batch));
      CHECK_STATUS_OK(store->EmptyTrash());
      CHECK(ValueOf(store->Totals()).indexes == 0);
      REQUIRE_LT(step, 100);
    }
  }
}

TEST_CASE("index store: row 17: an index of other content is refused, whole as it is") {
  Repository r;
  const StoredIndex a = r.Add(1, kLarge);
  const StoredIndex b = r.Add(2, kLarge);
  REQUIRE_EQ(a.bytes, b.bytes);
  CHECK_NE(a.checksum, b.checksum);
  std::filesystem::copy_file(r.File(1), r.File(2), std::filesystem::copy_options::overwrite_existing);
  r.Reopen();
  CHECK_CODE(r.store->Open(2, b.bytes, b.checksum), kDataLoss);
  const StoredIndex small = r.Add(3, kSmall);
  CHECK_CODE(r.store->Open(3, small.bytes, small.checksum + 1), kDataLoss);
  CHECK_STATUS_OK(r.store->Open(3, small.bytes, small.checksum));
  CHECK_CODE(r.store->Open(3, small.bytes, small.checksum + 1), kDataLoss);  // cached or not
}

TEST_CASE("index store: row 47: a symbolic link in an index's place is not followed") {
  Repository r;
  const StoredIndex stored = r.Add(1, kLarge);
  std::filesystem::rename(r.File(1), r.dir.File("elsewhere"));
  std::filesystem::create_symlink(r.dir.File("elsewhere"), r.File(1));
  r.Reopen();
  CHECK_FALSE(r.store->Open(1, stored.bytes, stored.checksum).ok());
}

TEST_CASE("index store: a failed build leaves nothing, and says why") {
  Repository r;
  const auto failed = r.store->Write(5, [&](const IndexOutput& output) -> absl::StatusOr<BuiltIndex> {
    CHECK_EQ(output.name, "00000005.idx");
    return Unavailable("the source went away");
  });
  CHECK_CODE(failed, kUnavailable);
  CHECK(r.Files() == std::vector<std::string>{"trash"});
}

TEST_CASE("index store: a dropped index is gone, and those who have it open keep it") {
  Repository r;
  const StoredIndex small = r.Add(1, kSmall);
  const StoredIndex large = r.Add(2, kLarge);
  const auto held = ValueOf(r.store->Open(2, large.bytes, large.checksum));
  KvBatch batch;
  CHECK_STATUS_OK(r.store->Drop(1, batch));
  CHECK_STATUS_OK(r.store->Drop(2, batch));
  CHECK_STATUS_OK(r.store->Drop(3, batch));  // never was
  CHECK_STATUS_OK(r.kv->Commit(batch, true));
  // Moved aside, which costs the same for any size; deleted when there is time.
  CHECK(r.Files() == std::vector<std::string>{"trash"});
  CHECK_EQ(ValueOf(r.store->EmptyTrash()), 1);
  CHECK(ValueOf(Io::Posix().List(r.dir.File("indexes/trash"))).empty());
  CHECK_CODE(r.store->Open(1, small.bytes, small.checksum), kNotFound);
  CHECK_CODE(r.store->Open(2, large.bytes, large.checksum), kNotFound);
  CHECK_EQ(AllOf(*held).size(), kLarge);
  CHECK_EQ(ValueOf(r.store->Totals()).indexes, 0);
}

TEST_CASE("index store: open indexes are kept within their limits") {
  Repository r;  // 2 files, 1500 bytes
  std::vector<StoredIndex> files, values;
  for (Ordinal i = 1; i <= 4; ++i) files.push_back(r.Add(i, kLarge));
  for (Ordinal i = 5; i <= 8; ++i) values.push_back(r.Add(i, kSmall));
  const auto open = [&](const StoredIndex& s) { return ValueOf(r.store->Open(s.ordinal, s.bytes, s.checksum)); };
  const auto kept = [&](const StoredIndex& s) {
    std::weak_ptr<const ShardIndex> weak = open(s);
    return !weak.expired();  // the store has it too
  };
  for (const StoredIndex& s : files) CHECK(kept(s));
  std::vector<std::weak_ptr<const ShardIndex>> weak;
  for (const StoredIndex& s : files) weak.push_back(open(s));
  CHECK(weak[0].expired());
  CHECK(weak[1].expired());
  CHECK_FALSE(weak[2].expired());
  CHECK_FALSE(weak[3].expired());
  weak.clear();
  for (const StoredIndex& s : values) weak.push_back(open(s));
  CHECK(weak[0].expired());
  CHECK(weak[1].expired());
  CHECK_FALSE(weak[2].expired());
  CHECK_FALSE(weak[3].expired());
  open(values[2]);  // used again: the other one goes first
  open(values[0]);
  CHECK_FALSE(weak[2].expired());
  CHECK(weak[3].expired());
}

TEST_CASE("index store: for-each names every index once, values and files") {
  Repository r;
  for (Ordinal i = 1; i <= 6; ++i) r.Add(i, i % 2 == 0 ? kSmall : kLarge);
  r.Put("notes.txt", "mine");
  std::multiset<Ordinal> seen;
  CHECK_STATUS_OK(r.store->ForEach([&](Ordinal ordinal, const IndexStat& stat) {
    CHECK_EQ(stat.in_file, ordinal % 2 == 1);
    seen.insert(ordinal);
    return true;
  }));
  CHECK(seen == std::multiset<Ordinal>{1, 2, 3, 4, 5, 6});
  size_t visits = 0;
  CHECK_STATUS_OK(r.store->ForEach([&](Ordinal, const IndexStat&) { return ++visits < 4; }));
  CHECK_EQ(visits, 4);
}

TEST_CASE("index store: rows 27, 28: a sweep takes its own names only, the unowned only, and keeps them in the trash") {
  Repository r;
  for (Ordinal i = 1; i <= 4; ++i) r.Add(i, i <= 2 ? kSmall : kLarge);
  r.Reopen();
  const std::vector<std::string> foreign = {
      "notes.txt",       "00000003.idx.bak", "0000000.idx",       "000000003.idx", "0000000A.idx", "00000000.idx",
      "00000003.idx.",   "00000003.idx.tmp", "00000003.idx.b-.tmp", "00000003.idx.B-1.tmp", "00000003.idx.b1-1.tmpx",
      "x00000003.idx",   "00000003.IDX"};
  for (const std::string& name : foreign) r.Put(name, "mine");
  r.Put("00000009.idx.b1-7.tmp", "half");
  r.Put("00000009.idx.b1-7.tmp.runs", "half");
  r.Put("00000009.idx.b2-1.tmp", "this process is writing it");

  KvBatch batch;
  const IndexSweep sweep = ValueOf(r.store->Sweep([](Ordinal o) { return o == 1 || o == 3; }, batch));
  CHECK_EQ(sweep.files, 1);
  CHECK_EQ(sweep.values, 1);
  CHECK_EQ(sweep.temporaries, 2);
  REQUIRE_EQ(batch.changes().size(), 1);
  CHECK_EQ(batch.changes()[0].key, IndexKey(2));
  std::vector<std::string> wanted = foreign;
  wanted.insert(wanted.end(), {"00000003.idx", "00000009.idx.b2-1.tmp", "trash"});
  std::sort(wanted.begin(), wanted.end());
  CHECK(r.Files() == wanted);
  CHECK(ValueOf(Io::Posix().List(r.dir.File("indexes/trash"))) == std::vector<std::string>{"00000004.idx.b2"});

  std::ofstream(r.dir.File("indexes/trash/notes.txt")) << "mine";
  CHECK_EQ(ValueOf(r.store->EmptyTrash()), 1);
  CHECK(ValueOf(Io::Posix().List(r.dir.File("indexes/trash"))) == std::vector<std::string>{"notes.txt"});
}

TEST_CASE("index store: a sweep leaves alone what this process wrote and has not committed yet") {
  Repository r;
  r.Add(1, kLarge);
  r.Reopen();
  StoredIndex running = r.Write(2, kLarge);
  KvBatch batch;
  CHECK_EQ(ValueOf(r.store->Sweep([](Ordinal) { return false; }, batch)).files, 1);
  CHECK(r.Files() == std::vector<std::string>{"00000002.idx", "trash"});
  CHECK_STATUS_OK(r.store->Open(2, running.bytes, running.checksum));
}

TEST_CASE("index store: an empty trash is no error") {
  Repository r;
  CHECK_EQ(ValueOf(r.store->EmptyTrash()), 0);
}

TEST_CASE("memory index store: writes, opens, counts and drops like the one on disk") {
  const auto store = NewMemoryIndexStore();
  const auto write = [&](Ordinal ordinal, size_t entries) {
    return ValueOf(store->Write(ordinal, [&](const IndexOutput& output) -> absl::StatusOr<BuiltIndex> {
      return BuildFrom(UniformEntries(entries), output);
    }));
  };
  StoredIndex a = write(1, kSmall), b = write(2, 20'000);
  KvBatch batch;
  store->AppendTo(batch, a);
  CHECK(batch.empty());
  CHECK_EQ(AllOf(*ValueOf(store->Open(2, b.bytes, b.checksum))).size(), 20'000);
  CHECK_CODE(store->Open(2, b.bytes, b.checksum + 1), kDataLoss);
  CHECK_CODE(store->Open(3, b.bytes, b.checksum), kNotFound);
  CHECK_EQ(ValueOf(store->Stat(1)).bytes, a.bytes);
  CHECK_EQ(ValueOf(store->Totals()).indexes, 2);
  CHECK_EQ(ValueOf(store->Totals()).bytes, a.bytes + b.bytes);
  std::set<Ordinal> seen;
  CHECK_STATUS_OK(store->ForEach([&](Ordinal ordinal, const IndexStat&) { return seen.insert(ordinal).second; }));
  CHECK(seen == std::set<Ordinal>{1, 2});
  CHECK_EQ(ValueOf(store->Sweep([](Ordinal) { return true; }, batch)).files, 0);
  CHECK_STATUS_OK(store->Drop(2, batch));
  CHECK_CODE(store->Open(2, b.bytes, b.checksum), kNotFound);
  CHECK_EQ(b.index->summary().entries, 20'000);  // still held here
}

}  // namespace
}  // namespace dagstore
