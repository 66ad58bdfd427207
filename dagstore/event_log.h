// EventLog: what happened lately, for people and monitors. Keeps the last events for queries and feeds subscribers.
// A subscriber who does not read loses the oldest events and is told how many; nobody waits for him.
//
// Threads: any.
#pragma once

#include <absl/base/thread_annotations.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/mutant.h"
#include "base/mutex.h"

namespace dagstore {

template <typename Event>
class EventLog {
 public:
  // Events of one subscriber, oldest first.
  class Subscription {
   public:
    explicit Subscription(size_t capacity) : capacity_(std::max<size_t>(capacity, 1)) {}

    // Waits until an event is there or the deadline passes.
    std::optional<Event> Next(Deadline deadline = Deadline::Infinite(), const Clock& clock = Clock::Real()) {
      MutexLock lock(mu_);
      while (events_.empty()) {
        if (deadline.IsInfinite()) {
          arrived_.Wait(mu_);
          continue;
        }
        const absl::Duration left = deadline.Remaining(clock.Now());
        if (left <= absl::ZeroDuration()) return std::nullopt;
        arrived_.WaitFor(mu_, left);
      }
      Event event = std::move(events_.front());
      events_.pop_front();
      return event;
    }
    // Events lost so far because nobody read.
    uint64_t dropped() const {
      MutexLock lock(mu_);
      return dropped_;
    }

   private:
    friend class EventLog;
    void Push(const Event& event) {
      {
        MutexLock lock(mu_);
        if (events_.size() == capacity_ && !Mutant(kMutantSlowReaderKeepsAll)) {
          events_.pop_front();
          ++dropped_;
        }
        events_.push_back(event);
      }
      arrived_.NotifyOne();
    }

    const size_t capacity_;
    mutable Mutex mu_;
    CondVar arrived_;
    std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
    uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  };

  // Keeps the last `kept_max` events.
  explicit EventLog(size_t kept_max) : kept_max_(kept_max) {}

  void Publish(const Event& event) {
    std::vector<std::shared_ptr<Subscription>> readers;
    {
      MutexLock lock(mu_);
      ++published_;
      if (kept_max_ != 0) {
        if (kept_.size() == kept_max_ && !Mutant(kMutantFailuresKept)) kept_.pop_front();
        kept_.push_back(event);
      }
      std::erase_if(subscribers_, [](const auto& weak) { return weak.expired(); });
      count_.store(subscribers_.size(), std::memory_order_relaxed);
      for (const auto& weak : subscribers_) {
        if (auto reader = weak.lock()) readers.push_back(std::move(reader));
      }
    }
    for (const auto& reader : readers) reader->Push(event);
  }

  // Ends when the returned pointer is dropped. Holds at most `capacity` unread events.
  std::shared_ptr<Subscription> Subscribe(size_t capacity) {
    auto subscription = std::make_shared<Subscription>(capacity);
    MutexLock lock(mu_);
    subscribers_.push_back(subscription);
    count_.store(subscribers_.size(), std::memory_order_relaxed);
    return subscription;
  }
  bool HasSubscribers() const { return count_.load(std::memory_order_relaxed) != 0; }

  // Newest first.
  std::vector<Event> Last(size_t events_max) const {
    MutexLock lock(mu_);
    const size_t n = std::min(events_max, kept_.size());
    return std::vector<Event>(kept_.rbegin(), kept_.rbegin() + static_cast<std::ptrdiff_t>(n));
  }
  uint64_t published() const {
    MutexLock lock(mu_);
    return published_;
  }

 private:
  const size_t kept_max_;
  std::atomic<size_t> count_{0};
  mutable Mutex mu_;
  std::deque<Event> kept_ ABSL_GUARDED_BY(mu_);
  std::vector<std::weak_ptr<Subscription>> subscribers_ ABSL_GUARDED_BY(mu_);
  uint64_t published_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace dagstore
