// Acquire and release: through the loop, warm and asleep, and without it.
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
#include "tools/bench/reference.h"
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

// One cache line there and one back between the two cores, both spinning: what any answer of another thread costs.
double PingPongMicros(size_t rounds) {
  alignas(64) std::atomic<size_t> ask{0};
  alignas(64) std::atomic<size_t> answer{0};
  std::thread other([&] {
    for (size_t i = 1; i <= rounds; ++i) {
      while (ask.load(std::memory_order_acquire) != i) __builtin_ia32_pause();
      answer.store(i, std::memory_order_release);
    }
  });
  Pin(other.native_handle(), 1);
  const double took = Seconds([&] {
    for (size_t i = 1; i <= rounds; ++i) {
      ask.store(i, std::memory_order_release);
      while (answer.load(std::memory_order_acquire) != i) __builtin_ia32_pause();
    }
  });
  other.join();
  return 1e6 * took / static_cast<double>(rounds);
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
  std::vector<double> p50, p99, bare;
  for (int i = 0; i < config.repeats(); ++i) {
    bare.push_back(PingPongMicros(rounds));
    const std::vector<double> micros = RoundTrips(store, rounds, false);
    p50.push_back(Median(micros));
    p99.push_back(Percentile(micros, 0.99));
  }
  PrintFigure("a cache line to the other core and one back", Median(bare), "us");
  PrintFigure("acquire round trip, loop warm, p50", Median(p50), "us", "<= 2");
  PrintFigure("acquire round trip, loop warm, p99", Median(p99), "us", "<= 10");

  const size_t slow_rounds = config.quick ? 200 : 2000;
  ComparePair(config, {"acquire round trip, loop asleep, p99", "us", "", "bare eventfd wake-up", "<= 2"},
              [&] { return Percentile(RoundTrips(store, slow_rounds, true), 0.99); },
              [&] { return WakeFloorP99(slow_rounds); });
}

// Nanoseconds of an acquire and a release by `threads`, each of them, without the loop.
template <typename Acquire>
double InlineNanos(int threads, size_t cycles, Acquire acquire) {
  std::vector<std::thread> callers;
  const double took = Seconds([&] {
    for (int t = 0; t < threads; ++t) {
      callers.emplace_back([&] {
        auto one = acquire();
        for (size_t i = 0; i < cycles; ++i) one();
      });
    }
    for (std::thread& caller : callers) caller.join();
  });
  return 1e9 * took / static_cast<double>(cycles) / threads;
}

// Without the loop, against round trips of the same store's loop, and against two synced events a cycle.
void BenchInline(const BenchConfig& config) {
  const std::string key = "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y0000001";  // 64 bytes
  const auto store = OpenBenchStore(BenchOptions(config.dir + "/inline"));
  Options slow_options = BenchOptions(config.dir + "/loop");
  slow_options.inline_acquire = false;
  const auto slow = OpenBenchStore(slow_options);
  for (DagStore* s : {store.get(), slow.get()}) {
    DAGSTORE_CHECK_OK(s->RegisterShardSync(key, BytesMountOf(SampleCar(1, 1, 1000))));
    DAGSTORE_CHECK_OK(s->RegisterShardSync("shard", BytesMountOf(SampleCar(1, 1, 1000))));
    DAGSTORE_CHECK_OK(s->AcquireShardSync(key).status());
    DAGSTORE_CHECK_OK(s->AcquireShardSync("shard").status());
  }
  const size_t cycles = config.quick ? 100'000 : 2'000'000;
  const auto by_ref = [&] {
    auto ref = store->Resolve(ShardKey(key));
    DAGSTORE_CHECK_OK(ref.status());
    return [ref = *std::move(ref)]() mutable { DAGSTORE_CHECK_OK(ref.Acquire().status()); };
  };
  const auto by_key = [&] {
    return [&store, wanted = ShardKey(key)] { DAGSTORE_CHECK_OK(store->AcquireShardSync(wanted).status()); };
  };
  const size_t rounds = config.quick ? 2000 : 20'000, slow_rounds = config.quick ? 100 : 1000;
  const auto polled = [&] { return 1e3 * Median(RoundTrips(*slow, rounds, false)); };
  const auto asleep = [&] { return 1e3 * Median(RoundTrips(*slow, slow_rounds, true)); };
  Reference reference(config.dir + "/reference");
  const size_t events = config.quick ? 50 : 500;
  const auto durable = [&] {
    return 1e9 / static_cast<double>(events) * Seconds([&] {
             for (size_t i = 0; i < events; ++i) reference.Cycle(key);
           });
  };
  const auto ref_nanos = [&] { return InlineNanos(1, cycles, by_ref); };
  ComparePair(config, {"acquire+release by handle, 1 thread", "ns", "", "round trip, loop warm", "<= 1/12 = 0.083"},
              ref_nanos, polled);
  ComparePair(config, {"  the same", "ns", "", "round trip, loop asleep", "<= 1/800 = 0.00125"}, ref_nanos, asleep);
  ComparePair(config, {"  the same", "ns", "", "the original's shape, durable", "<= 0.001"}, ref_nanos, durable);
  ComparePair(config, {"acquire+release by 64-byte key, 2 threads", "ns", "", "round trip, loop asleep", "<= 0.01"},
              [&] { return InlineNanos(2, cycles, by_key); }, asleep);
  PrintFigure("acquire+release by handle, 2 threads, 1 shard", InlineNanos(2, cycles, by_ref), "ns");

  // A shard of many entries: the mapping open, and closed.
  const size_t blocks = config.quick ? 1 << 13 : 1 << 18;
  const std::string path = config.dir + "/large.car";
  WriteSampleCar(path, 6, blocks, 64);
  reference.RegisterIndexed("large", path);
  DAGSTORE_CHECK_OK(store->RegisterShardSync("large", FileMountOf(*store, path)));
  Options one_open = BenchOptions(config.dir + "/cold");
  one_open.open_shards_max = 0;
  one_open.inline_acquire = false;
  const auto cold = OpenBenchStore(one_open);
  DAGSTORE_CHECK_OK(cold->RegisterShardSync("large", FileMountOf(*cold, path)));
  const auto micros = [](size_t n, auto work) {
    return 1e6 / static_cast<double>(n) * Seconds([&] {
             for (size_t i = 0; i < n; ++i) work();
           });
  };
  const auto whole = [&] { return micros(config.quick ? 5 : 50, [&] { reference.AcquireIndexed("large"); }); };
  const std::string name = fmt::format("acquire of {} Ki entries", blocks >> 10);
  ComparePair(config, {name + ", mapping closed", "us", "", "the whole index read, durable", "<= 0.01"},
              [&] {
                std::vector<double> each;
                for (size_t i = 0; i < 200; ++i) {
                  each.push_back(micros(1, [&] { DAGSTORE_CHECK_OK(cold->AcquireShardSync("large").status()); }));
                  while (cold->Stats()->engine.open_shards != 0) std::this_thread::yield();
                }
                return Median(each);
              },
              whole);
  ComparePair(config, {name + ", mapping open", "us", "", "the whole index read, durable", "<= 0.001"},
              [&] { return micros(10'000, [&] { DAGSTORE_CHECK_OK(store->AcquireShardSync("large").status()); }); },
              whole);
  for (DagStore* s : {store.get(), slow.get(), cold.get()}) DAGSTORE_CHECK_OK(s->Close());
}

}  // namespace

void BenchAcquire(const BenchConfig& config) {
  BenchInline(config);
  Options options = BenchOptions(config.dir + "/repo");
  options.inline_acquire = false;
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
