#include "shard/car_reader.h"

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "tests/shard/allocations.h"
#include "tests/shard/car_testing.h"

namespace dagstore {
namespace {

using absl::StatusCode;

// A CAR of `count` sections of equal size that exists only as arithmetic, so that it can be larger
// than memory.
class HugeCar final : public RandomReader {
 public:
  HugeCar(uint64_t count, uint64_t data_size) : count_(count), header_(RootlessHeader()) {
    AppendVarint(head_, 36 + data_size);
    AppendBytes(head_, RawCid(7));
    section_size_ = head_.size() + data_size;
  }
  uint64_t Size() const override { return header_.size() + count_ * section_size_; }
  absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
    size = offset >= Size() ? 0 : std::min<uint64_t>(size, Size() - offset);
    for (size_t i = 0; i < size;) {
      const uint64_t at = offset + i;
      const uint64_t in_section = at < header_.size() ? 0 : (at - header_.size()) % section_size_;
      if (at < header_.size()) {
        out[i++] = header_[at];
      } else if (in_section < head_.size()) {
        out[i++] = head_[in_section];
      } else {
        const size_t n = std::min<uint64_t>(size - i, section_size_ - in_section);
        std::memset(out + i, 0x5a, n);
        i += n;
      }
    }
    ++reads_;
    bytes_read_ += size;
    return size;
  }
  uint64_t section_size() const { return section_size_; }
  uint64_t reads() const { return reads_; }
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  const uint64_t count_;
  const Bytes header_;
  Bytes head_;
  uint64_t section_size_;
  mutable uint64_t reads_ = 0;
  mutable uint64_t bytes_read_ = 0;
};

// Opens from memory and as a file; both must agree.
absl::Status OpenStatus(const Bytes& bytes, const CarOptions& options = {}) {
  const auto memory = NewMemoryReader(Span(bytes));
  const absl::Status status = CarReader::Open(*memory, options).status();
  CHECK_EQ(ToString(CarReader::Open(FileLikeReader(bytes), options).status()), ToString(status));
  return status;
}

// Walks in every way, from memory and as a file with several windows; all must agree. Gives the one
// by Next.
Walk WalkEveryWay(const Bytes& bytes, CarOptions options = {}) {
  const auto memory = NewMemoryReader(Span(bytes));
  const Walk first = WalkCar(*memory, Way::kNext, options);
  for (const size_t window : {size_t{0}, size_t{200}, size_t{1} << 20}) {
    options.window_bytes = window;
    for (const Way way : kWays) {
      for (const bool as_file : {false, true}) {
        CAPTURE(window);
        CAPTURE(static_cast<int>(way));
        CAPTURE(as_file);
        const FileLikeReader file(bytes);
        const Walk walk =
            WalkCar(as_file ? static_cast<const RandomReader&>(file) : *memory, way, options);
        CHECK_EQ(ToString(walk.status), ToString(first.status));
        CHECK_EQ(walk.opened, first.opened);
        CHECK_EQ(walk.position, first.position);
        CHECK_EQ(walk.padding, first.padding);
        CHECK(walk.sections == first.sections);
        for (const SeenSection& section : walk.sections) {
          const uint64_t data = walk.header.payload_offset + section.offset + section.head_size;
          REQUIRE_LE(data + section.data_size,
                     walk.header.payload_offset + walk.header.payload_size);
          if (way != Way::kNextHead)
            CHECK(SameBytes(section.data, Span(bytes).subspan(data, section.data_size)));
        }
      }
    }
  }
  return first;
}

Bytes Section(uint8_t fill, const Bytes& data) { return Framed(Join({RawCid(fill), data})); }

// {"version": 1} and roots that are `value`.
Bytes HeaderWithRoots(const Bytes& value) {
  return Framed(Join({Hex("a265726f6f7473"), value, Hex("6776657273696f6e01")}));
}

Bytes V2File(uint64_t data_offset, uint64_t data_size, uint64_t index_offset, const Bytes& rest,
             const Bytes& characteristics = Bytes(16)) {
  Bytes out(kCarV2Pragma.begin(), kCarV2Pragma.end());
  AppendBytes(out, characteristics);
  Append64(out, data_offset);
  Append64(out, data_size);
  Append64(out, index_offset);
  AppendBytes(out, rest);
  return out;
}

}  // namespace

