#include "tests/fakes/fake_io.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"

namespace dagstore {
namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

const char* OpName(FakeIo::Op op) {
  using Op = FakeIo::Op;
  switch (op) {
    case Op::kOpen:
      return "open";
    case Op::kCreate:
      return "create";
    case Op::kOpenForWriting:
      return "reopen";
    case Op::kStat:
      return "stat";
    case Op::kRename:
      return "rename";
    case Op::kRemove:
      return "remove";
    case Op::kMakeDir:
      return "makedir";
    case Op::kSyncDir:
      return "syncdir";
    case Op::kList:
      return "list";
    case Op::kRead:
      return "read";
    case Op::kMap:
      return "map";
    case Op::kWrite:
      return "write";
    case Op::kSync:
      return "sync";
    case Op::kClose:
      return "close";
  }
  DAGSTORE_CHECK(false);
}

}  // namespace

struct FakeIo::Node {
  Bytes content;
  Bytes durable;
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  bool reads_fail = false;
  std::optional<uint64_t> reads_end;
};

struct FakeIo::Disk {
  struct Fault {
    std::optional<Op> op;  // any
    uint64_t left = 0;     // matching calls until it strikes
    absl::Status error;
    bool stays = false;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;

  mutable Mutex mutex;
  Names files ABSL_GUARDED_BY(mutex);
  Names durable_files ABSL_GUARDED_BY(mutex);
  std::set<std::string> dirs ABSL_GUARDED_BY(mutex) = {".", "/"};
  std::vector<Fault> faults ABSL_GUARDED_BY(mutex);
  std::optional<uint64_t> bytes_left ABSL_GUARDED_BY(mutex);
  std::vector<std::string> log ABSL_GUARDED_BY(mutex);
  std::function<void()> on_yield ABSL_GUARDED_BY(mutex);
  uint64_t calls ABSL_GUARDED_BY(mutex) = 0;
  uint64_t boot ABSL_GUARDED_BY(mutex) = 0;
  uint64_t ticks ABSL_GUARDED_BY(mutex) = 0;  // inodes and times come from here
  size_t open_files ABSL_GUARDED_BY(mutex) = 0;

  // Counts a call. An error if a fault strikes.
  absl::Status Enter(Op op, const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    ++calls;
    absl::Status error;
    for (Fault& fault : faults) {
      if (fault.op.has_value() && *fault.op != op) continue;
      if (fault.left > 1) {
        --fault.left;
      } else if (fault.left == 1 || fault.stays) {
        fault.left = 0;
        if (error.ok()) error = Annotate(fault.error, fmt::format("{} {}", OpName(op), path));
      }
    }
    return error;
  }
  // As Enter, for a handle made in boot `made_in`.
  absl::Status EnterHandle(Op op, const std::string& path, uint64_t made_in) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    RETURN_IF_ERROR(Enter(op, path));
    if (made_in != boot) return Unavailable("{} {}: the handle is from before the crash", OpName(op), path);
    return absl::OkStatus();
  }
  void Log(Op op, const std::string& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    log.push_back(fmt::format("{} {}", OpName(op), what));
  }
  absl::StatusOr<std::shared_ptr<Node>> Find(Op op, const std::string& path) const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    if (const auto found = files.find(path); found != files.end()) return found->second;
    if (dirs.count(path) != 0) return InvalidArgument("{} {}: not a regular file", OpName(op), path);
    return ErrnoStatus(ENOENT, fmt::format("{} {}", OpName(op), path));
  }
  std::shared_ptr<Node> Expect(const std::string& path) const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    const auto found = files.find(path);
    DAGSTORE_CHECK_MSG(found != files.end(), path);
    return found->second;
  }
  std::shared_ptr<Node> NewNode() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    auto node = std::make_shared<Node>();
    node->inode = ++ticks;
    node->mtime_ns = static_cast<int64_t>(node->inode);
    return node;
  }
};

namespace {

FileStat StatOfFile(uint64_t size, uint64_t inode, int64_t mtime_ns) {
  return {.size = size,
          .allocated = size,
          .device = 1,
          .inode = inode,
          .mtime_ns = mtime_ns,
          .is_regular = true,
          .is_directory = false};
}

}  // namespace

class FakeIo::ReadHandle final : public RandomFile {
 public:
  ReadHandle(std::shared_ptr<Disk> disk, std::shared_ptr<Node> node, std::string path, uint64_t boot, uint64_t size)
      : disk_(std::move(disk)), node_(std::move(node)), path_(std::move(path)), boot_(boot), size_(size) {}
  ~ReadHandle() override {
    const MutexLock lock(disk_->mutex);
    --disk_->open_files;
  }

