// Upgrader: turns any mount into a reader with random access. A mount that is local and random passes through. Of one
// that serves ranges and names its versions, the extents that are read are kept in a partial copy
// (mount/partial_copy.h), which becomes a whole one when all are there. Of any other a whole copy is made before it is
// read.
//
// Owns: the files in its folder whose names are of its own pattern, and no others. It never removes, writes or renames
// a file that a user handed in: who owns a file is a flag in its record, never deduced from a path.
//   <stem>.<generation>.car             a whole, synced copy. There because a record says so, not because it exists
//   <stem>.<generation>.part and .map   a partial copy, under the same name in records
//   <stem>.<generation>.<boot>.<n>.tmp  a file being made in the life `boot` of the process; swept by later lives
//   trash/<name>.<boot>                 what nobody owns, about to be removed
// Names are not reused while their bytes are in use: a new copy of a shard gets a new generation, so an open reader
// keeps the bytes it opened.
//
// Threads: everything may be called from any worker thread. Errors are those of this call: the next one asks the source
// again, and nobody else's Upgrade is touched. One flight per shard is the caller's rule for whole copies; two are
// wasteful, not wrong. Readers of one partial copy share its flights.
//
// Crash: before the rename a .tmp is left, swept at the next start, or a .part, which the next copy of the same source
// goes on with; after it a whole .car without a record, which List() shows to the owner of the records.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mount/mount.h"
#include "mount/partial_copy.h"

namespace dagstore {

// Where a copy lies. What a shard's record keeps.
struct TransientInfo {
  // Ours: a name in the transients folder, which may move. A user's: as it was given.
  std::string path = {};
  bool owned = false;          // ours: may be deleted
  uint64_t size = 0;           // bytes of the source; for a user's file 0 means unknown
  std::string validator = {};  // of the source when it was copied; empty if unknown

  friend bool operator==(const TransientInfo&, const TransientInfo&) = default;
};

struct TransientSpec {
  // A hash of the shard key, never the key: [a-z0-9], at most 128 characters.
  std::string name_stem = {};
  uint64_t generation = 0;  // not used before with this stem
  // A copy that may be there already: ours from a record, or a user's. Used, read-only, if it fits.
  std::optional<TransientInfo> existing = {};
  // What is known of the source, from an earlier registration. Another size or validator now is a
  // changed source.
  std::optional<uint64_t> expected_size = {};
  std::string expected_validator = {};
  size_t expected_location = 0;  // which of the locations has that validator; others need only the size
  // That location is known to serve ranges: then a new partial copy of it needs no request.
  bool serves_ranges = false;
  // The reader is for one thread and one job, which will read from front to back; it ends with the job's `work`.
  bool for_job = false;
};

struct Upgraded {
  std::unique_ptr<RandomReader> reader;
  // The copy that is read; none if passed through. A whole one that is ours never changes: it may be
  // mapped.
  std::optional<TransientInfo> local;
  bool passthrough = false;
  std::shared_ptr<PartialCopy> partial;  // if the copy is not whole
  bool resumed = false;                  // parts of it came earlier: the source may have lied then
  size_t location = 0;                   // which of the locations served
  MountStat stat = {};                   // what it said of itself, if it was asked
};

struct UpgraderOptions {
  std::string folder = {};  // of the transients
  // Another for each start of the process: [a-z0-9], at most 32 characters.
  std::string boot_id = {};
  // Longest copy, in bytes: a source that never ends must not fill the disk. 32 GiB is the common
  // largest CAR; some archives hold 1 TiB.
  uint64_t transient_bytes_max = uint64_t{1} << 40;
  std::shared_ptr<SpaceGate> space = {};  // may be null: no quota
  std::shared_ptr<Sources> sources = {};  // null: one of its own, that asks once
  const Clock* clock = nullptr;           // null: the real one
  PartialLimits partial = {};
};

struct UpgraderStats {
  uint64_t copies_partial = 0;   // open now
  uint64_t copies_promoted = 0;  // made whole because most of them was there
  uint64_t copies_resumed = 0;   // gone on with after an interruption
  uint64_t bytes_not_kept = 0;   // handed to readers without room to keep them
  uint64_t prefetches = 0;       // requests made ahead of their readers
  uint64_t granules_rotten = 0;  // of copies that went on, not what they had been: fetched again
};

class Upgrader {
 public:
  // Makes the folder, with mode 0700. InvalidArgument for a bad boot id.
  static absl::StatusOr<std::unique_ptr<Upgrader>> Open(Io& io, UpgraderOptions options);
  ~Upgrader();

