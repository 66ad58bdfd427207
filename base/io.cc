#include "base/io.h"

#include <algorithm>

#include "base/mutant.h"

namespace dagstore {
namespace {

absl::Status WriteWhole(WritableFile& file, std::span<const Span> parts) {
  for (const Span part : parts) RETURN_IF_ERROR(file.Append(part));
  if (!Mutant(kMutantPublishUnsynced)) RETURN_IF_ERROR(file.Sync());
  return file.Close();
}

absl::StatusOr<bool> Exists(Io& io, const std::string& path) {
  const absl::StatusOr<FileStat> stat = io.Stat(path, Follow::kNever);
  if (absl::IsNotFound(stat.status())) return false;
  RETURN_IF_ERROR(stat.status());
  return true;
}

// Moves a whole, synced `temp` to `path`. On an error `temp` is still there, and nothing has moved.
absl::Status MoveIntoPlace(Io& io, const std::string& temp, const std::string& path, bool* replaced) {
  ASSIGN_OR_RETURN(*replaced, Exists(io, path));
  return io.Rename(temp, path);
}

class RealWaitPoint final : public WaitPoint {
 public:
  void Wait(Mutex& mu, absl::Duration at_most) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    changed_.WaitFor(mu, at_most);
  }
  void NotifyAll() override { changed_.NotifyAll(); }

 private:
  CondVar changed_;
};

}  // namespace

std::unique_ptr<WaitPoint> WaitPoint::Real() { return std::make_unique<RealWaitPoint>(); }

absl::Status CheckBeneath(std::string_view path) {
  if (path.empty()) return InvalidArgument("the path below the root is empty");
  if (path[0] == '/') return InvalidArgument("the path below the root is absolute");
  if (path.find('\0') != std::string_view::npos) return InvalidArgument("the path contains a zero byte");
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (path.substr(0, end) == "..") return InvalidArgument("the path has a '..' component");
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RandomFile>> Io::OpenBeneath(const std::string& root, const std::string& path,
                                                            Follow follow) {
  RETURN_IF_ERROR(CheckBeneath(path));
  return Open(root + "/" + path, follow);
}

absl::Status Io::CheckPrivateDir(const std::string&) { return absl::OkStatus(); }

absl::Status PublishFile(Io& io, const std::string& dir, const std::string& name, const std::string& temp_name,
                         std::span<const Span> parts) {
  const std::string temp = dir + "/" + (Mutant(kMutantMarkerInPlace) ? name : temp_name);
  const std::string path = dir + "/" + name;
  bool replaced = false;
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, io.Create(temp));
    absl::Status status = WriteWhole(*file, parts);
    if (status.ok()) status = MoveIntoPlace(io, temp, path, &replaced);
    if (!status.ok()) {
      // What cannot be removed now is swept at the next start: its name says that it is a temporary.
      io.Remove(temp).IgnoreError();
      return status;
    }
  }
  absl::Status status = io.SyncDir(dir);
  // A replaced file is gone already; the new one is whole, and better than none.
  if (!status.ok() && !replaced) io.Remove(path).IgnoreError();
  return status;
}

absl::StatusOr<Bytes> ReadSmallFile(Io& io, const std::string& path, size_t size_max) {
  // The step grows with what has arrived, not with what the file says of itself: a file in /proc says 0, a sparse one
  // says anything.
  constexpr size_t kStepMin = 4 << 10;
  constexpr size_t kStepMax = 1 << 20;
  ASSIGN_OR_RETURN(const std::unique_ptr<RandomFile> file, io.Open(path));
  Bytes content;
  for (;;) {
    const size_t had = content.size();
    size_t step = std::clamp(had, kStepMin, kStepMax);
    if (step > size_max - had) step = size_max - had + 1;  // one more byte shows that it is too large
    content.resize(had + step);
    ASSIGN_OR_RETURN(const size_t n, file->ReadSome(had, step, content.data() + had));
    content.resize(had + n);
    if (content.size() > size_max) return ResourceExhausted("{} is larger than {} bytes", path, size_max);
    if (n < step) return content;
  }
}

}  // namespace dagstore
