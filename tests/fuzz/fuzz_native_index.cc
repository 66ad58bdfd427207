// Shard indexes. Input that begins like one is read as one, with and without its checksums made right, so that what
// lies behind them is reached. Other input is taken for a CAR: an index of it can be built, checked, exported and
// parsed.
#include "base/check.h"
#include "base/crc32c.h"
#include "index/car_index.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

constexpr size_t kGroupBytes = 32;

// Every entry that is visited is found again.
void Read(const ShardIndex& index) {
  uint64_t entries = 0;
  const absl::Status walked = index.ForEach([&](const IndexEntry& entry) {
    // Damage elsewhere, or another order than the format's, may hide it: no crash and no hang is what is asked for.
    index.Contains(entry.hash).status().IgnoreError();
    return ++entries < 1000;
  });
  if (!walked.ok() || !index.CheckAll().ok()) return;
  DAGSTORE_CHECK(entries == std::min<uint64_t>(index.summary().entries, 1000));
  entries = 0;
  DAGSTORE_CHECK_OK(index.ForEach([&](const IndexEntry& entry) {
    const absl::StatusOr<bool> there = index.Contains(entry.hash);
    DAGSTORE_CHECK(there.ok() && *there);
    return ++entries < 1000;
  }));
}

// Makes size and checksums those of the bytes, as far as the header makes sense.
void Seal(Bytes& bytes) {
  Store64(bytes.data() + 16, bytes.size());
  const uint32_t header_bytes = Load32(bytes.data() + 12);
  if (header_bytes < 116 || header_bytes > bytes.size()) return;
  const uint32_t header_crc = Crc32c(Span(bytes).first(header_bytes - 4));
  Store32(bytes.data() + header_bytes - 4, header_crc);
  const uint64_t groups_at = uint64_t{112} + Load32(bytes.data() + 100) + uint64_t{8} * Load32(bytes.data() + 104);
  const uint64_t groups = Load32(bytes.data() + 108);
  for (uint64_t i = 0; i < groups && groups_at + (i + 1) * kGroupBytes <= header_bytes; ++i) {
    const uint8_t* entry = bytes.data() + groups_at + i * kGroupBytes;
    IndexGroup group{.digest_size = Load32(entry + 8), .entries = Load64(entry + 16), .offset = Load64(entry + 24)};
    if (group.digest_size > kDigestBytesMax || group.entries > bytes.size() || group.offset > bytes.size()) return;
    for (uint64_t at = group.offset, end = group.offset + group.bytes(); at < end && at + 4 <= bytes.size();
         at += kIndexPageBytes) {
      const uint64_t page_end = std::min<uint64_t>({at + kIndexPageBytes, end, bytes.size()});
      uint8_t seed[12];
      Store32(seed, header_crc);
      Store64(seed + 4, at);
      Store32(bytes.data() + at, Crc32c(Crc32c(seed), Span(bytes).subspan(at + 4, page_end - at - 4)));
    }
  }
}

}  // namespace

void FuzzOne(Span input) {
  if (input.size() >= 116 && input[0] == 0x89) {
    Bytes bytes(input.begin(), input.end());
    if (const auto index = OpenNativeIndex(bytes); index.ok()) Read(**index);
    Seal(bytes);
    if (const auto index = OpenNativeIndex(bytes); index.ok()) Read(**index);
    return;
  }
  const auto source = NewMemoryReader(input);
  UseEmbeddedIndex(*source, {}, {}, {}).status().IgnoreError();
  const auto built = BuildIndex(*source, {.verify = false}, {}, {});
  if (!built.ok()) return;
  const auto index = OpenNativeIndex(built->heap);
  DAGSTORE_CHECK_OK(index.status());
  DAGSTORE_CHECK_OK((*index)->CheckAll());
  Read(**index);
  for (const uint64_t codec : {kCodecCarIndexSorted, kCodecCarMultihashIndexSorted}) {
    const auto exported = EncodeCarIndex(**index, codec, Identities::kInclude);
    DAGSTORE_CHECK_OK(exported.status());
    const auto parsed = ParseCarIndex(*exported, built->summary.payload_size);
    DAGSTORE_CHECK_OK(parsed.status());
    DAGSTORE_CHECK(parsed->entries == built->summary.entries);
  }
}

}  // namespace dagstore
