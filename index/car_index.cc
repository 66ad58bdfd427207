#include "index/car_index.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

constexpr size_t kOffsetBytes = 8;
constexpr size_t kBucketHeadBytes = 12;                 // width and byte length
constexpr uint64_t kSortedInMemoryBytesMax = 1 << 30;  // of a 0x0400 export; the format is a legacy one
constexpr size_t kChunkBytes = 64 << 10;

// Reads forward in `bytes`, which hold a whole index.
class Parser {
 public:
  Parser(Span bytes, uint64_t payload_size) : bytes_(bytes), payload_size_(payload_size) {}

  absl::StatusOr<CarIndexView> Run() {
    ASSIGN_OR_RETURN(const Varint codec, ReadVarint(bytes_));
    at_ = codec.size;
    view_.codec = codec.value;
    if (codec.value == kCodecCarIndexSorted) {
      RETURN_IF_ERROR(Buckets(0));
    } else if (codec.value == kCodecCarMultihashIndexSorted) {
      RETURN_IF_ERROR(Codes());
    } else {
      return Unimplemented("CAR index codec {:#x} is not known", codec.value);
    }
    if (at_ != bytes_.size()) return DataLoss("{} bytes follow the CAR index, at byte {}", Left(), at_);
    return std::move(view_);
  }

 private:
  uint64_t Left() const { return bytes_.size() - at_; }

  // A signed 32-bit count of things that take at least `item_bytes` each.
  absl::StatusOr<uint32_t> Count(std::string_view what, size_t item_bytes) {
    if (Left() < 4) return DataLoss("CAR index ends in its count of {}, at byte {}", what, at_);
    const auto count = static_cast<int32_t>(Load32(bytes_.data() + at_));
    at_ += 4;
    if (count < 0) return DataLoss("CAR index has {} {}, at byte {}", count, what, at_ - 4);
    if (static_cast<uint64_t>(count) > Left() / item_bytes)
      return DataLoss("CAR index has {} {} in {} bytes, at byte {}", count, what, Left(), at_ - 4);
    return static_cast<uint32_t>(count);
  }

  absl::Status Codes() {
    ASSIGN_OR_RETURN(const uint32_t codes, Count("codes", 8 + 4));
    for (uint32_t i = 0; i < codes; ++i) {
      if (Left() < 8) return DataLoss("CAR index ends in code {}, at byte {}", i, at_);
      const uint64_t code = Load64(bytes_.data() + at_);
      if (i != 0 && code <= last_code_)
        return DataLoss("CAR index has code {:#x} after {:#x}, at byte {}", code, last_code_, at_);
      last_code_ = code;
      at_ += 8;
      const size_t before = view_.buckets.size();
      RETURN_IF_ERROR(Buckets(code));
      if (view_.buckets.size() == before) return DataLoss("CAR index has no entries for code {:#x}", code);
    }
    return absl::OkStatus();
  }

  absl::Status Buckets(uint64_t code) {
    ASSIGN_OR_RETURN(const uint32_t buckets, Count("buckets", kBucketHeadBytes));
    uint32_t last_width = 0;
    for (uint32_t i = 0; i < buckets; ++i) {
      if (Left() < kBucketHeadBytes) return DataLoss("CAR index ends in bucket {}, at byte {}", i, at_);
      if (view_.buckets.size() == kIndexGroupsMax)
        return ResourceExhausted("CAR index has more than {} buckets", kIndexGroupsMax);
      const uint32_t width = Load32(bytes_.data() + at_);
      const uint64_t length = Load64(bytes_.data() + at_ + 4);
      if (width < kOffsetBytes || width > kDigestBytesMax + kOffsetBytes)
        return DataLoss("CAR index has entries of {} bytes, at byte {}", width, at_);
      if (width <= last_width) return DataLoss("CAR index has width {} after {}, at byte {}", width, last_width, at_);
      last_width = width;
      at_ += kBucketHeadBytes;
      if (length == 0 || length % width != 0 || length > Left())
        return DataLoss("CAR index has a bucket of {} bytes with entries of {}, {} bytes are left, at byte {}", length,
                        width, Left(), at_ - 8);
      const CarIndexBucket bucket{code, static_cast<uint32_t>(width - kOffsetBytes), length / width,
                                  bytes_.subspan(at_, length)};
      RETURN_IF_ERROR(Entries(bucket));
      at_ += length;
      view_.entries += bucket.count;
      view_.buckets.push_back(bucket);
    }
    return absl::OkStatus();
  }

