// Writes the seeds that are not text: make_seeds FOLDER (tests/fuzz/seeds). Run it again when a format changes.
#include <filesystem>
#include <fstream>
#include <string>

#include "base/check.h"
#include "base/hashing.h"
#include "index/car_index.h"
#include "index/manifests.h"
#include "index/top_run.h"
#include "shard/car_writer.h"
#include "mount/extent_map.h"
#include "shard/record.h"

namespace dagstore {
namespace {

void Write(const std::filesystem::path& folder, const std::string& target, const std::string& name, Span bytes) {
  std::filesystem::create_directories(folder / target);
  std::ofstream file(folder / target / name, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  DAGSTORE_CHECK(file.good());
}

Cid CidOf(std::string_view data, uint64_t codec = kCodecRaw, uint64_t hash = kSha2_256) {
  auto cid = Cid::Of(codec, hash, AsSpan(data));
  DAGSTORE_CHECK_OK(cid.status());
  return *cid;
}

class MemoryFile final : public WritableFile {
 public:
  absl::Status Append(Span data) override {
    AppendBytes(bytes, data);
    return absl::OkStatus();
  }
  absl::Status WriteAt(uint64_t offset, Span data) override {
    bytes.resize(std::max<size_t>(bytes.size(), offset + data.size()));
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return absl::OkStatus();
  }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }

  Bytes bytes;
};

Bytes SmallCar() {
  Bytes car;
  auto writer = CarWriter::Start(
      [&car](Span bytes) {
        AppendBytes(car, bytes);
        return absl::OkStatus();
      },
      {CidOf("a"), CidOf("an identity", kCodecRaw, kIdentity)});
  DAGSTORE_CHECK_OK(writer.status());
  for (const char* data : {"a", "b", "c", "a"}) DAGSTORE_CHECK_OK(writer->Put(CidOf(data).bytes(), AsSpan(data)));
  DAGSTORE_CHECK_OK(writer->Put(CidOf("d", kCodecDagCbor, kBlake3).bytes(), AsSpan("d")));
  DAGSTORE_CHECK_OK(writer->Put(CidOf("e", kCodecRaw, kIdentity).bytes(), AsSpan("e")));
  return car;
}

void WriteIndexes(const std::filesystem::path& folder) {
  const Bytes car = SmallCar();
  Write(folder, "car", "small.car", car);
  const auto source = NewMemoryReader(Span(car));
  const auto built = BuildIndex(*source, {}, {}, {});
  DAGSTORE_CHECK_OK(built.status());
  Write(folder, "native_index", "small.idx", built->heap);
  const auto index = OpenNativeIndex(built->heap);
  DAGSTORE_CHECK_OK(index.status());
  for (const uint64_t codec : {kCodecCarIndexSorted, kCodecCarMultihashIndexSorted}) {
    const auto exported = EncodeCarIndex(**index, codec, Identities::kInclude);
    DAGSTORE_CHECK_OK(exported.status());
    Bytes seed = *exported;
    Write(folder, "car_index", fmt::format("small-{:04x}.idx", codec), seed);
    Bytes v2 = EncodeCarV2Header({.data_size = car.size(), .index_offset = 51 + car.size(), .fully_indexed = true});
    AppendBytes(v2, car);
    AppendBytes(v2, seed);
    Write(folder, "car", fmt::format("small-v2-{:04x}.car", codec), v2);
    Write(folder, "native_index", fmt::format("small-v2-{:04x}.car", codec), v2);
  }
}

void WriteRuns(const std::filesystem::path& folder) {
  for (const bool single : {false, true}) {
    MemoryFile file;
    TopRunWriter writer(file, 7, 40, single);
    for (uint64_t i = 0; i < 40; ++i)
      DAGSTORE_CHECK_OK(writer.Append((i / 2) << (kRunKeyBits - 6), static_cast<Ordinal>(single ? 3 : 3 + i % 2)));
    DAGSTORE_CHECK_OK(writer.Finish().status());
    Write(folder, "top_run", single ? "one-ordinal.run" : "two-ordinals.run", file.bytes);
  }
  MemoryFile file;
  TopRunWriter writer(file, 8, 100, false, {}, /*filter=*/true);
  for (uint64_t key = 0; key < 8; ++key) {
    const Ordinal ordinals = key % 3 == 0 ? 100 : 2;  // more than 64 are a list
    for (Ordinal i = 1; i <= ordinals; ++i)
      DAGSTORE_CHECK_OK(writer.Append(key << (kRunKeyBits - 3), i * (i % 7 == 0 ? 300 : 150)));
  }
  DAGSTORE_CHECK_OK(writer.Finish().status());
  Write(folder, "top_run", "lists-and-filter.run", file.bytes);
}

void WriteRecords(const std::filesystem::path& folder) {
  ExtentMap map(10'000'000);
  Write(folder, "extent_map", "none.bin", AsSpan(map.Encode()));
  map.sources = {{1, "\"v1\""}, {2, "\"w\""}};
  for (const uint64_t granule : {0, 1, 2, 60, 152}) map.Set(granule, static_cast<uint32_t>(granule) * 7);
  Write(folder, "extent_map", "some.bin", AsSpan(map.Encode()));

  ShardRecord record;
  record.url = "file:///a.car";
  Write(folder, "record", "new.bin", AsSpan(EncodeRecord(record)));
  record.state = ShardState::kAvailable;
  record.ordinal = 5;
  record.index_bytes = 400;
  record.blocks = 1'000'000;
  record.validator = "\"etag\"";
  record.registered_unix_ms = 1'700'000'000'000;
  record.copy = TransientRecord{"name", 77, true};
  Write(folder, "record", "available.bin", AsSpan(EncodeRecord(record)));
  record.state = ShardState::kErrored;
  record.error_code = 14;
  record.error = "unavailable";
  record.copy.reset();
  Write(folder, "record", "errored.bin", AsSpan(EncodeRecord(record)));
}

void WriteCids(const std::filesystem::path& folder) {
  const Cid v0 = CidOf("a", kCodecDagPb);
  Write(folder, "cid", "v0.bin", Cid::V0(v0.hash().digest).bytes());
  Write(folder, "cid", "v1.bin", v0.bytes());
  Write(folder, "cid", "identity.bin", CidOf("abc", kCodecRaw, kIdentity).bytes());
  Write(folder, "cid", "blake3.bin", CidOf("abc", kCodecDagCbor, kBlake3).bytes());
  Bytes roots = {36, 0};
  AppendBytes(roots, v0.bytes());
  roots.insert(roots.end(), {36, 1});
  AppendBytes(roots, v0.bytes());
  roots.insert(roots.end(), {5, 0, 1, 2, 3, 4, 5});
  Write(folder, "roots", "three.bin", roots);
  for (const uint64_t code : {kSha2_256, kSha2_512, kBlake3, kBlake2b256, kSha3_256, kKeccak256, kIdentity, kSha1}) {
    const auto digest = Digest(code, AsSpan("data"));
    DAGSTORE_CHECK_OK(digest.status());
    Bytes bytes;
    AppendMultihash(bytes, {code, *digest});
    AppendBytes(bytes, AsSpan("data"));
    Write(folder, "multihash", HashName(code) + ".bin", bytes);
  }
}

void WriteManifest(const std::filesystem::path& folder) {
  const auto kv = NewMemoryKv();
  KvBatch batch;
  const std::vector<Cid> cids = {CidOf("a"), CidOf("b"), CidOf("c")};
  DAGSTORE_CHECK_OK(Manifests(*kv).Add(batch, {"s", "r", 1}, cids, absl::FromUnixSeconds(1)));
  Bytes seed;
  for (const KvBatch::Change& change : batch.changes()) {
    if (change.kind != KvBatch::Kind::kPut) continue;
    const bool chunk = change.key[2] == 'c';
    const std::string rest = chunk ? change.key.substr(13) : std::string();
    const size_t value_size = change.value.size() - 4;
    seed.insert(seed.end(), {static_cast<uint8_t>(rest.size()), static_cast<uint8_t>(chunk ? 2 : 1),
                             static_cast<uint8_t>(value_size), static_cast<uint8_t>(value_size >> 8)});
    AppendBytes(seed, AsSpan(rest));
    AppendBytes(seed, AsSpan(change.value).first(value_size));
  }
  Write(folder, "manifests", "three.bin", seed);
}

}  // namespace
}  // namespace dagstore

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  dagstore::WriteIndexes(argv[1]);
  dagstore::WriteRuns(argv[1]);
  dagstore::WriteRecords(argv[1]);
  dagstore::WriteCids(argv[1]);
  dagstore::WriteManifest(argv[1]);
  return 0;
}
