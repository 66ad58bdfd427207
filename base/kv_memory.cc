// Kv in memory: for tests, the simulator and stores that keep nothing.
//
// A table is an ordered map. A cursor holds the map as it was; the first commit to the table after that works on a
// copy, so a cursor costs nothing to open and a commit costs a copy only while somebody walks.
#include <absl/base/thread_annotations.h>

#include <array>
#include <functional>
#include <map>

#include "base/kv.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

using Map = std::map<std::string, std::string, std::less<>>;

// Shared by the Kv and its cursors.
struct Tables {
  SharedMutex mutex;
  // The holders of a map change under `mutex` only, so that "nobody else holds it" can be relied on.
  std::array<std::shared_ptr<Map>, kKvTables> maps ABSL_GUARDED_BY(mutex);
};

class MemoryCursor final : public KvCursor {
 public:
  MemoryCursor(std::shared_ptr<Tables> tables, KvTable table, std::string_view from, std::string_view prefix)
      : tables_(std::move(tables)), prefix_(prefix) {
    {
      const WriterMutexLock lock(tables_->mutex);
      map_ = tables_->maps[static_cast<size_t>(table)];
    }
    at_ = map_->lower_bound(std::max(from, prefix));
  }
  ~MemoryCursor() override {
    const WriterMutexLock lock(tables_->mutex);
    map_.reset();
  }

  bool Valid() const override { return at_ != map_->end() && at_->first.starts_with(prefix_); }
  void Next() override {
    DAGSTORE_CHECK(Valid());
    ++at_;
  }
  std::string_view key() const override { return at_->first; }
  std::string_view value() const override { return at_->second; }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  const std::shared_ptr<Tables> tables_;
  const std::string prefix_;
  std::shared_ptr<const Map> map_;
  Map::const_iterator at_;
};

void Apply(const KvBatch::Change& change, Map& map) {
  switch (change.kind) {
    case KvBatch::Kind::kPut:
      map.insert_or_assign(change.key, change.value);
      break;
    case KvBatch::Kind::kDelete:
      map.erase(change.key);
      break;
    case KvBatch::Kind::kDeletePrefix:
      map.erase(map.lower_bound(change.key), map.lower_bound(KvPrefixEnd(change.key)));
      break;
  }
}

class MemoryKv final : public Kv {
 public:
  MemoryKv() {
    const WriterMutexLock lock(tables_->mutex);
    for (std::shared_ptr<Map>& map : tables_->maps) map = std::make_shared<Map>();
  }

  absl::StatusOr<std::optional<std::string>> Get(KvTable table, std::string_view key) override {
    const ReaderMutexLock lock(tables_->mutex);
    const Map& map = *tables_->maps[static_cast<size_t>(table)];
    const auto found = map.find(key);
    if (found == map.end()) return std::optional<std::string>();
    return std::optional<std::string>(found->second);
  }

  std::unique_ptr<KvCursor> Scan(KvTable table, std::string_view from, std::string_view prefix) override {
    return std::make_unique<MemoryCursor>(tables_, table, from, prefix);
  }

  absl::Status Commit(const KvBatch& batch, bool sync) override {
    RETURN_IF_ERROR(CheckKvBatch(batch));
    const WriterMutexLock lock(tables_->mutex);
    for (const KvBatch::Change& change : batch.changes()) {
      std::shared_ptr<Map>& map = tables_->maps[static_cast<size_t>(change.table)];
      if (map.use_count() > 1) map = std::make_shared<Map>(*map);  // a cursor walks it
      Apply(change, *map);
    }
    if (sync) ++sync_count_;
    return absl::OkStatus();
  }

  uint64_t SizeBytes() override { return 0; }

  uint64_t SyncCount() const override {
    const ReaderMutexLock lock(tables_->mutex);
    return sync_count_;
  }

 private:
  const std::shared_ptr<Tables> tables_ = std::make_shared<Tables>();
  uint64_t sync_count_ ABSL_GUARDED_BY(tables_->mutex) = 0;
};

}  // namespace

std::unique_ptr<Kv> NewMemoryKv() { return std::make_unique<MemoryKv>(); }

}  // namespace dagstore
