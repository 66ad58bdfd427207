// The top-level index alone: filling it, merges included, and asking it, against RocksDB tuned for the same entries and
// against the shape of the Go original. Both sides are given the same fingerprints, are compacted before they are
// asked, and are asked warm; neither confirms an answer in a shard index.
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/check.h"
#include "base/io.h"
#include "base/kv.h"
#include "base/splitmix.h"
#include "index/top_index.h"
#include "tools/bench/bench.h"
#include "tools/bench/reference.h"
#include "tools/bench/rocks_lookup.h"

namespace dagstore {
namespace {

constexpr size_t kShardEntries = 1000;
constexpr size_t kRocksBatch = 1 << 20;  // entries of one ingested file
constexpr size_t kBatch = 1024;          // keys of one batched lookup

// Digest `i` of the set: 32 bytes.
void DigestOf(uint64_t i, uint8_t* out) {
  for (uint64_t k = 0; k < 4; ++k) Store64(out + 8 * k, MixBits(4 * i + k));
}
Fingerprint KeyOf(uint64_t i) {
  static const SipKey secret = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  uint8_t digest[32];
  DigestOf(i, digest);
  return FingerprintOf(secret, {kSha2_256, Span(digest, 32)});
}

struct Packed {
  std::unique_ptr<Kv> kv;
  std::unique_ptr<TopIndex> index;

  explicit Packed(const std::string& dir) : Packed(TopIndexOptions{.dir = dir + "/runs"}, dir) {}
  Packed(const TopIndexOptions& options, const std::string& dir) {
    DAGSTORE_CHECK_OK(Io::Posix().MakeDir(dir));
    auto opened = OpenRocksKv(dir + "/db", {});
    DAGSTORE_CHECK_OK(opened.status());
    kv = *std::move(opened);
    auto top = OpenTopIndex(options, *kv, Io::Posix());
    DAGSTORE_CHECK_OK(top.status());
    index = *std::move(top);
  }
  ~Packed() {
    index.reset();
    kv.reset();
  }
  // Ends with one run for each range of keys, as RocksDB ends with one level, unless it is left as ingest leaves it.
  void Fill(size_t keys, bool compact = true) {
    Ordinal ordinal = 1;
    for (size_t i = 0; i < keys; i += kShardEntries, ++ordinal) {
      std::vector<Fingerprint> fingerprints(std::min(kShardEntries, keys - i));
      for (size_t k = 0; k < fingerprints.size(); ++k) fingerprints[k] = KeyOf(i + k);
      std::sort(fingerprints.begin(), fingerprints.end());
      DAGSTORE_CHECK_OK(index->Add(ordinal, std::move(fingerprints)));
      index->Seal(ordinal);
    }
    if (compact) {
      DAGSTORE_CHECK_OK(index->Compact());
    } else {
      DAGSTORE_CHECK_OK(index->Flush());
      index->AwaitIdle();
    }
  }
  size_t Find(std::span<const Fingerprint> keys) const {
    size_t found = 0;
    DAGSTORE_CHECK_OK(index->Find(keys, [&](size_t, Ordinal) { ++found; }));
    return found;
  }
  double Nanos(const std::vector<Fingerprint>& keys, size_t at_once) const {
    return 1e9 / static_cast<double>(keys.size()) * Seconds([&] {
             for (size_t i = 0; i < keys.size(); i += at_once)
               Find(std::span(keys).subspan(i, std::min(at_once, keys.size() - i)));
           });
  }
};

void FillRocks(RocksLookup& rocks, size_t keys) {
  std::vector<std::pair<uint64_t, uint32_t>> batch;
  for (size_t i = 0; i < keys;) {
    batch.clear();
    for (; i < keys && batch.size() < kRocksBatch; ++i)
      batch.emplace_back(KeyOf(i), static_cast<uint32_t>(i / kShardEntries + 1));
    std::sort(batch.begin(), batch.end());
    rocks.Ingest(batch);
  }
  rocks.Compact();
}

// Drops what this process has mapped of files under `dir`; they stay in the page cache.
void DropMappedPages(const std::string& dir) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    if (line.find(dir + "/") == std::string::npos || std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2) continue;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

uint64_t PageFaults() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_minflt + usage.ru_majflt);
}

