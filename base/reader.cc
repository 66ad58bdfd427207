#include "base/reader.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace dagstore {
namespace {

size_t CopyFrom(Span content, uint64_t offset, size_t size, uint8_t* out) {
  if (offset >= content.size()) return 0;
  const size_t n = std::min<uint64_t>(size, content.size() - offset);
  std::memcpy(out, content.data() + offset, n);
  return n;
}

class MemoryReader final : public RandomReader {
 public:
  explicit MemoryReader(Bytes bytes) : owned_(std::move(bytes)), content_(owned_) {}
  explicit MemoryReader(Span bytes) : content_(bytes) {}
  uint64_t Size() const override { return content_.size(); }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    return CopyFrom(content_, offset, size, out);
  }
  Span Memory() const override { return content_; }

 private:
  const Bytes owned_;
  const Span content_;
};

class ReaderStream final : public ByteStream {
 public:
  ReaderStream(std::unique_ptr<RandomReader> reader, ByteRange range, const WorkContext& work)
      : reader_(std::move(reader)), at_(range.offset), left_(range.size), work_(work) {}
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override {
    RETURN_IF_ERROR(work_.Check());
    if (left_ == 0) return size_t{0};
    ASSIGN_OR_RETURN(const size_t n, reader_->ReadSome(at_, std::min<uint64_t>(size, left_), out));
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

class EmptyStream final : public ByteStream {
 public:
  explicit EmptyStream(const WorkContext& work) : work_(work) {}
  absl::StatusOr<size_t> Next(size_t, uint8_t*) override {
    RETURN_IF_ERROR(work_.Check());
    return size_t{0};
  }

 private:
  const WorkContext work_;
};

class RangeReader final : public RandomReader {
 public:
  RangeReader(const RandomReader& inner, uint64_t offset, uint64_t size)
      : inner_(inner), offset_(offset), size_(size) {}
  uint64_t Size() const override { return size_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    if (offset >= size_) return size_t{0};
    return inner_.ReadSome(offset_ + offset, std::min<uint64_t>(size, size_ - offset), out);
  }
  Span Memory() const override {
    const Span all = inner_.Memory();
    return all.size() >= offset_ && all.size() - offset_ >= size_ ? all.subspan(offset_, size_) : Span();
  }
  void WillRead(std::span<const ByteRange> ranges) const override {
    std::vector<ByteRange> inner;
    for (const ByteRange& range : ranges) {
      if (range.offset < size_) inner.push_back({offset_ + range.offset, std::min(range.size, size_ - range.offset)});
    }
    inner_.WillRead(inner);
  }

 private:
  const RandomReader& inner_;
  const uint64_t offset_;
  const uint64_t size_;
};

}  // namespace

absl::Status RandomReader::Read(uint64_t offset, size_t size, uint8_t* out) const {
  ASSIGN_OR_RETURN(const size_t n, ReadSome(offset, size, out));
  if (n != size) {
    return DataLoss("source ends at byte {} where {} more bytes were expected", offset + n, size - n);
  }
  return absl::OkStatus();
}

absl::Status RandomReader::Forget(ByteRange) const {
  return FailedPrecondition("these bytes are not a copy of which parts can be fetched again");
}
absl::Status RandomReader::MakeWhole(const WorkContext&) const { return absl::OkStatus(); }

std::unique_ptr<RandomReader> NewMemoryReader(Bytes bytes) { return std::make_unique<MemoryReader>(std::move(bytes)); }
std::unique_ptr<RandomReader> NewMemoryReader(Span bytes) { return std::make_unique<MemoryReader>(bytes); }
std::unique_ptr<RandomReader> NewRangeReader(const RandomReader& inner, uint64_t offset, uint64_t size) {
  return std::make_unique<RangeReader>(inner, offset, size);
}

CancelFlag::~CancelFlag() {
  if (const int fd = wake_fd_.load(std::memory_order_acquire); fd >= 0) close(fd);
}

// Whoever comes second, the one who sets the flag or the one who makes the descriptor, sees the other.
void CancelFlag::Cancel() {
  cancelled_.store(true, std::memory_order_seq_cst);
  if (const int fd = wake_fd_.load(std::memory_order_seq_cst); fd >= 0) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof(one));  // full means that it is readable
  }
}

int CancelFlag::WakeFd() const {
  int fd = wake_fd_.load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  const int made = eventfd(cancelled() ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made < 0) return -1;
  if (!wake_fd_.compare_exchange_strong(fd, made, std::memory_order_seq_cst)) {
    close(made);  // somebody was faster
    return fd;
  }
  if (cancelled_.load(std::memory_order_seq_cst)) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(made, &one, sizeof(one));
  }
  return made;
}

absl::Status WorkContext::Check() const {
  if (cancel != nullptr && cancel->cancelled()) return Cancelled("stopped");
  if (!deadline.IsInfinite() && deadline.Passed(clock->Now())) return DeadlineExceeded("the deadline has passed");
  return absl::OkStatus();
}

std::unique_ptr<ByteStream> NewReaderStream(std::unique_ptr<RandomReader> reader, ByteRange range,
                                            const WorkContext& work) {
  return std::make_unique<ReaderStream>(std::move(reader), range, work);
}

std::unique_ptr<ByteStream> NewEmptyStream(const WorkContext& work) { return std::make_unique<EmptyStream>(work); }

absl::StatusOr<size_t> ReadUpTo(ByteStream& stream, size_t size, uint8_t* out) {
  size_t have = 0;
  while (have < size) {
    ASSIGN_OR_RETURN(const size_t n, stream.Next(size - have, out + have));
    if (n == 0) break;
    have += n;
  }
  return have;
}

}  // namespace dagstore
