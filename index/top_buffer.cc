#include "index/top_buffer.h"

#include <algorithm>

namespace dagstore {
namespace {

constexpr size_t kPrefetchAhead = 12;
constexpr int kFirstBits = 11;   // 2,048 groups: their write positions stay in the cache
constexpr int kSecondBits = 8;
constexpr size_t kRadixMin = 4096;  // below this a comparison sort is as fast

bool Before(const RunEntry& a, const RunEntry& b) {
  return a.key != b.key ? a.key < b.key : a.ordinal < b.ordinal;
}

// Groups `from` by `bits` key bits above `shift` into `to`; `ends[i]` becomes the end of group i.
void Scatter(std::span<const RunEntry> from, RunEntry* to, int shift, int bits, std::vector<uint32_t>& ends) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  ends.assign(size_t{1} << bits, 0);
  for (const RunEntry& entry : from) ++ends[entry.key >> shift & mask];
  uint32_t begin = 0;
  for (uint32_t& end : ends) {
    const uint32_t count = end;
    end = begin;
    begin += count;
  }
  for (const RunEntry& entry : from) to[ends[entry.key >> shift & mask]++] = entry;
}

}  // namespace

void SortSmall(RunEntry* begin, RunEntry* end) {
  if (end - begin > 24) {
    std::sort(begin, end, Before);
    return;
  }
  for (RunEntry* at = begin + 1; at < end; ++at) {
    const RunEntry moved = *at;
    RunEntry* hole = at;
    for (; hole != begin && Before(moved, hole[-1]); --hole) *hole = hole[-1];
    *hole = moved;
  }
}

void SortRunEntries(std::vector<RunEntry>& entries, std::vector<RunEntry>& scratch) {
  if (entries.size() < kRadixMin) {
    std::sort(entries.begin(), entries.end(), Before);
    return;
  }
  std::vector<uint32_t> groups, parts;
  const int first_shift = kRunKeyBits - kFirstBits;
  Scatter(entries, scratch.data(), first_shift, kFirstBits, groups);
  size_t group_begin = 0;
  for (const uint32_t group_end : groups) {
    const std::span<const RunEntry> group(scratch.data() + group_begin, group_end - group_begin);
    RunEntry* const out = entries.data() + group_begin;
    Scatter(group, out, first_shift - kSecondBits, kSecondBits, parts);
    size_t part_begin = 0;
    for (const uint32_t part_end : parts) {
      if (part_end - part_begin > 1) SortSmall(out + part_begin, out + part_end);
      part_begin = part_end;
    }
    group_begin = group_end;
  }
}

TopBuffer::TopBuffer(size_t entries_max)
    : entries_max_(entries_max),
      head_bits_(std::max(1, static_cast<int>(std::bit_width(entries_max)) - 1)),
      entries_(new Entry[entries_max]),
      heads_(static_cast<uint32_t*>(std::calloc(size_t{1} << head_bits_, sizeof(uint32_t)))) {
  DAGSTORE_CHECK(entries_max >= 1 && entries_max < UINT32_MAX && heads_ != nullptr);
}

size_t TopBuffer::Add(Ordinal ordinal, std::span<const Fingerprint> sorted) {
  size_t size = size_.load(std::memory_order_relaxed);
  size_t taken = 0;
  for (; taken < sorted.size(); ++taken) {
    if (taken + kPrefetchAhead < sorted.size()) Prefetch(RunKeyOf(sorted[taken + kPrefetchAhead]));
    const RunKey key = RunKeyOf(sorted[taken]);
    if (taken != 0 && key == RunKeyOf(sorted[taken - 1])) continue;
    if (size == entries_max_) break;
    std::atomic_ref<uint32_t> head(heads_.get()[Head(key)]);
    entries_[size] = {key, ordinal, head.load(std::memory_order_relaxed)};
    head.store(static_cast<uint32_t>(++size), std::memory_order_release);
  }
  size_.store(size, std::memory_order_release);
  return taken;
}

std::vector<RunEntry> TopBuffer::Sorted() const {
  std::vector<RunEntry> entries(size()), scratch(size());
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = {entries_[i].key, entries_[i].ordinal};
  SortRunEntries(entries, scratch);
  return entries;
}

}  // namespace dagstore
