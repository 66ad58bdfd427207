#include "index/infer_index.h"

#include <algorithm>
#include <map>

#include "base/hashing.h"
#include "index/car_index.h"

namespace dagstore {
namespace {

struct Place {
  uint64_t offset = 0;
  uint32_t bucket = 0;
  uint32_t at = 0;  // in the bucket
};

// What the samples of one kind say of how sections of it begin.
struct Kind {
  uint32_t cid_size = 0;
  uint64_t codec = kCodecRaw;
};

class Inference {
 public:
  Inference(const RandomReader& source, const IndexBuildOptions& options, const WorkContext& context,
            const CarHeader& header, const CarIndexView& view)
      : source_(source), options_(options), context_(context), header_(header), view_(view) {}

  absl::Status Sort() {
    if (view_.entries == 0) return NotFound("the CAR carries an empty index");
    places_.reserve(view_.entries);
    for (uint32_t b = 0; b < view_.buckets.size(); ++b) {
      if (view_.buckets[b].count > UINT32_MAX) return DataLoss("CAR index has a bucket of more than 2^32 entries");
      for (uint32_t i = 0; i < view_.buckets[b].count; ++i) places_.push_back({view_.buckets[b].offset(i), b, i});
    }
    std::sort(places_.begin(), places_.end(), [](const Place& a, const Place& b) { return a.offset < b.offset; });
    if (places_.front().offset < header_.first_section)
      return DataLoss("CAR index names a section at {}, before the first at {}", places_.front().offset,
                      header_.first_section);
    for (size_t i = 1; i < places_.size(); ++i) {
      if (places_[i].offset == places_[i - 1].offset)
        return DataLoss("CAR index names two sections at {}", places_[i].offset);
      if (places_[i].offset - places_[i - 1].offset > options_.car.section_bytes_max + kVarintBytesMax)
        return DataLoss("CAR index lists no section from {} to {}", places_[i - 1].offset, places_[i].offset);
    }
    return absl::OkStatus();
  }

  absl::Status Sample(const InferOptions& infer) {
    std::vector<size_t> chosen = {0, places_.size() - 1};
    for (int i = 0; i + 2 < infer.samples; ++i) {
      Bytes seed;
      Append64(seed, static_cast<uint64_t>(i));
      Append64(seed, places_.size());
      Append64(seed, header_.index_offset);
      chosen.push_back(SipHash(infer.seed, seed) % places_.size());
    }
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    std::vector<ByteRange> ranges;
    for (const size_t i : chosen) ranges.push_back({header_.payload_offset + places_[i].offset, Bound(i)});
    source_.WillRead(ranges);  // all in one round trip
    for (const size_t i : chosen) RETURN_IF_ERROR(Check(i));
    return absl::OkStatus();
  }

  absl::Status Add(IndexBuilder& builder) const {
    for (size_t i = 0; i < places_.size(); ++i) {
      if (i % 65536 == 0) RETURN_IF_ERROR(context_.Check());
      const CarIndexBucket& bucket = view_.buckets[places_[i].bucket];
      const uint64_t bound = Bound(i);
      const auto known = kinds_.find({bucket.code, bucket.digest_size});
      const uint64_t cid_size = known != kinds_.end() ? known->second.cid_size : 4 + bucket.digest_size;
      const uint64_t head = std::min<uint64_t>(VarintOf(bound) + cid_size, bound);
      IndexEntry entry;
      entry.hash = {bucket.code, bucket.digest(places_[i].at)};
      entry.offset = places_[i].offset;
      entry.head_size = static_cast<uint32_t>(head);
      entry.data_size = static_cast<uint32_t>(bound - head);
      entry.codec = known != kinds_.end() ? known->second.codec : uint64_t{kCodecRaw};
      RETURN_IF_ERROR(builder.Add(entry));
    }
    return absl::OkStatus();
  }

 private:
  // Bytes from the section on that may belong to it.
  uint64_t Bound(size_t i) const {
    const uint64_t next = i + 1 < places_.size() ? places_[i + 1].offset : header_.payload_size;
    return std::min(next - places_[i].offset, options_.car.section_bytes_max + kVarintBytesMax);
  }

