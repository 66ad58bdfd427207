#include "tests/sim/sim_fs.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "tests/sim/sometimes.h"

namespace dagstore::sim {
namespace {

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string(".") : path.substr(0, slash);
}

bool IsUnder(const std::string& path, const std::string& dir) {
  return path.size() > dir.size() && path.starts_with(dir) && path[dir.size()] == '/';
}

}  // namespace

const char* IoOpName(IoOp op) {
  static constexpr const char* kNames[kIoOps] = {"open",   "create",  "reopen", "stat", "rename", "remove", "makedir",
                                                 "syncdir", "list",    "read",   "map",  "write",  "sync",   "close"};
  return kNames[static_cast<size_t>(op)];
}

// ---- Handles ----

class SimReadFile final : public RandomFile {
 public:
  SimReadFile(SimFs& fs, uint64_t boot, std::string path, SimFs::InodePtr inode)
      : fs_(fs), boot_(boot), path_(std::move(path)), inode_(std::move(inode)), size_(inode_->data.size()) {
    ++fs_.open_files_;
  }
  ~SimReadFile() override {
    --fs_.open_files_;
    if (mapped_) --inode_->mappings;
  }
  uint64_t Size() const override { return size_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kRead, path_));
    const std::string& data = inode_->data;
    const size_t n = offset >= data.size() ? 0 : std::min<uint64_t>(size, data.size() - offset);
    if (n != 0) std::memcpy(out, data.data() + offset, n);
    return n;
  }
  absl::StatusOr<FileStat> Stat() const override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kStat, path_));
    return FileStat{.size = inode_->data.size(), .allocated = AllocatedBytes(inode_->data), .device = 1,
                    .inode = inode_->id, .mtime_ns = inode_->mtime,
                    .is_regular = true, .is_directory = false};
  }
  absl::StatusOr<Span> Map() const override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kMap, path_));
    if (!fs_.faults.mappable) return Span();
    if (!mapped_) ++inode_->mappings;
    mapped_ = true;
    return AsSpan(inode_->data);
  }

 private:
  SimFs& fs_;
  const uint64_t boot_;
  const std::string path_;
  const SimFs::InodePtr inode_;
  const uint64_t size_;
  mutable bool mapped_ = false;
};

class SimWriteFile final : public WritableFile {
 public:
  SimWriteFile(SimFs& fs, uint64_t boot, std::string path, SimFs::InodePtr inode)
      : fs_(fs), boot_(boot), path_(std::move(path)), inode_(std::move(inode)), end_(inode_->data.size()) {
    ++fs_.open_files_;
  }
  ~SimWriteFile() override {
    if (!closed_) --fs_.open_files_;
  }
  absl::Status Append(Span data) override { return WriteAt(end_, data); }
  absl::Status WriteAt(uint64_t offset, Span data) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kWrite, path_));
    if (closed_) return FailedPrecondition("write {}: closed", path_);
    if (inode_->mappings != 0) fs_.Violation("mapped", fmt::format("{} is written while it is mapped", path_));
    if (inode_->foreign) fs_.Violation("foreign", fmt::format("{} is not ours and is written", path_));
    size_t fits = data.size();
    const uint64_t end = std::max<uint64_t>(inode_->data.size(), offset + data.size());
    const uint64_t used = fs_.bytes();
    const uint64_t room = fs_.faults.quota_bytes > used ? fs_.faults.quota_bytes - used : 0;
    if (end - inode_->data.size() > room) {
      Sometimes("fs: the disk is full");
      const uint64_t over = end - inode_->data.size() - room;
      fits = data.size() > over ? data.size() - over : 0;
    }
    Put(offset, data.first(fits));
    fs_.trace_.Add(Crc32c(data));
    if (fits == data.size()) return absl::OkStatus();
    return ErrnoStatus(ENOSPC, fmt::format("write {}", path_));
  }
  absl::Status Sync() override {
    const absl::Status entered = fs_.Enter(boot_, IoOp::kSync, path_);
    if (inode_->broken_in == boot_ && boot_ == fs_.boot_ && !fs_.down_) {
      fs_.Violation("second sync", fmt::format("{} is synced again after a sync of it has failed", path_));
    }
    if (!entered.ok()) {
      if (boot_ == fs_.boot_ && !fs_.down_) {
        // The kernel marks the pages clean: what was not synced never reaches the medium, and may be gone for readers.
        inode_->broken_in = boot_;
        inode_->unsynced.clear();
        if (fs_.tape_.Draw(Stream::kFault, 2) == 1) inode_->data = inode_->durable;
        Sometimes("fs: a sync failed and lost pages");
      }
      return entered;
    }
    SimFs::ReachMedium(*inode_);
    inode_->unsynced.clear();
    return absl::OkStatus();
  }
  absl::Status Close() override {
    const absl::Status entered = fs_.Enter(boot_, IoOp::kClose, path_);
    if (!closed_) --fs_.open_files_;
    closed_ = true;
    return entered;
  }

 private:
  void Put(uint64_t offset, Span data) {
    if (data.empty()) return;
    std::string& bytes = inode_->data;
    if (bytes.size() < offset + data.size()) bytes.resize(offset + data.size());
    std::memcpy(bytes.data() + offset, data.data(), data.size());
    inode_->unsynced.push_back({offset, std::string(AsText(data))});
    inode_->mtime = fs_.scheduler_.Now();
    end_ = std::max(end_, offset + data.size());
  }

  SimFs& fs_;
  const uint64_t boot_;
  const std::string path_;
  const SimFs::InodePtr inode_;
  uint64_t end_;
  bool closed_ = false;
};

