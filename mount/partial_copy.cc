#include "mount/partial_copy.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

constexpr size_t kBufferBytes = 256 << 10;       // of one flight
constexpr uint64_t kForwardBytes = 64 << 10;
constexpr uint64_t kWindowBytesMin = 256 << 10;  // first read-ahead
constexpr size_t kPrefetchesMax = 32;            // of one hint
constexpr uint64_t kPrefetchBytesMax = 32 << 20;
constexpr size_t kHintsMax = 256;
constexpr int kAttemptsWithOthers = 2;  // at one location, if there are others to ask
// On disk besides the extents: the last block of the sparse file, and the map.
constexpr uint64_t kOverheadBytes = 16 << 10;

// An error that says nothing of the source: of the asker, or a limit of ours.
bool IsOurs(const absl::Status& status, const WorkContext& work) {
  return !work.Check().ok() || absl::IsCancelled(status) || absl::IsResourceExhausted(status);
}

}  // namespace

absl::Status SourceChanged(const Mount& mount) {
  return FailedPrecondition("fetch {}: the source has changed since it was registered", mount.url().Redacted());
}

bool TransientContext::Post(absl::AnyInvocable<void()> work) {
  const MutexLock lock(mu_);
  if (!background_ || closing.cancelled()) return false;
  background_(std::move(work));
  return true;
}

void TransientContext::SetBackground(std::function<void(absl::AnyInvocable<void()>)> background, StandIns* stand_ins) {
  const MutexLock lock(mu_);
  if (stand_ins != nullptr) stand_ins_.store(stand_ins, std::memory_order_release);  // what was posted may still run
  background_ = std::move(background);
}

class PartialCopy::Reader final : public RandomReader {
 public:
  Reader(std::shared_ptr<PartialCopy> copy, const WorkContext& work, bool job) : copy_(std::move(copy)) {
    handle_.work = work;
    handle_.job = job;
  }
  ~Reader() override {
    handle_.request.End();
    copy_->GiveBack(handle_);
    copy_->Save().IgnoreError();  // what the map does not know is fetched again after a restart
  }

  uint64_t Size() const override { return copy_->bytes_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (handle_.job) return copy_->ReadSome(copy_, handle_, offset, size, out, handle_.work);
    WorkContext work = handle_.work;
    work.clock = copy_->context_->clock;
    work.deadline = Deadline::After(*work.clock, copy_->context_->limits.read_timeout);
    absl::StatusOr<size_t> n = copy_->ReadSome(copy_, handle_, offset, size, out, work);
    if (n.ok()) return n;
    // The deadline of a reader is another.
    return Recoded(n.status(), absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnavailable);
  }
  void WillRead(std::span<const ByteRange> ranges) const override {
    if (handle_.job && ranges.size() == 1 && ranges[0].offset == 0 && ranges[0].size >= copy_->bytes_) {
      handle_.wants_all = true;
    } else {
      copy_->WillRead(copy_, ranges);
    }
  }
  bool HeedsHints() const override { return !copy_->sealed(); }
  absl::Status Forget(ByteRange range) const override { return copy_->Forget(range); }
  absl::Status MakeWhole(const WorkContext& work) const override {
    return handle_.job ? copy_->FetchAll(handle_, work) : PartialCopy::MakeWhole(copy_, work);
  }

 private:
  const std::shared_ptr<PartialCopy> copy_;
  mutable Handle handle_;
};

PartialCopy::PartialCopy(std::shared_ptr<TransientContext> context, std::string name, ExtentMap map)
    : context_(std::move(context)),
      name_(std::move(name)),
      bytes_(map.file_bytes()),
      granule_bytes_(map.granule_bytes()),
      changed_(context_->io->NewWaitPoint()),
      map_(std::move(map)) {}

PartialCopy::~PartialCopy() {
  const MutexLock lock(file_mu_);
  if (file_ != nullptr) (void)file_->Close();
}

absl::StatusOr<std::shared_ptr<PartialCopy>> PartialCopy::Create(std::shared_ptr<TransientContext> context,
                                                                 const std::string& name, uint64_t bytes) {
  if (context->syncs_failed.load() >= 2) {
    return ResourceExhausted("the disk of {} has failed to sync twice: nothing is fetched to it until a restart",
                             context->folder);
  }
  std::shared_ptr<PartialCopy> copy(new PartialCopy(context, name, ExtentMap(bytes)));
  RETURN_IF_ERROR(copy->RemoveFiles());  // of an attempt before
  if (context->space != nullptr && !context->space->TryTake(kOverheadBytes)) {
    copy->Break();
    return copy;
  }
  const absl::Status opened = copy->OpenFiles(/*create=*/true);
  if (!opened.ok()) {
    if (context->space != nullptr) context->space->Return(kOverheadBytes);
    return opened;
  }
  if (context->space != nullptr) context->space->Add(name, kOverheadBytes);
  return copy;
}

