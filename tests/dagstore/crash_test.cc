// The store when the database fails, and when the process is killed, at every point that a test can choose.
#include <cstdlib>
#include <sstream>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>

#include "dagstore/fsck.h"
#include "tests/dagstore/store_testing.h"
#include "tests/fakes/fake_kv.h"

namespace dagstore {
namespace {

void CheckSound(DagStore& store) {
  REQUIRE_STATUS_OK(store.AwaitLookups());
  std::string problems;
  const FsckReport report = ValueOf(CheckStore(store, WorkContext{}, [&problems](const FsckProblem& problem) {
    problems +=
        fmt::format("{} {}: {}\n", FsckPartName(problem.part), problem.key.Printable(), ToString(problem.status));
  }));
  CHECK_MESSAGE(report.problems == 0, problems);
}

std::string StateOf(DagStore& store, const std::string& key) {
  const auto info = store.GetShardInfo(key);
  return info.ok() ? std::string(StateName(info->state)) : "none";
}

// Goal: whichever commit fails, whether the disk took it or not, callers get a typed error and a restart finds a legal
// state. Method: fail the n-th commit, n = 1.., until a run passes.
TEST_CASE("crash: whichever commit of a register, destroy or recover fails, a restart finds a legal state") {
  enum class Act { kRegister, kLazy, kDestroy, kRecover };
  for (const Act act : {Act::kRegister, Act::kLazy, Act::kDestroy, Act::kRecover}) {
    for (const FakeKv::Applied applied : {FakeKv::Applied::kNo, FakeKv::Applied::kYes}) {
      bool passed = false;
      for (uint64_t n = 1; !passed; ++n) {
        CAPTURE(static_cast<int>(act));
        CAPTURE(static_cast<int>(applied));
        CAPTURE(n);
        REQUIRE(n < 10);
        const TempDir dir;
        WriteBytes(dir.File("good.car"), MakeCar(1, 8));
        WriteBytes(dir.File("k.car"), act == Act::kRecover ? Bytes(50, 0xff) : MakeCar(2, 8));
        Options options = StoreOptions(dir.File("repo"));
        FakeKv* kv = nullptr;
        options.kv_wrapper = FakeKv::Wrapper(&kv);
        absl::Status status;
        {
          const auto store = ValueOf(DagStore::Open(options));
          REQUIRE_STATUS_OK(store->RegisterShardSync("other", MountOfFile(*store, dir.File("good.car"))));
          if (act == Act::kDestroy)
            REQUIRE_STATUS_OK(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))));
          if (act == Act::kRecover) {
            REQUIRE_FALSE(store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car"))).ok());
            WriteBytes(dir.File("k.car"), MakeCar(2, 8));
          }
          const uint64_t before = kv->commits();
          kv->FailCommit(n, Unavailable("the disk is gone"), applied);
          RegisterOptions lazy;
          lazy.lazy = act == Act::kLazy;
          switch (act) {
            case Act::kRegister:
            case Act::kLazy:
              status = store->RegisterShardSync("k", MountOfFile(*store, dir.File("k.car")), lazy);
              break;
            case Act::kDestroy: status = store->DestroyShardSync("k"); break;
            case Act::kRecover: status = store->RecoverShardSync("k"); break;
          }
          passed = kv->commits() < before + n;
          if (passed) {
            CHECK_STATUS_OK(status);
          } else if (!status.ok()) {
            CHECK_CODE(status, kUnavailable);
          }
          CheckServes(*store, "other", 1, 8);  // reads go on
          (void)store->Close();
        }
        options.kv_wrapper = nullptr;
        options.recover_on_start = RecoverOnStart::kNever;
        const auto store = ValueOf(DagStore::Open(options));
        CheckServes(*store, "other", 1, 8);
        const std::string state = StateOf(*store, "k");
        CAPTURE(state);
        if (status.ok()) {  // acknowledged, so it is there
          switch (act) {
            case Act::kRegister:
            case Act::kRecover: CheckServes(*store, "k", 2, 8); break;
            case Act::kLazy: CHECK_EQ(state, "New"); break;
            case Act::kDestroy: CHECK_EQ(state, "none"); break;
          }
        } else if (state != "none" && state != "Destroying" && state != "Errored") {
          CheckServes(*store, "k", 2, 8);  // it goes on where it was
        }
        if (act != Act::kDestroy || status.ok()) CheckSound(*store);
      }
    }
  }
}

