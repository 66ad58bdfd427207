#include "dag/dag_pb.h"

#include <nlohmann/json.hpp>

#include "dag/dag_json.h"
#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

// A link of one zero-length raw identity CID: 0a 04 01 55 00 00.
constexpr std::string_view kHash = "0a0401550000";

absl::StatusOr<PbNode> ParseHex(std::string_view hex, Bytes& bytes) {
  bytes = ValueOf(FromHex(hex));
  return PbNode::Parse(bytes);
}

}  // namespace

TEST_CASE("dag-pb: data may stand before or after the links, and links keep their order") {
  const std::string link_b = "1209" + std::string(kHash) + "120162";  // named b
  const std::string link_a = "1209" + std::string(kHash) + "120161";  // named a
  for (const std::string& hex : {link_b + link_a + "0a020801", "0a020801" + link_b + link_a}) {
    Bytes bytes;
    const PbNode node = ValueOf(ParseHex(hex, bytes));
    CHECK_EQ(node.link_count(), 2);
    REQUIRE(node.data());
    CHECK_EQ(ToHex(*node.data()), "0801");
    PbNode::Cursor at(node);
    PbLink link;
    REQUIRE(at.Next(link));
    CHECK_EQ(AsText(*link.name), "b");
    CHECK_FALSE(link.tsize);
    REQUIRE(at.Next(link));
    CHECK_EQ(AsText(*link.name), "a");
    CHECK_FALSE(at.Next(link));
  }
}

TEST_CASE("dag-pb: an empty block is a node without links and data") {
  const PbNode node = ValueOf(PbNode::Parse({}));
  CHECK_EQ(node.link_count(), 0);
  CHECK_FALSE(node.data());
  PbLink link;
  PbNode::Cursor at(node);
  CHECK_FALSE(at.Next(link));
}

TEST_CASE("dag-pb: empty names and sizes are told from absent ones, and Tsize may be any 64 bits") {
  Bytes bytes;
  const PbNode node = ValueOf(ParseHex("1213" + std::string(kHash) + "120018ffffffffffffffffff01", bytes));
  PbLink link;
  PbNode::Cursor at(node);
  REQUIRE(at.Next(link));
  REQUIRE(link.name);
  CHECK(link.name->empty());
  CHECK_EQ(link.tsize, UINT64_MAX);
}

TEST_CASE("dag-pb: malformed blocks are refused") {
  const std::string hash(kHash);
  const std::string link = "1206" + hash;
  const struct {
    const char* what;
    std::string hex;
  } cases[] = {
      {"data twice", "0a000a00"},
      {"links split by data", link + "0a00" + link},
      {"unknown field", "1a00"},
      {"data as a number", "0801"},
      {"links as a number", "1001"},
      {"group", "0b"},
      {"field number zero", "0200"},
      {"length past the end", "0a05"},
      {"length truncated", "0a80"},
      {"tag truncated", "80"},
      {"tag of eleven bytes", "8080808080808080808001"},
      {"link without hash", "1200"},
      {"link with an empty hash", "12020a00"},
      {"link with only a name", "1203120161"},
      {"link with only a size", "12021801"},
      {"hash twice", "120c" + hash + hash},
      {"name twice", "120a" + hash + "12001200"},
      {"name before hash", "1208" "1200" + hash},
      {"size before name", "120a" + hash + "18001200"},
      {"size as bytes", "1208" + hash + "1a00"},
      {"link field four", "1208" + hash + "2000"},
      {"bytes after the CID", "12070a050155000000"},
      {"CID cut off", "12050a03015500"},
      {"CID of version 2", "12060a0402550000"},
      {"link length past the end", "12ff" + hash},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    Bytes bytes;
    CHECK_CODE(ParseHex(c.hex, bytes), kDataLoss);
  }
}

TEST_CASE("dag-pb: the negative decode vectors are refused") {
  const auto vectors = nlohmann::json::parse(ReadTestData("codec-fixtures/negative/dag-pb-decode-edges.json"));
  CHECK_EQ(vectors.size(), 9);
  for (const auto& vector : vectors) {
    INFO(vector.at("name").get<std::string>());
    Bytes bytes;
    CHECK_CODE(ParseHex(vector.at("hex").get<std::string>(), bytes), kDataLoss);
  }
}

TEST_CASE("dag-pb: every fixture encodes to its own bytes again") {
  for (const char* file : {"codec-fixtures/fixtures.car", "beetle/big-foo.car", "go-car/simple-unixfs.car"}) {
    MemoryBlocks blocks(file);
    for (const Cid& cid : blocks.order) {
      if (cid.codec() != kCodecDagPb) continue;
      const BlockData data = ValueOf(blocks.Get(cid.view()));
      const PbNode node = ValueOf(PbNode::Parse(data.bytes()));
      std::vector<PbLink> links;
      PbLink link;
      for (PbNode::Cursor at(node); at.Next(link);) links.push_back(link);
      CHECK_EQ(links.size(), node.link_count());
      CHECK(SameBytes(EncodeDagPb(links, node.data()), data.bytes()));
    }
  }
}

TEST_CASE("dag-pb: the dag-json form of every fixture encodes to the dag-pb form") {
  MemoryBlocks blocks("codec-fixtures/fixtures.car");
  const auto names = nlohmann::json::parse(ReadTestData("codec-fixtures/names.json"));
  int count = 0;
  for (const auto& item : names.items()) {
    const std::string& name = item.key();
    const auto& forms = item.value();
    if (!forms.contains("dag-pb")) continue;
    INFO(name);
    const auto block = [&](const char* codec) {
      return ValueOf(blocks.Get(CidOf(forms.at(codec).get<std::string>()).view()));
    };
    CHECK(SameBytes(ValueOf(DagPbFromDagJson(block("dag-json").bytes())), block("dag-pb").bytes()));
    ++count;
  }
  CHECK_EQ(count, 17);
}

TEST_CASE("dag-pb: the negative encode vectors are refused") {
  for (const char* file : {"dag-pb-encode-basic-datamodel-kinds", "dag-pb-encode-invalid-forms"}) {
    const auto vectors = nlohmann::json::parse(ReadTestData(std::string("codec-fixtures/negative/") + file + ".json"));
    CHECK_GT(vectors.size(), 10);
    for (const auto& vector : vectors) {
      INFO(vector.at("name").get<std::string>());
      CHECK_CODE(DagPbFromDagJson(AsSpan(vector.at("dag-json").dump())), kInvalidArgument);
    }
  }
}

}  // namespace dagstore