absl::StatusOr<std::shared_ptr<PartialCopy>> PartialCopy::Load(std::shared_ptr<TransientContext> context,
                                                               const std::string& name) {
  PartialCopy names(context, name, ExtentMap());
  const absl::StatusOr<Bytes> text = ReadSmallFile(*context->io, context->PathOf(names.MapName()), kExtentMapBytesMax);
  if (absl::IsResourceExhausted(text.status())) return text.status();
  if (!text.ok()) return NotFound("no partial copy {}", name);
  absl::StatusOr<ExtentMap> map = ExtentMap::Decode(*text);
  if (!map.ok()) return NotFound("the map of partial copy {}: {}", name, Message(map.status()));
  std::shared_ptr<PartialCopy> copy(new PartialCopy(std::move(context), name, *std::move(map)));
  {
    const MutexLock lock(copy->mu_);
    copy->unchecked_.resize(copy->map_.granules());
    for (uint64_t g = 0; g < copy->map_.granules(); ++g) copy->unchecked_[g] = copy->map_.Has(g);
  }
  const absl::Status opened = copy->OpenFiles(/*create=*/false);
  if (absl::IsResourceExhausted(opened)) return opened;
  if (!opened.ok()) return NotFound("the bytes of partial copy {}: {}", name, Message(opened));
  const TransientContext& shared = *copy->context_;
  if (shared.space != nullptr) {
    // All that is on disk was counted when the folder was read, and the map may not know all of it.
    const uint64_t known = copy->BytesThere() + kOverheadBytes;
    const uint64_t counted = shared.space->BytesOf(name);
    copy->beside_ = counted - std::min(counted, known);
  }
  return copy;
}

absl::Status PartialCopy::RemoveFiles() {
  Io& io = *context_->io;
  absl::Status status;
  for (const std::string& name : {MapName(), PartName()}) {
    const absl::Status removed = io.Remove(context_->PathOf(name));
    if (!absl::IsNotFound(removed)) status.Update(removed);
  }
  const uint64_t counted = context_->space == nullptr ? 0 : context_->space->BytesOf(name_);
  if (!status.ok() || counted == 0) return status;
  // A whole copy of that name stays, and counts.
  const absl::StatusOr<FileStat> whole = io.Stat(context_->PathOf(name_), Follow::kNever);
  if (absl::IsNotFound(whole.status())) {
    context_->space->Gone(name_);
  } else {
    beside_ = whole.ok() ? std::min(counted, whole->size) : counted;
    context_->space->Drop(name_, counted - beside_);
  }
  return absl::OkStatus();
}

absl::Status PartialCopy::OpenFiles(bool create) {
  Io& io = *context_->io;
  const std::string path = context_->PathOf(PartName());
  if (!create) {
    const MutexLock lock(file_mu_);
    ASSIGN_OR_RETURN(reader_, io.Open(path, Follow::kNever));
    if (reader_->Size() != bytes_) return DataLoss("{} has {} bytes, not {}", path, reader_->Size(), bytes_);
    ASSIGN_OR_RETURN(file_, io.OpenForWriting(path));
    return absl::OkStatus();
  }
  const absl::Status made = [&]() -> absl::Status {
    const MutexLock lock(file_mu_);
    ASSIGN_OR_RETURN(file_, io.Create(path));
    const uint8_t zero = 0;
    if (bytes_ != 0) RETURN_IF_ERROR(file_->WriteAt(bytes_ - 1, Span(&zero, 1)));
    ASSIGN_OR_RETURN(reader_, io.Open(path, Follow::kNever));
    return absl::OkStatus();
  }();
  if (made.ok()) return made;
  {
    const MutexLock lock(file_mu_);
    if (file_ == nullptr) return made;  // not ours
    file_.reset();
  }
  reader_.reset();
  io.Remove(path).IgnoreError();
  return made;
}

void PartialCopy::SetSources(std::vector<PartialSource> sources) {
  const MutexLock lock(mu_);
  for (PartialSource& source : sources) {
    const uint64_t id = Sources::IdOf(source.mount->url());
    const auto known = std::find_if(map_.sources.begin(), map_.sources.end(),
                                    [&](const ExtentSource& s) { return s.id == id; });
    if (known == map_.sources.end()) {
      if (!source.validator.empty()) map_.sources.push_back({id, source.validator});
    } else if (source.validator.empty()) {
      source.validator = known->validator;
    } else {
      known->validator = source.validator;
    }
  }
  sources_ = std::move(sources);
}

uint64_t PartialCopy::BytesThere() const {
  const MutexLock lock(mu_);
  return map_.BytesThere();
}
std::vector<ExtentSource> PartialCopy::KnownSources() const {
  const MutexLock lock(mu_);
  return map_.sources;
}
bool PartialCopy::sealed() const {
  const MutexLock lock(mu_);
  return sealed_;
}
bool PartialCopy::keeps_nothing() const {
  const MutexLock lock(mu_);
  return broken_ || abandoned_;
}

std::unique_ptr<RandomReader> PartialCopy::NewReader(std::shared_ptr<PartialCopy> copy) {
  return std::make_unique<Reader>(std::move(copy), WorkContext(), /*job=*/false);
}

absl::StatusOr<std::unique_ptr<RandomReader>> PartialCopy::NewJobReader(std::shared_ptr<PartialCopy> copy,
                                                                        const WorkContext& work) {
  return std::make_unique<Reader>(std::move(copy), work, /*job=*/true);
}

