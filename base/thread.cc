#include "base/thread.h"

#include <pthread.h>

#include <utility>

#include "base/check.h"
#include "base/fibers.h"

namespace dagstore {

Thread::Thread(const std::string& name, absl::AnyInvocable<void()> body) {
  if (Fibers* fibers = Fibers::Current()) {
    fiber_ = fibers->Spawn(name, std::move(body));
    return;
  }
  thread_ = std::thread([body = std::move(body)]() mutable { body(); });
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
}

Thread::Thread(Thread&& other) noexcept
    : thread_(std::move(other.thread_)), fiber_(std::exchange(other.fiber_, 0)) {}

Thread& Thread::operator=(Thread&& other) noexcept {
  DAGSTORE_CHECK(!joinable());
  thread_ = std::move(other.thread_);
  fiber_ = std::exchange(other.fiber_, 0);
  return *this;
}

Thread::~Thread() { DAGSTORE_CHECK(!joinable()); }

void Thread::Join() {
  if (fiber_ != 0) {
    Fibers::Current()->Join(std::exchange(fiber_, 0));
  } else {
    thread_.join();
  }
}

}  // namespace dagstore
