// Writes CAR files. The output is deterministic: the same roots and blocks give the same bytes.
// Spec: docs/format.md#car.
#pragma once

#include <functional>
#include <vector>

#include "base/cid.h"

namespace dagstore {

// Canonical dag-cbor header with its length varint: {"roots": [...], "version": 1}.
Bytes EncodeCarHeader(const std::vector<Cid>& roots);
// Varint and CID of a section; the data follows. Two writes, no copy of the data.
Bytes EncodeSectionHead(Span cid, uint64_t data_size);

// CARv2: pragma and header for a payload of known size with data_padding/index_padding 0.
struct CarV2Layout {
  uint64_t data_offset = 51;
  uint64_t data_size = 0;
  uint64_t index_offset = 0;  // 0: no index
  bool fully_indexed = false;
};
Bytes EncodeCarV2Header(const CarV2Layout& layout);

using ByteSink = std::function<absl::Status(Span)>;

// Streams one CARv1 into a sink. One thread.
class CarWriter {
 public:
  // Writes the header.
  static absl::StatusOr<CarWriter> Start(ByteSink sink, const std::vector<Cid>& roots);
  absl::Status Put(Span cid, Span data);
  uint64_t bytes_written() const { return written_; }

 private:
  explicit CarWriter(ByteSink sink) : sink_(std::move(sink)) {}
  ByteSink sink_;
  uint64_t written_ = 0;
};

}  // namespace dagstore
