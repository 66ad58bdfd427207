#include "mount/upgrader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// One read and one write of a copy; the cancel flag is looked at in between.
constexpr size_t kBlockBytes = 1 << 20;
constexpr size_t kStemBytesMax = 128;
constexpr size_t kBootIdBytesMax = 32;
// Names that someone else has taken, in a folder that only we write to.
constexpr int kTempNamesTried = 16;

bool IsNamePart(std::string_view text, size_t size_max) {
  return !text.empty() && text.size() <= size_max &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

// Decimal as fmt prints it, so that a name has one spelling.
bool IsNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() &&
         (text.size() == 1 || text[0] != '0');
}

// The parts of `name` between its dots; false unless there are exactly N.
template <size_t N>
bool SplitName(std::string_view name, std::array<std::string_view, N>& parts) {
  for (size_t i = 0; i + 1 < N; ++i) {
    const size_t dot = name.find('.');
    if (dot == std::string_view::npos) return false;
    parts[i] = name.substr(0, dot);
    name.remove_prefix(dot + 1);
  }
  parts[N - 1] = name;
  return name.find('.') == std::string_view::npos;
}

std::string StemOf(const std::string& copy_name) { return copy_name.substr(0, copy_name.find('.')); }

std::string CopyName(const TransientSpec& spec) {
  return fmt::format("{}.{}.car", spec.name_stem, spec.generation);
}

// True, with the stem, for "<stem>.<generation>.<ending>".
bool IsOurName(std::string_view name, std::string_view ending, std::string_view* stem = nullptr) {
  std::array<std::string_view, 3> parts;
  if (!SplitName(name, parts) || !IsNamePart(parts[0], kStemBytesMax) || !IsNumber(parts[1]) || parts[2] != ending)
    return false;
  if (stem != nullptr) *stem = parts[0];
  return true;
}

bool IsCopyName(std::string_view name) { return IsOurName(name, "car"); }

std::string WithEnding(std::string_view copy_name, std::string_view ending) {
  return std::string(copy_name.substr(0, copy_name.rfind('.') + 1)) + std::string(ending);
}

// One that names bytes, so that two answers with it are of the same bytes. HTTP marks those that do not.
bool NamesBytes(const std::string& validator) { return !validator.empty() && !validator.starts_with("W/"); }

// True, with the boot id, for the name of a temporary.
bool IsTempName(std::string_view name, std::string_view& boot_id) {
  std::array<std::string_view, 5> parts;
  if (!SplitName(name, parts)) return false;
  boot_id = parts[2];
  return IsNamePart(parts[0], kStemBytesMax) && IsNumber(parts[1]) &&
         IsNamePart(boot_id, kBootIdBytesMax) && IsNumber(parts[3]) && parts[4] == "tmp";
}

// "<name of a copy's file>.<boot>"
bool IsTrashName(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == name.npos || !IsNamePart(name.substr(dot + 1), kBootIdBytesMax)) return false;
  name = name.substr(0, dot);
  return IsOurName(name, "car") || IsOurName(name, "part") || IsOurName(name, "map");
}

// What was found at a source must be there, ready, and what was expected.
absl::Status CheckFound(const Mount& mount, const MountStat& stat, const std::optional<uint64_t>& expected_size,
                        const std::string& expected_validator) {
  if (!stat.exists) return NotFound("fetch {}: no such source", mount.url().Redacted());
  if (!stat.ready) return Unavailable("fetch {}: the source is not ready", mount.url().Redacted());
  if (expected_size && stat.size_known && stat.size != *expected_size) return SourceChanged(mount);
  if (!expected_validator.empty() && stat.validator != expected_validator) return SourceChanged(mount);
  return absl::OkStatus();
}

absl::StatusOr<MountStat> StatSource(const Mount& mount, const TransientSpec& spec, Io& io, const WorkContext& work) {
  ASSIGN_OR_RETURN(MountStat stat, mount.Stat(io, work));
  RETURN_IF_ERROR(CheckFound(mount, stat, spec.expected_size, spec.expected_validator));
  return stat;
}

}  // namespace

// What one copy has taken from the gate, given back unless the copy is kept.
class Upgrader::Space {
 public:
  explicit Space(SpaceGate* gate) : gate_(gate) {}
  Space(const Space&) = delete;
  ~Space() {
    if (gate_ != nullptr) gate_->Return(taken_);
  }
  absl::Status Take(uint64_t bytes, const WorkContext& work) {
    if (gate_ == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(gate_->Take(bytes, work));
    taken_ += bytes;
    return absl::OkStatus();
  }
  void KeepAs(const std::string& name) {
    if (gate_ != nullptr && taken_ != 0) gate_->Add(name, taken_);
    taken_ = 0;
  }

 private:
  SpaceGate* const gate_;
  uint64_t taken_ = 0;
};

// The end of a source, fetched by a worker while another one asks for the beginning.
struct Upgrader::Tail {
  Mutex mu;
  bool given_up ABSL_GUARDED_BY(mu) = false;  // not to be begun any more
  bool begun ABSL_GUARDED_BY(mu) = false;
  bool done ABSL_GUARDED_BY(mu) = false;
  absl::Status status ABSL_GUARDED_BY(mu);
  MountStat stat ABSL_GUARDED_BY(mu);
  Bytes bytes ABSL_GUARDED_BY(mu);
  // The copy that waits for it, and what its source must be.
  std::shared_ptr<PartialCopy> copy ABSL_GUARDED_BY(mu);
  std::unique_ptr<PartialCopy::Expected> expected ABSL_GUARDED_BY(mu);
  std::string validator ABSL_GUARDED_BY(mu);

