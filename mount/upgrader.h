// Upgrader: turns any mount into a reader with random access. A mount that is local and random
// passes through; of any other a whole copy, a transient, is kept in the transients folder.
//
// Owns: the files in its folder whose names are of its own pattern, and no others. It never
// removes, writes or renames a file that a user handed in: who owns a file is a flag in its record,
// never deduced from a path.
//   <stem>.<generation>.car             a whole, synced copy. There because a record says so, not
//   because it exists <stem>.<generation>.<boot>.<n>.tmp  a copy being made in the life `boot` of
//   the process; swept by later lives
// Names are not reused: a new copy of a shard gets a new generation, so an open reader keeps the
// bytes it opened.
//
// Threads: everything may be called from any worker thread. Errors are those of this call: the next
// one asks the source again, and nobody else's Upgrade is touched. One flight per shard is the
// caller's rule; two are wasteful, not wrong.
//
// Crash: before the rename a .tmp is left, swept at the next start; after it a whole .car without a
// record, which List() shows to the owner of the records.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mount/mount.h"

namespace dagstore {

// Where a copy lies. What a shard's record keeps.
struct TransientInfo {
  // Ours: a name in the transients folder, which may move. A user's: as it was given.
  std::string path = {};
  bool owned = false;          // ours: may be deleted
  uint64_t size = 0;           // bytes; for a user's file 0 means unknown
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
};

struct Upgraded {
  std::unique_ptr<RandomReader> reader;
  // The copy that is read; none if passed through. One that is ours never changes: it may be
  // mapped.
  std::optional<TransientInfo> local;
  bool passthrough = false;
};

// Asked for space before it is written: where a quota, reservations and eviction attach. Any worker
// thread.
class SpaceGate {
 public:
  virtual ~SpaceGate() = default;
  // Takes `bytes`, or refuses (ResourceExhausted). The whole size at once if it is known, else
  // block by block.
  virtual absl::Status Take(uint64_t bytes) = 0;
  // Gives back what a failed copy or a deleted transient had taken.
  virtual void Return(uint64_t bytes) = 0;
};

struct UpgraderOptions {
  std::string folder = {};  // of the transients
  // Another for each start of the process: [a-z0-9], at most 32 characters.
  std::string boot_id = {};
  // Longest copy, in bytes: a source that never ends must not fill the disk. 32 GiB is the common
  // largest CAR; some archives hold 1 TiB.
  uint64_t transient_bytes_max = uint64_t{1} << 40;
  SpaceGate* space = nullptr;  // may be null; must outlive the upgrader
};

class Upgrader {
 public:
  // Makes the folder, with mode 0700. InvalidArgument for a bad boot id.
  static absl::StatusOr<std::unique_ptr<Upgrader>> Open(Io& io, UpgraderOptions options);

  // Worker thread. In this order: pass through, the existing copy, a new copy.
  // NotFound (no source), Unavailable (not ready, a short body, or it changed while it was copied),
  // FailedPrecondition (not the source that was expected), ResourceExhausted (a limit, or the disk
  // is full), InvalidArgument (a bad stem), Cancelled, DeadlineExceeded, or what the mount says. On
  // an error no file of this call is left.
  absl::StatusOr<Upgraded> Upgrade(const Mount& mount, const TransientSpec& spec, Io& io,
                                   const WorkContext& work);

  // Worker thread. Removes a copy of ours; OK if it is gone. A copy that is not ours is left alone,
  // with OK. InvalidArgument if it claims to be ours under a name we never give.
  absl::Status Delete(Io& io, const TransientInfo& transient);

  // Worker thread. Removes the temporaries of other boots; returns how many. Other names are not
  // touched.
  absl::StatusOr<size_t> SweepTemps(Io& io);

  // Worker thread. The whole copies in the folder, by name. Without validators: those are in the
  // records.
  absl::StatusOr<std::vector<TransientInfo>> List(Io& io);

 private:
  class Space;

  explicit Upgrader(UpgraderOptions options);

  std::string PathOf(const std::string& name) const { return options_.folder + "/" + name; }
  absl::StatusOr<Upgraded> PassThrough(const Mount& mount, const TransientSpec& spec, Io& io,
                                       const WorkContext& work) const;
  // Empty if the copy is not there or does not fit. Errors are only those that a new copy would
  // meet as well.
  absl::StatusOr<std::optional<Upgraded>> UseExisting(const Mount& mount, const TransientSpec& spec,
                                                      Io& io, const WorkContext& work) const;
  absl::StatusOr<Upgraded> Copy(const Mount& mount, const TransientSpec& spec, Io& io,
                                const WorkContext& work);
  // A new, empty file under a name that is free.
  absl::StatusOr<std::unique_ptr<WritableFile>> CreateTemp(const TransientSpec& spec, Io& io,
                                                           std::string* name);
  // The source's bytes into `file`; returns how many.
  absl::StatusOr<uint64_t> Transfer(const Mount& mount, const MountStat& stat, WritableFile& file,
                                    Space& space, Io& io, const WorkContext& work) const;
  // `file`, written as `temp`, synced and closed, then opened for reading, and only then renamed to
  // `name`.
  absl::StatusOr<std::unique_ptr<RandomReader>> Publish(std::unique_ptr<WritableFile> file,
                                                        const std::string& temp,
                                                        const std::string& name, uint64_t size,
                                                        Io& io) const;

  const UpgraderOptions options_;
  std::atomic<uint64_t> temps_made_{0};
};

}  // namespace dagstore
