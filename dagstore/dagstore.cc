#include "dagstore/dagstore.h"


#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <system_error>

#include "base/fibers.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "dagstore/committer.h"
#include "dagstore/job_executor.h"
#include "dagstore/loop_uv.h"
#include "dagstore/metrics.h"
#include "dagstore/repository.h"
#include "index/roots.h"

namespace dagstore {
namespace {

constexpr char kMetaShards[] = "shards";            // at the last close; a hint
// Acquires are too short to look at the clock twice for each.
constexpr Ticket kAcquiresPerMeasure = 64;
constexpr absl::Duration kTraceFlush = absl::Seconds(3);  // of Close
constexpr size_t kHoldersPageMax = 4096;  // shards looked into for one page
constexpr int kSteadyLooksMax = 9;        // while shards die as fast as they are looked up
constexpr uint32_t kShardsExpectedMax = 16'000'000;  // beyond it room is made as they come: 5 bytes each

// Of requests that the store makes itself.
TaskMeta NobodysMeta() { return TaskMeta(SpanContext(), Deadline::Infinite(), 0); }

// Of a thread: acquires without the loop until the next that is recorded.
struct InlineCountdown {
  uint64_t store = 0;  // whose sampler drew it
  uint64_t left = 0;
  uint64_t draws = 0;
};
constinit thread_local InlineCountdown inline_countdown;

}  // namespace

struct DagStore::Core {
  Options options;
  Io* io = nullptr;
  const Clock* clock = nullptr;

  std::unique_ptr<Repository> repository;
  Directory directory;
  OpenLeases leases;
  EventLog<FailureEvent> failures;
  EventLog<TraceEvent> traces{0};
  std::shared_ptr<TaskQueues> queues;
  std::unique_ptr<JobExecutor> executor;
  std::unique_ptr<PooledJobRunner> runner;
  std::unique_ptr<Committer> committer;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Loop> loop;
  Lookup lookup;

  // Spans of requests are numbered by their ticket, those of acquires that never see the loop by a count of their own.
  std::unique_ptr<const SpanIds> ids;
  std::atomic<uint64_t> inline_spans{0};
  const uint64_t serial = NewSerial();  // of this store in the process
  const bool parent_given = options.trace.parent.IsValid();
  // 1 over the logarithm of the share that is not recorded.
  const double per_log_not_sampled = 1 / std::log1p(-options.trace.sampler.ratio());

  std::atomic<TicketId> next_ticket{1};
  std::atomic<uint64_t> quarantined{0};
  Mutex quarantine_mu;  // one drop at a time
  Mutex close_mu;
  bool closed ABSL_GUARDED_BY(close_mu) = false;

  // What the top-level index had in memory when the process ended is added again, off the loop.
  Thread catch_up;
  CancelFlag catch_up_cancel;
  Notification lookups_ready;
  Mutex heal_mu;  // one at a time; whoever waited finds it done
  std::vector<Ordinal> uncovered ABSL_GUARDED_BY(heal_mu);  // to be added again to the top-level index
  std::atomic<bool> incomplete{false};  // that broke off: whoever looks something up goes on with it