  void Run(const Mount& mount, TransientContext& context);
  // Gives the bytes to `to`, now or when they are there. Without them nothing is lost but time.
  void GiveTo(const std::shared_ptr<PartialCopy>& to, const std::string& its_validator, uint64_t tail_bytes);

 private:
  void Deliver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (status.ok() && stat.size_known && stat.size == copy->bytes() && stat.validator == validator)
      copy->Fill(copy->bytes() - bytes.size(), bytes);
    expected.reset();
    copy.reset();
    bytes = Bytes();
  }
};

void Upgrader::Tail::Run(const Mount& mount, TransientContext& context) {
  {
    const MutexLock lock(mu);
    if (given_up) return;
    begun = true;
  }
  const WorkContext work = context.ReadAheadWork();
  MountStat got_stat;
  Bytes got;
  const absl::Status fetched = [&]() -> absl::Status {
    const std::optional<Sources::Permit> permit = context.sources->TryBegin(mount.url());
    if (!permit.has_value()) return ResourceExhausted("too many requests run");
    ASSIGN_OR_RETURN(const MountRange answer, mount.OpenTail(*context.io, work, context.limits.tail_bytes));
    got_stat = answer.stat;
    got.resize(std::min<uint64_t>(answer.stat.size, context.limits.tail_bytes));
    ASSIGN_OR_RETURN(const size_t have, ReadUpTo(*answer.stream, got.size(), got.data()));
    if (have < got.size()) return Unavailable("the source broke off");
    return context.sources->Received(have, work);
  }();
  const MutexLock lock(mu);
  done = true;
  status = fetched;
  stat = got_stat;
  bytes = std::move(got);
  if (copy != nullptr) Deliver();
}

void Upgrader::Tail::GiveTo(const std::shared_ptr<PartialCopy>& to, const std::string& its_validator,
                            uint64_t tail_bytes) {
  const MutexLock lock(mu);
  given_up = !begun;  // it waits for a worker: the reader is faster
  if (given_up) return;
  copy = to;
  validator = its_validator;
  if (done) {
    Deliver();
  } else {
    expected = PartialCopy::Expect(to, to->bytes() - std::min(to->bytes(), tail_bytes));
  }
}

std::shared_ptr<Upgrader::Tail> Upgrader::AskAhead(const std::shared_ptr<const Mount>& mount) const {
  const PartialLimits& limits = context_->limits;
  if (!mount->traits().connects || limits.tail_bytes == 0) return nullptr;
  auto tail = std::make_shared<Tail>();
  if (!context_->Post([tail, mount, context = context_] { tail->Run(*mount, *context); })) return nullptr;
  for (int i = 0; i < limits.connections_ahead && (i > 0 || context_->sources->FirstInAWhile(mount->url())); ++i) {
    context_->Post([mount, context = context_] {
      const std::optional<Sources::Permit> permit = context->sources->TryBegin(mount->url());
      if (!permit.has_value()) return;
      mount->Stat(*context->io, context->ReadAheadWork()).IgnoreError();  // for its connection
    });
  }
  return tail;
}

Upgrader::Upgrader(UpgraderOptions options)
    : options_(std::move(options)), context_(std::make_shared<TransientContext>()) {}

Upgrader::~Upgrader() {
  context_->closing.Cancel();
  context_->SetBackground(nullptr, nullptr);
}

absl::StatusOr<std::unique_ptr<Upgrader>> Upgrader::Open(Io& io, UpgraderOptions options) {
  if (!IsNamePart(options.boot_id, kBootIdBytesMax)) {
    return InvalidArgument("boot id is not 1 to {} characters of a-z and 0-9", kBootIdBytesMax);
  }
  RETURN_IF_ERROR(io.MakeDir(options.folder));
  std::unique_ptr<Upgrader> upgrader(new Upgrader(std::move(options)));
  TransientContext& context = *upgrader->context_;
  const UpgraderOptions& kept = upgrader->options_;
  context.io = &io;
  context.clock = kept.clock != nullptr ? kept.clock : &Clock::Real();
  context.folder = kept.folder;
  context.boot_id = kept.boot_id;
  context.space = kept.space;
  context.limits = kept.partial;
  context.sources = kept.sources;
  if (context.sources == nullptr) {
    SourceLimits once;
    once.attempts_max = 1;
    context.sources = std::make_shared<Sources>(once, io, *context.clock, /*seed=*/0);
  }
  return upgrader;
}

