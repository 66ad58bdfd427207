#include "dag/links.h"

#include "dag/dag_cbor.h"
#include "dag/dag_json.h"
#include "dag/dag_pb.h"

namespace dagstore {

absl::Status ForEachLink(uint64_t codec, Span block, LinkVisitor visit) {
  switch (codec) {
    case kCodecRaw:
    case kCodecCbor:
    case kCodecJson:
    case kCodecLibp2pKey:
    case kCodecFilCommitmentUnsealed:
    case kCodecFilCommitmentSealed:
      return absl::OkStatus();
    case kCodecDagPb: {
      ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(block));
      PbLink link;
      for (PbNode::Cursor at(node); at.Next(link);) {
        if (!visit(link.cid)) break;
      }
      return absl::OkStatus();
    }
    case kCodecDagCbor:
      return ForEachDagCborLink(block, visit);
    case kCodecDagJson:
      return ForEachDagJsonLink(block, visit);
    default:
      return Unimplemented("links of codec {} are not known", CodecName(codec));
  }
}

}  // namespace dagstore
