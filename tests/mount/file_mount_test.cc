#include "mount/file_mount.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/conformance/mount_suite.h"
#include "tests/fakes/fake_io.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

void WriteFile(const std::string& path, Span content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(content.data()),
             static_cast<std::streamsize>(content.size()));
  file.close();
  REQUIRE(file.good());
}
void WriteFile(const std::string& path, std::string_view content) {
  WriteFile(path, AsSpan(content));
}

std::unique_ptr<Mount> MakeMount(const MountRegistry& registry, const std::string& text) {
  return ValueOf(registry.Make(ValueOf(Url::Parse(text))));
}

absl::StatusOr<std::string> ReadText(const Mount& mount) {
  ASSIGN_OR_RETURN(const Bytes all, ReadMount(mount));
  return std::string(AsText(all));
}

// Roots "" and "data" are folders of `dir`.
struct Roots {
  Roots() {
    fs::create_directories(dir.File("repo/sub"));
    fs::create_directories(dir.File("data/sub"));
    fs::create_directories(dir.File("outside"));
    WriteFile(dir.File("repo/sub/a.car"), "in repo");
    WriteFile(dir.File("data/sub/a.car"), "in data");
    WriteFile(dir.File("outside/secret"), "outside");
  }
  FileMountConfig Config() const {
    return {.roots = {{"", dir.File("repo")}, {"data", dir.File("data")}}};
  }

  TempDir dir;
};

