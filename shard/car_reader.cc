#include "shard/car_reader.h"

#include <algorithm>
#include <bit>

#include "base/cbor.h"
#include "base/check.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// NextHead reads so much at once while sections are small, and only the head of the next section
// when they are large. A small read costs about as much as copying 4 to 8 KiB out of the page
// cache.
constexpr size_t kHeadWindowBytes = 64 << 10;
constexpr uint64_t kLargeSectionBytes = 8 << 10;
constexpr size_t kSmallReadBytes = 128;  // a varint and any usual CID

// NextBatch widens its window to this many sections of the size seen, where the limits allow: hash
// kernels work in lanes.
constexpr uint64_t kBatchSectionsAim = 16;

constexpr uint64_t kCidTag = 42;

// ---- Headers ----

// Parses the CARv1 header map. `where` is the file position of the map, for messages.
class HeaderMap {
 public:
  HeaderMap(Span bytes, uint64_t where, const CarOptions& options, CarHeader& header)
      : in_(bytes, options.strict_header ? CborMode::kStrict : CborMode::kLenient),
        where_(where),
        options_(options),
        header_(header) {}

  absl::Status Parse() {
    ASSIGN_OR_RETURN(const CborItem map, NextItem("header"));
    if (map.kind != CborKind::kMap)
      return DataLoss("CAR header at file byte {} is not a map", where_);
    for (uint64_t i = 0; i < map.value; ++i) RETURN_IF_ERROR(ParsePair());
    if (!version_seen_) return DataLoss("CAR header at file byte {} has no version", where_);
    if (options_.strict_header) {
      if (!roots_seen_) return DataLoss("CAR header at file byte {} has no roots", where_);
      if (header_.extra_keys)
        return DataLoss("CAR header at file byte {} has keys beyond roots and version", where_);
      if (!in_.AtEnd())
        return DataLoss("CAR header has bytes after its map at file byte {}", Place());
    }
    return absl::OkStatus();
  }

 private:
  uint64_t Place() const { return where_ + in_.offset(); }

  absl::StatusOr<CborItem> NextItem(std::string_view what) {
    auto item = in_.Next();
    if (item.ok()) return item;
    return DataLoss("CAR header at file byte {}, {}: {}", where_, what, Message(item.status()));
  }

  absl::Status ParsePair() {
    const uint64_t place = Place();
    ASSIGN_OR_RETURN(const CborItem key, NextItem("key"));
    if (key.kind != CborKind::kText)
      return DataLoss("CAR header key at file byte {} is not text", place);
    if (AsText(key.bytes) == "version") return ParseVersion();
    if (AsText(key.bytes) == "roots") return ParseRoots();
    header_.extra_keys = true;
    if (const absl::Status skipped = in_.Skip(); !skipped.ok()) {
      return DataLoss("CAR header at file byte {}, value of an extra key: {}", where_,
                      Message(skipped));
    }
    return absl::OkStatus();
  }

  absl::Status ParseVersion() {
    const uint64_t place = Place();
    if (version_seen_) return DataLoss("CAR header repeats the key version at file byte {}", place);
    version_seen_ = true;
    ASSIGN_OR_RETURN(const CborItem version, NextItem("version"));
    if (version.kind != CborKind::kUnsigned) {
      return DataLoss("CAR version at file byte {} is not an unsigned integer", place);
    }
    if (header_.version == 2 && version.value == 2) {
      return DataLoss("CARv2 payload at file byte {} is a CARv2 itself; only CARv1 may be nested",
                      header_.payload_offset);
    }
    if (version.value != 1)
      return DataLoss("CAR version {} at file byte {} is not supported", version.value, place);
    return absl::OkStatus();
  }

  absl::Status ParseRoots() {
    const uint64_t place = Place();
    if (roots_seen_) return DataLoss("CAR header repeats the key roots at file byte {}", place);
    roots_seen_ = true;
    ASSIGN_OR_RETURN(const CborItem roots, NextItem("roots"));
    if (roots.kind == CborKind::kNull && !options_.strict_header) return absl::OkStatus();
    if (roots.kind != CborKind::kArray)
      return DataLoss("CAR roots at file byte {} are not an array", place);
    if (roots.value > options_.roots_max) {
      return DataLoss("CAR header at file byte {} has {} roots, more than {}", where_, roots.value,
                      options_.roots_max);
    }
    for (uint64_t i = 0; i < roots.value; ++i) RETURN_IF_ERROR(ParseRoot(i));
    return absl::OkStatus();
  }

