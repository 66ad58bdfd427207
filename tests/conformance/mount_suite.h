// What every mount keeps. A new mount is done when a test case that calls CheckMount() for it
// passes.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mount/registry.h"
#include "tests/fakes/fake_clock.h"
#include "tests/testing.h"

namespace dagstore {

struct MountUnderTest {
  MountRegistry registry = {};
  // A source with this content, and a mount of it. At most 1 MiB.
  std::function<std::unique_ptr<Mount>(const Bytes& content)> put = {};
  // Closes what is kept open for the next request. Empty where nothing is.
  std::function<void()> close_idle = {};
  // Deletes what put() made. Empty where a source cannot vanish.
  std::function<void()> remove = {};
  // Mounts of things that are no files (folder, FIFO). Empty where there are none.
  std::vector<std::function<std::unique_ptr<Mount>()>> not_files = {};
};

inline size_t DescriptorCount() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

// Bytes that differ at each offset, so that a wrong one is seen.
inline Bytes TestContent(size_t size) {
  Bytes content(size);
  for (size_t i = 0; i < size; ++i) content[i] = static_cast<uint8_t>((i * 2654435761u) >> 13);
  return content;
}

// All of a stream, in reads of `step` bytes.
inline absl::StatusOr<Bytes> ReadAll(ByteStream& stream, size_t step) {
  Bytes all, block(step);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, stream.Next(step, block.data()));
    if (n == 0) return all;
    AppendBytes(all, Span(block).first(n));
  }
}

inline absl::StatusOr<Bytes> ReadMount(const Mount& mount, uint64_t offset = 0,
                                       size_t step = 4096) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteStream> stream,
                   mount.OpenStream(Io::Posix(), WorkContext(), offset));
  return ReadAll(*stream, step);
}

