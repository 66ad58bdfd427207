#include "tests/sim/sim_kv.h"

#include <algorithm>
#include <utility>

#include "base/crc32c.h"
#include "tests/sim/sometimes.h"

namespace dagstore::sim {
namespace {

class SimCursor final : public KvCursor {
 public:
  explicit SimCursor(absl::Status status) : status_(std::move(status)) {}
  SimCursor(const KvDisk::Table& table, std::string_view from, std::string_view prefix) {
    for (auto it = table.lower_bound(std::max(from, prefix)); it != table.end(); ++it) {
      if (!it->first.starts_with(prefix)) break;
      items_.push_back(*it);
    }
  }
  bool Valid() const override { return at_ < items_.size(); }
  void Next() override { ++at_; }
  std::string_view key() const override { return items_[at_].first; }
  std::string_view value() const override { return items_[at_].second; }
  absl::Status status() const override { return status_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
  size_t at_ = 0;
  absl::Status status_;
};

}  // namespace

class SimKv final : public Kv {
 public:
  SimKv(KvDisk& disk, uint64_t opening) : disk_(disk), opening_(opening) {}

  absl::StatusOr<std::optional<std::string>> Get(KvTable table, std::string_view key) override {
    RETURN_IF_ERROR(disk_.Enter(opening_, "get", disk_.faults.read_error));
    const KvDisk::Table& from = disk_.tables_[static_cast<size_t>(table)];
    const auto found = from.find(key);
    if (found == from.end()) return std::optional<std::string>();
    return std::optional<std::string>(found->second);
  }
  std::unique_ptr<KvCursor> Scan(KvTable table, std::string_view from, std::string_view prefix) override {
    absl::Status entered = disk_.Enter(opening_, "scan", disk_.faults.read_error);
    if (!entered.ok()) return std::make_unique<SimCursor>(std::move(entered));
    return std::make_unique<SimCursor>(disk_.tables_[static_cast<size_t>(table)], from, prefix);
  }
  absl::Status Commit(const KvBatch& batch, bool sync) override {
    RETURN_IF_ERROR(CheckKvBatch(batch));
    if (disk_.down_ || disk_.opening_ != opening_) return Unavailable("commit: the machine is down");
    const uint64_t id = disk_.next_in_flight_++;
    disk_.in_flight_.push_back({id, batch});
    const absl::Status entered =
        disk_.Enter(opening_, sync ? "commit" : "commit, not synced", disk_.faults.commit_error);
    const auto mine = [&] {
      return std::find_if(disk_.in_flight_.begin(), disk_.in_flight_.end(), [id](const auto& f) { return f.id == id; });
    };
    if (disk_.down_ || disk_.opening_ != opening_) return Unavailable("commit: the machine is down");
    if (disk_.failed_) {
      if (const auto it = mine(); it != disk_.in_flight_.end()) disk_.in_flight_.erase(it);
      return disk_.error_;
    }
    for (const KvBatch::Change& change : batch.changes()) {
      disk_.trace_.Add(static_cast<uint64_t>(change.kind) << 8 | static_cast<uint64_t>(change.table));
      disk_.trace_.Add(change.key);
      disk_.trace_.Add(Crc32c(AsSpan(change.value)));
    }
    if (!entered.ok()) {  // it stays in `in_flight_`: a restart finds it, or not
      Sometimes("kv: a commit fails");
      disk_.failed_ = true;
      disk_.error_ = Unavailable("the database takes no more commits: {}", Message(entered));
      return disk_.error_;
    }
    disk_.in_flight_.erase(mine());
    KvDisk::Apply(disk_.tables_, batch);
    disk_.log_.push_back(batch);
    if (!sync) return absl::OkStatus();
    ++disk_.syncs_;
    for (const KvBatch& done : disk_.log_) KvDisk::Apply(disk_.durable_, done);
    disk_.log_.clear();
    return absl::OkStatus();
  }
  uint64_t SizeBytes() override { return 0; }
  uint64_t SyncCount() const override { return disk_.syncs_; }

