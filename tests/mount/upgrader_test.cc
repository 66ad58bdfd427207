#include "mount/upgrader.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "mount/bytes_mount.h"
#include "mount/file_mount.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_io.h"
#include "tests/mount/remote_suite.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;
constexpr size_t kSize = 3'000'001;  // a few blocks and a rest

void WriteFile(const std::string& path, Span content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(content.data()),
             static_cast<std::streamsize>(content.size()));
  file.close();
  REQUIRE(file.good());
}

class CountingGate final : public SpaceGate {  // any worker thread asks it
 public:
  absl::Status Take(uint64_t bytes, const WorkContext&) override {
    if (TryTake(bytes)) return absl::OkStatus();
    return ResourceExhausted("the transients have used up their {} bytes", limit);
  }
  bool TryTake(uint64_t bytes) override {
    const MutexLock lock(mutex);
    if (bytes > left) return false;
    left -= bytes;
    return true;
  }
  void Return(uint64_t bytes) override {
    const MutexLock lock(mutex);
    left += bytes;
  }
  void Add(const std::string& name, uint64_t bytes) override {
    const MutexLock lock(mutex);
    held[name] += bytes;
  }
  void Drop(const std::string& name, uint64_t bytes) override {
    const MutexLock lock(mutex);
    held[name] -= bytes;
    left += bytes;
  }
  uint64_t BytesOf(const std::string& name) const override {
    const MutexLock lock(mutex);
    const auto it = held.find(name);
    return it == held.end() ? 0 : it->second;
  }
  void Used(const std::string&) override {}
  void Gone(const std::string& name) override {
    const MutexLock lock(mutex);
    left += held[name];
    held.erase(name);
  }

  mutable Mutex mutex;
  uint64_t limit = uint64_t{1} << 30;
  uint64_t left = limit;
  std::map<std::string, uint64_t> held;
};

struct World {
  explicit World(Io& io = Io::Posix()) : io(io) {
    source.content = TestContent(kSize);
    options.folder = dir.File("transients");
    options.boot_id = "boot1";
    options.space = std::shared_ptr<SpaceGate>(std::shared_ptr<SpaceGate>(), &gate);
    upgrader = ValueOf(Upgrader::Open(io, options));
  }

  absl::StatusOr<Upgraded> Upgrade(const WorkContext& work = {}) {
    return upgrader->Upgrade(mount, spec, io, work);
  }
  std::vector<std::string> Files() const { return ValueOf(io.List(options.folder)); }
  std::string Path(const std::string& name) const { return options.folder + "/" + name; }
  bool Reads(const Upgraded& upgraded, Span content) const {
    Bytes all(upgraded.reader->Size());
    REQUIRE_STATUS_OK(upgraded.reader->Read(0, all.size(), all.data()));
    return SameBytes(all, content);
  }
  // Nothing is left of a failed call.
  void CheckClean() const {
    CHECK(Files().empty());
    CHECK_EQ(gate.left, gate.limit);
    CHECK_EQ(source.streams_open, 0);
  }

  Io& io;
  TempDir dir;
  CountingGate gate;
  RemoteSource source;
  RemoteMount mount{source, ValueOf(Url::Parse("remote://me:CANARY@host/a.car?sig=CANARY"))};
  UpgraderOptions options;
  std::unique_ptr<Upgrader> upgrader;
  TransientSpec spec{.name_stem = "abc234", .generation = 7};
};

TEST_CASE("remote mount: passes the suite") {
  RemoteSource source;
  CheckRemoteMount(source);
}

