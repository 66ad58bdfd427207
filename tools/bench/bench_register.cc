// Durable registration with many callers, against the shape of the original: every event stored and synced by itself.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "tools/bench/bench.h"
#include "tools/bench/reference.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

// Registers `shards` shards with up to `window` under way; returns shards per second.
template <typename MakeMount>
double RegisterMany(DagStore& store, const std::string& prefix, size_t shards, size_t window, bool lazy,
                    MakeMount make) {
  const Channel<ShardResult> out(window);
  RegisterOptions options;
  options.lazy = lazy;
  size_t sent = 0, done = 0;
  const double took = Seconds([&] {
    while (done < shards) {
      while (sent < shards && sent - done < window) {
        DAGSTORE_CHECK_OK(store.RegisterShard(fmt::format("{}-{}", prefix, sent), make(sent), out, options).status());
        ++sent;
      }
      DAGSTORE_CHECK_OK(out.Receive().status);
      ++done;
    }
  });
  return static_cast<double>(shards) / took;
}

}  // namespace

void BenchRegister(const BenchConfig& config) {
  constexpr size_t kBlocks = 100, kBlockBytes = 256;
  const size_t lazy_shards = config.quick ? 2000 : 100'000, indexed_shards = config.quick ? 500 : 10'000;
  const size_t reference_shards = config.quick ? 50 : 300;
  const auto store = OpenBenchStore(BenchOptions(config.dir + "/repo"));
  Reference reference(config.dir + "/reference");
  int round = 0, reference_round = 0;

  const auto lazy_mount = [&](size_t i) { return FileMountOf(*store, fmt::format("/data/{}.car", i)); };
  ComparePair(config, {"lazy registration, durable, 1024 under way", "shards/s", "", "a sync per event", ">= 25"},
              [&] { return RegisterMany(*store, fmt::format("lazy{}", round++), lazy_shards, 1024, true, lazy_mount); },
              [&] {
                const int r = reference_round++;
                return static_cast<double>(reference_shards) / Seconds([&] {
                         for (size_t i = 0; i < reference_shards; ++i)
                           reference.RegisterLazy(fmt::format("lazy{}-{}", r, i));
                       });
              });

  const uint64_t syncs = store->Stats()->syncs, changes = store->Stats()->engine.changes_committed;
  RegisterMany(*store, "gate", config.quick ? 500 : 20'000, 64, true, lazy_mount);
  const double per_change = static_cast<double>(store->Stats()->syncs - syncs) /
                            static_cast<double>(store->Stats()->engine.changes_committed - changes);
  PrintFigure("syncs per acknowledged change, 64 under way", per_change, "syncs", "<= 0.03125");

  // Distinct CARs: the same shapes, other bytes.
  std::vector<Bytes> cars;
  for (size_t i = 0; i < indexed_shards; ++i) cars.push_back(SampleCar(1000 + i, kBlocks, kBlockBytes));
  std::vector<std::string> paths;
  for (size_t i = 0; i < indexed_shards; ++i) {
    paths.push_back(fmt::format("{}/{}.car", config.dir, i));
    std::ofstream(paths.back(), std::ios::binary)
        .write(reinterpret_cast<const char*>(cars[i].data()), static_cast<std::streamsize>(cars[i].size()));
  }
  ComparePair(config, {"registration with 100 blocks indexed, verified", "shards/s", "", "a sync per event", ">= 20"},
              [&] {
                return RegisterMany(*store, fmt::format("indexed{}", round++), indexed_shards, 1024, false,
                                    [&](size_t i) { return FileMountOf(*store, paths[i]); });
              },
              [&] {
                const int r = reference_round++;
                return static_cast<double>(reference_shards) / Seconds([&] {
                         for (size_t i = 0; i < reference_shards; ++i) {
                           reference.RegisterIndexed(fmt::format("indexed{}-{}", r, i), paths[i % paths.size()]);
                         }
                       });
              });
  const size_t blocks = config.quick ? 1 << 13 : 1 << 18;
  const std::string large = config.dir + "/large.car";
  WriteSampleCar(large, 5, blocks, 4096);
  BenchConfig few = config;
  few.once = config.quick;
  ComparePair(few, {fmt::format("registration of {} Ki blocks of 4 KiB, verified", blocks >> 10), "M blocks/s", "",
                    "the original's shape, not verified", ">= 15"},
              [&] {
                return static_cast<double>(blocks) / 1e6 / Seconds([&] {
                         DAGSTORE_CHECK_OK(store->RegisterShardSync(fmt::format("large{}", round++),
                                                                    FileMountOf(*store, large)));
                       });
              },
              [&] {
                return static_cast<double>(blocks) / 1e6 /
                       Seconds([&] { reference.RegisterIndexed(fmt::format("large{}", reference_round++), large); });
              });
  unlink(large.c_str());
  DAGSTORE_CHECK_OK(store->Close());
}

}  // namespace dagstore
