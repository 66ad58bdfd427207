#include "mount/upgrader.h"

#include <algorithm>
#include <array>
#include <charconv>
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

std::string CopyName(const TransientSpec& spec) {
  return fmt::format("{}.{}.car", spec.name_stem, spec.generation);
}

bool IsCopyName(std::string_view name) {
  std::array<std::string_view, 3> parts;
  return SplitName(name, parts) && IsNamePart(parts[0], kStemBytesMax) && IsNumber(parts[1]) &&
         parts[2] == "car";
}

// True, with the boot id, for the name of a temporary.
bool IsTempName(std::string_view name, std::string_view& boot_id) {
  std::array<std::string_view, 5> parts;
  if (!SplitName(name, parts)) return false;
  boot_id = parts[2];
  return IsNamePart(parts[0], kStemBytesMax) && IsNumber(parts[1]) &&
         IsNamePart(boot_id, kBootIdBytesMax) && IsNumber(parts[3]) && parts[4] == "tmp";
}

absl::Status Changed(const Mount& mount) {
  return FailedPrecondition("fetch {}: the source has changed since it was registered",
                            mount.url().Redacted());
}

absl::StatusOr<MountStat> StatSource(const Mount& mount, const TransientSpec& spec, Io& io,
                                     const WorkContext& work) {
  ASSIGN_OR_RETURN(MountStat stat, mount.Stat(io, work));
  if (!stat.exists) return NotFound("fetch {}: no such source", mount.url().Redacted());
  if (!stat.ready) return Unavailable("fetch {}: the source is not ready", mount.url().Redacted());
  if (spec.expected_size && stat.size_known && stat.size != *spec.expected_size)
    return Changed(mount);
  if (!spec.expected_validator.empty() && stat.validator != spec.expected_validator)
    return Changed(mount);
  return stat;
}

}  // namespace

