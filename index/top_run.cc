#include "index/top_run.h"

#include <bit>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/varint.h"

namespace dagstore {
namespace {

// See docs/format.md#top-level-index.
constexpr uint8_t kMagic[8] = {'d', 'a', 'g', 't', 'o', 'p', 'r', 'n'};
constexpr uint32_t kVersion = 2;
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
constexpr size_t kAtSlots = 48;
constexpr size_t kAtLists = 52;
constexpr size_t kAtFilterLines = 56;
constexpr size_t kAtHeaderCrc = 60;

// Of a list, after the slot that begins it.
constexpr size_t kListHeadBytes = 16;
constexpr size_t kAtListSlots = 0;
constexpr size_t kAtListFirst = 4;
constexpr size_t kAtListLast = 8;
constexpr size_t kAtListCount = 12;

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }
uint64_t Chunks(uint64_t bytes) { return (bytes + kRunChunkBytes - 1) / kRunChunkBytes; }

}  // namespace

RunLayout RunLayout::For(uint64_t slots_expected, bool single_ordinal, KeyRange range, bool filter) {
  RunLayout layout;
  layout.range_bits = range.bits;
  // The power of two nearest to an eighth: 5.7 to 11.3 entries a bucket (181 / 1024 = sqrt(2) / 8).
  const uint64_t buckets = slots_expected * 181 / 1024;
  layout.bucket_bits = buckets == 0 ? 0 : static_cast<int>(std::bit_width(buckets)) - 1;
  layout.remainder_bytes = (layout.remainder_bits() + 7) / 8;
  layout.ordinal_bytes = single_ordinal ? 0 : 4;
  if (filter) layout.filter_lines = static_cast<uint32_t>(slots_expected * kFilterKeyBits / (8 * kFilterLineBytes) + 1);
  return layout;
}

uint64_t RunLayout::filter_offset() const { return RoundUp(kHeaderBytes + 4 * (buckets() + 1), kPage); }

uint64_t RunLayout::entries_offset() const {
  return RoundUp(filter_offset() + uint64_t{filter_lines} * kFilterLineBytes, kPage);
}

uint64_t RunLayout::checksums_offset(uint64_t slots) const {
  return RoundUp(entries_offset() + slots * entry_bytes() + kTailBytes, 8);
}

uint64_t RunLayout::file_size(uint64_t slots) const {
  const uint64_t checksums = checksums_offset(slots);
  return checksums + 4 * (Chunks(filter_offset() - kHeaderBytes) + Chunks(entries_offset() - filter_offset()) +
                          Chunks(checksums - entries_offset()));
}

