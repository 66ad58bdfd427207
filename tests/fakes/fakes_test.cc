#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/kv_suite.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_io.h"
#include "tests/fakes/fake_kv.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

using Op = FakeIo::Op;
using Lost = FakeIo::Lost;
using Names = std::vector<std::string>;

std::string TextOf(const FakeIo& io, const std::string& path) {
  const std::optional<Bytes> content = io.Content(path);
  return content.has_value() ? std::string(AsText(*content)) : "(absent)";
}

std::unique_ptr<WritableFile> CreateWith(FakeIo& io, const std::string& path, std::string_view text) {
  std::unique_ptr<WritableFile> file = ValueOf(io.Create(path));
  CHECK_STATUS_OK(file->Append(AsSpan(text)));
  return file;
}

TEST_CASE("fake clock: moves when told, and the monotonic clock does not see the wall clock being set") {
  FakeClock clock;
  const MonotonicNanos start = clock.Now();
  const absl::Time wall = clock.WallNow();
  clock.Advance(absl::Milliseconds(5));
  CHECK_EQ(clock.Now() - start, 5'000'000);
  CHECK_EQ(clock.WallNow() - wall, absl::Milliseconds(5));
  clock.SetWall(wall - absl::Hours(1));
  CHECK_EQ(clock.Now() - start, 5'000'000);
  CHECK_EQ(clock.WallNow(), wall - absl::Hours(1));
  clock.Advance(absl::Seconds(1));
  CHECK_EQ(clock.WallNow(), wall - absl::Hours(1) + absl::Seconds(1));
}

