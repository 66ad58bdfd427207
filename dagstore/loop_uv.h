// UvLoop: the loop thread. Runs turns while there is work, looks for more for a while, then sleeps in libuv until woken
// or until the next timer.
//
// Owns the uv loop and its handles; their memory is freed in their close callbacks, on the loop thread.
// Threads: Start and Join one and the same; Wake any.
#pragma once

#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <thread>

#include "base/clock.h"
#include "dagstore/queues.h"

namespace dagstore {

class UvLoop {
 public:
  struct Callbacks {
    std::function<void()> begin;           // loop thread, first
    std::function<bool()> turn;            // loop thread; true: call again soon
    std::function<Deadline()> next_timer;  // loop thread
    std::function<bool()> finished;        // loop thread; true: end
    std::function<void()> end;             // loop thread, last
  };

  // `spin`: how long to look for work before sleeping.
  UvLoop(std::shared_ptr<TaskQueues> queues, absl::Duration spin, const Clock& clock);
  ~UvLoop();  // after Join
  UvLoop(const UvLoop&) = delete;

  absl::Status Start(Callbacks callbacks);
  void Join();

 private:
  struct Handles;
  void Run();
  void Sleep(Deadline until);

  const std::shared_ptr<TaskQueues> queues_;
  const MonotonicNanos spin_;
  const Clock& clock_;
  Callbacks callbacks_;
  std::unique_ptr<Handles> handles_;
  std::thread thread_;
};

}  // namespace dagstore
