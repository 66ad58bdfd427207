// What tracing costs those who are not traced, and those who are; and how soon a stop reaches a fetch that hangs.
#include <malloc.h>
#include <poll.h>
#include <time.h>

#include <atomic>
#include <thread>

#include "base/check.h"
#include "dagstore/tracer.h"
#include "tools/bench/bench.h"
#include "tools/bench/samples.h"

namespace dagstore {
namespace {

class NowhereExporter final : public SpanExporter {
 public:
  absl::StatusOr<size_t> Export(std::vector<SpanRecord> batch, const WorkContext&) override { return batch.size(); }
};

// Keeps a value from being computed away.
template <typename T>
void Keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

// Nanoseconds of this thread's own time for each of `rounds` rounds. Other programs do not count, other threads of this
// one do where they make it wait for cache lines.
template <typename Work>
double NanosEach(size_t rounds, const Work& work) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
  };
  const double before = now();
  for (size_t n = 0; n < rounds; ++n) work(n);
  return (now() - before) / static_cast<double>(rounds);
}

// A request of an untraced caller: its span and the decision, its job's, and that of a side effect.
void BenchDerivation(const BenchConfig& config) {
  const size_t rounds = config.quick ? 1'000'000 : 20'000'000;
  const TraceSampler sampler(TraceSampler::Kind::kParentBased, 0.01);
  SpanIds ids(7);
  const TaskMeta parent(ids.Root(false), Deadline::At(1), 1);
  std::vector<double> roots, children, detached;
  for (std::vector<double>* figures : {&roots, &children, &detached}) {
    figures->reserve(static_cast<size_t>(config.repeats()));
  }
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < config.repeats(); ++i) {
    roots.push_back(NanosEach(rounds, [&](size_t n) {
      const SpanContext root = ids.RootOf(n);
      Keep(sampler.Sample({}, root));
      Keep(root);
    }));
    children.push_back(NanosEach(rounds, [&](size_t) { Keep(parent.Child(ids.Next())); }));
    detached.push_back(NanosEach(rounds, [&](size_t) { Keep(parent.Detached(ids.Root(false), Deadline::At(2))); }));
  }
  const size_t allocated = mallinfo2().uordblks - before;
  PrintFigure("unsampled: root span and decision", Median(roots), "ns", "<= 10");
  PrintFigure("unsampled: child of a task", Median(children), "ns", "<= 10");
  PrintFigure("unsampled: detached from a task", Median(detached), "ns", "<= 10");
  PrintFigure("unsampled: bytes allocated", static_cast<double>(allocated), "bytes", "0");
}

// Two looks at the clock, four attributes, and into the ring; the exporter's thread takes them out beside it.
void BenchSampled(const BenchConfig& config) {
  const size_t rounds = config.quick ? 100'000 : 1'000'000;
  TracerOptions options;
  options.spans_waiting_max = 1 << 16;
  Tracer tracer(options, std::make_unique<NowhereExporter>());
  SpanIds ids(7);
  const SpanContext parent = ids.Root(true);
  std::vector<double> nanos;
  for (int i = 0; i < config.repeats(); ++i) {
    nanos.push_back(NanosEach(rounds, [&](size_t n) {
      SpanRecord span("dagstore.acquire", parent.Child(n), parent, Clock::Real().Now());
      span.AddText("dagstore.shard.key", "a-shard-key-of-common-length");
      span.Add("dagstore.queue.wait_us", 12);
      span.Add("dagstore.job.id", static_cast<int64_t>(n));
      span.AddBool("dagstore.inline", true);
      span.end = Clock::Real().Now();
      tracer.Record(std::move(span));
    }));
  }
  PrintFigure("sampled: a span with 4 attributes into the ring", Median(nanos), "ns", "<= 150");
}

double CyclesThroughTheLoop(DagStore& store, double seconds) {
  std::atomic<bool> stop{false};
  uint64_t done = 0;
  constexpr size_t kWindow = 64;
  const Channel<ShardResult> out(kWindow);
  for (size_t i = 0; i < kWindow; ++i) DAGSTORE_CHECK_OK(store.AcquireShard(ShardKey("shard"), out).status());
  std::thread timer([&] {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    stop.store(true);
  });
  const double took = Seconds([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      { const ShardResult result = out.Receive(); DAGSTORE_CHECK_OK(result.status); }
      ++done;
      DAGSTORE_CHECK_OK(store.AcquireShard(ShardKey("shard"), out).status());
    }
  });
  timer.join();
  for (size_t i = 0; i < kWindow; ++i) { const ShardResult result = out.Receive(); DAGSTORE_CHECK_OK(result.status); }
  return static_cast<double>(done) / took;
}

double CyclesInline(DagStore& store, size_t rounds) {
  const ShardKey key("shard");
  return 1e9 / NanosEach(rounds, [&](size_t) { DAGSTORE_CHECK_OK(store.AcquireShardSync(key).status()); });
}

