#include "mount/mount.h"

namespace dagstore {

absl::StatusOr<std::unique_ptr<RandomReader>> Mount::OpenRandom(Io&, const WorkContext&) const {
  return Unimplemented("{} has no random access", url().Redacted());
}

absl::StatusOr<std::unique_ptr<RandomReader>> Mount::OpenRandomIf(
    Io& io, const WorkContext& work, const std::string& validator) const {
  // Opened first: if the source is replaced in between, it is the new validator that is compared.
  ASSIGN_OR_RETURN(std::unique_ptr<RandomReader> reader, OpenRandom(io, work));
  ASSIGN_OR_RETURN(const MountStat stat, Stat(io, work));
  if (!stat.exists || stat.validator != validator) {
    return FailedPrecondition("open {}: the source has changed", url().Redacted());
  }
  return reader;
}

absl::StatusOr<MountRange> Mount::OpenRange(Io& io, const WorkContext& work, ByteRange range,
                                            const std::string& validator) const {
  MountRange opened;
  ASSIGN_OR_RETURN(opened.stat, Stat(io, work));
  if (!opened.stat.exists) return NotFound("open {}: no such source", url().Redacted());
  if (!validator.empty() && opened.stat.validator != validator) {
    return FailedPrecondition("open {}: the source has changed", url().Redacted());
  }
  absl::StatusOr<std::unique_ptr<RandomReader>> reader =
      opened.stat.validator.empty() ? OpenRandom(io, work)
                                    : OpenRandomIf(io, work, opened.stat.validator);
  RETURN_IF_ERROR(reader.status());
  opened.stat.size = (*reader)->Size();
  opened.stat.size_known = true;
  opened.stream = NewReaderStream(*std::move(reader), range, work);
  return opened;
}

absl::StatusOr<MountRange> Mount::OpenTail(Io&, const WorkContext&, uint64_t) const {
  return Unimplemented("{} cannot be read from its end", url().Redacted());
}

}  // namespace dagstore