TEST_CASE("car reader: malformed headers are DataLoss and name what is wrong") {
  const std::string root =
      "d82a582500015512200707070707070707070707070707070707070707070707070707070707070707";
  Bytes many_roots = Hex("991001");  // 4097
  for (int i = 0; i < 4097; ++i) AppendBytes(many_roots, Hex("d82a450001550000"));
  const struct {
    const char* name;
    Bytes bytes;
    const char* message;
  } kRows[] = {
      {"empty file", {}, "is empty"},
      {"length zero", Hex("00"), "length at file byte 0 is zero"},
      {"length zero before a header", Join({{0}, RootlessHeader()}),
       "length at file byte 0 is zero"},
      {"length over the limit", Hex("818040a0"), "has 1048577 bytes, more than 1048576"},
      {"length 2^40", Hex("808080808020a265726f6f7473"), "has 1099511627776 bytes"},
      {"length past the end", Hex("12a265726f6f7473806776657273696f6e01"),
       "truncated: 18 bytes declared, 17 left"},
      {"length cut", Hex("ff"), "length at file byte 0: varint is truncated"},
      {"length not minimal", Hex("9100a265726f6f7473806776657273696f6e01"),
       "varint is not minimal"},
      {"length of ten bytes", Hex("ffffffffffffffffff01"), "varint is longer than 9 bytes"},
      {"array", Framed(Hex("80")), "is not a map"},
      {"null", Hex("01f6"), "is not a map"},
      {"text", Framed(Hex("6161")), "is not a map"},
      {"empty map", Framed(Hex("a0")), "has no version"},
      {"no version", Hex("13a165726f6f747381d82a480001000003616263"), "has no version"},
      {"version text", Framed(Hex("a16776657273696f6e6131")),
       "version at file byte 10 is not an unsigned integer"},
      {"version negative", Framed(Hex("a16776657273696f6e20")), "is not an unsigned integer"},
      {"version float", Framed(Hex("a16776657273696f6efb3ff0000000000000")),
       "is not an unsigned integer"},
      {"version 0", Framed(Hex("a16776657273696f6e00")),
       "version 0 at file byte 10 is not supported"},
      {"version 42", Framed(Hex("a16776657273696f6e182a")),
       "version 42 at file byte 10 is not supported"},
      {"version 2 with roots", Framed(Hex("a265726f6f7473806776657273696f6e02")), "version 2 at"},
      {"version twice", Framed(Hex("a26776657273696f6e016776657273696f6e01")),
       "repeats the key version"},
      {"roots twice", Framed(Hex("a365726f6f74738065726f6f7473806776657273696f6e01")),
       "repeats the key roots"},
      {"roots a map", HeaderWithRoots(Hex("a0")), "roots at file byte 8 are not an array"},
      {"roots a CID", HeaderWithRoots(Hex(root)), "roots at file byte 8 are not an array"},
      {"root with tag 48", HeaderWithRoots(Hex("81d830450001550000")),
       "root 0 at file byte 9 is not a CID (tag 42)"},
      {"root without tag", HeaderWithRoots(Hex("81450001550000")),
       "root 0 at file byte 9 is not a CID (tag 42)"},
      {"root a text", HeaderWithRoots(Hex("81d82a6161")), "is not a byte string"},
      {"root without 0x00", HeaderWithRoots(Hex("81d82a4401550000")),
       "is not a byte string that begins with 0x00"},
      {"root of no bytes", HeaderWithRoots(Hex("81d82a40")),
       "is not a byte string that begins with 0x00"},
      {"root an empty CID", HeaderWithRoots(Hex("81d82a4100")), "root 0 at file byte 9"},
      {"root CID of version 2", HeaderWithRoots(Hex("81d82a450002550000")),
       "root 0 at file byte 9"},
      {"root CID cut", HeaderWithRoots(Hex("81d82a4700015512200707")), "root 0 at file byte 9"},
      {"root CID with more bytes", HeaderWithRoots(Hex("81d82a46000155000000")),
       "root 0 at file byte 9"},
      {"second root bad", HeaderWithRoots(Hex("82d82a45000155000001")), "root 1 at file byte 17"},
      {"roots cut", HeaderWithRoots(Hex("82d82a450001550000")), "root 1"},
      {"4097 roots", HeaderWithRoots(many_roots), "4097 roots, more than 4096"},
      {"2^60 roots declared", HeaderWithRoots(Hex("9b1000000000000000")),
       "declares 1152921504606846976 entries"},
      {"2^60 keys declared", Framed(Hex("bb1000000000000000")),
       "declares 1152921504606846976 entries"},
      {"indefinite map", Framed(Hex("bf65726f6f7473806776657273696f6e01ff")), "indefinite length"},
      {"indefinite roots", HeaderWithRoots(Hex("9fff")), "indefinite length"},
      {"key not text", Framed(Hex("a201006776657273696f6e01")), "key at file byte 2 is not text"},
      {"map cut", Framed(Hex("a265726f6f7473806776657273696f")), "CBOR"},
      {"extra value cut", Framed(Hex("a26776657273696f6e01616182")), "extra key"},
      {"extra value a deep nest",
       Framed(Join({Hex("a26776657273696f6e016161"), Bytes(1000, 0x81)})), "nested deeper"},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const absl::Status status = OpenStatus(row.bytes);
    CHECK_CODE(status, kDataLoss);
    CHECK_MESSAGE(ToString(status).find(row.message) != std::string::npos, ToString(status));
  }
}

TEST_CASE("car reader: unusual headers are read, and refused on demand") {
  const struct {
    const char* name;
    Bytes bytes;
    size_t roots;
    bool extra_keys;
    bool strict;  // accepted in strict mode
  } kRows[] = {
      {"canonical, no roots", RootlessHeader(), 0, false, true},
      {"identity root", Hex("1ca265726f6f747381d82a4800010000036162636776657273696f6e01"), 1, false,
       true},
      {"placeholder root bafkqaaa", HeaderWithRoots(Hex("81d82a450001550000")), 1, false, true},
      {"the same root twice", HeaderWithRoots(Hex("82d82a450001550000d82a450001550000")), 2, false,
       true},
      {"roots absent", Hex("0aa16776657273696f6e01"), 0, false, false},
      {"roots null", HeaderWithRoots(Hex("f6")), 0, false, false},
      {"extra key", Hex("22a364626c6970f565726f6f747381d82a4800010000036162636776657273696f6e01"),
       1, true, false},
      {"extra key with a nest",
       Framed(Hex("a3616181a161628101"
                  "65726f6f747380"
                  "6776657273696f6e01")),
       0, true, false},
      {"version before roots", Framed(Hex("a26776657273696f6e0165726f6f747380")), 0, false, false},
      {"trailing bytes", Framed(Hex("a265726f6f7473806776657273696f6e01ffff")), 0, false, false},
      {"map head not shortest", Framed(Hex("b80265726f6f7473806776657273696f6e01")), 0, false,
       false},
      {"version not shortest", Framed(Hex("a265726f6f7473806776657273696f6e1801")), 0, false,
       false},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const auto source = NewMemoryReader(Span(row.bytes));
    const auto reader = ValueOf(CarReader::Open(*source));
    CHECK_EQ(reader->header().version, 1);
    CHECK_EQ(reader->header().roots.size(), row.roots);
    CHECK_EQ(reader->header().extra_keys, row.extra_keys);
    CHECK_EQ(reader->header().first_section, row.bytes.size());
    CHECK_EQ(reader->header().payload_size, row.bytes.size());
    const absl::Status strict = OpenStatus(row.bytes, {.strict_header = true});
    if (row.strict) {
      CHECK_STATUS_OK(strict);
    } else {
      CHECK_CODE(strict, kDataLoss);
    }
    const Walk walk = WalkEveryWay(Join({row.bytes, Section(1, {1, 2, 3})}));
    CHECK_STATUS_OK(walk.status);
    CHECK_EQ(walk.sections.size(), 1);
  }
}

