#include "dag/traversal.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "base/mutant.h"
#include "dag/hamt.h"
#include "dag/links.h"

namespace dagstore {
namespace {

constexpr size_t kPathShownMax = 32;  // link numbers in a message

// What the place of a block asks of it.
enum class Role : uint8_t {
  kAny,    // scope all: follow every link
  kFile,   // part of a file: follow the children, with a range those that hold bytes of it
  kShard,  // a HAMT shard: follow the child shards
};

// A link not followed yet. Its CID lies in the arena.
struct Pending {
  static constexpr size_t kKeepAll = SIZE_MAX;

  size_t cid_begin = 0;
  size_t arena_keep = kKeepAll;  // the last link of a block: how much of the arena is still needed without it
  Extent extent = {};            // kFile with a range: the bytes of the file below this link
  uint32_t cid_size = 0;
  uint32_t number = 0;  // among the links of its block
  uint32_t depth = 0;
  Role role = Role::kAny;
};

// The key of a block: codec and multihash. The same for v0 and v1 of a CID.
void AssignKey(std::string& key, const CidView& cid) {
  key.clear();
  if (cid.version == 0) AppendVarint(key, cid.codec);
  AppendBytes(key, cid.version == 0 ? cid.bytes : cid.bytes.subspan(1));
}

class Walk {
 public:
  Walk(BlockGetter& getter, const TraverseOptions& options, BlockVisitor visit, TraverseStats& stats)
      : getter_(getter), options_(options), visit_(visit), stats_(stats) {}

