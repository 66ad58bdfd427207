#include "base/reader.h"

#include <poll.h>

#include <limits>
#include <thread>

#include "tests/fakes/fake_clock.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

Bytes ToBytes(std::string_view text) { return Bytes(text.begin(), text.end()); }

std::string ReadText(const RandomReader& reader, uint64_t offset, size_t size) {
  std::string text(size, '?');
  text.resize(ValueOf(reader.ReadSome(offset, size, reinterpret_cast<uint8_t*>(text.data()))));
  return text;
}

void CheckReads(const RandomReader& reader) {
  constexpr uint64_t kFar = std::numeric_limits<uint64_t>::max();
  REQUIRE_EQ(reader.Size(), 5);
  CHECK_EQ(ReadText(reader, 0, 5), "abcde");
  CHECK_EQ(ReadText(reader, 0, 9), "abcde");
  CHECK_EQ(ReadText(reader, 3, 1), "d");
  CHECK_EQ(ReadText(reader, 4, 9), "e");
  CHECK_EQ(ReadText(reader, 5, 1), "");
  CHECK_EQ(ReadText(reader, kFar, 1), "");
  CHECK_EQ(ReadText(reader, 2, 0), "");
  CHECK_EQ(AsText(reader.Memory()), "abcde");
  uint8_t out[6];
  CHECK_STATUS_OK(reader.Read(1, 4, out));
  CHECK_EQ(AsText(Span(out, 4)), "bcde");
  CHECK_STATUS_OK(reader.Read(5, 0, out));
  CHECK_CODE(reader.Read(0, 6, out), kDataLoss);
  CHECK_CODE(reader.Read(5, 1, out), kDataLoss);
  CHECK_CODE(reader.Read(kFar, 1, out), kDataLoss);
}

TEST_CASE("memory reader: reads what it owns and what it borrows") {
  CheckReads(*NewMemoryReader(ToBytes("abcde")));
  const Bytes kept = ToBytes("abcde");
  CheckReads(*NewMemoryReader(Span(kept)));
}

TEST_CASE("range reader: ends where its range ends") {
  const std::unique_ptr<RandomReader> inner = NewMemoryReader(ToBytes("xxabcdeyy"));
  CheckReads(*NewRangeReader(*inner, 2, 5));
  const std::unique_ptr<RandomReader> middle = NewRangeReader(*inner, 1, 7);
  CheckReads(*NewRangeReader(*middle, 1, 5));
}

TEST_CASE("range reader: a range that the source does not have reads short") {
  const std::unique_ptr<RandomReader> inner = NewMemoryReader(ToBytes("abc"));
  const std::unique_ptr<RandomReader> range = NewRangeReader(*inner, 1, 5);
  uint8_t out[5];
  CHECK_EQ(range->Size(), 5);
  CHECK_EQ(ReadText(*range, 0, 5), "bc");
  CHECK_CODE(range->Read(0, 5, out), kDataLoss);
  CHECK(range->Memory().empty());
  CHECK(NewRangeReader(*inner, 4, 0)->Memory().empty());
}

TEST_CASE("work context: says why to stop, cancel before deadline") {
  FakeClock clock;
  CancelFlag flag;
  CHECK_STATUS_OK(WorkContext().Check());
  const WorkContext work{&flag, &clock, Deadline::After(clock, absl::Seconds(1))};
  CHECK_STATUS_OK(work.Check());
  clock.Advance(absl::Seconds(1));
  CHECK_CODE(work.Check(), kDeadlineExceeded);
  flag.Cancel();
  CHECK_CODE(work.Check(), kCancelled);
}

bool IsReadable(int fd) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

TEST_CASE("cancel flag: wakes who waits on its descriptor, whichever comes first") {
  CancelFlag before;
  before.Cancel();
  CHECK(IsReadable(before.WakeFd()));
  CancelFlag after;
  const int fd = after.WakeFd();
  REQUIRE_GE(fd, 0);
  CHECK_EQ(after.WakeFd(), fd);
  CHECK_FALSE(IsReadable(fd));
  after.Cancel();
  after.Cancel();
  CHECK(IsReadable(fd));
  CHECK(after.cancelled());
}

TEST_CASE("cancel flag: no wake-up is lost between a thread that sets it and one that begins to wait") {
  for (int i = 0; i < 500; ++i) {
    CancelFlag flag;
    std::thread canceller([&flag] { flag.Cancel(); });
    pollfd entry = {flag.WakeFd(), POLLIN, 0};
    CHECK_EQ(poll(&entry, 1, 10'000), 1);
    canceller.join();
  }
}

TEST_CASE("progress: tells how far work has come") {
  Progress progress;
  CHECK_EQ(progress.total(), 0);
  progress.SetTotal(10);
  progress.SetDone(4);
  CHECK_EQ(progress.total(), 10);
  CHECK_EQ(progress.done(), 4);
}

}  // namespace
}  // namespace dagstore