  static uint64_t NewSerial() {
    static std::atomic<uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  explicit Core(Options o) : options(std::move(o)), failures(options.failures_kept_max) {}

  absl::Status Start();
  absl::Status TakeBackQuarantined();
  absl::Status SetPin(const ShardKey& key, bool pinned);
  absl::Status Restore(std::vector<Ordinal>& to_add);
  absl::Status CatchUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(heal_mu);
  absl::Status CatchUp(Ordinal ordinal);
  absl::Status Heal();
  absl::Status Stop();

  absl::StatusOr<Ticket> Submit(ShardOp op, ShardKey key, const Channel<ShardResult>& out,
                                const RequestOptions& options, std::unique_ptr<ShardRecord> registration = nullptr,
                                bool* woke = nullptr, bool begins_nothing = false);
  // True if a request with these options may pass a gate; the loop answers the others.
  bool MayPassGates(const RequestOptions& request) const {
    return !traces.HasSubscribers() && request.traceparent.empty() &&
           (request.deadline.IsInfinite() || !request.deadline.Passed(clock->Now()));
  }
  // Through the gate of `lease`; empty if that is closed. One in so many is recorded.
  Accessor Enter(std::shared_ptr<const Lease> lease, const RequestOptions& request) {
    if (options.trace.sink == nullptr || !SampleInline(request)) return Accessor::TryEnter(std::move(lease));
    return EnterTraced(std::move(lease), request);
  }
  Accessor EnterIfOpen(const ShardKey& key, const RequestOptions& request) {
    return MayPassGates(request) ? Enter(leases.Find(key.bytes()), request) : Accessor();
  }
  // An acquire of an open shard takes 30 ns. So that tracing does not double that, the acquires of a thread are counted
  // down to the next that is recorded, instead of making ids for all of them to decide by.
  bool SampleInline(const RequestOptions& request) const {
    InlineCountdown& countdown = inline_countdown;
    if (countdown.store == serial && countdown.left > 1 && !parent_given && !request.parent.IsValid()) {
      --countdown.left;
      return false;
    }
    return SampleInlineSlowly(request);
  }
  bool SampleInlineSlowly(const RequestOptions& request) const;
  uint64_t DrawInline() const;
  Accessor EnterTraced(std::shared_ptr<const Lease> lease, const RequestOptions& request);
  absl::Status CheckDeadline(const RequestOptions& request) const {
    if (request.deadline.IsInfinite() || !request.deadline.Passed(clock->Now())) return absl::OkStatus();
    return DeadlineExceeded("the deadline of the request has passed");
  }
  absl::StatusOr<SpanContext> ParentOf(const RequestOptions& request) const {
    if (!request.parent.IsValid() && !request.traceparent.empty()) {
      return SpanContext::FromTraceparent(request.traceparent);
    }
    return GivenParent(request);
  }
  const SpanContext& GivenParent(const RequestOptions& request) const {
    return request.parent.IsValid() ? request.parent : options.trace.parent;
  }
  // The span of request `number`, and whether it is recorded.
  SpanContext NewSpan(const SpanContext& parent, uint64_t number, bool& sampled) const;
  absl::StatusOr<GcResult> Gc(const GcOptions& gc, const SpanContext& span);
  // Runs `look` on the loop and waits for what it returns. Nullopt if the store is closed.
  template <typename T>
  absl::StatusOr<T> Inspect(absl::AnyInvocable<T(Engine&)> look) const;
};

// ---- Open ----

absl::StatusOr<std::unique_ptr<DagStore>> DagStore::Open(Options options) {
  if (options.mounts == nullptr) return InvalidArgument("Options::mounts is not set: a store needs to know its mounts");
  auto core = std::make_unique<Core>(std::move(options));
  try {
    RETURN_IF_ERROR(core->Start());
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) throw;
    return ResourceExhausted("cannot start the threads of the store: {}", error.code().message());
  }
  return std::unique_ptr<DagStore>(new DagStore(std::move(core)));
}

DagStore::DagStore(std::unique_ptr<Core> core) : core_(std::move(core)) {}

DagStore::~DagStore() { (void)Close(); }

absl::Status DagStore::Core::Start() {
  io = options.io != nullptr ? options.io : &Io::Posix();
  clock = options.clock != nullptr ? options.clock : &Clock::Real();
  ASSIGN_OR_RETURN(repository, Repository::Open(options, *io));

  lookup.kv = repository->kv.get();
  lookup.io = io;
  lookup.indexes = repository->indexes.get();
  lookup.top = repository->top.get();
  lookup.directory = &directory;
  lookup.fingerprint_secret = repository->fingerprint_secret;

  lookup.heal = [this] { return Heal(); };
  lookup.incomplete = &incomplete;

  JobExecutor::Seams seams;
  seams.kv = repository->kv.get();
  seams.io = io;
  seams.clock = clock;
  seams.indexes = repository->indexes.get();
  seams.top = repository->top.get();
  seams.upgrader = repository->upgrader.get();
  seams.copies = repository->copies.get();
  seams.fingerprint_secret = repository->fingerprint_secret;
  seams.spans = options.trace.sink.get();
  executor = std::make_unique<JobExecutor>(options, seams);

  queues = std::make_shared<TaskQueues>(options.requests_max);
  runner = std::make_unique<PooledJobRunner>(options, *executor, queues);
  if (repository->upgrader != nullptr) {
    repository->upgrader->SetBackground(
        [runner = runner.get()](absl::AnyInvocable<void()> work) { runner->PostFetch(std::move(work)); },
        &runner->fetch_stand_ins());
    repository->copies->SetEvictor([queues = queues, copies = std::weak_ptr<CopyCache>(repository->copies)](
                                       const std::vector<CopyCache::Victim>& victims) {
      Request evict(NobodysMeta());
      evict.inspect = [copies, victims](Engine& e) {
        e.AssertLoop();
        const std::shared_ptr<CopyCache> cache = copies.lock();
        for (const CopyCache::Victim& victim : victims) {
          if (!e.Evict(ShardKey(victim.owner), victim.name) && cache != nullptr) cache->EvictionRefused(victim.name);
        }
      };
      if (queues->PushRequest(std::move(evict)).ok()) return;
      const std::shared_ptr<CopyCache> cache = copies.lock();
      for (const CopyCache::Victim& victim : victims) {
        if (cache != nullptr) cache->EvictionRefused(victim.name);
      }
    });
  }
  committer = std::make_unique<Committer>(*repository->kv, queues);
  const uint64_t seed = options.trace.seed != 0 ? options.trace.seed : repository->trace_seed;
  ids = std::make_unique<const SpanIds>(seed);
  engine = std::make_unique<Engine>(options, Engine::Seams{queues, runner.get(), committer.get(), &directory,
                                                           repository->top.get(), &failures, &traces, clock, &leases,
                                                           options.trace.sink.get(), options.trace.sampler, ~seed,
                                                           options.log.get()});
  std::vector<Ordinal> to_add;
  engine->EnterLoop();
  const absl::Status restored = Restore(to_add);
  engine->LeaveLoop();
  RETURN_IF_ERROR(restored);

  loop = options.loop_maker ? options.loop_maker(queues) : std::make_unique<UvLoop>(queues, options.loop_spin, *clock);
  Loop::Callbacks callbacks;
  callbacks.begin = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { engine->EnterLoop(); };
  callbacks.turn = [this] {
    engine->AssertLoop();
    return engine->Turn();
  };
  callbacks.next_timer = [this] {
    engine->AssertLoop();
    return engine->NextTimer();
  };
  callbacks.finished = [this] {
    engine->AssertLoop();
    return engine->Finished();
  };
  callbacks.end = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { engine->LeaveLoop(); };
  RETURN_IF_ERROR(loop->Start(std::move(callbacks)));

  if (to_add.empty()) {
    lookups_ready.Notify();
  } else {
    try {
      catch_up = Thread("dagstore-catchup", [this, ordinals = std::move(to_add)]() mutable {
        if (Mutant(kMutantLookupsReadyEarly)) lookups_ready.Notify();
        {
          const MutexLock lock(heal_mu);
          uncovered = std::move(ordinals);
          CatchUp().IgnoreError();  // lookups go on with it, and say why they cannot
        }
        if (!catch_up_cancel.cancelled()) lookups_ready.Notify();
      });
    } catch (const std::system_error&) {
      (void)Stop();
      throw;
    }
  }
  return absl::OkStatus();
}

// What an older program could not read and set aside, this one perhaps can.
absl::Status DagStore::Core::TakeBackQuarantined() {
  Kv& kv = *repository->kv;
  KvBatch batch;
  const std::unique_ptr<KvCursor> quarantine = kv.Scan(KvTable::kQuarantine);
  for (; quarantine->Valid(); quarantine->Next()) {
    const std::string key(quarantine->key());
    ASSIGN_OR_RETURN(const std::optional<std::string> newer, kv.Get(KvTable::kRecords, key));
    if (newer.has_value() || !DecodeRecord(AsSpan(quarantine->value())).ok()) {
      quarantined.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    batch.Put(KvTable::kRecords, key, std::string(quarantine->value()));
    batch.Delete(KvTable::kQuarantine, key);
  }
  RETURN_IF_ERROR(quarantine->status());
  return batch.empty() ? absl::OkStatus() : kv.Commit(batch, /*sync=*/true);
}

absl::Status DagStore::Core::Restore(std::vector<Ordinal>& to_add) {
  engine->AssertLoop();
  Kv& kv = *repository->kv;
  RETURN_IF_ERROR(TakeBackQuarantined());
  KvBatch batch;
  uint64_t ordinals_end = std::max<uint64_t>(repository->next_ordinal, repository->top->OrdinalsEnd());
  std::vector<bool> live;

  // How many there were at the last close: room for all at once is half of the time of reading them.
  ASSIGN_OR_RETURN(const std::optional<std::string> expected, kv.Get(KvTable::kMeta, kMetaShards));
  if (expected.has_value() && expected->size() == 4) {
    engine->Reserve(std::min(Load32(AsSpan(*expected).data()), kShardsExpectedMax));
  }

  const std::unique_ptr<KvCursor> records = kv.Scan(KvTable::kRecords);
  for (; records->Valid(); records->Next()) {
    const std::string_view key = records->key();
    const absl::StatusOr<RecordHead> head = DecodeRecordHead(AsSpan(records->value()));
    if (!head.ok()) {
      // Never dropped: kept as it was found, and whatever files it names are left alone.
      if (!Mutant(kMutantBadRecordDropped))
        batch.Put(KvTable::kQuarantine, std::string(key), std::string(records->value()));
      batch.Delete(KvTable::kRecords, std::string(key));
      ASSIGN_OR_RETURN(const std::optional<std::string> before, kv.Get(KvTable::kQuarantine, key));
      if (!before.has_value()) quarantined.fetch_add(1, std::memory_order_relaxed);
      failures.Publish({clock->WallNow(), ShardKey(key), ShardState::kNew, ShardState::kNew, head.status()});
      continue;
    }
    engine->Restore(key, *head);
    if (head->ordinal != 0) {
      ordinals_end = std::max<uint64_t>(ordinals_end, uint64_t{head->ordinal} + 1);
      if (live.size() <= head->ordinal) live.resize(std::max<size_t>(head->ordinal + 1, live.size() * 2));
      live[head->ordinal] = true;
    }
    const bool has_copy = head->has_copy && repository->copies != nullptr;
    const bool errored = head->state == ShardState::kErrored;
    if (!has_copy && !errored) continue;  // of most the head says enough
    const absl::StatusOr<ShardRecord> record = DecodeRecord(AsSpan(records->value()));
    if (!record.ok()) continue;
    if (has_copy && record->copy.has_value() && record->copy->owned) {
      repository->copies->Own(record->copy->name, std::string(key));
      repository->upgrader->NamedByRecord(record->copy->name);
    }
    if (errored) engine->RestoreError(key, record->Cause(), record->attempts);
  }
  RETURN_IF_ERROR(records->status());
  // A record that cannot be read may name any of the others.
  if (repository->copies != nullptr && quarantined.load(std::memory_order_relaxed) == 0)
    repository->copies->OrphanOthers();

  const std::unique_ptr<KvCursor> pins = kv.Scan(KvTable::kMeta, kMetaPin, kMetaPin);
  for (; pins->Valid(); pins->Next()) {
    if (repository->copies != nullptr)
      repository->copies->Pin(std::string(pins->key().substr(std::strlen(kMetaPin))), true);
  }
  RETURN_IF_ERROR(pins->status());

  const std::unique_ptr<KvCursor> destroying = kv.Scan(KvTable::kDestroying);
  for (; destroying->Valid(); destroying->Next()) {
    const auto record = executor->ReadRecord(ShardKey(destroying->key()));
    if (!record.ok() && record.status().code() != absl::StatusCode::kUnavailable) {
      // Nothing is left to destroy, or it was set aside; the next shard of that name must not inherit the mark.
      batch.Delete(KvTable::kDestroying, std::string(destroying->key()));
      continue;
    }
    if (record.ok() && record->ordinal < live.size()) live[record->ordinal] = false;
    if (!Mutant(kMutantDestroyingForgotten)) engine->RestoreDestroying(destroying->key());
  }
  RETURN_IF_ERROR(destroying->status());

  live.resize(ordinals_end);  // no longer: what is not in it is dead, and the next ordinals are to be given out
  repository->top->DropAllExcept(live);
  for (Ordinal ordinal = 1; ordinal < live.size(); ++ordinal) {
    if (live[ordinal] && !repository->top->Covers(ordinal) && !Mutant(kMutantNoCatchUp)) to_add.push_back(ordinal);
  }

  if (ordinals_end + kOrdinalsReserved > UINT32_MAX) {
    return ResourceExhausted("the repository has used all index ordinals; make a new one and add its shards there");
  }
  const auto next = static_cast<Ordinal>(ordinals_end);
  std::string reserved;
  Append32(reserved, next + kOrdinalsReserved);
  batch.Put(KvTable::kMeta, kMetaNextOrdinal, std::move(reserved));
  RETURN_IF_ERROR(kv.Commit(batch, /*sync=*/true));
  engine->RestoreOrdinals(next, next + kOrdinalsReserved);
  return absl::OkStatus();
}

absl::Status DagStore::Core::CatchUp() {
  for (size_t i = 0; i < uncovered.size(); ++i) {
    absl::Status status = catch_up_cancel.cancelled() ? Cancelled("the store is closing") : CatchUp(uncovered[i]);
    if (status.ok()) continue;
    uncovered.erase(uncovered.begin(), uncovered.begin() + static_cast<ptrdiff_t>(i));
    incomplete.store(true);
    return Annotate(status, fmt::format("{} shards are still to be added to the top-level index", uncovered.size()));
  }
  uncovered.clear();
  incomplete.store(false);
  return absl::OkStatus();
}

// An error: nothing is wrong with the shard, and it cannot be added now. It stays awaited, so that no lookup claims to
// be complete without it.
absl::Status DagStore::Core::CatchUp(Ordinal ordinal) {
  std::optional<ShardKey> key = directory.KeyOf(ordinal);
  if (!key.has_value() && ordinal >= repository->next_ordinal && !Mutant(kMutantPublishedForgotten)) {
    ASSIGN_OR_RETURN(const bool coming, Inspect<bool>([ordinal](Engine& e) {
                       e.AssertLoop();
                       return e.MayPublish(ordinal);
                     }));
    if (coming) return Unavailable("shard index {:08x} is being published", ordinal);
    key = directory.KeyOf(ordinal);  // since then, perhaps
  }
  if (!key.has_value()) {
    repository->top->Drop(ordinal);  // destroyed or indexed again meanwhile
    return absl::OkStatus();
  }
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const ShardRecord record, lookup.ReadRecord(*key));
    if (record.ordinal != ordinal) return absl::OkStatus();
    ASSIGN_OR_RETURN(const auto index, lookup.OpenIndex(record));
    return executor->AddToTopIndex(ordinal, *index, &catch_up_cancel);
  }();
  if (Mutant(kMutantCatchUpGivesUp) && !status.ok()) {
    repository->top->Drop(ordinal);
    return absl::OkStatus();
  }
  if (status.ok() || absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsCancelled(status)) {
    return status;
  }
  // The shard cannot be found by CID until its index is built again, and that begins now.
  Request report(NobodysMeta());
  report.inspect = [key = *key, ordinal, status](Engine& e) {
    e.AssertLoop();
    e.ReportDamage(key, ordinal, status, Damage::kIndex);
  };
  RETURN_IF_ERROR(queues->PushRequest(std::move(report)));
  repository->top->Drop(ordinal);
  return absl::OkStatus();
}

