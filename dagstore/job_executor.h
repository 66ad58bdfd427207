// JobExecutor: what jobs do, as plain blocking code. Values in, values out; touches nothing of the engine.
// PooledJobRunner: gives them to worker pools and reports back.
//
// Threads: Run any worker, concurrently.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/kv.h"
#include "base/mutex.h"
#include "dagstore/job.h"
#include "dagstore/queues.h"
#include "dagstore/span.h"
#include "dagstore/workers.h"
#include "index/index_store.h"
#include "index/top_index.h"
#include "mount/upgrader.h"

namespace dagstore {

// Keys of table kMeta: this and the key of a shard whose local copy stays.
inline constexpr char kMetaPin[] = "pin/";

class JobExecutor {
 public:
  struct Seams {
    Kv* kv = nullptr;
    Io* io = nullptr;
    const Clock* clock = nullptr;
    IndexStore* indexes = nullptr;
    TopIndex* top = nullptr;
    Upgrader* upgrader = nullptr;  // null: memory only, sources without random access are refused
    CopyCache* copies = nullptr;   // null with it
    SipKey fingerprint_secret = {};
    SpanSink* spans = nullptr;  // null: nothing is traced
  };
  // Everything in `seams` must outlive the executor.
  JobExecutor(const Options& options, const Seams& seams);

  JobResult Run(const JobSpec& job);
  // Deletes what destroyed and replaced shards have left. May take long: a large file, or many.
  void EmptyTrash() { (void)seams_.indexes->EmptyTrash(); }  // what stays is there for the next time, and for gc

  // Adds every multihash of an index to the top-level index. Also used when a store opens.
  absl::Status AddToTopIndex(Ordinal ordinal, const ShardIndex& index, const CancelFlag* cancel) const;
  // Held for reading between the first Add and the Seal of a shard, for writing by whoever takes damaged runs away.
  SharedMutex& top_index_mutex() const { return top_index_mutex_; }
  // NotFound; DataLoss if it cannot be decoded.
  absl::StatusOr<ShardRecord> ReadRecord(const ShardKey& key) const;

 private:
  absl::Status Initialize(const JobSpec& job, JobResult& result);
  absl::Status Open(const JobSpec& job, JobResult& result);
  absl::Status Collect(const JobSpec& job, JobResult& result);
  absl::Status Destroy(const JobSpec& job, JobResult& result);
  absl::Status Discard(const JobSpec& job);
  absl::Status DiscardCopies(const JobSpec& job) const;
  // Deletes the copy that is to make room, unless the record names it or a job goes on with it.
  absl::Status DiscardVictim(const JobSpec& job) const;

  absl::StatusOr<Upgraded> OpenSource(const ShardKey& key, ShardRecord& record, uint64_t generation, bool expect_same,
                                      const WorkContext& work, MountStat& stat,
                                      const std::vector<size_t>& without = {}) const;
  // Indexes what `source` has. The index goes to the store's folder.
  absl::StatusOr<StoredIndex> Index(const JobSpec& job, const ShardRecord& record, const Upgraded& source,
                                    const WorkContext& work, bool* inferred) const;
  struct Indexed {
    ShardRecord record = {};  // its copy is that of `source`
    MountStat stat = {};
    Upgraded source = {};
    absl::StatusOr<StoredIndex> stored = Unavailable("not tried");
    bool inferred = false;     // `stored` is the index that the CAR carries
    bool of_record = false;    // `source` is a copy that the record named already
    bool came_before = false;  // so it is, or parts of it were left by an earlier attempt
  };
  // One location after the other, until one has bytes that can be indexed.
  absl::StatusOr<Indexed> IndexAnySource(const JobSpec& job, const ShardRecord& before, const WorkContext& work) const;
  // The attempt was for nothing. What was interrupted is kept for another one; what was found wrong is of no use.
  void LeaveCopy(Indexed& tried, const absl::Status& cause) const;
  // What becomes visible with the record: entries of the top-level index now, the rest with the batch of `result`.
  absl::Status MakeAvailable(const JobSpec& job, Indexed& indexed, const WorkContext& work, JobResult& result) const;
  // An error: there is no source to be read. That it cannot be indexed is in `stored`. `nth` numbers the attempts of a
  // job; `afresh`: the copies that are there are not used; `without`: nor are these locations.
  absl::StatusOr<Indexed> IndexOneSource(const JobSpec& job, const ShardRecord& before, const WorkContext& work,
                                         uint32_t nth, bool afresh, const std::vector<size_t>& without) const;

  const Options options_;
  const Seams seams_;
  mutable SharedMutex top_index_mutex_;
};

class PooledJobRunner final : public JobRunner {
 public:
  // `executor` must outlive the runner.
  PooledJobRunner(const Options& options, JobExecutor& executor, std::shared_ptr<TaskQueues> queues);

  void Start(JobSpec job) override;
  void DropLater(std::shared_ptr<const OpenShard> shard) override;

  // Fetches ahead of readers and makes copies whole.
  void PostFetch(absl::AnyInvocable<void()> work) { fetch_.Post(std::move(work)); }
  StandIns& fetch_stand_ins() { return fetch_; }

 private:
  WorkerPool& PoolOf(JobKind kind);

  JobExecutor& executor_;
  const std::shared_ptr<TaskQueues> queues_;
  std::atomic<bool> trash_wanted_{false};
  WorkerPool trash_;   // deleting large files: never in the way of destroying. First: the others post to it to the end
  WorkerPool fetch_;   // what nobody waits for, or somebody will soon
  WorkerPool index_;
  WorkerPool open_;
  WorkerPool remove_;  // destroy, discard, collect and closing files: never in the way of readers
};

}  // namespace dagstore