  uint64_t Size() const override { return size_; }

  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    const MutexLock lock(disk_->mutex);
    RETURN_IF_ERROR(disk_->EnterHandle(Op::kRead, path_, boot_));
    if (node_->reads_fail) return ErrnoStatus(EIO, fmt::format("read {}", path_));
    disk_->Log(Op::kRead, fmt::format("{} {} {}", path_, offset, size));
    const uint64_t end = std::min<uint64_t>(node_->content.size(), node_->reads_end.value_or(kFakeFileBytesMax));
    if (offset >= end) return size_t{0};
    const size_t n = std::min<uint64_t>(size, end - offset);
    std::copy_n(node_->content.data() + offset, n, out);
    return n;
  }

  absl::StatusOr<FileStat> Stat() const override {
    const MutexLock lock(disk_->mutex);
    RETURN_IF_ERROR(disk_->EnterHandle(Op::kStat, path_, boot_));
    return StatOfFile(node_->content.size(), node_->inode, node_->mtime_ns);
  }

  absl::StatusOr<Span> Map() const override {
    const MutexLock lock(disk_->mutex);
    RETURN_IF_ERROR(disk_->EnterHandle(Op::kMap, path_, boot_));
    if (node_->reads_fail) return ErrnoStatus(EIO, fmt::format("map {}", path_));
    disk_->Log(Op::kMap, path_);
    if (!mapped_) {
      mapping_ = node_->content;
      mapped_ = true;
    }
    return Span(mapping_);
  }

 private:
  const std::shared_ptr<Disk> disk_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const uint64_t boot_;
  const uint64_t size_;
  mutable Bytes mapping_ ABSL_GUARDED_BY(disk_->mutex);  // a copy: mapped files are sealed
  mutable bool mapped_ ABSL_GUARDED_BY(disk_->mutex) = false;
};

class FakeIo::WriteHandle final : public WritableFile {
 public:
  WriteHandle(std::shared_ptr<Disk> disk, std::shared_ptr<Node> node, std::string path, uint64_t boot)
      : disk_(std::move(disk)), node_(std::move(node)), path_(std::move(path)), boot_(boot) {}
  ~WriteHandle() override {
    const MutexLock lock(disk_->mutex);
    if (!closed_) --disk_->open_files;
  }

  absl::Status Append(Span data) override {
    const MutexLock lock(disk_->mutex);
    return Write(node_->content.size(), data);
  }
  absl::Status WriteAt(uint64_t offset, Span data) override {
    const MutexLock lock(disk_->mutex);
    return Write(offset, data);
  }

  absl::Status Sync() override {
    const MutexLock lock(disk_->mutex);
    DAGSTORE_CHECK(!closed_);
    DAGSTORE_CHECK_MSG(sync_error_.ok(), "a second sync after a failed one would lie");
    sync_error_ = disk_->EnterHandle(Op::kSync, path_, boot_);
    RETURN_IF_ERROR(sync_error_);
    disk_->Log(Op::kSync, path_);
    node_->durable = node_->content;
    return absl::OkStatus();
  }

  absl::Status Close() override {
    const MutexLock lock(disk_->mutex);
    DAGSTORE_CHECK(!closed_);
    closed_ = true;
    --disk_->open_files;
    RETURN_IF_ERROR(disk_->EnterHandle(Op::kClose, path_, boot_));
    disk_->Log(Op::kClose, path_);
    return absl::OkStatus();
  }

 private:
  absl::Status Write(uint64_t offset, Span data) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_->mutex) {
    DAGSTORE_CHECK(!closed_);
    RETURN_IF_ERROR(disk_->EnterHandle(Op::kWrite, path_, boot_));
    if (offset > kFakeFileBytesMax || data.size() > kFakeFileBytesMax - offset) {
      return ErrnoStatus(EFBIG, fmt::format("write {}", path_));
    }
    const bool full = disk_->bytes_left.has_value() && *disk_->bytes_left < data.size();
    if (full) data = data.first(*disk_->bytes_left);
    if (disk_->bytes_left.has_value()) *disk_->bytes_left -= data.size();
    if (!data.empty()) {
      if (node_->content.size() < offset + data.size()) node_->content.resize(offset + data.size());
      std::copy(data.begin(), data.end(), node_->content.begin() + static_cast<ptrdiff_t>(offset));
      node_->mtime_ns = static_cast<int64_t>(++disk_->ticks);
    }
    if (full) return ErrnoStatus(ENOSPC, fmt::format("write {}", path_));
    disk_->Log(Op::kWrite, fmt::format("{} {}", path_, data.size()));
    return absl::OkStatus();
  }

  const std::shared_ptr<Disk> disk_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const uint64_t boot_;
  absl::Status sync_error_ ABSL_GUARDED_BY(disk_->mutex);
  bool closed_ ABSL_GUARDED_BY(disk_->mutex) = false;
};

