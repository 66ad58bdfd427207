#include "mount/partial_copy.h"

#include <random>
#include <thread>

#include "mount/upgrader.h"
#include "tests/fakes/fake_io.h"
#include "tests/mount/remote_suite.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr size_t kSize = 3'000'001;
constexpr uint64_t kGranule = uint64_t{1} << kGranuleBitsMin;

struct World {
  explicit World(Io& with = Io::Posix(), uint64_t quota = UINT64_MAX) : io(with) {
    source.content = TestContent(kSize);
    source.ranges = true;
    other.content = source.content;
    other.ranges = true;
    other.validator = "other";
    limits.backoff_min = limits.backoff_max = absl::ZeroDuration();
    options.folder = dir.File("transients");
    options.boot_id = "boot1";
    options.partial.promote_share = 2;
    cache_options.bytes_max = quota;
    cache_options.wait_max = absl::ZeroDuration();
    Restart();
  }
  void Restart() {
    upgrader.reset();
    cache = std::make_shared<CopyCache>(cache_options, io, Clock::Real());
    sources = std::make_shared<Sources>(limits, io, Clock::Real(), 1);
    options.space = cache;
    options.sources = sources;
    upgrader = ValueOf(Upgrader::Open(io, options));
    for (const TransientInfo& copy : ValueOf(upgrader->TakeStock(io))) cache->Found(copy.path, copy.size);
  }
  absl::StatusOr<Upgraded> Upgrade(const WorkContext& work = {}) {
    return upgrader->Upgrade(*mount, spec, io, work);
  }
  // As a shard that is indexed: size and version are known.
  void Know() {
    spec.expected_size = source.content.size();
    spec.expected_validator = source.validator;
    spec.serves_ranges = true;
  }
  bool Reads(const RandomReader& reader, uint64_t offset, size_t size) const {
    Bytes out(size);
    const absl::Status status = reader.Read(offset, size, out.data());
    INFO(ToString(status));
    CHECK(status.ok());
    return status.ok() && SameBytes(out, Span(source.content).subspan(offset, size));
  }
  std::vector<std::string> Files() const { return ValueOf(io.List(options.folder)); }

  Io& io;
  TempDir dir;
  RemoteSource source, other;
  std::shared_ptr<const Mount> mount =
      std::make_shared<RemoteMount>(source, ValueOf(Url::Parse("remote://me:CANARY@host/a.car?sig=CANARY")));
  std::shared_ptr<const Mount> mirror =
      std::make_shared<RemoteMount>(other, ValueOf(Url::Parse("remote://mirror/a.car")));
  SourceLimits limits;
  CopyCacheOptions cache_options;
  UpgraderOptions options;
  std::shared_ptr<CopyCache> cache;
  std::shared_ptr<Sources> sources;
  std::unique_ptr<Upgrader> upgrader;
  TransientSpec spec{.name_stem = "abc234", .generation = 7};
};

TEST_CASE("remote mount: passes the suite with ranges too") {
  RemoteSource source;
  source.ranges = true;
  CheckRemoteMount(source);
}

TEST_CASE("partial copy: the first request is the stat, and a read costs one more, of what it wants only") {
  World world;
  const Upgraded upgraded = ValueOf(world.Upgrade());
  REQUIRE(upgraded.partial != nullptr);
  CHECK_EQ(world.source.requests, 1);
  CHECK_EQ(world.source.stats, 0);
  CHECK(world.Reads(*upgraded.reader, 0, 1000));  // came with the answer
  CHECK_EQ(world.source.requests, 1);
  CHECK(world.Reads(*upgraded.reader, 2'000'000, 100));
  CHECK_EQ(world.source.requests, 2);
  CHECK_LE(world.source.bytes_sent, 2 * kGranule);
  CHECK(world.Reads(*upgraded.reader, 2'000'050, 100));  // is there
  CHECK_EQ(world.source.requests, 2);
  CHECK(world.Reads(*upgraded.reader, kSize - 10, 10));
  CHECK_EQ(ValueOf(upgraded.reader->ReadSome(kSize, 1, nullptr)), 0);
  CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.part"});
}