// What the child does is drawn from a seed, so that the parent can tell what each acknowledgement means.
struct Script {
  struct Line {
    bool destroy = false;
    int shard = 0;
  };
  explicit Script(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<int> there;
    int next = 0;
    for (int i = 0; i < 200; ++i) {
      if (!there.empty() && random() % 3 == 0) {
        const size_t at = random() % there.size();
        lines.push_back({true, there[at]});
        there.erase(there.begin() + static_cast<std::ptrdiff_t>(at));
      } else {
        there.push_back(next);
        lines.push_back({false, next++});
      }
    }
  }
  std::vector<Line> lines;
};
constexpr int kCars = 8;  // shard i is CAR i % kCars
constexpr uint64_t kBlocks = 12;

Options ChildOptions(const std::string& dir, uint64_t seed) {
  Options options = StoreOptions(dir);
  options.inline_index_bytes_max = seed % 2 == 0 ? 0 : 64 << 10;  // indexes as files, as values
  options.top_index_buffer_entries_max = 64;                      // runs are written often
  return options;
}

// Plays the script from line `first` on and writes a byte for each acknowledged line. Ends by being killed.
[[noreturn]] void Child(const std::string& dir, const std::string& cars, uint64_t seed, size_t first, int acks) {
  auto store = DagStore::Open(ChildOptions(dir, seed));
  if (!store.ok()) _exit(3);
  const Script script(seed);
  for (size_t at = first; at < script.lines.size(); ++at) {
    const Script::Line& line = script.lines[at];
    const std::string key = fmt::format("shard-{}", line.shard);
    absl::Status status;
    if (line.destroy) {
      status = (*store)->DestroyShardSync(key);
    } else {
      Url url;
      url.scheme = "file";
      url.has_authority = true;
      url.path = fmt::format("{}/{}.car", cars, line.shard % kCars);
      auto mount = (*store)->mounts().Make(url);
      status = mount.ok() ? (*store)->RegisterShardSync(key, *std::move(mount)) : mount.status();
    }
    // The line that was under way when the last life ended may have been done already.
    const bool done_before = at == first && (status.code() == absl::StatusCode::kNotFound ||
                                             status.code() == absl::StatusCode::kAlreadyExists);
    if (!status.ok() && !done_before) _exit(4);
    const char byte = 'a';
    if (write(acks, &byte, 1) != 1) _exit(5);
  }
  for (;;) pause();
}

// The child is this program again: a forked copy could not start threads of its own under ThreadSanitizer.
constexpr char kChildVariable[] = "DAGSTORE_CRASH_CHILD";

TEST_CASE("crash child: plays a script for its parent" * doctest::skip()) {
  const char* text = getenv(kChildVariable);
  if (text == nullptr) return;
  std::istringstream words(text);
  std::string dir, cars;
  uint64_t seed = 0;
  size_t first = 0;
  int acks = -1;
  words >> seed >> first >> acks >> std::ws;
  std::getline(words, dir);
  std::getline(words, cars);
  Child(dir, cars, seed, first, acks);
}

[[noreturn]] void BecomeChild(const std::string& dir, const std::string& cars, uint64_t seed, size_t first, int acks) {
  setenv(kChildVariable, fmt::format("{} {} {}\n{}\n{}", seed, first, acks, dir, cars).c_str(), 1);
  const int null = open("/dev/null", O_WRONLY);
  if (null < 0 || dup2(null, STDOUT_FILENO) < 0) _exit(6);
  execl("/proc/self/exe", "dagstore_test", "--test-case=crash child: *", "--no-skip", nullptr);
  _exit(7);
}