// What one copy has taken from the gate, given back unless the copy is kept.
class Upgrader::Space {
 public:
  explicit Space(SpaceGate* gate) : gate_(gate) {}
  Space(const Space&) = delete;
  ~Space() {
    if (gate_ != nullptr && taken_ > 0) gate_->Return(taken_);
  }
  absl::Status Take(uint64_t bytes) {
    if (gate_ == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(gate_->Take(bytes));
    taken_ += bytes;
    return absl::OkStatus();
  }
  void Keep() { taken_ = 0; }

 private:
  SpaceGate* const gate_;
  uint64_t taken_ = 0;
};

Upgrader::Upgrader(UpgraderOptions options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<Upgrader>> Upgrader::Open(Io& io, UpgraderOptions options) {
  if (!IsNamePart(options.boot_id, kBootIdBytesMax)) {
    return InvalidArgument("boot id is not 1 to {} characters of a-z and 0-9", kBootIdBytesMax);
  }
  RETURN_IF_ERROR(io.MakeDir(options.folder));
  return std::unique_ptr<Upgrader>(new Upgrader(std::move(options)));
}

absl::StatusOr<Upgraded> Upgrader::Upgrade(const Mount& mount, const TransientSpec& spec, Io& io,
                                           const WorkContext& work) {
  if (!IsNamePart(spec.name_stem, kStemBytesMax)) {
    return InvalidArgument("transient name is not 1 to {} characters of a-z and 0-9",
                           kStemBytesMax);
  }
  RETURN_IF_ERROR(work.Check());
  const MountTraits traits = mount.traits();
  if (traits.local && traits.random) return PassThrough(mount, spec, io, work);
  if (spec.existing) {
    ASSIGN_OR_RETURN(std::optional<Upgraded> used, UseExisting(mount, spec, io, work));
    if (used) return std::move(*used);
  }
  return Copy(mount, spec, io, work);
}

absl::StatusOr<Upgraded> Upgrader::PassThrough(const Mount& mount, const TransientSpec& spec,
                                               Io& io, const WorkContext& work) const {
  absl::StatusOr<std::unique_ptr<RandomReader>> reader =
      spec.expected_validator.empty() ? mount.OpenRandom(io, work)
                                      : mount.OpenRandomIf(io, work, spec.expected_validator);
  RETURN_IF_ERROR(reader.status());
  if (spec.expected_size && (*reader)->Size() != *spec.expected_size) return Changed(mount);
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

absl::StatusOr<Upgraded> Upgrader::Copy(const Mount& mount, const TransientSpec& spec, Io& io,
                                        const WorkContext& work) {
  ASSIGN_OR_RETURN(const MountStat stat, StatSource(mount, spec, io, work));
  std::string temp;
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, CreateTemp(spec, io, &temp));
  Space space(options_.space);
  const auto fill = [&]() -> absl::StatusOr<Upgraded> {
    ASSIGN_OR_RETURN(const uint64_t size, Transfer(mount, stat, *file, space, io, work));
    if (spec.expected_size && size != *spec.expected_size) return Changed(mount);
    Upgraded made;
    ASSIGN_OR_RETURN(made.reader, Publish(std::move(file), temp, CopyName(spec), size, io));
    made.local = TransientInfo{
        .path = CopyName(spec), .owned = true, .size = size, .validator = stat.validator};
    return made;
  };
  absl::StatusOr<Upgraded> made = fill();
  if (made.ok()) {
    space.Keep();
  } else {
    // What cannot be removed now is swept by the next boot.
    file.reset();
    if (!Mutant(kMutantTempKept)) io.Remove(PathOf(temp)).IgnoreError();
  }
  return made;
}

absl::StatusOr<std::unique_ptr<WritableFile>> Upgrader::CreateTemp(const TransientSpec& spec,
                                                                   Io& io, std::string* name) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file;
  for (int i = 0; i < kTempNamesTried; ++i) {
    *name = fmt::format("{}.{}.{}.{}.tmp", spec.name_stem, spec.generation, options_.boot_id,
                        temps_made_.fetch_add(1, std::memory_order_relaxed));
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
    RETURN_IF_ERROR(space.Take(stat.size));
  }
  const uint64_t size_max = stat.size_known ? stat.size : options_.transient_bytes_max;
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream, mount.OpenStream(io, work));
  const auto block = std::make_unique_for_overwrite<uint8_t[]>(kBlockBytes);
  uint64_t done = 0;
  if (work.progress != nullptr) work.progress->SetTotal(stat.size_known ? stat.size : 0);
  for (;;) {
    if (work.progress != nullptr) work.progress->SetDone(done);
    RETURN_IF_ERROR(work.Check());
    ASSIGN_OR_RETURN(const size_t n, stream->Next(kBlockBytes, block.get()));
    DAGSTORE_CHECK(n <= kBlockBytes);
    if (n == 0) break;
    if (n > size_max - done) {
      if (!stat.size_known) return too_long();
      return Unavailable("fetch {}: the source sent more than its {} bytes", mount.url().Redacted(),
                         stat.size);
    }
    if (!stat.size_known) RETURN_IF_ERROR(space.Take(n));
    RETURN_IF_ERROR(file.Append(Span(block.get(), n)));
    done += n;
    io.Yield();
  }
  if (stat.size_known && done != stat.size && !Mutant(kMutantShortBodyTaken)) {
    return Unavailable("fetch {}: the source sent {} of its {} bytes", mount.url().Redacted(), done,
                       stat.size);
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
                                                                uint64_t size, Io& io) const {
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
    io.Remove(PathOf(name)).IgnoreError();
    return synced;
  }
  return reader;
}

absl::Status Upgrader::Delete(Io& io, const TransientInfo& transient) {
  if (!transient.owned && Mutant(kMutantUsersFileDeleted)) return io.Remove(transient.path);
  if (!transient.owned) return absl::OkStatus();
  if (!IsCopyName(transient.path))
    return InvalidArgument("delete a transient: its name is not one of ours");
  const absl::Status removed = io.Remove(PathOf(transient.path));
  if (absl::IsNotFound(removed)) return absl::OkStatus();
  RETURN_IF_ERROR(removed);
  if (options_.space != nullptr) options_.space->Return(transient.size);
  return io.SyncDir(options_.folder);
}

absl::StatusOr<size_t> Upgrader::SweepTemps(Io& io) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(options_.folder));
  size_t swept = 0;
  for (const std::string& name : names) {
    std::string_view boot_id;
    if (!IsTempName(name, boot_id) || (boot_id == options_.boot_id && !Mutant(kMutantTempsOfLiving))) continue;
    const absl::StatusOr<FileStat> stat = io.Stat(PathOf(name), Follow::kNever);
    if (!stat.ok() || !stat->is_regular) continue;
    RETURN_IF_ERROR(io.Remove(PathOf(name)));
    ++swept;
  }
  return swept;
}

absl::StatusOr<std::vector<TransientInfo>> Upgrader::List(Io& io) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, io.List(options_.folder));
  std::vector<TransientInfo> copies;
  for (const std::string& name : names) {
    if (!IsCopyName(name)) continue;
    ASSIGN_OR_RETURN(const FileStat stat, io.Stat(PathOf(name), Follow::kNever));
    if (!stat.is_regular) continue;
    copies.push_back({.path = name, .owned = true, .size = stat.size, .validator = {}});
  }
  return copies;
}

}  // namespace dagstore
