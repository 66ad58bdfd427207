#include "index/top_index.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "base/crc32c.h"
#include "base/splitmix.h"
#include "index/ordinal_set.h"
#include "index/top_buffer.h"
#include "index/top_run.h"
#include "tests/fakes/fake_io.h"
#include "tests/fakes/fake_kv.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

std::vector<Fingerprint> Sorted(std::vector<Fingerprint> keys) {
  std::sort(keys.begin(), keys.end());
  return keys;
}

// `count` keys that belong to this shard alone.
std::vector<Fingerprint> Own(Ordinal ordinal, size_t count) {
  std::vector<Fingerprint> keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(MixBits(uint64_t{ordinal} << 32 | i));
  return Sorted(std::move(keys));
}

std::set<Ordinal> FindOne(const TopIndex& index, Fingerprint key) {
  std::set<Ordinal> found;
  CHECK_STATUS_OK(index.Find({&key, 1}, [&](size_t at, Ordinal ordinal) {
    CHECK_EQ(at, 0);
    CHECK(found.insert(ordinal).second);  // each ordinal once
  }));
  // In pages, too.
  std::set<Ordinal> paged;
  std::vector<Ordinal> page;
  do {
    CHECK_STATUS_OK(index.FindPage(key, paged.empty() ? 0 : *paged.rbegin(), 7, page));
    for (const Ordinal ordinal : page) CHECK(paged.insert(ordinal).second);
  } while (page.size() == 7);
  CHECK_EQ(paged, found);
  return found;
}

// The store around the index: it knows every shard's fingerprints, and follows the protocol of the header.
struct Owner {
  FakeIo io;
  FakeKv kv;
  TopIndexOptions options{.dir = "top", .buffer_entries_max = 64, .merge_fan_in = 2};
  std::unique_ptr<TopIndex> index = nullptr;
  std::map<Ordinal, std::vector<Fingerprint>> shards = {};
  std::set<Ordinal> added = {};  // whole, so that they must be found
  uint64_t added_again = 0;

  absl::Status AddShard(Ordinal ordinal) {
    const std::vector<Fingerprint>& keys = shards.at(ordinal);
    const size_t half = keys.size() / 2;
    RETURN_IF_ERROR(index->Add(ordinal, {keys.begin(), keys.begin() + static_cast<ptrdiff_t>(half)}));
    RETURN_IF_ERROR(index->Add(ordinal, {keys.begin() + static_cast<ptrdiff_t>(half), keys.end()}));
    index->Seal(ordinal);
    added.insert(ordinal);
    return absl::OkStatus();
  }
  absl::Status New(Ordinal ordinal, std::vector<Fingerprint> keys) {
    shards[ordinal] = std::move(keys);
    return AddShard(ordinal);
  }
  void Drop(Ordinal ordinal) {
    index->Drop(ordinal);
    shards.erase(ordinal);
    added.erase(ordinal);
  }
  absl::Status Open() {
    index = nullptr;
    added.clear();
    ASSIGN_OR_RETURN(index, OpenTopIndex(options, kv, io));
    std::vector<bool> live(shards.empty() ? 1 : shards.rbegin()->first + 1);
    for (const auto& [ordinal, keys] : shards) live[ordinal] = true;
    index->DropAllExcept(live);
    for (const auto& [ordinal, keys] : shards) {
      if (index->Covers(ordinal)) {
        added.insert(ordinal);
      } else {
        ++added_again;
        RETURN_IF_ERROR(AddShard(ordinal));
      }
    }
    return absl::OkStatus();
  }
  void Reopen() { REQUIRE_STATUS_OK(Open()); }

  // Every key of every shard, and keys of none: exactly the shards that have it.
  void Check() {
    std::map<Fingerprint, std::set<Ordinal>> model;
    for (const Ordinal ordinal : added) {
      for (const Fingerprint key : shards.at(ordinal)) model[key].insert(ordinal);
    }
    std::vector<Fingerprint> keys;
    for (const auto& [key, ordinals] : model) keys.push_back(key);
    for (uint64_t i = 0; i < 100; ++i) keys.push_back(MixBits(~i));
    std::vector<std::set<Ordinal>> found(keys.size());
    CHECK_STATUS_OK(index->Find(keys, [&](size_t at, Ordinal ordinal) { CHECK(found[at].insert(ordinal).second); }));
    size_t wrong = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      const auto wanted = model.find(keys[i]);
      if (found[i] != (wanted == model.end() ? std::set<Ordinal>() : wanted->second)) ++wrong;
    }
    CHECK_EQ(wrong, 0);
    for (size_t i = 0; i < keys.size(); i += 40) CHECK_EQ(FindOne(*index, keys[i]), found[i]);
  }
  std::vector<std::string> RunFiles() {
    std::vector<std::string> runs;
    for (const std::string& path : io.Files()) {
      if (path.ends_with(".top")) runs.push_back(path);
    }
    return runs;
  }
};

uint64_t HeapBytes() {
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Io on POSIX files that looks at the heap at each write.
class HeapWatchingIo final : public Io {
 public:
  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow follow) override {
    return Posix().Open(path, follow);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, Posix().Create(path));
    return std::make_unique<File>(*this, std::move(file));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    return Posix().OpenForWriting(path);
  }
  absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow) override { return Posix().Stat(path, follow); }
  absl::Status Rename(const std::string& from, const std::string& to) override { return Posix().Rename(from, to); }
  absl::Status Remove(const std::string& path) override { return Posix().Remove(path); }
  absl::Status MakeDir(const std::string& path) override { return Posix().MakeDir(path); }
  absl::Status SyncDir(const std::string& path) override { return Posix().SyncDir(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return Posix().List(path); }

  std::atomic<uint64_t> most{0};
  std::atomic<uint64_t> writes{0};

 private:
  class File final : public WritableFile {
   public:
    File(HeapWatchingIo& io, std::unique_ptr<WritableFile> inner) : io_(io), inner_(std::move(inner)) {}
    absl::Status Append(Span data) override { return inner_->Append(data); }
    absl::Status WriteAt(uint64_t offset, Span data) override {
      ++io_.writes;
      io_.most = std::max(io_.most.load(), HeapBytes());
      return inner_->WriteAt(offset, data);
    }
    absl::Status Sync() override { return inner_->Sync(); }
    absl::Status Close() override { return inner_->Close(); }

   private:
    HeapWatchingIo& io_;
    std::unique_ptr<WritableFile> inner_;
  };
};

}  // namespace

// --- Parts.