absl::Status DagStore::Core::Heal() {
  if (!lookups_ready.HasBeenNotified()) return Unavailable("the top-level index is still being completed");
  const MutexLock lock(heal_mu);
  if (!repository->top->Health().ok()) {
    WriterMutexLock adding(executor->top_index_mutex());
    ASSIGN_OR_RETURN(const std::vector<Ordinal> ordinals, repository->top->DropDamaged());
    uncovered.insert(uncovered.end(), ordinals.begin(), ordinals.end());
  }
  return CatchUp();
}

// ---- Close ----

absl::Status DagStore::Close() { return core_->Stop(); }

absl::Status DagStore::Core::Stop() {
  MutexLock lock(close_mu);
  if (closed) return absl::OkStatus();
  closed = true;
  if (loop == nullptr) return absl::OkStatus();

  if (repository->upgrader != nullptr) repository->upgrader->BeginClose();
  catch_up_cancel.Cancel();
  if (catch_up.joinable()) catch_up.Join();
  if (!lookups_ready.HasBeenNotified()) lookups_ready.Notify();

  Request close(NobodysMeta());
  const Deadline grace = Deadline::After(*clock, options.close_grace);
  close.inspect = [grace](Engine& e) {
    e.AssertLoop();
    e.BeginClose(grace);
  };
  queues->CloseDoor(std::move(close));
  loop->Join();
  committer.reset();
  if (repository->upgrader != nullptr) repository->upgrader->SetBackground(nullptr);
  runner.reset();  // closes files that were dropped last

  absl::Status status = repository->top->Flush();
  if (options.trace.sink != nullptr) {
    // On its own short budget. What is lost is counted there; that is no failure of the store.
    (void)options.trace.sink->Flush(kTraceFlush);
  }
  engine->EnterLoop();
  KvBatch batch;
  std::string next;
  Append32(next, engine->next_ordinal());
  batch.Put(KvTable::kMeta, kMetaNextOrdinal, std::move(next));
  std::string shards;
  Append32(shards, static_cast<uint32_t>(std::min<size_t>(engine->shards(), UINT32_MAX)));
  batch.Put(KvTable::kMeta, kMetaShards, std::move(shards));
  const absl::Status store_error = engine->Stats().store_error;
  engine->LeaveLoop();
  if (!store_error.ok()) return store_error;
  const absl::Status stored = repository->kv->Commit(batch, /*sync=*/true);
  return status.ok() ? stored : status;
}

// ---- Requests ----

absl::StatusOr<Ticket> DagStore::Core::Submit(ShardOp op, ShardKey key, const Channel<ShardResult>& out,
                                              const RequestOptions& request_options,
                                              std::unique_ptr<ShardRecord> registration, bool* woke,
                                              bool begins_nothing) {
  RETURN_IF_ERROR(key.Check());
  if (const size_t at = key.bytes().find("//"); Mutant(kMutantKeysCleaned) && at != std::string::npos)
    key = ShardKey(std::string(key.bytes()).erase(at, 1));
  ASSIGN_OR_RETURN(const SpanContext parent, ParentOf(request_options));
  const Ticket ticket = next_ticket.fetch_add(1, std::memory_order_relaxed);
  bool sampled = false;
  Request request(TaskMeta(NewSpan(parent, ticket, sampled), request_options.deadline, ticket));
  request.op = op;
  request.begins_nothing = begins_nothing;
  std::optional<Channel<ShardResult>::Slot> slot = out.Reserve();
  if (!slot.has_value()) {
    return ResourceExhausted("the result channel holds {} results or requests already", out.capacity());
  }
  request.reply = *std::move(slot);
  request.key = std::move(key);
  request.registration = std::move(registration);
  if (sampled) {
    std::shared_ptr<const std::string> tracestate;
    if (std::string clean = CleanTracestate(request_options.tracestate); !clean.empty()) {
      tracestate = std::make_shared<const std::string>(std::move(clean));
    }
    BeginSpan(request, parent, clock->Now(), std::move(tracestate));
  } else if (op != ShardOp::kAcquire || ticket % kAcquiresPerMeasure == 0) {
    request.reply.asked = clock->Now();
  }
  RETURN_IF_ERROR(queues->PushRequest(std::move(request), woke));
  return ticket;
}

SpanContext DagStore::Core::NewSpan(const SpanContext& parent, uint64_t number, bool& sampled) const {
  SpanContext span = parent.IsValid() ? parent.Child(number) : ids->RootOf(number);
  if (options.trace.sink == nullptr) return span;  // what the parent said goes on to others
  sampled = options.trace.sampler.Sample(parent, span);
  span.flags = static_cast<uint8_t>((span.flags & ~1) | (sampled ? 1 : 0));
  return span;
}

// Not this one, or the first of this thread in this store.
bool DagStore::Core::SampleInlineSlowly(const RequestOptions& request) const {
  if (const SpanContext& parent = GivenParent(request); parent.IsValid()) {
    bool sampled = false;
    (void)NewSpan(parent, 0, sampled);
    return sampled;
  }
  InlineCountdown& countdown = inline_countdown;
  if (countdown.store != serial) {  // what another store's countdown has left says nothing here
    countdown.store = serial;
    countdown.left = DrawInline();
    if (countdown.left > 1) {
      --countdown.left;
      return false;
    }
  }
  countdown.left = DrawInline();
  return true;
}

