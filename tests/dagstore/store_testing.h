// What tests of the whole store share: options, mounts of files, and CARs made from a number.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "dagstore/dagstore.h"
#include "mount/file_mount.h"
#include "tests/made_cars.h"
#include "tests/testing.h"

namespace dagstore {

inline Options StoreOptions(const std::string& dir) {
  Options options;
  options.dir = dir;
  options.mounts = std::make_shared<const MountRegistry>(DefaultMounts(FileMountConfig()));
  options.index_threads = 2;
  options.top_index_buffer_entries_max = 1 << 14;
  return options;
}

inline std::unique_ptr<Mount> MountOfUrl(const DagStore& store, const std::string& url) {
  return ValueOf(store.mounts().Make(ValueOf(Url::Parse(url))));
}

inline std::unique_ptr<Mount> MountOfFile(const DagStore& store, const std::string& path) {
  Url url;
  url.scheme = "file";
  url.has_authority = true;
  url.path = path;
  return ValueOf(store.mounts().Make(url));
}

// Block `i` of the CAR made from `seed`: raw, at most 1 KiB.
inline TestBlock MakeBlock(uint64_t seed, uint64_t i) {
  std::mt19937_64 random(seed * 1'000'003 + i);
  Bytes data(16 + random() % 1000);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  return RawBlock(std::move(data));
}

// A CAR of `blocks` blocks, whose root is the first.
inline Bytes MakeCar(uint64_t seed, uint64_t blocks) {
  std::vector<TestBlock> made;
  for (uint64_t i = 0; i < blocks; ++i) made.push_back(MakeBlock(seed, i));
  return CarOf(made);
}

inline void WriteBytes(const std::string& path, Span bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

// Every block of MakeCar(seed, blocks) is served by shard `key`, byte for byte, and found by its CID.
inline void CheckServes(DagStore& store, const std::string& key, uint64_t seed, uint64_t blocks) {
  CAPTURE(key);
  const Accessor accessor = ValueOf(store.AcquireShardSync(key));
  const auto blockstore = accessor.NewBlockstore();
  Block block;
  for (uint64_t i = 0; i < blocks; ++i) {
    const TestBlock want = MakeBlock(seed, i);
    REQUIRE_STATUS_OK(blockstore->Get(want.cid.view(), block));
    REQUIRE(SameBytes(block.data(), want.data));
    const std::vector<ShardKey> keys = ValueOf(store.ShardsContainingMultihash(want.cid.hash()));
    REQUIRE(std::find(keys.begin(), keys.end(), ShardKey(key)) != keys.end());
  }
}

}  // namespace dagstore
