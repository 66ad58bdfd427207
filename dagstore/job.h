// Jobs: the only way out of the loop. Values in, one result out; they touch nothing of the store's memory.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/kv.h"
#include "base/progress.h"
#include "base/task_meta.h"
#include "dagstore/open_shard.h"
#include "shard/record.h"

namespace dagstore {

// What a reader found wrong.
enum class Damage : uint8_t {
  kBlock,  // one block: it is not served, the rest of the shard is; failure log only
  kShard,  // the data as a whole: the shard becomes Errored
  kIndex,  // the index: it is built again
};

enum class JobKind : uint8_t {
  kInitialize,  // fetch and index
  kOpen,        // open data and index for readers
  kCollect,     // forget a local copy
  kDestroy,     // remove index, copies and manifests
  kDiscard,     // remove the index and the copy a dead job has left, or old ones; nobody waits for it
};

inline constexpr size_t kJobKinds = 5;
const char* JobName(JobKind kind);  // "initialize"

// Everything a job needs, by value.
struct JobSpec {
  JobKind kind = JobKind::kInitialize;
  uint64_t id = 0;            // in this life of the store
  uint32_t slot = 0;          // with incarnation: which life of which shard
  uint32_t incarnation = 0;
  uint32_t generation = 0;    // of the job; an old one is dropped when it reports
  ShardKey key = {};
  uint32_t ordinal = 0;       // Initialize: of the index to be built. Discard: of the one to remove. Open: expected
  uint32_t old_ordinal = 0;   // Initialize: of the index to be replaced, 0 if none
  std::string old_copy = {};  // Discard: the copy that went with it, if it is another than its ordinal says
  std::string victim = {};    // Collect, Discard: the copy that is to make room; empty: it is not for that
  uint32_t attempts = 0;      // Initialize: failed before
  TaskMeta meta;
  std::shared_ptr<JobControl> control = {};  // null: nobody stops it, or looks how far it is
  std::shared_ptr<CancelFlag> cancel = {};   // the one in `control`
  std::optional<ShardRecord> record = {};  // if it is not durable yet; else the job reads it
  StandIns* stand_ins = nullptr;           // of the pool that runs it; null: none

  WorkContext Work(const Clock& clock) const {
    return {cancel.get(), &clock, meta.deadline, control == nullptr ? nullptr : &control->progress, meta.span,
            stand_ins};
  }

  explicit JobSpec(const TaskMeta& task_meta) : meta(task_meta) {}
};

struct JobResult {
  absl::Status status = absl::OkStatus();
  bool index_damaged = false;                      // Open: the index, not the data
  std::optional<ShardRecord> record = {};          // what to store; of a failure: the record with the cause
  KvBatch batch = {};                              // to be committed with it
  std::string old_copy = {};                       // Initialize: a copy of ours that the record it made names no more
  std::shared_ptr<const OpenShard> open = {};      // Open
};

// Runs jobs. The real one has worker pools; tests hold jobs and finish them in any order.
class JobRunner {
 public:
  virtual ~JobRunner() = default;
  // Loop thread. Never blocks, never refuses. The job reports through TaskQueues::PushJobDone, exactly once.
  virtual void Start(JobSpec job) = 0;
  // Loop thread. The last reference to something whose destructor does I/O: let a worker drop it.
  virtual void DropLater(std::shared_ptr<const OpenShard> shard) = 0;
};

// Stores batches, one at a time. The real one has a thread; tests hold commits.
class CommitSink {
 public:
  virtual ~CommitSink() = default;
  // Loop thread. Reports through TaskQueues::PushCommitDone once the batch is synced, or has failed.
  virtual void Commit(uint64_t sequence, KvBatch batch) = 0;
};

}  // namespace dagstore
