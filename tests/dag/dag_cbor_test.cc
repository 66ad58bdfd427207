#include "dag/dag_cbor.h"

#include <nlohmann/json.hpp>

#include "base/cbor.h"
#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

Bytes Hex(const std::string& text) { return ValueOf(FromHex(text)); }
absl::Status Scan(Span block) {
  return ForEachDagCborLink(block, [](const CidView&) { return true; });
}

// d82a 45 00 01550000: a link to the empty identity CID.
const std::string kLink = "d82a450001550000";

}  // namespace

// Goal: the strict form is exactly DRISL.
// Method: vectors that speak of other profiles only (dCBOR reductions, CBOR-Core bignums, bare RFC 8949) are judged
// by what dag-cbor says of them, listed here; all others by their type.
TEST_CASE("dag-cbor: the vectors of dasl-testing are accepted and refused as they say") {
  int accepted = 0, refused = 0;
  for (const char* file : {"cid", "indefinite", "integer_range", "map_keys", "numeric_reduction", "short_form",
                           "simple", "utf8"}) {
    const auto vectors = nlohmann::json::parse(ReadTestData(std::string("dasl-testing/") + file + ".json"));
    for (const auto& vector : vectors) {
      const std::string name = vector.at("name");
      const std::string type = vector.at("type");
      const auto tags = vector.at("tags").get<std::vector<std::string>>();
      const auto has = [&](const char* tag) { return std::find(tags.begin(), tags.end(), tag) != tags.end(); };
      INFO(file, ": ", name, " (", type, ")");
      const Bytes data = Hex(vector.at("data"));
      const absl::Status status = ValidateDagCbor(data, CborProfile::kDasl);
      const bool ours = has("basic") || has("dag-cbor") || has("dasl-cid");
      if (!ours && name == "text not in Unicode Normalization Form C") {
        CHECK_STATUS_OK(status);  // dag-cbor does not normalise; its own row says so
      } else if (!ours && name == "too small for int reduction, <-(2^63)") {
        CHECK_STATUS_OK(status);
      } else if (!ours || type != "roundtrip") {
        CHECK_CODE(status, kDataLoss);
        ++refused;
      } else {
        CHECK_STATUS_OK(status);
        ++accepted;
      }
    }
  }
  CHECK_EQ(accepted, 20);
  CHECK_EQ(refused, 56);
}

TEST_CASE("dag-cbor: any CID is valid outside the DASL profile") {
  for (const char* hex : {"d82a582300122022ad631c69ee983095b5b8acd029ff94aff1dc6c48837878589a92b90dfea317",
                          "d82a58190001551114f572d396fae9206628714fb2ce00f72e94f2258f", "d82a450001550000"}) {
    CHECK_STATUS_OK(ValidateDagCbor(Hex(hex)));
    CHECK_CODE(ValidateDagCbor(Hex(hex), CborProfile::kDasl), kDataLoss);
  }
}

TEST_CASE("dag-cbor: the negative fixtures are refused") {
  const auto vectors =
      nlohmann::json::parse(ReadTestData("codec-fixtures/negative/dag-cbor-decode-duplicate-keys.json"));
  CHECK_EQ(vectors.size(), 1);
  for (const auto& vector : vectors) CHECK_CODE(ValidateDagCbor(Hex(vector.at("hex"))), kDataLoss);
}

TEST_CASE("dag-cbor: every positive fixture validates") {
  MemoryBlocks blocks("codec-fixtures/fixtures.car");
  int count = 0;
  for (const Cid& cid : blocks.order) {
    if (cid.codec() != kCodecDagCbor) continue;
    CHECK_STATUS_OK(ValidateDagCbor(ValueOf(blocks.Get(cid.view())).bytes()));
    ++count;
  }
  CHECK_EQ(count, 128);
}

