// Acquire and release through the loop: round trips while it is warm and asleep, and throughput.
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "tools/bench/bench.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

// A wake-up costs five times as much if the sleeper is on another core. So that both sides of the comparison mean the
// same, the caller stays on core 0 and whoever is woken on core 1.
void Pin(pthread_t thread, unsigned core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core % std::max(1u, std::thread::hardware_concurrency()), &cores);
  (void)pthread_setaffinity_np(thread, sizeof(cores), &cores);
}
void PinByName(const std::string& name, unsigned core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core % std::max(1u, std::thread::hardware_concurrency()), &cores);
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string comm;
    std::getline(std::ifstream(task.path() / "comm") >> std::ws, comm);
    if (comm == name) (void)sched_setaffinity(std::stoi(task.path().filename()), sizeof(cores), &cores);
  }
}

// A thread that sleeps in read(eventfd), woken by us, who then sleep until it answers: the floor under any loop.
double WakeFloorP99(size_t rounds) {
  const int ask = eventfd(0, EFD_CLOEXEC), answer = eventfd(0, EFD_CLOEXEC);
  DAGSTORE_CHECK(ask >= 0 && answer >= 0);
  std::thread sleeper([&] {
    for (size_t i = 0; i < rounds; ++i) {
      uint64_t value = 0;
      DAGSTORE_CHECK(read(ask, &value, 8) == 8);
      value = 1;
      DAGSTORE_CHECK(write(answer, &value, 8) == 8);
    }
  });
  Pin(sleeper.native_handle(), 1);
  std::vector<double> micros;
  for (size_t i = 0; i < rounds; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    micros.push_back(1e6 * Seconds([&] {
                       uint64_t value = 1;
                       DAGSTORE_CHECK(write(ask, &value, 8) == 8);
                       DAGSTORE_CHECK(read(answer, &value, 8) == 8);
                     }));
  }
  sleeper.join();
  close(ask);
  close(answer);
  return Percentile(micros, 0.99);
}

std::vector<double> RoundTrips(DagStore& store, size_t rounds, bool let_it_sleep) {
  std::vector<double> micros;
  micros.reserve(rounds);
  for (size_t i = 0; i < rounds; ++i) {
    if (let_it_sleep) std::this_thread::sleep_for(std::chrono::microseconds(300));
    micros.push_back(1e6 * Seconds([&] { DAGSTORE_CHECK_OK(store.AcquireShardSync("shard").status()); }));
  }
  return micros;
}

// `threads` callers with `window` requests under way each; cycles per second.
double Cycles(DagStore& store, int threads, size_t window, double seconds) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> cycles{0};
  std::vector<std::thread> callers;
  const double took = Seconds([&] {
    for (int t = 0; t < threads; ++t) {
      callers.emplace_back([&] {
        const Channel<ShardResult> out(window);
        uint64_t done = 0;
        for (size_t i = 0; i < window; ++i) DAGSTORE_CHECK_OK(store.AcquireShard("shard", out).status());
        while (!stop.load(std::memory_order_relaxed)) {
          { ShardResult result = out.Receive(); DAGSTORE_CHECK_OK(result.status); }
          ++done;
          DAGSTORE_CHECK_OK(store.AcquireShard("shard", out).status());
        }
        for (size_t i = 0; i < window; ++i) { ShardResult result = out.Receive(); DAGSTORE_CHECK_OK(result.status); }
        cycles.fetch_add(done);
      });
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    stop.store(true);
    for (std::thread& caller : callers) caller.join();
  });
  return static_cast<double>(cycles.load()) / took;
}

void BenchRoundTrips(const BenchConfig& config, DagStore& store) {
  const size_t rounds = config.quick ? 2000 : 50'000;
  std::vector<double> p50, p99;
  for (int i = 0; i < config.repeats(); ++i) {
    const std::vector<double> micros = RoundTrips(store, rounds, false);
    p50.push_back(Median(micros));
    p99.push_back(Percentile(micros, 0.99));
  }
  PrintFigure("acquire round trip, loop warm, p50", Median(p50), "us", "<= 2");
  PrintFigure("acquire round trip, loop warm, p99", Median(p99), "us", "<= 10");

  const size_t slow_rounds = config.quick ? 200 : 2000;
  ComparePair(config, {"acquire round trip, loop asleep, p99", "us", "", "bare eventfd wake-up", "<= 2"},
              [&] { return Percentile(RoundTrips(store, slow_rounds, true), 0.99); },
              [&] { return WakeFloorP99(slow_rounds); });
}

}  // namespace

void BenchAcquire(const BenchConfig& config) {
  Options options = BenchOptions(config.dir + "/repo");
  const auto store = OpenBenchStore(options);
  DAGSTORE_CHECK_OK(store->RegisterShardSync("shard", BytesMountOf(SampleCar(1, 1, 1000))));
  { auto first = store->AcquireShardSync("shard"); DAGSTORE_CHECK_OK(first.status()); }
  const uint64_t syncs = store->Stats()->syncs;

  std::thread([&] {  // a thread of its own: pinning it concerns nothing else
    Pin(pthread_self(), 0);
    PinByName("dagstore-loop", 1);
    BenchRoundTrips(config, *store);
  }).join();

  std::vector<double> rates;
  for (int i = 0; i < config.repeats(); ++i) rates.push_back(Cycles(*store, 2, 64, config.quick ? 0.2 : 1.0));
  PrintFigure("acquire+release, 2 threads, 64 under way each", Median(rates), "cycles/s", ">= 300000");
  PrintFigure("syncs during all of it", static_cast<double>(store->Stats()->syncs - syncs), "syncs", "0");
  DAGSTORE_CHECK_OK(store->Close());
}

}  // namespace dagstore