absl::StatusOr<Upgraded> Upgrader::Upgrade(const Mount& mount, const TransientSpec& spec, Io& io,
                                           const WorkContext& work) {
  return Upgrade({std::shared_ptr<const Mount>(std::shared_ptr<const Mount>(), &mount)}, spec, io, work);
}

absl::StatusOr<Upgraded> Upgrader::Upgrade(const std::vector<std::shared_ptr<const Mount>>& locations,
                                           const TransientSpec& spec, Io& io, const WorkContext& work) {
  if (!IsNamePart(spec.name_stem, kStemBytesMax)) {
    return InvalidArgument("transient name is not 1 to {} characters of a-z and 0-9",
                           kStemBytesMax);
  }
  if (locations.empty()) return InvalidArgument("no location to fetch from");
  RETURN_IF_ERROR(work.Check());
  std::vector<size_t> order(locations.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (order.size() > 1) {
    const auto rank = [&](size_t i) {
      if (locations[i]->traits().local) return 0;
      // What was indexed came from there.
      const int rank = spec.expected_size.has_value() && i == spec.expected_location ? 1 : 2;
      return context_->sources->Resting(locations[i]->url()) ? rank + 2 : rank;
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rank(a) < rank(b); });
  }
  absl::Status first_error;
  for (const size_t i : order) {
    absl::StatusOr<Upgraded> upgraded = UpgradeOne(locations, i, spec, io, work);
    if (upgraded.ok()) {
      upgraded->location = i;
      if (options_.space != nullptr && upgraded->local && upgraded->local->owned)
        options_.space->Used(upgraded->local->path);
      return upgraded;
    }
    RETURN_IF_ERROR(work.Check());
    // A limit of ours is the same wherever the bytes come from.
    if (absl::IsResourceExhausted(upgraded.status()) || absl::IsCancelled(upgraded.status())) return upgraded.status();
    context_->sources->Report(locations[i]->url(), upgraded.status());
    if (first_error.ok()) first_error = upgraded.status();
  }
  if (locations.size() == 1) return first_error;
  return MakeStatus(first_error.code(),
                    fmt::format("{} (and {} more locations failed)", Message(first_error), locations.size() - 1));
}

absl::StatusOr<Upgraded> Upgrader::UpgradeOne(const std::vector<std::shared_ptr<const Mount>>& locations,
                                              size_t location, const TransientSpec& spec, Io& io,
                                              const WorkContext& work) {
  const Mount& mount = *locations[location];
  const MountTraits traits = mount.traits();
  // A validator is of the location that gave it.
  TransientSpec here = spec;
  if (location != spec.expected_location) here.expected_validator.clear();
  if (traits.local && traits.random) return PassThrough(mount, here, io, work);
  if (spec.existing) {
    ASSIGN_OR_RETURN(std::optional<Upgraded> used, UseExisting(mount, spec, io, work));
    if (used) return std::move(*used);
  }
  if (traits.random) {
    ASSIGN_OR_RETURN(std::optional<Upgraded> partial, Partial(locations, location, spec, io, work));
    if (partial) return std::move(*partial);
  }
  return Copy(mount, here, io, work);
}

std::shared_ptr<PartialCopy> Upgrader::Live(const std::string& name) {
  const MutexLock lock(mu_);
  const auto it = live_.find(name);
  if (it == live_.end()) return nullptr;
  std::shared_ptr<PartialCopy> copy = it->second.lock();
  if (copy == nullptr) live_.erase(it);
  return copy;
}

// A partial copy of these very bytes that is there already; null if there is none.
absl::StatusOr<std::shared_ptr<PartialCopy>> Upgrader::FindPartial(const Mount& mount, const TransientSpec& spec,
                                                                   const std::string& validator, uint64_t size) {
  const uint64_t id = Sources::IdOf(mount.url());
  const auto fits = [&](const PartialCopy& copy) {
    if (copy.bytes() != size) return false;
    for (const ExtentSource& source : copy.KnownSources()) {
      if (source.id == id) return validator.empty() || source.validator == validator;
    }
    return validator.empty();
  };
  std::vector<std::string> names;
  if (spec.existing && spec.existing->owned && IsCopyName(spec.existing->path)) names.push_back(spec.existing->path);
  names.push_back(CopyName(spec));
  {
    const MutexLock lock(mu_);
    const auto left = left_.find(spec.name_stem);
    if (left != left_.end() && left->second != names.front()) names.push_back(left->second);
  }
  for (const std::string& name : names) {
    // Before it is opened: a file that is removed meanwhile would be fetched to in vain.
    bool claimed = false;
    if (!Claim(name, &claimed)) continue;
    absl::StatusOr<std::shared_ptr<PartialCopy>> there = Live(name);
    const bool live = *there != nullptr;
    if (!live) there = PartialCopy::Load(context_, name);
    if (!there.ok() || (*there)->keeps_nothing() || (*there)->sealed() || !fits(**there)) {
      Unclaim(name, claimed);
      if (!there.ok() && !absl::IsNotFound(there.status())) return there.status();
      continue;
    }
    const std::shared_ptr<PartialCopy>& copy = *there;
    const MutexLock lock(mu_);
    Unleave(name);
    if (!live) copies_resumed_.fetch_add(1, std::memory_order_relaxed);
    std::weak_ptr<PartialCopy>& place = live_[name];
    if (std::shared_ptr<PartialCopy> other = place.lock(); other != nullptr && !other->keeps_nothing()) return other;
    place = copy;
    return copy;
  }
  return std::shared_ptr<PartialCopy>();
}

