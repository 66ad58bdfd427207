// What tests of shard indexes share: entries that own their digests, and indexes made of them.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "base/crc32c.h"
#include "base/hashing.h"
#include "index/index_builder.h"
#include "tests/testing.h"

namespace dagstore {

struct OwnedEntry {
  uint64_t code = kSha2_256;
  Bytes digest = {};
  uint64_t offset = 0;
  uint32_t head_size = 38;
  uint32_t data_size = 100;
  uint64_t codec = kCodecRaw;

  IndexEntry view() const {
    return {.hash = {code, digest}, .offset = offset, .head_size = head_size, .data_size = data_size, .codec = codec};
  }
  friend bool operator==(const OwnedEntry&, const OwnedEntry&) = default;
  // The order of an index.
  friend bool operator<(const OwnedEntry& a, const OwnedEntry& b) {
    if (const MultihashView x{a.code, a.digest}, y{b.code, b.digest}; !(x == y)) return x < y;
    return a.offset < b.offset;
  }
};

inline OwnedEntry Owned(const IndexEntry& entry) {
  return {entry.hash.code, Bytes(entry.hash.digest.begin(), entry.hash.digest.end()), entry.offset, entry.head_size,
          entry.data_size, entry.codec};
}

inline Bytes Sha256Of(std::string_view text) {
  Bytes digest(32);
  Sha256(AsSpan(text), digest.data());
  return digest;
}

// `count` sections one behind the other, with the digests of "<seed>0", "<seed>1", ...
inline std::vector<OwnedEntry> UniformEntries(size_t count, std::string_view seed = "") {
  std::vector<OwnedEntry> entries;
  for (size_t i = 0; i < count; ++i)
    entries.push_back({.digest = Sha256Of(fmt::format("{}{}", seed, i)), .offset = 59 + i * 138});
  return entries;
}

inline IndexSummary SummaryOf(const std::vector<OwnedEntry>& entries) {
  IndexSummary summary;
  for (const OwnedEntry& entry : entries)
    summary.payload_size = std::max(summary.payload_size, entry.offset + entry.view().size());
  summary.source_size = summary.payload_size;
  summary.verified = true;
  return summary;
}

inline BuiltIndex BuildFrom(const std::vector<OwnedEntry>& entries, IndexOutput output = {},
                            size_t memory_bytes_max = IndexBuilder::kMemoryBytesMax, std::vector<Cid> roots = {}) {
  IndexBuilder builder(std::move(output), memory_bytes_max);
  for (const OwnedEntry& entry : entries) REQUIRE_STATUS_OK(builder.Add(entry.view()));
  return ValueOf(builder.Finish(std::move(roots), SummaryOf(entries)));
}

inline std::shared_ptr<const ShardIndex> IndexOf(const std::vector<OwnedEntry>& entries) {
  return ValueOf(OpenNativeIndex(BuildFrom(entries).heap));
}

inline std::vector<OwnedEntry> AllOf(const ShardIndex& index) {
  std::vector<OwnedEntry> entries;
  CHECK_STATUS_OK(index.ForEach([&](const IndexEntry& entry) {
    entries.push_back(Owned(entry));
    return true;
  }));
  return entries;
}

inline std::vector<OwnedEntry> FoundIn(const ShardIndex& index, const MultihashView& hash) {
  std::vector<OwnedEntry> entries;
  const absl::StatusOr<size_t> visited = index.Find(hash, [&](const IndexEntry& entry) {
    entries.push_back(Owned(entry));
    return true;
  });
  CHECK_EQ(ValueOf(visited), entries.size());
  return entries;
}

// Makes the checksum of a changed header right again, so that what lies behind it is tested.
inline void SealHeader(Bytes& index) {
  const uint32_t header_bytes = Load32(index.data() + 12);
  Store32(index.data() + header_bytes - 4, Crc32c(Span(index).first(header_bytes - 4)));
}

}  // namespace dagstore
