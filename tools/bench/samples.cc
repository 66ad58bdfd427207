#include "tools/bench/samples.h"

#include <cstdio>
#include <random>

#include "base/check.h"
#include "base/hashing.h"
#include "mount/bytes_mount.h"
#include "mount/file_mount.h"
#include "shard/car_writer.h"

namespace dagstore {
namespace {

void EmitSampleCar(uint64_t seed, size_t blocks, size_t block_bytes, const ByteSink& sink, std::vector<Cid>* cids) {
  std::mt19937_64 random(seed);
  Bytes block(block_bytes);
  std::vector<Cid> roots;
  std::unique_ptr<CarWriter> writer;
  for (size_t i = 0; i < blocks; ++i) {
    // Distinct blocks; all but the first 64 bytes are cheap to make.
    for (size_t at = 0; at + 8 <= std::min<size_t>(block_bytes, 64); at += 8) Store64(block.data() + at, random());
    if (block_bytes > 64) block[64 + i % (block_bytes - 64)] ^= 0x5a;
    uint8_t digest[32];
    Sha256(block, digest);
    const Cid cid = Cid::V1(kCodecRaw, {kSha2_256, Span(digest, 32)});
    if (writer == nullptr) {
      auto started = CarWriter::Start(sink, {cid});
      DAGSTORE_CHECK_OK(started.status());
      writer = std::make_unique<CarWriter>(*std::move(started));
    }
    DAGSTORE_CHECK_OK(writer->Put(cid.bytes(), block));
    if (cids != nullptr) cids->push_back(cid);
  }
}

}  // namespace

Bytes SampleBytes(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  Bytes out(size);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t word = random();
    std::memcpy(out.data() + at, &word, std::min<size_t>(8, size - at));
  }
  return out;
}

Bytes SampleCar(uint64_t seed, size_t blocks, size_t block_bytes) {
  Bytes out;
  EmitSampleCar(seed, blocks, block_bytes, [&](Span part) {
    AppendBytes(out, part);
    return absl::OkStatus();
  }, nullptr);
  return out;
}

std::vector<Cid> WriteSampleCar(const std::string& path, uint64_t seed, size_t blocks, size_t block_bytes) {
  std::vector<Cid> cids;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  DAGSTORE_CHECK_MSG(file != nullptr, path);
  EmitSampleCar(seed, blocks, block_bytes, [&](Span part) {
    DAGSTORE_CHECK(std::fwrite(part.data(), 1, part.size(), file) == part.size());
    return absl::OkStatus();
  }, &cids);
  DAGSTORE_CHECK(std::fclose(file) == 0);
  return cids;
}

Options BenchOptions(const std::string& dir) {
  Options options;
  options.dir = dir;
  options.mounts = std::make_shared<const MountRegistry>(DefaultMounts(FileMountConfig()));
  return options;
}

std::unique_ptr<DagStore> OpenBenchStore(const Options& options) {
  auto store = DagStore::Open(options);
  DAGSTORE_CHECK_OK(store.status());
  return *std::move(store);
}

std::unique_ptr<Mount> FileMountOf(const DagStore& store, const std::string& path) {
  Url url;
  url.scheme = "file";
  url.has_authority = true;
  url.path = path;
  auto mount = store.mounts().Make(url);
  DAGSTORE_CHECK_OK(mount.status());
  return *std::move(mount);
}

std::unique_ptr<Mount> BytesMountOf(const Bytes& bytes) {
  auto mount = NewBytesMount(bytes);
  DAGSTORE_CHECK_OK(mount.status());
  return *std::move(mount);
}

}  // namespace dagstore
