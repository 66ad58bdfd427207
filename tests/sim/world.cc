#include "tests/sim/world.h"

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread.h"
#include "dagstore/fsck.h"
#include "dagstore/indexed_blockstore.h"
#include "dagstore/loop.h"
#include "dagstore/scrub.h"
#include "shard/transition.h"
#include "tests/sim/cars.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_fs.h"
#include "tests/sim/sim_kv.h"
#include "tests/sim/sometimes.h"
#include "tests/sim/source.h"

namespace dagstore::sim {
namespace {

constexpr char kDir[] = "/repo";
constexpr uint64_t kStepsMax = 400'000;  // of a run; one that needs more goes in circles
constexpr int kOpenAttemptsMax = 6;

// Turns while there is work, then waits to be woken. What UvLoop does, with a condition in place of libuv.
class SimLoop final : public Loop {
 public:
  SimLoop(std::shared_ptr<TaskQueues> queues, Scheduler& scheduler)
      : queues_(std::move(queues)), scheduler_(scheduler) {}

  absl::Status Start(Callbacks callbacks) override {
    callbacks_ = std::move(callbacks);
    queues_->SetWaker([this] {
      const MutexLock lock(mu_);
      woken_ = true;
      wake_.NotifyOne();
    });
    thread_ = Thread("dagstore-loop", [this] { Run(); });
    return absl::OkStatus();
  }
  void Join() override {
    if (thread_.joinable()) thread_.Join();
  }

 private:
  void Run() {
    callbacks_.begin();
    for (;;) {
      const bool more = callbacks_.turn();
      if (!more) {
        if (callbacks_.finished()) break;
        const Deadline timer = callbacks_.next_timer();
        if (!timer.Passed(scheduler_.Now()) && queues_->PrepareSleep()) {
          Sleep(timer);
          queues_->Awake();
          continue;
        }
      }
      scheduler_.Yield();
    }
    callbacks_.end();
    queues_->Shut();
  }
  void Sleep(Deadline timer) {
    const MutexLock lock(mu_);
    if (!woken_) wake_.WaitFor(mu_, timer.Remaining(scheduler_.Now()));
    woken_ = false;
  }

  const std::shared_ptr<TaskQueues> queues_;
  Scheduler& scheduler_;
  Callbacks callbacks_;
  Mutex mu_;
  CondVar wake_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  Thread thread_;
};

// NotFound may also be what a source says.
bool SaysAbsent(const absl::Status& status) {
  return status.code() == absl::StatusCode::kNotFound && Message(status).starts_with("no shard");
}

// What is known of one key. A request that is under way, or was answered with an error, may or may not take effect.
struct KeyModel {
  std::string key = {};
  bool maybe_absent = true;
  bool maybe_present = false;
  bool lingering = false;       // a destroy that was not answered with OK may still go on
  std::set<size_t> sources = {};  // one of these, if present
  int changing = 0;             // register and destroy requests under way
  uint64_t change = 0;          // counts them as they begin and end
  int held = 0;                 // accessors that clients hold
  std::optional<bool> pinned = false;  // unknown while a pin, a registration or a destruction may change it
  uint64_t releases = 0;

  void MustBe(bool present) {
    if (!present) pinned = false;
    maybe_present = present;
    maybe_absent = !present;
    lingering = false;
  }
};

// An accessor in a client's hands.
class Held {
 public:
  Held(KeyModel& model, Accessor accessor) : model_(&model), accessor_(std::move(accessor)) { ++model_->held; }
  Held(Held&& other) noexcept : model_(std::exchange(other.model_, nullptr)), accessor_(std::move(other.accessor_)) {}
  Held& operator=(Held&& other) noexcept {
    std::swap(model_, other.model_);
    std::swap(accessor_, other.accessor_);
    return *this;
  }
  ~Held() { Release(); }
  void Release() {
    if (model_ == nullptr) return;
    --model_->held;
    ++model_->releases;
    model_ = nullptr;
    accessor_.Close();
    accessor_.Close();  // again: nothing
  }
  const Accessor& operator*() const { return accessor_; }
  const Accessor* operator->() const { return &accessor_; }

 private:
  KeyModel* model_;
  Accessor accessor_;
};

class World {
 public:
  World(Tape& tape, const RunOptions& options)
      : tape_(tape),
        run_options_(options),
        scheduler_(tape, trace_),
        fs_(tape, trace_, scheduler_),
        kv_(tape, trace_, scheduler_),
        sources_(tape, trace_, scheduler_) {
    trace_.listener = options.listener;
    const auto report = [this](const std::string& oracle, const std::string& what) { Fail(oracle, what); };
    fs_.on_violation = report;
    kv_.on_violation = report;
    sources_.on_violation = report;
    fs_.on_remove = [this](const std::string& path) { Removed(path); };
    fs_.on_publish = [this](const std::string& path) { Published(path); };
    fs_.before_call = [this](IoOp, const std::string&) {
      CheckQuota();
      CountDown();
    };
    kv_.before_call = [this](const char*) { CountDown(); };
    if (options.scenario != Scenario::kNone) {
      fs_.inject = [this](IoOp, const std::string&) { return Inject(); };
      kv_.inject = [this](const char*) { return Inject(); };
      sources_.inject = [this] {
        if (armed_) ++calls_;
        return Inject();
      };
    }
  }

  RunResult Run();
  void Abandon() { scheduler_.Abandon(); }

 private:
  struct Client {
    int id = 0;
    std::vector<std::pair<size_t, Held>> held = {};  // key, accessor
    std::optional<std::pair<size_t, BlockView>> view = {};  // a block of the pool, looked at some time ago
  };

