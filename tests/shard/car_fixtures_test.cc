// Every CAR file of tests/data, held against what an independent reader measured in it
// (tests/data/fixtures.csv).
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/cbor.h"
#include "base/hashing.h"
#include "base/multibase.h"
#include "tests/shard/car_testing.h"

namespace dagstore {
namespace {

struct Fixture {
  std::string file;
  std::string container;  // "1", "2" or "error"
  std::string roots;      // texts, space separated, in order
  std::string blocks;
  std::string codecs;  // "dag-cbor:2 raw:1"
  std::string hashes;
  std::string cidv0;
  std::string empty;
  std::string duplicates;
  std::string mismatches_at;  // payload offsets
  std::string data_offset;
  std::string data_size;
  std::string index_offset;
  std::string padding;
  std::string error;  // a part of the message
};

std::vector<Fixture> Fixtures() {
  const Bytes text = ReadTestData("fixtures.csv");
  std::istringstream lines(std::string(text.begin(), text.end()));
  std::vector<Fixture> out;
  std::string line;
  std::getline(lines, line);  // names
  while (std::getline(lines, line)) {
    std::vector<std::string> fields(1);
    for (const char c : line) {
      if (c == ',') {
        fields.emplace_back();
      } else {
        fields.back() += c;
      }
    }
    REQUIRE_EQ(fields.size(), 15);
    out.push_back({fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6],
                   fields[7], fields[8], fields[9], fields[10], fields[11], fields[12], fields[13],
                   fields[14]});
  }
  return out;
}

using Histogram = std::map<std::string, size_t>;

std::string ToText(const Histogram& histogram) {
  std::string out;
  for (const auto& [name, count] : histogram)
    out += fmt::format("{}{}:{}", out.empty() ? "" : " ", name, count);
  return out;
}

// What the walk of one file shows, as the table writes it.
Fixture Measured(const std::string& file, const Walk& walk) {
  const bool v2 = walk.header.version == 2;
  Fixture out = {.file = file,
                 .container = std::to_string(walk.header.version),
                 .blocks = std::to_string(walk.sections.size()),
                 .data_offset = std::to_string(v2 ? walk.header.payload_offset : 0),
                 .data_size = std::to_string(v2 ? walk.header.payload_size : 0),
                 .index_offset = std::to_string(walk.header.index_offset),
                 .padding = std::to_string(walk.padding)};
  for (const Cid& root : walk.header.roots)
    out.roots += (out.roots.empty() ? "" : " ") + root.ToText();
  Histogram codecs, hashes;
  std::set<std::string> cids;
  size_t cidv0 = 0, empty = 0, duplicates = 0;
  for (const SeenSection& section : walk.sections) {
    ++codecs[CodecName(section.codec)];
    ++hashes[HashName(section.hash_code)];
    cidv0 += section.version == 0;
    empty += section.data_size == 0;
    duplicates += !cids.insert(section.cid).second;
    const CidView cid = ValueOf(ParseCid(AsSpan(section.cid)));
    const HashCheck check = VerifyBlock(cid.hash, section.data);
    CHECK(check != HashCheck::kUnverifiable);
    if (check == HashCheck::kMismatch) {
      out.mismatches_at +=
          fmt::format("{}{}", out.mismatches_at.empty() ? "" : " ", section.offset);
    }
  }
  out.codecs = ToText(codecs);
  out.hashes = ToText(hashes);
  out.cidv0 = std::to_string(cidv0);
  out.empty = std::to_string(empty);
  out.duplicates = std::to_string(duplicates);
  return out;
}

void CheckSame(const Fixture& seen, const Fixture& expected) {
  CHECK_EQ(seen.container, expected.container);
  CHECK_EQ(seen.roots, expected.roots);
  CHECK_EQ(seen.blocks, expected.blocks);
  CHECK_EQ(seen.codecs, expected.codecs);
  CHECK_EQ(seen.hashes, expected.hashes);
  CHECK_EQ(seen.cidv0, expected.cidv0);
  CHECK_EQ(seen.empty, expected.empty);
  CHECK_EQ(seen.duplicates, expected.duplicates);
  CHECK_EQ(seen.mismatches_at, expected.mismatches_at);
  CHECK_EQ(seen.data_offset, expected.data_offset);
  CHECK_EQ(seen.data_size, expected.data_size);
  CHECK_EQ(seen.index_offset, expected.index_offset);
  CHECK_EQ(seen.padding, expected.padding);
}

}  // namespace

TEST_CASE("car fixtures: every CAR file has a row, and every row a file") {
  std::set<std::string> files = {"data-segment/deal.data",
                                 "go-car/fuzz-FuzzBlockReader-c3c7eede.bin",
                                 "go-car/fuzz-FuzzReader-fe93cec1.bin"};
  const std::filesystem::path root = TestDataPath("");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() == ".car")
      files.insert(std::filesystem::relative(entry.path(), root).string());
  }
  std::set<std::string> rows;
  for (const Fixture& fixture : Fixtures()) CHECK(rows.insert(fixture.file).second);
  CHECK_EQ(rows, files);
  CHECK_EQ(rows.size(), 78);
}

