#include "index/index_builder.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <system_error>

#include "base/advice.h"
#include "base/check.h"
#include "base/hashing.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/thread.h"

namespace dagstore {
namespace {

constexpr size_t kSlabBytes = 64 << 10;
// So many slabs of a kind of entry are allocated as they are needed, then whole chunks of them, a huge page each.
constexpr size_t kSlabsAlone = 32;
constexpr size_t kChunkBytes = kHugePageBytes;
// What Append to a file gathers: fewer system calls, and nothing gained above.
constexpr size_t kWriteBytes = 1 << 20;
// A run is read back in windows of this size, less when there are many runs.
constexpr size_t kRunWindowBytesMax = 1 << 20;
constexpr size_t kRunWindowBytesMin = 4 << 10;
// Sort keys are scattered into buckets of about eight before they are compared; more than 2^18 buckets only cost cache.
constexpr int kBucketBitsMax = 18;
constexpr uint32_t kPrefetchAhead = 8;
// A window of the pipelined build: 16 blocks of 256 KiB, what the widest hash kernel takes at once. Larger if sections
// are larger: kWindowSections of them, so that no lane of either thread is idle.
constexpr size_t kWindowBytes = 4 << 20;
constexpr size_t kWindowSections = 32;
// Blocks that one thread hashes before it looks whether others are left: full lanes, and not so few bytes that looking
// would cost anything.
constexpr size_t kHashLanes = 16;
constexpr size_t kHashBytes = 512 << 10;
constexpr size_t kHashBlocksMax = 512;
// Pages that one thread encodes at a time.
constexpr uint64_t kEncodePages = 256;
// Entries from which on a helper is worth waking.
constexpr size_t kHelpEntriesMin = 1 << 15;
// Below this a second thread gains nothing.
constexpr uint64_t kPipelineBytesMin = 4 * kWindowBytes;
// What is surely enough to parse the head of a section: varint and CID.
constexpr size_t kHeadBytesMax = kVarintBytesMax + kCidBytesMax;

class FileSink final : public IndexSink {
 public:
  explicit FileSink(WritableFile& file) : file_(file) { buffer_.reserve(kWriteBytes); }
  absl::Status Append(Span bytes) override {
    if (buffer_.size() + bytes.size() > kWriteBytes) RETURN_IF_ERROR(Flush());
    AppendBytes(buffer_, bytes);
    return absl::OkStatus();
  }
  absl::Status Flush() {
    RETURN_IF_ERROR(file_.Append(buffer_));
    buffer_.clear();
    return absl::OkStatus();
  }

