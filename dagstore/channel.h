// Channel: where results go. The caller makes one, hands it to any number of requests, and takes results from it.
//
// A slot is reserved when a request is accepted, so delivering can neither wait nor fail: a reader who does not read
// stops only himself. No free slot = the request is refused at the door. Dropping the last handle drops what is inside,
// and an accessor inside releases its shard then, once.
//
// Threads: any, on both sides. A handle is cheap to copy; copies share one queue.
#pragma once

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/fibers.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/status.h"

namespace dagstore {

// How long a receiver looks before it sleeps: a warm loop answers in about a microsecond, a wake-up costs forty.
inline constexpr MonotonicNanos kReceiveSpin = 30'000;

template <typename T>
class Channel {
  class Queue;

 public:
  // `capacity`: results not yet taken plus requests not yet answered, at most. At least 1.
  explicit Channel(size_t capacity) : queue_(std::make_shared<Queue>(capacity)) {}

  // The right to deliver one value. Move-only; destroying it unused gives the place back.
  class Slot {
   public:
    Slot() = default;
    explicit Slot(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
    Slot(Slot&&) noexcept = default;
    Slot& operator=(Slot&& other) noexcept {
      if (this != &other) {
        GiveBack();
        queue_ = std::move(other.queue_);
      }
      return *this;
    }
    ~Slot() { GiveBack(); }

    bool empty() const { return queue_ == nullptr; }
    void Deliver(T value) {
      DAGSTORE_CHECK(queue_ != nullptr);
      queue_->Push(std::move(value));
      queue_.reset();
    }

   private:
    void GiveBack() {
      if (queue_ != nullptr && !Mutant(kMutantSlotsLeak)) queue_->Unreserve();
      queue_.reset();
    }
    std::shared_ptr<Queue> queue_;
  };

  // Empty if every place is taken.
  std::optional<Slot> Reserve() const {
    if (!queue_->Reserve()) return std::nullopt;
    return Slot(queue_);
  }

  std::optional<T> TryReceive() const { return queue_->TryPop(); }
  // Waits for a value. Do not call with nothing under way: it would wait for ever. `spin`: look for a while before
  // sleeping; not worth it if the value must come from a thread that has just been woken.
  T Receive(bool spin = true) const { return *queue_->Pop(Deadline::Infinite(), Clock::Real(), spin); }
  // Empty if the deadline passed first.
  std::optional<T> Receive(Deadline deadline, const Clock& clock = Clock::Real()) const {
    return queue_->Pop(deadline, clock, true);
  }
  size_t capacity() const { return queue_->capacity(); }

 private:
  class Queue {
   public:
    explicit Queue(size_t capacity) : capacity_(capacity) { DAGSTORE_CHECK(capacity > 0); }

    size_t capacity() const { return capacity_; }

