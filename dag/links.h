// The links of a block, by its codec.
// Spec: docs/format.md#links; ipld.io codec specs.
#pragma once

#include <absl/functional/function_ref.h>

#include "base/cid.h"

namespace dagstore {

// Called for each link, in encoded order. The view lives until it returns. False ends the reading, without an error.
using LinkVisitor = absl::FunctionRef<bool(const CidView&)>;

// dag-pb, dag-cbor, dag-json: every link. raw, cbor, json, libp2p-key, fil-commitment-*: none. Others (dag-jose,
// git-raw, ...) may have links that are not known here: Unimplemented, and the caller decides whether such a block is
// a leaf. DataLoss if the block is not of its codec; links before the bad place may have been visited.
absl::Status ForEachLink(uint64_t codec, Span block, LinkVisitor visit);

}  // namespace dagstore