TEST_CASE("partial copy: a shard that is known is opened without asking") {
  World world;
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK_EQ(world.source.requests + world.source.stats, 0);
  CHECK(world.Reads(*upgraded.reader, 1'000'000, 5000));
  CHECK_EQ(world.source.requests, 1);
}

TEST_CASE("partial copy: random reads by many threads give the right bytes, and each extent crosses once") {
  World world;
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937_64 random(i);
      Bytes out(300'000);
      for (int n = 0; n < 50; ++n) {
        const uint64_t offset = random() % kSize;
        const size_t size = std::min<uint64_t>(random() % out.size(), kSize - offset);
        if (!upgraded.reader->Read(offset, size, out.data()).ok() ||
            !SameBytes(Span(out).first(size), Span(world.source.content).subspan(offset, size)))
          ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong, 0);
  CHECK_LE(world.source.bytes_sent, kSize);
}

TEST_CASE("partial copy: 32 readers of one cold shard cause one transfer") {
  World world;
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] {
      Bytes out(kSize);
      if (upgraded.reader->Read(0, kSize, out.data()).ok() && SameBytes(out, world.source.content)) ++right;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(right, 32);
  CHECK_EQ(world.source.bytes_sent, kSize);
}

TEST_CASE("partial copy: a reader that goes forward is served ahead, hinted blocks come in one request") {
  World world;
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  for (uint64_t at = 0; at + 50'000 <= 2'000'000; at += 50'000) CHECK(world.Reads(*upgraded.reader, at, 50'000));
  CHECK_LE(world.source.requests, 8);  // 31 granules one by one otherwise

  World hinted;
  hinted.Know();
  const Upgraded other = ValueOf(hinted.Upgrade());
  const ByteRange blocks[] = {{1'000'000, 1000}, {1'100'000, 1000}, {1'200'000, 1000}, {2'900'000, 1000}};
  other.reader->WillRead(blocks);
  for (const ByteRange& block : blocks) CHECK(hinted.Reads(*other.reader, block.offset, block.size));
  CHECK_EQ(hinted.source.requests, 2);
}

TEST_CASE("partial copy: prefetches run in the background, and their readers wait for them") {
  World world;
  world.Know();
  std::vector<absl::AnyInvocable<void()>> posted;
  world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) { posted.push_back(std::move(work)); });
  const Upgraded upgraded = ValueOf(world.Upgrade());
  const ByteRange blocks[] = {{0, 10}, {1'000'000, 10}, {2'900'000, 10}};
  upgraded.reader->WillRead(blocks);
  REQUIRE_EQ(posted.size(), 3);
  for (auto& work : posted) work();
  CHECK_EQ(world.source.requests, 3);
  for (const ByteRange& block : blocks) CHECK(world.Reads(*upgraded.reader, block.offset, block.size));
  CHECK_EQ(world.source.requests, 3);
  world.upgrader->SetBackground(nullptr);
}

TEST_CASE("partial copy: what was saved survives a restart; the source is asked for the rest only") {
  World world;
  world.Know();
  {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(world.Reads(*upgraded.reader, 0, 1'000'000));
    world.spec.existing = upgraded.local;
  }
  CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.map", "abc234.7.part"});
  const uint64_t sent = world.source.bytes_sent;
  world.options.boot_id = "boot2";
  world.Restart();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, 1'000'000));
  CHECK_EQ(world.source.bytes_sent, sent);
  CHECK_EQ(world.upgrader->Stats().copies_resumed, 1);
  REQUIRE_STATUS_OK(upgraded.reader->MakeWhole({}));
  CHECK_EQ(world.source.bytes_sent, kSize);
  CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.car"});
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
  // And the whole one is used as such.
  world.spec.existing = upgraded.local;
  const Upgraded whole = ValueOf(world.Upgrade());
  CHECK(whole.partial == nullptr);
  CHECK(world.Reads(*whole.reader, 0, kSize));
}

