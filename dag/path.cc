#include "dag/path.h"

#include <algorithm>

#include "base/murmur3.h"
#include "base/mutant.h"
#include "dag/dag_cbor.h"
#include "dag/dag_json.h"
#include "dag/hamt.h"

namespace dagstore {
namespace {

class Resolver {
 public:
  Resolver(BlockGetter& getter, const DagPath& path, const PathOptions& options, ResolvedPath& resolved)
      : getter_(getter), path_(path), options_(options), resolved_(resolved) {}

  absl::Status Run() {
    RETURN_IF_ERROR(Enter(path_.root));
    while (at_ < path_.segments.size()) {
      const CidView cid = Here().cid.view();
      absl::Status status = Step(cid.codec);
      if (!status.ok()) return Annotate(status, fmt::format("path segment {} \"{}\"", at_ + 1, path_.segments[at_]));
    }
    return absl::OkStatus();
  }

 private:
  const PathBlock& Here() const { return resolved_.blocks.back(); }
  Span HereBytes() const { return Here().data.bytes(); }

  absl::Status Enter(const Cid& cid) {
    RETURN_IF_ERROR(options_.work.Check());
    if (resolved_.blocks.size() >= options_.blocks_max) {
      return ResourceExhausted("a path of more than {} blocks", options_.blocks_max);
    }
    auto data = GetBlock(getter_, cid.view());
    if (absl::IsNotFound(data.status())) return NotFound("block {} is missing", cid.ToText());
    if (!data.ok()) return Annotate(data.status(), "block " + cid.ToText());
    held_bytes_ += data->bytes().size();
    if (held_bytes_ > options_.held_bytes_max) {
      return ResourceExhausted("path blocks of more than {} bytes", options_.held_bytes_max);
    }
    resolved_.blocks.push_back({cid, *std::move(data)});
    return absl::OkStatus();
  }

  // Takes the segments that the block at hand can answer.
  absl::Status Step(uint64_t codec) {
    switch (codec) {
      case kCodecDagPb:
        return StepDagPb();
      case kCodecDagCbor:
        return StepInside(LookupDagCbor, DagCborAsLink);
      case kCodecDagJson:
        return StepInside(LookupDagJson, DagJsonAsLink);
      case kCodecRaw:
      case kCodecCbor:
      case kCodecJson:
        return NotFound("nothing lies below a {} block", CodecName(codec));
      default:
        return Unimplemented("paths below codec {}", CodecName(codec));
    }
  }

  // dag-cbor and dag-json: as many segments as stay inside the block, until a link or the end.
  absl::Status StepInside(absl::StatusOr<NodeLookup> (*lookup)(Span, std::string_view),
                          absl::StatusOr<std::optional<Cid>> (*as_link)(Span)) {
    Span node = HereBytes();
    ASSIGN_OR_RETURN(std::optional<Cid> link, as_link(node));
    const size_t first = at_;
    while (!link && at_ < path_.segments.size()) {
      ASSIGN_OR_RETURN(NodeLookup found, lookup(node, path_.segments[at_]));
      node = found.value;
      link = std::move(found.link);
      ++at_;
    }
    if (link) {
      if (absl::Status status = Enter(*link); !status.ok()) {
        at_ -= at_ > first ? 1 : 0;  // the segment that led here is the one to name
        return status;
      }
      return absl::OkStatus();
    }
    resolved_.remainder.assign(path_.segments.begin() + static_cast<ptrdiff_t>(first), path_.segments.end());
    resolved_.value = node;
    return absl::OkStatus();
  }

  absl::Status StepDagPb() {
    const std::string& name = path_.segments[at_];
    ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(HereBytes()));
    const auto fs = UnixFs::Decode(node.data().value_or(Span()));
    // Nodes without UnixFS data (git-like trees, old merkledags) have named links too.
    if (fs.ok() && fs->kind() == UnixFsKind::kHamtShard) return StepHamt(node, *fs, name);
    if (fs.ok() && fs->kind() != UnixFsKind::kDirectory) {
      return NotFound("nothing lies below a {}", UnixFsKindName(fs->kind()));
    }
    PbLink link;
    for (PbNode::Cursor at(node); at.Next(link);) {
      if (AsText(link.name.value_or(Span())) == name) return Leave(Cid(link.cid));
    }
    return NotFound("no such entry");
  }

  absl::Status StepHamt(PbNode node, UnixFs fs, const std::string& name) {
    const uint64_t hash = Murmur3X64_64(AsSpan(name));
    for (int bits_used = 0;;) {
      ASSIGN_OR_RETURN(const HamtShard shard, HamtShard::Open(node, fs));
      const auto entry = shard.Find(AsSpan(name), hash, bits_used);
      if (absl::IsNotFound(entry.status())) return NotFound("no such entry");
      if (!entry.ok()) return entry.status();
      if (!entry->is_shard) return Leave(Cid(entry->link.cid));
      bits_used += shard.bits();
      if (entry->link.cid.codec != kCodecDagPb) {
        return DataLoss("HAMT: a shard of codec {}", CodecName(entry->link.cid.codec));
      }
      RETURN_IF_ERROR(Enter(Cid(entry->link.cid)));
      ASSIGN_OR_RETURN(node, PbNode::Parse(HereBytes()));
      ASSIGN_OR_RETURN(fs, UnixFs::Decode(node.data().value_or(Span())));
    }
  }

  absl::Status Leave(const Cid& cid) {
    RETURN_IF_ERROR(Enter(cid));
    ++at_;
    return absl::OkStatus();
  }

  BlockGetter& getter_;
  const DagPath& path_;
  const PathOptions& options_;
  ResolvedPath& resolved_;
  size_t at_ = 0;  // the next segment
  uint64_t held_bytes_ = 0;
};

}  // namespace

absl::StatusOr<DagPath> ParseDagPath(std::string_view text) {
  if (text.size() > kPathTextBytesMax) {
    return InvalidArgument("a path of {} bytes, at most {}", text.size(), kPathTextBytesMax);
  }
  for (const std::string_view prefix : {"/ipfs/", "ipfs://"}) {
    if (text.starts_with(prefix)) {
      text.remove_prefix(prefix.size());
      break;
    }
  }
  const size_t slash = std::min(text.find('/'), text.size());
  DagPath path;
  ASSIGN_OR_RETURN(path.root, Cid::FromText(text.substr(0, slash)));
  for (size_t begin = slash; begin < text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    if (end > begin) path.segments.emplace_back(text.substr(begin, end - begin));
    if (path.segments.size() > kPathSegmentsMax && !Mutant(kMutantPathUnlimited)) {
      return InvalidArgument("a path of more than {} segments", kPathSegmentsMax);
    }
    begin = end + 1;
  }
  return path;
}

absl::Status ResolvePath(BlockGetter& getter, const DagPath& path, const PathOptions& options,
                         ResolvedPath& resolved) {
  resolved = {};
  if (path.root.empty()) return InvalidArgument("a path without a root CID");
  return Resolver(getter, path, options, resolved).Run();
}

}  // namespace dagstore
