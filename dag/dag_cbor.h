// dag-cbor: links, strict validation, and the value at a key or index.
// Spec: ipld.io/specs/codecs/dag-cbor, dasl.ing/drisl; docs/format.md#dag-cbor.
//
// Limits: kCborDepthMax (base/cbor.h). Nothing is allocated but the CID a lookup ends at.
#pragma once

#include <optional>
#include <string_view>

#include "dag/links.h"

namespace dagstore {

// Every tag 42, in encoded order. Lenient where history is: key order, integer widths, float widths, text that is not
// UTF-8. DataLoss for a tag 42 without a CID, for nesting, truncation, and bytes after the value.
absl::Status ForEachDagCborLink(Span block, LinkVisitor visit);

enum class CborProfile : uint8_t {
  kDagCbor,  // the strict form of the dag-cbor spec, any CID
  kDasl,     // DRISL: also, CIDs are version 1, raw or dag-cbor, sha2-256 or blake3 of 32 bytes
};
// OK only if the block is one value in the one form the profile allows; DataLoss says where it is not.
absl::Status ValidateDagCbor(Span block, CborProfile profile = CborProfile::kDagCbor);

// Where one path segment leads inside a block: to another block, or to a value in the same block.
struct NodeLookup {
  std::optional<Cid> link = {};
  Span value = {};  // the encoded value, if not a link
};
// `node` is one encoded value. Segments are map keys (the first match wins) or decimal list indices without leading
// zeros. NotFound if there is no such key or index, or the value has no entries; DataLoss if malformed.
absl::StatusOr<NodeLookup> LookupDagCbor(Span node, std::string_view segment);
// The link, if `node` is nothing but a link.
absl::StatusOr<std::optional<Cid>> DagCborAsLink(Span node);

// A list index, or nothing if `segment` is not one.
std::optional<uint64_t> ParseListIndex(std::string_view segment);

}  // namespace dagstore
