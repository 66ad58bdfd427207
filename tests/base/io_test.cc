#include "base/io.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "tests/fakes/fake_io.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

using Names = std::vector<std::string>;
using Lost = FakeIo::Lost;

std::string Contents(Io& io, const std::string& path) {
  return std::string(AsText(ValueOf(ReadSmallFile(io, path, 1 << 20))));
}

void WriteText(Io& io, const std::string& path, std::string_view text) {
  const std::unique_ptr<WritableFile> file = ValueOf(io.Create(path));
  REQUIRE_STATUS_OK(file->Append(AsSpan(text)));
  REQUIRE_STATUS_OK(file->Close());
}

mode_t ModeOf(const std::string& path) {
  struct stat found;
  REQUIRE_EQ(::lstat(path.c_str(), &found), 0);
  return found.st_mode & 07777;
}

// Runs `test` on the real files and on the fake, so that the fake stays true.
void OnEveryIo(const std::function<void(Io&, const std::string& dir)>& test) {
  {
    const TempDir dir;
    test(Io::Posix(), dir.path());
  }
  FakeIo fake;
  REQUIRE_STATUS_OK(fake.MakeDir("/tmp/x"));
  test(fake, "/tmp/x");
  CHECK_EQ(fake.open_files(), 0);
}

TEST_CASE("io: what is written is read back") {
  OnEveryIo([](Io& io, const std::string& dir) {
    const std::string path = dir + "/a";
    const std::unique_ptr<WritableFile> out = ValueOf(io.Create(path));
    CHECK_STATUS_OK(out->Append(AsSpan("hello ")));
    CHECK_STATUS_OK(out->Append({}));
    CHECK_STATUS_OK(out->WriteAt(8, AsSpan("!!")));      // a hole before it
    CHECK_STATUS_OK(out->WriteAt(0, AsSpan("J")));
    CHECK_STATUS_OK(out->Append(AsSpan("end")));         // after the hole
    CHECK_STATUS_OK(out->Sync());
    CHECK_STATUS_OK(out->Close());
    const std::string expected("Jello \0\0!!end", 13);
    CHECK_EQ(Contents(io, path), expected);

    const std::unique_ptr<RandomFile> in = ValueOf(io.Open(path));
    CHECK_EQ(in->Size(), expected.size());
    const FileStat stat = ValueOf(in->Stat());
    CHECK_EQ(stat.size, expected.size());
    CHECK(stat.is_regular);
    CHECK(stat == ValueOf(io.Stat(path)));
    CHECK_EQ(AsText(ValueOf(in->Map())), expected);
    CHECK_EQ(ValueOf(in->Map()).data(), ValueOf(in->Map()).data());  // one mapping

    uint8_t some[32];
    CHECK_EQ(ValueOf(in->ReadSome(8, sizeof some, some)), 5);
    CHECK_EQ(AsText(Span(some, 5)), "!!end");
    CHECK_EQ(ValueOf(in->ReadSome(expected.size(), 1, some)), 0);
    CHECK_EQ(ValueOf(in->ReadSome(std::numeric_limits<uint64_t>::max(), 1, some)), 0);
    CHECK_CODE(in->Read(8, 6, some), kDataLoss);
  });
}

TEST_CASE("io: a file that goes on is appended to at its end") {
  OnEveryIo([](Io& io, const std::string& dir) {
    const std::string path = dir + "/a";
    WriteText(io, path, "abc");
    const std::unique_ptr<WritableFile> out = ValueOf(io.OpenForWriting(path));
    CHECK_STATUS_OK(out->Append(AsSpan("de")));
    CHECK_STATUS_OK(out->WriteAt(1, AsSpan("X")));
    CHECK_STATUS_OK(out->Close());
    CHECK_EQ(Contents(io, path), "aXcde");
    CHECK_CODE(io.OpenForWriting(dir + "/absent"), kNotFound);
    CHECK_CODE(io.OpenForWriting(dir), kInvalidArgument);
  });
}