  absl::Status Check(size_t i) {
    RETURN_IF_ERROR(context_.Check());
    const Place& place = places_[i];
    const CarIndexBucket& bucket = view_.buckets[place.bucket];
    Bytes bytes(Bound(i));
    RETURN_IF_ERROR(source_.Read(header_.payload_offset + place.offset, bytes.size(), bytes.data()));
    CarSection section;
    section.offset = place.offset;
    CarOptions car = options_.car;
    car.zero_length_as_end = false;
    RETURN_IF_ERROR(ParseSection(bytes, header_.payload_size - place.offset, car, section));
    const MultihashView said{bucket.code, bucket.digest(place.at)};
    if (!(section.cid.hash == said) || section.size() > bytes.size())
      return DataLoss("the section at {} is not the one the CAR index names", place.offset);
    if (VerifyBlock(section.cid.hash, Span(bytes).subspan(section.head_size, section.data_size)) ==
        HashCheck::kMismatch) {
      return DataLoss("the block at {} does not match its CID", place.offset);
    }
    const bool last = i + 1 == places_.size();
    const bool padded = last && section.size() < bytes.size() && bytes[section.size()] == 0;
    if (section.size() < bytes.size() && !padded) {
      // Only identity CIDs are left out of an index.
      CarSection next;
      next.offset = place.offset + section.size();
      RETURN_IF_ERROR(ParseSection(Span(bytes).subspan(section.size()),
                                   header_.payload_size - place.offset - section.size(), car, next));
      if (next.cid.hash.code != kIdentity) return DataLoss("the CAR index lists no section at {}", next.offset);
    }
    kinds_[{bucket.code, bucket.digest_size}] = {static_cast<uint32_t>(section.head_size - VarintOf(section.size())),
                                                 section.cid.codec};
    return absl::OkStatus();
  }

  // Bytes of the varint at the front of a section of `size` bytes, itself included: it says how many follow it.
  static uint64_t VarintOf(uint64_t size) {
    uint64_t varint = 1;
    while (varint < size && VarintSize(size - varint) > varint) ++varint;
    return varint;
  }

  const RandomReader& source_;
  const IndexBuildOptions& options_;
  const WorkContext& context_;
  const CarHeader& header_;
  const CarIndexView& view_;
  std::vector<Place> places_;  // by offset
  std::map<std::pair<uint64_t, uint32_t>, Kind> kinds_;
};

}  // namespace

absl::StatusOr<BuiltIndex> InferIndex(const RandomReader& source, const IndexBuildOptions& options,
                                      const IndexOutput& output, const WorkContext& context,
                                      const InferOptions& infer) {
  RETURN_IF_ERROR(context.Check());
  ASSIGN_OR_RETURN(const std::unique_ptr<CarReader> reader, CarReader::Open(source, options.car));
  const CarHeader& header = reader->header();
  if (header.index_offset == 0) return NotFound("the CAR carries no index");
  const uint64_t size = source.Size() - header.index_offset;
  if (size > infer.bytes_max) {
    return MakeStatus(absl::StatusCode::kOutOfRange,
                      fmt::format("embedded CAR index of {} bytes, limit {}", size, infer.bytes_max));
  }
  // As it arrives, so that a file of holes costs no memory.
  constexpr uint64_t kStep = 8 << 20;
  Bytes bytes;
  for (uint64_t done = 0; done < size; done = bytes.size()) {
    RETURN_IF_ERROR(context.Check());
    bytes.resize(done + std::min(kStep, size - done));
    RETURN_IF_ERROR(source.Read(header.index_offset + done, bytes.size() - done, bytes.data() + done));
  }
  ASSIGN_OR_RETURN(const CarIndexView view, ParseCarIndex(bytes, header.payload_size));
  if (view.codec != kCodecCarMultihashIndexSorted)
    return Unimplemented("the CAR carries an index of form {:#x}", view.codec);
  Inference inference(source, options, context, header, view);
  RETURN_IF_ERROR(inference.Sort());
  RETURN_IF_ERROR(inference.Sample(infer));
  IndexBuilder builder(output, options.memory_bytes_max);
  RETURN_IF_ERROR(inference.Add(builder));
  IndexSummary summary;
  summary.verified = false;
  summary.unverified = view.entries;
  summary.car_version = header.version;
  summary.payload_offset = header.payload_offset;
  summary.payload_size = header.payload_size;
  summary.source_size = source.Size();
  return builder.Finish(header.roots, summary);
}

}  // namespace dagstore