 private:
  WritableFile& file_;
  Bytes buffer_;
};

// The stored order of two entries of one group.
bool EntryLess(const uint8_t* a, const uint8_t* b, size_t digest_size) {
  const int order = digest_size == 0 ? 0 : std::memcmp(a, b, digest_size);
  if (order != 0) return order < 0;
  return IndexTailOffset(a + digest_size) < IndexTailOffset(b + digest_size);
}

}  // namespace

IndexBuilder::IndexBuilder(IndexOutput output, size_t memory_bytes_max)
    : output_(std::move(output)), memory_bytes_max_(memory_bytes_max) {}

IndexBuilder::~IndexBuilder() {
  if (runs_file_ == nullptr && runs_.empty()) return;
  runs_file_.reset();
  output_.io->Remove(RunsPath()).IgnoreError();  // what stays is swept by its name
}

absl::StatusOr<uint16_t> IndexBuilder::CodecIndex(uint64_t codec) {
  if (codec == last_codec_ && !codecs_.empty()) return last_codec_index_;
  const auto [found, added] = codec_index_.try_emplace(codec, static_cast<uint16_t>(codecs_.size()));
  if (added) {
    if (codecs_.size() == kIndexCodecsMax)
      return FailedPrecondition("more than {} codecs in one shard", kIndexCodecsMax);
    codecs_.push_back(codec);
  }
  last_codec_ = codec;
  last_codec_index_ = found->second;
  return last_codec_index_;
}

uint8_t* IndexBuilder::Group::NewEntry() {
  const uint32_t slab = held >> slab_bits;
  if (slab == slabs.size()) {
    if (slab == 0) {
      slabs.push_back(nullptr);
    } else {
      const size_t bytes = entry_size() << slab_bits;
      if (chunks.empty() || chunk_used + bytes > chunks.back().size()) {
        chunks.emplace_back(slab < kSlabsAlone ? bytes : kChunkBytes);
        chunk_used = 0;
      }
      slabs.push_back(chunks.back().data() + chunk_used);
      chunk_used += bytes;
    }
  }
  if (slab == 0) {
    first.resize((held + 1) * entry_size());
    slabs[0] = first.data();
  }
  ++entries;
  return slabs[slab] + (held++ & ((1u << slab_bits) - 1)) * entry_size();
}

void IndexBuilder::Group::Clear() {
  slabs.clear();
  first = Bytes();
  chunks.clear();
  held = 0;
}

absl::Status IndexBuilder::Add(const IndexEntry& entry) {
  const size_t digest_size = entry.hash.digest.size();
  const std::pair kind(entry.hash.code, static_cast<uint32_t>(digest_size));
  if (last_group_ == nullptr || last_group_->first != kind) {
    if (digest_size > kDigestBytesMax)
      return FailedPrecondition("digest of {} bytes, limit {}", digest_size, kDigestBytesMax);
    auto found = groups_.find(kind);
    if (found == groups_.end()) {
      if (groups_.size() == kIndexGroupsMax)
        return FailedPrecondition("more than {} kinds of multihash in one shard", kIndexGroupsMax);
      found = groups_.emplace(kind, Group()).first;
      found->second.digest_size = kind.second;
      found->second.slab_bits = static_cast<int>(std::bit_width(kSlabBytes / found->second.entry_size())) - 1;
    }
    last_group_ = &*found;
  }
  if (entry.offset > kIndexOffsetMax)
    return FailedPrecondition("section at byte {}, limit {}", entry.offset, kIndexOffsetMax);
  if (entry.head_size > std::numeric_limits<uint16_t>::max())
    return FailedPrecondition("section head of {} bytes", entry.head_size);
  if (entries_ == kIndexEntriesMax) return FailedPrecondition("more than {} sections in one shard", entries_);
  ASSIGN_OR_RETURN(const uint16_t codec_index, CodecIndex(entry.codec));

  Group& group = last_group_->second;
  const size_t size = group.entry_size();
  if (held_bytes_ + size + sizeof(SortKey) > memory_bytes_max_ && held_bytes_ != 0 && output_.io != nullptr)
    RETURN_IF_ERROR(PutAside());
  if (group.held == std::numeric_limits<uint32_t>::max())
    return ResourceExhausted("more than {} sections of one kind in memory", group.held);
  uint8_t* out = group.NewEntry();
  if (digest_size != 0) std::memcpy(out, entry.hash.digest.data(), digest_size);
  EncodeIndexTail(entry.offset, entry.data_size, static_cast<uint16_t>(entry.head_size), codec_index,
                  out + digest_size);
  entries_mix_ += IndexEntryMix(Span(out, size));
  held_bytes_ += size + sizeof(SortKey);
  ++entries_;
  if (entry.hash.code == kIdentity) ++identity_entries_;
  block_bytes_ += entry.data_size;
  return absl::OkStatus();
}

BuildHelper::~BuildHelper() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

std::unique_ptr<BuildHelper> BuildHelper::Start() {
  std::unique_ptr<BuildHelper> helper(new BuildHelper);
  try {
    helper->thread_ = Thread("dagstore-verify", [h = helper.get()] { h->Run(); });
  } catch (const std::system_error&) {
    return nullptr;
  }
  return helper;
}

void BuildHelper::Begin(absl::FunctionRef<void()> work) {
  const MutexLock lock(mutex_);
  DAGSTORE_CHECK(!work_.has_value() && !running_);
  work_.emplace(work);
  changed_.NotifyAll();
}

void BuildHelper::Wait() {
  std::optional<absl::FunctionRef<void()>> work;
  {
    const MutexLock lock(mutex_);
    while (running_) changed_.Wait(mutex_);
    if (!work_.has_value()) return;
    work.emplace(*work_);
    work_.reset();
  }
  (*work)();
}

void BuildHelper::Run() {
  for (;;) {
    std::optional<absl::FunctionRef<void()>> work;
    {
      const MutexLock lock(mutex_);
      while (!work_.has_value() && !stop_) changed_.Wait(mutex_);
      if (!work_.has_value()) return;
      work.emplace(*work_);
      work_.reset();
      running_ = true;
    }
    (*work)();
    const MutexLock lock(mutex_);
    running_ = false;
    changed_.NotifyAll();
  }
}

HugeArray<IndexBuilder::SortKey> IndexBuilder::Sort(const Group& group, BuildHelper* helper) {
  const uint32_t n = group.held;
  const size_t digest_size = group.digest_size;
  const int bits = std::clamp(static_cast<int>(std::bit_width(n)) - 3, 1, kBucketBitsMax);
  const int shift = 64 - bits;
  std::vector<uint32_t> starts((size_t{1} << bits) + 1);
  for (uint32_t i = 0; i < n; ++i) ++starts[(IndexDigestPrefix(group.entry(i), digest_size) >> shift) + 1];
  for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
  HugeArray<SortKey> keys(n);
  {
    std::vector<uint32_t> next(starts.begin(), starts.end() - 1);
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t prefix = IndexDigestPrefix(group.entry(i), digest_size);
      keys[next[prefix >> shift]++] = {prefix, i};
    }
  }
  const auto sort_buckets = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      if (starts[i + 1] - starts[i] < 2) continue;
      std::sort(keys.begin() + starts[i], keys.begin() + starts[i + 1], [&](const SortKey& a, const SortKey& b) {
        if (a.prefix != b.prefix) return a.prefix < b.prefix;
        return EntryLess(group.entry(a.index), group.entry(b.index), digest_size);
      });
    }
  };
  const size_t buckets = starts.size() - 1;
  if (helper == nullptr || n < kHelpEntriesMin) {
    sort_buckets(0, buckets);
  } else {
    const auto upper = [&] { sort_buckets(buckets / 2, buckets); };
    helper->Begin(upper);
    sort_buckets(0, buckets / 2);
    helper->Wait();
  }
  return keys;
}