std::unique_ptr<DagStore> StoreWith(const BenchConfig& config, const std::string& name, bool inline_acquire,
                                    bool traced) {
  Options options = BenchOptions(config.dir + "/" + name);
  options.inline_acquire = inline_acquire;
  if (traced) {
    options.trace.sink = std::make_shared<Tracer>(TracerOptions(), std::make_unique<NowhereExporter>());
    options.trace.sampler = TraceSampler(TraceSampler::Kind::kParentBased, 0.01);
  }
  auto store = OpenBenchStore(options);
  DAGSTORE_CHECK_OK(store->RegisterShardSync(ShardKey("shard"), BytesMountOf(SampleCar(1, 1, 1000))));
  { auto first = store->AcquireShardSync(ShardKey("shard")); DAGSTORE_CHECK_OK(first.status()); }
  return store;
}

void BenchRate(const BenchConfig& config) {
  for (const bool inline_acquire : {false, true}) {
    const auto traced = StoreWith(config, inline_acquire ? "traced-inline" : "traced-loop", inline_acquire, true);
    const auto plain = StoreWith(config, inline_acquire ? "plain-inline" : "plain-loop", inline_acquire, false);
    const size_t rounds = config.quick ? 500'000 : 10'000'000;
    const auto rate = [&](DagStore& store) {
      return inline_acquire ? CyclesInline(store, rounds) : CyclesThroughTheLoop(store, config.quick ? 0.2 : 1.0);
    };
    (void)rate(*traced), (void)rate(*plain);  // warm
    const char* name = inline_acquire ? "acquire+release, inline, 1 % traced" : "acquire+release, loop, 1 % traced";
    ComparePair(config, {name, "cycles/s", "", "the same, not traced", ">= 0.97"},
                [&] { return rate(*traced); }, [&] { return rate(*plain); });
    DAGSTORE_CHECK_OK(traced->Close());
    DAGSTORE_CHECK_OK(plain->Close());
  }
}

// A server that accepts and never answers.
class DeadStream final : public ByteStream {
 public:
  DeadStream(const WorkContext& work, std::atomic<int>& reading) : work_(work), reading_(reading) {}
  absl::StatusOr<size_t> Next(size_t, uint8_t*) override {
    reading_.fetch_add(1);
    for (;;) {
      pollfd wake = {work_.cancel->WakeFd(), POLLIN, 0};
      (void)poll(&wake, 1, -1);
      RETURN_IF_ERROR(work_.Check());
    }
  }

 private:
  const WorkContext work_;
  std::atomic<int>& reading_;
};
class DeadMount final : public Mount {
 public:
  explicit DeadMount(std::atomic<int>& reading) : reading_(reading) {}
  MountTraits traits() const override { return {}; }
  Url url() const override { return *Url::Parse("dead:x"); }
  absl::StatusOr<MountStat> Stat(Io&, const WorkContext&) const override {
    MountStat stat;
    stat.exists = stat.ready = true;
    return stat;
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work, uint64_t) const override {
    return std::make_unique<DeadStream>(work, reading_);
  }

 private:
  std::atomic<int>& reading_;
};

void BenchStop(const BenchConfig& config) {
  std::atomic<int> reading{0};
  Options options = BenchOptions(config.dir + "/stop");
  MountRegistry mounts;
  DAGSTORE_CHECK_OK(mounts.Register("dead", [&reading](const Url&) -> absl::StatusOr<std::unique_ptr<Mount>> {
    return std::make_unique<DeadMount>(reading);
  }));
  options.mounts = std::make_shared<const MountRegistry>(std::move(mounts));
  auto store = OpenBenchStore(options);
  RegisterOptions lazy;
  lazy.lazy = true;
  DAGSTORE_CHECK_OK(store->RegisterShardSync(ShardKey("dead"), std::make_unique<DeadMount>(reading), lazy));
  std::vector<double> millis;
  const Channel<ShardResult> out(1);
  for (int i = 0; i < (config.quick ? 20 : 500); ++i) {
    const int before = reading.load();
    const absl::StatusOr<Ticket> ticket = store->AcquireShard(ShardKey("dead"), out);
    DAGSTORE_CHECK_OK(ticket.status());
    while (reading.load() == before) std::this_thread::yield();
    millis.push_back(1e3 * Seconds([&] {
                       DAGSTORE_CHECK_OK(store->Stop(*ticket));
                       DAGSTORE_CHECK(absl::IsCancelled(out.Receive().status));
                     }));
  }
  PrintFigure("stop of a fetch that hangs, p50", Median(millis), "ms");
  PrintFigure("stop of a fetch that hangs, the slowest", Percentile(millis, 1.0), "ms", "<= 50");
  DAGSTORE_CHECK_OK(store->Close());
}

}  // namespace

void BenchTrace(const BenchConfig& config) {
  BenchDerivation(config);
  BenchSampled(config);
  BenchRate(config);
  BenchStop(config);
}

}  // namespace dagstore
