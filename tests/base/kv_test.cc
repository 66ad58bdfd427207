#include "base/kv.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/conformance/kv_suite.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

std::unique_ptr<Kv> OpenKv(const std::string& path, const RocksKvOptions& options = {}) {
  return ValueOf(OpenRocksKv(path, options));
}

absl::Status TryOpen(const std::string& path) { return OpenRocksKv(path, {}).status(); }

// The folder as a kill -9 at this moment would leave it.
void CopyAsIfKilled(const std::string& from, const std::string& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

std::vector<fs::path> FilesEndingIn(const std::string& dir, const std::string& end) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir)) {
    if (entry.path().filename().string().ends_with(end)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path Manifest(const std::string& dir) {
  std::string name;
  std::ifstream(dir + "/CURRENT") >> name;
  return fs::path(dir) / name;
}

// The log that holds something.
fs::path Log(const std::string& dir) {
  for (const fs::path& path : FilesEndingIn(dir, ".log")) {
    if (fs::file_size(path) > 0) return path;
  }
  FAIL("no log with records in it");
  return {};
}

void Overwrite(const fs::path& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

void FlipByte(const fs::path& path, uint64_t offset) {
  REQUIRE_LT(offset, fs::file_size(path));
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 0x10));
  REQUIRE(file.good());
}

TEST_CASE("kv tables: names are distinct and stay as they are on disk") {
  const std::vector<std::string> names = {"meta",      "records", "destroying", "indexes",
                                          "top_index", "roots",   "manifests",  "quarantine"};
  REQUIRE_EQ(names.size(), kKvTables);
  for (size_t i = 0; i < kKvTables; ++i) CHECK_EQ(KvTableName(static_cast<KvTable>(i)), names[i]);
}

TEST_CASE("kv batch: counts its bytes, and append moves all of them") {
  KvBatch a, b;
  a.Put(KvTable::kMeta, "key", "value");
  b.Delete(KvTable::kRoots, "1234");
  b.DeletePrefix(KvTable::kRoots, "12");
  CHECK_EQ(a.bytes(), 8);
  CHECK_EQ(b.bytes(), 6);
  a.Append(std::move(b));
  CHECK_EQ(a.bytes(), 14);
  REQUIRE_EQ(a.changes().size(), 3);
  CHECK_EQ(a.changes()[1].key, "1234");
  CHECK(a.changes()[2].kind == KvBatch::Kind::kDeletePrefix);
  CHECK(b.empty());
  CHECK_EQ(b.bytes(), 0);
  a.Append(KvBatch());
  CHECK_EQ(a.changes().size(), 3);
}

TEST_CASE("kv prefix end: is the least key after the prefix") {
  CHECK_EQ(KvPrefixEnd("a"), "b");
  CHECK_EQ(KvPrefixEnd("a\xff\xff"), "b");
  CHECK_EQ(KvPrefixEnd("\0"s), "\x01");
  CHECK_EQ(KvPrefixEnd("a\x7f"), "a\x80");
  for (const std::string& prefix : {"\xff"s, "\xff\xff"s, std::string(kKvKeyBytesMax, '\xff')}) {
    CHECK_GT(KvPrefixEnd(prefix), std::string(kKvKeyBytesMax, '\xff'));
  }
}

TEST_CASE("memory kv: passes the suite") { RunKvSuite(NewMemoryKv); }

TEST_CASE("memory kv: a cursor outlives commits and its own table's copy") {
  const std::unique_ptr<Kv> kv = NewMemoryKv();
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"a", "b"}), false));
  const std::unique_ptr<KvCursor> first = kv->Scan(KvTable::kMeta);
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"c"}), false));
  const std::unique_ptr<KvCursor> second = kv->Scan(KvTable::kMeta);
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"d"}), false));
  CHECK_EQ(KeysOf(WalkKv(*first)), std::vector<std::string>{"a", "b"});
  CHECK_EQ(KeysOf(WalkKv(*second)), std::vector<std::string>{"a", "b", "c"});
  CHECK_EQ(kv->SizeBytes(), 0);
}

TEST_CASE("rocks kv: passes the suite") {
  const TempDir dir;
  int made = 0;
  RunKvSuite([&] { return OpenKv(dir.File(std::to_string(++made))); });
}

