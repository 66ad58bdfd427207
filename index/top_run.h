// TopRun: one immutable sorted run of the top-level index, read in place from a mapping; and its writer.
// Format: docs/format.md#top-level-index.
//
// A bucket directory by the upper key bits, then entries of 4 bytes of key remainder and 4 bytes of ordinal: a lookup
// touches one line of the directory and one or two of the entries. A run may have a filter: a key that is not there
// costs one line of it. A key with many ordinals has lists of them instead of entries. Runs are lossless in the key, so
// that a merge of runs with few buckets can make one with many: the fewer the buckets, the wider the remainder.
//
// Memory: directory (packed, about 0.2 bytes an entry) and filter are resident as far as the budget goes. A run for
// which it is too small keeps the position of every 64th bucket (4 bytes for about 4.6 KB of entries), and a lookup
// reads what lies between two of them. Either way a lookup in a run costs one read of the disk at most, once its 64 KiB
// have been checked.
//
// Threads: a run is immutable; any thread. A writer belongs to one thread.
// Errors: header, checksum table, directory and filter are checked at open; entries at first use, 64 KiB at a time. A
// run in which anything differs is damaged from then on: it says so, and answers from it are not complete.
#pragma once

#include <absl/functional/function_ref.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "index/ordinal_set.h"
#include "index/resident.h"
#include "index/top_index.h"

namespace dagstore {

// What runs keep of a fingerprint: its upper bits, so that 2^19 buckets leave a remainder of four bytes.
using RunKey = uint64_t;
inline constexpr int kRunKeyBits = 51;
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
inline constexpr uint64_t kRunSlotsMax = UINT32_MAX - 1;  // positions in the directory are 32 bits wide
inline constexpr size_t kEntryOrdinalsMax = 64;           // of one key; a key with more has lists
inline constexpr size_t kListOrdinalsMax = 16 << 10;      // of one list, so that writing one takes little memory
inline constexpr size_t kFilterLineBytes = 64;
inline constexpr size_t kFilterKeyBits = 10;              // one key in a hundred that is not there passes

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

// The shape of a run, from how many slots it may fill: one for each entry, some for each list.
struct RunLayout {
  int bucket_bits = 0;
  int remainder_bytes = 0;
  int ordinal_bytes = 4;  // 0: one ordinal, named in the header
  int range_bits = 0;
  uint32_t filter_lines = 0;

  static RunLayout For(uint64_t slots_expected, bool single_ordinal, KeyRange range = {}, bool filter = false);
  uint64_t buckets() const { return uint64_t{1} << bucket_bits; }
  int remainder_bits() const { return kRunKeyBits - range_bits - bucket_bits; }
  size_t entry_bytes() const { return static_cast<size_t>(remainder_bytes) + static_cast<size_t>(ordinal_bytes); }
  uint64_t filter_offset() const;
  uint64_t entries_offset() const;
  uint64_t checksums_offset(uint64_t slots) const;
  uint64_t file_size(uint64_t slots) const;
};

// The filter: a key has one line, by its upper bits, and one bit in each of the line's eight words.
inline constexpr std::array<uint64_t, 8> kFilterMultipliers = {
    0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93,
    0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3};
inline int FilterBit(RunKey key, size_t word) { return static_cast<int>((key * kFilterMultipliers[word]) >> 58); }

class TopRun {
 public:
  // `expected`: what the manifest says, if it is asked. DataLoss if the file is not that run, whole.
  // `budget`: where directory and filter come out of; null: they are read where they are.
  static absl::StatusOr<std::shared_ptr<const TopRun>> Open(std::unique_ptr<RandomFile> file, const RunInfo* expected,
                                                            std::shared_ptr<ResidentBudget> budget = nullptr);
  static absl::StatusOr<std::shared_ptr<const TopRun>> FromMemory(Bytes bytes);
  ~TopRun();

  const RunInfo& info() const { return info_; }
  uint64_t slots() const { return slots_; }
  uint64_t lists() const { return lists_; }
  bool has_filter() const { return filter_ != nullptr; }
  uint64_t SizeBytes() const { return bytes_.size(); }
  bool damaged() const { return damaged_.load(std::memory_order_relaxed); }
  bool InRange(RunKey key) const { return info_.range.Contains(key); }

  // A list of ordinals, where entries would be. `end` is null if there is none.
  struct List {
    Ordinal first = 0;
    Ordinal last = 0;
    uint32_t left = 0;             // ordinals after `first`
    uint32_t slots = 0;            // that it takes
    const uint8_t* at = nullptr;   // of the next difference
    const uint8_t* end = nullptr;  // of the list
  };