// How far it is to the next: geometric, from the bits of an id that is used for nothing else.
uint64_t DagStore::Core::DrawInline() const {
  InlineCountdown& countdown = inline_countdown;
  const double ratio = options.trace.sampler.ratio();
  constexpr double kNever = 1e18;
  if (ratio >= 1) return 1;
  if (ratio <= 0) return static_cast<uint64_t>(kNever);
  const SpanContext drawn = ids->RootOf(~++countdown.draws ^ reinterpret_cast<uintptr_t>(&countdown));
  const float u = (static_cast<float>(Load64(drawn.span_id.data()) >> 40) + 1) / 16777216.0F;  // (0, 1]
  return static_cast<uint64_t>(std::clamp(std::ceil(std::log(u) * per_log_not_sampled), 1.0, kNever));
}

// It takes less time than the clock can tell, so its two ends are one look at it.
Accessor DagStore::Core::EnterTraced(std::shared_ptr<const Lease> lease, const RequestOptions& request) {
  Accessor accessor = Accessor::TryEnter(std::move(lease));
  if (accessor.empty()) return accessor;
  constexpr uint64_t kNotTickets = uint64_t{1} << 63;
  const uint64_t number = kNotTickets | inline_spans.fetch_add(1, std::memory_order_relaxed);
  const SpanContext& parent = GivenParent(request);
  SpanContext span = parent.IsValid() ? parent.Child(number) : ids->RootOf(number);
  if (parent.IsValid()) {
    span.flags |= 1;
  } else {
    options.trace.sampler.MakeSampled(span);
  }
  SpanRecord record("dagstore.acquire", span, parent, clock->Now());
  record.end = record.start;
  record.AddText("dagstore.shard.key", accessor.key().bytes());
  record.AddBool("dagstore.inline", true);
  if (const SpanContext& opened = accessor.lease()->meta.span; opened.IsSampled()) record.Link(opened);
  options.trace.sink->Record(std::move(record));
  return accessor;
}

absl::StatusOr<Ticket> DagStore::RegisterShard(ShardKey key, std::unique_ptr<Mount> mount,
                                               const Channel<ShardResult>& out, const RegisterOptions& options) {
  if (mount == nullptr) return InvalidArgument("register: no mount");
  auto record = std::make_unique<ShardRecord>();
  ASSIGN_OR_RETURN(const Url url, core_->options.mounts->Represent(*mount));
  record->url = Mutant(kMutantAddressRedacted) ? url.Redacted() : url.Encoded();
  record->lazy = options.lazy;
  record->verify = options.verify;
  record->registered_unix_ms = absl::ToUnixMillis(core_->clock->WallNow());
  if (!options.existing_transient.empty()) {
    if (options.existing_transient.front() != '/') {
      return InvalidArgument("existing transient \"{}\" is not an absolute path",
                             PrintableBytes(options.existing_transient));
    }
    record->copy = TransientRecord{options.existing_transient, 0, /*owned=*/false};
  }
  if (options.also.size() >= kLocationsMax)
    return InvalidArgument("{} further locations, at most {} are kept", options.also.size(), kLocationsMax - 1);
  for (const std::string& text : options.also) {
    ASSIGN_OR_RETURN(const Url other, Url::Parse(text));
    ASSIGN_OR_RETURN(const std::unique_ptr<Mount> made, core_->options.mounts->Make(other));
    ASSIGN_OR_RETURN(const Url kept, core_->options.mounts->Represent(*made));
    record->also.push_back(kept.Encoded());
  }
  return core_->Submit(ShardOp::kRegister, std::move(key), out, options, std::move(record));
}

absl::StatusOr<Ticket> DagStore::AcquireShard(ShardKey key, const Channel<ShardResult>& out,
                                              const AcquireOptions& options) {
  if (core_->MayPassGates(options)) {
    if (std::shared_ptr<const Lease> lease = core_->leases.Find(key.bytes()); lease != nullptr) {
      std::optional<Channel<ShardResult>::Slot> slot = out.Reserve();
      ShardResult result;
      if (slot.has_value()) result.accessor = core_->Enter(std::move(lease), options);
      if (!result.accessor.empty()) {
        const Ticket ticket = core_->next_ticket.fetch_add(1, std::memory_order_relaxed);
        result.ticket = ticket;
        result.key = std::move(key);
        slot->Deliver(std::move(result));
        return ticket;
      }
    }
  }
  return core_->Submit(ShardOp::kAcquire, std::move(key), out, options);
}

absl::StatusOr<Ticket> DagStore::DestroyShard(ShardKey key, const Channel<ShardResult>& out,
                                              const DestroyOptions& options) {
  return core_->Submit(ShardOp::kDestroy, std::move(key), out, options);
}

absl::StatusOr<Ticket> DagStore::RecoverShard(ShardKey key, const Channel<ShardResult>& out,
                                              const RecoverOptions& options) {
  return core_->Submit(ShardOp::kRecover, std::move(key), out, options);
}

absl::Status DagStore::Stop(Ticket ticket) {
  Request stop(TaskMeta(SpanContext(), Deadline::Infinite(), ticket));
  stop.stop = true;
  return core_->queues->PushRequest(std::move(stop));
}

absl::StatusOr<StopOutcome> DagStore::StopSync(Ticket ticket) {
  return core_->Inspect<StopOutcome>([ticket](Engine& e) {
    e.AssertLoop();
    return e.StopNow(ticket);
  });
}

namespace {

// A caller who has been stopped already asks for nothing.
absl::Status CheckStop(const std::stop_token& stop) {
  return stop.stop_requested() ? Cancelled("stopped by its caller") : absl::OkStatus();
}

// The result of `ticket`, which is stopped if the caller's token fires first. The stop is a message; nothing of ours
// runs on the thread that fires the token.
ShardResult Await(DagStore& store, const Channel<ShardResult>& out, Ticket ticket, const std::stop_token& stop,
                  bool spin = true) {
  if (!stop.stop_possible()) return out.Receive(spin);
  const std::stop_callback on_stop(stop, [&store, ticket] { (void)store.Stop(ticket); });
  return out.Receive(spin);
}

// The same for a flag, which tells nobody when it is set.
ShardResult AwaitFor(DagStore& store, const Channel<ShardResult>& out, Ticket ticket, const CancelFlag* cancel) {
  constexpr absl::Duration kLook = absl::Milliseconds(20);
  if (cancel == nullptr) return out.Receive();
  while (!cancel->cancelled()) {
    if (auto result = out.Receive(Deadline::After(Clock::Real(), kLook))) return *std::move(result);
  }
  (void)store.Stop(ticket);
  return out.Receive();
}

template <typename T>
T OptionsOf(const WorkContext& work) {
  T options;
  options.deadline = work.deadline;
  options.parent = work.span;
  return options;
}

}  // namespace

absl::StatusOr<Accessor> DagStore::AcquireShardFor(const ShardKey& key, const WorkContext& work) {
  RETURN_IF_ERROR(work.Check());
  const auto options = OptionsOf<AcquireOptions>(work);
  if (work.cancel == nullptr || Mutant(kMutantFetchHearsNobody)) return AcquireShardSync(key, options);
  if (Accessor entered = core_->EnterIfOpen(key, options); !entered.empty()) return entered;
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, AcquireShard(key, out, options));
  ShardResult result = AwaitFor(*this, out, ticket, work.cancel);
  RETURN_IF_ERROR(result.status);
  return std::move(result.accessor);
}

absl::Status DagStore::RecoverShardFor(const ShardKey& key, const WorkContext& work) {
  RETURN_IF_ERROR(work.Check());
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, RecoverShard(key, out, OptionsOf<RecoverOptions>(work)));
  return AwaitFor(*this, out, ticket, work.cancel).status;
}