absl::StatusOr<std::optional<Upgraded>> Upgrader::Partial(const std::vector<std::shared_ptr<const Mount>>& locations,
                                                          size_t location, const TransientSpec& spec, Io& io,
                                                          const WorkContext& work) {
  const std::shared_ptr<const Mount>& mount = locations[location];
  MountStat stat;
  Bytes head;
  std::shared_ptr<Tail> tail;
  std::string validator = location == spec.expected_location ? spec.expected_validator : std::string();
  const bool known = spec.expected_size.has_value() && location == spec.expected_location && NamesBytes(validator);
  std::shared_ptr<PartialCopy> copy;
  if (known) {
    ASSIGN_OR_RETURN(copy, FindPartial(*mount, spec, validator, *spec.expected_size));
  }
  if (copy != nullptr || (known && spec.serves_ranges)) {
    // Nothing needs to be asked: every request names the version it wants.
    stat.exists = stat.ready = stat.size_known = true;
    stat.size = *spec.expected_size;
    stat.validator = validator;
  } else {
    // The first bytes come with the answer; of one that is gone on with, only what it says of itself is wanted.
    const bool goes_on = [&] {
      const MutexLock lock(mu_);
      return left_.contains(spec.name_stem);
    }();
    const uint64_t head_bytes = goes_on ? 1 : uint64_t{1} << kGranuleBitsMin;
    if (spec.for_job && !goes_on) tail = AskAhead(mount);
    WorkContext asking = work;
    const LongWait wait(spec.for_job ? nullptr : std::exchange(asking.stand_ins, nullptr));
    Sources::Permit permit;
    for (int attempt = 1;; ++attempt) {
      const absl::Status status = [&]() -> absl::Status {
        ASSIGN_OR_RETURN(permit, context_->sources->Begin(mount->url(), asking));
        ASSIGN_OR_RETURN(MountRange answer, mount->OpenRange(io, asking, {0, head_bytes}, validator));
        stat = answer.stat;
        head.resize(head_bytes);
        ASSIGN_OR_RETURN(const size_t have, ReadUpTo(*answer.stream, head.size(), head.data()));
        head.resize(have);
        RETURN_IF_ERROR(context_->sources->Received(have, asking));
        if (stat.size_known && have < std::min(stat.size, head_bytes))
          return Unavailable("fetch {}: the source broke off at byte {} of {}", mount->url().Redacted(), have,
                             stat.size);
        return absl::OkStatus();
      }();
      permit.Release();
      if (status.ok()) break;
      if (absl::IsUnimplemented(status)) return std::nullopt;  // it serves no ranges after all
      RETURN_IF_ERROR(asking.Check());
      context_->sources->Report(mount->url(), status);
      RETURN_IF_ERROR(context_->sources->Pause(attempt + 1, status, asking));
    }
    RETURN_IF_ERROR(CheckFound(*mount, stat, spec.expected_size, validator));
    if (!stat.size_known || !NamesBytes(stat.validator)) return std::nullopt;
    validator = stat.validator;
  }
  if (stat.size > options_.transient_bytes_max || stat.size > kExtentFileBytesMax) {
    return ResourceExhausted("fetch {}: the source is longer than the limit of {} bytes", mount->url().Redacted(),
                             options_.transient_bytes_max);
  }
  if (copy == nullptr) {
    ASSIGN_OR_RETURN(copy, FindPartial(*mount, spec, validator, stat.size));
  }
  const bool resumed = copy != nullptr;
  if (copy == nullptr) {
    const std::string name = CopyName(spec);
    if (const std::shared_ptr<PartialCopy> old = Live(name)) old->Abandon();
    MakeOurs(name);
    ASSIGN_OR_RETURN(copy, PartialCopy::Create(context_, name, stat.size));
    copy->Fill(0, head);
    if (tail != nullptr) tail->GiveTo(copy, validator, context_->limits.tail_bytes);
    const MutexLock lock(mu_);
    live_[name] = copy;
  }
  // The location that was asked first; then the others, of which only the size is known yet. They may only give bytes
  // that are checked by their CIDs, which is so once the shard is indexed.
  std::vector<PartialSource> sources = {{mount, validator}};
  for (size_t i = 0; i < locations.size() && spec.expected_size.has_value(); ++i) {
    const MountTraits traits = locations[i]->traits();
    if (i == location || !traits.random) continue;
    sources.push_back({locations[i], i == spec.expected_location ? spec.expected_validator : std::string()});
  }
  copy->SetSources(std::move(sources));
  Upgraded made;
  made.partial = copy;
  made.resumed = resumed;
  made.stat = stat;
  made.local = TransientInfo{.path = copy->name(), .owned = true, .size = stat.size, .validator = stat.validator};
  if (spec.for_job) {
    ASSIGN_OR_RETURN(made.reader, PartialCopy::NewJobReader(copy, work));
  } else {
    made.reader = PartialCopy::NewReader(copy);
  }
  return made;
}

