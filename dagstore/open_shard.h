// OpenShard: the data and the index of one shard, open for reading. Immutable; shared by every accessor of the shard,
// and kept for a while after the last.
//
// Threads: any.
#pragma once

#include <memory>
#include <string>

#include "base/reader.h"
#include "dagstore/options.h"
#include "index/shard_index.h"
#include "shard/record.h"
#include "shard/key.h"

namespace dagstore {

struct OpenShard {
  ShardKey key = {};
  uint32_t ordinal = 0;                             // of the index: names this version of the shard
  std::unique_ptr<const RandomReader> source = {};  // the whole CAR file
  std::shared_ptr<const ShardIndex> index = {};
  CarOptions car = {};
  bool verify = true;  // hash every block before handing it out
  ShardRecord record = {};  // as it was when the shard was opened
};

}  // namespace dagstore
