// World: one simulated run. A whole DagStore with all its threads as fibers, on a simulated disk, database, clock and
// sources; clients that use its public interface; crashes and restarts; and an oracle that knows what must hold.
//
// What the oracle looks at; docs/testing.md#mutants names these letters:
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

// What one client does to a store that already has a few shards, alone and always the same way: for trying every
// failure and every crash of it.
enum class Scenario : uint8_t {
  kNone,      // seeds
  kPublish,   // registers a remote shard: copy, index, runs, record
  kLocal,     // registers a local shard, lazily, and acquires it
  kDestroy,   // destroys a shard with a copy
  kRecover,   // recovers an Errored shard whose source is sound again
  kReindex,   // an index is found damaged and built again
  kCollect,   // gives up a local copy, and acquires the shard again
  kOpen,      // opens the repository
  kClose,     // closes it
};
inline constexpr size_t kScenarios = 9;
const char* ScenarioName(Scenario scenario);

enum class Injected : uint8_t { kNone, kInputOutput, kNoSpace, kNoDescriptor };

struct RunOptions {
  Profile profile = Profile::kSmall;
  Scenario scenario = Scenario::kNone;
  // Of a scenario: the n-th call of disk, database or source (1 is the first) fails so.
  uint64_t fail_call = 0;
  Injected failure = Injected::kNone;
  // Or the power goes before it, and of all that a real machine may then find, this one is found.
  uint64_t crash_call = 0;
  uint64_t crash_state = 0;
  std::function<void(std::string)> listener = {};  // lines for people
};

struct RunResult {
  std::string oracle = {};  // which rule was broken; empty: none
  std::string what = {};
  uint64_t hash = 0;        // of all that happened
  uint64_t steps = 0;
  int64_t simulated_nanos = 0;
  uint64_t calls = 0;         // of a scenario
  uint64_t crash_states = 0;  // that a crash at `crash_call` may leave
  bool ok() const { return oracle.empty(); }
};

// After a violation the fibers are left where they are: their memory is lost, so a process should not go on for long.
RunResult RunWorld(Tape& tape, const RunOptions& options);

// Declares the "sometimes" points that come in families (every row of the transition table ...).
void DeclareFamilies();

}  // namespace dagstore::sim
