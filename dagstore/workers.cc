#include "dagstore/workers.h"

namespace dagstore {

WorkerPool::WorkerPool(const std::string& name, int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back(name, [this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mu_);
    ending_ = true;
  }
  arrived_.NotifyAll();
  for (Thread& thread : threads_) thread.Join();
}

void WorkerPool::Post(absl::AnyInvocable<void()> work) {
  {
    MutexLock lock(mu_);
    queue_.push_back(std::move(work));
  }
  arrived_.NotifyOne();
}

void WorkerPool::Run() {
  for (;;) {
    absl::AnyInvocable<void()> work;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !ending_) arrived_.Wait(mu_);
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace dagstore
