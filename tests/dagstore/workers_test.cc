// Goal: work that waits long for others holds up nobody who is queued behind it; the threads that stand in go again.
#include "dagstore/workers.h"

#include <atomic>
#include <set>
#include <thread>

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("workers: what is queued behind work that waits is run by a stand-in") {
  Notification freed;
  std::atomic<int> waiters_done = 0;
  {
    WorkerPool pool("test", 1);
    for (int i = 0; i < 3; ++i) {
      pool.Post([&] {
        const LongWait wait(&pool);
        freed.WaitForNotification();
        ++waiters_done;
      });
    }
    pool.Post([&] { freed.Notify(); });
  }
  CHECK_EQ(waiters_done, 3);
}

TEST_CASE("workers: no more stand in than the limit says") {
  constexpr int kWork = 3 * static_cast<int>(WorkerPool::kStandInsMax);
  constexpr int kAtOnce = static_cast<int>(WorkerPool::kStandInsMax) + 1;
  Notification full, freed;
  std::atomic<int> waiting = 0, most = 0, done = 0;
  {
    WorkerPool pool("test", 1);
    for (int i = 0; i < kWork; ++i) {
      pool.Post([&] {
        const LongWait wait(&pool);
        const int now = ++waiting;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        if (now == kAtOnce) full.Notify();
        freed.WaitForNotification();
        --waiting;
        ++done;
      });
    }
    full.WaitForNotification();
    freed.Notify();
  }
  CHECK_EQ(done, kWork);
  CHECK_EQ(most, kAtOnce);
}

TEST_CASE("workers: what comes when nobody waits any more is run by the pool's own threads") {
  Notification freed, over;
  std::atomic<int> ended = 0;
  Mutex mu;
  std::set<std::thread::id> threads;
  {
    WorkerPool pool("test", 1);
    for (int i = 0; i < 3; ++i) {
      pool.Post([&] {
        {
          const LongWait wait(&pool);
          freed.WaitForNotification();
        }
        if (++ended == 3) over.Notify();
      });
    }
    pool.Post([&] { freed.Notify(); });
    over.WaitForNotification();
    for (int i = 0; i < 100; ++i) {
      pool.Post([&] {
        MutexLock lock(mu);
        threads.insert(std::this_thread::get_id());
      });
    }
  }
  CHECK_EQ(threads.size(), 1);
}

}  // namespace
}  // namespace dagstore