  // A lookup in steps, so that many can wait for memory at once. For keys in its range.
  struct Range {
    const uint8_t* begin;
    const uint8_t* end;
  };
  void PrefetchFilter(RunKey key) const { __builtin_prefetch(filter_ + kFilterLineBytes * FilterLine(key)); }
  // False: it does not hold the key. For runs with a filter.
  bool FilterPasses(RunKey key) const {
    const uint8_t* const line = filter_ + kFilterLineBytes * FilterLine(key);
    uint64_t all = 1;
    for (size_t word = 0; word < kFilterMultipliers.size(); ++word)
      all &= Load64(line + 8 * word) >> FilterBit(key, word);
    return all != 0;
  }
  void PrefetchDirectory(RunKey key) const {
    const size_t bucket = Bucket(key);
    __builtin_prefetch(packed_ != nullptr ? packed_ + kPackedLineBytes * (bucket / kPackedBuckets)
                                          : directory_ + 4 * (bucket >> group_bits_));
  }
  Range PrefetchEntries(RunKey key) const {
    const size_t bucket = Bucket(key);
    uint32_t begin = 0, end = 0;
    if (packed_ == nullptr || !Unpack(bucket, begin, end)) {
      const uint8_t* slot = directory_ + 4 * (bucket >> group_bits_);
      begin = Load32(slot);
      end = Load32(slot + 4);
    }
    if (begin > end || end > slots_) {  // changed since it was checked: a failing disk or memory
      damaged_.store(true, std::memory_order_relaxed);
      return {entries_, entries_};
    }
    const Range range{entries_ + begin * entry_bytes_, entries_ + end * entry_bytes_};
    if (group_bits_ != 0) return range;  // read, not mapped
    // The usual bucket lies in one line or two, seldom in three.
    __builtin_prefetch(range.begin);
    __builtin_prefetch(range.end - 1);
    if (range.end - range.begin > 64) __builtin_prefetch(range.begin + 64);
    return range;
  }
  // Calls `visit(ordinal)` for each ordinal of `key` until it says false. False if the run is damaged there. A run that
  // keeps a part of its directory compares fewer bits of the key, still 45 at least.
  template <typename Visit>
  bool Scan(RunKey key, Range range, Visit visit) const {
    if (range.begin == range.end) return true;
    if (!plain_) {
      return Walk(key, range, 0, [&](Ordinal ordinal) { return visit(ordinal) ? kAllOrdinals : 0; });
    }
    if (!Verified(range) && !Verify(range)) return false;
    const uint64_t wanted = key & remainder_mask_;
    for (const uint8_t* at = range.begin; at != range.end; at += entry_bytes_) {
      const uint64_t remainder = Load64(at) & remainder_mask_;
      if (remainder < wanted) continue;
      if (remainder != wanted) break;
      if (!visit(OrdinalAt(at))) break;
    }
    return true;
  }
  // Calls `visit(ordinal)` for ordinals of `key` above `after` and below what `visit` returned last; lists that hold
  // none of those are passed over.
  static constexpr uint64_t kAllOrdinals = uint64_t{1} << 32;
  bool Walk(RunKey key, Range range, Ordinal after, absl::FunctionRef<uint64_t(Ordinal)> visit) const;

  // Pairs of key and ordinal in order. One thread; the run must outlive it.
  class Cursor {
   public:
    explicit Cursor(const TopRun& run, uint64_t bucket = 0) : run_(run), bucket_(bucket) {
      index_ = Load32(run.directory_region_.data() + 4 * bucket);
      Load();
    }
    bool valid() const { return valid_; }
    RunKey key() const { return key_; }
    Ordinal ordinal() const { return ordinal_; }
    bool in_list() const { return list_.end != nullptr; }  // of ordinals: more than entries would have
    void Next() {
      if (list_.left != 0) {
        NextOfList();
        return;
      }
      index_ += list_.end == nullptr ? 1 : list_.slots;
      Load();
    }
    // Not OK if the walk ended at damage.
    const absl::Status& status() const { return status_; }

   private:
    void Load();
    void NextOfList();
    bool Verified(const uint8_t* end);
    void Fail();

    const TopRun& run_;
    uint64_t index_ = 0;
    uint64_t bucket_ = 0;
    const uint8_t* verified_until_ = nullptr;
    List list_;
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
  static constexpr int kGroupBits = 6;  // of the buckets of which one position is kept, if all are too many
  // Buckets fill evenly, so positions are kept as what they are off a straight line, a byte each: a line of 64 bytes is
  // the position of its first bucket, and 60 of those. A quarter of the directory on disk, so it stays in the cache.
  static constexpr size_t kPackedLineBytes = 64;
  static constexpr size_t kPackedBuckets = 60;
  static constexpr uint32_t kPackedNot = UINT32_MAX;  // in place of the position: a line that is too uneven
  static constexpr size_t kGroupReadMax = 16 << 10;  // bytes that are read at once; what is longer is read in place

