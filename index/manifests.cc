#include "index/manifests.h"

#include <algorithm>

#include "base/crc32c.h"
#include "base/varint.h"

namespace dagstore {
namespace {

// See docs/format.md#manifests. Keys:
//   varint shard length, shard, 's', varint rule length, rule, ~version big endian                  -> stat
//   varint shard length, shard, 'c', varint rule length, rule, ~version big endian, first CID      -> chunk
// Versions are inverted so that the newest comes first. The chunk that may hold a CID is the last that begins at or
// before it; as cursors go forward only, a chunk is filed under the last CID it holds.
constexpr char kStat = 's';
constexpr char kChunk = 'c';
constexpr uint8_t kFormat = 1;
constexpr size_t kStatBytes = 1 + 8 + 8 + 8 + 4;
constexpr size_t kChunkHead = 1 + 8;  // format, CIDs in the chunks before
constexpr size_t kChecksum = 4;

std::string ShardPrefix(std::string_view shard) {
  std::string key;
  AppendVarint(key, shard.size());
  key += shard;
  return key;
}

std::string RulePrefix(std::string_view shard, char kind, std::string_view rule) {
  std::string key = ShardPrefix(shard);
  key += kind;
  AppendVarint(key, rule.size());
  key += rule;
  return key;
}

std::string Key(const ManifestId& id, char kind) {
  std::string key = RulePrefix(id.shard, kind, id.rule);
  Append64Big(key, ~id.version);
  return key;
}

// Over key and value, so that a value under another key is noticed.
uint32_t Checksum(std::string_view key, Span value) { return Crc32c(Crc32c(AsSpan(key)), value); }

void Seal(std::string_view key, std::string& value) { Append32(value, Checksum(key, AsSpan(value))); }

// The value without its checksum.
absl::StatusOr<Span> Open(std::string_view key, std::string_view stored) {
  const Span bytes = AsSpan(stored);
  if (bytes.size() < 1 + kChecksum) return DataLoss("a manifest value has {} bytes", bytes.size());
  const Span value = bytes.first(bytes.size() - kChecksum);
  if (Checksum(key, value) != Load32(bytes.data() + value.size()))
    return DataLoss("the checksum of a manifest value differs");
  if (value[0] != kFormat) return FailedPrecondition("manifest of format {}: this build reads {}", value[0], kFormat);
  return value;
}

// The CIDs of a chunk and how many come before them.
struct Chunk {
  uint64_t first = 0;
  Span cids;
};
absl::StatusOr<Chunk> OpenChunk(std::string_view key, std::string_view stored) {
  ASSIGN_OR_RETURN(const Span value, Open(key, stored));
  if (value.size() < kChunkHead) return DataLoss("a manifest chunk has {} bytes", value.size());
  return Chunk{Load64(&value[1]), value.subspan(kChunkHead)};
}

// Takes the first CID off `cids`.
absl::StatusOr<Span> TakeCid(Span& cids) {
  ASSIGN_OR_RETURN(const Varint size, ReadVarint(cids));
  cids = cids.subspan(size.size);
  if (size.value > cids.size()) return DataLoss("a manifest chunk ends within a CID");
  const Span cid = cids.first(size.value);
  cids = cids.subspan(size.value);
  return cid;
}

std::string ChunkHead(uint64_t first) {
  std::string chunk(1, static_cast<char>(kFormat));
  Append64(chunk, first);
  return chunk;
}

absl::Status CheckNames(std::string_view shard, std::string_view rule) {
  if (shard.empty()) return InvalidArgument("a manifest without a shard");
  if (shard.size() > kManifestShardBytesMax)
    return InvalidArgument("shard key of {} bytes: at most {}", shard.size(), kManifestShardBytesMax);
  if (rule.size() > kManifestRuleBytesMax)
    return InvalidArgument("manifest rule of {} bytes: at most {}", rule.size(), kManifestRuleBytesMax);
  return absl::OkStatus();
}

absl::StatusOr<ManifestStat> DecodeStat(std::string_view key, std::string_view stored) {
  ASSIGN_OR_RETURN(const Span value, Open(key, stored));
  if (value.size() != kStatBytes - kChecksum) return DataLoss("a manifest's stat has {} bytes", stored.size());
  return ManifestStat{Load64(&value[1]), Load64(&value[9]),
                      absl::FromUnixMicros(static_cast<int64_t>(Load64(&value[17])))};
}

}  // namespace

absl::Status Manifests::Add(KvBatch& batch, const ManifestId& id, std::span<const Cid> cids, absl::Time created) const {
  RETURN_IF_ERROR(CheckNames(id.shard, id.rule));
  if (cids.size() > options_.entries_max)
    return ResourceExhausted("{} CIDs: a manifest may have {}", cids.size(), options_.entries_max);
  std::vector<const Cid*> sorted;
  sorted.reserve(cids.size());
  for (const Cid& cid : cids) {
    if (cid.empty()) return InvalidArgument("an entry of a manifest is not a CID");
    sorted.push_back(&cid);
  }
  std::sort(sorted.begin(), sorted.end(), [](const Cid* a, const Cid* b) { return *a < *b; });
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [](const Cid* a, const Cid* b) { return *a == *b; }),
               sorted.end());

  RETURN_IF_ERROR(Drop(batch, id));
  const std::string chunk_prefix = Key(id, kChunk);
  std::string chunk = ChunkHead(0);
  uint64_t bytes = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const Span cid = sorted[i]->bytes();
    bytes += cid.size();
    AppendVarint(chunk, cid.size());
    AppendBytes(chunk, cid);
    const bool last = i + 1 == sorted.size();
    if (!last && chunk.size() + kVarintBytesMax + sorted[i + 1]->bytes().size() + kChecksum <= kManifestChunkBytesMax)
      continue;
    std::string key = chunk_prefix + sorted[i]->binary();
    Seal(key, chunk);
    batch.Put(KvTable::kManifests, std::move(key), std::exchange(chunk, ChunkHead(i + 1)));
  }
  std::string stat(1, static_cast<char>(kFormat));
  Append64(stat, sorted.size());
  Append64(stat, bytes);
  Append64(stat, static_cast<uint64_t>(absl::ToUnixMicros(created)));
  std::string key = Key(id, kStat);
  Seal(key, stat);
  batch.Put(KvTable::kManifests, std::move(key), std::move(stat));
  return absl::OkStatus();
}

