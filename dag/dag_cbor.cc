#include "dag/dag_cbor.h"

#include "base/cbor.h"

namespace dagstore {
namespace {

constexpr uint64_t kCidTag = 42;

// The CID inside tag 42: a byte string of 0x00 and the CID.
absl::StatusOr<CidView> LinkOf(const CborItem& item) {
  if (item.kind != CborKind::kBytes) return DataLoss("dag-cbor: tag 42 is not around bytes");
  if (item.bytes.empty() || item.bytes[0] != 0) {
    return DataLoss("dag-cbor: a link does not begin with 0x00");
  }
  ASSIGN_OR_RETURN(const CidView cid, ParseCid(item.bytes.subspan(1)));
  if (cid.bytes.size() != item.bytes.size() - 1) {
    return DataLoss("dag-cbor: {} bytes follow the CID of a link",
                    item.bytes.size() - 1 - cid.bytes.size());
  }
  return cid;
}

// Reads one whole value and hands over its links.
absl::Status ReadValue(CborReader& reader, LinkVisitor visit) {
  const int depth = reader.depth();
  bool is_link = false;
  do {
    ASSIGN_OR_RETURN(const CborItem item, reader.Next());
    if (is_link) {
      ASSIGN_OR_RETURN(const CidView cid, LinkOf(item));
      if (!visit(cid)) return absl::OkStatus();
    }
    is_link = item.kind == CborKind::kTag && item.value == kCidTag;
  } while (reader.depth() > depth);
  if (!reader.AtEnd()) return DataLoss("dag-cbor: bytes follow the value that ends at byte {}", reader.offset());
  return absl::OkStatus();
}

bool IsDaslCid(const CidView& cid) {
  return cid.version == 1 && (cid.codec == kCodecRaw || cid.codec == kCodecDagCbor) &&
         (cid.hash.code == kSha2_256 || cid.hash.code == kBlake3) && cid.hash.digest.size() == 32;
}

// The value the reader stands at, as it stands.
absl::StatusOr<NodeLookup> TakeValue(CborReader& reader, Span node) {
  const size_t start = reader.offset();
  RETURN_IF_ERROR(reader.Skip());
  const Span value = node.subspan(start, reader.offset() - start);
  ASSIGN_OR_RETURN(std::optional<Cid> link, DagCborAsLink(value));
  return NodeLookup{std::move(link), value};
}

}  // namespace

absl::Status ForEachDagCborLink(Span block, LinkVisitor visit) {
  CborReader reader(block);
  return ReadValue(reader, visit);
}

absl::Status ValidateDagCbor(Span block, CborProfile profile) {
  CborReader reader(block, CborMode::kStrict);
  bool dasl = true;
  RETURN_IF_ERROR(ReadValue(reader, [&](const CidView& cid) {
    dasl = profile != CborProfile::kDasl || IsDaslCid(cid);
    return dasl;
  }));
  if (!dasl) return DataLoss("dag-cbor: a link is not a DASL CID");
  return absl::OkStatus();
}

std::optional<uint64_t> ParseListIndex(std::string_view segment) {
  constexpr size_t kDigitsMax = 18;  // below 2^63, and no block has more entries
  if (segment.empty() || segment.size() > kDigitsMax) return std::nullopt;
  if (segment.size() > 1 && segment[0] == '0') return std::nullopt;
  uint64_t index = 0;
  for (const char c : segment) {
    if (c < '0' || c > '9') return std::nullopt;
    index = index * 10 + static_cast<uint64_t>(c - '0');
  }
  return index;
}

absl::StatusOr<std::optional<Cid>> DagCborAsLink(Span node) {
  CborReader reader(node);
  ASSIGN_OR_RETURN(const CborItem head, reader.Next());
  if (head.kind != CborKind::kTag || head.value != kCidTag) return std::optional<Cid>();
  ASSIGN_OR_RETURN(const CborItem item, reader.Next());
  ASSIGN_OR_RETURN(const CidView cid, LinkOf(item));
  return std::optional<Cid>(Cid(cid));
}

absl::StatusOr<NodeLookup> LookupDagCbor(Span node, std::string_view segment) {
  CborReader reader(node);
  ASSIGN_OR_RETURN(const CborItem head, reader.Next());
  if (head.kind == CborKind::kMap) {
    for (uint64_t i = 0; i < head.value; ++i) {
      // A key of another kind (only hostile blocks have them) may hold items of its own: skipped like any value.
      const size_t start = reader.offset();
      RETURN_IF_ERROR(reader.Skip());
      CborReader key_reader(node.subspan(start, reader.offset() - start));
      ASSIGN_OR_RETURN(const CborItem key, key_reader.Next());
      if (key.kind == CborKind::kText && AsText(key.bytes) == segment) {
        return TakeValue(reader, node);
      }
      RETURN_IF_ERROR(reader.Skip());
    }
    return NotFound("no key \"{}\"", segment);
  }
  if (head.kind == CborKind::kArray) {
    const std::optional<uint64_t> index = ParseListIndex(segment);
    if (!index || *index >= head.value) return NotFound("no entry \"{}\" in a list of {}", segment, head.value);
    for (uint64_t i = 0; i < *index; ++i) RETURN_IF_ERROR(reader.Skip());
    return TakeValue(reader, node);
  }
  return NotFound("no \"{}\" below a value without entries", segment);
}

}  // namespace dagstore