// Defect 20 and resumption: an interrupted job goes on where it broke off, under another generation.
TEST_CASE("partial copy: an interrupted download goes on where it broke off") {
  World world;
  world.limits.attempts_max = 1;
  world.Restart();
  world.spec.for_job = true;
  world.source.fail_at = 2'000'000;
  {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK_CODE(upgraded.reader->MakeWhole({}), kUnavailable);
    world.upgrader->KeepForLater(*upgraded.partial);
    CHECK_STATUS_OK(world.upgrader->Discard(world.io, *upgraded.local));  // spared
  }
  const uint64_t sent = world.source.bytes_sent;
  CHECK_GE(sent, 1'900'000);
  SUBCASE("in the same life") {}
  SUBCASE("after a restart") { world.Restart(); }
  world.source.fail_at.reset();
  world.spec.generation = 8;
  const Upgraded upgraded = ValueOf(world.Upgrade());
  REQUIRE_STATUS_OK(upgraded.reader->MakeWhole({}));
  CHECK_LE(world.source.bytes_sent, kSize + 2 * kGranule);
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
}

TEST_CASE("partial copy: an attempt that brought bytes is followed by another; one that never brings any is not") {
  World world;
  world.Know();
  // The connection breaks every 200,000 bytes.
  uint64_t limit = 200'000;
  world.source.fail_at = limit;
  world.source.before_read = [&](uint64_t offset) {
    if (offset >= limit) world.source.fail_at = limit = offset + 200'000;
  };
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, kSize));

  World dead;
  dead.Know();
  const Upgraded never = ValueOf(dead.Upgrade());
  dead.source.open_error = Unavailable("connection refused");
  Bytes out(10);
  CHECK_CODE(never.reader->Read(0, 10, out.data()), kUnavailable);
  CHECK_EQ(dead.source.requests, dead.limits.attempts_max);
  CHECK_EQ(dead.sources->FailureOf(dead.mount->url()).failures, dead.limits.attempts_max);
  dead.source.open_error = absl::OkStatus();  // nothing is remembered
  CHECK(dead.Reads(*never.reader, 0, 10));
  CHECK_EQ(dead.sources->FailureOf(dead.mount->url()).failures, 0);
}

// Two versions of a source never meet in one copy.
TEST_CASE("partial copy: a source that has changed is refused, and what is there stays readable") {
  World world;
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, 1000));
  const Bytes before = world.source.content;
  Bytes out(1000);
  SUBCASE("by its validator") { world.source.validator = "v2"; }
  SUBCASE("by its size") { world.source.content.resize(kSize + 1); }
  const absl::Status status = upgraded.reader->Read(1'000'000, 1000, out.data());
  CHECK_CODE(status, kFailedPrecondition);
  CHECK_EQ(ToString(status).find("CANARY"), std::string::npos);
  CHECK(upgraded.reader->Read(0, 1000, out.data()).ok());
  CHECK(SameBytes(out, Span(before).first(1000)));
  CHECK_CODE(upgraded.reader->MakeWhole({}), kFailedPrecondition);
}

TEST_CASE("partial copy: a source that says too little of itself is copied whole") {
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    World world;
    if (i == 0) world.source.validator.clear();
    if (i == 1) world.source.validator = "W/\"weak\"";
    if (i == 2) world.source.size_known = false;
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(upgraded.partial == nullptr);
    CHECK(world.Reads(*upgraded.reader, 0, kSize));
    CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.car"});
  }
}

TEST_CASE("partial copy: a body that is short or breaks off is not kept as if it were whole") {
  World world;
  world.Know();
  world.source.cut_at = 1'500'000;
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, 1'400'000));
  CHECK_CODE(upgraded.reader->MakeWhole({}), kUnavailable);
  Bytes out(10);
  CHECK_CODE(upgraded.reader->Read(1'600'000, 10, out.data()), kUnavailable);
  for (const std::string& name : world.Files()) CHECK_FALSE(name.ends_with(".car"));
  world.source.cut_at = UINT64_MAX;
  CHECK_STATUS_OK(upgraded.reader->MakeWhole({}));
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
}