TEST_CASE("fingerprint: is the keyed hash of the encoded multihash") {
  SipKey secret;
  for (size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<uint8_t>(i);
  for (const uint64_t code : {uint64_t{kIdentity}, uint64_t{kSha2_256}, uint64_t{kBlake2b256}, uint64_t{1} << 62}) {
    for (const size_t size : {0, 1, 32, 127, 128, 2048, 3000}) {
      const Bytes digest(size, 7);
      CHECK_EQ(FingerprintOf(secret, {code, digest}), SipHash(secret, Multihash(MultihashView{code, digest}).bytes()));
    }
  }
}

TEST_CASE("ordinal set: holds what was put in, over its whole range") {
  OrdinalSet set;
  CHECK_EQ(set.End(), 0);
  for (const Ordinal ordinal : {1u, 63u, 65u, 32767u, 32769u, 1'000'000u, UINT32_MAX}) {
    CHECK_FALSE(set.Contains(ordinal));
    CHECK(set.Insert(ordinal));
    CHECK_FALSE(set.Insert(ordinal));
    CHECK(set.Contains(ordinal));
    CHECK_FALSE(set.Contains(ordinal - 1));
    CHECK_EQ(set.End(), uint64_t{ordinal} + 1);
  }
}

TEST_CASE("top buffer: the radix sort orders as a comparison does") {
  std::mt19937_64 random(1);
  for (const size_t count : {0, 1, 2, 25, 4095, 4096, 30'000}) {
    for (const int spread : {kRunKeyBits, 20, 3}) {
      std::vector<RunEntry> entries;
      for (size_t i = 0; i < count; ++i)
        entries.push_back({random() >> (64 - spread), static_cast<Ordinal>(random() % 5)});
      std::vector<RunEntry> wanted = entries, scratch(count);
      const auto as_pair = [](const RunEntry& entry) { return std::pair(entry.key, entry.ordinal); };
      std::sort(wanted.begin(), wanted.end(), [&](auto& a, auto& b) { return as_pair(a) < as_pair(b); });
      SortRunEntries(entries, scratch);
      CHECK(std::equal(entries.begin(), entries.end(), wanted.begin(),
                       [&](auto& a, auto& b) { return as_pair(a) == as_pair(b); }));
    }
  }
}

TEST_CASE("top run: the layout keeps every key bit, in four bytes from 2^19 buckets on") {
  struct Row {
    uint64_t entries;
    int bucket_bits, remainder_bytes;
  };
  for (const Row& row : {Row{0, 0, 7}, Row{1, 0, 7}, Row{1000, 7, 6}, Row{100'000, 14, 5}, Row{4 << 20, 19, 4},
                         Row{(4 << 20) - 100'000, 19, 4}, Row{128 << 20, 24, 4}, Row{uint64_t{1} << 30, 27, 3},
                         Row{kRunSlotsMax, 29, 3}}) {
    CAPTURE(row.entries);
    const RunLayout layout = RunLayout::For(row.entries, false);
    CHECK_EQ(layout.bucket_bits, row.bucket_bits);
    CHECK_EQ(layout.remainder_bytes, row.remainder_bytes);
    CHECK_GE(layout.bucket_bits + 8 * layout.remainder_bytes, kRunKeyBits);
    CHECK_EQ(layout.ordinal_bytes, 4);
    CHECK_EQ(RunLayout::For(row.entries, true).ordinal_bytes, 0);
  }
  CHECK_LE(RunLayout::For(4 << 20, false).file_size(4 << 20), (4 << 20) * 86 / 10);  // 8.5 bytes and the checksums
  CHECK_LE(RunLayout::For(4 << 20, false, {}, true).file_size(4 << 20), (4 << 20) * 98 / 10);  // 1.25 of the filter
}

TEST_CASE("top run: the bytes of a small one are these") {
  Owner owner;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(7, {0x2000, 0x8000000000000000}));
  REQUIRE_STATUS_OK(owner.New(0x01020304, {0x2000}));
  REQUIRE_STATUS_OK(owner.index->Flush());
  REQUIRE_EQ(owner.RunFiles(), std::vector<std::string>{"top/run-0000000000000001.top"});
  const Bytes file = *owner.io.Content("top/run-0000000000000001.top");
  REQUIRE_EQ(file.size(), 12288 + 48 + 12);
  CHECK_EQ(ToHex(Span(file).first(40)), "646167746f70726e" "02000000" "33000704" "0100000000000000" "0300000000000000"
                                        "07000000" "04030201");
  CHECK_EQ(ToHex(Span(file).subspan(44, 16)), "00000000" "03000000" "00000000" "01000000");
  CHECK_EQ(Load32(&file[60]), Crc32c(Span(file).first(60)));
  CHECK_EQ(Load32(&file[40]), Crc32c(Span(file).subspan(12336)));
  CHECK_EQ(ToHex(Span(file).subspan(4096, 8)), "00000000" "03000000");
  // The one line of the filter: for keys 1 and 2^50 a bit in each of eight words.
  CHECK_EQ(ToHex(Span(file).subspan(8192, 64)), "0000000080000010" "0000000020800000" "0000020020000000"
                                                "0000000000002020" "0000000010010000" "0000000000010002"
                                                "4000000008000000" "0010400000000000");
  CHECK_EQ(ToHex(Span(file).subspan(12288, 33)), "01000000000000" "07000000" "01000000000000" "04030201"
                                                 "00000000000004" "07000000");
  CHECK_EQ(Load32(&file[12336]), Crc32c(Span(file).subspan(4096, 4096)));
  CHECK_EQ(Load32(&file[12340]), Crc32c(Span(file).subspan(8192, 4096)));
  CHECK_EQ(Load32(&file[12344]), Crc32c(Span(file).subspan(12288, 48)));
}

TEST_CASE("top run: the bytes of a list are these") {
  Owner owner;
  owner.options.buffer_entries_max = 1000;
  owner.options.filter_entries_max = 0;
  owner.Reopen();
  // 65 shards hold key 1: 2, 4, ... 128, and 1000. Shard 2 has key 2, too.
  for (Ordinal ordinal = 2; ordinal <= 128; ordinal += 2) {
    std::vector<Fingerprint> keys = {0x2000};
    if (ordinal == 2) keys.push_back(0x4000);
    REQUIRE_STATUS_OK(owner.New(ordinal, std::move(keys)));
  }
  REQUIRE_STATUS_OK(owner.New(1000, {0x2000}));
  REQUIRE_STATUS_OK(owner.index->Flush());
  const Bytes file = *owner.io.Content("top/run-0000000000000001.top");
  // The directory of 2^3 buckets; all are in the first. A slot has 10 bytes: one begins the list, nine hold 16 + 65 of
  // it, one is an entry.
  CHECK_EQ(ToHex(Span(file).subspan(12, 4)), "33030604");
  CHECK_EQ(Load64(&file[24]), 66);
  CHECK_EQ(ToHex(Span(file).subspan(44, 16)), "00000000" "0b000000" "01000000" "00000000");
  std::string steps;
  for (int i = 0; i < 63; ++i) steps += "02";
  CHECK_EQ(ToHex(Span(file).subspan(8192, 110)), "010000000000" "00000000" "09000000" "02000000" "e8030000" "41000000" +
                                                     steps + "e806" + "000000000000000000" + "020000000000" "02000000");
  owner.Check();
}

TEST_CASE("top run: a filter passes each key that is there, and about one in a hundred of the others") {
  Owner owner;
  owner.options.buffer_entries_max = 400'000;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 50'000)));  // goes through the table
  REQUIRE_STATUS_OK(owner.New(2, Own(2, 100'000)));  // a run of its own
  REQUIRE_STATUS_OK(owner.index->Flush());
  for (const std::string& path : owner.RunFiles()) {
    const auto run = ValueOf(TopRun::FromMemory(*owner.io.Content(path)));
    REQUIRE(run->has_filter());
    for (TopRun::Cursor cursor(*run); cursor.valid(); cursor.Next()) REQUIRE(run->FilterPasses(cursor.key()));
    size_t passed = 0;
    for (const Fingerprint key : Own(3, 100'000)) passed += run->FilterPasses(RunKeyOf(key)) ? 1 : 0;
    CHECK_LE(passed, 2'000);
    CHECK_GE(passed, 100);  // it does look
  }
}

// --- The whole.

// Goal: no false negative, ever, and no false positive for these seeds.
// Method: random work against a model, with clean closes and crashes of every kind.
TEST_CASE("top index: answers as a multimap does, through drops, flushes, merges, closes and crashes") {
  uint64_t lists = 0;
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto below = [&](uint64_t n) { return random() % n; };
    Owner owner;
    owner.options.merge_fan_in = static_cast<int>(2 + seed % 3);
    if (seed % 2 == 0) owner.options.run_entries_max = 50 + seed % 7 * 40;  // so that merges split by ranges of keys
    if (seed % 3 == 0) owner.options.filter_entries_max = 100;
    if (seed % 5 == 3) owner.options.resident_bytes_max = 0;
    if (seed % 5 == 4) owner.options.resident_bytes_max = 20'000;
    const uint64_t popular = seed % 2 == 0 ? 20 : 1;  // one: it gets a list
    owner.Reopen();
    Ordinal next = 1;
    for (int step = 0; step < 400; ++step) {
      const uint64_t action = below(100);
      if (action < 65) {
        std::vector<Fingerprint> keys = Own(next, below(below(10) == 0 ? 100 : 12));
        for (uint64_t i = below(4); i > 0; --i) keys.push_back(MixBits(~uint64_t{1000} - below(popular)));
        REQUIRE_STATUS_OK(owner.New(next, Sorted(std::move(keys))));
        next += 1 + static_cast<Ordinal>(below(3));
      } else if (action < 85) {
        if (!owner.shards.empty()) {
          auto victim = owner.shards.lower_bound(static_cast<Ordinal>(below(next)));
          if (victim != owner.shards.end()) owner.Drop(victim->first);
        }
      } else if (action < 90) {
        REQUIRE_STATUS_OK(owner.index->Flush());
      } else if (action < 93) {
        owner.index->AwaitIdle();
      } else if (action < 95) {
        owner.Reopen();
      } else if (action < 98) {
        owner.index = nullptr;
        owner.io.Crash(static_cast<FakeIo::Lost>(below(3)));
        owner.Reopen();
        CHECK_LE(owner.index->OrdinalsEnd(), next);
      } else {
        CHECK_STATUS_OK(owner.index->CheckAll());
      }
      owner.Check();
      lists = std::max(lists, owner.index->Stats().lists);
    }
    CHECK_STATUS_OK(owner.index->Flush());
    owner.index->AwaitIdle();
    owner.added_again = 0;
    owner.Reopen();
    CHECK_EQ(owner.added_again, 0);
    owner.Check();
  }
  CHECK_GE(lists, 1);
}

TEST_CASE("top index: a crash at any file operation loses nothing that the owner does not add again") {
  uint64_t steps = 0;
  for (uint64_t n = 1;; ++n) {
    CAPTURE(n);
    Owner owner;
    owner.Reopen();
    for (Ordinal ordinal = 1; ordinal <= 12; ++ordinal) owner.shards[ordinal] = Own(ordinal, ordinal == 5 ? 50 : 15);
    const uint64_t calls = owner.io.calls();
    owner.io.StopAtNth(n);
    const auto work = [&]() -> absl::Status {
      for (Ordinal ordinal = 1; ordinal <= 12; ++ordinal) {
        RETURN_IF_ERROR(owner.AddShard(ordinal));
        if (ordinal % 4 == 0) RETURN_IF_ERROR(owner.index->Flush());
        owner.index->AwaitIdle();
        if (ordinal == 6) owner.index->Drop(2);
      }
      return absl::OkStatus();
    };
    const bool done = work().ok() && owner.io.calls() - calls < n;
    owner.index = nullptr;
    owner.shards.erase(2);
    owner.io.Crash(static_cast<FakeIo::Lost>(n % 3));
    owner.Reopen();
    owner.Check();
    CHECK_STATUS_OK(owner.index->CheckAll());
    owner.index->AwaitIdle();
    CHECK_EQ(owner.RunFiles().size(), owner.index->Stats().runs);
    steps = n;
    if (done) break;
  }
  CHECK_GT(steps, 40);
}

TEST_CASE("top index: a failed commit leaves readers and disk as they were, whether or not it was applied") {
  for (const FakeKv::Applied applied : {FakeKv::Applied::kNo, FakeKv::Applied::kYes}) {
    Owner owner;
    owner.Reopen();
    REQUIRE_STATUS_OK(owner.New(1, Own(1, 10)));
    owner.kv.FailCommit(1, Unavailable("disk is gone"), applied);
    CHECK_CODE(owner.index->Flush(), kUnavailable);
    CHECK_CODE(owner.index->Add(2, Own(2, 40)), kUnavailable);  // a run of its own
    owner.Check();
    owner.kv.Heal();
    owner.Reopen();
    owner.Check();
    CHECK_STATUS_OK(owner.index->Flush());
    CHECK(owner.index->Covers(1));
  }
}

TEST_CASE("top index: a full disk is an error of that call and is forgotten when there is room") {
  Owner owner;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 15)));
  owner.io.FailAfterBytes(100);
  CHECK_CODE(owner.index->Flush(), kResourceExhausted);
  CHECK(owner.RunFiles().empty());
  Ordinal next = 2;
  absl::Status status;
  for (; status.ok() && next < 100; ++next) status = owner.New(next, Own(next, 15));
  CHECK_CODE(status, kResourceExhausted);
  CHECK_LE(owner.index->Stats().buffered, 2 * 64);
  owner.Check();
  owner.io.Heal();
  CHECK_STATUS_OK(owner.AddShard(next - 1));
  CHECK_STATUS_OK(owner.index->Flush());
  CHECK_EQ(owner.index->Stats().buffered, 0);
  owner.Check();
}

TEST_CASE("top index: find is not complete until what is live and not covered was added") {
  Owner owner;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 10)));
  REQUIRE_STATUS_OK(owner.index->Flush());
  REQUIRE_STATUS_OK(owner.New(2, Own(2, 10)));
  REQUIRE_STATUS_OK(owner.New(3, Own(3, 10)));
  owner.index = nullptr;
  const auto index = ValueOf(OpenTopIndex(owner.options, owner.kv, owner.io));
  index->DropAllExcept({false, true, true, true});
  CHECK(index->Covers(1));
  CHECK_FALSE(index->Covers(2));
  CHECK_EQ(index->Stats().awaited, 2);
  const std::vector<Fingerprint> keys = {owner.shards[1][0]};
  size_t found = 0;
  const auto count = [&](size_t, Ordinal ordinal) { found += ordinal; };
  CHECK_CODE(index->Find(keys, count), kUnavailable);
  CHECK_EQ(found, 1);  // what it has, it gives
  REQUIRE_STATUS_OK(index->Add(2, owner.shards[2]));
  CHECK_CODE(index->Find(keys, count), kUnavailable);
  index->Seal(2);
  CHECK_CODE(index->Find(keys, count), kUnavailable);
  index->Drop(3);
  CHECK_STATUS_OK(index->Find(keys, count));
  CHECK_EQ(index->OrdinalsEnd(), 3);
}

