#include "index/top_run.h"

#include <bit>

#include "base/crc32c.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// See docs/format.md#top-level-index.
constexpr uint8_t kMagic[8] = {'d', 'a', 'g', 't', 'o', 'p', 'r', 'n'};
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 4096;  // a page, so that the directory begins on one
constexpr uint64_t kPage = 4096;
constexpr size_t kTailBytes = 8;  // zeros after the entries: an entry is loaded as eight bytes

constexpr size_t kAtVersion = 8;
constexpr size_t kAtKeyBits = 12;
constexpr size_t kAtBucketBits = 13;
constexpr size_t kAtRemainderBytes = 14;
constexpr size_t kAtOrdinalBytes = 15;
constexpr size_t kAtNumber = 16;
constexpr size_t kAtEntries = 24;
constexpr size_t kAtOrdinalMin = 32;
constexpr size_t kAtOrdinalMax = 36;
constexpr size_t kAtChecksumsCrc = 40;
constexpr size_t kAtRange = 44;  // 0: all keys
constexpr size_t kAtHeaderCrc = 60;

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }
uint64_t Chunks(uint64_t bytes) { return (bytes + kRunChunkBytes - 1) / kRunChunkBytes; }

}  // namespace

RunLayout RunLayout::For(uint64_t entries_expected, bool single_ordinal, KeyRange range) {
  RunLayout layout;
  layout.range_bits = range.bits;
  // The power of two nearest to an eighth: 5.7 to 11.3 entries a bucket (181 / 1024 = sqrt(2) / 8).
  const uint64_t buckets = entries_expected * 181 / 1024;
  layout.bucket_bits = buckets == 0 ? 0 : static_cast<int>(std::bit_width(buckets)) - 1;
  layout.remainder_bytes = (layout.remainder_bits() + 7) / 8;
  layout.ordinal_bytes = single_ordinal ? 0 : 4;
  return layout;
}

uint64_t RunLayout::entries_offset() const { return RoundUp(kHeaderBytes + 4 * (buckets() + 1), kPage); }

uint64_t RunLayout::checksums_offset(uint64_t entries) const {
  return RoundUp(entries_offset() + entries * entry_bytes() + kTailBytes, 8);
}

uint64_t RunLayout::file_size(uint64_t entries) const {
  const uint64_t checksums = checksums_offset(entries);
  return checksums + 4 * (Chunks(entries_offset() - kHeaderBytes) + Chunks(checksums - entries_offset()));
}

absl::StatusOr<std::shared_ptr<const TopRun>> TopRun::Open(std::unique_ptr<RandomFile> file, const RunInfo* expected) {
  std::shared_ptr<TopRun> run(new TopRun());
  if (file->Size() < kHeaderBytes) return DataLoss("top-level run of {} bytes has no header", file->Size());
  ASSIGN_OR_RETURN(run->bytes_, file->Map());
  if (run->bytes_.empty()) {
    // No mapping on this kind of file system: an index of our own, no larger than what was written here.
    run->memory_.resize(file->Size());
    RETURN_IF_ERROR(file->Read(0, run->memory_.size(), run->memory_.data()));
    run->bytes_ = run->memory_;
  }
  run->file_ = std::move(file);
  RETURN_IF_ERROR(run->Load(expected));
  return run;
}

absl::StatusOr<std::shared_ptr<const TopRun>> TopRun::FromMemory(Bytes bytes) {
  std::shared_ptr<TopRun> run(new TopRun());
  run->memory_ = std::move(bytes);
  run->bytes_ = run->memory_;
  RETURN_IF_ERROR(run->Load(nullptr));
  return run;
}

