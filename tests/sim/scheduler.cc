#include "tests/sim/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define SIM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#elif __has_feature(thread_sanitizer)
#define SIM_TSAN 1
#endif
#endif

#if defined(SIM_ASAN)
#include <sanitizer/common_interface_defs.h>
#elif defined(SIM_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__x86_64__) && !defined(SIM_TSAN) && !defined(__SHSTK__)
#define SIM_ASM_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace dagstore::sim {
namespace {

#if defined(SIM_ASAN) || defined(SIM_TSAN)
constexpr size_t kStackBytes = 1 << 20;
#else
constexpr size_t kStackBytes = 256 << 10;
#endif
constexpr MonotonicNanos kStepNanos = 1000;
constexpr MonotonicNanos kNever = std::numeric_limits<MonotonicNanos>::max();
constexpr size_t kPageBytes = 4096;

// Stacks are kept from one run to the next: making them is a third of a short run.
std::vector<void*>& FreeStacks() {
  static std::vector<void*> stacks;
  return stacks;
}
void* NewStack() {
  std::vector<void*>& free = FreeStacks();
  if (!free.empty()) {
    void* stack = free.back();
    free.pop_back();
    return stack;
  }
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  DAGSTORE_CHECK(stack != MAP_FAILED);
  DAGSTORE_CHECK(mprotect(stack, kPageBytes, PROT_NONE) == 0);  // an overflow is a fault, not a riddle
  return stack;
}

// The scheduler whose fibers run on this thread; for Entry, which takes no argument.
thread_local Scheduler* t_scheduler = nullptr;

#if defined(SIM_ASM_SWITCH)
// Saves what the ABI says a callee keeps, changes the stack, restores. swapcontext also asks the kernel for the signal
// mask, twice a step, which costs more than the step.
extern "C" void dagstore_sim_switch(void** from, void* to);
asm(R"(
.text
.globl dagstore_sim_switch
.type dagstore_sim_switch,@function
dagstore_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dagstore_sim_switch,.-dagstore_sim_switch
)");

void* NewContext(void* stack, void (*entry)()) {
  auto* top = reinterpret_cast<uint64_t*>(static_cast<char*>(stack) + kStackBytes);
  *--top = 0;  // the return address of `entry`, which never returns; keeps the stack aligned as after a call
  *--top = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < 6; ++i) *--top = 0;
  return top;
}
void SwitchContext(void** from, void* to) { dagstore_sim_switch(from, to); }
#else
void* NewContext(void* stack, void (*entry)()) {
  auto* context = new ucontext_t;
  DAGSTORE_CHECK(getcontext(context) == 0);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}
void SwitchContext(void** from, void* to) {
  if (*from == nullptr) *from = new ucontext_t;
  DAGSTORE_CHECK(swapcontext(static_cast<ucontext_t*>(*from), static_cast<ucontext_t*>(to)) == 0);
}
void FreeContext(void* context) { delete static_cast<ucontext_t*>(context); }
#endif

}  // namespace

Scheduler::Scheduler(Tape& tape, Trace& trace) : tape_(tape), trace_(trace) {
  DAGSTORE_CHECK(Fibers::Current() == nullptr);
  SetCurrent(this);
  t_scheduler = this;
#if defined(SIM_TSAN)
  main_sanitizer_ = __tsan_get_current_fiber();
#endif
}

Scheduler::~Scheduler() {
  SetCurrent(nullptr);
  t_scheduler = nullptr;
#if !defined(SIM_ASM_SWITCH)
  FreeContext(main_context_);
#endif
}

void Scheduler::Abandon() {
  SetCurrent(nullptr);
  t_scheduler = nullptr;
}

void Scheduler::SetPolicy(Policy policy) {
  policy_ = policy;
  if (policy == Policy::kStarveOne) victim_ = tape_.Draw(Stream::kSchedule, 16);
}

// ---- Steps ----

Scheduler::End Scheduler::Run(uint64_t steps_max) {
  stop_ = false;
  end_ = steps_ + steps_max;
  while (!stop_) {
    Fiber* next = picked_ != nullptr ? std::exchange(picked_, nullptr) : Pick();
    if (next == nullptr) {
      if (AdvanceTime()) continue;
      const bool left = std::any_of(fibers_.begin(), fibers_.end(), [](const auto& f) { return f != nullptr; });
      return left ? End::kStuck : End::kDone;
    }
    if (steps_ >= end_) return End::kTooLong;
    RunFiber(*next);
  }
  return End::kDone;
}