TEST_CASE("io: an empty file maps to nothing") {
  OnEveryIo([](Io& io, const std::string& dir) {
    WriteText(io, dir + "/empty", "");
    const std::unique_ptr<RandomFile> in = ValueOf(io.Open(dir + "/empty"));
    CHECK(ValueOf(in->Map()).empty());
    CHECK_EQ(Contents(io, dir + "/empty"), "");
  });
}

TEST_CASE("io: a write beyond the largest file is refused") {
  OnEveryIo([](Io& io, const std::string& dir) {
    const std::unique_ptr<WritableFile> out = ValueOf(io.Create(dir + "/a"));
    CHECK_CODE(out->WriteAt(std::numeric_limits<uint64_t>::max(), AsSpan("x")), kUnavailable);
    CHECK_CODE(out->WriteAt(std::numeric_limits<int64_t>::max(), AsSpan("x")), kUnavailable);
    CHECK_STATUS_OK(out->Append(AsSpan("x")));
    CHECK_STATUS_OK(out->Close());
    CHECK_EQ(Contents(io, dir + "/a"), "x");
  });
}

TEST_CASE("io: an open file outlives its name") {
  OnEveryIo([](Io& io, const std::string& dir) {
    WriteText(io, dir + "/a", "old");
    WriteText(io, dir + "/b", "new");
    const std::unique_ptr<RandomFile> in = ValueOf(io.Open(dir + "/a"));
    CHECK_STATUS_OK(io.Rename(dir + "/b", dir + "/a"));
    CHECK_EQ(Contents(io, dir + "/a"), "new");
    CHECK_STATUS_OK(io.Remove(dir + "/a"));
    uint8_t out[3];
    CHECK_STATUS_OK(in->Read(0, 3, out));
    CHECK_EQ(AsText(out), "old");
    CHECK_EQ(ValueOf(io.List(dir)), Names{});
  });
}

TEST_CASE("io: errors have the right code and name the path") {
  OnEveryIo([](Io& io, const std::string& dir) {
    WriteText(io, dir + "/a", "a");
    const std::string absent = dir + "/absent";
    struct Case {
      const char* what;
      absl::Status seen;
      absl::StatusCode code;
      std::string path;
    };
    const Case cases[] = {
        {"open absent", io.Open(absent).status(), absl::StatusCode::kNotFound, absent},
        {"stat absent", io.Stat(absent).status(), absl::StatusCode::kNotFound, absent},
        {"remove absent", io.Remove(absent), absl::StatusCode::kNotFound, absent},
        {"rename absent", io.Rename(absent, dir + "/b"), absl::StatusCode::kNotFound, absent},
        {"list absent", io.List(absent).status(), absl::StatusCode::kNotFound, absent},
        {"sync absent", io.SyncDir(absent), absl::StatusCode::kNotFound, absent},
        {"create in absent", io.Create(absent + "/a").status(), absl::StatusCode::kNotFound, absent + "/a"},
        {"create again", io.Create(dir + "/a").status(), absl::StatusCode::kAlreadyExists, dir + "/a"},
        {"create on a folder", io.Create(dir).status(), absl::StatusCode::kAlreadyExists, dir},
        {"open a folder", io.Open(dir).status(), absl::StatusCode::kInvalidArgument, dir},
        {"make a folder in a file", io.MakeDir(dir + "/a/b"), absl::StatusCode::kInvalidArgument, dir + "/a"},
        {"make a folder on a file", io.MakeDir(dir + "/a"), absl::StatusCode::kInvalidArgument, dir + "/a"},
    };
    for (const Case& c : cases) {
      CAPTURE(c.what);
      CAPTURE(ToString(c.seen));
      CHECK_EQ(static_cast<int>(c.seen.code()), static_cast<int>(c.code));
      CHECK_NE(Message(c.seen).find(c.path), std::string_view::npos);
    }
    CHECK_EQ(Contents(io, dir + "/a"), "a");
  });
}

