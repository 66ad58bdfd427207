// The CAR files of the simulated world, made once a process: small, from one pool of blocks, so that shards share some.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/cid.h"

namespace dagstore::sim {

struct WorldBlock {
  Cid cid = {};
  Bytes data = {};
};
struct WorldCar {
  Bytes bytes = {};
  std::vector<size_t> blocks = {};  // in the pool
  bool sound = true;                // false: no index can be built of it
};

const std::vector<WorldBlock>& BlockPool();
// Sound ones first.
const std::vector<WorldCar>& Cars();
inline constexpr size_t kSoundCars = 12;
// The place in the pool; pool size if it is none of ours.
size_t BlockOf(const MultihashView& hash);

}  // namespace dagstore::sim