TEST_CASE("file mount: passes the suite") {
  TempDir dir;
  const std::string path = dir.File("a b%2F#?\n.car");
  bool below_root = false;
  FileMountConfig config;
  config.roots["data"] = dir.path();
  SUBCASE("with absolute paths") {}
  SUBCASE("with absolute paths and no links") { config.symlinks_allowed = false; }
  SUBCASE("below a root") { below_root = true; }

  MountUnderTest test;
  test.registry = DefaultMounts(config);
  const auto mount_of = [&, below_root](const std::string& name) {
    Url url;
    url.scheme = "file";
    url.has_authority = !below_root;
    url.path = below_root ? name : dir.File(name);
    if (below_root) url.query = {{"root", "data"}};
    return ValueOf(test.registry.Make(url));
  };
  test.put = [&](const Bytes& content) {
    WriteFile(path, content);
    return mount_of(fs::path(path).filename());
  };
  test.remove = [&] { fs::remove(path); };
  test.not_files.push_back([&] {
    fs::create_directory(dir.File("folder"));
    return mount_of("folder");
  });
  test.not_files.push_back([&] {
    REQUIRE_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
    return mount_of("fifo");
  });
  test.not_files.push_back([&] {
    sockaddr_un address = {.sun_family = AF_UNIX};
    const std::string name = dir.File("socket");
    REQUIRE_LT(name.size(), sizeof(address.sun_path));
    std::copy(name.begin(), name.end(), address.sun_path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    close(fd);
    return mount_of("socket");
  });
  if (!below_root) {
    test.not_files.push_back([&] { return MakeMount(test.registry, "file:///dev/null"); });
  }
  CheckMount(test);
}

TEST_CASE("file mount: a relative path is read below the root it names") {
  Roots roots;
  const MountRegistry registry = DefaultMounts(roots.Config());
  CHECK_EQ(ValueOf(ReadText(*MakeMount(registry, "file:sub/a.car"))), "in repo");
  CHECK_EQ(ValueOf(ReadText(*MakeMount(registry, "file:./sub//a.car?root="))), "in repo");
  CHECK_EQ(ValueOf(ReadText(*MakeMount(registry, "file:sub/a.car?root=data"))), "in data");
  CHECK_EQ(ValueOf(ReadText(*MakeMount(registry, "file:///" + roots.dir.File("data/sub/a.car")))),
           "in data");
  CHECK_EQ(ValueOf(ReadText(
               *MakeMount(registry, "file://localhost" + roots.dir.File("data/sub/a.car")))),
           "in data");

  SUBCASE("and elsewhere, when the root has moved") {
    FileMountConfig moved = roots.Config();
    fs::rename(roots.dir.File("data"), roots.dir.File("moved"));
    const std::string stored = MakeMount(registry, "file:sub/a.car?root=data")->url().Encoded();
    CHECK_CODE(MakeMount(registry, stored)->Stat(Io::Posix(), {}), kUnavailable);
    moved.roots["data"] = roots.dir.File("moved");
    CHECK_EQ(ValueOf(ReadText(*MakeMount(DefaultMounts(moved), stored))), "in data");
  }
}

TEST_CASE("file mount: a url that makes no sense is refused") {
  Roots roots;
  const MountRegistry registry = DefaultMounts(roots.Config());
  for (const char* text :
       {"file:", "file:/", "file:///", "file://host/a", "file://me@/a", "file://localhost:1/a",
        "file:..", "file:../a", "file:a/..", "file:a/../b", "file:a/%2E%2E/b", "file:%2e%2e%2Fb",
        "file:///../a", "file:///a/../b", "file:a%00b", "file:a?root=data&root=data",
        "file:a?user=x", "file:///a?root=data", "file:a?root=data&x=y"}) {
    CAPTURE(text);
    CHECK_CODE(registry.Make(ValueOf(Url::Parse(text))), kInvalidArgument);
  }
  // Names that only look like it.
  for (const char* text : {"file:...", "file:..a/b..", "file:a..b"}) {
    CAPTURE(text);
    CHECK_FALSE(ValueOf(MakeMount(registry, text)->Stat(Io::Posix(), {})).exists);
  }
}

TEST_CASE(
    "file mount: what the configuration does not allow is FailedPrecondition, and the url is "
    "kept") {
  Roots roots;
  FileMountConfig config = roots.Config();
  config.absolute_paths_allowed = false;
  const MountRegistry registry = DefaultMounts(config);
  for (const std::string& text :
       {"file://" + roots.dir.File("data/sub/a.car"), std::string("file:a.car?root=gone")}) {
    const auto mount = MakeMount(registry, text);
    CHECK_CODE(mount->Stat(Io::Posix(), {}), kFailedPrecondition);
    CHECK_CODE(mount->OpenRandom(Io::Posix(), {}), kFailedPrecondition);
    CHECK_CODE(mount->OpenStream(Io::Posix(), {}), kFailedPrecondition);
    CHECK_EQ(ValueOf(registry.Represent(*mount)).Encoded(), text);
  }
}

// What links may do, with openat2 and without.
void CheckLinks(const Roots& roots, bool openat2) {
  const auto read = [&](const std::string& text, bool links) {
    FileMountConfig config = roots.Config();
    config.symlinks_allowed = links;
    return ReadText(*MakeMount(DefaultMounts(config), text));
  };
  CHECK_EQ(ValueOf(read("file:sub/a.car", true)), "in repo");
  CHECK_EQ(ValueOf(read("file:sub/a.car", false)), "in repo");
  CHECK_EQ(ValueOf(read("file:.//sub///a.car", false)), "in repo");
  CHECK_CODE(read("file:sub/none.car", true), kNotFound);
  CHECK_CODE(read("file:none/a.car", true), kNotFound);
  CHECK_CODE(read("file:sub/a.car/b", true), kInvalidArgument);
  CHECK_CODE(read("file:sub", true), kInvalidArgument);
  for (const char* inside : {"file:link.car", "file:linked/a.car"}) {
    CAPTURE(inside);
    if (openat2) {
      CHECK_EQ(ValueOf(read(inside, true)), "in repo");
    } else {
      CHECK_CODE(read(inside, true), kInvalidArgument);
    }
    CHECK_CODE(read(inside, false), kInvalidArgument);
  }
  for (const char* outside :
       {"file:up.car", "file:out/secret", "file:absolute.car", "file:proc/self/exe"}) {
    CAPTURE(outside);
    for (const bool links : {true, false}) {
      const absl::Status status = read(outside, links).status();
      INFO(ToString(status));
      CHECK((absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status)));
    }
  }
}

void PlantLinks(const Roots& roots) {
  const fs::path repo = roots.dir.File("repo");
  fs::create_symlink("sub/a.car", repo / "link.car");
  fs::create_directory_symlink("sub", repo / "linked");
  fs::create_symlink("../outside/secret", repo / "up.car");
  fs::create_directory_symlink("../outside", repo / "out");
  fs::create_symlink(roots.dir.File("outside/secret"), repo / "absolute.car");
  fs::create_directory_symlink("/proc", repo / "proc");
}

TEST_CASE("file mount: no link leaves a root") {
  Roots roots;
  PlantLinks(roots);
  CheckLinks(roots, true);
}