TEST_CASE("io: folders are made with their parents, and listed in order") {
  OnEveryIo([](Io& io, const std::string& dir) {
    CHECK_STATUS_OK(io.MakeDir(dir + "/x/y/z"));
    CHECK_STATUS_OK(io.MakeDir(dir + "/x/y/z"));
    CHECK_STATUS_OK(io.MakeDir(dir + "/x/w"));
    CHECK(ValueOf(io.Stat(dir + "/x/y/z")).is_directory);
    WriteText(io, dir + "/x/v", "");
    WriteText(io, dir + "/x/zz", "");
    CHECK_EQ(ValueOf(io.List(dir + "/x")), Names{"v", "w", "y", "zz"});
    CHECK_STATUS_OK(io.SyncDir(dir + "/x"));
  });
}

TEST_CASE("posix io: files and folders are for their owner only") {
  const TempDir dir;
  Io& io = Io::Posix();
  const mode_t old = ::umask(0);
  WriteText(io, dir.File("a"), "");
  CHECK_STATUS_OK(io.MakeDir(dir.File("x/y/")));
  ::umask(old);
  CHECK_EQ(ModeOf(dir.File("a")), 0600);
  CHECK_EQ(ModeOf(dir.File("x")), 0700);
  CHECK_EQ(ModeOf(dir.File("x/y")), 0700);
  CHECK_CODE(io.MakeDir(""), kInvalidArgument);
}

TEST_CASE("posix io: links are followed only where asked, and never written through") {
  const TempDir dir;
  Io& io = Io::Posix();
  WriteText(io, dir.File("target"), "t");
  REQUIRE_EQ(::symlink("target", dir.File("link").c_str()), 0);
  REQUIRE_EQ(::symlink("nowhere", dir.File("dangling").c_str()), 0);
  CHECK_STATUS_OK(io.Open(dir.File("link"), Follow::kAlways));
  CHECK_CODE(io.Open(dir.File("link"), Follow::kNever), kInvalidArgument);
  CHECK(ValueOf(io.Stat(dir.File("link"), Follow::kAlways)).is_regular);
  CHECK_FALSE(ValueOf(io.Stat(dir.File("link"), Follow::kNever)).is_regular);
  CHECK_CODE(io.Create(dir.File("link")), kAlreadyExists);
  CHECK_CODE(io.Create(dir.File("dangling")), kAlreadyExists);
  CHECK_CODE(io.OpenForWriting(dir.File("link")), kInvalidArgument);
  CHECK_CODE(io.MakeDir(dir.File("dangling")), kAlreadyExists);
  CHECK_EQ(ValueOf(io.List(dir.path())), Names{"dangling", "link", "target"});
}

TEST_CASE("posix io: what is no regular file is refused, and does not hang") {
  const TempDir dir;
  Io& io = Io::Posix();
  REQUIRE_EQ(::mkfifo(dir.File("fifo").c_str(), 0600), 0);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE_LT(dir.File("socket").size(), sizeof address.sun_path);
  std::strcpy(address.sun_path, dir.File("socket").c_str());
  REQUIRE_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  for (const std::string& path : {dir.File("fifo"), dir.File("socket"), std::string("/dev/null"), dir.path()}) {
    CAPTURE(path);
    CHECK_CODE(io.Open(path), kInvalidArgument);
    CHECK_CODE(io.OpenForWriting(path), kInvalidArgument);
  }
  ::close(fd);
}

TEST_CASE("posix io: a zero byte in a path names no other file") {
  const TempDir dir;
  WriteText(Io::Posix(), dir.File("a"), "a");
  CHECK_CODE(Io::Posix().Open(dir.File("a") + std::string("\0b", 2)), kInvalidArgument);
  CHECK_CODE(Io::Posix().Create(dir.File("b") + std::string("\0c", 2)), kInvalidArgument);
  CHECK_CODE(Io::Posix().Stat(dir.File("a") + std::string("\0b", 2)), kInvalidArgument);
  CHECK_CODE(Io::Posix().Remove(dir.File("a") + std::string("\0b", 2)), kInvalidArgument);
  CHECK_CODE(Io::Posix().Rename(dir.File("a") + std::string("\0b", 2), dir.File("c")), kInvalidArgument);
  CHECK_CODE(Io::Posix().MakeDir(dir.File("d") + std::string("\0b", 2)), kInvalidArgument);
  CHECK_CODE(Io::Posix().List(dir.path() + std::string("\0b", 2)), kInvalidArgument);
  CHECK_EQ(ValueOf(Io::Posix().List(dir.path())), Names{"a"});
}