TEST_CASE("car reader: a header of exactly the limit is read, one byte more is not") {
  const Bytes header = RootlessHeader();  // 17 bytes after the length
  CHECK_STATUS_OK(OpenStatus(header, {.header_bytes_max = 17}));
  CHECK_CODE(OpenStatus(header, {.header_bytes_max = 16}), kDataLoss);
  const Bytes two = HeaderWithRoots(Hex("82d82a450001550000d82a450001550000"));
  CHECK_STATUS_OK(OpenStatus(two, {.roots_max = 2}));
  CHECK_CODE(OpenStatus(two, {.roots_max = 1}), kDataLoss);
  CHECK_STATUS_OK(OpenStatus(two, {.cid_bytes_max = 4}));
  CHECK_CODE(OpenStatus(two, {.cid_bytes_max = 3}), kDataLoss);
}

TEST_CASE("car reader: a header that claims 2^40 bytes allocates nothing") {
  const Bytes bytes = Hex("808080808020a265726f6f7473806776657273696f6e01");
  const FileLikeReader source(bytes);
  ForgetAllocations();
  const absl::Status status = CarReader::Open(source).status();
  const size_t largest = LargestAllocation();
  CHECK_CODE(status, kDataLoss);
  CHECK_LE(largest, 1024);  // the message
  CHECK_LE(source.bytes_read(), bytes.size());
}

TEST_CASE("car reader: a section that claims 2^40 bytes allocates no more than the file") {
  const Bytes bytes = Join({RootlessHeader(), Hex("808080808020"), RawCid(1)});
  for (const Way way : kWays) {
    const FileLikeReader source(bytes);
    ForgetAllocations();
    const Walk walk = WalkCar(source, way);
    const size_t largest = LargestAllocation();
    CHECK_CODE(walk.status, kDataLoss);
    CHECK_LE(largest, 2048);
  }
}

TEST_CASE(
    "car reader: malformed sections end the walk with an error, after what came before them") {
  const Bytes good = Section(1, {1, 2, 3});
  const CarOptions usual;
  const CarOptions no_padding = {.zero_length_as_end = false};
  const CarOptions small_sections = {.section_bytes_max = 100};
  const CarOptions small_cids = {.cid_bytes_max = 37};
  const struct {
    const char* name;
    Bytes tail;
    CarOptions options;
    StatusCode code;
    const char* message;
  } kRows[] = {
      {"length zero, not allowed", Hex("00"), no_padding, StatusCode::kDataLoss,
       "payload byte 58 has length zero"},
      {"padding, not allowed", Bytes(100), no_padding, StatusCode::kDataLoss,
       "payload byte 58 has length zero"},
      {"length zero, not minimal", Hex("8000"), usual, StatusCode::kDataLoss,
       "varint is not minimal"},
      {"length cut", Hex("a0"), usual, StatusCode::kDataLoss,
       "length at payload byte 58: varint is truncated"},
      {"length not minimal", Hex("a700"), usual, StatusCode::kDataLoss, "varint is not minimal"},
      {"length of ten bytes", Hex("ffffffffffffffffff01"), usual, StatusCode::kDataLoss,
       "longer than 9 bytes"},
      {"length 2^63 - 1", Hex("ffffffffffffffff7f"), usual, StatusCode::kDataLoss, "is truncated"},
      {"cut right after the length", Hex("27"), usual, StatusCode::kDataLoss,
       "39 bytes declared, 0 left"},
      {"cut in the CID", Hex("2701551220"), usual, StatusCode::kDataLoss,
       "39 bytes declared, 4 left"},
      {"cut by one byte", Hex("2701551220" + std::string(68, '0')), usual, StatusCode::kDataLoss,
       "38 left"},
      {"go-car's partial block", Hex("640000"), usual, StatusCode::kDataLoss,
       "100 bytes declared, 2 left"},
      {"over the limit", Section(2, Bytes(65)), small_sections, StatusCode::kFailedPrecondition,
       "101 bytes, more than"},
      {"over the limit and cut", Hex("e50701551220"), small_sections, StatusCode::kDataLoss,
       "is truncated"},
      {"shorter than its CID", Join({Hex("0a"), RawCid(2)}), usual, StatusCode::kDataLoss, "CID:"},
      {"one byte", Hex("0130"), usual, StatusCode::kDataLoss, "CID:"},
      {"v0 CID cut", Framed(Join({Hex("1220"), Bytes(31)})), usual, StatusCode::kDataLoss, "CID:"},
      {"v0 CID of 33 bytes", Framed(Join({Hex("1221"), Bytes(33)})), usual, StatusCode::kDataLoss,
       "CID:"},
      {"CID version 0", Framed(Join({Hex("00551220"), Bytes(32)})), usual, StatusCode::kDataLoss,
       "CID:"},
      {"CID version 2", Framed(Join({Hex("02551220"), Bytes(32)})), usual, StatusCode::kDataLoss,
       "CID:"},
      {"CID version 3", Framed(Join({Hex("03551220"), Bytes(32)})), usual, StatusCode::kDataLoss,
       "CID:"},
      {"CID version 48", Framed(Join({Hex("30551220"), Bytes(32)})), usual, StatusCode::kDataLoss,
       "CID:"},
      {"CID version not minimal", Framed(Join({Hex("8100551220"), Bytes(32)})), usual,
       StatusCode::kDataLoss, "CID:"},
      {"codec of ten bytes", Framed(Join({Hex("01ffffffffffffffffff011220"), Bytes(32)})), usual,
       StatusCode::kDataLoss, "CID:"},
      {"digest past the section", Framed(Join({Hex("01551221"), Bytes(32)})), usual,
       StatusCode::kDataLoss, "CID:"},
      {"digest past the section, more sections",
       Join({Framed(Join({Hex("01551240"), Bytes(32)})), good, good}), usual, StatusCode::kDataLoss,
       "CID:"},
      {"digest of 2^62 bytes", Framed(Hex("0155128080808080808080400000")), usual,
       StatusCode::kDataLoss, "CID:"},
      {"digest over the limit", Framed(Join({Hex("0155008110"), Bytes(2049)})), usual,
       StatusCode::kDataLoss, "CID:"},
      {"CID over its limit", Framed(Join({Hex("0155a0e40220"), Bytes(32)})), small_cids,
       StatusCode::kFailedPrecondition, "its CID has more than 37 bytes"},
      {"CID over the usual limit", Framed(Join({Hex("015500ff0f"), Bytes(2047)})), usual,
       StatusCode::kFailedPrecondition, "its CID has more than 2048 bytes"},
      {"garbage", Hex("deadbeef"), usual, StatusCode::kDataLoss, "payload byte 58"},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const Bytes bytes = Join({RootlessHeader(), good, row.tail});
    const Walk walk = WalkEveryWay(bytes, row.options);
    REQUIRE(walk.opened);
    CHECK_EQ(static_cast<int>(walk.status.code()), static_cast<int>(row.code));
    CHECK_MESSAGE(ToString(walk.status).find(row.message) != std::string::npos,
                  ToString(walk.status));
    CHECK_EQ(walk.sections.size(), 1);
    CHECK_EQ(walk.position, 58);
    CHECK_EQ(walk.padding, 0);
  }
}