TEST_CASE("top index: whatever is damaged at open, nothing is missing after the owner has added it again") {
  enum class Harm { kFlip, kTruncate, kExtend, kRemove };
  struct Row {
    const char* name;
    Harm harm;
    uint64_t at;
    bool seen_at_open;
  };
  for (const Row& row : {Row{"magic", Harm::kFlip, 0, true}, Row{"version", Harm::kFlip, 8, true},
                         Row{"entries", Harm::kFlip, 24, true}, Row{"header checksum", Harm::kFlip, 60, true},
                         Row{"directory", Harm::kFlip, 4100, true}, Row{"filter", Harm::kFlip, 8200, true},
                         Row{"checksum table", Harm::kFlip, 13100, true},
                         Row{"first entry", Harm::kFlip, 12288, false}, Row{"last entry", Harm::kFlip, 13080, false},
                         Row{"no bytes", Harm::kTruncate, 0, true}, Row{"no directory", Harm::kTruncate, 4096, true},
                         Row{"last byte", Harm::kTruncate, ~uint64_t{0}, true},
                         Row{"a byte more", Harm::kExtend, 0, true}, Row{"gone", Harm::kRemove, 0, true}}) {
    CAPTURE(row.name);
    Owner owner;
    owner.options.buffer_entries_max = 1000;
    owner.options.merge_fan_in = 8;
    owner.Reopen();
    for (Ordinal ordinal = 1; ordinal <= 8; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 10)));
    REQUIRE_STATUS_OK(owner.index->Flush());
    for (Ordinal ordinal = 9; ordinal <= 12; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 10)));
    REQUIRE_STATUS_OK(owner.index->Flush());
    owner.index = nullptr;
    const std::string path = owner.RunFiles().at(0);
    Bytes content = *owner.io.Content(path);
    REQUIRE_EQ(content.size(), 13108);  // 3 * 4096 + 80 entries of 10 bytes + 8 zeros + 3 checksums
    switch (row.harm) {
      case Harm::kFlip:
        owner.io.FlipBit(path, row.at, 3);
        break;
      case Harm::kTruncate:
        content.resize(std::min<uint64_t>(row.at, content.size() - 1));
        owner.io.WriteFile(path, content);
        break;
      case Harm::kExtend:
        content.push_back(0);
        owner.io.WriteFile(path, content);
        break;
      case Harm::kRemove:
        REQUIRE_STATUS_OK(owner.io.Remove(path));
        break;
    }
    owner.added_again = 0;
    owner.Reopen();
    CHECK_EQ(owner.added_again, row.seen_at_open ? 8 : 0);
    if (!row.seen_at_open) {
      const std::vector<Fingerprint> keys = owner.shards[3];
      CHECK_CODE(owner.index->Find(keys, [](size_t, Ordinal) {}), kDataLoss);
      CHECK_CODE(owner.index->Health(), kDataLoss);
      CHECK_CODE(owner.index->CheckAll(), kDataLoss);
      CHECK_EQ(owner.index->Stats().runs_damaged, 1);
      const std::vector<Ordinal> affected = ValueOf(owner.index->DropDamaged());
      CHECK_EQ(affected, std::vector<Ordinal>{1, 2, 3, 4, 5, 6, 7, 8});
      CHECK_FALSE(owner.index->Covers(3));
      CHECK_CODE(owner.index->Find(keys, [](size_t, Ordinal) {}), kUnavailable);
      for (const Ordinal ordinal : affected) REQUIRE_STATUS_OK(owner.AddShard(ordinal));
    }
    CHECK_STATUS_OK(owner.index->Health());
    owner.Check();
    CHECK_STATUS_OK(owner.index->Flush());
    owner.index->AwaitIdle();
    CHECK_EQ(owner.RunFiles().size(), 2);
    owner.added_again = 0;
    owner.Reopen();
    CHECK_EQ(owner.added_again, 0);
    owner.Check();
  }
}