absl::StatusOr<std::shared_ptr<const TopRun>> TopRun::Open(std::unique_ptr<RandomFile> file, const RunInfo* expected,
                                                           std::shared_ptr<ResidentBudget> budget) {
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
  run->budget_ = std::move(budget);
  if (run->budget_ != nullptr && run->memory_.empty()) run->KeepResident();
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
  // Derived data: what an older build wrote is made again.
  if (Load32(header + kAtVersion) < kVersion)
    return DataLoss("top-level run of version {}: {} is written now", Load32(header + kAtVersion), kVersion);
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
  layout_.filter_lines = Load32(header + kAtFilterLines);
  slots_ = Load32(header + kAtSlots);
  lists_ = Load32(header + kAtLists);
  if (layout_.bucket_bits > 32 || layout_.remainder_bytes != (layout_.remainder_bits() + 7) / 8 ||
      (layout_.ordinal_bytes != 0 && layout_.ordinal_bytes != 4) || slots_ > kRunSlotsMax ||
      layout_.file_size(slots_) != bytes_.size())
    return DataLoss("top-level run {} of {} bytes does not fit its header", info_.number, bytes_.size());

  const uint64_t filter_at = layout_.filter_offset();
  const uint64_t entries_at = layout_.entries_offset();
  const uint64_t checksums_at = layout_.checksums_offset(slots_);
  directory_region_ = bytes_.subspan(kHeaderBytes, filter_at - kHeaderBytes);
  filter_region_ = bytes_.subspan(filter_at, entries_at - filter_at);
  entries_region_ = bytes_.subspan(entries_at, checksums_at - entries_at);
  const Span checksums = bytes_.subspan(checksums_at);
  if (Crc32c(checksums) != Load32(header + kAtChecksumsCrc))
    return DataLoss("the checksum table of top-level run {} is damaged", info_.number);
  const uint8_t* expected_crc = checksums.data();
  for (const Span region : {directory_region_, filter_region_}) {
    for (size_t chunk = 0; chunk < Chunks(region.size()); ++chunk) {
      if (!ChunkMatches(region, chunk, expected_crc))
        return DataLoss("the directory of top-level run {} is damaged", info_.number);
    }
    expected_crc += 4 * Chunks(region.size());
  }
  directory_ = directory_region_.data();
  filter_ = filter_region_.empty() ? nullptr : filter_region_.data();
  entries_ = entries_region_.data();
  entry_checksums_ = expected_crc;
  // Checked here so that no lookup can leave the file.
  uint32_t position = 0;
  for (uint64_t bucket = 0; bucket <= layout_.buckets(); ++bucket) {
    const uint32_t next = Load32(directory_ + 4 * bucket);
    if (next < position || (bucket == 0 && next != 0))
      return DataLoss("the directory of top-level run {} is not ascending", info_.number);
    position = next;
  }
  if (position != slots_) return DataLoss("the directory of top-level run {} is not complete", info_.number);

  entry_bytes_ = layout_.entry_bytes();
  remainder_bytes_ = layout_.remainder_bytes;
  remainder_bits_ = layout_.remainder_bits();
  remainder_mask_ = remainder_bytes_ == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * remainder_bytes_)) - 1;
  key_mask_ = (uint64_t{1} << remainder_bits_) - 1;
  range_mask_ = (uint64_t{1} << (kRunKeyBits - info_.range.bits)) - 1;
  range_shift_ = 64 - kRunKeyBits + info_.range.bits;
  single_ordinal_ = layout_.ordinal_bytes == 0;
  plain_ = lists_ == 0;
  slope_ = (slots_ << 16) >> layout_.bucket_bits;  // per bucket
  checked_ = std::make_unique<std::atomic<uint64_t>[]>(Chunks(entries_region_.size()) / 64 + 1);
  return absl::OkStatus();
}

TopRun::~TopRun() {
  if (budget_ != nullptr) budget_->Return(budget_taken_);
}

void TopRun::KeepResident() {
  const auto take = [&](uint64_t bytes) {
    if (!budget_->Take(bytes)) return false;
    budget_taken_ += bytes;
    return true;
  };
  const uint64_t lines = layout_.buckets() / kPackedBuckets + 1;
  if (take(lines * kPackedLineBytes)) {
    resident_directory_ = ResidentBytes(PackDirectory());
    packed_ = resident_directory_.data();
    if (filter_ != nullptr && take(filter_region_.size())) {
      resident_filter_ = ResidentBytes(filter_region_);
      filter_ = resident_filter_.data();
    } else {
      filter_ = nullptr;  // on disk it would cost as much as the entries
    }
    return;
  }
  filter_ = nullptr;
  // A 64th of it: needed, so not out of the budget.
  group_bits_ = kGroupBits;
  plain_ = false;
  Bytes groups;
  for (uint64_t bucket = 0; bucket < layout_.buckets(); bucket += uint64_t{1} << kGroupBits)
    Append32(groups, Load32(directory_region_.data() + 4 * bucket));
  Append32(groups, static_cast<uint32_t>(slots_));
  resident_directory_ = ResidentBytes(groups);
  directory_ = resident_directory_.data();
}

