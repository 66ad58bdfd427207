#include "dag/file.h"

#include <algorithm>
#include <vector>

#include "dag/hamt.h"

namespace dagstore {
namespace {

// Children of a node that are named before they are read: as many as a partial copy takes.
constexpr size_t kPrefetchLinksMax = 256;

absl::StatusOr<BlockData> Fetch(BlockGetter& getter, const CidView& cid, const WorkContext& work) {
  RETURN_IF_ERROR(work.Check());
  auto data = GetBlock(getter, cid);
  if (absl::IsNotFound(data.status())) return NotFound("block {} is missing", CidText(cid));
  if (!data.ok()) return Annotate(data.status(), "block " + CidText(cid));
  return data;
}

absl::Status Blame(const CidView& cid, const absl::Status& status) {
  return status.ok() ? status : Annotate(status, "block " + CidText(cid));
}

// A dag-pb block and the UnixFS message in it.
struct FsNode {
  PbNode node;
  UnixFs fs;
};
absl::StatusOr<FsNode> ParseFsNode(const CidView& cid, Span block) {
  if (cid.codec != kCodecDagPb) return DataLoss("a {} block where UnixFS was expected", CodecName(cid.codec));
  ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(block));
  ASSIGN_OR_RETURN(const UnixFs fs, UnixFs::Decode(node.data().value_or(Span())));
  return FsNode{node, fs};
}

// The root of something: what is not UnixFS at all is a wrong question, not bad data.
absl::StatusOr<FsNode> ParseFsRoot(const CidView& cid, Span block) {
  if (cid.codec != kCodecDagPb) return FailedPrecondition("a {} block is not UnixFS", CodecName(cid.codec));
  ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(block));
  const auto fs = UnixFs::Decode(node.data().value_or(Span()));
  if (!fs.ok()) return FailedPrecondition("a dag-pb block without UnixFS data");
  return FsNode{node, *fs};
}

// A child of a file that holds bytes of the range.
struct FilePart {
  Cid cid;
  uint64_t start = 0;  // in the file
  uint64_t size = 0;   // as the parent says
  size_t depth = 0;
};

// The bytes of `data`, which begins at `start` of the file, that lie in [begin, end).
Span Clip(Span data, uint64_t start, uint64_t begin, uint64_t end) {
  const uint64_t from = std::max(start, begin);
  const uint64_t to = std::min(start + data.size(), end);
  return from < to ? data.subspan(from - start, to - from) : Span();
}

}  // namespace

absl::StatusOr<UnixFsFile> UnixFsFile::Open(BlockGetter& getter, const CidView& root,
                                            const WorkContext& work) {
  ASSIGN_OR_RETURN(BlockData data, Fetch(getter, root, work));
  UnixFsFile file(getter, root, std::move(data), work);
  const Span block = file.root_.bytes();
  if (root.codec == kCodecRaw) {
    file.size_ = block.size();
    return file;
  }
  ASSIGN_OR_RETURN(const FsNode top, ParseFsRoot(root, block));
  if (!top.fs.IsFile()) return FailedPrecondition("a {} is not a file", UnixFsKindName(top.fs.kind()));
  RETURN_IF_ERROR(Blame(root, top.fs.CheckFile(top.node.link_count())));
  file.size_ = top.fs.content_size();
  return file;
}