TEST_CASE("car reader: unusual sections are read") {
  const Bytes long_identity = Join({Hex("015500f00f"), Bytes(2032, 9)});  // a CID of 2037 bytes
  const struct {
    const char* name;
    Bytes section;
    uint32_t head_size;
    uint32_t data_size;
    uint64_t codec;
    uint64_t hash_code;
  } kRows[] = {
      {"no data", Section(3, {}), 37, 0, kCodecRaw, kSha2_256},
      {"CIDv0", Framed(Join({Hex("1220"), Bytes(32), {5}})), 35, 1, kCodecDagPb, kSha2_256},
      {"CIDv0 without data", Framed(Join({Hex("1220"), Bytes(32)})), 35, 0, kCodecDagPb, kSha2_256},
      {"blake2b-256", Framed(Join({Hex("0171a0e40220"), Bytes(32), {5}})), 39, 1, kCodecDagCbor,
       kBlake2b256},
      {"empty identity", Framed(Hex("01550000")), 5, 0, kCodecRaw, kIdentity},
      {"identity with data that differs", Framed(Hex("0155000361626358")), 8, 1, kCodecRaw,
       kIdentity},
      {"long identity", Framed(Join({long_identity, {1}})), 2039, 1, kCodecRaw, kIdentity},
      {"sha2-512", Framed(Join({Hex("01551340"), Bytes(64)})), 69, 0, kCodecRaw, kSha2_512},
      {"truncated sha2-256", Framed(Join({Hex("01551214"), Bytes(20), Bytes(50)})), 25, 50,
       kCodecRaw, kSha2_256},
      {"unknown hash and codec", Framed(Hex("01808040808080010101ff")), 11, 1, 0x100000, 0x200000},
      {"codec of two bytes", Framed(Join({Hex("01a9021220"), Bytes(32)})), 38, 0, kCodecDagJson,
       kSha2_256},
      {"a megabyte", Section(4, Bytes(1 << 20)), 39, 1 << 20, kCodecRaw, kSha2_256},
      {"the largest", Section(4, Bytes((8 << 20) - 36)), 40, (8 << 20) - 36, kCodecRaw, kSha2_256},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const Bytes bytes = Join({RootlessHeader(), row.section, row.section, Section(1, {1})});
    const Walk walk = WalkEveryWay(bytes);
    CHECK_STATUS_OK(walk.status);
    REQUIRE_EQ(walk.sections.size(), 3);
    CHECK_EQ(walk.position, bytes.size());
    CHECK_EQ(walk.padding, 0);
    for (size_t i = 0; i < 2; ++i) {
      CHECK_EQ(walk.sections[i].offset, 18 + i * row.section.size());
      CHECK_EQ(walk.sections[i].head_size, row.head_size);
      CHECK_EQ(walk.sections[i].data_size, row.data_size);
      CHECK_EQ(walk.sections[i].codec, row.codec);
      CHECK_EQ(walk.sections[i].hash_code, row.hash_code);
    }
  }
}

