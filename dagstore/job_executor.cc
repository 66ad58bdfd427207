#include "dagstore/job_executor.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "base/mutant.h"
#include "index/infer_index.h"
#include "index/manifests.h"
#include "index/roots.h"

namespace dagstore {
namespace {

// Fingerprints handed to the top-level index at a time: 8 MiB, so that a shard of any size needs no more memory.
constexpr size_t kFingerprintsPerAdd = 1 << 20;

int IndexThreads(const Options& options) {
  if (options.index_threads > 0) return options.index_threads;
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// The copy that a job with this ordinal would have made.
TransientInfo CopyOf(const ShardKey& key, Ordinal ordinal) {
  return {.path = fmt::format("{}.{}.car", key.FileStem(), ordinal), .owned = true};
}

// What the record keeps of a copy, as the upgrader knows it.
TransientInfo ToInfo(const TransientRecord& copy, const std::string& validator) {
  return {.path = copy.name, .owned = copy.owned, .size = copy.size, .validator = validator};
}

// A part of a job, in the trace of the job if that is sampled. Ends with End(); without it nothing is recorded.
class WorkSpan {
 public:
  // `number` tells the parts of one job apart.
  WorkSpan(const char* name, uint64_t number, const JobSpec& job, SpanSink* sink, const Clock& clock)
      : sink_(job.meta.span.IsSampled() ? sink : nullptr), clock_(clock) {
    if (sink_ == nullptr) return;
    record_.emplace(name, job.meta.span.Child(number), job.meta.span, clock.Now());
    record_->AddText("dagstore.shard.key", job.key.bytes());
  }
  WorkSpan(const WorkSpan&) = delete;
  SpanRecord* record() { return record_.has_value() ? &*record_ : nullptr; }
  void End(const absl::Status& status) {
    if (!record_.has_value()) return;
    record_->end = clock_.Now();
    record_->SetStatus(status);
    sink_->Record(*std::exchange(record_, std::nullopt));
  }

 private:
  SpanSink* const sink_;
  const Clock& clock_;
  std::optional<SpanRecord> record_;
};

// Where the bytes come from, as the span of a fetch says it.
const char* SourceOf(const Upgraded& source) {
  return source.passthrough ? "origin" : source.local.has_value() && !source.local->owned ? "user_copy" : "local";
}

// Whether `stored`, built of a copy of what the record was made of, differs from the index of the record. No CID covers
// the head of a section: rot there can turn a block into one that nobody asks for, or that no hash can vouch for.
// An index is a function of the bytes, of whether they were hashed, and of its format: whoever changes that tells the
// two apart here.
bool IsAnotherIndex(const StoredIndex& stored, const MountStat& source, const ShardRecord& record) {
  const bool changed = source.exists && source.validator != record.validator;
  if (record.ordinal == 0 || record.inferred_index || changed) return false;
  if (stored.index->summary().verified != record.verified) return false;
  return stored.bytes != record.index_bytes || stored.checksum != record.index_checksum;
}

}  // namespace

JobExecutor::JobExecutor(const Options& options, const Seams& seams) : options_(options), seams_(seams) {}

JobResult JobExecutor::Run(const JobSpec& job) {
  JobResult result;
  switch (job.kind) {
    case JobKind::kInitialize:
      result.status = Initialize(job, result);
      break;
    case JobKind::kOpen:
      result.status = Open(job, result);
      break;
    case JobKind::kCollect:
      result.status = Collect(job, result);
      break;
    case JobKind::kDestroy:
      result.status = Destroy(job, result);
      break;
    case JobKind::kDiscard:
      result.status = Discard(job);
      break;
  }
  // A source, a copy, a file: to those who wait NotFound would mean that there is no such shard.
  if (!Mutant(kMutantGoneIsAbsent)) {
    result.status = Recoded(result.status, absl::StatusCode::kNotFound, absl::StatusCode::kFailedPrecondition);
  }
  if (!result.status.ok() && !job.victim.empty()) seams_.copies->EvictionRefused(job.victim);
  return result;
}

absl::StatusOr<ShardRecord> JobExecutor::ReadRecord(const ShardKey& key) const {
  ASSIGN_OR_RETURN(const std::optional<std::string> value, seams_.kv->Get(KvTable::kRecords, key.bytes()));
  if (!value.has_value()) return NotFound("no record of shard \"{}\"", key.Printable());
  auto record = DecodeRecord(AsSpan(*value));
  if (!record.ok()) return Annotate(record.status(), fmt::format("record of shard \"{}\"", key.Printable()));
  return record;
}

// Opens the bytes of a shard. `expect_same`: what was indexed must still be there; otherwise whatever the source has
// now is taken. The record's copy is brought up to date. `without`: locations that are not to be asked.
absl::StatusOr<Upgraded> JobExecutor::OpenSource(const ShardKey& key, ShardRecord& record, uint64_t generation,
                                                 bool expect_same, const WorkContext& work, MountStat& stat,
                                                 const std::vector<size_t>& without) const {
  std::vector<std::shared_ptr<const Mount>> locations;
  std::vector<size_t> places;  // of each in the record
  for (size_t i = 0; i <= record.also.size(); ++i) {
    if (std::find(without.begin(), without.end(), i) != without.end()) continue;
    ASSIGN_OR_RETURN(const Url url, Url::Parse(i == 0 ? record.url : record.also[i - 1]));
    ASSIGN_OR_RETURN(std::shared_ptr<const Mount> mount, options_.mounts->Make(url));
    locations.push_back(std::move(mount));
    places.push_back(i);
  }
  if (locations.empty()) return Unavailable("no location of shard \"{}\" is left to ask", key.Printable());
  const Mount& mount = *locations.front();
  const Url url = mount.url();
  const MountTraits traits = mount.traits();
  const bool has_copy = record.copy.has_value() && seams_.upgrader != nullptr;
  // A remote source is asked by its first request, which names the version it wants. Only whether an old copy is still
  // what the source has must be asked first.
  if (traits.local || seams_.upgrader == nullptr || (!expect_same && has_copy)) {
    const absl::StatusOr<MountStat> asked = mount.Stat(*seams_.io, work);
    RETURN_IF_ERROR(work.Check());
    // A source that cannot be asked now is what local copies and other locations are for.
    if (!asked.ok() && !has_copy && locations.size() == 1) return asked.status();
    if (asked.ok()) {
      stat = *asked;
    } else {
      stat.validator = record.validator;
    }
  } else {
    stat.validator = record.validator;
  }
  Upgraded upgraded;
  if (seams_.upgrader == nullptr) {
    if (!traits.random)
      return FailedPrecondition("a store in memory keeps no copies, and {} has no random access", url.Redacted());
    if (!stat.exists) return NotFound("{} does not exist", url.Redacted());
    ASSIGN_OR_RETURN(upgraded.reader, mount.OpenRandom(*seams_.io, work));
    upgraded.passthrough = true;
    if (expect_same && upgraded.reader->Size() != record.source_size) {
      return FailedPrecondition("{} has {} bytes, {} when it was indexed", url.Redacted(), upgraded.reader->Size(),
                                record.source_size);
    }
    return upgraded;
  }
  TransientSpec spec;
  spec.name_stem = key.FileStem();
  spec.generation = generation;
  spec.for_job = !expect_same;
  // Whoever takes what is there now does not want a copy of ours of what was there before.
  const bool outdated = stat.exists && stat.validator != record.validator;
  if (record.copy.has_value() &&
      (expect_same || !record.copy->owned || !outdated || Mutant(kMutantOldCopyTrusted))) {
    spec.existing = ToInfo(*record.copy, record.validator);
  }
  if (expect_same && !Mutant(kMutantSourceMayChange)) {
    spec.expected_size = record.source_size;
    spec.serves_ranges = record.inferred_index;
    const auto indexed = std::find(places.begin(), places.end(), record.indexed_location);
    spec.expected_location = static_cast<size_t>(indexed - places.begin());
    // A local file that was moved or restored keeps its bytes but not its inode and times: it is then checked block by
    // block. A remote validator names the bytes.
    if (indexed != places.end() && !locations[spec.expected_location]->traits().local)
      spec.expected_validator = record.validator;
  }
  ASSIGN_OR_RETURN(upgraded, seams_.upgrader->Upgrade(locations, spec, *seams_.io, work));
  if (upgraded.local.has_value()) {
    record.copy = TransientRecord{upgraded.local->path, upgraded.local->size, upgraded.local->owned};
    if (seams_.copies != nullptr && upgraded.local->owned) seams_.copies->Own(upgraded.local->path, key.bytes());
  }
  if (upgraded.stat.exists) {
    stat = upgraded.stat;
  } else if (upgraded.passthrough && upgraded.location != 0) {
    ASSIGN_OR_RETURN(stat, locations[upgraded.location]->Stat(*seams_.io, work));
  }
  upgraded.location = places[upgraded.location];
  return upgraded;
}

absl::StatusOr<StoredIndex> JobExecutor::Index(const JobSpec& job, const ShardRecord& record, const Upgraded& source,
                                               const WorkContext& work, bool* inferred) const {
  IndexBuildOptions build;
  build.car = options_.car;
  build.verify = record.verify && !Mutant(kMutantIndexedUnverified);
  build.memory_bytes_max = options_.index_memory_bytes_max;
  *inferred = false;
  if (source.partial != nullptr && !options_.indexer && options_.embedded_index_bytes_max != 0) {
    InferOptions infer;
    infer.bytes_max = options_.embedded_index_bytes_max;
    infer.samples = options_.embedded_index_samples;
    infer.seed = seams_.fingerprint_secret;
    absl::StatusOr<StoredIndex> stored = seams_.indexes->Write(job.ordinal, [&](const IndexOutput& output) {
      return InferIndex(*source.reader, build, output, work, infer);
    });
    *inferred = stored.ok();
    if (stored.ok()) return stored;
    // It has none, or not one to be believed: then every byte is read. What the source did is no such reason.
    const auto code = stored.status().code();
    if (code != absl::StatusCode::kNotFound && code != absl::StatusCode::kDataLoss &&
        code != absl::StatusCode::kUnimplemented && code != absl::StatusCode::kOutOfRange) {
      return stored;
    }
  }
  const ByteRange all{0, source.reader->Size()};
  source.reader->WillRead({&all, 1});
  return seams_.indexes->Write(job.ordinal, [&](const IndexOutput& output) -> absl::StatusOr<BuiltIndex> {
    if (!options_.indexer) return BuildIndex(*source.reader, build, output, work);
    if (Mutant(kMutantIndexerThrows)) return options_.indexer(*source.reader, build, output, work);
    try {
      return options_.indexer(*source.reader, build, output, work);
    } catch (const std::exception& error) {
      return Internal("the shard indexer threw: {}", error.what());
    } catch (...) {
      return Internal("the shard indexer threw");
    }
  });
}

absl::StatusOr<JobExecutor::Indexed> JobExecutor::IndexOneSource(const JobSpec& job, const ShardRecord& before,
                                                                 const WorkContext& work, uint32_t nth, bool afresh,
                                                                 const std::vector<size_t>& without) const {
  Indexed made;
  made.record = before;
  if (afresh) made.record.copy.reset();
  WorkSpan fetching("shard.fetch", 2 * nth, job, seams_.spans, *seams_.clock);
  absl::StatusOr<Upgraded> opened =
      OpenSource(job.key, made.record, job.ordinal, /*expect_same=*/false, work, made.stat, without);
  if (SpanRecord* span = fetching.record(); span != nullptr && opened.ok()) {
    span->AddText("dagstore.source", SourceOf(*opened));
    span->Add("dagstore.bytes", static_cast<int64_t>(opened->reader->Size()));
  }
  fetching.End(opened.status());
  RETURN_IF_ERROR(opened.status());
  made.source = *std::move(opened);
  const std::optional<TransientInfo>& local = made.source.local;
  made.of_record = local.has_value() && before.copy.has_value() && before.copy->name == local->path;
  made.came_before = made.of_record || made.source.resumed;

  WorkSpan indexing("shard.index", 2 * nth + 1, job, seams_.spans, *seams_.clock);
  made.stored = Index(job, made.record, made.source, work, &made.inferred);
  if (SpanRecord* span = indexing.record(); span != nullptr && made.stored.ok()) {
    span->Add("dagstore.blocks", static_cast<int64_t>(made.stored->index->summary().entries));
  }
  if (made.stored.ok() && made.came_before && !made.inferred && !options_.indexer &&
      IsAnotherIndex(*made.stored, made.stat, before) && !Mutant(kMutantRottenHeadsIndexed)) {
    KvBatch nothing;  // its value is in no batch yet
    RETURN_IF_ERROR(seams_.indexes->Drop(job.ordinal, nothing));
    made.stored = DataLoss("copy {}: its sections are not those that were indexed", local->path);
  }
  indexing.End(made.stored.status());
  return made;
}

absl::StatusOr<JobExecutor::Indexed> JobExecutor::IndexAnySource(const JobSpec& job, const ShardRecord& before,
                                                                 const WorkContext& work) const {
  std::vector<size_t> failed;
  absl::Status first_error;
  absl::Status damage;  // found in what came before this job: none of it is used from then on
  for (uint32_t nth = 0;; ++nth) {
    absl::StatusOr<Indexed> tried = IndexOneSource(job, before, work, nth, !damage.ok(), failed);
    if (!tried.ok()) {
      if (!first_error.ok()) return first_error;
      return damage.ok() ? tried.status() : Annotate(tried.status(), fmt::format("in place of {}", Message(damage)));
    }
    if (tried->stored.ok()) return tried;
    const absl::Status cause = tried->stored.status();
    LeaveCopy(*tried, cause);
    // What came before may be what is wrong: the source of today is asked once.
    if (tried->came_before && absl::IsDataLoss(cause) && damage.ok() && work.Check().ok() &&
        !Mutant(kMutantLiesStick)) {
      damage = cause;
      continue;
    }
    if (first_error.ok()) first_error = cause;
    const bool of_the_source = absl::IsUnavailable(cause) || absl::IsDataLoss(cause) || absl::IsNotFound(cause) ||
                               absl::IsFailedPrecondition(cause);
    if (!of_the_source || !work.Check().ok() || failed.size() == before.also.size()) return first_error;
    failed.push_back(tried->source.location);
  }
}

void JobExecutor::LeaveCopy(Indexed& tried, const absl::Status& cause) const {
  Upgraded& source = tried.source;
  source.reader.reset();
  const bool goes_on = absl::IsUnavailable(cause) || absl::IsCancelled(cause) || absl::IsDeadlineExceeded(cause);
  if (source.partial != nullptr && goes_on && !source.partial->sealed()) {
    if (!tried.of_record) seams_.upgrader->KeepForLater(*source.partial);
  } else if (source.local.has_value() && source.local->owned && !tried.of_record && !Mutant(kMutantUselessCopyKept)) {
    (void)seams_.upgrader->Delete(*seams_.io, *source.local);  // the cause is what matters
  }
}

absl::Status JobExecutor::Initialize(const JobSpec& job, JobResult& result) {
  const WorkContext work = job.Work(*seams_.clock);
  ASSIGN_OR_RETURN(ShardRecord before, ReadRecord(job.key));
  const std::string old_copy = before.OwnCopy();
  // A copy in which damage was found, a user's included, serves no attempt any more: not this one, and not the next,
  // should this one fail for another reason.
  if (before.state == ShardState::kErrored && before.error_code == static_cast<int>(absl::StatusCode::kDataLoss) &&
      !Mutant(kMutantOldCopyTrusted)) {
    before.copy.reset();
    result.old_copy = old_copy;  // whatever becomes of this attempt
  }
  result.record = before;
  ASSIGN_OR_RETURN(Indexed indexed, IndexAnySource(job, before, work));
  const absl::Status added = MakeAvailable(job, indexed, work, result);
  if (!added.ok()) {
    LeaveCopy(indexed, added);
    return added;
  }
  const bool replaced = !result.record->copy.has_value() || result.record->copy->name != old_copy;
  result.old_copy = replaced && !Mutant(kMutantAdoptedCopyKept) ? old_copy : std::string();
  // Of another version, or it would have been gone on with. Should it stay, the next who needs room names it.
  if (seams_.upgrader != nullptr) seams_.upgrader->DeleteLeft(*seams_.io, job.key.FileStem()).IgnoreError();
  return absl::OkStatus();
}

absl::Status JobExecutor::MakeAvailable(const JobSpec& job, Indexed& indexed, const WorkContext& work,
                                        JobResult& result) const {
  ShardRecord& record = indexed.record;
  StoredIndex& stored = *indexed.stored;
  Upgraded& source = indexed.source;
  if (source.partial != nullptr && !indexed.inferred) {
    // All of it has come by; what is not kept for want of room is fetched again when it is read.
    source.reader->MakeWhole(work).IgnoreError();
  }
  source.reader.reset();
  RETURN_IF_ERROR(AddToTopIndex(job.ordinal, *stored.index, job.cancel.get()));

  const IndexSummary& summary = stored.index->summary();
  // An index replaced by this one leaves no roots behind; if it cannot be read, its ordinal is dead all the same.
  if (job.old_ordinal != 0) {
    auto old = seams_.indexes->Open(job.old_ordinal, record.index_bytes, record.index_checksum);
    if (old.ok() && !Mutant(kMutantOldRootsKept)) {
      RETURN_IF_ERROR(AppendRootsRemoval(result.batch, job.old_ordinal, (*old)->roots()));
    }
  }
  RETURN_IF_ERROR(AppendRoots(result.batch, job.ordinal, stored.index->roots()));
  seams_.indexes->AppendTo(result.batch, stored);
  record.state = ShardState::kAvailable;
  record.ordinal = job.ordinal;
  record.attempts = 0;
  record.index_bytes = stored.bytes;
  record.index_checksum = stored.checksum;
  record.blocks = summary.entries;
  record.block_bytes = summary.block_bytes;
  record.unverified_blocks = summary.unverified;
  record.verified = summary.verified;
  record.source_size = summary.source_size;
  record.indexed_unix_ms = absl::ToUnixMillis(seams_.clock->WallNow());
  record.validator = indexed.stat.validator;
  record.indexed_location = static_cast<uint32_t>(source.location);
  record.inferred_index = indexed.inferred;
  record.error_code = 0;
  record.error.clear();
  result.record = std::move(record);
  return absl::OkStatus();
}

absl::Status JobExecutor::AddToTopIndex(Ordinal ordinal, const ShardIndex& index, const CancelFlag* cancel) const {
  const WorkContext work{cancel, seams_.clock, Deadline::Infinite()};
  ReaderMutexLock adding(top_index_mutex_);
  std::vector<Fingerprint> part;
  absl::Status status = absl::OkStatus();
  const auto flush = [&] {
    status = work.Check();
    if (!status.ok()) return false;
    std::sort(part.begin(), part.end());
    status = seams_.top->Add(ordinal, std::exchange(part, {}));
    return status.ok();
  };
  part.reserve(std::min<uint64_t>(index.summary().entries, kFingerprintsPerAdd));
  RETURN_IF_ERROR(index.ForEach([&](const IndexEntry& entry) {
    if (entry.hash.code == kIdentity) return true;  // answered from the CID, and anyone can make them
    if (Mutant(kMutantNotInTopIndex)) return true;
    part.push_back(FingerprintOf(seams_.fingerprint_secret, entry.hash));
    return part.size() < kFingerprintsPerAdd || flush();
  }));
  RETURN_IF_ERROR(status);
  if (!part.empty() && !flush()) return status;
  seams_.top->Seal(ordinal);
  return absl::OkStatus();
}

absl::Status JobExecutor::Open(const JobSpec& job, JobResult& result) {
  const WorkContext work = job.Work(*seams_.clock);
  ASSIGN_OR_RETURN(ShardRecord record, ReadRecord(job.key));
  result.record = record;
  if (record.ordinal != job.ordinal) {
    return Internal("shard \"{}\" is stored with index {}, not {}", job.key.Printable(), record.ordinal, job.ordinal);
  }
  absl::StatusOr<std::shared_ptr<const ShardIndex>> index =
      seams_.indexes->Open(record.ordinal, record.index_bytes, record.index_checksum);
  if (!index.ok()) {
    const auto code = index.status().code();
    result.index_damaged = code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kNotFound;
    return index.status();
  }
  MountStat stat;
  WorkSpan fetching("shard.fetch", 0, job, seams_.spans, *seams_.clock);
  absl::StatusOr<Upgraded> fetched = OpenSource(job.key, record, job.ordinal, /*expect_same=*/true, work, stat);
  if (SpanRecord* span = fetching.record(); span != nullptr && fetched.ok()) {
    span->AddText("dagstore.source", SourceOf(*fetched));
  }
  fetching.End(fetched.status());
  RETURN_IF_ERROR(fetched.status());
  Upgraded source = *std::move(fetched);
  if (record.inferred_index && source.local.has_value() && source.partial == nullptr) {
    // All bytes are here now: the index that came with them is replaced by one of our own.
    result.index_damaged = true;
    return DataLoss("the index the CAR carries gives way to one that is built from the whole copy");
  }
  const bool unchanged = record.verified && source.partial == nullptr && stat.validator == record.validator &&
                         !stat.validator.empty();

  auto open = std::make_shared<OpenShard>();
  open->key = job.key;
  open->ordinal = job.ordinal;
  open->source = std::move(source.reader);
  open->sealed = source.local.has_value() && source.local->owned && source.partial == nullptr;
  open->index = *std::move(index);
  open->car = options_.car;
  open->verify = options_.verify_reads == VerifyReads::kAlways ||
                 (options_.verify_reads == VerifyReads::kOncePerCopy && !unchanged);
  open->record = record;
  result.open = std::move(open);
  if (record == *result.record) {
    result.record.reset();  // nothing to store
  } else {
    result.record = std::move(record);  // a new copy was made
  }
  return absl::OkStatus();
}

absl::Status JobExecutor::Collect(const JobSpec& job, JobResult& result) {
  ASSIGN_OR_RETURN(ShardRecord record, ReadRecord(job.key));
  if (!job.victim.empty() && record.OwnCopy() != job.victim) return DiscardVictim(job);
  if (!record.copy.has_value() || seams_.upgrader == nullptr)
    return NotFound("shard \"{}\" has no local copy", job.key.Printable());
  // The file first: a record that names a copy which is gone is healed by the next open, a file nobody names is not.
  if (!Mutant(kMutantCollectedByRecordOnly))
    RETURN_IF_ERROR(seams_.upgrader->Delete(*seams_.io, ToInfo(*record.copy, record.validator)));
  record.copy.reset();
  result.record = std::move(record);
  return absl::OkStatus();
}

absl::Status JobExecutor::Destroy(const JobSpec& job, JobResult& result) {
  absl::StatusOr<ShardRecord> record = ReadRecord(job.key);
  if (!record.ok() && record.status().code() == absl::StatusCode::kNotFound) return absl::OkStatus();
  RETURN_IF_ERROR(record.status());
  if (record->ordinal != 0) {
    auto index = seams_.indexes->Open(record->ordinal, record->index_bytes, record->index_checksum);
    if (index.ok() && !Mutant(kMutantRootsKept)) {
      RETURN_IF_ERROR(AppendRootsRemoval(result.batch, record->ordinal, (*index)->roots()));
    }
    if (!Mutant(kMutantIndexKept)) RETURN_IF_ERROR(seams_.indexes->Drop(record->ordinal, result.batch));
  }
  if (Mutant(kMutantCopyKept)) return Manifests(*seams_.kv).DropShard(result.batch, job.key.bytes());
  if (record->copy.has_value() && seams_.upgrader != nullptr) {
    RETURN_IF_ERROR(seams_.upgrader->Delete(*seams_.io, ToInfo(*record->copy, record->validator)));
  }
  if (record->ordinal != 0 && seams_.upgrader != nullptr) {  // one that was made while the destroy came
    RETURN_IF_ERROR(seams_.upgrader->Delete(*seams_.io, CopyOf(job.key, record->ordinal)));
  }
  if (seams_.upgrader != nullptr && !Mutant(kMutantLeftoversKept))
    RETURN_IF_ERROR(seams_.upgrader->DeleteLeft(*seams_.io, job.key.FileStem()));
  // Whoever registers the key again starts without its pin.
  result.batch.Delete(KvTable::kMeta, kMetaPin + job.key.bytes());
  if (seams_.copies != nullptr) seams_.copies->Pin(job.key.bytes(), false);
  if (Mutant(kMutantManifestsKept)) return absl::OkStatus();
  return Manifests(*seams_.kv).DropShard(result.batch, job.key.bytes());
}

// What a dead job has left, and the copy that went with an old index. Not synced: if it is lost, fsck finds it again.
absl::Status JobExecutor::Discard(const JobSpec& job) {
  if (!job.victim.empty()) return DiscardVictim(job);
  absl::Status status;
  if (job.ordinal != 0) {
    KvBatch batch;
    status = seams_.indexes->Drop(job.ordinal, batch);
    if (status.ok()) status = seams_.kv->Commit(batch, /*sync=*/false);
  }
  status.Update(DiscardCopies(job));
  return status;
}

absl::Status JobExecutor::DiscardCopies(const JobSpec& job) const {
  if (seams_.upgrader == nullptr || Mutant(kMutantUselessCopyKept)) return absl::OkStatus();
  const absl::StatusOr<ShardRecord> record = ReadRecord(job.key);
  if (!record.ok() && record.status().code() != absl::StatusCode::kNotFound) return record.status();
  const auto discard = [&](const TransientInfo& copy) {
    if (record.ok() && record->copy.has_value() && record->copy->name == copy.path)
      return absl::OkStatus();  // in use still
    return seams_.upgrader->Discard(*seams_.io, copy);
  };
  if (job.ordinal != 0) RETURN_IF_ERROR(discard(CopyOf(job.key, job.ordinal)));
  if (job.old_copy.empty()) return absl::OkStatus();
  return discard({.path = job.old_copy, .owned = true, .size = 0, .validator = {}});
}

absl::Status JobExecutor::DiscardVictim(const JobSpec& job) const {
  if (!job.key.bytes().empty()) {
    const absl::StatusOr<ShardRecord> record = ReadRecord(job.key);
    if (!record.ok() && !absl::IsNotFound(record.status())) return record.status();
    if (record.ok() && record->OwnCopy() == job.victim)
      return FailedPrecondition("copy {} is that of shard \"{}\"", job.victim, job.key.Printable());
  }
  return seams_.upgrader->DeleteOrphan(*seams_.io, job.victim);
}

PooledJobRunner::PooledJobRunner(const Options& options, JobExecutor& executor, std::shared_ptr<TaskQueues> queues)
    : executor_(executor),
      queues_(std::move(queues)),
      trash_("dagstore-trash", 1),
      fetch_("dagstore-fetch", std::max(1, options.fetch_threads)),
      index_("dagstore-index", IndexThreads(options)),
      open_("dagstore-open", std::max(1, options.open_threads)),
      remove_("dagstore-remove", 1) {}

WorkerPool& PooledJobRunner::PoolOf(JobKind kind) {
  switch (kind) {
    case JobKind::kInitialize:
      return index_;
    case JobKind::kOpen:
      return open_;
    case JobKind::kCollect:
    case JobKind::kDestroy:
    case JobKind::kDiscard:
      return remove_;
  }
  return remove_;
}

void PooledJobRunner::Start(JobSpec job) {
  WorkerPool& pool = PoolOf(job.kind);
  job.stand_ins = &pool;
  pool.Post([this, job = std::move(job)] {
    auto result = std::make_unique<JobResult>(executor_.Run(job));
    queues_->PushJobDone(job, std::move(result));
    if (job.kind != JobKind::kDestroy && job.kind != JobKind::kDiscard) return;
    if (trash_wanted_.exchange(true)) return;  // will be done, with ours in it
    trash_.Post([this] {
      trash_wanted_.store(false);
      executor_.EmptyTrash();
    });
  });
}

void PooledJobRunner::DropLater(std::shared_ptr<const OpenShard> shard) {
  remove_.Post([shard = std::move(shard)]() mutable { shard.reset(); });
}

}  // namespace dagstore
