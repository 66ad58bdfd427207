#include "shard/car_writer.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/multibase.h"
#include "tests/shard/car_testing.h"

namespace dagstore {
namespace {

ByteSink Into(Bytes& out) {
  return [&out](Span bytes) {
    AppendBytes(out, bytes);
    return absl::OkStatus();
  };
}

// Reads the CARv1 at `bytes` and writes it again.
Bytes Rewritten(const Bytes& bytes) {
  const auto source = NewMemoryReader(Span(bytes));
  const Walk walk = WalkCar(*source, Way::kNext);
  REQUIRE_STATUS_OK(walk.status);
  Bytes out;
  CarWriter writer = ValueOf(CarWriter::Start(Into(out), walk.header.roots));
  for (const SeenSection& section : walk.sections)
    REQUIRE_STATUS_OK(writer.Put(AsSpan(section.cid), section.data));
  CHECK_EQ(writer.bytes_written(), out.size());
  return out;
}

}  // namespace

TEST_CASE("car writer: headers are canonical dag-cbor") {
  CHECK_EQ(ToHex(EncodeCarHeader({})), "11a265726f6f7473806776657273696f6e01");

  const Cid root = ValueOf(Cid::FromBytes(RawCid(7)));
  const Bytes one = EncodeCarHeader({root});
  CHECK_EQ(one.size(), 59);
  CHECK_EQ(ToHex(one), "3aa265726f6f747381d82a582500" + ToHex(RawCid(7)) + "6776657273696f6e01");

  // A root of 24 bytes and more, 23 roots and more, 127 bytes and more: every length changes its
  // width once.
  for (const size_t count : {2, 23, 24, 255, 256, 3000}) {
    CAPTURE(count);
    const Bytes header = EncodeCarHeader(std::vector<Cid>(count, root));
    const auto source = NewMemoryReader(Span(header));
    const auto reader = ValueOf(CarReader::Open(*source, {.strict_header = true}));
    CHECK_EQ(reader->header().roots, std::vector<Cid>(count, root));
    CHECK_EQ(reader->header().first_section, header.size());
  }
  for (const size_t size : {0, 18, 19, 20, 250, 251, 252, 2000}) {
    CAPTURE(size);
    Bytes identity = Hex("015500");
    AppendVarint(identity, size);
    identity.resize(identity.size() + size, 1);
    const Cid cid = ValueOf(Cid::FromBytes(identity));
    const Bytes header = EncodeCarHeader({cid});
    const auto source = NewMemoryReader(Span(header));
    CHECK_EQ(ValueOf(CarReader::Open(*source, {.strict_header = true}))->header().roots,
             std::vector<Cid>{cid});
  }
}

TEST_CASE("car writer: a section's head is its length and its CID") {
  CHECK_EQ(ToHex(EncodeSectionHead(RawCid(7), 0)), "24" + ToHex(RawCid(7)));
  CHECK_EQ(ToHex(EncodeSectionHead(RawCid(7), 91)), "7f" + ToHex(RawCid(7)));
  CHECK_EQ(ToHex(EncodeSectionHead(RawCid(7), 92)), "8001" + ToHex(RawCid(7)));
  CHECK_EQ(ToHex(EncodeSectionHead(RawCid(7), (8 << 20) - 36)), "80808004" + ToHex(RawCid(7)));
}

TEST_CASE("car writer: CARv2 headers equal those of real files") {
  for (const char* name : {"go-car/sample-wrapped-v2.car", "go-car/sample-rw-bs-v2.car",
                           "go-car/sample-unixfs-v2.car", "ipld-spec/carv2-basic.car",
                           "kubo/TestDagStatCARv2.car", "kubo/lotus_devnet_genesis_v2.car"}) {
    CAPTURE(name);
    const Bytes bytes = ReadTestData(name);
    const CarHeader header = ValueOf(CarReader::Open(*NewMemoryReader(Span(bytes))))->header();
    const Bytes written = EncodeCarV2Header({.data_offset = header.payload_offset,
                                             .data_size = header.payload_size,
                                             .index_offset = header.index_offset,
                                             .fully_indexed = header.fully_indexed});
    CHECK_EQ(written.size(), kCarV2HeaderBytes);
    CHECK(StartsWith(bytes, written));
  }
  const Bytes full =
      EncodeCarV2Header({.data_size = 258, .index_offset = 309, .fully_indexed = true});
  CHECK_EQ(ToHex(full),
           "0aa16776657273696f6e02"
           "80000000000000000000000000000000"
           "3300000000000000"
           "0201000000000000"
           "3501000000000000");
}

TEST_CASE("car writer: a CARv2 around sample-v1.car is sample-wrapped-v2.car but for its index") {
  const Bytes payload = ReadTestData("go-car/sample-v1.car");
  const Bytes wrapped = ReadTestData("go-car/sample-wrapped-v2.car");
  const uint64_t index = kCarV2HeaderBytes + payload.size();
  CHECK(StartsWith(
      wrapped,
      Join({EncodeCarV2Header({.data_size = payload.size(), .index_offset = index}), payload})));
}

TEST_CASE("car writer: what was read from canonical files is written byte for byte") {
  for (const char* name :
       {"iroh-car/testv1.car", "go-car/sample-v1.car", "go-car/simple-unixfs.car",
        "ipld-spec/carv1-basic.car", "codec-fixtures/fixtures.car",
        "kubo/lotus_devnet_genesis_shuffled_nulroot.car", "atproto/dup-block.car",
        "kubo/combined_naked_roots_genesis_and_128.car", "storacha/empty.car",
        "boxo/ipns-hostname-redirects.car", "beetle/big-foo.car", "web3.storage/dir.car"}) {
    CAPTURE(name);
    const Bytes bytes = ReadTestData(name);
    CHECK(Rewritten(bytes) == bytes);
  }
}

TEST_CASE("car writer: the fixtures of atproto are read and written exactly") {
  const Bytes text = ReadTestData("atproto/car-file-fixtures.json");
  const auto rows = nlohmann::json::parse(text.begin(), text.end());
  CHECK_EQ(rows.size(), 1);
  for (const auto& row : rows) {
    const Bytes car = ValueOf(DecodeBase(Base::kBase64, row["car"].get<std::string>()));
    const Cid root = ValueOf(Cid::FromText(row["root"].get<std::string>()));

    Bytes out;
    CarWriter writer = ValueOf(CarWriter::Start(Into(out), {root}));
    const Walk walk = WalkCar(*NewMemoryReader(Span(car)), Way::kNext);
    CHECK_STATUS_OK(walk.status);
    CHECK_EQ(walk.header.roots, std::vector<Cid>{root});
    REQUIRE_EQ(walk.sections.size(), row["blocks"].size());
    for (size_t i = 0; i < walk.sections.size(); ++i) {
      const Cid cid = ValueOf(Cid::FromText(row["blocks"][i]["cid"].get<std::string>()));
      const Bytes data =
          ValueOf(DecodeBase(Base::kBase64, row["blocks"][i]["bytes"].get<std::string>()));
      CHECK_EQ(walk.sections[i].cid, cid.binary());
      CHECK(walk.sections[i].data == data);
      CHECK_STATUS_OK(writer.Put(cid.bytes(), data));
    }
    CHECK(out == car);
  }
}

TEST_CASE("car writer: an error of the sink is the caller's, and its bytes do not count") {
  int calls_left = 0;
  const ByteSink sink = [&calls_left](Span) {
    return calls_left-- > 0 ? absl::OkStatus() : ResourceExhausted("the disk is full");
  };
  CHECK_CODE(CarWriter::Start(sink, {}), kResourceExhausted);

  calls_left = 2;  // header, section head
  CarWriter writer = ValueOf(CarWriter::Start(sink, {}));
  CHECK_CODE(writer.Put(RawCid(1), Bytes{1, 2, 3}), kResourceExhausted);
  CHECK_EQ(writer.bytes_written(), 18 + 37);
}

}  // namespace dagstore