  // Worker thread. `locations` in the order of preference; those that are local come first, those that failed a moment
  // ago last, and the next is asked when one fails. Of each, in this order: pass through, the existing copy, a new
  // copy. NotFound (no source), Unavailable (not ready, a short body, or it changed while it was copied),
  // FailedPrecondition (not the source that was expected), ResourceExhausted (a limit, or the disk
  // is full), InvalidArgument (a bad stem), Cancelled, DeadlineExceeded, or what the mount says: of the first location
  // that was asked. On an error no file of this call is left, except of a partial copy that can be gone on with.
  absl::StatusOr<Upgraded> Upgrade(const std::vector<std::shared_ptr<const Mount>>& locations,
                                   const TransientSpec& spec, Io& io, const WorkContext& work);
  // Of one location that outlives what it gives.
  absl::StatusOr<Upgraded> Upgrade(const Mount& mount, const TransientSpec& spec, Io& io,
                                   const WorkContext& work);

  // Worker thread. Removes a copy of ours; OK if it is gone. A copy that is not ours is left alone,
  // with OK. InvalidArgument if it claims to be ours under a name we never give.
  absl::Status Delete(Io& io, const TransientInfo& transient);
  // No record names the copy `name`, which an earlier process or an attempt that failed has left. False if a job has
  // made it anew or gone on with it since: a record may name it soon. True: no job will, until the caller has deleted
  // it and says so.
  bool BeginRemovingOrphan(const std::string& name);
  void EndRemovingOrphan(const std::string& name);
  // Worker thread. Deletes a copy that no record names; FailedPrecondition if a job has made it or goes on with it.
  absl::Status DeleteOrphan(Io& io, const std::string& name);
  // The job that made `copy` failed, and another attempt may go on with it: the map is stored, and Discard spares it.
  // Worker thread. No record names it. Removes what was kept of the same shard before: one is gone on with.
  void KeepForLater(const PartialCopy& copy);
  // A record names the copy that an earlier process left: the record's owner goes on with it, nobody else.
  void NamedByRecord(const std::string& name);
  // Worker thread. Removes what was kept for later of the shard whose copies begin with `name_stem`.
  absl::Status DeleteLeft(Io& io, const std::string& name_stem);
  // Delete, unless somebody may still want it.
  absl::Status Discard(Io& io, const TransientInfo& transient);

  // Worker thread. Moves a copy of ours that nobody owns to the folder `trash`, durably; takes the same time for any
  // size. Its room is given back by EmptyTrash, which removes what is there; returns how many files.
  absl::Status MoveToTrash(Io& io, const TransientInfo& transient);
  absl::StatusOr<size_t> EmptyTrash(Io& io);

  // Worker thread. Removes the temporaries of other boots, and what they left in the trash; returns how many. Other
  // names are not touched.
  absl::StatusOr<size_t> SweepTemps(Io& io);

  // Worker thread. The copies in the folder, whole and partial, by name. Without validators: those are in the
  // records. `size` is what is on disk.
  absl::StatusOr<std::vector<TransientInfo>> List(Io& io);
  // Worker thread, once, before the first copy: SweepTemps, and what List gives, of one look at the folder. Partial
  // copies that are there are gone on with from now on.
  absl::StatusOr<std::vector<TransientInfo>> TakeStock(Io& io);

  // Where prefetches and promotions run, and who stands in while they wait (may be null, else outlives them); null
  // before the workers end. Any thread.
  void SetBackground(std::function<void(absl::AnyInvocable<void()>)> background, StandIns* stand_ins = nullptr) {
    context_->SetBackground(std::move(background), stand_ins);
  }
  // Work in the background ends soon.
  void BeginClose() { context_->closing.Cancel(); }
  Sources& sources() const { return *context_->sources; }
  UpgraderStats Stats() const;

 private:
  class Space;

  explicit Upgrader(UpgraderOptions options);