TEST_CASE("top index: runs of an older format are made again, those of a newer one are left alone") {
  for (const uint32_t version : {1, 3}) {
    CAPTURE(version);
    Owner owner;
    owner.Reopen();
    for (Ordinal ordinal = 1; ordinal <= 3; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 10)));
    REQUIRE_STATUS_OK(owner.index->Flush());
    owner.index = nullptr;
    const std::string path = owner.RunFiles().at(0);
    Bytes content = *owner.io.Content(path);
    Store32(&content[8], version);
    Store32(&content[60], Crc32c(Span(content).first(60)));
    owner.io.WriteFile(path, content);
    // The manifest of that time named this header.
    std::string manifest = ValueOf(owner.kv.Get(KvTable::kTopIndex, "manifest")).value();
    manifest.replace(16 + 24, 4, reinterpret_cast<const char*>(&content[60]), 4);
    manifest.resize(manifest.size() - 4);
    Append32(manifest, Crc32c(AsSpan(manifest)));
    KvBatch batch;
    batch.Put(KvTable::kTopIndex, "manifest", manifest);
    REQUIRE_STATUS_OK(owner.kv.Commit(batch, true));
    owner.added_again = 0;
    if (version > 2) {
      CHECK_CODE(owner.Open(), kFailedPrecondition);
      CHECK_EQ(owner.RunFiles(), std::vector<std::string>{path});
      continue;
    }
    owner.Reopen();
    CHECK_EQ(owner.added_again, 3);
    owner.Check();
  }
}

