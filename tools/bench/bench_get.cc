// Blocks by CID through the shard index, against a bare pread of the same bytes (and hashing them).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <random>

#include "base/check.h"
#include "base/hashing.h"
#include "dagstore/indexed_blockstore.h"
#include "tools/bench/bench.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

long PageFaults() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// Drops what this process has mapped of files under `dir`. False if there is nothing.
bool DropMappedPages(const std::string& dir) {
  static std::vector<std::pair<void*, size_t>> ranges;
  if (ranges.empty()) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      unsigned long begin = 0, end = 0;
      if (line.find(dir + "/") == std::string::npos || line.find(".idx") == std::string::npos ||
          std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2)
        continue;
      ranges.emplace_back(reinterpret_cast<void*>(begin), end - begin);
    }
  }
  for (const auto& [begin, size] : ranges) {
    // Random: the kernel must not map the pages around a fault as well, or none would ever be counted twice.
    madvise(begin, size, MADV_RANDOM);
    madvise(begin, size, MADV_DONTNEED);
  }
  return !ranges.empty();
}

// A file as a source that cannot be read at random: the store keeps a copy of its own.
class CopiedMount final : public Mount {
 public:
  explicit CopiedMount(std::string path) : path_(std::move(path)) {}
  MountTraits traits() const override { return {}; }
  Url url() const override { return *Url::Parse("copied:x"); }
  absl::StatusOr<MountStat> Stat(Io& io, const WorkContext&) const override {
    ASSIGN_OR_RETURN(const FileStat file, io.Stat(path_, Follow::kAlways));
    MountStat stat;
    stat.exists = stat.ready = stat.size_known = true;
    stat.size = file.size;
    stat.validator = "1";
    return stat;
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                         uint64_t offset) const override {
    ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> file, io.Open(path_, Follow::kAlways));
    return NewReaderStream(std::move(file), {offset, UINT64_MAX}, work);
  }

 private:
  const std::string path_;
};

// Blocks of a copy of our own, looked at where they lie.
void BenchGetView(const BenchConfig& config, const std::string& path, const std::vector<Cid>& wanted,
                  const std::function<void()>& pread_all) {
  MountRegistry mounts;
  DAGSTORE_CHECK_OK(mounts.Register("copied", [&path](const Url&) -> absl::StatusOr<std::unique_ptr<Mount>> {
    return std::make_unique<CopiedMount>(path);
  }));
  Options options = BenchOptions(config.dir + "/repo-view");
  options.verify_reads = VerifyReads::kNever;
  options.mounts = std::make_shared<const MountRegistry>(std::move(mounts));
  const auto store = OpenBenchStore(options);
  DAGSTORE_CHECK_OK(store->RegisterShardSync("shard", std::make_unique<CopiedMount>(path)));
  auto accessor = store->AcquireShardSync("shard");
  DAGSTORE_CHECK_OK(accessor.status());
  const auto blockstore = accessor->NewBlockstore();
  BlockView view;
  const double nanos = 1e9 / static_cast<double>(wanted.size());
  const auto look = [&] {
    return nanos * Seconds([&] {
             for (const Cid& cid : wanted) {
               DAGSTORE_CHECK_OK(blockstore->GetView(cid.view(), view));
               DAGSTORE_CHECK(!view.copied());
             }
           });
  };
  (void)look();  // maps the pages
  ComparePair(config, {"GetView 4 KiB of a local copy, not verified", "ns", "", "bare pread", "<= 0.5"}, look,
              [&] { return nanos * Seconds(pread_all); });
  accessor->Close();
  DAGSTORE_CHECK_OK(store->Close());
}

}  // namespace

