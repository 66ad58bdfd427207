// Reads CAR files: CARv1, and CARv2 with its payload. Strict where a mistake could serve wrong
// bytes, lenient where real files differ. Spec: docs/format.md#car (facts and choices), ipld.io
// CARv1 and CARv2.
//
// Owns a window of the file, never more; memory is bounded whatever the file says.
//
// Never: checks a digest (see VerifyBlock of base/hashing.h), reads the index of a CARv2, gives a
// section that does not lie wholly inside the payload.
//
// Threads: one. Views are valid until the next call on the same reader.
//
// Errors: DataLoss (malformed, truncated, a header over its limits), FailedPrecondition (a section
// or CID that is whole but over a limit below: reading again cannot help), InvalidArgument (the options), or what the
// source says. Messages name the field and its place: "file byte" counts from the start of the file,
// "payload byte" from the start of the CARv1 payload. After an error the position stays where it
// was, so that a read which the source refused may be repeated.
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
  uint64_t section_bytes_max = 8 << 20;  // CID and data, as go-car; up to kSectionBytesLimit
  uint64_t cid_bytes_max = 2048;         // as go-car's MaxIndexCidSize
  // A section of length zero ends the payload (Filecoin pieces are padded with NULs). What follows
  // is ignored.
  bool zero_length_as_end = true;
  // Refuses header keys other than roots and version, absent or null roots, CBOR that is not
  // canonical, and trailing header bytes. Without it all of these are read; a repeated key never.
  bool strict_header = false;
  size_t window_bytes = 1 << 20;  // read-ahead of Next and NextBatch; grows to hold one section
};
inline constexpr uint64_t kSectionBytesLimit = 32 << 20;  // the most section_bytes_max may be

inline constexpr uint64_t kCarV2HeaderBytes = 51;  // pragma and header: the least data offset
inline constexpr std::array<uint8_t, 11> kCarV2Pragma = {0x0a, 0xa1, 0x67, 'v', 'e', 'r',
                                                         's',  'i',  'o',  'n', 0x02};

struct CarHeader {
  int version = 1;              // of the container: 1 or 2
  std::vector<Cid> roots = {};  // in order; may be empty; may hold the placeholder bafkqaaa
  bool extra_keys = false;      // the header map had more than roots and version (DASL metadata)
  uint64_t payload_offset = 0;  // in the file: 0 for CARv1, the data offset for CARv2
  uint64_t payload_size = 0;    // bytes of the CARv1 payload; for CARv1 the file size
  uint64_t index_offset = 0;    // CARv2: in the file, 0 if it has no index
  bool fully_indexed = false;   // CARv2 characteristic
  uint64_t first_section = 0;   // payload-relative
};

struct CarSection {
  uint64_t offset = 0;     // of the length varint, from the payload's start, as in CARv2 indexes
  uint32_t head_size = 0;  // varint and CID: the data begins at offset + head_size
  uint32_t data_size = 0;
  CidView cid = {};  // valid until the next call
  Span data = {};    // valid until the next call; empty from NextHead
  uint64_t size() const { return uint64_t{head_size} + data_size; }
};

// A section's varint and CID are never longer: so many bytes are enough to parse its head.
inline constexpr size_t kSectionHeadBytesMax = kVarintBytesMax + kCidBytesMax;
// NextBatch gives at most so many sections, so that a window of tiny ones does not become a vector
// larger than itself.
inline constexpr size_t kBatchSectionsMax = 1024;

class CarReader {
 public:
  // Reads and checks the headers. `source` must outlive the reader.
  static absl::StatusOr<std::unique_ptr<CarReader>> Open(const RandomReader& source,
                                                         const CarOptions& options = {});
  virtual ~CarReader() = default;

  virtual const CarHeader& header() const = 0;

  // The next section with its data. False at the end of the payload.
  virtual absl::StatusOr<bool> Next(CarSection& section) = 0;
  // The next section without its data, which is not read where that is cheaper: large sections cost
  // one small read each, small ones a share of a 64 KiB read. The section is still required to lie
  // wholly inside the payload.
  virtual absl::StatusOr<bool> NextHead(CarSection& section) = 0;
  // As many whole sections as the window holds (kBatchSectionsMax at most), at least one: all views
  // are valid together. False at the end. Sections before a malformed one are given first; the
  // error comes with the next call.
  virtual absl::StatusOr<bool> NextBatch(std::vector<CarSection>& sections) = 0;

  // Payload-relative position of the next section; after the end, where the payload ended.
  virtual uint64_t position() const = 0;
  // After the end: bytes from the zero-length section that ended the payload, itself included, to
  // the payload's last byte; they were ignored. 0 if the payload ended with a section. position() +
  // padding() is then the payload size.
  virtual uint64_t padding() const = 0;
};

// Parses the head of one section (varint and CID) at the start of `bytes`, which may hold more than
// the section, and should hold min(bytes_after, kSectionHeadBytesMax) bytes or the whole section.
// `bytes_after` is how many bytes the payload still has from the start of the section, `bytes`
// included. `section.offset` is only named in messages; `section.data` is filled if `bytes` holds
// all of it. A zero length is an error here, whatever the options.
absl::Status ParseSection(Span bytes, uint64_t bytes_after, const CarOptions& options,
                          CarSection& section);

}  // namespace dagstore