TEST_CASE("top index: damage of a mapped run after its first use is found by the check and by each find from then on") {
  TempDir dir;
  const auto kv = NewMemoryKv();
  const TopIndexOptions options{.dir = dir.File("top"), .buffer_entries_max = 1000, .merge_fan_in = 8};
  const auto index = ValueOf(OpenTopIndex(options, *kv, Io::Posix()));
  REQUIRE_STATUS_OK(index->Add(1, Own(1, 100)));
  index->Seal(1);
  REQUIRE_STATUS_OK(index->Flush());
  CHECK_EQ(FindOne(*index, Own(1, 100)[7]), std::set<Ordinal>{1});
  for (const uint64_t at : {4098, 12'300}) {
    std::fstream file(options.dir + "/run-0000000000000001.top", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put('\xff');
    file.put('\xff');
  }
  CHECK_CODE(index->CheckAll(), kDataLoss);
  size_t found = 0;
  CHECK_CODE(index->Find(Own(1, 100), [&](size_t, Ordinal) { ++found; }), kDataLoss);
  CHECK_LE(found, 100);
}

TEST_CASE("top index: runs that are not listed are removed at open, other files are not") {
  Owner owner;
  owner.io.WriteFile("top/run-00000000000000ff.top", AsSpan("x"));
  owner.io.WriteFile("top/run-0000000000000001.tmp", AsSpan("x"));
  owner.io.WriteFile("top/run-1.top", AsSpan("x"));
  owner.io.WriteFile("top/run-000000000000000g.top", AsSpan("x"));
  owner.io.WriteFile("top/README", AsSpan("x"));
  owner.Reopen();
  CHECK_EQ(owner.io.Files(), std::vector<std::string>{"top/README", "top/run-000000000000000g.top", "top/run-1.top"});
}

TEST_CASE("top index: a damaged manifest or coverage means adding again, a newer one is left alone") {
  Owner owner;
  owner.Reopen();
  for (Ordinal ordinal = 1; ordinal <= 3; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 10)));
  const auto change = [&](const std::string& key, const std::function<void(std::string&)>& edit) {
    REQUIRE_STATUS_OK(owner.index->Flush());
    owner.index = nullptr;
    std::string value = ValueOf(owner.kv.Get(KvTable::kTopIndex, key)).value();
    edit(value);
    KvBatch batch;
    batch.Put(KvTable::kTopIndex, key, value);
    REQUIRE_STATUS_OK(owner.kv.Commit(batch, true));
    owner.added_again = 0;
  };
  for (const std::string& key : {std::string("manifest"), std::string("covered/\0\0\0\0", 12)}) {
    for (const bool cut : {false, true}) {
      change(key, [&](std::string& value) {
        if (cut) value.pop_back(); else value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 1);
      });
      owner.Reopen();
      CHECK_EQ(owner.added_again, 3);
      owner.Check();
    }
  }
  const std::vector<std::string> before = owner.io.Files();
  change("manifest", [](std::string& value) {  // as version 1 wrote it, without ranges
    std::string old = value.substr(0, 16);
    old[0] = 1;
    for (size_t at = 16; at + 32 < value.size(); at += 32) old += value.substr(at, 28);
    Append32(old, Crc32c(AsSpan(old)));
    value = old;
  });
  owner.added_again = 0;
  owner.Reopen();
  CHECK_EQ(owner.added_again, 0);
  owner.Check();
  change("manifest", [](std::string& value) {
    value[0] = 3;
    value.resize(value.size() - 4);
    Append32(value, Crc32c(AsSpan(value)));
  });
  const std::vector<std::string> files = owner.io.Files();
  CHECK_CODE(owner.Open(), kFailedPrecondition);
  CHECK_EQ(owner.io.Files(), files);
}

TEST_CASE("top index: an error of the disk that may pass is returned by open and changes nothing") {
  Owner owner;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 10)));
  REQUIRE_STATUS_OK(owner.index->Flush());
  owner.index = nullptr;
  owner.io.FailNth(FakeIo::Op::kOpen, 1, ResourceExhausted("too many open files"));
  CHECK_CODE(owner.Open(), kResourceExhausted);
  owner.added_again = 0;
  owner.Reopen();
  CHECK_EQ(owner.added_again, 0);
  owner.Check();
}

