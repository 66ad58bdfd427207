#include "mount/extent_map.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/varint.h"

// See docs/format.md#extent-map.

namespace dagstore {
namespace {

constexpr uint8_t kMagic[] = {'D', 'S', 'E', 'M'};
constexpr uint8_t kVersion = 2;  // 1 had no checksums
constexpr size_t kHeadBytes = sizeof(kMagic) + 1;
constexpr size_t kTailBytes = 4;
constexpr uint64_t kSourcesMax = 16;
constexpr uint64_t kValidatorBytesMax = 4096;

class Reader {
 public:
  explicit Reader(Span bytes) : rest_(bytes) {}
  absl::Status Number(uint64_t& out) {
    ASSIGN_OR_RETURN(const Varint number, ReadVarint(rest_));
    rest_ = rest_.subspan(number.size);
    out = number.value;
    return absl::OkStatus();
  }
  absl::Status Fixed64(uint64_t& out) {
    if (rest_.size() < 8) return DataLoss("extent map ends inside a number");
    out = Load64(rest_.data());
    rest_ = rest_.subspan(8);
    return absl::OkStatus();
  }
  absl::Status Fixed32(uint32_t& out) {
    if (rest_.size() < 4) return DataLoss("extent map ends inside a checksum");
    out = Load32(rest_.data());
    rest_ = rest_.subspan(4);
    return absl::OkStatus();
  }
  absl::Status Text(std::string& out) {
    uint64_t size = 0;
    RETURN_IF_ERROR(Number(size));
    if (size > rest_.size() || size > kValidatorBytesMax)
      return DataLoss("extent map has a validator of {} bytes", size);
    out = AsText(rest_.first(size));
    rest_ = rest_.subspan(size);
    return absl::OkStatus();
  }
  size_t left() const { return rest_.size(); }

