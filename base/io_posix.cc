// Io on POSIX files. See base/io.h.
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <mutex>

#include "base/check.h"
#include "base/io.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// Files are addressed by a signed 64-bit offset.
constexpr uint64_t kFileBytesMax = std::numeric_limits<off_t>::max();
// One call moves at most this much: below Linux's own limit of 2 GiB - 4 KiB on every port.
constexpr size_t kTransferBytesMax = 1 << 30;
// Names in one folder: a list of them fits in memory (about 1 GiB). Our own folders hold one file per shard at most.
constexpr size_t kListNamesMax = 10'000'000;

// Repeats `call` while a signal interrupts it. Not for close(): after EINTR the descriptor is gone on Linux.
template <typename Call>
auto Retry(Call call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

// A descriptor, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ != -1) ::close(fd_);
  }
  int get() const { return fd_; }
  // 0 or -1 with errno. EINTR is no error: the descriptor is closed, and what matters was synced before.
  int Close() { return ::close(std::exchange(fd_, -1)) == -1 && errno != EINTR ? -1 : 0; }

 private:
  int fd_;
};

absl::Status Failed(int error, std::string_view verb, const std::string& path) {
  return ErrnoStatus(error, fmt::format("{} {}", verb, path));
}

// A path with a zero byte in it would name another file.
absl::Status CheckPath(const std::string& path, std::string_view verb) {
  if (path.find('\0') == std::string::npos) return absl::OkStatus();
  return InvalidArgument("{} {}: the path contains a zero byte", verb, path.c_str());
}

absl::StatusOr<Descriptor> OpenDescriptor(const std::string& path, int flags, std::string_view verb, mode_t mode = 0) {
  RETURN_IF_ERROR(CheckPath(path, verb));
  const int fd = Retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, mode); });
  if (fd == -1 && errno == ENXIO) return InvalidArgument("{} {}: a socket or a FIFO", verb, path);
  if (fd == -1) return Failed(errno, verb, path);
  return Descriptor(fd);
}

FileStat ToFileStat(const struct stat& from) {
  return {.size = static_cast<uint64_t>(from.st_size),
          .allocated = static_cast<uint64_t>(from.st_blocks) * 512,
          .device = from.st_dev,
          .inode = from.st_ino,
          .mtime_ns = from.st_mtim.tv_sec * int64_t{1'000'000'000} + from.st_mtim.tv_nsec,
          .is_regular = S_ISREG(from.st_mode),
          .is_directory = S_ISDIR(from.st_mode)};
}

absl::StatusOr<FileStat> StatDescriptor(int fd, const std::string& path) {
  struct stat found;
  if (::fstat(fd, &found) == -1) return Failed(errno, "stat", path);
  return ToFileStat(found);
}

class PosixRandomFile final : public RandomFile {
 public:
  PosixRandomFile(Descriptor fd, std::string path, uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}
  ~PosixRandomFile() override {
    if (mapping_ != nullptr) ::munmap(mapping_, size_);
  }

  uint64_t Size() const override { return size_; }

  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= kFileBytesMax) return size_t{0};
    size = std::min<uint64_t>(size, kFileBytesMax - offset);
    size_t done = 0;
    while (done < size) {
      const size_t step = std::min(size - done, kTransferBytesMax);
      const auto at = static_cast<off_t>(offset + done);
      const ssize_t n = Retry([&] { return ::pread(fd_.get(), out + done, step, at); });
      if (n == -1) return Failed(errno, "read", path_);
      if (n == 0) break;
      done += n;
    }
    return done;
  }

  absl::StatusOr<FileStat> Stat() const override { return StatDescriptor(fd_.get(), path_); }

  absl::StatusOr<Span> Map() const override {
    if (size_ == 0) return Span();
    const std::lock_guard lock(mutex_);
    if (mapping_ == nullptr) {
      void* at = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_.get(), 0);
      if (at == MAP_FAILED) {
        if (errno == ENODEV) return Span();  // a file system without mappings
        return Failed(errno, "map", path_);
      }
      // Lookups touch one or two pages; read-around would fetch 16. Only advice: a failure changes nothing.
      ::madvise(at, size_, MADV_RANDOM);
      mapping_ = at;
    }
    return Span(static_cast<const uint8_t*>(mapping_), size_);
  }

 private:
  const Descriptor fd_;
  const std::string path_;
  const uint64_t size_;
  mutable std::mutex mutex_;
  mutable void* mapping_ = nullptr;  // guarded by mutex_; set once
};

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(Descriptor fd, std::string path, uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), end_(size) {}

  absl::Status Append(Span data) override { return WriteAt(end_, data); }

  absl::Status WriteAt(uint64_t offset, Span data) override {
    DAGSTORE_CHECK(!closed_);
    if (offset > kFileBytesMax || data.size() > kFileBytesMax - offset) return Failed(EFBIG, "write", path_);
    size_t done = 0;
    while (done < data.size()) {
      const size_t step = std::min(data.size() - done, kTransferBytesMax);
      const auto at = static_cast<off_t>(offset + done);
      const ssize_t n = Retry([&] { return ::pwrite(fd_.get(), data.data() + done, step, at); });
      if (n == -1) return Failed(errno, "write", path_);
      if (n == 0) return Failed(ENOSPC, "write", path_);  // a write that moves nothing would loop for ever
      done += n;
      end_ = std::max<uint64_t>(end_, offset + done);
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    DAGSTORE_CHECK(!closed_);
    // After a failed sync the kernel calls the lost pages clean: a second sync would lie.
    RETURN_IF_ERROR(sync_error_);
    if (Retry([&] { return ::fdatasync(fd_.get()); }) == -1) sync_error_ = Failed(errno, "sync", path_);
    return sync_error_;
  }

  absl::Status Close() override {
    DAGSTORE_CHECK(!closed_);
    closed_ = true;
    if (fd_.Close() == -1) return Failed(errno, "close", path_);
    return absl::OkStatus();
  }

 private:
  Descriptor fd_;
  const std::string path_;
  uint64_t end_;  // where Append writes
  absl::Status sync_error_;
  bool closed_ = false;
};

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : WithoutSlashes(path.substr(0, slash));
}

