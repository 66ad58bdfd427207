// dag-pb: nodes of UnixFS and other merkledags. Reads a node in place, writes the canonical form.
// Spec: ipld.io/specs/codecs/dag-pb; docs/format.md#dag-pb.
//
// Threads: values over bytes that belong to someone else.
// Limits: none of its own; nothing is allocated, and a node is as large as its block.
#pragma once

#include <optional>
#include <span>

#include "base/cid.h"

namespace dagstore {

struct PbLink {
  CidView cid = {};
  std::optional<Span> name = {};       // bytes; UTF-8 is not required
  std::optional<uint64_t> tsize = {};  // hostile data may exceed int63
};

// A parsed node: links and data are views of the block.
class PbNode {
 public:
  // Checks the whole block. DataLoss unless it is: links before or after at most one Data, no other fields, each link
  // with Hash, Name, Tsize in this order, each at most once, and Hash exactly one CID. Links keep the order of the
  // bytes.
  static absl::StatusOr<PbNode> Parse(Span block);

  std::optional<Span> data() const { return data_; }
  size_t link_count() const { return link_count_; }

  // Walks the links in encoded order: `for (PbNode::Cursor at(node); at.Next(link);)`.
  class Cursor {
   public:
    explicit Cursor(const PbNode& node) : rest_(node.links_) {}
    bool Next(PbLink& link);

   private:
    Span rest_;
  };

 private:
  Span links_ = {};  // the run of link fields, checked by Parse
  size_t link_count_ = 0;
  std::optional<Span> data_;
};

// Encodes links in the order given, then data. The canonical order is by name bytes, stable: the caller's to keep.
Bytes EncodeDagPb(std::span<const PbLink> links, std::optional<Span> data);

}  // namespace dagstore
