// Blocks in memory, for tests of walks: from CAR files or put one by one. Counts what is asked of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/hashing.h"
#include "base/multihash.h"
#include "dag/block_getter.h"
#include "dag/dag_pb.h"
#include "shard/car_reader.h"
#include "tests/testing.h"

namespace dagstore {

// As real stores are: keyed by multihash, whatever the codec and version of the CID asked for.
class MemoryBlocks : public BlockGetter {
 public:
  MemoryBlocks() = default;
  // The file's blocks; its bytes stay in memory.
  explicit MemoryBlocks(const std::string& car) { AddCar(car); }

  void AddCar(const std::string& car) {
    const auto source = NewMemoryReader(ReadTestData(car));
    const auto reader = ValueOf(CarReader::Open(*source));
    for (const Cid& root : reader->header().roots) roots.push_back(root);
    CarSection section;
    while (ValueOf(reader->Next(section))) {
      order.emplace_back(section.cid);
      blocks[Multihash(section.cid.hash).binary()] = BlockData(Bytes(section.data.begin(), section.data.end()));
    }
  }

  // Hashes with sha2-256.
  Cid Put(uint64_t codec, Span data) {
    const Cid cid = ValueOf(Cid::Of(codec, kSha2_256, data));
    blocks[Multihash(cid.hash()).binary()] = BlockData(Bytes(data.begin(), data.end()));
    order.push_back(cid);
    return cid;
  }
  void Drop(const Cid& cid) { blocks.erase(Multihash(cid.hash()).binary()); }

  absl::StatusOr<BlockData> Get(const CidView& cid) override {
    REQUIRE_FALSE(cid.IsIdentity());
    ++gets;
    const auto at = blocks.find(Multihash(cid.hash).binary());
    if (at == blocks.end()) return NotFound("not in memory");
    return at->second;
  }
  void Prefetch(std::span<const CidView> next) override {
    for (const CidView& cid : next) hinted.push_back(Cid(cid).ToText());
  }

  std::map<std::string, BlockData> blocks;  // by multihash
  std::vector<Cid> roots;
  std::vector<Cid> order;  // of the sections
  std::vector<std::string> hinted;
  uint64_t gets = 0;
};

inline Cid CidOf(const std::string& text) { return ValueOf(Cid::FromText(text)); }

// A UnixFS Data message with the fields that are given.
struct FsFields {
  uint64_t type = 2;
  std::optional<std::string> data = {};
  std::optional<uint64_t> size = {};
  std::vector<uint64_t> block_sizes = {};
  bool packed = false;
  std::optional<uint64_t> hash_type = {};
  std::optional<uint64_t> fanout = {};
};
Bytes EncodeFs(const FsFields& fields);

struct NamedLink {
  std::string name;
  Cid cid;
  uint64_t tsize = 0;
};
// A dag-pb node of these links and message.
Bytes EncodeNode(const std::vector<NamedLink>& links, const FsFields& fields);

}  // namespace dagstore
