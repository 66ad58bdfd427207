// Mutex, SharedMutex, CondVar, Notification: the standard ones, with the annotations that clang's -Wthread-safety
// checks. ThreadSanitizer sees into them; it does not into abseil's, which comes as a library that was built without
// it.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/time/time.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#include "base/fibers.h"

namespace dagstore {

// Looks a few times before it sleeps: our critical sections are a vector push long, a wake-up costs forty microseconds.
class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) {
      while (!mu_.try_lock()) fibers->Contended(this);
      return;
    }
    for (int i = 0; i < kLooks; ++i) {
      if (mu_.try_lock()) return;
      __builtin_ia32_pause();
    }
    mu_.lock();
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }

 private:
  friend class CondVar;
  static constexpr int kLooks = 40;  // about 2 us
  std::mutex mu_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// Many readers or one writer.
class ABSL_LOCKABLE SharedMutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) {
      while (!mu_.try_lock()) fibers->Contended(this);
    } else {
      mu_.lock();
    }
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }
  void ReaderLock() ABSL_SHARED_LOCK_FUNCTION() {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) {
      while (!mu_.try_lock_shared()) fibers->Contended(this);
    } else {
      mu_.lock_shared();
    }
  }
  void ReaderUnlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock_shared(); }

 private:
  std::shared_mutex mu_;
};

class ABSL_SCOPED_LOCKABLE WriterMutexLock {
 public:
  explicit WriterMutexLock(SharedMutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_.Lock(); }
  ~WriterMutexLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  WriterMutexLock(const WriterMutexLock&) = delete;

 private:
  SharedMutex& mu_;
};

class ABSL_SCOPED_LOCKABLE ReaderMutexLock {
 public:
  explicit ReaderMutexLock(SharedMutex& mu) ABSL_SHARED_LOCK_FUNCTION(mu) : mu_(mu) { mu_.ReaderLock(); }
  ~ReaderMutexLock() ABSL_UNLOCK_FUNCTION() { mu_.ReaderUnlock(); }
  ReaderMutexLock(const ReaderMutexLock&) = delete;

 private:
  SharedMutex& mu_;
};

// Waits are relative and follow the monotonic clock; wake-ups may be spurious.
class CondVar {
 public:
  void Wait(Mutex& mu) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) {
      (void)WaitAsFiber(*fibers, mu, absl::InfiniteDuration());
      return;
    }
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // True if the time ran out.
  bool WaitFor(Mutex& mu, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) return WaitAsFiber(*fibers, mu, timeout);
    if (timeout >= kForever) {
      Wait(mu);
      return false;
    }
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    const bool expired = cv_.wait_for(lock, absl::ToChronoNanoseconds(timeout)) == std::cv_status::timeout;
    lock.release();
    return expired;
  }
  void NotifyOne() {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) return fibers->Notify(this, /*all=*/false);
    cv_.notify_one();
  }
  void NotifyAll() {
    if (Fibers* fibers = Fibers::Current(); fibers != nullptr) return fibers->Notify(this, /*all=*/true);
    cv_.notify_all();
  }

 private:
  bool WaitAsFiber(Fibers& fibers, Mutex& mu, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    mu.Unlock();
    const bool expired = fibers.Wait(this, timeout);
    mu.Lock();
    return expired;
  }
  static constexpr absl::Duration kForever = absl::Hours(24 * 365);  // beyond it nanoseconds could overflow
  std::condition_variable cv_;
};

// Happens once.
class Notification {
 public:
  void Notify() {
    MutexLock lock(mu_);
    notified_ = true;
    arrived_.NotifyAll();
  }
  bool HasBeenNotified() const {
    MutexLock lock(mu_);
    return notified_;
  }
  void WaitForNotification() const {
    MutexLock lock(mu_);
    while (!notified_) arrived_.Wait(mu_);
  }
  // True if it happened in time.
  bool WaitForNotificationWithTimeout(absl::Duration timeout) const {
    const Fibers* fibers = Fibers::Current();
    const auto now = [fibers] {
      return fibers != nullptr ? std::chrono::nanoseconds(fibers->Now())
                               : std::chrono::steady_clock::now().time_since_epoch();
    };
    const auto until = now() + absl::ToChronoNanoseconds(timeout);
    MutexLock lock(mu_);
    while (!notified_) {
      const auto left = until - now();
      if (left <= left.zero()) return false;
      arrived_.WaitFor(mu_, absl::FromChrono(left));
    }
    return true;
  }

 private:
  mutable Mutex mu_;
  mutable CondVar arrived_;
  bool notified_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace dagstore
