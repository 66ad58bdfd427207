#include "tools/dagstore/pack.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <filesystem>

#include "base/io.h"
#include "dag/dag_pb.h"
#include "dag/unixfs.h"

namespace dagstore::cli {
namespace {

namespace fs = std::filesystem;

struct Node {
  Cid cid = {};
  uint64_t tsize = 0;      // of the block and all below it
  uint64_t file_size = 0;  // of the content, for files
};

// UnixFS Data message. See docs/format.md#unixfs.
class UnixFsMessage {
 public:
  explicit UnixFsMessage(UnixFsKind kind) { Field(1, static_cast<uint64_t>(kind)); }
  void Data(std::string_view data) {
    AppendVarint(bytes_, 2 << 3 | 2);
    AppendVarint(bytes_, data.size());
    AppendBytes(bytes_, AsSpan(data));
  }
  void FileSize(uint64_t size) { Field(3, size); }
  void BlockSize(uint64_t size) { Field(4, size); }
  Span bytes() const { return bytes_; }

 private:
  void Field(int number, uint64_t value) {
    AppendVarint(bytes_, static_cast<uint64_t>(number) << 3);
    AppendVarint(bytes_, value);
  }
  Bytes bytes_;
};

class Packer {
 public:
  Packer(const ByteSink& sink, absl::FunctionRef<bool(const FileStat&)> leave_out,
         const WorkContext& work, PackStats& stats)
      : sink_(sink), leave_out_(leave_out), work_(work), stats_(stats) {}

  absl::StatusOr<Cid> PackAll(const std::vector<std::string>& inputs) {
    std::vector<Named> top;
    for (const std::string& input : inputs) {
      std::string trimmed = input;
      while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
      std::error_code error;
      const fs::path absolute = fs::absolute(trimmed, error).lexically_normal();
      ASSIGN_OR_RETURN(Node node, PackPath(trimmed));
      top.push_back({absolute.filename().string(), std::move(node)});
    }
    if (top.size() == 1) return top.front().node.cid;
    ASSIGN_OR_RETURN(const Node root, PutDirectory(std::move(top)));
    return root.cid;
  }

 private:
  struct Named {
    std::string name = {};
    Node node = {};
  };
  struct Folder {
    std::string path = {};
    std::string name = {};
    std::vector<std::string> names = {};
    size_t next = 0;
    std::vector<Named> done = {};
  };

  absl::StatusOr<Node> Put(uint64_t codec, Span data) {
    RETURN_IF_ERROR(work_.Check());
    ASSIGN_OR_RETURN(const Cid cid, Cid::Of(codec, kSha2_256, data));
    if (written_.insert(cid).second) {
      RETURN_IF_ERROR(sink_(EncodeSectionHead(cid.bytes(), data.size())));
      RETURN_IF_ERROR(sink_(data));
      ++stats_.blocks;
    }
    return Node{cid, data.size(), data.size()};
  }

  absl::StatusOr<Node> PutFileNode(std::span<const Node> children) {
    UnixFsMessage message(UnixFsKind::kFile);
    Node node;
    for (const Node& child : children) node.file_size += child.file_size;
    message.FileSize(node.file_size);
    std::vector<PbLink> links;
    for (const Node& child : children) {
      message.BlockSize(child.file_size);
      links.push_back({child.cid.view(), Span(), child.tsize});
      node.tsize += child.tsize;
    }
    const Bytes block = EncodeDagPb(links, message.bytes());
    ASSIGN_OR_RETURN(const Node put, Put(kCodecDagPb, block));
    node.cid = put.cid;
    node.tsize += block.size();
    return node;
  }

  absl::StatusOr<Node> PutDirectory(std::vector<Named> entries) {
    std::sort(entries.begin(), entries.end(),
              [](const Named& a, const Named& b) { return a.name < b.name; });
    std::vector<PbLink> links;
    uint64_t tsize = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0 && entries[i].name == entries[i - 1].name) {
        return InvalidArgument("two inputs have the name \"{}\"", entries[i].name);
      }
      links.push_back({entries[i].node.cid.view(), AsSpan(entries[i].name), entries[i].node.tsize});
      tsize += entries[i].node.tsize;
    }
    const Bytes block = EncodeDagPb(links, UnixFsMessage(UnixFsKind::kDirectory).bytes());
    if (block.size() > kDirectoryBytesMax) {
      return ResourceExhausted("a folder of {} entries needs a node of {} bytes, more than {}",
                               entries.size(), block.size(), kDirectoryBytesMax);
    }
    ASSIGN_OR_RETURN(Node node, Put(kCodecDagPb, block));
    node.tsize = tsize + block.size();
    ++stats_.folders;
    return node;
  }