TEST_CASE("upgrader: a local random mount passes through") {
  World world;
  WriteFile(world.dir.File("a.car"), TestContent(1000));
  const auto file =
      ValueOf(FileMountFactory({})(ValueOf(Url::Parse("file://" + world.dir.File("a.car")))));
  const auto bytes = ValueOf(NewBytesMount(TestContent(1000)));
  for (const Mount* mount : {file.get(), bytes.get()}) {
    const auto upgrade = [&] {
      return world.upgrader->Upgrade(*mount, world.spec, Io::Posix(), {});
    };
    world.spec = {.name_stem = "abc"};
    const Upgraded upgraded = ValueOf(upgrade());
    CHECK(upgraded.passthrough);
    CHECK_FALSE(upgraded.local.has_value());
    CHECK(world.Reads(upgraded, TestContent(1000)));

    world.spec.expected_size = 1000;
    world.spec.expected_validator = ValueOf(mount->Stat(Io::Posix(), {})).validator;
    CHECK_STATUS_OK(upgrade());
    world.spec.expected_size = 1001;
    CHECK_CODE(upgrade(), kFailedPrecondition);
    world.spec.expected_size.reset();
    world.spec.expected_validator = "another";
    CHECK_CODE(upgrade(), kFailedPrecondition);
  }
  world.CheckClean();
}

TEST_CASE("upgrader: a remote mount is copied whole, under a hashed name and the generation") {
  World world;
  for (const bool size_known : {true, false}) {
    world.source.size_known = size_known;
    ++world.spec.generation;
    const std::string name = "abc234." + std::to_string(world.spec.generation) + ".car";
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK_FALSE(upgraded.passthrough);
    CHECK(world.Reads(upgraded, world.source.content));
    CHECK(upgraded.local ==
          TransientInfo{.path = name, .owned = true, .size = kSize, .validator = "v1"});
    CHECK_EQ(world.gate.left, world.gate.limit - kSize);

    // A record of it serves without the source.
    world.source.exists = false;
    world.spec.existing = upgraded.local;
    CHECK(world.Reads(ValueOf(world.Upgrade()), world.source.content));
    CHECK(ValueOf(world.upgrader->List(world.io)) ==
          std::vector<TransientInfo>{{.path = name, .owned = true, .size = kSize}});
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
    world.CheckClean();
    world.source.exists = true;
    world.spec.existing.reset();
  }
  world.source.content.clear();
  CHECK_EQ(ValueOf(world.Upgrade()).reader->Size(), 0);
}

TEST_CASE("upgrader: a source that cannot be copied gives a typed error and leaves no file") {
  struct Row {
    const char* name;
    absl::StatusCode code;
    std::function<void(World&)> set;
  };
  const Row rows[] = {
      {"absent", absl::StatusCode::kNotFound, [](World& w) { w.source.exists = false; }},
      {"not ready", absl::StatusCode::kUnavailable, [](World& w) { w.source.ready = false; }},
      {"stat fails", absl::StatusCode::kUnavailable,
       [](World& w) { w.source.stat_error = Unavailable("503"); }},
      {"open fails", absl::StatusCode::kUnavailable,
       [](World& w) { w.source.open_error = Unavailable("503"); }},
      {"read fails", absl::StatusCode::kUnavailable,
       [](World& w) { w.source.fail_at = kSize / 2; }},
      {"read fails at the end", absl::StatusCode::kUnavailable,
       [](World& w) { w.source.fail_at = kSize; }},
      {"short", absl::StatusCode::kUnavailable, [](World& w) { w.source.cut_at = 5; }},
      {"one byte short", absl::StatusCode::kUnavailable,
       [](World& w) { w.source.cut_at = kSize - 1; }},
      {"one byte long", absl::StatusCode::kUnavailable, [](World& w) { w.source.appended = {1}; }},
      {"replaced meanwhile", absl::StatusCode::kUnavailable,
       [](World& w) {
         w.source.before_read = [&w](uint64_t at) {
           if (at > 0) w.source.validator = "v2";
         };
       }},
      {"another size", absl::StatusCode::kFailedPrecondition,
       [](World& w) { w.spec.expected_size = kSize + 1; }},
      {"another size, told late", absl::StatusCode::kFailedPrecondition,
       [](World& w) {
         w.source.size_known = false;
         w.spec.expected_size = kSize + 1;
       }},
      {"another validator", absl::StatusCode::kFailedPrecondition,
       [](World& w) { w.spec.expected_validator = "v0"; }},
      {"above the quota", absl::StatusCode::kResourceExhausted,
       [](World& w) { w.gate.left = w.gate.limit = kSize - 1; }},
      {"above the quota, unknown size", absl::StatusCode::kResourceExhausted,
       [](World& w) {
         w.source.size_known = false;
         w.gate.left = w.gate.limit = kSize - 1;
       }},
      {"above the limit", absl::StatusCode::kResourceExhausted,
       [](World& w) {
         w.options.transient_bytes_max = kSize - 1;
         w.upgrader = ValueOf(Upgrader::Open(w.io, w.options));
       }},
      {"above the limit, unknown size", absl::StatusCode::kResourceExhausted,
       [](World& w) {
         w.source.size_known = false;
         w.options.transient_bytes_max = kSize - 1;
         w.upgrader = ValueOf(Upgrader::Open(w.io, w.options));
       }},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    World world;
    row.set(world);
    const absl::Status status = world.Upgrade().status();
    INFO(ToString(status));
    CHECK(status.code() == row.code);
    CHECK_EQ(ToString(status).find("CANARY"), std::string::npos);  // defect 48
    world.CheckClean();
  }
  // The limits are exact.
  World world;
  world.options.transient_bytes_max = world.gate.left = world.gate.limit = kSize;
  world.upgrader = ValueOf(Upgrader::Open(world.io, world.options));
  CHECK_STATUS_OK(world.Upgrade());
}

