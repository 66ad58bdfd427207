#include "index/native_index.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/splitmix.h"

namespace dagstore {
namespace {

constexpr uint8_t kMagic[8] = {0x89, 'D', 'S', 'I', 'D', 'X', '\r', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kFlagVerified = 1;          // stored; never renumber
constexpr uint32_t kFlagsMustKnow = 0xffff0000;  // a reader that does not know one of these must not read on
constexpr size_t kFixedHeaderBytes = 112;
constexpr size_t kGroupBytes = 32;
constexpr size_t kCrcBytes = kIndexPageHeadBytes;
// An index up to this size is packed; in a larger one, groups of several pages begin on a page of the file.
constexpr uint64_t kPackedBytesMax = 64 << 10;
constexpr uint64_t kHalvingBelow = 16;  // entries; they lie side by side in a few cache lines
constexpr int kInterpolationSteps = 4;  // then halving: digests chosen by an enemy may be clustered
// A group of so many entries gets a bucket directory in memory once it has been asked often: below, interpolation is as
// fast; above, making one would hold up a lookup for more than 50 ms.
constexpr uint64_t kDirectoryEntriesMin = 64 << 10;
constexpr uint64_t kDirectoryEntriesMax = 4 << 20;
constexpr uint64_t kEntriesPerLookup = 64;  // making it costs 10 ns an entry: less than half of the lookups before it

// Binds a page to its index and to its place in it, so that a page of another index or of elsewhere does not pass.
uint32_t PageCrc(uint32_t header_crc, uint64_t page_offset, Span entries) {
  uint8_t seed[12];
  Store32(seed, header_crc);
  Store64(seed + 4, page_offset);
  return Crc32c(Crc32c(seed), entries);
}

void SetOffsets(uint64_t header_bytes, std::vector<IndexGroup>& groups, uint64_t& end) {
  uint64_t packed = header_bytes;
  for (const IndexGroup& group : groups) packed += group.bytes();
  end = header_bytes;
  for (IndexGroup& group : groups) {
    if (packed > kPackedBytesMax && group.pages() > 1)
      end = (end + kIndexPageBytes - 1) / kIndexPageBytes * kIndexPageBytes;
    group.offset = end;
    end += group.bytes();
  }
}

}  // namespace

uint64_t IndexGroup::bytes() const {
  const uint64_t full = entries / entries_per_page();
  const uint64_t rest = entries % entries_per_page();
  return full * kIndexPageBytes + (rest == 0 ? 0 : kCrcBytes + rest * entry_size());
}

void EncodeIndexTail(uint64_t offset, uint32_t data_size, uint16_t head_size, uint16_t codec_index, uint8_t* out) {
  uint8_t offset_bytes[8];
  Store64(offset_bytes, offset);
  std::memcpy(out, offset_bytes, 6);
  Store32(out + 6, data_size);
  std::memcpy(out + 10, &head_size, 2);
  std::memcpy(out + 12, &codec_index, 2);
}

uint64_t IndexEntryMix(Span entry) {
  const uint64_t offset = IndexTailOffset(entry.data() + entry.size() - kIndexTailBytes);
  return MixBits(uint64_t{Crc32c(entry)} << 32 ^ offset);
}

absl::StatusOr<NativeIndexWriter> NativeIndexWriter::Plan(NativeIndexPlan plan) {
  if (plan.groups.size() > kIndexGroupsMax)
    return FailedPrecondition("{} kinds of multihash in one shard, limit {}", plan.groups.size(), kIndexGroupsMax);
  if (plan.codecs.size() > kIndexCodecsMax)
    return FailedPrecondition("{} codecs in one shard, limit {}", plan.codecs.size(), kIndexCodecsMax);
  if (plan.roots.size() > kIndexRootsMax)
    return FailedPrecondition("{} roots in one shard, limit {}", plan.roots.size(), kIndexRootsMax);
  size_t roots_bytes = 0;
  for (const Cid& root : plan.roots) roots_bytes += 2 + root.bytes().size();
  const size_t header_bytes = kFixedHeaderBytes + roots_bytes + 8 * plan.codecs.size() +
                              kGroupBytes * plan.groups.size() + kCrcBytes;
  if (header_bytes > kIndexHeaderBytesMax)
    return FailedPrecondition("{} roots in one shard do not fit an index", plan.roots.size());

  NativeIndexWriter writer;
  uint64_t entries = 0;
  for (const IndexGroup& group : plan.groups) {
    DAGSTORE_CHECK(group.entries != 0 && group.digest_size <= kDigestBytesMax);
    entries += group.entries;
  }
  DAGSTORE_CHECK(entries == plan.summary.entries);
  if (entries > kIndexEntriesMax) return FailedPrecondition("{} sections in one shard", entries);
  SetOffsets(header_bytes, plan.groups, writer.bytes_);

  const IndexSummary& summary = plan.summary;
  Bytes& out = writer.header_;
  out.reserve(header_bytes);
  AppendBytes(out, kMagic);
  Append32(out, kVersion);
  Append32(out, static_cast<uint32_t>(header_bytes));
  Append64(out, writer.bytes_);
  Append32(out, summary.verified ? kFlagVerified : 0);
  Append32(out, static_cast<uint32_t>(summary.car_version));
  Append64(out, summary.entries);
  Append64(out, summary.identity_entries);
  Append64(out, summary.block_bytes);
  Append64(out, summary.payload_offset);
  Append64(out, summary.payload_size);
  Append64(out, summary.source_size);
  Append64(out, summary.unverified);
  Append64(out, plan.entries_mix);
  Append32(out, static_cast<uint32_t>(plan.roots.size()));
  Append32(out, static_cast<uint32_t>(roots_bytes));
  Append32(out, static_cast<uint32_t>(plan.codecs.size()));
  Append32(out, static_cast<uint32_t>(plan.groups.size()));
  DAGSTORE_CHECK(out.size() == kFixedHeaderBytes);
  for (const Cid& root : plan.roots) {
    const uint16_t size = static_cast<uint16_t>(root.bytes().size());
    out.push_back(static_cast<uint8_t>(size));
    out.push_back(static_cast<uint8_t>(size >> 8));
    AppendBytes(out, root.bytes());
  }
  for (uint64_t codec : plan.codecs) Append64(out, codec);
  for (const IndexGroup& group : plan.groups) {
    Append64(out, group.code);
    Append32(out, group.digest_size);
    Append32(out, static_cast<uint32_t>(group.entry_size()));
    Append64(out, group.entries);
    Append64(out, group.offset);
  }
  writer.checksum_ = Crc32c(out);
  Append32(out, writer.checksum_);
  writer.plan_ = std::move(plan);
  return writer;
}

absl::Status NativeIndexWriter::Begin(IndexSink& sink) {
  DAGSTORE_CHECK(sink_ == nullptr);
  sink_ = &sink;
  page_.reserve(kIndexPageBytes);
  page_.assign(kCrcBytes, 0);
  RETURN_IF_ERROR(sink.Append(header_));
  written_ = header_.size();
  header_ = {};
  return absl::OkStatus();
}

absl::Status NativeIndexWriter::PadTo(uint64_t offset) {
  static constexpr uint8_t kZeros[kIndexPageBytes] = {};
  DAGSTORE_CHECK(offset >= written_ && offset - written_ < kIndexPageBytes);
  RETURN_IF_ERROR(sink_->Append(Span(kZeros).first(offset - written_)));
  written_ = offset;
  return absl::OkStatus();
}

absl::Status NativeIndexWriter::Append(const uint8_t* entry) {
  DAGSTORE_CHECK(group_ < plan_.groups.size());
  const IndexGroup& group = plan_.groups[group_];
  if (group_entries_ == 0) RETURN_IF_ERROR(PadTo(group.offset));
  const Span bytes(entry, group.entry_size());
  mix_ += IndexEntryMix(bytes);
  AppendBytes(page_, bytes);
  ++group_entries_;
  const bool group_done = group_entries_ == group.entries;
  if (group_done || page_.size() + group.entry_size() > kIndexPageBytes) {
    if (!group_done || group_entries_ % group.entries_per_page() == 0) page_.resize(kIndexPageBytes, 0);
    RETURN_IF_ERROR(FlushPage());
  }
  if (group_done) {
    ++group_;
    group_entries_ = 0;
  }
  return absl::OkStatus();
}

void NativeIndexWriter::SealPage(uint32_t checksum, uint64_t offset, uint8_t* page, size_t size) {
  Store32(page, PageCrc(checksum, offset, Span(page, size).subspan(kCrcBytes)));
}

absl::Status NativeIndexWriter::AppendPages(uint64_t pages, Span bytes) {
  DAGSTORE_CHECK(group_ < plan_.groups.size());
  const IndexGroup& group = plan_.groups[group_];
  if (group_entries_ == 0) RETURN_IF_ERROR(PadTo(group.offset));
  RETURN_IF_ERROR(sink_->Append(bytes));
  written_ += bytes.size();
  mix_counts_ = false;
  group_entries_ = std::min(group.entries, group_entries_ + pages * group.entries_per_page());
  if (group_entries_ == group.entries) {
    ++group_;
    group_entries_ = 0;
  }
  return absl::OkStatus();
}

absl::Status NativeIndexWriter::FlushPage() {
  SealPage(checksum_, written_, page_.data(), page_.size());
  RETURN_IF_ERROR(sink_->Append(page_));
  written_ += page_.size();
  page_.assign(kCrcBytes, 0);
  return absl::OkStatus();
}

absl::Status NativeIndexWriter::Finish() {
  DAGSTORE_CHECK(group_ == plan_.groups.size() && written_ == bytes_);
  if (mix_counts_ && mix_ != plan_.entries_mix)
    return DataLoss("index entries written are not those that were added: a temporary file was damaged");
  return absl::OkStatus();
}

namespace {

class NativeIndex final : public ShardIndex {
 public:
  static absl::StatusOr<std::shared_ptr<const ShardIndex>> Open(Span bytes, std::shared_ptr<const void> keep_alive);

