#include "index/car_index.h"

#include <functional>

#include "shard/car_writer.h"
#include "tests/index/index_testing.h"

namespace dagstore {
namespace {

using absl::StatusCode;

std::shared_ptr<const ShardIndex> IndexOfCar(Span car) {
  const auto reader = NewMemoryReader(car);
  return ValueOf(OpenNativeIndex(ValueOf(BuildIndex(*reader, {}, {}, {})).heap));
}

std::shared_ptr<const ShardIndex> IndexOfFile(const std::string& name) { return IndexOfCar(ReadTestData(name)); }

Bytes EmbeddedIndex(Span car) {
  const uint64_t offset = Load64(car.data() + 43);
  return Bytes(car.begin() + offset, car.end());
}

absl::StatusOr<BuiltIndex> Use(Span car, const IndexOutput& output = {}) {
  const auto reader = NewMemoryReader(car);
  return UseEmbeddedIndex(*reader, {}, output, {});
}

// A CARv2 of `payload` with `index` behind it.
Bytes CarV2(const Bytes& payload, Span index, bool fully_indexed = false) {
  Bytes car = EncodeCarV2Header({.data_size = payload.size(), .index_offset = 51 + payload.size(),
                                 .fully_indexed = fully_indexed});
  AppendBytes(car, payload);
  AppendBytes(car, index);
  return car;
}

TEST_CASE("car index: files of go-car come back byte for byte") {
  for (const char* name : {"go-car/sample-index.carindex", "go-car/sample-multihash-index-sorted.carindex"}) {
    INFO(name);
    const Bytes bytes = ReadTestData(name);
    const CarIndexView view = ValueOf(ParseCarIndex(bytes, 479907));
    CHECK(EncodeCarIndex(view) == bytes);
  }
  const CarIndexView sorted = ValueOf(ParseCarIndex(ReadTestData("go-car/sample-index.carindex")));
  CHECK_EQ(sorted.codec, kCodecCarIndexSorted);
  CHECK_EQ(sorted.entries, 1049);
  CHECK_EQ(sorted.buckets.size(), 5);
  const CarIndexView multihash = ValueOf(ParseCarIndex(ReadTestData("go-car/sample-multihash-index-sorted.carindex")));
  CHECK_EQ(multihash.codec, kCodecCarMultihashIndexSorted);
  CHECK_EQ(multihash.entries, 1043);
  REQUIRE_EQ(multihash.buckets.size(), 1);
  CHECK_EQ(multihash.buckets[0].code, kBlake2b256);
}

TEST_CASE("car index: exports of sample-v1.car equal what go-car wrote for it") {
  const auto index = IndexOfFile("go-car/sample-v1.car");
  CHECK(ValueOf(EncodeCarIndex(*index, kCodecCarMultihashIndexSorted, Identities::kLeaveOut)) ==
        ReadTestData("go-car/sample-multihash-index-sorted.carindex"));
  CHECK(ValueOf(EncodeCarIndex(*index, kCodecCarMultihashIndexSorted, Identities::kLeaveOut)) ==
        EmbeddedIndex(ReadTestData("go-car/sample-wrapped-v2.car")));
  CHECK(ValueOf(EncodeCarIndex(*index, kCodecCarIndexSorted, Identities::kInclude)) ==
        ReadTestData("go-car/sample-index.carindex"));
}

TEST_CASE("car index: exports equal the indexes that CARv2 files carry") {
  const struct {
    const char* name;
    Identities identities;
  } kFiles[] = {
      {"go-car/sample-unixfs-v2.car", Identities::kLeaveOut},
      {"go-car/sample-rw-bs-v2.car", Identities::kLeaveOut},
      {"kubo/TestDagStatCARv2.car", Identities::kLeaveOut},
      // Written by an older go-car: identity CIDs are in it though the fully-indexed bit is not set.
      {"kubo/lotus_devnet_genesis_v2.car", Identities::kInclude},
  };
  for (const auto& file : kFiles) {
    INFO(file.name);
    const Bytes car = ReadTestData(file.name);
    CHECK(ValueOf(EncodeCarIndex(*IndexOfCar(car), kCodecCarMultihashIndexSorted, file.identities)) ==
          EmbeddedIndex(car));
  }
}

TEST_CASE("car index: 0x0400 puts the functions of one digest length together, in order") {
  std::vector<OwnedEntry> entries = UniformEntries(300);
  for (size_t i = 0; i < entries.size(); ++i) entries[i].code = i % 2 == 0 ? kSha2_256 : kBlake3;
  entries[7].digest = entries[8].digest;  // by two functions: the offset decides
  const Bytes bytes = ValueOf(EncodeCarIndex(*IndexOf(entries), kCodecCarIndexSorted, Identities::kInclude));
  const CarIndexView view = ValueOf(ParseCarIndex(bytes));
  REQUIRE_EQ(view.buckets.size(), 1);
  CHECK_EQ(view.entries, 300);
  for (uint64_t i = 1; i < view.entries; ++i) {
    const int order = CompareBytes(view.buckets[0].digest(i - 1), view.buckets[0].digest(i));
    CHECK((order < 0 || (order == 0 && view.buckets[0].offset(i - 1) < view.buckets[0].offset(i))));
  }
}

TEST_CASE("car index: an empty shard has an empty index, of either kind") {
  const auto index = IndexOf({});
  const Bytes sorted = ValueOf(EncodeCarIndex(*index, kCodecCarIndexSorted, Identities::kInclude));
  const Bytes multihash = ValueOf(EncodeCarIndex(*index, kCodecCarMultihashIndexSorted, Identities::kInclude));
  CHECK_EQ(ToHex(sorted), "800800000000");
  CHECK_EQ(ToHex(multihash), "810800000000");
  CHECK_EQ(ValueOf(ParseCarIndex(sorted)).entries, 0);
  CHECK_EQ(ValueOf(ParseCarIndex(multihash)).entries, 0);
  CHECK_CODE(EncodeCarIndex(*index, 0x0402, Identities::kInclude), kUnimplemented);
}

// ---- Malformed ----

// A well-formed 0x0401: code 0x12 with two entries of width 12 and one of width 40; the cases change it.
Bytes SmallIndex() {
  return ValueOf(FromHex("8108" "01000000" "1200000000000000" "02000000"
                         "0c000000" "1800000000000000" "0a0b0c0d" "3b00000000000000" "0a0b0c0e" "6000000000000000"
                         "28000000" "2800000000000000"
                         "cbce12cbce12cbce12cbce12cbce12cbce12cbce12cbce12cbce12cbce12cbce" "6c00000000000000"));
}
constexpr size_t kCodes = 2, kCode = 6, kBuckets = 14, kWidth = 18, kLength = 22, kEntry0 = 30, kEntry1 = 42,
                 kWidth2 = 54, kLength2 = 58;

TEST_CASE("car index: every malformed class is refused, with the reason") {
  REQUIRE_STATUS_OK(ParseCarIndex(SmallIndex(), 1000));
  const struct {
    const char* what;
    std::function<void(Bytes&)> change;
    StatusCode code = StatusCode::kDataLoss;
  } kCases[] = {
      {"no codec", [](Bytes& b) { b.clear(); }},
      {"codec not minimal", [](Bytes& b) { b.insert(b.begin() + 1, {0x88}); b[2] = 0x00; }},
      {"unknown codec", [](Bytes& b) { b[0] = 0x82; }, StatusCode::kUnimplemented},
      {"no codec varint, as in the example of the CARv2 specification",
       [](Bytes& b) { b = ValueOf(FromHex("01000000280000002800000000000000")); }, StatusCode::kUnimplemented},
      {"negative codes", [](Bytes& b) { Store32(&b[kCodes], 0xffffffff); }},
      {"huge codes", [](Bytes& b) { Store32(&b[kCodes], 0x7fffffff); }},
      {"one code too many", [](Bytes& b) { Store32(&b[kCodes], 2); }},
      {"one code too few", [](Bytes& b) { Store32(&b[kCodes], 0); }},
      {"negative buckets", [](Bytes& b) { Store32(&b[kBuckets], 0x80000000); }},
      {"huge buckets", [](Bytes& b) { Store32(&b[kBuckets], 0x7fffffff); }},
      {"one bucket too many", [](Bytes& b) { Store32(&b[kBuckets], 3); }},
      {"one bucket too few", [](Bytes& b) { Store32(&b[kBuckets], 1); }},
      {"a code without buckets", [](Bytes& b) { Store32(&b[kBuckets], 0); b.resize(kWidth); }},
      {"width 0", [](Bytes& b) { Store32(&b[kWidth], 0); }},
      {"width 7", [](Bytes& b) { Store32(&b[kWidth], 7); }},
      {"huge width", [](Bytes& b) { Store32(&b[kWidth], 32 << 20); }},
      {"negative width", [](Bytes& b) { Store32(&b[kWidth], 0xfffffff8); }},
      {"length no multiple of the width", [](Bytes& b) { Store64(&b[kLength], 23); }},
      {"length zero", [](Bytes& b) { Store64(&b[kLength], 0); }},
      {"length past the end", [](Bytes& b) { Store64(&b[kLength], 12 * 1000); }},
      {"negative length", [](Bytes& b) { Store64(&b[kLength], ~uint64_t{0} / 12 * 12); }},
      {"unsorted digests", [](Bytes& b) { b[kEntry1] = 0x09; }},
      {"repeated width",
       [](Bytes& b) { Store32(&b[kWidth2], 12); Store64(&b[kLength2], 36); b.resize(kLength2 + 44); }},
      {"descending width", [](Bytes& b) { Store32(&b[kWidth2], 10); Store64(&b[kLength2], 40); }},
      {"offset outside the payload", [](Bytes& b) { Store64(&b[kEntry0 + 4], 1000); }},
      {"negative offset", [](Bytes& b) { Store64(&b[kEntry0 + 4], ~uint64_t{0}); }},
      {"a trailing byte", [](Bytes& b) { b.push_back(0); }},
      {"repeated code", [](Bytes& b) {
         const Bytes code(b.begin() + kCode, b.end());
         AppendBytes(b, code);
         Store32(&b[kCodes], 2);
       }},
      {"descending code", [](Bytes& b) {
         const Bytes code(b.begin() + kCode, b.end());
         const size_t second = b.size();
         AppendBytes(b, code);
         Store64(&b[second], 0x11);
         Store32(&b[kCodes], 2);
       }},
  };
  for (const auto& c : kCases) {
    INFO(c.what);
    Bytes bytes = SmallIndex();
    c.change(bytes);
    const auto parsed = ParseCarIndex(bytes, 1000);
    CHECK_EQ(static_cast<int>(parsed.status().code()), static_cast<int>(c.code));
  }
}

TEST_CASE("car index: every truncation is refused") {
  for (const Bytes& whole : {SmallIndex(), EmbeddedIndex(ReadTestData("kubo/lotus_devnet_genesis_v2.car"))}) {
    for (size_t size = 0; size < whole.size(); ++size)
      REQUIRE(absl::IsDataLoss(ParseCarIndex(Span(whole).first(size)).status()));
  }
}

TEST_CASE("car index: width 8 is the empty identity digest") {
  OwnedEntry empty{.code = kIdentity, .offset = 18, .head_size = 5, .data_size = 0};
  const Bytes bytes = ValueOf(EncodeCarIndex(*IndexOf({empty}), kCodecCarMultihashIndexSorted, Identities::kInclude));
  const CarIndexView view = ValueOf(ParseCarIndex(bytes));
  REQUIRE_EQ(view.buckets.size(), 1);
  CHECK_EQ(view.buckets[0].digest_size, 0);
  CHECK_EQ(view.buckets[0].offset(0), 18);
}

TEST_CASE("car index: more buckets than can be meant are refused") {
  // Codes of the least size: the list of buckets must not outgrow its input.
  Bytes bytes;
  AppendVarint(bytes, kCodecCarMultihashIndexSorted);
  Append32(bytes, 5000);
  for (uint64_t code = 0; code < 5000; ++code) {
    Append64(bytes, code);
    Append32(bytes, 1);
    Append32(bytes, 8);
    Append64(bytes, 8);
    Append64(bytes, 18);
  }
  CHECK_CODE(ParseCarIndex(bytes), kResourceExhausted);
}

// ---- Embedded ----

TEST_CASE("embedded index: row 49: real files are accepted after a walk, and give the index of the walk") {
  for (const char* name : {"go-car/sample-wrapped-v2.car", "go-car/sample-unixfs-v2.car", "go-car/sample-rw-bs-v2.car",
                           "kubo/TestDagStatCARv2.car", "kubo/lotus_devnet_genesis_v2.car"}) {
    INFO(name);
    const Bytes car = ReadTestData(name);
    const BuiltIndex used = ValueOf(Use(car));
    CHECK_FALSE(used.summary.verified);
    // Identity CIDs are in ours, whether they are in the embedded one or not.
    CHECK(AllOf(*ValueOf(OpenNativeIndex(used.heap))) == AllOf(*IndexOfCar(car)));
  }
}

TEST_CASE("embedded index: files without a usable one say why, and their payload is still readable") {
  CHECK_CODE(Use(ReadTestData("go-car/sample-v1.car")), kNotFound);
  const Bytes spec = ReadTestData("ipld-spec/carv2-basic.car");  // its index predates the codec varint
  CHECK_CODE(Use(spec), kUnimplemented);
  CHECK_EQ(IndexOfCar(spec)->summary().entries, 5);
  CHECK_CODE(Use(ReadTestData("go-car/fuzz-FuzzReader-fe93cec1.bin")), kDataLoss);  // a negative count
}

TEST_CASE("embedded index: row 49: one that does not tell the truth of the payload is refused") {
  const Bytes original = ReadTestData("go-car/sample-wrapped-v2.car");
  const Bytes payload(original.begin() + 51, original.begin() + 51 + 479907);
  const Bytes good = EmbeddedIndex(original);
  const auto index = IndexOfCar(payload);
  const std::vector<OwnedEntry> all = AllOf(*index);
  std::vector<OwnedEntry> some;
  for (const OwnedEntry& entry : all)
    if (entry.code != kIdentity) some.push_back(entry);
  const auto encode = [](const std::vector<OwnedEntry>& entries) {
    return ValueOf(EncodeCarIndex(*IndexOf(entries), kCodecCarMultihashIndexSorted, Identities::kInclude));
  };
  REQUIRE(encode(some) == good);
  CHECK_STATUS_OK(Use(CarV2(payload, good)));
  CHECK_STATUS_OK(Use(CarV2(payload, encode(all))));
  CHECK_STATUS_OK(Use(CarV2(payload, encode(all), true)));
  CHECK_STATUS_OK(Use(CarV2(payload, ReadTestData("go-car/sample-index.carindex"), true)));

  const struct {
    const char* what;
    std::function<void(std::vector<OwnedEntry>&)> change;
  } kCases[] = {
      {"an entry is missing", [](auto& e) { e.pop_back(); }},
      {"an entry too many", [](auto& e) { e.push_back(e[0]), e.back().offset += 1; }},
      {"one missing, one twice", [](auto& e) { e[5] = e[6], e[5].offset += 1; }},
      {"offset in the middle of a section", [](auto& e) { e[100].offset += 1; }},
      {"offset of the header", [](auto& e) { e[100].offset = 0; }},
      {"offset of another block", [](auto& e) { std::swap(e[100].offset, e[101].offset); }},
      {"digest that is not there", [](auto& e) { e[100].digest[31] ^= 1; }},
      {"another function", [](auto& e) { e[100].code = kSha2_256; }},
  };
  for (const auto& c : kCases) {
    INFO(c.what);
    std::vector<OwnedEntry> entries = some;
    c.change(entries);
    CHECK_CODE(Use(CarV2(payload, encode(entries))), kDataLoss);
  }
  // Fully indexed, it says, but identity CIDs are missing.
  CHECK_CODE(Use(CarV2(payload, good, true)), kDataLoss);
  // Some of the identity CIDs: neither way of indexing.
  std::vector<OwnedEntry> partly = all;
  partly.erase(partly.begin());
  CHECK_CODE(Use(CarV2(payload, encode(partly))), kDataLoss);
}

TEST_CASE("embedded index: the order of duplicates is the writer's choice") {
  const Bytes payload = ReadTestData("atproto/dup-block.car");
  const auto index = IndexOfCar(payload);
  Bytes bytes = ValueOf(EncodeCarIndex(*index, kCodecCarMultihashIndexSorted, Identities::kInclude));
  const CarIndexView view = ValueOf(ParseCarIndex(bytes));
  const CarIndexBucket& bucket = view.buckets[0];
  uint64_t twice = 1;
  while (!SameBytes(bucket.digest(twice - 1), bucket.digest(twice))) ++twice;
  const uint64_t first = bucket.offset(twice - 1), second = bucket.offset(twice);
  uint8_t* entries = bytes.data() + (bucket.entries.data() - bytes.data());
  Store64(entries + (twice - 1) * 40 + 32, second);
  Store64(entries + twice * 40 + 32, first);
  CHECK_STATUS_OK(Use(CarV2(payload, bytes)));
  // Both at one place is another thing.
  Store64(entries + twice * 40 + 32, second);
  CHECK_CODE(Use(CarV2(payload, bytes)), kDataLoss);
}

TEST_CASE("embedded index: a refused one leaves no file") {
  TempDir dir;
  const IndexOutput output{.io = &Io::Posix(), .dir = dir.path(), .name = "x.idx", .temp_name = "x.tmp",
                           .heap_bytes_max = 0};
  Bytes car = ReadTestData("go-car/sample-wrapped-v2.car");
  CHECK(ValueOf(Use(car, output)).in_file);
  CHECK(ValueOf(Io::Posix().List(dir.path())) == std::vector<std::string>{"x.idx"});
  car.back() ^= 1;         // of the last offset: now far outside
  CHECK_CODE(Use(car, output), kDataLoss);
  car.back() ^= 1;
  car[car.size() - 8] ^= 1;  // and now one byte off
  CHECK_CODE(Use(car, output), kDataLoss);
  CHECK(ValueOf(Io::Posix().List(dir.path())).empty());
}

TEST_CASE("embedded index: one above the limit is not read") {
  const auto reader = NewMemoryReader(ReadTestData("go-car/sample-wrapped-v2.car"));
  CHECK_CODE(UseEmbeddedIndex(*reader, {}, {}, {}, {}, 41749), kResourceExhausted);
  CHECK_STATUS_OK(UseEmbeddedIndex(*reader, {}, {}, {}, {}, 41750));
}

}  // namespace
}  // namespace dagstore
