// FakeJobRunner, FakeCommitSink, FakeTopIndex: keep what the engine hands out until the test answers, in any order.
// One thread: the test is the loop.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "dagstore/job.h"
#include "dagstore/queues.h"
#include "index/top_index.h"

namespace dagstore {

// Holds jobs. Each is finished once, by the test.
class FakeJobRunner final : public JobRunner {
 public:
  explicit FakeJobRunner(std::shared_ptr<TaskQueues> queues) : queues_(std::move(queues)) {}

  void Start(JobSpec job) override {
    ++started_;
    held_.push_back(std::move(job));
  }
  void DropLater(std::shared_ptr<const OpenShard> shard) override {
    ++dropped_;
    shard.reset();
  }

  // Those not finished, in the order they were started.
  const std::deque<JobSpec>& held() const { return held_; }
  size_t started() const { return started_; }
  size_t dropped() const { return dropped_; }
  size_t Count(JobKind kind) const {
    return static_cast<size_t>(
        std::count_if(held_.begin(), held_.end(), [kind](const JobSpec& job) { return job.kind == kind; }));
  }
  // The oldest of this kind; there must be one.
  size_t Find(JobKind kind) const {
    for (size_t at = 0; at < held_.size(); ++at) {
      if (held_[at].kind == kind) return at;
    }
    DAGSTORE_CHECK(false);
    return 0;
  }

  // Takes a job out without reporting. The caller reports.
  JobSpec Take(size_t at) {
    JobSpec job = std::move(held_.at(at));
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(at));
    return job;
  }
  void Report(const JobSpec& job, JobResult result) {
    queues_->PushJobDone(job, std::make_unique<JobResult>(std::move(result)));
  }

 private:
  const std::shared_ptr<TaskQueues> queues_;
  std::deque<JobSpec> held_;
  size_t started_ = 0;
  size_t dropped_ = 0;
};

// Holds the batch that is being stored, and stores it in `kv` when the test says so.
class FakeCommitSink final : public CommitSink {
 public:
  FakeCommitSink(Kv& kv, std::shared_ptr<TaskQueues> queues) : kv_(kv), queues_(std::move(queues)) {}

  void Commit(uint64_t sequence, KvBatch batch) override {
    DAGSTORE_CHECK(!held_.has_value());  // one at a time
    DAGSTORE_CHECK(!batch.empty());
    DAGSTORE_CHECK(sequence > last_);
    last_ = sequence;
    held_.emplace(sequence, std::move(batch));
  }

  bool holds() const { return held_.has_value(); }
  const KvBatch& batch() const { return held_->second; }
  void Finish(const absl::Status& status = absl::OkStatus()) {
    DAGSTORE_CHECK(held_.has_value());
    const auto [sequence, batch] = *std::exchange(held_, std::nullopt);
    if (status.ok()) DAGSTORE_CHECK_OK(kv_.Commit(batch, /*sync=*/true));
    queues_->PushCommitDone(sequence, status);
  }

 private:
  Kv& kv_;
  const std::shared_ptr<TaskQueues> queues_;
  std::optional<std::pair<uint64_t, KvBatch>> held_;
  uint64_t last_ = 0;
};

// Remembers what was dropped.
class FakeTopIndex final : public TopIndex {
 public:
  absl::Status Add(Ordinal, std::vector<Fingerprint>) override { return absl::OkStatus(); }
  void Seal(Ordinal) override {}
  void Drop(Ordinal ordinal) override { dropped_.insert(ordinal); }
  void DropAllExcept(const std::vector<bool>&) override {}
  absl::Status FindPage(Fingerprint, Ordinal, size_t, std::vector<Ordinal>&) const override { return absl::OkStatus(); }
  absl::Status Find(std::span<const Fingerprint>, absl::FunctionRef<void(size_t, Ordinal)>, size_t) const override {
    return absl::OkStatus();
  }
  bool Covers(Ordinal) const override { return true; }
  uint64_t OrdinalsEnd() const override { return 1; }
  absl::Status Flush() override { return absl::OkStatus(); }
  absl::Status Health() const override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<Ordinal>> DropDamaged() override { return std::vector<Ordinal>(); }
  TopIndexStats Stats() const override { return {}; }
  absl::Status CheckAll() const override { return absl::OkStatus(); }
  absl::Status Compact() override { return absl::OkStatus(); }
  void AwaitIdle() override {}

  bool Dropped(Ordinal ordinal) const { return dropped_.contains(ordinal); }

 private:
  std::set<Ordinal> dropped_;
};

}  // namespace dagstore
