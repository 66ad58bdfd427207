#include "mount/bytes_mount.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/multibase.h"

namespace dagstore {
namespace {

// Readers share the content and may outlive the mount.
using Content = std::shared_ptr<const Bytes>;

class BytesReader final : public RandomReader {
 public:
  explicit BytesReader(Content content) : content_(std::move(content)) {}
  uint64_t Size() const override { return content_->size(); }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= content_->size()) return size_t{0};
    const size_t n = std::min<uint64_t>(size, content_->size() - offset);
    if (n > 0) std::memcpy(out, content_->data() + offset, n);
    return n;
  }
  Span Memory() const override { return *content_; }

 private:
  const Content content_;
};

class BytesStream final : public ByteStream {
 public:
  BytesStream(Content content, uint64_t offset, const WorkContext& work)
      : reader_(std::move(content)), offset_(offset), work_(work) {}
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    ASSIGN_OR_RETURN(const size_t n, reader_.ReadSome(offset_, size, out));
    offset_ += n;
    return n;
  }

 private:
  const BytesReader reader_;
  uint64_t offset_;
  const WorkContext work_;
};

class BytesMount final : public Mount {
 public:
  explicit BytesMount(Bytes content)
      : content_(std::make_shared<const Bytes>(std::move(content))) {}

  MountTraits traits() const override { return {.local = true, .random = true, .stable = true}; }
  Url url() const override {
    Url url;
    url.scheme = "bytes";
    url.path = EncodeBase(Base::kBase64Url, *content_);
    return url;
  }
  absl::StatusOr<MountStat> Stat(Io&, const WorkContext& work) const override {
    RETURN_IF_ERROR(work.Check());
    MountStat stat;
    stat.exists = true;
    stat.ready = true;
    stat.size = content_->size();
    stat.size_known = true;
    stat.validator = "immutable";
    return stat;
  }
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io&,
                                                           const WorkContext& work) const override {
    RETURN_IF_ERROR(work.Check());
    return std::make_unique<BytesReader>(content_);
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io&, const WorkContext& work,
                                                         uint64_t offset) const override {
    RETURN_IF_ERROR(work.Check());
    return std::make_unique<BytesStream>(content_, offset, work);
  }

 private:
  const Content content_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mount>> NewBytesMount(Bytes content) {
  if (content.size() > kBytesMountBytesMax) {
    return ResourceExhausted("bytes: mount of {} bytes is above the limit of {}", content.size(),
                             kBytesMountBytesMax);
  }
  return std::make_unique<BytesMount>(std::move(content));
}

MountFactory BytesMountFactory() {
  return [](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    if (url.has_authority || !url.query.empty()) {
      return InvalidArgument("bytes: URL has more than a content: write bytes:<base64url>");
    }
    absl::StatusOr<Bytes> content = DecodeBase(Base::kBase64Url, url.path);
    if (!content.ok()) return Annotate(content.status(), "decode the content of a bytes: URL");
    return NewBytesMount(std::move(*content));
  };
}

}  // namespace dagstore
