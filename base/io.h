// Io: every file operation of the store, behind one interface, so that tests and the simulator can replace it.
//
// Workers call it; the loop never does. Implementations loop over short reads and writes and over EINTR, so callers see
// all bytes or an error. Errors are classified by ErrnoStatus (base/status.h) and name the path.
//
// File protocol: what must survive appears whole. Write to a temporary, SyncFile, Rename, SyncDir; see PublishFile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/reader.h"
#include "base/wait.h"

namespace dagstore {

struct FileStat {
  uint64_t size = 0;
  uint64_t allocated = 0;  // bytes on disk: less than `size` where a file has holes
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  bool is_regular = false;
  bool is_directory = false;

  // Of the same bytes: how they lie on disk may still change.
  friend bool operator==(const FileStat& a, const FileStat& b) {
    return a.size == b.size && a.device == b.device && a.inode == b.inode && a.mtime_ns == b.mtime_ns &&
           a.is_regular == b.is_regular && a.is_directory == b.is_directory;
  }
};

// A file open for reading. Closing is the destructor's work.
class RandomFile : public RandomReader {
 public:
  virtual absl::StatusOr<FileStat> Stat() const = 0;
};

// A file open for writing. One thread.
class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes, discards errors: call Close() first
  virtual absl::Status Append(Span data) = 0;  // at the end of all that was written so far
  virtual absl::Status WriteAt(uint64_t offset, Span data) = 0;
  // Data and size reach the disk; another thread may write meanwhile. An error is final for this file: the kernel may
  // have dropped the pages, so a second sync would lie. Remove it and start again from the source.
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;  // once
};

enum class Follow : uint8_t { kNever, kAlways };  // symbolic links in the last component

// Any thread.
class Io {
 public:
  virtual ~Io() = default;

  // Opens a regular file for reading. InvalidArgument if it is not a regular file.
  virtual absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path,
                                                           Follow follow = Follow::kAlways) = 0;
  // Opens the regular file `path` below the folder `root`, and nothing outside it: CheckBeneath(path) holds, and links
  // are followed only where Follow allows it, in all components, and only as long as they stay below `root`.
  // Unavailable if `root` is not there (not mounted, perhaps). Here for file systems without links: checks and opens.
  virtual absl::StatusOr<std::unique_ptr<RandomFile>> OpenBeneath(const std::string& root, const std::string& path,
                                                                  Follow follow);
  // O_EXCL | O_NOFOLLOW, mode 0600. AlreadyExists if anything has that name.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) = 0;
  // Opens a regular file of our own that is there (a transient that goes on); Append starts at its end. O_NOFOLLOW.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) = 0;
  virtual absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow = Follow::kAlways) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;  // replaces `to`
  virtual absl::Status Remove(const std::string& path) = 0;                         // a file. NotFound if absent
  // Mode 0700, parents too; OK if present. What it made is on disk when it returns.
  virtual absl::Status MakeDir(const std::string& path) = 0;
  // OK if nobody but us can put names into the folder. FailedPrecondition if it is another user's (unless we are root),
  // or if its group or others may write there. Here for file systems without owners: looks at nothing.
  virtual absl::Status CheckPrivateDir(const std::string& path);
  // The names in the folder reach the disk.
  virtual absl::Status SyncDir(const std::string& path) = 0;
  // Names, sorted. ResourceExhausted above 10 million.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  // A place where the simulator may switch to another job, and where a job looks at its cancel flag.
  virtual void Yield() {}
  // Where a job waits for others; see base/wait.h.
  virtual std::unique_ptr<WaitPoint> NewWaitPoint() { return WaitPoint::Real(); }

  static Io& Posix();
};

// OK if `path` is relative, not empty, and has no ".." component and no zero byte. InvalidArgument otherwise.
absl::Status CheckBeneath(std::string_view path);

// Writes `parts` in order to `dir`/`temp_name`, syncs, renames to `dir`/`name`, syncs the folder. On an error nothing
// named `name` has appeared and the temporary is removed; a crash at any point leaves `name` absent or whole. A file
// that had the name before is replaced: on an error it is untouched, or, if only the sync of the folder failed, the new
// one. AlreadyExists, and nothing is removed, if the temporary is there already.
absl::Status PublishFile(Io& io, const std::string& dir, const std::string& name, const std::string& temp_name,
                         std::span<const Span> parts);

// Reads a whole small file of our own. ResourceExhausted above `size_max`.
absl::StatusOr<Bytes> ReadSmallFile(Io& io, const std::string& path, size_t size_max);

}  // namespace dagstore
