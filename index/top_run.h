// TopRun: one immutable sorted run of the top-level index, read in place from a mapping; and its writer.
// Format: docs/format.md#top-level-index.
//
// A bucket directory by the upper key bits, then entries of 5 bytes of key remainder and 4 bytes of ordinal: a lookup
// touches one line of the directory and one or two of the entries. Runs are lossless in the key, so that a merge of
// runs with few buckets can make one with many: the fewer the buckets, the wider the remainder.
//
// Threads: a run is immutable; any thread. A writer belongs to one thread.
// Errors: header, checksum table and directory are checked at open; entries at first use, 64 KiB at a time. A run in
// which anything differs is damaged from then on: it says so, and answers from it are not complete.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "index/ordinal_set.h"
#include "index/top_index.h"

namespace dagstore {

// What runs keep of a fingerprint: its upper bits, so that 2^19 buckets leave a remainder of five bytes.
using RunKey = uint64_t;
inline constexpr int kRunKeyBits = 59;
inline RunKey RunKeyOf(Fingerprint fingerprint) { return fingerprint >> (64 - kRunKeyBits); }

// The part of the keys that a run may hold: those whose upper `bits` bits are `index`. Small runs hold all of them;
// large ones a part, so that a merge never needs much more space than its part takes.
struct KeyRange {
  uint8_t bits = 0;
  uint32_t index = 0;

  static constexpr int kBitsMax = 16;
  bool Contains(RunKey key) const { return key >> (kRunKeyBits - bits) == index; }
  RunKey begin() const { return RunKey{index} << (kRunKeyBits - bits); }
  RunKey end() const { return (RunKey{index} + 1) << (kRunKeyBits - bits); }
  // As stored: 0 for all keys.
  uint32_t Packed() const { return uint32_t{bits} << 24 | index; }
  static bool Unpack(uint32_t packed, KeyRange& range) {
    range = {static_cast<uint8_t>(packed >> 24), packed & 0xffffff};
    return range.bits <= kBitsMax && range.index >> range.bits == 0;
  }
  friend auto operator<=>(const KeyRange&, const KeyRange&) = default;
};

struct RunEntry {
  RunKey key;
  Ordinal ordinal;
};
// By (key, ordinal). Fast where a bucket has its usual handful of entries.
void SortSmall(RunEntry* begin, RunEntry* end);

inline constexpr size_t kRunChunkBytes = 64 << 10;  // per checksum
inline constexpr uint64_t kRunEntriesMax = UINT32_MAX - 1;  // positions in the directory are 32 bits wide

// What the manifest says of a run.
struct RunInfo {
  uint64_t number = 0;  // names the file; never reused
  uint64_t entries = 0;
  Ordinal ordinal_min = 0;
  Ordinal ordinal_max = 0;
  uint32_t header_crc = 0;  // ties the listed run to the file: a header names the checksums of all the rest
  KeyRange range = {};

  friend bool operator==(const RunInfo&, const RunInfo&) = default;
};

// The shape of a run, from how many entries it may hold.
struct RunLayout {
  int bucket_bits = 0;
  int remainder_bytes = 0;
  int ordinal_bytes = 4;  // 0: one ordinal, named in the header
  int range_bits = 0;

  static RunLayout For(uint64_t entries_expected, bool single_ordinal, KeyRange range = {});
  uint64_t buckets() const { return uint64_t{1} << bucket_bits; }
  int remainder_bits() const { return kRunKeyBits - range_bits - bucket_bits; }
  size_t entry_bytes() const { return static_cast<size_t>(remainder_bytes + ordinal_bytes); }
  uint64_t entries_offset() const;
  uint64_t checksums_offset(uint64_t entries) const;
  uint64_t file_size(uint64_t entries) const;
};

class TopRun {
 public:
  // `expected`: what the manifest says, if it is asked. DataLoss if the file is not that run, whole.
  static absl::StatusOr<std::shared_ptr<const TopRun>> Open(std::unique_ptr<RandomFile> file, const RunInfo* expected);
  static absl::StatusOr<std::shared_ptr<const TopRun>> FromMemory(Bytes bytes);