absl::Status DagStore::AwaitDestroyed(const ShardKey& key, const WorkContext& work) {
  RETURN_IF_ERROR(work.Check());
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, core_->Submit(ShardOp::kDestroy, key, out, OptionsOf<DestroyOptions>(work),
                                                      nullptr, nullptr, /*begins_nothing=*/true));
  const absl::Status status = AwaitFor(*this, out, ticket, work.cancel).status;
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status DagStore::RegisterShardSync(ShardKey key, std::unique_ptr<Mount> mount, const RegisterOptions& options,
                                         const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckStop(stop));
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, RegisterShard(std::move(key), std::move(mount), out, options));
  return Await(*this, out, ticket, stop).status;
}

absl::StatusOr<Accessor> DagStore::AcquireShardSync(const ShardKey& key, const AcquireOptions& options,
                                                    const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckStop(stop));
  if (Accessor entered = core_->EnterIfOpen(key, options); !entered.empty()) return entered;
  // Always empty between calls, so a thread needs but one; fibers need one each.
  static thread_local const Channel<ShardResult> of_thread(1);
  std::optional<Channel<ShardResult>> of_fiber;
  if (Fibers::Current() != nullptr) of_fiber.emplace(1);
  const Channel<ShardResult>& out = of_fiber.has_value() ? *of_fiber : of_thread;
  bool woke = false;
  ASSIGN_OR_RETURN(const Ticket ticket, core_->Submit(ShardOp::kAcquire, key, out, options, nullptr, &woke));
  ShardResult result = Await(*this, out, ticket, stop, /*spin=*/!woke);
  RETURN_IF_ERROR(result.status);
  return std::move(result.accessor);
}

absl::StatusOr<Accessor> ShardRef::Acquire(const AcquireOptions& options) {
  if (store_->core_->MayPassGates(options)) {
    if (Accessor entered = store_->core_->Enter(lease_.lock(), options); !entered.empty()) return entered;
  }
  absl::StatusOr<Accessor> accessor = store_->AcquireShardSync(key_, options);
  if (accessor.ok()) lease_ = accessor->lease();
  return accessor;
}

absl::StatusOr<ShardRef> DagStore::Resolve(const ShardKey& key) {
  RETURN_IF_ERROR(key.Check());
  ShardRef ref(*this, key);
  if (std::shared_ptr<const Lease> lease = core_->leases.Find(key.bytes())) {
    ref.lease_ = lease;
    return ref;
  }
  ASSIGN_OR_RETURN(const std::optional<ShardSnapshot> snapshot,
                   core_->Inspect<std::optional<ShardSnapshot>>([&key](Engine& e) {
                     e.AssertLoop();
                     return e.Look(key.bytes());
                   }));
  if (!snapshot.has_value()) return NotFound("no shard \"{}\"", key.Printable());
  return ref;
}

absl::Status DagStore::DestroyShardSync(ShardKey key, const DestroyOptions& options, const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckStop(stop));
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, DestroyShard(std::move(key), out, options));
  return Await(*this, out, ticket, stop).status;
}

absl::Status DagStore::RecoverShardSync(ShardKey key, const RecoverOptions& options, const std::stop_token& stop) {
  RETURN_IF_ERROR(CheckStop(stop));
  const Channel<ShardResult> out(1);
  ASSIGN_OR_RETURN(const Ticket ticket, RecoverShard(std::move(key), out, options));
  return Await(*this, out, ticket, stop).status;
}

// ---- Looking ----

template <typename T>
absl::StatusOr<T> DagStore::Core::Inspect(absl::AnyInvocable<T(Engine&)> look) const {
  const Channel<T> out(1);
  Request request(NobodysMeta());
  auto slot = out.Reserve();
  request.inspect = [look = std::move(look), slot = *std::move(slot)](Engine& e) mutable { slot.Deliver(look(e)); };
  RETURN_IF_ERROR(queues->PushRequest(std::move(request)));
  return out.Receive();
}

namespace {

ShardInfo MakeInfo(std::string_view key, const ShardSnapshot& snapshot, const ShardRecord* record,
                   const CopyCache* copies) {
  ShardInfo info;
  info.key = ShardKey(key);
  info.state = snapshot.state;
  info.references = snapshot.references;
  info.lazy = snapshot.lazy;
  info.ordinal = snapshot.ordinal;
  if (snapshot.state == ShardState::kErrored) info.error = snapshot.error;
  info.pinned = copies != nullptr && copies->Pinned(std::string(key));
  if (record == nullptr) return info;
  if (const auto url = Url::Parse(record->url); url.ok()) info.url = url->Redacted();
  info.blocks = record->blocks;
  info.block_bytes = record->block_bytes;
  info.unverified_blocks = record->unverified_blocks;
  info.verified = record->verified;
  info.source_bytes = record->source_size;
  info.index_bytes = record->index_bytes;
  info.copy_bytes = record->copy.has_value() ? record->copy->size : 0;
  if (copies != nullptr && record->copy.has_value() && record->copy->owned) {
    info.copy_bytes = std::min(copies->BytesOf(record->copy->name), record->copy->size);
    info.copy_partial = info.copy_bytes < record->copy->size;
  }
  info.inferred_index = record->inferred_index;
  info.registered = absl::FromUnixMillis(record->registered_unix_ms);
  info.indexed = absl::FromUnixMillis(record->indexed_unix_ms);
  return info;
}

}  // namespace

absl::StatusOr<ShardInfo> DagStore::GetShardInfo(const ShardKey& key, const RequestOptions& options) const {
  RETURN_IF_ERROR(core_->CheckDeadline(options));
  ASSIGN_OR_RETURN(const std::optional<ShardSnapshot> snapshot,
                   core_->Inspect<std::optional<ShardSnapshot>>([&key](Engine& e) {
                     e.AssertLoop();
                     return e.Look(key.bytes());
                   }));
  if (!snapshot.has_value()) return NotFound("no shard \"{}\"", key.Printable());
  const absl::StatusOr<ShardRecord> record = core_->lookup.ReadRecord(key);
  // One that is being registered has none yet. Of another that cannot be read, half an answer would look like a whole
  // one.
  if (!record.ok() && record.status().code() != absl::StatusCode::kNotFound) return record.status();
  ShardInfo info =
      MakeInfo(key.bytes(), *snapshot, record.ok() ? &*record : nullptr, core_->repository->copies.get());
  if (!record.ok()) return info;
  for (size_t i = 0; i <= record->also.size(); ++i) {
    const absl::StatusOr<Url> url = Url::Parse(i == 0 ? record->url : record->also[i - 1]);
    if (!url.ok()) continue;
    LocationInfo location;
    location.url = url->Redacted();
    if (core_->repository->upgrader != nullptr) {
      const SourceFailure failure = core_->repository->upgrader->sources().FailureOf(*url);
      location.failures = failure.failures;
      location.last_error = failure.last_error;
      location.next_try = failure.next_try;
    }
    info.locations.push_back(std::move(location));
  }
  return info;
}

absl::StatusOr<ShardPage> DagStore::ListShards(const ListShardsOptions& options) const {
  struct Found {
    std::string key;
    std::optional<ShardRecord> record;
  };
  constexpr size_t kKeysPerLook = 1024;  // one message to the loop for so many
  ShardPage page;
  const std::string from = std::max(options.prefix, options.after.empty() ? std::string() : options.after + '\0');
  const std::unique_ptr<KvCursor> cursor = core_->lookup.kv->Scan(KvTable::kRecords, from, options.prefix);
  while (cursor->Valid() && !page.more) {
    RETURN_IF_ERROR(core_->CheckDeadline(options));
    std::vector<Found> chunk;
    for (; cursor->Valid() && chunk.size() < kKeysPerLook; cursor->Next()) {
      auto record = DecodeRecord(AsSpan(cursor->value()));
      chunk.push_back(
          {std::string(cursor->key()), record.ok() ? std::optional<ShardRecord>(*std::move(record)) : std::nullopt});
    }
    using Snapshots = std::vector<std::optional<ShardSnapshot>>;
    ASSIGN_OR_RETURN(const Snapshots snapshots, core_->Inspect<Snapshots>([&chunk](Engine& e) {
      e.AssertLoop();
      Snapshots out;
      out.reserve(chunk.size());
      for (const Found& found : chunk) out.push_back(e.Look(found.key));
      return out;
    }));
    for (size_t i = 0; i < chunk.size(); ++i) {
      if (!snapshots[i].has_value()) continue;  // destroyed meanwhile
      if (options.state.has_value() && snapshots[i]->state != *options.state) continue;
      if (page.shards.size() >= options.shards_max) {
        page.more = true;
        break;
      }
      page.shards.push_back(
          MakeInfo(chunk[i].key, *snapshots[i], chunk[i].record.has_value() ? &*chunk[i].record : nullptr,
                   core_->repository->copies.get()));
    }
  }
  RETURN_IF_ERROR(cursor->status());
  return page;
}