  absl::Status Entries(const CarIndexBucket& bucket) const {
    for (uint64_t i = 0; i < bucket.count; ++i) {
      if (i != 0 && CompareBytes(bucket.digest(i - 1), bucket.digest(i)) > 0)
        return DataLoss("CAR index is not sorted, at byte {}", at_ + i * bucket.width());
      if (bucket.offset(i) >= payload_size_)
        return DataLoss("CAR index names section {} in a payload of {} bytes, at byte {}", bucket.offset(i),
                        payload_size_, at_ + i * bucket.width());
    }
    return absl::OkStatus();
  }

  const Span bytes_;
  const uint64_t payload_size_;
  size_t at_ = 0;
  uint64_t last_code_ = 0;
  CarIndexView view_;
};

// What precedes the entries, given their kinds in file order.
struct Kind {
  uint64_t code = 0;
  uint32_t digest_size = 0;
  uint64_t count = 0;
};

void AppendBucketHead(Bytes& out, uint32_t digest_size, uint64_t count) {
  const uint32_t width = digest_size + kOffsetBytes;
  Append32(out, width);
  Append64(out, uint64_t{width} * count);
}

// Heads of a 0x0401 index: called with the kinds in order, once before the entries of each.
class MultihashHeads {
 public:
  explicit MultihashHeads(std::span<const Kind> kinds) : kinds_(kinds) {}

  void AppendFirst(Bytes& out) const {
    uint32_t codes = 0;
    for (size_t i = 0; i < kinds_.size(); ++i) codes += FirstOfCode(i);
    AppendVarint(out, kCodecCarMultihashIndexSorted);
    Append32(out, codes);
  }
  void Append(Bytes& out, size_t i) const {
    if (FirstOfCode(i)) {
      size_t end = i;
      while (end < kinds_.size() && kinds_[end].code == kinds_[i].code) ++end;
      Append64(out, kinds_[i].code);
      Append32(out, static_cast<uint32_t>(end - i));
    }
    AppendBucketHead(out, kinds_[i].digest_size, kinds_[i].count);
  }

 private:
  bool FirstOfCode(size_t i) const { return i == 0 || kinds_[i - 1].code != kinds_[i].code; }
  const std::span<const Kind> kinds_;
};

bool Wanted(const IndexEntry& entry, Identities identities) {
  return identities == Identities::kInclude || entry.hash.code != kIdentity;
}

absl::Status WriteMultihashSorted(const ShardIndex& index, Identities identities, IndexSink& sink) {
  std::vector<Kind> kinds;
  RETURN_IF_ERROR(index.ForEach([&](const IndexEntry& entry) {
    if (!Wanted(entry, identities)) return true;
    const auto size = static_cast<uint32_t>(entry.hash.digest.size());
    if (kinds.empty() || kinds.back().code != entry.hash.code || kinds.back().digest_size != size)
      kinds.push_back({entry.hash.code, size, 0});
    ++kinds.back().count;
    return true;
  }));

  const MultihashHeads heads(kinds);
  Bytes chunk;
  heads.AppendFirst(chunk);
  size_t next = 0;
  uint64_t left = 0;  // entries of the current kind
  absl::Status status;
  RETURN_IF_ERROR(index.ForEach([&](const IndexEntry& entry) {
    if (!Wanted(entry, identities)) return true;
    if (left == 0) {
      heads.Append(chunk, next);
      left = kinds[next++].count;
    }
    --left;
    AppendBytes(chunk, entry.hash.digest);
    Append64(chunk, entry.offset);
    if (chunk.size() >= kChunkBytes) {
      status = sink.Append(chunk);
      chunk.clear();
    }
    return status.ok();
  }));
  RETURN_IF_ERROR(status);
  return sink.Append(chunk);
}

// Entries of one width; 0x0400 puts all functions together.
struct SortedBucket {
  Bytes entries = {};
  uint64_t last_code = 0;
  bool several_codes = false;
};