absl::Status UnixFsFile::ReadRange(uint64_t offset, uint64_t length,
                                   absl::FunctionRef<absl::Status(Span)> sink) const {
  const uint64_t begin = std::min(offset, size_);
  const uint64_t end = begin + std::min(length, size_ - begin);
  if (begin == end) return absl::OkStatus();

  std::vector<FilePart> parts = {{cid_, 0, size_, 0}};  // the next one last
  while (!parts.empty()) {
    const FilePart part = std::move(parts.back());
    parts.pop_back();
    const CidView cid = part.cid.view();
    BlockData data = root_;
    if (part.depth > 0) {
      ASSIGN_OR_RETURN(data, Fetch(*getter_, cid, work_));
    }
    if (cid.codec == kCodecRaw) {
      if (data.bytes().size() != part.size) {
        return Blame(cid, DataLoss("{} bytes where its parent has {}", data.bytes().size(), part.size));
      }
      RETURN_IF_ERROR(sink(Clip(data.bytes(), part.start, begin, end)));
      continue;
    }
    const auto parsed = ParseFsNode(cid, data.bytes());
    if (!parsed.ok()) return Blame(cid, parsed.status());
    const auto& [node, fs] = *parsed;
    RETURN_IF_ERROR(Blame(cid, fs.CheckFile(node.link_count())));
    if (fs.content_size() != part.size) {
      return Blame(cid, DataLoss("{} bytes where its parent has {}", fs.content_size(), part.size));
    }
    if (const Span inline_bytes = Clip(fs.data(), part.start, begin, end); !inline_bytes.empty()) {
      RETURN_IF_ERROR(sink(inline_bytes));
    }
    if (part.depth == kFileDepthMax) return ResourceExhausted("a file deeper than {} levels", kFileDepthMax);
    const size_t mark = parts.size();
    uint64_t start = part.start + fs.data().size();
    uint64_t size = 0;
    PbLink link;
    PbNode::Cursor links(node);
    for (UnixFs::SizeCursor sizes(fs); sizes.Next(size) && links.Next(link) && start < end; start += size) {
      if (size > 0 && start + size > begin) parts.push_back({Cid(link.cid), start, size, part.depth + 1});
    }
    std::vector<CidView> next;
    for (size_t i = mark; i < parts.size() && next.size() < kPrefetchLinksMax; ++i) {
      if (const CidView child = parts[i].cid.view(); !child.IsIdentity()) next.push_back(child);
    }
    if (!next.empty()) getter_->Prefetch(next);
    std::reverse(parts.begin() + static_cast<ptrdiff_t>(mark), parts.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> UnixFsFile::ReadAll(uint64_t bytes_max) const {
  if (size_ > bytes_max) return ResourceExhausted("a file of {} bytes, at most {}", size_, bytes_max);
  std::string content;  // grows with what is there, not with what is declared
  RETURN_IF_ERROR(ReadRange(0, size_, [&](Span bytes) {
    content.append(AsText(bytes));
    return absl::OkStatus();
  }));
  return content;
}

absl::Status ListDirectory(BlockGetter& getter, const CidView& root, const ListOptions& options,
                           absl::FunctionRef<bool(const DirEntry&)> visit) {
  ASSIGN_OR_RETURN(BlockData data, Fetch(getter, root, options.work));
  ASSIGN_OR_RETURN(FsNode top, ParseFsRoot(root, data.bytes()));
  uint64_t entries = 0;
  const auto show = [&](const PbLink& link, Span name) -> absl::StatusOr<bool> {
    if (++entries > options.entries_max) {
      return ResourceExhausted("a directory of more than {} entries", options.entries_max);
    }
    return visit({AsText(name), link.cid, link.tsize});
  };
  if (top.fs.kind() == UnixFsKind::kDirectory) {
    PbLink link;
    for (PbNode::Cursor at(top.node); at.Next(link);) {
      ASSIGN_OR_RETURN(const bool more, show(link, link.name.value_or(Span())));
      if (!more) return absl::OkStatus();
    }
    return absl::OkStatus();
  }
  if (top.fs.kind() != UnixFsKind::kHamtShard) {
    return FailedPrecondition("a {} is not a directory", UnixFsKindName(top.fs.kind()));
  }

  // One open shard per level: its block stays while its children are read.
  struct Level {
    BlockData data;
    HamtShard shard;
    HamtShard::Cursor at;
    int bits_used;  // by the shards above and this one
  };
  constexpr int kHashBits = 64;
  std::vector<Level> levels;
  uint64_t shards = 0;
  const auto open = [&](const CidView& cid, BlockData block, int bits_used) -> absl::Status {
    if (++shards > options.shards_max) {
      return ResourceExhausted("a directory of more than {} shards", options.shards_max);
    }
    const auto parsed = ParseFsNode(cid, block.bytes());
    if (!parsed.ok()) return Blame(cid, parsed.status());
    const auto shard = HamtShard::Open(parsed->node, parsed->fs);
    if (!shard.ok()) return Blame(cid, shard.status());
    if (bits_used + shard->bits() > kHashBits) {
      return Blame(cid, DataLoss("HAMT: deeper than the {} bits of its hash", kHashBits));
    }
    levels.push_back({std::move(block), *shard, HamtShard::Cursor(*shard), bits_used + shard->bits()});
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(open(root, std::move(data), 0));
  while (!levels.empty()) {
    HamtEntry entry;
    if (!levels.back().at.Next(entry)) {
      levels.pop_back();
      continue;
    }
    if (entry.is_shard) {
      ASSIGN_OR_RETURN(BlockData child, Fetch(getter, entry.link.cid, options.work));
      RETURN_IF_ERROR(open(entry.link.cid, std::move(child), levels.back().bits_used));
      continue;
    }
    ASSIGN_OR_RETURN(const bool more, show(entry.link, entry.name));
    if (!more) return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<NodeInfo> InspectUnixFs(const CidView& cid, Span block) {
  if (cid.codec == kCodecRaw) return NodeInfo{UnixFsKind::kRaw, block.size(), {}};
  ASSIGN_OR_RETURN(const FsNode top, ParseFsRoot(cid, block));
  NodeInfo info;
  info.kind = top.fs.kind();
  if (top.fs.IsFile()) info.size = top.fs.content_size();
  if (info.kind == UnixFsKind::kSymlink) {
    info.target = std::string(AsText(top.fs.data()));
    info.size = info.target.size();
  }
  return info;
}

}  // namespace dagstore