absl::Status DagStore::Lookup::FindCandidates(std::span<const MultihashView> hashes, size_t candidates_max,
                                              absl::FunctionRef<void(size_t, Ordinal, const ShardKey&)> visit) const {
  std::vector<Fingerprint> fingerprints;
  fingerprints.reserve(hashes.size());
  for (const MultihashView& hash : hashes) fingerprints.push_back(FingerprintOf(fingerprint_secret, hash));
  std::vector<std::pair<size_t, Ordinal>> found;
  const auto find = [&] {
    found.clear();
    const auto add = [&](size_t index, Ordinal ordinal) { found.emplace_back(index, ordinal); };
    return top->Find(fingerprints, add, candidates_max);
  };
  struct Live {
    size_t index;
    Ordinal ordinal;
    ShardKey key;
  };
  std::vector<Live> live;
  const auto take = [&](size_t index, Ordinal ordinal) {
    std::optional<ShardKey> key = directory->KeyOf(ordinal);
    if (!key.has_value()) return false;
    live.push_back({index, ordinal, *std::move(key)});
    return true;
  };
  RETURN_IF_ERROR(LookSteadily([&]() -> absl::StatusOr<bool> {
    RETURN_IF_ERROR(Healed(find));
    bool met_dead = false;
    live.clear();
    for (size_t begin = 0, end = 0; begin < found.size(); begin = end) {
      const size_t index = found[begin].first;
      const size_t first = live.size();
      for (; end < found.size() && found[end].first == index; ++end) met_dead |= !take(index, found[end].second);
      if (live.size() - first == candidates_max || end - begin < candidates_max) continue;
      // Some are gone already, and there may be more: all of them then, page by page.
      live.resize(first);
      std::vector<Ordinal> page;
      Ordinal after = 0;
      do {
        RETURN_IF_ERROR(FindCandidatePage(hashes[index], after, candidates_max, page));
        for (const Ordinal ordinal : page) {
          if (live.size() - first == candidates_max) break;
          take(index, ordinal);
        }
        if (!page.empty()) after = page.back();
      } while (page.size() == candidates_max && live.size() - first < candidates_max);
    }
    return met_dead;
  }));
  for (const Live& shard : live) visit(shard.index, shard.ordinal, shard.key);
  return absl::OkStatus();
}

absl::Status DagStore::Lookup::LookSteadily(absl::FunctionRef<absl::StatusOr<bool>()> look) const {
  for (int looks = 1;; ++looks) {
    const uint64_t deaths = directory->deaths();
    ASSIGN_OR_RETURN(const bool met_dead, look());
    if (!met_dead || directory->deaths() == deaths || looks == kSteadyLooksMax) return absl::OkStatus();
  }
}

absl::Status DagStore::Lookup::Healed(absl::FunctionRef<absl::Status()> find) const {
  const absl::Status status = find();
  if (!absl::IsDataLoss(status) && !incomplete->load()) return status;
  RETURN_IF_ERROR(heal());
  return find();
}

absl::Status DagStore::Lookup::FindCandidatePage(const MultihashView& hash, Ordinal after, size_t ordinals_max,
                                                 std::vector<Ordinal>& page) const {
  const Fingerprint fingerprint = FingerprintOf(fingerprint_secret, hash);
  return Healed([&] { return top->FindPage(fingerprint, after, ordinals_max, page); });
}

absl::StatusOr<std::shared_ptr<const ShardIndex>> DagStore::Lookup::CurrentIndex(const ShardKey& key) const {
  for (Ordinal tried = 0;;) {
    const absl::StatusOr<ShardRecord> record = ReadRecord(key);
    if (absl::IsNotFound(record.status())) return nullptr;  // destroyed meanwhile
    RETURN_IF_ERROR(record.status());
    if (record->ordinal == 0) return nullptr;  // and registered again
    absl::StatusOr<std::shared_ptr<const ShardIndex>> index = OpenIndex(*record);
    // An index that was replaced since the record was read is gone, and nothing is wrong.
    if (index.ok() || record->ordinal == tried) return index;
    tried = record->ordinal;
  }
}

absl::StatusOr<bool> DagStore::Lookup::Holds(const ShardKey& key, const MultihashView& hash) const {
  ASSIGN_OR_RETURN(const std::shared_ptr<const ShardIndex> index, CurrentIndex(key));
  if (index == nullptr) return false;
  return index->Contains(hash);
}

absl::StatusOr<ShardRecord> DagStore::Lookup::ReadRecord(const ShardKey& key) const {
  ASSIGN_OR_RETURN(const std::optional<std::string> value, kv->Get(KvTable::kRecords, key.bytes()));
  if (!value.has_value()) return NotFound("no shard \"{}\"", key.Printable());
  auto record = DecodeRecord(AsSpan(*value));
  if (!record.ok()) return Annotate(record.status(), fmt::format("record of shard \"{}\"", key.Printable()));
  return record;
}

absl::StatusOr<std::shared_ptr<const ShardIndex>> DagStore::Lookup::OpenIndex(const ShardRecord& record) const {
  if (record.ordinal == 0) return FailedPrecondition("the shard is not indexed yet");
  auto index = indexes->Open(record.ordinal, record.index_bytes, record.index_checksum);
  if (index.ok()) return index;
  return Recoded(index.status(), absl::StatusCode::kNotFound, absl::StatusCode::kDataLoss);  // the shard is there
}

absl::StatusOr<ShardHoldersPage> DagStore::HoldersPage(const MultihashView& hash, const Cid* root,
                                                       const FindShardsOptions& options) const {
  if (options.shards_max == 0) return InvalidArgument("a page of no shards");
  RETURN_IF_ERROR(AwaitLookups(options.deadline));
  const Lookup& lookup = core_->lookup;
  const size_t most = std::min(options.shards_max, kHoldersPageMax);
  std::vector<Ordinal> blocks, all;
  RootsPage roots;
  Ordinal end = UINT32_MAX;  // what lies beyond the end of a full page is not known yet
  struct Live {
    Ordinal ordinal;
    ShardKey key;
  };
  std::vector<Live> live;  // named at once: looking into them takes long, and meanwhile they are indexed again
  RETURN_IF_ERROR(lookup.LookSteadily([&]() -> absl::StatusOr<bool> {
    RETURN_IF_ERROR(lookup.FindCandidatePage(hash, options.after, most, blocks));
    if (root != nullptr) {
      ASSIGN_OR_RETURN(roots, dagstore::ShardsWithRoot(*lookup.kv, *root, options.after, most));
    }
    end = blocks.size() == most ? blocks.back() : UINT32_MAX;
    if (roots.next_after != 0) end = std::min(end, roots.next_after);
    all.clear();
    std::set_union(blocks.begin(), blocks.end(), roots.ordinals.begin(), roots.ordinals.end(),
                   std::back_inserter(all));
    const bool shortened = all.size() > most;
    if (shortened) all.resize(most);
    while (!all.empty() && all.back() > end) all.pop_back();
    if (shortened && !all.empty()) end = std::min(end, all.back());
    live.clear();
    for (const Ordinal ordinal : all) {
      if (auto key = core_->directory.KeyOf(ordinal)) live.push_back({ordinal, *std::move(key)});
    }
    return live.size() != all.size();
  }));
  ShardHoldersPage page;
  page.next_after = end == UINT32_MAX ? 0 : end;
  for (Live& shard : live) {
    RETURN_IF_ERROR(core_->CheckDeadline(options));
    if (Mutant(kMutantPagesGoByOrdinal) && !core_->directory.KeyOf(shard.ordinal).has_value()) continue;
    ShardHolder holder{std::move(shard.key)};
    holder.root = std::binary_search(roots.ordinals.begin(), roots.ordinals.end(), shard.ordinal);
    if (std::binary_search(blocks.begin(), blocks.end(), shard.ordinal)) {
      const absl::StatusOr<bool> holds = lookup.Holds(holder.key, hash);
      if (!holds.ok() && Mutant(kMutantUnreadHidesOthers)) return holds.status();
      if (holds.ok()) {
        holder.block = *holds;
      } else {
        page.unread.push_back({holder.key, holds.status()});
      }
    }
    if (holder.block || holder.root) page.shards.push_back(std::move(holder));
  }
  std::sort(page.shards.begin(), page.shards.end(),
            [](const ShardHolder& a, const ShardHolder& b) { return a.key < b.key; });
  return page;
}

