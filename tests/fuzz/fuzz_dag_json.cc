// Any bytes as a dag-json block. Properties: events nest; reading event by event and skipping end alike; a document
// that encodes as dag-pb gives a block that parses; looked-up values lie inside the block and are values themselves.
#include "base/check.h"
#include "dag/dag_json.h"
#include "dag/dag_pb.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

bool ReadsByEvents(Span block) {
  DagJsonReader reader(block);
  size_t events = 0;
  for (;;) {
    const auto event = reader.Next();
    if (!event.ok()) return false;
    DAGSTORE_CHECK(reader.depth() >= 0 && reader.depth() <= kJsonDepthMax);
    DAGSTORE_CHECK(event->offset <= reader.offset() && reader.offset() <= block.size());
    DAGSTORE_CHECK(event->text.size() <= block.size());
    if (event->kind == JsonKind::kEnd) break;
    DAGSTORE_CHECK(++events <= block.size());
  }
  DAGSTORE_CHECK(reader.depth() == 0 && reader.offset() == block.size());
  return true;
}

bool ReadsBySkipping(Span block) {
  DagJsonReader reader(block);
  if (!reader.Skip().ok()) return false;
  const auto end = reader.Next();
  DAGSTORE_CHECK(!end.ok() || end->kind == JsonKind::kEnd);
  return end.ok();
}

void Run(Span block) {
  const bool valid = ReadsByEvents(block);
  DAGSTORE_CHECK(valid == ReadsBySkipping(block));
  DAGSTORE_CHECK(valid == ForEachDagJsonLink(block, [](const CidView&) { return true; }).ok());
  if (const auto node = DagPbFromDagJson(block); node.ok()) {
    DAGSTORE_CHECK(valid && PbNode::Parse(*node).ok());
  }
  for (const char* segment : {"0", "1", "a", "", "/", "Links"}) {
    const auto found = LookupDagJson(block, segment);
    if (!found.ok()) continue;
    DAGSTORE_CHECK(found->value.data() >= block.data() &&
                   found->value.data() + found->value.size() <= block.data() + block.size());
    DAGSTORE_CHECK(ReadsByEvents(found->value));
  }
}

}  // namespace

void FuzzOne(Span input) {
  Run(input);
}

}  // namespace dagstore
