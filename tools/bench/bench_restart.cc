// A million shards: time from open to the first answer, against a bare scan of the same records; memory and disk per
// shard.
#include <malloc.h>

#include <fstream>

#include "base/check.h"
#include "base/kv.h"
#include "shard/record.h"
#include "tools/bench/bench.h"
#include "tools/bench/reference.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * 4096;
}

// 64 bytes, as a piece CID is.
std::string ShardName(size_t i) {
  return fmt::format("baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y{:07}", i);
}

}  // namespace

void BenchRestart(const BenchConfig& config) {
  const size_t shards = config.quick ? 20'000 : 1'000'000;
  const Options options = BenchOptions(config.dir + "/repo");
  DAGSTORE_CHECK_OK(OpenBenchStore(options)->Close());
  {
    // Written directly, as registrations would have left them: lazily registered and indexed ones are alike at rest.
    auto kv = OpenRocksKv(options.dir + "/db", {});
    DAGSTORE_CHECK_OK(kv.status());
    for (size_t i = 0; i < shards;) {
      KvBatch batch;
      for (size_t n = 0; n < 10'000 && i < shards; ++n, ++i) {
        ShardRecord record;
        record.lazy = true;
        record.url = fmt::format("file:///srv/filecoin/pieces/{:03}/{}.car?root=archive", i % 1000, ShardName(i));
        record.registered_unix_ms = 1'700'000'000'000 + static_cast<int64_t>(i);
        batch.Put(KvTable::kRecords, ShardName(i), EncodeRecord(record));
      }
      DAGSTORE_CHECK_OK((*kv)->Commit(batch, false));
    }
    DAGSTORE_CHECK_OK((*kv)->Commit(KvBatch(), true));
  }
  DAGSTORE_CHECK_OK(OpenBenchStore(options)->Close());  // the log is written out once

  std::vector<double> resident;
  const auto open = [&] {
    malloc_trim(0);  // a start finds an empty heap, not what the other has left of it
    const double before = ResidentBytes();
    std::unique_ptr<DagStore> store;
    const double took = Seconds([&] {
      store = OpenBenchStore(options);
      DAGSTORE_CHECK_OK(store->GetShardInfo(ShardName(shards / 2)).status());
    });
    malloc_trim(0);
    resident.push_back((ResidentBytes() - before) / static_cast<double>(shards));
    DAGSTORE_CHECK_OK(store->Close());
    return took;
  };
  ComparePair(config, {"open to first answer", "s", "", "open and scan of the records", "<= 3, and <= 1.0 s"}, open,
              [&] {
                return Seconds([&] {
                  auto kv = OpenRocksKv(options.dir + "/db", {});
                  DAGSTORE_CHECK_OK(kv.status());
                  size_t seen = 0, bytes = 0;
                  const auto cursor = (*kv)->Scan(KvTable::kRecords);
                  for (; cursor->Valid(); cursor->Next()) {
                    ++seen;
                    bytes += cursor->value().size();
                  }
                  DAGSTORE_CHECK(seen == shards && bytes != 0);
                });
              });
  PrintFigure("memory per shard at rest", resident.front(), "bytes", "<= 160");
  Reference reference(config.dir + "/reference");
  reference.WriteRecords(shards);
  BenchConfig few = config;
  few.once = config.quick;
  ComparePair(few, {"  the original's start over ours", "s", "", "open to first answer", ">= 6"},
              [&] {
                malloc_trim(0);
                return Seconds([&] { DAGSTORE_CHECK(reference.LoadAll() == shards); });
              },
              open);
  auto kv = OpenRocksKv(options.dir + "/db", {});
  DAGSTORE_CHECK_OK(kv.status());
  PrintFigure("disk per shard", static_cast<double>((*kv)->SizeBytes()) / static_cast<double>(shards), "bytes");
}

}  // namespace dagstore