 private:
  KvDisk& disk_;
  const uint64_t opening_;
};

std::unique_ptr<Kv> KvDisk::Open() {
  if (!down_) {  // closed in order: all that was committed is written, what failed may be
    const std::vector<InFlight> unsure = std::exchange(in_flight_, {});
    for (const KvBatch& batch : log_) Apply(durable_, batch);
    log_.clear();
    for (const InFlight& commit : unsure) {
      if (tape_.Draw(Stream::kCrash, 2) == 0) break;
      Apply(durable_, commit.batch);
    }
  }
  tables_ = durable_;
  Reset();
  return std::make_unique<SimKv>(*this, opening_);
}

void KvDisk::Reset() {
  log_.clear();
  in_flight_.clear();
  failed_ = false;
  down_ = false;
  ++opening_;
}

void KvDisk::Crash() {
  size_t kept = 0;
  while (kept < Undurable() && tape_.Draw(Stream::kCrash, 2) == 1) ++kept;
  CrashKeeping(kept);
}

void KvDisk::Kill() {
  size_t kept = log_.size();
  while (kept < Undurable() && tape_.Draw(Stream::kCrash, 2) == 1) ++kept;
  CrashKeeping(kept);
}

void KvDisk::CrashKeeping(size_t batches) {
  size_t kept = 0;
  for (const KvBatch& batch : log_)
    if (kept++ < batches) Apply(durable_, batch);
  for (const InFlight& commit : in_flight_) {
    if (kept++ >= batches) continue;
    Apply(durable_, commit.batch);
    Sometimes("crash: a commit that was under way survives");
  }
  if (!in_flight_.empty()) Sometimes("crash: in the middle of a commit");
  log_.clear();
  in_flight_.clear();
  down_ = true;
}

absl::Status KvDisk::Enter(uint64_t opening, const char* call, uint32_t fault_rate) {
  if (scheduler_.in_fiber()) {
    if (scheduler_.current_name() == "dagstore-loop" && on_violation) {
      on_violation("loop", fmt::format("the loop asks the database: {}", call));
    }
    if (!down_ && opening == opening_ && faults.stall != 0 && tape_.Chance(Stream::kFault, faults.stall)) {
      Sometimes("kv: a call stalls");
      scheduler_.Sleep(absl::Milliseconds(1 + tape_.Draw(Stream::kFault, 2000)));
    } else {
      scheduler_.Yield();
    }
  }
  if (down_ || opening != opening_) return Unavailable("{}: the machine is down", call);
  if (before_call) {
    before_call(call);
    if (down_ || opening != opening_) return Unavailable("{}: the machine is down", call);
  }
  absl::Status status = inject ? inject(call) : absl::OkStatus();
  if (status.ok() && fault_rate != 0 && tape_.Chance(Stream::kFault, fault_rate)) {
    status = Unavailable("{}: input/output error", call);
  }
  trace_.Add(std::string_view(call));
  trace_.Add(static_cast<uint64_t>(status.code()));
  if (trace_.verbose()) {
    trace_.listener(fmt::format("{:>6} {:<16} kv {}{}", scheduler_.steps(), scheduler_.current_name(), call,
                                status.ok() ? "" : ": " + ToString(status)));
  }
  return status;
}

void KvDisk::Apply(Tables& tables, const KvBatch& batch) {
  for (const KvBatch::Change& change : batch.changes()) {
    Table& table = tables[static_cast<size_t>(change.table)];
    switch (change.kind) {
      case KvBatch::Kind::kPut:
        table[change.key] = change.value;
        break;
      case KvBatch::Kind::kDelete:
        table.erase(change.key);
        break;
      case KvBatch::Kind::kDeletePrefix:
        for (auto it = table.lower_bound(change.key); it != table.end() && it->first.starts_with(change.key);)
          it = table.erase(it);
        break;
    }
  }
}

void KvDisk::Poke(KvTable table, const std::string& key, std::string value) {
  tables_[static_cast<size_t>(table)][key] = value;
  durable_[static_cast<size_t>(table)][key] = std::move(value);
}

}  // namespace dagstore::sim
