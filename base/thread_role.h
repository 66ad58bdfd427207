// The loop thread as a capability that locks nothing: clang's -Wthread-safety then refuses fields of the loop
// elsewhere.
#pragma once

#include <absl/base/thread_annotations.h>

#include <atomic>
#include <thread>

#include "base/check.h"

namespace dagstore {

class ABSL_LOCKABLE LoopThread {
 public:
  // Loop thread. Binds the role to the calling thread.
  void Enter() ABSL_EXCLUSIVE_LOCK_FUNCTION() { id_.store(std::this_thread::get_id(), std::memory_order_relaxed); }
  void Leave() ABSL_UNLOCK_FUNCTION() { id_.store(std::thread::id(), std::memory_order_relaxed); }
  // Tells the analysis what a callback knows, and checks it.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {
    DAGSTORE_CHECK(id_.load(std::memory_order_relaxed) == std::this_thread::get_id());
  }

 private:
  std::atomic<std::thread::id> id_{};
};

}  // namespace dagstore