bool Upgrader::BeginRemovingOrphan(const std::string& name) {
  const MutexLock lock(mu_);
  if (ours_.contains(name) && !Mutant(kMutantAdoptedSwept)) return false;
  removing_.insert(name);
  return true;
}

void Upgrader::EndRemovingOrphan(const std::string& name) {
  const MutexLock lock(mu_);
  removing_.erase(name);
  removed_.NotifyAll();
}

void Upgrader::MakeOurs(const std::string& name) {
  const MutexLock lock(mu_);
  while (removing_.contains(name)) removed_.Wait(mu_);
  ours_.insert(name);
  Unleave(name);  // what was left is replaced
}

bool Upgrader::Claim(const std::string& name, bool* claimed) {
  const MutexLock lock(mu_);
  if (removing_.contains(name)) return false;
  *claimed = ours_.insert(name).second;
  return true;
}

void Upgrader::Unclaim(const std::string& name, bool claimed) {
  if (!claimed) return;
  const MutexLock lock(mu_);
  ours_.erase(name);
}

absl::Status Upgrader::DeleteOrphan(Io& io, const std::string& name) {
  if (!BeginRemovingOrphan(name)) return FailedPrecondition("copy {} is in use", name);
  const absl::Status removed = Delete(io, {.path = name, .owned = true, .size = 0, .validator = {}});
  EndRemovingOrphan(name);
  return removed;
}

void Upgrader::KeepForLater(const PartialCopy& copy) {
  if (copy.keeps_nothing() || copy.sealed() || copy.BytesThere() == 0) return;
  std::string before;
  {
    const MutexLock lock(mu_);
    std::string& left = left_[StemOf(copy.name())];
    before = std::exchange(left, copy.name());
    ours_.erase(copy.name());
  }
  // Should it stay, the next who needs room names it.
  if (!before.empty() && before != copy.name()) DeleteOrphan(*context_->io, before).IgnoreError();
}

void Upgrader::NamedByRecord(const std::string& name) {
  const MutexLock lock(mu_);
  Unleave(name);
}

absl::Status Upgrader::DeleteLeft(Io& io, const std::string& name_stem) {
  std::string name;
  {
    const MutexLock lock(mu_);
    const auto left = left_.find(name_stem);
    if (left == left_.end()) return absl::OkStatus();
    name = left->second;
  }
  return Delete(io, {.path = std::move(name), .owned = true, .size = 0, .validator = {}});
}

absl::Status Upgrader::Discard(Io& io, const TransientInfo& transient) {
  bool kept_for_later = false;
  {
    const MutexLock lock(mu_);
    const auto left = left_.find(StemOf(transient.path));
    kept_for_later = left != left_.end() && left->second == transient.path;
    const auto live = live_.find(transient.path);
    if (live != live_.end()) {
      const std::shared_ptr<PartialCopy> copy = live->second.lock();
      if (copy != nullptr && !copy->keeps_nothing()) return absl::OkStatus();
    }
  }
  // A whole copy beside it could not be opened, or the partial one would not have been begun: that one is to go.
  if (kept_for_later && absl::IsNotFound(io.Stat(PathOf(transient.path), Follow::kNever).status()))
    return absl::OkStatus();
  return Delete(io, transient);
}

UpgraderStats Upgrader::Stats() const {
  UpgraderStats stats;
  stats.copies_promoted = context_->copies_promoted.load(std::memory_order_relaxed);
  stats.bytes_not_kept = context_->bytes_not_kept.load(std::memory_order_relaxed);
  stats.prefetches = context_->prefetches.load(std::memory_order_relaxed);
  stats.granules_rotten = context_->granules_rotten.load(std::memory_order_relaxed);
  stats.copies_resumed = copies_resumed_.load(std::memory_order_relaxed);
  const MutexLock lock(mu_);
  for (const auto& [name, copy] : live_) stats.copies_partial += copy.expired() ? 0 : 1;
  return stats;
}

absl::StatusOr<Upgraded> Upgrader::PassThrough(const Mount& mount, const TransientSpec& spec,
                                               Io& io, const WorkContext& work) const {
  absl::StatusOr<std::unique_ptr<RandomReader>> reader =
      spec.expected_validator.empty() ? mount.OpenRandom(io, work)
                                      : mount.OpenRandomIf(io, work, spec.expected_validator);
  RETURN_IF_ERROR(reader.status());
  if (spec.expected_size && (*reader)->Size() != *spec.expected_size) return SourceChanged(mount);
  return Upgraded{.reader = std::move(*reader), .local = std::nullopt, .passthrough = true};
}

