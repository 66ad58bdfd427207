// UvLoop: the loop thread. Runs turns while there is work, looks for more for a while, then sleeps in libuv until woken
// or until the next timer.
//
// Owns the uv loop and its handles; their memory is freed in their close callbacks, on the loop thread.
// Threads: Start and Join one and the same; Wake any.
#pragma once

#include <absl/time/time.h>

#include <memory>

#include "base/clock.h"
#include "base/thread.h"
#include "dagstore/loop.h"
#include "dagstore/queues.h"

namespace dagstore {

class UvLoop final : public Loop {
 public:
  // `spin`: how long to look for work before sleeping.
  UvLoop(std::shared_ptr<TaskQueues> queues, absl::Duration spin, const Clock& clock);
  ~UvLoop() override;  // after Join
  UvLoop(const UvLoop&) = delete;

  absl::Status Start(Callbacks callbacks) override;
  void Join() override;

 private:
  struct Handles;
  void Run();
  void Sleep(Deadline until);
  void CloseHandles();

  const std::shared_ptr<TaskQueues> queues_;
  const MonotonicNanos spin_;
  const Clock& clock_;
  Callbacks callbacks_;
  std::unique_ptr<Handles> handles_;
  Thread thread_;
};

}  // namespace dagstore
