// Committer: the thread that stores batches, so that no fsync ever happens on the loop. One batch at a time; while it
// is being stored the engine gathers the next, so the batch grows with the load and one sync serves many callers.
//
// Threads: Commit the loop; the rest its own thread.
#pragma once

#include <absl/base/thread_annotations.h>

#include <memory>
#include <optional>

#include "base/kv.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "dagstore/queues.h"

namespace dagstore {

class Committer final : public CommitSink {
 public:
  // `kv` must outlive the committer.
  Committer(Kv& kv, std::shared_ptr<TaskQueues> queues);
  ~Committer() override;

  void Commit(uint64_t sequence, KvBatch batch) override;

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  struct Work {
    uint64_t sequence = 0;
    KvBatch batch = {};
  };

  Kv& kv_;
  const std::shared_ptr<TaskQueues> queues_;
  Mutex mu_;
  CondVar arrived_;
  std::optional<Work> work_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  Thread thread_;
};

}  // namespace dagstore