// Goal: no operation on files may fail without an error, and none of its failures leaves a file
// behind. Method: each operation of a copy fails in turn, for want of space and for a broken disk;
// then the same call succeeds.
TEST_CASE("upgrader: any failing file operation is reported, cleaned up, and not remembered") {
  uint64_t calls = 0;
  {
    FakeIo io;
    World world(io);
    calls = io.calls();
    REQUIRE_STATUS_OK(world.Upgrade());
    calls = io.calls() - calls;
  }
  CHECK_GE(calls, 6 + kSize / 65536);
  for (uint64_t n = 1; n <= calls; ++n) {
    CAPTURE(n);
    for (const absl::Status& error : {ResourceExhausted("ENOSPC"), DataLoss("EIO")}) {
      FakeIo io;
      World world(io);
      io.FailNth(n, error);
      CHECK(world.Upgrade().status().code() == error.code());
      world.CheckClean();
      CHECK_EQ(io.open_files(), 0);
      CHECK(world.Reads(ValueOf(world.Upgrade()), world.source.content));
    }
  }
}

// From the n-th operation on nothing works, n = 1, 2, ... until the copy is made before that.
void AtEachStop(const std::function<void(FakeIo&, World&, bool made)>& then) {
  for (uint64_t n = 1, made = 0; made == 0; ++n) {
    CAPTURE(n);
    FakeIo io;
    World world(io);
    io.StopAtNth(n);
    made = world.Upgrade().ok() ? 1 : 0;
    then(io, world, made != 0);
  }
}

TEST_CASE("upgrader: what a failing disk does not let go of keeps its room, until it is gone") {
  bool published = false;
  AtEachStop([&](FakeIo& io, World& world, bool made) {
    io.Heal();
    uint64_t on_disk = 0;
    for (const std::string& file : io.Files()) on_disk += io.Content(file)->size();
    CHECK_GE(world.gate.limit - world.gate.left, on_disk);
    if (made || !io.Content(world.Path("abc234.7.car")).has_value()) return;
    published = true;
    REQUIRE_STATUS_OK(world.upgrader->Delete(io, {.path = "abc234.7.car", .owned = true, .size = 0, .validator = {}}));
    CHECK_EQ(world.gate.left, world.gate.limit);
  });
  CHECK(published);
}

TEST_CASE("upgrader: a full disk is ResourceExhausted, and the temporary is gone") {
  FakeIo io;
  World world(io);
  io.FailAfterBytes(kSize - 1);
  CHECK_CODE(world.Upgrade(), kResourceExhausted);
  world.CheckClean();
  io.Heal();
  CHECK_STATUS_OK(world.Upgrade());
}

