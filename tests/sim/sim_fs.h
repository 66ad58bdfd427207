// SimFs: a disk with a file system on it, for one simulated machine. What is on the medium and what only the system
// holds are apart, for pages and for names: Sync moves the one file's pages down, SyncDir the one folder's names. A
// crash keeps any part of the rest that a real system may keep.
//
//   SimFs    the disk: lives through crashes
//   SimIo    the Io of one life of the machine: dead after a crash, every call then fails and does nothing
//
// Every call first lets other fibers run (and may stall, or fail, as the faults say), then takes effect at once.
// Paths are taken as written; there are no links. One thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/io.h"
#include "tests/sim/scheduler.h"

namespace dagstore::sim {

enum class IoOp : uint8_t {
  kOpen, kCreate, kOpenForWriting, kStat, kRename, kRemove, kMakeDir, kSyncDir, kList, kRead, kMap, kWrite, kSync,
      kClose,
};
inline constexpr size_t kIoOps = 14;
const char* IoOpName(IoOp op);

// What may go wrong, in thousandths of the calls. Drawn per seed; all zero: a machine that works.
struct FsFaults {
  uint32_t read_error = 0;    // EIO, once
  uint32_t write_error = 0;
  uint32_t sync_error = 0;    // of a file or folder; of a file, what it had not synced is lost
  uint32_t name_error = 0;    // create, rename, remove, stat, list
  uint32_t no_descriptor = 0;  // EMFILE
  uint32_t stall = 0;
  uint64_t quota_bytes = UINT64_MAX;  // ENOSPC beyond it
  bool mappable = true;
};

// What a crash keeps of what was not synced.
enum class Kept : uint8_t { kNothing, kEverything, kAnyPart, kNamesOnly, kPagesOnly };
inline constexpr uint32_t kKeptWays = 5;

// What of a file is not a hole. Holes are zeros here, and of zeros there are few otherwise.
inline uint64_t AllocatedBytes(const std::string& data) {
  return data.size() - static_cast<uint64_t>(std::count(data.begin(), data.end(), '\0'));
}

class SimFs {
 public:
  SimFs(Tape& tape, Trace& trace, Scheduler& scheduler);
  ~SimFs();

  // The machine starts: an Io for its life. The one before must be dead or idle.
  std::shared_ptr<Io> Boot();
  // The machine stops now, and what is on the disk is `kept`.
  void Crash(Kept kept);
  // The process ends now, the system goes on: nothing is lost, but what was open is.
  void Kill();
  bool down() const { return down_; }

  FsFaults faults;
  // Asked before the faults: an error of this call. For torture, which counts the calls of disk and database together.
  std::function<absl::Status(IoOp op, const std::string& path)> inject = {};
  // Called before a call takes effect: crashes.
  std::function<void(IoOp op, const std::string& path)> before_call = {};

  // ---- What the world does behind the store's back ----
  // Durable at once; makes the folder. Not ours: whoever writes to it or removes it is reported.
  void PutForeign(const std::string& path, std::string content);
  // A bit of a file changes on the medium. False if there is no such byte.
  bool FlipBit(const std::string& path, uint64_t offset, int bit);

  // ---- What oracles look at ----
  std::vector<std::string> Files() const;  // as the system sees them, sorted
  const std::string* Content(const std::string& path) const;
  size_t open_files() const { return open_files_; }
  uint64_t bytes() const;
  // Told of what no correct store does: a foreign file touched, a mapped file written.
  std::function<void(const std::string& oracle, const std::string& what)> on_violation = {};
  // Told of each removal and each rename away of a file, and of each name that a rename gives.
  std::function<void(const std::string& path)> on_remove = {};
  std::function<void(const std::string& path)> on_publish = {};

  // The legal states of the disk after a crash now: how many choices there are, and one of them by number.
  // Names: each unsynced change kept or not; pages: each unsynced write kept, torn or lost.
  size_t UnsyncedNames() const { return names_log_.size(); }
  size_t UnsyncedWrites() const;
  void CrashExactly(const std::vector<bool>& names, const std::vector<uint8_t>& writes);  // 0 lost, 1 kept, 2 torn

 private:
  friend class SimIo;
  friend class SimReadFile;
  friend class SimWriteFile;

  struct Write {
    uint64_t offset = 0;
    std::string data = {};
  };
  struct Inode {
    uint64_t id = 0;
    std::string data = {};     // as the system sees it
    std::string durable = {};  // on the medium
    std::vector<Write> unsynced = {};
    int64_t mtime = 0;
    bool foreign = false;
    bool unreadable = false;  // for ever
    // The boot in which a sync of it has failed: for that process the next one would lie. One that comes after a kill
    // cannot know; what it writes itself does reach the medium.
    uint64_t broken_in = 0;
    int mappings = 0;
  };
  using InodePtr = std::shared_ptr<Inode>;
  using Names = std::map<std::string, InodePtr>;
  struct NameChange {
    enum class Kind : uint8_t { kAdd, kMove, kRemove };
    Kind kind = Kind::kAdd;
    std::string path = {};
    std::string to = {};
    InodePtr inode = {};
  };

  // Lets others run, stalls, counts; then an error if the machine is down or a fault strikes.
  absl::Status Enter(uint64_t boot, IoOp op, const std::string& path);
  absl::Status Fault(IoOp op, const std::string& path);
  static void Apply(Names& names, const NameChange& change);
  void SyncNames(const std::string& dir);
  static void TearInto(std::string& durable, const Write& write, size_t bytes);
  // All that was written and not lost to a failed sync is on the medium.
  static void ReachMedium(Inode& inode);
  void KeepWrites(Inode& inode, Kept kept);
  InodePtr NewInode();
  void Violation(const std::string& oracle, const std::string& what) {
    if (on_violation) on_violation(oracle, what);
  }
  void AfterCrash();

  Tape& tape_;
  Trace& trace_;
  Scheduler& scheduler_;
  Names names_;
  Names durable_names_;
  std::vector<NameChange> names_log_;  // not synced, in order
  std::set<std::string> dirs_;
  uint64_t boot_ = 0;
  bool down_ = true;
  uint64_t next_inode_ = 1;
  size_t open_files_ = 0;
};

}  // namespace dagstore::sim
