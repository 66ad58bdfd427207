// Any bytes as a dag-pb block. Properties: what parses encodes to a block that parses to the same node; links and
// data lie inside the block; the dag-json form, if there is one, has the same links.
#include "base/check.h"
#include "dag/dag_json.h"
#include "dag/dag_pb.h"
#include "dag/links.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void CheckInside(Span part, Span whole) {
  DAGSTORE_CHECK(part.empty() || (part.data() >= whole.data() &&
                                  part.data() + part.size() <= whole.data() + whole.size()));
}

std::vector<PbLink> LinksOf(const PbNode& node, Span block) {
  std::vector<PbLink> links;
  PbLink link;
  for (PbNode::Cursor at(node); at.Next(link);) {
    CheckInside(link.cid.bytes, block);
    CheckInside(link.name.value_or(Span()), block);
    links.push_back(link);
  }
  DAGSTORE_CHECK(links.size() == node.link_count());
  return links;
}

void Run(Span block) {
  const auto node = PbNode::Parse(block);
  size_t visited = 0;
  const absl::Status status = ForEachLink(kCodecDagPb, block, [&](const CidView&) { return ++visited > 0; });
  DAGSTORE_CHECK(status.ok() == node.ok());
  if (!node.ok()) return;
  const std::vector<PbLink> links = LinksOf(*node, block);
  DAGSTORE_CHECK(visited == links.size());
  CheckInside(node->data().value_or(Span()), block);

  const Bytes encoded = EncodeDagPb(links, node->data());
  const auto again = PbNode::Parse(encoded);
  DAGSTORE_CHECK(again.ok() && again->data().has_value() == node->data().has_value());
  DAGSTORE_CHECK(SameBytes(again->data().value_or(Span()), node->data().value_or(Span())));
  const std::vector<PbLink> same = LinksOf(*again, encoded);
  DAGSTORE_CHECK(SameBytes(EncodeDagPb(same, again->data()), encoded));

  const auto json = ToDagJson(kCodecDagPb, block);
  DAGSTORE_CHECK(json.ok());
  size_t at = 0;
  DAGSTORE_CHECK_OK(ForEachDagJsonLink(AsSpan(*json), [&](const CidView& cid) {
    DAGSTORE_CHECK(at < links.size() && SameBytes(cid.bytes, links[at].cid.bytes));
    return ++at > 0;
  }));
  DAGSTORE_CHECK(at == links.size());
}

}  // namespace

void FuzzOne(Span input) {
  Run(input);
}

}  // namespace dagstore