absl::StatusOr<ShardHoldersPage> DagStore::ShardsContainingMultihashPage(const MultihashView& hash,
                                                                         const FindShardsOptions& options) const {
  return HoldersPage(hash, nullptr, options);
}

absl::StatusOr<ShardHoldersPage> DagStore::FindShards(const Cid& cid, const FindShardsOptions& options) const {
  return HoldersPage(cid.hash(), &cid, options);
}

absl::StatusOr<std::vector<ShardKey>> DagStore::ShardsContainingMultihash(const MultihashView& hash,
                                                                          size_t shards_max,
                                                                          const RequestOptions& options) const {
  std::vector<ShardKey> keys;
  FindShardsOptions find;
  static_cast<RequestOptions&>(find) = options;
  absl::Status unread;
  do {
    find.shards_max = shards_max - keys.size();
    if (find.shards_max == 0) break;
    ASSIGN_OR_RETURN(ShardHoldersPage page, HoldersPage(hash, nullptr, find));
    for (ShardHolder& holder : page.shards) keys.push_back(std::move(holder.key));
    if (unread.ok() && !page.unread.empty()) unread = page.unread.front().error;
    find.after = page.next_after;
  } while (find.after != 0);
  if (keys.empty()) RETURN_IF_ERROR(unread);
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());  // indexed again between two pages
  return keys;
}

absl::StatusOr<std::vector<ShardKey>> DagStore::ShardsWithRoot(const Cid& root, size_t shards_max,
                                                               const RequestOptions& options) const {
  std::vector<ShardKey> keys;
  Ordinal after = 0;
  do {
    RETURN_IF_ERROR(core_->CheckDeadline(options));
    ASSIGN_OR_RETURN(const RootsPage page, dagstore::ShardsWithRoot(*core_->lookup.kv, root, after, 1024));
    for (const Ordinal ordinal : page.ordinals) {
      if (keys.size() >= shards_max) return keys;
      if (auto key = core_->directory.KeyOf(ordinal)) keys.push_back(*std::move(key));
    }
    after = page.next_after;
  } while (after != 0);
  std::sort(keys.begin(), keys.end());
  return keys;
}

absl::StatusOr<std::shared_ptr<const ShardIndex>> DagStore::GetIterableIndex(const ShardKey& key) const {
  ASSIGN_OR_RETURN(const ShardRecord record, core_->lookup.ReadRecord(key));
  return core_->lookup.OpenIndex(record);
}

absl::Status DagStore::AwaitLookups(Deadline deadline) const {
  if (core_->lookups_ready.HasBeenNotified()) return absl::OkStatus();
  if (deadline.IsInfinite()) {
    core_->lookups_ready.WaitForNotification();
    return absl::OkStatus();
  }
  if (core_->lookups_ready.WaitForNotificationWithTimeout(deadline.Remaining(core_->clock->Now())))
    return absl::OkStatus();
  return DeadlineExceeded("the top-level index is still being completed after a crash");
}

absl::StatusOr<StoreStats> DagStore::Stats() const {
  StoreStats stats;
  ASSIGN_OR_RETURN(stats.engine, core_->Inspect<EngineStats>([](Engine& e) {
    e.AssertLoop();
    return e.Stats();
  }));
  stats.top = core_->repository->top->Stats();
  if (core_->options.trace.sink != nullptr) stats.spans = core_->options.trace.sink->Stats();
  for (const uint64_t shards : stats.engine.shards_by_state) stats.shards += shards;
  stats.database_bytes = core_->repository->kv->SizeBytes();
  stats.syncs = core_->repository->kv->SyncCount();
  stats.failures = core_->failures.published();
  stats.quarantined = core_->quarantined.load(std::memory_order_relaxed);
  stats.lookups_ready = core_->lookups_ready.HasBeenNotified();
  if (core_->repository->upgrader != nullptr) {
    stats.copies = core_->repository->copies->Stats();
    stats.sources = core_->repository->upgrader->sources().Stats();
    stats.upgrader = core_->repository->upgrader->Stats();
  }
  return stats;
}

absl::StatusOr<std::string> DagStore::MetricsText() const {
  ASSIGN_OR_RETURN(const StoreStats stats, Stats());
  return MetricsTextOf(stats);
}

absl::StatusOr<std::vector<std::string>> DagStore::Stragglers() const {
  return core_->Inspect<std::vector<std::string>>([](Engine& e) {
    e.AssertLoop();
    return e.Stragglers();
  });
}

absl::StatusOr<std::vector<QuarantinedRecord>> DagStore::ListQuarantined(size_t records_max) const {
  std::vector<QuarantinedRecord> out;
  const std::unique_ptr<KvCursor> cursor = core_->lookup.kv->Scan(KvTable::kQuarantine);
  for (; cursor->Valid() && out.size() < records_max; cursor->Next()) {
    const absl::Status decoded = DecodeRecord(AsSpan(cursor->value())).status();
    out.push_back({std::string(cursor->key()),
                   decoded.ok() ? "readable by now, but the key has been registered again" : ToString(decoded)});
  }
  RETURN_IF_ERROR(cursor->status());
  return out;
}

absl::Status DagStore::DropQuarantined(const ShardKey& key) {
  MutexLock lock(core_->quarantine_mu);
  Kv& kv = *core_->lookup.kv;
  ASSIGN_OR_RETURN(const std::optional<std::string> record, kv.Get(KvTable::kQuarantine, key.bytes()));
  if (!record.has_value()) return NotFound("no record of \"{}\" is in quarantine", key.Printable());
  KvBatch batch;
  batch.Delete(KvTable::kQuarantine, key.bytes());
  RETURN_IF_ERROR(kv.Commit(batch, /*sync=*/true));
  core_->quarantined.fetch_sub(1, std::memory_order_relaxed);
  return absl::OkStatus();
}

namespace {

// The ordinal in "<stem>.<ordinal>.car", 0 if there is none.
Ordinal OrdinalOfCopy(const std::string& name) {
  const size_t end = name.rfind('.');
  const size_t begin = end == std::string::npos || end == 0 ? std::string::npos : name.rfind('.', end - 1);
  if (begin == std::string::npos) return 0;
  Ordinal ordinal = 0;
  const auto [rest, error] = std::from_chars(name.data() + begin + 1, name.data() + end, ordinal);
  return error == std::errc() && rest == name.data() + end ? ordinal : 0;
}

// Copies that earlier processes made and no record names, also those of ordinals that live: a shard may read another
// copy by now.
absl::StatusOr<uint64_t> SweepCopies(Repository& repository, Io& io) {
  ASSIGN_OR_RETURN(const std::vector<TransientInfo> copies, repository.upgrader->List(io));
  std::map<std::string, const TransientInfo*> unowned;
  for (const TransientInfo& copy : copies) {
    const Ordinal ordinal = OrdinalOfCopy(copy.path);
    if (ordinal != 0 && ordinal < repository.next_ordinal) unowned[copy.path] = &copy;
  }
  if (unowned.empty() || Mutant(kMutantOrphanCopiesKept)) return 0;
  const std::unique_ptr<KvCursor> records = repository.kv->Scan(KvTable::kRecords);
  for (; records->Valid(); records->Next()) {
    ASSIGN_OR_RETURN(const ShardRecord record, DecodeRecord(AsSpan(records->value())));  // else who knows what it owns
    if (record.copy.has_value()) unowned.erase(record.copy->name);
  }
  RETURN_IF_ERROR(records->status());
  uint64_t removed = 0;
  for (const auto& [name, copy] : unowned) {
    if (!repository.upgrader->BeginRemovingOrphan(name)) continue;
    const absl::Status moved = repository.upgrader->MoveToTrash(io, *copy);
    repository.upgrader->EndRemovingOrphan(name);
    RETURN_IF_ERROR(moved);
    ++removed;
  }
  return removed;
}

}  // namespace

