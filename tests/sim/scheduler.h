// Scheduler: runs fibers on one thread, one step at a time, as the tape says; and the clock, which only it moves.
//
// A step goes from one place where a fiber may wait (an operation of Io or Kv, a lock that is taken, a condition,
// sleep)
// to the next. Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fibers.h"
#include "tests/sim/tape.h"
#include "tests/sim/trace.h"

namespace dagstore::sim {

// Who runs next.
enum class Policy : uint8_t {
  kOldest,      // who has waited longest
  kUniform,     // anybody
  kPriorities,  // each has one, changed a few times: PCT
  kStarveOne,   // one only if nobody else can
  kNewest,      // who became ready last
};

class Scheduler final : public Fibers, public Clock {
 public:
  Scheduler(Tape& tape, Trace& trace);
  // Everything has run to its end.
  ~Scheduler() override;

  void SetPolicy(Policy policy);
  // The fibers are left where they are, for ever, and another scheduler may be made.
  void Abandon();

  enum class End : uint8_t { kDone, kStuck, kTooLong };
  // Until no fiber is left (kDone), or none can ever run (kStuck), or `steps_max` more have been run, or Stop().
  End Run(uint64_t steps_max);
  // From a fiber: Run returns after this step.
  void Stop() { stop_ = true; }

  // ---- From fibers ----
  uint64_t Spawn(const std::string& name, absl::AnyInvocable<void()> body) override;
  void Join(uint64_t fiber) override;
  void Contended(const void* lock) override;
  bool Wait(const void* condition, absl::Duration timeout) override;
  void Notify(const void* condition, bool all) override;
  // Anybody may run now.
  void Yield();
  void Sleep(absl::Duration time);
  // Until `done` holds, looked at when something else has run.
  template <typename Done>
  void YieldUntil(Done done) {
    while (!done()) Contended(&done);
  }

  // ---- Time ----
  MonotonicNanos Now() const override { return now_; }
  absl::Time WallNow() const override { return absl::FromUnixNanos(wall_offset_ + now_); }
  void SetWall(absl::Time wall) { wall_offset_ = absl::ToUnixNanos(wall) - now_; }

  uint64_t steps() const { return steps_; }
  // Of the fiber that runs; empty in none.
  const std::string& current_name() const;
  uint64_t current_id() const { return current_ == nullptr ? 0 : current_->id; }
  bool in_fiber() const { return current_ != nullptr; }
  // What every fiber waits for, one a line.
  std::string Describe() const;
  // Times that the store's loop met a lock that was taken: nobody may hold one across a wait that the loop wants.
  uint64_t loop_contended() const { return loop_contended_; }

 private:
  enum class State : uint8_t { kReady, kContended, kWaiting, kJoining, kDone };
  struct Fiber {
    uint64_t id = 0;
    std::string name = {};
    absl::AnyInvocable<void()> body = nullptr;
    State state = State::kReady;
    const void* waits_for = nullptr;
    uint64_t joins = 0;
    uint64_t progress = 0;    // kContended: when it last looked
    uint64_t ready_at = 0;    // the step that made it ready
    bool expired = false;
    MonotonicNanos until = 0;  // kWaiting: with a timeout; INT64_MAX without
    uint64_t priority = 0;
    bool joined = false;
    void* stack = nullptr;
    void* context = nullptr;    // where it goes on
    void* sanitizer = nullptr;  // ThreadSanitizer's fiber, AddressSanitizer's fake stack
  };

  static void Entry();
  void RunFiber(Fiber& fiber);
  void SwitchOut();
  Fiber* Pick();
  Fiber* PickFrom(const std::vector<Fiber*>& ready);
  bool AdvanceTime();
  void MakeReady(Fiber& fiber);
  Fiber* Find(uint64_t id);

  Tape& tape_;
  Trace& trace_;
  Policy policy_ = Policy::kOldest;
  std::vector<std::unique_ptr<Fiber>> fibers_;  // by id
  std::vector<Fiber*> ready_;                   // scratch
  Fiber* current_ = nullptr;
  Fiber* picked_ = nullptr;                     // by Yield, to run next
  uint64_t next_id_ = 1;
  uint64_t steps_ = 0;
  uint64_t end_ = 0;  // of this Run
  uint64_t progress_ = 1;
  uint64_t change_at_ = 0;  // kPriorities
  uint64_t victim_ = 0;     // kStarveOne: among the ids, modulo
  uint64_t loop_contended_ = 0;
  bool stop_ = false;
  MonotonicNanos now_ = 1'000'000'000;
  int64_t wall_offset_ = 1'700'000'000'000'000'000;
  void* main_context_ = nullptr;
  [[maybe_unused]] void* main_sanitizer_ = nullptr;
  [[maybe_unused]] const void* main_stack_ = nullptr;
  [[maybe_unused]] size_t main_stack_size_ = 0;
};

}  // namespace dagstore::sim