 private:
  Span rest_;
};

}  // namespace

ExtentMap::ExtentMap(uint64_t file_bytes) : file_bytes_(file_bytes) {
  DAGSTORE_CHECK(file_bytes <= kExtentFileBytesMax);
  while (((file_bytes + granule_bytes() - 1) >> bits_) > kGranulesMax) ++bits_;
  granules_ = (file_bytes + granule_bytes() - 1) >> bits_;
  words_.resize((granules_ + 63) / 64);
}

ByteRange ExtentMap::RangeOf(uint64_t first, uint64_t end) const {
  const uint64_t begin = first << bits_;
  return {begin, std::min(end << bits_, file_bytes_) - begin};
}

size_t ExtentMap::RankOf(uint64_t granule) const {
  const uint64_t word = granule / 64;
  if (word < counted_words_) counted_words_ = counted_ = 0;
  for (; counted_words_ < word; ++counted_words_)
    counted_ += static_cast<size_t>(std::popcount(words_[counted_words_]));
  return counted_ + static_cast<size_t>(std::popcount(words_[word] & ((uint64_t{1} << (granule % 64)) - 1)));
}

void ExtentMap::Set(uint64_t granule, uint32_t sum) {
  DAGSTORE_CHECK(granule < granules_);
  const auto at = sums_.begin() + static_cast<std::ptrdiff_t>(RankOf(granule));
  if (Has(granule)) {
    *at = sum;
    return;
  }
  sums_.insert(at, sum);
  words_[granule / 64] |= uint64_t{1} << (granule % 64);
}

void ExtentMap::Clear(uint64_t granule) {
  DAGSTORE_CHECK(granule < granules_);
  if (!Has(granule)) return;
  sums_.erase(sums_.begin() + static_cast<std::ptrdiff_t>(RankOf(granule)));
  words_[granule / 64] &= ~(uint64_t{1} << (granule % 64));
}

uint32_t ExtentMap::SumOf(uint64_t granule) const {
  DAGSTORE_CHECK(granule < granules_ && Has(granule));
  return sums_[RankOf(granule)];
}

uint64_t ExtentMap::BytesThere() const {
  if (sums_.empty()) return 0;
  uint64_t bytes = there() << bits_;
  if (Has(granules_ - 1)) bytes -= (granules_ << bits_) - file_bytes_;
  return bytes;
}

std::string ExtentMap::Encode() const {
  std::string out(reinterpret_cast<const char*>(kMagic), sizeof(kMagic));
  out.push_back(static_cast<char>(kVersion));
  AppendVarint(out, file_bytes_);
  AppendVarint(out, sources.size());
  for (const ExtentSource& source : sources) {
    Append64(out, source.id);
    AppendVarint(out, source.validator.size());
    out += source.validator;
  }
  size_t rank = 0;
  for (uint64_t g = 0; g < granules_;) {
    uint64_t end = g;
    while (end < granules_ && !Has(end)) end += end % 64 == 0 && words_[end / 64] == 0 ? 64 : 1;
    if (end >= granules_) break;
    AppendVarint(out, end - g);
    g = end;
    while (end < granules_ && Has(end)) ++end;
    AppendVarint(out, end - g);
    for (; g < end; ++g) Append32(out, sums_[rank++]);
  }
  Append32(out, Crc32c(AsSpan(out)));
  return out;
}

absl::StatusOr<ExtentMap> ExtentMap::Decode(Span bytes) {
  if (bytes.size() < kHeadBytes + kTailBytes || !std::equal(std::begin(kMagic), std::end(kMagic), bytes.data()))
    return DataLoss("not an extent map");
  if (bytes[4] > kVersion) return FailedPrecondition("extent map version {} is newer than {}", bytes[4], kVersion);
  if (bytes[4] < kVersion) return DataLoss("extent map version {} has no checksums", bytes[4]);
  const Span content = bytes.first(bytes.size() - kTailBytes);
  if (Crc32c(content) != Load32(bytes.data() + content.size())) return DataLoss("extent map checksum is wrong");
  Reader in(content.subspan(kHeadBytes));
  uint64_t file_bytes = 0, sources = 0;
  RETURN_IF_ERROR(in.Number(file_bytes));
  if (file_bytes > kExtentFileBytesMax) return DataLoss("extent map is of a file of {} bytes", file_bytes);
  ExtentMap map(file_bytes);
  RETURN_IF_ERROR(in.Number(sources));
  if (sources > kSourcesMax) return DataLoss("extent map has {} sources", sources);
  for (uint64_t i = 0; i < sources; ++i) {
    ExtentSource source;
    RETURN_IF_ERROR(in.Fixed64(source.id));
    RETURN_IF_ERROR(in.Text(source.validator));
    map.sources.push_back(std::move(source));
  }
  uint64_t at = 0;
  while (in.left() != 0) {
    uint64_t gap = 0, run = 0;
    RETURN_IF_ERROR(in.Number(gap));
    if (gap > map.granules_ - at) return DataLoss("extent map runs past its file");
    at += gap;
    RETURN_IF_ERROR(in.Number(run));
    if (run == 0 || run > map.granules_ - at) return DataLoss("extent map runs past its file");
    if (run > in.left() / 4) return DataLoss("extent map ends inside a run");
    for (const uint64_t end = at + run; at < end; ++at) {
      uint32_t sum = 0;
      RETURN_IF_ERROR(in.Fixed32(sum));
      map.words_[at / 64] |= uint64_t{1} << (at % 64);
      map.sums_.push_back(sum);
    }
  }
  return map;
}

void GranuleSums::Add(uint64_t at, Span bytes, absl::FunctionRef<void(uint64_t granule, uint32_t sum)> whole) {
  while (!bytes.empty()) {
    const uint64_t granule = at / granule_bytes_;
    const uint64_t end = std::min((granule + 1) * granule_bytes_, file_bytes_);
    DAGSTORE_CHECK(at < end);
    if (at % granule_bytes_ == 0) sum_ = 0;
    const Span part = bytes.first(std::min<uint64_t>(bytes.size(), end - at));
    sum_ = Crc32c(sum_, part);
    at += part.size();
    bytes = bytes.subspan(part.size());
    if (at == end) whole(granule, sum_);
  }
}

}  // namespace dagstore