absl::Status IndexBuilder::PutAside() {
  if (runs_file_ == nullptr) {
    ASSIGN_OR_RETURN(runs_file_, output_.io->Create(RunsPath()));
  }
  FileSink sink(*runs_file_);
  Run& run = runs_.emplace_back();
  for (auto& [kind, group] : groups_) {
    if (group.held == 0) continue;
    run[kind] = {runs_bytes_, group.held};
    const size_t size = group.entry_size();
    const HugeArray<SortKey> keys = Sort(group, nullptr);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (i + kPrefetchAhead < keys.size()) __builtin_prefetch(group.entry(keys[i + kPrefetchAhead].index));
      RETURN_IF_ERROR(sink.Append(Span(group.entry(keys[i].index), size)));
    }
    runs_bytes_ += size * group.held;
    group.Clear();
  }
  held_bytes_ = 0;
  return sink.Flush();
}

// The entries of one group in one run, read back in order.
class IndexBuilder::MergeInput {
 public:
  MergeInput(const RandomReader& file, RunPart part, size_t entry_size, size_t window_bytes)
      : file_(&file), part_(part), entry_size_(entry_size), window_entries_(window_bytes / entry_size) {}

  // The entry at the front; null at the end.
  const uint8_t* front() const { return at_ < window_.size() ? window_.data() + at_ : nullptr; }
  absl::Status Next() {
    at_ += entry_size_;
    if (at_ < window_.size() || part_.entries == 0) return absl::OkStatus();
    const uint64_t entries = std::min<uint64_t>(part_.entries, window_entries_);
    window_.resize(entries * entry_size_);
    RETURN_IF_ERROR(file_->Read(part_.offset, window_.size(), window_.data()));
    part_.offset += window_.size();
    part_.entries -= entries;
    at_ = 0;
    return absl::OkStatus();
  }

