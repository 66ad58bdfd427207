#include "index/index_builder.h"

#include <map>

#include "shard/car_writer.h"
#include "tests/index/index_testing.h"

namespace dagstore {
namespace {

BuiltIndex Build(const std::string& name, IndexBuildOptions options = {}) {
  const auto reader = NewMemoryReader(ReadTestData(name));
  return ValueOf(BuildIndex(*reader, options, {}, {}));
}

absl::Status BuildStatus(const std::string& name, IndexBuildOptions options = {}) {
  const auto reader = NewMemoryReader(ReadTestData(name));
  return BuildIndex(*reader, options, {}, {}).status();
}

// A CAR of raw blocks "<i>" in memory.
Bytes CarOf(size_t count) {
  Bytes car = EncodeCarHeader({});
  for (size_t i = 0; i < count; ++i) {
    const std::string data = fmt::format("block {}", i);
    const Cid cid = ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan(data)));
    AppendBytes(car, EncodeSectionHead(cid.bytes(), data.size()));
    AppendBytes(car, AsSpan(data));
  }
  return car;
}

// Io on POSIX files that remembers what is open and fails on demand.
class WatchedIo final : public Io {
 public:
  absl::StatusOr<std::unique_ptr<RandomFile>> Open(const std::string& path, Follow follow) override {
    ++opens;
    return Posix().Open(path, follow);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    created.push_back(path);
    ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, Posix().Create(path));
    return std::make_unique<File>(*this, std::move(file));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path) override {
    return Posix().OpenForWriting(path);
  }
  absl::StatusOr<FileStat> Stat(const std::string& path, Follow follow) override { return Posix().Stat(path, follow); }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Step("rename"));
    return Posix().Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return Posix().Remove(path); }
  absl::Status MakeDir(const std::string& path) override { return Posix().MakeDir(path); }
  absl::Status SyncDir(const std::string& path) override {
    RETURN_IF_ERROR(Step("syncdir"));
    return Posix().SyncDir(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return Posix().List(path); }

  absl::Status Step(std::string_view what) {
    steps.emplace_back(what);
    if (steps.size() == fail_step) return ResourceExhausted("no space left on device");
    return absl::OkStatus();
  }

  std::vector<std::string> steps;    // what a fault can hit, in order
  size_t fail_step = 0;              // counted from 1; 0: none
  std::vector<std::string> created;
  size_t opens = 0;

 private:
  class File final : public WritableFile {
   public:
    File(WatchedIo& io, std::unique_ptr<WritableFile> inner) : io_(io), inner_(std::move(inner)) {}
    absl::Status Append(Span data) override {
      RETURN_IF_ERROR(io_.Step("append"));
      return inner_->Append(data);
    }
    absl::Status WriteAt(uint64_t offset, Span data) override { return inner_->WriteAt(offset, data); }
    absl::Status Sync() override {
      RETURN_IF_ERROR(io_.Step("sync"));
      return inner_->Sync();
    }
    absl::Status Close() override {
      RETURN_IF_ERROR(io_.Step("close"));
      return inner_->Close();
    }

   private:
    WatchedIo& io_;
    std::unique_ptr<WritableFile> inner_;
  };
};

IndexOutput FileOutput(Io& io, const TempDir& dir) {
  return {.io = &io, .dir = dir.path(), .name = "out.idx", .temp_name = "out.idx.tmp", .heap_bytes_max = 0};
}

Bytes Whole(const TempDir& dir, const std::string& name) {
  return ValueOf(ReadSmallFile(Io::Posix(), dir.File(name), 64 << 20));
}

TEST_CASE("index builder: entries come out sorted, whatever order they came in") {
  std::vector<OwnedEntry> entries = UniformEntries(3000);
  const BuiltIndex forward = BuildFrom(entries);
  std::mt19937_64 random(42);
  std::shuffle(entries.begin(), entries.end(), random);
  CHECK(BuildFrom(entries).heap == forward.heap);
}