    bool Reserve() {
      if (single()) {
        One expected = One::kFree;
        return one_.compare_exchange_strong(expected, One::kReserved, std::memory_order_acq_rel);
      }
      MutexLock lock(mu_);
      if (reserved_ + count_ >= capacity_ && !Mutant(kMutantChannelUnbounded)) return false;
      ++reserved_;
      return true;
    }
    void Unreserve() {
      if (single()) return one_.store(One::kFree, std::memory_order_release);
      MutexLock lock(mu_);
      --reserved_;
    }
    void Push(T value) {
      if (single()) {
        one_value_.emplace(std::move(value));
        one_.store(One::kFull, std::memory_order_seq_cst);
        // Whoever counts himself a sleeper looks once more after that, under the lock.
        if (one_sleepers_.load(std::memory_order_seq_cst) == 0) return;
        MutexLock lock(mu_);
        arrived_.NotifyOne();
        return;
      }
      bool wake = false;
      {
        MutexLock lock(mu_);
        --reserved_;
        if (count_ == ring_.size()) Grow();
        ring_[(head_ + count_) % ring_.size()] = std::move(value);
        ++count_;
        wake = sleepers_ != 0;
      }
      ready_.fetch_add(1, std::memory_order_release);  // after the lock is free: who looks takes it at once
      if (wake) arrived_.NotifyOne();
    }
    std::optional<T> TryPop() {
      if (single()) return PopOne();
      if (ready_.load(std::memory_order_acquire) == 0) return std::nullopt;
      MutexLock lock(mu_);
      return TakeIfAny();
    }
    std::optional<T> Pop(Deadline deadline, const Clock& clock, bool spin) {
      static const bool kManyCores = std::thread::hardware_concurrency() > 1;
      if (spin && kManyCores && Fibers::Current() == nullptr) {
        for (const MonotonicNanos until = Clock::Real().Now() + kReceiveSpin; Clock::Real().Now() < until;) {
          for (int i = 0; i < 32; ++i) {
            if (auto value = TryPop()) return value;
            __builtin_ia32_pause();
          }
        }
      }
      MutexLock lock(mu_);
      if (single()) one_sleepers_.fetch_add(1, std::memory_order_seq_cst);
      ++sleepers_;
      std::optional<T> value;
      for (bool expired = false;;) {
        value = TakeIfAny();
        if (value.has_value() || (expired && deadline.Passed(clock.Now()))) break;
        if (deadline.IsInfinite()) {
          arrived_.Wait(mu_);
        } else {
          const absl::Duration left = deadline.Remaining(clock.Now());
          expired = left <= absl::ZeroDuration() || arrived_.WaitFor(mu_, left);
        }
      }
      --sleepers_;
      if (single()) one_sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      return value;
    }

   private:
    // A channel for one result has no lock on its way: the lines that go from core to core are most of what an answer
    // costs, so state and result lie side by side.
    enum class One : uint32_t { kFree, kReserved, kFull };
    bool single() const { return capacity_ == 1; }
    std::optional<T> PopOne() {
      One expected = One::kFull;
      if (one_.load(std::memory_order_seq_cst) != One::kFull ||
          !one_.compare_exchange_strong(expected, One::kReserved, std::memory_order_acq_rel)) {
        return std::nullopt;
      }
      std::optional<T> value(std::move(*one_value_));
      one_value_.reset();
      one_.store(One::kFree, std::memory_order_release);
      return value;
    }
    std::optional<T> TakeIfAny() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      if (single()) return PopOne();
      if (count_ == 0) return std::nullopt;
      std::optional<T> value(std::move(*ring_[head_]));
      ring_[head_].reset();
      head_ = static_cast<uint32_t>((head_ + 1) % ring_.size());
      --count_;
      ready_.fetch_sub(1, std::memory_order_release);
      return value;
    }
    void Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      std::vector<std::optional<T>> larger(ring_.empty() ? 4 : ring_.size() * 2);
      for (size_t i = 0; i < count_; ++i) larger[i] = std::move(ring_[(head_ + i) % ring_.size()]);
      ring_ = std::move(larger);
      head_ = 0;
    }

    const size_t capacity_;
    alignas(64) std::atomic<One> one_{One::kFree};
    std::atomic<uint32_t> one_sleepers_{0};
    std::optional<T> one_value_;  // of whoever holds the reservation, then of whoever finds it full
    alignas(64) std::atomic<int64_t> ready_{0};  // follows count_, readable without the lock; looked at all the time
    // One line with the lock.
    alignas(64) Mutex mu_;
    uint32_t sleepers_ ABSL_GUARDED_BY(mu_) = 0;
    uint32_t head_ ABSL_GUARDED_BY(mu_) = 0;
    size_t count_ ABSL_GUARDED_BY(mu_) = 0;
    size_t reserved_ ABSL_GUARDED_BY(mu_) = 0;
    std::vector<std::optional<T>> ring_ ABSL_GUARDED_BY(mu_);
    CondVar arrived_;
  };

  std::shared_ptr<Queue> queue_;
};

}  // namespace dagstore