TEST_CASE("rocks kv: what was committed is there after a close") {
  const TempDir dir;
  const std::string path = dir.File("nested/kv");
  for (int round = 0; round < 3; ++round) {
    const std::unique_ptr<Kv> kv = OpenKv(path);
    CHECK_EQ(ScanKv(*kv, KvTable::kRecords).size(), static_cast<size_t>(round));
    REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"k" + std::to_string(round)}), false));
  }
  struct stat found;
  REQUIRE_EQ(::stat(path.c_str(), &found), 0);
  CHECK_EQ(found.st_mode & 07777, 0700);
}

TEST_CASE("rocks kv: what was synced is there after a kill") {
  const TempDir dir;
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"a"}), true));
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kIndexes, {"b"}), false));
  REQUIRE_STATUS_OK(kv->Commit(KvBatch(), true));  // the barrier covers b
  CopyAsIfKilled(dir.File("kv"), dir.File("copy"));
  const std::unique_ptr<Kv> copy = OpenKv(dir.File("copy"));
  CHECK_EQ(KeysOf(ScanKv(*copy, KvTable::kRecords)), std::vector<std::string>{"a"});
  CHECK_EQ(KeysOf(ScanKv(*copy, KvTable::kIndexes)), std::vector<std::string>{"b"});
}

TEST_CASE("rocks kv: a torn end of the log loses the torn batch only") {
  const TempDir dir;
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"a"}), true));
  const uint64_t whole = fs::file_size(Log(dir.File("kv")));
  REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"b", "c"}), true));
  const uint64_t end = fs::file_size(Log(dir.File("kv")));
  REQUIRE_GT(end, whole);
  for (uint64_t size = whole; size < end; size += 5) {
    CAPTURE(size);
    CopyAsIfKilled(dir.File("kv"), dir.File("copy"));
    fs::resize_file(Log(dir.File("copy")), size);
    const std::unique_ptr<Kv> copy = OpenKv(dir.File("copy"));
    CHECK_EQ(KeysOf(ScanKv(*copy, KvTable::kRecords)), std::vector<std::string>{"a"});
  }
}

// Goal: damage is named, never served and never rolled back in silence.
TEST_CASE("rocks kv: damaged files are data loss") {
  const TempDir dir;
  const std::string good = dir.File("good");
  {
    const std::unique_ptr<Kv> kv = OpenKv(good);
    for (int i = 0; i < 50; ++i) {
      REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"flushed " + std::to_string(i)}), true));
    }
  }
  const std::unique_ptr<Kv> kv = OpenKv(good);
  for (int i = 0; i < 50; ++i) {
    REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kRecords, {"logged " + std::to_string(i)}), true));
  }
  CopyAsIfKilled(good, dir.File("control"));
  CHECK_STATUS_OK(TryOpen(dir.File("control")));

  struct Case {
    const char* what;
    std::function<void(const std::string&)> damage;
  };
  const Case cases[] = {
      {"CURRENT is gone", [](const std::string& path) { fs::remove(path + "/CURRENT"); }},
      {"CURRENT is empty", [](const std::string& path) { Overwrite(path + "/CURRENT", ""); }},
      {"CURRENT is garbage", [](const std::string& path) { Overwrite(path + "/CURRENT", "\0\0\0\0\0\0"s); }},
      {"CURRENT names another file",
       [](const std::string& path) { Overwrite(path + "/CURRENT", "MANIFEST-999999\n"); }},
      {"MANIFEST is gone", [](const std::string& path) { fs::remove(Manifest(path)); }},
      {"MANIFEST is empty", [](const std::string& path) { fs::resize_file(Manifest(path), 0); }},
      {"MANIFEST has a flipped bit", [](const std::string& path) { FlipByte(Manifest(path), 40); }},
      {"MANIFEST has a flipped bit in the middle",
       [](const std::string& path) { FlipByte(Manifest(path), fs::file_size(Manifest(path)) / 2); }},
      {"a table is gone", [](const std::string& path) { fs::remove(FilesEndingIn(path, ".sst").at(0)); }},
      {"a table is cut",
       [](const std::string& path) {
         const fs::path table = FilesEndingIn(path, ".sst").at(0);
         fs::resize_file(table, fs::file_size(table) / 2);
       }},
      {"the log has a flipped bit at its begin", [](const std::string& path) { FlipByte(Log(path), 20); }},
      {"the log has a flipped bit in the middle",
       [](const std::string& path) { FlipByte(Log(path), fs::file_size(Log(path)) / 2); }},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    const std::string path = dir.File("damaged");
    CopyAsIfKilled(good, path);
    c.damage(path);
    const size_t files = FilesEndingIn(path, ".sst").size();
    CHECK_CODE(TryOpen(path), kDataLoss);
    CHECK_EQ(FilesEndingIn(path, ".sst").size(), files);  // nothing was cleaned away
  }
}

