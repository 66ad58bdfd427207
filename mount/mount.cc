#include "mount/mount.h"

#include <algorithm>

namespace dagstore {
namespace {

// Reads a part of a source in order.
class RangeStream final : public ByteStream {
 public:
  RangeStream(std::unique_ptr<RandomReader> reader, ByteRange range, const WorkContext& work)
      : reader_(std::move(reader)), at_(range.offset), left_(range.size), work_(work) {}

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    if (left_ == 0) return size_t{0};
    ASSIGN_OR_RETURN(const size_t n,
                     reader_->ReadSome(at_, std::min<uint64_t>(size, left_), out));
    at_ += n;
    left_ -= n;
    return n;
  }

 private:
  const std::unique_ptr<RandomReader> reader_;
  uint64_t at_;
  uint64_t left_;
  const WorkContext work_;
};

}  // namespace

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
  opened.stream = std::make_unique<RangeStream>(*std::move(reader), range, work);
  return opened;
}

}  // namespace dagstore