TEST_CASE("partial copy: another location serves when the first fails, if it has the same size") {
  World world;
  world.Know();
  const Upgraded upgraded =
      ValueOf(world.upgrader->Upgrade({world.mount, world.mirror}, world.spec, world.io, {}));
  CHECK(world.Reads(*upgraded.reader, 0, 1000));
  CHECK_EQ(world.other.requests, 0);
  world.source.open_error = Unavailable("503");
  CHECK(world.Reads(*upgraded.reader, 1'000'000, 1000));
  CHECK_EQ(world.other.requests, 1);
  // The failed one rests, and is not asked first.
  const int asked = world.source.requests;
  world.sources->Report(world.mount->url(), Unavailable("503"));
  Bytes out(1000);
  CHECK(world.Reads(*upgraded.reader, 2'000'000, 1000));
  CHECK_GE(world.source.requests, asked);
  // Its version is remembered too.
  world.other.validator = "newer";
  CHECK_FALSE(upgraded.reader->Read(2'500'000, 10, out.data()).ok());
  world.other.validator = "other";
  world.other.content.resize(kSize - 1);
  CHECK_FALSE(upgraded.reader->Read(2'500'000, 10, out.data()).ok());
}

// Defect 19: a shared fetch ended with its first caller.
TEST_CASE("partial copy: one reader's stop does not touch another who waits for the same extent") {
  World world;
  world.Know();
  const Upgraded first = ValueOf(world.Upgrade());
  CancelFlag stop;
  const std::unique_ptr<RandomReader> job = ValueOf(PartialCopy::NewJobReader(first.partial, {.cancel = &stop}));
  std::thread second;
  std::atomic<bool> right = false;
  bool once = false;
  world.source.before_read = [&](uint64_t) {
    if (std::exchange(once, true)) return;
    second = std::thread([&] {
      Bytes out(100);
      right = first.reader->Read(1'000'000, 100, out.data()).ok() &&
              SameBytes(out, Span(world.source.content).subspan(1'000'000, 100));
    });
    stop.Cancel();
  };
  Bytes out(300'000);
  CHECK_CODE(job->Read(1'000'000, out.size(), out.data()), kCancelled);
  second.join();
  CHECK(right);
}

TEST_CASE("partial copy: what finds no room is read all the same, and the quota holds") {
  World world(Io::Posix(), /*quota=*/600'000);
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
  CHECK_LE(world.cache->Stats().bytes_peak, 600'000);
  CHECK_GE(world.upgrader->Stats().bytes_not_kept, kSize);
  CHECK_CODE(upgraded.reader->MakeWhole({}), kResourceExhausted);
  CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
  CHECK_EQ(world.cache->Stats().bytes, 0);
  CHECK(world.Files().empty());
  CHECK(world.Reads(*upgraded.reader, 0, 1000));  // a reader that is still there reads on
  CHECK(world.Files().empty());
}

TEST_CASE("partial copy: a full disk and a failing one cost the copy, never a byte") {
  FakeIo io;
  World world(io);
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  io.FailAfterBytes(500'000);
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
  CHECK_CODE(upgraded.reader->MakeWhole({}), kResourceExhausted);
  io.Heal();
  CHECK_STATUS_OK(upgraded.reader->MakeWhole({}));
  CHECK(world.Reads(*upgraded.reader, 0, kSize));
}

TEST_CASE("partial copy: after a failed sync nothing of the file is used, and after two none is made") {
  FakeIo io;
  World world(io);
  world.Know();
  for (int i = 0; i < 2; ++i) {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(world.Reads(*upgraded.reader, 0, 200'000));
    io.FailNth(FakeIo::Op::kSync, 1, DataLoss("EIO"));
    CHECK_CODE(upgraded.partial->Save(), kDataLoss);
    io.Heal();
    CHECK(world.Files().empty());
    CHECK_EQ(world.cache->Stats().bytes, 0);
    CHECK(world.Reads(*upgraded.reader, 0, 200'000));  // from the source
    ++world.spec.generation;
  }
  CHECK_CODE(world.Upgrade(), kResourceExhausted);
}

TEST_CASE("partial copy: an extent that the disk has lost is fetched again") {
  FakeIo io;
  World world(io);
  world.Know();
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, 200'000));
  SUBCASE("because a read fails") { io.FailReads(world.options.folder + "/abc234.7.part"); }
  SUBCASE("because its bytes are wrong, and the reader says so") {
    io.FlipBit(world.options.folder + "/abc234.7.part", 1000, 3);
    CHECK_STATUS_OK(upgraded.reader->Forget({1000, 1}));
  }
  CHECK(world.Reads(*upgraded.reader, 0, 200'000));
}

// Goal: whenever the machine goes down, what the map says is there is there, and a .car is whole.
// Method: it goes down at each operation in turn, and loses what it may lose.
TEST_CASE("partial copy: after a crash at any point no wrong byte is served") {
  for (const FakeIo::Lost lost : {FakeIo::Lost::kAll, FakeIo::Lost::kData, FakeIo::Lost::kHalfData}) {
    bool crashed = true;
    for (uint64_t n = 1; crashed; ++n) {
      CAPTURE(n);
      FakeIo io;
      World world(io);
      world.source.content.resize(400'001);
      world.options.partial.map_save_bytes = 100'000;
      world.Restart();
      world.Know();
      io.StopAtNth(n);
      crashed = [&] {
        absl::StatusOr<Upgraded> upgraded = world.Upgrade();
        if (!upgraded.ok()) return true;
        Bytes out(150'000);
        (void)upgraded->reader->Read(0, out.size(), out.data());
        (void)upgraded->partial->Save();
        (void)upgraded->reader->Read(200'000, out.size(), out.data());
        return !upgraded->reader->MakeWhole({}).ok();
      }();
      io.Crash(lost);
      world.options.boot_id = "boot2";
      world.Restart();
      CHECK_STATUS_OK(world.upgrader->SweepTemps(io));
      for (const std::string& name : world.Files()) {
        if (!name.ends_with(".car")) continue;
        CHECK(SameBytes(*io.Content(world.options.folder + "/" + name), world.source.content));
      }
      world.spec.existing = {
          .path = "abc234.7.car", .owned = true, .size = world.source.content.size(), .validator = "v1"};
      const Upgraded upgraded = ValueOf(world.Upgrade());
      CHECK(world.Reads(*upgraded.reader, 0, world.source.content.size()));
      CHECK_STATUS_OK(world.upgrader->Delete(io, *upgraded.local));
      CHECK(world.Files().empty());
    }
  }
}

TEST_CASE("partial copy: any failing file operation is an error or costs the copy, and is not remembered") {
  uint64_t calls = 0;
  const auto use = [](World& world) {
    absl::StatusOr<Upgraded> upgraded = world.Upgrade();
    if (!upgraded.ok()) return;
    Bytes out(200'000);
    const absl::Status read = upgraded->reader->Read(0, out.size(), out.data());
    if (read.ok()) CHECK(SameBytes(out, Span(world.source.content).first(out.size())));
    (void)upgraded->partial->Save();
    (void)upgraded->reader->MakeWhole({});
  };
  {
    FakeIo io;
    World world(io);
    world.source.content.resize(400'001);
    world.Know();
    calls = io.calls();
    use(world);
    calls = io.calls() - calls;
  }
  for (uint64_t n = 1; n <= calls; ++n) {
    CAPTURE(n);
    for (const absl::Status& error : {ResourceExhausted("ENOSPC"), DataLoss("EIO")}) {
      FakeIo io;
      World world(io);
      world.source.content.resize(400'001);
      world.Know();
      io.FailNth(n, error);
      use(world);
      io.Heal();
      world.spec.existing = {
          .path = "abc234.7.car", .owned = true, .size = world.source.content.size(), .validator = "v1"};
      const Upgraded upgraded = ValueOf(world.Upgrade());
      CHECK(world.Reads(*upgraded.reader, 0, world.source.content.size()));
      CHECK_STATUS_OK(upgraded.reader->MakeWhole({}));
      CHECK_STATUS_OK(world.upgrader->Delete(io, *upgraded.local));
      CHECK(world.Files().empty());
      CHECK_EQ(world.cache->Stats().bytes, 0);
    }
  }
}

TEST_CASE("partial copy: most of a file that is there brings the rest, in the background") {
  World world;
  world.options.partial.promote_share = 0.5;
  world.Restart();
  world.Know();
  std::vector<absl::AnyInvocable<void()>> posted;
  world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) { posted.push_back(std::move(work)); });
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK(world.Reads(*upgraded.reader, 0, kSize / 3));
  CHECK(posted.empty());
  CHECK(world.Reads(*upgraded.reader, kSize / 3, kSize / 3));
  REQUIRE_EQ(posted.size(), 1);
  posted.front()();
  CHECK_EQ(world.Files(), std::vector<std::string>{"abc234.7.car"});
  CHECK_EQ(world.upgrader->Stats().copies_promoted, 1);
  CHECK_EQ(world.cache->Stats().bytes, world.cache->BytesOf("abc234.7.car"));
  world.upgrader->SetBackground(nullptr);
}

constexpr uint64_t kOverhead = 16 << 10;  // of a partial copy, besides its extents

TEST_CASE("partial copy: what a killed process wrote and its map does not know counts for as long as it is there") {
  World world;
  world.options.partial.map_save_bytes = kSize;  // by hand only
  world.Restart();
  world.Know();
  const std::string map = world.options.folder + "/abc234.7.map";
  Bytes old_map;
  {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(world.Reads(*upgraded.reader, 0, 300'000));
    CHECK_STATUS_OK(upgraded.partial->Save());
    old_map = ValueOf(ReadSmallFile(world.io, map, 1 << 20));
    CHECK(world.Reads(*upgraded.reader, 300'000, 1'500'000));
    world.spec.existing = upgraded.local;
  }
  REQUIRE_STATUS_OK(world.io.Remove(map));
  REQUIRE_STATUS_OK(ValueOf(world.io.Create(map))->WriteAt(0, old_map));
  world.options.boot_id = "boot2";
  world.Restart();
  const uint64_t found = world.cache->Stats().bytes;
  CHECK_GE(found, 1'500'000);
  SUBCASE("of a copy that becomes whole") {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK_EQ(world.upgrader->Stats().copies_resumed, 1);
    CHECK_EQ(world.cache->Stats().bytes, found);  // it is on disk still
    REQUIRE_STATUS_OK(upgraded.reader->MakeWhole({}));
    CHECK_EQ(world.cache->Stats().bytes, kSize + kOverhead);
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
  }
  SUBCASE("of one that gives way to one of another version under its name") {
    world.source.validator = world.spec.expected_validator = "v2";
    world.spec.existing.reset();
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK_EQ(world.upgrader->Stats().copies_resumed, 0);
    CHECK_EQ(world.cache->Stats().bytes, kOverhead);
    CHECK(world.Reads(*upgraded.reader, 0, 100));
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
  }
  CHECK_EQ(world.cache->Stats().bytes, 0);
}

TEST_CASE("partial copy: a whole copy that is made again under its name counts once") {
  World world;
  world.source.ranges = false;
  const Upgraded first = ValueOf(world.Upgrade());
  CHECK_EQ(world.cache->Stats().bytes, kSize);
  const Upgraded again = ValueOf(world.Upgrade());
  CHECK_EQ(world.cache->Stats().bytes, kSize);
  // A partial one beside it, which could not be opened, and takes its place in the end.
  world.source.ranges = true;
  const Upgraded partial = ValueOf(world.Upgrade());
  CHECK_EQ(world.cache->Stats().bytes, kSize + kOverhead + kGranule);
  REQUIRE_STATUS_OK(partial.reader->MakeWhole({}));
  CHECK_EQ(world.cache->Stats().bytes, kSize + kOverhead);
  CHECK_STATUS_OK(world.upgrader->Delete(world.io, *partial.local));
  CHECK_EQ(world.cache->Stats().bytes, 0);
}

TEST_CASE("partial copy: one that is deleted while two requests are under way gives back its room once") {
  World world;
  world.Know();
  const Upgraded other = ValueOf(world.Upgrade());
  CHECK(world.Reads(*other.reader, 0, 1'000'000));
  const uint64_t of_other = world.cache->Stats().bytes;
  world.spec.name_stem = "abd234";
  const Upgraded upgraded = ValueOf(world.Upgrade());
  bool once = false;
  world.source.before_read = [&](uint64_t offset) {
    if (offset < 5 * kGranule || std::exchange(once, true)) return;  // five granules of the first are there
    CHECK(world.Reads(*upgraded.reader, 2'000'000, 100));
    CHECK_STATUS_OK(world.upgrader->Delete(world.io, *upgraded.local));
    CHECK_EQ(world.cache->BytesOf("abd234.7.car"), 0);
  };
  CHECK(world.Reads(*upgraded.reader, 0, 10 * kGranule));
  CHECK(once);
  CHECK_EQ(world.cache->Stats().bytes, of_other);
}

// The source of a job that knows nothing of it yet.
struct AheadWorld : World {
  AheadWorld() {
    source.connects = true;
    spec.for_job = true;
    options.partial.tail_bytes = 1'000'000;
    Restart();
  }
  ~AheadWorld() { upgrader->SetBackground(nullptr); }
};
constexpr uint64_t kTailFrom = kSize - 1'000'000;

TEST_CASE("partial copy: the end of a source that connects comes beside its beginning") {
  AheadWorld world;
  world.upgrader->SetBackground([](absl::AnyInvocable<void()> work) { work(); });
  const Upgraded upgraded = ValueOf(world.Upgrade());
  CHECK_EQ(world.source.requests, 2);
  CHECK_EQ(world.source.stats, world.options.partial.connections_ahead);  // each has its connection
  CHECK(world.Reads(*upgraded.reader, 0, 1000));
  CHECK(world.Reads(*upgraded.reader, kTailFrom + kGranule, 1'000'000 - kGranule));
  CHECK_EQ(world.source.requests, 2);
  CHECK_EQ(world.cache->Stats().bytes, world.cache->BytesOf("abc234.7.car"));

  // Another source of the same host finds its connections there; and what is read on and on is asked for once.
  world.spec.name_stem = "other";
  const Upgraded other = ValueOf(world.Upgrade());
  CHECK_EQ(world.source.stats, world.options.partial.connections_ahead);
  CHECK_EQ(world.source.requests, 4);
  const uint64_t sent = world.source.bytes_sent;
  const ByteRange all{0, kSize};
  other.reader->WillRead({&all, 1});
  for (uint64_t at = 0; at < kSize; at += 100'000)
    CHECK(world.Reads(*other.reader, at, std::min<uint64_t>(100'000, kSize - at)));
  CHECK_LE(world.source.bytes_sent - sent, kSize - 1'000'000 + kGranule);
  CHECK_STATUS_OK(other.reader->MakeWhole({}));
}

TEST_CASE("partial copy: an end that is of another version, fails or has no worker is done without") {
  const auto check = [](AheadWorld& world, int requests) {
    const Upgraded upgraded = ValueOf(world.Upgrade());
    CHECK(world.Reads(*upgraded.reader, kSize - 1000, 1000));
    CHECK(world.Reads(*upgraded.reader, 0, 1000));
    CHECK_EQ(world.source.requests, requests);
  };
  {
    AheadWorld world;
    world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) {
      world.source.validator = "v0";
      work();
      world.source.validator = "v1";
    });
    check(world, 3);
  }
  {
    AheadWorld world;
    world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) {
      world.source.open_error = Unavailable("busy");
      work();
      world.source.open_error = absl::OkStatus();
    });
    check(world, 3);
  }
  {
    AheadWorld world;
    std::vector<absl::AnyInvocable<void()>> posted;
    world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) { posted.push_back(std::move(work)); });
    check(world, 2);
    for (auto& work : posted) work();
    CHECK_EQ(world.source.requests, 2);
  }
  {
    AheadWorld world;
    world.options.partial.tail_bytes = 0;
    world.Restart();
    world.upgrader->SetBackground([](absl::AnyInvocable<void()> work) { work(); });
    check(world, 2);
    CHECK_EQ(world.source.stats, 0);
  }
}

TEST_CASE("partial copy: who reads the end while it is under way waits for it; one that breaks off costs a request") {
  for (const bool breaks_off : {false, true}) {
    AheadWorld world;
    world.options.partial.connections_ahead = 0;
    world.Restart();
    Mutex mu;
    CondVar changed;
    bool begun = false, read = false;
    const auto set = [&](bool& flag) {
      {
        MutexLock lock(mu);
        flag = true;
      }
      changed.NotifyAll();
    };
    const auto wait_for = [&](const bool& flag) {
      MutexLock lock(mu);
      while (!flag) changed.Wait(mu);
    };
    std::thread worker;
    world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) {
      worker = std::thread([work = std::move(work)]() mutable { work(); });
      wait_for(begun);
    });
    std::atomic<int> reads_of_end = 0;
    world.source.before_read = [&](uint64_t offset) {
      if (offset < kTailFrom) return;
      const int nth = ++reads_of_end;
      if (nth == 1) {
        set(begun);
        wait_for(read);
        if (breaks_off) world.source.fail_at = offset;
      } else {
        world.source.fail_at.reset();
      }
    };
    const Upgraded upgraded = ValueOf(world.Upgrade());
    std::thread reader([&] { CHECK(world.Reads(*upgraded.reader, kSize - 1000, 1000)); });
    set(read);
    worker.join();
    reader.join();
    CHECK_EQ(world.source.requests, 2 + (breaks_off ? 1 : 0));
  }
}

TEST_CASE("partial copy: the map is written beside what goes on, and what it misses has a limit") {
  World world;
  world.Know();
  world.options.partial.map_save_bytes = 500'000;
  world.Restart();
  std::vector<absl::AnyInvocable<void()>> posted;
  world.upgrader->SetBackground([&](absl::AnyInvocable<void()> work) { posted.push_back(std::move(work)); });
  const Upgraded upgraded = ValueOf(world.Upgrade());
  const auto saved = [&]() -> uint64_t {
    const auto text = ReadSmallFile(world.io, world.options.folder + "/abc234.7.map", kExtentMapBytesMax);
    return text.ok() ? ValueOf(ExtentMap::Decode(*text)).BytesThere() : 0;
  };
  CHECK(world.Reads(*upgraded.reader, 0, 600'000));
  REQUIRE_EQ(posted.size(), 1);
  CHECK_EQ(saved(), 0);
  CHECK(world.Reads(*upgraded.reader, 600'000, 300'000));
  CHECK_EQ(posted.size(), 1);  // once is enough
  posted.front()();
  CHECK_GE(saved(), 900'000);
  // A worker that does not come: the reader does it himself.
  CHECK(world.Reads(*upgraded.reader, 2'300'000, 600'000));
  CHECK_EQ(posted.size(), 2);
  CHECK(world.Reads(*upgraded.reader, 1'400'000, 700'000));
  CHECK_GE(saved(), 2'000'000);
  world.upgrader->SetBackground(nullptr);
}

}  // namespace
}  // namespace dagstore