absl::Status PartialCopy::Reserve(Handle& handle, const WorkContext& work) {
  if (context_->space == nullptr || handle.reserved != 0 || handle.direct) return absl::OkStatus();
  uint64_t missing = 0;
  {
    const MutexLock lock(mu_);
    if (broken_ || abandoned_) return absl::OkStatus();
    missing = bytes_ - map_.BytesThere();
  }
  const absl::Status taken = context_->space->Take(missing, work);
  if (taken.ok()) handle.reserved = missing;
  return taken;
}

void PartialCopy::GiveBack(Handle& handle) {
  if (context_->space != nullptr) context_->space->Return(std::exchange(handle.reserved, 0));
}

absl::Status PartialCopy::MakeWhole(const std::shared_ptr<PartialCopy>& copy, const WorkContext& work) {
  const Reader reader(copy, work, /*job=*/true);
  return reader.MakeWhole(work);
}

absl::Status PartialCopy::FetchAll(Handle& handle, const WorkContext& work) {
  if (sealed()) return absl::OkStatus();
  if (keeps_nothing() || handle.direct) return ResourceExhausted("there is no room for a copy of {} bytes", bytes_);
  RETURN_IF_ERROR(Reserve(handle, work));
  if (work.progress != nullptr) work.progress->SetTotal(bytes_);
  const uint64_t step = context_->limits.request_bytes_max;
  handle.wants_all = true;
  handle.window = step;  // goes forward from the first byte on
  for (uint64_t at = 0; at < bytes_; at += step) {
    bool kept = true;
    RETURN_IF_ERROR(Ensure(handle, {at, std::min<uint64_t>(step, bytes_ - at)}, /*ahead=*/0, work, &kept));
    if (!kept) return ResourceExhausted("a copy of {} bytes cannot be kept: the disk is full or fails", bytes_);
    if (work.progress != nullptr) work.progress->SetDone(BytesThere());
  }
  return Seal();
}

// ---- Reading ----

absl::StatusOr<size_t> PartialCopy::ReadSome(const std::shared_ptr<PartialCopy>& self, Handle& handle, uint64_t offset,
                                             size_t size, uint8_t* out, const WorkContext& work) {
  if (offset >= bytes_) return size_t{0};
  size = std::min<uint64_t>(size, bytes_ - offset);
  // Forward is who has read on from where he was for a while: headers are read in small steps too.
  const bool goes_on = handle.last_end.exchange(offset + size, std::memory_order_relaxed) == offset;
  const bool forward = goes_on && handle.run.load(std::memory_order_relaxed) >= kForwardBytes;
  handle.run.store((goes_on ? handle.run.load(std::memory_order_relaxed) : 0) + size, std::memory_order_relaxed);
  uint64_t ahead = 0;
  if (forward) {
    const uint64_t most = context_->limits.read_ahead_bytes_max;
    ahead = handle.job ? most
                       : std::clamp(handle.window.load(std::memory_order_relaxed) * 2,
                                    std::min(kWindowBytesMin, most), most);
  }
  handle.window.store(ahead, std::memory_order_relaxed);
  if (handle.job && handle.wants_all && forward && handle.reserved == 0 && !handle.direct) {
    // Room for all, in its turn. What can never fit is read without being kept.
    const absl::Status reserved = Reserve(handle, work);
    if (absl::IsResourceExhausted(reserved)) {
      handle.direct = true;
    } else {
      RETURN_IF_ERROR(reserved);
    }
  }
  for (size_t done = 0; done < size;) {
    const size_t step = std::min(size - done, context_->limits.request_bytes_max);
    RETURN_IF_ERROR(ReadPiece(handle, {offset + done, step}, done + step == size ? ahead : 0, out + done, work));
    done += step;
  }
  if (!handle.job) MaybePromote(self);
  if (handle.job && forward && work.progress != nullptr) {
    work.progress->SetTotal(bytes_);
    work.progress->SetDone(offset + size);
  }
  return size;
}

absl::Status PartialCopy::ReadPiece(Handle& handle, ByteRange range, uint64_t ahead, uint8_t* out,
                                    const WorkContext& work) {
  bool kept = true;
  if (handle.direct) {
    const MutexLock lock(mu_);
    for (uint64_t g = map_.GranuleOf(range.offset); g <= map_.GranuleOf(range.offset + range.size - 1); ++g)
      kept = kept && map_.Has(g) && !Unchecked(g);
  } else {
    RETURN_IF_ERROR(Ensure(handle, range, ahead, work, &kept));
  }
  if (kept) {
    const absl::StatusOr<size_t> n = reader_->ReadSome(range.offset, range.size, out);
    if (n.ok() && *n == range.size) return absl::OkStatus();
    if (absl::IsResourceExhausted(n.status())) return n.status();
    // The disk has lost it. What the source has is as good.
    Forget(range).IgnoreError();
  }
  return Direct(handle, range, out, work);
}

