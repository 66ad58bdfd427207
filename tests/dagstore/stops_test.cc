// Goal: stops and deadlines of the whole store, with real threads: what a caller was promised when a call returns.
// Method: a source that hangs as a dead server does, until its work is told to stop.
#include <poll.h>

#include <thread>

#include "mount/bytes_mount.h"
#include "tests/dagstore/store_testing.h"
#include "tests/mount/remote_mount.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// How the reads of one source are doing.
struct Stall {
  Mutex mu;
  CondVar changed;
  size_t inside ABSL_GUARDED_BY(mu) = 0;
  size_t cancelled ABSL_GUARDED_BY(mu) = 0;
  bool let_go ABSL_GUARDED_BY(mu) = false;  // the server answers after all

  void AwaitReaders(size_t n) {
    MutexLock lock(mu);
    while (inside < n) changed.Wait(mu);
  }
  void LetGo() {
    MutexLock lock(mu);
    let_go = true;
    changed.NotifyAll();
  }
  size_t Cancelled() {
    MutexLock lock(mu);
    return cancelled;
  }
};

// Sends nothing until it is let go. As a socket: waits for data and for the stop of its work, together.
class StalledStream final : public ByteStream {
 public:
  StalledStream(Stall& stall, const Bytes& content, const WorkContext& work)
      : stall_(stall), content_(content), work_(work) {}

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    {
      MutexLock lock(stall_.mu);
      ++stall_.inside;
      stall_.changed.NotifyAll();
    }
    for (;;) {
      {
        MutexLock lock(stall_.mu);
        if (stall_.let_go) break;
      }
      pollfd wake = {work_.cancel->WakeFd(), POLLIN, 0};
      (void)poll(&wake, 1, 5);  // and see whether it was let go
      if (const absl::Status status = work_.Check(); !status.ok()) {
        MutexLock lock(stall_.mu);
        ++stall_.cancelled;
        return status;
      }
    }
    const size_t n = std::min<uint64_t>(size, content_.size() - done_);
    std::copy_n(content_.begin() + static_cast<std::ptrdiff_t>(done_), n, out);
    done_ += n;
    return n;
  }

 private:
  Stall& stall_;
  const Bytes& content_;
  const WorkContext work_;
  size_t done_ = 0;
};

class StalledMount final : public Mount {
 public:
  StalledMount(Stall& stall, const Bytes& content) : stall_(stall), content_(content) {}
  MountTraits traits() const override { return {}; }
  Url url() const override { return ValueOf(Url::Parse("stalled:x")); }
  absl::StatusOr<MountStat> Stat(Io&, const WorkContext&) const override {
    MountStat stat;
    stat.exists = stat.ready = stat.size_known = true;
    stat.size = content_.size();
    stat.validator = "v1";
    return stat;
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work, uint64_t) const override {
    return std::make_unique<StalledStream>(stall_, content_, work);
  }

 private:
  Stall& stall_;
  const Bytes& content_;
};

class StalledStore {
 public:
  explicit StalledStore(Options options = {}) {
    options.dir = dir_.path() + "/repo";
    MountRegistry mounts;
    REQUIRE_STATUS_OK(mounts.Register("stalled", [this](const Url&) -> absl::StatusOr<std::unique_ptr<Mount>> {
      return std::make_unique<StalledMount>(stall, content);
    }));
    options.mounts = std::make_shared<const MountRegistry>(std::move(mounts));
    options.fills_running_max = 0;
    store = ValueOf(DagStore::Open(options));
    RegisterOptions lazy;
    lazy.lazy = true;
    REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("k"), MountOfUrl(*store, "stalled:x"), lazy));
  }

  const Bytes content = MakeCar(1, 5);
  Stall stall;
  std::unique_ptr<DagStore> store;

 private:
  TempDir dir_;
};

TEST_CASE("stops: RemoteCancelReachesPeer") {
  StalledStore world;
  const Channel<ShardResult> out(4);
  const Ticket ticket = ValueOf(world.store->AcquireShard(ShardKey("k"), out));
  world.stall.AwaitReaders(1);
  CHECK(ValueOf(world.store->StopSync(ticket)) == StopOutcome::kStopping);
  const ShardResult result = out.Receive();
  CHECK_CODE(result.status, kCancelled);
  CHECK_FALSE(result.work_abandoned);
  CHECK_EQ(world.stall.Cancelled(), 1);  // before the answer, the read had seen it
  CHECK(ValueOf(world.store->StopSync(ticket)) == StopOutcome::kAlreadyDone);
  CHECK_EQ(ValueOf(world.store->GetShardInfo(ShardKey("k"))).state, ShardState::kNew);
  // Nothing has stuck: the next caller gets the data.
  world.stall.LetGo();
  CHECK_STATUS_OK(world.store->AcquireShardSync(ShardKey("k")));
}