  TopRun() = default;
  absl::Status Load(const RunInfo* expected);
  void KeepResident();
  Bytes PackDirectory() const;
  // Where the bucket begins and ends. False if its line is not packed.
  bool Unpack(size_t bucket, uint32_t& begin, uint32_t& end) const {
    const uint8_t* const line = packed_ + kPackedLineBytes * (bucket / kPackedBuckets);
    const uint32_t first = Load32(line);
    if (first == kPackedNot) return false;
    const size_t i = bucket % kPackedBuckets;
    begin = i == 0 ? first : PackedEnd(line, first, i - 1);
    end = PackedEnd(line, first, i);
    return true;
  }
  uint32_t PackedEnd(const uint8_t* line, uint32_t first, size_t i) const {
    return first + static_cast<uint32_t>((i + 1) * slope_ >> 16) + line[4 + i] - 128;
  }
  size_t Bucket(RunKey key) const { return static_cast<size_t>((key & range_mask_) >> remainder_bits_); }
  size_t FilterLine(RunKey key) const {
    return static_cast<size_t>(((key << range_shift_ >> 32) * layout_.filter_lines) >> 32);
  }
  Ordinal OrdinalAt(const uint8_t* entry) const {
    return single_ordinal_ ? info_.ordinal_min : Load32(entry + remainder_bytes_);
  }
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
  // `at`: a slot that begins a list, in a bucket that ends at `limit`. False if it is no list.
  bool ReadList(const uint8_t* at, const uint8_t* limit, List& list) const;
  bool WalkSlots(RunKey key, Range range, Ordinal after, absl::FunctionRef<uint64_t(Ordinal)> visit) const;

  std::unique_ptr<RandomFile> file_;  // keeps the mapping
  Bytes memory_;
  Span bytes_;
  std::shared_ptr<ResidentBudget> budget_;
  uint64_t budget_taken_ = 0;
  ResidentBytes resident_directory_, resident_filter_;

  RunInfo info_;
  RunLayout layout_;
  uint64_t slots_ = 0;
  uint64_t lists_ = 0;
  Span directory_region_, filter_region_, entries_region_;
  const uint8_t* directory_ = nullptr;  // all positions, or those of groups
  const uint8_t* packed_ = nullptr;     // or null
  uint64_t slope_ = 0;                  // slots of a bucket, in the mean, times 2^16
  int group_bits_ = 0;
  const uint8_t* filter_ = nullptr;
  const uint8_t* entries_ = nullptr;
  const uint8_t* entry_checksums_ = nullptr;
  size_t entry_bytes_ = 0;
  int remainder_bytes_ = 0;
  int remainder_bits_ = 0;
  int range_shift_ = 0;          // puts the first key bit below the range's on top
  uint64_t remainder_mask_ = 0;  // of the bytes stored
  uint64_t key_mask_ = 0;        // of the key bits below the bucket's
  uint64_t range_mask_ = 0;      // of the key bits below the range's
  bool single_ordinal_ = false;
  bool plain_ = false;  // no lists, and the whole directory: what most lookups are made for

  mutable std::unique_ptr<std::atomic<uint64_t>[]> checked_;  // a bit for each chunk of entries
  mutable std::atomic<bool> damaged_{false};
};

// Writes a run: pairs in order, then Finish. Memory: four buffers of 256 KiB, and a list of 80 KiB at most.
class TopRunWriter {
 public:
  // About `slots_expected` will be filled; it decides the shape. The file must outlive the writer.
  TopRunWriter(WritableFile& file, uint64_t number, uint64_t slots_expected, bool single_ordinal, KeyRange range = {},
               bool filter = false);

  // Ascending by (key, ordinal), no repeats, within the range.
  absl::Status Append(RunKey key, Ordinal ordinal) {
    if (key != key_ || pending_ == 0) {
      if (pending_ != 0) RETURN_IF_ERROR(EndKey());
      key_ = key;
    }
    ++entries_;
    ordinal_min_ = std::min(ordinal_min_, ordinal);
    ordinal_max_ = std::max(ordinal_max_, ordinal);
    if (pending_ == kEntryOrdinalsMax) return AppendToList(ordinal);
    ordinals_[pending_++] = ordinal;
    return absl::OkStatus();
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
    absl::Status Append(Span bytes);
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
    Store32(directory_section_.Reserve(), static_cast<uint32_t>(slots_));
    ++next_bucket_;
    return directory_section_.Advance(4);
  }
  // Directory and filter up to the key.
  absl::Status BeginKey();
  absl::Status EndKey();
  absl::Status EndFilterLine();
  absl::Status AppendToList(Ordinal ordinal);
  absl::Status EndList();

  WritableFile& file_;
  const uint64_t number_;
  const KeyRange range_;
  const RunLayout layout_;
  Section directory_section_;
  Section filter_section_;
  Section entry_section_;
  uint64_t next_bucket_ = 0;  // whose first position is written next
  uint64_t entries_ = 0;
  uint64_t slots_ = 0;
  uint64_t lists_ = 0;
  Ordinal ordinal_min_ = UINT32_MAX;
  Ordinal ordinal_max_ = 0;

  // The key whose ordinals come.
  RunKey key_ = 0;
  size_t pending_ = 0;  // ordinals that wait; kEntryOrdinalsMax of them: lists may have begun
  std::array<Ordinal, kEntryOrdinalsMax> ordinals_;
  bool listing_ = false;
  Bytes list_;  // differences
  Ordinal list_first_ = 0;
  Ordinal list_last_ = 0;
  uint32_t list_count_ = 0;

  uint64_t filter_line_ = 0;  // that is being filled
  std::array<uint64_t, kFilterMultipliers.size()> filter_words_ = {};
};

}  // namespace dagstore