// ---- Io ----

class SimIo final : public Io {
 public:
  SimIo(SimFs& fs, uint64_t boot) : fs_(fs), boot_(boot) {}

  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kOpen, path));
    ASSIGN_OR_RETURN(SimFs::InodePtr inode, Find("open", path));
    return std::make_unique<SimReadFile>(fs_, boot_, path, std::move(inode));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kCreate, path));
    if (!fs_.dirs_.contains(FolderOf(path))) return ErrnoStatus(ENOENT, fmt::format("create {}", path));
    if (fs_.names_.contains(path)) return ErrnoStatus(EEXIST, fmt::format("create {}", path));
    SimFs::InodePtr inode = fs_.NewInode();
    fs_.names_[path] = inode;
    fs_.names_log_.push_back({SimFs::NameChange::Kind::kAdd, path, {}, inode});
    return std::make_unique<SimWriteFile>(fs_, boot_, path, std::move(inode));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kOpenForWriting, path));
    ASSIGN_OR_RETURN(SimFs::InodePtr inode, Find("reopen", path));
    return std::make_unique<SimWriteFile>(fs_, boot_, path, std::move(inode));
  }
  absl::StatusOr<FileStat> Stat(const std::string& path, Follow) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kStat, path));
    if (fs_.dirs_.contains(path)) return FileStat{.device = 1, .inode = 1, .is_directory = true};
    ASSIGN_OR_RETURN(const SimFs::InodePtr inode, Find("stat", path));
    return FileStat{.size = inode->data.size(), .allocated = AllocatedBytes(inode->data), .device = 1,
                    .inode = inode->id, .mtime_ns = inode->mtime,
                    .is_regular = true, .is_directory = false};
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kRename, from));
    ASSIGN_OR_RETURN(SimFs::InodePtr inode, Find("rename", from));
    if (!fs_.dirs_.contains(FolderOf(to))) return ErrnoStatus(ENOENT, fmt::format("rename {} to {}", from, to));
    const auto there = fs_.names_.find(to);
    if (inode->foreign || (there != fs_.names_.end() && there->second->foreign)) {
      fs_.Violation("foreign", fmt::format("{} is renamed to {}, and one of them is not ours", from, to));
    }
    if (fs_.on_remove) fs_.on_remove(from);
    if (fs_.on_publish) fs_.on_publish(to);
    SimFs::NameChange change{SimFs::NameChange::Kind::kMove, from, to, std::move(inode)};
    SimFs::Apply(fs_.names_, change);
    fs_.names_log_.push_back(std::move(change));
    return absl::OkStatus();
  }
  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kRemove, path));
    ASSIGN_OR_RETURN(SimFs::InodePtr inode, Find("remove", path));
    if (inode->foreign) fs_.Violation("foreign", fmt::format("{} is not ours and is removed", path));
    if (fs_.on_remove) fs_.on_remove(path);
    SimFs::NameChange change{SimFs::NameChange::Kind::kRemove, path, {}, std::move(inode)};
    SimFs::Apply(fs_.names_, change);
    fs_.names_log_.push_back(std::move(change));
    return absl::OkStatus();
  }
  absl::Status MakeDir(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kMakeDir, path));
    for (std::string dir = path; dir.size() > 1 && dir != "."; dir = FolderOf(dir)) fs_.dirs_.insert(dir);
    return absl::OkStatus();
  }
  absl::Status SyncDir(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kSyncDir, path));
    fs_.SyncNames(path);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    RETURN_IF_ERROR(fs_.Enter(boot_, IoOp::kList, path));
    if (!fs_.dirs_.contains(path)) return ErrnoStatus(ENOENT, fmt::format("list {}", path));
    std::set<std::string> names;
    for (const auto& [file, inode] : fs_.names_)
      if (FolderOf(file) == path) names.insert(file.substr(path.size() + 1));
    for (const std::string& dir : fs_.dirs_)
      if (IsUnder(dir, path) && FolderOf(dir) == path) names.insert(dir.substr(path.size() + 1));
    return std::vector<std::string>(names.begin(), names.end());
  }
  void Yield() override {
    if (fs_.scheduler_.in_fiber()) fs_.scheduler_.Yield();
  }

 private:
  absl::StatusOr<SimFs::InodePtr> Find(const char* verb, const std::string& path) const {
    const auto found = fs_.names_.find(path);
    if (found != fs_.names_.end()) return found->second;
    if (fs_.dirs_.contains(path)) return InvalidArgument("{} {}: not a regular file", verb, path);
    return ErrnoStatus(ENOENT, fmt::format("{} {}", verb, path));
  }

  SimFs& fs_;
  const uint64_t boot_;
};