  // ---- Small helpers ----
  uint32_t Draw(uint32_t n) { return tape_.Draw(Stream::kWork, n); }
  uint32_t Config(uint32_t n) { return tape_.Draw(Stream::kConfig, n); }
  bool Live() const { return !down_ && failure_.oracle.empty(); }
  // Nothing was ever injected, so that everything must go well.
  bool Calm() const { return !faulty_; }
  void Fail(const std::string& oracle, const std::string& what) {
    if (!failure_.oracle.empty()) return;
    failure_.oracle = oracle;
    failure_.what = what;
    Log("VIOLATION ({}) {}", oracle, what);
    scheduler_.Stop();
    if (scheduler_.in_fiber()) {
      for (;;) scheduler_.Sleep(absl::Hours(1));  // Run() has been told; nothing of this fiber is needed any more
    }
  }
  template <typename... Args>
  void Log(fmt::format_string<Args...> format, Args&&... args) {
    if (!trace_.verbose()) return;
    trace_.listener(fmt::format("{:>6} {:<16} ", scheduler_.steps(), scheduler_.current_name()) +
                    fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void Expect(bool holds, const char* oracle, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) Fail(oracle, fmt::format(format, std::forward<Args>(args)...));
  }

  // ---- The machine ----
  void Configure();
  Options StoreOptions();
  void Main();
  bool Open();
  bool Close(bool orderly);
  // A request that was accepted before the store was closed, and not answered yet.
  struct LateRequest {
    size_t key = 0;
    ShardOp op = ShardOp::kRegister;
    size_t source = 0;
    KeyModel before = {};
    uint64_t began = 0;
    Channel<ShardResult> out;
    Ticket ticket = {};
  };
  std::vector<LateRequest> AskLate();
  void EndLate(LateRequest& request);
  void CountDown();
  void PowerCut();
  void ConfigureScenario();
  void PlayScenario();
  absl::Status Inject();
  void CrashInto(uint64_t state);
  void Removed(const std::string& path);
  void Published(const std::string& path);
  void WatchTrace();
  void Age();  // bit rot, strangers: while nothing runs
  void RunClients();

  // ---- Clients ----
  void RunClient(Client& client);
  void Act(Client& client);
  void Register(Client& client, size_t key);
  void Destroy(size_t key);
  void Recover(size_t key);
  void Acquire(Client& client, size_t key, bool keep);
  void AcquireOddly(size_t key);
  void Read(Client& client, const Accessor& accessor, size_t key);
  void Pin(size_t key);
  void FetchWhole(size_t key);
  void Release(Client& client);
  void GetIndexed();
  void Lookup();
  void Look(size_t key);
  void Gc();
  void Manifest(size_t key);
  void ChangeSource();
  void Scrub(size_t key);

  // ---- What must hold ----
  void CheckStatus(const absl::Status& status, const std::string& what, bool stopped = false, bool deadline = false);
  void CheckBytes(const CidView& cid, Span bytes, const std::string& from);
  void CheckText(std::string_view text, const char* where);
  uint64_t BeginChange(size_t key);
  // True if no other change of the key was under way since.
  bool EndChange(size_t key, uint64_t began);
  void CheckPresence(const char* when);
  void Liveness();
  void Repair(size_t key);
  void CheckShards();
  void CheckNothingMissing();
  void CheckTakenUp();
  void CheckLookups();
  void CheckFsck(const char* when);
  void CheckFiles();
  void CheckNothingLeft(const char* when, bool collected = false);
  void DestroySome();
  void Settle();
  void CheckReferences();
  void CheckQuota();
  std::optional<ShardInfo> InfoOf(size_t key);
  bool SourceIsGood(size_t key) const;

  Tape& tape_;
  const RunOptions run_options_;
  Trace trace_;
  Scheduler scheduler_;
  SimFs fs_;
  KvDisk kv_;
  Sources sources_;
  RunResult failure_;

  // Drawn.
  int clients_ = 1;
  int operations_ = 1;
  int boots_ = 1;
  bool faulty_ = false;       // some class of faults is on, or was
  bool rot_ = false;          // bits flip, strangers appear
  bool crashes_ = false;
  bool changing_sources_ = false;
  bool tiny_ = false;
  bool traced_ = false;
  bool quota_ = false;        // not every copy fits
  FsFaults fs_faults_;
  KvFaults kv_faults_;
  SourceFaults source_faults_;
  Options base_;

  std::vector<KeyModel> keys_;
  std::vector<Client> clients_now_;
  std::shared_ptr<Io> io_;
  std::shared_ptr<const MountRegistry> mounts_;
  std::unique_ptr<DagStore> store_;
  std::unique_ptr<IndexedBlockstore> indexed_;
  std::shared_ptr<EventLog<TraceEvent>::Subscription> steps_seen_;
  std::map<std::string, ShardState> state_seen_;  // by key, from the trace
  bool failed_seen_ = false;                      // a shard has become Errored since the store was opened
  bool down_ = true;
  bool closing_ = false;
  uint64_t countdown_ = 0;  // calls of disk and database until the power goes; 0: never
  bool kill_only_ = false;  // the process ends, the system stays
  bool armed_ = false;      // a scenario's calls count
  bool injected_ = false;
  int identities_ = 0;
  uint64_t calls_ = 0;
  uint64_t crash_states_ = 0;
  int boot_ = 0;
  std::map<std::string, int> index_boots_;  // of every index file that ever was, the boot that gave it its name
  Mutex done_mu_;
  CondVar done_;
  std::set<std::string> user_files_;
};

// ---- Set-up ----

void World::Configure() {
  const bool wide = run_options_.profile == Profile::kWide;
  scheduler_.SetPolicy(static_cast<Policy>(Config(5)));
  clients_ = 1 + static_cast<int>(Config(wide ? 5 : 3));
  const size_t keys = 1 + Config(wide ? 6 : 3);
  operations_ = 1 + static_cast<int>(Config(wide ? 24 : 6));
  boots_ = 1 + static_cast<int>(Config(3));
  crashes_ = Config(2) == 1;
  tiny_ = Config(2) == 1;
  traced_ = Config(2) == 1;
  changing_sources_ = Config(4) == 3;

  if (Config(2) == 1) {  // which classes of faults there are
    const auto rate = [&](uint32_t max) { return Config(3) == 2 ? 1 + Config(max) : 0; };
    fs_faults_.read_error = rate(30);
    fs_faults_.write_error = rate(60);
    fs_faults_.sync_error = rate(100);
    fs_faults_.name_error = rate(40);
    fs_faults_.no_descriptor = rate(60);
    fs_faults_.stall = rate(30);
    if (Config(6) == 5) fs_faults_.quota_bytes = Config(6000);
    kv_faults_.commit_error = Config(8) == 7 ? 1 + Config(60) : 0;
    kv_faults_.read_error = rate(20);
    kv_faults_.stall = rate(30);
    source_faults_.error = rate(80);
    source_faults_.stall = rate(60);
    source_faults_.truncate = rate(150);
    rot_ = Config(4) == 3;
    faulty_ = true;
  }
  fs_faults_.mappable = Config(3) != 2;
  fs_.faults.mappable = fs_faults_.mappable;

  for (size_t i = 0; i < keys; ++i) {
    KeyModel model;
    model.key = fmt::format("k{}", i);
    keys_.push_back(std::move(model));
  }
  for (size_t i = 0; i < keys + 2; ++i) {
    Source source;
    source.name = fmt::format("s{}", i);
    const uint32_t kind = Config(3);
    source.local = kind == 1;
    source.ranged = kind == 2;
    source.size_known = Config(4) != 3;
    source.has_validator = Config(4) != 3;
    source.car = Config(8) == 7 ? kSoundCars + Config(3) : Config(kSoundCars);
    source.cars = {source.car};
    sources_.all.push_back(std::move(source));
  }
  auto mounts = std::make_shared<MountRegistry>();
  DAGSTORE_CHECK_OK(mounts->Register("sim", sources_.Factory()));
  mounts_ = mounts;

  base_.inline_index_bytes_max = Config(2) == 1 ? 0 : 64 << 10;
  static constexpr size_t kBuffers[] = {256, 16, 4, 1};
  base_.top_index_buffer_entries_max = kBuffers[Config(4)];
  base_.recover_on_start = static_cast<RecoverOnStart>(Config(3));
  base_.verify_reads = VerifyReads::kAlways;
  base_.index_threads = 1 + static_cast<int>(Config(2));
  base_.open_threads = 1 + static_cast<int>(Config(2));
  base_.close_grace = absl::Milliseconds(Config(3) * 500);
  if (Config(3) == 2) {  // a working set that is larger than the quota
    quota_ = true;
    base_.copies.bytes_max = 400 + 500 * Config(5);
    base_.copies.wait_max = absl::Milliseconds(20 * Config(3));
    base_.copies.high_watermark = Config(2) == 1 ? 0.9 : 0.6;
    base_.copies.low_watermark = base_.copies.high_watermark / 2;
  }
  if (Config(2) == 1) {  // pieces that fit the small CARs of this world
    base_.partial.request_bytes_max = 64 << Config(4);
    base_.partial.read_ahead_bytes_max = 128 * Config(3);
    base_.partial.gap_bytes_max = 32 * Config(3);
    base_.partial.map_save_bytes = 128 << Config(4);
    base_.partial.tail_bytes = 64 * Config(3);
    static constexpr double kShares[] = {0.5, 0.1, 2};
    base_.partial.promote_share = kShares[Config(3)];
  }
  if (tiny_) {
    base_.requests_max = 1 + Config(4);
    base_.turn_tasks_max = 1 + Config(3);
    base_.completions_per_request = 1 + Config(2);
    base_.jobs_running_max = 1 + Config(3);
    base_.open_shards_max = Config(3);
    base_.failures_kept_max = 1 + Config(3);
    base_.index_memory_bytes_max = Config(2) == 1 ? 1 : 1 << 20;
  }
}

Options World::StoreOptions() {
  Options options = base_;
  options.dir = kDir;
  options.mounts = mounts_;
  options.io = io_.get();
  options.clock = &scheduler_;
  options.kv_opener = [this](const std::string&, const RocksKvOptions&) -> absl::StatusOr<std::unique_ptr<Kv>> {
    return kv_.Open();
  };
  options.loop_maker = [this](std::shared_ptr<TaskQueues> queues) {
    return std::make_unique<SimLoop>(std::move(queues), scheduler_);
  };
  options.random = [this](std::span<uint8_t> out) {
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(tape_.Draw(Stream::kIdentity, 256));
    out.front() = static_cast<uint8_t>(++identities_);  // no two boots are the same, whatever the tape
  };
  return options;
}

RunResult World::Run() {
  const bool scenario = run_options_.scenario != Scenario::kNone;
  scenario ? ConfigureScenario() : Configure();
  (void)scheduler_.Spawn("world", [this, scenario] { scenario ? PlayScenario() : Main(); });
  const Scheduler::End end = scheduler_.Run(kStepsMax);
  if (failure_.oracle.empty() && end != Scheduler::End::kDone) {
    failure_.oracle = end == Scheduler::End::kStuck ? "stuck" : "endless";
    failure_.what = (end == Scheduler::End::kStuck ? "nobody can go on:\n" : "no end after so many steps:\n") +
                    scheduler_.Describe();
    if (trace_.verbose()) trace_.listener(failure_.what);
  }
  RunResult result = failure_;
  result.hash = trace_.hash();
  result.steps = scheduler_.steps();
  result.simulated_nanos = scheduler_.Now();
  result.calls = calls_;
  result.crash_states = crash_states_;
  return result;
}

// ---- The machine ----

void World::Main() {
  for (int boot = 0; boot < boots_; ++boot) {
    fs_.faults = fs_faults_;
    kv_.faults = kv_faults_;
    sources_.faults = source_faults_;
    if (crashes_ && tape_.Draw(Stream::kCrash, 2) == 1) {
      countdown_ = 1 + tape_.Draw(Stream::kCrash, boot == 0 ? 250 : 120);
      kill_only_ = tape_.Draw(Stream::kCrash, 3) == 2;
    }
    if (!Open()) continue;
    CheckPresence("after a start");
    RunClients();
    countdown_ = 0;
    const bool orderly = Live();
    if (orderly && Calm() && !crashes_) CheckNothingLeft("when the clients have gone");
    if (!Close(orderly)) return;
    Age();
  }
  countdown_ = 0;
  fs_.faults = FsFaults();
  fs_.faults.mappable = fs_faults_.mappable;
  kv_.faults = KvFaults();
  sources_.faults = SourceFaults();
  base_.recover_on_start = RecoverOnStart::kNever;
  base_.copies = CopyCacheOptions();  // the operator has bought a disk
  scheduler_.SetPolicy(Policy::kOldest);
  Liveness();
}

bool World::Open() {
  for (int attempt = 0;; ++attempt) {
    if (attempt >= kOpenAttemptsMax / 2) {  // the operator has mended the machine
      fs_.faults = FsFaults();
      fs_.faults.mappable = fs_faults_.mappable;
      kv_.faults = KvFaults();
    }
    io_ = fs_.Boot();
    ++boot_;
    down_ = false;
    closing_ = false;
    absl::StatusOr<std::unique_ptr<DagStore>> opened = DagStore::Open(StoreOptions());
    Log("open: {}", ToString(opened.status()));
    CheckText(ToString(opened.status()), "open");
    if (opened.ok() && !down_) {
      store_ = *std::move(opened);
      indexed_ = std::make_unique<IndexedBlockstore>(*store_, [this] {
        IndexedBlockstoreOptions options;
        if (tiny_) options.accessors_max = 1;
        return options;
      }());
      if (traced_) {
        steps_seen_ = store_->SubscribeTrace(1 << 14);
        state_seen_.clear();
        failed_seen_ = false;
      }
      Sometimes("open: a store opens");
      if (attempt != 0) Sometimes("open: a store opens at last");
      return true;
    }
    if (opened.ok()) {
      Sometimes("crash: while a store opens, late");
      (void)(*opened)->Close();
      opened->reset();
    } else {
      CheckStatus(opened.status(), "open", /*stopped=*/true);
      if (down_) Sometimes("crash: while a store opens");
      if (!down_) Expect(fs_.faults.quota_bytes != UINT64_MAX || faulty_, "open",
          "a store does not open, and nothing is wrong: {}",
                         ToString(opened.status()));
      Expect(attempt < kOpenAttemptsMax, "open", "a store does not open: {}", ToString(opened.status()));
      if (!down_) Sometimes("open: a fault keeps a store from opening");
    }
    if (down_) countdown_ = 0;
  }
}

bool World::Close(bool orderly) {
  closing_ = true;
  for (Client& client : clients_now_) {
    client.held.clear();
    client.view.reset();
  }
  if (orderly && tape_.Draw(Stream::kWork, 4) != 3) indexed_->Trim();
  indexed_.reset();
  std::vector<LateRequest> late;
  if (orderly && Live() && tape_.Draw(Stream::kWork, 4) == 3) late = AskLate();
  const absl::Status closed = store_->Close();
  Log("close: {}", ToString(closed));
  CheckText(ToString(closed), "close");
  for (LateRequest& request : late) EndLate(request);
  WatchTrace();
  Expect(!failed_seen_ || !store_->FailureLog(1).empty(), "i", "a shard has failed, and the failure log is empty");
  steps_seen_.reset();
  store_.reset();
  if (!failure_.oracle.empty()) return false;
  Expect(scheduler_.loop_contended() == 0, "k", "the loop had to wait for a lock");
  Expect(fs_.open_files() == 0, "j", "{} files are open after the store was closed", fs_.open_files());
  if (orderly && !down_) {
    if (Calm()) Expect(closed.ok(), "close", "closing fails, and nothing was wrong: {}", ToString(closed));
    Sometimes("close: in order");
  }
  io_.reset();
  return true;
}

// One for each of some keys, so that nothing else changes them.
std::vector<World::LateRequest> World::AskLate() {
  static constexpr ShardOp kOps[] = {ShardOp::kRegister, ShardOp::kDestroy, ShardOp::kRecover};
  std::vector<LateRequest> late;
  for (size_t key = 0; key < keys_.size() && Live(); ++key) {
    if (Draw(2) == 1) continue;
    KeyModel& model = keys_[key];
    LateRequest request{.key = key, .op = kOps[Draw(3)], .source = key, .before = model, .began = BeginChange(key),
                        .out = Channel<ShardResult>(1)};
    absl::StatusOr<Ticket> ticket = Unavailable("not asked");
    Log("{} {}, and close", OpName(request.op), model.key);
    if (request.op == ShardOp::kRegister) {
      ticket = store_->RegisterShard(model.key, *mounts_->Make(sources_.UrlOf(key)), request.out);
    } else if (request.op == ShardOp::kDestroy) {
      ticket = store_->DestroyShard(model.key, request.out);
    } else {
      ticket = store_->RecoverShard(model.key, request.out);
    }
    if (!ticket.ok()) {
      (void)EndChange(key, request.began);
      model.pinned = request.before.pinned;
      CheckStatus(ticket.status(), "a late request", /*stopped=*/true);
      continue;
    }
    request.ticket = *ticket;
    model.maybe_present = model.maybe_present || request.op == ShardOp::kRegister;
    model.maybe_absent = model.maybe_absent || request.op == ShardOp::kDestroy;
    if (request.op == ShardOp::kRegister) model.sources.insert(key);
    late.push_back(std::move(request));
    Sometimes("close: with requests under way");
  }
  return late;
}

void World::EndLate(LateRequest& request) {
  KeyModel& model = keys_[request.key];
  (void)EndChange(request.key, request.began);
  const std::optional<ShardResult> result = request.out.TryReceive();
  if (!down_) {
    Expect(result.has_value() && result->ticket == request.ticket, "i", "{} {} is not answered by the end of Close",
           OpName(request.op), model.key);
  }
  model.lingering = true;  // unless it is said how it ended
  if (!result.has_value() || down_) return;
  Log("{} {}: {}", OpName(request.op), model.key, ToString(result->status));
  CheckStatus(result->status, "a late request", /*stopped=*/true);
  const bool ok = result->status.ok();
  const KeyModel& before = request.before;
  if (request.op == ShardOp::kRecover) {
    model.lingering = before.lingering;
    model.pinned = before.pinned;
  } else if (request.op == ShardOp::kRegister && (ok || result->status.code() == absl::StatusCode::kAlreadyExists)) {
    Expect(ok ? before.maybe_absent || before.lingering : before.maybe_present || before.lingering, "d",
           "registering {} while the store closes: {}", model.key, ToString(result->status));
    if (ok) model.MustBe(true);
    if (ok) model.sources = {request.source};
    if (!ok) model = before;
  } else if (request.op == ShardOp::kDestroy && ok) {
    Expect(before.maybe_present || before.lingering, "d", "shard {} is destroyed, and cannot be there", model.key);
    model.MustBe(false);
  }
}

void World::CountDown() {
  if (armed_ && run_options_.scenario != Scenario::kNone) {
    ++calls_;
    if (run_options_.crash_call != 0 && calls_ == run_options_.crash_call) return CrashInto(run_options_.crash_state);
  }
  if (countdown_ == 0 || --countdown_ != 0) return;
  PowerCut();
}

void World::PowerCut() {
  down_ = true;
  Log("{}", kill_only_ ? "the process is killed" : "the power goes");
  if (closing_) Sometimes("crash: while a store closes");
  if (kill_only_) {
    Sometimes("crash: kill");
    fs_.Kill();
    kv_.Kill();
  } else {
    Sometimes("crash: power cut");
    fs_.Crash(static_cast<Kept>(tape_.Draw(Stream::kCrash, kKeptWays)));
    kv_.Crash();
  }
}

// ---- Scenarios ----

// The power goes, and this one of all the states that may be found is found.
void World::CrashInto(uint64_t state) {
  constexpr uint64_t kStatesMax = 512;  // of one moment; of more, so many that are spread over all
  const size_t names = fs_.UnsyncedNames(), writes = fs_.UnsyncedWrites(), commits = kv_.Undurable() + 1;
  uint64_t all = commits;
  for (size_t i = 0; i < names && all <= kStatesMax; ++i) all *= 2;
  for (size_t i = 0; i < writes && all <= kStatesMax; ++i) all *= 3;
  crash_states_ = std::min(all, kStatesMax);
  uint64_t rest = state;
  const auto pick = [&](uint64_t n) {
    if (all > kStatesMax) {  // too many for numbers: mixed
      rest = (rest ^ (rest >> 29)) * 0xbf58476d1ce4e5b9 + 0x9e3779b97f4a7c15;
      return state == 0 ? 0 : state == 1 ? n - 1 : (rest >> 32) % n;
    }
    const uint64_t word = rest % n;
    rest /= n;
    return word;
  };
  down_ = true;
  const size_t kept = pick(commits);
  std::vector<bool> keep_names;
  std::vector<uint8_t> keep_writes;
  for (size_t i = 0; i < names; ++i) keep_names.push_back(pick(2) == 1);
  for (size_t i = 0; i < writes; ++i) keep_writes.push_back(static_cast<uint8_t>(pick(3)));
  Log("the power goes; {} names, {} writes, {} commits were not durable", names, writes, commits - 1);
  fs_.CrashExactly(keep_names, keep_writes);
  kv_.CrashKeeping(kept);
}

absl::Status World::Inject() {
  if (!armed_ || injected_ || run_options_.fail_call == 0 || calls_ != run_options_.fail_call) return absl::OkStatus();
  injected_ = true;
  switch (run_options_.failure) {
    case Injected::kNone:
      return absl::OkStatus();
    case Injected::kInputOutput:
      return ErrnoStatus(EIO, "injected");
    case Injected::kNoSpace:
      return ErrnoStatus(ENOSPC, "injected");
    case Injected::kNoDescriptor:
      return ErrnoStatus(EMFILE, "injected");
  }
  return absl::OkStatus();
}

void World::ConfigureScenario() {
  scheduler_.SetPolicy(Policy::kOldest);
  faulty_ = true;
  for (size_t i = 0; i < 4; ++i) {
    KeyModel model;
    model.key = fmt::format("k{}", i);
    keys_.push_back(std::move(model));
    Source source;
    source.name = fmt::format("s{}", i);
    source.local = i == 1;
    source.car = i == 2 ? kSoundCars : i == 3 ? 4 : i;
    source.cars = {source.car};
    sources_.all.push_back(std::move(source));
  }
  auto mounts = std::make_shared<MountRegistry>();
  DAGSTORE_CHECK_OK(mounts->Register("sim", sources_.Factory()));
  mounts_ = mounts;
  base_.inline_index_bytes_max = 0;            // every index is a file
  // Every shard writes a run; or closing does.
  base_.top_index_buffer_entries_max = run_options_.scenario == Scenario::kClose ? 256 : 1;
  base_.index_memory_bytes_max = 1;            // every entry is put aside
  base_.recover_on_start = RecoverOnStart::kNever;
  base_.index_threads = base_.open_threads = 1;
}

void World::PlayScenario() {
  Client client;
  const auto change = [&](size_t key, auto ask) {  // the model follows, as it does for the clients of seeds
    KeyModel& model = keys_[key];
    model.maybe_absent = model.maybe_present = true;
    model.sources.insert(key);
    const absl::Status status = ask();
    Log("{}: {}", model.key, ToString(status));
    CheckStatus(status, "scenario", /*stopped=*/down_);
    return status;
  };
  const auto add = [&](size_t key, bool lazy) {
    RegisterOptions options;
    options.lazy = lazy;
    const absl::Status status = change(key, [&] {
      return store_->RegisterShardSync(keys_[key].key, *mounts_->Make(sources_.UrlOf(key)), options);
    });
    if (status.ok() && Live()) keys_[key].MustBe(true);
  };
  const auto remove = [&](size_t key) {
    const absl::Status status = change(key, [&] { return store_->DestroyShardSync(keys_[key].key); });
    if (status.ok() && Live()) keys_[key].MustBe(false);
  };
  const auto acquire = [&](size_t key) {
    absl::StatusOr<Accessor> accessor = store_->AcquireShardSync(keys_[key].key);
    Log("acquire {}: {}", keys_[key].key, ToString(accessor.status()));
    CheckStatus(accessor.status(), "acquire", /*stopped=*/down_);
    return accessor;
  };

  if (!Open()) return;
  const Scenario scenario = run_options_.scenario;
  if (scenario != Scenario::kPublish) add(0, /*lazy=*/false);
  if (scenario != Scenario::kLocal) add(1, /*lazy=*/false);
  add(2, /*lazy=*/false);  // becomes Errored
  if (scenario == Scenario::kOpen && !Close(/*orderly=*/true)) return;
  Sources& sources = sources_;
  sources.all[2].car = 2;
  sources.all[2].cars.push_back(2);
  ++sources.all[2].version;

  armed_ = true;
  switch (scenario) {
    case Scenario::kNone:
      break;
    case Scenario::kPublish:
      add(0, /*lazy=*/false);
      break;
    case Scenario::kLocal:
      add(1, /*lazy=*/true);
      (void)acquire(1);
      break;
    case Scenario::kDestroy:
      remove(0);
      break;
    case Scenario::kRecover:
      CheckStatus(store_->RecoverShardSync(keys_[2].key), "recover", /*stopped=*/down_);
      break;
    case Scenario::kReindex: {
      absl::StatusOr<Accessor> accessor = acquire(0);
      if (!accessor.ok()) break;
      accessor->ReportDamage(DataLoss("said so by the scenario"), Damage::kIndex);
      accessor->Close();
      (void)acquire(0);
      break;
    }
    case Scenario::kCollect: {
      const absl::StatusOr<GcResult> gc = store_->Gc();
      CheckStatus(gc.status(), "gc", /*stopped=*/down_);
      (void)acquire(0);
      break;
    }
    case Scenario::kOpen:
      (void)Open();
      break;
    case Scenario::kClose:
      break;
  }
  if (scenario == Scenario::kClose || scenario == Scenario::kNone) {
    // Closing is what counts.
  } else {
    armed_ = scenario == Scenario::kDestroy;  // what it left to do is part of it
  }
  if (!failure_.oracle.empty() || !Close(/*orderly=*/!down_)) return;
  armed_ = false;
  Liveness();
}

// An ordinal names one index for ever, whatever a crash has taken back.
void World::Published(const std::string& path) {
  if (!path.starts_with(std::string(kDir) + "/indexes/") || !path.ends_with(".idx")) return;
  const auto [boot, fresh] = index_boots_.try_emplace(path, boot_);
  Expect(boot->second == boot_, "h", "index {} of an earlier boot is given out again", path);
}

void World::Removed(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (path.substr(0, slash) == std::string(kDir) + "/indexes" && path.ends_with(".idx")) {
    const auto& destroying = kv_.tables()[static_cast<size_t>(KvTable::kDestroying)];
    for (const auto& [key, value] : kv_.tables()[static_cast<size_t>(KvTable::kRecords)]) {
      const absl::StatusOr<ShardRecord> record = DecodeRecord(AsSpan(value));
      if (!record.ok() || record->ordinal == 0 || destroying.contains(key)) continue;
      Expect(fmt::format("{}/indexes/{:08x}.idx", kDir, record->ordinal) != path, "h",
             "the index {} of shard {} is removed while its record names it", path, key);
    }
    return;
  }
  if (path.substr(0, slash) != std::string(kDir) + "/transients" || !path.ends_with(".car")) return;
  const std::string name = path.substr(slash + 1);
  for (const KeyModel& model : keys_) {
    if (model.held == 0) continue;
    const auto& records = kv_.tables()[static_cast<size_t>(KvTable::kRecords)];
    const auto found = records.find(model.key);
    if (found == records.end()) continue;
    const absl::StatusOr<ShardRecord> record = DecodeRecord(AsSpan(found->second));
    if (record.ok() && record->copy.has_value() && record->copy->name == name &&
        record->state != ShardState::kErrored) {
      Fail("h", fmt::format("the copy {} of shard {} is removed while {} accessors are out", name, model.key,
          model.held));
    }
  }
}

void World::WatchTrace() {
  if (steps_seen_ == nullptr) return;
  while (auto event = steps_seen_->Next(Deadline::At(0), scheduler_)) {
    const std::string& key = event->key.bytes();
    const auto [last, fresh] = state_seen_.try_emplace(key, event->from);
    if (steps_seen_->dropped() == 0) {
      Expect(last->second == event->from, "a", "shard {} steps from {}, and was {}", key, StateName(event->from),
             StateName(last->second));
    }
    const auto rows = TransitionTable();
    const bool known = std::any_of(rows.begin(), rows.end(), [&](const Row& row) {
      return row.from == event->from && row.op == event->op && row.next == event->to;
    });
    Expect(known, "a", "no row leads shard {} from {} by {} to {}", key, StateName(event->from), OpName(event->op),
           StateName(event->to));
    const auto code = event->status.code();
    const bool passing = code == absl::StatusCode::kCancelled || code == absl::StatusCode::kResourceExhausted ||
                         code == absl::StatusCode::kDeadlineExceeded;
    Expect(!(passing && event->op == ShardOp::kFail && event->to == ShardState::kErrored &&
             event->from != ShardState::kRecovering && event->from != ShardState::kErrored),
           "a", "shard {} becomes Errored by what passes: {}", key, ToString(event->status));
    CheckText(ToString(event->status), "trace");
    failed_seen_ = failed_seen_ || (event->op == ShardOp::kFail && event->to == ShardState::kErrored &&
                                    event->from != ShardState::kRecovering);  // that one may pass
    SometimesMade(fmt::format("row: {} {} {}", StateName(event->from), OpName(event->op), StateName(event->to)));
    last->second = event->to;
    if (event->op == ShardOp::kForget) state_seen_.erase(key);
  }
}

// What happens to a disk while nobody looks.
void World::Age() {
  if (!rot_) return;
  if (tape_.Draw(Stream::kFault, 3) == 2) {
    static constexpr const char* kNames[] = {"indexes/stranger.txt", "transients/stranger.car.bak", "top/stranger",
                                             "indexes/trash/stranger"};
    fs_.PutForeign(fmt::format("{}/{}", kDir, kNames[tape_.Draw(Stream::kFault, 4)]), "not yours");
    Sometimes("rot: a stranger's file appears");
  }
  if (tape_.Draw(Stream::kFault, 2) == 1) {
    std::vector<std::string> files;
    for (const std::string& file : fs_.Files())
      if (file.starts_with(kDir) && !file.ends_with("/DAGSTORE") && file.find("stranger") == std::string::npos)
        files.push_back(file);
    if (files.empty()) return;
    const std::string& file = files[tape_.Draw(Stream::kFault, static_cast<uint32_t>(files.size()))];
    const std::string* content = fs_.Content(file);
    if (content->empty()) return;
    const uint32_t offset = tape_.Draw(Stream::kFault, static_cast<uint32_t>(content->size()));
    fs_.FlipBit(file, offset, static_cast<int>(tape_.Draw(Stream::kFault, 8)));
    Log("bit rot in {} at {}", file, offset);
    if (file.find("/indexes/") != std::string::npos) Sometimes("rot: an index");
    if (file.find("/top/") != std::string::npos) Sometimes("rot: a run of the top-level index");
    if (file.find("/transients/") != std::string::npos) Sometimes("rot: a local copy");
    for (Source& source : sources_.all) source.tainted = true;
  }
}

void World::RunClients() {
  clients_now_.clear();
  clients_now_.resize(static_cast<size_t>(clients_));
  std::vector<Thread> threads;
  for (size_t i = 0; i < clients_now_.size(); ++i) {
    clients_now_[i].id = static_cast<int>(i);
    threads.emplace_back(fmt::format("client-{}", i), [this, i] { RunClient(clients_now_[i]); });
  }
  for (Thread& thread : threads) thread.Join();
  WatchTrace();
}

// ---- Clients ----

void World::RunClient(Client& client) {
  for (int i = 0; i < operations_ && Live(); ++i) {
    Act(client);
    WatchTrace();
  }
}

void World::Act(Client& client) {
  const size_t key = Draw(static_cast<uint32_t>(keys_.size()));
  const uint32_t what = Draw(100);
  if (what < 26) return Register(client, key);
  if (what < 40) return Acquire(client, key, /*keep=*/false);
  if (what < 48) return Acquire(client, key, /*keep=*/true);
  if (what < 53) return Release(client);
  if (what < 65) return Destroy(key);
  if (what < 71) return Recover(key);
  if (what < 79) return AcquireOddly(key);
  if (what < 83) return GetIndexed();
  if (what < 86) return Lookup();
  if (what < 89) return Look(key);
  if (what < 92) return Gc();
  if (what < 94) return Manifest(key);
  if (what < 95) return Scrub(key);
  if (what < 97) return Pin(key);
  if (what < 98) return FetchWhole(key);
  ChangeSource();
}

uint64_t World::BeginChange(size_t key) {
  KeyModel& model = keys_[key];
  ++model.changing;
  model.pinned.reset();
  return ++model.change;
}

bool World::EndChange(size_t key, uint64_t began) {
  KeyModel& model = keys_[key];
  const bool alone = model.changing == 1 && model.change == began;
  --model.changing;
  ++model.change;
  return alone;
}

void World::Register(Client&, size_t key) {
  KeyModel& model = keys_[key];
  const size_t s = Draw(2) == 0 ? key : Draw(static_cast<uint32_t>(sources_.all.size()));
  const Source& source = sources_.all[s];
  RegisterOptions options;
  options.lazy = Draw(3) == 2;
  options.verify = Draw(8) != 7 || source.car >= kSoundCars;
  const uint32_t impatience = Draw(10);
  if (impatience == 9) options.deadline = Deadline::After(scheduler_, absl::Microseconds(Draw(3000)));
  if (!source.local && !source.lying && source.car < kSoundCars && Draw(8) == 7) {
    options.existing_transient = fmt::format("/user/{}.car", source.name);
    if (!user_files_.contains(options.existing_transient)) {
      user_files_.insert(options.existing_transient);
      fs_.PutForeign(options.existing_transient, std::string(AsText(source.bytes())));
    }
    Sometimes("register: with a copy of the user's");
  }
  auto mount = mounts_->Make(sources_.UrlOf(s));
  DAGSTORE_CHECK_OK(mount.status());
  const KeyModel before = model;
  const uint64_t began = BeginChange(key);
  model.maybe_present = true;
  const bool could_be_new = before.maybe_absent || before.changing != 0 || before.lingering;
  if (could_be_new) model.sources.insert(s);
  Log("register {} from {}{}", model.key, source.name, options.lazy ? ", lazy" : "");

  const Channel<ShardResult> out(1);
  const absl::StatusOr<Ticket> ticket = store_->RegisterShard(model.key, *std::move(mount), out, options);
  if (!ticket.ok()) {
    if (EndChange(key, began)) model.maybe_present = before.maybe_present;
    CheckStatus(ticket.status(), "register", /*stopped=*/closing_);
    Sometimes("register: refused at the door");
    return;
  }
  if (impatience == 8) {
    for (uint32_t i = Draw(40); i != 0; --i) scheduler_.Yield();
    (void)store_->Stop(*ticket);
    Sometimes("register: stopped");
  }
  const ShardResult result = out.Receive();
  Log("registered {}: {}", model.key, ToString(result.status));
  Expect(!out.TryReceive().has_value() && result.ticket == *ticket, "i", "register {} is answered twice", model.key);
  if (!Live()) return;
  CheckStatus(result.status, "register", impatience == 8, impatience == 9);
  const bool alone = EndChange(key, began);
  const auto code = result.status.code();
  if (code == absl::StatusCode::kAlreadyExists) {
    // One that is being destroyed, perhaps since before a restart, exists until it is gone.
    Expect(before.maybe_present || before.lingering || !alone, "d", "shard {} is said to exist, and cannot", model.key);
    if (alone) {
      model.maybe_absent = before.maybe_absent && before.lingering;
      model.sources = before.sources;
    }
    Sometimes("register: exists already");
    return;
  }
  if (result.status.ok()) {
    if (alone) {
      Expect(before.maybe_absent || before.lingering, "d", "shard {} is registered twice", model.key);
      model.MustBe(true);
      model.pinned = false;  // whoever registers a key again starts without its pin
      model.sources = {s};
    }
    if (options.lazy) Sometimes("register: lazy");
    return;
  }
  Sometimes("register: fails");
  if (alone && Calm() && impatience < 8 && !source.tainted) {
    if (quota_ && code == absl::StatusCode::kResourceExhausted) {
      Sometimes("quota: a registration does not fit");
      return;
    }
    Expect(source.car >= kSoundCars, "e", "registering {} fails, and nothing is wrong: {}", model.key,
        ToString(result.status));
  }
}

void World::Destroy(size_t key) {
  KeyModel& model = keys_[key];
  const KeyModel before = model;
  DestroyOptions options;
  const uint32_t impatience = Draw(10);
  if (impatience == 9) options.deadline = Deadline::After(scheduler_, absl::Microseconds(Draw(1500)));
  const uint64_t began = BeginChange(key);
  model.maybe_absent = true;
  Log("destroy {}", model.key);
  const Channel<ShardResult> out(1);
  const absl::StatusOr<Ticket> ticket = store_->DestroyShard(model.key, out, options);
  if (!ticket.ok()) {
    if (EndChange(key, began)) model.maybe_absent = before.maybe_absent;
    CheckStatus(ticket.status(), "destroy", /*stopped=*/closing_);
    return;
  }
  if (impatience == 8) {
    for (uint32_t i = Draw(20); i != 0; --i) scheduler_.Yield();
    (void)store_->Stop(*ticket);
    Sometimes("destroy: stopped");
  }
  const ShardResult result = out.Receive();
  Log("destroyed {}: {}", model.key, ToString(result.status));
  Expect(!out.TryReceive().has_value() && result.ticket == *ticket, "i", "destroy {} is answered twice", model.key);
  if (!Live()) return;
  CheckStatus(result.status, "destroy", impatience == 8, impatience == 9);
  const bool alone = EndChange(key, began);
  switch (result.status.code()) {
    case absl::StatusCode::kOk:
      if (alone) {
        Expect(before.maybe_present || before.lingering, "d", "shard {} is destroyed, and cannot be there", model.key);
        model.MustBe(false);
      }
      Sometimes("destroy: done");
      return;
    case absl::StatusCode::kNotFound:
      if (alone && SaysAbsent(result.status)) {
        Expect(before.maybe_absent || before.lingering, "d", "shard {} was acknowledged, and is not found", model.key);
        model.MustBe(false);
        model.lingering = before.lingering;  // its mark may be durable still, and is gone for good after a restart
      }
      return;
    case absl::StatusCode::kFailedPrecondition:
      Sometimes("destroy: in use");
      if (alone) model.maybe_absent = before.maybe_absent;
      return;
    default:
      model.lingering = true;
      Sometimes("destroy: fails");
      if (Calm() && impatience < 8 && alone) {
        Fail("d", fmt::format("destroying {} fails, and nothing is wrong: {}", model.key, ToString(result.status)));
      }
  }
}

void World::Recover(size_t key) {
  RecoverOptions options;
  Log("recover {}", keys_[key].key);
  const absl::Status status = store_->RecoverShardSync(keys_[key].key, options);
  Log("recovered {}: {}", keys_[key].key, ToString(status));
  if (!Live()) return;
  CheckStatus(status, "recover");
  if (status.ok()) Sometimes("recover: done");
}

void World::Acquire(Client& client, size_t key, bool keep) {
  KeyModel& model = keys_[key];
  const KeyModel before = model;
  Log("acquire {}", model.key);
  absl::StatusOr<Accessor> accessor = store_->AcquireShardSync(model.key);
  Log("acquired {}: {}", model.key, ToString(accessor.status()));
  if (!Live()) return;
  const bool undisturbed = before.changing == 0 && model.changing == 0 && model.change == before.change;
  if (!accessor.ok()) {
    CheckStatus(accessor.status(), "acquire");
    if (SaysAbsent(accessor.status()) && undisturbed) {
      Expect(before.maybe_absent || before.lingering, "d", "shard {} was acknowledged, and is not found: {}", model.key,
             ToString(accessor.status()));
    }
    if (undisturbed && Calm() && SourceIsGood(key)) {
      const auto code = accessor.status().code();
      Expect(code == absl::StatusCode::kNotFound || code == absl::StatusCode::kResourceExhausted, "e",
             "acquiring {} fails, and nothing is wrong: {}", model.key, ToString(accessor.status()));
    }
    return;
  }
  if (undisturbed) Expect(before.maybe_present, "d", "shard {} is served, and cannot be there", model.key);
  Held held(model, *std::move(accessor));
  Read(client, *held, key);
  if (!Live() || !keep || client.held.size() >= 3) return;
  client.held.emplace_back(key, std::move(held));
  Sometimes("acquire: held");
}

bool World::SourceIsGood(size_t key) const {
  for (const size_t s : keys_[key].sources) {
    const Source& source = sources_.all[s];
    if (source.tainted || source.car >= kSoundCars) return false;
  }
  return true;
}

// With a deadline, a stop, or nobody who waits for the answer.
void World::AcquireOddly(size_t key) {
  const uint32_t how = Draw(3);
  AcquireOptions options;
  if (how == 0) options.deadline = Deadline::After(scheduler_, absl::Microseconds(Draw(4000)));
  std::optional<Channel<ShardResult>> out(std::in_place, 1);
  Log("acquire {}, {}", keys_[key].key, how == 0 ? "with a deadline" : how == 1 ? "and stop" : "and go away");
  const absl::StatusOr<Ticket> ticket = store_->AcquireShard(keys_[key].key, *out, options);
  if (!ticket.ok()) return CheckStatus(ticket.status(), "acquire", /*stopped=*/closing_);
  if (how != 0) {
    for (uint32_t i = Draw(60); i != 0; --i) scheduler_.Yield();
  }
  if (how == 1) {
    (void)store_->Stop(*ticket);
    if (Draw(4) == 3) (void)store_->Stop(*ticket);
  }
  if (how == 2) {
    Sometimes("acquire: nobody takes the answer");
    out.reset();
    return;
  }
  ShardResult result = out->Receive();
  Log("acquired {}: {}", keys_[key].key, ToString(result.status));
  Expect(!out->TryReceive().has_value() && result.ticket == *ticket, "i", "acquire {} is answered twice",
      keys_[key].key);
  if (!Live()) return;
  CheckStatus(result.status, "acquire", how == 1, how == 0);
  if (result.status.code() == absl::StatusCode::kCancelled) Sometimes("acquire: stopped");
  if (result.status.code() == absl::StatusCode::kDeadlineExceeded) Sometimes("acquire: too late");
}

void World::Read(Client& client, const Accessor& accessor, size_t key) {
  if (client.view.has_value()) {
    const WorldBlock& seen = BlockPool()[client.view->first];
    CheckBytes(seen.cid.view(), client.view->second.data(), "a view of some time ago");
    client.view.reset();
  }
  const std::unique_ptr<Blockstore> blocks = accessor.NewBlockstore();
  const std::vector<WorldBlock>& pool = BlockPool();
  Block block;
  const uint32_t first = Draw(static_cast<uint32_t>(pool.size()));
  const uint32_t count = 1 + Draw(6);
  for (uint32_t i = 0; i < count && Live(); ++i) {
    const WorldBlock& want = pool[(first + i) % pool.size()];
    const absl::StatusOr<bool> has = blocks->Has(want.cid.view());
    BlockView view;
    const bool look = Draw(3) == 2;
    const absl::Status got = look ? blocks->GetView(want.cid.view(), view) : blocks->Get(want.cid.view(), block);
    if (!Live()) return;
    if (got.ok()) {
      CheckBytes(want.cid.view(), look ? view.data() : block.data(), "an accessor");
      if (look) {
        if (view.copied()) Sometimes("view: a copy");
        if (!view.copied()) Sometimes("view: in memory");
        client.view.emplace((first + i) % pool.size(), std::move(view));
      }
      if (has.ok()) Expect(*has, "f", "shard {} serves a block that it says it has not", keys_[key].key);
      Sometimes("read: a block");
      continue;
    }
    CheckStatus(got, "get");
    if (Calm() && !changing_sources_) {
      Expect(got.code() == absl::StatusCode::kNotFound && has.ok() && !*has, "e", "shard {} does not serve a block: {}",
             keys_[key].key, ToString(got));
    }
    if (got.code() == absl::StatusCode::kDataLoss) Sometimes("read: a block is not what its CID says");
  }
  const auto held = static_cast<uint32_t>(keys_[key].held);
  const uint64_t releases = keys_[key].releases;
  const absl::StatusOr<ShardInfo> info = store_->GetShardInfo(keys_[key].key);
  if (!Live() || !info.ok() || keys_[key].releases != releases) return;
  Expect(info->references >= held, "b", "shard {} counts {} references, clients hold {}", keys_[key].key,
         info->references, held);
  Expect(held == 0 || info->state != ShardState::kAvailable, "b", "shard {} is Available, and clients hold {}",
         keys_[key].key, held);
}

void World::Release(Client& client) {
  if (client.held.empty()) return;
  const size_t at = Draw(static_cast<uint32_t>(client.held.size()));
  const size_t key = client.held[at].first;
  const Held held = std::move(client.held[at].second);
  client.held.erase(client.held.begin() + static_cast<std::ptrdiff_t>(at));
  Read(client, *held, key);
  Log("release {}", keys_[key].key);
}

void World::GetIndexed() {
  const WorldBlock& want = BlockPool()[Draw(static_cast<uint32_t>(BlockPool().size()))];
  Block block;
  const absl::Status got = indexed_->Get(want.cid.view(), block);
  Log("get block {}: {}", CidText(want.cid.view()), ToString(got));
  if (!Live()) return;
  if (got.ok()) {
    CheckBytes(want.cid.view(), block.data(), "the blockstore of all shards");
    Sometimes("get: by CID alone");
  } else {
    CheckStatus(got, "get");
  }
  if (Draw(3) == 2) indexed_->Trim();
}

void World::Lookup() {
  const WorldBlock& want = BlockPool()[Draw(static_cast<uint32_t>(BlockPool().size()))];
  const std::vector<KeyModel> before = keys_;
  const absl::StatusOr<std::vector<ShardKey>> found = store_->ShardsContainingMultihash(want.cid.hash());
  if (!Live()) return;
  if (!found.ok()) return CheckStatus(found.status(), "lookup");
  for (const ShardKey& key : *found) {
    for (const KeyModel& model : before) {
      const KeyModel& now = keys_[static_cast<size_t>(&model - before.data())];
      if (model.key != key.bytes() || now.change != model.change) continue;
      Expect(model.maybe_present || model.changing != 0 || model.lingering, "f",
          "a lookup names shard {}, which is gone",
          model.key);
    }
  }
}

void World::Look(size_t key) {
  const absl::StatusOr<ShardInfo> info = store_->GetShardInfo(keys_[key].key);
  if (info.ok()) {
    CheckText(info->url, "info");
    CheckText(ToString(info->error), "info");
  }
  const absl::StatusOr<ShardPage> page = store_->ListShards();
  const absl::StatusOr<StoreStats> stats = store_->Stats();
  if (!Live()) return;
  if (page.ok()) {
    for (const ShardInfo& shard : page->shards) CheckText(shard.url, "list");
  }
  if (stats.ok()) {
    const uint64_t indexing = stats->engine.jobs_running_by_kind[static_cast<size_t>(JobKind::kInitialize)];
    Expect(indexing <= base_.jobs_running_max, "j", "{} jobs index", indexing);
    Expect(stats->engine.jobs_running <= base_.jobs_running_max + stats->engine.active_shards + 64, "j", "{} jobs run",
           stats->engine.jobs_running);
    Expect(stats->engine.timers <= 4096, "j", "{} timers", stats->engine.timers);
  }
  for (const FailureEvent& event : store_->FailureLog(16)) CheckText(ToString(event.status), "the failure log");
}

void World::Gc() {
  const absl::StatusOr<GcResult> result = store_->Gc();
  Log("gc: {}", ToString(result.status()));
  if (!Live()) return;
  if (!result.ok()) return CheckStatus(result.status(), "gc");
  if (result->copies_removed != 0) Sometimes("gc: a copy is removed");
  if (result->orphans_removed != 0) Sometimes("gc: orphans are removed");
}

void World::Pin(size_t key) {
  KeyModel& model = keys_[key];
  const KeyModel before = model;
  const bool pin = Draw(3) != 2;
  model.pinned.reset();
  const uint64_t change = ++model.change;
  const absl::Status status = pin ? store_->Pin(model.key) : store_->Unpin(model.key);
  Log("{} {}: {}", pin ? "pin" : "unpin", model.key, ToString(status));
  if (!Live()) return;
  CheckStatus(status, "pin");
  const bool alone = model.changing == 0 && model.change == change;
  ++model.change;
  if (status.ok()) {
    if (alone && before.changing == 0) model.pinned = pin;
    if (pin) Sometimes("pin: a shard");
    if (!pin) Sometimes("pin: undone");
  } else if (status.code() == absl::StatusCode::kNotFound && alone && before.changing == 0) {
    Expect(before.maybe_absent || before.lingering || !SaysAbsent(status), "d",
           "shard {} was acknowledged, and is not there to be pinned", model.key);
  }
}

void World::FetchWhole(size_t key) {
  const WorkContext work{nullptr, &scheduler_, Deadline::Infinite()};
  const absl::Status status = store_->FetchWhole(keys_[key].key, work);
  Log("fetch {} whole: {}", keys_[key].key, ToString(status));
  if (!Live()) return;
  CheckStatus(status, "fetch");
  if (status.ok()) Sometimes("fetch: a copy is whole");
}

void World::Manifest(size_t key) {
  const Cid cid = BlockPool()[Draw(4)].cid;
  const absl::Status status = Draw(2) == 0 ? store_->AddManifest(keys_[key].key, "rule", 1, {&cid, 1})
                                           : store_->DropManifest(keys_[key].key, "rule", 1);
  if (Live()) CheckStatus(status, "manifest");
}

void World::ChangeSource() {
  if (!changing_sources_) return scheduler_.Sleep(absl::Microseconds(Draw(2000)));
  Source& source = sources_.all[Draw(static_cast<uint32_t>(sources_.all.size()))];
  source.tainted = true;
  const uint32_t how = Draw(7);
  Log("source {} changes: {}", source.name, how);
  switch (how) {
    case 0: source.absent = source.not_ready = source.truncated = source.lying = source.unreachable = false; break;
    case 1: source.absent = true; break;
    case 2: source.not_ready = true; break;
    case 3: source.truncated = true; break;
    case 4: source.lying = true; break;
    case 5: source.unreachable = true; break;
    case 6:
      source.car = Draw(kSoundCars);
      source.cars.push_back(source.car);
      ++source.version;
      Sometimes("source: other bytes");
      break;
  }
}

void World::Scrub(size_t key) {
  absl::StatusOr<Accessor> acquired = store_->AcquireShardSync(keys_[key].key);
  if (!Live() || !acquired.ok()) return;
  const Held accessor(keys_[key], *std::move(acquired));
  const WorkContext work{nullptr, &scheduler_, Deadline::Infinite()};
  const absl::StatusOr<ScrubReport> report = VerifyShard(*accessor, work);
  if (Live() && report.ok() && !report->sound()) {
    if (Calm() && !changing_sources_) Fail("e", fmt::format("scrub of {}: {}", keys_[key].key,
        ToString(report->status)));
    accessor->ReportDamage(report->status, report->damage);
    Sometimes("scrub: finds damage");
  }
}

// ---- What must hold ----

void World::CheckStatus(const absl::Status& status, const std::string& what, bool stopped, bool deadline) {
  trace_.Add(static_cast<uint64_t>(status.code()));
  CheckText(ToString(status), what.c_str());
  switch (status.code()) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
      return Fail("type", fmt::format("{}: an error of a kind that does not belong there: {}", what, ToString(status)));
    case absl::StatusCode::kCancelled:
      Expect(stopped || closing_, "cancel", "{}: Cancelled, and nobody stopped it: {}", what, ToString(status));
      return;
    case absl::StatusCode::kDeadlineExceeded:
      Expect(deadline, "deadline", "{}: DeadlineExceeded without a deadline: {}", what, ToString(status));
      return;
    default:
      return;
  }
}

void World::CheckBytes(const CidView& cid, Span bytes, const std::string& from) {
  const size_t block = BlockOf(cid.hash);
  Expect(block < BlockPool().size() && SameBytes(bytes, BlockPool()[block].data), "g", "{} serves wrong bytes for {}",
      from,
         CidText(cid));
  trace_.Add(block);
}

// Copies, whole or not, of records or of nobody: never more on the disk than the quota says.
void World::CheckQuota() {
  if (!quota_ || base_.copies.bytes_max == UINT64_MAX || store_ == nullptr) return;
  uint64_t bytes = 0;
  std::string what;
  for (const std::string& file : fs_.Files()) {
    if (!file.starts_with(std::string(kDir) + "/transients/") || (!file.ends_with(".car") && !file.ends_with(".part")))
      continue;
    const uint64_t allocated = AllocatedBytes(*fs_.Content(file));
    bytes += allocated;
    if (bytes > base_.copies.bytes_max) what += fmt::format(" {} ({})", file, allocated);
  }
  Expect(bytes <= base_.copies.bytes_max, "j", "copies of {} bytes, the quota is {}:{}", bytes, base_.copies.bytes_max,
         what);
}

void World::CheckText(std::string_view text, const char* where) {
  Expect(text.find(kSecret) == std::string_view::npos, "l", "a secret is seen in {}: {}", where, text);
}

std::optional<ShardInfo> World::InfoOf(size_t key) {
  for (;;) {
    absl::StatusOr<ShardInfo> info = store_->GetShardInfo(keys_[key].key);
    if (!Live()) return std::nullopt;
    if (info.ok()) return *std::move(info);
    if (info.status().code() == absl::StatusCode::kNotFound) return std::nullopt;
    Log("look at {}: {}", keys_[key].key, ToString(info.status()));
    Expect(info.status().code() == absl::StatusCode::kResourceExhausted, "d", "shard {} cannot be looked at: {}",
           keys_[key].key, ToString(info.status()));
    scheduler_.Sleep(absl::Milliseconds(1));
  }
}

// A restart has a rule for every key: what was acknowledged is there, what is destroyed is not.
void World::CheckPresence(const char* when) {
  for (size_t key = 0; key < keys_.size() && Live(); ++key) {
    KeyModel& model = keys_[key];
    if (std::exchange(model.changing, 0) != 0) model.lingering = true;  // nobody was told how it ended
    absl::StatusOr<ShardInfo> info = store_->GetShardInfo(model.key);
    if (!Live()) return;
    const bool present = info.ok();
    if (!present && info.status().code() != absl::StatusCode::kNotFound) continue;
    const bool going = present && info->state == ShardState::kDestroying;
    Log("{}: {} is {}", when, model.key, present ? StateName(info->state) : "absent");
    if (present && !(going && model.lingering)) {
      Expect(model.maybe_present, "d", "{}: shard {} is {}, and cannot be there", when, model.key,
          StateName(info->state));
    }
    if (present && !going && model.pinned.has_value() && info->state != ShardState::kDestroying) {
      Expect(info->pinned == *model.pinned, "d", "{}: shard {} is {}pinned", when, model.key,
             info->pinned ? "" : "not ");
      if (info->pinned) Sometimes("restart: finds a pinned shard");
    }
    if (present) {
      if (going) {
        Expect(model.maybe_absent || model.lingering, "d", "{}: shard {} is being destroyed, and nobody asked", when,
            model.key);
        Sometimes("restart: goes on destroying");
        model.maybe_absent = true;
        model.lingering = true;
      } else {
        model.MustBe(true);
      }
      if (info->state == ShardState::kErrored) Sometimes("restart: finds an Errored shard");
    } else {
      Expect(model.maybe_absent || model.lingering, "d", "{}: shard {} was acknowledged, and is gone", when, model.key);
      // A destruction that nobody has been told of may be done in memory, and have to be done again after a crash.
      const bool lingering = model.lingering;
      model.MustBe(false);
      model.lingering = lingering;
    }
  }
}

void World::Liveness() {
  for (Source& source : sources_.all) {
    source.absent = source.not_ready = source.truncated = source.lying = source.unreachable = false;
    if (source.car >= kSoundCars) {
      source.car = source.car % kSoundCars;
      source.cars.push_back(source.car);
      ++source.version;
    }
  }
  const int lives = tape_.Draw(Stream::kWork, 3) == 2 || run_options_.scenario != Scenario::kNone ? 2 : 1;
  for (int life = 0; life < lives; ++life) {
    if (!Open()) return;
    CheckPresence(life == 0 ? "with all faults gone" : "once more");
    const bool last = life + 1 == lives;
    if (last && Live()) CheckFiles();
    if (Live()) CheckTakenUp();
    const absl::Status ready = store_->AwaitLookups(Deadline::After(scheduler_, absl::Hours(1)));
    Expect(ready.ok(), "live", "lookups are never complete: {}", ToString(ready));
    if (Live() && !rot_) CheckNothingMissing();
    for (size_t key = 0; key < keys_.size() && Live(); ++key) Repair(key);
    if (Live()) CheckShards();
    if (Live()) CheckLookups();
    if (Live()) CheckFsck(life == 0 ? "with all faults gone" : "once more");
    if (Live()) CheckReferences();
    if (Live() && last) DestroySome();
    if (Live() && last) CheckNothingLeft("with all faults gone");
    if (Live() && last) CheckFiles();
    if (!Live() || !Close(/*orderly=*/true)) return;
  }
}

// Everything can be brought to a good end by what an operator can do.
void World::Repair(size_t key) {
  KeyModel& model = keys_[key];
  for (int round = 0; Live(); ++round) {
    const std::optional<ShardInfo> info = InfoOf(key);
    if (!info.has_value()) {
      Expect(model.maybe_absent, "d", "shard {} was acknowledged, and is gone", model.key);
      model.MustBe(false);
      return;
    }
    Expect(round < 8, "live", "shard {} cannot be repaired: {} {}", model.key, StateName(info->state),
        ToString(info->error));
    if (info->state == ShardState::kDestroying) {
      const absl::Status gone = store_->DestroyShardSync(model.key);
      Expect(gone.ok() || gone.code() == absl::StatusCode::kNotFound, "live", "destroying {} does not end: {}",
          model.key,
             ToString(gone));
      continue;
    }
    if (info->state == ShardState::kErrored) {
      const absl::Status recovered = store_->RecoverShardSync(model.key);
      Log("recover {}: {}", model.key, ToString(recovered));
      CheckStatus(recovered, "recover");
      Expect(recovered.ok(), "live", "shard {} does not recover, though nothing is wrong any more: {}", model.key,
             ToString(recovered));
      Sometimes("live: an Errored shard recovers");
    }
    absl::StatusOr<Accessor> accessor = store_->AcquireShardSync(model.key);
    if (!accessor.ok()) {
      Log("acquire {}: {}", model.key, ToString(accessor.status()));
      CheckStatus(accessor.status(), "acquire");
      const auto code = accessor.status().code();
      // Registered, and then its source changed: whoever wants the new bytes registers them.
      bool changed = false;
      for (const size_t s : model.sources) changed = changed || sources_.all[s].cars.size() > 1;
      if (changed && (code == absl::StatusCode::kFailedPrecondition || code == absl::StatusCode::kDataLoss)) {
        const absl::Status gone = store_->DestroyShardSync(model.key);
        Expect(gone.ok(), "live", "destroying {} fails: {}", model.key, ToString(gone));
        model.MustBe(false);
        Sometimes("live: a shard whose source changed is destroyed");
        return;
      }
      Expect(code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kFailedPrecondition, "live",
             "shard {} is not served, though nothing is wrong any more: {}", model.key, ToString(accessor.status()));
      continue;
    }
    const WorkContext work{nullptr, &scheduler_, Deadline::Infinite()};
    const absl::StatusOr<ScrubReport> report = VerifyShard(*accessor, work);
    Expect(report.ok(), "live", "shard {} cannot be verified: {}", model.key, ToString(report.status()));
    if (report->sound()) {
      model.MustBe(true);
      return;
    }
    Log("scrub {}: {}", model.key, ToString(report->status));
    Expect(rot_ || changing_sources_ || faulty_, "e", "shard {} is damaged, and nothing was: {}", model.key,
        ToString(report->status));
    accessor->ReportDamage(report->status, report->damage);
    accessor->Close();
    Sometimes("live: damage is found and repaired");
    // Until the loop has heard of it.
    for (int look = 0; look < 64; ++look) {
      const std::optional<ShardInfo> now = InfoOf(key);
      if (!now.has_value() || now->state == ShardState::kErrored) break;
      scheduler_.Sleep(absl::Milliseconds(10));
    }
  }
}

// Every shard there serves every block of one CAR that its source has had.
void World::CheckShards() {
  Block block;
  for (size_t key = 0; key < keys_.size() && Live(); ++key) {
    const KeyModel& model = keys_[key];
    if (!model.maybe_present) continue;
    const absl::StatusOr<Accessor> accessor = store_->AcquireShardSync(model.key);
    Expect(accessor.ok(), "e", "shard {} is not served: {}", model.key, ToString(accessor.status()));
    std::vector<size_t> has;
    const absl::Status walked = accessor->index().ForEach([&](const IndexEntry& entry) {
      has.push_back(BlockOf(entry.hash));
      return true;
    });
    Expect(walked.ok(), "e", "the index of {} cannot be read: {}", model.key, ToString(walked));
    std::sort(has.begin(), has.end());
    bool right = false;
    for (const size_t s : model.sources) {
      for (const size_t car : sources_.all[s].cars) {
        // A body that ended early at the end of a section is a CAR as well, if nobody knew its size.
        const size_t all = Cars()[car].blocks.size();
        for (size_t blocks = sources_.all[s].tainted ? 0 : all; blocks <= all; ++blocks) {
          std::vector<size_t> want(Cars()[car].blocks.begin(),
              Cars()[car].blocks.begin() + static_cast<std::ptrdiff_t>(blocks));
          std::sort(want.begin(), want.end());
          right = right || (want == has && Cars()[car].sound);
        }
      }
    }
    for (const size_t b : has) Expect(b < BlockPool().size(), "e", "the index of shard {} has a block of no source",
        model.key);
    Expect(right, "e", "the index of shard {} is of no CAR that its source had", model.key);
    const std::unique_ptr<Blockstore> blocks = accessor->NewBlockstore();
    for (const size_t b : has) {
      if (!Live()) return;
      const absl::Status got = blocks->Get(BlockPool()[b].cid.view(), block);
      Expect(got.ok(), "e", "shard {} does not serve a block of its own: {}", model.key, ToString(got));
      CheckBytes(BlockPool()[b].cid.view(), block.data(), "shard " + model.key);
    }
    // No CID covers the header of a CAR: one that rots before it is indexed first may have lost its roots.
    if (accessor->index().roots().empty()) continue;
    const absl::StatusOr<std::vector<ShardKey>> rooted = store_->ShardsWithRoot(accessor->index().roots().front());
    Expect(rooted.ok() && std::find(rooted->begin(), rooted->end(), ShardKey(model.key)) != rooted->end(), "f",
           "shard {} is not found by its root", model.key);
  }
}

// Lookups are said to be complete: they are, before anything is repaired.
void World::CheckNothingMissing() {
  for (const KeyModel& model : keys_) {
    const absl::StatusOr<ShardInfo> info = store_->GetShardInfo(model.key);
    if (!Live()) return;
    if (!info.ok() || info->state != ShardState::kAvailable) continue;
    const auto index = store_->GetIterableIndex(model.key);
    if (!Live()) return;
    Expect(index.ok() || !Calm(), "e", "the index of {} is damaged, and nothing was wrong: {}", model.key,
           ToString(index.status()));
    if (!index.ok()) continue;  // of a fault that is gone now
    std::vector<size_t> blocks;
    (void)(*index)->ForEach([&](const IndexEntry& entry) {
      if (const size_t block = BlockOf(entry.hash); block < BlockPool().size()) blocks.push_back(block);
      return true;
    });
    for (const size_t block : blocks) {
      const auto found = store_->ShardsContainingMultihash(BlockPool()[block].cid.hash());
      if (!Live()) return;
      // The index of another shard that may have it cannot be read any more: said, not hidden.
      if (found.status().code() == absl::StatusCode::kDataLoss && !Calm()) continue;
      Expect(found.ok(), "f", "a lookup fails: {}", ToString(found.status()));
      Expect(std::find(found->begin(), found->end(), ShardKey(model.key)) != found->end(), "f",
             "lookups are complete, and block {} is not found in shard {}", block, model.key);
    }
  }
}

void World::CheckLookups() {
  std::map<size_t, std::vector<std::string>> want;  // block -> keys, sorted
  for (const KeyModel& model : keys_) {
    if (!model.maybe_present) continue;
    const auto index = store_->GetIterableIndex(model.key);
    if (!Live()) return;
    Expect(index.ok(), "f", "no index of {}: {}", model.key, ToString(index.status()));
    (void)(*index)->ForEach([&](const IndexEntry& entry) {
      std::vector<std::string>& keys = want[BlockOf(entry.hash)];
      if (keys.empty() || keys.back() != model.key) keys.push_back(model.key);
      return true;
    });
  }
  Block block;
  for (size_t b = 0; b < BlockPool().size() && Live(); ++b) {
    const absl::StatusOr<std::vector<ShardKey>> found = store_->ShardsContainingMultihash(BlockPool()[b].cid.hash());
    Expect(found.ok(), "f", "a lookup fails: {}", ToString(found.status()));
    std::vector<std::string> keys;
    for (const ShardKey& key : *found) keys.push_back(key.bytes());
    Expect(keys == want[b], "f", "block {} is found in {} shards, and {} have it", b, keys.size(), want[b].size());
    if (b % 5 != 0) continue;
    const absl::Status got = indexed_->Get(BlockPool()[b].cid.view(), block);
    Expect(got.ok() == !keys.empty(), "f", "block {} of {} shards: {}", b, keys.size(), ToString(got));
    if (got.ok()) CheckBytes(BlockPool()[b].cid.view(), block.data(), "the blockstore of all shards");
  }
  indexed_->Trim();
}

void World::CheckFsck(const char* when) {
  const WorkContext work{nullptr, &scheduler_, Deadline::Infinite()};
  std::string problems;
  const absl::StatusOr<FsckReport> report = CheckStore(*store_, work, [&](const FsckProblem& problem) {
    problems += fmt::format("{} {}: {}\n", FsckPartName(problem.part), problem.key.Printable(),
        ToString(problem.status));
  });
  Expect(report.ok(), "live", "{}: fsck fails: {}", when, ToString(report.status()));
  Expect(problems.empty(), "e", "{}: fsck: {}", when, problems);
}

// Nobody has an accessor: no shard counts one, once the releases have arrived.
void World::CheckReferences() {
  for (size_t key = 0; key < keys_.size() && Live(); ++key) {
    for (int look = 0;; ++look) {
      const std::optional<ShardInfo> info = InfoOf(key);
      if (!info.has_value() || info->references == 0) break;
      Expect(look < 100, "b", "shard {} counts {} references, and nobody has one", keys_[key].key, info->references);
      scheduler_.Sleep(absl::Milliseconds(1));
    }
  }
}

// Whatever was ready to run has run, and what that made ready, too.
void World::Settle() { scheduler_.Sleep(absl::Seconds(10)); }

// What a restart found half done is somebody's: a shard that was not lazy is indexed without being asked for.
void World::CheckTakenUp() {
  Settle();
  for (size_t key = 0; key < keys_.size() && Live(); ++key) {
    const std::optional<ShardInfo> info = InfoOf(key);
    if (!info.has_value()) continue;
    Expect(info->state != ShardState::kNew || info->lazy, "live", "shard {} was registered, and nobody indexes it",
           keys_[key].key);
    Expect(info->state != ShardState::kDestroying, "live", "shard {} is destroyed, and nobody goes on", keys_[key].key);
  }
}

// Every other shard goes.
void World::DestroySome() {
  for (size_t key = 0; key < keys_.size() && Live(); key += 2) {
    if (!keys_[key].maybe_present) continue;
    const absl::Status status = store_->DestroyShardSync(keys_[key].key);
    Expect(status.ok(), "live", "destroying {} fails: {}", keys_[key].key, ToString(status));
    keys_[key].MustBe(false);
    const auto manifests = store_->ReadManifests().List(keys_[key].key, std::nullopt, nullptr, 1);
    Expect(manifests.ok() && manifests->empty(), "h", "manifests of {} are left", keys_[key].key);
  }
}

// After gc the folders hold what records name, and strangers' files, untouched; and there is nothing more to collect.
void World::CheckFiles() {
  Settle();
  for (const bool again : {false, true}) {
    const absl::StatusOr<GcResult> gc = store_->Gc({.copy_bytes_target = UINT64_MAX});
    Expect(gc.ok(), "live", "gc fails: {}", ToString(gc.status()));
    Expect(!again || gc->orphans_removed == 0, "h", "what a collection has found another finds again");
  }
  CheckNothingLeft("after gc", /*collected=*/true);
}

// Without gc: what no record names is not there.
void World::CheckNothingLeft(const char* when, bool collected) {
  Settle();
  if (!Live()) return;
  std::set<std::string> wanted, stems;
  std::set<uint32_t> ordinals;
  const auto table = [this](KvTable name) -> const auto& { return kv_.tables()[static_cast<size_t>(name)]; };
  for (const auto& [key, value] : table(KvTable::kRecords)) {
    const absl::StatusOr<ShardRecord> record = DecodeRecord(AsSpan(value));
    if (!record.ok()) continue;
    stems.insert(ShardKey(key).FileStem());
    if (record->copy.has_value()) {
      const std::string& name = record->copy->name;
      wanted.insert(fmt::format("{}/transients/{}", kDir, name));
      // A partial copy: its bytes, and what is there of them.
      for (const char* end : {"part", "map"}) {
        if (name.ends_with(".car")) {
          wanted.insert(fmt::format("{}/transients/{}{}", kDir, name.substr(0, name.size() - 3), end));
        }
      }
    }
    if (record->ordinal == 0) continue;
    ordinals.insert(record->ordinal);
    wanted.insert(fmt::format("{}/indexes/{:08x}.idx", kDir, record->ordinal));
  }
  // What a fetch that broke off has got is kept for the next attempt.
  const auto kept_for_later = [&](const std::string& file) {
    if (!file.ends_with(".part") && !file.ends_with(".map")) return false;
    const std::string name = file.substr(file.rfind('/') + 1);
    return stems.contains(name.substr(0, name.find('.')));
  };
  for (const std::string& file : fs_.Files()) {
    if (!file.starts_with(std::string(kDir) + "/")) continue;
    const bool ours = wanted.contains(file) || file == std::string(kDir) + "/DAGSTORE" ||
                      file.starts_with(std::string(kDir) + "/top/") || kept_for_later(file);
    const bool foreign = file.find("stranger") != std::string::npos;
    Expect(ours || foreign, "h", "{}: {} is left over: no record names it", when, file);
  }
  for (const std::string& file : user_files_) {
    Expect(fs_.Content(file) != nullptr, "h", "{} is the user's, and gone", file);
  }
  for (const auto& [key, value] : table(KvTable::kIndexes)) {
    Expect(ordinals.contains(Load32Big(AsSpan(key).data())), "h", "{}: an index is left over in the database", when);
  }
  for (const auto& [key, value] : table(KvTable::kRoots)) {
    // Which roots a shard had is in its index: of one that cannot be read, they are left to gc.
    const uint32_t ordinal = Load32Big(AsSpan(key).last(4).data());
    Expect(ordinals.contains(ordinal) || (faulty_ && !collected), "h", "{}: a root of ordinal {} is left over", when,
           ordinal);
  }
  for (const auto& [key, value] : table(KvTable::kDestroying)) {
    Fail("h", fmt::format("{}: shard {} is marked as being destroyed", when, key));
  }
}

}  // namespace

RunResult RunWorld(Tape& tape, const RunOptions& options) {
  auto world = std::make_unique<World>(tape, options);
  RunResult result = world->Run();
  if (!result.ok()) world.release()->Abandon();  // fibers are in the middle of it
  return result;
}

const char* ScenarioName(Scenario scenario) {
  static constexpr const char* kNames[kScenarios] = {"none",    "publish", "local", "destroy", "recover",
                                                     "reindex", "collect", "open",  "close"};
  return kNames[static_cast<size_t>(scenario)];
}

void DeclareFamilies() {
  for (const Row& row : TransitionTable()) {
    if (row.verdict == Verdict::kStep)
      DeclareSometimes(fmt::format("row: {} {} {}", StateName(row.from), OpName(row.op), StateName(row.next)));
  }
  for (size_t op = 0; op < kIoOps; ++op) DeclareSometimes(fmt::format("fs: {} fails", IoOpName(static_cast<IoOp>(op))));
}

}  // namespace dagstore::sim