 private:
  const RandomReader* file_;
  RunPart part_;  // what has not been read
  size_t entry_size_;
  size_t window_entries_;
  Bytes window_;
  size_t at_ = 0;
};

absl::Status IndexBuilder::Merge(NativeIndexWriter& writer) {
  RETURN_IF_ERROR(runs_file_->Close());
  runs_file_.reset();
  ASSIGN_OR_RETURN(const std::unique_ptr<RandomFile> file, output_.io->Open(RunsPath(), Follow::kNever));
  const size_t window = std::clamp(memory_bytes_max_ / runs_.size(), kRunWindowBytesMin, kRunWindowBytesMax);
  for (const auto& [kind, group] : groups_) {
    const size_t digest_size = group.digest_size;
    std::vector<MergeInput> inputs;
    for (const Run& run : runs_) {
      const auto part = run.find(kind);
      if (part == run.end()) continue;
      inputs.emplace_back(*file, part->second, group.entry_size(), window);
      RETURN_IF_ERROR(inputs.back().Next());
    }
    // A heap of inputs, the one with the least entry on top.
    const auto greater = [&](const MergeInput* a, const MergeInput* b) {
      return EntryLess(b->front(), a->front(), digest_size);
    };
    std::vector<MergeInput*> heap;
    for (MergeInput& input : inputs) heap.push_back(&input);
    std::make_heap(heap.begin(), heap.end(), greater);
    for (uint64_t written = 0; !heap.empty(); ++written) {
      if (written % 65536 == 0) output_.io->Yield();
      std::pop_heap(heap.begin(), heap.end(), greater);
      MergeInput& least = *heap.back();
      RETURN_IF_ERROR(writer.Append(least.front()));
      RETURN_IF_ERROR(least.Next());
      if (least.front() == nullptr) {
        heap.pop_back();
      } else {
        std::push_heap(heap.begin(), heap.end(), greater);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status IndexBuilder::WriteGroup(const Group& group, NativeIndexWriter& writer, BuildHelper* helper) {
  const HugeArray<SortKey> keys = Sort(group, helper);
  const auto entry_at = [&](uint64_t rank) {
    if (rank + kPrefetchAhead < keys.size()) __builtin_prefetch(group.entry(keys[rank + kPrefetchAhead].index));
    return group.entry(keys[rank].index);
  };
  const uint64_t pages = writer.group().pages();
  Bytes mine, its;
  for (uint64_t page = 0; page < pages;) {
    const uint64_t first = std::min(kEncodePages, pages - page);
    const uint64_t second = helper == nullptr ? 0 : std::min(kEncodePages, pages - page - first);
    const auto encode_second = [&] { writer.EncodePages(page + first, second, entry_at, its); };
    if (second != 0) helper->Begin(encode_second);
    writer.EncodePages(page, first, entry_at, mine);
    if (second != 0) helper->Wait();
    RETURN_IF_ERROR(writer.AppendPages(first, mine));
    if (second != 0) RETURN_IF_ERROR(writer.AppendPages(second, its));
    page += first + second;
  }
  return absl::OkStatus();
}

absl::Status IndexBuilder::WriteEntries(IndexSink& sink, NativeIndexWriter& writer, BuildHelper* helper) {
  RETURN_IF_ERROR(writer.Begin(sink));
  if (!runs_.empty()) {
    RETURN_IF_ERROR(Merge(writer));
  } else {
    for (auto& [kind, group] : groups_) {
      RETURN_IF_ERROR(WriteGroup(group, writer, helper));
      group.Clear();
    }
  }
  return writer.Finish();
}

absl::Status IndexBuilder::WriteFile(NativeIndexWriter& writer, BuildHelper* helper) {
  Io& io = *output_.io;
  const std::string temp = output_.dir + "/" + output_.temp_name;
  const std::string path = output_.dir + "/" + output_.name;
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, io.Create(temp));
    FileSink sink(*file);
    absl::Status status = WriteEntries(sink, writer, helper);
    if (status.ok()) status = sink.Flush();
    if (status.ok() && !Mutant(kMutantIndexUnsynced)) status = file->Sync();
    if (status.ok()) status = file->Close();
    if (status.ok()) status = io.Rename(temp, path);
    if (!status.ok()) {
      io.Remove(temp).IgnoreError();
      return status;
    }
  }
  absl::Status status = Mutant(kMutantIndexDirUnsynced) ? absl::OkStatus() : io.SyncDir(output_.dir);
  if (!status.ok()) io.Remove(path).IgnoreError();
  return status;
}

absl::StatusOr<BuiltIndex> IndexBuilder::Finish(std::vector<Cid> roots, IndexSummary summary,
                                                BuildHelper* helper) {
  if (!runs_.empty() && held_bytes_ != 0) RETURN_IF_ERROR(PutAside());
  summary.entries = entries_;
  summary.identity_entries = identity_entries_;
  summary.block_bytes = block_bytes_;

  NativeIndexPlan plan;
  plan.summary = summary;
  plan.roots = roots;
  plan.codecs = codecs_;
  plan.entries_mix = entries_mix_;
  for (const auto& [kind, group] : groups_)
    plan.groups.push_back({.code = kind.first, .digest_size = kind.second, .entries = group.entries});
  ASSIGN_OR_RETURN(NativeIndexWriter writer, NativeIndexWriter::Plan(std::move(plan)));

  BuiltIndex built;
  built.summary = summary;
  built.roots = std::move(roots);
  built.bytes = writer.bytes();
  built.checksum = writer.checksum();
  built.in_file = output_.io != nullptr && writer.bytes() > output_.heap_bytes_max;
  if (built.in_file) {
    RETURN_IF_ERROR(WriteFile(writer, helper));
  } else {
    built.heap.reserve(writer.bytes());
    AdviseHugePages(built.heap.data(), writer.bytes());
    BytesSink sink(built.heap);
    RETURN_IF_ERROR(WriteEntries(sink, writer, helper));
  }
  return built;
}

namespace {

absl::Status CheckBatch(std::span<const HashJob> jobs, std::span<const CarSection> sections, uint64_t& unverified) {
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i].result == HashCheck::kMatch) continue;
    if (jobs[i].result == HashCheck::kMismatch && !Mutant(kMutantMismatchIndexed))
      return DataLoss("block {} at payload byte {} does not match its CID", Cid(sections[i].cid).ToText(),
                      sections[i].offset);
    ++unverified;
  }
  return absl::OkStatus();
}

