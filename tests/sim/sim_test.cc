// The simulator's own promises, and what is tried in full rather than at random: every failure and every crash of what
// one client does.
#include <filesystem>
#include <map>
#include <random>

#include "base/io.h"
#include "base/kv.h"
#include "tests/sim/runner.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_fs.h"
#include "tests/sim/sim_kv.h"
#include "tests/testing.h"

namespace dagstore::sim {
namespace {

#if defined(DAGSTORE_SIM_SLOW)
constexpr bool kSlow = true;  // under a sanitizer
#else
constexpr bool kSlow = false;
#endif

constexpr Scenario kAllScenarios[] = {Scenario::kPublish, Scenario::kLocal,   Scenario::kDestroy, Scenario::kRecover,
                                      Scenario::kReindex, Scenario::kCollect, Scenario::kOpen,    Scenario::kClose};

RunResult Play(const RunOptions& options) {
  Tape tape((TapeWords()));
  return RunWorld(tape, options);
}

std::string Explain(const RunOptions& options, const RunResult& result) {
  return fmt::format("{}: call {} fails as {}, crash at {} state {}: breaks ({}) {}", ScenarioName(options.scenario),
                     options.fail_call, static_cast<int>(options.failure), options.crash_call, options.crash_state,
                     result.oracle, result.what);
}

TEST_CASE("tape: zeros come after its end, and it survives being written") {
  Tape drawn(7);
  std::vector<uint32_t> first;
  for (int i = 0; i < 20; ++i) first.push_back(drawn.Draw(Stream::kWork, 1000));
  (void)drawn.Draw(Stream::kFault, 3);
  const TapeWords words = ValueOf(DecodeTape("# a comment\n" + EncodeTape(drawn.words())));
  CHECK(words == drawn.words());
  Tape played(words);
  for (const uint32_t word : first) CHECK_EQ(played.Draw(Stream::kWork, 1000), word);
  CHECK_EQ(played.Draw(Stream::kWork, 1000), 0);
  CHECK_CODE(DecodeTape("nonsense 1 2"), kInvalidArgument);
  CHECK_CODE(DecodeTape("work 1 x"), kInvalidArgument);
}

// Goal: the model of the database does what RocksDB does. Method: the same operations on both, and all they hold
// compared after each opening.
TEST_CASE("sim kv: the same operations leave the same in RocksDB") {
  for (uint64_t seed = 1; seed <= (kSlow ? 2 : 12); ++seed) {
    CAPTURE(seed);
    Tape tape(seed);
    Trace trace;
    Scheduler scheduler(tape, trace);
    KvDisk disk(tape, trace, scheduler);
    const TempDir dir;
    std::mt19937_64 random(seed);
    const auto below = [&](uint64_t n) { return random() % n; };
    const auto key = [&] {
      std::string text(1 + below(3), 'a');
      for (char& c : text) c = static_cast<char>("\0a\xff"[below(3)]);
      return text;
    };
    for (int life = 0; life < 4; ++life) {
      const std::unique_ptr<Kv> model = disk.Open();
      const std::unique_ptr<Kv> real = ValueOf(OpenRocksKv(dir.File("db"), RocksKvOptions()));
      for (int step = 0; step < 40; ++step) {
        const auto table = static_cast<KvTable>(below(kKvTables));
        if (below(3) != 0) {
          KvBatch batch;
          for (uint64_t i = below(5); i != 0; --i) {
            const uint64_t what = below(6);
            if (what < 4) batch.Put(table, key(), std::string(below(40), 'v'));
            if (what == 4) batch.Delete(table, key());
            if (what == 5) batch.DeletePrefix(table, key());
          }
          const bool sync = below(2) == 0;
          CHECK_STATUS_OK(model->Commit(batch, sync));
          CHECK_STATUS_OK(real->Commit(batch, sync));
        } else if (below(2) == 0) {
          const std::string wanted = key();
          CHECK(ValueOf(model->Get(table, wanted)) == ValueOf(real->Get(table, wanted)));
        } else {
          const std::string from = below(2) == 0 ? "" : key(), prefix = below(2) == 0 ? "" : key();
          const auto a = model->Scan(table, from, prefix), b = real->Scan(table, from, prefix);
          for (; a->Valid() && b->Valid(); a->Next(), b->Next()) {
            CHECK_EQ(ToHex(AsSpan(a->key())), ToHex(AsSpan(b->key())));
            CHECK_EQ(a->value(), b->value());
          }
          CHECK_EQ(a->Valid(), b->Valid());
        }
      }
    }
  }
}

// Goal: what a crash leaves was legal: the durable batches, and a beginning of the rest.
TEST_CASE("sim kv: a crash keeps all that was synced, and a beginning of the rest") {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    Tape tape(seed);
    Trace trace;
    Scheduler scheduler(tape, trace);
    KvDisk disk(tape, trace, scheduler);
    std::unique_ptr<Kv> kv = disk.Open();
    const int synced = static_cast<int>(seed % 7), all = 10;
    for (int i = 0; i < all; ++i) {
      KvBatch batch;
      batch.Put(KvTable::kMeta, fmt::format("{}", i), "x");
      REQUIRE_STATUS_OK(kv->Commit(batch, /*sync=*/i + 1 == synced));
    }
    disk.Crash();
    CHECK_CODE(kv->Get(KvTable::kMeta, "0"), kUnavailable);
    kv = disk.Open();
    int kept = 0;
    while (kept < all && ValueOf(kv->Get(KvTable::kMeta, fmt::format("{}", kept))).has_value()) ++kept;
    CHECK(kept >= synced);
    for (int i = kept; i < all; ++i) CHECK_FALSE(ValueOf(kv->Get(KvTable::kMeta, fmt::format("{}", i))).has_value());
  }
}

// Goal: names and pages are durable apart, each by its own sync.
TEST_CASE("sim fs: a crash takes what was not synced, names and pages apart") {
  Tape tape((TapeWords()));
  Trace trace;
  Scheduler scheduler(tape, trace);
  SimFs fs(tape, trace, scheduler);
  const auto write = [](Io& io, const std::string& path, std::string_view text, bool sync) {
    const auto file = ValueOf(io.Create(path));
    REQUIRE_STATUS_OK(file->Append(AsSpan(text)));
    if (sync) REQUIRE_STATUS_OK(file->Sync());
    REQUIRE_STATUS_OK(file->Close());
  };
  std::shared_ptr<Io> io = fs.Boot();
  REQUIRE_STATUS_OK(io->MakeDir("/d"));
  write(*io, "/d/named", "data", /*sync=*/false);
  REQUIRE_STATUS_OK(io->SyncDir("/d"));
  write(*io, "/d/unnamed", "data", /*sync=*/true);
  write(*io, "/d/temp", "whole", /*sync=*/true);
  REQUIRE_STATUS_OK(io->Rename("/d/temp", "/d/final"));
  fs.Crash(Kept::kNothing);
  CHECK_CODE(io->Stat("/d/named"), kUnavailable);  // that machine is gone
  io = fs.Boot();
  CHECK(fs.Files() == std::vector<std::string>{"/d/named"});
  CHECK_EQ(*fs.Content("/d/named"), "");

  write(*io, "/d/temp", "whole", /*sync=*/true);
  REQUIRE_STATUS_OK(io->Rename("/d/temp", "/d/final"));
  REQUIRE_STATUS_OK(io->SyncDir("/d"));
  REQUIRE_STATUS_OK(io->Remove("/d/named"));
  fs.Crash(Kept::kNothing);
  io = fs.Boot();
  CHECK(fs.Files() == std::vector<std::string>{"/d/final", "/d/named"});
  CHECK_EQ(*fs.Content("/d/final"), "whole");
}

TEST_CASE("sim fs: after a sync that failed, what was not synced never reaches the disk") {
  Tape tape((TapeWords()));
  Trace trace;
  Scheduler scheduler(tape, trace);
  SimFs fs(tape, trace, scheduler);
  std::string violation;
  fs.on_violation = [&](const std::string& oracle, const std::string&) { violation = oracle; };
  std::shared_ptr<Io> io = fs.Boot();
  REQUIRE_STATUS_OK(io->MakeDir("/d"));
  const auto file = ValueOf(io->Create("/d/f"));
  REQUIRE_STATUS_OK(io->SyncDir("/d"));
  REQUIRE_STATUS_OK(file->Append(AsSpan("lost")));
  fs.inject = [](IoOp op, const std::string&) { return op == IoOp::kSync ? Unavailable("no") : absl::OkStatus(); };
  CHECK_FALSE(file->Sync().ok());
  fs.inject = nullptr;
  CHECK_EQ(violation, "");
  (void)file->Sync();
  CHECK_EQ(violation, "second sync");
  // The next process may sync: what it has written is kept, what was lost stays lost.
  violation.clear();
  fs.Kill();
  io = fs.Boot();
  {
    const auto again = ValueOf(io->OpenForWriting("/d/f"));
    REQUIRE_STATUS_OK(again->WriteAt(4, AsSpan("kept")));
    REQUIRE_STATUS_OK(again->Sync());
  }
  CHECK_EQ(violation, "");
  fs.Crash(Kept::kNothing);
  io = fs.Boot();
  CHECK_EQ(fs.Content("/d/f")->substr(4), "kept");
  CHECK_NE(fs.Content("/d/f")->substr(0, 4), "lost");
}

// Goal: a run depends on nothing but its seed. Method: each in two processes, and again in one that has run others.
TEST_CASE("sim: the same seed gives the same run, whatever ran before it") {
  const RunOptions options;
  for (uint64_t seed = 1; seed <= (kSlow ? 6 : 40); ++seed) {
    CAPTURE(seed);
    const Outcome one = RunApart(seed, options, /*print=*/false);
    CHECK_EQ(one.result.oracle, "");
    CHECK_EQ(one.result.hash, RunApart(seed, options, /*print=*/false).result.hash);
    CHECK_EQ(one.result.hash, RunApart(one.tape, options, /*print=*/false).result.hash);
    Tape tape(seed);
    CHECK_EQ(RunWorld(tape, options).hash, one.result.hash);
  }
}

// Goal: what was found stays mended. Each file says what it showed, on which commit, and what happened there; on later
// code the same choices may lead elsewhere.
TEST_CASE("sim: the tapes of what was found break no rule any more") {
  size_t tapes = 0;
  for (const auto& file : std::filesystem::directory_iterator(DAGSTORE_SIM_REGRESSIONS)) {
    CAPTURE(file.path().string());
    const Bytes text = ValueOf(ReadSmallFile(Io::Posix(), file.path().string(), 1 << 20));
    RunOptions options;
    options.profile = file.path().filename().string().starts_with("wide-") ? Profile::kWide : Profile::kSmall;
    const Outcome outcome = RunApart(ValueOf(DecodeTape(AsText(text))), options, /*print=*/false);
    CHECK_EQ(outcome.result.oracle, "");
    CHECK_GT(outcome.result.steps, 100);
    ++tapes;
  }
  CHECK_GE(tapes, 19);
}

// Goal: whatever fails, callers get a typed error or a store that says what is wrong; nothing leaks, hangs or dies; and
// afterwards all can be brought to a good end. Method: fail the n-th call of disk, database and source, n = 1, 2, ...
TEST_CASE("torture: each call that can fail, of all a store does, fails in turn") {
  uint64_t runs = 0;
  for (const Scenario scenario : kAllScenarios) {
    RunOptions options;
    options.scenario = scenario;
    const uint64_t calls = Play(options).calls;
    REQUIRE_MESSAGE(calls > 4, ScenarioName(scenario));
    for (const Injected failure : {Injected::kInputOutput, Injected::kNoSpace, Injected::kNoDescriptor}) {
      options.failure = failure;
      for (options.fail_call = 1; options.fail_call <= calls + 30; options.fail_call += kSlow ? 3 : 1) {
        const RunResult result = Play(options);
        ++runs;
        REQUIRE_MESSAGE(result.ok(), Explain(options, result));
      }
    }
  }
  MESSAGE(runs, " failures");
}

// Goal: the power may go at any moment. Method: before each call of disk and database, each state that the disk may
// then
// be found in: every set of names, every write kept, lost or torn, every beginning of the commits.
TEST_CASE("crash states: whatever a power cut leaves of what a store does, it goes on from there") {
  uint64_t states = 0;
  for (const Scenario scenario : kAllScenarios) {
    RunOptions options;
    options.scenario = scenario;
    const uint64_t calls = Play(options).calls;
    for (options.crash_call = 1; options.crash_call <= calls; options.crash_call += kSlow ? 5 : 1) {
      uint64_t here = 1;
      for (options.crash_state = 0; options.crash_state < here; options.crash_state += kSlow ? 7 : 1) {
        const RunResult result = Play(options);
        REQUIRE_MESSAGE(result.ok(), Explain(options, result));
        here = result.crash_states;
        ++states;
      }
    }
  }
  MESSAGE(states, " states");
}

}  // namespace
}  // namespace dagstore::sim
