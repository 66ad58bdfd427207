// ExtentMap: which parts of a partial copy are there, and their checksums. Kept beside the copy so that it survives a
// restart; format: docs/format.md#extent-map.
//
// The unit is a granule: 64 KiB, or more if the file would have more than a million of them, so that a map is small
// whatever the size. What it says is there was on disk before the map was written; whether it still is what it was, its
// checksum says (CRC-32C: against rot, not against people).
//
// Threads: a value; its owner locks, for reading too.
#pragma once

#include <absl/functional/function_ref.h>

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
  // It is there, with this checksum. Takes up to half a millisecond if it is not the last one.
  void Set(uint64_t granule, uint32_t sum);
  void Clear(uint64_t granule);
  uint32_t SumOf(uint64_t granule) const;  // of one that is there
  uint64_t there() const { return sums_.size(); }  // granules
  uint64_t BytesThere() const;
  bool Whole() const { return there() == granules_; }

  std::vector<ExtentSource> sources = {};

  std::string Encode() const;
  // DataLoss if it is damaged, or so old that it has no checksums; FailedPrecondition if newer than this program.
  static absl::StatusOr<ExtentMap> Decode(Span bytes);

  friend bool operator==(const ExtentMap& a, const ExtentMap& b) {
    return a.file_bytes_ == b.file_bytes_ && a.words_ == b.words_ && a.sums_ == b.sums_ && a.sources == b.sources;
  }

 private:
  // How many there are before it. Fast for the one after the last that was asked for.
  size_t RankOf(uint64_t granule) const;

  uint64_t file_bytes_ = 0;
  uint64_t granules_ = 0;
  int bits_ = kGranuleBitsMin;
  std::vector<uint64_t> words_;
  std::vector<uint32_t> sums_;  // of those that are there, in their order
  mutable uint64_t counted_words_ = 0;  // RankOf knows how many are in the words before this one
  mutable size_t counted_ = 0;
};

// An encoded map is never larger: every granule there, or every second, and a few sources.
inline constexpr size_t kExtentMapBytesMax = 8 << 20;

// Checksums of whole granules, of bytes that come in order; they may begin again at the start of a granule.
class GranuleSums {
 public:
  GranuleSums(uint64_t granule_bytes, uint64_t file_bytes) : granule_bytes_(granule_bytes), file_bytes_(file_bytes) {}
  // The first call begins at the start of a granule. `whole` is told of each granule of which all has come.
  void Add(uint64_t at, Span bytes, absl::FunctionRef<void(uint64_t granule, uint32_t sum)> whole);

 private:
  const uint64_t granule_bytes_;
  const uint64_t file_bytes_;
  uint32_t sum_ = 0;  // of the granule that is coming
};

}  // namespace dagstore
