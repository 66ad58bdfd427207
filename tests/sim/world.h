// World: one simulated run. A whole DagStore with all its threads as fibers, on a simulated disk, database, clock and
// sources; clients that use its public interface; crashes and restarts; and an oracle that knows what must hold.
//
// What the oracle looks at, by the letters of the list in docs/testing.md:
//   (a) steps of shards are rows of the transition table      (g) no byte served that fails its CID
//   (b) references = accessors that clients hold              (h) nothing is removed that is in use or not ours
//   (c) one job of a kind and shard that nobody has stopped   (i) each request answered exactly once
//   (d) what was acknowledged is there, what is destroyed     (j) limits hold; nothing is left open
//       stays away                                            (k) the loop does no I/O and waits for no lock
//   (e) Available means data and index are there and right    (l) no secret in what the store says
//   (f) lookups are exact once all is quiet
// Then liveness: with all faults gone, everything is answered, repaired, closed, and found again.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/sim/tape.h"

namespace dagstore::sim {

enum class Profile : uint8_t {
  kSmall,  // a few shards, a few operations: many seeds a second
  kWide,   // more of everything
};

struct RunOptions {
  Profile profile = Profile::kSmall;
  std::function<void(std::string)> listener = {};  // lines for people
};

struct RunResult {
  std::string oracle = {};  // which rule was broken; empty: none
  std::string what = {};
  uint64_t hash = 0;        // of all that happened
  uint64_t steps = 0;
  int64_t simulated_nanos = 0;
  bool ok() const { return oracle.empty(); }
};

// After a violation the fibers are left where they are: their memory is lost, so a process should not go on for long.
RunResult RunWorld(Tape& tape, const RunOptions& options);

// Declares the "sometimes" points that come in families (every row of the transition table ...).
void DeclareFamilies();

}  // namespace dagstore::sim