TEST_CASE("car reader: a zero length ends the payload and the rest is counted") {
  for (const size_t zeros : {1, 2, 100, 70000}) {
    CAPTURE(zeros);
    const Walk walk = WalkEveryWay(Join({RootlessHeader(), Section(1, {1, 2, 3}), Bytes(zeros)}));
    CHECK_STATUS_OK(walk.status);
    CHECK_EQ(walk.sections.size(), 1);
    CHECK_EQ(walk.position, 58);
    CHECK_EQ(walk.padding, zeros);
  }
  const Walk junk = WalkEveryWay(Join({RootlessHeader(), {0}, Section(1, {1})}));
  CHECK_STATUS_OK(junk.status);
  CHECK(junk.sections.empty());
  CHECK_EQ(junk.padding, 39);
}

TEST_CASE("car reader: malformed CARv2 headers are DataLoss") {
  const Bytes payload = Join({RootlessHeader(), Section(1, {1, 2, 3})});  // 58 bytes
  const Bytes rest =
      Join({payload, Hex("81080000000000000000")});  // 10 bytes of index: the file has 119
  const uint64_t huge = UINT64_MAX;
  const struct {
    const char* name;
    Bytes bytes;
    const char* message;
  } kRows[] = {
      {"pragma only", Bytes(kCarV2Pragma.begin(), kCarV2Pragma.end()),
       "header is truncated: the file has 11 bytes"},
      {"no payload", V2File(51, 1, 0, {}), "data size 1 at file byte 35"},
      {"all zero, as of an unfinished writer", V2File(0, 0, 0, rest),
       "data offset 0 at file byte 27"},
      {"data offset 50", V2File(50, 58, 109, rest), "data offset 50 at file byte 27"},
      {"data offset past the file", V2File(120, 58, 0, rest), "data offset 120"},
      {"data offset at the end", V2File(119, 1, 0, rest), "data size 1"},
      {"data offset negative", V2File(huge, 58, 0, rest), "data offset"},
      {"data size zero", V2File(51, 0, 0, rest), "data size at file byte 35 is zero"},
      {"data size past the file", V2File(51, 69, 0, rest),
       "data size 69 at file byte 35 runs past the file"},
      {"data size negative", V2File(51, huge, 0, rest), "runs past the file"},
      {"offset and size wrap around", V2File(51, huge - 50, 0, rest), "runs past the file"},
      {"index inside the payload", V2File(51, 58, 108, rest), "index offset 108 at file byte 43"},
      {"index before the payload", V2File(51, 58, 51, rest), "index offset 51"},
      {"index in the header", V2File(51, 58, 1, rest), "index offset 1 "},
      {"index at the end", V2File(51, 58, 119, rest), "index offset 119"},
      {"index past the end", V2File(51, 58, 120, rest), "index offset 120"},
      {"index negative", V2File(51, 58, huge, rest), "index offset"},
      {"payload is a CARv2", V2File(51, 51 + 58, 0, V2File(51, 58, 0, payload)),
       "only CARv1 may be nested"},
      {"payload of version 42", V2File(51, 12, 0, Hex("0ba16776657273696f6e182a")),
       "version 42 at file byte 61"},
      {"payload without a header", V2File(51, 1, 0, Hex("00")), "length at file byte 51 is zero"},
      {"payload header past the payload", V2File(51, 17, 0, rest), "17 bytes declared, 16 left"},
      {"pragma longer than ten bytes", Join({Hex("0ba16776657273696f6e0200"), Bytes(60)}),
       "version 2"},
      {"pragma not minimal", Join({Hex("8a00a16776657273696f6e02"), Bytes(60)}), "not minimal"},
      {"pragma with a long map head", Join({Framed(Hex("b8016776657273696f6e02")), Bytes(60)}),
       "version 2"},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const absl::Status status = OpenStatus(row.bytes);
    CHECK_CODE(status, kDataLoss);
    CHECK_MESSAGE(ToString(status).find(row.message) != std::string::npos, ToString(status));
  }
  for (size_t size = 1; size < 51; ++size) {
    CAPTURE(size);
    const Bytes whole = V2File(51, 58, 0, rest);
    CHECK_CODE(OpenStatus(Bytes(whole.begin(), whole.begin() + size)), kDataLoss);
  }
}

TEST_CASE("car reader: CARv2 places are read, unknown characteristics ignored") {
  const Bytes payload = Join({RootlessHeader(), Section(1, {1, 2, 3})});
  const Bytes index = Hex("81080000000000000000");
  Bytes full(16);
  full[0] = 0x80;
  const struct {
    const char* name;
    Bytes bytes;
    uint64_t payload_offset;
    uint64_t index_offset;
    bool fully_indexed;
  } kRows[] = {
      {"plain", V2File(51, 58, 109, Join({payload, index})), 51, 109, false},
      {"no index", V2File(51, 58, 0, payload), 51, 0, false},
      {"no index, bytes after the payload", V2File(51, 58, 0, Join({payload, index})), 51, 0,
       false},
      {"padding before and after",
       V2File(60, 58, 125, Join({Bytes(9, 0xee), payload, Bytes(7, 0xee), index})), 60, 125, false},
      {"fully indexed", V2File(51, 58, 109, Join({payload, index}), full), 51, 109, true},
      {"every bit", V2File(51, 58, 109, Join({payload, index}), Bytes(16, 0xff)), 51, 109, true},
      {"every bit but the known one",
       V2File(51, 58, 109, Join({payload, index}), Join({{0x7f}, Bytes(15, 0xff)})), 51, 109,
       false},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.name);
    const Walk walk = WalkEveryWay(row.bytes);
    CHECK_STATUS_OK(walk.status);
    CHECK_EQ(walk.header.version, 2);
    CHECK_EQ(walk.header.payload_offset, row.payload_offset);
    CHECK_EQ(walk.header.payload_size, 58);
    CHECK_EQ(walk.header.index_offset, row.index_offset);
    CHECK_EQ(walk.header.fully_indexed, row.fully_indexed);
    CHECK_EQ(walk.header.first_section, 18);
    REQUIRE_EQ(walk.sections.size(), 1);
    CHECK_EQ(walk.sections[0].offset, 18);
    CHECK_EQ(walk.position, 58);
  }
}

