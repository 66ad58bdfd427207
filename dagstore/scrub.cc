#include "dagstore/scrub.h"

#include "base/hashing.h"
#include "base/siphash.h"
#include "index/infer_index.h"
#include "shard/car_reader.h"

namespace dagstore {
namespace {

// A sum over sections that does not depend on their order, so that index and payload are compared
// in one pass of each.
class SectionSum {
 public:
  void Add(const MultihashView& hash, uint64_t codec, uint64_t offset, uint64_t head_size,
           uint64_t data_size) {
    scratch_.clear();
    AppendMultihash(scratch_, hash);
    for (const uint64_t field : {codec, offset, head_size, data_size}) Append64(scratch_, field);
    sum_ += SipHash(kKey, scratch_);
    ++count_;
  }
  uint64_t count() const { return count_; }
  friend bool operator==(const SectionSum& a, const SectionSum& b) {
    return a.count_ == b.count_ && a.sum_ == b.sum_;
  }

 private:
  static constexpr SipKey kKey = {'d', 'a', 'g', 's', 't', 'o', 'r', 'e',
                                  ' ', 's', 'c', 'r', 'u', 'b', ' ', '1'};
  Bytes scratch_;
  uint64_t sum_ = 0;
  uint64_t count_ = 0;
};

bool IsDamage(const absl::Status& status) { return status.code() == absl::StatusCode::kDataLoss; }

class Scrub {
 public:
  Scrub(const OpenShard& shard, const WorkContext& work, const ScrubProgress& progress)
      : shard_(shard), work_(work), progress_(progress) {}

  absl::StatusOr<ScrubReport> Run() {
    const absl::Status payload = ReadPayload();
    if (!payload.ok() && !IsDamage(payload)) return payload;
    if (!payload.ok()) Blame(Damage::kShard, payload);
    if (report_.bad_blocks != 0) {
      const ScrubFinding& first = report_.findings.front();
      Blame(Damage::kShard,
            DataLoss("{} of {} blocks do not match their CID, the first is {} at payload byte {}",
                     report_.bad_blocks, report_.blocks, first.cid, first.offset));
    }
    if (!report_.sound()) return std::move(report_);
    const absl::Status index = shard_.index->CheckAll();
    if (!index.ok() && !IsDamage(index)) return index;
    if (!index.ok()) Blame(Damage::kIndex, index);
    if (!report_.sound()) return std::move(report_);
    const absl::Status same = CompareIndex();
    if (!same.ok() && !IsDamage(same)) return same;
    // A user's file may have become another CAR, which is then indexed. A copy of ours never changes: if it differs
    // from a sound index it has rotted where no CID looks, as in the header, and must be fetched again.
    const bool our_copy = shard_.record.copy.has_value() && shard_.record.copy->owned;
    if (!same.ok()) Blame(our_copy ? Damage::kShard : Damage::kIndex, same);
    return std::move(report_);
  }

 private:
  void Blame(Damage damage, absl::Status status) {
    if (!report_.sound()) return;
    report_.status = std::move(status);
    report_.damage = damage;
  }

  absl::Status ReadPayload() {
    ASSIGN_OR_RETURN(const std::unique_ptr<CarReader> reader,
                     CarReader::Open(*shard_.source, shard_.car));
    roots_ = reader->header().roots;
    payload_offset_ = reader->header().payload_offset;
    std::vector<CarSection> sections;
    std::vector<HashJob> jobs;
    while (true) {
      RETURN_IF_ERROR(work_.Check());
      ASSIGN_OR_RETURN(const bool more, reader->NextBatch(sections));
      if (!more) break;
      jobs.clear();
      for (const CarSection& section : sections) jobs.push_back({section.cid.hash, section.data});
      VerifyBlocks(jobs);
      for (size_t i = 0; i < sections.size(); ++i) Take(sections[i], jobs[i].result);
      if (progress_) progress_(reader->position(), reader->header().payload_size);
    }
    payload_size_ = reader->position();
    return absl::OkStatus();
  }

  void Take(const CarSection& section, HashCheck check) {
    ++report_.blocks;
    report_.block_bytes += section.data_size;
    if (!inferred_) {
      payload_sum_.Add(section.cid.hash, section.cid.codec, section.offset, section.head_size, section.data_size);
    } else if (section.cid.hash.code != kIdentity) {
      payload_sum_.Add(section.cid.hash, 0, section.offset, 0, 0);
    }
    if (check == HashCheck::kUnverifiable) ++report_.unverifiable_blocks;
    if (check != HashCheck::kMismatch) return;
    ++report_.bad_blocks;
    if (report_.findings.size() < kScrubFindingsMax) {
      report_.findings.push_back(
          {section.offset, Cid(section.cid).ToText(), "the bytes do not match the CID"});
    }
  }

  absl::Status CompareIndex() {
    const IndexSummary& summary = shard_.index->summary();
    if (summary.payload_offset != payload_offset_ || (summary.payload_size != payload_size_ && !inferred_)) {
      return DataLoss(
          "the index is of a payload of {} bytes at byte {}, the file has one of {} bytes at byte "
          "{}",
          summary.payload_size, summary.payload_offset, payload_size_, payload_offset_);
    }
    if (shard_.index->roots() != roots_) return DataLoss("the index has other roots than the file");
    SectionSum index_sum;
    RETURN_IF_ERROR(shard_.index->ForEach([&](const IndexEntry& entry) {
      if (!inferred_) {
        index_sum.Add(entry.hash, entry.codec, entry.offset, entry.head_size, entry.data_size);
      } else if (entry.hash.code != kIdentity) {
        index_sum.Add(entry.hash, 0, entry.offset, 0, 0);  // it knows no more
      }
      return true;
    }));
    if (index_sum.count() != payload_sum_.count()) {
      return DataLoss("the index has {} entries, the file {} blocks", index_sum.count(),
                      payload_sum_.count());
    }
    if (!(index_sum == payload_sum_))
      return DataLoss("the index lists other blocks than the file has");
    return absl::OkStatus();
  }

  const OpenShard& shard_;
  const bool inferred_ = IsInferred(shard_.index->summary());
  const WorkContext work_;
  const ScrubProgress& progress_;
  ScrubReport report_;
  SectionSum payload_sum_;
  std::vector<Cid> roots_;
  uint64_t payload_offset_ = 0;
  uint64_t payload_size_ = 0;
};

}  // namespace

absl::StatusOr<ScrubReport> VerifyShard(const Accessor& shard, const WorkContext& work,
                                        const ScrubProgress& progress) {
  return Scrub(*shard.shard(), work, progress).Run();
}

}  // namespace dagstore
