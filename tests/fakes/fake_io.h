// FakeIo: an Io in memory that can fail, crash and remember.
//
// A file has its content and what of it is durable; a folder has its names and what of them is durable. Sync of a file
// and SyncDir move the one to the other, apart, as on a real disk. Crash() takes the machine down and up: what was not
// durable is gone, as `Lost` says, and handles from before are dead. Folders are durable as soon as they are made
// (MakeDir promises that). There are no symbolic links: Follow makes no difference. Paths are taken as they are
// written.
//
// Any thread. Limit: a file holds at most kFakeFileBytesMax, so that a wrong offset is an error and not a hang.
#pragma once

#include <absl/base/thread_annotations.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/io.h"
#include "base/mutex.h"

namespace dagstore {

inline constexpr uint64_t kFakeFileBytesMax = 1 << 30;

class FakeIo final : public Io {
 public:
  // Every call that can fail. kMap, kRead and the file's kStat count like the others.
  enum class Op : uint8_t {
    kOpen, kCreate, kOpenForWriting, kStat, kRename, kRemove, kMakeDir, kSyncDir, kList,
    kRead, kMap, kWrite, kSync, kClose,
  };
  // What a crash takes. Real disks may do any of these, because names and data reach them in any order.
  enum class Lost : uint8_t {
    kAll,       // all names and data that were not synced
    kData,      // data that was not synced; all names survive, so that a file may be there and empty
    kHalfData,  // as kData, and of what was appended since the last sync the first half survives: a torn write
  };

  FakeIo();
  ~FakeIo() override;

  // --- Faults. Each returns *this, so that they can be chained. `n` counts from 1, from now on.

  // The n-th call (of any kind; of this kind) does nothing and fails.
  FakeIo& FailNth(uint64_t n, absl::Status error);
  FakeIo& FailNth(Op op, uint64_t n, absl::Status error);
  // The n-th call and all after it do nothing and fail, until Crash(): the machine is down.
  FakeIo& StopAtNth(uint64_t n);
  // The disk takes `bytes` more bytes, then is full: the write that meets the end moves what fits and fails (ENOSPC).
  FakeIo& FailAfterBytes(uint64_t bytes);
  // Every read of the file fails with EIO.
  FakeIo& FailReads(const std::string& path);
  // Readers find the end of the file after `size` bytes, while Size() and Stat() say what they did: it shrank.
  FakeIo& ShortenReads(const std::string& path, uint64_t size);
  // Bit `bit` (0..7) of the byte at `offset` is inverted, on the disk. The file must be that long.
  FakeIo& FlipBit(const std::string& path, uint64_t offset, int bit);
  // No fault any more, except what FlipBit did.
  FakeIo& Heal();

  void Crash(Lost lost = Lost::kAll);
  // Runs in each Yield(), without the lock.
  void OnYield(std::function<void()> hook);

  // --- What tests look at. Neither counted nor logged.

  void WriteFile(const std::string& path, Span content);  // durable; makes the folder
  std::optional<Bytes> Content(const std::string& path) const;
  std::vector<std::string> Files() const;  // all paths, sorted
  // One line a call that took effect: "create d/a", "write d/a 5", "sync d/a", "rename d/a d/b", "syncdir d" ...
  std::vector<std::string> TakeLog();
  // Calls so far, failed ones too.
  uint64_t calls() const;
  // Handles that are not closed.
  size_t open_files() const;

  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow follow) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override;
  absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status MakeDir(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  void Yield() override;

 private:
  struct Node;
  struct Disk;
  class ReadHandle;
  class WriteHandle;

  const std::shared_ptr<Disk> disk_;  // shared with the handles
};

}  // namespace dagstore