// ---- The disk ----

SimFs::SimFs(Tape& tape, Trace& trace, Scheduler& scheduler) : tape_(tape), trace_(trace), scheduler_(scheduler) {
  dirs_.insert(".");
}
SimFs::~SimFs() = default;

std::shared_ptr<Io> SimFs::Boot() {
  down_ = false;
  ++boot_;
  return std::make_shared<SimIo>(*this, boot_);
}

absl::Status SimFs::Enter(uint64_t boot, IoOp op, const std::string& path) {
  if (scheduler_.in_fiber()) {
    if (scheduler_.current_name() == "dagstore-loop") {
      Violation("loop", fmt::format("the loop does I/O: {} {}", IoOpName(op), path));
    }
    if (!down_ && boot == boot_ && faults.stall != 0 && tape_.Chance(Stream::kFault, faults.stall)) {
      Sometimes("fs: a call stalls");
      scheduler_.Sleep(absl::Milliseconds(1 + tape_.Draw(Stream::kFault, 2000)));
    } else {
      scheduler_.Yield();
    }
  }
  if (down_ || boot != boot_) return Unavailable("{} {}: the machine is down", IoOpName(op), path);
  if (before_call) {
    before_call(op, path);
    if (down_ || boot != boot_) return Unavailable("{} {}: the machine is down", IoOpName(op), path);
  }
  absl::Status status = inject ? inject(op, path) : absl::OkStatus();
  if (status.ok()) status = Fault(op, path);
  trace_.Add(static_cast<uint64_t>(op) << 8 | static_cast<uint64_t>(status.code()));
  trace_.Add(path);
  if (trace_.verbose()) {
    trace_.listener(fmt::format("{:>6} {:<16} {} {}{}", scheduler_.steps(), scheduler_.current_name(), IoOpName(op),
                                path, status.ok() ? "" : ": " + ToString(status)));
  }
  if (!status.ok()) SometimesMade(fmt::format("fs: {} fails", IoOpName(op)));
  return status;
}