  std::string PathOf(const std::string& name) const { return options_.folder + "/" + name; }
  absl::StatusOr<Upgraded> UpgradeOne(const std::vector<std::shared_ptr<const Mount>>& locations, size_t location,
                                      const TransientSpec& spec, Io& io, const WorkContext& work);
  absl::StatusOr<Upgraded> PassThrough(const Mount& mount, const TransientSpec& spec, Io& io,
                                       const WorkContext& work) const;
  // Empty if the copy is not there or does not fit. Errors are only those that a new copy would
  // meet as well.
  absl::StatusOr<std::optional<Upgraded>> UseExisting(const Mount& mount, const TransientSpec& spec,
                                                      Io& io, const WorkContext& work) const;
  absl::StatusOr<Upgraded> Copy(const Mount& mount, const TransientSpec& spec, Io& io, WorkContext work);
  // Empty if the source does not say enough of itself for a partial copy.
  absl::StatusOr<std::optional<Upgraded>> Partial(const std::vector<std::shared_ptr<const Mount>>& locations,
                                                  size_t location, const TransientSpec& spec, Io& io,
                                                  const WorkContext& work);
  absl::StatusOr<std::shared_ptr<PartialCopy>> FindPartial(const Mount& mount, const TransientSpec& spec,
                                                           const std::string& validator, uint64_t size);
  // A new, empty file under a name that is free.
  absl::StatusOr<std::unique_ptr<WritableFile>> CreateTemp(const TransientSpec& spec, Io& io,
                                                           std::string* name);
  // The source's bytes into `file`; returns how many.
  absl::StatusOr<uint64_t> Transfer(const Mount& mount, const MountStat& stat, WritableFile& file,
                                    Space& space, Io& io, const WorkContext& work) const;
  // `file`, written as `temp`, synced and closed, then opened for reading, and only then renamed to
  // `name`. `space` keeps the room of what cannot be removed after a failure.
  absl::StatusOr<std::unique_ptr<RandomReader>> Publish(std::unique_ptr<WritableFile> file,
                                                        const std::string& temp,
                                                        const std::string& name, uint64_t size,
                                                        Space& space, Io& io) const;
  absl::StatusOr<size_t> SweepTempsOf(const std::vector<std::string>& names, Io& io);
  absl::StatusOr<std::vector<TransientInfo>> ListOf(const std::vector<std::string>& names, Io& io) const;
  std::string TrashDir() const { return options_.folder + "/" + kTrashName; }
  // A whole copy has replaced what had its name before, whose room is given back.
  void ReplaceOld(const std::string& name, Io& io);
  // Nobody goes on with the copy `name` any more.
  void Disown(const std::string& name);
  void Unleave(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::shared_ptr<PartialCopy> Live(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);
  // Before its files appear. Waits for a removal of files of that name.
  void MakeOurs(const std::string& name);
  // Before files that are there are opened. False: they are being removed. *claimed: nobody had it before.
  bool Claim(const std::string& name, bool* claimed);
  void Unclaim(const std::string& name, bool claimed);
  struct Tail;
  // Asks for what is worth it beside the first request to a source of which nothing is known. Null: not worth it.
  std::shared_ptr<Tail> AskAhead(const std::shared_ptr<const Mount>& mount) const;

  const UpgraderOptions options_;
  const std::shared_ptr<TransientContext> context_;
  std::atomic<uint64_t> copies_resumed_{0};

  static constexpr char kTrashName[] = "trash";

  mutable Mutex mu_;
  std::vector<std::string> trashed_ ABSL_GUARDED_BY(mu_);  // copies whose room is not given back yet
  absl::flat_hash_map<std::string, std::weak_ptr<PartialCopy>> live_ ABSL_GUARDED_BY(mu_);  // by name
  // By stem: the name of a partial copy that an earlier job or an earlier life left, and that may be gone on with.
  absl::flat_hash_map<std::string, std::string> left_ ABSL_GUARDED_BY(mu_);
  // Copies that jobs of this process have made or go on with: a record names them, or may soon.
  absl::flat_hash_set<std::string> ours_ ABSL_GUARDED_BY(mu_);
  // Copies that no record names, and that are being removed.
  absl::flat_hash_set<std::string> removing_ ABSL_GUARDED_BY(mu_);
  CondVar removed_;
};

}  // namespace dagstore