  // `root_data` may be null.
  absl::Status Run(const CidView& root, const BlockData* root_data) {
    MarkSeen(root);
    RETURN_IF_ERROR(Start(root, root_data));
    while (!pending_.empty()) {
      const Pending at = pending_.back();
      pending_.pop_back();
      // The arena moves while links are read, so the CID at hand has a place of its own.
      current_.assign(arena_, at.cid_begin, at.cid_size);
      if (at.arena_keep != Pending::kKeepAll) arena_.resize(at.arena_keep);
      ASSIGN_OR_RETURN(const CidView cid, ParseCid(AsSpan(current_)));
      path_.resize(at.depth - 1);
      path_.push_back(at.number);
      RETURN_IF_ERROR(at.role == Role::kFile && range_ ? StepInRange(cid, at) : Step(cid, at));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Start(const CidView& root, const BlockData* root_data) {
    BlockData data;
    if (root_data != nullptr) {
      data = *root_data;
    } else {
      ASSIGN_OR_RETURN(data, Fetch(root));
    }
    RETURN_IF_ERROR(Visit(root, data));
    if (options_.scope == DagScope::kBlock) return absl::OkStatus();
    if (options_.scope == DagScope::kAll) return ReadLinks(root, data.bytes());
    if (root.codec != kCodecDagPb) return absl::OkStatus();
    // The root says what the entity is. A node that is not UnixFS stands for itself.
    const auto node = PbNode::Parse(data.bytes());
    if (!node.ok()) return Blame(root, node.status());
    const auto fs = UnixFs::Decode(node->data().value_or(Span()));
    if (!fs.ok()) return absl::OkStatus();
    if (fs->kind() == UnixFsKind::kHamtShard) return ReadShard(root, *node, *fs);
    if (!fs->IsFile()) return absl::OkStatus();
    if (options_.range) range_ = ResolveRange(*options_.range, fs->content_size());
    return ReadFile(root, *node, *fs, 0);
  }

  absl::Status Step(const CidView& cid, const Pending& at) {
    if (!options_.dups && !MarkSeen(cid)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const BlockData data, Fetch(cid));
    RETURN_IF_ERROR(Visit(cid, data));
    if (at.role == Role::kAny) return ReadLinks(cid, data.bytes());
    return ReadEntityPart(cid, data.bytes(), at);
  }

  // The same node may stand at two places of a file, one wholly in the range and one not. So without dups a node counts
  // as walked only where it is wholly in the range; elsewhere it is walked again, though not visited again. Those are
  // the nodes at the two ends of the range, a few in any honest file; links_max bounds the others.
  absl::Status StepInRange(const CidView& cid, const Pending& at) {
    const bool whole = at.extent.begin >= range_->begin && at.extent.end <= range_->end;
    bool visit = options_.dups;
    if (!options_.dups) {
      visit = MarkSeen(cid);
      if (whole ? !walked_.insert(key_).second : !visit && cid.codec != kCodecDagPb) {
        return absl::OkStatus();
      }
    }
    ASSIGN_OR_RETURN(const BlockData data, Fetch(cid));
    if (visit) RETURN_IF_ERROR(Visit(cid, data));
    return ReadEntityPart(cid, data.bytes(), at);
  }

  absl::Status ReadEntityPart(const CidView& cid, Span block, const Pending& at) {
    if (cid.codec == kCodecRaw && at.role == Role::kFile) return absl::OkStatus();
    if (cid.codec != kCodecDagPb) {
      return Blame(cid, DataLoss("a {} block inside a UnixFS {}", CodecName(cid.codec),
                                 at.role == Role::kFile ? "file" : "directory"));
    }
    const auto node = PbNode::Parse(block);
    if (!node.ok()) return Blame(cid, node.status());
    const auto fs = UnixFs::Decode(node->data().value_or(Span()));
    if (!fs.ok()) return Blame(cid, fs.status());
    if (at.role == Role::kShard) return ReadShard(cid, *node, *fs);
    return ReadFile(cid, *node, *fs, at.extent.begin);
  }

  absl::Status ReadLinks(const CidView& cid, Span block) {
    const Mark mark = Begin();
    uint32_t number = 0;
    absl::Status room = absl::OkStatus();
    absl::Status status = ForEachLink(cid.codec, block, [&](const CidView& link) {
      room = Push(link, number++, Role::kAny, {});
      return room.ok();
    });
    if (absl::IsUnimplemented(status) && options_.opaque == OpaquePolicy::kLeaf) {
      status = absl::OkStatus();
    }
    RETURN_IF_ERROR(room);
    RETURN_IF_ERROR(Blame(cid, status));
    return Commit(mark);
  }

  // `start` is the place of the node's first byte in the file.
  absl::Status ReadFile(const CidView& cid, const PbNode& node, const UnixFs& fs, uint64_t start) {
    if (!fs.IsFile()) {
      return Blame(cid, DataLoss("a {} inside a UnixFS file", UnixFsKindName(fs.kind())));
    }
    if (range_) RETURN_IF_ERROR(Blame(cid, fs.CheckFile(node.link_count())));
    const Mark mark = Begin();
    UnixFs::SizeCursor sizes(fs);
    Extent child = {0, start + fs.data().size()};
    uint32_t number = 0;
    PbLink link;
    for (PbNode::Cursor at(node); at.Next(link); ++number) {
      if (range_) {
        uint64_t size = 0;
        sizes.Next(size);
        child = {child.end, child.end + size};
        if (std::max(child.begin, range_->begin) >= std::min(child.end, range_->end)) continue;
      }
      RETURN_IF_ERROR(Push(link.cid, number, Role::kFile, child));
    }
    return Commit(mark);
  }

  absl::Status ReadShard(const CidView& cid, const PbNode& node, const UnixFs& fs) {
    const auto shard = HamtShard::Open(node, fs);
    if (!shard.ok()) return Blame(cid, shard.status());
    const Mark mark = Begin();
    uint32_t number = 0;
    HamtEntry entry;
    for (HamtShard::Cursor at(*shard); at.Next(entry); ++number) {
      if (entry.is_shard) RETURN_IF_ERROR(Push(entry.link.cid, number, Role::kShard, {}));
    }
    return Commit(mark);
  }

  absl::StatusOr<BlockData> Fetch(const CidView& cid) {
    RETURN_IF_ERROR(options_.work.Check());
    auto data = GetBlock(getter_, cid);
    if (absl::IsNotFound(data.status())) {
      return NotFound("block {} is missing, at {} from the root", CidText(cid), PathText());
    }
    if (!data.ok()) return Blame(cid, data.status());
    return data;
  }

  absl::Status Visit(const CidView& cid, const BlockData& data) {
    if (cid.IsIdentity() && !options_.visit_identity) return absl::OkStatus();
    if (++stats_.blocks > options_.blocks_max) {
      return ResourceExhausted("a walk of more than {} blocks", options_.blocks_max);
    }
    stats_.bytes += data.bytes().size();
    if (stats_.bytes > options_.bytes_max) {
      return ResourceExhausted("a walk of more than {} bytes", options_.bytes_max);
    }
    return visit_(cid, data);
  }

  // The links of one block are pushed in encoded order between Begin and Commit, which turns them around: the first
  // must be the next one to be taken.
  struct Mark {
    size_t pending = 0;
    size_t arena = 0;
  };
  Mark Begin() const { return {pending_.size(), arena_.size()}; }

  absl::Status Push(const CidView& cid, uint32_t number, Role role, Extent extent) {
    if (++stats_.links > options_.links_max && !Mutant(kMutantWalkUnlimited)) {
      return ResourceExhausted("a walk of more than {} links", options_.links_max);
    }
    const uint64_t depth = path_.size() + 1;
    if (depth > std::min<uint64_t>(options_.depth_max, UINT32_MAX)) {
      return ResourceExhausted("a walk deeper than {} links", options_.depth_max);
    }
    pending_.push_back({arena_.size(), Pending::kKeepAll, extent, static_cast<uint32_t>(cid.bytes.size()),
                        number, static_cast<uint32_t>(depth), role});
    AppendBytes(arena_, cid.bytes);
    if (arena_.size() + pending_.size() * sizeof(Pending) > options_.pending_bytes_max) {
      return ResourceExhausted("more than {} bytes of links not followed yet", options_.pending_bytes_max);
    }
    return absl::OkStatus();
  }

  absl::Status Commit(const Mark& mark) {
    if (pending_.size() == mark.pending) return absl::OkStatus();
    const auto first = pending_.begin() + static_cast<ptrdiff_t>(mark.pending);
    if (options_.prefetch_links_max > 0) RETURN_IF_ERROR(Prefetch(first));
    std::reverse(first, pending_.end());
    first->arena_keep = mark.arena;
    return absl::OkStatus();
  }

  absl::Status Prefetch(std::vector<Pending>::const_iterator first) {
    std::vector<CidView> next;
    for (auto at = first; at != pending_.end() && next.size() < options_.prefetch_links_max; ++at) {
      ASSIGN_OR_RETURN(const CidView cid, ParseCid(AsSpan(arena_).subspan(at->cid_begin, at->cid_size)));
      if (!cid.IsIdentity()) next.push_back(cid);
    }
    getter_.Prefetch(next);
    return absl::OkStatus();
  }

  // False if the block was seen before. Leaves its key in key_.
  bool MarkSeen(const CidView& cid) {
    AssignKey(key_, cid);
    return seen_.insert(key_).second;
  }

  static absl::Status Blame(const CidView& cid, const absl::Status& status) {
    return status.ok() ? status : Annotate(status, "block " + CidText(cid));
  }

  std::string PathText() const {
    if (path_.empty()) return "no link";
    std::string text = "links ";
    const size_t first = path_.size() > kPathShownMax ? path_.size() - kPathShownMax : 0;
    if (first > 0) text += fmt::format("({} more)", first);
    for (size_t i = first; i < path_.size(); ++i) text += fmt::format("/{}", path_[i]);
    return text;
  }

  BlockGetter& getter_;
  const TraverseOptions& options_;
  const BlockVisitor visit_;
  TraverseStats& stats_;

  std::vector<Pending> pending_;  // the next one last
  std::string arena_;             // CIDs of pending_
  std::string current_;           // the CID at hand
  std::vector<uint32_t> path_;    // link numbers from the root to the block at hand
  absl::flat_hash_set<std::string> seen_;    // without dups: blocks visited
  absl::flat_hash_set<std::string> walked_;  // with a range, without dups: blocks walked wholly in the range
  std::string key_;
  std::optional<Extent> range_;  // of the file that is the root
};

// One end of a byte range.
std::optional<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

absl::StatusOr<EntityRange> ParseByteRange(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return InvalidArgument("byte range \"{}\" is not from:to", text);
  const std::string_view to_text = text.substr(colon + 1);
  const std::optional<int64_t> from = ParseInteger(text.substr(0, colon));
  EntityRange range;
  if (to_text != "*") range.to = ParseInteger(to_text);
  if (!from || (!range.to && to_text != "*")) return InvalidArgument("byte range \"{}\" is not from:to", text);
  range.from = *from;
  if (range.to && (*range.to < 0) == (range.from < 0) && range.from > *range.to) {
    return InvalidArgument("byte range \"{}\" ends before it begins", text);
  }
  return range;
}

Extent ResolveRange(const EntityRange& range, uint64_t size) {
  // Distances from the end are taken as unsigned numbers: -INT64_MIN does not fit.
  const auto back = [](int64_t n) { return ~static_cast<uint64_t>(n) + 1; };
  Extent extent = {0, size};
  if (range.from >= 0) {
    extent.begin = static_cast<uint64_t>(range.from);
  } else {
    extent.begin = size - std::min(size, back(range.from));
  }
  if (range.to) {
    extent.end = *range.to >= 0 ? std::min(size, static_cast<uint64_t>(*range.to) + 1)
                                : size - std::min(size, back(*range.to));
  }
  if (extent.empty()) return {};
  return extent;
}

absl::Status Traverse(BlockGetter& getter, const CidView& root, const TraverseOptions& options,
                      BlockVisitor visit, TraverseStats* stats) {
  TraverseStats own;
  return Walk(getter, options, visit, stats != nullptr ? *stats : own).Run(root, nullptr);
}

absl::Status TraverseFrom(BlockGetter& getter, const CidView& root, const BlockData& root_data,
                          const TraverseOptions& options, BlockVisitor visit, TraverseStats* stats) {
  TraverseStats own;
  return Walk(getter, options, visit, stats != nullptr ? *stats : own).Run(root, &root_data);
}

}  // namespace dagstore
