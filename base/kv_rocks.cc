// Kv on RocksDB: one database, one column family per table. The only file that includes rocksdb/.
#include <absl/base/thread_annotations.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/io.h"
#include "base/kv.h"
#include "base/mutant.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

// Whole-table scans read this much ahead: a million records of 200 bytes in 0.3 s, and one request per extent on disk.
constexpr size_t kScanReadaheadBytes = 2 << 20;
// Values of kIndexes from here on live in blob files, so that compaction does not copy them again and again.
constexpr uint64_t kBlobBytesMin = 1 << 10;
constexpr uint64_t kBlobFileBytes = 64 << 20;
// RocksDB's own log, for people: LOG, and one LOG.old.
constexpr uint64_t kInfoLogBytesMax = 1 << 20;
constexpr size_t kInfoLogLineBytesMax = 1 << 10;
// Write-ahead logs in the folder at open from which on they are cleared; see ClearLogs.
constexpr size_t kLogsMax = 8;

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view FromSlice(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }
bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

absl::StatusCode CodeOf(const rocksdb::Status& status, std::string_view text) {
  if (status.IsCorruption()) return absl::StatusCode::kDataLoss;
  if (status.IsNoSpace() || status.IsMemoryLimit()) return absl::StatusCode::kResourceExhausted;
  // RocksDB keeps the text of an errno, not the number.
  for (const int error : {EMFILE, ENFILE, EDQUOT, ENOMEM, EACCES, EPERM, EROFS}) {
    if (EndsWith(text, std::strerror(error))) return ErrnoStatus(error, {}).code();
  }
  return absl::StatusCode::kUnavailable;
}

absl::Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  return MakeStatus(CodeOf(status, text), fmt::format("{}: {}", what, text));
}

// As FromRocks, for DB::Open, where more is known about what a code means.
absl::Status FromOpen(const rocksdb::Status& status, const std::string& path) {
  const std::string text = status.ToString();
  if (Contains(text, "While lock file: ") || Contains(text, "lock hold by current process")) {
    return FailedPrecondition("open database {}: another process has the repository open", path);
  }
  if (CodeOf(status, text) == absl::StatusCode::kUnavailable) {
    if (status.IsPathNotFound() || status.IsNotFound()) {
      return DataLoss("open database {}: a file is missing: {}", path, text);
    }
    if (status.IsInvalidArgument() || status.IsNotSupported()) {
      return FailedPrecondition("open database {}: made by another version: {}", path, text);
    }
  }
  return FromRocks(status, fmt::format("open database {}", path));
}

// RocksDB takes a folder without CURRENT for a new database and deletes the files it does not know. So look first.
// A crash while the first CURRENT was made leaves a MANIFEST only. Returns the number of log files.
absl::StatusOr<size_t> CheckFolder(const std::string& path, bool create_if_missing) {
  absl::StatusOr<std::vector<std::string>> names = Io::Posix().List(path);
  if (absl::IsNotFound(names.status()) && create_if_missing) {
    RETURN_IF_ERROR(Io::Posix().MakeDir(path));
    return size_t{0};
  }
  RETURN_IF_ERROR(names.status());
  if (std::binary_search(names->begin(), names->end(), "CURRENT")) {
    return std::count_if(names->begin(), names->end(), [](const std::string& name) { return EndsWith(name, ".log"); });
  }
  for (const std::string& name : *names) {
    if (EndsWith(name, ".sst") || EndsWith(name, ".blob") || EndsWith(name, ".log")) {
      return DataLoss("open database {}: the file CURRENT is missing, and {} is there", path, name);
    }
  }
  if (!create_if_missing) return NotFound("open database {}: there is none", path);
  return size_t{0};
}

// RocksDB leaves an empty log behind for each time it was open without a write, and reads them all at the next open.
// One flush lets it drop them. Failure is harmless: the next open tries again.
void ClearLogs(rocksdb::DB& db) {
  if (db.Put(rocksdb::WriteOptions(), db.DefaultColumnFamily(), "logs", "cleared").ok()) {
    db.Flush(rocksdb::FlushOptions(), db.DefaultColumnFamily()).PermitUncheckedError();
  }
}

// Where RocksDB reports what it finds wrong. Its own logger is not used: once a line could not be written (the disk is
// full), the next one fails an assertion that Debian's build has on, and the process is gone. This one drops the line.
// It also leaves out the list of all options that RocksDB writes at each open (90 KB).
class InfoLog final : public rocksdb::Logger {
 public:
  explicit InfoLog(const std::string& dir) : Logger(rocksdb::InfoLogLevel::WARN_LEVEL), path_(dir + "/LOG") {}

  using Logger::Logv;
  void LogHeader(const char*, va_list) override {}
  void Logv(const char* format, va_list arguments) override {
    char text[kInfoLogLineBytesMax];
    if (std::vsnprintf(text, sizeof text, format, arguments) < 0) return;
    const std::string line =
        fmt::format("{} {}\n", absl::FormatTime(Clock::Real().WallNow(), absl::UTCTimeZone()), text);
    const MutexLock lock(mutex_);
    if (file_ == nullptr || bytes_ + line.size() > kInfoLogBytesMax) Reopen(line.size());
    if (file_ != nullptr && file_->Append(AsSpan(line)).ok()) bytes_ += line.size();
  }