absl::StatusOr<std::optional<Upgraded>> Upgrader::UseExisting(const Mount& mount,
                                                              const TransientSpec& spec, Io& io,
                                                              const WorkContext& work) const {
  const TransientInfo& existing = *spec.existing;
  if (existing.owned && !IsCopyName(existing.path)) return std::nullopt;
  if (!existing.validator.empty() && !spec.expected_validator.empty() &&
      existing.validator != spec.expected_validator) {
    return std::nullopt;
  }
  absl::StatusOr<std::unique_ptr<RandomFile>> file =
      existing.owned ? io.Open(PathOf(existing.path), Follow::kNever)
                     : io.Open(existing.path, Follow::kAlways);
  // Out of descriptors: a copy would not open either, and must not replace one that is there.
  if (absl::IsResourceExhausted(file.status())) return file.status();
  if (!file.ok()) return std::nullopt;

  const uint64_t size = (*file)->Size();
  const bool size_recorded = existing.owned || existing.size != 0;
  if (size_recorded && size != existing.size && !Mutant(kMutantCopyOfAnySize)) return std::nullopt;
  if (spec.expected_size && size != *spec.expected_size && !Mutant(kMutantCopyOfAnySize)) return std::nullopt;
  if (!size_recorded && !spec.expected_size) {
    // A source that cannot be asked now is what local copies are for.
    const absl::StatusOr<MountStat> stat = mount.Stat(io, work);
    RETURN_IF_ERROR(work.Check());
    if (stat.ok() && stat->exists && stat->size_known && stat->size != size) return std::nullopt;
  }
  Upgraded used;
  used.reader = std::move(*file);
  used.local = existing;
  used.local->size = size;
  return used;
}

absl::StatusOr<Upgraded> Upgrader::Copy(const Mount& mount, const TransientSpec& spec, Io& io, WorkContext work) {
  // A reader waits for it, and those who open what is here must not wait with him.
  const LongWait wait(spec.for_job ? nullptr : std::exchange(work.stand_ins, nullptr));
  ASSIGN_OR_RETURN(const MountStat stat, StatSource(mount, spec, io, work));
  std::string temp;
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, CreateTemp(spec, io, &temp));
  Space space(options_.space.get());
  const auto fill = [&]() -> absl::StatusOr<Upgraded> {
    ASSIGN_OR_RETURN(const uint64_t size, Transfer(mount, stat, *file, space, io, work));
    if (spec.expected_size && size != *spec.expected_size) return SourceChanged(mount);
    Upgraded made;
    MakeOurs(CopyName(spec));
    ASSIGN_OR_RETURN(made.reader, Publish(std::move(file), temp, CopyName(spec), size, space, io));
    made.local = TransientInfo{
        .path = CopyName(spec), .owned = true, .size = size, .validator = stat.validator};
    return made;
  };
  absl::StatusOr<Upgraded> made = fill();
  if (made.ok()) {
    ReplaceOld(CopyName(spec), io);
    space.KeepAs(CopyName(spec));
    made->stat = stat;
  } else {
    // What cannot be removed now is swept by the next boot, and keeps its room until then.
    file.reset();
    const absl::Status removed = Mutant(kMutantTempKept) ? absl::OkStatus() : io.Remove(PathOf(temp));
    if (!removed.ok() && !absl::IsNotFound(removed)) space.KeepAs(temp);
  }
  return made;
}

void Upgrader::ReplaceOld(const std::string& name, Io& io) {
  if (options_.space == nullptr || options_.space->BytesOf(name) == 0) return;
  if (const std::shared_ptr<PartialCopy> old = Live(name)) old->Abandon();
  for (const char* ending : {"map", "part"}) {
    const absl::Status removed = io.Remove(PathOf(WithEnding(name, ending)));
    if (!removed.ok() && !absl::IsNotFound(removed)) return;  // keeps its room, until the copy goes
  }
  options_.space->Gone(name);
}

absl::StatusOr<std::unique_ptr<WritableFile>> Upgrader::CreateTemp(const TransientSpec& spec,
                                                                   Io& io, std::string* name) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file;
  for (int i = 0; i < kTempNamesTried; ++i) {
    *name = fmt::format("{}.{}.{}.{}.tmp", spec.name_stem, spec.generation, options_.boot_id,
                        context_->temps_made.fetch_add(1, std::memory_order_relaxed));
    file = io.Create(PathOf(*name));
    if (!absl::IsAlreadyExists(file.status())) break;
  }
  return file;
}

