#include "base/mutant.h"

#include <set>

#include "tests/testing.h"

namespace dagstore {
namespace {

struct Row {
  const char* name;
  int number;
  int row;
  std::string_view where;
  std::string_view what;
};
constexpr Row kMutants[] = {
#define ROW(name, number, row, where, what) {#name, number, row, where, what},
    DAGSTORE_MUTANTS(ROW)
#undef ROW
};
struct Reason {
  int row;
  std::string_view why;
};
constexpr Reason kImpossible[] = {
#define ROW(row, why) {row, why},
    DAGSTORE_IMPOSSIBLE_MUTANTS(ROW)
#undef ROW
};

constexpr int kRows = 51;  // defects of the original that were verified

#ifndef DAGSTORE_MUTANT
// Goal: what is built without being asked for mutants has none. A constant is dropped with the code behind it.
#define ASLEEP(name, number, row, where, what) static_assert(!Mutant(kMutant##name));
DAGSTORE_MUTANTS(ASLEEP)
#undef ASLEEP
#endif

TEST_CASE("mutants: each has a number of its own, and a place where tests look") {
  std::set<int> numbers;
  for (const Row& mutant : kMutants) {
    CAPTURE(mutant.name);
    CHECK(numbers.insert(mutant.number).second);
    CHECK(mutant.number > 0);
    CHECK(mutant.row <= kRows);
    CHECK_FALSE(mutant.where.empty());
    CHECK_FALSE(mutant.what.empty());
  }
}

TEST_CASE("mutants: every defect of the original is one, or there is a reason why it cannot be; fifty are our own") {
  std::set<int> rows;
  int own = 0;
  for (const Row& mutant : kMutants) {
    own += mutant.row == 0;
    rows.insert(mutant.row);
  }
  for (const Reason& reason : kImpossible) {
    CAPTURE(reason.row);
    CHECK(rows.insert(reason.row).second);
    CHECK_FALSE(reason.why.empty());
  }
  for (int row = 1; row <= kRows; ++row) {
    CAPTURE(row);
    CHECK(rows.contains(row));
  }
  CHECK(std::size(kMutants) - static_cast<size_t>(kRows - static_cast<int>(std::size(kImpossible))) >= 50);
  CHECK(own >= 25);
}

}  // namespace
}  // namespace dagstore
