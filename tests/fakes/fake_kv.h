// FakeKv: a Kv in front of another one, whose commits fail or wait when the test says so. Any thread.
#pragma once

#include <absl/base/thread_annotations.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/kv.h"
#include "base/mutex.h"

namespace dagstore {

class FakeKv final : public Kv {
 public:
  // Whether a commit that fails is there after all: a crash in the middle of a sync may leave either.
  enum class Applied : uint8_t { kNo, kYes };

  explicit FakeKv(std::unique_ptr<Kv> inner = NewMemoryKv()) : inner_(std::move(inner)) {}
  // For Options::kv_wrapper: puts one in front of the database; *kv is where it is while the store is open.
  static std::function<std::unique_ptr<Kv>(std::unique_ptr<Kv>)> Wrapper(FakeKv** kv) {
    return [kv](std::unique_ptr<Kv> inner) {
      auto fake = std::make_unique<FakeKv>(std::move(inner));
      *kv = fake.get();
      return fake;
    };
  }
  // Nobody may wait in Commit() any more.
  ~FakeKv() override { DAGSTORE_CHECK(waiting() == 0); }

  // The n-th commit from now (1 is the next) fails, and so does every later one, as Kv promises.
  void FailCommit(uint64_t n, absl::Status error, Applied applied = Applied::kNo) {
    DAGSTORE_CHECK(n > 0 && !error.ok());
    const MutexLock lock(mutex_);
    fail_at_ = commits_ + n;
    error_ = std::move(error);
    applied_ = applied;
  }
  // The database is opened again: commits are taken once more.
  void Heal() {
    const MutexLock lock(mutex_);
    fail_at_.reset();
  }

  // From now on keys cannot be read; scans can. OK: they can again.
  void FailGets(absl::Status error) {
    const MutexLock lock(mutex_);
    get_error_ = std::move(error);
  }

  // Asked before each key is read, with no lock held: OK to go on. Not to be changed while others read.
  void OnGet(std::function<absl::Status(KvTable, std::string_view)> hook) { on_get_ = std::move(hook); }

  // From now on commits (those of which `which` says so) wait until they are released.
  void Hold(std::function<bool(const KvBatch&)> which = nullptr) {
    const MutexLock lock(mutex_);
    held_ = true;
    which_ = std::move(which);
  }
  // Lets the oldest `n` that wait (or will wait) go on.
  void Release(uint64_t n) {
    const MutexLock lock(mutex_);
    released_ += n;
    changed_.NotifyAll();
  }
  // Lets all go on, and holds no more.
  void ReleaseAll() {
    const MutexLock lock(mutex_);
    held_ = false;
    released_ = tickets_;
    changed_.NotifyAll();
  }
  // Returns when `n` commits wait.
  void WaitUntilWaiting(size_t n) {
    const MutexLock lock(mutex_);
    while (waiting_ < n) changed_.Wait(mutex_);
  }

  size_t waiting() const {
    const MutexLock lock(mutex_);
    return waiting_;
  }
  // Calls of Commit so far, failed ones too.
  uint64_t commits() const {
    const MutexLock lock(mutex_);
    return commits_;
  }

  absl::StatusOr<std::optional<std::string>> Get(KvTable table, std::string_view key) override {
    {
      const MutexLock lock(mutex_);
      RETURN_IF_ERROR(get_error_);
    }
    if (on_get_ != nullptr) RETURN_IF_ERROR(on_get_(table, key));
    return inner_->Get(table, key);
  }
  std::unique_ptr<KvCursor> Scan(KvTable table, std::string_view from, std::string_view prefix) override {
    return inner_->Scan(table, from, prefix);
  }

  absl::Status Commit(const KvBatch& batch, bool sync) override {
    RETURN_IF_ERROR(CheckKvBatch(batch));
    const MutexLock lock(mutex_);
    const uint64_t number = ++commits_;
    if (held_ && (which_ == nullptr || which_(batch))) {
      const uint64_t turn = ++tickets_;
      ++waiting_;
      changed_.NotifyAll();
      while (released_ < turn) changed_.Wait(mutex_);
      --waiting_;
    }
    if (!fail_at_.has_value() || number < *fail_at_) return inner_->Commit(batch, sync);
    if (number == *fail_at_ && applied_ == Applied::kYes) RETURN_IF_ERROR(inner_->Commit(batch, sync));
    return error_;
  }

  uint64_t SizeBytes() override { return inner_->SizeBytes(); }
  uint64_t SyncCount() const override { return inner_->SyncCount(); }

 private:
  const std::unique_ptr<Kv> inner_;
  std::function<absl::Status(KvTable, std::string_view)> on_get_;
  mutable Mutex mutex_;
  CondVar changed_;
  uint64_t commits_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<uint64_t> fail_at_ ABSL_GUARDED_BY(mutex_);  // number of the first commit that fails
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  absl::Status get_error_ ABSL_GUARDED_BY(mutex_);
  Applied applied_ ABSL_GUARDED_BY(mutex_) = Applied::kNo;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<bool(const KvBatch&)> which_ ABSL_GUARDED_BY(mutex_);
  uint64_t tickets_ ABSL_GUARDED_BY(mutex_) = 0;   // commits that had to wait, in order
  uint64_t released_ ABSL_GUARDED_BY(mutex_) = 0;  // the first so many of them may go on
  size_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace dagstore