TEST_CASE("rocks kv: a flipped bit in a table is found when it is read") {
  const TempDir dir;
  REQUIRE_STATUS_OK(OpenKv(dir.File("kv"))->Commit(PutAll(KvTable::kRecords, {"a", "b"}), true));
  FlipByte(FilesEndingIn(dir.File("kv"), ".sst").at(0), 10);
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  CHECK_CODE(kv->Get(KvTable::kRecords, "a"), kDataLoss);
  const std::unique_ptr<KvCursor> cursor = kv->Scan(KvTable::kRecords);
  while (cursor->Valid()) cursor->Next();
  CHECK_CODE(cursor->status(), kDataLoss);
}

TEST_CASE("rocks kv: a crash while the first files were made is no damage") {
  const TempDir dir;
  REQUIRE_STATUS_OK(TryOpen(dir.File("kv")));
  fs::create_directory(dir.File("begun"));
  fs::copy(Manifest(dir.File("kv")), dir.File("begun/MANIFEST-000001"));
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("begun"));
  CHECK_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"a"}), true));
}

TEST_CASE("rocks kv: none is made unless asked") {
  const TempDir dir;
  RocksKvOptions options;
  options.create_if_missing = false;
  CHECK_CODE(OpenRocksKv(dir.File("kv"), options), kNotFound);
  CHECK_FALSE(fs::exists(dir.File("kv")));
  CHECK_CODE(OpenRocksKv(dir.path(), options), kNotFound);
  CHECK(fs::is_empty(dir.path()));
  REQUIRE_STATUS_OK(TryOpen(dir.File("kv")));
  CHECK_STATUS_OK(OpenRocksKv(dir.File("kv"), options));
  std::ofstream(dir.File("file")) << "x";
  CHECK_CODE(TryOpen(dir.File("file")), kInvalidArgument);
}

TEST_CASE("rocks kv: a second open in this process is refused") {
  const TempDir dir;
  std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  const absl::Status second = TryOpen(dir.File("kv"));
  CHECK_CODE(second, kFailedPrecondition);
  CHECK_NE(Message(second).find("another process has the repository open"), std::string_view::npos);
  CHECK_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"a"}), true));
  kv.reset();
  CHECK_STATUS_OK(TryOpen(dir.File("kv")));
}

TEST_CASE("rocks kv: a second open while another process holds the lock is refused") {
  const TempDir dir;
  REQUIRE_STATUS_OK(TryOpen(dir.File("kv")));
  const std::string lock = dir.File("kv/LOCK");
  int ready[2];
  int leave[2];
  REQUIRE_EQ(::pipe(ready), 0);
  REQUIRE_EQ(::pipe(leave), 0);
  const pid_t child = ::fork();
  REQUIRE_GE(child, 0);
  if (child == 0) {  // system calls only: no thread of the parent is here
    ::close(leave[1]);
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    const int fd = ::open(lock.c_str(), O_RDWR);
    char byte = ::fcntl(fd, F_SETLK, &whole) == 0 ? 'y' : 'n';
    const bool told = ::write(ready[1], &byte, 1) == 1;
    const bool woken = ::read(leave[0], &byte, 1) >= 0;
    ::_exit(told && woken ? 0 : 1);
  }
  char locked = 'n';
  CHECK_EQ(::read(ready[0], &locked, 1), 1);
  CHECK_EQ(locked, 'y');
  const absl::Status second = TryOpen(dir.File("kv"));
  ::close(leave[1]);
  int result = -1;
  CHECK_EQ(::waitpid(child, &result, 0), child);
  CHECK_EQ(result, 0);
  for (const int fd : {ready[0], ready[1], leave[0]}) ::close(fd);
  CHECK_CODE(second, kFailedPrecondition);
  CHECK_NE(Message(second).find("another process has the repository open"), std::string_view::npos);
  CHECK_STATUS_OK(TryOpen(dir.File("kv")));
}