TEST_CASE("car reader: a CARv2 section may not run past the payload into the index") {
  const Bytes payload = Join({RootlessHeader(), Section(1, {1, 2, 3})});
  const Walk walk = WalkEveryWay(V2File(51, 57, 0, payload));
  CHECK_CODE(walk.status, kDataLoss);
  CHECK(walk.sections.empty());
}

TEST_CASE("car reader: options above the section limit are refused") {
  const Bytes bytes = RootlessHeader();
  CHECK_CODE(OpenStatus(bytes, {.section_bytes_max = kSectionBytesLimit + 1}), kInvalidArgument);
  CHECK_STATUS_OK(OpenStatus(bytes, {.section_bytes_max = kSectionBytesLimit}));
}

TEST_CASE("car reader: every cut of a CAR is an error unless it falls between sections") {
  const Bytes bytes = ReadTestData("ipld-spec/carv1-basic.car");
  std::set<size_t> ends = {bytes.size()};
  for (const SeenSection& section : WalkEveryWay(bytes).sections) ends.insert(section.offset);
  CHECK_EQ(ends,
           std::set<size_t>({100, 192, 325, 366, 496, 537, 619, 660, 715}));  // carv1-basic.json
  for (size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    const Walk walk = WalkEveryWay(Bytes(bytes.begin(), bytes.begin() + size));
    CHECK_EQ(walk.status.ok(), ends.count(size) == 1);
    if (!walk.status.ok()) CHECK_CODE(walk.status, kDataLoss);
  }
}

TEST_CASE("car reader: the vectors of go-car's tests") {
  struct Outcome {
    StatusCode open;
    size_t sections = 0;
    StatusCode walk = StatusCode::kOk;
  };
  const StatusCode ok = StatusCode::kOk;
  const StatusCode bad = StatusCode::kDataLoss;
  const std::map<std::string, Outcome> expected = {
      {"clean-single-block", {ok, 1}},
      {"eof-bad-varint", {ok, 1, bad}},
      {"eof-truncated-block", {ok, 1, bad}},
      {"header-version-only", {ok, 0}},  // lenient on absent roots
      {"header-sanity-identity-root", {ok, 0}},
      {"header-version-2-as-v1", {bad}},
      {"header-no-version", {bad}},
      {"header-extra-key", {ok, 0}},  // lenient, as DASL asks
      {"header-null", {bad}},
      {"bad-cidv0", {bad}},  // already at its root, which has tag 48
      {"bad-block-hash", {ok, 1}},
      {"identity-cid-empty-block", {ok, 1}},
      {"max-header-five-roots", {ok, 0}},
      {"carv2-single-block-with-index", {ok, 1}},
      {"index-count-overflow", {ok, 1}},  // only their indexes are bad
      {"index-multiwidth-too-many", {ok, 1}},
  };
  const Bytes text = ReadTestData("go-car/inline-vectors.json");
  size_t seen = 0;
  for (const auto& vector : nlohmann::json::parse(text.begin(), text.end())) {
    const std::string name = vector["name"];
    CAPTURE(name);
    REQUIRE_EQ(expected.count(name), 1);
    ++seen;
    const Outcome& outcome = expected.at(name);
    const Walk walk = WalkEveryWay(Hex(vector["hex"].get<std::string>()));
    CHECK_EQ(walk.opened, outcome.open == ok);
    CHECK_EQ(walk.sections.size(), outcome.sections);
    CHECK_EQ(static_cast<int>(walk.status.code()),
             static_cast<int>(walk.opened ? outcome.walk : outcome.open));
    if (vector.contains("blocks")) CHECK_EQ(walk.sections.size(), vector["blocks"].get<size_t>());
    if (!vector.contains("roots")) continue;
    REQUIRE_EQ(walk.header.roots.size(), vector["roots"].size());
    for (size_t i = 0; i < walk.header.roots.size(); ++i) {
      CHECK_EQ(walk.header.roots[i].ToText(), vector["roots"][i].get<std::string>());
    }
  }
  CHECK_EQ(seen, expected.size());
}

TEST_CASE("car reader: max-header-five-roots of go-car fails one byte below its length") {
  const Bytes text = ReadTestData("go-car/inline-vectors.json");
  for (const auto& vector : nlohmann::json::parse(text.begin(), text.end())) {
    if (vector["name"] != "max-header-five-roots") continue;
    const Bytes bytes = Hex(vector["hex"].get<std::string>());
    CHECK_STATUS_OK(OpenStatus(bytes, {.header_bytes_max = bytes.size() - 2}));
    CHECK_CODE(OpenStatus(bytes, {.header_bytes_max = bytes.size() - 3}), kDataLoss);
    return;
  }
  FAIL("no such vector");
}

TEST_CASE("car reader: NextHead does not read the data of large blocks") {
  const uint64_t count = 4096;
  const HugeCar car(count, 1 << 20);  // 4 GiB
  const auto reader = ValueOf(CarReader::Open(car));
  const uint64_t reads = car.reads();
  const uint64_t bytes = car.bytes_read();
  ForgetAllocations();
  CarSection section;
  for (uint64_t i = 0; i < count; ++i) {
    REQUIRE(ValueOf(reader->NextHead(section)));
    REQUIRE_EQ(section.offset, 18 + i * car.section_size());
    REQUIRE_EQ(section.data_size, 1 << 20);
    REQUIRE(section.data.empty());
  }
  const size_t largest = LargestAllocation();
  CHECK_FALSE(ValueOf(reader->NextHead(section)));
  CHECK_EQ(car.reads() - reads, count);                          // one each
  CHECK_LE(car.bytes_read() - bytes, (64 << 10) + 128 * count);  // one window, then heads only
  CHECK_LE(largest, 64 << 10);
}