  absl::Status ParseRoot(uint64_t i) {
    const uint64_t place = Place();
    ASSIGN_OR_RETURN(const CborItem tag, NextItem("roots"));
    if (tag.kind != CborKind::kTag || tag.value != kCidTag) {
      return DataLoss("CAR root {} at file byte {} is not a CID (tag 42)", i, place);
    }
    ASSIGN_OR_RETURN(const CborItem link, NextItem("roots"));
    if (link.kind != CborKind::kBytes || link.bytes.empty() || link.bytes[0] != 0) {
      return DataLoss("CAR root {} at file byte {} is not a byte string that begins with 0x00", i,
                      place);
    }
    const Span bytes = link.bytes.subspan(1);
    if (bytes.size() > options_.cid_bytes_max) {
      return DataLoss("CAR root {} at file byte {} has {} bytes, more than {}", i, place,
                      bytes.size(), options_.cid_bytes_max);
    }
    absl::StatusOr<Cid> cid = Cid::FromBytes(bytes);
    if (!cid.ok())
      return DataLoss("CAR root {} at file byte {}: {}", i, place, Message(cid.status()));
    header_.roots.push_back(*std::move(cid));
    return absl::OkStatus();
  }

  CborReader in_;
  const uint64_t where_;
  const CarOptions& options_;
  CarHeader& header_;
  bool version_seen_ = false;
  bool roots_seen_ = false;
};

// Reads the header of the CARv1 payload that `header` places.
absl::Status ReadPayloadHeader(const RandomReader& source, const CarOptions& options,
                               CarHeader& header) {
  const uint64_t start = header.payload_offset;
  uint8_t first[kVarintBytesMax];
  const size_t first_size = std::min<uint64_t>(sizeof(first), header.payload_size);
  RETURN_IF_ERROR(source.Read(start, first_size, first));
  Varint length;
  if (const VarintError error = DecodeVarint({first, first_size}, length);
      error != VarintError::kNone) {
    return DataLoss("CAR header length at file byte {}: {}", start, Message(VarintStatus(error)));
  }
  if (length.value == 0) return DataLoss("CAR header length at file byte {} is zero", start);
  if (length.value > options.header_bytes_max && !Mutant(kMutantHeaderUnlimited)) {
    return DataLoss("CAR header at file byte {} has {} bytes, more than {}", start, length.value,
                    options.header_bytes_max);
  }
  if (length.value > header.payload_size - length.size) {
    return DataLoss("CAR header at file byte {} is truncated: {} bytes declared, {} left", start,
                    length.value, header.payload_size - length.size);
  }
  Bytes map(length.value);  // no more than the file has, and than header_bytes_max
  RETURN_IF_ERROR(source.Read(start + length.size, map.size(), map.data()));
  header.first_section = length.size + length.value;
  return HeaderMap(map, start + length.size, options, header).Parse();
}

absl::Status ReadV2Header(const RandomReader& source, CarHeader& header) {
  const uint64_t file_size = source.Size();
  if (file_size < kCarV2HeaderBytes) {
    return DataLoss("CARv2 header is truncated: the file has {} bytes of {}", file_size,
                    kCarV2HeaderBytes);
  }
  uint8_t raw[kCarV2HeaderBytes];
  RETURN_IF_ERROR(source.Read(0, sizeof(raw), raw));
  header.version = 2;
  header.fully_indexed = (raw[11] & 0x80) != 0;  // the other bits mean nothing yet
  header.payload_offset = Load64(raw + 27);
  header.payload_size = Load64(raw + 35);
  header.index_offset = Load64(raw + 43);
  if (header.payload_offset < kCarV2HeaderBytes || header.payload_offset > file_size) {
    return DataLoss("CARv2 data offset {} at file byte 27 is not within {} and the file's {} bytes",
                    header.payload_offset, kCarV2HeaderBytes, file_size);
  }
  if (header.payload_size == 0) return DataLoss("CARv2 data size at file byte 35 is zero");
  if (header.payload_size > file_size - header.payload_offset) {
    return DataLoss(
        "CARv2 data size {} at file byte 35 runs past the file: {} bytes are left after the data "
        "offset",
        header.payload_size, file_size - header.payload_offset);
  }
  const uint64_t payload_end = header.payload_offset + header.payload_size;
  if (header.index_offset != 0 &&
      (header.index_offset < payload_end || header.index_offset >= file_size)) {
    return DataLoss(
        "CARv2 index offset {} at file byte 43 is not within the payload's end {} and the file's "
        "{} bytes",
        header.index_offset, payload_end, file_size);
  }
  return absl::OkStatus();
}