absl::Status PartialCopy::Direct(Handle& handle, ByteRange range, uint8_t* out, const WorkContext& work) {
  context_->bytes_not_kept.fetch_add(range.size, std::memory_order_relaxed);
  return Fetch(
      handle, range.offset, range.offset + range.size,
      [&](uint64_t at, Span bytes) {
        std::copy(bytes.begin(), bytes.end(), out + (at - range.offset));
        return absl::OkStatus();
      },
      work);
}

std::shared_ptr<PartialCopy::Flight> PartialCopy::FlightAt(uint64_t granule) const {
  for (const std::shared_ptr<Flight>& flight : flights_) {
    if (flight->first <= granule && granule < flight->end) return flight;
  }
  return nullptr;
}

absl::Status PartialCopy::CheckLoaded(ByteRange range, const WorkContext& work) {
  const uint64_t end = (range.offset + range.size - 1) / granule_bytes_ + 1;
  Bytes buffer;
  for (uint64_t g = range.offset / granule_bytes_;; ++g) {
    ByteRange granule;
    uint32_t want = 0;
    {
      const MutexLock lock(mu_);
      if (unchecked_.empty() || broken_ || abandoned_) return absl::OkStatus();
      while (g < end && !Unchecked(g)) ++g;
      if (g == end) return absl::OkStatus();
      granule = map_.RangeOf(g, g + 1);
      want = map_.SumOf(g);
    }
    uint32_t sum = 0;
    buffer.resize(std::min<uint64_t>(kBufferBytes, granule.size));
    for (uint64_t done = 0; done < granule.size;) {
      RETURN_IF_ERROR(work.Check());
      const uint64_t step = std::min<uint64_t>(buffer.size(), granule.size - done);
      const absl::StatusOr<size_t> n = reader_->ReadSome(granule.offset + done, step, buffer.data());
      if (absl::IsResourceExhausted(n.status())) return n.status();
      if (!n.ok() || *n != step) {
        sum = ~want;
        break;
      }
      sum = Crc32c(sum, Span(buffer).first(step));
      done += step;
    }
    if (sum == want || Mutant(kMutantRottenExtentsRead)) {
      const MutexLock lock(mu_);
      unchecked_[g] = false;
      continue;
    }
    context_->granules_rotten.fetch_add(1, std::memory_order_relaxed);
    Forget(granule).IgnoreError();  // and fetched again
  }
}

