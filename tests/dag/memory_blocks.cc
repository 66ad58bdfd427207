#include "tests/dag/memory_blocks.h"

#include "base/protobuf.h"

namespace dagstore {

Bytes EncodeFs(const FsFields& fields) {
  Bytes out;
  AppendProtoNumber(out, 1, fields.type);
  if (fields.data) AppendProtoBytes(out, 2, AsSpan(*fields.data));
  if (fields.size) AppendProtoNumber(out, 3, *fields.size);
  Bytes packed;
  for (const uint64_t size : fields.block_sizes) {
    if (fields.packed) {
      AppendProtoVarint(packed, size);
    } else {
      AppendProtoNumber(out, 4, size);
    }
  }
  if (!packed.empty()) AppendProtoBytes(out, 4, packed);
  if (fields.hash_type) AppendProtoNumber(out, 5, *fields.hash_type);
  if (fields.fanout) AppendProtoNumber(out, 6, *fields.fanout);
  return out;
}

Bytes EncodeNode(const std::vector<NamedLink>& links, const FsFields& fields) {
  std::vector<PbLink> views;
  for (const NamedLink& link : links) views.push_back({link.cid.view(), AsSpan(link.name), link.tsize});
  return EncodeDagPb(views, EncodeFs(fields));
}

}  // namespace dagstore
