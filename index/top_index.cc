#include "index/top_index.h"

#include <absl/container/flat_hash_set.h>
#include <absl/container/inlined_vector.h>
#include <absl/time/time.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/varint.h"
#include "index/ordinal_set.h"
#include "index/top_buffer.h"
#include "index/top_run.h"

namespace dagstore {
namespace {

using RunPtr = std::shared_ptr<const TopRun>;

constexpr uint32_t kManifestVersion = 2;
constexpr std::string_view kManifestKey = "manifest";
constexpr std::string_view kCoveredPrefix = "covered/";
constexpr double kDeadFractionMax = 0.25;  // of a run, before it is rewritten
constexpr size_t kFindGroup = 16;          // keys whose memory is fetched at once
constexpr size_t kFindRuns = 8;            // runs likewise
constexpr size_t kSnapshotSlots = 16;
constexpr uint32_t kMergePause = 4096;      // buckets between looks at what else there is to do
constexpr uint32_t kMergeListPause = 65536;  // ordinals of lists likewise
constexpr size_t kPageTrimMin = 64;          // ordinals gathered before they are sorted for the first time
constexpr absl::Duration kRetiredPoll = absl::Milliseconds(20);  // while replaced runs wait for their last reader

std::string RunName(uint64_t number, std::string_view suffix) { return fmt::format("run-{:016x}{}", number, suffix); }

bool IsRunName(std::string_view name) {
  if (name.size() != 24 || name.substr(0, 4) != "run-") return false;
  if (name.find_first_not_of("0123456789abcdef", 4) != 20) return false;
  return name.substr(20) == ".top" || name.substr(20) == ".tmp";
}

std::string CoveredKey(uint32_t chunk) {
  std::string key(kCoveredPrefix);
  Append32Big(key, chunk);
  return key;
}

// See docs/format.md#top-level-index.
struct Manifest {
  uint64_t number_next = 1;
  std::vector<RunInfo> runs;
};

std::string Encode(const Manifest& manifest) {
  std::string out;
  Append32(out, kManifestVersion);
  Append64(out, manifest.number_next);
  Append32(out, static_cast<uint32_t>(manifest.runs.size()));
  for (const RunInfo& run : manifest.runs) {
    Append64(out, run.number);
    Append64(out, run.entries);
    Append32(out, run.ordinal_min);
    Append32(out, run.ordinal_max);
    Append32(out, run.header_crc);
    Append32(out, run.range.Packed());
  }
  Append32(out, Crc32c(AsSpan(out)));
  return out;
}

absl::StatusOr<Manifest> DecodeManifest(std::string_view text) {
  constexpr size_t kHead = 16, kTail = 4;
  const Span bytes = AsSpan(text);
  if (bytes.size() < kHead + kTail || Crc32c(bytes.first(bytes.size() - kTail)) != Load32(&bytes[bytes.size() - kTail]))
    return DataLoss("the manifest of the top-level index is damaged");
  const uint32_t version = Load32(bytes.data());
  if (version == 0 || version > kManifestVersion)
    return FailedPrecondition("the top-level index has version {}: this build reads {}", version, kManifestVersion);
  const size_t kRun = version == 1 ? 28 : 32;  // version 1 knew no ranges
  Manifest manifest;
  manifest.number_next = Load64(&bytes[4]);
  const uint32_t count = Load32(&bytes[12]);
  if (bytes.size() != kHead + uint64_t{count} * kRun + kTail)
    return DataLoss("the manifest of the top-level index has a wrong size");
  for (const uint8_t* at = &bytes[kHead]; at != &bytes[bytes.size() - kTail]; at += kRun) {
    RunInfo run{Load64(at), Load64(at + 8), Load32(at + 16), Load32(at + 20), Load32(at + 24), {}};
    if (version > 1 && !KeyRange::Unpack(Load32(at + 28), run.range))
      return DataLoss("the manifest of the top-level index names no range of keys");
    manifest.runs.push_back(run);
  }
  return manifest;
}

std::string Encode(uint32_t chunk, const OrdinalSet::Words& words) {
  std::string out;
  for (const uint64_t word : words) Append64(out, word);
  std::string checked = CoveredKey(chunk);
  checked += out;
  Append32(out, Crc32c(AsSpan(checked)));
  return out;
}

// False if the chunk is damaged: its ordinals then count as not covered.
bool DecodeChunk(uint32_t chunk, std::string_view text, OrdinalSet::Words& words) {
  if (text.size() != sizeof(words) + 4) return false;
  std::memcpy(words.data(), text.data(), sizeof(words));
  return Encode(chunk, words) == text;
}

// The file of a run that lives in memory.
class MemoryFile final : public WritableFile {
 public:
  absl::Status Append(Span data) override { return WriteAt(bytes_.size(), data); }
  absl::Status WriteAt(uint64_t offset, Span data) override {
    if (bytes_.size() < offset + data.size()) bytes_.resize(offset + data.size());
    std::copy(data.begin(), data.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
    return absl::OkStatus();
  }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }
  Bytes Take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

// Lock order: manifest_mutex_, then mutex_, then one of the others.
class PackedTopIndex final : public TopIndex {
 public:
  PackedTopIndex(const TopIndexOptions& options, Kv& kv, Io& io)
      : options_(options),
        kv_(kv),
        io_(io),
        resident_(std::make_shared<ResidentBudget>(options.resident_bytes_max)),
        active_(NewBuffer()) {}
  ~PackedTopIndex() override;

  // Before any other call. Reads the manifest and what it lists, then starts the thread.
  absl::Status Open();

  absl::Status Add(Ordinal ordinal, std::vector<Fingerprint> sorted) override;
  void Seal(Ordinal ordinal) override;
  void Drop(Ordinal ordinal) override;
  void DropAllExcept(const std::vector<bool>& live) override;
  absl::Status Find(std::span<const Fingerprint> keys, absl::FunctionRef<void(size_t, Ordinal)> visit,
                    size_t ordinals_max) const override;
  absl::Status FindPage(Fingerprint key, Ordinal after, size_t ordinals_max,
                        std::vector<Ordinal>& page) const override;
  bool Covers(Ordinal ordinal) const override { return covered_.Contains(ordinal); }
  uint64_t OrdinalsEnd() const override { return std::max({known_.End(), runs_end_, uint64_t{1}}); }
  absl::Status Flush() override;
  absl::Status Health() const override;
  absl::StatusOr<std::vector<Ordinal>> DropDamaged() override;
  TopIndexStats Stats() const override;
  absl::Status CheckAll() const override;
  absl::Status Compact() override;
  void AwaitIdle() override;