IndexEntry ToEntry(const CarSection& section) {
  return {.hash = section.cid.hash,
          .offset = section.offset,
          .head_size = section.head_size,
          .data_size = section.data_size,
          .codec = section.cid.codec};
}

// The blocks of a window, hashed by two threads: each takes some, until none are left.
class SharedJobs {
 public:
  void Reset(std::vector<HashJob>& jobs) {
    jobs_ = jobs;
    uint64_t bytes = 0;
    for (const HashJob& job : jobs) bytes += job.data.size();
    const uint64_t wanted = jobs.empty() ? kHashLanes : kHashBytes * jobs.size() / std::max<uint64_t>(bytes, 1);
    piece_ = std::clamp<size_t>(wanted / kHashLanes * kHashLanes, kHashLanes, kHashBlocksMax);
    next_.store(0, std::memory_order_relaxed);
  }
  void Hash() {
    for (;;) {
      const size_t at = next_.fetch_add(piece_, std::memory_order_relaxed);
      if (at >= jobs_.size()) return;
      VerifyBlocks(jobs_.subspan(at, std::min(piece_, jobs_.size() - at)));
    }
  }

 private:
  std::span<HashJob> jobs_;
  size_t piece_ = kHashLanes;
  std::atomic<size_t> next_{0};
};

// Bytes of the payload from `begin` on, and the sections found in them.
struct Window {
  std::unique_ptr<uint8_t[]> buffer = {};
  size_t capacity = 0;
  uint64_t begin = 0;
  size_t size = 0;
  size_t used = 0;  // by whole sections
  size_t want = kWindowBytes;  // bytes to be read into it, the rest of the window before included
  std::vector<CarSection> sections = {};
  std::vector<HashJob> jobs = {};

  Span rest() const { return {buffer.get() + used, size - used}; }
  uint64_t position() const { return begin + used; }
};

