#include "mount/file_mount.h"

#include <utility>

namespace dagstore {
namespace {

using Config = std::shared_ptr<const FileMountConfig>;

class FileMount final : public Mount {
 public:
  FileMount(Config config, Url url) : config_(std::move(config)), url_(std::move(url)) {}

  MountTraits traits() const override { return {.local = true, .random = true, .stable = false}; }
  Url url() const override { return url_; }

  absl::StatusOr<MountStat> Stat(Io& io, const WorkContext& work) const override {
    // By opening: what Stat promises, Open keeps.
    const absl::StatusOr<std::unique_ptr<RandomFile>> file = OpenFile(io, work);
    if (absl::IsNotFound(file.status())) return MountStat();
    RETURN_IF_ERROR(file.status());
    ASSIGN_OR_RETURN(const FileStat found, (*file)->Stat());
    MountStat stat;
    stat.exists = true;
    stat.ready = true;
    stat.size = found.size;
    stat.size_known = true;
    stat.validator = FileValidator(found);
    return stat;
  }

  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io& io,
                                                           const WorkContext& work) const override {
    return OpenFile(io, work);
  }

  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandomIf(
      Io& io, const WorkContext& work, const std::string& validator) const override {
    ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> file, OpenFile(io, work));
    ASSIGN_OR_RETURN(const FileStat found, file->Stat());
    if (FileValidator(found) != validator) {
      return FailedPrecondition("open {}: the source has changed", url_.Redacted());
    }
    return file;
  }

  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                         uint64_t offset) const override {
    ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> file, OpenFile(io, work));
    return NewReaderStream(std::move(file), {offset, UINT64_MAX}, work);
  }

 private:
  absl::StatusOr<std::unique_ptr<RandomFile>> OpenFile(Io& io, const WorkContext& work) const {
    RETURN_IF_ERROR(work.Check());
    const Follow follow = config_->symlinks_allowed ? Follow::kAlways : Follow::kNever;
    if (url_.path[0] != '/') {
      const std::string name = url_.query.empty() ? std::string() : url_.query[0].second;
      const auto root = config_->roots.find(name);
      if (root == config_->roots.end()) {
        return FailedPrecondition("open {}: its root folder is not configured", url_.Redacted());
      }
      return io.OpenBeneath(root->second, url_.path, follow);
    }
    if (!config_->absolute_paths_allowed) {
      return FailedPrecondition("open {}: absolute paths are not allowed", url_.Redacted());
    }
    // Links in an absolute path may be absolute themselves, so "below /" would refuse too much.
    if (follow == Follow::kAlways) return io.Open(url_.path, follow);
    return io.OpenBeneath("/", url_.path.substr(url_.path.find_first_not_of('/')), follow);
  }

  const Config config_;
  const Url url_;
};

absl::Status CheckUrl(const Url& url) {
  if (!url.userinfo.empty() || !url.port.empty() ||
      (!url.host.empty() && url.host != "localhost")) {
    return InvalidArgument(
        "file: URL has a host: write file:///absolute/path or file:relative/path");
  }
  const size_t start = url.path.find_first_not_of('/');
  if (start == std::string::npos) return InvalidArgument("file: URL names no file");
  const absl::Status beneath = CheckBeneath(std::string_view(url.path).substr(start));
  if (!beneath.ok()) return Annotate(beneath, "file: URL");
  const bool relative = start == 0;
  const bool names_root = url.query.size() == 1 && url.query[0].first == "root";
  if (!url.query.empty() && !(relative && names_root)) {
    return InvalidArgument("file: URL has a query that is not one root= of a relative path");
  }
  return absl::OkStatus();
}

}  // namespace

std::string FileValidator(const FileStat& stat) {
  return fmt::format("{:x}-{:x}-{:x}-{:x}", stat.device, stat.inode, stat.size,
                     static_cast<uint64_t>(stat.mtime_ns));
}

MountFactory FileMountFactory(const FileMountConfig& config) {
  return [config = std::make_shared<const FileMountConfig>(config)](
             const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    RETURN_IF_ERROR(CheckUrl(url));
    return std::make_unique<FileMount>(config, url);
  };
}

}  // namespace dagstore