absl::Status Manifests::Drop(KvBatch& batch, const ManifestId& id) const {
  RETURN_IF_ERROR(CheckNames(id.shard, id.rule));
  batch.Delete(KvTable::kManifests, Key(id, kStat));
  batch.DeletePrefix(KvTable::kManifests, Key(id, kChunk));
  return absl::OkStatus();
}

absl::Status Manifests::DropShard(KvBatch& batch, std::string_view shard) const {
  RETURN_IF_ERROR(CheckNames(shard, {}));
  batch.DeletePrefix(KvTable::kManifests, ShardPrefix(shard));
  return absl::OkStatus();
}

absl::StatusOr<ManifestStat> Manifests::Stat(const ManifestId& id) const {
  RETURN_IF_ERROR(CheckNames(id.shard, id.rule));
  const std::string key = Key(id, kStat);
  ASSIGN_OR_RETURN(const std::optional<std::string> stored, kv_.Get(KvTable::kManifests, key));
  if (!stored.has_value()) return NotFound("no manifest of this rule and version {}", id.version);
  return DecodeStat(key, *stored);
}

absl::StatusOr<bool> Manifests::Contains(const ManifestId& id, const Cid& cid) const {
  if (cid.empty()) return InvalidArgument("not a CID");
  RETURN_IF_ERROR(Stat(id).status());
  const std::string prefix = Key(id, kChunk);
  const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kManifests, prefix + cid.binary(), prefix);
  RETURN_IF_ERROR(cursor->status());
  if (!cursor->Valid()) return false;
  ASSIGN_OR_RETURN(Chunk chunk, OpenChunk(cursor->key(), cursor->value()));
  while (!chunk.cids.empty()) {
    ASSIGN_OR_RETURN(const Span stored, TakeCid(chunk.cids));
    if (SameBytes(stored, cid.bytes())) return true;
  }
  return false;
}

absl::StatusOr<ManifestPage> Manifests::Get(const ManifestId& id, const Cid& after, size_t limit) const {
  if (limit == 0) return InvalidArgument("a page of 0 CIDs");
  ASSIGN_OR_RETURN(const ManifestStat stat, Stat(id));
  const std::string prefix = Key(id, kChunk);
  const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kManifests, prefix + after.binary(), prefix);
  ManifestPage page;
  // Position of the next CID; known from the first chunk on, or at the beginning. A chunk that was lost leaves a gap.
  std::optional<uint64_t> position;
  if (after.empty()) position = 0;
  for (; cursor->Valid(); cursor->Next()) {
    ASSIGN_OR_RETURN(Chunk chunk, OpenChunk(cursor->key(), cursor->value()));
    if (position.value_or(chunk.first) != chunk.first)
      return DataLoss("a chunk of a manifest is missing before CID {}", chunk.first);
    position = chunk.first;
    while (!chunk.cids.empty()) {
      ASSIGN_OR_RETURN(const Span bytes, TakeCid(chunk.cids));
      ++*position;
      if (CompareBytes(bytes, after.bytes()) <= 0) continue;
      if (page.cids.size() == limit) {
        page.next_after = page.cids.back();
        return page;
      }
      ASSIGN_OR_RETURN(Cid cid, Cid::FromBytes(bytes));
      page.cids.push_back(std::move(cid));
    }
  }
  RETURN_IF_ERROR(cursor->status());
  if (position.value_or(stat.entries) != stat.entries)
    return DataLoss("a manifest has {} CIDs up to its end, not {}", *position, stat.entries);
  return page;
}

absl::StatusOr<std::vector<ManifestInfo>> Manifests::List(std::string_view shard, std::optional<std::string_view> rule,
                                                          const ManifestInfo* after, size_t limit) const {
  RETURN_IF_ERROR(CheckNames(shard, rule.value_or(std::string_view())));
  std::string prefix = ShardPrefix(shard) + kStat;
  if (rule.has_value()) prefix = RulePrefix(shard, kStat, *rule);
  std::string from = prefix;
  if (after != nullptr) {
    from = Key({std::string(shard), after->rule, after->version}, kStat);
    from += '\0';  // the key that follows directly
  }
  std::vector<ManifestInfo> infos;
  const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kManifests, from, prefix);
  for (; cursor->Valid() && infos.size() < limit; cursor->Next()) {
    const Span name = AsSpan(cursor->key()).subspan(ShardPrefix(shard).size() + 1);
    ASSIGN_OR_RETURN(const Varint size, ReadVarint(name));
    if (size.value > kManifestRuleBytesMax || name.size() != size.size + size.value + 8)
      return DataLoss("the manifests table has a key of {} bytes", cursor->key().size());
    ManifestInfo info;
    info.rule = AsText(name.subspan(size.size, size.value));
    info.version = ~Load64Big(&name[size.size + size.value]);
    ASSIGN_OR_RETURN(info.stat, DecodeStat(cursor->key(), cursor->value()));
    infos.push_back(std::move(info));
  }
  RETURN_IF_ERROR(cursor->status());
  return infos;
}

}  // namespace dagstore