// What BuildIndex does between opening the CAR and writing the index; leaves where the payload ended.
class Scan {
 public:
  Scan(const RandomReader& source, const IndexBuildOptions& options, const IndexOutput& output,
       const WorkContext& context, const IndexProgress& progress, const CarHeader& header, IndexBuilder& builder)
      : source_(source),
        options_(options),
        output_(output),
        context_(context),
        progress_(progress),
        header_(header),
        builder_(builder) {}

  uint64_t unverified() const { return unverified_; }

  // Heads only.
  absl::Status Walk(CarReader& reader) {
    CarSection section;
    for (bool more = true; more;) {
      for (uint64_t i = 0; i < kHeadsPerCheck && more; ++i) {
        ASSIGN_OR_RETURN(more, reader.NextHead(section));
        if (more) RETURN_IF_ERROR(builder_.Add(ToEntry(section)));
      }
      RETURN_IF_ERROR(Pause(reader.position()));
    }
    return absl::OkStatus();
  }

  // Reads, hashes and adds, one after the other.
  absl::Status Verify(CarReader& reader) {
    std::vector<CarSection> sections;
    std::vector<HashJob> jobs;
    for (bool more = true; more;) {
      ASSIGN_OR_RETURN(more, reader.NextBatch(sections));
      jobs.clear();
      for (const CarSection& section : sections) jobs.push_back({.hash = section.cid.hash, .data = section.data});
      VerifyBlocks(jobs);
      RETURN_IF_ERROR(CheckBatch(jobs, sections, unverified_));
      for (const CarSection& section : sections) RETURN_IF_ERROR(builder_.Add(ToEntry(section)));
      RETURN_IF_ERROR(Pause(reader.position()));
    }
    return absl::OkStatus();
  }

  // The same with two windows: one is hashed by `helper` while the other is read, parsed and added, and then by both.
  // Gives the position where the payload ended.
  absl::StatusOr<uint64_t> VerifyPipelined(BuildHelper& helper) {
    Window windows[2];
    SharedJobs jobs;
    const auto hash = [&jobs] { jobs.Hash(); };
    windows[0].begin = header_.first_section;
    bool begun = false;
    for (size_t i = 0;; i ^= 1) {
      Window& now = windows[i];
      Window& before = windows[i ^ 1];
      absl::StatusOr<bool> more = FillAndAdd(now);
      // Also after an error: `before` is still in the helper's hands.
      if (begun) {
        jobs.Hash();
        helper.Wait();
      }
      RETURN_IF_ERROR(CheckBatch(before.jobs, before.sections, unverified_));
      RETURN_IF_ERROR(more.status());
      jobs.Reset(now.jobs);
      helper.Begin(hash);
      begun = true;
      if (!*more) {
        jobs.Hash();
        helper.Wait();
        RETURN_IF_ERROR(CheckBatch(now.jobs, now.sections, unverified_));
        RETURN_IF_ERROR(Pause(now.position()));
        return now.position();
      }
      if (absl::Status status = Pause(now.position()); !status.ok()) {
        helper.Wait();
        return status;
      }
      // What is left of the last section goes in front of what comes next.
      const size_t want = WindowBytes(now);
      Reserve(before, std::max(now.rest().size(), want), 0);
      if (!now.rest().empty()) std::memcpy(before.buffer.get(), now.rest().data(), now.rest().size());
      before.begin = now.position();
      before.size = now.rest().size();
      before.want = want;
    }
  }

 private:
  static constexpr uint64_t kHeadsPerCheck = 4096;  // heads between two looks at the context: 20 ms from a local disk

  // Between batches.
  absl::Status Pause(uint64_t position) {
    RETURN_IF_ERROR(context_.Check());
    if (output_.io != nullptr) output_.io->Yield();
    if (progress_) progress_(position, header_.payload_size, builder_.entries());
    return absl::OkStatus();
  }