inline void CheckMount(const MountUnderTest& test) {
  Io& io = Io::Posix();
  const WorkContext work;
  const Bytes content = TestContent(300'001);
  const size_t descriptors = DescriptorCount();

  SUBCASE("stat tells the exact size, and the same validator while nothing changes") {
    for (const size_t size : {0, 1, 4096, 1 << 20}) {
      const std::unique_ptr<Mount> mount = test.put(TestContent(size));
      const MountStat stat = ValueOf(mount->Stat(io, work));
      CHECK(stat.exists);
      CHECK(stat.ready);
      CHECK(stat.size_known);
      CHECK_EQ(stat.size, size);
      CHECK_EQ(ValueOf(mount->Stat(io, work)).validator, stat.validator);
    }
  }

  SUBCASE("a stream gives the content from its offset to the end") {
    const std::unique_ptr<Mount> mount = test.put(content);
    for (const uint64_t offset :
         {uint64_t{0}, uint64_t{1}, uint64_t{4096}, content.size() - 1, content.size(),
          content.size() + 1, std::numeric_limits<uint64_t>::max()}) {
      for (const size_t step : {size_t{1000}, size_t{1 << 20}}) {
        CAPTURE(offset);
        const size_t start = std::min<uint64_t>(offset, content.size());
        CHECK(SameBytes(ValueOf(ReadMount(*mount, offset, step)), Span(content).subspan(start)));
      }
    }
    const std::unique_ptr<Mount> empty = test.put({});
    CHECK(ValueOf(ReadMount(*empty)).empty());
  }

  SUBCASE("random access reads any range, and refuses where the mount has none") {
    const std::unique_ptr<Mount> mount = test.put(content);
    absl::StatusOr<std::unique_ptr<RandomReader>> opened = mount->OpenRandom(io, work);
    if (mount->traits().random) {
      const std::unique_ptr<RandomReader> reader = ValueOf(std::move(opened));
      const uint64_t size = content.size();
      CHECK_EQ(reader->Size(), size);
      const std::pair<uint64_t, size_t> ranges[] = {{0, 0},
                                                    {0, 1},
                                                    {0, size},
                                                    {1, 4095},
                                                    {size - 1, 1},
                                                    {size - 1, 10},
                                                    {size, 1},
                                                    {size, 0},
                                                    {size + 1, 1},
                                                    {size * 2, 100},
                                                    {std::numeric_limits<uint64_t>::max(), 16}};
      for (const auto& range : ranges) {
        const uint64_t offset = range.first;
        const size_t length = range.second;
        CAPTURE(offset);
        CAPTURE(length);
        Bytes out(length + 1, 0xEE);
        const size_t n = ValueOf(reader->ReadSome(offset, length, out.data()));
        const size_t there = offset >= size ? 0 : std::min<uint64_t>(length, size - offset);
        REQUIRE_EQ(n, there);
        if (n > 0) CHECK(SameBytes(Span(out).first(n), Span(content).subspan(offset, n)));
        CHECK_EQ(out[length], 0xEE);
        if (there < length) CHECK_CODE(reader->Read(offset, length, out.data()), kDataLoss);
      }
      if (!reader->Memory().empty()) CHECK(SameBytes(reader->Memory(), content));
    } else {
      CHECK_CODE(opened, kUnimplemented);
    }
  }

  SUBCASE("random access can ask for the version that stat described") {
    const std::unique_ptr<Mount> mount = test.put(content);
    if (mount->traits().random) {
      const std::string validator = ValueOf(mount->Stat(io, work)).validator;
      CHECK_STATUS_OK(mount->OpenRandomIf(io, work, validator));
      CHECK_CODE(mount->OpenRandomIf(io, work, validator + "x"), kFailedPrecondition);
    }
  }

  SUBCASE("a range comes with what the source says of itself, and only of the version asked for") {
    const std::unique_ptr<Mount> mount = test.put(content);
    if (mount->traits().random) {
      const MountStat stat = ValueOf(mount->Stat(io, work));
      for (const uint64_t offset : {uint64_t{0}, content.size() / 2, content.size() - 1, content.size(),
                                    content.size() + 5}) {
        for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{70'000}, UINT64_MAX}) {
          CAPTURE(offset);
          CAPTURE(size);
          const MountRange opened = ValueOf(mount->OpenRange(io, work, {offset, size}, stat.validator));
          CHECK(opened.stat.size_known);
          CHECK_EQ(opened.stat.size, content.size());
          CHECK_EQ(opened.stat.validator, stat.validator);
          Bytes got;
          Bytes block(50'000);
          for (size_t n = 1; n != 0;) {
            n = ValueOf(opened.stream->Next(block.size(), block.data()));
            AppendBytes(got, Span(block).first(n));
          }
          const uint64_t begin = std::min<uint64_t>(offset, content.size());
          CHECK(SameBytes(got, Span(content).subspan(begin, std::min<uint64_t>(size, content.size() - begin))));
        }
      }
      CHECK_STATUS_OK(mount->OpenRange(io, work, {0, 1}, ""));
      CHECK_CODE(mount->OpenRange(io, work, {0, 1}, stat.validator + "x"), kFailedPrecondition);
    }
  }

  SUBCASE("readers and streams do not disturb each other") {
    const std::unique_ptr<Mount> mount = test.put(content);
    std::vector<Bytes> read(4);
    std::vector<std::thread> threads;
    for (Bytes& result : read) {
      threads.emplace_back([&] {
        if (absl::StatusOr<Bytes> all = ReadMount(*mount); all.ok()) result = std::move(*all);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Bytes& result : read) CHECK(SameBytes(result, content));
  }

  SUBCASE("the stored url makes the same mount again") {
    const std::unique_ptr<Mount> mount = test.put(content);
    const std::string stored = ValueOf(test.registry.Represent(*mount)).Encoded();
    const std::unique_ptr<Mount> again = ValueOf(test.registry.Make(ValueOf(Url::Parse(stored))));
    CHECK(again->url() == mount->url());
    CHECK_EQ(again->url().Encoded(), stored);
    CHECK(SameBytes(ValueOf(ReadMount(*again)), content));
  }

  SUBCASE("a deleted source is absent for stat and NotFound for open") {
    if (test.remove) {
      const std::unique_ptr<Mount> mount = test.put(content);
      const Url before = mount->url();
      test.remove();
      CHECK_FALSE(ValueOf(mount->Stat(io, work)).exists);
      CHECK_CODE(mount->OpenStream(io, work), kNotFound);
      if (mount->traits().random) CHECK_CODE(mount->OpenRandom(io, work), kNotFound);
      CHECK(mount->url() == before);
    }
  }

  SUBCASE("what is no file is refused without hanging") {
    for (const auto& make : test.not_files) {
      const std::unique_ptr<Mount> mount = make();
      CHECK_CODE(mount->Stat(io, work), kInvalidArgument);
      CHECK_CODE(mount->OpenStream(io, work), kInvalidArgument);
      if (mount->traits().random) CHECK_CODE(mount->OpenRandom(io, work), kInvalidArgument);
    }
  }

  SUBCASE("a stop and a deadline end every call, also in the middle of a stream") {
    const std::unique_ptr<Mount> mount = test.put(content);
    CancelFlag stop;
    FakeClock clock;
    const WorkContext stopped = {.cancel = &stop};
    const WorkContext late = {.clock = &clock,
                              .deadline = Deadline::After(clock, absl::Seconds(1))};
    for (const auto& [context, code] : {std::pair(stopped, absl::StatusCode::kCancelled),
                                        std::pair(late, absl::StatusCode::kDeadlineExceeded)}) {
      const std::unique_ptr<ByteStream> stream = ValueOf(mount->OpenStream(io, context));
      uint8_t block[100];
      CHECK_EQ(ValueOf(stream->Next(sizeof(block), block)), sizeof(block));
      if (context.cancel != nullptr) {
        stop.Cancel();
      } else {
        clock.Advance(absl::Seconds(1));
      }
      CHECK(stream->Next(sizeof(block), block).status().code() == code);
      CHECK(mount->OpenStream(io, context).status().code() == code);
      CHECK(mount->Stat(io, context).status().code() == code);
      if (mount->traits().random) {
        CHECK(mount->OpenRandom(io, context).status().code() == code);
        CHECK(mount->OpenRandomIf(io, context, "v").status().code() == code);
      }
    }
  }

  // Whichever part ran, all it opened is closed.
  if (test.close_idle) test.close_idle();
  CHECK_EQ(DescriptorCount(), descriptors);
}

}  // namespace dagstore