uint64_t ReadCalls() {
  std::ifstream io("/proc/self/io");
  for (std::string line; std::getline(io, line);) {
    if (line.starts_with("syscr: ")) return std::stoull(line.substr(7));
  }
  return 0;
}

// What a lookup asks of the disk when nothing of the entries is at hand: faults of mapped pages, and read calls.
void BenchCold(const std::string& dir, const Packed& packed, const std::vector<Fingerprint>& keys, const char* how) {
  packed.Find(keys);  // checks the chunks, once and for all
  DropMappedPages(dir);
  // Few enough that hardly two of them want the same page.
  const size_t count = std::min<size_t>(1000, keys.size());
  const uint64_t faults = PageFaults(), reads = ReadCalls();
  for (size_t i = 0; i < count; ++i) packed.Find(std::span(keys).subspan(i, 1));
  const auto share = [&](uint64_t n) { return static_cast<double>(n) / static_cast<double>(count); };
  const uint64_t faulted = PageFaults() - faults, read = ReadCalls() - reads;
  PrintFigure(fmt::format("  page faults of a cold hit, {}", how), share(faulted), "faults", "<= 2");
  PrintFigure(fmt::format("  reads of a cold hit, {}", how), share(read), "reads", "<= 1");
}

}  // namespace

void BenchLookup(const BenchConfig& config) {
  const size_t keys = config.quick ? 200'000 : config.large ? 50'000'000 : 10'000'000;
  const size_t lookups = config.quick ? 20'000 : 200'000;
  BenchConfig fill = config;
  fill.once = config.large;  // a minute each
  const double millions = static_cast<double>(keys) / 1e6;
  const std::string size = fmt::format("{:g} M entries", millions);

  std::unique_ptr<Packed> packed;
  std::unique_ptr<RocksLookup> rocks;
  double ours = 0;  // M keys/s, the last time
  ComparePair(fill, {"lookup: ingest and merge, " + size, "M keys/s", "", "RocksDB, ingest and compact", ">= 4"},
              [&] {
                packed.reset();
                std::filesystem::remove_all(config.dir + "/packed");
                packed = std::make_unique<Packed>(config.dir + "/packed");
                return ours = millions / Seconds([&] { packed->Fill(keys); });
              },
              [&] {
                rocks.reset();
                std::filesystem::remove_all(config.dir + "/rocks");
                rocks = std::make_unique<RocksLookup>(config.dir + "/rocks");
                return millions / Seconds([&] { FillRocks(*rocks, keys); });
              });
  // The original slows down with more.
  const size_t reference_keys = config.quick ? 20'000 : config.large ? keys : 1'000'000;
  double reference_rate = 0, reference_bytes = 0;
  {
    Reference reference(config.dir + "/reference");
    const double took = Seconds([&] {
      for (size_t i = 0; i < reference_keys; i += kShardEntries) {
        std::vector<std::string> hashes;
        for (size_t k = 0; k < kShardEntries; ++k) {
          uint8_t digest[32];
          DigestOf(i + k, digest);
          hashes.emplace_back(reinterpret_cast<const char*>(digest), 32);
        }
        reference.AddInverted(fmt::format("shard-{:07}", i / kShardEntries), hashes, /*sync=*/false);
      }
    });
    reference_rate = static_cast<double>(reference_keys) / 1e6 / took;
    reference_bytes = reference.BytesPerInvertedEntry(reference_keys);
  }
  const TopIndexStats stats = packed->index->Stats();
  const double bytes = static_cast<double>(stats.bytes) / static_cast<double>(stats.entries);
  const double rocks_bytes = static_cast<double>(rocks->Bytes()) / static_cast<double>(keys);
  PrintFigure(fmt::format("  the Go shape, {} keys", reference_keys), reference_rate, "M keys/s");
  PrintFigure("  of its rate", ours / reference_rate, "times", ">= 50");
  PrintFigure("  bytes an entry on disk", bytes, "bytes", "<= 10");
  PrintFigure("  of RocksDB's", bytes / rocks_bytes, "of it", "<= 0.45");
  PrintFigure("  of the Go shape's", bytes / reference_bytes, "of it", "<= 0.25");
  PrintFigure("  runs, once merged", static_cast<double>(stats.runs), "runs");
  PrintFigure("  memory of directories and filters", static_cast<double>(stats.resident_bytes) / (1 << 20), "MiB");

  std::mt19937_64 random(11);
  std::vector<Fingerprint> hits(lookups), misses(lookups);
  for (Fingerprint& key : hits) key = KeyOf(random() % keys);
  for (Fingerprint& key : misses) key = KeyOf(keys + random() % keys);
  DAGSTORE_CHECK(packed->Find(hits) == lookups && packed->Find(misses) == 0);
  for (const Fingerprint key : hits) DAGSTORE_CHECK(rocks->Get(key) != 0);  // and both are warm
  const auto rocks_nanos = [&](const std::vector<Fingerprint>& wanted) {
    uint64_t sum = 0;
    const double took = Seconds([&] {
      for (const Fingerprint key : wanted) sum += rocks->Get(key);
    });
    DAGSTORE_CHECK(sum != 1);
    return 1e9 * took / static_cast<double>(wanted.size());
  };
  ComparePair(config, {"lookup: hit, " + size, "ns", "", "RocksDB Get", "<= 0.1"},
              [&] { return packed->Nanos(hits, 1); }, [&] { return rocks_nanos(hits); });
  ComparePair(config, {"lookup: miss, " + size, "ns", "", "RocksDB Get", "<= 0.33"},
              [&] { return packed->Nanos(misses, 1); }, [&] { return rocks_nanos(misses); });
  ComparePair(config, {"lookup: batches of 1024, hits", "M keys/s", "", "one by one", ">= 2"},
              [&] { return 1e3 / packed->Nanos(hits, kBatch); }, [&] { return 1e3 / packed->Nanos(hits, 1); });
  rocks.reset();
  std::filesystem::remove_all(config.dir + "/rocks");
  BenchCold(config.dir + "/packed", *packed, hits, "directory resident");
  {
    Packed tight({.dir = config.dir + "/tight/runs", .resident_bytes_max = 0}, config.dir + "/tight");
    tight.Fill(keys / 10);
    std::vector<Fingerprint> some(10'000);
    for (Fingerprint& key : some) key = KeyOf(random() % (keys / 10));
    BenchCold(config.dir + "/tight", tight, some, "nothing resident");
    PrintFigure("  hit, nothing resident, in the page cache", tight.Nanos(some, 1), "ns");
  }
  {
    Packed loose(config.dir + "/loose");
    loose.Fill(keys, /*compact=*/false);
    PrintFigure("  runs as ingest leaves them", static_cast<double>(loose.index->Stats().runs), "runs");
    loose.Find(hits);
    PrintFigure("  hit", loose.Nanos(hits, 1), "ns");
    PrintFigure("  miss", loose.Nanos(misses, 1), "ns");
  }
  std::filesystem::remove_all(config.dir + "/loose");
  Packed tenth(config.dir + "/tenth");
  tenth.Fill(keys / 10);
  std::vector<Fingerprint> few(lookups);
  for (Fingerprint& key : few) key = KeyOf(random() % (keys / 10));
  ComparePair(config, {"lookup: hit, " + size, "ns", "", "a tenth of the entries", "<= 2"},
              [&] { return packed->Nanos(hits, 1); }, [&] { return tenth.Nanos(few, 1); });
}

}  // namespace dagstore