TEST_CASE("posix io: no descriptor left is a limit, not a broken file") {
  const TempDir dir;
  WriteText(Io::Posix(), dir.File("a"), "a");
  rlimit old;
  REQUIRE_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE_GE(next, 0);
  ::close(next);
  const rlimit none{static_cast<rlim_t>(next), old.rlim_max};
  REQUIRE_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status open = Io::Posix().Open(dir.File("a")).status();
  const absl::Status create = Io::Posix().Create(dir.File("b")).status();
  const absl::Status list = Io::Posix().List(dir.path()).status();
  REQUIRE_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  CHECK_CODE(open, kResourceExhausted);
  CHECK_CODE(create, kResourceExhausted);
  CHECK_CODE(list, kResourceExhausted);
  CHECK_EQ(Contents(Io::Posix(), dir.File("a")), "a");
}

TEST_CASE("small file: the limit is exact, and sizes that files claim do not count") {
  OnEveryIo([](Io& io, const std::string& dir) {
    // Around the steps in which it reads.
    for (const size_t size : {0u, 1u, 4095u, 4096u, 4097u, 8192u, 16384u, 3u << 20}) {
      CAPTURE(size);
      const std::string path = dir + "/" + std::to_string(size);
      std::string text(size, '\0');
      for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
      WriteText(io, path, text);
      CHECK(SameBytes(ValueOf(ReadSmallFile(io, path, size)), AsSpan(text)));
      CHECK(SameBytes(ValueOf(ReadSmallFile(io, path, std::numeric_limits<size_t>::max())), AsSpan(text)));
      if (size > 0) CHECK_CODE(ReadSmallFile(io, path, size - 1), kResourceExhausted);
      if (size > 0) CHECK_CODE(ReadSmallFile(io, path, 0), kResourceExhausted);
    }
    CHECK_CODE(ReadSmallFile(io, dir + "/absent", 10), kNotFound);
  });
  CHECK_EQ(ValueOf(Io::Posix().Stat("/proc/self/status")).size, 0);
  CHECK_GT(ValueOf(ReadSmallFile(Io::Posix(), "/proc/self/status", 1 << 20)).size(), 100);
}

TEST_CASE("small file: a failed read is an error, not an end") {
  FakeIo io;
  io.WriteFile("d/a", AsSpan("a"));
  io.FailReads("d/a");
  CHECK_CODE(ReadSmallFile(io, "d/a", 10), kDataLoss);
}

// PublishFile: what every reader of a repository relies on.

const std::string kNew = "the new content, in three parts";

absl::Status Publish(Io& io, const std::string& dir) {
  const Span all = AsSpan(kNew);
  const Span parts[] = {all.first(7), all.subspan(7, 0), all.subspan(7)};
  return PublishFile(io, dir, "final", "temp-1", parts);
}

// Number of calls of a Publish that nothing disturbs.
uint64_t PublishCalls() {
  FakeIo io;
  REQUIRE_STATUS_OK(io.MakeDir("d"));
  const uint64_t before = io.calls();
  REQUIRE_STATUS_OK(Publish(io, "d"));
  return io.calls() - before;
}

constexpr Lost kLosses[] = {Lost::kAll, Lost::kData, Lost::kHalfData};

std::string Final(const FakeIo& io) {
  const std::optional<Bytes> content = io.Content("d/final");
  return content.has_value() ? std::string(AsText(*content)) : "(absent)";
}

TEST_CASE("publish: writes aside, syncs, renames, syncs the folder, in this order") {
  FakeIo io;
  REQUIRE_STATUS_OK(io.MakeDir("d"));
  io.TakeLog();
  REQUIRE_STATUS_OK(Publish(io, "d"));
  CHECK_EQ(io.TakeLog(), Names{"create d/temp-1", "write d/temp-1 7", "write d/temp-1 0", "write d/temp-1 24",
                               "sync d/temp-1", "close d/temp-1", "rename d/temp-1 d/final", "syncdir d"});
  CHECK_EQ(io.Files(), Names{"d/final"});
  CHECK_EQ(Final(io), kNew);
}

