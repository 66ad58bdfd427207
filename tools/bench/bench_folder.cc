// The work of tools/bench/go on the same folder of CARs, with the same names of figures.
#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/io.h"
#include "index/index_builder.h"
#include "tools/bench/bench.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWindow = 64;  // registrations under way

void WriteCars(const std::string& folder, bool quick) {
  fs::create_directories(folder);
  const size_t small = quick ? 20 : 500, blocks = quick ? 1 << 12 : 1 << 17;
  for (size_t i = 0; i < small; ++i) WriteSampleCar(fmt::format("{}/small-{:04}.car", folder, i), 100 + i, 100, 4096);
  WriteSampleCar(folder + "/large-4k.car", 1, blocks, 4096);
  WriteSampleCar(folder + "/large-256k.car", 2, blocks / 64, 256 << 10);
}

}  // namespace

void BenchFolder(const BenchConfig& config) {
  const std::string folder = config.cars.empty() ? config.dir + "/cars" : config.cars;
  if (!fs::exists(folder) || fs::is_empty(folder)) WriteCars(folder, config.quick);
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".car") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  DAGSTORE_CHECK_MSG(!files.empty(), "no *.car in " + folder);
  const double seconds = config.quick ? 0.2 : 3;

  uint64_t blocks = 0, bytes = 0;
  for (const bool verify : {false, true}) {
    blocks = bytes = 0;
    IndexBuildOptions options;
    options.verify = verify;
    options.car.zero_length_as_end = true;
    const double took = Seconds([&] {
      for (const std::string& path : files) {
        auto file = Io::Posix().Open(path);
        DAGSTORE_CHECK_OK(file.status());
        const auto built = BuildIndex(**file, options, {}, {});
        DAGSTORE_CHECK_OK(built.status());
        blocks += built->summary.entries;
        bytes += (*file)->Size();
      }
    });
    if (!verify) PrintFigure("files", static_cast<double>(files.size()), "CARs");
    if (!verify) PrintFigure("blocks", static_cast<double>(blocks), "blocks");
    const std::string name = verify ? "index, verified" : "index, not verified";
    PrintFigure(name, static_cast<double>(blocks) / took / 1e6, "M blocks/s");
    PrintFigure(name, static_cast<double>(bytes) / took / 1e9, "GB/s");
  }

  const Options options = BenchOptions(config.dir + "/repo");
  auto store = OpenBenchStore(options);
  const auto key_of = [](const std::string& path) { return ShardKey(fs::path(path).filename().string()); };
  const Channel<ShardResult> out(kWindow);
  const double took = Seconds([&] {
    size_t sent = 0, done = 0;
    for (; done < files.size(); ++done) {
      for (; sent < files.size() && sent - done < kWindow; ++sent)
        DAGSTORE_CHECK_OK(store->RegisterShard(key_of(files[sent]), FileMountOf(*store, files[sent]), out).status());
      DAGSTORE_CHECK_OK(out.Receive().status);
    }
  });
  PrintFigure("register eager, durable, verified", static_cast<double>(files.size()) / took, "shards/s");
  PrintFigure("register eager, durable, verified", static_cast<double>(blocks) / took, "blocks/s");

  const ShardKey first = key_of(files.front());
  for (const int callers : {1, 2}) {
    std::vector<std::thread> threads;
    std::vector<std::vector<double>> micros(static_cast<size_t>(callers));
    const double ran = Seconds([&] {
      for (std::vector<double>& own : micros) {
        threads.emplace_back([&store, &first, &own, seconds] {
          for (double used = 0; used < seconds; used += own.back() / 1e6)
            own.push_back(1e6 * Seconds([&] { DAGSTORE_CHECK_OK(store->AcquireShardSync(first).status()); }));
        });
      }
      for (std::thread& thread : threads) thread.join();
    });
    std::vector<double> all;
    for (const std::vector<double>& own : micros) all.insert(all.end(), own.begin(), own.end());
    const std::string name = fmt::format("acquire+release, {} callers", callers);
    PrintFigure(name, static_cast<double>(all.size()) / ran, "cycles/s");
    PrintFigure(name + ", p50", Percentile(all, 0.5), "us");
    PrintFigure(name + ", p99", Percentile(all, 0.99), "us");
  }

  // CIDs, at most a million, those of the first file in front.
  std::vector<Cid> cids;
  size_t mine = 0;
  for (const std::string& path : files) {
    const auto index = store->GetIterableIndex(key_of(path));
    DAGSTORE_CHECK_OK(index.status());
    DAGSTORE_CHECK_OK((*index)->ForEach([&](const IndexEntry& entry) {
      cids.push_back(Cid::V1(entry.codec, entry.hash));
      return cids.size() < 1'000'000;
    }));
    if (mine == 0) mine = cids.size();
  }
  std::mt19937_64 random(1);
  for (const bool verify : {false, true}) {
    DAGSTORE_CHECK_OK(store->Close());
    store.reset();  // gives the folder free
    Options reading = options;
    reading.verify_reads = verify ? VerifyReads::kAlways : VerifyReads::kNever;
    store = OpenBenchStore(reading);
    const auto accessor = store->AcquireShardSync(first);
    DAGSTORE_CHECK_OK(accessor.status());
    const auto blockstore = accessor->NewBlockstore();
    Block block;
    size_t gets = 0;
    double ran = 0;
    for (; ran < seconds; gets += 64) {
      ran += Seconds([&] {
        for (int i = 0; i < 64; ++i) DAGSTORE_CHECK_OK(blockstore->Get(cids[random() % mine].view(), block));
      });
    }
    PrintFigure(verify ? "Get by CID from an open shard, verified" : "Get by CID from an open shard, not verified",
                1e9 * ran / static_cast<double>(gets), "ns");
  }
  size_t lookups = 0;
  double ran = 0;
  for (; ran < seconds; lookups += 64) {
    ran += Seconds([&] {
      for (int i = 0; i < 64; ++i) {
        const auto keys = store->ShardsContainingMultihash(cids[random() % cids.size()].hash());
        DAGSTORE_CHECK(keys.ok() && !keys->empty());
      }
    });
  }
  PrintFigure("shards of a multihash", 1e9 * ran / static_cast<double>(lookups), "ns");
  DAGSTORE_CHECK_OK(store->Close());
  store.reset();
  PrintFigure("open again", Seconds([&] { store = OpenBenchStore(options); }), "s");
  DAGSTORE_CHECK_OK(store->Close());
}

}  // namespace dagstore