  const IndexSummary& summary() const override { return summary_; }
  const std::vector<Cid>& roots() const override { return roots_; }
  absl::StatusOr<size_t> Find(const MultihashView& hash,
                              absl::FunctionRef<bool(const IndexEntry&)> visit) const override;
  absl::Status ForEach(absl::FunctionRef<bool(const IndexEntry&)> visit) const override;
  uint64_t SizeBytes() const override { return bytes_.size(); }
  uint32_t Checksum() const override { return header_crc_; }
  absl::Status CheckAll() const override;

 private:
  struct Group : IndexGroup {
    uint64_t first_page = 0;  // pages of the groups before it
    uint64_t per_page = 1;    // entries_per_page(), for lookups
    uint64_t inverse = 0;     // 2^64 / per_page, rounded up; 0: per_page is 1

    void SetPerPage() {
      per_page = entries_per_page();
      inverse = per_page == 1 ? 0 : UINT64_MAX / per_page + 1;
    }
    // rank / per_page, which is a lookup's most frequent sum: exact, as ranks are below 2^40 and per_page below 2^12.
    uint64_t PageOf(uint64_t rank) const {
      return inverse == 0 ? rank : static_cast<uint64_t>((static_cast<unsigned __int128>(rank) * inverse) >> 64);
    }
    // Of the entry's first byte, from the start of the group.
    uint64_t PlaceOf(uint64_t rank) const {
      const uint64_t page = PageOf(rank);
      return page * kIndexPageBytes + kCrcBytes + (rank - page * per_page) * entry_size();
    }
  };
  // The entries of one page whose checksum holds.
  struct Page {
    const uint8_t* entries = nullptr;
    size_t count = 0;
  };
  struct FreeBits {
    void operator()(uint64_t* bits) const { std::free(bits); }
  };

