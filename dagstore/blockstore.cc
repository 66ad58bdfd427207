#include "dagstore/blockstore.h"

#include "base/hashing.h"
#include "base/mutant.h"
#include "dagstore/open_shard.h"
#include "shard/car_reader.h"

namespace dagstore {
namespace {

// Reads one section and checks that it is what the index says: the CID there has the multihash that was asked for.
absl::Status ReadSection(const OpenShard& shard, const IndexEntry& entry, const MultihashView& wanted, Block& block) {
  const IndexSummary& summary = shard.index->summary();
  if (entry.offset > summary.payload_size || entry.size() > summary.payload_size - entry.offset ||
      entry.data_size > kSectionBytesLimit) {
    return DataLoss("index entry at offset {} of {} bytes lies outside the payload", entry.offset, entry.size());
  }
  uint8_t* room = block.Room(entry.size());
  RETURN_IF_ERROR(shard.source->Read(summary.payload_offset + entry.offset, entry.size(), room));
  CarSection section;
  CarOptions options = shard.car;
  options.zero_length_as_end = false;
  RETURN_IF_ERROR(ParseSection(Span(room, entry.size()), entry.size(), options, section));
  if ((!(section.cid.hash == wanted) && !Mutant(kMutantSectionUnchecked)) || section.data_size != entry.data_size) {
    return DataLoss("the section at offset {} is not the block the index names", entry.offset);
  }
  block.SetData(entry.size() - entry.data_size, entry.data_size);
  return absl::OkStatus();
}

class ShardBlockstore final : public Blockstore {
 public:
  explicit ShardBlockstore(std::shared_ptr<const OpenShard> shard) : shard_(std::move(shard)) {}

  absl::StatusOr<bool> Has(const CidView& cid) const override {
    if (cid.IsIdentity()) return true;
    return shard_->index->Contains(cid.hash);
  }

  absl::StatusOr<uint64_t> GetSize(const CidView& cid) const override {
    if (cid.IsIdentity()) return cid.hash.digest.size();
    uint64_t size = 0;
    ASSIGN_OR_RETURN(const size_t found, shard_->index->Find(cid.hash, [&](const IndexEntry& entry) {
      size = entry.data_size;
      return false;
    }));
    if (found == 0) return NotFound("shard \"{}\" has no block {}", shard_->key.Printable(), Cid(cid).ToText());
    return size;
  }

  absl::Status Get(const CidView& cid, Block& block) const override { return ReadShardBlock(*shard_, cid, block); }

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
    absl::Status status = ReadSection(shard, entry, cid.hash, block);
    const bool verify = shard.verify && !Mutant(kMutantNoHashOnRead);
    if (status.ok() && verify && VerifyBlock(cid.hash, block.data()) == HashCheck::kMismatch) {
      status = DataLoss("the {} bytes at offset {} do not match their CID", entry.data_size, entry.offset);
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

std::unique_ptr<Blockstore> NewShardBlockstore(std::shared_ptr<const OpenShard> shard) {
  return std::make_unique<ShardBlockstore>(std::move(shard));
}

}  // namespace dagstore