  // Levels fill from below: a node is written when it has all its links, so memory is a node for
  // each level.
  absl::StatusOr<Node> PackFile(const std::string& path) {
    ASSIGN_OR_RETURN(const std::unique_ptr<RandomFile> file, Io::Posix().Open(path));
    std::vector<std::vector<Node>> levels(1);
    Bytes chunk;
    uint64_t offset = 0;
    do {
      chunk.resize(std::min<uint64_t>(kChunkBytes, file->Size() - offset));
      RETURN_IF_ERROR(file->Read(offset, chunk.size(), chunk.data()));
      ASSIGN_OR_RETURN(Node leaf, Put(kCodecRaw, chunk));
      RETURN_IF_ERROR(AddToLevel(levels, std::move(leaf)));
      offset += chunk.size();
    } while (offset < file->Size());
    stats_.file_bytes += offset;
    ++stats_.files;
    for (size_t level = 0;; ++level) {
      if (level + 1 == levels.size() && levels[level].size() == 1) return levels[level].front();
      if (levels[level].empty()) continue;
      ASSIGN_OR_RETURN(Node node, PutFileNode(levels[level]));
      if (level + 1 == levels.size()) levels.emplace_back();
      levels[level + 1].push_back(std::move(node));
    }
  }

  absl::Status AddToLevel(std::vector<std::vector<Node>>& levels, Node node) {
    for (size_t level = 0;; ++level) {
      if (level == levels.size()) levels.emplace_back();
      if (levels[level].size() < kLinksPerNode) {
        levels[level].push_back(std::move(node));
        return absl::OkStatus();
      }
      ASSIGN_OR_RETURN(Node full, PutFileNode(levels[level]));
      levels[level].clear();
      levels[level].push_back(std::move(node));
      node = std::move(full);
    }
  }

  absl::StatusOr<Node> PackLink(const std::string& path) {
    std::error_code error;
    const std::string target = fs::read_symlink(path, error).string();
    if (error) return ErrnoStatus(error.value(), fmt::format("read link {}", path));
    UnixFsMessage message(UnixFsKind::kSymlink);
    message.Data(target);
    return Put(kCodecDagPb, EncodeDagPb({}, message.bytes()));
  }

  absl::StatusOr<Folder> OpenFolder(const std::string& path, const std::string& name) {
    Folder folder;
    folder.path = path;
    folder.name = name;
    ASSIGN_OR_RETURN(folder.names, Io::Posix().List(path));
    return folder;
  }

  // Children before their folder, without recursion.
  absl::StatusOr<Node> PackPath(const std::string& path) {
    std::error_code error;
    const fs::file_status status =
        fs::status(path, error);  // a link that is named means what it leads to
    if (error) return ErrnoStatus(error.value(), path);
    if (!fs::is_directory(status)) return PackLeaf(path, status);
    std::vector<Folder> stack;
    ASSIGN_OR_RETURN(Folder first, OpenFolder(path, ""));
    stack.push_back(std::move(first));
    while (true) {
      Folder& folder = stack.back();
      if (folder.next == folder.names.size()) {
        ASSIGN_OR_RETURN(Node node, PutDirectory(std::move(folder.done)));
        const std::string name = std::move(folder.name);
        stack.pop_back();
        if (stack.empty()) return node;
        stack.back().done.push_back({name, std::move(node)});
        continue;
      }
      const std::string name = folder.names[folder.next++];
      const std::string child = folder.path + "/" + name;
      const fs::file_status kind = fs::symlink_status(child, error);
      if (error) return ErrnoStatus(error.value(), child);
      if (fs::is_directory(kind)) {
        if (stack.size() >= kFolderDepthMax)
          return ResourceExhausted("folders are nested deeper than {}", kFolderDepthMax);
        ASSIGN_OR_RETURN(Folder below, OpenFolder(child, name));
        stack.push_back(std::move(below));
        continue;
      }
      if (fs::is_regular_file(kind)) {
        ASSIGN_OR_RETURN(const FileStat file, Io::Posix().Stat(child, Follow::kNever));
        if (leave_out_(file)) continue;
      }
      ASSIGN_OR_RETURN(Node node, PackLeaf(child, kind));
      folder.done.push_back({name, std::move(node)});
    }
  }

  absl::StatusOr<Node> PackLeaf(const std::string& path, const fs::file_status& status) {
    if (fs::is_regular_file(status)) return PackFile(path);
    if (fs::is_symlink(status)) return PackLink(path);
    return InvalidArgument("{} is neither file, folder nor link", path);
  }

  const ByteSink& sink_;
  const absl::FunctionRef<bool(const FileStat&)> leave_out_;
  const WorkContext work_;
  PackStats& stats_;
  absl::flat_hash_set<Cid> written_;
};

}  // namespace

absl::StatusOr<Cid> Pack(const std::vector<std::string>& inputs, const ByteSink& sink,
                         absl::FunctionRef<bool(const FileStat&)> leave_out,
                         const WorkContext& work, PackStats& stats) {
  return Packer(sink, leave_out, work, stats).PackAll(inputs);
}

}  // namespace dagstore::cli
