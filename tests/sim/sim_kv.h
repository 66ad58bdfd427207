// SimKv: a Kv on a simulated disk. Commits are a log; a synced one makes the log durable up to itself. A crash keeps
// the durable part and any part of what follows, from its beginning on, and a commit that was on its way or had failed
// may be there or not. After an error every commit fails until the machine starts again, as Kv says.
//
// Checked against RocksDB by the same operations: tests/sim/sim_kv_test.cc.
//
//   KvDisk   lives through crashes
//   SimKv    one opening of it
// One thread; every call lets other fibers run first.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/kv.h"
#include "tests/sim/scheduler.h"

namespace dagstore::sim {

struct KvFaults {
  uint32_t commit_error = 0;  // per mille
  uint32_t read_error = 0;
  uint32_t stall = 0;
};

class KvDisk {
 public:
  using Table = std::map<std::string, std::string, std::less<>>;
  using Tables = std::array<Table, kKvTables>;

  KvDisk(Tape& tape, Trace& trace, Scheduler& scheduler) : tape_(tape), trace_(trace), scheduler_(scheduler) {}

  // The database is opened; an opening before it is dead or closed.
  std::unique_ptr<Kv> Open();
  // Without it, opening finds all that was committed; a failed commit may be there or not.
  void Crash();
  // The process ends, the system goes on: what was committed survives, what was under way may.
  void Kill();
  // Exactly `batches` of what was not durable survive; for trying every state.
  void CrashKeeping(size_t batches);
  size_t Undurable() const { return log_.size() + in_flight_.size(); }

  KvFaults faults;
  std::function<absl::Status(const char* call)> inject = {};  // as SimFs
  std::function<void(const char* call)> before_call = {};
  std::function<void(const std::string& oracle, const std::string& what)> on_violation = {};

  // What is committed, as readers see it.
  const Tables& tables() const { return tables_; }
  // Behind the store's back, durable.
  void Poke(KvTable table, const std::string& key, std::string value);

 private:
  friend class SimKv;
  struct InFlight {
    uint64_t id = 0;
    KvBatch batch = {};
  };

  absl::Status Enter(uint64_t opening, const char* call, uint32_t fault_rate);
  static void Apply(Tables& tables, const KvBatch& batch);
  void Reset();

  Tape& tape_;
  Trace& trace_;
  Scheduler& scheduler_;
  Tables tables_;
  Tables durable_;
  std::vector<KvBatch> log_;         // committed, not durable
  std::vector<InFlight> in_flight_;  // synced commits under way, and those that failed: who knows
  uint64_t opening_ = 0;
  bool down_ = true;
  bool failed_ = false;
  absl::Status error_;
  uint64_t next_in_flight_ = 1;
  uint64_t syncs_ = 0;
};

}  // namespace dagstore::sim
