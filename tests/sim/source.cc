#include "tests/sim/source.h"

#include <algorithm>
#include <cstring>

#include "tests/sim/sometimes.h"

namespace dagstore::sim {
namespace {

// Of all that a source sends, so that a body comes in several pieces.
constexpr size_t kPieceBytes = 200;

class SimReader final : public RandomReader {
 public:
  SimReader(Sources& sources, Source& source)
      : sources_(sources), source_(source), size_(sources.SizeOf(source)) {}
  uint64_t Size() const override { return size_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    RETURN_IF_ERROR(sources_.Enter(source_, "read"));
    return sources_.Read(source_, offset, size, out);
  }

 private:
  Sources& sources_;
  Source& source_;
  const uint64_t size_;
};

}  // namespace

class SimStream final : public ByteStream {
 public:
  SimStream(Sources& sources, Source& source, const WorkContext& work, uint64_t offset, uint64_t size_max = UINT64_MAX)
      : sources_(sources), source_(source), work_(work), offset_(offset), end_(sources.SizeOf(source)) {
    if (end_ > offset && end_ - offset > size_max) end_ = offset + size_max;
    if (sources_.faults.truncate != 0 && sources_.tape_.Chance(Stream::kSource, sources_.faults.truncate)) {
      end_ = sources_.tape_.Draw(Stream::kSource, static_cast<uint32_t>(end_ + 1));
      source_.tainted = true;
      Sometimes("source: a body ends early");
    }
    ++source_.streams;
  }
  ~SimStream() override { --source_.streams; }

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    RETURN_IF_ERROR(sources_.Enter(source_, "next"));
    RETURN_IF_ERROR(work_.Check());
    const uint64_t end = std::min(end_, sources_.SizeOf(source_));
    if (offset_ >= end) return size_t{0};
    const size_t n = sources_.Read(source_, offset_, std::min<uint64_t>({size, kPieceBytes, end - offset_}), out);
    offset_ += n;
    return n;
  }

 private:
  Sources& sources_;
  Source& source_;
  const WorkContext work_;
  uint64_t offset_;
  uint64_t end_;
};

namespace {

class SimMount final : public Mount {
 public:
  SimMount(Sources& sources, Source& source, Url url) : sources_(sources), source_(source), url_(std::move(url)) {}

  MountTraits traits() const override {
    return {.local = source_.local, .random = source_.local || source_.ranged, .stable = false};
  }
  Url url() const override { return url_; }
  absl::StatusOr<MountStat> Stat(Io&, const WorkContext& work) const override {
    RETURN_IF_ERROR(work.Check());
    RETURN_IF_ERROR(sources_.Enter(source_, "stat"));
    return StatNow();
  }
  absl::StatusOr<MountRange> OpenRange(Io&, const WorkContext& work, ByteRange range,
                                       const std::string& validator) const override {
    RETURN_IF_ERROR(work.Check());
    RETURN_IF_ERROR(sources_.Enter(source_, "range"));
    if (!source_.local && !source_.ranged) return FailedPrecondition("open {}: no ranges", url_.Redacted());
    if (source_.absent) return NotFound("open {}: no such source", url_.Redacted());
    if (source_.not_ready) return Unavailable("open {}: not ready", url_.Redacted());
    MountRange out;
    out.stat = StatNow();
    if (!validator.empty() && out.stat.validator != validator)
      return FailedPrecondition("open {}: the source has changed", url_.Redacted());
    Sometimes("source: a range is asked for");
    out.stream = std::make_unique<SimStream>(sources_, source_, work, range.offset, range.size);
    return out;
  }
  MountStat StatNow() const {
    MountStat stat;
    stat.exists = !source_.absent;
    if (!stat.exists) return stat;
    stat.ready = !source_.not_ready;
    stat.size_known = source_.size_known || source_.local;
    if (stat.size_known) stat.size = source_.local ? sources_.SizeOf(source_) : source_.bytes().size();
    if (source_.has_validator) stat.validator = fmt::format("v{}", source_.version);
    return stat;
  }
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io&, const WorkContext& work) const override {
    RETURN_IF_ERROR(work.Check());
    RETURN_IF_ERROR(sources_.Enter(source_, "open"));
    if (!source_.local && !source_.ranged) return FailedPrecondition("open {}: no random access", url_.Redacted());
    if (source_.absent) return NotFound("open {}: no such source", url_.Redacted());
    return std::make_unique<SimReader>(sources_, source_);
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work, uint64_t offset) const override {
    RETURN_IF_ERROR(work.Check());
    RETURN_IF_ERROR(sources_.Enter(source_, "open"));
    if (source_.absent) return NotFound("open {}: no such source", url_.Redacted());
    if (source_.not_ready) return Unavailable("open {}: not ready", url_.Redacted());
    return std::make_unique<SimStream>(sources_, source_, work, offset);
  }

 private:
  Sources& sources_;
  Source& source_;
  const Url url_;
};

}  // namespace

Url Sources::UrlOf(size_t source) const {
  Url url;
  url.scheme = "sim";
  url.path = all[source].name;
  url.query = {{"token", std::string(kSecret)}};
  return url;
}

MountFactory Sources::Factory() {
  return [this](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    for (Source& source : all)
      if (source.name == url.path) return std::make_unique<SimMount>(*this, source, url);
    return InvalidArgument("no source {}", url.Redacted());
  };
}

absl::Status Sources::Enter(Source& source, const char* call, bool can_fail) {
  if (scheduler_.in_fiber()) {
    if (scheduler_.current_name() == "dagstore-loop" && on_violation) {
      on_violation("loop", fmt::format("the loop asks a source: {} {}", call, source.name));
    }
    if (faults.stall != 0 && tape_.Chance(Stream::kSource, faults.stall)) {
      Sometimes("source: a call stalls");
      scheduler_.Sleep(absl::Milliseconds(1 + tape_.Draw(Stream::kSource, 5000)));
    } else {
      scheduler_.Yield();
    }
  }
  absl::Status status = inject && can_fail ? inject() : absl::OkStatus();
  if (!status.ok()) {
    source.tainted = true;
  } else if (source.unreachable && can_fail) {
    status = Unavailable("{} sim:{}: no route to host", call, source.name);
  } else if (can_fail && faults.error != 0 && tape_.Chance(Stream::kSource, faults.error)) {
    Sometimes("source: a call fails");
    source.tainted = true;
    status = Unavailable("{} sim:{}: connection reset", call, source.name);
  }
  trace_.Add(std::string_view(call));
  trace_.Add(static_cast<uint64_t>(status.code()));
  if (trace_.verbose()) {
    trace_.listener(fmt::format("{:>6} {:<16} source {} {}{}", scheduler_.steps(), scheduler_.current_name(), call,
                                source.name, status.ok() ? "" : ": " + ToString(status)));
  }
  return status;
}

uint64_t Sources::SizeOf(const Source& source) const {
  return source.truncated ? source.bytes().size() / 2 : source.bytes().size();
}

size_t Sources::Read(const Source& source, uint64_t offset, size_t size, uint8_t* out) const {
  const uint64_t end = SizeOf(source);
  if (offset >= end) return 0;
  const size_t n = std::min<uint64_t>(size, end - offset);
  std::memcpy(out, source.bytes().data() + offset, n);
  if (source.lying) {
    for (size_t i = 0; i < n; ++i)
      if ((offset + i) % 37 == 36) out[i] ^= 4;
  }
  return n;
}

}  // namespace dagstore::sim
