// Any bytes as a run of the top-level index, as they are and with the checksums made right. Properties: a run whose
// checksums hold is walked to its end or to damage that it names, and lookups stay inside it.
#include "base/check.h"
#include "base/crc32c.h"
#include "index/top_run.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

constexpr size_t kHeaderBytes = 4096;  // docs/format.md#top-level-index

void Read(const TopRun& run, Span input) {
  uint64_t entries = 0;
  TopRun::Cursor cursor(run);
  for (; cursor.valid() && entries < 1000; cursor.Next()) {
    ++entries;
    bool found = false;
    const bool whole = run.Scan(cursor.key(), run.PrefetchEntries(cursor.key()),
                                [&](Ordinal ordinal) {
                                  found |= ordinal == cursor.ordinal();
                                  return true;
                                });
    DAGSTORE_CHECK(whole || run.damaged());
    (void)found;  // a run whose checksums were made right need not be sorted
  }
  DAGSTORE_CHECK(cursor.status().ok() || run.damaged());
  for (size_t at = 0; at + 8 <= input.size() && at < 256; at += 8) {
    const RunKey key = RunKeyOf(Load64(input.data() + at));
    (void)run.Scan(key, run.PrefetchEntries(key), [](Ordinal) { return true; });
    if (run.has_filter()) (void)run.FilterPasses(key);
    (void)run.Walk(key, run.PrefetchEntries(key), 7, [](Ordinal ordinal) { return uint64_t{ordinal} + 100; });
  }
  run.CheckAll().IgnoreError();
}

void Seal(Bytes& bytes) {
  RunLayout layout;
  layout.bucket_bits = bytes[13];
  layout.remainder_bytes = bytes[14];
  layout.ordinal_bytes = bytes[15];
  layout.filter_lines = Load32(bytes.data() + 56);
  const uint64_t slots = Load32(bytes.data() + 48);
  if (layout.bucket_bits > 20 || layout.remainder_bytes > 8 || layout.ordinal_bytes > 4 || slots > bytes.size()) return;
  const uint64_t filter_at = layout.filter_offset();
  const uint64_t entries_at = layout.entries_offset();
  const uint64_t checksums_at = layout.checksums_offset(slots);
  if (layout.file_size(slots) != bytes.size()) return;
  uint8_t* out = bytes.data() + checksums_at;
  for (const auto& [begin, end] :
       {std::pair{uint64_t{kHeaderBytes}, filter_at}, {filter_at, entries_at}, {entries_at, checksums_at}}) {
    for (uint64_t at = begin; at < end; at += kRunChunkBytes, out += 4)
      Store32(out, Crc32c(Span(bytes).subspan(at, std::min<uint64_t>(kRunChunkBytes, end - at))));
  }
  Store32(bytes.data() + 40, Crc32c(Span(bytes).subspan(checksums_at)));
  Store32(bytes.data() + 60, Crc32c(Span(bytes).first(60)));
}

}  // namespace

void FuzzOne(Span input) {
  Bytes bytes(input.begin(), input.end());
  if (const auto run = TopRun::FromMemory(bytes); run.ok()) Read(**run, input);
  if (bytes.size() < kHeaderBytes) return;
  Seal(bytes);
  if (const auto run = TopRun::FromMemory(std::move(bytes)); run.ok()) Read(**run, input);
}

}  // namespace dagstore
