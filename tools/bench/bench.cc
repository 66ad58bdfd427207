#include "tools/bench/bench.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/sha256_lanes.h"
#include "base/status.h"

namespace dagstore {
namespace {

constexpr const char* kKernelNames[] = {"OpenSSL", "SHA-NI x2", "AVX-512 x16", "AVX-512 x16 with SHA-NI x2"};

struct Named {
  const char* name;
  const char* what;
  void (*run)(const BenchConfig&);
};
constexpr Named kAll[] = {
    {"scan", "skip-scan and verified indexing of a CAR file", BenchScan},
    {"acquire", "acquire and release, through the loop and without it", BenchAcquire},
    {"register", "durable registration, lazy and indexed", BenchRegister},
    {"get", "blocks by CID, with and without verification", BenchGet},
    {"restart", "open with a million shards; memory and disk per shard", BenchRestart},
    {"lookup", "the top-level index: filling, merging, asking, against RocksDB", BenchLookup},
    {"folder", "a folder of CARs, registered and read (see tools/interop_bench.sh)", BenchFolder},
    {"top", "popular blocks, destroy of large and small shards, lookups by multihash", BenchTop},
    {"remote", "remote sources, against nginx and curl: first block, whole copies, many readers, quota", BenchRemote},
    {"trace", "what tracing costs, and how soon a stop reaches a fetch that hangs", BenchTrace},
};

void PrintMachine() {
  utsname name = {};
  uname(&name);
  std::string cpu = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  double load[3] = {};
  (void)getloadavg(load, 3);
  fmt::print("{} cores of {}, {} {}, load average {:.2f}\n", std::thread::hardware_concurrency(), cpu, name.sysname,
             name.release, load[0]);
  if (load[0] > 1.0) fmt::print("note: the machine is busy; only ratios mean anything\n");
}

}  // namespace

double Seconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(fraction * static_cast<double>(values.size())))];
}
double Median(std::vector<double> values) { return Percentile(std::move(values), 0.5); }

double ComparePair(const BenchConfig& config, const Pair& pair, const std::function<double()>& ours,
                   const std::function<double()>& theirs) {
  std::vector<double> a, b;
  for (int i = 0; i < config.repeats(); ++i) {
    a.push_back(ours());
    b.push_back(theirs());
  }
  const double ratio = Median(a) / Median(b);
  fmt::print("{:<44} {:>11.4g} {:<12} {:>11.4g}  {:<24} ratio {:>8.3f}  {}\n", pair.name, Median(a), pair.unit,
             Median(b), pair.theirs, ratio, pair.goal.empty() ? "" : "goal " + pair.goal);
  (void)std::fflush(stdout);
  return ratio;
}

void PrintFigure(const std::string& name, double value, const std::string& unit, const std::string& goal) {
  fmt::print("{:<44} {:>11.4g} {:<12} {}\n", name, value, unit, goal.empty() ? "" : "goal " + goal);
  (void)std::fflush(stdout);
}

std::string BenchList() {
  std::string list;
  for (const Named& bench : kAll) list += fmt::format("  {:<10} {}\n", bench.name, bench.what);
  return list;
}

namespace {

int Run(const std::vector<std::string>& arguments) {
  BenchConfig config;
  std::vector<std::string> names;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--quick") {
      config.quick = true;
    } else if (arguments[i] == "--large") {
      config.large = true;
    } else if (arguments[i] == "--dir" && i + 1 < arguments.size()) {
      config.dir = arguments[++i];
    } else if (arguments[i] == "--cars" && i + 1 < arguments.size()) {
      config.cars = arguments[++i];
    } else if (!arguments[i].starts_with("-")) {
      names.push_back(arguments[i]);
    } else {
      fmt::print(stderr, "usage: dagstore bench [NAME...] [--quick | --large] [--dir FOLDER] [--cars FOLDER]\n\n{}",
                 BenchList());
      return 2;
    }
  }
  for (const std::string& name : names) {
    if (std::none_of(std::begin(kAll), std::end(kAll), [&](const Named& bench) { return name == bench.name; })) {
      fmt::print(stderr, "dagstore bench: no benchmark \"{}\"; see dagstore bench --help\n", name);
      return 2;
    }
  }
  std::string folder =
      (config.dir.empty() ? std::filesystem::temp_directory_path().string() : config.dir) + "/dagstore-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    fmt::print(stderr, "dagstore bench: cannot make a folder in {}\n", folder);
    return 1;
  }
  PrintMachine();
  fmt::print("best sha2-256 kernel here: {}; {} interleaved repeats, medians\n\n",
             kKernelNames[static_cast<size_t>(BestSha256Kernel())], config.repeats());
  for (const Named& bench : kAll) {
    if (!names.empty() && std::find(names.begin(), names.end(), bench.name) == names.end()) continue;
    config.dir = folder + "/" + bench.name;
    std::filesystem::create_directories(config.dir);
    fmt::print("== {}: {}\n", bench.name, bench.what);
    bench.run(config);
    fmt::print("   repeat: dagstore bench {}{}\n\n", bench.name,
               config.quick ? " --quick" : config.large ? " --large" : "");
    std::error_code ignored;
    std::filesystem::remove_all(config.dir, ignored);
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return 0;
}

}  // namespace

int RunBench(const std::vector<std::string>& arguments) {
  // The benchmarks make and remove folders as they go: one that cannot be had ends them all.
  try {
    return Run(arguments);
  } catch (const std::filesystem::filesystem_error& error) {
    fmt::print(stderr, "dagstore bench: {}\n", error.what());
    return 1;
  }
}

}  // namespace dagstore