// ---- Sections ----

enum class Head : uint8_t {
  kSection,    // parsed; lies inside the payload
  kZero,       // the length is zero
  kShort,      // more bytes are needed to tell
  kVarint,     // the length is malformed
  kTruncated,  // runs past the payload
  kTooLarge,   // over section_bytes_max
  kCid,        // the CID is malformed, or runs past the section
  kCidTooLarge,
};

// The CIDs that nearly all sections have, told by their first bytes: v0 and v1 with sha2-256, v1
// with blake2b-256. Gives what ParseCid gives, at a fraction of its price; empty `bytes` if the CID
// is another one.
CidView UsualCid(Span in) {
  if (in.size() < 34) return {};
  const uint8_t* p = in.data();
  if (p[0] == 0x12 && p[1] == 0x20) {
    return {.version = 0, .codec = kCodecDagPb, .hash = {kSha2_256, {p + 2, 32}}, .bytes = {p, 34}};
  }
  if (p[0] != 1 || p[1] >= 0x80) return {};
  if (p[2] == 0x12 && p[3] == 0x20 && in.size() >= 36) {
    return {.version = 1, .codec = p[1], .hash = {kSha2_256, {p + 4, 32}}, .bytes = {p, 36}};
  }
  if (in.size() >= 38 && p[2] == 0xa0 && p[3] == 0xe4 && p[4] == 0x02 && p[5] == 0x20) {
    return {.version = 1, .codec = p[1], .hash = {kBlake2b256, {p + 6, 32}}, .bytes = {p, 38}};
  }
  return {};
}

// Parses the head at the start of `bytes`; `bytes_after` as in ParseSection. Fills all of `section`
// but the offset.
inline Head ParseHead(Span bytes, uint64_t bytes_after, const CarOptions& options,
                      CarSection& section) {
  Varint length;
  if (const VarintError error = DecodeVarint(bytes, length); error != VarintError::kNone) {
    return error == VarintError::kTruncated && bytes.size() < bytes_after ? Head::kShort
                                                                          : Head::kVarint;
  }
  if (length.value == 0) return Head::kZero;
  if (length.value > bytes_after - length.size) return Head::kTruncated;
  if (length.value > options.section_bytes_max && !Mutant(kMutantSectionUnlimited)) return Head::kTooLarge;
  const Span rest = bytes.subspan(length.size);
  const Span body = rest.first(std::min<uint64_t>(rest.size(), length.value));
  section.cid = UsualCid(body);
  if (section.cid.bytes.empty()) {
    absl::StatusOr<CidView> cid = ParseCid(body);
    if (!cid.ok()) {
      return body.size() < length.value && bytes.size() < kSectionHeadBytesMax ? Head::kShort
                                                                               : Head::kCid;
    }
    section.cid = *cid;
  }
  const size_t cid_size = section.cid.bytes.size();
  if (cid_size > options.cid_bytes_max) return Head::kCidTooLarge;
  section.head_size = static_cast<uint32_t>(length.size + cid_size);
  section.data_size = static_cast<uint32_t>(length.value - cid_size);
  section.data = body.size() == length.value ? body.subspan(cid_size) : Span();
  return Head::kSection;
}

