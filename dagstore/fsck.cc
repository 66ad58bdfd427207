#include "dagstore/fsck.h"

#include <algorithm>
#include <vector>

#include "index/roots.h"

namespace dagstore {
namespace {

constexpr size_t kKeysPerScan = 1024;  // so that no snapshot of the database stays open for long
constexpr size_t kHoldersAsked = 64;  // of a block at once, so that popular ones cost no more
constexpr size_t kLookupsPerBatch = 4096;  // 32 KiB of fingerprints

class Fsck {
 public:
  Fsck(DagStore& store, const WorkContext& work, absl::FunctionRef<void(const FsckProblem&)> visit,
       const FsckProgress& progress)
      : store_(store), lookup_(store.lookup()), work_(work), visit_(visit), progress_(progress) {}

  absl::StatusOr<FsckReport> Run() {
    RETURN_IF_ERROR(AwaitDestroying());
    RETURN_IF_ERROR(store_.AwaitLookups(work_.deadline));
    RETURN_IF_ERROR(ListQuarantine());
    if (const absl::Status status = lookup_.top->CheckAll(); !status.ok()) {
      Report(FsckPart::kLookup, {}, status);
    }
    ASSIGN_OR_RETURN(const StoreStats stats, store_.Stats());
    std::string from;
    while (true) {
      ASSIGN_OR_RETURN(const std::vector<ShardKey> keys, KeysFrom(from));
      for (const ShardKey& key : keys) {
        RETURN_IF_ERROR(work_.Check());
        RETURN_IF_ERROR(CheckShard(key));
        if (progress_) progress_(report_.shards, stats.shards);
      }
      if (keys.size() < kKeysPerScan) break;
      from = keys.back().bytes() + '\0';
    }
    RETURN_IF_ERROR(CountOrphans());
    return report_;
  }

 private:
  void Report(FsckPart part, const ShardKey& key, const absl::Status& status) {
    ++report_.problems;
    visit_({part, key, status});
  }

  // The store took up what was left half destroyed when it opened: joining in tells how that ends.
  absl::Status AwaitDestroying() {
    std::vector<ShardKey> keys;
    const std::unique_ptr<KvCursor> cursor = lookup_.kv->Scan(KvTable::kDestroying);
    for (; cursor->Valid(); cursor->Next()) keys.emplace_back(cursor->key());
    RETURN_IF_ERROR(cursor->status());
    for (const ShardKey& key : keys) {
      const absl::Status status = store_.AwaitDestroyed(key, work_);
      RETURN_IF_ERROR(work_.Check());
      if (!status.ok()) Report(FsckPart::kDestroying, key, status);
    }
    return absl::OkStatus();
  }