absl::StatusOr<uint64_t> Upgrader::Transfer(const Mount& mount, const MountStat& stat,
                                            WritableFile& file, Space& space, Io& io,
                                            const WorkContext& work) const {
  const auto too_long = [&] {
    return ResourceExhausted("fetch {}: the source is longer than the limit of {} bytes",
                             mount.url().Redacted(), options_.transient_bytes_max);
  };
  if (stat.size_known) {
    if (stat.size > options_.transient_bytes_max) return too_long();
    RETURN_IF_ERROR(space.Take(stat.size, work));
  }
  const uint64_t size_max = stat.size_known ? stat.size : options_.transient_bytes_max;
  const auto block = std::make_unique_for_overwrite<uint8_t[]>(kBlockBytes);
  uint64_t done = 0, taken = 0;
  const auto attempt = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Sources::Permit permit, context_->sources->Begin(mount.url(), work));
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, mount.OpenStream(io, work, done));
    for (;;) {
      RETURN_IF_ERROR(work.Check());
      ASSIGN_OR_RETURN(const size_t n, stream->Next(kBlockBytes, block.get()));
      DAGSTORE_CHECK(n <= kBlockBytes);
      if (n == 0) break;
      if (n > size_max - done) {
        if (!stat.size_known) return too_long();
        return Unavailable("fetch {}: the source sent more than its {} bytes", mount.url().Redacted(), stat.size);
      }
      if (!stat.size_known && done + n > taken) {
        RETURN_IF_ERROR(space.Take(done + n - taken, work));
        taken = done + n;
      }
      RETURN_IF_ERROR(file.WriteAt(done, Span(block.get(), n)));
      done += n;
      if (work.progress != nullptr) work.progress->SetDone(done);
      RETURN_IF_ERROR(context_->sources->Received(n, work));
      io.Yield();
    }
    if (stat.size_known && done != stat.size && !Mutant(kMutantShortBodyTaken)) {
      return Unavailable("fetch {}: the source sent {} of its {} bytes", mount.url().Redacted(), done, stat.size);
    }
    return absl::OkStatus();
  };
  if (work.progress != nullptr && stat.size_known) work.progress->SetTotal(stat.size);
  uint64_t farthest = 0;
  for (int tries = 1;;) {
    const absl::Status status = attempt();
    if (status.ok()) break;
    RETURN_IF_ERROR(work.Check());
    context_->sources->Report(mount.url(), status);
    if (done > farthest && done <= size_max) tries = 1;  // it gets on; beginning again is not getting on
    farthest = std::max(farthest, done);
    if (++tries > context_->sources->limits().attempts_max) return status;
    RETURN_IF_ERROR(context_->sources->Pause(tries, status, work));
    // It goes on where it broke off, if what is there now is surely the same; else from the start. Bytes of two
    // versions never meet in one file.
    ASSIGN_OR_RETURN(const MountStat now, mount.Stat(io, work));
    const bool same = NamesBytes(stat.validator) && now.validator == stat.validator && now.size == stat.size;
    if (!same && (now.validator != stat.validator || now.size_known != stat.size_known || now.size != stat.size)) {
      return Unavailable("fetch {}: the source changed while it was copied", mount.url().Redacted());
    }
    if (!same) done = 0;
  }
  if (!stat.validator.empty()) {
    ASSIGN_OR_RETURN(const MountStat after, mount.Stat(io, work));
    if (after.validator != stat.validator && !Mutant(kMutantChangeUnnoticed)) {
      return Unavailable("fetch {}: the source changed while it was copied",
                         mount.url().Redacted());
    }
  }
  return done;
}

absl::StatusOr<std::unique_ptr<RandomReader>> Upgrader::Publish(std::unique_ptr<WritableFile> file,
                                                                const std::string& temp,
                                                                const std::string& name,
                                                                uint64_t size, Space& space, Io& io) const {
  if (!Mutant(kMutantCopyUnsynced)) RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Close());
  // Opened before the rename: whatever happens to the name, these are the bytes that were written.
  ASSIGN_OR_RETURN(std::unique_ptr<RandomFile> reader, io.Open(PathOf(temp), Follow::kNever));
  if (reader->Size() != size) {
    return DataLoss("{} holds {} bytes where {} were written", PathOf(temp), reader->Size(), size);
  }
  const absl::Status renamed = io.Rename(PathOf(temp), PathOf(name));
  if (!renamed.ok() && !Mutant(kMutantRenameIgnored)) return renamed;
  if (Mutant(kMutantCopyDirUnsynced)) return reader;
  if (absl::Status synced = io.SyncDir(options_.folder); !synced.ok()) {
    if (!io.Remove(PathOf(name)).ok()) space.KeepAs(name);  // until whoever discards it succeeds
    return synced;
  }
  return reader;
}

absl::Status Upgrader::Delete(Io& io, const TransientInfo& transient) {
  if (!transient.owned && Mutant(kMutantUsersFileDeleted)) return io.Remove(transient.path);
  if (!transient.owned) return absl::OkStatus();
  if (!IsCopyName(transient.path))
    return InvalidArgument("delete a transient: its name is not one of ours");
  Disown(transient.path);
  bool removed = false;
  // The map first: without it the bytes say nothing.
  for (const char* ending : {"map", "part", "car"}) {
    const absl::Status gone = io.Remove(PathOf(WithEnding(transient.path, ending)));
    if (absl::IsNotFound(gone)) continue;
    RETURN_IF_ERROR(gone);
    removed = true;
  }
  if (options_.space != nullptr) options_.space->Gone(transient.path);
  return removed ? io.SyncDir(options_.folder) : absl::OkStatus();
}

void Upgrader::Disown(const std::string& name) {
  if (const std::shared_ptr<PartialCopy> copy = Live(name)) copy->Abandon();
  const MutexLock lock(mu_);
  live_.erase(name);
  ours_.erase(name);
  Unleave(name);
}

void Upgrader::Unleave(const std::string& name) {
  const auto left = left_.find(StemOf(name));
  if (left != left_.end() && left->second == name) left_.erase(left);
}

