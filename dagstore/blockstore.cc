#include "dagstore/blockstore.h"

#include <algorithm>
#include <vector>

#include "base/advice.h"
#include "base/hashing.h"
#include "base/mutant.h"
#include "dagstore/open_shard.h"
#include "index/infer_index.h"
#include "shard/car_reader.h"

namespace dagstore {
namespace {

// What the head of a section says, of which `bytes` are the beginning. It must be the block that was asked for: one
// with this multihash.
absl::Status ParseNamed(const OpenShard& shard, const IndexEntry& entry, const MultihashView& wanted, Span bytes,
                        CarSection& section) {
  CarOptions options = shard.car;
  options.zero_length_as_end = false;
  RETURN_IF_ERROR(ParseSection(bytes, entry.size(), options, section));
  if (section.cid.hash == wanted || Mutant(kMutantSectionUnchecked)) return absl::OkStatus();
  return DataLoss("the section at offset {} is not the block the index names", entry.offset);
}

// The same of a whole section, which has the size that the index says.
absl::Status ParseWhole(const OpenShard& shard, const IndexEntry& entry, const MultihashView& wanted, Span bytes,
                        CarSection& section) {
  RETURN_IF_ERROR(ParseNamed(shard, entry, wanted, bytes, section));
  // The sizes of an inferred index are upper bounds.
  const bool inferred = IsInferred(shard.index->summary());
  const bool fits = inferred ? section.size() <= entry.size() : section.data_size == entry.data_size;
  if (fits) return absl::OkStatus();
  return DataLoss("the section at offset {} is not the block the index names", entry.offset);
}

bool Matches(const OpenShard& shard, const MultihashView& wanted, Span data) {
  return !shard.verify || Mutant(kMutantNoHashOnRead) || VerifyBlock(wanted, data) != HashCheck::kMismatch;
}

// A damaged index must not decide how much is read, or from where.
absl::Status CheckInside(const OpenShard& shard, const IndexEntry& entry) {
  const uint64_t payload = shard.index->summary().payload_size;
  if (entry.offset <= payload && entry.size() <= payload - entry.offset) return absl::OkStatus();
  return DataLoss("index entry at offset {} of {} bytes lies outside the payload", entry.offset, entry.size());
}

// NotFound of a source would mean to a reader that there is no such block.
absl::Status ReadSource(const OpenShard& shard, uint64_t offset, size_t size, uint8_t* out) {
  return Recoded(shard.source->Read(shard.index->summary().payload_offset + offset, size, out),
                 absl::StatusCode::kNotFound, absl::StatusCode::kUnavailable);
}

absl::Status ReadSection(const OpenShard& shard, const IndexEntry& entry, const MultihashView& wanted, Block& block) {
  RETURN_IF_ERROR(CheckInside(shard, entry));
  if (entry.data_size > kSectionBytesLimit)
    return DataLoss("index entry at offset {} has {} bytes, more than any section", entry.offset, entry.data_size);
  CarSection section;
  uint8_t* const room = block.Room(entry.size());
  RETURN_IF_ERROR(ReadSource(shard, entry.offset, entry.size(), room));
  RETURN_IF_ERROR(ParseWhole(shard, entry, wanted, Span(room, entry.size()), section));
  block.SetData(section.head_size, section.data_size);
  return absl::OkStatus();
}

// The block that `entry` names in `file`, checked as a copy of it would be; of no data if anything is wrong with it.
Span SectionInMemory(const OpenShard& shard, Span file, const IndexEntry& entry, const MultihashView& wanted) {
  // From here on a block is more than what reading around one page brings.
  constexpr size_t kManyPages = 16 << 10;
  const uint64_t payload_offset = shard.index->summary().payload_offset;
  if (!CheckInside(shard, entry).ok() || payload_offset > file.size() ||
      entry.offset + entry.size() > file.size() - payload_offset) {
    return {};
  }
  const Span bytes = file.subspan(payload_offset + entry.offset, entry.size());
  if (shard.sealed && bytes.size() > kManyPages) AdviseWillRead(bytes);
  CarSection section;
  if (!ParseWhole(shard, entry, wanted, bytes, section).ok()) return {};
  const Span data = bytes.subspan(section.head_size, section.data_size);
  return Matches(shard, wanted, data) ? data : Span();
}

// What the section itself says, where the index has only an upper bound.
absl::Status ReadDataSize(const OpenShard& shard, const IndexEntry& entry, uint64_t& size) {
  RETURN_IF_ERROR(CheckInside(shard, entry));
  uint8_t head[kSectionHeadBytesMax];
  CarSection section;
  const size_t want = std::min<uint64_t>(sizeof(head), entry.size());
  RETURN_IF_ERROR(ReadSource(shard, entry.offset, want, head));
  RETURN_IF_ERROR(ParseNamed(shard, entry, entry.hash, Span(head, want), section));
  size = section.data_size;
  return absl::OkStatus();
}

class ShardBlockstore final : public Blockstore {
 public:
  explicit ShardBlockstore(std::shared_ptr<const OpenShard> shard) : shard_(std::move(shard)) {}

  absl::StatusOr<bool> Has(const CidView& cid) const override {
    if (cid.IsIdentity()) return true;
    return shard_->index->Contains(cid.hash);
  }

