#include "dag/car_export.h"

namespace dagstore {

absl::Status ExportCar(BlockGetter& getter, const DagPath& path, const CarExportOptions& options,
                       ByteSink sink, CarExportStats* stats) {
  CarExportStats own;
  CarExportStats& counts = stats != nullptr ? *stats : own;
  ResolvedPath resolved;
  RETURN_IF_ERROR(ResolvePath(getter, path, options.path, resolved));

  TraverseOptions walk = options.limits;
  walk.scope = options.scope.value_or(options.entity_bytes ? DagScope::kEntity : DagScope::kAll);
  if (!resolved.remainder.empty()) walk.scope = DagScope::kBlock;
  walk.range = options.entity_bytes;
  walk.dups = options.dups;
  walk.visit_identity = options.identity_sections;

  ASSIGN_OR_RETURN(CarWriter writer, CarWriter::Start(std::move(sink), {path.root}));
  const auto put = [&](const CidView& cid, const BlockData& data) {
    absl::Status status = writer.Put(cid.bytes, data.bytes());
    counts.bytes_written = writer.bytes_written();
    return status;
  };
  counts.bytes_written = writer.bytes_written();
  for (size_t i = 0; i + 1 < resolved.blocks.size(); ++i) {
    const CidView cid = resolved.blocks[i].cid.view();
    if (cid.IsIdentity() && !options.identity_sections) continue;
    counts.walk.blocks += 1;
    counts.walk.bytes += resolved.blocks[i].data.bytes().size();
    RETURN_IF_ERROR(put(cid, resolved.blocks[i].data));
  }
  const PathBlock terminus = resolved.terminus();
  resolved.blocks.clear();  // written; they need not stay in memory while the rest is
  return TraverseFrom(getter, terminus.cid.view(), terminus.data, walk, put, &counts.walk);
}

}  // namespace dagstore
