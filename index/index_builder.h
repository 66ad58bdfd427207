// Builds shard indexes: collects entries in any order, sorts them, and writes the native form; and makes one from a CAR
// in one pass over its bytes.
//
// Memory is bounded whatever the CAR's size: when the limit is reached, what was collected is sorted and put aside in a
// temporary file, and Finish() merges. Threads: one per builder; BuildIndex runs on a worker.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/functional/function_ref.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/huge_array.h"
#include "base/io.h"
#include "base/mutex.h"
#include "base/reader.h"
#include "base/thread.h"
#include "index/native_index.h"
#include "shard/car_reader.h"

namespace dagstore {

// Where a built index goes: bytes up to `heap_bytes_max`, else a file that appears whole under its final name.
struct IndexOutput {
  Io* io = nullptr;            // null: always bytes in memory, and nothing is put aside while building
  std::string dir = {};        // exists; final name, temporaries and what is put aside are all here
  std::string name = {};       // final name
  std::string temp_name = {};  // of this attempt alone; "<temp_name>.runs" is used too
  size_t heap_bytes_max = 64 << 10;
};

struct BuiltIndex {
  IndexSummary summary = {};
  std::vector<Cid> roots = {};
  uint64_t bytes = 0;
  uint32_t checksum = 0;  // as ShardIndex::Checksum
  bool in_file = false;   // durable as `dir`/`name`
  Bytes heap = {};        // the whole index, unless in_file
};

// A second thread for the length of one build: does one piece of work at a time beside its owner, who waits for it.
// Threads: one owner.
class BuildHelper {
 public:
  // Null if the system has no thread for us.
  static std::unique_ptr<BuildHelper> Start();
  ~BuildHelper();

  // `work` stays valid until Wait() has returned. Not while another is in work.
  void Begin(absl::FunctionRef<void()> work);
  // Returns when the work is done. If the thread has not begun it yet, the owner does it: waking up takes a while.
  void Wait();

 private:
  BuildHelper() = default;
  void Run();

  Mutex mutex_;
  CondVar changed_;
  std::optional<absl::FunctionRef<void()>> work_ ABSL_GUARDED_BY(mutex_);  // not begun
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

class IndexBuilder {
 public:
  static constexpr size_t kMemoryBytesMax = 256 << 20;  // 3.4 million entries of sha2-256 before any are put aside

  explicit IndexBuilder(IndexOutput output, size_t memory_bytes_max = kMemoryBytesMax);
  ~IndexBuilder();  // removes what was put aside
  IndexBuilder(const IndexBuilder&) = delete;

  // The views of `entry` are not kept. FailedPrecondition if it exceeds a limit of the format, or what Io says.
  // After an error the builder is of no use.
  absl::Status Add(const IndexEntry& entry);

  uint64_t entries() const { return entries_; }
  uint64_t runs() const { return runs_.size(); }  // parts put aside so far

  // Writes the index. `summary` gives the fields that entries do not tell (payload_*, source_size, unverified,
  // verified, car_version). Once. On an error nothing named `output.name` has appeared and temporaries are gone.
  // `helper`, if given, sorts and encodes half of a large index.
  absl::StatusOr<BuiltIndex> Finish(std::vector<Cid> roots, IndexSummary summary, BuildHelper* helper = nullptr);

 private:
  struct SortKey {
    uint64_t prefix;
    uint32_t index;
  };
  // Entries of one kind, as they will be stored, in slabs so that growth does not copy.
  struct Group {
    uint32_t digest_size = 0;
    int slab_bits = 0;                // 2^slab_bits entries in each slab
    std::vector<uint8_t*> slabs = {};
    uint32_t held = 0;                // in the slabs
    uint64_t entries = 0;             // in all, put aside ones included
    Bytes first = {};                 // the first slab, which grows as entries come: a small shard takes little
    std::vector<HugeArray<uint8_t>> chunks = {};  // where the others lie, one after another
    size_t chunk_used = 0;                        // of the last of them

    size_t entry_size() const { return digest_size + kIndexTailBytes; }
    const uint8_t* entry(uint32_t index) const {
      return slabs[index >> slab_bits] + (index & ((1u << slab_bits) - 1)) * entry_size();
    }
    uint8_t* NewEntry();
    void Clear();
  };
  using Groups = std::map<std::pair<uint64_t, uint32_t>, Group>;  // by code and digest size: the stored order
  struct RunPart {
    uint64_t offset = 0;  // in the file of runs
    uint64_t entries = 0;
  };
  using Run = std::map<std::pair<uint64_t, uint32_t>, RunPart>;
  class MergeInput;

  absl::StatusOr<uint16_t> CodecIndex(uint64_t codec);
  static HugeArray<SortKey> Sort(const Group& group, BuildHelper* helper);
  absl::Status PutAside();
  absl::Status WriteEntries(IndexSink& sink, NativeIndexWriter& writer, BuildHelper* helper);
  absl::Status WriteGroup(const Group& group, NativeIndexWriter& writer, BuildHelper* helper);
  absl::Status Merge(NativeIndexWriter& writer);
  absl::Status WriteFile(NativeIndexWriter& writer, BuildHelper* helper);
  std::string RunsPath() const { return output_.dir + "/" + output_.temp_name + ".runs"; }

  const IndexOutput output_;
  const size_t memory_bytes_max_;
  Groups groups_;
  Groups::value_type* last_group_ = nullptr;  // most sections are of the kind of the one before
  std::vector<uint64_t> codecs_;
  absl::flat_hash_map<uint64_t, uint16_t> codec_index_;
  uint64_t last_codec_ = 0;
  uint16_t last_codec_index_ = 0;
  uint64_t entries_ = 0;
  uint64_t identity_entries_ = 0;
  uint64_t block_bytes_ = 0;
  uint64_t entries_mix_ = 0;
  size_t held_bytes_ = 0;  // entries in slabs and the keys that sorting them will take

  std::unique_ptr<WritableFile> runs_file_;
  uint64_t runs_bytes_ = 0;
  std::vector<Run> runs_;
};

struct IndexBuildOptions {
  CarOptions car = {};
  // Hashes every block and compares with its CID. Off: only the heads of the sections are read.
  bool verify = true;
  size_t memory_bytes_max = IndexBuilder::kMemoryBytesMax;
  // Large sources that are hashed are read by one thread and hashed by two, with two windows of 4 MiB, or of 32
  // sections if they are large: at most a sixth of memory_bytes_max each, and at least one section.
  bool second_thread = true;
};

// Told between batches: bytes of the payload behind us, bytes in all, blocks so far.
using IndexProgress = std::function<void(uint64_t bytes_done, uint64_t bytes_total, uint64_t blocks)>;

// Worker thread. Reads the CAR once and indexes every section: duplicates, and identity CIDs too.
// DataLoss if the CAR is malformed or, with `verify`, a block differs from its CID (the message names CID and offset);
// FailedPrecondition at a limit of the options or the format (asking again cannot help); Cancelled or DeadlineExceeded
// from `context`, looked at between batches.
absl::StatusOr<BuiltIndex> BuildIndex(const RandomReader& source, const IndexBuildOptions& options,
                                      const IndexOutput& output, const WorkContext& context,
                                      const IndexProgress& progress = {});

}  // namespace dagstore