absl::Status SimFs::Fault(IoOp op, const std::string& path) {
  const auto fails = [&](uint32_t rate) { return rate != 0 && tape_.Chance(Stream::kFault, rate); };
  const auto error = [&](int code) { return ErrnoStatus(code, fmt::format("{} {}", IoOpName(op), path)); };
  if (op == IoOp::kRead) {
    if (const auto found = names_.find(path); found != names_.end() && found->second->unreadable) return error(EIO);
  }
  switch (op) {
    case IoOp::kOpen:
    case IoOp::kCreate:
    case IoOp::kOpenForWriting:
      if (fails(faults.no_descriptor)) return error(EMFILE);
      return fails(faults.name_error) ? error(EIO) : absl::OkStatus();
    case IoOp::kStat:
    case IoOp::kRename:
    case IoOp::kRemove:
    case IoOp::kMakeDir:
    case IoOp::kList:
      return fails(faults.name_error) ? error(EIO) : absl::OkStatus();
    case IoOp::kRead:
    case IoOp::kMap:
      if (!fails(faults.read_error)) return absl::OkStatus();
      if (tape_.Draw(Stream::kFault, 8) == 7 && !path.ends_with("/DAGSTORE")) {
        if (const auto found = names_.find(path); found != names_.end()) found->second->unreadable = true;
        Sometimes("fs: a file cannot be read any more");
      }
      return error(EIO);
    case IoOp::kWrite:
    case IoOp::kClose:
      return fails(faults.write_error) ? error(EIO) : absl::OkStatus();
    case IoOp::kSync:
    case IoOp::kSyncDir:
      return fails(faults.sync_error) ? error(EIO) : absl::OkStatus();
  }
  return absl::OkStatus();
}

void SimFs::Apply(Names& names, const NameChange& change) {
  const auto is_there = [&](const std::string& path) {
    const auto found = names.find(path);
    return found != names.end() && found->second == change.inode;
  };
  switch (change.kind) {
    case NameChange::Kind::kAdd:
      names[change.path] = change.inode;
      break;
    case NameChange::Kind::kMove:
      if (is_there(change.path)) names.erase(change.path);
      names[change.to] = change.inode;
      break;
    case NameChange::Kind::kRemove:
      if (is_there(change.path)) names.erase(change.path);
      break;
  }
}

void SimFs::SyncNames(const std::string& dir) {
  // A change that reaches the medium takes along what happened to the same file before: it is one after the other.
  std::vector<bool> goes(names_log_.size());
  for (size_t i = names_log_.size(); i-- > 0;) {
    const NameChange& change = names_log_[i];
    goes[i] = FolderOf(change.path) == dir || (!change.to.empty() && FolderOf(change.to) == dir);
    for (size_t later = i + 1; !goes[i] && later < names_log_.size(); ++later)
      goes[i] = goes[later] && names_log_[later].inode == change.inode;
  }
  std::vector<NameChange> left;
  for (size_t i = 0; i < names_log_.size(); ++i) {
    if (goes[i]) {
      Apply(durable_names_, names_log_[i]);
    } else {
      left.push_back(std::move(names_log_[i]));
    }
  }
  names_log_ = std::move(left);
}

void SimFs::TearInto(std::string& durable, const Write& write, size_t bytes) {
  if (bytes == 0) return;
  if (durable.size() < write.offset + bytes) durable.resize(write.offset + bytes);
  std::memcpy(durable.data() + write.offset, write.data.data(), bytes);
}

void SimFs::ReachMedium(Inode& inode) {
  if (inode.broken_in == 0) {
    inode.durable = inode.data;
    return;
  }
  for (const Write& write : inode.unsynced) TearInto(inode.durable, write, write.data.size());
}

void SimFs::KeepWrites(Inode& inode, Kept kept) {
  if (inode.unsynced.empty()) return;
  if (kept == Kept::kEverything || kept == Kept::kPagesOnly) {
    ReachMedium(inode);
  } else if (kept == Kept::kAnyPart) {
    for (const Write& write : inode.unsynced) {
      const uint32_t way = tape_.Draw(Stream::kCrash, 6);
      if (way == 0 || way == 1) continue;  // lost
      if (way == 2 || way == 3) {
        TearInto(inode.durable, write, write.data.size());
        continue;
      }
      static constexpr size_t kGrains[] = {1, 512, 4096};
      const size_t grain = kGrains[tape_.Draw(Stream::kCrash, 3)];
      const size_t grains = write.data.size() / grain;
      TearInto(inode.durable, write, grain * tape_.Draw(Stream::kCrash, static_cast<uint32_t>(grains + 1)));
      Sometimes("crash: a write is torn");
    }
  }
  inode.unsynced.clear();
}