TEST_CASE("index builder: putting entries aside changes nothing in the index") {
  std::vector<OwnedEntry> entries = UniformEntries(5000);
  for (size_t i = 0; i < entries.size(); i += 3) entries[i].digest = entries[i % 30].digest;  // runs share digests
  for (size_t i = 0; i < entries.size(); i += 11) {
    entries[i].code = kIdentity;
    entries[i].digest.resize(i % 20);
  }
  const Bytes wanted = BuildFrom(entries).heap;
  // From several runs to a run for every few entries, where a window holds less than a run or more.
  for (size_t memory : {200'000, 20'000, 2'000, 200}) {
    INFO(memory);
    TempDir dir;
    WatchedIo io;
    IndexOutput output = FileOutput(io, dir);
    output.heap_bytes_max = 10 << 20;
    {
      IndexBuilder builder(output, memory);
      for (const OwnedEntry& entry : entries) REQUIRE_STATUS_OK(builder.Add(entry.view()));
      CHECK_GE(builder.runs(), 5000 * 40 / memory);
      BuiltIndex built = ValueOf(builder.Finish({}, SummaryOf(entries)));
      CHECK_FALSE(built.in_file);
      CHECK(built.heap == wanted);
    }
    CHECK(ValueOf(io.List(dir.path())).empty());
    CHECK_EQ(io.created.size(), 1);  // all runs share a file
  }
}

TEST_CASE("index builder: with a helper the index is the same, byte for byte") {
  std::vector<OwnedEntry> entries = UniformEntries(100'000);
  for (size_t i = 0; i < 40'000; ++i)
    entries.push_back({.code = kSha2_512, .digest = Bytes(64, static_cast<uint8_t>(i)), .offset = 1'000'000'000 + i});
  const BuiltIndex alone = BuildFrom(entries);
  const auto helper = BuildHelper::Start();
  REQUIRE(helper != nullptr);
  IndexBuilder builder({});
  for (const OwnedEntry& entry : entries) REQUIRE_STATUS_OK(builder.Add(entry.view()));
  const BuiltIndex helped = ValueOf(builder.Finish({}, SummaryOf(entries), helper.get()));
  CHECK_EQ(helped.checksum, alone.checksum);
  CHECK(helped.heap == alone.heap);
  CHECK_STATUS_OK(ValueOf(OpenNativeIndex(helped.heap))->CheckAll());
}

TEST_CASE("index builder: a large index is published as a file, a small one is bytes") {
  TempDir dir;
  IndexOutput output = FileOutput(Io::Posix(), dir);
  const std::vector<OwnedEntry> entries = UniformEntries(2000);
  const Bytes wanted = BuildFrom(entries).heap;
  output.heap_bytes_max = wanted.size();
  const BuiltIndex small = BuildFrom(entries, output);
  CHECK_FALSE(small.in_file);
  CHECK(small.heap == wanted);
  CHECK(ValueOf(Io::Posix().List(dir.path())).empty());

  output.heap_bytes_max = wanted.size() - 1;
  for (size_t memory : {IndexBuilder::kMemoryBytesMax, size_t{10'000}}) {
    const BuiltIndex large = BuildFrom(entries, output, memory);
    CHECK(large.in_file);
    CHECK(large.heap.empty());
    CHECK_EQ(large.bytes, wanted.size());
    CHECK_EQ(large.checksum, small.checksum);
    CHECK(Whole(dir, "out.idx") == wanted);
    CHECK(ValueOf(Io::Posix().List(dir.path())) == std::vector<std::string>{"out.idx"});
  }
}

TEST_CASE("index builder: the file is synced before it gets its name, and the folder after") {
  TempDir dir;
  WatchedIo io;
  BuildFrom(UniformEntries(100), FileOutput(io, dir));
  CHECK(io.steps == std::vector<std::string>{"append", "sync", "close", "rename", "syncdir"});
}

TEST_CASE("index builder: row 29: a fault at any step leaves neither index nor temporary") {
  const std::vector<OwnedEntry> entries = UniformEntries(2000);
  size_t steps = 1;
  for (size_t step = 1; step <= steps; ++step) {
    TempDir dir;
    WatchedIo io;
    io.fail_step = step;
    absl::Status status;
    {
      IndexBuilder builder(FileOutput(io, dir), 30'000);
      for (const OwnedEntry& entry : entries) {
        status = builder.Add(entry.view());
        if (!status.ok()) break;
      }
      if (status.ok()) status = builder.Finish({}, SummaryOf(entries)).status();
    }
    INFO(step, " ", io.steps.back());
    if (step == steps && status.ok()) break;  // all steps have failed once
    CHECK_CODE(status, kResourceExhausted);
    CHECK(ValueOf(io.List(dir.path())).empty());
    steps = step + 1;
  }
  CHECK_GE(steps, 8);
}

TEST_CASE("index builder: a file of runs that gives back other bytes is noticed") {
  TempDir dir;
  const std::vector<OwnedEntry> entries = UniformEntries(2000);
  IndexBuilder builder(FileOutput(Io::Posix(), dir), 30'000);
  for (const OwnedEntry& entry : entries) REQUIRE_STATUS_OK(builder.Add(entry.view()));
  REQUIRE_GT(builder.runs(), 2);
  {
    std::fstream file(dir.File("out.idx.tmp.runs"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(46 * 20 + 35);  // in the offset of an entry, so that the order stays
    file.put('\x55');
  }
  CHECK_CODE(builder.Finish({}, SummaryOf(entries)), kDataLoss);
  CHECK_CODE(Io::Posix().Stat(dir.File("out.idx")), kNotFound);
  CHECK_CODE(Io::Posix().Stat(dir.File("out.idx.tmp")), kNotFound);
}

TEST_CASE("index build: row 32: what the CAR is and how large it was stands in the summary") {
  const BuiltIndex v1 = Build("go-car/sample-v1.car");
  CHECK_EQ(v1.summary.entries, 1049);
  CHECK_EQ(v1.summary.identity_entries, 6);
  CHECK_EQ(v1.summary.payload_offset, 0);
  CHECK_EQ(v1.summary.payload_size, 479907);
  CHECK_EQ(v1.summary.source_size, 479907);
  CHECK_EQ(v1.summary.car_version, 1);
  CHECK_EQ(v1.summary.unverified, 0);
  CHECK(v1.summary.verified);
  REQUIRE_EQ(v1.roots.size(), 1);
  CHECK_EQ(v1.roots[0].ToText(), "bafy2bzaced4ueelaegfs5fqu4tzsh6ywbbpfk3cxppupmxfdhbpbhzawfw5oy");

  const BuiltIndex v2 = Build("go-car/sample-wrapped-v2.car");
  CHECK_EQ(v2.summary.payload_offset, 51);
  CHECK_EQ(v2.summary.payload_size, 479907);
  CHECK_EQ(v2.summary.source_size, 521708);
  CHECK_EQ(v2.summary.car_version, 2);
  // Offsets are of the payload, so the entries are the same ones.
  CHECK(AllOf(*ValueOf(OpenNativeIndex(v2.heap))) == AllOf(*ValueOf(OpenNativeIndex(v1.heap))));
}

TEST_CASE("index build: each entry leads to the section with its block") {
  const Bytes car = ReadTestData("kubo/lotus_devnet_genesis.car");
  const auto index = ValueOf(OpenNativeIndex(Build("kubo/lotus_devnet_genesis.car").heap));
  size_t seen = 0;
  for (const OwnedEntry& entry : AllOf(*index)) {
    CarSection section;
    REQUIRE_STATUS_OK(ParseSection(Span(car).subspan(entry.offset), car.size() - entry.offset, {}, section));
    CHECK(section.cid.hash == entry.view().hash);
    CHECK_EQ(section.cid.codec, entry.codec);
    CHECK_EQ(section.head_size, entry.head_size);
    CHECK_EQ(section.data_size, entry.data_size);
    CHECK(VerifyBlock(entry.view().hash, section.data) == HashCheck::kMatch);
    ++seen;
  }
  CHECK_EQ(seen, 149);
  CHECK_STATUS_OK(index->CheckAll());
}

TEST_CASE("index build: with and without hashing the entries are the same") {
  for (const char* name : {"go-car/sample-v1.car", "go-car/sample-rw-bs-v2.car", "atproto/dup-block.car",
                           "go-car/sample-v1-with-zero-len-section2.car", "ipld-spec/carv1-basic.car",
                           "kubo/combined_naked_roots_genesis_and_128.car"}) {
    INFO(name);
    const BuiltIndex hashed = Build(name);
    const BuiltIndex walked = Build(name, {.verify = false});
    CHECK(hashed.summary.verified);
    CHECK_FALSE(walked.summary.verified);
    CHECK_EQ(hashed.summary.payload_size, walked.summary.payload_size);
    CHECK(AllOf(*ValueOf(OpenNativeIndex(hashed.heap))) == AllOf(*ValueOf(OpenNativeIndex(walked.heap))));
  }
}

TEST_CASE("index build: a block that occurs twice has two offsets") {
  const auto index = ValueOf(OpenNativeIndex(Build("atproto/dup-block.car").heap));
  CHECK_EQ(index->summary().entries, 10);
  std::map<Bytes, std::vector<uint64_t>> offsets;
  for (const OwnedEntry& entry : AllOf(*index)) offsets[entry.digest].push_back(entry.offset);
  CHECK_EQ(offsets.size(), 9);
  for (const auto& [digest, at] : offsets) {
    const std::vector<OwnedEntry> found = FoundIn(*index, {kSha2_256, digest});
    REQUIRE_EQ(found.size(), at.size());
    CHECK(std::is_sorted(at.begin(), at.end()));
  }
}

TEST_CASE("index build: padding behind a zero length is no part of the payload") {
  const BuiltIndex built = Build("go-car/sample-v1-with-zero-len-section2.car");
  CHECK_EQ(built.summary.entries, 20);
  CHECK_LT(built.summary.payload_size, built.summary.source_size);
  CHECK_EQ(built.summary.source_size, 32512);
  CHECK_CODE(BuildStatus("go-car/sample-v1-with-zero-len-section2.car", {.car = {.zero_length_as_end = false}}),
             kDataLoss);
}

TEST_CASE("index build: a block that does not match its CID is named, with its place") {
  const absl::Status status = BuildStatus("nft.storage/corrupt.car");
  CHECK_CODE(status, kDataLoss);
  CHECK_EQ(Message(status),
           "block bafk2bzaceda5oo2f5wmcwfmqbqkxzdwzszc2bhqnj4lpygliqna7bmbkmzwh4 at payload byte 287 does not match "
           "its CID");
  CHECK_CODE(BuildStatus("go-car/fuzz-FuzzReader-fe93cec1.bin"), kDataLoss);
  // Not looked at, not noticed: that is what the option says.
  CHECK_EQ(Build("nft.storage/corrupt.car", {.verify = false}).summary.entries, 7);
  CHECK_EQ(Build("go-car/fuzz-FuzzReader-fe93cec1.bin", {.verify = false}).summary.entries, 3);
}

TEST_CASE("index build: an identity section is checked against its CID") {
  Bytes car = EncodeCarHeader({});
  const Cid cid = Cid::V1(kCodecRaw, {kIdentity, AsSpan("inline")});
  AppendBytes(car, EncodeSectionHead(cid.bytes(), 6));
  Bytes good = car, bad = car;
  AppendBytes(good, AsSpan("inline"));
  AppendBytes(bad, AsSpan("online"));
  const BuiltIndex built = ValueOf(BuildIndex(*NewMemoryReader(good), {}, {}, {}));
  CHECK_EQ(built.summary.entries, 1);
  CHECK_EQ(built.summary.identity_entries, 1);
  CHECK_CODE(BuildIndex(*NewMemoryReader(bad), {}, {}, {}), kDataLoss);
}

TEST_CASE("index build: blocks of unknown hash functions are counted, not refused") {
  Bytes car = EncodeCarHeader({});
  const Cid cid = Cid::V1(kCodecFilCommitmentUnsealed, {0x1012, Bytes(32, 5)});
  AppendBytes(car, EncodeSectionHead(cid.bytes(), 3));
  AppendBytes(car, AsSpan("abc"));
  const BuiltIndex built = ValueOf(BuildIndex(*NewMemoryReader(car), {}, {}, {}));
  CHECK_EQ(built.summary.entries, 1);
  CHECK_EQ(built.summary.unverified, 1);
  CHECK(built.summary.verified);
}

TEST_CASE("index build: every truncation of a CAR is an error, or ends at a section") {
  const Bytes car = CarOf(20);
  for (const bool verify : {true, false}) {
    size_t accepted = 0;
    for (size_t size = 0; size < car.size(); ++size) {
      const auto built = BuildIndex(*NewMemoryReader(Span(car).first(size)), {.verify = verify}, {}, {});
      if (built.ok()) {
        ++accepted;
        CHECK_EQ(built->summary.payload_size, size);
      } else {
        CHECK(absl::IsDataLoss(built.status()));
      }
    }
    CHECK_EQ(accepted, 20);  // nothing but the header, and after each of the first 19 sections
  }
}

TEST_CASE("index build: a cancelled or late build ends between batches") {
  const auto reader = NewMemoryReader(CarOf(100'000));
  for (const bool verify : {true, false}) {
    CancelFlag cancel;
    uint64_t calls = 0;
    const auto built = BuildIndex(*reader, {.verify = verify}, {}, {.cancel = &cancel},
                                  [&](uint64_t, uint64_t, uint64_t blocks) {
                                    ++calls;
                                    CHECK_LT(blocks, 100'000);
                                    cancel.Cancel();
                                  });
    CHECK_CODE(built, kCancelled);
    CHECK_EQ(calls, 1);
  }
  const WorkContext late{.clock = &Clock::Real(), .deadline = Deadline::At(Clock::Real().Now() - 1)};
  CHECK_CODE(BuildIndex(*reader, {}, {}, late), kDeadlineExceeded);
}

// Bytes that are not in memory as far as the reader can tell.
class Opaque final : public RandomReader {
 public:
  explicit Opaque(Span bytes) : bytes_(bytes) {}
  uint64_t Size() const override { return bytes_.size(); }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    const Span from = bytes_.subspan(std::min<uint64_t>(offset, bytes_.size()));
    size = std::min(size, from.size());
    if (size != 0) std::memcpy(out, from.data(), size);
    return size;
  }

 private:
  const Span bytes_;
};

// 20 MiB: sections of a few bytes, of 64 KiB, of 5 MiB (larger than a window) and none at all; padding at the end.
Bytes LargeCar(uint64_t& payload_end, std::vector<uint64_t>& borders) {
  Bytes car = EncodeCarHeader({ValueOf(Cid::FromText("bafkqaaa"))});
  std::mt19937_64 random(7);
  const size_t kSizes[] = {0, 17, 64 << 10, 300, 5 << 20, 64 << 10, 1 << 20, 3};
  for (size_t i = 0; car.size() < 20 << 20; ++i) {
    Bytes data(kSizes[i % 8]);
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    const Cid cid = ValueOf(Cid::Of(kCodecRaw, i % 3 == 0 ? kBlake2b256 : kSha2_256, data));
    borders.push_back(car.size());
    AppendBytes(car, EncodeSectionHead(cid.bytes(), data.size()));
    AppendBytes(car, data);
  }
  payload_end = car.size();
  borders.push_back(car.size());
  car.resize(car.size() + 1000);
  return car;
}

TEST_CASE("index build: with a second thread the index is the same, and so are the errors") {
  uint64_t payload_end = 0;
  std::vector<uint64_t> borders;
  const Bytes car = LargeCar(payload_end, borders);
  const auto build = [&](Span bytes, bool second_thread) {
    return BuildIndex(Opaque(bytes), {.second_thread = second_thread}, {}, {});
  };
  const BuiltIndex one = ValueOf(build(car, false));
  const BuiltIndex two = ValueOf(build(car, true));
  CHECK(one.heap == two.heap);
  CHECK_EQ(two.summary.payload_size, payload_end);
  CHECK_EQ(two.summary.source_size, car.size());
  CHECK_EQ(two.summary.entries, borders.size() - 1);

  // A flipped bit in the data of the first, a middle and the last block with data.
  for (size_t i : {size_t{1}, borders.size() / 2, borders.size() - 2}) {
    while (borders[i + 1] - borders[i] < 50) --i;
    Bytes bad = car;
    bad[borders[i + 1] - 1] ^= 1;
    const absl::Status status = build(bad, true).status();
    CHECK_CODE(status, kDataLoss);
    CHECK_EQ(Message(status), Message(build(bad, false).status()));
  }
  // Cut off: exactly at a section, inside of a head, inside of data.
  for (uint64_t size : {borders[borders.size() - 4], borders[borders.size() - 4] + 1, borders[borders.size() - 4] + 20,
                        payload_end - 1, payload_end}) {
    const auto a = build(Span(car).first(size), false);
    const auto b = build(Span(car).first(size), true);
    REQUIRE_EQ(ToString(a.status()), ToString(b.status()));
    if (a.ok()) CHECK(a->heap == b->heap);
  }
  CHECK_CODE(BuildIndex(Opaque(car), {.car = {.zero_length_as_end = false}}, {}, {}), kDataLoss);
  CHECK_CODE(BuildIndex(Opaque(car), {.car = {.section_bytes_max = 4 << 20}}, {}, {}), kFailedPrecondition);
  CancelFlag cancel;
  CHECK_CODE(
      BuildIndex(Opaque(car), {}, {}, {.cancel = &cancel}, [&](uint64_t, uint64_t, uint64_t) { cancel.Cancel(); }),
      kCancelled);
}

TEST_CASE("index build: progress grows to the whole payload") {
  const Bytes car = CarOf(50'000);
  for (const bool verify : {true, false}) {
    uint64_t last_bytes = 0, last_blocks = 0;
    const BuiltIndex built = ValueOf(BuildIndex(*NewMemoryReader(Span(car)), {.verify = verify}, {}, {},
                                                [&](uint64_t done, uint64_t total, uint64_t blocks) {
                                                  CHECK_GE(done, last_bytes);
                                                  CHECK_GE(blocks, last_blocks);
                                                  CHECK_EQ(total, car.size());
                                                  last_bytes = done;
                                                  last_blocks = blocks;
                                                }));
    CHECK_EQ(last_bytes, car.size());
    CHECK_EQ(last_blocks, 50'000);
    CHECK_EQ(built.summary.entries, 50'000);
  }
}

}  // namespace
}  // namespace dagstore