TEST_CASE("fake io: a crash takes what was not synced, names and data apart") {
  struct Case {
    const char* what;
    bool sync_file;
    bool sync_dir;
    Lost lost;
    const char* after;
  };
  const Case cases[] = {
      {"nothing synced, all lost", false, false, Lost::kAll, "(absent)"},
      {"nothing synced, names survive", false, false, Lost::kData, ""},
      {"nothing synced, half the data survives", false, false, Lost::kHalfData, "12"},
      {"file synced only", true, false, Lost::kAll, "(absent)"},
      {"file synced, name survives", true, false, Lost::kData, "1234"},
      {"folder synced only", false, true, Lost::kAll, ""},
      {"both synced", true, true, Lost::kAll, "1234"},
      {"both synced, half data", true, true, Lost::kHalfData, "1234"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    FakeIo io;
    REQUIRE_STATUS_OK(io.MakeDir("d"));
    const std::unique_ptr<WritableFile> file = CreateWith(io, "d/a", "1234");
    if (c.sync_file) CHECK_STATUS_OK(file->Sync());
    if (c.sync_dir) CHECK_STATUS_OK(io.SyncDir("d"));
    CHECK_EQ(TextOf(io, "d/a"), "1234");
    io.Crash(c.lost);
    CHECK_EQ(TextOf(io, "d/a"), c.after);
    CHECK_CODE(file->Append(AsSpan("5")), kUnavailable);  // the handle is dead
    CHECK_EQ(TextOf(io, "d/a"), c.after);
  }
}

TEST_CASE("fake io: renames and removals are undone by a crash until the folder is synced") {
  FakeIo io;
  io.WriteFile("d/a", AsSpan("a"));
  io.WriteFile("d/b", AsSpan("b"));
  CHECK_STATUS_OK(io.Rename("d/a", "d/c"));
  CHECK_STATUS_OK(io.Remove("d/b"));
  CHECK_EQ(io.Files(), Names{"d/c"});
  io.Crash();
  CHECK_EQ(io.Files(), Names{"d/a", "d/b"});
  CHECK_STATUS_OK(io.Rename("d/a", "d/b"));  // replaces
  CHECK_STATUS_OK(io.SyncDir("d"));
  io.Crash();
  CHECK_EQ(io.Files(), Names{"d/b"});
  CHECK_EQ(TextOf(io, "d/b"), "a");
}

TEST_CASE("fake io: the n-th call fails, once, and has no effect") {
  FakeIo io;
  REQUIRE_STATUS_OK(io.MakeDir("d"));
  io.FailNth(2, Unavailable("injected"));
  CHECK_STATUS_OK(io.Create("d/1"));
  CHECK_CODE(io.Create("d/2"), kUnavailable);
  CHECK_STATUS_OK(io.Create("d/3"));
  CHECK_EQ(io.Files(), Names{"d/1", "d/3"});

  io.FailNth(Op::kRemove, 2, FailedPrecondition("injected"));
  CHECK_STATUS_OK(io.Stat("d/1", Follow::kAlways));
  CHECK_STATUS_OK(io.Remove("d/1"));
  CHECK_STATUS_OK(io.Stat("d/3", Follow::kAlways));
  CHECK_CODE(io.Remove("d/3"), kFailedPrecondition);
  CHECK_EQ(io.Files(), Names{"d/3"});
}

TEST_CASE("fake io: a stopped machine answers nothing until the crash is over") {
  FakeIo io;
  io.WriteFile("d/a", AsSpan("a"));
  io.StopAtNth(2);
  CHECK_STATUS_OK(io.Open("d/a", Follow::kAlways));
  CHECK_CODE(io.Remove("d/a"), kUnavailable);
  CHECK_CODE(io.Open("d/a", Follow::kAlways), kUnavailable);
  io.Crash();
  CHECK_STATUS_OK(io.Open("d/a", Follow::kAlways));
}

TEST_CASE("fake io: a full disk takes what fits and says ENOSPC") {
  FakeIo io;
  REQUIRE_STATUS_OK(io.MakeDir("d"));
  io.FailAfterBytes(5);
  const std::unique_ptr<WritableFile> file = CreateWith(io, "d/a", "123");
  CHECK_CODE(file->Append(AsSpan("4567")), kResourceExhausted);
  CHECK_EQ(TextOf(io, "d/a"), "12345");
  CHECK_CODE(file->Append(AsSpan("6")), kResourceExhausted);
  io.Heal();
  CHECK_STATUS_OK(file->Append(AsSpan("6")));
  CHECK_EQ(TextOf(io, "d/a"), "123456");
}

TEST_CASE("fake io: reads can fail, end early, and see a flipped bit") {
  FakeIo io;
  io.WriteFile("d/a", AsSpan("abcdef"));
  const std::unique_ptr<RandomFile> file = ValueOf(io.Open("d/a", Follow::kAlways));
  uint8_t out[6];

  io.FailReads("d/a");
  CHECK_CODE(file->Read(0, 6, out), kDataLoss);
  io.Heal().ShortenReads("d/a", 4);
  CHECK_EQ(file->Size(), 6);
  CHECK_EQ(ValueOf(file->ReadSome(2, 4, out)), 2);
  CHECK_CODE(file->Read(0, 6, out), kDataLoss);
  io.Heal().FlipBit("d/a", 1, 0);
  CHECK_STATUS_OK(file->Read(0, 6, out));
  CHECK_EQ(AsText(out), "accdef");
  io.Crash();
  CHECK_EQ(TextOf(io, "d/a"), "accdef");
}

TEST_CASE("fake io: logs calls that took effect, and counts calls and open handles") {
  FakeIo io;
  REQUIRE_STATUS_OK(io.MakeDir("d"));
  CHECK_EQ(io.open_files(), 0);
  {
    const std::unique_ptr<WritableFile> file = CreateWith(io, "d/a", "12");
    CHECK_STATUS_OK(file->WriteAt(4, AsSpan("3")));
    CHECK_EQ(io.open_files(), 1);
    CHECK_STATUS_OK(file->Sync());
    CHECK_STATUS_OK(file->Close());
    CHECK_EQ(io.open_files(), 0);
  }
  CHECK_EQ(TextOf(io, "d/a"), std::string("12\0\0" "3", 5));
  CHECK_CODE(io.Remove("d/x"), kNotFound);
  const std::unique_ptr<RandomFile> file = ValueOf(io.Open("d/a", Follow::kAlways));
  CHECK_EQ(io.open_files(), 1);
  CHECK_EQ(AsText(ValueOf(file->Map()).first(2)), "12");
  CHECK_EQ(io.TakeLog(), Names{"makedir d", "create d/a", "write d/a 2", "write d/a 1", "sync d/a", "close d/a",
                               "open d/a", "map d/a"});
  CHECK_EQ(io.TakeLog(), Names{});
  CHECK_EQ(io.calls(), 9);
}

TEST_CASE("fake io: folders list names, and refuse files in folders that are not there") {
  FakeIo io;
  CHECK_CODE(io.Create("d/a"), kNotFound);
  CHECK_STATUS_OK(io.MakeDir("d/e/f"));
  io.WriteFile("d/b", {});
  io.WriteFile("d/e/x", {});
  CHECK_EQ(ValueOf(io.List("d")), Names{"b", "e"});
  CHECK_EQ(ValueOf(io.List("d/e")), Names{"f", "x"});
  CHECK_CODE(io.List("d/g"), kNotFound);
  CHECK_CODE(io.Open("d/e", Follow::kAlways), kInvalidArgument);
  CHECK_CODE(io.MakeDir("d/b/c"), kInvalidArgument);
  CHECK(ValueOf(io.Stat("d/e", Follow::kAlways)).is_directory);
  CHECK(ValueOf(io.Stat("d/b", Follow::kAlways)).is_regular);
}

TEST_CASE("fake io: yields to the test") {
  FakeIo io;
  io.Yield();
  int yields = 0;
  io.OnYield([&] { ++yields; });
  io.Yield();
  io.Yield();
  CHECK_EQ(yields, 2);
}

KvBatch Put(const std::string& key) {
  KvBatch batch;
  batch.Put(KvTable::kMeta, key, "v");
  return batch;
}

bool Has(Kv& kv, const std::string& key) { return ValueOf(kv.Get(KvTable::kMeta, key)).has_value(); }

TEST_CASE("fake kv: passes on what it is not told to spoil") {
  RunKvSuite([] { return std::make_unique<FakeKv>(); });
}

TEST_CASE("fake kv: the n-th commit and all later ones fail, applied or not") {
  for (const bool applied : {false, true}) {
    CAPTURE(applied);
    FakeKv kv;
    kv.FailCommit(2, Unavailable("injected"), applied ? FakeKv::Applied::kYes : FakeKv::Applied::kNo);
    CHECK_STATUS_OK(kv.Commit(Put("1"), true));
    CHECK_CODE(kv.Commit(Put("2"), true), kUnavailable);
    CHECK_CODE(kv.Commit(Put("3"), true), kUnavailable);
    CHECK(Has(kv, "1"));
    CHECK_EQ(Has(kv, "2"), applied);
    CHECK_FALSE(Has(kv, "3"));
    CHECK_EQ(kv.commits(), 3);
    kv.Heal();
    CHECK_STATUS_OK(kv.Commit(Put("4"), true));
  }
}

TEST_CASE("fake kv: holds commits until they are released, in order") {
  FakeKv kv;
  kv.Hold();
  std::thread first([&] { CHECK_STATUS_OK(kv.Commit(Put("1"), true)); });
  kv.WaitUntilWaiting(1);
  std::thread second([&] { CHECK_STATUS_OK(kv.Commit(Put("2"), true)); });
  kv.WaitUntilWaiting(2);
  CHECK_FALSE(Has(kv, "1"));
  kv.Release(1);
  first.join();
  CHECK(Has(kv, "1"));
  CHECK_FALSE(Has(kv, "2"));
  CHECK_EQ(kv.waiting(), 1);
  kv.ReleaseAll();
  second.join();
  CHECK(Has(kv, "2"));
  CHECK_STATUS_OK(kv.Commit(Put("3"), true));  // held no more
  kv.Hold();
  std::thread third([&] { CHECK_STATUS_OK(kv.Commit(Put("4"), true)); });
  kv.WaitUntilWaiting(1);
  CHECK_FALSE(Has(kv, "4"));
  kv.ReleaseAll();
  third.join();
}

}  // namespace
}  // namespace dagstore
