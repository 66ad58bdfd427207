// Mutants: defects of the list in base/mutant_list.h, put into the code on purpose, to see whether the tests find them.
// In every build that anybody uses there are none: Mutant() is a constant false, and the compiler drops the code behind
// it.
//
//   cmake -DDAGSTORE_MUTANT=25        a build with the defect of that number
//   cmake -DDAGSTORE_MUTANT=runtime   a build with all of them asleep; the environment's DAGSTORE_MUTANT=<number> wakes
//                                     one when the process starts (tools/mutants.sh)
#pragma once

#include <cstdint>

#include "base/mutant_list.h"

namespace dagstore {

enum MutantId : uint16_t {
#define DAGSTORE_MUTANT_ID(name, number, row, where, what) kMutant##name = number,
  DAGSTORE_MUTANTS(DAGSTORE_MUTANT_ID)
#undef DAGSTORE_MUTANT_ID
};

#if !defined(DAGSTORE_MUTANT)
constexpr bool Mutant(MutantId) { return false; }
#elif DAGSTORE_MUTANT == 0
extern const int mutant_awake;  // read once, before main
inline bool Mutant(MutantId id) { return id == mutant_awake; }
#else
constexpr bool Mutant(MutantId id) { return id == DAGSTORE_MUTANT; }
#endif

}  // namespace dagstore