// Goal: whenever the machine goes down, a copy is whole or is not there, and the next start tidies
// up. Method: it goes down at each operation in turn, and loses what it may lose.
TEST_CASE("upgrader: after a crash at any point a copy is whole or is not there") {
  for (const FakeIo::Lost lost :
       {FakeIo::Lost::kAll, FakeIo::Lost::kData, FakeIo::Lost::kHalfData}) {
    AtEachStop([&](FakeIo& io, World& world, bool made) {
      io.Crash(lost);

      world.options.boot_id = "boot2";
      world.upgrader = ValueOf(Upgrader::Open(io, world.options));
      CHECK_STATUS_OK(world.upgrader->SweepTemps(io));
      const std::vector<TransientInfo> copies = ValueOf(world.upgrader->List(io));
      CHECK_EQ(world.Files().size(), copies.size());
      if (made) REQUIRE_EQ(copies.size(), 1);
      for (const TransientInfo& copy : copies) {
        const std::optional<Bytes> content = io.Content(world.Path(copy.path));
        REQUIRE(content.has_value());
        CHECK(SameBytes(*content, world.source.content));
      }
      CHECK(world.Reads(ValueOf(world.Upgrade()), world.source.content));
    });
  }
}

// Defect 19: the shared fetch ran under the first caller's context, whose end failed the others.
TEST_CASE("upgrader: one caller's stop does not touch another caller's copy") {
  World world;
  CancelFlag stop;
  bool other_called = false;
  std::optional<Upgraded> other;
  world.source.before_read = [&](uint64_t offset) {
    if (offset < kSize / 2 || std::exchange(other_called, true)) return;
    other = ValueOf(world.upgrader->Upgrade(world.mount, world.spec, Io::Posix(), {}));
    stop.Cancel();
  };
  CHECK_CODE(world.Upgrade({.cancel = &stop}), kCancelled);
  REQUIRE(other.has_value());
  CHECK(world.Reads(*other, world.source.content));
  CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.car"});
}

// Defect 20: after one failed fetch the error came back for ever, without the source being asked
// again.
TEST_CASE("upgrader: an error is not remembered") {
  World world;
  world.source.open_error = Unavailable("connection refused");
  for (int i = 1; i <= 3; ++i) {
    CHECK_CODE(world.Upgrade(), kUnavailable);
    CHECK_EQ(world.source.opens, i);
  }
  world.source.open_error = absl::OkStatus();
  CHECK(world.Reads(ValueOf(world.Upgrade()), world.source.content));
  CHECK_EQ(world.source.opens, 4);
}

// Defect 21: the fetch's result was shared between threads without a lock. Run under TSan to see
// it.
TEST_CASE("upgrader: calls from many threads, also for the same shard, all succeed") {
  World world;
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const TransientSpec spec{.name_stem = "abc", .generation = static_cast<uint64_t>(i / 2)};
      const absl::StatusOr<Upgraded> upgraded =
          world.upgrader->Upgrade(world.mount, spec, Io::Posix(), {});
      if (!upgraded.ok()) return;
      Bytes all(kSize);
      if (upgraded->reader->Read(0, kSize, all.data()).ok() && SameBytes(all, world.source.content))
        ++right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(right, 8);
  CHECK_EQ(world.Files(),
           std::vector<std::string>{"abc.0.car", "abc.1.car", "abc.2.car", "abc.3.car"});
}

// Defect 22: a failed rename was logged, and whatever had the name was opened.
TEST_CASE("upgrader: a final name that is taken is replaced whole, or the copy fails") {
  World world;
  SUBCASE("by a foreign file") {
    WriteFile(world.Path("abc234.7.car"), AsSpan("stale"));
    CHECK(world.Reads(ValueOf(world.Upgrade()), world.source.content));
  }
  SUBCASE("by a folder") {
    fs::create_directory(world.Path("abc234.7.car"));
    CHECK_FALSE(world.Upgrade().ok());
    CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.car"});
    CHECK_EQ(world.gate.left, world.gate.limit);
  }
}

