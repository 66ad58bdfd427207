#include "tests/sim/cars.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/splitmix.h"
#include "shard/car_writer.h"

namespace dagstore::sim {
namespace {

constexpr size_t kPoolBlocks = 24;

Bytes MakeCar(const std::vector<size_t>& blocks, bool v2) {
  Bytes payload;
  const auto sink = [&payload](Span bytes) {
    AppendBytes(payload, bytes);
    return absl::OkStatus();
  };
  absl::StatusOr<CarWriter> writer = CarWriter::Start(sink, {BlockPool()[blocks.front()].cid});
  DAGSTORE_CHECK_OK(writer.status());
  for (const size_t block : blocks) {
    DAGSTORE_CHECK_OK(writer->Put(BlockPool()[block].cid.view().bytes, BlockPool()[block].data));
  }
  if (!v2) return payload;
  CarV2Layout layout;
  layout.data_size = payload.size();
  Bytes out = EncodeCarV2Header(layout);
  AppendBytes(out, payload);
  return out;
}

}  // namespace

const std::vector<WorldBlock>& BlockPool() {
  static const std::vector<WorldBlock> pool = [] {
    std::vector<WorldBlock> blocks;
    for (size_t i = 0; i < kPoolBlocks; ++i) {
      Bytes data(i == 0 ? 0 : 1 + MixBits(i) % (i % 6 == 0 ? 600 : 60));
      for (size_t b = 0; b < data.size(); ++b) data[b] = static_cast<uint8_t>(MixBits(i * 1000 + b));
      absl::StatusOr<Cid> cid = Cid::Of(kCodecRaw, kSha2_256, data);
      DAGSTORE_CHECK_OK(cid.status());
      blocks.push_back({*std::move(cid), std::move(data)});
    }
    return blocks;
  }();
  return pool;
}

const std::vector<WorldCar>& Cars() {
  static const std::vector<WorldCar> cars = [] {
    std::vector<WorldCar> out;
    for (size_t i = 0; i < kSoundCars; ++i) {
      WorldCar car;
      const size_t count = i % 5 == 4 ? 9 : 1 + i % 4;
      for (size_t b = 0; b < count; ++b) car.blocks.push_back(MixBits(i * 100 + b) % kPoolBlocks);
      if (i == 3) car.blocks.push_back(car.blocks.front());  // a duplicate
      car.bytes = MakeCar(car.blocks, /*v2=*/i % 3 == 2);
      out.push_back(std::move(car));
    }
    WorldCar noise;
    noise.bytes = Bytes(90, 0xff);
    noise.sound = false;
    out.push_back(noise);
    WorldCar cut = out[1];
    cut.bytes.resize(cut.bytes.size() - 3);
    cut.sound = false;
    out.push_back(cut);
    WorldCar wrong = out[5];  // one block is not what its CID says
    wrong.bytes.back() ^= 1;
    wrong.sound = false;
    out.push_back(wrong);
    return out;
  }();
  return cars;
}

size_t BlockOf(const MultihashView& hash) {
  static const std::map<std::string, size_t> by_digest = [] {
    std::map<std::string, size_t> map;
    for (size_t i = 0; i < BlockPool().size(); ++i) map[std::string(AsText(BlockPool()[i].cid.hash().digest))] = i;
    return map;
  }();
  const auto found = by_digest.find(std::string(AsText(hash.digest)));
  return found == by_digest.end() ? BlockPool().size() : found->second;
}

}  // namespace dagstore::sim