  absl::Status ParseHeader();
  Span PageBytes(const Group& group, uint64_t page) const;
  // Where the entries of each bucket of upper digest bits begin: 8 to 16 entries a bucket, 0.25 to 0.5 bytes each.
  struct Directory {
    int shift = 0;
    std::vector<uint32_t> starts;  // one more than buckets
  };
  // The directory of a group, if it has one; counts the lookup, and makes it when they were many. Null if a page is
  // damaged.
  const Directory* DirectoryOf(const Group& group) const;
  std::unique_ptr<const Directory> MakeDirectory(const Group& group) const;

  // True if the page is what was written; the answer is kept, so that it costs something once.
  bool Verify(const Group& group, uint64_t page) const;
  bool PageMatches(const Group& group, uint64_t page) const;
  void PrefetchEntries(const Group& group, uint64_t low, uint64_t high) const;
  // Null if the page that holds it is damaged.
  const uint8_t* EntryAt(const Group& group, uint64_t rank) const;
  absl::StatusOr<Page> ReadPage(const Group& group, uint64_t page) const;
  absl::Status ToEntry(const Group& group, const uint8_t* bytes, IndexEntry& entry) const;
  absl::Status Damaged(const Group& group, uint64_t page) const {
    return DataLoss("shard index is damaged in the page at byte {} of {}", group.offset + page * kIndexPageBytes,
                    bytes_.size());
  }