absl::Status WriteSorted(const ShardIndex& index, Identities identities, IndexSink& sink) {
  std::map<uint32_t, SortedBucket> buckets;  // by digest size
  uint64_t bytes = 0;
  RETURN_IF_ERROR(index.ForEach([&](const IndexEntry& entry) {
    if (!Wanted(entry, identities)) return true;
    SortedBucket& bucket = buckets[static_cast<uint32_t>(entry.hash.digest.size())];
    if (!bucket.entries.empty() && bucket.last_code != entry.hash.code) bucket.several_codes = true;
    bucket.last_code = entry.hash.code;
    AppendBytes(bucket.entries, entry.hash.digest);
    Append64(bucket.entries, entry.offset);
    bytes += entry.hash.digest.size() + kOffsetBytes;
    return bytes <= kSortedInMemoryBytesMax;
  }));
  if (bytes > kSortedInMemoryBytesMax)
    return ResourceExhausted("an IndexSorted (0x0400) of this shard takes more than {} bytes; write 0x0401",
                             kSortedInMemoryBytesMax);

  Bytes head;
  AppendVarint(head, kCodecCarIndexSorted);
  Append32(head, static_cast<uint32_t>(buckets.size()));
  RETURN_IF_ERROR(sink.Append(head));
  for (auto& [digest_size, bucket] : buckets) {
    const size_t width = digest_size + kOffsetBytes;
    const size_t count = bucket.entries.size() / width;
    head.clear();
    AppendBucketHead(head, digest_size, count);
    RETURN_IF_ERROR(sink.Append(head));
    if (!bucket.several_codes) {
      RETURN_IF_ERROR(sink.Append(bucket.entries));
      continue;
    }
    const CarIndexBucket view{0, digest_size, count, bucket.entries};
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const int digests = CompareBytes(view.digest(a), view.digest(b));
      return digests != 0 ? digests < 0 : view.offset(a) < view.offset(b);
    });
    for (size_t i : order) RETURN_IF_ERROR(sink.Append(view.entries.subspan(i * width, width)));
  }
  return absl::OkStatus();
}

// Compares what is written with bytes that are there.
class CompareSink final : public IndexSink {
 public:
  explicit CompareSink(Span wanted) : wanted_(wanted) {}
  absl::Status Append(Span bytes) override {
    const Span part = wanted_.subspan(at_, std::min(bytes.size(), wanted_.size() - at_));
    if (!SameBytes(part, bytes)) {
      const auto differs = std::mismatch(part.begin(), part.end(), bytes.begin(), bytes.end());
      return DataLoss("embedded CAR index differs from the payload at index byte {}",
                      at_ + (differs.first - part.begin()));
    }
    at_ += bytes.size();
    return absl::OkStatus();
  }
  absl::Status Finish() const {
    if (at_ != wanted_.size()) return DataLoss("embedded CAR index goes on after byte {}", at_);
    return absl::OkStatus();
  }

 private:
  const Span wanted_;
  size_t at_ = 0;
};

// Puts equal digests in order of offset: their order is the one freedom that writers have.
void SortDuplicates(const CarIndexView& index, Bytes& bytes) {
  std::vector<uint64_t> offsets;
  for (const CarIndexBucket& bucket : index.buckets) {
    uint8_t* entries = bytes.data() + (bucket.entries.data() - bytes.data());
    for (uint64_t i = 0, end = 0; i < bucket.count; i = end) {
      for (end = i + 1; end < bucket.count && SameBytes(bucket.digest(i), bucket.digest(end));) ++end;
      if (end - i == 1) continue;
      offsets.clear();
      for (uint64_t j = i; j < end; ++j) offsets.push_back(bucket.offset(j));
      std::sort(offsets.begin(), offsets.end());
      for (uint64_t j = i; j < end; ++j)
        Store64(entries + j * bucket.width() + bucket.digest_size, offsets[j - i]);
    }
  }
}

// The index that was built, to compare with: from memory or from its file.
absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenBuilt(const BuiltIndex& built, const IndexOutput& output) {
  if (!built.in_file) return OpenNativeIndex(Span(built.heap), nullptr);
  ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> opened, output.io->Open(output.dir + "/" + output.name, Follow::kNever));
  std::shared_ptr<RandomFile> file(std::move(opened));
  ASSIGN_OR_RETURN(const Span mapped, file->Map());
  if (!mapped.empty()) return OpenNativeIndex(mapped, std::move(file));
  Bytes bytes(built.bytes);
  RETURN_IF_ERROR(file->Read(0, bytes.size(), bytes.data()));
  return OpenNativeIndex(std::move(bytes));
}