absl::Status PartialCopy::Ensure(Handle& handle, ByteRange range, uint64_t ahead, const WorkContext& work, bool* kept) {
  *kept = true;
  RETURN_IF_ERROR(CheckLoaded(range, work));
  mu_.Lock();
  const uint64_t first = map_.GranuleOf(range.offset);
  const uint64_t end = map_.GranuleOf(range.offset + range.size - 1) + 1;
  absl::Status status;
  while (status.ok()) {
    if (broken_ || abandoned_) {
      *kept = false;
      break;
    }
    uint64_t missing = first;
    while (missing < end && map_.Has(missing)) ++missing;
    if (missing == end) break;

    if (const std::shared_ptr<Flight> other = FlightAt(missing)) {
      status = WaitUntil(*changed_, mu_, work, [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {  // it is held
        return other->done || map_.Has(missing);
      });
      if (!status.ok() || map_.Has(missing)) continue;
      if (other->not_kept) {
        *kept = false;
        break;
      }
      // Its own stop or deadline is not ours: we fly ourselves.
      if (!other->status.ok() && !absl::IsCancelled(other->status) && !absl::IsDeadlineExceeded(other->status))
        status = other->status;
      continue;
    }

    auto flight = std::make_shared<Flight>();
    flight->first = missing;
    const uint64_t far = std::min(range.offset + range.size + ahead, bytes_);
    const uint64_t most =
        missing + std::max<uint64_t>(1, context_->limits.request_bytes_max / map_.granule_bytes());
    const auto extend = [&](uint64_t to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      while (flight->end < std::min(to, most) && !map_.Has(flight->end) && FlightAt(flight->end) == nullptr)
        ++flight->end;
    };
    flight->end = missing + 1;
    extend(map_.GranuleOf(far - 1) + 1);
    for (const ByteRange& hint : hints_) {  // sorted
      if (hint.size == 0 || hint.offset >= bytes_ || hint.offset < range.offset) continue;
      const ByteRange flown = map_.RangeOf(flight->first, flight->end);
      const uint64_t here = flown.offset + flown.size;
      if (hint.offset > here + context_->limits.gap_bytes_max) break;
      extend(map_.GranuleOf(std::min(hint.offset + hint.size, bytes_) - 1) + 1);
    }
    flights_.push_back(flight);
    mu_.Unlock();
    const absl::Status flown = Fly(handle, *flight, work);
    mu_.Lock();
    flight->done = true;
    flight->status = flown;
    flights_.erase(std::find(flights_.begin(), flights_.end(), flight));
    changed_->NotifyAll();
    if (flight->not_kept) {
      *kept = false;
      break;
    }
    if (!flown.ok()) {  // what was fetched ahead does not matter
      while (missing < end && map_.Has(missing)) ++missing;
      if (missing < end) status = flown;
    }
  }
  const bool save = unsaved_ >= context_->limits.map_save_bytes;
  mu_.Unlock();
  if (save) SaveSoon();
  return status;
}

absl::Status PartialCopy::Fly(Handle& handle, Flight& flight, const WorkContext& work) {
  ByteRange range;
  {
    const MutexLock lock(mu_);
    range = map_.RangeOf(flight.first, flight.end);
  }
  SpaceGate* const space = context_->space.get();
  const bool from_reserve = handle.reserved >= range.size;
  if (space != nullptr && from_reserve) {
    handle.reserved -= range.size;
  } else if (space != nullptr && !space->TryTake(range.size)) {
    flight.not_kept = true;
    return absl::OkStatus();
  }
  uint64_t news = 0;  // bytes that are there by this flight
  GranuleSums sums(granule_bytes_, bytes_);
  std::vector<std::pair<uint64_t, uint32_t>> whole;
  bool write_failed = false;
  const absl::Status flown = Fetch(
      handle, range.offset, range.offset + range.size,
      [&](uint64_t at, Span bytes) -> absl::Status {
        {
          const MutexLock lock(file_mu_);
          const absl::Status written =
              file_ == nullptr ? FailedPrecondition("the copy is closed") : file_->WriteAt(at, bytes);
          if (!written.ok()) {
            write_failed = true;
            return written;
          }
        }
        whole.clear();
        sums.Add(at, bytes, [&](uint64_t granule, uint32_t sum) { whole.emplace_back(granule, sum); });
        const MutexLock lock(mu_);
        const uint64_t before = map_.BytesThere();
        for (const auto& [granule, sum] : whole) SetThere(granule, sum);
        news += map_.BytesThere() - before;
        unsaved_ += bytes.size();
        if (!whole.empty()) changed_->NotifyAll();
        return absl::OkStatus();
      },
      work);
  if (space != nullptr) {
    {
      const MutexLock lock(mu_);
      if (abandoned_ || broken_) news = 0;  // removed meanwhile, and nobody counts it
      if (news != 0) space->Add(name_, news);
    }
    const uint64_t unused = range.size - news;
    if (from_reserve) {
      handle.reserved += unused;
    } else {
      space->Return(unused);
    }
  }
  if (write_failed && !handle.job) {
    // The reader gets his bytes all the same.
    flight.not_kept = true;
    return absl::OkStatus();
  }
  return flown;
}

absl::Status PartialCopy::Fetch(Handle& handle, uint64_t at, uint64_t end, Sink sink, const WorkContext& work) {
  const uint64_t begin = at;
  const std::vector<PartialSource> sources = Ranked();
  if (sources.empty()) return Unavailable("{}: no source is known", name_);
  const int most = context_->sources->limits().attempts_max;
  const int attempts_max = sources.size() > 1 ? std::min(most, kAttemptsWithOthers) : most;
  absl::Status first_error;
  for (const PartialSource& source : sources) {
    const absl::Status status = FetchFrom(source, handle, at, end, attempts_max, sink, work);
    if (status.ok()) return status;
    if (IsOurs(status, work)) return status;
    if (first_error.ok()) first_error = status;
    // Whoever goes on begins with a whole granule, unless that was before our part of it.
    const MutexLock lock(mu_);
    at = std::max(begin, at - at % map_.granule_bytes());
  }
  return first_error;
}

absl::Status PartialCopy::FetchFrom(const PartialSource& source, Handle& handle, uint64_t& at, uint64_t end,
                                    int attempts_max, Sink sink, const WorkContext& work) {
  const Url url = source.mount->url();
  for (int attempt = 1;;) {
    const uint64_t before = at;
    const absl::Status status = Attempt(source, handle, at, end, sink, work);
    if (status.ok()) {
      context_->sources->Report(url, status);
      return status;
    }
    if (handle.job) handle.request.End();
    RETURN_IF_ERROR(work.Check());
    if (IsOurs(status, work)) return status;
    context_->sources->Report(url, status);
    if (at > before) attempt = 1;
    if (++attempt > attempts_max) return status;
    RETURN_IF_ERROR(context_->sources->Pause(attempt, status, work));
  }
}

absl::Status PartialCopy::Attempt(const PartialSource& source, Handle& handle, uint64_t& at, uint64_t end, Sink sink,
                                  const WorkContext& work) {
  const Mount& mount = *source.mount;
  Request once;
  Request& request = handle.job ? handle.request : once;
  if (request.stream == nullptr || request.at != at || request.end < end || request.of != &mount) {
    request.End();
    ASSIGN_OR_RETURN(request.permit, context_->sources->Begin(mount.url(), work));
    // A job that goes forward wants all the rest.
    const bool to_end = handle.wants_all && handle.window.load(std::memory_order_relaxed) != 0;
    request.end = to_end ? std::max(end, EndOfMissing()) : end;
    const ByteRange asked{at, request.end == bytes_ && to_end ? UINT64_MAX : request.end - at};
    ASSIGN_OR_RETURN(MountRange answer, mount.OpenRange(*context_->io, work, asked, source.validator));
    RETURN_IF_ERROR(CheckAnswer(source, answer.stat));
    request.stream = std::move(answer.stream);
    request.at = at;
    request.of = &mount;
  }
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(std::min<uint64_t>(kBufferBytes, end - at));
  const size_t room = std::min<uint64_t>(kBufferBytes, end - at);
  while (at < end) {
    RETURN_IF_ERROR(work.Check());
    ASSIGN_OR_RETURN(const size_t n, request.stream->Next(std::min<uint64_t>(room, end - at), buffer.get()));
    DAGSTORE_CHECK(n <= end - at);
    if (n == 0) {
      return Unavailable("fetch {}: the source broke off at byte {} of {}", mount.url().Redacted(), at, bytes_);
    }
    RETURN_IF_ERROR(sink(at, Span(buffer.get(), n)));
    at += n;
    request.at = at;
    RETURN_IF_ERROR(context_->sources->Received(n, work));
    context_->io->Yield();
  }
  const bool goes_on =
      handle.job && handle.wants_all && handle.window.load(std::memory_order_relaxed) != 0 && at < request.end;
  if (!goes_on) request.End();
  return absl::OkStatus();
}

uint64_t PartialCopy::EndOfMissing() const {
  const MutexLock lock(mu_);
  uint64_t end = map_.granules();
  const auto ours = [&](uint64_t granule) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const std::shared_ptr<Flight> flight = FlightAt(granule);
    return map_.Has(granule) || (flight != nullptr && flight->expected);
  };
  while (end > 0 && ours(end - 1)) --end;
  return end == 0 ? 0 : map_.RangeOf(0, end).size;
}