  absl::Status ListQuarantine() {
    ASSIGN_OR_RETURN(const std::vector<QuarantinedRecord> records,
                     store_.ListQuarantined(SIZE_MAX));
    for (const QuarantinedRecord& record : records) {
      ++report_.quarantined;
      Report(FsckPart::kQuarantine, ShardKey(record.key), DataLoss("{}", record.reason));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<ShardKey>> KeysFrom(const std::string& from) {
    std::vector<ShardKey> keys;
    const std::unique_ptr<KvCursor> cursor = lookup_.kv->Scan(KvTable::kRecords, from);
    for (; cursor->Valid() && keys.size() < kKeysPerScan; cursor->Next())
      keys.emplace_back(cursor->key());
    RETURN_IF_ERROR(cursor->status());
    return keys;
  }

  // True if the shard is no longer as `record` says: what was found means nothing then. The loop is asked first: a
  // destruction hides the shard at once and removes its index, long before the commit that removes the record.
  bool Changed(const ShardKey& key, const ShardRecord& record) const {
    const absl::StatusOr<ShardInfo> info = store_.GetShardInfo(key);
    if (absl::IsNotFound(info.status()) || (info.ok() && info->state == ShardState::kDestroying)) return true;
    const absl::StatusOr<ShardRecord> now = lookup_.ReadRecord(key);
    return absl::IsNotFound(now.status()) || (now.ok() && !(*now == record));
  }

  absl::Status CheckShard(const ShardKey& key) {
    const absl::StatusOr<ShardRecord> record = lookup_.ReadRecord(key);
    if (absl::IsNotFound(record.status())) return absl::OkStatus();  // destroyed meanwhile
    ++report_.shards;
    if (!record.ok()) {
      Report(FsckPart::kRecord, key, record.status());
      return absl::OkStatus();
    }
    if (record->state == ShardState::kErrored) ++report_.errored;
    RETURN_IF_ERROR(CheckManifests(key, *record));
    if (record->ordinal == 0) {
      if (record->state == ShardState::kAvailable) {
        Report(FsckPart::kRecord, key, DataLoss("the shard is Available and has no index"));
      }
      return absl::OkStatus();
    }
    const absl::StatusOr<std::shared_ptr<const ShardIndex>> index = lookup_.OpenIndex(*record);
    const absl::Status sound = index.ok() ? (*index)->CheckAll() : index.status();
    if (!sound.ok()) {
      if (!Changed(key, *record)) Report(FsckPart::kIndex, key, sound);
      return absl::OkStatus();
    }
    ++report_.indexes;
    if ((*index)->summary().entries != record->blocks && !Changed(key, *record)) {
      Report(FsckPart::kRecord, key,
             DataLoss("the record names {} blocks, the index {}", record->blocks,
                      (*index)->summary().entries));
    }
    if (record->state == ShardState::kAvailable) {
      RETURN_IF_ERROR(CheckLookups(key, *record, **index));
    }
    return CheckRoots(key, *record, **index);
  }

  // Every multihash of the shard leads to it; identity CIDs do not, because they need no shard.
  absl::Status CheckLookups(const ShardKey& key, const ShardRecord& record,
                            const ShardIndex& index) {
    if (!lookups_work_) return absl::OkStatus();
    std::vector<Fingerprint> keys;
    std::vector<bool> identity, found;
    std::vector<size_t> seen;
    std::vector<Ordinal> page;
    uint64_t missing = 0, stray = 0;
    absl::Status status = absl::OkStatus();
    const auto flush = [&] {
      found.assign(keys.size(), false);
      seen.assign(keys.size(), 0);
      status = lookup_.top->Find(
          keys,
          [&](size_t i, Ordinal ordinal) {
            ++seen[i];
            if (ordinal == record.ordinal) found[i] = true;
          },
          kHoldersAsked);
      // Of a popular block not all were given: then this shard alone is asked for.
      for (size_t i = 0; status.ok() && i < keys.size(); ++i) {
        if (found[i] || seen[i] < kHoldersAsked) continue;
        status = lookup_.top->FindPage(keys[i], record.ordinal - 1, 1, page);
        found[i] = !page.empty() && page.front() == record.ordinal;
      }
      for (size_t i = 0; i < keys.size(); ++i) {
        if (identity[i])
          stray += found[i];
        else
          missing += !found[i];
      }
      report_.entries += keys.size();
      keys.clear();
      identity.clear();
      return status.ok() && work_.Check().ok();
    };
    RETURN_IF_ERROR(index.ForEach([&](const IndexEntry& entry) {
      keys.push_back(FingerprintOf(lookup_.fingerprint_secret, entry.hash));
      identity.push_back(entry.hash.code == kIdentity);
      return keys.size() < kLookupsPerBatch || flush();
    }));
    if (status.ok() && !keys.empty()) flush();
    RETURN_IF_ERROR(work_.Check());
    if (Changed(key, record)) return absl::OkStatus();
    if (!status.ok()) {
      lookups_work_ = false;  // said once, not for every shard
      Report(FsckPart::kLookup, {}, status);
    } else if (missing != 0) {
      Report(FsckPart::kLookup, key,
             DataLoss("{} of its {} blocks are not found by CID", missing, record.blocks));
    } else if (stray != 0) {
      Report(FsckPart::kLookup, key,
             DataLoss("{} of its identity CIDs are in the top-level index", stray));
    }
    return absl::OkStatus();
  }

  absl::Status CheckRoots(const ShardKey& key, const ShardRecord& record, const ShardIndex& index) {
    for (const Cid& root : index.roots()) {
      ASSIGN_OR_RETURN(const RootsPage page,
                       ShardsWithRoot(*lookup_.kv, root, record.ordinal - 1, 1));
      ++report_.roots;
      if (!page.ordinals.empty() && page.ordinals.front() == record.ordinal) continue;
      if (!Changed(key, record)) {
        Report(FsckPart::kRoots, key,
               DataLoss("its root {} is not in the roots table", root.ToText()));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckManifests(const ShardKey& key, const ShardRecord& record) {
    constexpr size_t kPage = 1000;
    const Manifests manifests = store_.ReadManifests();
    std::optional<ManifestInfo> after;
    while (true) {
      const auto page =
          manifests.List(key.bytes(), std::nullopt, after.has_value() ? &*after : nullptr, kPage);
      if (!page.ok()) {
        if (!Changed(key, record)) Report(FsckPart::kManifest, key, page.status());
        return absl::OkStatus();
      }
      for (const ManifestInfo& info : *page) {
        const absl::Status status =
            ReadManifest(manifests, {key.bytes(), info.rule, info.version}, info.stat.entries);
        if (!status.ok() && !Changed(key, record)) {
          Report(FsckPart::kManifest, key,
                 Annotate(status, fmt::format("manifest {} version {}", PrintableBytes(info.rule),
                                              info.version)));
        }
        ++report_.manifests;
      }
      if (page->size() < kPage) return absl::OkStatus();
      after = page->back();
    }
  }

  absl::Status ReadManifest(const Manifests& manifests, const ManifestId& id, uint64_t entries) {
    Cid after;
    uint64_t read = 0;
    do {
      ASSIGN_OR_RETURN(const ManifestPage page, manifests.Get(id, after, 10'000));
      read += page.cids.size();
      after = page.next_after;
    } while (!after.empty());
    if (read != entries) return DataLoss("it has {} CIDs and should have {}", read, entries);
    return absl::OkStatus();
  }

  absl::Status CountOrphans() {
    return lookup_.indexes->ForEach([&](Ordinal ordinal, const IndexStat&) {
      report_.orphans += !lookup_.directory->IsAlive(ordinal);
      return true;
    });
  }

  DagStore& store_;
  const DagStore::Lookup& lookup_;
  const WorkContext work_;
  const absl::FunctionRef<void(const FsckProblem&)> visit_;
  const FsckProgress& progress_;
  FsckReport report_;
  bool lookups_work_ = true;
};

}  // namespace

const char* FsckPartName(FsckPart part) {
  switch (part) {
    case FsckPart::kRecord:
      return "record";
    case FsckPart::kQuarantine:
      return "quarantine";
    case FsckPart::kIndex:
      return "index";
    case FsckPart::kLookup:
      return "lookup";
    case FsckPart::kRoots:
      return "roots";
    case FsckPart::kManifest:
      return "manifest";
    case FsckPart::kDestroying:
      return "destroying";
  }
  return "?";
}

absl::StatusOr<FsckReport> CheckStore(DagStore& store, const WorkContext& work,
                                      absl::FunctionRef<void(const FsckProblem&)> visit,
                                      const FsckProgress& progress) {
  return Fsck(store, work, visit, progress).Run();
}

}  // namespace dagstore
