// ExtentMap: which parts of a partial copy are there. Kept beside the copy so that it survives a restart; format:
// docs/format.md#extent-map.
//
// The unit is a granule: 64 KiB, or more if the file would have more than a million of them, so that a map is small
// whatever the size. What it says is there was on disk before the map was written.
//
// Threads: a value; its owner locks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/reader.h"

namespace dagstore {

inline constexpr int kGranuleBitsMin = 16;
inline constexpr uint64_t kGranulesMax = 1 << 20;
inline constexpr uint64_t kExtentFileBytesMax = uint64_t{1} << 50;

// A place that gave bytes, and the version of them: only that version is ever asked for again.
struct ExtentSource {
  uint64_t id = 0;             // of the location: a hash of its URL
  std::string validator = {};  // not empty

  friend bool operator==(const ExtentSource&, const ExtentSource&) = default;
};

class ExtentMap {
 public:
  ExtentMap() = default;
  // Nothing is there. `file_bytes` is at most kExtentFileBytesMax.
  explicit ExtentMap(uint64_t file_bytes);

  uint64_t file_bytes() const { return file_bytes_; }
  uint64_t granules() const { return granules_; }
  uint64_t granule_bytes() const { return uint64_t{1} << bits_; }
  uint64_t GranuleOf(uint64_t offset) const { return offset >> bits_; }
  // The bytes of granules [first, end).
  ByteRange RangeOf(uint64_t first, uint64_t end) const;

  bool Has(uint64_t granule) const { return (words_[granule / 64] >> (granule % 64) & 1) != 0; }
  void Set(uint64_t granule, bool there);
  uint64_t there() const { return there_; }  // granules
  uint64_t BytesThere() const;
  bool Whole() const { return there_ == granules_; }

  std::vector<ExtentSource> sources = {};

  std::string Encode() const;
  // DataLoss if it is damaged; FailedPrecondition if newer than this program.
  static absl::StatusOr<ExtentMap> Decode(Span bytes);

  friend bool operator==(const ExtentMap&, const ExtentMap&) = default;

 private:
  uint64_t file_bytes_ = 0;
  uint64_t granules_ = 0;
  uint64_t there_ = 0;
  int bits_ = kGranuleBitsMin;
  std::vector<uint64_t> words_;
};

// An encoded map is never larger: every second granule there, and a few sources.
inline constexpr size_t kExtentMapBytesMax = 8 << 20;

}  // namespace dagstore
