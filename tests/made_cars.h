// CARs that tests make themselves, of raw blocks.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "shard/car_writer.h"

namespace dagstore {

struct TestBlock {
  Cid cid;
  Bytes data = {};
};

inline TestBlock RawBlock(Bytes data) {
  absl::StatusOr<Cid> cid = Cid::Of(kCodecRaw, kSha2_256, data);
  DAGSTORE_CHECK_OK(cid.status());
  return {*std::move(cid), std::move(data)};
}

// `count` blocks, up to 256, of `bytes` bytes each: far apart in anything that counts in granules.
inline std::vector<TestBlock> LargeBlocks(uint64_t count, size_t bytes) {
  std::vector<TestBlock> blocks;
  for (uint64_t i = 0; i < count; ++i) blocks.push_back(RawBlock(Bytes(bytes, static_cast<uint8_t>(i))));
  return blocks;
}

// Its root is the first block.
inline Bytes CarOf(std::span<const TestBlock> blocks) {
  Bytes out;
  absl::StatusOr<CarWriter> writer = CarWriter::Start(
      [&out](Span bytes) {
        AppendBytes(out, bytes);
        return absl::OkStatus();
      },
      {blocks.front().cid});
  DAGSTORE_CHECK_OK(writer.status());
  for (const TestBlock& block : blocks) DAGSTORE_CHECK_OK(writer->Put(block.cid.view().bytes, block.data));
  return out;
}

}  // namespace dagstore
