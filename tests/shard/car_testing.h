// What the tests of CAR files share: sources that are not in memory, walks by each way of reading,
// small CARs by hand.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/reader.h"
#include "base/varint.h"
#include "shard/car_reader.h"
#include "tests/testing.h"

namespace dagstore {

// Bytes that are read like a file: no Memory(). Counts what is read.
class FileLikeReader final : public RandomReader {
 public:
  explicit FileLikeReader(Span bytes) : bytes_(bytes) {}
  uint64_t Size() const override { return bytes_.size(); }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    const size_t n = offset >= bytes_.size() ? 0 : std::min<uint64_t>(size, bytes_.size() - offset);
    if (n > 0) std::memcpy(out, bytes_.data() + offset, n);
    ++reads_;
    bytes_read_ += n;
    largest_ = std::max(largest_, size);
    return n;
  }
  uint64_t reads() const { return reads_; }
  uint64_t bytes_read() const { return bytes_read_; }
  size_t largest() const { return largest_; }

 private:
  const Span bytes_;
  mutable uint64_t reads_ = 0;
  mutable uint64_t bytes_read_ = 0;
  mutable size_t largest_ = 0;
};

enum class Way { kNext, kNextHead, kNextBatch };
inline constexpr Way kWays[] = {Way::kNext, Way::kNextHead, Way::kNextBatch};

// A section that outlives its reader.
struct SeenSection {
  uint64_t offset = 0;
  uint32_t head_size = 0;
  uint32_t data_size = 0;
  uint8_t version = 0;
  uint64_t codec = 0;
  uint64_t hash_code = 0;
  std::string cid = {};  // binary
  Bytes data = {};       // empty if read by NextHead

  // All but the data.
  friend bool operator==(const SeenSection& a, const SeenSection& b) {
    return a.offset == b.offset && a.head_size == b.head_size && a.data_size == b.data_size &&
           a.cid == b.cid && a.version == b.version && a.codec == b.codec &&
           a.hash_code == b.hash_code;
  }
};

// What one reader said about one source, from Open to the end or the first error.
struct Walk {
  absl::Status status = {};
  bool opened = false;
  CarHeader header = {};
  std::vector<SeenSection> sections = {};
  uint64_t position = 0;
  uint64_t padding = 0;
};

inline void Keep(const CarSection& section, std::vector<SeenSection>& out) {
  out.push_back({section.offset, section.head_size, section.data_size, section.cid.version,
                 section.cid.codec, section.cid.hash.code, std::string(AsText(section.cid.bytes)),
                 Bytes(section.data.begin(), section.data.end())});
}

// Reads once, in the way given. False at the end.
inline absl::StatusOr<bool> Step(CarReader& reader, Way way, std::vector<SeenSection>& out) {
  if (way == Way::kNextBatch) {
    std::vector<CarSection> batch;
    ASSIGN_OR_RETURN(const bool found, reader.NextBatch(batch));
    CHECK_EQ(found, !batch.empty());
    for (const CarSection& section : batch) Keep(section, out);
    return found;
  }
  CarSection section;
  ASSIGN_OR_RETURN(const bool found,
                   way == Way::kNext ? reader.Next(section) : reader.NextHead(section));
  if (found) {
    Keep(section, out);
    if (way == Way::kNextHead) CHECK(section.data.empty());
  }
  return found;
}

inline Walk WalkCar(const RandomReader& source, Way way, const CarOptions& options = {}) {
  Walk walk;
  auto reader = CarReader::Open(source, options);
  if (!reader.ok()) {
    walk.status = reader.status();
    return walk;
  }
  walk.opened = true;
  walk.header = (*reader)->header();
  for (;;) {
    const absl::StatusOr<bool> found = Step(**reader, way, walk.sections);
    if (!found.ok()) walk.status = found.status();
    if (!found.ok() || !*found) break;
  }
  walk.position = (*reader)->position();
  walk.padding = (*reader)->padding();
  return walk;
}

inline Bytes Hex(std::string_view text) { return ValueOf(FromHex(text)); }

inline Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) AppendBytes(out, part);
  return out;
}

// `body` after its length.
inline Bytes Framed(const Bytes& body) {
  Bytes out;
  AppendVarint(out, body.size());
  AppendBytes(out, body);
  return out;
}

// {"roots": [], "version": 1}, with its length.
inline Bytes RootlessHeader() { return Hex("11a265726f6f7473806776657273696f6e01"); }

// CIDv1, raw, sha2-256, 36 bytes; the digest is 32 times `fill`.
inline Bytes RawCid(uint8_t fill) {
  Bytes out = {0x01, 0x55, 0x12, 0x20};
  out.resize(36, fill);
  return out;
}

}  // namespace dagstore
