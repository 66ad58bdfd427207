// Thread: every thread that the store starts, so that a simulator may run them as fibers (base/fibers.h).
#pragma once

#include <absl/functional/any_invocable.h>

#include <cstdint>
#include <string>
#include <thread>

namespace dagstore {

class Thread {
 public:
  Thread() = default;
  // `name` is shown by debuggers, the first 15 bytes of it. Throws std::system_error if the system has no thread left.
  Thread(const std::string& name, absl::AnyInvocable<void()> body);
  Thread(Thread&& other) noexcept;
  Thread& operator=(Thread&& other) noexcept;
  ~Thread();  // after Join

  bool joinable() const { return fiber_ != 0 || thread_.joinable(); }
  // Waits until the body has returned. Once.
  void Join();

 private:
  std::thread thread_;
  uint64_t fiber_ = 0;  // instead of `thread_`
};

}  // namespace dagstore
