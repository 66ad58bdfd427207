// Writes CAR files. The output is deterministic: the same roots and blocks give the same bytes.
// Spec: docs/format.md#car.
//
// Never checks a block against its CID, nor looks for repeats: it writes what it is given.
#pragma once

#include <functional>
#include <vector>

#include "base/cid.h"

namespace dagstore {

// Canonical dag-cbor header with its length varint: {"roots": [...], "version": 1}. No root may be
// the empty Cid.
Bytes EncodeCarHeader(const std::vector<Cid>& roots);
// Varint and CID of a section; the data follows. Two writes, no copy of the data.
Bytes EncodeSectionHead(Span cid, uint64_t data_size);

// CARv2: where the payload and the index lie, from the start of the file. The defaults have no
// padding.
struct CarV2Layout {
  uint64_t data_offset = 51;
  uint64_t data_size = 0;
  uint64_t index_offset = 0;  // 0: no index
  bool fully_indexed = false;
};
// Pragma and header, 51 bytes.
Bytes EncodeCarV2Header(const CarV2Layout& layout);

// Takes the bytes, all of them, or says why not.
using ByteSink = std::function<absl::Status(Span)>;

// Streams one CARv1 into a sink. One thread. After an error of the sink the file is torn: throw it
// away.
class CarWriter {
 public:
  // Writes the header.
  static absl::StatusOr<CarWriter> Start(ByteSink sink, const std::vector<Cid>& roots);
  // Writes one section; `data` may be empty.
  absl::Status Put(Span cid, Span data);
  uint64_t bytes_written() const { return written_; }

 private:
  explicit CarWriter(ByteSink sink) : sink_(std::move(sink)) {}
  absl::Status Write(Span bytes);

  ByteSink sink_;
  uint64_t written_ = 0;
};

}  // namespace dagstore
