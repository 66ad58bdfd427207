// A source as if behind a network: sequential only, or serving ranges, and failing as told.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "mount/registry.h"

namespace dagstore {

// One source. Set it up before the mount is used; counters may be read at any time.
struct RemoteSource {
  Bytes content = {};
  bool exists = true;
  bool ready = true;
  bool size_known = true;
  std::string validator = "v1";
  bool ranges = false;  // random access, as an HTTP server that serves ranges and names its versions
  bool connects = false;

  absl::Status stat_error = {};
  absl::Status open_error = {};
  uint64_t cut_at = std::numeric_limits<uint64_t>::max();  // the body ends here
  Bytes appended = {};                                     // the body goes on after the content
  std::optional<uint64_t> fail_at = {};                    // read_error from here on
  absl::Status read_error = Unavailable("connection reset");
  std::function<void(uint64_t offset)> before_read = {};
  std::function<void(const SpanContext& span)> on_open = {};  // of the work that asks

  std::atomic<int> stats = 0;
  std::atomic<int> opens = 0;
  std::atomic<int> streams_open = 0;
  std::atomic<int> requests = 0;         // for ranges
  std::atomic<uint64_t> bytes_sent = 0;  // in answer to them
};

class RemoteStream final : public ByteStream {
 public:
  RemoteStream(RemoteSource& source, uint64_t offset, const WorkContext& work, uint64_t end = UINT64_MAX)
      : source_(source), body_(source.content), offset_(offset), work_(work) {
    AppendBytes(body_, source.appended);
    body_.resize(std::min<uint64_t>({body_.size(), source.cut_at, end}));
    ++source_.streams_open;
  }
  ~RemoteStream() override { --source_.streams_open; }

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    if (source_.before_read) source_.before_read(offset_);
    const uint64_t fail_at = source_.fail_at.value_or(body_.size() + 1);
    if (source_.fail_at && offset_ >= fail_at) return source_.read_error;
    if (offset_ >= body_.size()) return size_t{0};
    const size_t n =
        std::min<uint64_t>({size, body_.size() - offset_, kReadMax, fail_at - offset_});
    std::memcpy(out, body_.data() + offset_, n);
    offset_ += n;
    source_.bytes_sent += n;
    return n;
  }

 private:
  static constexpr uint64_t kReadMax = 65536;  // networks give what they have

  RemoteSource& source_;
  Bytes body_;
  uint64_t offset_;
  const WorkContext work_;
};

class RemoteMount final : public Mount {
 public:
  RemoteMount(RemoteSource& source, Url url) : source_(source), url_(std::move(url)) {}

  MountTraits traits() const override { return {.random = source_.ranges, .connects = source_.connects}; }
  Url url() const override { return url_; }

  absl::StatusOr<MountStat> Stat(Io&, const WorkContext& work) const override {
    RETURN_IF_ERROR(work.Check());
    ++source_.stats;
    RETURN_IF_ERROR(source_.stat_error);
    if (!source_.exists) return MountStat();
    MountStat stat;
    stat.exists = true;
    stat.ready = source_.ready;
    stat.size = source_.size_known ? source_.content.size() : 0;
    stat.size_known = source_.size_known;
    stat.validator = source_.validator;
    return stat;
  }

  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work,
                                                         uint64_t offset) const override {
    RETURN_IF_ERROR(work.Check());
    ++source_.opens;
    if (source_.on_open) source_.on_open(work.span);
    RETURN_IF_ERROR(source_.open_error);
    if (!source_.exists) return NotFound("open {}: no such source", url_.Redacted());
    return std::make_unique<RemoteStream>(source_, offset, work);
  }

  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io& io, const WorkContext& work) const override {
    if (!source_.ranges) return Mount::OpenRandom(io, work);
    RETURN_IF_ERROR(work.Check());
    RETURN_IF_ERROR(source_.open_error);
    if (!source_.exists) return NotFound("open {}: no such source", url_.Redacted());
    return NewMemoryReader(source_.content);
  }

  absl::StatusOr<MountRange> OpenRange(Io& io, const WorkContext& work, ByteRange range,
                                       const std::string& validator) const override {
    if (!source_.ranges) return Mount::OpenRange(io, work, range, validator);
    RETURN_IF_ERROR(work.Check());
    ++source_.requests;
    RETURN_IF_ERROR(source_.open_error);
    if (!source_.exists) return NotFound("open {}: no such source", url_.Redacted());
    if (!validator.empty() && validator != source_.validator)
      return FailedPrecondition("open {}: the source has changed", url_.Redacted());
    MountRange opened;
    opened.stat.exists = true;
    opened.stat.ready = source_.ready;
    opened.stat.size = source_.content.size();
    opened.stat.size_known = source_.size_known;
    opened.stat.validator = source_.validator;
    const uint64_t begin = std::min<uint64_t>(range.offset, source_.content.size());
    opened.stream = std::make_unique<RemoteStream>(source_, begin, work,
                                                   range.size > UINT64_MAX - begin ? UINT64_MAX : begin + range.size);
    return opened;
  }

  absl::StatusOr<MountRange> OpenTail(Io& io, const WorkContext& work, uint64_t size) const override {
    const uint64_t begin = source_.content.size() - std::min<uint64_t>(size, source_.content.size());
    return OpenRange(io, work, {begin, UINT64_MAX}, {});
  }

 private:
  RemoteSource& source_;
  const Url url_;
};

// `source` must outlive the registry's mounts.
inline MountFactory RemoteMountFactory(RemoteSource& source) {
  return [&source](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    return std::make_unique<RemoteMount>(source, url);
  };
}

}  // namespace dagstore
