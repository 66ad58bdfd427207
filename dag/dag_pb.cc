#include "dag/dag_pb.h"

#include "base/check.h"
#include "base/protobuf.h"

namespace dagstore {
namespace {

enum NodeField : uint64_t { kNodeData = 1, kNodeLinks = 2 };
enum LinkField : uint64_t { kLinkHash = 1, kLinkName = 2, kLinkTsize = 3 };

// One PBLink message.
absl::Status ParseLink(Span message, PbLink& link) {
  link = {};
  bool has_hash = false;
  for (uint64_t last = 0; !message.empty();) {
    ProtoField field;
    if (!TakeProtoField(message, field)) return DataLoss("malformed field in a link");
    if (field.number <= last) return DataLoss("link field {} repeated or out of order", field.number);
    last = field.number;
    const WireType wanted = field.number == kLinkTsize ? WireType::kVarint : WireType::kBytes;
    if (field.number > kLinkTsize || field.type != wanted) {
      return DataLoss("link field {} with wire type {}", field.number,
                      static_cast<int>(field.type));
    }
    if (field.number == kLinkHash) {
      ASSIGN_OR_RETURN(link.cid, ParseCid(field.bytes));
      if (link.cid.bytes.size() != field.bytes.size()) {
        return DataLoss("{} bytes follow the CID of a link",
                        field.bytes.size() - link.cid.bytes.size());
      }
      has_hash = true;
    } else if (field.number == kLinkName) {
      link.name = field.bytes;
    } else {
      link.tsize = field.value;
    }
  }
  if (!has_hash) return DataLoss("link without a Hash");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PbNode> PbNode::Parse(Span block) {
  PbNode node;
  bool links_ended = false;
  for (Span rest = block; !rest.empty();) {
    const uint8_t* start = rest.data();
    ProtoField field;
    if (!TakeProtoField(rest, field)) {
      return DataLoss("dag-pb: malformed field at byte {}", start - block.data());
    }
    if (field.type != WireType::kBytes ||
        (field.number != kNodeData && field.number != kNodeLinks)) {
      return DataLoss("dag-pb: field {} with wire type {} at byte {}", field.number,
                      static_cast<int>(field.type), start - block.data());
    }
    if (field.number == kNodeData) {
      if (node.data_) return DataLoss("dag-pb: Data twice");
      node.data_ = field.bytes;
      links_ended = node.link_count_ > 0;
      continue;
    }
    if (links_ended) return DataLoss("dag-pb: Links split by Data");
    PbLink link;
    if (absl::Status status = ParseLink(field.bytes, link); !status.ok()) {
      return Annotate(status, fmt::format("dag-pb: link {}", node.link_count_));
    }
    if (node.link_count_++ == 0) node.links_ = Span(start, size_t{0});
    node.links_ = Span(node.links_.data(), rest.data());
  }
  return node;
}

bool PbNode::Cursor::Next(PbLink& link) {
  if (rest_.empty()) return false;
  ProtoField field;
  DAGSTORE_CHECK(TakeProtoField(rest_, field));
  DAGSTORE_CHECK_OK(ParseLink(field.bytes, link));
  return true;
}

Bytes EncodeDagPb(std::span<const PbLink> links, std::optional<Span> data) {
  Bytes out;
  Bytes message;
  for (const PbLink& link : links) {
    message.clear();
    AppendProtoBytes(message, kLinkHash, link.cid.bytes);
    if (link.name) AppendProtoBytes(message, kLinkName, *link.name);
    if (link.tsize) AppendProtoNumber(message, kLinkTsize, *link.tsize);
    AppendProtoBytes(out, kNodeLinks, message);
  }
  if (data) AppendProtoBytes(out, kNodeData, *data);
  return out;
}

}  // namespace dagstore
