// Options: every limit and choice of a store, with unit, default and reason.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/io.h"
#include "base/kv.h"
#include "dagstore/log.h"
#include "dagstore/span.h"
#include "index/index_builder.h"
#include "mount/copy_cache.h"
#include "mount/partial_copy.h"
#include "mount/registry.h"
#include "mount/sources.h"
#include "shard/car_reader.h"

namespace dagstore {

class Loop;
class TaskQueues;

enum class RecoverOnStart : uint8_t {
  kNever,      // errored shards stay errored until RecoverShard
  kOnAcquire,  // the first acquire after a restart tries again
  kNow,        // all are tried again when the store opens
};

enum class VerifyReads : uint8_t {
  kAlways,       // every block is hashed before it is handed out
  kOncePerCopy,  // not again, if the block was hashed while indexing and the source has not changed since (size, time)
  kNever,        // only the CID in the section head is compared
};

// Builds the index of a shard in place of BuildIndex. Worker thread.
using ShardIndexer = std::function<absl::StatusOr<BuiltIndex>(
    const RandomReader& source, const IndexBuildOptions& options, const IndexOutput& output, const WorkContext& work)>;

struct Options {
  // Folder of the repository; created if absent. Empty: everything in memory, gone at Close.
  std::string dir = {};
  // Which mounts exist. Needed.
  std::shared_ptr<const MountRegistry> mounts = {};
  // Seams. Null: the real ones.
  Io* io = nullptr;
  const Clock* clock = nullptr;
  // Stands between the store and its database, to fail or delay commits.
  std::function<std::unique_ptr<Kv>(std::unique_ptr<Kv>)> kv_wrapper = {};
  // In place of OpenRocksKv: the database in the folder `path`.
  std::function<absl::StatusOr<std::unique_ptr<Kv>>(const std::string& path, const RocksKvOptions& options)> kv_opener =
      {};
  // In place of UvLoop.
  std::function<std::unique_ptr<Loop>(std::shared_ptr<TaskQueues> queues)> loop_maker = {};
  // In place of the system's generator: fills `out`. Identity and secret of a new repository, name of this boot.
  std::function<void(std::span<uint8_t> out)> random = {};

  RecoverOnStart recover_on_start = RecoverOnStart::kOnAcquire;
  VerifyReads verify_reads = VerifyReads::kAlways;
  ShardIndexer indexer = {};  // empty: BuildIndex
  CarOptions car = {};        // limits of the CAR reader

  // Requests waiting for the loop. Beyond it submitting is refused with ResourceExhausted: back-pressure at the door.
  size_t requests_max = 1 << 16;
  // Tasks of one turn of the loop; then I/O and timers have theirs.
  size_t turn_tasks_max = 1024;
  // What is to be stored gathers while a commit is under way. A batch that has grown to this waits as it is, and until
  // it is taken no more CARs are indexed. The database takes at most 256 MiB at once.
  uint64_t commit_batch_bytes = 64 << 20;
  // Completions handled before one waiting request is, so that neither starves.
  size_t completions_per_request = 16;
  // Jobs handed to the workers at a time; more wait in the engine at 8 bytes each.
  size_t jobs_running_max = 1024;
  // Threads that fetch and index. 0: one per core.
  int index_threads = 0;
  // Threads that open shards for readers; apart, so that readers do not wait behind indexing.
  int open_threads = 2;
  // Shards that are open are acquired and released without the loop: about 30 ns instead of a round trip. False: each
  // acquire and release is a task of the loop. Off by itself while somebody subscribes to the trace, so that every step
  // is seen.
  bool inline_acquire = true;
  // Unused shards whose file and index stay open: 1 descriptor and, for large indexes, 1 mapping each.
  size_t open_shards_max = 256;
  // Memory of one indexing job, bytes; larger indexes are sorted through temporary files.
  size_t index_memory_bytes_max = 256 << 20;
  // Local copies of remote shards: quota, watermarks, eviction (mount/copy_cache.h).
  CopyCacheOptions copies = {};
  // Requests to remote sources: how many, how fast, how often (mount/sources.h).
  SourceLimits sources = {};
  // Partial copies: sizes of requests, read-ahead, when they become whole (mount/partial_copy.h).
  PartialLimits partial = {};
  // Threads that fetch ahead of readers and make copies whole.
  int fetch_threads = 8;
  // The index that a remote CARv2 carries is used if it is no larger, bytes, and samples of what it says are true; else
  // the whole CAR is fetched and indexed. 0: never used. In memory once while it is checked.
  uint64_t embedded_index_bytes_max = 64 << 20;
  // Sections that are fetched and hashed before such an index is used; they come in one round trip.
  int embedded_index_samples = 8;

