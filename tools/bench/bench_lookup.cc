// The top-level index alone: filling it, merges included, and asking it, against RocksDB tuned for the same entries and
// against the shape of the Go original.
#include <algorithm>
#include <filesystem>
#include <random>

#include "base/check.h"
#include "base/io.h"
#include "base/kv.h"
#include "index/top_index.h"
#include "tools/bench/bench.h"
#include "tools/bench/reference.h"
#include "tools/bench/rocks_lookup.h"

namespace dagstore {
namespace {

constexpr size_t kShardEntries = 1000;
constexpr size_t kRocksBatch = 1 << 20;  // entries of one ingested file
constexpr size_t kBatch = 1024;          // keys of one batched lookup

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Digest `i` of the set: 32 bytes.
void DigestOf(uint64_t i, uint8_t* out) {
  for (uint64_t k = 0; k < 4; ++k) Store64(out + 8 * k, Mix(4 * i + k));
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

  explicit Packed(const std::string& dir) {
    DAGSTORE_CHECK_OK(Io::Posix().MakeDir(dir));
    auto opened = OpenRocksKv(dir + "/db", {});
    DAGSTORE_CHECK_OK(opened.status());
    kv = *std::move(opened);
    auto top = OpenTopIndex({.dir = dir + "/runs"}, *kv, Io::Posix());
    DAGSTORE_CHECK_OK(top.status());
    index = *std::move(top);
  }
  // Ends with one run for each range of keys, as RocksDB ends with one level.
  void Fill(size_t keys) {
    Ordinal ordinal = 1;
    for (size_t i = 0; i < keys; i += kShardEntries, ++ordinal) {
      std::vector<Fingerprint> fingerprints(std::min(kShardEntries, keys - i));
      for (size_t k = 0; k < fingerprints.size(); ++k) fingerprints[k] = KeyOf(i + k);
      std::sort(fingerprints.begin(), fingerprints.end());
      DAGSTORE_CHECK_OK(index->Add(ordinal, std::move(fingerprints)));
      index->Seal(ordinal);
    }
    DAGSTORE_CHECK_OK(index->Compact());
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
  ComparePair(fill, {"lookup: ingest and merge, " + size, "M keys/s", "", "RocksDB, ingest and compact", ">= 4"},
              [&] {
                packed.reset();
                std::filesystem::remove_all(config.dir + "/packed");
                packed = std::make_unique<Packed>(config.dir + "/packed");
                return millions / Seconds([&] { packed->Fill(keys); });
              },
              [&] {
                rocks.reset();
                std::filesystem::remove_all(config.dir + "/rocks");
                rocks = std::make_unique<RocksLookup>(config.dir + "/rocks");
                return millions / Seconds([&] { FillRocks(*rocks, keys); });
              });
  const size_t reference_keys = config.quick ? 20'000 : 1'000'000;  // the original slows down with more
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
  PrintFigure("  bytes an entry on disk", bytes, "bytes", "<= 10");
  PrintFigure("  of RocksDB's", bytes / rocks_bytes, "of it", "<= 0.45");
  PrintFigure("  of the Go shape's", bytes / reference_bytes, "of it", "<= 0.25");
  PrintFigure("  runs, once merged", static_cast<double>(stats.runs), "runs");

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
  Packed tenth(config.dir + "/tenth");
  tenth.Fill(keys / 10);
  std::vector<Fingerprint> few(lookups);
  for (Fingerprint& key : few) key = KeyOf(random() % (keys / 10));
  ComparePair(config, {"lookup: hit, " + size, "ns", "", "a tenth of the entries", "<= 2"},
              [&] { return packed->Nanos(hits, 1); }, [&] { return tenth.Nanos(few, 1); });
}

}  // namespace dagstore