absl::Status PartialCopy::CheckAnswer(const PartialSource& source, const MountStat& stat) {
  const Mount& mount = *source.mount;
  if (!stat.exists) return NotFound("fetch {}: no such source", mount.url().Redacted());
  if (!stat.size_known || stat.size != bytes_) return SourceChanged(mount);
  if (!source.validator.empty()) return stat.validator == source.validator ? absl::OkStatus() : SourceChanged(mount);
  if (stat.validator.empty()) return absl::OkStatus();  // nothing to hold it to but the size and the CIDs
  // The first answer of another location of the same file.
  const uint64_t id = Sources::IdOf(mount.url());
  const MutexLock lock(mu_);
  for (PartialSource& known : sources_) {
    if (known.mount == source.mount) known.validator = stat.validator;
  }
  map_.sources.push_back({id, stat.validator});
  return absl::OkStatus();
}

std::vector<PartialSource> PartialCopy::Ranked() const {
  std::vector<PartialSource> ranked;
  {
    const MutexLock lock(mu_);
    ranked = sources_;
  }
  if (ranked.size() > 1) {
    std::stable_partition(ranked.begin(), ranked.end(), [&](const PartialSource& source) {
      return !context_->sources->Resting(source.mount->url());
    });
  }
  return ranked;
}

// ---- Ahead ----

void PartialCopy::WillRead(const std::shared_ptr<PartialCopy>& self, std::span<const ByteRange> ranges) {
  std::vector<ByteRange> sorted;
  for (const ByteRange& range : ranges) {
    if (range.size != 0 && range.offset < bytes_ && sorted.size() < kHintsMax) sorted.push_back(range);
  }
  std::sort(sorted.begin(), sorted.end(), [](const ByteRange& a, const ByteRange& b) { return a.offset < b.offset; });
  // Missing runs, those with little between them together.
  std::vector<ByteRange> runs;
  {
    const MutexLock lock(mu_);
    if (broken_ || abandoned_ || sealed_) return;
    hints_ = sorted;
    uint64_t total = 0;
    for (const ByteRange& range : sorted) {
      const uint64_t end = std::min(range.offset + range.size, bytes_);
      bool missing = false;
      for (uint64_t g = map_.GranuleOf(range.offset); g <= map_.GranuleOf(end - 1) && !missing; ++g)
        missing = !map_.Has(g) && FlightAt(g) == nullptr;
      if (!missing) continue;
      if (!runs.empty()) {
        ByteRange& last = runs.back();
        if (range.offset <= last.offset + last.size + context_->limits.gap_bytes_max &&
            end - last.offset <= context_->limits.request_bytes_max) {
          last.size = std::max(last.size, end - last.offset);
          continue;
        }
      }
      total += end - range.offset;
      if (total > kPrefetchBytesMax || runs.size() == kPrefetchesMax) break;
      runs.push_back({range.offset, end - range.offset});
    }
  }
  // The one from where he will read first on is asked for by the reader himself.
  if (runs.empty() || (runs.size() == 1 && ranges.front().offset <= runs.front().offset)) return;
  for (const ByteRange run : runs) {
    const bool posted = context_->Post([self, run] {
      Handle handle;
      handle.work = self->context_->ReadAheadWork();
      bool kept = true;
      self->context_->prefetches.fetch_add(1, std::memory_order_relaxed);
      self->Ensure(handle, run, /*ahead=*/0, handle.work, &kept).IgnoreError();  // who reads it will see
    });
    if (!posted) return;
  }
}