  Span bytes_;
  std::shared_ptr<const void> keep_alive_;
  IndexSummary summary_;
  std::vector<Cid> roots_;
  std::vector<uint64_t> codecs_;
  std::vector<Group> groups_;
  uint64_t entries_mix_ = 0;
  uint32_t header_crc_ = 0;
  uint64_t pages_ = 0;
  // A bit per page: its checksum has been verified. Zero pages of the kernel until touched, so that opening is not
  // proportional to the entries. Set by any thread; two that race verify the same page twice.
  std::unique_ptr<uint64_t[], FreeBits> verified_;

  // Of the largest group.
  size_t directory_group_ = 0;
  mutable std::atomic<uint64_t> lookups_{0};  // about; until there is a directory
  mutable std::atomic<bool> making_{false};   // or made: one thread does it, once
  mutable std::atomic<const Directory*> directory_{nullptr};
  mutable std::unique_ptr<const Directory> directory_owner_;  // written by that thread before directory_ is
};

absl::StatusOr<std::shared_ptr<const ShardIndex>> NativeIndex::Open(Span bytes,
                                                                     std::shared_ptr<const void> keep_alive) {
  auto index = std::make_shared<NativeIndex>();
  index->bytes_ = bytes;
  index->keep_alive_ = std::move(keep_alive);
  RETURN_IF_ERROR(index->ParseHeader());
  const size_t words = index->pages_ / 64 + 1;
  index->verified_.reset(static_cast<uint64_t*>(std::calloc(words, sizeof(uint64_t))));
  if (index->verified_ == nullptr)
    return ResourceExhausted("no memory to open a shard index of {} bytes", bytes.size());
  return std::shared_ptr<const ShardIndex>(std::move(index));
}

absl::Status NativeIndex::ParseHeader() {
  if (bytes_.size() < kFixedHeaderBytes + kCrcBytes)
    return DataLoss("shard index of {} bytes is too short for its header", bytes_.size());
  const uint8_t* p = bytes_.data();
  if (!StartsWith(bytes_, kMagic)) return DataLoss("not a shard index: wrong magic");
  const uint32_t version = Load32(p + 8);
  const uint32_t header_bytes = Load32(p + 12);
  if (header_bytes < kFixedHeaderBytes + kCrcBytes || header_bytes > kIndexHeaderBytesMax ||
      header_bytes > bytes_.size())
    return DataLoss("shard index header of {} bytes in {} bytes", header_bytes, bytes_.size());
  header_crc_ = Load32(p + header_bytes - kCrcBytes);
  if (Crc32c(bytes_.first(header_bytes - kCrcBytes)) != header_crc_)
    return DataLoss("shard index header does not match its checksum");
  const uint32_t flags = Load32(p + 24);
  if (version > kVersion || (flags & kFlagsMustKnow) != 0)
    return FailedPrecondition("shard index of version {}, flags {:#x} was written by a newer dagstore", version, flags);
  if (version == 0) return DataLoss("shard index of version 0");
  if (Load64(p + 16) != bytes_.size())
    return DataLoss("shard index of {} bytes, should have {}", bytes_.size(), Load64(p + 16));

  summary_.verified = (flags & kFlagVerified) != 0;
  summary_.car_version = static_cast<int>(Load32(p + 28));
  summary_.entries = Load64(p + 32);
  summary_.identity_entries = Load64(p + 40);
  summary_.block_bytes = Load64(p + 48);
  summary_.payload_offset = Load64(p + 56);
  summary_.payload_size = Load64(p + 64);
  summary_.source_size = Load64(p + 72);
  summary_.unverified = Load64(p + 80);
  entries_mix_ = Load64(p + 88);
  const uint32_t roots = Load32(p + 96);
  const uint32_t roots_bytes = Load32(p + 100);
  const uint32_t codecs = Load32(p + 104);
  const uint32_t groups = Load32(p + 108);

  if (roots > kIndexRootsMax || codecs > kIndexCodecsMax || groups > kIndexGroupsMax ||
      summary_.entries > kIndexEntriesMax)
    return DataLoss("shard index with {} roots, {} codecs, {} groups, {} entries", roots, codecs, groups,
                    summary_.entries);
  Span rest = bytes_.first(header_bytes - kCrcBytes).subspan(kFixedHeaderBytes);
  if (roots_bytes > rest.size() || 8 * codecs + kGroupBytes * groups > rest.size() - roots_bytes)
    return DataLoss("tables of the shard index exceed its header");
  Span root_bytes = rest.first(roots_bytes);
  rest = rest.subspan(roots_bytes);
  for (uint32_t i = 0; i < roots; ++i) {
    if (root_bytes.size() < 2 || root_bytes.size() - 2 < Load16(root_bytes.data()))
      return DataLoss("root {} of the shard index is cut off", i);
    const size_t size = Load16(root_bytes.data());
    ASSIGN_OR_RETURN(Cid root, Cid::FromBytes(root_bytes.subspan(2, size)));
    roots_.push_back(std::move(root));
    root_bytes = root_bytes.subspan(2 + size);
  }
  if (!root_bytes.empty()) return DataLoss("shard index has bytes after its roots");
  codecs_.reserve(codecs);
  for (uint32_t i = 0; i < codecs; ++i) codecs_.push_back(Load64(rest.data() + 8 * i));
  rest = rest.subspan(8 * codecs);

  // Groups lie one after another: what they cover and the size of the file must agree exactly.
  uint64_t end = header_bytes;
  uint64_t entries = 0;
  groups_.reserve(groups);
  for (uint32_t i = 0; i < groups; ++i) {
    const uint8_t* g = rest.data() + kGroupBytes * i;
    Group group;
    group.code = Load64(g);
    group.digest_size = Load32(g + 8);
    group.entries = Load64(g + 16);
    group.offset = Load64(g + 24);
    if (group.digest_size > kDigestBytesMax || Load32(g + 12) != group.entry_size() || group.entries == 0 ||
        group.entries > kIndexEntriesMax)
      return DataLoss("group {} of the shard index: digest of {} bytes, entry of {}, {} entries", i,
                      group.digest_size, Load32(g + 12), group.entries);
    if (i != 0 &&
        std::pair(groups_.back().code, groups_.back().digest_size) >= std::pair(group.code, group.digest_size))
      return DataLoss("group {} of the shard index is out of order", i);
    if (group.offset < end || group.offset - end >= kIndexPageBytes || group.offset > bytes_.size() ||
        group.bytes() > bytes_.size() - group.offset)
      return DataLoss("group {} of the shard index lies outside the file", i);
    end = group.offset + group.bytes();
    entries += group.entries;
    group.first_page = pages_;
    group.SetPerPage();
    pages_ += group.pages();
    groups_.push_back(group);
    if (group.entries > groups_[directory_group_].entries) directory_group_ = i;
  }
  if (end != bytes_.size() || entries != summary_.entries)
    return DataLoss("groups of the shard index cover {} of {} bytes, {} of {} entries", end, bytes_.size(), entries,
                    summary_.entries);
  return absl::OkStatus();
}

Span NativeIndex::PageBytes(const Group& group, uint64_t page) const {
  const uint64_t from = page * kIndexPageBytes;
  return bytes_.subspan(group.offset + from, std::min<uint64_t>(kIndexPageBytes, group.bytes() - from));
}

bool NativeIndex::Verify(const Group& group, uint64_t page) const {
  const uint64_t number = group.first_page + page;
  const uint64_t bit = uint64_t{1} << (number % 64);
  // Relaxed: the bit says nothing of other memory; the bytes do not change.
  std::atomic_ref<uint64_t> word(verified_[number / 64]);
  if ((word.load(std::memory_order_relaxed) & bit) != 0) return true;
  if (!PageMatches(group, page) && !Mutant(kMutantIndexPageUnchecked)) return false;
  word.fetch_or(bit, std::memory_order_relaxed);
  return true;
}

bool NativeIndex::PageMatches(const Group& group, uint64_t page) const {
  const Span bytes = PageBytes(group, page);
  return PageCrc(header_crc_, group.offset + page * kIndexPageBytes, bytes.subspan(kCrcBytes)) == Load32(bytes.data());
}

absl::StatusOr<NativeIndex::Page> NativeIndex::ReadPage(const Group& group, uint64_t page) const {
  if (!Verify(group, page)) return Damaged(group, page);
  const uint64_t before = page * group.per_page;
  return Page{PageBytes(group, page).data() + kCrcBytes,
              static_cast<size_t>(std::min(group.per_page, group.entries - before))};
}

absl::Status NativeIndex::ToEntry(const Group& group, const uint8_t* bytes, IndexEntry& entry) const {
  const uint8_t* tail = bytes + group.digest_size;
  const uint16_t codec = Load16(tail + 12);
  if (codec >= codecs_.size()) return DataLoss("shard index entry names codec {} of {}", codec, codecs_.size());
  entry.hash = {group.code, Span(bytes, group.digest_size)};
  entry.offset = IndexTailOffset(tail);
  entry.data_size = Load32(tail + 6);
  entry.head_size = Load16(tail + 10);
  entry.codec = codecs_[codec];
  return absl::OkStatus();
}

const uint8_t* NativeIndex::EntryAt(const Group& group, uint64_t rank) const {
  if (!Verify(group, group.PageOf(rank))) return nullptr;
  return bytes_.data() + group.offset + group.PlaceOf(rank);
}

// The few entries of a bucket lie side by side: asked for together, their cache lines arrive in the time of one.
void NativeIndex::PrefetchEntries(const Group& group, uint64_t low, uint64_t high) const {
  constexpr uint64_t kLine = 64;
  constexpr uint64_t kLinesMax = 16;
  const uint8_t* entries = bytes_.data() + group.offset;
  const uint64_t begin = group.PlaceOf(low);
  const uint64_t end = std::min({group.PlaceOf(high), begin + kLinesMax * kLine, group.bytes()});
  for (uint64_t at = begin; at < end; at += kLine) __builtin_prefetch(entries + at);
}

const NativeIndex::Directory* NativeIndex::DirectoryOf(const Group& group) const {
  if (&group != &groups_[directory_group_]) return nullptr;
  if (const Directory* directory = directory_.load(std::memory_order_acquire)) return directory;
  if (group.entries < kDirectoryEntriesMin || group.entries > kDirectoryEntriesMax || group.digest_size == 0 ||
      making_.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  const uint64_t lookups = lookups_.load(std::memory_order_relaxed) + 1;
  lookups_.store(lookups, std::memory_order_relaxed);
  if (lookups < group.entries / kEntriesPerLookup || making_.exchange(true)) return nullptr;
  directory_owner_ = MakeDirectory(group);
  directory_.store(directory_owner_.get(), std::memory_order_release);
  return directory_owner_.get();
}

std::unique_ptr<const NativeIndex::Directory> NativeIndex::MakeDirectory(const Group& group) const {
  auto directory = std::make_unique<Directory>();
  const int bits = static_cast<int>(std::bit_width(group.entries)) - 4;
  directory->shift = 64 - bits;
  directory->starts.resize((size_t{1} << bits) + 1);
  uint64_t bucket = 0, rank = 0;
  for (uint64_t page = 0; page < group.pages(); ++page) {
    if (!Verify(group, page)) return nullptr;  // whoever reads it is told
    const uint8_t* entry = PageBytes(group, page).data() + kCrcBytes;
    for (const uint64_t end = std::min(group.entries, rank + group.per_page); rank < end; ++rank) {
      const uint64_t prefix = IndexDigestPrefix(entry, group.digest_size) >> directory->shift;
      if (prefix < bucket) return nullptr;  // out of order: only CheckAll() looks for that
      while (bucket < prefix) directory->starts[++bucket] = static_cast<uint32_t>(rank);
      entry += group.entry_size();
    }
  }
  while (bucket < uint64_t{1} << bits) directory->starts[++bucket] = static_cast<uint32_t>(rank);
  return directory;
}

absl::StatusOr<size_t> NativeIndex::Find(const MultihashView& hash,
                                         absl::FunctionRef<bool(const IndexEntry&)> visit) const {
  const auto found = std::lower_bound(
      groups_.begin(), groups_.end(), hash, [](const Group& group, const MultihashView& wanted) {
        return group.code != wanted.code ? group.code < wanted.code : group.digest_size < wanted.digest.size();
      });
  if (found == groups_.end() || found->code != hash.code || found->digest_size != hash.digest.size()) return 0;
  const Group& group = *found;
  const size_t digest_size = group.digest_size;
  const auto compare = [&](const uint8_t* entry) {
    return digest_size == 0 ? 0 : std::memcmp(entry, hash.digest.data(), digest_size);
  };
  const auto less = [&](const uint8_t* entry, uint64_t prefix, uint64_t wanted) {
    return prefix != wanted ? prefix < wanted : compare(entry) < 0;
  };

  // The first entry that is not less than the digest has a rank in [low, high]. The prefixes just below `low` and at
  // `high` are remembered: a straight line between them gives the next guess. After the first, a guess goes beyond the
  // line by half of what chance makes of it (the root of the distance), so that the ends close in from both sides.
  const uint64_t wanted = IndexDigestPrefix(hash.digest.data(), digest_size);
  uint64_t low = 0, low_prefix = 0;
  uint64_t high = group.entries, high_prefix = ~uint64_t{0};
  if (const Directory* directory = DirectoryOf(group)) {
    const uint64_t bucket = wanted >> directory->shift;
    low = directory->starts[bucket];
    low_prefix = bucket << directory->shift;
    high = directory->starts[bucket + 1];
    high_prefix = low_prefix | ((uint64_t{1} << directory->shift) - 1);
    PrefetchEntries(group, low, high);
  }
  bool was_less = false;
  for (int step = 0; low < high; ++step) {
    const uint64_t width = high - low;
    uint64_t ahead = width / 2;
    if (step < kInterpolationSteps && width > kHalvingBelow && high_prefix > low_prefix) {
      ahead = static_cast<uint64_t>(static_cast<double>(wanted - low_prefix) /
                                    static_cast<double>(high_prefix - low_prefix) * static_cast<double>(width));
      if (step != 0) {
        const auto margin =
            static_cast<uint64_t>(std::sqrt(static_cast<double>(std::min(ahead, width - ahead))) / 2) + 1;
        ahead = was_less ? ahead + margin : std::max(ahead, margin) - margin;
      }
      ahead = std::min(ahead, width - 1);
    }
    const uint64_t rank = low + ahead;
    const uint8_t* entry = EntryAt(group, rank);
    if (entry == nullptr) return Damaged(group, group.PageOf(rank));
    const uint64_t prefix = IndexDigestPrefix(entry, digest_size);
    was_less = less(entry, prefix, wanted);
    if (was_less) {
      low = rank + 1;
      low_prefix = prefix;
    } else {
      high = rank;
      high_prefix = prefix;
    }
  }

  size_t visited = 0;
  for (uint64_t rank = low; rank < group.entries; ++rank) {
    const uint8_t* bytes = EntryAt(group, rank);
    if (bytes == nullptr) return Damaged(group, group.PageOf(rank));
    if (compare(bytes) != 0) break;
    IndexEntry entry;
    RETURN_IF_ERROR(ToEntry(group, bytes, entry));
    ++visited;
    if (!visit(entry)) break;
  }
  return visited;
}

absl::Status NativeIndex::ForEach(absl::FunctionRef<bool(const IndexEntry&)> visit) const {
  for (const Group& group : groups_) {
    for (uint64_t page = 0; page < group.pages(); ++page) {
      ASSIGN_OR_RETURN(const Page read, ReadPage(group, page));
      for (size_t i = 0; i < read.count; ++i) {
        IndexEntry entry;
        RETURN_IF_ERROR(ToEntry(group, read.entries + i * group.entry_size(), entry));
        if (!visit(entry)) return absl::OkStatus();
      }
    }
  }
  return absl::OkStatus();
}

absl::Status NativeIndex::CheckAll() const {
  uint64_t mix = 0, block_bytes = 0, identities = 0;
  for (const Group& group : groups_) {
    const size_t size = group.entry_size();
    const uint8_t* before = nullptr;
    for (uint64_t page = 0; page < group.pages(); ++page) {
      // Not by the bit of an earlier reading: what is on the disk now is what is asked for.
      if (!PageMatches(group, page)) return Damaged(group, page);
      ASSIGN_OR_RETURN(const Page read, ReadPage(group, page));
      for (size_t i = 0; i < read.count; ++i) {
        const uint8_t* entry_bytes = read.entries + i * size;
        IndexEntry entry;
        RETURN_IF_ERROR(ToEntry(group, entry_bytes, entry));
        if (before != nullptr) {
          const int order = CompareBytes(Span(before, group.digest_size), entry.hash.digest);
          if (order > 0 || (order == 0 && IndexTailOffset(before + group.digest_size) >= entry.offset))
            return DataLoss("shard index is out of order in the page at byte {}",
                            group.offset + page * kIndexPageBytes);
        }
        before = entry_bytes;
        mix += IndexEntryMix(Span(entry_bytes, size));
        block_bytes += entry.data_size;
        if (entry.offset > summary_.payload_size || entry.size() > summary_.payload_size - entry.offset)
          return DataLoss("shard index entry at {} of {} bytes lies outside a payload of {}", entry.offset,
                          entry.size(), summary_.payload_size);
      }
    }
    if (group.code == kIdentity) identities += group.entries;
  }
  if (mix != entries_mix_ || block_bytes != summary_.block_bytes || identities != summary_.identity_entries)
    return DataLoss("entries of the shard index do not add up to what its header says");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenNativeIndex(Span bytes,
                                                                   std::shared_ptr<const void> keep_alive) {
  return NativeIndex::Open(bytes, std::move(keep_alive));
}

absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenNativeIndex(Bytes bytes) {
  auto owner = std::make_shared<const Bytes>(std::move(bytes));
  const Span span(*owner);
  return NativeIndex::Open(span, std::move(owner));
}

}  // namespace dagstore