// Holds a limit of the process down while it lives.
class LimitLowered {
 public:
  LimitLowered(__rlimit_resource resource, rlim_t value) : resource_(resource) {
    REQUIRE_EQ(::getrlimit(resource_, &old_), 0);
    const rlimit low{value, old_.rlim_max};
    REQUIRE_EQ(::setrlimit(resource_, &low), 0);
  }
  ~LimitLowered() { ::setrlimit(resource_, &old_); }

 private:
  const __rlimit_resource resource_;
  rlimit old_{};
};

TEST_CASE("rocks kv: a failed commit is final until the next open, and loses nothing that was acknowledged") {
  const TempDir dir;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
    REQUIRE_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"a"}), true));
    const uint64_t syncs = kv->SyncCount();
    KvBatch large;
    large.Put(KvTable::kMeta, "large", std::string(1 << 20, 'v'));
    absl::Status failed;
    {
      const LimitLowered limit(RLIMIT_FSIZE, 64 << 10);  // the log cannot grow
      failed = kv->Commit(large, true);
    }
    CHECK_CODE(failed, kUnavailable);
    CHECK_EQ(kv->Commit(PutAll(KvTable::kMeta, {"b"}), true), failed);
    CHECK_EQ(kv->Commit(KvBatch(), true), failed);
    CHECK_EQ(kv->SyncCount(), syncs);
    CHECK_EQ(KeysOf(ScanKv(*kv, KvTable::kMeta)), std::vector<std::string>{"a"});  // reads go on
  }
  std::signal(SIGXFSZ, old_handler);
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  CHECK_EQ(KeysOf(ScanKv(*kv, KvTable::kMeta)), std::vector<std::string>{"a"});
  CHECK_STATUS_OK(kv->Commit(PutAll(KvTable::kMeta, {"b"}), true));
}

TEST_CASE("rocks kv: no descriptor left is a limit, not damage") {
  const TempDir dir;
  REQUIRE_STATUS_OK(TryOpen(dir.File("kv")));
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE_GE(next, 0);
  ::close(next);
  for (int room = 0; room < 3; ++room) {
    CAPTURE(room);
    absl::Status status;
    {
      const LimitLowered limit(RLIMIT_NOFILE, static_cast<rlim_t>(next + room));
      status = TryOpen(dir.File("kv"));
    }
    CHECK_CODE(status, kResourceExhausted);
  }
  CHECK_STATUS_OK(TryOpen(dir.File("kv")));
}

TEST_CASE("rocks kv: opening without a write leaves no pile of logs") {
  const TempDir dir;
  for (int i = 0; i < 25; ++i) {
    REQUIRE_STATUS_OK(TryOpen(dir.File("kv")));
    CHECK_LE(FilesEndingIn(dir.File("kv"), ".log").size(), 10);
  }
}

TEST_CASE("rocks kv: a clean close leaves nothing to replay, and large index values in blob files") {
  const TempDir dir;
  {
    const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
    KvBatch batch;
    batch.Put(KvTable::kIndexes, "large", std::string(64 << 10, 'v'));
    batch.Put(KvTable::kRecords, "large", std::string(64 << 10, 'v'));
    REQUIRE_STATUS_OK(kv->Commit(batch, false));
    CHECK_GT(kv->SizeBytes(), 128 << 10);
  }
  for (const fs::path& log : FilesEndingIn(dir.File("kv"), ".log")) CHECK_EQ(fs::file_size(log), 0);
  const std::vector<fs::path> blobs = FilesEndingIn(dir.File("kv"), ".blob");
  REQUIRE_EQ(blobs.size(), 1);
  CHECK_GT(fs::file_size(blobs[0]), 64 << 10);
  CHECK_LT(fs::file_size(blobs[0]), 80 << 10);
  const std::unique_ptr<Kv> kv = OpenKv(dir.File("kv"));
  CHECK_EQ(ValueOf(kv->Get(KvTable::kIndexes, "large")), std::string(64 << 10, 'v'));
  CHECK_GT(kv->SizeBytes(), 128 << 10);
}

}  // namespace
}  // namespace dagstore