TEST_CASE("dag-cbor: history is read for its links, though it is not strict") {
  const char* const blocks[] = {
      "a2616201616100",        // keys out of order
      "a2616100616101",        // keys twice
      "1801",                  // long integer
      "f93c00", "fa3f800000",  // short floats
      "62c328",                // text that is not UTF-8
      "f7",                    // undefined
      "fb7ff8000000000000",    // NaN
      "c24101",                // another tag
      "a10000",                // a key that is no text
  };
  for (const char* hex : blocks) {
    INFO(hex);
    CHECK_STATUS_OK(Scan(Hex(hex)));
    CHECK_CODE(ValidateDagCbor(Hex(hex)), kDataLoss);
  }
}

TEST_CASE("dag-cbor: what is malformed is refused even for links") {
  const std::string cases[] = {
      "",                    // nothing
      "0000",                // a second value
      kLink + "00",          // bytes after a link
      "bfff", "9fff", "5fff", "7fff",  // indefinite
      "ff",                  // a break
      "81",                  // list cut off
      "a161",                // key cut off
      "5b00000001ffffffff",  // length far past the end
      "9bffffffffffffffff",  // more entries than bytes
      "bbffffffffffffffff",
      "d82a",                // tag without a value
      "d82a00",              // tag 42 around a number
      "d82a6101",            // around text
      "d82a40",              // around nothing
      "d82a4401550000",      // without the 0x00
      "d82a4100",            // without a CID
      "d82a46000155000000",  // a byte after the CID
      "d82a450002550000",    // CID version 2
      "d82ad82a450001550000",// a tag in a tag
  };
  for (const std::string& hex : cases) {
    INFO(hex);
    CHECK_CODE(Scan(Hex(hex)), kDataLoss);
    CHECK_CODE(ValidateDagCbor(Hex(hex)), kDataLoss);
  }
}

TEST_CASE("dag-cbor: a nesting bomb of 2 MB is refused, the deepest legal nesting is not") {
  const Bytes bomb(2 << 20, 0x81);
  CHECK_CODE(Scan(bomb), kDataLoss);
  CHECK_CODE(ValidateDagCbor(bomb), kDataLoss);
  CHECK_CODE(LookupDagCbor(bomb, "0"), kDataLoss);
  Bytes deepest(kCborDepthMax, 0x81);
  deepest.push_back(0x00);
  CHECK_STATUS_OK(Scan(deepest));
  deepest.insert(deepest.begin(), 0x81);
  CHECK_CODE(Scan(deepest), kDataLoss);
}

TEST_CASE("dag-cbor: a lookup finds map keys and list entries, in place") {
  // {"a": [1, link, {"b": 7}], "bb": link}
  const Bytes node = Hex("a26161" "8301" + kLink + "a1616207" "626262" + kLink);
  const NodeLookup list = ValueOf(LookupDagCbor(node, "a"));
  CHECK_FALSE(list.link);
  CHECK_EQ(ToHex(list.value), "8301" + kLink + "a1616207");
  CHECK_EQ(ToHex(ValueOf(LookupDagCbor(list.value, "0")).value), "01");
  CHECK_EQ(ValueOf(LookupDagCbor(list.value, "1")).link, CidOf("bafkqaaa"));
  const NodeLookup map = ValueOf(LookupDagCbor(list.value, "2"));
  CHECK_EQ(ToHex(ValueOf(LookupDagCbor(map.value, "b")).value), "07");
  CHECK_EQ(ValueOf(LookupDagCbor(node, "bb")).link, CidOf("bafkqaaa"));

  for (const char* absent : {"", "b", "aa", "A"}) CHECK_CODE(LookupDagCbor(node, absent), kNotFound);
  for (const char* absent : {"3", "-1", "01", "1 ", "", "x", "99999999999999999999"}) {
    INFO(absent);
    CHECK_CODE(LookupDagCbor(list.value, absent), kNotFound);
  }
  CHECK_CODE(LookupDagCbor(Hex("07"), "a"), kNotFound);
  CHECK_CODE(LookupDagCbor(Hex(kLink), "a"), kNotFound);
  CHECK_CODE(LookupDagCbor(Hex("a161"), "a"), kDataLoss);
}

}  // namespace dagstore