void PartialCopy::MaybePromote(const std::shared_ptr<PartialCopy>& self) {
  {
    const MutexLock lock(mu_);
    if (sealed_ || broken_ || abandoned_ || promoting_) return;
    if (static_cast<double>(map_.BytesThere()) < context_->limits.promote_share * static_cast<double>(bytes_)) return;
    promoting_ = true;
  }
  const bool posted = context_->Post([self] {
    WorkContext work = self->context_->BackgroundWork();
    work.stand_ins = self->context_->stand_ins();
    // Nobody waits for it, so it may wait: for room, in its turn.
    const absl::Status whole = MakeWhole(self, work);
    if (whole.ok()) self->context_->copies_promoted.fetch_add(1, std::memory_order_relaxed);
    const MutexLock lock(self->mu_);
    self->promoting_ = !whole.ok() && absl::IsResourceExhausted(whole);  // no room: not again in this life
  });
  if (posted) return;
  const MutexLock lock(mu_);
  promoting_ = false;
}

// ---- Files ----

void PartialCopy::Fill(uint64_t offset, Span bytes) {
  ByteRange kept;
  {
    const MutexLock lock(mu_);
    if (broken_ || abandoned_ || sealed_) return;
    const uint64_t come = offset + bytes.size();
    uint64_t first = map_.GranuleOf(offset + map_.granule_bytes() - 1);
    while (first < map_.granules() && map_.Has(first)) ++first;  // an end that begins in what is there
    uint64_t end = first;
    while (end < map_.granules() && !map_.Has(end)) {
      const ByteRange next = map_.RangeOf(end, end + 1);
      if (next.offset + next.size > come) break;
      ++end;
    }
    if (first >= end) return;
    kept = map_.RangeOf(first, end);
  }
  if (context_->space != nullptr && !context_->space->TryTake(kept.size)) return;
  const Span keeps = bytes.subspan(kept.offset - offset, kept.size);
  std::vector<std::pair<uint64_t, uint32_t>> whole;
  GranuleSums(granule_bytes_, bytes_).Add(kept.offset, keeps, [&](uint64_t granule, uint32_t sum) {
    whole.emplace_back(granule, sum);
  });
  bool written = false;
  {
    const MutexLock lock(file_mu_);
    written = file_ != nullptr && file_->WriteAt(kept.offset, keeps).ok();
  }
  uint64_t news = 0;
  {
    const MutexLock lock(mu_);
    if (written && !broken_ && !abandoned_ && !sealed_) {
      const uint64_t before = map_.BytesThere();
      for (const auto& [granule, sum] : whole) SetThere(granule, sum);
      news = map_.BytesThere() - before;
      unsaved_ += news;
      if (context_->space != nullptr) context_->space->Add(name_, news);
    }
  }
  if (context_->space != nullptr) context_->space->Return(kept.size - news);
}

std::unique_ptr<PartialCopy::Expected> PartialCopy::Expect(const std::shared_ptr<PartialCopy>& copy, uint64_t begin) {
  auto flight = std::make_shared<Flight>();
  flight->expected = true;
  flight->status = absl::CancelledError("it did not come");  // who waited asks for it himself
  PartialCopy& self = *copy;
  const MutexLock lock(self.mu_);
  flight->first = self.map_.GranuleOf(begin + self.map_.granule_bytes() - 1);
  flight->end = self.map_.granules();
  while (flight->first < flight->end && self.map_.Has(flight->first)) ++flight->first;
  for (uint64_t g = flight->first; g < flight->end; ++g) {
    if (self.map_.Has(g) || self.FlightAt(g) != nullptr) return nullptr;
  }
  if (flight->first >= flight->end) return nullptr;
  self.flights_.push_back(flight);
  return std::make_unique<Expected>(copy, flight);
}

PartialCopy::Expected::~Expected() {
  {
    const MutexLock lock(copy_->mu_);
    flight_->done = true;
    copy_->flights_.erase(std::find(copy_->flights_.begin(), copy_->flights_.end(), flight_));
  }
  copy_->changed_->NotifyAll();
}

absl::Status PartialCopy::Forget(ByteRange range) {
  uint64_t before = 0, after = 0;
  {
    const MutexLock lock(mu_);
    if (sealed_) return FailedPrecondition("{} is sealed", name_);
    if (range.size == 0 || range.offset >= bytes_ || broken_ || abandoned_) return absl::OkStatus();
    before = map_.BytesThere();
    const uint64_t end = std::min(bytes_, range.offset + range.size);
    for (uint64_t g = map_.GranuleOf(range.offset); g <= map_.GranuleOf(end - 1); ++g) map_.Clear(g);
    after = map_.BytesThere();
    unsaved_ += before - after;
    // They are on disk still, but what is fetched next takes their place.
    if (context_->space != nullptr) context_->space->Drop(name_, before - after);
  }
  // A map that still lists it would bring it back after a restart.
  return Save();
}

absl::Status PartialCopy::SyncData() {
  std::shared_ptr<WritableFile> file;  // it takes long, and others write meanwhile
  {
    const MutexLock lock(file_mu_);
    file = file_;
  }
  if (file == nullptr) return FailedPrecondition("{} is closed", name_);
  return file->Sync();
}