void SimFs::Crash(Kept kept) {
  DAGSTORE_CHECK(!down_);
  // Names first: which changes survive.
  for (const NameChange& change : names_log_) {
    bool keep = false;
    if (kept == Kept::kEverything || kept == Kept::kNamesOnly) keep = true;
    if (kept == Kept::kAnyPart) keep = tape_.Draw(Stream::kCrash, 2) == 1;
    if (keep) Apply(durable_names_, change);
    SometimesMade(keep ? "crash: an unsynced name survives" : "crash: an unsynced name is lost");
  }
  for (const auto& [path, inode] : durable_names_) KeepWrites(*inode, kept);
  AfterCrash();
}

void SimFs::Kill() {
  down_ = true;
  trace_.Add(0x111);
}

void SimFs::CrashExactly(const std::vector<bool>& names, const std::vector<uint8_t>& writes) {
  size_t w = 0;
  // In the order of UnsyncedWrites: by name as the system sees them.
  for (const auto& [path, inode] : names_) {
    for (const Write& write : inode->unsynced) {
      const uint8_t way = w < writes.size() ? writes[w] : 0;
      ++w;
      if (way == 1) TearInto(inode->durable, write, write.data.size());
      if (way == 2) TearInto(inode->durable, write, write.data.size() / 2);
    }
    inode->unsynced.clear();
  }
  for (size_t i = 0; i < names_log_.size(); ++i)
    if (i < names.size() && names[i]) Apply(durable_names_, names_log_[i]);
  AfterCrash();
}

// What the machine finds when it starts: new inodes, so that handles from before hold only what is gone.
void SimFs::AfterCrash() {
  Names names;
  std::map<Inode*, InodePtr> copies;  // looked up only
  for (const auto& [path, inode] : durable_names_) {
    InodePtr& copy = copies[inode.get()];
    if (copy == nullptr) {
      copy = std::make_shared<Inode>();
      copy->id = inode->id;
      copy->data = copy->durable = inode->durable;
      copy->mtime = inode->mtime;
      copy->foreign = inode->foreign;
      copy->unreadable = inode->unreadable;
    }
    names[path] = copy;
  }
  names_ = names;
  durable_names_ = std::move(names);
  names_log_.clear();
  down_ = true;
  trace_.Add(0xc4a5);
}

size_t SimFs::UnsyncedWrites() const {
  size_t n = 0;
  for (const auto& [path, inode] : names_) n += inode->unsynced.size();
  return n;
}

SimFs::InodePtr SimFs::NewInode() {
  auto inode = std::make_shared<Inode>();
  inode->id = ++next_inode_;
  inode->mtime = scheduler_.Now();
  return inode;
}

void SimFs::PutForeign(const std::string& path, std::string content) {
  InodePtr inode = NewInode();
  inode->foreign = true;
  inode->data = inode->durable = std::move(content);
  for (std::string dir = FolderOf(path); dir.size() > 1 && dir != "."; dir = FolderOf(dir)) dirs_.insert(dir);
  names_[path] = inode;
  durable_names_[path] = std::move(inode);
}

bool SimFs::FlipBit(const std::string& path, uint64_t offset, int bit) {
  const auto found = names_.find(path);
  if (found == names_.end()) return false;
  Inode& inode = *found->second;
  if (offset >= inode.data.size() || offset >= inode.durable.size()) return false;
  inode.data[offset] = static_cast<char>(inode.data[offset] ^ (1 << bit));
  inode.durable[offset] = static_cast<char>(inode.durable[offset] ^ (1 << bit));
  trace_.Add(offset);
  return true;
}

std::vector<std::string> SimFs::Files() const {
  std::vector<std::string> out;
  out.reserve(names_.size());
  for (const auto& [path, inode] : names_) out.push_back(path);
  return out;
}

const std::string* SimFs::Content(const std::string& path) const {
  const auto found = names_.find(path);
  return found == names_.end() ? nullptr : &found->second->data;
}

uint64_t SimFs::bytes() const {
  uint64_t sum = 0;
  for (const auto& [path, inode] : names_) sum += inode->data.size();
  return sum;
}

}  // namespace dagstore::sim
