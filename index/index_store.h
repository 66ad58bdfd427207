// IndexStore: keeps the shard indexes of a repository, by ordinal. Small ones are values in table kIndexes and become
// durable in the same batch as the record of their shard; large ones are files, durable before that batch is committed.
//
// A file or value is never taken for an index because it is there: whoever opens it gives the size and checksum that
// the record of the shard holds, and the header must agree. What does not is DataLoss, and the caller builds it again.
// Files are named <ordinal, 8 hex digits>.idx; temporaries carry the boot id. No other name is ever touched.
//
// Threads: any, but all calls may block on files: Worker thread, except where a comment says otherwise.
#pragma once

#include <absl/functional/function_ref.h>

#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "base/kv.h"
#include "index/index_builder.h"
#include "index/shard_index.h"
#include "index/top_index.h"

namespace dagstore {

struct IndexStoreOptions {
  std::string dir = {};      // of the files; made if absent
  std::string boot_id = {};  // [0-9a-z]+, another in each process: names temporaries
  // Up to here an index is a value. A million files of a page each would cost a million creations and unlinks; above
  // it, copying the value on each open costs more than mapping.
  size_t inline_bytes_max = 64 << 10;
  size_t open_files_max = 512;          // mapped indexes kept open; a descriptor each
  size_t open_heap_bytes_max = 64 << 20;  // values kept in memory, about 5000 shards of 256 blocks
};
inline constexpr size_t kInlineBytesLimit = 1 << 20;  // the most inline_bytes_max may be; CHECKed

// An index that is stored, or will be once the batch with its inline value is committed.
struct StoredIndex {
  Ordinal ordinal = 0;
  uint64_t bytes = 0;      // these two go into the shard's record
  uint32_t checksum = 0;   // as ShardIndex::Checksum
  Bytes inline_value = {};  // empty if it is a file
  std::shared_ptr<const ShardIndex> index = nullptr;  // open, for what follows the build (fingerprints, roots)
};

struct IndexStat {
  uint64_t bytes = 0;
  bool in_file = false;
};

struct IndexTotals {
  uint64_t indexes = 0;
  uint64_t bytes = 0;
};

struct IndexSweep {
  uint64_t files = 0;        // indexes that no record owns, moved to the trash
  uint64_t values = 0;       // the same as values, deletion added to the batch
  uint64_t temporaries = 0;  // of earlier processes, removed
};

class IndexStore {
 public:
  virtual ~IndexStore() = default;

  // Calls `build` with the place where the index is to go, and opens what it built. `ordinal` is new, and ordinals are
  // given out ascending. On an error nothing is left behind.
  virtual absl::StatusOr<StoredIndex> Write(
      Ordinal ordinal, absl::FunctionRef<absl::StatusOr<BuiltIndex>(const IndexOutput&)> build) = 0;

  // Any thread, does not block. Adds the inline value, if there is one, to the batch that stores the shard's record.
  virtual void AppendTo(KvBatch& batch, StoredIndex& stored) = 0;

  // `bytes` and `checksum` are what Write gave. NotFound if it is not there; DataLoss if it is another one, or damaged:
  // it is then not served, and the caller builds it again.
  virtual absl::StatusOr<std::shared_ptr<const ShardIndex>> Open(Ordinal ordinal, uint64_t bytes,
                                                                 uint32_t checksum) = 0;

  // Forgets an index: moves its file to the trash durably now, and removes its value with `batch`. OK if there is none.
  // Takes the same time for any size: deleting is EmptyTrash. Those who have it open keep it.
  virtual absl::Status Drop(Ordinal ordinal, KvBatch& batch) = 0;

  virtual absl::StatusOr<IndexStat> Stat(Ordinal ordinal) = 0;  // NotFound if there is none
  virtual absl::StatusOr<IndexTotals> Totals() = 0;             // walks all names
  // In no particular order; `visit` returns false to stop.
  virtual absl::Status ForEach(absl::FunctionRef<bool(Ordinal, const IndexStat&)> visit) = 0;

  // Finds what no record owns (`is_live` says, and must say yes for records in quarantine) and what earlier processes
  // left half done. Files are moved to the trash, not deleted; ordinals that this process wrote are left alone.
  virtual absl::StatusOr<IndexSweep> Sweep(absl::FunctionRef<bool(Ordinal)> is_live, KvBatch& batch) = 0;
  // Deletes and closes what Sweep and Drop left; may take long. Returns the number of files.
  virtual absl::StatusOr<uint64_t> EmptyTrash() = 0;
};

// `kv` and `io` must outlive the store.
absl::StatusOr<std::unique_ptr<IndexStore>> OpenIndexStore(const IndexStoreOptions& options, Kv& kv, Io& io);
// Keeps every index in memory, from Write to Drop.
std::unique_ptr<IndexStore> NewMemoryIndexStore();

// Key of an inline index in table kIndexes: the ordinal, big endian.
std::string IndexKey(Ordinal ordinal);

}  // namespace dagstore