FakeIo::FakeIo() : disk_(std::make_shared<Disk>()) {}
FakeIo::~FakeIo() = default;

FakeIo& FakeIo::FailNth(uint64_t n, absl::Status error) {
  DAGSTORE_CHECK(n > 0 && !error.ok());
  const MutexLock lock(disk_->mutex);
  disk_->faults.push_back({.op = std::nullopt, .left = n, .error = std::move(error), .stays = false});
  return *this;
}

FakeIo& FakeIo::FailNth(Op op, uint64_t n, absl::Status error) {
  DAGSTORE_CHECK(n > 0 && !error.ok());
  const MutexLock lock(disk_->mutex);
  disk_->faults.push_back({.op = op, .left = n, .error = std::move(error), .stays = false});
  return *this;
}

FakeIo& FakeIo::StopAtNth(uint64_t n) {
  DAGSTORE_CHECK(n > 0);
  const MutexLock lock(disk_->mutex);
  disk_->faults.push_back(
      {.op = std::nullopt, .left = n, .error = Unavailable("the machine is down"), .stays = true});
  return *this;
}

FakeIo& FakeIo::FailAfterBytes(uint64_t bytes) {
  const MutexLock lock(disk_->mutex);
  disk_->bytes_left = bytes;
  return *this;
}

FakeIo& FakeIo::FailReads(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  disk_->Expect(path)->reads_fail = true;
  return *this;
}

FakeIo& FakeIo::ShortenReads(const std::string& path, uint64_t size) {
  const MutexLock lock(disk_->mutex);
  disk_->Expect(path)->reads_end = size;
  return *this;
}

FakeIo& FakeIo::FlipBit(const std::string& path, uint64_t offset, int bit) {
  const MutexLock lock(disk_->mutex);
  Node& node = *disk_->Expect(path);
  DAGSTORE_CHECK(offset < node.content.size() && bit >= 0 && bit < 8);
  node.content[offset] ^= static_cast<uint8_t>(1 << bit);
  if (offset < node.durable.size()) node.durable[offset] ^= static_cast<uint8_t>(1 << bit);
  return *this;
}

FakeIo& FakeIo::Heal() {
  const MutexLock lock(disk_->mutex);
  disk_->faults.clear();
  disk_->bytes_left.reset();
  for (const auto& [path, node] : disk_->files) {
    node->reads_fail = false;
    node->reads_end.reset();
  }
  return *this;
}

void FakeIo::Crash(Lost lost) {
  const MutexLock lock(disk_->mutex);
  ++disk_->boot;
  std::erase_if(disk_->faults, [](const Disk::Fault& fault) { return fault.stays; });
  if (lost == Lost::kAll) disk_->files = disk_->durable_files;
  for (const auto& [path, node] : disk_->files) {
    if (lost == Lost::kHalfData && node->content.size() > node->durable.size()) {
      node->content.resize(node->durable.size() + (node->content.size() - node->durable.size()) / 2);
      std::copy(node->durable.begin(), node->durable.end(), node->content.begin());
    } else {
      node->content = node->durable;
    }
    node->durable = node->content;
  }
  disk_->durable_files = disk_->files;
}

void FakeIo::OnYield(std::function<void()> hook) {
  const MutexLock lock(disk_->mutex);
  disk_->on_yield = std::move(hook);
}

void FakeIo::WriteFile(const std::string& path, Span content) {
  const MutexLock lock(disk_->mutex);
  std::string dir = ParentOf(path);
  while (disk_->dirs.insert(dir).second) dir = ParentOf(dir);
  const std::shared_ptr<Node> node = disk_->NewNode();
  node->content.assign(content.begin(), content.end());
  node->durable = node->content;
  disk_->files[path] = node;
  disk_->durable_files[path] = node;
}

std::optional<Bytes> FakeIo::Content(const std::string& path) const {
  const MutexLock lock(disk_->mutex);
  const auto found = disk_->files.find(path);
  if (found == disk_->files.end()) return std::nullopt;
  return found->second->content;
}

std::vector<std::string> FakeIo::Files() const {
  const MutexLock lock(disk_->mutex);
  std::vector<std::string> paths;
  for (const auto& [path, node] : disk_->files) paths.push_back(path);
  return paths;
}

std::vector<std::string> FakeIo::TakeLog() {
  const MutexLock lock(disk_->mutex);
  return std::exchange(disk_->log, {});
}

uint64_t FakeIo::calls() const {
  const MutexLock lock(disk_->mutex);
  return disk_->calls;
}

size_t FakeIo::open_files() const {
  const MutexLock lock(disk_->mutex);
  return disk_->open_files;
}