absl::Status TopRun::Load(const RunInfo* expected) {
  if (bytes_.size() < kHeaderBytes || !SameBytes(bytes_.first(sizeof(kMagic)), kMagic))
    return DataLoss("not a top-level run");
  const uint8_t* const header = bytes_.data();
  info_.header_crc = Load32(header + kAtHeaderCrc);
  if (Crc32c(bytes_.first(kAtHeaderCrc)) != info_.header_crc)
    return DataLoss("the checksum of a top-level run's header differs");
  if (Load32(header + kAtVersion) != kVersion || header[kAtKeyBits] != kRunKeyBits)
    return FailedPrecondition("top-level run of version {}: this build reads {}", Load32(header + kAtVersion),
                              kVersion);
  info_.number = Load64(header + kAtNumber);
  info_.entries = Load64(header + kAtEntries);
  info_.ordinal_min = Load32(header + kAtOrdinalMin);
  info_.ordinal_max = Load32(header + kAtOrdinalMax);
  if (!KeyRange::Unpack(Load32(header + kAtRange), info_.range))
    return DataLoss("top-level run {} names no range of keys", info_.number);
  if (expected != nullptr && !(info_ == *expected))
    return DataLoss("top-level run {} is not the one that is listed", expected->number);
  layout_.bucket_bits = header[kAtBucketBits];
  layout_.remainder_bytes = header[kAtRemainderBytes];
  layout_.ordinal_bytes = header[kAtOrdinalBytes];
  layout_.range_bits = info_.range.bits;
  if (layout_.bucket_bits > 32 || layout_.remainder_bytes != (layout_.remainder_bits() + 7) / 8 ||
      (layout_.ordinal_bytes != 0 && layout_.ordinal_bytes != 4) || info_.entries > kRunEntriesMax ||
      layout_.file_size(info_.entries) != bytes_.size())
    return DataLoss("top-level run {} of {} bytes does not fit its header", info_.number, bytes_.size());

  const uint64_t entries_at = layout_.entries_offset();
  const uint64_t checksums_at = layout_.checksums_offset(info_.entries);
  directory_region_ = bytes_.subspan(kHeaderBytes, entries_at - kHeaderBytes);
  entries_region_ = bytes_.subspan(entries_at, checksums_at - entries_at);
  const Span checksums = bytes_.subspan(checksums_at);
  if (Crc32c(checksums) != Load32(header + kAtChecksumsCrc))
    return DataLoss("the checksum table of top-level run {} is damaged", info_.number);
  for (size_t chunk = 0; chunk < Chunks(directory_region_.size()); ++chunk) {
    if (!ChunkMatches(directory_region_, chunk, checksums.data()))
      return DataLoss("the directory of top-level run {} is damaged", info_.number);
  }
  directory_ = directory_region_.data();
  entries_ = entries_region_.data();
  entry_checksums_ = checksums.data() + 4 * Chunks(directory_region_.size());
  // Checked here so that no lookup can leave the file.
  uint32_t position = 0;
  for (uint64_t bucket = 0; bucket <= layout_.buckets(); ++bucket) {
    const uint32_t next = Load32(directory_ + 4 * bucket);
    if (next < position || (bucket == 0 && next != 0))
      return DataLoss("the directory of top-level run {} is not ascending", info_.number);
    position = next;
  }
  if (position != info_.entries) return DataLoss("the directory of top-level run {} is not complete", info_.number);

  entry_bytes_ = layout_.entry_bytes();
  remainder_bytes_ = layout_.remainder_bytes;
  remainder_bits_ = layout_.remainder_bits();
  remainder_mask_ = remainder_bytes_ == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * remainder_bytes_)) - 1;
  key_mask_ = (uint64_t{1} << remainder_bits_) - 1;
  range_mask_ = (uint64_t{1} << (kRunKeyBits - info_.range.bits)) - 1;
  single_ordinal_ = layout_.ordinal_bytes == 0;
  checked_.reset(new std::atomic<uint64_t>[Chunks(entries_region_.size()) / 64 + 1]());
  return absl::OkStatus();
}

bool TopRun::ChunkMatches(Span region, size_t chunk, const uint8_t* checksums) const {
  const size_t begin = chunk * kRunChunkBytes;
  const Span bytes = region.subspan(begin, std::min(kRunChunkBytes, region.size() - begin));
  return Crc32c(bytes) == Load32(checksums + 4 * chunk);
}

bool TopRun::Verify(Range range) const {
  const size_t first = static_cast<size_t>(range.begin - entries_) / kRunChunkBytes;
  const size_t last = static_cast<size_t>(range.end - 1 - entries_) / kRunChunkBytes;
  for (size_t chunk = first; chunk <= last; ++chunk) {
    if (IsChecked(chunk)) continue;
    if (!ChunkMatches(entries_region_, chunk, entry_checksums_) && !Mutant(kMutantRunUnchecked)) {
      damaged_.store(true);
      return false;
    }
    checked_[chunk / 64].fetch_or(uint64_t{1} << (chunk % 64));
  }
  return true;
}