void Scheduler::RunFiber(Fiber& fiber) {
  ++steps_;
  now_ += kStepNanos;
  trace_.Add(fiber.id);
  current_ = &fiber;
#if defined(SIM_ASAN)
  __sanitizer_start_switch_fiber(&main_sanitizer_, fiber.stack, kStackBytes);
#elif defined(SIM_TSAN)
  __tsan_switch_to_fiber(fiber.sanitizer, 0);
#endif
  SwitchContext(&main_context_, fiber.context);
#if defined(SIM_ASAN)
  __sanitizer_finish_switch_fiber(main_sanitizer_, nullptr, nullptr);
#endif
  current_ = nullptr;
  if (fiber.state != State::kContended) ++progress_;
  if (fiber.state != State::kDone) return;
  FreeStacks().push_back(fiber.stack);
#if !defined(SIM_ASM_SWITCH)
  FreeContext(fiber.context);
#endif
#if defined(SIM_TSAN)
  __tsan_destroy_fiber(fiber.sanitizer);
#endif
  for (const auto& other : fibers_) {
    if (other != nullptr && other->state == State::kJoining && other->joins == fiber.id) MakeReady(*other);
  }
  const uint64_t id = fiber.id;
  const auto at = std::find_if(fibers_.begin(), fibers_.end(), [id](const auto& f) { return f->id == id; });
  fibers_.erase(at);
}

void Scheduler::SwitchOut() {
  Fiber& fiber = *current_;
#if defined(SIM_ASAN)
  __sanitizer_start_switch_fiber(fiber.state == State::kDone ? nullptr : &fiber.sanitizer, main_stack_,
      main_stack_size_);
#elif defined(SIM_TSAN)
  __tsan_switch_to_fiber(main_sanitizer_, 0);
#endif
  SwitchContext(&fiber.context, main_context_);
#if defined(SIM_ASAN)
  __sanitizer_finish_switch_fiber(fiber.sanitizer, &main_stack_, &main_stack_size_);
#endif
}

void Scheduler::Entry() {
  Scheduler& self = *t_scheduler;
#if defined(SIM_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &self.main_stack_, &self.main_stack_size_);
#endif
  self.current_->body();
  self.current_->body = nullptr;  // what it holds goes on its own stack
  self.current_->state = State::kDone;
  self.SwitchOut();
  DAGSTORE_CHECK(false);
}

Scheduler::Fiber* Scheduler::Pick() {
  ready_.clear();
  for (const auto& fiber : fibers_) {
    if (fiber->state == State::kWaiting && fiber->until <= now_) {
      fiber->expired = true;
      MakeReady(*fiber);
    }
    if (fiber->state == State::kReady || (fiber->state == State::kContended && fiber->progress != progress_)) {
      ready_.push_back(fiber.get());
    }
  }
  if (ready_.empty()) return nullptr;
  Fiber* next = ready_.size() == 1 ? ready_.front() : PickFrom(ready_);
  return next;
}

Scheduler::Fiber* Scheduler::PickFrom(const std::vector<Fiber*>& ready) {
  const auto oldest = [&ready] {
    return *std::min_element(ready.begin(), ready.end(), [](const Fiber* a, const Fiber* b) {
      return a->ready_at != b->ready_at ? a->ready_at < b->ready_at : a->id < b->id;
    });
  };
  const auto n = static_cast<uint32_t>(ready.size());
  switch (policy_) {
    case Policy::kOldest:
      return oldest();
    case Policy::kUniform:
      return ready[tape_.Draw(Stream::kSchedule, n)];
    case Policy::kPriorities: {
      Fiber* best = *std::max_element(ready.begin(), ready.end(), [](const Fiber* a, const Fiber* b) {
        return a->priority != b->priority ? a->priority < b->priority : a->id > b->id;
      });
      if (steps_ >= change_at_) {  // it has run long enough
        best->priority = 0;
        change_at_ = steps_ + 1 + tape_.Draw(Stream::kSchedule, 200);
      }
      return best;
    }
    case Policy::kStarveOne: {
      if (tape_.Draw(Stream::kSchedule, 64) == 63) return oldest();
      Fiber* pick = ready[tape_.Draw(Stream::kSchedule, n)];
      if (pick->id % 16 != victim_) return pick;
      for (Fiber* other : ready)
        if (other->id % 16 != victim_) return other;
      return pick;
    }
    case Policy::kNewest: {
      if (tape_.Draw(Stream::kSchedule, 16) == 15) return oldest();
      return *std::max_element(ready.begin(), ready.end(), [](const Fiber* a, const Fiber* b) {
        return a->ready_at != b->ready_at ? a->ready_at < b->ready_at : a->id < b->id;
      });
    }
  }
  return ready.front();
}