  const RunInfo& info() const { return info_; }
  uint64_t SizeBytes() const { return bytes_.size(); }
  bool damaged() const { return damaged_.load(std::memory_order_relaxed); }
  bool MayHold(RunKey key) const { return info_.range.Contains(key); }

  // A lookup in three steps, so that many can wait for memory at once. For keys that it may hold.
  struct Range {
    const uint8_t* begin;
    const uint8_t* end;
  };
  void PrefetchDirectory(RunKey key) const { __builtin_prefetch(directory_ + 4 * Bucket(key)); }
  Range PrefetchEntries(RunKey key) const {
    const uint8_t* slot = directory_ + 4 * Bucket(key);
    const uint32_t begin = Load32(slot), end = Load32(slot + 4);
    if (begin > end || end > info_.entries) {  // changed since it was checked: a failing disk or memory
      damaged_.store(true, std::memory_order_relaxed);
      return {entries_, entries_};
    }
    const Range range{entries_ + begin * entry_bytes_, entries_ + end * entry_bytes_};
    __builtin_prefetch(range.begin);
    if (range.end - range.begin > 64) __builtin_prefetch(range.begin + 64);
    return range;
  }
  // Calls `visit(ordinal)` for each entry of `key`. False if the run is damaged there.
  template <typename Visit>
  bool Scan(RunKey key, Range range, Visit visit) const {
    if (range.begin == range.end) return true;
    if (!Verified(range) && !Verify(range)) return false;
    const uint64_t wanted = key & key_mask_;
    const uint8_t* at = range.begin;
    if (range.end - range.begin > static_cast<ptrdiff_t>(kLinearEntries * entry_bytes_)) at = LowerBound(wanted, range);
    for (; at != range.end; at += entry_bytes_) {
      const uint64_t remainder = Load64(at) & remainder_mask_;
      if (remainder < wanted) continue;
      if (remainder != wanted) break;
      visit(OrdinalAt(at));
    }
    return true;
  }

  // The entries in order. One thread; the run must outlive it.
  class Cursor {
   public:
    explicit Cursor(const TopRun& run) : run_(run) { Load(); }
    bool valid() const { return valid_; }
    RunKey key() const { return key_; }
    Ordinal ordinal() const { return ordinal_; }
    void Next() {
      ++index_;
      Load();
    }
    // Not OK if the walk ended at damage.
    const absl::Status& status() const { return status_; }

   private:
    void Load();

    const TopRun& run_;
    uint64_t index_ = 0;
    uint64_t bucket_ = 0;
    const uint8_t* verified_until_ = nullptr;
    bool valid_ = false;
    RunKey key_ = 0;
    Ordinal ordinal_ = 0;
    absl::Status status_;
  };

  // The part of a sample of entries that belongs to ordinals in `dead`; exact for small runs and for single ordinals.
  double DeadFraction(const OrdinalSet& dead) const;
  // Reads everything, whatever was checked before.
  absl::Status CheckAll() const;
  absl::Status DamagedStatus() const;

 private:
  static constexpr size_t kLinearEntries = 32;  // a bucket has 6 to 11; longer ones hold keys with many ordinals

  TopRun() = default;
  absl::Status Load(const RunInfo* expected);
  size_t Bucket(RunKey key) const { return static_cast<size_t>((key & range_mask_) >> remainder_bits_); }
  Ordinal OrdinalAt(const uint8_t* entry) const {
    return single_ordinal_ ? info_.ordinal_min : Load32(entry + remainder_bytes_);
  }
  const uint8_t* LowerBound(uint64_t wanted, Range range) const;
  bool Verified(Range range) const {
    const size_t first = static_cast<size_t>(range.begin - entries_) / kRunChunkBytes;
    const size_t last = static_cast<size_t>(range.end - 1 - entries_) / kRunChunkBytes;
    return IsChecked(first) && (first == last || (first + 1 == last && IsChecked(last)));
  }
  bool IsChecked(size_t chunk) const {
    return (checked_[chunk / 64].load(std::memory_order_relaxed) >> (chunk % 64) & 1) != 0;
  }
  // Checks the chunks of `range` that were not checked before; marks the run as damaged and says false if one differs.
  bool Verify(Range range) const;
  bool ChunkMatches(Span region, size_t chunk, const uint8_t* checksums) const;

