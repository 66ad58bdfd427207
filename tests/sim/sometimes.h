// "Sometimes" points: rare states that the seeds together must reach, or the simulator is blind there. Counted for the
// whole process, one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace dagstore::sim {

struct SometimesPoint {
  explicit SometimesPoint(const char* name);
  uint64_t* count;
};
std::map<std::string, uint64_t>& SometimesCounts();
// Every name that was ever declared, so that those never reached are seen.
void DeclareSometimes(const std::string& name);
void SometimesMade(const std::string& name);

#define Sometimes(name)                                              \
  do {                                                               \
    static const ::dagstore::sim::SometimesPoint sometimes_point_(name); \
    ++*sometimes_point_.count;                                       \
  } while (0)

}  // namespace dagstore::sim