void BenchGet(const BenchConfig& config) {
  const size_t total = config.quick ? 32 << 20 : 1 << 30;
  for (const size_t block_bytes : {size_t{4 << 10}, size_t{256 << 10}}) {
    const size_t blocks = total / block_bytes;
    const std::string path = config.dir + "/get.car";
    const std::vector<Cid> cids = WriteSampleCar(path, 7, blocks, block_bytes);
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    DAGSTORE_CHECK(fd >= 0);
    const size_t gets = config.quick ? 1000 : (block_bytes == 4096 ? 100'000 : 5'000);
    std::mt19937_64 random(3);
    std::vector<size_t> picks(gets);
    for (size_t& pick : picks) pick = random() % blocks;
    // A caller has the CID he asks for at hand; hunting for it in memory is not part of a Get.
    std::vector<Cid> wanted;
    for (const size_t pick : picks) wanted.push_back(cids[pick]);
    const uint64_t head = VarintSize(36 + block_bytes) + 36;

    for (const bool verify : {false, true}) {
      Options options = BenchOptions(fmt::format("{}/repo-{}-{}", config.dir, block_bytes, verify));
      options.verify_reads = verify ? VerifyReads::kAlways : VerifyReads::kNever;
      const auto store = OpenBenchStore(options);
      DAGSTORE_CHECK_OK(store->RegisterShardSync("shard", FileMountOf(*store, path)));
      auto accessor = store->AcquireShardSync("shard");
      DAGSTORE_CHECK_OK(accessor.status());
      const auto blockstore = accessor->NewBlockstore();
      Block block;
      Bytes buffer(block_bytes);
      const double nanos = 1e9 / static_cast<double>(gets);
      const std::string size = fmt::format("{} KiB", block_bytes >> 10);
      ComparePair(
          config,
          {fmt::format("Get {}, {}", size, verify ? "verified" : "not verified"), "ns", "",
           verify ? "pread and hash" : "bare pread",
           verify                ? "<= 1.2"
           : block_bytes == 4096 ? "<= 1.35"
                                 : "<= 1.1"},
          [&] {
            return nanos * Seconds([&] {
                     for (const Cid& cid : wanted) DAGSTORE_CHECK_OK(blockstore->Get(cid.view(), block));
                   });
          },
          [&] {
            return nanos * Seconds([&] {
                     for (size_t i = 0; i < gets; ++i) {
                       const uint64_t at = 59 + picks[i] * (head + block_bytes) + head;
                       DAGSTORE_CHECK(pread(fd, buffer.data(), block_bytes, static_cast<off_t>(at)) ==
                                      static_cast<ssize_t>(block_bytes));
                       if (verify) DAGSTORE_CHECK(VerifyBlock(wanted[i].hash(), buffer) == HashCheck::kMatch);
                     }
                   });
          });
      if (verify) {
        const IndexedBlockstore all(*store);
        PrintFigure("Get " + size + " over all shards, verified", nanos * Seconds([&] {
                      for (const Cid& cid : wanted) DAGSTORE_CHECK_OK(all.Get(cid.view(), block));
                    }), "ns");
      }
      if (!verify && block_bytes == 4096) {
        BenchGetView(config, path, wanted, [&] {
          for (const size_t pick : picks) {
            const uint64_t at = 59 + pick * (head + block_bytes) + head;
            DAGSTORE_CHECK(pread(fd, buffer.data(), block_bytes, static_cast<off_t>(at)) ==
                           static_cast<ssize_t>(block_bytes));
          }
        });
        // Cold: the index is opened again and its pages are dropped from this process, not from the page cache.
        double faults = 0;
        const size_t looks = config.quick ? 50 : 1000;
        const ShardIndex& index = accessor->index();
        for (size_t i = 0; i < looks; ++i) {
          DAGSTORE_CHECK(DropMappedPages(options.dir));
          const long before = PageFaults();
          DAGSTORE_CHECK(*index.Contains(wanted[i].hash()));
          faults += static_cast<double>(PageFaults() - before);
        }
        PrintFigure("page faults of a cold lookup in the shard index", faults / static_cast<double>(looks), "faults",
                    "<= 2");
      }
      accessor->Close();
      DAGSTORE_CHECK_OK(store->Close());
    }
    close(fd);
    unlink(path.c_str());
  }
}

}  // namespace dagstore