absl::Status Upgrader::MoveToTrash(Io& io, const TransientInfo& transient) {
  if (!transient.owned) return absl::OkStatus();
  if (!IsCopyName(transient.path)) return InvalidArgument("trash a transient: its name is not one of ours");
  Disown(transient.path);
  RETURN_IF_ERROR(io.MakeDir(TrashDir()));
  {
    const MutexLock lock(mu_);
    trashed_.push_back(transient.path);
  }
  bool moved = false;
  for (const char* ending : {"map", "part", "car"}) {
    const std::string name = WithEnding(transient.path, ending);
    // One of an earlier life may have the same name.
    const absl::Status gone = io.Rename(PathOf(name), fmt::format("{}/{}.{}", TrashDir(), name, options_.boot_id));
    if (absl::IsNotFound(gone)) continue;
    RETURN_IF_ERROR(gone);
    moved = true;
  }
  if (!moved) return absl::OkStatus();
  RETURN_IF_ERROR(io.SyncDir(TrashDir()));
  return io.SyncDir(options_.folder);
}

absl::StatusOr<size_t> Upgrader::EmptyTrash(Io& io) {
  std::vector<std::string> copies;
  {
    const MutexLock lock(mu_);
    copies.swap(trashed_);
  }
  size_t removed = 0;
  const absl::Status emptied = [&]() -> absl::Status {
    const absl::StatusOr<std::vector<std::string>> names = io.List(TrashDir());
    if (absl::IsNotFound(names.status())) return absl::OkStatus();
    RETURN_IF_ERROR(names.status());
    for (const std::string& name : *names) {
      if (!IsTrashName(name)) continue;
      const absl::Status gone = io.Remove(TrashDir() + "/" + name);
      if (absl::IsNotFound(gone)) continue;  // another thread is at it, too
      RETURN_IF_ERROR(gone);
      ++removed;
    }
    return absl::OkStatus();
  }();
  if (!emptied.ok()) {
    const MutexLock lock(mu_);
    trashed_.insert(trashed_.end(), copies.begin(), copies.end());
    return emptied;
  }
  for (const std::string& copy : copies) {
    if (options_.space != nullptr) options_.space->Gone(copy);
  }
  return removed;
}

absl::StatusOr<size_t> Upgrader::SweepTemps(Io& io) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(options_.folder));
  return SweepTempsOf(names, io);
}

absl::StatusOr<size_t> Upgrader::SweepTempsOf(const std::vector<std::string>& names, Io& io) {
  size_t swept = 0;
  for (const std::string& name : names) {
    std::string_view boot_id;
    if (!IsTempName(name, boot_id) || (boot_id == options_.boot_id && !Mutant(kMutantTempsOfLiving))) continue;
    const absl::StatusOr<FileStat> stat = io.Stat(PathOf(name), Follow::kNever);
    if (!stat.ok() || !stat->is_regular) continue;
    RETURN_IF_ERROR(io.Remove(PathOf(name)));
    ++swept;
  }
  if (std::find(names.begin(), names.end(), kTrashName) != names.end()) {
    ASSIGN_OR_RETURN(const size_t trashed, EmptyTrash(io));
    swept += trashed;
  }
  return swept;
}

absl::StatusOr<std::vector<TransientInfo>> Upgrader::List(Io& io) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(options_.folder));
  return ListOf(names, io);
}

absl::StatusOr<std::vector<TransientInfo>> Upgrader::TakeStock(Io& io) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(options_.folder));
  RETURN_IF_ERROR(SweepTempsOf(names, io).status());
  {
    // Those that nobody may have a record of: the next copy of the same source goes on with them.
    const MutexLock lock(mu_);
    const std::set<std::string_view> there(names.begin(), names.end());
    for (const std::string& name : names) {
      std::string_view stem;
      if (!IsOurName(name, "map", &stem) || !there.contains(WithEnding(name, "part"))) continue;
      left_[std::string(stem)] = WithEnding(name, "car");
    }
  }
  return ListOf(names, io);
}

absl::StatusOr<std::vector<TransientInfo>> Upgrader::ListOf(const std::vector<std::string>& names, Io& io) const {
  std::vector<TransientInfo> copies;
  for (const std::string& name : names) {  // sorted: .car, .map and .part of a copy follow each other
    const bool whole = IsCopyName(name);
    if (!whole && !IsOurName(name, "part") && !IsOurName(name, "map")) continue;
    absl::StatusOr<FileStat> stat = io.Stat(PathOf(name), Follow::kNever);
    if (absl::IsNotFound(stat.status())) continue;  // removed meanwhile
    RETURN_IF_ERROR(stat.status());
    if (!stat->is_regular) continue;
    const std::string copy = WithEnding(name, "car");
    if (copies.empty() || copies.back().path != copy) {
      copies.push_back({.path = copy, .owned = true, .size = 0, .validator = {}});
    }
    copies.back().size += whole ? stat->size : std::min(stat->size, stat->allocated);
  }
  return copies;
}

}  // namespace dagstore