Bytes TopRun::PackDirectory() const {
  const uint64_t buckets = layout_.buckets();
  const auto position = [&](uint64_t bucket) { return Load32(directory_region_.data() + 4 * bucket); };
  Bytes packed((buckets / kPackedBuckets + 1) * kPackedLineBytes);
  for (uint64_t begin = 0; begin < buckets; begin += kPackedBuckets) {
    uint8_t* const line = packed.data() + begin / kPackedBuckets * kPackedLineBytes;
    const uint32_t first = position(begin);
    Store32(line, first);
    for (size_t i = 0; i < kPackedBuckets && begin + i < buckets; ++i) {
      const int64_t off = int64_t{position(begin + i + 1)} - first - static_cast<int64_t>((i + 1) * slope_ >> 16) + 128;
      if (off < 0 || off > UINT8_MAX) Store32(line, kPackedNot);  // a popular key, most likely
      line[4 + i] = static_cast<uint8_t>(off);
    }
  }
  return packed;
}

bool TopRun::ChunkMatches(Span region, size_t chunk, const uint8_t* checksums) const {
  const size_t begin = chunk * kRunChunkBytes;
  const Span bytes = region.subspan(begin, std::min(kRunChunkBytes, region.size() - begin));
  return Crc32c(bytes) == Load32(checksums + 4 * chunk);
}

bool TopRun::Verify(Range range) const {
  const size_t first = static_cast<size_t>(range.begin - entries_) / kRunChunkBytes;
  const size_t last = static_cast<size_t>(range.end - 1 - entries_) / kRunChunkBytes;
  Bytes read;
  for (size_t chunk = first; chunk <= last; ++chunk) {
    if (IsChecked(chunk)) continue;
    // Read, not touched: one request to a cold disk, where the pages of a mapping would be one each. Then they are
    // cached, and the mapping has them.
    Span bytes = entries_region_.subspan(chunk * kRunChunkBytes);
    bytes = bytes.first(std::min(kRunChunkBytes, bytes.size()));
    if (file_ != nullptr && memory_.empty()) {
      read.resize(bytes.size());
      const auto offset = static_cast<uint64_t>(bytes.data() - bytes_.data());
      if (!file_->Read(offset, read.size(), read.data()).ok()) {
        damaged_.store(true);
        return false;
      }
      bytes = read;
    }
    if (Crc32c(bytes) != Load32(entry_checksums_ + 4 * chunk) && !Mutant(kMutantRunUnchecked)) {
      damaged_.store(true);
      return false;
    }
    checked_[chunk / 64].fetch_or(uint64_t{1} << (chunk % 64));
  }
  return true;
}

bool TopRun::ReadList(const uint8_t* at, const uint8_t* limit, List& list) const {
  const uint8_t* const head = at + entry_bytes_;
  if (limit - at < static_cast<ptrdiff_t>(entry_bytes_ + kListHeadBytes)) return false;
  const uint64_t bytes = uint64_t{Load32(head + kAtListSlots)} * entry_bytes_;
  const uint32_t count = Load32(head + kAtListCount);
  list.first = Load32(head + kAtListFirst);
  list.last = Load32(head + kAtListLast);
  if (bytes < kListHeadBytes || bytes > static_cast<uint64_t>(limit - head) || count == 0 || list.first == 0 ||
      list.last < list.first)
    return false;
  list.left = count - 1;
  list.slots = 1 + Load32(head + kAtListSlots);
  list.at = head + kListHeadBytes;
  list.end = head + bytes;
  return true;
}

namespace {

// The ordinal after `ordinal`. False if the list ends, or is none.
bool NextOrdinal(TopRun::List& list, Ordinal& ordinal) {
  Varint step;
  if (DecodeVarint(Span(list.at, static_cast<size_t>(list.end - list.at)), step) != VarintError::kNone) return false;
  if (step.value == 0 || step.value > list.last - ordinal) return false;
  list.at += step.size;
  ordinal += static_cast<Ordinal>(step.value);
  --list.left;
  return true;
}

}  // namespace