// Goal: what was acknowledged survives kill -9; what was not is there whole or not at all.
// Method: a child plays a script on a real repository and is killed after k acknowledgements, again and again.
TEST_CASE("crash: what was acknowledged survives 30 kills of the process") {
  constexpr uint64_t kSeed = 20240817;
  MESSAGE("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  const TempDir dir;
  for (int car = 0; car < kCars; ++car)
    WriteBytes(dir.File(fmt::format("{}.car", car)), MakeCar(static_cast<uint64_t>(car), kBlocks));

  for (int repository = 0; repository < 6; ++repository) {
    const uint64_t seed = kSeed + static_cast<uint64_t>(repository);
    const std::string repo = dir.File(fmt::format("repo{}", repository));
    const Script script(seed);
    size_t acknowledged = 0;
    for (int kill_number = 0; kill_number < 5; ++kill_number) {
      CAPTURE(seed);
      CAPTURE(kill_number);
      int ends[2];
      REQUIRE(pipe(ends) == 0);
      const pid_t child = fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        close(ends[0]);
        BecomeChild(repo, dir.path(), seed, acknowledged, ends[1]);
      }
      close(ends[1]);
      const size_t wanted = random() % 12;
      size_t got = 0;
      char byte = 0;
      while (got < wanted && read(ends[0], &byte, 1) == 1) ++got;
      for (uint64_t spin = random() % 200'000; spin != 0; --spin) asm volatile("");  // into the next line
      kill(child, SIGKILL);
      while (read(ends[0], &byte, 1) == 1) ++got;  // acknowledged before the kill arrived
      close(ends[0]);
      int status = 0;
      REQUIRE(waitpid(child, &status, 0) == child);
      REQUIRE_MESSAGE(WIFSIGNALED(status), "the child ended by itself with ", WEXITSTATUS(status));
      acknowledged += got;

      std::map<int, bool> there;  // by what was acknowledged
      for (size_t at = 0; at < acknowledged; ++at) there[script.lines[at].shard] = !script.lines[at].destroy;
      const int under_way = acknowledged < script.lines.size() ? script.lines[acknowledged].shard : -1;

      const auto store = ValueOf(DagStore::Open(ChildOptions(repo, seed)));
      REQUIRE_STATUS_OK(store->AwaitLookups());
      std::set<std::string> alive;
      for (const auto& [shard, is_there] : there) {
        const std::string key = fmt::format("shard-{}", shard);
        if (shard == under_way) continue;
        if (is_there) {
          CHECK_EQ(StateOf(*store, key), "Available");
          CheckServes(*store, key, static_cast<uint64_t>(shard % kCars), kBlocks);
          alive.insert(key);
        } else {
          CHECK_EQ(StateOf(*store, key), "none");
        }
      }
      if (under_way >= 0) {
        // Half a registration is finished by itself, half a destruction as well.
        const std::string key = fmt::format("shard-{}", under_way);
        const absl::Status acquired = store->AcquireShardSync(key).status();
        if (acquired.ok()) {
          CheckServes(*store, key, static_cast<uint64_t>(under_way % kCars), kBlocks);
          alive.insert(key);
        } else {
          CAPTURE(ToString(acquired));
          const std::string state = StateOf(*store, key);
          CAPTURE(state);
          CHECK((state == "none" || state == "Destroying"));
        }
      }
      for (const ShardInfo& info : ValueOf(store->ListShards()).shards) {
        CHECK((alive.contains(info.key.bytes()) || info.key.bytes() == fmt::format("shard-{}", under_way)));
      }
      CheckSound(*store);
      (void)ValueOf(store->Gc());
      CHECK_EQ(ValueOf(store->lookup().indexes->Totals()).indexes, alive.size());
      CHECK_EQ(ValueOf(store->Gc()).orphans_removed, 0);
      REQUIRE_STATUS_OK(store->Close());
    }
    CHECK(acknowledged > 0);
  }
}

// ---- No thread left ----

constexpr char kThreadsVariable[] = "DAGSTORE_THREADS_CHILD";
enum class OpenEnded { kWell = 0, kExhausted = 40, kOtherwise = 41 };
constexpr int kNoOtherUser = 42;

// Opens the repository that its parent names, under the limit that it sets; and again without one.
TEST_CASE("threads child: opens a store for its parent" * doctest::skip()) {
  const char* dir = getenv(kThreadsVariable);
  if (dir == nullptr) return;
  absl::Status status = DagStore::Open(StoreOptions(dir)).status();
  const bool exhausted = absl::IsResourceExhausted(status);
  if (exhausted) {
    rlimit limit = {};
    if (getrlimit(RLIMIT_NPROC, &limit) != 0) _exit(8);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NPROC, &limit) != 0) _exit(9);
    status = DagStore::Open(StoreOptions(dir)).status();
  }
  if (!status.ok()) fmt::print(stderr, "{}{}\n", exhausted ? "the second time: " : "", ToString(status));
  _exit(static_cast<int>(!status.ok()  ? OpenEnded::kOtherwise
                         : exhausted ? OpenEnded::kExhausted
                                     : OpenEnded::kWell));
}