// Defect 31: neither the data nor the folder were synced.
TEST_CASE("upgrader: data is synced before the rename and the folder after it") {
  FakeIo io;
  World world(io);
  io.TakeLog();
  world.source.content = TestContent(100);
  REQUIRE_STATUS_OK(world.Upgrade());
  const std::string temp = world.Path("abc234.7.boot1.0.tmp");
  CHECK_EQ(io.TakeLog(),
           std::vector<std::string>{"create " + temp, "write " + temp + " 100", "sync " + temp,
                                    "close " + temp, "open " + temp,
                                    "rename " + temp + " " + world.Path("abc234.7.car"),
                                    "syncdir " + world.options.folder});
}

// Defect 32: a copy of 5 bytes of a source of 1 MiB was ready for use.
TEST_CASE("upgrader: a short body is never visible, not for a moment") {
  World world;
  world.source.cut_at = 5;
  world.source.before_read = [&](uint64_t) {
    for (const std::string& name : world.Files()) CHECK(name.ends_with(".tmp"));
  };
  CHECK_CODE(world.Upgrade(), kUnavailable);
  world.CheckClean();
  CHECK(ValueOf(world.upgrader->List(world.io)).empty());
}

// Defect 39: 200 cancelled fetches left 199 open descriptors.
TEST_CASE("upgrader: a stop at any block releases the reader, the temporary and all descriptors") {
  World world;
  const size_t descriptors = DescriptorCount();
  constexpr int kReads = kSize / 65536 + 2;  // with the rest and the end
  for (int i = 0; i < 200; ++i) {
    CancelFlag stop;
    int reads = 0;
    world.source.before_read = [&](uint64_t) {
      if (reads++ == i % kReads) stop.Cancel();
    };
    const absl::StatusOr<Upgraded> upgraded = world.Upgrade({.cancel = &stop});
    CHECK_CODE(upgraded, kCancelled);
    CHECK_EQ(reads, i % kReads + 1);
  }
  world.CheckClean();
  CHECK_EQ(DescriptorCount(), descriptors);

  FakeClock clock;
  CHECK_CODE(world.Upgrade({.clock = &clock, .deadline = Deadline::At(clock.Now())}),
             kDeadlineExceeded);
}

// Defect 45: the key was the file name, and "x/../../evil" was written outside.
TEST_CASE("upgrader: a name that is no hash is refused before anything is opened") {
  World world;
  for (const char* stem :
       {"", "x/../../evil", "..", ".", "a.b", "a/b", "A", "a b", "a\n", "k\xC3\xA9y", "-"}) {
    CAPTURE(stem);
    world.spec.name_stem = stem;
    CHECK_CODE(world.Upgrade(), kInvalidArgument);
  }
  world.spec.name_stem = std::string("a\0b", 3);
  CHECK_CODE(world.Upgrade(), kInvalidArgument);
  world.spec.name_stem = std::string(129, 'a');
  CHECK_CODE(world.Upgrade(), kInvalidArgument);
  CHECK_EQ(world.source.stats, 0);
  world.CheckClean();
  world.spec.name_stem = std::string(128, 'a');
  CHECK_STATUS_OK(world.Upgrade());

  for (const char* boot_id : {"", "a.b", "a/b", "A"}) {
    world.options.boot_id = boot_id;
    CHECK_CODE(Upgrader::Open(world.io, world.options), kInvalidArgument);
  }
}

TEST_CASE("upgrader: a user's copy is used if it fits, and the source is not read") {
  World world;
  const std::string path = world.dir.File("mine.car");
  WriteFile(path, world.source.content);
  const TransientInfo mine{.path = path};
  const auto used = [&] {
    world.spec.existing->path = path;
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(world.Reads(upgraded, world.source.content));
    CHECK(fs::exists(path));
    const bool is_mine = !upgraded.local->owned;
    CHECK_EQ(upgraded.local->path, is_mine ? path : "abc234.7.car");
    CHECK_EQ(upgraded.local->size, kSize);
    return is_mine;
  };
  world.spec.existing = mine;
  CHECK(used());
  world.source.stat_error = Unavailable("offline");
  CHECK(used());
  world.source.stat_error = absl::OkStatus();
  world.spec.expected_size = kSize;
  world.spec.expected_validator = "v1";
  CHECK(used());
  world.spec.existing->validator = "v1";
  CHECK(used());
  CHECK_EQ(world.source.opens, 0);
  world.spec.existing->validator = "v0";
  CHECK_FALSE(used());
  CHECK_EQ(world.source.opens, 1);
}