TEST_CASE("top index: the same 100 blocks in 10,000 shards are 1,000,000 entries, all found") {
  Owner owner;
  owner.options.buffer_entries_max = 200'000;
  owner.options.merge_fan_in = 4;
  owner.Reopen();
  const std::vector<Fingerprint> keys = Own(1, 100);
  // Equal keys are chained, not probed for: were an addition to look at those before, this would be 10^10 steps.
  for (Ordinal ordinal = 1; ordinal <= 10'000; ++ordinal) REQUIRE_STATUS_OK(owner.index->Add(ordinal, keys));
  std::vector<size_t> found(keys.size());
  for (const bool in_runs : {false, true}) {
    if (in_runs) {
      CHECK_STATUS_OK(owner.index->Compact());
      CHECK_EQ(owner.index->Stats().buffered, 0);
    }
    CHECK_EQ(owner.index->Stats().entries, 1'000'000);
    std::fill(found.begin(), found.end(), 0);
    CHECK_STATUS_OK(owner.index->Find(keys, [&](size_t at, Ordinal) { ++found[at]; }));
    CHECK_EQ(found, std::vector<size_t>(100, 10'000));
    CHECK(FindOne(*owner.index, keys[0] ^ 1 << 13).empty());  // beside a popular key
  }
  // In lists: about a byte for each.
  CHECK_EQ(owner.index->Stats().lists, 100);
  CHECK_LE(owner.index->Stats().bytes, 1'250'000);
}

TEST_CASE("top index: the shards of a popular block come in pages, from tables, entries and lists alike") {
  for (const uint64_t resident : {uint64_t{0}, uint64_t{1} << 20}) {
    CAPTURE(resident);
    Owner owner;
    owner.options.buffer_entries_max = 60'000;
    owner.options.merge_fan_in = 2;
    owner.options.resident_bytes_max = resident;
    owner.Reopen();
    constexpr Ordinal kShards = 50'000;  // more than three lists
    const Fingerprint popular = MixBits(77), rare = MixBits(78);
    // Odd ones first, so that lists have to be merged one into the other.
    for (const Ordinal parity : {1, 0}) {
      for (Ordinal ordinal = 2 - parity; ordinal <= kShards; ordinal += 2) {
        REQUIRE_STATUS_OK(owner.index->Add(ordinal, Sorted({popular, MixBits(uint64_t{1} << 40 | ordinal)})));
        if (ordinal % 1000 == 0) REQUIRE_STATUS_OK(owner.index->Add(ordinal, {rare}));
      }
    }
    for (const bool compacted : {false, true}) {
      if (compacted) {
        REQUIRE_STATUS_OK(owner.index->Compact());
        CHECK_EQ(owner.index->Stats().runs, 1);
        CHECK_EQ(owner.index->Stats().lists, 4);
      }
      std::vector<Ordinal> page, all;
      do {
        REQUIRE_STATUS_OK(owner.index->FindPage(popular, all.empty() ? 0 : all.back(), 999, page));
        CHECK_LE(page.size(), 999);
        all.insert(all.end(), page.begin(), page.end());
      } while (page.size() == 999);
      REQUIRE_EQ(all.size(), kShards);
      for (Ordinal i = 0; i < kShards; ++i) REQUIRE_EQ(all[i], i + 1);
      REQUIRE_STATUS_OK(owner.index->FindPage(popular, kShards - 1, 5, page));
      CHECK_EQ(page, std::vector<Ordinal>{kShards});
      REQUIRE_STATUS_OK(owner.index->FindPage(popular, kShards, 5, page));
      CHECK(page.empty());
      REQUIRE_STATUS_OK(owner.index->FindPage(popular, 0, 0, page));
      CHECK(page.empty());
      REQUIRE_STATUS_OK(owner.index->FindPage(rare, 2000, 2, page));
      CHECK_EQ(page, std::vector<Ordinal>{3000, 4000});
      // At most so many; fewer are all there are.
      for (const size_t most : {0, 1, 63, 1000}) {
        std::set<Ordinal> some, of_rare;
        const std::vector<Fingerprint> keys = {popular, rare};
        REQUIRE_STATUS_OK(owner.index->Find(
            keys, [&](size_t at, Ordinal ordinal) { CHECK((at == 0 ? some : of_rare).insert(ordinal).second); }, most));
        CHECK_EQ(some.size(), most);
        CHECK_EQ(of_rare.size(), std::min<size_t>(most, 50));
      }
    }
    owner.index->Drop(3);
    std::vector<Ordinal> page;
    REQUIRE_STATUS_OK(owner.index->FindPage(popular, 1, 3, page));
    CHECK_EQ(page, std::vector<Ordinal>{2, 4, 5});
    CHECK_STATUS_OK(owner.index->CheckAll());
  }
}

TEST_CASE("top index: with nothing resident a lookup reads the disk once in each run") {
  Owner owner;
  owner.options.buffer_entries_max = 100'000;
  owner.options.resident_bytes_max = 0;
  owner.Reopen();
  for (Ordinal ordinal = 1; ordinal <= 40; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 1000)));
  REQUIRE_STATUS_OK(owner.index->Flush());
  REQUIRE_EQ(owner.index->Stats().runs, 1);
  CHECK_EQ(owner.index->Stats().resident_bytes, 0);
  owner.Check();  // from here on all is checked
  const uint64_t calls = owner.io.calls();
  for (Ordinal ordinal = 1; ordinal <= 40; ++ordinal)
    for (const Fingerprint key : Own(ordinal, 5)) {
      size_t found = 0;
      CHECK_STATUS_OK(owner.index->Find({&key, 1}, [&](size_t, Ordinal) { ++found; }));
      CHECK_EQ(found, 1);
    }
  CHECK_EQ(owner.io.calls() - calls, 200);
  owner.options.resident_bytes_max = 1 << 20;
  owner.Reopen();
  owner.Check();
  CHECK_GE(owner.index->Stats().resident_bytes, 40'000 * 125 / 100);
  const uint64_t calls_resident = owner.io.calls();
  for (const Fingerprint key : Own(7, 100)) FindOne(*owner.index, key);
  CHECK_EQ(owner.io.calls(), calls_resident);  // the mapping is cached: no call at all
}

TEST_CASE("top index: a disk that fills up during a merge loses nothing, and the merge goes on when there is room") {
  Owner owner;
  owner.options.buffer_entries_max = 1000;
  owner.options.merge_fan_in = 4;
  owner.Reopen();
  Ordinal next = 1;
  const auto add_run = [&] {
    for (const Ordinal end = next + 20; next < end; ++next) REQUIRE_STATUS_OK(owner.New(next, Own(next, 40)));
    REQUIRE_STATUS_OK(owner.index->Flush());
    owner.index->AwaitIdle();
  };
  for (int i = 0; i < 3; ++i) add_run();
  REQUIRE_EQ(owner.index->Stats().runs, 3);
  const uint64_t merges = owner.index->Stats().merges;
  for (int i = 0; i < 20; ++i) REQUIRE_STATUS_OK(owner.New(next + static_cast<Ordinal>(i), Own(next, 40)));
  next += 20;
  // Room for the fourth run, not for the four merged.
  owner.io.FailAfterBytes(40'000);
  REQUIRE_STATUS_OK(owner.index->Flush());
  owner.index->AwaitIdle();
  TopIndexStats stats = owner.index->Stats();
  CHECK_EQ(stats.runs, 4);
  CHECK_EQ(stats.merges, merges);
  CHECK_GE(stats.merge_failures, 1);
  CHECK_EQ(owner.RunFiles().size(), 4);
  owner.Check();
  CHECK_STATUS_OK(owner.index->Health());
  owner.io.Heal();
  REQUIRE_STATUS_OK(owner.New(next, Own(next, 1)));
  REQUIRE_STATUS_OK(owner.index->Flush());
  owner.index->AwaitIdle();
  stats = owner.index->Stats();
  CHECK_EQ(stats.merges, merges + 1);
  CHECK_LE(stats.runs, 2);
  owner.Check();
  owner.added_again = 0;
  owner.Reopen();
  CHECK_EQ(owner.added_again, 0);
  owner.Check();
}

// Goal: a merge takes the memory of its buffers, whatever it merges: runs of many keys, and lists of a million shards.
TEST_CASE("top index: a merge of a million entries and of a block of a million shards takes no more than 4 MiB") {
  TempDir dir;
  HeapWatchingIo io;
  const auto kv = NewMemoryKv();
  const TopIndexOptions options{.dir = dir.File("top"), .buffer_entries_max = 250'000, .merge_fan_in = 100};
  const auto index = ValueOf(OpenTopIndex(options, *kv, io));
  const Fingerprint popular = MixBits(5);
  constexpr Ordinal kShards = 1'000'000;
  for (Ordinal ordinal = 1; ordinal <= kShards; ++ordinal) REQUIRE_STATUS_OK(index->Add(ordinal, {popular}));
  for (Ordinal ordinal = 1; ordinal <= 8; ++ordinal) REQUIRE_STATUS_OK(index->Add(ordinal, Own(ordinal, 125'000)));
  REQUIRE_STATUS_OK(index->Flush());
  index->AwaitIdle();
  REQUIRE_GE(index->Stats().runs, 12);
  const uint64_t before = HeapBytes(), writes = io.writes;
  io.most = before;
  REQUIRE_STATUS_OK(index->Compact());
  CHECK_GT(io.writes - writes, 20);
  CHECK_LE(io.most - before, 4 << 20);
  const TopIndexStats stats = index->Stats();
  CHECK_EQ(stats.runs, 1);
  CHECK_EQ(stats.entries, 2'000'000);
  CHECK_EQ(stats.lists, kShards / kListOrdinalsMax + 1);
  std::vector<Ordinal> page;
  REQUIRE_STATUS_OK(index->FindPage(popular, 999'990, 100, page));
  CHECK_EQ(page.size(), 10);
}

// Goal: what an uploader chooses has no influence on where keys land, so hostile shards cost what others cost.
// Method: counts of slots that a lookup would scan, and of the bytes written.
TEST_CASE("top index: clustered, short, identity and repeated digests cost no more than random ones") {
  SipKey secret;
  for (size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<uint8_t>(17 * i);
  constexpr size_t kKeys = 40'000;
  enum class Kind { kRandom, kClustered, kShort, kIdentity, kRepeated };
  std::map<Kind, uint64_t> bytes, longest;
  for (const Kind kind : {Kind::kRandom, Kind::kClustered, Kind::kShort, Kind::kIdentity, Kind::kRepeated}) {
    CAPTURE(static_cast<int>(kind));
    std::vector<Fingerprint> keys;
    for (size_t i = 0; i < kKeys; ++i) {
      uint8_t digest[32] = {};
      if (kind == Kind::kRandom) {
        for (size_t at = 0; at < 4; ++at) Store64(digest + 8 * at, MixBits(4 * i + at));
      } else {
        Store32(digest + (kind == Kind::kClustered ? 28 : 0), static_cast<uint32_t>(i));
      }
      const size_t size = kind == Kind::kShort || kind == Kind::kIdentity ? 4 : 32;
      keys.push_back(FingerprintOf(secret, {kind == Kind::kIdentity ? kIdentity : kSha2_256, Span(digest, size)}));
      if (kind == Kind::kRepeated) keys.resize(keys.size() + 3, keys.back());
    }
    Owner owner;
    owner.options.buffer_entries_max = 100'000;
    owner.Reopen();
    keys = Sorted(std::move(keys));
    const size_t part = keys.size() / 8 / 4 * 4;
    for (Ordinal ordinal = 1; ordinal <= 8; ++ordinal) {
      const auto begin = keys.begin() + static_cast<ptrdiff_t>((ordinal - 1) * part);
      REQUIRE_STATUS_OK(owner.New(ordinal, {begin, ordinal == 8 ? keys.end() : begin + static_cast<ptrdiff_t>(part)}));
    }
    REQUIRE_STATUS_OK(owner.index->Flush());
    REQUIRE_EQ(owner.RunFiles().size(), 1);
    CHECK_EQ(owner.index->Stats().entries, kKeys);
    bytes[kind] = owner.index->Stats().bytes;
    const auto run = ValueOf(TopRun::FromMemory(*owner.io.Content(owner.RunFiles()[0])));
    for (const Fingerprint key : keys) {
      const TopRun::Range range = run->PrefetchEntries(RunKeyOf(key));
      longest[kind] = std::max<uint64_t>(longest[kind], static_cast<uint64_t>(range.end - range.begin) / 9);
    }
    CHECK_EQ(bytes[kind], bytes[Kind::kRandom]);
    CHECK_LE(longest[kind], 40);  // of about 9.8 in the mean
  }
}

TEST_CASE("top index: dropping a shard of 1,000,000 blocks touches no file and no table, and hides all of it at once") {
  Owner owner;
  owner.options.buffer_entries_max = 1 << 20;
  owner.options.merge_fan_in = 8;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 1'000'000)));
  for (Ordinal ordinal = 2; ordinal < 40'000; ordinal += 100) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 3)));
  owner.index->AwaitIdle();
  const std::vector<Fingerprint> keys = owner.shards[1];
  size_t found = 0;
  CHECK_STATUS_OK(owner.index->Find(keys, [&](size_t, Ordinal) { ++found; }));  // which checks what it reads
  CHECK_EQ(found, keys.size());
  const uint64_t calls = owner.io.calls(), commits = owner.kv.SyncCount();
  owner.Drop(1);
  found = 0;
  CHECK_STATUS_OK(owner.index->Find(keys, [&](size_t, Ordinal) { ++found; }));
  CHECK_EQ(found, 0);
  CHECK_EQ(owner.io.calls(), calls);
  CHECK_EQ(owner.kv.SyncCount(), commits);
  // The next write counts the dead, and the run, all dead, goes.
  CHECK_STATUS_OK(owner.index->Flush());
  owner.index->AwaitIdle();
  CHECK_EQ(owner.index->Stats().entries, 400 * 3);
  owner.Check();
}

TEST_CASE("top index: a shard as large as a quarter of the table is a run of its own, of key remainders only") {
  Owner owner;
  owner.options.buffer_entries_max = 400'000;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.index->Add(1, Own(1, 99'999)));
  CHECK_EQ(owner.index->Stats().runs, 0);
  REQUIRE_STATUS_OK(owner.index->Add(2, Own(2, 100'000)));
  CHECK_EQ(owner.index->Stats().runs, 1);
  CHECK_EQ(owner.index->Stats().buffered, 99'999);
  CHECK_LE(owner.index->Stats().bytes, 100'000 * 72 / 10);  // 5 of the key, directory, filter
  for (const Fingerprint key : Own(2, 100)) CHECK_EQ(FindOne(*owner.index, key), std::set<Ordinal>{2});
}

TEST_CASE("top index: merges drop dead entries, repeats and the files they replace") {
  Owner owner;
  owner.options.buffer_entries_max = 1000;
  owner.options.merge_fan_in = 3;
  owner.Reopen();
  for (Ordinal ordinal = 1; ordinal <= 30; ++ordinal) {
    REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 20)));
    REQUIRE_STATUS_OK(owner.AddShard(ordinal));  // twice: the index cannot know that it was there
    if (ordinal % 10 == 0) REQUIRE_STATUS_OK(owner.index->Flush());
  }
  owner.index->AwaitIdle();
  TopIndexStats stats = owner.index->Stats();
  CHECK_EQ(stats.flushes, 3);
  CHECK_EQ(stats.merges, 1);
  CHECK_EQ(stats.runs, 1);
  CHECK_EQ(stats.entries, 30 * 20);
  CHECK_EQ(owner.RunFiles().size(), 1);
  owner.Check();
  // A quarter may be dead; more is a reason to write the run again.
  for (Ordinal ordinal = 1; ordinal <= 7; ++ordinal) owner.Drop(ordinal);
  owner.index->AwaitIdle();
  CHECK_EQ(owner.index->Stats().merges, 1);
  CHECK_EQ(owner.index->Stats().dead, 7 * 20);
  for (Ordinal ordinal = 8; ordinal <= 9; ++ordinal) owner.Drop(ordinal);
  owner.index->AwaitIdle();
  stats = owner.index->Stats();
  CHECK_EQ(stats.merges, 2);
  CHECK_EQ(stats.entries, 21 * 20);
  CHECK_EQ(stats.dead, 0);
  CHECK_EQ(owner.RunFiles().size(), 1);
  owner.Check();
  for (const auto& [ordinal, keys] : std::map(owner.shards)) owner.Drop(ordinal);
  owner.index->AwaitIdle();
  CHECK_EQ(owner.index->Stats().runs, 0);
  CHECK(owner.RunFiles().empty());
}

TEST_CASE("top index: a run that a reader holds outlives its merge") {
  Owner owner;
  owner.options.buffer_entries_max = 1000;
  owner.Reopen();
  REQUIRE_STATUS_OK(owner.New(1, Own(1, 100)));
  REQUIRE_STATUS_OK(owner.index->Flush());
  REQUIRE_STATUS_OK(owner.New(2, Own(2, 100)));
  size_t found = 0;
  const std::vector<Fingerprint> keys = Own(1, 100);
  REQUIRE_STATUS_OK(owner.index->Find(keys, [&](size_t, Ordinal) {
    if (found++ != 0) return;
    REQUIRE_STATUS_OK(owner.index->Flush());
    owner.index->AwaitIdle();
    CHECK_EQ(owner.index->Stats().runs, 1);
    CHECK_EQ(owner.index->Stats().merges, 1);
    CHECK_EQ(owner.RunFiles().size(), 2);  // the merged one, and the one held
  }));
  CHECK_EQ(found, 100);
  owner.index->AwaitIdle();
  CHECK_EQ(owner.RunFiles().size(), 1);
}

TEST_CASE("top index: in memory it behaves the same, with no file and no commit") {
  Owner owner;
  owner.options.dir = "";
  owner.Reopen();
  for (Ordinal ordinal = 1; ordinal <= 40; ++ordinal) REQUIRE_STATUS_OK(owner.New(ordinal, Own(ordinal, 15)));
  for (Ordinal ordinal = 1; ordinal <= 40; ordinal += 2) owner.Drop(ordinal);
  owner.Check();
  CHECK_STATUS_OK(owner.index->Flush());
  owner.index->AwaitIdle();
  owner.Check();
  CHECK_STATUS_OK(owner.index->Compact());  // a run of which little is dead may stay as it is until then
  owner.Check();
  CHECK_EQ(owner.index->Stats().entries, 20 * 15);
  CHECK_STATUS_OK(owner.index->CheckAll());
  CHECK_EQ(owner.kv.SyncCount(), 0);
  CHECK_EQ(owner.io.calls(), 0);
}

TEST_CASE("top index: options that cannot work are refused") {
  Owner owner;
  owner.options.merge_fan_in = 1;
  CHECK_CODE(owner.Open(), kInvalidArgument);
  owner.options.merge_fan_in = 2;
  owner.options.buffer_entries_max = 0;
  CHECK_CODE(owner.Open(), kInvalidArgument);
}

// Goal: readers, writers and the merging thread share nothing without a rule. For ThreadSanitizer; elsewhere it shows
// that what one thread has added, sealed and not dropped is found while all else goes on.
TEST_CASE("top index: finds are complete while others add, drop, flush and merge") {
  TempDir dir;
  const auto kv = NewMemoryKv();
  const TopIndexOptions options{.dir = dir.File("top"), .buffer_entries_max = 512, .merge_fan_in = 2};
  const auto index = ValueOf(OpenTopIndex(options, *kv, Io::Posix()));
  constexpr Ordinal kWriters = 2, kShards = 150;
  std::atomic<uint64_t> missing{0}, errors{0};
  std::atomic<int> writing{kWriters};
  std::vector<std::thread> threads;
  for (Ordinal writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      for (Ordinal i = 1; i <= kShards; ++i) {
        const Ordinal ordinal = i * kWriters + writer;
        const size_t size = i % 50 == 0 ? 200 : 20;
        if (!index->Add(ordinal, Own(ordinal, size)).ok()) ++errors;
        index->Seal(ordinal);
        bool found = false;
        const std::vector<Fingerprint> keys = Own(ordinal, size);
        const std::span<const Fingerprint> last(&keys.back(), 1);
        if (!index->Find(last, [&](size_t, Ordinal seen) { found |= seen == ordinal; }).ok()) ++errors;
        if (!found) ++missing;
        if (i % 3 == 0) index->Drop(ordinal);
        if (i % 40 == 0 && !index->Flush().ok()) ++errors;
      }
      --writing;
    });
  }
  threads.emplace_back([&] {
    const std::vector<Fingerprint> keys = Own(kWriters, 20);  // the first shard of the first writer, never dropped
    bool seen = false;
    do {
      size_t found = 0;
      if (!index->Find(keys, [&](size_t, Ordinal) { ++found; }).ok()) ++errors;
      if (seen && found != keys.size()) ++missing;
      seen = found == keys.size();
      index->Stats();
    } while (writing != 0);
  });
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(missing, 0);
  CHECK_EQ(errors, 0);
  CHECK_STATUS_OK(index->Flush());
  index->AwaitIdle();
  CHECK_STATUS_OK(index->CheckAll());
}

}  // namespace dagstore