  // How long the loop looks for work before it sleeps. A wake-up costs 25-40 us, a look nothing. Zero on one core.
  absl::Duration loop_spin = absl::Microseconds(50);
  // How long Close lets running jobs finish before it stops them.
  absl::Duration close_grace = absl::Seconds(30);
  // How long Close then waits for accessors that are still out. Zero: not at all; they keep reading after Close.
  absl::Duration close_accessor_wait = absl::ZeroDuration();
  // Who stops a job is answered when it has stopped, or after so long: then with ShardResult::work_abandoned, and the
  // job is counted and named as a straggler. A worker looks at its stop flag every 20 ms; one that hangs in a read of a
  // dead NFS server does not.
  absl::Duration stop_grace = absl::Seconds(5);
  // Stops a job that runs longer, whoever waits for it. Infinite: sources differ too much for one number, and callers
  // leave by deadlines of their own.
  absl::Duration job_time_max = absl::InfiniteDuration();
  // A copy whose last caller leaves is finished all the same, for the next one, if its size is known and: no more than
  // `fill_left_bytes_min` are left; or at least `fill_done_percent` is done and no more than `fill_left_bytes_max` are
  // left. It has `fill_time_max`; beyond `fills_running_max` of them copies are stopped. 0 fills: every copy is
  // stopped.
  uint64_t fill_left_bytes_min = 64 << 20;
  uint64_t fill_left_bytes_max = uint64_t{8} << 30;
  int fill_done_percent = 80;
  absl::Duration fill_time_max = absl::Minutes(10);
  size_t fills_running_max = 4;
  // Failures kept for FailureLog().
  size_t failures_kept_max = 1024;
  // Jobs of one shard that fail in a row before acquiring it no longer starts another by itself.
  uint32_t recover_attempts_max = 3;
  // Small shard indexes live in the database, larger ones in files of their own, bytes.
  size_t inline_index_bytes_max = 64 << 10;
  // Entries of the top-level index kept in memory before they are written as a run: 20 bytes each, and 72 while a full
  // table is written beside the new one.
  size_t top_index_buffer_entries_max = 4 << 20;
  // Runs of about one size before they are merged. More: less is written, lookups ask more runs.
  int top_index_merge_fan_in = 8;
  // Entries of one run, about; larger ones are split by ranges of keys. A merge needs up to fan-in times this in extra
  // space: 5 GB.
  size_t top_index_run_entries_max = 64 << 20;
  // Runs of at most so many entries have a filter, 1.25 bytes an entry: a block that is not there then costs one cache
  // line in each. 0: none has.
  size_t top_index_filter_entries_max = 128 << 20;
  // Memory for directories (0.2 bytes an entry) and filters of runs, bytes. Runs beyond it cost a read of 4.6 KB for
  // each lookup, and 0.01 bytes an entry of memory that is not counted.
  size_t top_index_resident_bytes_max = 1 << 30;
  TraceOptions trace = {};               // spans: docs/operations.md#tracing
  std::shared_ptr<LogSink> log = {};     // null: nothing is logged. NewLogSink, or the embedder's own
  // Forget the top-level index when opening, and make it again from the shard indexes: AwaitLookups says when it is
  // done. For a repository whose lookups are damaged (`dagstore fsck` says so).
  bool rebuild_top_index = false;
};

}  // namespace dagstore