// The limit binds no root: the child is another user, and finds its repository from where it stands.
[[noreturn]] void OpenWithThreads(const TempDir& dir, rlim_t threads, uid_t user) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NPROC, &limit) != 0) _exit(5);
  limit.rlim_cur = threads;
  if (chdir(dir.path().c_str()) != 0 || setuid(user) != 0 || setrlimit(RLIMIT_NPROC, &limit) != 0)
    _exit(kNoOtherUser);
  setenv(kThreadsVariable, "repo", 1);
  const int null = open("/dev/null", O_WRONLY);
  if (null < 0 || dup2(null, STDOUT_FILENO) < 0) _exit(6);
  execl("/proc/self/exe", "dagstore_test", "--test-case=threads child: *", "--no-skip", nullptr);
  _exit(7);
}

TEST_CASE("crash: a store that finds no thread for itself says so, whichever it is, and opens once there are enough") {
  const TempDir dir;
  const uid_t user = 20'000 + static_cast<uid_t>(getpid()) % 40'000;
  if (geteuid() != 0 || chown(dir.path().c_str(), user, static_cast<gid_t>(-1)) != 0) {
    MESSAGE("not run: only root can become a user who has no other process");
    return;
  }
  {
    const auto store = ValueOf(DagStore::Open(StoreOptions(dir.File("repo"))));
    WriteBytes(dir.File("a.car"), MakeCar(1, 10));
    REQUIRE_STATUS_OK(store->RegisterShardSync("a", MountOfUrl(*store, "file://" + dir.File("a.car"))));
  }
  std::filesystem::remove_all(dir.File("repo/top"));  // to be made again, by a thread of its own
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path()))
    REQUIRE(chown(entry.path().c_str(), user, static_cast<gid_t>(-1)) == 0);
  int refused = 0;
  for (rlim_t threads = 1;; ++threads) {
    CAPTURE(threads);
    REQUIRE_LT(threads, 1000);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) OpenWithThreads(dir, threads, user);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == kNoOtherUser) {
      MESSAGE("not run: this root cannot become another user");
      return;
    }
    if (WEXITSTATUS(status) == static_cast<int>(OpenEnded::kWell)) break;
    REQUIRE_EQ(WEXITSTATUS(status), static_cast<int>(OpenEnded::kExhausted));
    ++refused;
  }
  CHECK_GE(refused, 5);  // pools, committer, loop, what completes the top-level index
}

}  // namespace
}  // namespace dagstore
