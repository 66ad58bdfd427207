// Reads CAR files: CARv1, and CARv2 with its payload. Strict where a mistake could serve wrong bytes, lenient where real
// files differ. Spec: docs/format.md#car (facts and choices), ipld.io CARv1 and CARv2.
//
// Owns a window of the file, never more; memory is bounded whatever the file says.
// Threads: one. Views are valid until the next call on the same reader.
// Errors: DataLoss (malformed, truncated), ResourceExhausted (a limit below), or what the source says.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/cid.h"
#include "base/reader.h"

namespace dagstore {

struct CarOptions {
  uint64_t header_bytes_max = 1 << 20;   // real headers are below 1 KiB; go-car allows 32 MiB
  uint64_t roots_max = 4096;             // per header, so that a header cannot fill tables
  uint64_t section_bytes_max = 8 << 20;  // CID and data; as go-car. Settable up to 32 MiB
  uint64_t cid_bytes_max = 2048;         // as go-car's MaxIndexCidSize
  // A section of length zero ends the payload (Filecoin pieces are padded with NULs). What follows is ignored.
  bool zero_length_as_end = true;
  // Refuses header keys other than roots and version, absent roots, and trailing header bytes.
  bool strict_header = false;
  size_t window_bytes = 1 << 20;  // read-ahead of Next and NextBatch; grows to hold one section
};
inline constexpr uint64_t kSectionBytesLimit = 32 << 20;  // the most section_bytes_max may be

struct CarHeader {
  int version = 1;               // of the container: 1 or 2
  std::vector<Cid> roots = {};   // in order; may be empty; may hold the placeholder bafkqaaa
  bool extra_keys = false;       // the header map had more than roots and version (DASL metadata)
  uint64_t payload_offset = 0;   // in the file: 0 for CARv1, the data offset for CARv2
  uint64_t payload_size = 0;     // bytes of the CARv1 payload; for CARv1 the file size
  uint64_t index_offset = 0;     // CARv2: in the file, 0 if it has no index
  bool fully_indexed = false;    // CARv2 characteristic
  uint64_t first_section = 0;    // payload-relative
};

struct CarSection {
  uint64_t offset = 0;       // of the length varint, from the start of the payload (as CARv2 indexes have it)
  uint32_t head_size = 0;    // varint and CID: the data begins at offset + head_size
  uint32_t data_size = 0;
  CidView cid = {};          // valid until the next call
  Span data = {};            // valid until the next call; empty from NextHead
  uint64_t size() const { return uint64_t{head_size} + data_size; }
};

class CarReader {
 public:
  // Reads and checks the headers. `source` must outlive the reader.
  static absl::StatusOr<std::unique_ptr<CarReader>> Open(const RandomReader& source, const CarOptions& options = {});
  virtual ~CarReader() = default;

  virtual const CarHeader& header() const = 0;

  // The next section with its data. False at the end of the payload.
  virtual absl::StatusOr<bool> Next(CarSection& section) = 0;
  // The next section without its data, which is not read: one small read or none. The section is still required to lie
  // wholly inside the payload.
  virtual absl::StatusOr<bool> NextHead(CarSection& section) = 0;
  // As many whole sections as the window holds, at least one: all views are valid together. False at the end.
  virtual absl::StatusOr<bool> NextBatch(std::vector<CarSection>& sections) = 0;

  // Payload-relative position of the next section; after the end, where the payload ended.
  virtual uint64_t position() const = 0;
  // After the end: a zero-length section ended it, and this many bytes after it were ignored.
  virtual uint64_t padding() const = 0;
};

// Parses the head of one section (varint and CID) at the start of `bytes`, which may hold more than the section.
// `bytes_after` is how many bytes the payload still has from the start of the section, `bytes` included.
// `section.data` is filled if `bytes` holds all of it.
absl::Status ParseSection(Span bytes, uint64_t bytes_after, const CarOptions& options, CarSection& section);

}  // namespace dagstore
