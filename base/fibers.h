// Fibers: what stands in for the threads of the operating system while a simulator runs many of them on one, so that a
// seed decides who runs next and time is what the simulator says. Mutex, CondVar, Notification (base/mutex.h) and
// Thread (base/thread.h) ask it; nothing else needs to know. Outside a simulator it is null, and costs a look at a
// thread-local pointer where a thread would wait or wake another.
//
// Threads: everything is called by the one thread that runs the fibers.
#pragma once

#include <absl/functional/any_invocable.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace dagstore {

class Fibers {
 public:
  virtual ~Fibers() = default;
  // Those of this thread; null outside a simulator.
  static Fibers* Current() { return current_; }

  // A new fiber, which runs `body` sometime; a number that names it for Join.
  virtual uint64_t Spawn(const std::string& name, absl::AnyInvocable<void()> body) = 0;
  // Waits until it has ended. Once for each.
  virtual void Join(uint64_t fiber) = 0;
  // Somebody else has `lock`: returns when it may be worth trying again.
  virtual void Contended(const void* lock) = 0;
  // Waits until Notify(condition), or for `timeout` of simulated time: true then. Between the caller's unlock and this
  // call no other fiber runs, so no wake-up is lost.
  virtual bool Wait(const void* condition, absl::Duration timeout) = 0;
  virtual void Notify(const void* condition, bool all) = 0;
  virtual MonotonicNanos Now() const = 0;

 protected:
  static void SetCurrent(Fibers* fibers) { current_ = fibers; }

 private:
  static inline constinit thread_local Fibers* current_ = nullptr;
};

}  // namespace dagstore
