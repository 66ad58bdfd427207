// The top-level index in the whole store: blocks that every shard holds, destroying shards of any size, lookups.
#include <random>

#include "base/check.h"
#include "tools/bench/bench.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

// Claims `entries` blocks that nobody will read: the time of destroying depends on the index only.
absl::StatusOr<BuiltIndex> FakeIndexer(size_t entries, uint64_t seed, const IndexOutput& output) {
  IndexBuilder builder(output);
  std::mt19937_64 random(seed);
  uint8_t digest[32] = {};
  IndexEntry entry;
  entry.head_size = 38;
  entry.data_size = 100;
  entry.codec = kCodecRaw;
  entry.hash = {kSha2_256, Span(digest, 32)};
  for (size_t i = 0; i < entries; ++i) {
    for (int at = 0; at < 32; at += 8) Store64(digest + at, random());
    entry.offset = 59 + i * 138;
    RETURN_IF_ERROR(builder.Add(entry));
  }
  IndexSummary summary;
  summary.payload_size = summary.source_size = 59 + entries * 138;
  summary.car_version = 1;
  return builder.Finish({}, summary);
}

}  // namespace

void BenchTop(const BenchConfig& config) {
  {
    // The same 100 blocks in every shard.
    const auto store = OpenBenchStore(BenchOptions(config.dir + "/popular"));
    const size_t shards = config.quick ? 500 : 10'000, sample = config.quick ? 50 : 300;
    const Bytes car = SampleCar(5, 100, 200);
    size_t next = 0;
    const auto add = [&](size_t n) {
      return 1e6 / static_cast<double>(n) * Seconds([&] {
               const Channel<ShardResult> out(n);
               for (size_t i = 0; i < n; ++i)
                 DAGSTORE_CHECK_OK(
                     store->RegisterShard(fmt::format("s{}", next++), BytesMountOf(car), out).status());
               for (size_t i = 0; i < n; ++i) DAGSTORE_CHECK_OK(out.Receive().status);
             });
    };
    add(sample);  // warm
    std::vector<double> first, last;
    for (int i = 0; i < config.repeats(); ++i) first.push_back(add(sample));
    while (next < shards) add(std::min<size_t>(1000, shards - next));
    for (int i = 0; i < config.repeats(); ++i) last.push_back(add(sample));
    fmt::print("{:<44} {:>11.4g} {:<12} {:>11.4g}  {:<24} ratio {:>8.3f}  goal <= 1.5\n",
               fmt::format("adding the same 100 blocks to shard {}", shards), Median(last), "us/shard", Median(first),
               "to the first shards", Median(last) / Median(first));
    DAGSTORE_CHECK_OK(store->Close());
  }
  {
    size_t entries = 0;
    uint64_t seed = 1;
    Options options = BenchOptions(config.dir + "/destroy");
    options.indexer = [&](const RandomReader&, const IndexBuildOptions&, const IndexOutput& output,
                          const WorkContext&) { return FakeIndexer(entries, seed++, output); };
    const auto store = OpenBenchStore(options);
    const Bytes car = SampleCar(6, 1, 100);
    const size_t large = config.quick ? 100'000 : 10'000'000;
    int round = 0;
    const auto destroy = [&](size_t n) {
      entries = n;
      const std::string key = fmt::format("d{}", round++);
      DAGSTORE_CHECK_OK(store->RegisterShardSync(key, BytesMountOf(car)));
      return 1e3 * Seconds([&] { DAGSTORE_CHECK_OK(store->DestroyShardSync(key)); });
    };
    BenchConfig fewer = config;
    ComparePair(fewer, {fmt::format("destroy a shard of {} entries", large), "ms", "", "of 100 entries", "<= 2"},
                [&] { return destroy(large); }, [&] { return destroy(100); });
    DAGSTORE_CHECK_OK(store->Close());
  }
  {
    const auto store = OpenBenchStore(BenchOptions(config.dir + "/lookup"));
    const size_t shards = config.quick ? 20 : 1000, blocks = 1000;
    std::vector<Cid> cids;
    for (size_t i = 0; i < shards; ++i) {
      const std::string path = fmt::format("{}/l{}.car", config.dir, i);
      const auto part = WriteSampleCar(path, 100 + i, blocks, 64);
      cids.insert(cids.end(), part.begin(), part.end());
      DAGSTORE_CHECK_OK(store->RegisterShardSync(fmt::format("l{}", i), FileMountOf(*store, path)));
    }
    std::mt19937_64 random(9);
    const size_t lookups = config.quick ? 1000 : 50'000;
    PrintFigure(fmt::format("shards of a CID among {} entries, exact", shards * blocks),
                1e9 / static_cast<double>(lookups) * Seconds([&] {
                  for (size_t i = 0; i < lookups; ++i) {
                    const auto keys = store->ShardsContainingMultihash(cids[random() % cids.size()].hash());
                    DAGSTORE_CHECK(keys.ok() && keys->size() == 1);
                  }
                }),
                "ns");
    const TopIndexStats top = store->Stats()->top;
    PrintFigure("entries in the top-level index", static_cast<double>(top.entries), "entries");
    DAGSTORE_CHECK_OK(store->Close());
  }
}

}  // namespace dagstore