TEST_CASE("car reader: NextHead reads small sections in shared windows, each byte once") {
  const uint64_t count = 10000;
  const HugeCar car(count, 200);
  const auto reader = ValueOf(CarReader::Open(car));
  const uint64_t reads = car.reads();
  const uint64_t bytes = car.bytes_read();
  CarSection section;
  uint64_t seen = 0;
  while (ValueOf(reader->NextHead(section))) ++seen;
  CHECK_EQ(seen, count);
  CHECK_LE(car.reads() - reads, car.Size() / (63 << 10) + 1);
  CHECK_LE(car.bytes_read() - bytes, car.Size());
}

TEST_CASE("car reader: Next and NextBatch read each byte once, and their window is bounded") {
  for (const uint64_t data_size : {100, 4096, 256 << 10, 1 << 20, (8 << 20) - 36}) {
    for (const Way way : {Way::kNext, Way::kNextBatch}) {
      CAPTURE(data_size);
      CAPTURE(static_cast<int>(way));
      const HugeCar car((48 << 20) / data_size, data_size);
      const auto reader = ValueOf(CarReader::Open(car));
      const uint64_t bytes = car.bytes_read();
      ForgetAllocations();
      CarSection section;
      std::vector<CarSection> batch;
      uint64_t seen = 0;
      for (;;) {
        if (!ValueOf(way == Way::kNext ? reader->Next(section) : reader->NextBatch(batch))) break;
        seen += way == Way::kNext ? 1 : batch.size();
        if (way == Way::kNextBatch) {
          for (const CarSection& one : batch) REQUIRE_EQ(one.data.size(), data_size);
        }
      }
      const size_t largest = LargestAllocation();
      CHECK_EQ(seen, (48 << 20) / data_size);
      CHECK_LE(car.bytes_read() - bytes, car.Size());
      CHECK_LE(largest, (8 << 20) + kVarintBytesMax);
    }
  }
}

TEST_CASE("car reader: NextBatch gives at least 16 blocks at once where the limits allow") {
  for (const uint64_t data_size : {1000, 4096, 65536, 256 << 10}) {
    CAPTURE(data_size);
    const HugeCar car((64 << 20) / data_size, data_size);
    const auto reader = ValueOf(CarReader::Open(car));
    std::vector<CarSection> batch;
    std::vector<size_t> sizes;
    while (ValueOf(reader->NextBatch(batch))) sizes.push_back(batch.size());
    REQUIRE_GT(sizes.size(), 8);
    // The window is sized by what was seen, so it takes some batches to widen; the last is what was
    // left.
    for (size_t i = 6; i + 1 < sizes.size(); ++i) CHECK_GE(sizes[i], 16);
    for (const size_t size : sizes) CHECK_LE(size, kBatchSectionsMax);
  }
}

TEST_CASE("car reader: an error of the source does not lose the place") {
  class Flaky final : public RandomReader {
   public:
    explicit Flaky(Span bytes) : bytes_(bytes) {}
    uint64_t Size() const override { return bytes_.size(); }
    absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
      if (fail_) return Unavailable("the source is away");
      std::memcpy(out, bytes_.data() + offset, size);
      return size;
    }
    bool fail_ = false;

   private:
    const Span bytes_;
  };
  const Bytes bytes = ReadTestData("iroh-car/testv1.car");
  const auto memory = NewMemoryReader(Span(bytes));
  const Walk whole = WalkCar(*memory, Way::kNext);
  for (const Way way : kWays) {
    Flaky source(bytes);
    const auto reader = ValueOf(CarReader::Open(source, {.window_bytes = 256}));
    std::vector<SeenSection> seen;
    int failures = 0;
    for (;;) {
      source.fail_ = true;
      absl::StatusOr<bool> found = Step(*reader, way, seen);
      if (!found.ok()) {
        CHECK_CODE(found, kUnavailable);
        ++failures;
        source.fail_ = false;
        found = Step(*reader, way, seen);
      }
      if (!ValueOf(found)) break;
    }
    CHECK_GT(failures, 3);
    CHECK(seen == whole.sections);
  }
}

TEST_CASE("car reader: a file that shrank since it was opened is DataLoss") {
  class Shrunk final : public RandomReader {
   public:
    explicit Shrunk(Span bytes) : bytes_(bytes) {}
    uint64_t Size() const override { return bytes_.size(); }
    absl::StatusOr<size_t> ReadSome(uint64_t offset, size_t size, uint8_t* out) const override {
      const uint64_t end = bytes_.size() / 2;
      const size_t n = offset >= end ? 0 : std::min<uint64_t>(size, end - offset);
      if (n > 0) std::memcpy(out, bytes_.data() + offset, n);
      return n;
    }

   private:
    const Span bytes_;
  };
  const Bytes bytes = ReadTestData("iroh-car/testv1.car");
  for (const Way way : kWays) CHECK_CODE(WalkCar(Shrunk(bytes), way).status, kDataLoss);
}

