// How fast a CAR is walked and indexed, against the least that any walker must do over the same file.
#include <fcntl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hashing.h"
#include "base/io.h"
#include "index/index_builder.h"
#include "shard/car_reader.h"
#include "tools/bench/bench.h"
#include "tools/bench/reference.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

// The least a walker does who sees each CID: one small read per section (or one window for many), the length, the four
// numbers of a CIDv1, the next offset. No checks but those that keep it inside the window.
size_t RawHops(int fd, uint64_t size, uint64_t first, size_t block_bytes) {
  const size_t window_bytes = block_bytes < 4096 ? 64 << 10 : 64;
  Bytes window(window_bytes);
  uint64_t offset = first, window_at = 0;
  size_t held = 0, sections = 0;
  while (offset < size) {
    if (offset < window_at || offset + 16 > window_at + held) {
      window_at = offset;
      held = static_cast<size_t>(pread(fd, window.data(), window.size(), static_cast<off_t>(offset)));
    }
    Span rest = Span(window).subspan(offset - window_at, held - (offset - window_at));
    Varint length, part;
    DAGSTORE_CHECK(DecodeVarint(rest, length) == VarintError::kNone);
    rest = rest.subspan(length.size);
    for (int i = 0; i < 4; ++i) {
      DAGSTORE_CHECK(DecodeVarint(rest, part) == VarintError::kNone);
      rest = rest.subspan(part.size);
    }
    offset += length.size + length.value;
    ++sections;
  }
  return sections;
}

size_t SkipScan(const RandomReader& file) {
  auto reader = CarReader::Open(file);
  DAGSTORE_CHECK_OK(reader.status());
  CarSection section;
  size_t sections = 0;
  for (;;) {
    const auto more = (*reader)->NextHead(section);
    DAGSTORE_CHECK_OK(more.status());
    if (!*more) return sections;
    ++sections;
  }
}

// The same bytes through the best hash kernel, blocks already in memory.
double HashOnly(const std::vector<Cid>& cids, const Bytes& car, uint64_t first, size_t block_bytes) {
  std::vector<HashJob> jobs;
  jobs.reserve(1024);
  return Seconds([&] {
    uint64_t offset = first;
    for (size_t i = 0; i < cids.size(); ++i) {
      const uint64_t head = VarintSize(36 + block_bytes) + 36;
      jobs.push_back({cids[i].hash(), Span(car).subspan(offset + head, block_bytes), HashCheck::kMismatch});
      offset += head + block_bytes;
      if (jobs.size() == 1024 || i + 1 == cids.size()) {
        VerifyBlocks(jobs);
        for (const HashJob& job : jobs) DAGSTORE_CHECK(job.result == HashCheck::kMatch);
        jobs.clear();
      }
    }
  });
}

// The bytes in one stream of OpenSSL's sha2-256, seconds.
double OneStream(const Bytes& car) {
  return Seconds([&] {
    auto hasher = NewHasher(kSha2_256);
    DAGSTORE_CHECK_OK(hasher.status());
    for (size_t at = 0; at < car.size(); at += 1 << 20)
      (*hasher)->Update(Span(car).subspan(at, std::min<size_t>(1 << 20, car.size() - at)));
    DAGSTORE_CHECK((*hasher)->Finish().size() == 32);
  });
}

}  // namespace

void BenchScan(const BenchConfig& config) {
  const size_t total = config.quick ? 32 << 20 : 512 << 20;
  for (const size_t block_bytes : {size_t{200}, size_t{4 << 10}, size_t{256 << 10}, size_t{1 << 20}}) {
    const size_t blocks = (block_bytes == 200 ? total / 8 : total) / block_bytes;
    const std::string path = config.dir + "/scan.car";
    const std::vector<Cid> cids = WriteSampleCar(path, 1, blocks, block_bytes);
    auto file = Io::Posix().Open(path);
    DAGSTORE_CHECK_OK(file.status());
    const uint64_t size = (*file)->Size();
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    DAGSTORE_CHECK(fd >= 0);
    const uint64_t first = 59;  // one root
    const std::string label =
        block_bytes >= 1024 ? fmt::format("{} KiB blocks", block_bytes >> 10) : fmt::format("{} B blocks", block_bytes);

    const double millions = static_cast<double>(blocks) / 1e6;
    ComparePair(
        config, {"skip-scan, " + label, "M blocks/s", "", "raw header hops", ">= 0.70"},
        [&] { return millions / Seconds([&] { DAGSTORE_CHECK(SkipScan(**file) == blocks); }); },
        [&] { return millions / Seconds([&] { DAGSTORE_CHECK(RawHops(fd, size, first, block_bytes) == blocks); }); });

    if (block_bytes == 4 << 10 || block_bytes == 256 << 10) {
      ComparePair(config,
                  {"  the same", "M blocks/s", "", "byte by byte, as the original",
                   block_bytes == 4 << 10 ? ">= 40" : ">= 12"},
                  [&] { return millions / Seconds([&] { DAGSTORE_CHECK(SkipScan(**file) == blocks); }); },
                  [&] {
                    return millions / Seconds([&] {
                             DAGSTORE_CHECK(Reference::ScanBytewise(path, nullptr, nullptr) == blocks);
                           });
                  });
    }

    Bytes car(size);
    DAGSTORE_CHECK_OK((*file)->Read(0, car.size(), car.data()));
    const double gigabytes = static_cast<double>(blocks * block_bytes) / 1e9;
    ComparePair(config, {"verified index from a file, " + label, "GB/s", "", "hashing alone, in memory", ">= 0.85"},
                [&] {
                  return gigabytes / Seconds([&] {
                           const auto built = BuildIndex(**file, {}, {}, {});
                           DAGSTORE_CHECK_OK(built.status());
                           DAGSTORE_CHECK(built->summary.entries == blocks && built->summary.verified);
                         });
                },
                [&] { return gigabytes / HashOnly(cids, car, first, block_bytes); });
    IndexBuildOptions one_thread;
    one_thread.second_thread = false;
    const auto single = [&] {
      return gigabytes / Seconds([&] { DAGSTORE_CHECK_OK(BuildIndex(**file, one_thread, {}, {}).status()); });
    };
    ComparePair(config, {"  with one thread", "GB/s", "", "OpenSSL alone, one stream", ">= 1.7"}, single,
                [&] { return gigabytes / OneStream(car); });
    if (block_bytes == 4 << 10) {
      ComparePair(config, {"  with one thread", "GB/s", "", "the original's shape, not verified", ">= 3"}, single, [&] {
        std::string index;
        std::vector<std::string> hashes;
        return gigabytes / Seconds([&] { Reference::ScanBytewise(path, &index, &hashes); });
      });
    }
    close(fd);
    unlink(path.c_str());
  }
}

}  // namespace dagstore
