// kill_loop: kill -9 on a real store with RocksDB, again and again, and a checker that knows what was acknowledged.
//
//   kill_loop [--cycles N] [--seed S] [--dir FOLDER] [--command PATH-OF-dagstore]
//
// A cycle starts a process on the repository, lets it work, and kills it at a random moment: while it opens, recovers
// or makes the repository, or while it registers (eager, lazy, from a local file, from a source that is copied, from a
// broken CAR), destroys, recovers, acquires and collects, several at a time. The process is this program again
// (--child), or the `dagstore` command. It says what it begins and what was answered through a pipe, which survives it.
// In a third of the cycles those who recover from the kill are killed, too. The checker opens the repository then, and
// requires:
//   what was acknowledged is there, in its state, and every block is served and found by its CID;
//   what was destroyed is gone, from lookups too, and no older registration of a key is back;
//   what was under way happened whole or not at all; fsck is silent; no file or index is left that nobody owns.
// Exit: 0, or 1 with the seed, the cycle and the folder of the first cycle that went wrong.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "dagstore/dagstore.h"
#include "dagstore/fsck.h"
#include "mount/file_mount.h"
#include "tests/made_cars.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr int kKeys = 10;
constexpr int kCars = 6;
constexpr uint64_t kBlocks = 8;
constexpr int kUnderWayMax = 4;
constexpr int kCyclesPerRepository = 20;

template <typename T>
T Must(absl::StatusOr<T> value) {
  DAGSTORE_CHECK_OK(value.status());
  return *std::move(value);
}

// ---- The world ----

// A source that is read as a stream, so that the store keeps a copy of it. far:///path reads /path.
class FarMount final : public Mount {
 public:
  FarMount(Url url, std::unique_ptr<Mount> file) : url_(std::move(url)), file_(std::move(file)) {}
  MountTraits traits() const override { return {}; }
  Url url() const override { return url_; }
  absl::StatusOr<MountStat> Stat(Io& io, const WorkContext& work) const override { return file_->Stat(io, work); }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                         uint64_t offset) const override {
    return file_->OpenStream(io, work, offset);
  }

 private:
  const Url url_;
  const std::unique_ptr<Mount> file_;
};

std::shared_ptr<const MountRegistry> Mounts() {
  auto files = std::make_shared<const MountRegistry>(DefaultMounts(FileMountConfig()));
  auto mounts = std::make_shared<MountRegistry>(DefaultMounts(FileMountConfig()));
  DAGSTORE_CHECK_OK(mounts->Register("far", [files](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    Url file = url;
    file.scheme = "file";
    ASSIGN_OR_RETURN(std::unique_ptr<Mount> mount, files->Make(file));
    return std::make_unique<FarMount>(url, std::move(mount));
  }));
  return mounts;
}

// Different repositories take different ways through the store.
Options OptionsOf(const std::string& repository, uint64_t variant) {
  Options options;
  options.dir = repository;
  options.mounts = Mounts();
  options.index_threads = 2;
  options.recover_on_start = variant % 4 == 3 ? RecoverOnStart::kOnAcquire : RecoverOnStart::kNever;
  options.inline_index_bytes_max = variant % 2 == 0 ? 0 : 64 << 10;        // indexes as files, as values
  options.top_index_buffer_entries_max = variant % 3 == 0 ? 64 : 1 << 14;  // runs are written often, rarely
  return options;
}

TestBlock BlockOf(int car, uint64_t i) {
  Random random(static_cast<uint64_t>(car) * 1'000'003 + i);
  Bytes data(16 + random() % 600);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  return RawBlock(std::move(data));
}
Bytes CarOfNumber(int car) {
  std::vector<TestBlock> blocks;
  for (uint64_t i = 0; i < kBlocks; ++i) blocks.push_back(BlockOf(car, i));
  return CarOf(blocks);
}

void WriteFile(const std::string& path, Span bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  DAGSTORE_CHECK(file.good());
}
// Appears whole.
void PlaceFile(const std::string& path, Span bytes) {
  WriteFile(path + ".part", bytes);
  fs::rename(path + ".part", path);
}