// Lets openat2 fail with `error` in this thread, until it ends.
bool TakeOpenat2Away(int error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = std::size(filter), .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST_CASE("file mount: no link leaves a root where openat2 is missing or forbidden") {
  Roots roots;
  PlantLinks(roots);
  for (const int error : {ENOSYS, EPERM}) {
    const size_t descriptors = DescriptorCount();
    bool taken = false;
    std::thread([&] {
      taken = TakeOpenat2Away(error);
      if (taken) CheckLinks(roots, false);
    }).join();
    CHECK_EQ(DescriptorCount(), descriptors);
    CHECK(taken);
  }
}

TEST_CASE("file mount: links in absolute paths are followed only if they are allowed") {
  Roots roots;
  fs::create_symlink(roots.dir.File("data/sub/a.car"), roots.dir.File("link.car"));
  FileMountConfig config = roots.Config();
  const std::string text = "file://" + roots.dir.File("link.car");
  CHECK_EQ(ValueOf(ReadText(*MakeMount(DefaultMounts(config), text))), "in data");
  config.symlinks_allowed = false;
  CHECK_CODE(ReadText(*MakeMount(DefaultMounts(config), text)), kInvalidArgument);
}

TEST_CASE(
    "file mount: a file that was replaced has another validator, and a reader keeps its own") {
  TempDir dir;
  const std::string path = dir.File("a.car");
  WriteFile(path, "first");
  const auto mount = MakeMount(DefaultMounts({}), "file://" + path);
  const std::string first = ValueOf(mount->Stat(Io::Posix(), {})).validator;
  const auto reader = ValueOf(mount->OpenRandomIf(Io::Posix(), {}, first));
  WriteFile(dir.File("b.car"), "other");
  fs::rename(dir.File("b.car"), path);
  CHECK_NE(ValueOf(mount->Stat(Io::Posix(), {})).validator, first);
  CHECK_CODE(mount->OpenRandomIf(Io::Posix(), {}, first), kFailedPrecondition);
  uint8_t read[5];
  CHECK_STATUS_OK(reader->Read(0, 5, read));
  CHECK_EQ(AsText(read), "first");

  SUBCASE("and one that shrinks under a reader ends early, with an error") {
    const auto shrinking = ValueOf(mount->OpenRandom(Io::Posix(), {}));
    fs::resize_file(path, 2);
    CHECK_EQ(shrinking->Size(), 5);
    CHECK_CODE(shrinking->Read(0, 5, read), kDataLoss);
  }
}

// Defects 44 and 36: any other error than "not found" was a null dereference, and storing the shard
// then lost its URL.
TEST_CASE("file mount: an error of stat is an error, and changes nothing of the url") {
  FakeIo io;
  io.WriteFile("/cars/a.car", AsSpan("x"));
  const MountRegistry registry = DefaultMounts({});
  const std::string text = "file:///cars/a.car";
  const auto mount = MakeMount(registry, text);
  for (const absl::Status& error : {ResourceExhausted("EMFILE"), FailedPrecondition("EACCES"),
                                    DataLoss("EIO"), Unavailable("ESTALE")}) {
    // The open, and the look at what was opened.
    for (const int n : {1, 2}) {
      io.FailNth(n, error);
      CHECK(mount->Stat(io, {}).status().code() == error.code());
    }
    io.FailNth(1, error);
    CHECK(mount->OpenRandom(io, {}).status().code() == error.code());
    io.FailNth(1, error);
    CHECK(mount->OpenStream(io, {}).status().code() == error.code());
    CHECK_EQ(ValueOf(registry.Represent(*mount)).Encoded(), text);
    CHECK_EQ(io.open_files(), 0);
  }
  CHECK(ValueOf(mount->Stat(io, {})).exists);

  // A name that is too long, and a folder on the way that is a file.
  CHECK_CODE(MakeMount(registry, "file:///" + std::string(300, 'a'))->Stat(Io::Posix(), {}),
             kInvalidArgument);
  CHECK_CODE(MakeMount(registry, "file:///dev/null/b")->Stat(Io::Posix(), {}), kInvalidArgument);
}

// Defect 37, in the mount: what a file may be called comes back from its stored URL.
TEST_CASE("file mount: any file name survives being stored") {
  TempDir dir;
  const MountRegistry registry = DefaultMounts({});
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/') continue;
    const std::string path = dir.File(std::string("x") + static_cast<char>(byte));
    WriteFile(path, "here");
    Url url;
    url.scheme = "file";
    url.path = path;
    CAPTURE(byte);
    CHECK_EQ(ValueOf(ReadText(*MakeMount(registry, url.Encoded()))), "here");
  }
}

}  // namespace
}  // namespace dagstore