  std::unique_ptr<RandomFile> file_;  // keeps the mapping
  Bytes memory_;
  Span bytes_;

  RunInfo info_;
  RunLayout layout_;
  Span directory_region_, entries_region_;
  const uint8_t* directory_ = nullptr;
  const uint8_t* entries_ = nullptr;
  const uint8_t* entry_checksums_ = nullptr;
  size_t entry_bytes_ = 0;
  int remainder_bytes_ = 0;
  int remainder_bits_ = 0;
  uint64_t remainder_mask_ = 0;  // of the bytes stored
  uint64_t key_mask_ = 0;        // of the key bits below the bucket's
  uint64_t range_mask_ = 0;      // of the key bits below the range's
  bool single_ordinal_ = false;

  mutable std::unique_ptr<std::atomic<uint64_t>[]> checked_;  // a bit for each chunk of entries
  mutable std::atomic<bool> damaged_{false};
};

// Writes a run: entries in order, then Finish.
class TopRunWriter {
 public:
  // About `entries_expected` will come; it decides the shape. The file must outlive the writer.
  TopRunWriter(WritableFile& file, uint64_t number, uint64_t entries_expected, bool single_ordinal,
               KeyRange range = {});

  // Ascending by (key, ordinal), no repeats, within the range.
  absl::Status Append(RunKey key, Ordinal ordinal) {
    DAGSTORE_CHECK(entries_ < kRunEntriesMax);
    const uint64_t bucket = (key - range_.begin()) >> layout_.remainder_bits();
    while (next_bucket_ <= bucket) RETURN_IF_ERROR(EndBucket());
    uint8_t* const out = entry_section_.Reserve();
    Store64(out, key & ((uint64_t{1} << layout_.remainder_bits()) - 1));
    if (layout_.ordinal_bytes != 0) Store32(out + layout_.remainder_bytes, ordinal);
    ++entries_;
    ordinal_min_ = std::min(ordinal_min_, ordinal);
    ordinal_max_ = std::max(ordinal_max_, ordinal);
    return entry_section_.Advance(layout_.entry_bytes());
  }
  // Writes what is left and the header. The caller syncs and closes the file.
  absl::StatusOr<RunInfo> Finish();
  uint64_t entries() const { return entries_; }
  const RunLayout& layout() const { return layout_; }
  KeyRange range() const { return range_; }

 private:
  // Bytes of one region, written in large pieces, with a checksum for each chunk.
  class Section {
   public:
    Section(WritableFile& file, uint64_t offset) : file_(file), offset_(offset), buffer_(kBufferBytes + kSlackBytes) {}
    uint8_t* Reserve() { return buffer_.data() + fill_; }  // room for kSlackBytes
    absl::Status Advance(size_t bytes) {
      fill_ += bytes;
      return fill_ >= kBufferBytes ? Drain(kBufferBytes) : absl::OkStatus();
    }
    absl::Status Pad(uint64_t end_offset);  // zeros up to an offset in the file, then everything is written
    const std::vector<uint32_t>& checksums() const { return checksums_; }

   private:
    static constexpr size_t kBufferBytes = 4 * kRunChunkBytes;
    static constexpr size_t kSlackBytes = 64;
    absl::Status Drain(size_t bytes);

    WritableFile& file_;
    uint64_t offset_;
    Bytes buffer_;
    size_t fill_ = 0;
    std::vector<uint32_t> checksums_;
  };
  absl::Status EndBucket() {
    Store32(directory_section_.Reserve(), static_cast<uint32_t>(entries_));
    ++next_bucket_;
    return directory_section_.Advance(4);
  }

  WritableFile& file_;
  const uint64_t number_;
  const KeyRange range_;
  const RunLayout layout_;
  Section directory_section_;
  Section entry_section_;
  uint64_t next_bucket_ = 0;  // whose first position is written next
  uint64_t entries_ = 0;
  Ordinal ordinal_min_ = UINT32_MAX;
  Ordinal ordinal_max_ = 0;
};

}  // namespace dagstore