 private:
  // Makes room for `need` bytes. file_ is null if it cannot be done.
  void Reopen(size_t need) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Io& io = Io::Posix();
    file_.reset();
    const absl::StatusOr<FileStat> stat = io.Stat(path_, Follow::kNever);
    bytes_ = stat.ok() ? stat->size : 0;
    if (bytes_ + need > kInfoLogBytesMax) {
      if (!io.Rename(path_, path_ + ".old").ok()) return;
      bytes_ = 0;
    }
    absl::StatusOr<std::unique_ptr<WritableFile>> file = io.OpenForWriting(path_);
    if (absl::IsNotFound(file.status())) file = io.Create(path_);
    if (file.ok()) file_ = std::move(*file);
  }

  const std::string path_;
  Mutex mutex_;
  std::unique_ptr<WritableFile> file_ ABSL_GUARDED_BY(mutex_);  // null until the first line, and while it cannot be had
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

rocksdb::DBOptions MakeDbOptions(const std::string& path, const RocksKvOptions& options) {
  rocksdb::DBOptions db;
  db.create_if_missing = options.create_if_missing;
  db.create_missing_column_families = true;
  db.paranoid_checks = true;
  // The default stops before a damaged log record without a word, which takes back what was acknowledged. This one
  // drops a torn end only and refuses everything else.
  db.wal_recovery_mode = Mutant(kMutantLogTailIgnored) ? rocksdb::WALRecoveryMode::kPointInTimeRecovery
                                                       : rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  db.track_and_verify_wals_in_manifest = true;
  db.max_total_wal_size = options.wal_bytes_max;
  db.db_write_buffer_size = 2 * options.write_buffer_bytes;  // all tables together
  db.max_open_files = options.open_files_max;
  db.max_background_jobs = 2;
  db.max_file_opening_threads = 1;  // where no thread is left, more of them end the process
  db.max_manifest_file_size = 16 << 20;
  db.skip_stats_update_on_db_open = true;  // else every open reads every file's properties
  db.bytes_per_sync = 1 << 20;             // no bursts of write-back that commits would wait for
  db.info_log = std::make_shared<InfoLog>(path);
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  return db;
}

rocksdb::ColumnFamilyOptions MakeTableOptions(KvTable table, const RocksKvOptions& options,
                                              const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions blocks;
  blocks.block_cache = cache;
  blocks.block_size = 16 << 10;
  blocks.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  blocks.optimize_filters_for_memory = true;

  rocksdb::ColumnFamilyOptions family;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(blocks));
  family.write_buffer_size = options.write_buffer_bytes;
  family.level_compaction_dynamic_level_bytes = true;
  family.compression = rocksdb::kNoCompression;
  if (table == KvTable::kIndexes) {
    // Values of 1 to 64 KiB, most of it digests, which do not compress.
    family.enable_blob_files = true;
    family.min_blob_size = kBlobBytesMin;
    family.blob_file_size = kBlobFileBytes;
    family.enable_blob_garbage_collection = true;
    family.blob_garbage_collection_force_threshold = 0.5;
    family.blob_cache = cache;
  }
  return family;
}

class RocksCursor final : public KvCursor {
 public:
  RocksCursor(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family, std::string_view from, std::string_view prefix)
      : end_(prefix.empty() ? std::string() : KvPrefixEnd(prefix)), end_slice_(end_) {
    rocksdb::ReadOptions read;
    if (prefix.empty()) {
      read.fill_cache = false;  // a walk over all would evict what is used
      read.readahead_size = kScanReadaheadBytes;
    } else {
      read.iterate_upper_bound = &end_slice_;
    }
    it_.reset(db.NewIterator(read, family));
    it_->Seek(ToSlice(std::max(from, prefix)));
  }

  bool Valid() const override { return it_->Valid(); }
  void Next() override { it_->Next(); }
  std::string_view key() const override { return FromSlice(it_->key()); }
  std::string_view value() const override { return FromSlice(it_->value()); }
  absl::Status status() const override { return FromRocks(it_->status(), "scan database"); }

 private:
  const std::string end_;
  const rocksdb::Slice end_slice_;  // the iterator keeps its address
  std::unique_ptr<rocksdb::Iterator> it_;
};

class RocksKv final : public Kv {
 public:
  RocksKv(std::unique_ptr<rocksdb::DB> db, std::vector<rocksdb::ColumnFamilyHandle*> families, std::string path)
      : db_(std::move(db)), families_(std::move(families)), path_(std::move(path)) {}

  ~RocksKv() override {
    // Nothing can be reported from here, and nothing is lost: what is not flushed is replayed from the log.
    if (!failed_.load()) db_->Flush(rocksdb::FlushOptions(), families_).PermitUncheckedError();
    for (rocksdb::ColumnFamilyHandle* family : families_) {
      db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
    }
    db_->Close().PermitUncheckedError();
  }