// Opens `path` below `root` component by component and follows no link at all, whatever the caller allows: for kernels
// and sandboxes without openat2.
int OpenByWalking(int root, std::string_view path, int flags) {
  int folder = root;
  for (;;) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string name(path.substr(0, end));
    path.remove_prefix(std::min(path.find_first_not_of('/', end), path.size()));
    const int step_flags = path.empty() ? flags : O_PATH | O_DIRECTORY;
    const int fd = Retry([&] { return ::openat(folder, name.c_str(), step_flags | O_NOFOLLOW | O_CLOEXEC); });
    const int error = errno;
    if (folder != root) ::close(folder);
    errno = error;
    if (fd == -1 || path.empty()) return fd;
    folder = fd;
  }
}

int OpenBelow(int root, const std::string& path, int flags, Follow follow) {
  struct open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (follow == Follow::kNever ? RESOLVE_NO_SYMLINKS : 0);
  const int fd = Retry([&] { return static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof(how))); });
  // EPERM: how older sandboxes refuse a call they do not know. If it was the file's own EPERM, it comes again.
  if (fd == -1 && (errno == ENOSYS || errno == EPERM)) return OpenByWalking(root, path, flags);
  return fd;
}

class PosixIo final : public Io {
 public:
  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow follow) override {
    // O_NONBLOCK: a FIFO that nobody writes to must not hang a worker. Regular files ignore it.
    const int flags = O_RDONLY | O_NONBLOCK | (follow == Follow::kNever ? O_NOFOLLOW : 0);
    absl::StatusOr<Descriptor> fd = OpenDescriptor(path, flags, "open");
    if (!fd.ok()) return fd.status();
    ASSIGN_OR_RETURN(const FileStat stat, StatDescriptor(fd->get(), path));
    if (!stat.is_regular) return InvalidArgument("open {}: not a regular file", path);
    return std::make_unique<PosixRandomFile>(std::move(*fd), path, stat.size);
  }

  absl::StatusOr<std::unique_ptr<RandomFile>> OpenBeneath(const std::string& root, const std::string& path,
                                                          Follow follow) override {
    RETURN_IF_ERROR(CheckBeneath(path));
    absl::StatusOr<Descriptor> folder = OpenDescriptor(root, O_PATH | O_DIRECTORY, "open root folder");
    if (absl::IsNotFound(folder.status())) return Unavailable("{}", Message(folder.status()));
    if (!folder.ok()) return folder.status();
    const std::string whole = root + "/" + path;
    Descriptor fd(OpenBelow(folder->get(), path, O_RDONLY | O_NONBLOCK | O_NOCTTY, follow));
    if (fd.get() == -1 && errno == EXDEV) return FailedPrecondition("open {}: a link leaves the root folder", whole);
    if (fd.get() == -1 && errno == ENXIO) return InvalidArgument("open {}: a socket or a FIFO", whole);
    if (fd.get() == -1) return Failed(errno, "open", whole);
    ASSIGN_OR_RETURN(const FileStat stat, StatDescriptor(fd.get(), whole));
    if (!stat.is_regular) return InvalidArgument("open {}: not a regular file", whole);
    return std::make_unique<PosixRandomFile>(std::move(fd), whole, stat.size);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    absl::StatusOr<Descriptor> fd =
        Mutant(kMutantCreateFollows)
            ? OpenDescriptor(path, O_WRONLY | O_CREAT, "create", 0666)
            : OpenDescriptor(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, "create", 0600);
    if (!fd.ok()) return fd.status();
    return std::make_unique<PosixWritableFile>(std::move(*fd), path, 0);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    absl::StatusOr<Descriptor> fd = OpenDescriptor(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW, "open");
    if (!fd.ok()) return fd.status();
    ASSIGN_OR_RETURN(const FileStat stat, StatDescriptor(fd->get(), path));
    if (!stat.is_regular) return InvalidArgument("open {}: not a regular file", path);
    return std::make_unique<PosixWritableFile>(std::move(*fd), path, stat.size);
  }

  absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow) override {
    RETURN_IF_ERROR(CheckPath(path, "stat"));
    struct stat found;
    const int flags = follow == Follow::kNever ? AT_SYMLINK_NOFOLLOW : 0;
    if (Retry([&] { return ::fstatat(AT_FDCWD, path.c_str(), &found, flags); }) == -1) {
      return Failed(errno, "stat", path);
    }
    return ToFileStat(found);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(CheckPath(from, "rename"));
    RETURN_IF_ERROR(CheckPath(to, "rename"));
    if (Retry([&] { return ::rename(from.c_str(), to.c_str()); }) == -1) {
      return ErrnoStatus(errno, fmt::format("rename {} to {}", from, to));
    }
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path, "remove"));
    if (Retry([&] { return ::unlink(path.c_str()); }) == -1) return Failed(errno, "remove", path);
    return absl::OkStatus();
  }

  absl::Status MakeDir(const std::string& path) override {
    if (path.empty()) return InvalidArgument("create folder: the path is empty");
    std::vector<std::string> missing;  // the deepest first
    for (std::string next = WithoutSlashes(path);; next = ParentOf(next)) {
      const absl::StatusOr<FileStat> stat = Stat(next, Follow::kAlways);
      if (stat.ok() && !stat->is_directory) return Failed(ENOTDIR, "create folder", next);
      if (stat.ok()) break;
      if (!absl::IsNotFound(stat.status()) || next == "/" || next == ".") return stat.status();
      missing.push_back(next);
    }
    for (; !missing.empty(); missing.pop_back()) {
      const std::string& next = missing.back();
      if (::mkdir(next.c_str(), 0700) == -1) {
        const int error = errno;
        const absl::StatusOr<FileStat> stat = Stat(next, Follow::kAlways);
        const bool made_by_another = error == EEXIST && stat.ok() && stat->is_directory;
        if (!made_by_another) return Failed(error, "create folder", next);
      }
      RETURN_IF_ERROR(SyncDir(ParentOf(next)));
    }
    return absl::OkStatus();
  }

  absl::Status CheckPrivateDir(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path, "stat"));
    struct stat found;
    if (Retry([&] { return ::stat(path.c_str(), &found); }) == -1) return Failed(errno, "stat", path);
    const uid_t self = ::geteuid();
    if (self != 0 && found.st_uid != self) {
      return FailedPrecondition("folder {} belongs to user {}, and this is user {}", path, found.st_uid, self);
    }
    if ((found.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
      return FailedPrecondition("folder {} may be written by others (mode {:04o}): chmod go-w it first", path,
                                found.st_mode & 07777);
    }
    return absl::OkStatus();
  }

  absl::Status SyncDir(const std::string& path) override {
    absl::StatusOr<Descriptor> fd = OpenDescriptor(path, O_RDONLY | O_DIRECTORY, "open folder");
    if (!fd.ok()) return fd.status();
    // EINVAL: this file system has no sync of folders, so there is nothing to wait for.
    if (Retry([&] { return ::fsync(fd->get()); }) == -1 && errno != EINVAL) return Failed(errno, "sync folder", path);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    RETURN_IF_ERROR(CheckPath(path, "list"));
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
    if (dir == nullptr) return Failed(errno, "list", path);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(dir.get());
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (names.size() == kListNamesMax) return ResourceExhausted("list {}: more than {} names", path, kListNamesMax);
      names.emplace_back(name);
    }
    if (errno != 0) return Failed(errno, "list", path);
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

Io& Io::Posix() {
  static PosixIo io;
  return io;
}

}  // namespace dagstore