// Says why `head` is not a section. Cold: finds the numbers again.
[[gnu::cold]] absl::Status HeadStatus(Head head, Span bytes, uint64_t bytes_after,
                                      const CarOptions& options, uint64_t offset) {
  Varint length;
  const VarintError error = DecodeVarint(bytes, length);
  switch (head) {
    case Head::kSection:
      return absl::OkStatus();
    case Head::kZero:
      return DataLoss("section at payload byte {} has length zero", offset);
    case Head::kShort:
      return DataLoss("section at payload byte {}: {} bytes are too few for its head", offset,
                      bytes.size());
    case Head::kVarint:
      return DataLoss("section length at payload byte {}: {}", offset,
                      Message(VarintStatus(error)));
    case Head::kTruncated:
      return DataLoss("section at payload byte {} is truncated: {} bytes declared, {} left", offset,
                      length.value, bytes_after - length.size);
    case Head::kTooLarge:
      return FailedPrecondition("section at payload byte {} has {} bytes, more than {}", offset,
                               length.value, options.section_bytes_max);
    case Head::kCid: {
      const Span rest = bytes.subspan(length.size);
      const auto cid = ParseCid(rest.first(std::min<uint64_t>(rest.size(), length.value)));
      return DataLoss("section at payload byte {} of {} bytes, CID: {}", offset, length.value,
                      Message(cid.status()));
    }
    case Head::kCidTooLarge:
      return FailedPrecondition("section at payload byte {}: its CID has more than {} bytes", offset,
                               options.cid_bytes_max);
  }
  return absl::OkStatus();
}

class Reader final : public CarReader {
 public:
  Reader(const RandomReader& source, const CarOptions& options, CarHeader header)
      : source_(source),
        options_(options),
        header_(std::move(header)),
        in_memory_(source.Memory().size() == source.Size()),
        read_bytes_(std::max(options.window_bytes, kSmallReadBytes)),
        window_bytes_max_(
            std::max<uint64_t>(read_bytes_, options.section_bytes_max + kVarintBytesMax)),
        position_(header_.first_section) {
    // Bytes in memory are one window that holds the whole payload.
    if (in_memory_) window_ = source.Memory().subspan(header_.payload_offset, header_.payload_size);
  }

  const CarHeader& header() const override { return header_; }
  uint64_t position() const override { return position_; }
  uint64_t padding() const override { return ended_ ? header_.payload_size - position_ : 0; }

  absl::StatusOr<bool> Next(CarSection& section) override {
    return Advance(section, Need::kWhole, read_bytes_);
  }

  absl::StatusOr<bool> NextHead(CarSection& section) override {
    const size_t read = recent_bytes_ > kLargeSectionBytes
                            ? kSmallReadBytes
                            : std::min(read_bytes_, kHeadWindowBytes);
    absl::StatusOr<bool> found = Advance(section, Need::kHead, read);
    section.data = {};
    return found;
  }

  absl::StatusOr<bool> NextBatch(std::vector<CarSection>& sections) override {
    sections.clear();
    CarSection section;
    uint64_t read =
        std::clamp<uint64_t>(recent_bytes_ * kBatchSectionsAim, read_bytes_, window_bytes_max_);
    // Leaves are mostly equal: a window of whole sections leaves no tail to be moved.
    if (recent_bytes_ > 0 && recent_bytes_ < read) read -= read % recent_bytes_;
    ASSIGN_OR_RETURN(const bool found, Advance(section, Need::kWhole, read));
    if (!found) return false;
    sections.push_back(section);
    const uint64_t end = section.offset + read;  // only a window in memory reaches further
    while (sections.size() < kBatchSectionsMax && position_ < end) {
      const Span view = View();
      if (ParseHead(view, Left(), options_, section) != Head::kSection ||
          section.size() > view.size())
        break;
      Accept(section);
      sections.push_back(section);
    }
    return true;
  }

 private:
  enum class Need : uint8_t { kHead, kWhole };

  uint64_t Left() const { return header_.payload_size - position_; }

  // What the window holds from the position on.
  Span View() const {
    const uint64_t skip = position_ - window_start_;  // wraps to a huge number before the window
    return skip < window_.size() ? window_.subspan(skip) : Span();
  }

  void Accept(CarSection& section) {
    section.offset = position_;
    position_ += section.size();
    recent_bytes_ = (recent_bytes_ * 3 + section.size() + 3) / 4;
  }