bool TopRun::Walk(RunKey key, Range range, Ordinal after, absl::FunctionRef<uint64_t(Ordinal)> visit) const {
  if (range.begin == range.end) return true;
  if (!Verified(range) && !Verify(range)) return false;
  const auto size = static_cast<size_t>(range.end - range.begin);
  if (group_bits_ == 0 || size > kGroupReadMax || file_ == nullptr) return WalkSlots(key, range, after, visit);
  // One read, where the pages of a mapping would be one each.
  std::array<uint8_t, kGroupReadMax + kTailBytes> read;
  if (!file_->Read(static_cast<uint64_t>(range.begin - bytes_.data()), size, read.data()).ok()) {
    damaged_.store(true);
    return false;
  }
  std::memset(read.data() + size, 0, kTailBytes);
  return WalkSlots(key, {read.data(), read.data() + size}, after, visit);
}

bool TopRun::WalkSlots(RunKey key, Range range, Ordinal after, absl::FunctionRef<uint64_t(Ordinal)> visit) const {
  // Slots of several buckets are in order within each only.
  const uint64_t wanted = key & remainder_mask_;
  uint64_t wanted_end = kAllOrdinals;
  for (const uint8_t* at = range.begin; at != range.end;) {
    const uint64_t remainder = Load64(at) & remainder_mask_;
    if (remainder > wanted && group_bits_ == 0) break;
    const Ordinal ordinal = OrdinalAt(at);
    if (ordinal != 0) {
      if (remainder == wanted && ordinal > after && ordinal < wanted_end) wanted_end = visit(ordinal);
      at += entry_bytes_;
      continue;
    }
    List list;
    if (!ReadList(at, range.end, list)) {
      damaged_.store(true);
      return false;
    }
    at += list.slots * entry_bytes_;
    if (remainder != wanted || list.last <= after || list.first >= wanted_end) continue;
    for (Ordinal listed = list.first; listed < wanted_end;) {
      if (listed > after) wanted_end = visit(listed);
      if (list.left == 0) break;
      if (!NextOrdinal(list, listed)) {
        damaged_.store(true);
        return false;
      }
    }
  }
  return true;
}

void TopRun::Cursor::Fail() {
  run_.damaged_.store(true);
  valid_ = false;
  list_ = {};
  status_ = run_.DamagedStatus();
}

bool TopRun::Cursor::Verified(const uint8_t* end) {
  if (end <= verified_until_) return true;
  const uint8_t* const begin = run_.entries_ + index_ * run_.entry_bytes_;
  if (!run_.Verify({begin, end})) {
    Fail();
    return false;
  }
  const size_t last = static_cast<size_t>(end - 1 - run_.entries_) / kRunChunkBytes;
  verified_until_ = run_.entries_ + (last + 1) * kRunChunkBytes;
  return true;
}

void TopRun::Cursor::Load() {
  valid_ = false;
  list_ = {};
  if (index_ >= run_.slots_) return;
  const uint8_t* const directory = run_.directory_region_.data();
  while (Load32(directory + 4 * (bucket_ + 1)) <= index_) {
    if (++bucket_ < run_.layout_.buckets()) continue;
    Fail();  // changed since it was checked: a failing disk or memory
    return;
  }
  const uint8_t* const at = run_.entries_ + index_ * run_.entry_bytes_;
  if (!Verified(at + run_.entry_bytes_)) return;
  key_ = run_.info_.range.begin() | bucket_ << run_.remainder_bits_ | (Load64(at) & run_.key_mask_);
  ordinal_ = run_.OrdinalAt(at);
  if (ordinal_ == 0) {
    const uint64_t bucket_end = std::min<uint64_t>(Load32(directory + 4 * (bucket_ + 1)), run_.slots_);
    const uint8_t* const limit = run_.entries_ + bucket_end * run_.entry_bytes_;
    const uint8_t* const head_end = std::min(limit, at + run_.entry_bytes_ + kListHeadBytes);
    if (!Verified(head_end)) return;
    if (!run_.ReadList(at, limit, list_)) {
      Fail();
      return;
    }
    if (!Verified(list_.end)) return;
    ordinal_ = list_.first;
  }
  valid_ = true;
}

