// Simulated sources: what shards are made of, behind mounts of scheme "sim". They truncate, reset, stall, change and
// lie, as the world says. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mount/registry.h"
#include "tests/sim/cars.h"
#include "tests/sim/scheduler.h"

namespace dagstore::sim {

// In every URL; must never be seen in what the store says.
inline constexpr std::string_view kSecret = "c4n4ry-s3cr3t";

// In thousandths of the calls.
struct SourceFaults {
  uint32_t error = 0;     // Unavailable, once
  uint32_t stall = 0;
  uint32_t truncate = 0;  // a body that ends early
};

struct Source {
  std::string name = {};
  bool local = false;       // random access, no copies
  bool ranged = false;      // not local, but serves ranges
  bool size_known = true;
  bool has_validator = true;
  size_t car = 0;           // which one it has now
  uint64_t version = 1;     // of its bytes, as its validator says
  std::vector<size_t> cars = {};  // every one it ever had

  // What is wrong with it now.
  bool absent = false;
  bool not_ready = false;
  bool truncated = false;
  bool lying = false;       // other bytes, the same validator
  bool unreachable = false;

  bool tainted = false;     // something was wrong with it once, or it has changed
  int streams = 0;          // open, of jobs that were not told to stop
  const Bytes& bytes() const { return Cars()[car].bytes; }
};

class Sources {
 public:
  Sources(Tape& tape, Trace& trace, Scheduler& scheduler) : tape_(tape), trace_(trace), scheduler_(scheduler) {}

  std::vector<Source> all;
  SourceFaults faults;
  std::function<void(const std::string& oracle, const std::string& what)> on_violation = {};
  std::function<absl::Status()> inject = {};  // as SimFs

  Url UrlOf(size_t source) const;
  MountFactory Factory();
  // OK, or what strikes this call.
  absl::Status Enter(Source& source, const char* call, bool can_fail = true);
  // The byte there, with whatever is wrong with the source.
  size_t Read(const Source& source, uint64_t offset, size_t size, uint8_t* out) const;
  uint64_t SizeOf(const Source& source) const;

 private:
  friend class SimStream;
  Tape& tape_;
  Trace& trace_;
  Scheduler& scheduler_;
};

}  // namespace dagstore::sim