 private:
  // What a reader sees: immutable, but for entries that the active table gains.
  struct State {
    std::vector<RunPtr> runs;
    std::shared_ptr<const TopBuffer> active;
    std::shared_ptr<const TopBuffer> frozen;  // full, being written as a run; or null
  };
  // Copies of the state with reference counts of their own, so that readers on different cores share no line.
  struct alignas(64) Slot {
    mutable Mutex mutex;
    std::shared_ptr<const State> state ABSL_GUARDED_BY(mutex);
  };

  bool in_memory() const { return options_.dir.empty(); }
  std::string Path(const std::string& name) const { return options_.dir + "/" + name; }
  std::shared_ptr<TopBuffer> NewBuffer() const { return std::make_shared<TopBuffer>(options_.buffer_entries_max); }

  std::shared_ptr<const State> Snapshot() const;
  // A snapshot for a lookup, which is complete if `complete` says so.
  std::shared_ptr<const State> SnapshotToSearch(bool& complete) const;
  absl::Status EndOfSearch(const TopRun* damaged, bool complete) const;
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Await(const std::vector<Ordinal>& ordinals);
  void Arrived(Ordinal ordinal);

  // The active table becomes the frozen one, of which there is none yet; the thread writes it.
  void Freeze() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until the frozen table is written, or until one attempt at that failed, and returns the error. Gives up the
  // mutex meanwhile.
  absl::Status AwaitWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteEnded(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AddAsRun(Ordinal ordinal, std::span<const Fingerprint> sorted);

  // Writes a file, whole or not at all; null if `fill` appended nothing.
  absl::StatusOr<RunPtr> WriteRun(uint64_t slots_expected, bool single_ordinal, KeyRange range,
                                  absl::FunctionRef<absl::Status(TopRunWriter&)> fill);
  void RemoveRunFile(const TopRun& run);
  // Makes `added` take the place of `removed` and of the table `flushed` (may be null), on disk and for readers; what
  // was sealed in that table is covered from now on. On an error nothing has changed, and `added` is gone.
  absl::Status Install(const std::vector<RunPtr>& added, const std::vector<RunPtr>& removed, TopBuffer* flushed);
  absl::Status Commit(const std::vector<RunPtr>& runs, const std::map<uint32_t, OrdinalSet::Words>& chunks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(manifest_mutex_);

  // The index's own thread.
  void Run();
  void Wake();
  void WriteFrozen();
  std::vector<RunPtr> PickMerge();
  absl::Status Merge(const std::vector<RunPtr>& inputs);
  // The entries of the writer's range, from cursors that stand at its begin.
  absl::Status FillMerged(std::vector<TopRun::Cursor>& cursors, TopRunWriter& writer);
  // In a long merge, now and then: what else there is to do. Cancelled if the index is closing.
  absl::Status PauseMerge();
  // Removes what no reader holds any more. True if something is left.
  bool ReleaseRetired();
  bool stopping() const { return stop_.load(std::memory_order_relaxed); }

  const TopIndexOptions options_;
  Kv& kv_;
  Io& io_;
  const std::shared_ptr<ResidentBudget> resident_;

  std::array<Slot, kSnapshotSlots> slots_;
  OrdinalSet dead_;     // dropped: never returned, left out of merges
  OrdinalSet known_;    // seen by Add or by the coverage
  OrdinalSet covered_;  // written under manifest_mutex_
  std::atomic<uint64_t> number_next_{1};
  std::atomic<uint64_t> drops_{0};  // since dead entries were last counted
  std::atomic<uint64_t> dead_entries_{0};
  std::atomic<uint64_t> flushes_{0};
  std::atomic<uint64_t> merges_{0};
  std::atomic<uint64_t> merge_failures_{0};
  uint64_t runs_end_ = 0;  // one past the greatest ordinal of the runs found at open; constant after Open

  // Held from reading the list of runs until its successor is stored and shown: changes come one after another.
  Mutex manifest_mutex_;

  // What is shown to readers. Held briefly, and while entries go into the table; never across a file or kv operation.
  mutable Mutex mutex_;
  std::vector<RunPtr> runs_ ABSL_GUARDED_BY(mutex_);     // changed under manifest_mutex_ too
  std::vector<RunPtr> retired_ ABSL_GUARDED_BY(mutex_);  // not listed any more; removed when the last reader is gone
  CondVar written_;  // an attempt to write the frozen table has ended
  std::shared_ptr<TopBuffer> active_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<TopBuffer> frozen_ ABSL_GUARDED_BY(mutex_);
  bool write_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t write_attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status write_error_ ABSL_GUARDED_BY(mutex_);  // of the last attempt

  // Ordinals whose entries are not all here.
  mutable Mutex awaited_mutex_;
  absl::flat_hash_set<Ordinal> awaited_ ABSL_GUARDED_BY(awaited_mutex_);
  std::atomic<size_t> awaited_count_{0};
  std::atomic<uint64_t> awaited_changes_{0};  // times that ordinals were put in

  // What wakes the thread.
  mutable Mutex wake_mutex_;
  CondVar wake_changed_;
  bool wake_ ABSL_GUARDED_BY(wake_mutex_) = false;
  bool idle_ ABSL_GUARDED_BY(wake_mutex_) = false;
  std::atomic<bool> stop_{false};
  std::atomic<bool> compact_wanted_{false};

  // The index's own thread.
  std::map<uint64_t, double> dead_fractions_;  // by run number, as last sampled
  Thread thread_;
};

PackedTopIndex::~PackedTopIndex() {
  stop_ = true;
  Wake();
  if (thread_.joinable()) thread_.Join();
  // Nobody reads now, so what was replaced can go.
  for (Slot& slot : slots_) {
    const MutexLock lock(slot.mutex);
    slot.state = nullptr;
  }
  ReleaseRetired();
}

absl::Status PackedTopIndex::Open() {
  if (!in_memory()) {
    RETURN_IF_ERROR(io_.MakeDir(options_.dir));
    ASSIGN_OR_RETURN(const std::optional<std::string> stored, kv_.Get(KvTable::kTopIndex, kManifestKey));
    absl::StatusOr<Manifest> manifest = stored.has_value() ? DecodeManifest(*stored) : Manifest();
    if (absl::IsDataLoss(manifest.status())) {
      // Derived data: without the list of runs there are none, and nothing is covered.
      KvBatch batch;
      batch.DeletePrefix(KvTable::kTopIndex, std::string(kCoveredPrefix));
      batch.Put(KvTable::kTopIndex, std::string(kManifestKey), Encode(Manifest()));
      RETURN_IF_ERROR(kv_.Commit(batch, true));
      manifest = Manifest();
    }
    RETURN_IF_ERROR(manifest.status());
    number_next_ = manifest->number_next;

    std::map<uint32_t, OrdinalSet::Words> changed;
    const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kTopIndex, kCoveredPrefix, kCoveredPrefix);
    for (; cursor->Valid(); cursor->Next()) {
      const Span key = AsSpan(cursor->key()).subspan(kCoveredPrefix.size());
      if (key.size() != 4 || Load32Big(key.data()) >= OrdinalSet::kChunks) continue;
      const uint32_t chunk = Load32Big(key.data());
      OrdinalSet::Words words;
      if (DecodeChunk(chunk, cursor->value(), words)) {
        covered_.Write(chunk, words);
        known_.Write(chunk, words);
      } else {
        changed[chunk] = {};
      }
    }
    RETURN_IF_ERROR(cursor->status());

    absl::flat_hash_set<std::string> listed;
    std::vector<RunPtr> runs;
    bool lost = false;
    // The smallest first: they are many, and have the first claim on what may be resident.
    std::sort(manifest->runs.begin(), manifest->runs.end(),
              [](const RunInfo& a, const RunInfo& b) { return a.entries < b.entries; });
    for (const RunInfo& info : manifest->runs) {
      const std::string name = RunName(info.number, ".top");
      runs_end_ = std::max<uint64_t>(runs_end_, uint64_t{info.ordinal_max} + 1);
      absl::StatusOr<std::unique_ptr<RandomFile>> file = io_.Open(Path(name), Follow::kNever);
      absl::StatusOr<RunPtr> run = file.ok() ? TopRun::Open(*std::move(file), &info, resident_) : file.status();
      if (run.ok()) {
        runs.push_back(*std::move(run));
        listed.insert(name);
        continue;
      }
      if (!absl::IsNotFound(run.status()) && !absl::IsDataLoss(run.status()) && !absl::IsInvalidArgument(run.status()))
        return Annotate(run.status(), "open the top-level index");
      lost = true;
      for (uint64_t ordinal = info.ordinal_min; ordinal <= info.ordinal_max;) {
        const auto chunk = static_cast<uint32_t>(ordinal / OrdinalSet::kChunkOrdinals);
        const uint64_t end = uint64_t{chunk + 1} * OrdinalSet::kChunkOrdinals;
        auto [at, added] = changed.try_emplace(chunk);
        if (added) covered_.Read(chunk, at->second);
        for (; ordinal <= info.ordinal_max && ordinal < end; ++ordinal)
          at->second[ordinal % OrdinalSet::kChunkOrdinals / 64] &= ~(uint64_t{1} << (ordinal % 64));
      }
    }
    for (const auto& [chunk, words] : changed) covered_.Write(chunk, words);
    {
      const MutexLock manifest_lock(manifest_mutex_);
      if (lost || !changed.empty()) RETURN_IF_ERROR(Commit(runs, changed));
      const MutexLock lock(mutex_);
      runs_ = std::move(runs);
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> names, io_.List(options_.dir));
    for (const std::string& name : names) {
      if (IsRunName(name) && !listed.contains(name)) RETURN_IF_ERROR(io_.Remove(Path(name)));
    }
  }
  {
    const MutexLock lock(mutex_);
    Publish();
  }
  thread_ = Thread("dagstore-top", [this] { Run(); });
  return absl::OkStatus();
}

std::shared_ptr<const PackedTopIndex::State> PackedTopIndex::Snapshot() const {
  static std::atomic<size_t> threads{0};
  static thread_local const size_t mine = threads.fetch_add(1) % kSnapshotSlots;
  const MutexLock lock(slots_[mine].mutex);
  return slots_[mine].state;
}

void PackedTopIndex::Publish() {
  for (Slot& slot : slots_) {
    auto next = std::make_shared<const State>(State{runs_, active_, frozen_});
    std::shared_ptr<const State> last;  // goes after the lock
    const MutexLock lock(slot.mutex);
    last = std::exchange(slot.state, std::move(next));
  }
}

void PackedTopIndex::Await(const std::vector<Ordinal>& ordinals) {
  const MutexLock lock(awaited_mutex_);
  awaited_.insert(ordinals.begin(), ordinals.end());
  awaited_count_ = awaited_.size();
  ++awaited_changes_;
}

void PackedTopIndex::Arrived(Ordinal ordinal) {
  if (awaited_count_.load(std::memory_order_relaxed) == 0) return;
  const MutexLock lock(awaited_mutex_);
  awaited_.erase(ordinal);
  awaited_count_ = awaited_.size();
}

std::shared_ptr<const PackedTopIndex::State> PackedTopIndex::SnapshotToSearch(bool& complete) const {
  // Complete if nothing was awaited before the snapshot was taken, and nothing began to be until then.
  const uint64_t changes = awaited_changes_.load();
  const size_t awaited = awaited_count_.load();
  std::shared_ptr<const State> state = Snapshot();
  complete = (awaited == 0 && awaited_changes_.load() == changes) || Mutant(kMutantFindHidesGaps);
  return state;
}

absl::Status PackedTopIndex::EndOfSearch(const TopRun* damaged, bool complete) const {
  if (damaged != nullptr) return damaged->DamagedStatus();
  if (!complete) return Unavailable("shards are still to be added to the top-level index: {}", awaited_count_.load());
  return absl::OkStatus();
}

absl::Status PackedTopIndex::Find(std::span<const Fingerprint> keys, absl::FunctionRef<void(size_t, Ordinal)> visit,
                                  size_t ordinals_max) const {
  bool complete = false;
  const std::shared_ptr<const State> state = SnapshotToSearch(complete);
  const TopBuffer* buffers[2];
  size_t buffer_count = 0;
  for (const TopBuffer* buffer : {state->active.get(), state->frozen.get()}) {
    if (buffer != nullptr && buffer->size() != 0) buffers[buffer_count++] = buffer;
  }
  const TopRun* damaged = nullptr;
  absl::InlinedVector<uint64_t, 64> hits;  // position in the group, ordinal
  for (size_t base = 0; base < keys.size(); base += kFindGroup) {
    const size_t count = std::min(kFindGroup, keys.size() - base);
    RunKey wanted[kFindGroup];
    uint32_t chains[2][kFindGroup];
    TopRun::Range ranges[kFindGroup];  // each written before it is read
    uint32_t asked[kFindRuns];         // for each run a bit for each key that it may hold
    static_assert(kFindGroup <= 32);
    hits.clear();
    // What one run or table has of one key. It stops at the limit, so a union of fewer is complete.
    const auto hit = [&](size_t i) {
      return [this, &hits, i, left = ordinals_max](Ordinal ordinal) mutable {
        if (left == 0) return false;
        if (dead_.Contains(ordinal)) return true;
        --left;
        hits.push_back(uint64_t{i} << 32 | ordinal);
        return true;
      };
    };
    for (size_t i = 0; i < count; ++i) {
      wanted[i] = RunKeyOf(keys[base + i]);
      for (size_t b = 0; b < buffer_count; ++b) buffers[b]->Prefetch(wanted[i]);
    }
    for (size_t first = 0; first == 0 || first < state->runs.size(); first += kFindRuns) {
      const size_t run_count = std::min(kFindRuns, state->runs.size() - first);
      const RunPtr* const runs = state->runs.data() + first;
      for (size_t r = 0; r < run_count; ++r) {
        const TopRun& run = *runs[r];
        asked[r] = 0;
        for (size_t i = 0; i < count; ++i) {
          if (!run.InRange(wanted[i])) continue;
          asked[r] |= uint32_t{1} << i;
          // Both at once: a hit waits for the slower of them, a miss for the filter.
          if (run.has_filter()) run.PrefetchFilter(wanted[i]);
          run.PrefetchDirectory(wanted[i]);
        }
      }
      if (first == 0) {
        for (size_t b = 0; b < buffer_count; ++b)
          for (size_t i = 0; i < count; ++i) chains[b][i] = buffers[b]->Begin(wanted[i]);
      }
      for (size_t r = 0; r < run_count; ++r) {
        const TopRun& run = *runs[r];
        if (!run.has_filter()) continue;
        for (uint32_t left = asked[r]; left != 0; left &= left - 1) {
          const auto i = static_cast<size_t>(std::countr_zero(left));
          if (!run.FilterPasses(wanted[i])) asked[r] &= ~(uint32_t{1} << i);
        }
      }
      if (first == 0) {
        for (size_t b = 0; b < buffer_count; ++b)
          for (size_t i = 0; i < count; ++i) buffers[b]->Find(wanted[i], chains[b][i], hit(i));
      }
      for (size_t r = 0; r < run_count; ++r) {
        const TopRun& run = *runs[r];
        for (uint32_t left = asked[r]; left != 0; left &= left - 1) {
          const auto i = static_cast<size_t>(std::countr_zero(left));
          ranges[i] = run.PrefetchEntries(wanted[i]);
        }
        for (uint32_t left = asked[r]; left != 0; left &= left - 1) {
          const auto i = static_cast<size_t>(std::countr_zero(left));
          run.Scan(wanted[i], ranges[i], hit(i));
        }
        if (run.damaged()) damaged = &run;
      }
    }
    // A shard that was added again is found twice.
    if (hits.size() > 1) {
      if (!std::is_sorted(hits.begin(), hits.end())) std::sort(hits.begin(), hits.end());
      hits.erase(std::unique(hits.begin(), hits.end()), hits.end());
    }
    size_t given = 0;
    for (size_t at = 0; at < hits.size(); ++at) {
      given = at != 0 && hits[at] >> 32 == hits[at - 1] >> 32 ? given + 1 : 0;
      if (given < ordinals_max) visit(base + static_cast<size_t>(hits[at] >> 32), static_cast<Ordinal>(hits[at]));
    }
  }
  return EndOfSearch(damaged, complete);
}

absl::Status PackedTopIndex::FindPage(Fingerprint key, Ordinal after, size_t ordinals_max,
                                      std::vector<Ordinal>& page) const {
  page.clear();
  if (ordinals_max == 0) return absl::OkStatus();
  bool complete = false;
  const std::shared_ptr<const State> state = SnapshotToSearch(complete);
  const RunKey wanted = RunKeyOf(key);
  uint64_t end = TopRun::kAllOrdinals;  // what is not below it is on no page that is asked for
  const auto trim = [&] {
    std::sort(page.begin(), page.end());
    page.erase(std::unique(page.begin(), page.end()), page.end());
    if (page.size() < ordinals_max) return;
    page.resize(ordinals_max);
    end = page.back();
  };
  const auto take = [&](Ordinal ordinal) {
    if (ordinal <= after || ordinal >= end || dead_.Contains(ordinal)) return end;
    page.push_back(ordinal);
    if (page.size() / 3 >= ordinals_max && page.size() >= kPageTrimMin) trim();
    return end;
  };
  for (const TopBuffer* buffer : {state->active.get(), state->frozen.get()}) {
    if (buffer == nullptr) continue;
    buffer->Find(wanted, buffer->Begin(wanted), [&](Ordinal ordinal) {
      take(ordinal);
      return true;
    });
  }
  const TopRun* damaged = nullptr;
  for (const RunPtr& run : state->runs) {
    if (!run->InRange(wanted) || (run->has_filter() && !run->FilterPasses(wanted))) continue;
    trim();
    run->Walk(wanted, run->PrefetchEntries(wanted), after, take);
    if (run->damaged()) damaged = run.get();
  }
  trim();
  return EndOfSearch(damaged, complete);
}

absl::Status PackedTopIndex::Add(Ordinal ordinal, std::vector<Fingerprint> sorted) {
  DAGSTORE_CHECK(ordinal != 0);
  DAGSTORE_CHECK(std::is_sorted(sorted.begin(), sorted.end()));
  known_.Insert(ordinal);
  std::span<const Fingerprint> rest(sorted);
  if (rest.size() >= std::max<size_t>(1, options_.buffer_entries_max / 4)) return AddAsRun(ordinal, rest);
  const MutexLock lock(mutex_);
  while (true) {
    rest = rest.subspan(active_->Add(ordinal, rest));
    if (rest.empty()) return absl::OkStatus();
    if (frozen_ == nullptr) {
      Freeze();
    } else {
      RETURN_IF_ERROR(AwaitWrite());
    }
  }
}

absl::Status PackedTopIndex::AddAsRun(Ordinal ordinal, std::span<const Fingerprint> sorted) {
  while (!sorted.empty()) {
    const std::span<const Fingerprint> part = sorted.first(std::min<size_t>(sorted.size(), kRunSlotsMax));
    sorted = sorted.subspan(part.size());
    ASSIGN_OR_RETURN(RunPtr run, WriteRun(part.size(), true, {}, [&](TopRunWriter& writer) -> absl::Status {
                       for (size_t i = 0; i < part.size(); ++i) {
                         const RunKey key = RunKeyOf(part[i]);
                         if (i != 0 && key == RunKeyOf(part[i - 1])) continue;
                         RETURN_IF_ERROR(writer.Append(key, ordinal));
                       }
                       return absl::OkStatus();
                     }));
    RETURN_IF_ERROR(Install({std::move(run)}, {}, nullptr));
  }
  Wake();
  return absl::OkStatus();
}

void PackedTopIndex::Seal(Ordinal ordinal) {
  known_.Insert(ordinal);
  {
    const MutexLock lock(mutex_);
    active_->sealed.push_back(ordinal);
  }
  Arrived(ordinal);
}

void PackedTopIndex::Drop(Ordinal ordinal) {
  if (!dead_.Insert(ordinal)) return;
  Arrived(ordinal);
  // Counting the dead costs the thread a sample of each run, so not for every one of a million.
  if (drops_.fetch_add(1) * 64 >= known_.End()) Wake();
}

void PackedTopIndex::DropAllExcept(const std::vector<bool>& live) {
  const uint64_t end = std::max<uint64_t>(live.size(), OrdinalsEnd());
  DAGSTORE_CHECK(end <= uint64_t{1} << 32);
  std::vector<Ordinal> awaited;
  for (uint64_t base = 0; base < end; base += 64) {
    uint64_t bits = 0;
    for (uint64_t ordinal = base; ordinal < std::min<uint64_t>(base + 64, live.size()); ++ordinal)
      bits |= uint64_t{live[ordinal]} << (ordinal - base);
    const auto word = static_cast<uint32_t>(base / 64);
    const uint64_t below_end = end - base >= 64 ? ~uint64_t{0} : (uint64_t{1} << (end - base)) - 1;
    dead_.InsertWord(word, ~bits & below_end);
    for (uint64_t missing = bits & ~covered_.Word(word); missing != 0; missing &= missing - 1)
      awaited.push_back(static_cast<Ordinal>(base + static_cast<uint64_t>(std::countr_zero(missing))));
  }
  Await(awaited);
  ++drops_;
  Wake();
}

void PackedTopIndex::Freeze() {
  frozen_ = std::exchange(active_, NewBuffer());
  write_wanted_ = true;
  Publish();
  Wake();
}

absl::Status PackedTopIndex::AwaitWrite() {
  const uint64_t attempts = write_attempts_;
  write_wanted_ = true;
  Wake();
  while (frozen_ != nullptr && write_attempts_ == attempts) written_.Wait(mutex_);
  return write_attempts_ == attempts ? absl::OkStatus() : write_error_;
}

absl::Status PackedTopIndex::Flush() {
  const MutexLock lock(mutex_);
  while (frozen_ != nullptr) RETURN_IF_ERROR(AwaitWrite());
  if (active_->size() == 0 && active_->sealed.empty()) return absl::OkStatus();
  Freeze();
  return AwaitWrite();
}

absl::StatusOr<RunPtr> PackedTopIndex::WriteRun(uint64_t slots_expected, bool single_ordinal, KeyRange range,
                                                absl::FunctionRef<absl::Status(TopRunWriter&)> fill) {
  const uint64_t number = number_next_.fetch_add(1);
  const bool filter = slots_expected <= options_.filter_entries_max;
  if (in_memory()) {
    MemoryFile file;
    TopRunWriter writer(file, number, slots_expected, single_ordinal, range, filter);
    RETURN_IF_ERROR(fill(writer));
    if (writer.entries() == 0) return RunPtr();
    RETURN_IF_ERROR(writer.Finish().status());
    return TopRun::FromMemory(file.Take());
  }
  const std::string temp = Path(RunName(number, ".tmp"));
  const std::string path = Path(RunName(number, ".top"));
  const auto make = [&]() -> absl::StatusOr<RunPtr> {
    ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, io_.Create(temp));
    TopRunWriter writer(*file, number, slots_expected, single_ordinal, range, filter);
    RETURN_IF_ERROR(fill(writer));
    if (writer.entries() == 0) return RunPtr();
    ASSIGN_OR_RETURN(const RunInfo info, writer.Finish());
    RETURN_IF_ERROR(file->Sync());
    RETURN_IF_ERROR(file->Close());
    RETURN_IF_ERROR(io_.Rename(temp, path));
    RETURN_IF_ERROR(io_.SyncDir(options_.dir));
    ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> opened, io_.Open(path, Follow::kNever));
    return TopRun::Open(std::move(opened), &info, resident_);
  };
  absl::StatusOr<RunPtr> run = make();
  if (!run.ok() || *run == nullptr) {
    // What cannot be removed now is not listed, so the next open removes it.
    io_.Remove(temp).IgnoreError();
    io_.Remove(path).IgnoreError();
  }
  if (!run.ok()) return Annotate(run.status(), "write a top-level run");
  return run;
}

void PackedTopIndex::RemoveRunFile(const TopRun& run) {
  // Not listed, so what cannot be removed now is removed by the next open.
  if (!in_memory()) io_.Remove(Path(RunName(run.info().number, ".top"))).IgnoreError();
}

absl::Status PackedTopIndex::Commit(const std::vector<RunPtr>& runs,
                                    const std::map<uint32_t, OrdinalSet::Words>& chunks) {
  if (in_memory()) return absl::OkStatus();
  Manifest manifest;
  manifest.number_next = number_next_.load();
  for (const RunPtr& run : runs) manifest.runs.push_back(run->info());
  KvBatch batch;
  batch.Put(KvTable::kTopIndex, std::string(kManifestKey), Encode(manifest));
  for (const auto& [chunk, words] : chunks) batch.Put(KvTable::kTopIndex, CoveredKey(chunk), Encode(chunk, words));
  return kv_.Commit(batch, true);
}

absl::Status PackedTopIndex::Install(const std::vector<RunPtr>& added, const std::vector<RunPtr>& removed,
                                     TopBuffer* flushed) {
  const MutexLock manifest_lock(manifest_mutex_);
  std::vector<RunPtr> runs;
  std::vector<Ordinal> sealed;
  size_t found = 0;
  {
    const MutexLock lock(mutex_);
    for (const RunPtr& run : runs_) {
      if (std::find(removed.begin(), removed.end(), run) != removed.end()) {
        ++found;
      } else {
        runs.push_back(run);
      }
    }
    if (flushed != nullptr) sealed = flushed->sealed;
    if (Mutant(kMutantCoveredTooEarly)) sealed.insert(sealed.end(), active_->sealed.begin(), active_->sealed.end());
  }
  absl::Status status;
  // A merge of runs of which one was taken away as damaged in the meantime.
  if (found != removed.size()) status = DataLoss("a run that was merged is damaged");
  runs.insert(runs.end(), added.begin(), added.end());
  std::map<uint32_t, OrdinalSet::Words> chunks;
  for (const Ordinal ordinal : sealed) {
    auto [at, fresh] = chunks.try_emplace(ordinal / OrdinalSet::kChunkOrdinals);
    if (fresh) covered_.Read(at->first, at->second);
    at->second[ordinal % OrdinalSet::kChunkOrdinals / 64] |= uint64_t{1} << (ordinal % 64);
  }
  if (status.ok()) status = Commit(runs, chunks);
  if (!status.ok()) {
    for (const RunPtr& run : added) RemoveRunFile(*run);
    return status;
  }
  for (const auto& [chunk, words] : chunks) covered_.Write(chunk, words);
  const MutexLock lock(mutex_);
  runs_ = std::move(runs);
  retired_.insert(retired_.end(), removed.begin(), removed.end());
  if (flushed != nullptr) {  // told at once: who freezes another table next waits for that one
    frozen_ = nullptr;
    WriteEnded(absl::OkStatus());
  }
  Publish();
  return absl::OkStatus();
}

void PackedTopIndex::Wake() {
  const MutexLock lock(wake_mutex_);
  wake_ = true;
  wake_changed_.NotifyAll();
}

void PackedTopIndex::AwaitIdle() {
  Wake();
  const MutexLock lock(wake_mutex_);
  while (wake_ || !idle_) wake_changed_.Wait(wake_mutex_);
}

void PackedTopIndex::Run() {
  bool retired = false;
  while (true) {
    {
      const MutexLock lock(wake_mutex_);
      idle_ = true;
      wake_changed_.NotifyAll();
      while (!wake_ && !stopping() && !retired) wake_changed_.Wait(wake_mutex_);
      if (!wake_ && !stopping()) wake_changed_.WaitFor(wake_mutex_, kRetiredPoll);
      wake_ = false;
      idle_ = false;
    }
    if (stopping()) return;
    WriteFrozen();
    while (!stopping()) {
      const std::vector<RunPtr> inputs = PickMerge();
      if (inputs.empty()) break;
      const absl::Status status = Merge(inputs);
      ReleaseRetired();
      if (status.ok()) {
        ++merges_;
      } else if (!absl::IsDataLoss(status)) {
        // A full disk, say: tried again when the thread is woken the next time. Damaged inputs are not picked again.
        ++merge_failures_;
        break;
      }
    }
    retired = ReleaseRetired();
  }
}

void PackedTopIndex::WriteFrozen() {
  std::shared_ptr<TopBuffer> buffer;
  {
    const MutexLock lock(mutex_);
    if (!std::exchange(write_wanted_, false)) return;
    buffer = frozen_;
  }
  if (buffer == nullptr) return;
  absl::StatusOr<RunPtr> run;
  if (buffer->size() != 0) {
    const std::vector<RunEntry> entries = buffer->Sorted();
    run = WriteRun(entries.size(), false, {}, [&](TopRunWriter& writer) -> absl::Status {
      const RunEntry* last = nullptr;
      for (const RunEntry& entry : entries) {
        if (last != nullptr && last->key == entry.key && last->ordinal == entry.ordinal) continue;
        last = &entry;
        if (!dead_.Contains(entry.ordinal)) RETURN_IF_ERROR(writer.Append(entry.key, entry.ordinal));
      }
      return absl::OkStatus();
    });
  } else {
    run = RunPtr();
  }
  absl::Status status = run.status();
  std::vector<RunPtr> added;
  if (status.ok() && *run != nullptr) added.push_back(*std::move(run));
  if (status.ok()) status = Install(added, {}, buffer.get());
  if (status.ok()) {
    ++flushes_;
    return;
  }
  const MutexLock lock(mutex_);
  WriteEnded(std::move(status));
}

void PackedTopIndex::WriteEnded(absl::Status status) {
  write_error_ = std::move(status);
  ++write_attempts_;
  written_.NotifyAll();
}

std::vector<RunPtr> PackedTopIndex::PickMerge() {
  std::vector<RunPtr> runs;
  const std::shared_ptr<const State> state = Snapshot();
  for (const RunPtr& run : state->runs) {
    if (!run->damaged()) runs.push_back(run);
  }
  const bool count = drops_.exchange(0) != 0;
  std::map<uint64_t, double> fractions;
  double dead = 0;
  for (const RunPtr& run : runs) {
    const auto known = dead_fractions_.find(run->info().number);
    double& fraction = fractions[run->info().number];
    if (known != dead_fractions_.end()) fraction = known->second;
    if (count) fraction = run->DeadFraction(dead_);
    dead += fraction * static_cast<double>(run->info().entries);
  }
  dead_fractions_ = std::move(fractions);
  dead_entries_ = static_cast<uint64_t>(dead);
  for (const RunPtr& run : runs) {
    if (dead_fractions_[run->info().number] > kDeadFractionMax) return {run};
  }

  // Runs of one range of keys are merged with each other. The smallest first.
  std::sort(runs.begin(), runs.end(), [](const RunPtr& a, const RunPtr& b) {
    return std::pair(a->info().range, a->info().entries) < std::pair(b->info().range, b->info().entries);
  });
  if (compact_wanted_.load()) {
    bool compact = true;
    for (size_t i = 1; i < runs.size(); ++i) {
      const KeyRange &before = runs[i - 1]->info().range, &range = runs[i]->info().range;
      compact = compact && before.bits == range.bits && before.index != range.index;
    }
    if (!compact) return runs;
  }
  const double base = std::log(static_cast<double>(options_.merge_fan_in));
  const auto tier = [&](const RunPtr& run) {
    return std::pair(run->info().range, static_cast<int>(std::log(static_cast<double>(
                                                             std::max<uint64_t>(1, run->info().entries))) / base));
  };
  // The lowest tier that is full goes up, and takes along what is smaller in its range.
  size_t range_begin = 0;
  for (size_t begin = 0, end = 0; begin < runs.size(); begin = end) {
    if (runs[begin]->info().range != runs[range_begin]->info().range) range_begin = begin;
    while (end < runs.size() && tier(runs[end]) == tier(runs[begin])) ++end;
    if (end - begin >= static_cast<size_t>(options_.merge_fan_in)) {
      return std::vector<RunPtr>(runs.begin() + static_cast<ptrdiff_t>(range_begin),
                                 runs.begin() + static_cast<ptrdiff_t>(end));
    }
  }
  return {};
}

absl::Status PackedTopIndex::Merge(const std::vector<RunPtr>& inputs) {
  double live = 0;
  std::vector<TopRun::Cursor> cursors;
  KeyRange whole = inputs.front()->info().range;
  for (const RunPtr& run : inputs) {
    live += static_cast<double>(run->slots()) * (1 - dead_fractions_[run->info().number]);
    cursors.emplace_back(*run);
    if (run->info().range != whole) whole = {};  // of all keys: they are being compacted
  }
  // Split, if it would be too large: the cursors walk on from part to part.
  int split = 0;
  const auto entries_max = static_cast<double>(options_.run_entries_max);
  while (whole.bits + split < KeyRange::kBitsMax && live > std::ldexp(entries_max, split)) ++split;
  std::vector<RunPtr> merged;
  const auto merge = [&]() -> absl::Status {
    for (uint32_t part = 0; part < uint32_t{1} << split; ++part) {
      const KeyRange range{static_cast<uint8_t>(whole.bits + split), whole.index << split | part};
      ASSIGN_OR_RETURN(RunPtr run, WriteRun(static_cast<uint64_t>(std::ldexp(live, -split)), false, range,
                                            [&](TopRunWriter& writer) { return FillMerged(cursors, writer); }));
      if (run != nullptr) merged.push_back(std::move(run));
    }
    return absl::OkStatus();
  };
  if (absl::Status status = merge(); !status.ok()) {
    for (const RunPtr& run : merged) RemoveRunFile(*run);
    return status;
  }
  return Install(merged, inputs, nullptr);
}

absl::Status PackedTopIndex::PauseMerge() {
  if (stopping()) return Cancelled("the top-level index is closing");
  WriteFrozen();  // so that a long merge does not hold up those who add
  io_.Yield();
  return absl::OkStatus();
}

absl::Status PackedTopIndex::FillMerged(std::vector<TopRun::Cursor>& cursors, TopRunWriter& writer) {
  const int bucket_shift = writer.layout().remainder_bits();
  std::vector<RunEntry> bucket_entries;  // of keys with entries: at most 64 for each key and run
  RunEntry last = {0, 0};
  const auto append = [&](const RunEntry& entry) -> absl::Status {
    if (last.key == entry.key && last.ordinal == entry.ordinal) return absl::OkStatus();
    last = entry;
    return writer.Append(entry.key, entry.ordinal);
  };
  for (uint64_t bucket = 0; bucket < writer.layout().buckets(); ++bucket) {
    if (bucket % kMergePause == 0) RETURN_IF_ERROR(PauseMerge());
    const RunKey end = writer.range().begin() + ((bucket + 1) << bucket_shift);
    bucket_entries.clear();
    bool lists = false;
    for (TopRun::Cursor& cursor : cursors) {
      for (; cursor.valid() && cursor.key() < end; cursor.Next()) {
        lists = lists || cursor.in_list();
        if (cursor.in_list()) break;
        if (!dead_.Contains(cursor.ordinal())) bucket_entries.push_back({cursor.key(), cursor.ordinal()});
      }
      RETURN_IF_ERROR(cursor.status());
    }
    if (Mutant(kMutantMergeLosesEntries) && !bucket_entries.empty()) bucket_entries.pop_back();
    SortSmall(bucket_entries.data(), bucket_entries.data() + bucket_entries.size());
    if (!lists) {
      for (const RunEntry& entry : bucket_entries) RETURN_IF_ERROR(append(entry));
      continue;
    }
    // Lists may be of any length: one ordinal at a time, the least of what all have next.
    size_t next = 0;
    for (uint64_t taken = 1;; ++taken) {
      if (taken % kMergeListPause == 0) RETURN_IF_ERROR(PauseMerge());
      TopRun::Cursor* from = nullptr;
      RunEntry least = {end, 0};
      if (next != bucket_entries.size()) least = bucket_entries[next];
      for (TopRun::Cursor& cursor : cursors) {
        if (!cursor.valid()) continue;
        if (std::pair(cursor.key(), cursor.ordinal()) >= std::pair(least.key, least.ordinal)) continue;
        least = {cursor.key(), cursor.ordinal()};
        from = &cursor;
      }
      if (from == nullptr && next == bucket_entries.size()) break;
      if (from == nullptr || !dead_.Contains(least.ordinal)) RETURN_IF_ERROR(append(least));
      if (from == nullptr) {
        ++next;
      } else {
        from->Next();
        RETURN_IF_ERROR(from->status());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PackedTopIndex::Compact() {
  RETURN_IF_ERROR(Flush());
  const uint64_t failures = merge_failures_.load();
  compact_wanted_.store(true);
  AwaitIdle();
  compact_wanted_.store(false);
  if (merge_failures_.load() != failures) return ResourceExhausted("the runs of the top-level index were not merged");
  return Health();
}

bool PackedTopIndex::ReleaseRetired() {
  std::vector<RunPtr> free;
  bool left = false;
  {
    const MutexLock lock(mutex_);
    // Alone here means that no snapshot has it, and no new one can get it.
    const auto first_free =
        std::partition(retired_.begin(), retired_.end(), [](const RunPtr& run) { return run.use_count() > 1; });
    free.assign(first_free, retired_.end());
    retired_.erase(first_free, retired_.end());
    left = !retired_.empty();
  }
  for (const RunPtr& run : free) RemoveRunFile(*run);
  return left;
}

absl::Status PackedTopIndex::Health() const {
  const std::shared_ptr<const State> state = Snapshot();
  for (const RunPtr& run : state->runs) {
    if (run->damaged()) return run->DamagedStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Ordinal>> PackedTopIndex::DropDamaged() {
  const MutexLock manifest_lock(manifest_mutex_);
  std::vector<RunPtr> kept, damaged;
  const std::shared_ptr<const State> state = Snapshot();
  for (const RunPtr& run : state->runs) (run->damaged() ? damaged : kept).push_back(run);
  std::vector<Ordinal> affected;
  for (const RunPtr& run : damaged) {
    for (uint64_t ordinal = run->info().ordinal_min; ordinal <= run->info().ordinal_max; ++ordinal) {
      const auto candidate = static_cast<Ordinal>(ordinal);
      if (known_.Contains(candidate) && !dead_.Contains(candidate)) affected.push_back(candidate);
    }
  }
  if (damaged.empty()) return affected;
  std::sort(affected.begin(), affected.end());
  affected.erase(std::unique(affected.begin(), affected.end()), affected.end());
  std::map<uint32_t, OrdinalSet::Words> chunks;
  for (const Ordinal ordinal : affected) {
    auto [at, fresh] = chunks.try_emplace(ordinal / OrdinalSet::kChunkOrdinals);
    if (fresh) covered_.Read(at->first, at->second);
    at->second[ordinal % OrdinalSet::kChunkOrdinals / 64] &= ~(uint64_t{1} << (ordinal % 64));
  }
  RETURN_IF_ERROR(Commit(kept, chunks));
  for (const auto& [chunk, words] : chunks) covered_.Write(chunk, words);
  Await(affected);
  {
    const MutexLock lock(mutex_);
    const auto is_affected = [&](Ordinal ordinal) {
      return std::binary_search(affected.begin(), affected.end(), ordinal);
    };
    for (TopBuffer* buffer : {active_.get(), frozen_.get()}) {
      if (buffer != nullptr) std::erase_if(buffer->sealed, is_affected);
    }
    runs_ = std::move(kept);
    retired_.insert(retired_.end(), damaged.begin(), damaged.end());
    Publish();
  }
  Wake();
  return affected;
}

TopIndexStats PackedTopIndex::Stats() const {
  const std::shared_ptr<const State> state = Snapshot();
  TopIndexStats stats;
  stats.buffered = state->active->size() + (state->frozen == nullptr ? 0 : state->frozen->size());
  stats.entries = stats.buffered;
  for (const RunPtr& run : state->runs) {
    stats.entries += run->info().entries;
    stats.bytes += run->SizeBytes();
    stats.lists += run->lists();
    stats.runs_damaged += run->damaged() ? 1 : 0;
  }
  stats.runs = state->runs.size();
  stats.resident_bytes = resident_->taken();
  stats.dead = dead_entries_;
  stats.awaited = awaited_count_;
  stats.flushes = flushes_;
  stats.merges = merges_;
  stats.merge_failures = merge_failures_;
  return stats;
}

absl::Status PackedTopIndex::CheckAll() const {
  absl::Status first;
  const std::shared_ptr<const State> state = Snapshot();
  for (const RunPtr& run : state->runs) {
    if (absl::Status status = run->CheckAll(); first.ok()) first = std::move(status);
  }
  return first;
}

}  // namespace

Fingerprint FingerprintOf(const SipKey& secret, const MultihashView& hash) {
  uint8_t head[2 * kVarintBytesMax + kDigestBytesMax];
  if (hash.digest.size() > kDigestBytesMax) {
    Bytes encoded;
    AppendMultihash(encoded, hash);
    return SipHash(secret, encoded);
  }
  uint8_t* out = head;
  for (uint64_t value : {hash.code, uint64_t{hash.digest.size()}}) {
    for (; value >= 0x80; value >>= 7) *out++ = static_cast<uint8_t>(value | 0x80);
    *out++ = static_cast<uint8_t>(value);
  }
  if (!hash.digest.empty()) std::memcpy(out, hash.digest.data(), hash.digest.size());
  return SipHash(secret, Span(head, static_cast<size_t>(out - head) + hash.digest.size()));
}

absl::StatusOr<std::unique_ptr<TopIndex>> OpenTopIndex(const TopIndexOptions& options, Kv& kv, Io& io) {
  if (options.merge_fan_in < 2) return InvalidArgument("merge_fan_in {} is below 2", options.merge_fan_in);
  if (options.buffer_entries_max < 1 || options.buffer_entries_max > size_t{1} << 30)
    return InvalidArgument("buffer_entries_max {} is not within 1 and 2^30", options.buffer_entries_max);
  if (options.run_entries_max < 1 || options.run_entries_max > kRunSlotsMax / 2)
    return InvalidArgument("run_entries_max {} is not within 1 and 2^31", options.run_entries_max);
  auto index = std::make_unique<PackedTopIndex>(options, kv, io);
  RETURN_IF_ERROR(index->Open());
  return index;
}

}  // namespace dagstore