void TopRun::Cursor::NextOfList() {
  if (!NextOrdinal(list_, ordinal_)) Fail();
}

double TopRun::DeadFraction(const OrdinalSet& dead) const {
  if (single_ordinal_) return dead.Contains(info_.ordinal_min) ? 1 : 0;
  // Keys are hashes, so neighbours are independent: 64 places of 32 pairs cost as many reads when cold.
  constexpr uint64_t kPlaces = 64, kPerPlace = 32;
  const bool all = info_.entries <= kPlaces * kPerPlace;
  uint64_t seen = 0, found = 0;
  for (uint64_t place = 0; place < (all ? 1 : kPlaces); ++place) {
    uint64_t left = all ? info_.entries : kPerPlace;
    for (Cursor cursor(*this, layout_.buckets() / kPlaces * place); cursor.valid() && left > 0; cursor.Next(), --left) {
      ++seen;
      if (dead.Contains(cursor.ordinal())) ++found;
    }
  }
  return seen == 0 ? 1 : static_cast<double>(found) / static_cast<double>(seen);
}

absl::Status TopRun::CheckAll() const {
  const uint8_t* expected =
      entry_checksums_ - 4 * (Chunks(directory_region_.size()) + Chunks(filter_region_.size()));
  for (const Span region : {directory_region_, filter_region_, entries_region_}) {
    for (size_t chunk = 0; chunk < Chunks(region.size()); ++chunk) {
      if (!ChunkMatches(region, chunk, expected)) damaged_.store(true);
    }
    expected += 4 * Chunks(region.size());
  }
  return damaged() ? DamagedStatus() : absl::OkStatus();
}

absl::Status TopRun::DamagedStatus() const { return DataLoss("top-level run {} is damaged", info_.number); }

TopRunWriter::TopRunWriter(WritableFile& file, uint64_t number, uint64_t slots_expected, bool single_ordinal,
                           KeyRange range, bool filter)
    : file_(file),
      number_(number),
      range_(range),
      layout_(RunLayout::For(slots_expected, single_ordinal, range, filter)),
      directory_section_(file, kHeaderBytes),
      filter_section_(file, layout_.filter_offset()),
      entry_section_(file, layout_.entries_offset()) {
  DAGSTORE_CHECK(slots_expected <= kRunSlotsMax);
}

absl::Status TopRunWriter::EndFilterLine() {
  std::memcpy(filter_section_.Reserve(), filter_words_.data(), kFilterLineBytes);
  filter_words_ = {};
  ++filter_line_;
  return filter_section_.Advance(kFilterLineBytes);
}

absl::Status TopRunWriter::BeginKey() {
  const uint64_t offset = key_ - range_.begin();
  const uint64_t bucket = offset >> layout_.remainder_bits();
  while (next_bucket_ <= bucket) RETURN_IF_ERROR(EndBucket());
  if (layout_.filter_lines == 0) return absl::OkStatus();
  const uint64_t line = ((offset << (64 - kRunKeyBits + range_.bits) >> 32) * layout_.filter_lines) >> 32;
  while (filter_line_ < line) RETURN_IF_ERROR(EndFilterLine());
  for (size_t word = 0; word < filter_words_.size(); ++word)
    filter_words_[word] |= uint64_t{1} << FilterBit(key_, word);
  return absl::OkStatus();
}

