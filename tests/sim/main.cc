// dagstore_sim: plays seeds of the simulated world. See docs/testing.md#simulation
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "base/check.h"
#include "base/status.h"
#include "tests/sim/runner.h"
#include "tests/sim/sometimes.h"

namespace dagstore::sim {
namespace {

struct Arguments {
  uint64_t first = 1;
  uint64_t count = 1000;
  double seconds = 0;  // 0: no limit
  uint64_t twice = 64;  // one seed of so many is played twice; 0: none
  bool one = false;    // print it
  bool shrink = true;
  bool points = false;  // list the "sometimes" points; fail if one was never reached
  bool hash = false;
  std::string tape = {};
  std::string save = {};
  RunOptions run = {};
};

// What the worker tells even if it dies.
struct Shared {
  uint64_t seed;
  uint64_t done;
  uint64_t steps;
  uint64_t hash;
  uint64_t simulated_ms;
  uint64_t twice;
};

int Usage() {
  std::fputs(
      "usage: dagstore_sim [--seeds FIRST:COUNT] [--seconds N] [--profile small|wide] [--twice N] [--points]\n"
      "                    [--no-shrink] [--save FILE]\n"
      "       dagstore_sim --seed N [--profile P]        plays one and prints what happens\n"
      "       dagstore_sim --tape FILE [--profile P]     the same for a saved tape\n"
      "Exit status: 0 no rule was broken, 1 one was, 2 usage.\n",
      stderr);
  return 2;
}

[[noreturn]] void Work(const Arguments& args, Shared& shared) {
  // A store takes a few MiB and gives them back, a thousand times a second: the system is not to be asked each time.
  (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
  (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < args.count; ++i) {
    const uint64_t seed = args.first + i;
    shared.seed = seed;
    alarm(60);
    Tape tape(seed);
    const RunResult result = RunWorld(tape, args.run);
    if (!result.ok()) {
      std::printf("seed %llu breaks rule (%s): %s\n", static_cast<unsigned long long>(seed), result.oracle.c_str(),
                  result.what.c_str());
      std::fflush(stdout);
      _exit(1);
    }
    if (args.twice != 0 && seed % args.twice == 0) {
      Tape again(seed);
      const RunResult other = RunWorld(again, args.run);
      if (other.hash != result.hash) {
        std::printf("seed %llu breaks rule (same): two runs of it differ, %016llx and %016llx\n",
                    static_cast<unsigned long long>(seed), static_cast<unsigned long long>(result.hash),
                    static_cast<unsigned long long>(other.hash));
        std::fflush(stdout);
        _exit(1);
      }
      ++shared.twice;
    }
    ++shared.done;
    shared.steps += result.steps;
    shared.simulated_ms += static_cast<uint64_t>(result.simulated_nanos / 1'000'000);
    shared.hash = (shared.hash ^ result.hash) * 0x9fb21c651e98df25;
    if (args.seconds > 0 &&
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > args.seconds)
      break;
  }
  alarm(0);
  if (args.points) {
    uint64_t missed = 0;
    for (const auto& [name, count] : SometimesCounts()) {
      std::printf("%12llu  %s\n", static_cast<unsigned long long>(count), name.c_str());
      missed += count == 0 ? 1 : 0;
    }
    std::printf("%zu points, %llu never reached\n", SometimesCounts().size(), static_cast<unsigned long long>(missed));
  }
  std::fflush(stdout);
  std::exit(0);  // leaks are looked for here
}

const char* ProfileName(Profile profile) { return profile == Profile::kWide ? "wide" : "small"; }

int Report(const Arguments& args, uint64_t seed) {
  const Outcome outcome = RunApart(seed, args.run, /*print=*/false);
  std::printf("replay: dagstore_sim --seed %llu --profile %s\n", static_cast<unsigned long long>(seed),
              ProfileName(args.run.profile));
  if (outcome.result.ok()) {
    std::printf("(alone, the seed does not break a rule)\n");
    return 1;
  }
  if (!args.shrink || Tape(seed).words().empty()) return 1;
  if (outcome.result.oracle == "check" || outcome.result.oracle == "signal" || outcome.result.oracle == "hang") {
    (void)RunApart(seed, args.run, /*print=*/true);  // the tape died with it; its last words say what it was
    return 1;
  }
  std::printf("shrinking ...\n");
  std::fflush(stdout);
  const TapeWords small = Shrink(outcome.tape, outcome.result.oracle, args.run, ShrinkOptions());
  (void)RunApart(small, args.run, /*print=*/true);
  const std::string text = EncodeTape(small);
  if (!args.save.empty()) {
    std::ofstream(args.save) << "# profile " << ProfileName(args.run.profile) << "\n# breaks (" << outcome.result.oracle
                             << ")\n" << text;
    std::printf("replay: dagstore_sim --tape %s --profile %s\n", args.save.c_str(), ProfileName(args.run.profile));
  } else {
    std::printf("tape (save it, and play it with --tape FILE):\n%s", text.c_str());
  }
  return 1;
}

int Main(int argc, char** argv) {
  Arguments args;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    const auto number = [&](const char* text) { return std::strtoull(text, nullptr, 10); };
    if (arg == "--no-shrink") {
      args.shrink = false;
    } else if (arg == "--points") {
      args.points = true;
    } else if (arg == "--hash") {
      args.hash = true;
    } else if (value == nullptr) {
      return Usage();
    } else {
      ++i;
      if (arg == "--seeds") {
        const char* colon = std::strchr(value, ':');
        if (colon == nullptr) return Usage();
        args.first = number(value);
        args.count = number(colon + 1);
      } else if (arg == "--seed") {
        args.first = number(value);
        args.one = true;
      } else if (arg == "--seconds") {
        args.seconds = std::strtod(value, nullptr);
      } else if (arg == "--twice") {
        args.twice = number(value);
      } else if (arg == "--tape") {
        args.tape = value;
      } else if (arg == "--save") {
        args.save = value;
      } else if (arg == "--profile" && std::strcmp(value, "small") == 0) {
        args.run.profile = Profile::kSmall;
      } else if (arg == "--profile" && std::strcmp(value, "wide") == 0) {
        args.run.profile = Profile::kWide;
      } else {
        return Usage();
      }
    }
  }
  if (!args.tape.empty() || args.one) {
    Outcome outcome;
    if (args.tape.empty()) {
      outcome = RunApart(args.first, args.run, /*print=*/true);
    } else {
      std::ifstream file(args.tape);
      const absl::StatusOr<TapeWords> words = DecodeTape(std::string(std::istreambuf_iterator<char>(file), {}));
      if (!file.good() && words.ok() && *words == TapeWords()) {
        std::fprintf(stderr, "no tape in %s\n", args.tape.c_str());
        return 2;
      }
      if (!words.ok()) {
        std::fprintf(stderr, "%s: %s\n", args.tape.c_str(), ToString(words.status()).c_str());
        return 2;
      }
      outcome = RunApart(*words, args.run, /*print=*/true);
    }
    if (outcome.result.ok()) {
      std::printf("no rule broken; %llu steps, hash %016llx\n", static_cast<unsigned long long>(outcome.result.steps),
                  static_cast<unsigned long long>(outcome.result.hash));
      return 0;
    }
    std::printf("breaks rule (%s): %s\n", outcome.result.oracle.c_str(), outcome.result.what.c_str());
    return 1;
  }

  auto* shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  DAGSTORE_CHECK(shared != MAP_FAILED);
  const auto begin = std::chrono::steady_clock::now();
  std::fflush(stdout);
  const pid_t worker = fork();
  DAGSTORE_CHECK(worker >= 0);
  if (worker == 0) {
    DeclareFamilies();
    Work(args, *shared);
  }
  int status = 0;
  DAGSTORE_CHECK(waitpid(worker, &status, 0) == worker);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%llu seeds of the %s profile, %llu of them twice, %.1f s, %.0f seeds/s, %.0f steps a seed, %.0f times "
              "real time, hash %016llx\n",
              static_cast<unsigned long long>(shared->done), ProfileName(args.run.profile),
              static_cast<unsigned long long>(shared->twice), seconds, static_cast<double>(shared->done) / seconds,
              static_cast<double>(shared->steps) / static_cast<double>(std::max<uint64_t>(1, shared->done)),
              static_cast<double>(shared->simulated_ms) / 1000 / seconds,
                  static_cast<unsigned long long>(shared->hash));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
    std::printf("seed %llu ends its process (status %d)\n", static_cast<unsigned long long>(shared->seed), status);
  }
  std::fflush(stdout);
  return Report(args, shared->seed);
}

}  // namespace
}  // namespace dagstore::sim

int main(int argc, char** argv) { return dagstore::sim::Main(argc, argv); }