  absl::StatusOr<uint64_t> GetSize(const CidView& cid) const override { return ReadShardBlockSize(*shard_, cid); }

  absl::Status Get(const CidView& cid, Block& block) const override { return ReadShardBlock(*shard_, cid, block); }
  absl::Status GetView(const CidView& cid, BlockView& view) const override {
    return ViewShardBlock(shard_, cid, view);
  }

  void WillGet(std::span<const CidView> cids) const override { HintShardBlocks(*shard_, cids); }

  absl::Status ForEachKey(absl::FunctionRef<bool(const MultihashView&)> visit) const override {
    return shard_->index->ForEach([&](const IndexEntry& entry) { return visit(entry.hash); });
  }

 private:
  const std::shared_ptr<const OpenShard> shard_;
};

}  // namespace

absl::Status AnswerIdentity(const CidView& cid, Block& block) {
  RETURN_IF_ERROR(CheckIdentity(cid));
  block.Assign(cid.hash.digest);
  return absl::OkStatus();
}

absl::Status ReadShardBlock(const OpenShard& shard, const CidView& cid, Block& block, bool* index_damaged) {
  if (index_damaged != nullptr) *index_damaged = false;
  if (cid.IsIdentity()) return AnswerIdentity(cid, block);

  absl::Status first_error = absl::OkStatus();
  bool served = false;
  const absl::StatusOr<size_t> found = shard.index->Find(cid.hash, [&](const IndexEntry& entry) {
    const auto read = [&] {
      absl::Status status = ReadSection(shard, entry, cid.hash, block);
      if (status.ok() && !Matches(shard, cid.hash, block.data())) {
        status = DataLoss("the {} bytes at offset {} do not match their CID", block.data().size(), entry.offset);
      }
      return status;
    };
    absl::Status status = read();
    // A part of a local copy that has rotten is fetched again, once.
    if (absl::IsDataLoss(status) &&
        shard.source->Forget({shard.index->summary().payload_offset + entry.offset, entry.size()}).ok()) {
      status = read();
    }
    served = status.ok();
    if (!served && first_error.ok()) first_error = status;
    return !served && !Mutant(kMutantDuplicateStopsReading);  // a duplicate further on may be sound
  });
  if (served) return absl::OkStatus();
  block.SetData(0, 0);
  const auto context = [&] {
    return fmt::format("block {} of shard \"{}\"", Cid(cid).ToText(), shard.key.Printable());
  };
  if (!found.ok()) {
    if (index_damaged != nullptr) *index_damaged = found.status().code() == absl::StatusCode::kDataLoss;
    return Annotate(found.status(), context());
  }
  if (*found == 0) return NotFound("shard \"{}\" has no block {}", shard.key.Printable(), Cid(cid).ToText());
  return Annotate(first_error, context());
}

absl::Status Blockstore::GetView(const CidView& cid, BlockView& view) const {
  view.Look({}, nullptr);
  RETURN_IF_ERROR(Get(cid, view.copy()));
  view.LookAtCopy();
  return absl::OkStatus();
}

absl::Status ViewShardBlock(const std::shared_ptr<const OpenShard>& shard, const CidView& cid, BlockView& view,
                            bool* index_damaged) {
  if (const Span file = cid.IsIdentity() ? Span() : shard->InMemory(); !file.empty()) {
    Span found;
    const auto find = [&](const IndexEntry& entry) {
      found = SectionInMemory(*shard, file, entry, cid.hash);
      return false;
    };
    if (shard->index->Find(cid.hash, find).ok() && found.data() != nullptr) {
      if (index_damaged != nullptr) *index_damaged = false;
      view.Look(found, shard);
      return absl::OkStatus();
    }
  }
  // Not there, or not as it should be: whoever reads it says why, and tries what else there is.
  view.Look({}, nullptr);
  RETURN_IF_ERROR(ReadShardBlock(*shard, cid, view.copy(), index_damaged));
  view.LookAtCopy();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadShardBlockSize(const OpenShard& shard, const CidView& cid) {
  if (cid.IsIdentity()) return cid.hash.digest.size();
  uint64_t size = 0;
  absl::Status status;
  ASSIGN_OR_RETURN(const size_t found, shard.index->Find(cid.hash, [&](const IndexEntry& entry) {
    size = entry.data_size;
    if (IsInferred(shard.index->summary())) status = ReadDataSize(shard, entry, size);
    return false;
  }));
  RETURN_IF_ERROR(status);
  if (found == 0) return NotFound("shard \"{}\" has no block {}", shard.key.Printable(), Cid(cid).ToText());
  return size;
}

void HintShardBlocks(const OpenShard& shard, std::span<const CidView> cids) {
  if (!shard.source->HeedsHints()) return;
  std::vector<ByteRange> ranges;
  for (const CidView& cid : cids) {
    if (cid.IsIdentity()) continue;
    const auto found = shard.index->Find(cid.hash, [&](const IndexEntry& entry) {
      ranges.push_back({shard.index->summary().payload_offset + entry.offset, entry.size()});
      return false;
    });
    if (!found.ok()) return;  // whoever gets the block is told
  }
  shard.source->WillRead(ranges);
}

std::unique_ptr<Blockstore> NewShardBlockstore(std::shared_ptr<const OpenShard> shard) {
  return std::make_unique<ShardBlockstore>(std::move(shard));
}

}  // namespace dagstore
