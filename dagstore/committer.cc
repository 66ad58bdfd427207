#include "dagstore/committer.h"

#include "base/check.h"
#include "base/mutant.h"

namespace dagstore {

Committer::Committer(Kv& kv, std::shared_ptr<TaskQueues> queues) : kv_(kv), queues_(std::move(queues)) {
  thread_ = Thread("dagstore-commit", [this] { Run(); });
}

Committer::~Committer() {
  {
    MutexLock lock(mu_);
    ending_ = true;
  }
  arrived_.NotifyAll();
  thread_.Join();
}

void Committer::Commit(uint64_t sequence, KvBatch batch) {
  {
    MutexLock lock(mu_);
    DAGSTORE_CHECK(!work_.has_value());
    work_ = Work{sequence, std::move(batch)};
  }
  arrived_.NotifyOne();
}

void Committer::Run() {
  for (;;) {
    Work work;
    {
      MutexLock lock(mu_);
      while (!work_.has_value() && !ending_) arrived_.Wait(mu_);
      if (!work_.has_value()) return;
      work = std::move(*work_);
      work_.reset();
    }
    absl::Status status = kv_.Commit(work.batch, /*sync=*/!Mutant(kMutantUnsyncedCommit));
    queues_->PushCommitDone(work.sequence, std::move(status));
  }
}

}  // namespace dagstore
