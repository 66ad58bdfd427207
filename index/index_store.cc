#include "index/index_store.h"

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

constexpr std::string_view kSuffix = ".idx";
constexpr std::string_view kTempSuffix = ".tmp";
constexpr std::string_view kRunsSuffix = ".tmp.runs";
constexpr size_t kOrdinalDigits = 8;

std::string FileName(Ordinal ordinal) { return fmt::format("{:08x}{}", ordinal, kSuffix); }

// What a file of ours is for.
struct OwnName {
  Ordinal ordinal = 0;
  std::string_view boot_id = {};  // of a temporary; empty for an index
};

// Nothing unless the name is exactly one that we write: `<8 hex>.idx` or `<8 hex>.idx.<boot>-<n>.tmp[.runs]`.
std::optional<OwnName> ParseName(std::string_view name) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_boot = [&](char c) { return is_digit(c) || (c >= 'a' && c <= 'z'); };
  if (name.size() < kOrdinalDigits + kSuffix.size() || !name.substr(kOrdinalDigits).starts_with(kSuffix)) return {};
  const std::string_view digits = name.substr(0, kOrdinalDigits);
  if (!std::all_of(digits.begin(), digits.end(), is_hex)) return {};
  OwnName own;
  std::from_chars(digits.data(), digits.data() + digits.size(), own.ordinal, 16);
  if (own.ordinal == 0) return {};

  std::string_view rest = name.substr(kOrdinalDigits + kSuffix.size());
  if (rest.empty()) return own;
  if (rest.ends_with(kRunsSuffix)) {
    rest.remove_suffix(kRunsSuffix.size());
  } else if (rest.ends_with(kTempSuffix)) {
    rest.remove_suffix(kTempSuffix.size());
  } else {
    return {};
  }
  const size_t dash = rest.find('-');
  if (!rest.starts_with('.') || dash == rest.npos) return {};
  own.boot_id = rest.substr(1, dash - 1);
  const std::string_view number = rest.substr(dash + 1);
  if (own.boot_id.empty() || number.empty() || !std::all_of(own.boot_id.begin(), own.boot_id.end(), is_boot) ||
      !std::all_of(number.begin(), number.end(), is_digit))
    return {};
  return own;
}

// The ordinal of a key of table kIndexes; nothing for a key that is not one of ours.
std::optional<Ordinal> ParseKey(std::string_view key) {
  if (key.size() != sizeof(Ordinal)) return {};
  return Load32Big(AsSpan(key).data());
}

// Open indexes, the most recently used first.
class OpenIndexes {
 public:
  OpenIndexes(size_t files_max, size_t heap_bytes_max) : files_max_(files_max), heap_bytes_max_(heap_bytes_max) {}

