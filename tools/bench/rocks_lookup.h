// The peer of the top-level index: the best that RocksDB was measured to do with the same entries. Keys are the same
// 64-bit fingerprints, values the same 4-byte ordinals; sorted files are ingested, then compacted; bloom filters of 10
// bits, hash index in data blocks, no compression, everything in the block cache.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace dagstore {

class RocksLookup {
 public:
  explicit RocksLookup(const std::string& dir);
  ~RocksLookup();

  // Ascending by key, no repeats.
  void Ingest(const std::vector<std::pair<uint64_t, uint32_t>>& sorted);
  void Compact();
  // 0 if it is not there.
  uint32_t Get(uint64_t fingerprint) const;
  uint64_t Bytes() const;

 private:
  struct Db;
  std::unique_ptr<Db> db_;
};

}  // namespace dagstore
