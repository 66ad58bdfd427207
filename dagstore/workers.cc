#include "dagstore/workers.h"

#include <system_error>

namespace dagstore {

WorkerPool::WorkerPool(const std::string& name, int threads) : name_(name) {
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back(name, [this] { Run(nullptr); });
  } catch (const std::system_error&) {
    End();
    throw;
  }
}

WorkerPool::~WorkerPool() { End(); }

void WorkerPool::End() {
  {
    MutexLock lock(mu_);
    ending_ = true;
  }
  arrived_.NotifyAll();
  for (Thread& thread : threads_) thread.Join();
  for (;;) {  // those may wait, and others begin for them
    std::list<StandIn> begun;
    {
      MutexLock lock(mu_);
      begun.swap(stand_ins_);
    }
    if (begun.empty()) break;
    for (StandIn& stand_in : begun) stand_in.thread.Join();
  }
}

void WorkerPool::Post(absl::AnyInvocable<void()> work) {
  {
    MutexLock lock(mu_);
    queue_.push_back(std::move(work));
  }
  arrived_.NotifyOne();
}

void WorkerPool::Run(StandIn* stand_in) {
  const auto superfluous = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stand_in != nullptr && standing_in_ > waiting_;
  };
  for (;;) {
    absl::AnyInvocable<void()> work;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !ending_ && !superfluous()) arrived_.Wait(mu_);
      if (queue_.empty() || superfluous()) {
        if (stand_in == nullptr) return;
        --standing_in_;
        stand_in->ended = true;
        arrived_.NotifyOne();  // what woke this one may have been meant for another
        return;
      }
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

void WorkerPool::BeginWait() {
  MutexLock lock(mu_);
  ++waiting_;
  if (standing_in_ >= waiting_ || standing_in_ >= kStandInsMax) return;
  stand_ins_.remove_if([](StandIn& stand_in) {
    if (stand_in.ended) stand_in.thread.Join();
    return stand_in.ended;
  });
  StandIn& stand_in = stand_ins_.emplace_back();
  try {
    stand_in.thread = Thread(name_, [this, &stand_in] { Run(&stand_in); });
    ++standing_in_;
  } catch (const std::system_error&) {
    stand_ins_.pop_back();  // no thread is to be had: those behind wait
  }
}

void WorkerPool::EndWait() {
  {
    MutexLock lock(mu_);
    --waiting_;
  }
  arrived_.NotifyAll();
}

}  // namespace dagstore
