// WorkerPool: a few threads and a queue of things to run. Blocking work goes here, never to the loop, and never to
// libuv's own pool, which DNS and file calls share.
//
// While work waits long for others (LongWait, base/wait.h) a stand-in runs what is queued, so that a pool full of work
// that waits stops nobody. At most kStandInsMax at a time: above it those behind wait, too.
//
// Threads: Post any; the work runs on a thread of the pool. The destructor runs what is queued, then joins.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/any_invocable.h>

#include <deque>
#include <list>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"
#include "base/wait.h"

namespace dagstore {

class WorkerPool final : public StandIns {
 public:
  // A thread each, and what its work takes.
  static constexpr size_t kStandInsMax = 64;

  // Throws std::system_error if the system has no thread left.
  WorkerPool(const std::string& name, int threads);
  ~WorkerPool() override;
  WorkerPool(const WorkerPool&) = delete;

  // The queue has no limit of its own: Options::jobs_running_max bounds what the engine hands out.
  void Post(absl::AnyInvocable<void()> work);

  // Of a thread of the pool.
  void BeginWait() override;
  void EndWait() override;

 private:
  struct StandIn {
    Thread thread = {};
    bool ended = false;  // joined by the next BeginWait, or the destructor
  };
  // `stand_in`: whose thread it is; null for a thread of the pool.
  void Run(StandIn* stand_in) ABSL_LOCKS_EXCLUDED(mu_);
  void End() ABSL_LOCKS_EXCLUDED(mu_);

  const std::string name_;
  Mutex mu_;
  CondVar arrived_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;       // threads in a long wait
  size_t standing_in_ ABSL_GUARDED_BY(mu_) = 0;   // stand-ins that have not ended
  std::list<StandIn> stand_ins_ ABSL_GUARDED_BY(mu_);
  std::vector<Thread> threads_;
};

}  // namespace dagstore