TEST_CASE("upgrader: a copy that does not fit is passed over for a new one") {
  World world;
  const std::string path = world.dir.File("mine.car");
  const Bytes half(world.source.content.begin(), world.source.content.begin() + kSize / 2);
  WriteFile(path, half);
  TransientInfo existing{.path = path};
  SUBCASE("as the source says") {}
  SUBCASE("as the record says") { existing.size = kSize; }
  SUBCASE("as the shard says") { world.spec.expected_size = kSize; }
  SUBCASE("because it is gone") { fs::remove(path); }
  SUBCASE("because it is a folder") { existing.path = world.dir.path(); }
  SUBCASE("because it is ours and truncated") {
    existing = {.path = "abc234.6.car", .owned = true, .size = kSize};
    WriteFile(world.Path("abc234.6.car"), half);
  }
  SUBCASE("because it is ours and gone") {
    existing = {.path = "abc234.6.car", .owned = true, .size = kSize};
  }
  SUBCASE("because it claims to be ours and is not") {
    WriteFile(path, world.source.content);
    existing = {.path = "../mine.car", .owned = true, .size = kSize};
  }
  world.spec.existing = existing;
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK_EQ(upgraded.local->path, "abc234.7.car");
  CHECK(upgraded.local->owned);
  CHECK(world.Reads(upgraded, world.source.content));
}

TEST_CASE("upgrader: without descriptors a copy that is there is not fetched again") {
  FakeIo io;
  World world(io);
  world.spec.existing = ValueOf(world.Upgrade()).local;
  ++world.spec.generation;
  io.FailNth(FakeIo::Op::kOpen, 1, ResourceExhausted("EMFILE"));
  CHECK_CODE(world.Upgrade(), kResourceExhausted);
  CHECK_EQ(world.source.opens, 1);
}

// Defect 46: "is it ours" was path arithmetic that always said yes, and the user's file was
// deleted.
TEST_CASE("upgrader: a user's file is never deleted, wherever it lies") {
  World world;
  for (const std::string& path :
       {world.dir.File("mine.car"), world.Path("mine.car"), world.Path("abc.1.car")}) {
    WriteFile(path, AsSpan("mine"));
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, {.path = path, .owned = false, .size = 4}));
    CHECK(fs::exists(path));
  }
  for (const char* claimed :
       {"../mine.car", "mine.car", "", ".", "abc.01.car", "abc.1.car/", "abc.1.CAR", "abc..car",
        "abc.1.x.car", "abc.18446744073709551616.car"}) {
    CAPTURE(claimed);
    CHECK_CODE(world.upgrader->Delete(world.io, {.path = claimed, .owned = true}),
               kInvalidArgument);
  }
  CHECK(fs::exists(world.dir.File("mine.car")));
  CHECK(fs::exists(world.Path("mine.car")));
  CHECK_EQ(world.gate.left, world.gate.limit);
}

