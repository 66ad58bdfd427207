// PartialCopy: a sparse local copy of a remote source, of which only the extents that were read are there. All readers
// of a shard share one: an extent is fetched once, by whoever asks first; the others wait for his flight.
//
//   <stem>.<generation>.part   the bytes, at their places
//   <stem>.<generation>.map    which of them are there (mount/extent_map.h); written after they were synced
//   <stem>.<generation>.car    instead of both, once all are there: sealed, never written again
//
// Every byte comes from one version of its source: the validator goes with each request, and another size or validator
// ends the fetch with FailedPrecondition. A second location may give bytes only where each block is checked by its CID
// (PartialSource::validator empty: learnt from its first answer, which must have the same size).
//
// Bytes that find no room, or whose file cannot be written, are handed to their reader and not kept.
//
// Threads: any worker thread, and the threads of readers; never the loop. Crash: the map tells what was there when it
// was written; a .part without a map is worth nothing. Rot: what was there when the copy was loaded is compared with
// the checksums of the map before it is read first, and fetched again if it is something else.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/functional/any_invocable.h>
#include <absl/functional/function_ref.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/io.h"
#include "base/mutex.h"
#include "mount/copy_cache.h"
#include "mount/extent_map.h"
#include "mount/mount.h"
#include "mount/sources.h"

namespace dagstore {

struct PartialLimits {
  // Largest piece that one flight brings: a later reader waits for no more than that.
  size_t request_bytes_max = 8 << 20;
  // Fetched ahead of a reader that goes forward; starts at 256 KiB and doubles.
  size_t read_ahead_bytes_max = 4 << 20;
  // Two wanted pieces with less between them come in one request: 128 KiB take as long as half a round trip at 50
  // Mbit/s.
  size_t gap_bytes_max = 128 << 10;
  // Bytes fetched after which the map is written, beside what goes on: up to twice as many, and those of one request,
  // are fetched again after a crash.
  size_t map_save_bytes = 64 << 20;
  // The end of an HTTP source is asked for together with its beginning: there a CARv2 has its index, of up to 26,000
  // blocks in this. 0: never.
  size_t tail_bytes = 1 << 20;
  // Connections that are opened with the first request to a host: what is fetched side by side after it (samples of an
  // index) need not wait for them. 0: none.
  int connections_ahead = 6;
  // The rest is fetched too once this share is there; above 1: never.
  double promote_share = 0.5;
  // Of one read of a reader, retries included. Mounts have timeouts of their own for a server that stalls.
  absl::Duration read_timeout = absl::Minutes(2);
};

// What all copies of a store share. Copies keep it alive: readers outlive the store.
struct TransientContext {
  Io* io = nullptr;              // outlives everything
  const Clock* clock = nullptr;  // outlives everything
  std::string folder = {};
  std::string boot_id = {};
  std::shared_ptr<Sources> sources = {};
  std::shared_ptr<SpaceGate> space = {};  // may be null
  PartialLimits limits = {};
  CancelFlag closing;
  std::atomic<uint64_t> temps_made{0};
  // Syncs that failed in a row. Twice: the disk is not to be trusted, and nothing new is fetched to it.
  std::atomic<int> syncs_failed{0};

  std::atomic<uint64_t> copies_promoted{0};
  std::atomic<uint64_t> bytes_not_kept{0};  // handed to readers without being kept
  std::atomic<uint64_t> prefetches{0};
  std::atomic<uint64_t> granules_rotten{0};

  // Of what nobody waits for: ends with the upgrader.
  WorkContext BackgroundWork() const {
    WorkContext work;
    work.cancel = &closing;
    work.clock = clock;
    return work;
  }
  // Of one read that is made ahead of its reader.
  WorkContext ReadAheadWork() const {
    WorkContext work = BackgroundWork();
    work.deadline = Deadline::After(*clock, limits.read_timeout);
    return work;
  }
  // Runs `work` on a worker, or drops it if there is none.
  bool Post(absl::AnyInvocable<void()> work);
  void SetBackground(std::function<void(absl::AnyInvocable<void()>)> background, StandIns* stand_ins);
  // Of what Post runs; may be null.
  StandIns* stand_ins() const { return stand_ins_.load(std::memory_order_acquire); }

  std::string PathOf(const std::string& name) const { return folder + "/" + name; }

 private:
  Mutex mu_;
  std::function<void(absl::AnyInvocable<void()>)> background_ ABSL_GUARDED_BY(mu_);
  std::atomic<StandIns*> stand_ins_{nullptr};
};

struct PartialSource {
  std::shared_ptr<const Mount> mount = {};
  std::string validator = {};  // empty: whatever it has now, if the size is the same
};

class PartialCopy : public std::enable_shared_from_this<PartialCopy> {
  struct Flight;

