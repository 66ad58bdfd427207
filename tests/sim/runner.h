// Runs seeds, each in a process that may die, and makes what fails small.
#pragma once

#include <string>

#include "tests/sim/world.h"

namespace dagstore::sim {

// How a run ended: as RunResult, or with the death of its process.
struct Outcome {
  RunResult result = {};
  TapeWords tape = {};  // what was drawn, if the process lived to tell
};

// In a process of its own. A CHECK that fails is oracle "check", a crash "signal", no end in time "hang".
Outcome RunApart(const TapeWords& tape, const RunOptions& options, bool print);
Outcome RunApart(uint64_t seed, const RunOptions& options, bool print);

struct ShrinkOptions {
  int runs_max = 3000;
  double seconds_max = 60;
};
// A tape that breaks the same rule, with as little in it as could be found.
TapeWords Shrink(TapeWords tape, const std::string& oracle, const RunOptions& options, const ShrinkOptions& limits);

}  // namespace dagstore::sim