  std::shared_ptr<const ShardIndex> Get(Ordinal ordinal) {
    const MutexLock lock(mutex_);
    const auto found = by_ordinal_.find(ordinal);
    if (found == by_ordinal_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->index;
  }

  // `heap_bytes` is 0 for a mapped file.
  void Put(Ordinal ordinal, std::shared_ptr<const ShardIndex> index, size_t heap_bytes) {
    std::list<Item> closed;  // after the lock: unmapping takes a while
    const MutexLock lock(mutex_);
    Unlink(ordinal, closed);
    recent_.push_front({ordinal, std::move(index), heap_bytes});
    by_ordinal_[ordinal] = recent_.begin();
    (heap_bytes == 0 ? files_ : heap_bytes_) += heap_bytes == 0 ? 1 : heap_bytes;
    // The last of the kind that is too much goes; a walk from the back, which as a rule ends at once.
    for (auto item = recent_.end();
         (files_ > files_max_ || heap_bytes_ > heap_bytes_max_) && item != recent_.begin();) {
      --item;
      if (item->heap_bytes == 0 ? files_ <= files_max_ : heap_bytes_ <= heap_bytes_max_) continue;
      const Ordinal last = item->ordinal;
      ++item;
      Unlink(last, closed);
    }
  }

  // Gives the index back, so that the caller chooses when it is closed: unmapping a large one takes a while.
  std::shared_ptr<const ShardIndex> Erase(Ordinal ordinal) {
    std::list<Item> closed;
    {
      const MutexLock lock(mutex_);
      Unlink(ordinal, closed);
    }
    return closed.empty() ? nullptr : std::move(closed.front().index);
  }

 private:
  struct Item {
    Ordinal ordinal;
    std::shared_ptr<const ShardIndex> index;
    size_t heap_bytes;
  };

  void Unlink(Ordinal ordinal, std::list<Item>& to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = by_ordinal_.find(ordinal);
    if (found == by_ordinal_.end()) return;
    const auto item = found->second;
    (item->heap_bytes == 0 ? files_ : heap_bytes_) -= item->heap_bytes == 0 ? 1 : item->heap_bytes;
    by_ordinal_.erase(found);
    to.splice(to.end(), recent_, item);
  }

  const size_t files_max_;
  const size_t heap_bytes_max_;
  Mutex mutex_;
  std::list<Item> recent_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Ordinal, std::list<Item>::iterator> by_ordinal_ ABSL_GUARDED_BY(mutex_);
  size_t files_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t heap_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

class DiskIndexStore final : public IndexStore {
 public:
  DiskIndexStore(const IndexStoreOptions& options, Kv& kv, Io& io)
      : options_(options), kv_(kv), io_(io), open_(options.open_files_max, options.open_heap_bytes_max) {}

  absl::StatusOr<StoredIndex> Write(
      Ordinal ordinal, absl::FunctionRef<absl::StatusOr<BuiltIndex>(const IndexOutput&)> build) override {
    DAGSTORE_CHECK(ordinal != 0);
    IndexOutput output{.io = &io_, .dir = options_.dir, .name = FileName(ordinal)};
    output.heap_bytes_max = options_.inline_bytes_max;
    {
      const MutexLock lock(mutex_);
      first_written_ = std::min(first_written_, ordinal);
      output.temp_name = fmt::format("{}.{}-{}{}", output.name, options_.boot_id, ++temporaries_, kTempSuffix);
    }
    ASSIGN_OR_RETURN(BuiltIndex built, build(output));
    StoredIndex stored{.ordinal = ordinal, .bytes = built.bytes, .checksum = built.checksum};
    if (!built.in_file) {
      stored.inline_value = std::move(built.heap);
      // A view of its own: the value is about to be moved into a batch.
      ASSIGN_OR_RETURN(stored.index, OpenNativeIndex(Bytes(stored.inline_value)));
      return stored;
    }
    absl::StatusOr<std::shared_ptr<const ShardIndex>> index = OpenFile(ordinal, built.bytes, built.checksum);
    if (!index.ok()) {
      io_.Remove(Path(FileName(ordinal))).IgnoreError();
      return index.status();
    }
    stored.index = *std::move(index);
    return stored;
  }

  void AppendTo(KvBatch& batch, StoredIndex& stored) override {
    if (stored.inline_value.empty()) return;
    batch.Put(KvTable::kIndexes, IndexKey(stored.ordinal), std::string(AsText(stored.inline_value)));
    stored.inline_value = {};
  }

  absl::StatusOr<std::shared_ptr<const ShardIndex>> Open(Ordinal ordinal, uint64_t bytes, uint32_t checksum) override {
    std::shared_ptr<const ShardIndex> index = open_.Get(ordinal);
    if (index != nullptr && index->SizeBytes() == bytes && index->Checksum() == checksum) return index;
    // The limit may have been another when it was stored: look for a value wherever there could be one.
    if (bytes <= kInlineBytesLimit) {
      ASSIGN_OR_RETURN(std::optional<std::string> value, kv_.Get(KvTable::kIndexes, IndexKey(ordinal)));
      if (value.has_value()) {
        const auto owner = std::make_shared<const std::string>(*std::move(value));
        ASSIGN_OR_RETURN(index, Checked(ordinal, OpenNativeIndex(AsSpan(*owner), owner), bytes, checksum));
        open_.Put(ordinal, index, owner->size());
        return index;
      }
    }
    ASSIGN_OR_RETURN(index, OpenFile(ordinal, bytes, checksum));
    open_.Put(ordinal, index, 0);
    return index;
  }

  absl::Status Drop(Ordinal ordinal, KvBatch& batch) override {
    if (auto closed = open_.Erase(ordinal)) {
      const MutexLock lock(mutex_);
      doomed_.push_back(std::move(closed));
    }
    batch.Delete(KvTable::kIndexes, IndexKey(ordinal));
    if (Mutant(kMutantTrashNamesIndexes)) return absl::OkStatus();
    const absl::Status moved = MoveToTrash(FileName(ordinal));
    if (absl::IsNotFound(moved)) return absl::OkStatus();
    RETURN_IF_ERROR(moved);
    return io_.SyncDir(options_.dir);
  }

  absl::StatusOr<IndexStat> Stat(Ordinal ordinal) override {
    ASSIGN_OR_RETURN(const std::optional<std::string> value, kv_.Get(KvTable::kIndexes, IndexKey(ordinal)));
    if (value.has_value()) return IndexStat{.bytes = value->size(), .in_file = false};
    ASSIGN_OR_RETURN(const FileStat stat, io_.Stat(Path(FileName(ordinal)), Follow::kNever));
    return IndexStat{.bytes = stat.size, .in_file = true};
  }

  absl::StatusOr<IndexTotals> Totals() override {
    IndexTotals totals;
    RETURN_IF_ERROR(ForEach([&](Ordinal, const IndexStat& stat) {
      ++totals.indexes;
      totals.bytes += stat.bytes;
      return true;
    }));
    return totals;
  }

  absl::Status ForEach(absl::FunctionRef<bool(Ordinal, const IndexStat&)> visit) override {
    const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kIndexes);
    for (; cursor->Valid(); cursor->Next()) {
      const std::optional<Ordinal> ordinal = ParseKey(cursor->key());
      if (ordinal && !visit(*ordinal, {.bytes = cursor->value().size(), .in_file = false})) return absl::OkStatus();
    }
    RETURN_IF_ERROR(cursor->status());
    ASSIGN_OR_RETURN(const std::vector<std::string> names, io_.List(options_.dir));
    for (const std::string& name : names) {
      const std::optional<OwnName> own = ParseName(name);
      if (!own || !own->boot_id.empty()) continue;
      absl::StatusOr<FileStat> stat = io_.Stat(Path(name), Follow::kNever);
      if (absl::IsNotFound(stat.status())) continue;  // dropped since
      RETURN_IF_ERROR(stat.status());
      if (!visit(own->ordinal, {.bytes = stat->size, .in_file = true})) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<IndexSweep> Sweep(absl::FunctionRef<bool(Ordinal)> is_live, KvBatch& batch) override {
    // Asked for each name, after the names were read: what a writer made before that had announced itself.
    const auto is_dead = [&](Ordinal ordinal) {
      Ordinal first_written;
      {
        const MutexLock lock(mutex_);
        first_written = Mutant(kMutantSweepTakesNewest) ? std::numeric_limits<Ordinal>::max() : first_written_;
      }
      return ordinal < first_written && (!is_live(ordinal) || Mutant(kMutantSweepTakesLiving));
    };

    IndexSweep sweep;
    const std::unique_ptr<KvCursor> cursor = kv_.Scan(KvTable::kIndexes);
    for (; cursor->Valid(); cursor->Next()) {
      const std::optional<Ordinal> ordinal = ParseKey(cursor->key());
      if (!ordinal || !is_dead(*ordinal)) continue;
      batch.Delete(KvTable::kIndexes, std::string(cursor->key()));
      ++sweep.values;
    }
    RETURN_IF_ERROR(cursor->status());

    ASSIGN_OR_RETURN(const std::vector<std::string> names, io_.List(options_.dir));
    for (const std::string& name : names) {
      const std::optional<OwnName> own = ParseName(name);
      if (!own && Mutant(kMutantSweepTakesStrangers)) RETURN_IF_ERROR(io_.Remove(Path(name)));
      if (!own) continue;
      if (!own->boot_id.empty()) {
        if (own->boot_id == options_.boot_id) continue;
        RETURN_IF_ERROR(io_.Remove(Path(name)));
        ++sweep.temporaries;
      } else if (is_dead(own->ordinal)) {
        RETURN_IF_ERROR(MoveToTrash(name));
        open_.Erase(own->ordinal);
        ++sweep.files;
      }
    }
    if (sweep.files != 0) RETURN_IF_ERROR(io_.SyncDir(TrashDir()));
    if (sweep.files + sweep.temporaries != 0) RETURN_IF_ERROR(io_.SyncDir(options_.dir));
    return sweep;
  }

  absl::StatusOr<uint64_t> EmptyTrash() override {
    std::vector<std::shared_ptr<const ShardIndex>> doomed;
    {
      const MutexLock lock(mutex_);
      doomed.swap(doomed_);
    }
    doomed.clear();
    absl::StatusOr<std::vector<std::string>> names = io_.List(TrashDir());
    if (absl::IsNotFound(names.status())) return 0;
    RETURN_IF_ERROR(names.status());
    uint64_t removed = 0;
    for (const std::string& name : *names) {
      const std::optional<OwnName> own = ParseName(name.substr(0, kOrdinalDigits + kSuffix.size()));
      if (!own) continue;
      const absl::Status status = io_.Remove(TrashDir() + "/" + name);
      if (absl::IsNotFound(status)) continue;  // another thread is at it, too
      RETURN_IF_ERROR(status);
      ++removed;
    }
    return removed;
  }

 private:
  std::string Path(const std::string& name) const { return options_.dir + "/" + name; }
  // Not durable until the folder is synced. NotFound if there is no such file.
  absl::Status MoveToTrash(const std::string& name) {
    // One of an earlier sweep may have the same name: the boot id keeps them apart.
    return io_.Rename(Path(name), TrashDir() + "/" + name + "." + options_.boot_id);
  }
  std::string TrashDir() const { return options_.dir + "/trash"; }

  static absl::StatusOr<std::shared_ptr<const ShardIndex>> Checked(
      Ordinal ordinal, absl::StatusOr<std::shared_ptr<const ShardIndex>> index, uint64_t bytes, uint32_t checksum) {
    if (!index.ok()) return Annotate(index.status(), fmt::format("shard index {:08x}", ordinal));
    if (((*index)->SizeBytes() != bytes || (*index)->Checksum() != checksum) && !Mutant(kMutantIndexByName))
      return DataLoss("shard index {:08x} is another one: {} bytes with checksum {:08x}, should be {} with {:08x}",
                      ordinal, (*index)->SizeBytes(), (*index)->Checksum(), bytes, checksum);
    return index;
  }

  absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenFile(Ordinal ordinal, uint64_t bytes, uint32_t checksum) {
    ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> opened, io_.Open(Path(FileName(ordinal)), Follow::kNever));
    const std::shared_ptr<RandomFile> file(std::move(opened));
    if (file->Size() != bytes)
      return DataLoss("shard index {:08x} has {} bytes, should have {}", ordinal, file->Size(), bytes);
    ASSIGN_OR_RETURN(const Span mapped, file->Map());
    if (!mapped.empty()) return Checked(ordinal, OpenNativeIndex(mapped, file), bytes, checksum);
    // A file system without mappings: all of it in memory, within the limit for open ones.
    if (bytes > options_.open_heap_bytes_max)
      return ResourceExhausted("shard index {:08x} of {} bytes cannot be mapped here", ordinal, bytes);
    Bytes content(bytes);
    RETURN_IF_ERROR(file->Read(0, content.size(), content.data()));
    return Checked(ordinal, OpenNativeIndex(std::move(content)), bytes, checksum);
  }

  const IndexStoreOptions options_;
  Kv& kv_;
  Io& io_;
  OpenIndexes open_;

  Mutex mutex_;
  uint64_t temporaries_ ABSL_GUARDED_BY(mutex_) = 0;
  Ordinal first_written_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<Ordinal>::max();
  std::vector<std::shared_ptr<const ShardIndex>> doomed_ ABSL_GUARDED_BY(mutex_);  // closed by EmptyTrash
};

class MemoryIndexStore final : public IndexStore {
 public:
  absl::StatusOr<StoredIndex> Write(
      Ordinal ordinal, absl::FunctionRef<absl::StatusOr<BuiltIndex>(const IndexOutput&)> build) override {
    DAGSTORE_CHECK(ordinal != 0);
    ASSIGN_OR_RETURN(BuiltIndex built, build(IndexOutput{}));
    DAGSTORE_CHECK(!built.in_file);
    StoredIndex stored{.ordinal = ordinal, .bytes = built.bytes, .checksum = built.checksum};
    ASSIGN_OR_RETURN(stored.index, OpenNativeIndex(std::move(built.heap)));
    const MutexLock lock(mutex_);
    indexes_[ordinal] = stored.index;
    return stored;
  }

  void AppendTo(KvBatch&, StoredIndex&) override {}

  absl::StatusOr<std::shared_ptr<const ShardIndex>> Open(Ordinal ordinal, uint64_t bytes, uint32_t checksum) override {
    const MutexLock lock(mutex_);
    const auto found = indexes_.find(ordinal);
    if (found == indexes_.end()) return NotFound("no shard index {:08x}", ordinal);
    if (found->second->SizeBytes() != bytes || found->second->Checksum() != checksum)
      return DataLoss("shard index {:08x} is another one", ordinal);
    return found->second;
  }

  absl::Status Drop(Ordinal ordinal, KvBatch&) override {
    const MutexLock lock(mutex_);
    indexes_.erase(ordinal);
    return absl::OkStatus();
  }

  absl::StatusOr<IndexStat> Stat(Ordinal ordinal) override {
    const MutexLock lock(mutex_);
    const auto found = indexes_.find(ordinal);
    if (found == indexes_.end()) return NotFound("no shard index {:08x}", ordinal);
    return IndexStat{.bytes = found->second->SizeBytes()};
  }

  absl::StatusOr<IndexTotals> Totals() override {
    const MutexLock lock(mutex_);
    IndexTotals totals{.indexes = indexes_.size()};
    for (const auto& [ordinal, index] : indexes_) totals.bytes += index->SizeBytes();
    return totals;
  }

  absl::Status ForEach(absl::FunctionRef<bool(Ordinal, const IndexStat&)> visit) override {
    std::map<Ordinal, std::shared_ptr<const ShardIndex>> indexes;
    {
      const MutexLock lock(mutex_);
      indexes = indexes_;  // `visit` may call back
    }
    for (const auto& [ordinal, index] : indexes)
      if (!visit(ordinal, {.bytes = index->SizeBytes()})) break;
    return absl::OkStatus();
  }

  // An index lives from Write to Drop of one process: nothing is ever left over.
  absl::StatusOr<IndexSweep> Sweep(absl::FunctionRef<bool(Ordinal)>, KvBatch&) override { return IndexSweep{}; }
  absl::StatusOr<uint64_t> EmptyTrash() override { return 0; }

 private:
  Mutex mutex_;
  std::map<Ordinal, std::shared_ptr<const ShardIndex>> indexes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::string IndexKey(Ordinal ordinal) {
  std::string key;
  Append32Big(key, ordinal);
  return key;
}

absl::StatusOr<std::unique_ptr<IndexStore>> OpenIndexStore(const IndexStoreOptions& options, Kv& kv, Io& io) {
  DAGSTORE_CHECK(options.inline_bytes_max <= kInlineBytesLimit);
  DAGSTORE_CHECK(!options.boot_id.empty() && ParseName(FileName(1) + "." + options.boot_id + "-1.tmp").has_value());
  RETURN_IF_ERROR(io.MakeDir(options.dir));
  RETURN_IF_ERROR(io.MakeDir(options.dir + "/trash"));
  return std::make_unique<DiskIndexStore>(options, kv, io);
}

std::unique_ptr<IndexStore> NewMemoryIndexStore() { return std::make_unique<MemoryIndexStore>(); }

}  // namespace dagstore
