// The native form of a shard index: one immutable run of bytes, read in place. Format: docs/format.md#shard-index.
//
// A header (counts, roots, codecs, groups; checked when opened) and pages of 4096 bytes that carry their own checksum,
// so that a lookup checks what it reads and nothing else. Opening costs the header, whatever the number of entries.
// Threads: a writer belongs to one; an open index to any.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "index/shard_index.h"

namespace dagstore {

inline constexpr size_t kIndexPageBytes = 4096;  // a page fault; its checksum is verified in 0.5 us
inline constexpr size_t kIndexPageHeadBytes = 4;  // the checksum
inline constexpr size_t kIndexTailBytes = 14;    // of an entry, after the digest: offset, sizes, codec
inline constexpr uint64_t kIndexOffsetMax = (uint64_t{1} << 48) - 1;  // 256 TiB: what the six bytes of an offset hold
inline constexpr uint64_t kIndexEntriesMax = uint64_t{1} << 40;       // so that no size here overflows 64 bits
// Real CARs use a handful of each; the limits keep opening cheap when a hostile one invents a kind per section.
// Identity digests of every length and then some fit.
inline constexpr size_t kIndexGroupsMax = 4096;
inline constexpr size_t kIndexCodecsMax = 4096;
inline constexpr size_t kIndexRootsMax = 16384;  // four times what CarOptions allows
inline constexpr size_t kIndexHeaderBytesMax = 16 << 20;  // thousands of the longest roots, and both tables

// Entries with the same hash function and digest length.
struct IndexGroup {
  uint64_t code = 0;
  uint32_t digest_size = 0;
  uint64_t entries = 0;
  uint64_t offset = 0;  // of its first page in the file; computed by the writer

  size_t entry_size() const { return digest_size + kIndexTailBytes; }
  uint64_t entries_per_page() const { return (kIndexPageBytes - kIndexPageHeadBytes) / entry_size(); }
  uint64_t pages() const { return (entries + entries_per_page() - 1) / entries_per_page(); }
  uint64_t bytes() const;  // of all pages; only the last may be short
};

// Writes the bytes after the digest. `codec_index` points into the codec table.
void EncodeIndexTail(uint64_t offset, uint32_t data_size, uint16_t head_size, uint16_t codec_index, uint8_t* out);
// The first eight digest bytes as a number; shorter digests end in zeros, which keeps their order.
inline uint64_t IndexDigestPrefix(const uint8_t* digest, size_t size) {
  if (size >= 8) return Load64Big(digest);
  uint64_t prefix = 0;
  for (size_t i = 0; i < size; ++i) prefix |= uint64_t{digest[i]} << (56 - 8 * i);
  return prefix;
}
inline uint64_t IndexTailOffset(const uint8_t* tail) { return Load32(tail) | uint64_t{Load16(tail + 4)} << 32; }
// The part of one entry (digest and tail) in the sum of the header; the sum does not depend on the order.
uint64_t IndexEntryMix(Span entry);

// Where the bytes of an index go.
class IndexSink {
 public:
  virtual ~IndexSink() = default;
  virtual absl::Status Append(Span bytes) = 0;
};

class BytesSink final : public IndexSink {
 public:
  explicit BytesSink(Bytes& out) : out_(out) {}
  absl::Status Append(Span bytes) override {
    AppendBytes(out_, bytes);
    return absl::OkStatus();
  }

 private:
  Bytes& out_;
};

// What is known once every entry has been seen, before the first byte is written.
struct NativeIndexPlan {
  IndexSummary summary = {};
  std::vector<Cid> roots = {};
  std::vector<uint64_t> codecs = {};
  std::vector<IndexGroup> groups = {};  // ascending by code, then digest size; none empty
  uint64_t entries_mix = 0;             // sum of IndexEntryMix over all entries
};

// Writes an index front to back: bytes go out once, in order.
class NativeIndexWriter {
 public:
  // Lays out the file. FailedPrecondition if there are too many groups, codecs or roots.
  static absl::StatusOr<NativeIndexWriter> Plan(NativeIndexPlan plan);

  uint64_t bytes() const { return bytes_; }        // of the whole index
  uint32_t checksum() const { return checksum_; }  // as ShardIndex::Checksum

  // Once, first. `sink` must outlive the writer.
  absl::Status Begin(IndexSink& sink);
  // The next entry (digest and tail): all of the first group in order of digest and offset, then of the next.
  absl::Status Append(const uint8_t* entry);
  // Any thread. Makes `pages` pages of the current group from `first` on, for AppendPages. `entry_at(rank)` gives the
  // entries of the group in order.
  template <typename EntryAt>
  void EncodePages(uint64_t first, uint64_t pages, EntryAt entry_at, Bytes& out) const;
  // The next pages of the current group. In place of Append for a whole group, and only for entries that have not left
  // memory since they were added to entries_mix: they are not checked against it.
  absl::Status AppendPages(uint64_t pages, Span bytes);
  const IndexGroup& group() const { return plan_.groups[group_]; }  // the current one
  // Once, last. DataLoss if the entries are not those of the plan (a temporary file did not give back what it was
  // given).
  absl::Status Finish();

 private:
  NativeIndexWriter() = default;
  absl::Status FlushPage();
  absl::Status PadTo(uint64_t offset);
  static void SealPage(uint32_t checksum, uint64_t offset, uint8_t* page, size_t size);

  NativeIndexPlan plan_;
  Bytes header_;
  uint64_t bytes_ = 0;
  uint32_t checksum_ = 0;
  IndexSink* sink_ = nullptr;
  uint64_t written_ = 0;
  size_t group_ = 0;
  uint64_t group_entries_ = 0;  // of the current group, so far
  uint64_t mix_ = 0;            // of the entries, unless they came as pages
  bool mix_counts_ = true;
  Bytes page_;                  // begins with room for the checksum
};

template <typename EntryAt>
void NativeIndexWriter::EncodePages(uint64_t first, uint64_t pages, EntryAt entry_at, Bytes& out) const {
  const IndexGroup& group = plan_.groups[group_];
  const size_t size = group.entry_size();
  const uint64_t per_page = group.entries_per_page();
  out.resize(std::min(pages * kIndexPageBytes, group.bytes() - first * kIndexPageBytes));
  uint8_t* page = out.data();
  for (uint64_t number = first; number < first + pages; ++number) {
    uint8_t* at = page + kIndexPageHeadBytes;
    const uint64_t end = std::min(group.entries, (number + 1) * per_page);
    for (uint64_t rank = number * per_page; rank < end; ++rank, at += size) std::memcpy(at, entry_at(rank), size);
    uint8_t* const page_end = std::min(page + kIndexPageBytes, out.data() + out.size());
    std::fill(at, page_end, uint8_t{0});
    SealPage(checksum_, group.offset + number * kIndexPageBytes, page, static_cast<size_t>(page_end - page));
    page = page_end;
  }
}

// Opens an index in `bytes`, which stay as they are while `keep_alive` lives. Memory beside them: the tables of the
// header, and a bit per page.
// DataLoss if the header is damaged or does not fit the size; FailedPrecondition if a newer dagstore wrote it.
absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenNativeIndex(Span bytes, std::shared_ptr<const void> keep_alive);
absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenNativeIndex(Bytes bytes);

}  // namespace dagstore
