// Benchmarks: each prints our figure, the peer or limit measured beside it in the same run, and their ratio.
// `dagstore bench [NAME...] [--quick | --large] [--dir D] [--cars D]`; docs/performance.md says what each means and
// what we hold.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace dagstore {

struct BenchConfig {
  std::string dir = {};   // scratch space, emptied afterwards
  std::string cars = {};  // of BenchFolder; samples are written there if it is empty
  bool quick = false;     // a tenth of the sizes, 3 repeats: to see that it works
  bool large = false;     // the sizes that the goals name where the usual ones are smaller; minutes more
  bool once = false;      // no repeats
  int repeats() const { return once ? 1 : quick ? 3 : 7; }
};

// The benchmarks, one a line: name and what it measures.
std::string BenchList();
// `argv` without the program and the word "bench". Returns an exit code.
int RunBench(const std::vector<std::string>& arguments);

// Seconds that `work` takes.
double Seconds(const std::function<void()>& work);
double Median(std::vector<double> values);
double Percentile(std::vector<double> values, double fraction);

// Runs A B A B ... and prints both medians and the ratio of the medians.
// `value` of a run is what it returns (a rate or a time).
struct Pair {
  std::string name = {};      // "skip-scan 4 KiB blocks"
  std::string unit = {};      // "M blocks/s"
  std::string ours = {};      // "CarReader::NextHead"
  std::string theirs = {};    // "raw header hops"
  std::string goal = {};      // ">= 0.70"
};
double ComparePair(const BenchConfig& config, const Pair& pair, const std::function<double()>& ours,
                   const std::function<double()>& theirs);
// A figure of its own, without a peer.
void PrintFigure(const std::string& name, double value, const std::string& unit, const std::string& goal = {});

void BenchScan(const BenchConfig& config);      // skip-scan and verified indexing of a CAR
void BenchAcquire(const BenchConfig& config);   // acquire and release through the loop
void BenchRegister(const BenchConfig& config);  // durable registration
void BenchGet(const BenchConfig& config);       // blocks by CID
void BenchRestart(const BenchConfig& config);   // a million shards: open, memory
void BenchTop(const BenchConfig& config);       // popular blocks, destroy of large and small shards, lookups
void BenchFolder(const BenchConfig& config);    // a folder of CARs, as tools/bench/go does it
void BenchLookup(const BenchConfig& config);    // the top-level index against RocksDB
void BenchRemote(const BenchConfig& config);    // remote sources, against nginx: first block, whole copies, quota
void BenchTrace(const BenchConfig& config);     // spans, and how soon a stop reaches a fetch

}  // namespace dagstore
