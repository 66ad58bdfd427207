// Readers: where the bytes of a shard, a transient or a block of memory are read from.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/task_meta.h"

namespace dagstore {

struct WorkContext;
class StandIns;

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
  // The whole content, mapped for as long as this reader lives; empty where there is no mapping. Only for sealed files
  // of our own: a mapped file that someone truncates kills the process.
  virtual absl::StatusOr<Span> Map() const { return Span(); }
  // The caller will read these soon, most wanted first: what lies behind a network may be fetched together and ahead.
  // A hint; costs nothing where reading is local.
  virtual void WillRead(std::span<const ByteRange> ranges) const { (void)ranges; }
  // False if WillRead does nothing, so that nobody need gather what it is told.
  virtual bool HeedsHints() const { return false; }
  // What is kept of these bytes in a local copy is wrong: they are fetched again when they are read.
  // FailedPrecondition if there is no copy of which parts can be fetched again.
  virtual absl::Status Forget(ByteRange range) const;
  // Makes the local copy behind this reader whole, if there is one that is not. Worker thread.
  virtual absl::Status MakeWhole(const WorkContext& work) const;
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

// Set by whoever wants work to end; looked at by the work between blocks (<= 4 MiB or <= 20 ms). Any thread; Cancel
// also from a signal handler.
class CancelFlag {
 public:
  CancelFlag() = default;
  ~CancelFlag();
  CancelFlag(const CancelFlag&) = delete;

  void Cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  // A descriptor that becomes readable when the flag is set, for work that waits in poll(): made at the first call, the
  // same ever after, closed with the flag. Never read from it. -1 if there is none to be had (no descriptors left):
  // wait 20 ms at a time then, and look at cancelled().
  int WakeFd() const;

 private:
  std::atomic<bool> cancelled_{false};
  mutable std::atomic<int> wake_fd_{-1};
};

// How far a long piece of work has come, in bytes of its source. Written by the work, read by whoever decides whether
// it is worth finishing. Any thread.
class Progress {
 public:
  void SetTotal(uint64_t bytes) { total_.store(bytes, std::memory_order_relaxed); }
  void SetDone(uint64_t bytes) { done_.store(bytes, std::memory_order_relaxed); }
  // Of a copy that crosses a network; 0 = unknown, or nothing is copied.
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }
  uint64_t done() const { return done_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> total_{0};
  std::atomic<uint64_t> done_{0};
};

// What a long piece of work is told about when to give up. A value; the flag must outlive the work.
struct WorkContext {
  const CancelFlag* cancel = nullptr;  // may be null: cannot be cancelled
  const Clock* clock = nullptr;        // needed if the deadline is finite
  Deadline deadline = {};
  Progress* progress = nullptr;  // where a copy tells how far it is; may be null
  SpanContext span = {};         // of the work, for those who pass it on; invalid: of none
  StandIns* stand_ins = nullptr; // for its thread, while the work waits long (base/wait.h); may be null

  // OK, Cancelled or DeadlineExceeded.
  absl::Status Check() const;
};

// Reads until `size` bytes are there or the stream ends. Returns how many.
absl::StatusOr<size_t> ReadUpTo(ByteStream& stream, size_t size, uint8_t* out);

// `range` of what `reader` reads, in order, or what there is of it.
std::unique_ptr<ByteStream> NewReaderStream(std::unique_ptr<RandomReader> reader, ByteRange range,
                                            const WorkContext& work);
// A stream that is at its end; it looks at `work` like any other.
std::unique_ptr<ByteStream> NewEmptyStream(const WorkContext& work);

}  // namespace dagstore