TEST_CASE("stops: a caller's token stops each Sync call, and it returns when the work has ended") {
  StalledStore world;
  for (const bool before : {false, true}) {
    CAPTURE(before);
    std::stop_source stop;
    const size_t cancelled = world.stall.Cancelled();
    std::thread stopper;
    if (before) {
      stop.request_stop();
    } else {
      stopper = std::thread([&] {
        world.stall.AwaitReaders(1);
        stop.request_stop();
      });
    }
    const absl::Status status = world.store->AcquireShardSync(ShardKey("k"), {}, stop.get_token()).status();
    CHECK_CODE(status, kCancelled);
    if (!before) CHECK_EQ(world.stall.Cancelled(), cancelled + 1);
    if (stopper.joinable()) stopper.join();
  }
  std::stop_source stop;
  stop.request_stop();
  CHECK_CODE(world.store->RegisterShardSync(ShardKey("n"), MountOfUrl(*world.store, "stalled:x"), {}, stop.get_token()),
             kCancelled);
  CHECK_CODE(world.store->RecoverShardSync(ShardKey("k"), {}, stop.get_token()), kCancelled);
  CHECK_CODE(world.store->DestroyShardSync(ShardKey("k"), {}, stop.get_token()), kCancelled);
  world.stall.LetGo();
  std::stop_source late;
  CHECK_STATUS_OK(world.store->AcquireShardSync(ShardKey("k"), {}, late.get_token()));
  CHECK_STATUS_OK(world.store->DestroyShardSync(ShardKey("k"), {}, late.get_token()));
  late.request_stop();  // after the end: nothing
}

TEST_CASE("stops: a deadline ends an acquire that nothing else would") {
  StalledStore world;
  AcquireOptions hasty;
  hasty.deadline = Deadline::After(Clock::Real(), absl::Milliseconds(30));
  CHECK_CODE(world.store->AcquireShardSync(ShardKey("k"), hasty), kDeadlineExceeded);
  CHECK_EQ(world.stall.Cancelled(), 1);
}

TEST_CASE("stops: options of every call have deadlines") {
  const auto store = ValueOf(DagStore::Open(StoreOptions("")));
  REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), ValueOf(NewBytesMount(MakeCar(1, 3)))));
  RequestOptions late;
  late.deadline = Deadline::At(1);
  const TestBlock block = MakeBlock(1, 0);
  CHECK_CODE(store->GetShardInfo(ShardKey("a"), late), kDeadlineExceeded);
  CHECK_CODE(store->ShardsContainingMultihash(block.cid.hash(), 10, late), kDeadlineExceeded);
  CHECK_CODE(store->ShardsWithRoot(block.cid, 10, late), kDeadlineExceeded);
  CHECK_CODE(store->AddManifest(ShardKey("a"), "rule", 1, {}, late), kDeadlineExceeded);
  CHECK_CODE(store->DropManifest(ShardKey("a"), "rule", 1, late), kDeadlineExceeded);
  GcOptions gc;
  gc.deadline = late.deadline;
  CHECK_CODE(store->Gc(gc), kDeadlineExceeded);
  gc = GcOptions();
  gc.traceparent = "no traceparent";
  CHECK_CODE(store->Gc(gc), kInvalidArgument);
  ListShardsOptions list;
  list.deadline = late.deadline;
  CHECK_CODE(store->ListShards(list), kDeadlineExceeded);
  CHECK_CODE(store->StopSync(1).status(), kOk);
  REQUIRE_STATUS_OK(store->Close());
  CHECK_CODE(store->Stop(1), kFailedPrecondition);
  CHECK_CODE(store->StopSync(1), kFailedPrecondition);
}

TEST_CASE("stops: Close stops what hangs, answers it, and may be called twice and at once") {
  Options options;
  options.close_grace = absl::Milliseconds(1);
  StalledStore world(options);
  const Channel<ShardResult> out(8);
  for (int i = 0; i < 3; ++i) REQUIRE_STATUS_OK(world.store->AcquireShard(ShardKey("k"), out).status());
  world.stall.AwaitReaders(1);
  std::thread other([&] { CHECK_STATUS_OK(world.store->Close()); });
  CHECK_STATUS_OK(world.store->Close());
  other.join();
  for (int i = 0; i < 3; ++i) {
    const ShardResult result = out.Receive();
    CHECK_CODE(result.status, kCancelled);
    CHECK(result.stop_reason == StopReason::kShuttingDown);
  }
  CHECK_EQ(world.stall.Cancelled(), 1);
}

TEST_CASE("stops: threads that acquire, stop and give up all get one answer each") {
  Options options;
  options.stop_grace = absl::Milliseconds(5);
  StalledStore world(options);
  constexpr int kThreads = 4, kRounds = 60;
  std::atomic<uint64_t> answers{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const Channel<ShardResult> out(4);
      for (int i = 0; i < kRounds; ++i) {
        if (t == 0 && i == kRounds / 2) world.stall.LetGo();
        AcquireOptions acquire;
        if (i % 3 == 0) acquire.deadline = Deadline::After(Clock::Real(), absl::Microseconds(200 * i));
        const Ticket ticket = ValueOf(world.store->AcquireShard(ShardKey("k"), out, acquire));
        if (i % 3 != 0) CHECK_STATUS_OK(world.store->Stop(ticket));
        const ShardResult result = out.Receive();
        CHECK_EQ(result.ticket, ticket);
        answers.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(answers.load(), kThreads * kRounds);
  CHECK_STATUS_OK(world.store->AcquireShardSync(ShardKey("k")));
  REQUIRE_STATUS_OK(world.store->Close());
}

}  // namespace
}  // namespace dagstore
