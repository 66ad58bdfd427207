#include "dagstore/loop_uv.h"

#include <uv.h>

#include <algorithm>
#include <system_error>
#include <thread>

#include "base/check.h"

namespace dagstore {
namespace {

// While turns keep coming, I/O and timers of the loop are served at least this often.
constexpr int kTurnsPerPoll = 64;

}  // namespace

struct UvLoop::Handles {
  uv_loop_t loop;
  uv_async_t wake;
  uv_timer_t timer;
};

UvLoop::UvLoop(std::shared_ptr<TaskQueues> queues, absl::Duration spin, const Clock& clock)
    : queues_(std::move(queues)),
      spin_(std::thread::hardware_concurrency() > 1 ? absl::ToInt64Nanoseconds(spin) : 0),
      clock_(clock) {}

UvLoop::~UvLoop() { DAGSTORE_CHECK(!thread_.joinable()); }

absl::Status UvLoop::Start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  handles_ = std::make_unique<Handles>();
  if (const int error = uv_loop_init(&handles_->loop); error != 0) {
    return ResourceExhausted("cannot make an event loop: {}", uv_strerror(error));
  }
  // A wake-up may stand for many posts: the turn drains, it never counts.
  if (const int error = uv_async_init(&handles_->loop, &handles_->wake, [](uv_async_t*) {}); error != 0) {
    uv_loop_close(&handles_->loop);
    return ResourceExhausted("cannot make a wake-up handle: {}", uv_strerror(error));
  }
  DAGSTORE_CHECK(uv_timer_init(&handles_->loop, &handles_->timer) == 0);
  queues_->SetWaker([handles = handles_.get()] { uv_async_send(&handles->wake); });
  try {
    thread_ = Thread("dagstore-loop", [this] { Run(); });
  } catch (const std::system_error&) {
    queues_->SetWaker(nullptr);
    CloseHandles();
    throw;
  }
  return absl::OkStatus();
}

void UvLoop::Join() {
  if (thread_.joinable()) thread_.Join();
}

void UvLoop::Run() {
  callbacks_.begin();
  int turns = 0;
  // Requests come one after the other: worth looking for the next. After a long sleep they do not, and a loop that
  // looks may keep from running the very caller it has just answered.
  bool warm = true;
  for (;;) {
    const bool more = callbacks_.turn();
    if (more) {
      if (++turns % kTurnsPerPoll == 0) uv_run(&handles_->loop, UV_RUN_NOWAIT);
      continue;
    }
    if (callbacks_.finished()) break;
    const Deadline timer = callbacks_.next_timer();
    for (int i = 0; warm && i < 64 && !queues_->HasWork(); ++i) __builtin_ia32_pause();
    if (queues_->HasWork()) continue;
    MonotonicNanos now = clock_.Now();
    if (timer.Passed(now)) continue;
    // Look for work: a look costs nothing, a wake-up 25 to 40 us.
    const MonotonicNanos until = warm ? now + spin_ : now;
    while (!queues_->HasWork() && now < until && !timer.Passed(now)) {
      for (int i = 0; i < 64 && !queues_->HasWork(); ++i) __builtin_ia32_pause();
      now = clock_.Now();
    }
    if (queues_->HasWork() || timer.Passed(now)) continue;
    if (!queues_->PrepareSleep()) continue;
    Sleep(timer);
    queues_->Awake();
    warm = clock_.Now() - now < 3 * spin_;  // looking included
  }
  callbacks_.end();
  queues_->Shut();  // from here nobody wakes us
  CloseHandles();
}

void UvLoop::CloseHandles() {
  uv_close(reinterpret_cast<uv_handle_t*>(&handles_->wake), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&handles_->timer), nullptr);
  uv_run(&handles_->loop, UV_RUN_DEFAULT);
  DAGSTORE_CHECK(uv_loop_close(&handles_->loop) == 0);
}

void UvLoop::Sleep(Deadline until) {
  if (!until.IsInfinite()) {
    const int64_t nanos = std::max<int64_t>(until.at() - clock_.Now(), 0);
    uv_update_time(&handles_->loop);
    uv_timer_start(&handles_->timer, [](uv_timer_t*) {}, static_cast<uint64_t>(nanos / 1'000'000 + 1), 0);
  }
  uv_run(&handles_->loop, UV_RUN_ONCE);
  uv_timer_stop(&handles_->timer);
}

}  // namespace dagstore
