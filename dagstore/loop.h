// Loop: what calls the engine's turns. The real one is UvLoop (dagstore/loop_uv.h); the simulator has its own.
#pragma once

#include <functional>

#include "base/clock.h"
#include "base/status.h"

namespace dagstore {

class Loop {
 public:
  struct Callbacks {
    std::function<void()> begin;           // loop thread, first
    std::function<bool()> turn;            // loop thread; true: call again soon
    std::function<Deadline()> next_timer;  // loop thread
    std::function<bool()> finished;        // loop thread; true: end
    std::function<void()> end;             // loop thread, last
  };

  virtual ~Loop() = default;  // after Join
  // Sets the waker of the queues, then calls `turn` while there is work, and when woken, until `finished`; then shuts
  // the queues.
  virtual absl::Status Start(Callbacks callbacks) = 0;
  virtual void Join() = 0;
};

}  // namespace dagstore