std::string KeyName(int key) { return fmt::format("key/{}", key); }
// Every registration has a source of its own, so that an older one cannot pass for it.
std::string SourceName(uint64_t serial, int car) { return fmt::format("{}-{}.car", serial, car); }

// ---- What is known of a key ----

enum class Act : char { kRegister = 'r', kLazy = 'l', kDestroy = 'd', kRecover = 'e', kAcquire = 'a', kCollect = 'g' };

// A registration, or none.
struct Fact {
  bool there = false;
  bool errored = false;  // its CAR was broken when it was indexed last
  bool indexed = false;
  uint64_t serial = 0;
  int car = 0;

  friend bool operator==(const Fact&, const Fact&) = default;
};

std::string Show(const Fact& fact) {
  if (!fact.there) return "none";
  return fmt::format("{} {}", fact.errored ? "Errored" : fact.indexed ? "Available" : "New",
                     SourceName(fact.serial, fact.car));
}

struct KeyModel {
  Fact now;                     // as of the last acknowledgement
  std::optional<Act> under_way = {};
  Fact after = {};              // if it happens
};

// One line through the pipe: what is begun, and what was answered.
struct Line {
  char kind = 0;  // 'o' opened, 'b' begins, 'y' done, 'n' refused or failed, 'x' the child is confused
  char act = 0;
  int key = 0;
  int car = 0;
  uint64_t serial = 0;
  int broken = 0;

  std::string Text() const {
    return fmt::format("{} {} {} {} {} {}\n", kind, act == 0 ? '-' : act, key, car, serial, broken);
  }
  static std::optional<Line> Parse(const std::string& text) {
    Line line;
    unsigned long long serial = 0;
    if (std::sscanf(text.c_str(), "%c %c %d %d %llu %d", &line.kind, &line.act, &line.key, &line.car, &serial,
                    &line.broken) != 6) {
      return std::nullopt;
    }
    line.serial = serial;
    return line;
  }
};

Fact FactAfter(Act act, const Fact& now, const Line& line) {
  Fact after = now;
  switch (act) {
    case Act::kRegister: return {true, line.broken != 0, line.broken == 0, line.serial, line.car};
    case Act::kLazy: return {true, false, false, line.serial, line.car};
    case Act::kDestroy: return {};
    case Act::kRecover:
    case Act::kAcquire:
      after.errored = false;
      after.indexed = true;
      return after;
    case Act::kCollect: return now;
  }
  return after;
}

// ---- The child: works until it is killed ----

class Child {
 public:
  Child(std::string repository, std::string sources, uint64_t variant, uint64_t seed, uint64_t serial, int pipe)
      : repository_(std::move(repository)),
        sources_(std::move(sources)),
        variant_(variant),
        random_(seed),
        serial_(serial),
        pipe_(pipe) {}

  [[noreturn]] void Run(bool opens_only) {
    auto opened = DagStore::Open(OptionsOf(repository_, variant_));
    if (!opened.ok()) Confused(opened.status());
    store_ = *std::move(opened);
    Say({.kind = 'o'});
    while (opens_only) pause();
    const ShardPage page = Must(store_->ListShards());
    for (const ShardInfo& info : page.shards) {
      Known& known = known_[std::atoi(info.key.bytes().substr(4).c_str())];
      known.there = true;
      known.errored = info.state == ShardState::kErrored;
    }
    for (;;) {
      while (busy_.size() < kUnderWayMax && random_() % 4 != 0) Begin();
      if (busy_.empty()) continue;
      Take(results_.Receive());
      if (random_() % 40 == 0) {
        (void)store_->Gc({.copy_bytes_target = random_() % 2 == 0 ? 0 : UINT64_MAX});
      }
    }
  }

 private:
  struct Known {
    bool there = false;
    bool errored = false;
  };