// Defect 28: the start deleted what it did not know: foreign files, and live copies when the folder
// was spelled otherwise.
TEST_CASE("upgrader: a sweep takes temporaries of other boots and nothing else") {
  World world;
  const std::vector<std::string> kept = {
      "abc.1.boot1.0.tmp", "abc.1.car",       "abc.1.old.0.tmp.bak", "abc.1.old.x.tmp",
      "abc.old.0.tmp",     "mine.car",        "notes.txt",           "x.1.old.0.TMP",
      "X.1.old.0.tmp",     "folder.1.o.0.tmp"};
  for (const std::string& name : kept) {
    if (name.starts_with("folder")) {
      fs::create_directory(world.Path(name));
    } else {
      WriteFile(world.Path(name), AsSpan("x"));
    }
  }
  WriteFile(world.dir.File("victim"), AsSpan("x"));
  fs::create_symlink(world.dir.File("victim"), world.Path("link.1.old.0.tmp"));
  WriteFile(world.Path("abc.1.old.0.tmp"), AsSpan("x"));
  WriteFile(world.Path("abc.2.older.17.tmp"), AsSpan("x"));

  fs::create_directory_symlink(world.options.folder, world.dir.File("spelled-otherwise"));
  world.options.folder = world.dir.File("spelled-otherwise");
  const auto upgrader = ValueOf(Upgrader::Open(world.io, world.options));
  CHECK_EQ(ValueOf(upgrader->SweepTemps(world.io)), 2);
  CHECK_EQ(ValueOf(upgrader->SweepTemps(world.io)), 0);
  for (const std::string& name : kept) CHECK(fs::exists(world.Path(name)));
  CHECK_EQ(world.Files().size(), kept.size() + 1);
  CHECK(fs::exists(world.dir.File("victim")));
  const std::vector<TransientInfo> copies = ValueOf(upgrader->List(world.io));
  REQUIRE_EQ(copies.size(), 1);
  CHECK_EQ(copies[0].path, "abc.1.car");
}

TEST_CASE("upgrader: what nobody owns goes through the trash, whole or partial, and strangers stay") {
  FakeIo io;
  World world(io);
  const std::vector<std::string> strangers = {"abc.1.part.bak", "abc.x.map", "notes.part", "trash/abc.1.car",
                                              "trash/notes.boot1"};
  for (const char* name : {"abc.1.part", "abc.1.map", "abc.2.car"}) io.WriteFile(world.Path(name), AsSpan("x"));
  for (const std::string& name : strangers) io.WriteFile(world.Path(name), AsSpan("x"));
  world.gate.left -= 30;
  world.gate.held = {{"abc.1.car", 10}, {"abc.2.car", 20}};
  (void)io.TakeLog();
  CHECK_STATUS_OK(world.upgrader->MoveToTrash(io, {.path = "abc.1.car", .owned = true}));
  const std::string folder = world.options.folder;
  const std::vector<std::string> log = io.TakeLog();
  CHECK_EQ(log, std::vector<std::string>{
                             fmt::format("makedir {}/trash", folder),
                             fmt::format("rename {0}/abc.1.map {0}/trash/abc.1.map.boot1", folder),
                             fmt::format("rename {0}/abc.1.part {0}/trash/abc.1.part.boot1", folder),
                             fmt::format("syncdir {}/trash", folder), fmt::format("syncdir {}", folder)});
  CHECK_STATUS_OK(world.upgrader->MoveToTrash(io, {.path = "abc.2.car", .owned = true}));
  CHECK_EQ(world.gate.left, world.gate.limit - 30);  // it is on disk still
  CHECK_CODE(world.upgrader->MoveToTrash(io, {.path = "notes.car", .owned = true}), kInvalidArgument);
  CHECK_STATUS_OK(world.upgrader->MoveToTrash(io, {.path = "/home/me/a.car", .owned = false}));
  // A crash before it is removed: the next start does it.
  io.Crash(FakeIo::Lost::kAll);
  world.options.boot_id = "boot2";
  world.upgrader = ValueOf(Upgrader::Open(io, world.options));
  CHECK(ValueOf(world.upgrader->TakeStock(io)).empty());
  std::vector<std::string> left;
  for (const std::string& name : strangers) left.push_back(world.Path(name));
  CHECK_EQ(io.Files(), left);
  // And without a crash.
  io.WriteFile(world.Path("abc.3.car"), AsSpan("x"));
  world.gate.held = {{"abc.3.car", 30}};
  CHECK_STATUS_OK(world.upgrader->MoveToTrash(io, {.path = "abc.3.car", .owned = true}));
  io.FailNth(FakeIo::Op::kRemove, 1, Unavailable("the disk is away"));
  CHECK_CODE(world.upgrader->EmptyTrash(io), kUnavailable);
  CHECK_EQ(world.gate.left, world.gate.limit - 30);
  CHECK_EQ(ValueOf(world.upgrader->EmptyTrash(io)), 1);
  CHECK_EQ(world.gate.left, world.gate.limit);
  CHECK_EQ(io.Files(), left);
}