absl::StatusOr<std::unique_ptr<RandomFile>> FakeIo::Open(const std::string& path, Follow) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kOpen, path));
  ASSIGN_OR_RETURN(std::shared_ptr<Node> node, disk_->Find(Op::kOpen, path));
  disk_->Log(Op::kOpen, path);
  ++disk_->open_files;
  const uint64_t size = node->content.size();
  return std::make_unique<ReadHandle>(disk_, std::move(node), path, disk_->boot, size);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FakeIo::Create(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kCreate, path));
  if (disk_->files.count(path) != 0 || disk_->dirs.count(path) != 0) {
    return ErrnoStatus(EEXIST, fmt::format("create {}", path));
  }
  if (disk_->dirs.count(ParentOf(path)) == 0) return ErrnoStatus(ENOENT, fmt::format("create {}", path));
  const std::shared_ptr<Node> node = disk_->NewNode();
  disk_->files[path] = node;
  disk_->Log(Op::kCreate, path);
  ++disk_->open_files;
  return std::make_unique<WriteHandle>(disk_, node, path, disk_->boot);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FakeIo::OpenForWriting(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kOpenForWriting, path));
  ASSIGN_OR_RETURN(std::shared_ptr<Node> node, disk_->Find(Op::kOpenForWriting, path));
  disk_->Log(Op::kOpenForWriting, path);
  ++disk_->open_files;
  return std::make_unique<WriteHandle>(disk_, std::move(node), path, disk_->boot);
}

absl::StatusOr<FileStat> FakeIo::Stat(const std::string& path, Follow) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kStat, path));
  if (const auto found = disk_->files.find(path); found != disk_->files.end()) {
    return StatOfFile(found->second->content.size(), found->second->inode, found->second->mtime_ns);
  }
  if (disk_->dirs.count(path) == 0) return ErrnoStatus(ENOENT, fmt::format("stat {}", path));
  FileStat folder;
  folder.is_directory = true;
  return folder;
}

absl::Status FakeIo::Rename(const std::string& from, const std::string& to) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kRename, from));
  ASSIGN_OR_RETURN(std::shared_ptr<Node> node, disk_->Find(Op::kRename, from));
  if (disk_->dirs.count(to) != 0) return ErrnoStatus(EISDIR, fmt::format("rename {} to {}", from, to));
  if (disk_->dirs.count(ParentOf(to)) == 0) return ErrnoStatus(ENOENT, fmt::format("rename {} to {}", from, to));
  disk_->files.erase(from);
  disk_->files[to] = std::move(node);
  disk_->Log(Op::kRename, fmt::format("{} {}", from, to));
  return absl::OkStatus();
}

absl::Status FakeIo::Remove(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kRemove, path));
  RETURN_IF_ERROR(disk_->Find(Op::kRemove, path).status());
  disk_->files.erase(path);
  disk_->Log(Op::kRemove, path);
  return absl::OkStatus();
}

absl::Status FakeIo::MakeDir(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kMakeDir, path));
  for (std::string dir = path; disk_->dirs.count(dir) == 0; dir = ParentOf(dir)) {
    if (disk_->files.count(dir) != 0) return ErrnoStatus(ENOTDIR, fmt::format("create folder {}", dir));
  }
  for (std::string dir = path; disk_->dirs.insert(dir).second; dir = ParentOf(dir)) {
  }
  disk_->Log(Op::kMakeDir, path);
  return absl::OkStatus();
}

absl::Status FakeIo::SyncDir(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kSyncDir, path));
  if (disk_->dirs.count(path) == 0) return ErrnoStatus(ENOENT, fmt::format("sync folder {}", path));
  std::erase_if(disk_->durable_files, [&](const auto& entry) { return ParentOf(entry.first) == path; });
  for (const auto& [name, node] : disk_->files) {
    if (ParentOf(name) == path) disk_->durable_files[name] = node;
  }
  disk_->Log(Op::kSyncDir, path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> FakeIo::List(const std::string& path) {
  const MutexLock lock(disk_->mutex);
  RETURN_IF_ERROR(disk_->Enter(Op::kList, path));
  if (disk_->dirs.count(path) == 0) return ErrnoStatus(ENOENT, fmt::format("list {}", path));
  std::vector<std::string> names;
  const auto add = [&](const std::string& full) {
    if (full != path && full != "." && ParentOf(full) == path) names.push_back(full.substr(full.find_last_of('/') + 1));
  };
  for (const auto& [name, node] : disk_->files) add(name);
  for (const std::string& dir : disk_->dirs) add(dir);
  std::sort(names.begin(), names.end());
  disk_->Log(Op::kList, path);
  return names;
}

void FakeIo::Yield() {
  std::function<void()> hook;
  {
    const MutexLock lock(disk_->mutex);
    hook = disk_->on_yield;
  }
  if (hook) hook();
}

}  // namespace dagstore