absl::StatusOr<GcResult> DagStore::Gc(const GcOptions& options) {
  ASSIGN_OR_RETURN(const SpanContext parent, core_->ParentOf(options));
  bool sampled = false;
  const SpanContext span =
      core_->NewSpan(parent, core_->next_ticket.fetch_add(1, std::memory_order_relaxed), sampled);
  SpanRecord record("dagstore.gc", span, parent, core_->clock->Now());
  const absl::StatusOr<GcResult> result = core_->Gc(options, span);
  if (sampled) {
    record.end = core_->clock->Now();
    if (result.ok()) record.Add("dagstore.bytes", static_cast<int64_t>(result->bytes_removed));
    record.SetStatus(result.status());
    core_->options.trace.sink->Record(std::move(record));
  }
  return result;
}

absl::StatusOr<GcResult> DagStore::Core::Gc(const GcOptions& gc, const SpanContext& span) {
  RETURN_IF_ERROR(CheckDeadline(gc));
  GcResult result;
  uint64_t copy_bytes = 0;
  std::vector<std::pair<ShardKey, uint64_t>> copies;
  constexpr size_t kCopiesPerPass = 100'000;
  ASSIGN_OR_RETURN(const std::vector<ShardKey> keys, Inspect<std::vector<ShardKey>>([](Engine& e) {
    e.AssertLoop();
    return e.Collectable(kCopiesPerPass);
  }));
  for (const ShardKey& key : keys) {
    const absl::StatusOr<ShardRecord> record = lookup.ReadRecord(key);
    if (!record.ok() || !record->copy.has_value() || !record->copy->owned) continue;
    const uint64_t bytes =
        repository->copies != nullptr ? repository->copies->BytesOf(record->copy->name)
                                             : record->copy->size;
    copy_bytes += bytes;
    if (repository->copies != nullptr && repository->copies->Pinned(key.bytes())) continue;
    copies.emplace_back(key, bytes);
  }
  const Channel<ShardResult> out(1);
  for (const auto& [key, bytes] : copies) {
    if (copy_bytes <= gc.copy_bytes_target) break;
    RETURN_IF_ERROR(CheckDeadline(gc));
    RequestOptions collect;
    collect.deadline = gc.deadline;
    collect.parent = span;
    RETURN_IF_ERROR(Submit(ShardOp::kCollect, key, out, collect).status());
    if (!out.Receive().status.ok()) continue;  // in use again, or it failed and is in the failure log
    copy_bytes -= bytes;
    result.bytes_removed += bytes;
    ++result.copies_removed;
  }
  KvBatch batch;
  const bool keep_all = quarantined.load(std::memory_order_relaxed) != 0 &&
                        !Mutant(kMutantSweptInQuarantine);  // who knows what they own
  ASSIGN_OR_RETURN(const IndexSweep sweep, lookup.indexes->Sweep(
      [&](Ordinal ordinal) { return keep_all || directory.IsAlive(ordinal); }, batch));
  // An ordinal of this process may be durable and not yet alive: only older ones are surely dead.
  ASSIGN_OR_RETURN(const uint64_t roots, SweepRoots(*lookup.kv, [&](Ordinal ordinal) {
    return !keep_all && ordinal < repository->next_ordinal && !directory.IsAlive(ordinal);
  }, batch));
  if (!batch.empty() && !Mutant(kMutantUncommittedSweep)) RETURN_IF_ERROR(lookup.kv->Commit(batch, /*sync=*/true));
  result.orphans_removed = sweep.files + sweep.values + sweep.temporaries + roots;
  if (repository->upgrader != nullptr && !keep_all) {
    ASSIGN_OR_RETURN(const uint64_t orphans, SweepCopies(*repository, *io));
    result.orphans_removed += orphans;
  }
  RETURN_IF_ERROR(lookup.indexes->EmptyTrash().status());
  if (repository->upgrader != nullptr) RETURN_IF_ERROR(repository->upgrader->EmptyTrash(*io).status());
  return result;
}

absl::Status DagStore::FetchWhole(const ShardKey& key, const WorkContext& work) {
  ASSIGN_OR_RETURN(const Accessor accessor, AcquireShardFor(key, work));
  // The shard is there.
  return Recoded(accessor.source().MakeWhole(work), absl::StatusCode::kNotFound, absl::StatusCode::kUnavailable);
}

std::vector<FailureEvent> DagStore::FailureLog(size_t events_max) const { return core_->failures.Last(events_max); }

std::shared_ptr<EventLog<FailureEvent>::Subscription> DagStore::SubscribeFailures(size_t events_kept_max) {
  return core_->failures.Subscribe(events_kept_max);
}

std::shared_ptr<EventLog<TraceEvent>::Subscription> DagStore::SubscribeTrace(size_t events_kept_max) {
  auto subscription = core_->traces.Subscribe(events_kept_max);
  // Who is inside without the loop's knowledge is counted, so that his release is seen.
  (void)core_->Inspect<bool>([](Engine& e) {
    e.AssertLoop();
    e.CloseGates();
    return true;
  });
  return subscription;
}

// ---- Manifests ----

namespace {

// With the next batch of the loop, unless the deadline passes before it gets there.
absl::Status StoreBeside(const std::shared_ptr<TaskQueues>& queues, const ShardKey& key, KvBatch batch,
                         const TaskMeta& meta) {
  RETURN_IF_ERROR(CheckKvBatch(batch));  // a commit that is refused would end all that is stored with it
  const Channel<ShardResult> out(1);
  Request request(meta);
  request.inspect = [key, meta, batch = std::move(batch), slot = *out.Reserve()](Engine& e) mutable {
    e.AssertLoop();
    e.StoreBeside(key, std::move(batch), meta, std::move(slot));
  };
  RETURN_IF_ERROR(queues->PushRequest(std::move(request)));
  return out.Receive().status;
}

}  // namespace

absl::Status DagStore::AddManifest(const ShardKey& key, const std::string& rule, uint64_t version,
                                   std::span<const Cid> cids, const RequestOptions& options) {
  RETURN_IF_ERROR(key.Check());
  RETURN_IF_ERROR(core_->CheckDeadline(options));
  ASSIGN_OR_RETURN(const SpanContext parent, core_->ParentOf(options));
  KvBatch batch;
  RETURN_IF_ERROR(ReadManifests().Add(batch, {key.bytes(), rule, version}, cids, core_->clock->WallNow()));
  return StoreBeside(core_->queues, key, std::move(batch), TaskMeta(parent, options.deadline, 0));
}

absl::Status DagStore::DropManifest(const ShardKey& key, const std::string& rule, uint64_t version,
                                    const RequestOptions& options) {
  RETURN_IF_ERROR(key.Check());
  RETURN_IF_ERROR(core_->CheckDeadline(options));
  ASSIGN_OR_RETURN(const SpanContext parent, core_->ParentOf(options));
  KvBatch batch;
  RETURN_IF_ERROR(ReadManifests().Drop(batch, {key.bytes(), rule, version}));
  return StoreBeside(core_->queues, key, std::move(batch), TaskMeta(parent, options.deadline, 0));
}

// ---- Pins ----

// Beside the record and not in it: a job that read the record before the pin came writes it back after it.
absl::Status DagStore::Core::SetPin(const ShardKey& key, bool pinned) {
  RETURN_IF_ERROR(key.Check());
  KvBatch batch;
  if (pinned) {
    batch.Put(KvTable::kMeta, kMetaPin + key.bytes(), {});
  } else {
    batch.Delete(KvTable::kMeta, kMetaPin + key.bytes());
  }
  RETURN_IF_ERROR(StoreBeside(queues, key, std::move(batch), NobodysMeta()));
  if (repository->copies != nullptr) repository->copies->Pin(key.bytes(), pinned);
  return absl::OkStatus();
}

absl::Status DagStore::Pin(const ShardKey& key) { return core_->SetPin(key, true); }
absl::Status DagStore::Unpin(const ShardKey& key) { return core_->SetPin(key, false); }

Manifests DagStore::ReadManifests() const { return Manifests(*core_->lookup.kv); }

const Options& DagStore::options() const { return core_->options; }
const MountRegistry& DagStore::mounts() const { return *core_->options.mounts; }
const DagStore::Lookup& DagStore::lookup() const { return core_->lookup; }

}  // namespace dagstore