TEST_CASE("upgrader: a start looks at its folder once") {
  FakeIo io;
  World world(io);
  for (const char* name : {"abc.1.part", "abc.1.map", "abd.2.car", "abe.3.old.0.tmp"})
    io.WriteFile(world.Path(name), AsSpan("x"));
  (void)io.TakeLog();
  const auto upgrader = ValueOf(Upgrader::Open(io, world.options));
  const std::vector<TransientInfo> copies = ValueOf(upgrader->TakeStock(io));
  const std::vector<std::string> log = io.TakeLog();
  CHECK_EQ(std::count_if(log.begin(), log.end(), [](const std::string& line) { return line.starts_with("list "); }), 1);
  REQUIRE_EQ(copies.size(), 2);
  CHECK_EQ(copies[0].path, "abc.1.car");
  CHECK_EQ(copies[1].path, "abd.2.car");
  CHECK_FALSE(io.Content(world.Path("abe.3.old.0.tmp")).has_value());
}

TEST_CASE("upgrader: a copy that is replaced goes, though a partial one of its name is there or its map") {
  FakeIo io;
  World world(io);
  for (const char* name : {"abc.1.car", "abc.1.map", "abd.2.map", "abd.2.part", "abe.3.car", "abe.3.map", "abe.3.part"})
    io.WriteFile(world.Path(name), AsSpan("x"));
  const auto upgrader = ValueOf(Upgrader::Open(io, world.options));
  REQUIRE_STATUS_OK(upgrader->TakeStock(io));
  for (const char* name : {"abc.1.car", "abd.2.car", "abe.3.car"})
    REQUIRE_STATUS_OK(upgrader->Discard(io, {.path = name, .owned = true, .size = 0, .validator = {}}));
  // A partial one may be gone on with.
  CHECK_EQ(io.Files(), std::vector<std::string>{world.Path("abd.2.map"), world.Path("abd.2.part")});
}

// Defect 47: predictable names, links followed, modes 0666 and 0777.
TEST_CASE("upgrader: a planted link is not followed, and only we can read what we write") {
  const mode_t umask_before = umask(0);
  World world;
  const std::string victim = world.dir.File("victim");
  WriteFile(victim, AsSpan("precious"));
  for (int n = 0; n < 4; ++n) {
    fs::create_symlink(victim, world.Path("abc234.7.boot1." + std::to_string(n) + ".tmp"));
  }
  fs::create_symlink(victim, world.Path("abc234.7.car"));
  const Upgraded upgraded = ValueOf(world.Upgrade());
  umask(umask_before);
  CHECK(world.Reads(upgraded, world.source.content));
  CHECK(SameBytes(ValueOf(ReadSmallFile(Io::Posix(), victim, 100)), AsSpan("precious")));

  struct stat found;
  REQUIRE_EQ(lstat(world.Path("abc234.7.car").c_str(), &found), 0);
  CHECK_EQ(found.st_mode, S_IFREG | 0600);
  REQUIRE_EQ(lstat(world.options.folder.c_str(), &found), 0);
  CHECK_EQ(found.st_mode, S_IFDIR | 0700);

  // Nor is a link opened that stands where a record says our copy is.
  fs::remove(world.Path("abc234.7.car"));
  WriteFile(victim, world.source.content);
  fs::create_symlink(victim, world.Path("abc234.7.car"));
  world.spec.existing = upgraded.local;
  world.spec.generation = 8;
  CHECK_EQ(ValueOf(world.Upgrade()).local->path, "abc234.8.car");
}

}  // namespace
}  // namespace dagstore
