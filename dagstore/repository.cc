#include "dagstore/repository.h"

#include <algorithm>
#include <random>

#include "dagstore/engine.h"

namespace dagstore {
namespace {

constexpr char kMarkerName[] = "DAGSTORE";
constexpr char kMetaStoreId[] = "store-id";
constexpr char kMetaFormat[] = "format";
constexpr char kMetaSecret[] = "fingerprint-secret";
constexpr size_t kMarkerBytesMax = 4096;

Bytes RandomBytes(const Options& options, size_t size) {
  Bytes out(size);
  if (options.random) {
    options.random(out);
    return out;
  }
  std::random_device device;
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(device());
  return out;
}

std::string MarkerText(const std::string& store_id) {
  return fmt::format("dagstore repository\nformat {}\nid {}\n", kRepositoryFormat, store_id);
}

// What the folder holds before we touch it.
enum class Found : uint8_t { kNothing, kRepository, kHalfMade };

absl::StatusOr<Found> Inspect(Io& io, const std::string& dir) {
  absl::StatusOr<std::vector<std::string>> names = io.List(dir);
  if (!names.ok()) return names.status();
  static const std::string kOurs[] = {"db", "indexes", "top", "transients"};
  bool stranger = false, ours = false;
  for (const std::string& name : *names) {
    if (name == kMarkerName) return Found::kRepository;
    const bool known = std::find(std::begin(kOurs), std::end(kOurs), name) != std::end(kOurs) ||
                       name.starts_with(std::string(kMarkerName) + ".");  // a marker that was being written
    (known ? ours : stranger) = true;
  }
  if (stranger) {
    return FailedPrecondition("\"{}\" is not empty and is no dagstore repository: choose another folder", dir);
  }
  return ours ? Found::kHalfMade : Found::kNothing;
}

// What a start that was cut off has left of a marker. Under the lock of the database, so no other start is at it.
absl::Status SweepMarkers(Io& io, const std::string& dir) {
  const std::string prefix = std::string(kMarkerName) + ".";
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(dir));
  for (const std::string& name : names) {
    if (!name.starts_with(prefix) || !name.ends_with(".tmp")) continue;
    RETURN_IF_ERROR(io.Remove(fmt::format("{}/{}", dir, name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RequiredMeta(Kv& kv, const char* key) {
  ASSIGN_OR_RETURN(std::optional<std::string> value, kv.Get(KvTable::kMeta, key));
  if (!value.has_value()) return DataLoss("the repository's database has no \"{}\"", key);
  return *std::move(value);
}

// Identity and secret, made once.
absl::Status InitializeMeta(const Options& options, Kv& kv) {
  ASSIGN_OR_RETURN(const auto id, kv.Get(KvTable::kMeta, kMetaStoreId));
  if (id.has_value()) return absl::OkStatus();
  KvBatch batch;
  batch.Put(KvTable::kMeta, kMetaStoreId, ToHex(RandomBytes(options, 16)));
  batch.Put(KvTable::kMeta, kMetaFormat, std::to_string(kRepositoryFormat));
  batch.Put(KvTable::kMeta, kMetaSecret, std::string(AsText(RandomBytes(options, 16))));
  return kv.Commit(batch, /*sync=*/true);
}

absl::Status ReadMeta(Repository& repository) {
  Kv& kv = *repository.kv;
  ASSIGN_OR_RETURN(const std::string format, RequiredMeta(kv, kMetaFormat));
  if (format != std::to_string(kRepositoryFormat)) {
    return FailedPrecondition("the repository has format {}, this program knows {}", format, kRepositoryFormat);
  }
  ASSIGN_OR_RETURN(repository.store_id, RequiredMeta(kv, kMetaStoreId));
  ASSIGN_OR_RETURN(const std::string secret, RequiredMeta(kv, kMetaSecret));
  if (secret.size() != repository.fingerprint_secret.size()) {
    return DataLoss("the fingerprint secret has {} bytes", secret.size());
  }
  std::copy(secret.begin(), secret.end(), repository.fingerprint_secret.begin());
  ASSIGN_OR_RETURN(const auto next, kv.Get(KvTable::kMeta, kMetaNextOrdinal));
  if (next.has_value()) {
    if (next->size() != 4) return DataLoss("the ordinal counter has {} bytes", next->size());
    repository.next_ordinal = Load32(AsSpan(*next).data());
  }
  return absl::OkStatus();
}

// The runs on disk are deleted by OpenTopIndex, because nothing lists them any more; the shards are then added again,
// as after a crash. Stopped at any point, what is left is an index that covers nothing.
absl::Status ForgetTopIndex(Kv& kv) {
  KvBatch batch;
  const std::unique_ptr<KvCursor> cursor = kv.Scan(KvTable::kTopIndex);
  for (; cursor->Valid(); cursor->Next()) batch.Delete(KvTable::kTopIndex, std::string(cursor->key()));
  RETURN_IF_ERROR(cursor->status());
  return kv.Commit(batch, /*sync=*/true);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Repository>> Repository::Open(const Options& options, Io& io) {
  auto repository = std::make_unique<Repository>();
  repository->dir = options.dir;
  const std::string boot_id = ToHex(RandomBytes(options, 6));
  repository->trace_seed = Load64(RandomBytes(options, 8).data());
  TopIndexOptions top;
  top.buffer_entries_max = options.top_index_buffer_entries_max;
  top.merge_fan_in = options.top_index_merge_fan_in;
  top.run_entries_max = options.top_index_run_entries_max;
  top.filter_entries_max = options.top_index_filter_entries_max;
  top.resident_bytes_max = options.top_index_resident_bytes_max;

  if (options.dir.empty()) {
    repository->kv = NewMemoryKv();
    RETURN_IF_ERROR(InitializeMeta(options, *repository->kv));
    RETURN_IF_ERROR(ReadMeta(*repository));
    repository->indexes = NewMemoryIndexStore();
    ASSIGN_OR_RETURN(repository->top, OpenTopIndex(top, *repository->kv, io));
    return repository;
  }

  const std::string& dir = options.dir;
  RETURN_IF_ERROR(io.MakeDir(dir));
  RETURN_IF_ERROR(io.CheckPrivateDir(dir));
  ASSIGN_OR_RETURN(const Found found, Inspect(io, dir));
  RocksKvOptions rocks;
  rocks.create_if_missing = found != Found::kRepository;
  ASSIGN_OR_RETURN(repository->kv,
                   options.kv_opener ? options.kv_opener(dir + "/db", rocks) : OpenRocksKv(dir + "/db", rocks));
  if (options.kv_wrapper) repository->kv = options.kv_wrapper(std::move(repository->kv));
  if (found != Found::kRepository) RETURN_IF_ERROR(InitializeMeta(options, *repository->kv));
  RETURN_IF_ERROR(ReadMeta(*repository));

  RETURN_IF_ERROR(SweepMarkers(io, dir));
  const std::string marker = MarkerText(repository->store_id);
  if (found == Found::kRepository) {
    ASSIGN_OR_RETURN(const Bytes text, ReadSmallFile(io, dir + "/" + kMarkerName, kMarkerBytesMax));
    if (AsText(text) != marker) {
      return FailedPrecondition("\"{}/{}\" names another repository or format than the database beside it", dir,
                                kMarkerName);
    }
  } else {
    const Span parts[] = {AsSpan(marker)};
    RETURN_IF_ERROR(PublishFile(io, dir, kMarkerName, fmt::format("{}.{}.tmp", kMarkerName, boot_id), parts));
  }

  IndexStoreOptions indexes;
  indexes.dir = dir + "/indexes";
  indexes.boot_id = boot_id;
  indexes.inline_bytes_max = std::min(options.inline_index_bytes_max, kInlineBytesLimit);
  ASSIGN_OR_RETURN(repository->indexes, OpenIndexStore(indexes, *repository->kv, io));
  top.dir = dir + "/top";
  if (options.rebuild_top_index) RETURN_IF_ERROR(ForgetTopIndex(*repository->kv));
  ASSIGN_OR_RETURN(repository->top, OpenTopIndex(top, *repository->kv, io));
  UpgraderOptions upgrader;
  upgrader.folder = dir + "/transients";
  upgrader.boot_id = boot_id;
  const Clock& clock = options.clock != nullptr ? *options.clock : Clock::Real();
  repository->copies = std::make_shared<CopyCache>(options.copies, io, clock);
  upgrader.space = repository->copies;
  upgrader.sources = std::make_shared<Sources>(options.sources, io, clock, Load64(RandomBytes(options, 8).data()));
  upgrader.clock = &clock;
  upgrader.partial = options.partial;
  ASSIGN_OR_RETURN(repository->upgrader, Upgrader::Open(io, upgrader));
  ASSIGN_OR_RETURN(const std::vector<TransientInfo> copies, repository->upgrader->TakeStock(io));
  for (const TransientInfo& copy : copies) repository->copies->Found(copy.path, copy.size);
  return repository;
}

}  // namespace dagstore