TEST_CASE("car fixtures: every file gives what was measured in it, in every way of reading") {
  for (const Fixture& fixture : Fixtures()) {
    CAPTURE(fixture.file);
    const Bytes bytes = ReadTestData(fixture.file);
    const Walk whole = WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext);
    if (fixture.container == "error") {
      CHECK_CODE(whole.status, kDataLoss);
      CHECK_MESSAGE(ToString(whole.status).find(fixture.error) != std::string::npos,
                    ToString(whole.status));
      CHECK(whole.sections.empty());
    } else {
      CHECK_STATUS_OK(whole.status);
      CheckSame(Measured(fixture.file, whole), fixture);
    }
    for (const Way way : kWays) {
      for (const size_t window : {size_t{100}, size_t{1} << 20}) {
        const FileLikeReader file(bytes);
        const Walk walk = WalkCar(file, way, {.window_bytes = window});
        CHECK_EQ(ToString(walk.status), ToString(whole.status));
        CHECK_EQ(walk.position, whole.position);
        CHECK_EQ(walk.padding, whole.padding);
        CHECK(walk.sections == whole.sections);
        for (size_t i = 0; i < walk.sections.size() && way != Way::kNextHead; ++i) {
          REQUIRE(walk.sections[i].data == whole.sections[i].data);
        }
      }
    }
  }
}

// The reader tells the usual CIDs by their first bytes; ParseCid is what it must agree with.
TEST_CASE("car fixtures: every section's CID is what ParseCid makes of it") {
  size_t seen = 0;
  for (const Fixture& fixture : Fixtures()) {
    const Bytes bytes = ReadTestData(fixture.file);
    const auto source = NewMemoryReader(Span(bytes));
    const auto reader = CarReader::Open(*source);
    if (!reader.ok()) continue;
    CarSection section;
    while (ValueOf((*reader)->Next(section))) {
      const Span body = Span(bytes).subspan((*reader)->header().payload_offset + section.offset +
                                            section.head_size - section.cid.bytes.size());
      const CidView cid =
          ValueOf(ParseCid(body.first(section.cid.bytes.size() + section.data_size)));
      REQUIRE(SameBytes(section.cid.bytes, cid.bytes));
      REQUIRE_EQ(section.cid.version, cid.version);
      REQUIRE_EQ(section.cid.codec, cid.codec);
      REQUIRE(section.cid.hash == cid.hash);
      ++seen;
    }
  }
  CHECK_GT(seen, 15000);
}

TEST_CASE("car fixtures: files of equal content are equal") {
  const Bytes wrapped = ReadTestData("go-car/sample-wrapped-v2.car");
  const Bytes plain = ReadTestData("go-car/sample-v1.car");
  CHECK(SameBytes(Span(wrapped).subspan(51, 479907), plain));

  const auto blocks = [](const char* name) {
    const Bytes bytes = ReadTestData(name);
    std::set<std::string> out;
    for (const SeenSection& section :
         WalkCar(*NewMemoryReader(Span(bytes)), Way::kNextHead).sections) {
      out.insert(section.cid);
    }
    return out;
  };
  const std::set<std::string> genesis = blocks("kubo/lotus_devnet_genesis.car");
  CHECK_EQ(genesis.size(), 149);
  CHECK_EQ(blocks("kubo/lotus_devnet_genesis_v2.car"), genesis);
  CHECK_EQ(blocks("kubo/lotus_devnet_genesis_shuffled_noroots.car"), genesis);
  CHECK_EQ(blocks("kubo/lotus_devnet_genesis_shuffled_nulroot.car"), genesis);
  CHECK_EQ(blocks("kubo/TestDagStatCARv2.car"), blocks("kubo/TestDagStat.car"));
}

TEST_CASE("car fixtures: the documents of the specification place every section") {
  for (const char* name : {"ipld-spec/carv1-basic", "ipld-spec/carv2-basic"}) {
    CAPTURE(name);
    const Bytes text = ReadTestData(std::string(name) + ".json");
    const auto expected = nlohmann::json::parse(text.begin(), text.end());
    const Bytes bytes = ReadTestData(std::string(name) + ".car");
    const Walk walk = WalkCar(*NewMemoryReader(Span(bytes)), Way::kNextHead);
    REQUIRE_EQ(walk.sections.size(), expected["blocks"].size());
    for (size_t i = 0; i < walk.sections.size(); ++i) {
      const auto& block = expected["blocks"][i];
      const SeenSection& section = walk.sections[i];
      const uint64_t offset = walk.header.payload_offset + section.offset;
      CHECK_EQ(offset, block["offset"].get<uint64_t>());
      CHECK_EQ(section.head_size + section.data_size, block["length"].get<uint64_t>());
      CHECK_EQ(offset + section.head_size, block["blockOffset"].get<uint64_t>());
      CHECK_EQ(section.data_size, block["blockLength"].get<uint64_t>());
      CHECK_EQ(ValueOf(Cid::FromBytes(AsSpan(section.cid))).ToText(),
               block["cid"]["/"].get<std::string>());
    }
  }
}