  // Of the window after `window`: whole sections of the size of its own, as many as keep every lane busy.
  size_t WindowBytes(const Window& window) const {
    const size_t limit = std::max(kWindowBytes, options_.memory_bytes_max / 6);
    const size_t section = window.sections.empty() ? 0 : window.used / window.sections.size() + kHeadBytesMax;
    for (size_t sections = kWindowSections; sections >= kHashLanes; sections /= 2) {
      if (sections * section <= limit) return std::max(kWindowBytes, sections * section);
    }
    return limit;
  }

  static void Reserve(Window& window, size_t capacity, size_t keep) {
    if (capacity <= window.capacity) return;
    auto larger = std::make_unique_for_overwrite<uint8_t[]>(capacity);
    if (keep != 0) std::memcpy(larger.get(), window.buffer.get(), keep);
    window.buffer = std::move(larger);
    window.capacity = capacity;
  }

  // Reads up to `want` bytes in all.
  absl::Status Fill(Window& window, size_t want) {
    want = std::min<uint64_t>(want, header_.payload_size - window.begin);
    if (want <= window.size) return absl::OkStatus();
    Reserve(window, want, window.size);
    RETURN_IF_ERROR(source_.Read(header_.payload_offset + window.begin + window.size, want - window.size,
                                 window.buffer.get() + window.size));
    window.size = want;
    return absl::OkStatus();
  }

  // Fills the window, finds the whole sections in it (at least one, unless the payload ends) and adds them. False at
  // the end of the payload.
  absl::StatusOr<bool> FillAndAdd(Window& window) {
    window.used = 0;
    window.sections.clear();
    window.jobs.clear();
    RETURN_IF_ERROR(Fill(window, std::max(window.want, window.size + kHeadBytesMax)));
    bool ended = false;
    for (;;) {
      const uint64_t left = header_.payload_size - window.position();
      const Span rest = window.rest();
      ended = left == 0 || (options_.car.zero_length_as_end && !rest.empty() && rest[0] == 0);
      if (ended || rest.size() < std::min<uint64_t>(left, kHeadBytesMax)) break;
      CarSection section;
      section.offset = window.position();
      RETURN_IF_ERROR(ParseSection(rest, left, options_.car, section));
      if (section.size() > rest.size()) {
        if (!window.sections.empty()) break;
        RETURN_IF_ERROR(Fill(window, section.size()));  // larger than a window; nothing points into the buffer yet
        continue;
      }
      window.used += section.size();
      window.sections.push_back(section);
      window.jobs.push_back({.hash = section.cid.hash, .data = section.data});
      RETURN_IF_ERROR(builder_.Add(ToEntry(section)));
    }
    return !ended;
  }

  const RandomReader& source_;
  const IndexBuildOptions& options_;
  const IndexOutput& output_;
  const WorkContext& context_;
  const IndexProgress& progress_;
  const CarHeader& header_;
  IndexBuilder& builder_;
  uint64_t unverified_ = 0;
};

}  // namespace

absl::StatusOr<BuiltIndex> BuildIndex(const RandomReader& source, const IndexBuildOptions& options,
                                      const IndexOutput& output, const WorkContext& context,
                                      const IndexProgress& progress) {
  RETURN_IF_ERROR(context.Check());
  ASSIGN_OR_RETURN(const std::unique_ptr<CarReader> reader, CarReader::Open(source, options.car));
  const CarHeader& header = reader->header();
  IndexBuilder builder(output, options.memory_bytes_max);
  Scan scan(source, options, output, context, progress, header, builder);
  uint64_t end = 0;
  std::unique_ptr<BuildHelper> helper;
  if (options.verify && options.second_thread && header.payload_size >= kPipelineBytesMin &&
      source.Memory().empty()) {
    helper = BuildHelper::Start();
  }
  if (helper != nullptr) {
    ASSIGN_OR_RETURN(end, scan.VerifyPipelined(*helper));
  } else {
    RETURN_IF_ERROR(options.verify ? scan.Verify(*reader) : scan.Walk(*reader));
    end = reader->position();
  }

  IndexSummary summary;
  summary.verified = options.verify;
  summary.unverified = scan.unverified();
  summary.car_version = header.version;
  summary.payload_offset = header.payload_offset;
  summary.payload_size = end;
  summary.source_size = source.Size();
  return builder.Finish(header.roots, summary, helper.get());
}

}  // namespace dagstore