 public:
  // Bytes that come by other means than a request of the copy's own. Who reads there waits until this is gone.
  class Expected {
   public:
    Expected(std::shared_ptr<PartialCopy> copy, std::shared_ptr<Flight> flight)
        : copy_(std::move(copy)), flight_(std::move(flight)) {}
    ~Expected();
    Expected(const Expected&) = delete;

   private:
    const std::shared_ptr<PartialCopy> copy_;
    const std::shared_ptr<Flight> flight_;
  };

  // `name` is the final one, "<stem>.<generation>.car". A new copy, of which nothing is there. Whatever has the names
  // of its files is removed. Without room for it the copy keeps nothing; that is no error.
  static absl::StatusOr<std::shared_ptr<PartialCopy>> Create(std::shared_ptr<TransientContext> context,
                                                             const std::string& name, uint64_t bytes);
  // One that an earlier life or an earlier job has left. NotFound if there is none that can be used.
  static absl::StatusOr<std::shared_ptr<PartialCopy>> Load(std::shared_ptr<TransientContext> context,
                                                           const std::string& name);
  ~PartialCopy();
  PartialCopy(const PartialCopy&) = delete;

  // In the order in which they are asked.
  void SetSources(std::vector<PartialSource> sources);

  const std::string& name() const { return name_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t BytesThere() const;
  std::vector<ExtentSource> KnownSources() const;
  bool sealed() const;
  // It keeps nothing: there was no room, or its file failed.
  bool keeps_nothing() const;

  // A reader for many threads, whose reads have Options' timeout.
  static std::unique_ptr<RandomReader> NewReader(std::shared_ptr<PartialCopy> copy);
  // A reader for one thread and one job: its reads end with `work`. One that was told (WillRead) that all is wanted
  // keeps its request open over many reads, and takes room for the whole file first, in its turn; if the quota is not
  // that large, what it reads is not kept.
  static absl::StatusOr<std::unique_ptr<RandomReader>> NewJobReader(std::shared_ptr<PartialCopy> copy,
                                                                    const WorkContext& work);
  // Fetches what is missing and seals.
  static absl::Status MakeWhole(const std::shared_ptr<PartialCopy>& copy, const WorkContext& work);

  // Bytes that came with an answer already. Whole granules of them are kept.
  void Fill(uint64_t offset, Span bytes);
  // From `begin` to the end. Null if nothing of it is missing.
  static std::unique_ptr<Expected> Expect(const std::shared_ptr<PartialCopy>& copy, uint64_t begin);
  // What is there of `range` is wrong: it is fetched again when it is read. FailedPrecondition once sealed.
  absl::Status Forget(ByteRange range);
  // Writes the map if it is worth it.
  absl::Status Save();
  // All is there: syncs, gives it its final name. FailedPrecondition if something is missing.
  absl::Status Seal();
  // It is being removed: nothing is written any more.
  void Abandon();

 private:
  struct Flight {
    uint64_t first = 0, end = 0;  // granules
    bool done = false;
    bool not_kept = false;
    bool expected = false;  // no request of the copy's own
    absl::Status status = absl::OkStatus();
  };
  // A request under way. What it holds ends with it: the stream first, then the place among the requests of its host.
  struct Request {
    Sources::Permit permit = {};
    std::unique_ptr<ByteStream> stream = {};
    uint64_t at = 0;
    uint64_t end = 0;
    const Mount* of = nullptr;

    void End() {
      stream.reset();
      permit.Release();
    }
  };
  // The state of one reader. Readers that are no job may be many threads.
  struct Handle {
    WorkContext work = {};
    bool job = false;
    bool wants_all = false; // a job that reads the whole file
    bool direct = false;    // keeps nothing
    uint64_t reserved = 0;  // bytes taken from the gate and not used yet
    std::atomic<uint64_t> last_end{UINT64_MAX};
    std::atomic<uint64_t> run{0};     // bytes read on and on
    std::atomic<uint64_t> window{0};  // read ahead
    Request request = {};  // of a job, which is one thread: the request that goes on
  };
  class Reader;
  using Sink = absl::FunctionRef<absl::Status(uint64_t, Span)>;

  PartialCopy(std::shared_ptr<TransientContext> context, std::string name, ExtentMap map);

  absl::StatusOr<size_t> ReadSome(const std::shared_ptr<PartialCopy>& self, Handle& handle, uint64_t offset,
                                  size_t size, uint8_t* out, const WorkContext& work);
  absl::Status ReadPiece(Handle& handle, ByteRange range, uint64_t ahead, uint8_t* out, const WorkContext& work);
  bool Unchecked(uint64_t granule) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !unchecked_.empty() && unchecked_[granule] && map_.Has(granule);
  }
  void SetThere(uint64_t granule, uint32_t sum) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    map_.Set(granule, sum);
    if (!unchecked_.empty()) unchecked_[granule] = false;
  }
  // What an earlier life has left of `range` is what it was, or is not there any more.
  absl::Status CheckLoaded(ByteRange range, const WorkContext& work);
  // Brings what is missing of `range`. *kept is false if it could not be kept.
  absl::Status Ensure(Handle& handle, ByteRange range, uint64_t ahead, const WorkContext& work, bool* kept);
  absl::Status Fly(Handle& handle, Flight& flight, const WorkContext& work);
  // Bytes [at, end) into `sink`, in order, from whatever source serves.
  absl::Status Fetch(Handle& handle, uint64_t at, uint64_t end, Sink sink, const WorkContext& work);
  absl::Status FetchFrom(const PartialSource& source, Handle& handle, uint64_t& at, uint64_t end, int attempts_max,
                         Sink sink, const WorkContext& work);
  absl::Status Attempt(const PartialSource& source, Handle& handle, uint64_t& at, uint64_t end, Sink sink,
                       const WorkContext& work);
  absl::Status CheckAnswer(const PartialSource& source, const MountStat& stat);
  absl::Status Direct(Handle& handle, ByteRange range, uint8_t* out, const WorkContext& work);
  absl::Status FetchAll(Handle& handle, const WorkContext& work);
  absl::Status Reserve(Handle& handle, const WorkContext& work);
  void GiveBack(Handle& handle);
  void WillRead(const std::shared_ptr<PartialCopy>& self, std::span<const ByteRange> ranges);
  void MaybePromote(const std::shared_ptr<PartialCopy>& self);
  absl::Status OpenFiles(bool create);
  // Save, beside what goes on.
  void SaveSoon();
  // What a request that goes on to the end has to bring: not what is there already, or under way.
  uint64_t EndOfMissing() const;
  absl::Status SyncData();
  void Break();
  void GiveUp();  // after a failed sync: the files go, and a second failure in a row ends fetching
  // With their room; what cannot be removed keeps it.
  absl::Status RemoveFiles();