void PartialCopy::SaveSoon() {
  bool here = false;
  {
    const MutexLock lock(mu_);
    // A disk that is slower than the network: what is not saved has a limit.
    const auto may_go_on = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return unsaved_ < 2 * context_->limits.map_save_bytes;
    };
    while (saving_ && !may_go_on()) changed_->Wait(mu_, kWaitSlice);
    here = !may_go_on();
    if (!here && (saving_ || save_posted_)) return;
    if (!here) save_posted_ = true;
  }
  const bool posted = !here && context_->Post([self = shared_from_this()] {
    {
      const MutexLock lock(self->mu_);
      self->save_posted_ = false;
    }
    self->Save().IgnoreError();
  });
  if (posted) return;
  if (!here) {
    const MutexLock lock(mu_);
    save_posted_ = false;
  }
  Save().IgnoreError();
}

// Nothing that was written can be trusted any more: the kernel may have dropped the pages.
void PartialCopy::Break() {
  {
    const MutexLock lock(mu_);
    broken_ = true;
  }
  {
    const MutexLock lock(file_mu_);
    file_.reset();
  }
  changed_->NotifyAll();
}

void PartialCopy::GiveUp() {
  context_->syncs_failed.fetch_add(1);
  Break();
  RemoveFiles().IgnoreError();
}

absl::Status PartialCopy::Save() {
  std::string text;
  uint64_t saved = 0;
  {
    const MutexLock lock(mu_);
    if (sealed_ || broken_ || abandoned_ || saving_ || unsaved_ == 0) return absl::OkStatus();
    saving_ = true;
    saved = std::exchange(unsaved_, 0);
    text = map_.Encode();
  }
  // First the bytes, then the map that says they are there.
  absl::Status status = SyncData();
  const bool sync_failed = !status.ok() && !absl::IsFailedPrecondition(status);
  if (status.ok()) {
    context_->syncs_failed.store(0);
    const Span parts[] = {AsSpan(text)};
    const std::string stem = name_.substr(0, name_.size() - 4);  // without ".car"
    status = PublishFile(*context_->io, context_->folder, MapName(),
                         fmt::format("{}.{}.{}.tmp", stem, context_->boot_id, context_->temps_made.fetch_add(1)),
                         parts);
  }
  if (sync_failed) GiveUp();
  bool abandoned = false;
  {
    const MutexLock lock(mu_);
    saving_ = false;
    if (!status.ok()) unsaved_ += saved;
    abandoned = abandoned_;
  }
  if (abandoned) context_->io->Remove(context_->PathOf(MapName())).IgnoreError();
  changed_->NotifyAll();
  return status;
}

absl::Status PartialCopy::Seal() {
  {
    const MutexLock lock(mu_);
    if (sealed_) return absl::OkStatus();
    if (broken_ || abandoned_) return ResourceExhausted("{} cannot be kept", name_);
    if (!map_.Whole()) {
      return FailedPrecondition("{} has {} of its {} bytes", name_, map_.BytesThere(), bytes_);
    }
    while (saving_) changed_->Wait(mu_, kWaitSlice);
    if (sealed_) return absl::OkStatus();
    saving_ = true;  // one at a time, and no map is written meanwhile
  }
  Io& io = *context_->io;
  bool sync_failed = false;
  const absl::Status status = [&]() -> absl::Status {
    {
      const MutexLock lock(file_mu_);
      if (file_ == nullptr) return FailedPrecondition("{} is closed", name_);
      const absl::Status synced = file_->Sync();
      sync_failed = !synced.ok();
      RETURN_IF_ERROR(synced);
      const absl::Status closed = file_->Close();
      file_.reset();
      sync_failed = !closed.ok();
      RETURN_IF_ERROR(closed);
    }
    const std::string part = context_->PathOf(PartName());
    ASSIGN_OR_RETURN(const FileStat stat, io.Stat(part, Follow::kNever));
    if (!stat.is_regular || stat.size != bytes_) return DataLoss("{} holds {} bytes, not {}", part, stat.size, bytes_);
    RETURN_IF_ERROR(io.Rename(part, context_->PathOf(name_)));
    RETURN_IF_ERROR(io.SyncDir(context_->folder));
    io.Remove(context_->PathOf(MapName())).IgnoreError();  // one without its .part says nothing
    return absl::OkStatus();
  }();
  if (sync_failed) {
    GiveUp();
  } else if (!status.ok()) {
    const MutexLock lock(file_mu_);
    if (file_ == nullptr) {  // whole still, under its old name
      absl::StatusOr<std::unique_ptr<WritableFile>> again = io.OpenForWriting(context_->PathOf(PartName()));
      if (again.ok()) file_ = *std::move(again);
    }
  }
  {
    const MutexLock lock(mu_);
    saving_ = false;
    sealed_ = status.ok();
  }
  if (status.ok()) {
    context_->syncs_failed.store(0);
    if (context_->space != nullptr && beside_ != 0) context_->space->Drop(name_, beside_);
  }
  changed_->NotifyAll();
  return status;
}

void PartialCopy::Abandon() {
  const MutexLock lock(mu_);
  while (saving_) changed_->Wait(mu_, kWaitSlice);
  abandoned_ = true;
}

}  // namespace dagstore