  absl::StatusOr<std::optional<std::string>> Get(KvTable table, std::string_view key) override {
    std::string value;
    const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), FamilyOf(table), ToSlice(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return FromRocks(status, fmt::format("read database {}", path_));
    return std::optional<std::string>(std::move(value));
  }

  std::unique_ptr<KvCursor> Scan(KvTable table, std::string_view from, std::string_view prefix) override {
    return std::make_unique<RocksCursor>(*db_, FamilyOf(table), from, prefix);
  }

  absl::Status Commit(const KvBatch& batch, bool sync) override {
    RETURN_IF_ERROR(CheckKvBatch(batch));
    if (failed_.load(std::memory_order_acquire)) return Failure();
    const rocksdb::Status status = Write(batch, sync);
    if (!status.ok()) return Fail(FromRocks(status, fmt::format("commit to database {}", path_)));
    if (sync) sync_count_.fetch_add(1, std::memory_order_relaxed);
    return absl::OkStatus();
  }

  uint64_t SizeBytes() override {
    // Tables, blobs, and the log, which is about as large as what is in memory.
    uint64_t sum = 0;
    for (const std::string& property : {rocksdb::DB::Properties::kTotalSstFilesSize,
                                        rocksdb::DB::Properties::kTotalBlobFileSize,
                                        rocksdb::DB::Properties::kCurSizeAllMemTables}) {
      for (rocksdb::ColumnFamilyHandle* family : families_) {
        uint64_t bytes = 0;
        if (db_->GetIntProperty(family, property, &bytes)) sum += bytes;
      }
    }
    return sum;
  }

  uint64_t SyncCount() const override { return sync_count_.load(std::memory_order_relaxed); }

 private:
  rocksdb::ColumnFamilyHandle* FamilyOf(KvTable table) const { return families_[static_cast<size_t>(table)]; }

  rocksdb::Status Write(const KvBatch& batch, bool sync) {
    if (batch.empty()) return sync ? db_->FlushWAL(/*sync=*/true) : rocksdb::Status::OK();
    rocksdb::WriteBatch writes(batch.bytes() + 16 * batch.changes().size());
    for (const KvBatch::Change& change : batch.changes()) {
      rocksdb::ColumnFamilyHandle* family = FamilyOf(change.table);
      rocksdb::Status status;
      switch (change.kind) {
        case KvBatch::Kind::kPut:
          status = writes.Put(family, ToSlice(change.key), ToSlice(change.value));
          break;
        case KvBatch::Kind::kDelete:
          status = writes.Delete(family, ToSlice(change.key));
          break;
        case KvBatch::Kind::kDeletePrefix:
          status = writes.DeleteRange(family, ToSlice(change.key), KvPrefixEnd(change.key));
          break;
      }
      if (!status.ok()) return status;
    }
    rocksdb::WriteOptions options;
    options.sync = sync;
    return db_->Write(options, &writes);
  }

  absl::Status Failure() const {
    const MutexLock lock(mutex_);
    return failure_;
  }

  // The first failure stays.
  absl::Status Fail(absl::Status status) {
    const MutexLock lock(mutex_);
    if (failure_.ok()) failure_ = std::move(status);
    failed_.store(true, std::memory_order_release);
    return failure_;
  }

  const std::unique_ptr<rocksdb::DB> db_;
  const std::vector<rocksdb::ColumnFamilyHandle*> families_;  // by KvTable, then RocksDB's own "default"
  const std::string path_;
  std::atomic<uint64_t> sync_count_{0};
  std::atomic<bool> failed_{false};
  mutable Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // the first failed commit; OK while healthy
};

// RocksDB starts three threads when it opens a database. If one is not to be had it throws, and leaves the database
// locked for as long as the process lives. Tried with a few to spare: others may take some in between.
absl::Status CheckThreadsLeft(const std::string& path) {
  absl::Status status;
  std::vector<std::thread> threads;
  std::promise<void> tried;
  const std::shared_future<void> end(tried.get_future());
  try {
    for (int i = 0; i < 8; ++i) threads.emplace_back([end] { end.wait(); });
  } catch (const std::system_error& error) {
    status = ResourceExhausted("open database {}: no thread is left for it: {}", path, error.code().message());
  }
  tried.set_value();
  for (std::thread& thread : threads) thread.join();
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Kv>> OpenRocksKv(const std::string& path, const RocksKvOptions& options) {
  ASSIGN_OR_RETURN(const size_t logs, CheckFolder(path, options.create_if_missing));
  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (size_t i = 0; i < kKvTables; ++i) {
    const auto table = static_cast<KvTable>(i);
    descriptors.emplace_back(KvTableName(table), MakeTableOptions(table, options, cache));
  }
  descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions());

  RETURN_IF_ERROR(CheckThreadsLeft(path));
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(MakeDbOptions(path, options), path, descriptors, &families, &db);
  if (!status.ok()) return FromOpen(status, path);
  if (logs > kLogsMax) ClearLogs(*db);
  return std::make_unique<RocksKv>(std::unique_ptr<rocksdb::DB>(db), std::move(families), path);
}

}  // namespace dagstore
