#include "tests/sim/sometimes.h"

namespace dagstore::sim {

std::map<std::string, uint64_t>& SometimesCounts() {
  static std::map<std::string, uint64_t> counts;
  return counts;
}

SometimesPoint::SometimesPoint(const char* name) : count(&SometimesCounts()[name]) {}

void DeclareSometimes(const std::string& name) { (void)SometimesCounts()[name]; }
void SometimesMade(const std::string& name) { ++SometimesCounts()[name]; }

}  // namespace dagstore::sim