TEST_CASE("publish: works on real files") {
  const TempDir dir;
  REQUIRE_STATUS_OK(Publish(Io::Posix(), dir.path()));
  CHECK_EQ(Contents(Io::Posix(), dir.File("final")), kNew);
  CHECK_EQ(ValueOf(Io::Posix().List(dir.path())), Names{"final"});
}

TEST_CASE("publish: whichever call fails, nothing appears and no temporary stays") {
  const uint64_t calls = PublishCalls();
  CHECK_GE(calls, 8);
  for (uint64_t n = 1; n <= calls; ++n) {
    for (const Lost lost : kLosses) {
      CAPTURE(n);
      CAPTURE(static_cast<int>(lost));
      FakeIo io;
      REQUIRE_STATUS_OK(io.MakeDir("d"));
      io.FailNth(n, ErrnoStatus(ENOSPC, "injected"));
      CHECK_CODE(Publish(io, "d"), kResourceExhausted);
      CHECK_EQ(io.Files(), Names{});
      CHECK_EQ(io.open_files(), 0);
      io.Crash(lost);
      CHECK_EQ(io.Files(), Names{});
      // The same names can be used again.
      CHECK_STATUS_OK(Publish(io, "d"));
      CHECK_EQ(Final(io), kNew);
    }
  }
}

TEST_CASE("publish: whichever call fails, an older file of that name is whole") {
  for (uint64_t n = 1; n <= PublishCalls(); ++n) {
    CAPTURE(n);
    FakeIo io;
    io.WriteFile("d/final", AsSpan("old"));
    io.FailNth(n, Unavailable("injected"));
    CHECK_CODE(Publish(io, "d"), kUnavailable);
    CHECK_EQ(io.Files(), Names{"d/final"});
    CHECK_EQ(Final(io), n == PublishCalls() ? kNew : "old");  // only the sync of the folder comes after the rename
  }
}

TEST_CASE("publish: a crash at any call leaves the name absent or whole") {
  const uint64_t calls = PublishCalls();
  for (const bool had_old : {false, true}) {
    for (uint64_t n = 1; n <= calls + 1; ++n) {
      for (const Lost lost : kLosses) {
        CAPTURE(had_old);
        CAPTURE(n);
        CAPTURE(static_cast<int>(lost));
        FakeIo io;
        REQUIRE_STATUS_OK(io.MakeDir("d"));
        if (had_old) io.WriteFile("d/final", AsSpan("old"));
        io.StopAtNth(n);
        const absl::Status status = Publish(io, "d");
        CHECK_EQ(status.ok(), n > calls);
        io.Crash(lost);
        const std::string after = Final(io);
        if (status.ok()) {
          CHECK_EQ(after, kNew);
        } else {
          CHECK((after == kNew || after == (had_old ? "old" : "(absent)")));
        }
      }
    }
  }
}

TEST_CASE("publish: a full disk leaves nothing, wherever it gets full") {
  for (size_t room = 0; room < kNew.size(); ++room) {
    CAPTURE(room);
    FakeIo io;
    REQUIRE_STATUS_OK(io.MakeDir("d"));
    io.FailAfterBytes(room);
    CHECK_CODE(Publish(io, "d"), kResourceExhausted);
    CHECK_EQ(io.Files(), Names{});
  }
}

TEST_CASE("publish: a temporary of somebody else is not touched") {
  FakeIo io;
  io.WriteFile("d/temp-1", AsSpan("theirs"));
  CHECK_CODE(Publish(io, "d"), kAlreadyExists);
  CHECK_EQ(io.Files(), Names{"d/temp-1"});
  CHECK_EQ(AsText(*io.Content("d/temp-1")), "theirs");
}

}  // namespace
}  // namespace dagstore