  // Finds the next section; reads `read` bytes, or more if it needs them, when the window has too
  // few.
  absl::StatusOr<bool> Advance(CarSection& section, Need need, size_t read) {
    for (;;) {
      if (Left() == 0) return false;
      const Span view = View();
      const Head head = ParseHead(view, Left(), options_, section);
      if (head == Head::kSection) {
        if (need == Need::kHead || section.size() <= view.size()) {
          Accept(section);
          return true;
        }
        RETURN_IF_ERROR(Fill(std::max<uint64_t>(read, section.size())));
      } else if (head == Head::kShort) {
        // A second time around, `read` bytes are there and were too few.
        RETURN_IF_ERROR(Fill(view.size() < read ? read : kSectionHeadBytesMax));
      } else if (head == Head::kZero && options_.zero_length_as_end && !Mutant(kMutantPaddingIsDamage)) {
        ended_ = true;
        return false;
      } else {
        return HeadStatus(head, view, Left(), options_, position_);
      }
    }
  }

  // Makes the window begin at the position and hold `want` bytes, or all that the payload has left.
  absl::Status Fill(uint64_t want) {
    DAGSTORE_CHECK(!in_memory_ && want <= window_bytes_max_ + kSectionHeadBytesMax);
    want = std::min(want, Left());
    const Span kept = View();
    if (want > buffer_size_) {
      const size_t size =
          std::min({std::bit_ceil(want), std::max(want, window_bytes_max_), Left()});
      auto larger = std::make_unique_for_overwrite<uint8_t[]>(size);
      if (!kept.empty()) std::memcpy(larger.get(), kept.data(), kept.size());
      buffer_ = std::move(larger);
      buffer_size_ = size;
    } else if (!kept.empty()) {
      std::memmove(buffer_.get(), kept.data(), kept.size());
    }
    window_start_ = position_;
    window_ = {buffer_.get(), kept.size()};
    if (kept.size() >= want) return absl::OkStatus();
    RETURN_IF_ERROR(source_.Read(header_.payload_offset + position_ + kept.size(),
                                 want - kept.size(), buffer_.get() + kept.size()));
    window_ = {buffer_.get(), want};
    return absl::OkStatus();
  }

  const RandomReader& source_;
  const CarOptions options_;
  const CarHeader header_;
  const bool in_memory_;
  const size_t read_bytes_;  // of Next and NextBatch
  const uint64_t window_bytes_max_;

  // [window_start_, + window_.size()) of the payload; in buffer_, or in the source's memory.
  Span window_;
  uint64_t window_start_ = 0;
  std::unique_ptr<uint8_t[]> buffer_;
  size_t buffer_size_ = 0;

  uint64_t position_;
  uint64_t recent_bytes_ = 0;  // a short running mean of section sizes, rounded up
  bool ended_ = false;         // by a zero-length section
};

}  // namespace

absl::StatusOr<std::unique_ptr<CarReader>> CarReader::Open(const RandomReader& source,
                                                           const CarOptions& options) {
  if (options.section_bytes_max > kSectionBytesLimit) {
    return InvalidArgument("section_bytes_max is {}, above the limit of {}",
                           options.section_bytes_max, kSectionBytesLimit);
  }
  CarHeader header;
  header.payload_size = source.Size();
  if (header.payload_size == 0) return DataLoss("CAR file is empty");
  std::array<uint8_t, kCarV2Pragma.size()> first{};
  if (source.Size() >= first.size()) RETURN_IF_ERROR(source.Read(0, first.size(), first.data()));
  if (first == kCarV2Pragma) RETURN_IF_ERROR(ReadV2Header(source, header));
  RETURN_IF_ERROR(ReadPayloadHeader(source, options, header));
  return std::make_unique<Reader>(source, options, std::move(header));
}

absl::Status ParseSection(Span bytes, uint64_t bytes_after, const CarOptions& options,
                          CarSection& section) {
  DAGSTORE_CHECK(bytes.size() <= bytes_after && options.section_bytes_max <= kSectionBytesLimit);
  const Head head = ParseHead(bytes, bytes_after, options, section);
  return HeadStatus(head, bytes, bytes_after, options, section.offset);
}

}  // namespace dagstore