absl::Status CompareWithPayload(const CarIndexView& embedded, Bytes& bytes, bool fully_indexed,
                                const BuiltIndex& built, const IndexOutput& output) {
  const uint64_t all = built.summary.entries;
  const uint64_t some = all - built.summary.identity_entries;
  if (embedded.entries != all && (embedded.entries != some || fully_indexed))
    return DataLoss("embedded CAR index lists {} sections, the payload has {}, {} of them identity CIDs",
                    embedded.entries, all, built.summary.identity_entries);
  ASSIGN_OR_RETURN(const std::shared_ptr<const ShardIndex> index, OpenBuilt(built, output));
  SortDuplicates(embedded, bytes);
  CompareSink compare(bytes);
  const Identities identities = embedded.entries == all ? Identities::kInclude : Identities::kLeaveOut;
  RETURN_IF_ERROR(WriteCarIndex(*index, embedded.codec, identities, compare));
  return compare.Finish();
}

}  // namespace

absl::StatusOr<CarIndexView> ParseCarIndex(Span bytes, uint64_t payload_size) {
  return Parser(bytes, payload_size).Run();
}

Bytes EncodeCarIndex(const CarIndexView& index) {
  Bytes out;
  if (index.codec == kCodecCarMultihashIndexSorted) {
    std::vector<Kind> kinds;
    for (const CarIndexBucket& bucket : index.buckets) kinds.push_back({bucket.code, bucket.digest_size, bucket.count});
    const MultihashHeads heads(kinds);
    heads.AppendFirst(out);
    for (size_t i = 0; i < index.buckets.size(); ++i) {
      heads.Append(out, i);
      AppendBytes(out, index.buckets[i].entries);
    }
    return out;
  }
  AppendVarint(out, index.codec);
  Append32(out, static_cast<uint32_t>(index.buckets.size()));
  for (const CarIndexBucket& bucket : index.buckets) {
    AppendBucketHead(out, bucket.digest_size, bucket.count);
    AppendBytes(out, bucket.entries);
  }
  return out;
}

absl::Status WriteCarIndex(const ShardIndex& index, uint64_t codec, Identities identities, IndexSink& sink) {
  if (codec == kCodecCarMultihashIndexSorted) return WriteMultihashSorted(index, identities, sink);
  if (codec == kCodecCarIndexSorted) return WriteSorted(index, identities, sink);
  return Unimplemented("CAR index codec {:#x} is not known", codec);
}

absl::StatusOr<Bytes> EncodeCarIndex(const ShardIndex& index, uint64_t codec, Identities identities) {
  Bytes out;
  BytesSink sink(out);
  RETURN_IF_ERROR(WriteCarIndex(index, codec, identities, sink));
  return out;
}

absl::StatusOr<BuiltIndex> UseEmbeddedIndex(const RandomReader& source, const IndexBuildOptions& options,
                                            const IndexOutput& output, const WorkContext& context,
                                            const IndexProgress& progress, uint64_t embedded_bytes_max) {
  ASSIGN_OR_RETURN(const std::unique_ptr<CarReader> reader, CarReader::Open(source, options.car));
  const CarHeader& header = reader->header();
  if (header.index_offset == 0) return NotFound("the CAR carries no index");
  const uint64_t size = source.Size() - header.index_offset;
  if (size > embedded_bytes_max)
    return ResourceExhausted("embedded CAR index of {} bytes, limit {}", size, embedded_bytes_max);
  Bytes bytes(size);
  RETURN_IF_ERROR(source.Read(header.index_offset, size, bytes.data()));
  ASSIGN_OR_RETURN(const CarIndexView embedded, ParseCarIndex(bytes, header.payload_size));

  IndexBuildOptions walk = options;
  walk.verify = false;
  ASSIGN_OR_RETURN(BuiltIndex built, BuildIndex(source, walk, output, context, progress));
  if (Mutant(kMutantEmbeddedTrusted)) return built;
  if (absl::Status status = CompareWithPayload(embedded, bytes, header.fully_indexed, built, output); !status.ok()) {
    if (built.in_file) output.io->Remove(output.dir + "/" + output.name).IgnoreError();
    return status;
  }
  return built;
}

}  // namespace dagstore