  [[noreturn]] void Confused(const absl::Status& status) {
    std::fprintf(stderr, "kill_loop child: %s\n", ToString(status).c_str());
    Say({.kind = 'x'});
    _exit(3);
  }
  void Say(const Line& line) {
    const std::string text = line.Text();  // shorter than PIPE_BUF: whole or not at all
    if (write(pipe_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(4);
  }

  std::string SourcePath(const Line& line) const { return sources_ + "/" + SourceName(line.serial, line.car); }

  void Begin() {
    Line line{.kind = 'b', .key = static_cast<int>(random_() % kKeys)};
    if (busy_.contains(line.key)) return;
    const Known known = known_[line.key];
    Act act = Act::kRegister;
    if (known.errored) {
      act = random_() % 3 == 0 ? Act::kDestroy : Act::kRecover;
    } else if (known.there) {
      act = random_() % 3 == 0 ? Act::kAcquire : Act::kDestroy;
    } else if (random_() % 4 == 0) {
      act = Act::kLazy;
    }
    line.act = static_cast<char>(act);
    const ShardKey key(KeyName(line.key));
    absl::StatusOr<Ticket> ticket = Ticket{0};
    switch (act) {
      case Act::kRegister:
      case Act::kLazy: {
        line.car = static_cast<int>(random_() % kCars);
        line.serial = ++serial_;
        line.broken = act == Act::kRegister && random_() % 5 == 0;
        PlaceFile(SourcePath(line), line.broken != 0 ? Bytes(99, 0xff) : CarOfNumber(line.car));
        Url url;
        url.scheme = variant_ % 2 == 0 && random_() % 2 == 0 ? "far" : "file";  // the command knows no far:
        url.has_authority = true;
        url.path = SourcePath(line);
        auto mount = store_->mounts().Make(url);
        if (!mount.ok()) Confused(mount.status());
        Say(line);
        RegisterOptions options;
        options.lazy = act == Act::kLazy;
        ticket = store_->RegisterShard(key, *std::move(mount), results_, options);
        break;
      }
      case Act::kDestroy:
        Say(line);
        ticket = store_->DestroyShard(key, results_);
        break;
      case Act::kRecover: {
        Mend(key);
        Say(line);
        ticket = store_->RecoverShard(key, results_);
        break;
      }
      default:
        Say(line);
        ticket = store_->AcquireShard(key, results_);
    }
    if (!ticket.ok()) Confused(ticket.status());
    busy_[line.key] = line;
  }

  // Puts the CAR in place that was broken when the shard was registered.
  void Mend(const ShardKey& key) {
    const ShardRecord record = Must(store_->lookup().ReadRecord(key));
    const std::string path = Must(Url::Parse(record.url)).path;
    const int car = path[path.size() - 5] - '0';
    PlaceFile(path, CarOfNumber(car));
  }

  void Take(ShardResult result) {
    const int key = std::atoi(result.key.bytes().substr(4).c_str());
    Line line = busy_.at(key);
    busy_.erase(key);
    Known& known = known_[key];
    const Act act = static_cast<Act>(line.act);
    const bool broken_as_expected = line.broken != 0 && !result.status.ok();
    if (result.status.ok() || broken_as_expected) {
      line.kind = 'y';
      if (act == Act::kRegister || act == Act::kLazy) known = {true, broken_as_expected};
      if (act == Act::kDestroy) known = {};
      if (act == Act::kRecover) known.errored = false;
    } else {
      Confused(result.status);
    }
    if (act == Act::kAcquire && random_() % 2 == 0) result.accessor = Accessor();
    Say(line);
  }

  const std::string repository_, sources_;
  const uint64_t variant_;
  Random random_;
  uint64_t serial_;
  const int pipe_;
  std::unique_ptr<DagStore> store_;
  const Channel<ShardResult> results_{kUnderWayMax};
  std::map<int, Line> busy_;
  std::map<int, Known> known_;
};

// ---- The parent: kills and checks ----

struct Totals {
  uint64_t kills = 0, in_start = 0, by_command = 0, in_recovery = 0;
  uint64_t acknowledged = 0, under_way = 0, blocks_read = 0;
};

class Loop {
 public:
  Loop(std::string dir, std::string command, uint64_t seed)
      : dir_(std::move(dir)), command_(std::move(command)), seed_(seed), random_(seed) {}

  bool Run(int cycles) {
    for (cycle_ = 0; cycle_ < cycles; ++cycle_) {
      if (cycle_ % kCyclesPerRepository == 0) NewRepository();
      const bool by_command = !command_.empty() && variant_ % 2 == 1 && random_() % 4 == 0;
      const bool lived = by_command ? RunCommand() : RunChild(Until::kKilled);
      if (!lived) return false;
      // In some cycles those who recover are killed as well, so that the checker meets what several kills left.
      for (; random_() % 3 == 0; ++totals_.in_recovery) {
        if (!RunChild(Until::kOpen)) return false;
      }
      if (!Check()) return false;
    }
    return true;
  }
  const Totals& totals() const { return totals_; }

 private:
  bool Fail(std::string_view what) {
    std::fprintf(stderr, "kill_loop: cycle %d of seed %llu, repository %s: %.*s\n", cycle_,
                 static_cast<unsigned long long>(seed_), repository_.c_str(), static_cast<int>(what.size()),
                 what.data());
    return false;
  }

  void NewRepository() {
    std::error_code ignored;
    if (!repository_.empty()) fs::remove_all(repository_, ignored);
    fs::remove_all(dir_ + "/sources", ignored);
    fs::create_directories(dir_ + "/sources");
    repository_ = fmt::format("{}/repository-{}", dir_, cycle_ / kCyclesPerRepository);
    fs::remove_all(repository_, ignored);
    variant_ = random_() % 12;
    model_.assign(kKeys, {});
  }

  static void Spin(uint64_t microseconds) {
    usleep(static_cast<useconds_t>(microseconds));
  }

  // What a child does: works until it is killed, or only opens the repository and recovers.
  enum class Until : uint8_t { kKilled, kOpen };

  bool RunChild(Until until) {
    int ends[2];
    DAGSTORE_CHECK(pipe(ends) == 0);
    const uint64_t child_seed = random_();
    serial_ += 1000;  // the child counts on from here
    const pid_t child = fork();
    DAGSTORE_CHECK(child >= 0);
    if (child == 0) {
      close(ends[0]);
      const std::string words[] = {"kill_loop",
                                   until == Until::kOpen ? "--child-opens" : "--child",
                                   repository_,
                                   dir_ + "/sources",
                                   std::to_string(variant_),
                                   std::to_string(child_seed),
                                   std::to_string(serial_),
                                   std::to_string(ends[1])};
      const char* argv[std::size(words) + 1] = {};
      for (size_t i = 0; i < std::size(words); ++i) argv[i] = words[i].c_str();
      execv("/proc/self/exe", const_cast<char**>(argv));
      _exit(7);
    }
    close(ends[1]);
    FILE* from = fdopen(ends[0], "r");
    // One in four dies while it opens the store, the others after some lines and a moment.
    const bool in_start = until == Until::kOpen || random_() % 4 == 0;
    std::vector<Line> lines;
    bool whole = true;
    const auto read_line = [&] {
      char text[128];
      if (std::fgets(text, sizeof(text), from) == nullptr) return false;
      const std::optional<Line> line = Line::Parse(text);
      whole &= line.has_value();
      if (line.has_value()) lines.push_back(*line);
      return true;
    };
    if (!in_start) {
      for (uint64_t wanted = 1 + random_() % 24; wanted != 0 && read_line();) --wanted;
    }
    Spin(random_() % (!in_start ? 1'500 : random_() % 2 == 0 ? 20'000 : 100'000));
    kill(child, SIGKILL);
    while (read_line()) {
    }
    std::fclose(from);
    int status = 0;
    DAGSTORE_CHECK(waitpid(child, &status, 0) == child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
      return Fail(fmt::format("the child ended by itself: {}", status));
    if (!whole) return Fail("a line of the child cannot be read");
    ++totals_.kills;
    totals_.in_start += lines.empty();
    for (const Line& line : lines) {
      if (line.kind == 'o') continue;
      if (line.kind == 'x') return Fail("the child was refused what must be possible");
      KeyModel& key = model_.at(static_cast<size_t>(line.key));
      const Act act = static_cast<Act>(line.act);
      if (line.kind == 'b') {
        key.under_way = act;
        key.after = FactAfter(act, key.now, line);
      } else {
        key.now = key.after;
        key.under_way.reset();
        ++totals_.acknowledged;
      }
    }
    if (until == Until::kOpen) return true;
    totals_.under_way += static_cast<uint64_t>(
        std::count_if(model_.begin(), model_.end(), [](const KeyModel& key) { return key.under_way.has_value(); }));
    return true;
  }

  // One command of the real binary, killed while it runs, or a moment later.
  bool RunCommand() {
    const size_t at = random_() % kKeys;
    KeyModel& key = model_[at];
    Line line{.kind = 'b', .key = static_cast<int>(at)};
    std::vector<std::string> words = {command_, "--quiet", "--repo", repository_};
    Act act = Act::kCollect;
    if (!key.now.there) {
      act = random_() % 3 == 0 ? Act::kLazy : Act::kRegister;
      line.car = static_cast<int>(random_() % kCars);
      line.serial = serial_ += 1000;
      const std::string path = dir_ + "/sources/" + SourceName(line.serial, line.car);
      PlaceFile(path, CarOfNumber(line.car));
      words.insert(words.end(), {"add", "--key", KeyName(line.key)});
      if (act == Act::kLazy) words.push_back("--lazy");
      words.push_back(path);
    } else if (random_() % 4 != 0) {
      act = Act::kDestroy;
      words.insert(words.end(), {"rm", KeyName(line.key)});
    } else {
      words.push_back("gc");
    }
    if (act != Act::kCollect) {
      key.under_way = act;
      key.after = FactAfter(act, key.now, line);
    }
    const pid_t child = fork();
    DAGSTORE_CHECK(child >= 0);
    if (child == 0) {
      const int null = open("/dev/null", O_RDWR);
      if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0) _exit(6);
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(7);
    }
    Spin(random_() % 120'000);
    kill(child, SIGKILL);
    int status = 0;
    DAGSTORE_CHECK(waitpid(child, &status, 0) == child);
    ++totals_.kills;
    ++totals_.by_command;
    if (WIFSIGNALED(status)) return true;
    if (WEXITSTATUS(status) != 0)
      return Fail(fmt::format("{} {} exited with {}", words[4], KeyName(line.key), WEXITSTATUS(status)));
    if (key.under_way.has_value()) {
      key.now = key.after;
      key.under_way.reset();
      ++totals_.acknowledged;
    }
    return true;
  }

  // Serial and CAR of the source in a record's URL.
  static std::optional<Fact> FactOf(DagStore& store, const ShardInfo& info) {
    const absl::StatusOr<ShardRecord> record = store.lookup().ReadRecord(info.key);
    if (!record.ok()) return std::nullopt;
    const absl::StatusOr<Url> url = Url::Parse(record->url);
    if (!url.ok()) return std::nullopt;
    unsigned long long serial = 0;
    int car = 0;
    const std::string name = fs::path(url->path).filename().string();
    if (std::sscanf(name.c_str(), "%llu-%d.car", &serial, &car) != 2) return std::nullopt;
    return Fact{true, info.state == ShardState::kErrored, info.state == ShardState::kAvailable, serial, car};
  }

  // True if `found` may be what is there now: as acknowledged, or as what was under way may have left it.
  static bool Allowed(const KeyModel& key, const Fact& found) {
    const auto fits = [&](Fact want) {
      if (found == want) return true;
      // A lazy shard may have been indexed meanwhile by an acquire that was under way.
      return want.there && !want.errored && !want.indexed && key.under_way == Act::kAcquire &&
             found == FactAfter(Act::kAcquire, want, {});
    };
    if (fits(key.now)) return true;
    if (!key.under_way.has_value()) return false;
    if (fits(key.after)) return true;
    // An eager registration is durable as New before it is indexed, and finished by whoever comes next.
    if (*key.under_way == Act::kRegister) {
      Fact half = key.after;
      half.errored = half.indexed = false;
      return found == half;
    }
    return false;
  }

  bool Check() {
    auto opened = DagStore::Open(OptionsOf(repository_, variant_));
    if (!opened.ok()) return Fail("the repository does not open: " + ToString(opened.status()));
    DagStore& store = **opened;
    if (const absl::Status status = store.AwaitLookups(); !status.ok()) return Fail(ToString(status));
    const ShardPage page = Must(store.ListShards());
    std::set<std::string> unknown;
    for (const ShardInfo& info : page.shards) unknown.insert(info.key.bytes());
    std::map<int, std::set<std::string>> holders;  // of each CAR
    uint64_t copies = 0, indexes = 0;
    for (int at = 0; at < kKeys; ++at) {
      KeyModel& key = model_[static_cast<size_t>(at)];
      const std::string name = KeyName(at);
      unknown.erase(name);
      absl::StatusOr<ShardInfo> info = store.GetShardInfo(name);
      if (info.ok() && info->state == ShardState::kDestroying) {
        if (key.under_way != Act::kDestroy) return Fail(name + " is being destroyed and nobody asked");
        const absl::Status status = store.DestroyShardSync(name);  // joins what the start went on with
        if (!status.ok() && !absl::IsNotFound(status)) return Fail(name + ": " + ToString(status));
        info = store.GetShardInfo(name);
      }
      Fact found;
      if (info.ok()) {
        const std::optional<Fact> fact = FactOf(store, *info);
        if (!fact.has_value()) return Fail(name + ": its record cannot be read");
        found = *fact;
      }
      if (!Allowed(key, found)) {
        return Fail(fmt::format("{} is {}, acknowledged is {}{}", name, Show(found), Show(key.now),
                                key.under_way.has_value() ? ", under way was " + Show(key.after) : ""));
      }
      if (found.there && !found.errored) {
        const bool broken = found.serial == key.after.serial && key.under_way == Act::kRegister && key.after.errored;
        if (!broken || found.indexed) {
          if (!CheckServes(store, name, found.car)) return false;
          found.indexed = true;
          holders[found.car].insert(name);
        } else {
          const absl::Status status = store.AcquireShardSync(name).status();
          if (!absl::IsDataLoss(status)) return Fail(name + ": a broken CAR gives " + ToString(status));
          found.errored = true;
        }
      }
      key = {found};
      if (found.there) {
        const ShardRecord record = Must(store.lookup().ReadRecord(name));
        copies += record.copy.has_value() && record.copy->owned;
        indexes += record.ordinal != 0;
      }
    }
    if (!unknown.empty()) return Fail(*unknown.begin() + " is there and was never registered");
    if (!CheckLookups(store, holders)) return false;
    if (!CheckSound(store) || !CheckFiles(store, copies, indexes)) return false;
    if (const absl::Status status = store.Close(); !status.ok()) return Fail("close: " + ToString(status));
    opened->reset();  // nobody writes any more
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(repository_)) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(".tmp") || name.ends_with(".runs")) return Fail(name + " was left behind");
    }
    return true;
  }

  bool CheckServes(DagStore& store, const std::string& name, int car) {
    const absl::StatusOr<Accessor> accessor = store.AcquireShardSync(name);
    if (!accessor.ok()) return Fail(name + " cannot be acquired: " + ToString(accessor.status()));
    const auto blockstore = accessor->NewBlockstore();
    Block block;
    for (uint64_t i = 0; i < kBlocks; ++i) {
      const TestBlock want = BlockOf(car, i);
      const absl::Status status = blockstore->Get(want.cid.view(), block);
      if (!status.ok()) return Fail(name + ": " + ToString(status));
      if (!SameBytes(block.data(), want.data)) return Fail(name + " serves wrong bytes");
      ++totals_.blocks_read;
    }
    return true;
  }

  // Every block leads to the shards that hold it and to no others.
  bool CheckLookups(DagStore& store, std::map<int, std::set<std::string>>& holders) {
    for (int car = 0; car < kCars; ++car) {
      for (uint64_t i = 0; i < kBlocks; ++i) {
        const Cid cid = BlockOf(car, i).cid;
        std::set<std::string> found;
        for (const ShardKey& key : Must(store.ShardsContainingMultihash(cid.hash()))) found.insert(key.bytes());
        if (found != holders[car]) return Fail(fmt::format("block {} of CAR {} leads to other shards", i, car));
      }
      std::set<std::string> rooted;
      for (const ShardKey& key : Must(store.ShardsWithRoot(BlockOf(car, 0).cid))) rooted.insert(key.bytes());
      if (rooted != holders[car]) return Fail(fmt::format("the root of CAR {} leads to other shards", car));
    }
    return true;
  }

  bool CheckSound(DagStore& store) {
    std::string problems;
    const FsckReport report = Must(CheckStore(store, WorkContext{}, [&problems](const FsckProblem& problem) {
      problems += fmt::format("{} {}: {}; ", FsckPartName(problem.part), problem.key.Printable(),
                              ToString(problem.status));
    }));
    return report.problems == 0 || Fail("fsck: " + problems);
  }

  // After a collection that keeps all copies, each file has an owner.
  bool CheckFiles(DagStore& store, uint64_t copies, uint64_t indexes) {
    (void)Must(store.Gc({.copy_bytes_target = UINT64_MAX}));
    if (Must(store.Gc({.copy_bytes_target = UINT64_MAX})).orphans_removed != 0)
      return Fail("a second collection found what the first one left");
    if (const uint64_t found = Must(store.lookup().indexes->Totals()).indexes; found != indexes)
      return Fail(fmt::format("{} indexes, records name {}", found, indexes));
    uint64_t files = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(repository_ + "/transients"))
      files += entry.is_regular_file();
    return files == copies || Fail(fmt::format("{} files in transients/, records name {}", files, copies));
  }

  const std::string dir_;
  const std::string command_;
  const uint64_t seed_;
  Random random_;
  int cycle_ = 0;
  std::string repository_;
  uint64_t variant_ = 0;
  uint64_t serial_ = 0;
  std::vector<KeyModel> model_;
  Totals totals_;
};

int Main(int argc, char** argv) {
  if (argc == 8 && std::string_view(argv[1]).starts_with("--child")) {
    Child(argv[2], argv[3], std::strtoull(argv[4], nullptr, 10), std::strtoull(argv[5], nullptr, 10),
          std::strtoull(argv[6], nullptr, 10), std::atoi(argv[7]))
        .Run(/*opens_only=*/std::strcmp(argv[1], "--child-opens") == 0);
  }
  int cycles = 100;
  uint64_t seed = 1;
  std::string dir, command;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view word = argv[i];
    const char* const value = argv[i + 1];
    if (word == "--cycles") {
      cycles = std::atoi(value);
    } else if (word == "--seed") {
      seed = std::strtoull(value, nullptr, 10);
    } else if (word == "--dir") {
      dir = value;
    } else if (word == "--command") {
      command = value;
    } else {
      cycles = 0;
    }
  }
  if (cycles <= 0 || argc % 2 == 0) {
    std::fprintf(stderr, "usage: %s [--cycles N] [--seed S] [--dir FOLDER] [--command PATH-OF-dagstore]\n", argv[0]);
    return 2;
  }
  if (dir.empty()) {
    std::string pattern = fs::temp_directory_path().string() + "/kill_loop.XXXXXX";
    DAGSTORE_CHECK(mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
  }
  fs::create_directories(dir);
  Loop loop(dir, command, seed);
  const bool passed = loop.Run(cycles);
  const Totals& t = loop.totals();
  fmt::print("{} kills ({} before the store was open, {} of the command, {} of a process that recovered from a kill), "
             "{} acknowledged, {} under way when killed, {} blocks read back: {}\n",
             t.kills, t.in_start, t.by_command, t.in_recovery, t.acknowledged, t.under_way, t.blocks_read,
             passed ? "0 lost, 0 resurrected" : "FAILED");
  std::error_code ignored;
  if (passed) fs::remove_all(dir, ignored);
  return passed ? 0 : 1;
}

}  // namespace
}  // namespace dagstore

int main(int argc, char** argv) { return dagstore::Main(argc, argv); }
