// Kv: the durable ordered map under the store. A networked engine may stand here later, so: no chatty calls on hot
// paths, scans by cursor, writes in batches.
//
// Threads: any. Commit() may block for a sync: never call it on the loop.
// Durability: after Commit(sync) returns OK the batch survives power loss, whole; without it, none of it may be relied
// on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace dagstore {

// Column families. Numbers index arrays; names (KvTableName) are on disk: never rename.
enum class KvTable : uint8_t {
  kMeta,        // store identity, format version, secrets, counters
  kRecords,     // shard key -> record (shard/record.h)
  kDestroying,  // shard key of a shard whose destruction has begun; the value is empty
  kIndexes,     // ordinal, big endian -> native shard index of a small shard
  kTopIndex,    // manifest and coverage of the top-level index
  kRoots,       // root CID -> ordinals
  kManifests,   // named, versioned CID sets of shards
  kQuarantine,  // records that could not be decoded, as they were found
};
inline constexpr size_t kKvTables = 8;
const char* KvTableName(KvTable table);

// The longest key. Shard keys and CIDs are far below it; it also says which key comes after all others.
inline constexpr size_t kKvKeyBytesMax = 16 << 10;
// Keys and values of one batch: it is held in memory three times while it is committed.
inline constexpr size_t kKvBatchBytesMax = 256 << 20;

// Changes that happen together, in order: a later one sees what an earlier one did. Keys and values are binary.
class KvBatch {
 public:
  enum class Kind : uint8_t { kPut, kDelete, kDeletePrefix };
  struct Change {
    Kind kind = Kind::kPut;
    KvTable table = KvTable::kMeta;
    std::string key = {};
    std::string value = {};
  };

  void Put(KvTable table, std::string key, std::string value) {
    bytes_ += key.size() + value.size();
    changes_.push_back({Kind::kPut, table, std::move(key), std::move(value)});
  }
  void Delete(KvTable table, std::string key) {
    bytes_ += key.size();
    changes_.push_back({Kind::kDelete, table, std::move(key), {}});
  }
  // Every key that starts with `prefix`, which is not empty.
  void DeletePrefix(KvTable table, std::string prefix) {
    DAGSTORE_CHECK(!prefix.empty());
    bytes_ += prefix.size();
    changes_.push_back({Kind::kDeletePrefix, table, std::move(prefix), {}});
  }
  // Moves the changes of `other` to the end.
  void Append(KvBatch&& other);

  const std::vector<Change>& changes() const { return changes_; }
  bool empty() const { return changes_.empty(); }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<Change> changes_;
  size_t bytes_ = 0;
};

// A snapshot walked in key order (memcmp). One thread. Goes before its Kv. It keeps deleted data alive: close it soon.
class KvCursor {
 public:
  virtual ~KvCursor() = default;
  virtual bool Valid() const = 0;
  virtual void Next() = 0;
  virtual std::string_view key() const = 0;    // valid until Next()
  virtual std::string_view value() const = 0;  // valid until Next()
  // An error ends the walk: look here when Valid() turns false.
  virtual absl::Status status() const = 0;
};

class Kv {
 public:
  virtual ~Kv() = default;
  // nullopt if absent.
  virtual absl::StatusOr<std::optional<std::string>> Get(KvTable table, std::string_view key) = 0;
  // From the first key >= `from` (and, if `prefix` is not empty, while keys start with it).
  virtual std::unique_ptr<KvCursor> Scan(KvTable table, std::string_view from = {}, std::string_view prefix = {}) = 0;
  // All changes or none. An empty batch with `sync` makes the commits before it durable.
  // InvalidArgument for a key above kKvKeyBytesMax, ResourceExhausted for a batch above kKvBatchBytesMax: nothing was
  // done. Any other error is final: every later Commit fails with it until the Kv is opened again, because only then is
  // it known whether the batch survived. Reads go on.
  virtual absl::Status Commit(const KvBatch& batch, bool sync) = 0;
  // Approximate bytes on disk (0 in memory).
  virtual uint64_t SizeBytes() = 0;
  // Number of Commit(sync) calls that reached the disk, for the benchmarks and metrics (in memory: that would have).
  virtual uint64_t SyncCount() const = 0;
};

// The limits of Commit above. For implementations.
absl::Status CheckKvBatch(const KvBatch& batch);
// The first key after all that start with `prefix`, among keys of at most kKvKeyBytesMax. For implementations.
std::string KvPrefixEnd(std::string_view prefix);

std::unique_ptr<Kv> NewMemoryKv();

struct RocksKvOptions {
  size_t block_cache_bytes = 32 << 20;  // records and small indexes are read rarely; the OS caches files too
  size_t write_buffer_bytes = 16 << 20;  // per table; all tables together hold at most twice as much
  int open_files_max = 256;             // part of the process's descriptor budget
  uint64_t wal_bytes_max = 32 << 20;    // bounds the replay at open after a crash: about 20 ms/MiB of records
  bool create_if_missing = true;
};
// Opens the database in the folder `path`, or makes it. Closing flushes, so that the next open replays nothing.
// NotFound if there is none and it may not be made. FailedPrecondition if another process has it open, or a newer
// version made it. DataLoss if its files are damaged or missing: what was acknowledged is never rolled back in silence;
// only a torn end of the log, which nobody was told of, is dropped.
absl::StatusOr<std::unique_ptr<Kv>> OpenRocksKv(const std::string& path, const RocksKvOptions& options);

}  // namespace dagstore