TEST_CASE("car fixtures: one block of sample-v1.car is the block that go-car extracts") {
  const std::string name = "bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw";
  const Cid cid = ValueOf(Cid::FromText(name));
  const Bytes expected = ReadTestData("go-car/" + name + ".block");
  for (const char* file : {"go-car/sample-v1.car", "go-car/sample-wrapped-v2.car"}) {
    const Bytes bytes = ReadTestData(file);
    size_t found = 0;
    for (const SeenSection& section : WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext).sections) {
      if (section.cid != cid.binary()) continue;
      CHECK(section.data == expected);
      ++found;
    }
    CHECK_EQ(found, 1);
  }
}

TEST_CASE("car fixtures: a Filecoin piece holds a CAR at each of its segments") {
  const Bytes piece = ReadTestData("data-segment/deal.data");
  const struct {
    uint64_t offset;
    uint32_t data_size;
    const char* cid;
  } kRows[] = {
      {0, 392273, "bafk2bzaceanulxrrjjec5e6r7vskb6cqgueh2w6bnge6ja5u3la7aygjizwku"},
      {520192, 188193, "bafk2bzacecul64ojb2rl7szydmytaaqqfvbceueaooclsshi5ennuyhsgzt2m"},
  };
  const FileLikeReader file(piece);
  for (const auto& row : kRows) {
    const auto segment = NewRangeReader(file, row.offset, piece.size() - row.offset);
    const Walk walk = WalkCar(*segment, Way::kNextBatch);
    CHECK_STATUS_OK(walk.status);
    REQUIRE_EQ(walk.sections.size(), 1);
    CHECK_EQ(walk.sections[0].data_size, row.data_size);
    CHECK_EQ(walk.position + walk.padding, segment->Size());
    const Cid cid = ValueOf(Cid::FromBytes(AsSpan(walk.sections[0].cid)));
    CHECK_EQ(cid.ToText(), row.cid);
    CHECK(VerifyBlock(cid.hash(), walk.sections[0].data) == HashCheck::kMatch);
  }
}

TEST_CASE("car fixtures: zero-length sections are an error where they are not allowed") {
  const Bytes bytes = ReadTestData("go-car/sample-v1-with-zero-len-section2.car");
  const Walk walk =
      WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext, {.zero_length_as_end = false});
  CHECK_CODE(walk.status, kDataLoss);
  CHECK_EQ(walk.sections.size(), 20);
  CHECK_EQ(walk.position, 20819);
}

TEST_CASE("car fixtures: the slices of firehose events are CARs rooted in their commit") {
  for (const char* name :
       {"atproto/firehose_commit_4621317332.json", "atproto/firehose_commit_4623075231.json"}) {
    CAPTURE(name);
    const Bytes text = ReadTestData(name);
    const auto event = nlohmann::json::parse(text.begin(), text.end());
    const Bytes slice =
        ValueOf(DecodeBase(Base::kBase64, event["blocks"]["$bytes"].get<std::string>()));
    const Walk walk = WalkCar(*NewMemoryReader(Span(slice)), Way::kNext, {.strict_header = true});
    CHECK_STATUS_OK(walk.status);
    REQUIRE_EQ(walk.header.roots.size(), 1);
    CHECK_EQ(walk.header.roots[0].ToText(), event["commit"]["$link"].get<std::string>());
    CHECK_GT(walk.sections.size(), 1);
    for (const SeenSection& section : walk.sections) {
      const CidView cid = ValueOf(ParseCid(AsSpan(section.cid)));
      CHECK(VerifyBlock(cid.hash, section.data) == HashCheck::kMatch);
    }
  }
}

// Filecoin state has text that is not UTF-8, so only the lenient mode reads all of it.
TEST_CASE("car fixtures: every dag-cbor block is one CBOR item, canonical where the origin is") {
  const std::set<std::string> kCanonical = {"codec-fixtures", "ipld-spec", "atproto",
                                            "mst-test-suite"};
  const auto check = [](Span data, CborMode mode) {
    CborReader reader(data, mode);
    CHECK_STATUS_OK(reader.Skip());
    CHECK(reader.AtEnd());
  };
  size_t blocks = 0, canonical = 0;
  for (const Fixture& fixture : Fixtures()) {
    CAPTURE(fixture.file);
    const bool strict = kCanonical.count(fixture.file.substr(0, fixture.file.find('/'))) == 1;
    const Bytes bytes = ReadTestData(fixture.file);
    for (const SeenSection& section : WalkCar(*NewMemoryReader(Span(bytes)), Way::kNext).sections) {
      if (section.codec != kCodecDagCbor) continue;
      CAPTURE(section.offset);
      check(section.data, CborMode::kLenient);
      if (strict) check(section.data, CborMode::kStrict);
      ++blocks;
      canonical += strict;
    }
  }
  CHECK_GT(blocks, 3000);
  CHECK_GT(canonical, 200);
}

}  // namespace dagstore