const uint8_t* TopRun::LowerBound(uint64_t wanted, Range range) const {
  size_t low = 0, high = static_cast<size_t>(range.end - range.begin) / entry_bytes_;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if ((Load64(range.begin + middle * entry_bytes_) & remainder_mask_) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return range.begin + low * entry_bytes_;
}

void TopRun::Cursor::Load() {
  valid_ = false;
  if (index_ == run_.info_.entries) return;
  while (Load32(run_.directory_ + 4 * (bucket_ + 1)) <= index_) {
    if (++bucket_ < run_.layout_.buckets()) continue;
    run_.damaged_.store(true);  // changed since it was checked: a failing disk or memory
    status_ = run_.DamagedStatus();
    return;
  }
  const uint8_t* const at = run_.entries_ + index_ * run_.entry_bytes_;
  if (at + run_.entry_bytes_ > verified_until_) {
    if (!run_.Verify({at, at + run_.entry_bytes_})) {
      status_ = run_.DamagedStatus();
      return;
    }
    const size_t last = static_cast<size_t>(at + run_.entry_bytes_ - 1 - run_.entries_) / kRunChunkBytes;
    verified_until_ = run_.entries_ + (last + 1) * kRunChunkBytes;
  }
  key_ = run_.info_.range.begin() | bucket_ << run_.remainder_bits_ | (Load64(at) & run_.remainder_mask_);
  ordinal_ = run_.OrdinalAt(at);
  valid_ = true;
}

double TopRun::DeadFraction(const OrdinalSet& dead) const {
  if (single_ordinal_) return dead.Contains(info_.ordinal_min) ? 1 : 0;
  // Keys are hashes, so neighbours are independent: 64 places of 32 entries cost as many page faults when cold.
  constexpr uint64_t kPlaces = 64, kPerPlace = 32;
  const uint64_t entries = info_.entries;
  const bool all = entries <= kPlaces * kPerPlace;
  uint64_t seen = 0, found = 0;
  for (uint64_t place = 0; place < (all ? 1 : kPlaces); ++place) {
    const uint64_t begin = entries / kPlaces * place;
    const uint64_t end = all ? entries : begin + kPerPlace;
    for (uint64_t index = begin; index < end; ++index, ++seen) {
      if (dead.Contains(OrdinalAt(entries_ + index * entry_bytes_))) ++found;
    }
  }
  return seen == 0 ? 1 : static_cast<double>(found) / static_cast<double>(seen);
}

absl::Status TopRun::CheckAll() const {
  for (size_t chunk = 0; chunk < Chunks(directory_region_.size()); ++chunk) {
    if (!ChunkMatches(directory_region_, chunk, entry_checksums_ - 4 * Chunks(directory_region_.size())))
      damaged_.store(true);
  }
  for (size_t chunk = 0; chunk < Chunks(entries_region_.size()); ++chunk) {
    if (!ChunkMatches(entries_region_, chunk, entry_checksums_)) damaged_.store(true);
  }
  return damaged() ? DamagedStatus() : absl::OkStatus();
}

absl::Status TopRun::DamagedStatus() const { return DataLoss("top-level run {} is damaged", info_.number); }

TopRunWriter::TopRunWriter(WritableFile& file, uint64_t number, uint64_t entries_expected, bool single_ordinal,
                           KeyRange range)
    : file_(file),
      number_(number),
      range_(range),
      layout_(RunLayout::For(entries_expected, single_ordinal, range)),
      directory_section_(file, kHeaderBytes),
      entry_section_(file, layout_.entries_offset()) {
  DAGSTORE_CHECK(entries_expected <= kRunEntriesMax);
}

absl::Status TopRunWriter::Section::Drain(size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  const Span out = Span(buffer_).first(bytes);
  for (size_t at = 0; at < bytes; at += kRunChunkBytes)
    checksums_.push_back(Crc32c(out.subspan(at, std::min(kRunChunkBytes, bytes - at))));
  RETURN_IF_ERROR(file_.WriteAt(offset_, out));
  offset_ += bytes;
  fill_ -= bytes;
  std::memmove(buffer_.data(), buffer_.data() + bytes, fill_);
  return absl::OkStatus();
}

absl::Status TopRunWriter::Section::Pad(uint64_t end_offset) {
  while (offset_ + fill_ < end_offset) {
    const size_t size = std::min<uint64_t>(kSlackBytes, end_offset - offset_ - fill_);
    std::memset(Reserve(), 0, size);
    RETURN_IF_ERROR(Advance(size));
  }
  return Drain(fill_);
}

absl::StatusOr<RunInfo> TopRunWriter::Finish() {
  while (next_bucket_ <= layout_.buckets()) RETURN_IF_ERROR(EndBucket());
  RETURN_IF_ERROR(directory_section_.Pad(layout_.entries_offset()));
  const uint64_t checksums_at = layout_.checksums_offset(entries_);
  RETURN_IF_ERROR(entry_section_.Pad(checksums_at));
  Bytes checksums;
  for (const uint32_t crc : directory_section_.checksums()) Append32(checksums, crc);
  for (const uint32_t crc : entry_section_.checksums()) Append32(checksums, crc);
  RETURN_IF_ERROR(file_.WriteAt(checksums_at, checksums));

  RunInfo info{number_, entries_, entries_ == 0 ? 0 : ordinal_min_, ordinal_max_, 0, range_};
  Bytes header(kHeaderBytes);
  std::memcpy(header.data(), kMagic, sizeof(kMagic));
  Store32(&header[kAtVersion], kVersion);
  header[kAtKeyBits] = kRunKeyBits;
  header[kAtBucketBits] = static_cast<uint8_t>(layout_.bucket_bits);
  header[kAtRemainderBytes] = static_cast<uint8_t>(layout_.remainder_bytes);
  header[kAtOrdinalBytes] = static_cast<uint8_t>(layout_.ordinal_bytes);
  Store64(&header[kAtNumber], info.number);
  Store64(&header[kAtEntries], info.entries);
  Store32(&header[kAtOrdinalMin], info.ordinal_min);
  Store32(&header[kAtOrdinalMax], info.ordinal_max);
  Store32(&header[kAtChecksumsCrc], Crc32c(checksums));
  Store32(&header[kAtRange], range_.Packed());
  info.header_crc = Crc32c(Span(header).first(kAtHeaderCrc));
  Store32(&header[kAtHeaderCrc], info.header_crc);
  RETURN_IF_ERROR(file_.WriteAt(0, header));
  return info;
}

}  // namespace dagstore
