// WorkerPool: a few threads and a queue of things to run. Blocking work goes here, never to the loop, and never to
// libuv's own pool, which DNS and file calls share.
//
// Threads: Post any; the work runs on a thread of the pool. The destructor runs what is queued, then joins.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/any_invocable.h>

#include <deque>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace dagstore {

class WorkerPool {
 public:
  WorkerPool(const std::string& name, int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;

  // The queue has no limit of its own: Options::jobs_running_max bounds what the engine hands out.
  void Post(absl::AnyInvocable<void()> work);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  Mutex mu_;
  CondVar arrived_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Thread> threads_;
};

}  // namespace dagstore