bool Scheduler::AdvanceTime() {
  MonotonicNanos next = kNever;
  for (const auto& fiber : fibers_) {
    if (fiber->state == State::kWaiting) next = std::min(next, fiber->until);
  }
  if (next == kNever) return false;
  now_ = std::max(now_, next);
  for (const auto& fiber : fibers_) {
    if (fiber->state == State::kWaiting && fiber->until <= now_) {
      fiber->expired = true;
      MakeReady(*fiber);
    }
  }
  return true;
}

void Scheduler::MakeReady(Fiber& fiber) {
  fiber.state = State::kReady;
  fiber.ready_at = steps_;
}

Scheduler::Fiber* Scheduler::Find(uint64_t id) {
  for (const auto& fiber : fibers_)
    if (fiber->id == id) return fiber.get();
  return nullptr;
}

// ---- From fibers ----

uint64_t Scheduler::Spawn(const std::string& name, absl::AnyInvocable<void()> body) {
  auto fiber = std::make_unique<Fiber>();
  fiber->id = next_id_++;
  fiber->name = name;
  fiber->body = std::move(body);
  fiber->stack = NewStack();
  fiber->context = NewContext(fiber->stack, &Scheduler::Entry);
  fiber->ready_at = steps_;
  if (policy_ == Policy::kPriorities) fiber->priority = 1 + tape_.Draw(Stream::kSchedule, 1000);
#if defined(SIM_TSAN)
  fiber->sanitizer = __tsan_create_fiber(0);
#endif
  const uint64_t id = fiber->id;
  fibers_.push_back(std::move(fiber));
  return id;
}

void Scheduler::Join(uint64_t id) {
  if (Find(id) == nullptr) return;  // has ended
  DAGSTORE_CHECK(current_ != nullptr);
  current_->state = State::kJoining;
  current_->joins = id;
  SwitchOut();
}

void Scheduler::Contended(const void*) {
  DAGSTORE_CHECK(current_ != nullptr);
  if (current_->name == "dagstore-loop") ++loop_contended_;
  current_->state = State::kContended;
  current_->progress = progress_;
  SwitchOut();
  current_->state = State::kReady;
}

bool Scheduler::Wait(const void* condition, absl::Duration timeout) {
  DAGSTORE_CHECK(current_ != nullptr);
  Fiber& fiber = *current_;
  fiber.state = State::kWaiting;
  fiber.waits_for = condition;
  fiber.expired = false;
  const int64_t nanos = absl::ToInt64Nanoseconds(timeout);
  fiber.until = nanos >= kNever - now_ ? kNever : now_ + std::max<int64_t>(nanos, 0);
  SwitchOut();
  fiber.waits_for = nullptr;
  return fiber.expired;
}

void Scheduler::Notify(const void* condition, bool all) {
  for (const auto& fiber : fibers_) {
    if (fiber->state != State::kWaiting || fiber->waits_for != condition) continue;
    MakeReady(*fiber);
    if (!all) return;
  }
}

void Scheduler::Yield() {
  DAGSTORE_CHECK(current_ != nullptr);
  MakeReady(*current_);
  // Going on is a step, too, but one that needs no change of stacks.
  Fiber* self = current_;
  if (stop_ || steps_ >= end_) return SwitchOut();
  picked_ = Pick();
  if (picked_ != self) return SwitchOut();
  picked_ = nullptr;
  ++steps_;
  ++progress_;
  now_ += kStepNanos;
  trace_.Add(self->id);
}

void Scheduler::Sleep(absl::Duration time) {
  const char nothing = 0;
  (void)Wait(&nothing, time);
}

const std::string& Scheduler::current_name() const {
  static const std::string none;
  return current_ == nullptr ? none : current_->name;
}

std::string Scheduler::Describe() const {
  static constexpr const char* kStates[] = {"ready", "waits for a lock", "waits for a condition", "joins", "done"};
  std::string out;
  for (const auto& fiber : fibers_) {
    out += fmt::format("  fiber {} {}: {}", fiber->id, fiber->name, kStates[static_cast<int>(fiber->state)]);
    if (fiber->state == State::kJoining) out += fmt::format(" {}", fiber->joins);
    if (fiber->state == State::kWaiting && fiber->until != kNever) {
      out += fmt::format(" for {} ms at most", (fiber->until - now_) / 1'000'000);
    }
    out += '\n';
  }
  return out;
}

}  // namespace dagstore::sim