absl::Status TopRunWriter::EndKey() {
  if (listing_) {
    RETURN_IF_ERROR(EndList());
    listing_ = false;
  } else {
    RETURN_IF_ERROR(BeginKey());
    for (size_t i = 0; i < pending_; ++i) {
      DAGSTORE_CHECK(slots_ < kRunSlotsMax);
      uint8_t* const out = entry_section_.Reserve();
      Store64(out, key_);
      if (layout_.ordinal_bytes != 0) Store32(out + layout_.remainder_bytes, ordinals_[i]);
      ++slots_;
      RETURN_IF_ERROR(entry_section_.Advance(layout_.entry_bytes()));
    }
  }
  pending_ = 0;
  return absl::OkStatus();
}

absl::Status TopRunWriter::AppendToList(Ordinal ordinal) {
  const auto add = [&](Ordinal next) -> absl::Status {
    if (list_count_ == kListOrdinalsMax) RETURN_IF_ERROR(EndList());
    if (list_count_ == 0) {
      list_first_ = next;
    } else {
      AppendVarint(list_, next - list_last_);
    }
    list_last_ = next;
    ++list_count_;
    return absl::OkStatus();
  };
  if (!listing_) {
    DAGSTORE_CHECK(layout_.ordinal_bytes != 0);
    RETURN_IF_ERROR(BeginKey());
    listing_ = true;
    for (size_t i = 0; i < pending_; ++i) RETURN_IF_ERROR(add(ordinals_[i]));
  }
  return add(ordinal);
}

absl::Status TopRunWriter::EndList() {
  const uint64_t slot = layout_.entry_bytes();
  const uint64_t slots = (kListHeadBytes + list_.size() + slot - 1) / slot;
  DAGSTORE_CHECK(slots_ + 1 + slots <= kRunSlotsMax);
  uint8_t begin[16] = {};
  Store64(begin, key_);
  Store32(begin + layout_.remainder_bytes, 0);
  uint8_t head[kListHeadBytes];
  Store32(head + kAtListSlots, static_cast<uint32_t>(slots));
  Store32(head + kAtListFirst, list_first_);
  Store32(head + kAtListLast, list_last_);
  Store32(head + kAtListCount, list_count_);
  list_.resize(slots * slot - kListHeadBytes);
  RETURN_IF_ERROR(entry_section_.Append(Span(begin, slot)));
  RETURN_IF_ERROR(entry_section_.Append(head));
  RETURN_IF_ERROR(entry_section_.Append(list_));
  slots_ += 1 + slots;
  ++lists_;
  list_.clear();
  list_count_ = 0;
  return absl::OkStatus();
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

absl::Status TopRunWriter::Section::Append(Span bytes) {
  while (!bytes.empty()) {
    const Span part = bytes.first(std::min(kSlackBytes, bytes.size()));
    std::memcpy(Reserve(), part.data(), part.size());
    RETURN_IF_ERROR(Advance(part.size()));
    bytes = bytes.subspan(part.size());
  }
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
  if (pending_ != 0) RETURN_IF_ERROR(EndKey());
  while (next_bucket_ <= layout_.buckets()) RETURN_IF_ERROR(EndBucket());
  RETURN_IF_ERROR(directory_section_.Pad(layout_.filter_offset()));
  while (filter_line_ < layout_.filter_lines) RETURN_IF_ERROR(EndFilterLine());
  RETURN_IF_ERROR(filter_section_.Pad(layout_.entries_offset()));
  const uint64_t checksums_at = layout_.checksums_offset(slots_);
  RETURN_IF_ERROR(entry_section_.Pad(checksums_at));
  Bytes checksums;
  for (const Section* section : {&directory_section_, &filter_section_, &entry_section_})
    for (const uint32_t crc : section->checksums()) Append32(checksums, crc);
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
  Store32(&header[kAtSlots], static_cast<uint32_t>(slots_));
  Store32(&header[kAtLists], static_cast<uint32_t>(lists_));
  Store32(&header[kAtFilterLines], layout_.filter_lines);
  info.header_crc = Crc32c(Span(header).first(kAtHeaderCrc));
  Store32(&header[kAtHeaderCrc], info.header_crc);
  RETURN_IF_ERROR(file_.WriteAt(0, header));
  return info;
}

}  // namespace dagstore
