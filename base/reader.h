// Readers: where the bytes of a shard, a transient or a block of memory are read from.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/clock.h"

namespace dagstore {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t size = 0;

  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Bytes with random access and a known size. Any thread; pread semantics: no position, no lock between readers.
class RandomReader {
 public:
  virtual ~RandomReader() = default;
  // Bytes, as of the moment the reader was opened.
  virtual uint64_t Size() const = 0;
  // Reads up to `size` bytes at `offset`; fewer only at the end. Returns the number read.
  virtual absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const = 0;
  // Reads exactly `size` bytes. DataLoss if the source ends before (it shrank since it was opened, or the caller
  // erred).
  absl::Status Read(uint64_t offset, size_t size, uint8_t* out) const;
  // The whole content, if it lies in memory that cannot vanish; empty otherwise.
  virtual Span Memory() const { return {}; }
  // The caller will read these soon, most wanted first: what lies behind a network may be fetched together and ahead.
  // A hint; costs nothing where reading is local.
  virtual void WillRead(std::span<const ByteRange> ranges) const { (void)ranges; }
};

// Bytes that come once, in order. One thread.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to `size` bytes; 0 only at the end.
  virtual absl::StatusOr<size_t> Next(size_t size, uint8_t* out) = 0;
};

// A reader over bytes it owns.
std::unique_ptr<RandomReader> NewMemoryReader(Bytes bytes);
// A reader over bytes that must outlive it.
std::unique_ptr<RandomReader> NewMemoryReader(Span bytes);
// `inner` from `offset` on, for `size` bytes. `inner` must outlive it.
std::unique_ptr<RandomReader> NewRangeReader(const RandomReader& inner, uint64_t offset, uint64_t size);

// Set by whoever wants work to end; looked at by the work between blocks (<= 4 MiB or <= 20 ms). Any thread.
class CancelFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

// What a long piece of work is told about when to give up. A value; the flag must outlive the work.
struct WorkContext {
  const CancelFlag* cancel = nullptr;  // may be null: cannot be cancelled
  const Clock* clock = nullptr;        // needed if the deadline is finite
  Deadline deadline = {};

  // OK, Cancelled or DeadlineExceeded.
  absl::Status Check() const;
};

}  // namespace dagstore