TEST_CASE("car reader: ParseSection reads one section out of more bytes, or a head alone") {
  const Bytes bytes = Join({Section(1, {1, 2, 3}), Section(2, {4})});
  CarSection section;
  section.offset = 77;
  CHECK_STATUS_OK(ParseSection(bytes, bytes.size(), {}, section));
  CHECK_EQ(section.offset, 77);
  CHECK_EQ(section.head_size, 37);
  CHECK_EQ(section.data_size, 3);
  CHECK(SameBytes(section.data, Bytes{1, 2, 3}));
  CHECK(SameBytes(section.cid.bytes, RawCid(1)));

  CHECK_STATUS_OK(ParseSection(Span(bytes).first(37), bytes.size(), {}, section));
  CHECK_EQ(section.data_size, 3);
  CHECK(section.data.empty());

  CHECK_CODE(ParseSection(Span(bytes).first(36), bytes.size(), {}, section),
             kDataLoss);  // too few for the CID
  CHECK_CODE(ParseSection(Span(bytes).first(39), 39, {}, section), kDataLoss);  // past the payload
  CHECK_CODE(ParseSection({}, 0, {}, section), kDataLoss);
  CHECK_CODE(ParseSection(Bytes{0}, 1, {}, section), kDataLoss);
  CHECK_CODE(ParseSection(bytes, bytes.size(), {.section_bytes_max = 38}, section),
             kFailedPrecondition);
}

TEST_CASE("car reader: the three ways may be mixed on one reader") {
  const uint32_t kSeed = 20240611;
  std::mt19937 random(kSeed);
  CAPTURE(kSeed);
  for (const char* name :
       {"go-car/sample-v1.car", "kubo/lotus_devnet_genesis_v2.car", "web3.storage/dir.car"}) {
    CAPTURE(name);
    const Bytes bytes = ReadTestData(name);
    const Walk whole = WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext);
    for (const size_t window : {300, 5000, 1 << 20}) {
      const FileLikeReader source(bytes);
      const auto reader = ValueOf(CarReader::Open(source, {.window_bytes = window}));
      std::vector<SeenSection> seen;
      while (ValueOf(Step(*reader, kWays[random() % 3], seen))) {
      }
      CHECK(seen == whole.sections);
    }
  }
}

// Goal: no bytes make the ways of reading disagree, crash, allocate out of proportion, or leave the
// payload. Method: seeded mutations of the small fixtures, read from memory and as files with two
// windows.
TEST_CASE("car reader: 5000 mutations of real files read alike in every way") {
  const uint32_t kSeed = 7;
  CAPTURE(kSeed);
  std::mt19937_64 random(kSeed);
  const char* kNames[] = {"go-car/sample-unixfs-v2.car",
                          "go-car/sample-rw-bs-v2.car",
                          "go-car/fuzz-FuzzReader-fe93cec1.bin",
                          "go-car/fuzz-FuzzBlockReader-c3c7eede.bin",
                          "ipld-spec/carv1-basic.car",
                          "ipld-spec/carv2-basic.car",
                          "boxo/ipns-hostname-redirects.car",
                          "kubo/t0114-fixtures.car",
                          "kubo/TestDagStatCARv2.car",
                          "iroh-car/testv1.car",
                          "atproto/repo-tiny.car",
                          "nft.storage/corrupt.car",
                          "storacha/empty.car",
                          "kubo/combined_naked_roots_genesis_and_128.car"};
  std::vector<Bytes> files;
  for (const char* name : kNames) files.push_back(ReadTestData(name));
  const uint8_t kBytes[] = {0x00, 0x01, 0x12, 0x20, 0x7f, 0x80, 0xff};
  const uint64_t kNumbers[] = {0, 1, 51, 0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX};

  size_t errors = 0, sections = 0;
  for (int round = 0; round < 5000; ++round) {
    Bytes bytes = files[random() % files.size()];
    for (uint64_t edits = 1 + random() % 3; edits > 0 && !bytes.empty(); --edits) {
      // Half of the edits hit the headers, where a byte means most.
      const size_t at =
          random() % (random() % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 120));
      const size_t n = std::min<size_t>(random() % 16, bytes.size() - at);
      switch (random() % 7) {
        case 0:
          bytes[at] ^= 1 << random() % 8;
          break;
        case 1:
          bytes[at] = kBytes[random() % std::size(kBytes)];
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.erase(bytes.begin() + at, bytes.begin() + at + n);
          break;
        case 4:
          bytes.insert(bytes.begin() + at, n, kBytes[random() % std::size(kBytes)]);
          break;
        case 5: {
          const Bytes copy(bytes.begin() + at, bytes.begin() + at + n);
          bytes.insert(bytes.begin() + random() % bytes.size(), copy.begin(), copy.end());
          break;
        }
        default:
          if (bytes.size() - at >= 8)
            Store64(bytes.data() + at, kNumbers[random() % std::size(kNumbers)]);
      }
    }
    CAPTURE(round);
    const bool padding = random() % 2 == 0;
    const Walk first =
        WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext, {.zero_length_as_end = padding});
    errors += !first.status.ok();
    sections += first.sections.size();
    CHECK_LE(first.position + first.padding,
             std::max<uint64_t>(bytes.size(), first.header.payload_size));
    for (const SeenSection& section : first.sections) {
      REQUIRE_LE(section.offset + section.head_size + section.data_size, first.header.payload_size);
    }
    for (const Way way : kWays) {
      for (const size_t window : {size_t{64}, size_t{1} << 20}) {
        const FileLikeReader file(bytes);
        ForgetAllocations();
        const Walk walk =
            WalkCar(file, way, {.zero_length_as_end = padding, .window_bytes = window});
        const size_t largest = LargestAllocation();
        REQUIRE_EQ(static_cast<int>(walk.status.code()), static_cast<int>(first.status.code()));
        REQUIRE_EQ(walk.position, first.position);
        REQUIRE_EQ(walk.padding, first.padding);
        REQUIRE(walk.sections == first.sections);
        REQUIRE_LE(largest, 4 * bytes.size() + (1 << 20));
      }
    }
  }
  // The mutations reach both outcomes often, or they would prove little.
  CHECK_GT(errors, 1000);
  CHECK_LT(errors, 4900);
  CHECK_GT(sections, 5000);
}

}  // namespace dagstore