  std::string PartName() const { return name_.substr(0, name_.size() - 3) + "part"; }
  std::string MapName() const { return name_.substr(0, name_.size() - 3) + "map"; }
  std::shared_ptr<Flight> FlightAt(uint64_t granule) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<PartialSource> Ranked() const;

  const std::shared_ptr<TransientContext> context_;
  const std::string name_;
  const uint64_t bytes_;
  const uint64_t granule_bytes_;
  const std::unique_ptr<WaitPoint> changed_;
  std::unique_ptr<RandomFile> reader_;  // constant after Create or Load; null if nothing is kept

  // On disk under this name, and counted, besides what the map knows: written by a process that was killed, or a whole
  // copy that could not be used. A sealed copy takes its place. Changed by who makes the copy, or has `saving_`.
  uint64_t beside_ = 0;

  mutable Mutex mu_;
  ExtentMap map_ ABSL_GUARDED_BY(mu_);
  std::vector<bool> unchecked_ ABSL_GUARDED_BY(mu_);  // granules from before Load that nobody has read since
  std::vector<PartialSource> sources_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);
  std::vector<ByteRange> hints_ ABSL_GUARDED_BY(mu_);  // sorted; only without workers
  uint64_t unsaved_ ABSL_GUARDED_BY(mu_) = 0;          // bytes that the stored map does not know
  bool saving_ ABSL_GUARDED_BY(mu_) = false;
  bool save_posted_ ABSL_GUARDED_BY(mu_) = false;
  bool promoting_ ABSL_GUARDED_BY(mu_) = false;
  bool sealed_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;    // keeps nothing, and what it kept is not used
  bool abandoned_ ABSL_GUARDED_BY(mu_) = false;

  Mutex file_mu_;  // taken alone
  // Null once sealed or broken. Shared with a sync that is under way.
  std::shared_ptr<WritableFile> file_ ABSL_GUARDED_BY(file_mu_);
};

// FailedPrecondition: what `mount` has now is not what was registered.
absl::Status SourceChanged(const Mount& mount);

}  // namespace dagstore
