#include "dag/dag_json.h"

#include <nlohmann/json.hpp>

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

const std::string kCid = "bafkqaaa";

absl::StatusOr<std::vector<std::string>> Links(std::string_view json) {
  std::vector<std::string> links;
  RETURN_IF_ERROR(ForEachDagJsonLink(AsSpan(json), [&](const CidView& cid) {
    links.push_back(Cid(cid).ToText());
    return true;
  }));
  return links;
}

// The events of a document, one character each, then what they carry.
std::string Events(std::string_view json) {
  DagJsonReader reader(AsSpan(json));
  std::string text;
  for (;;) {
    const JsonEvent event = ValueOf(reader.Next());
    switch (event.kind) {
      case JsonKind::kMapBegin: text += "{"; break;
      case JsonKind::kMapEnd: text += "}"; break;
      case JsonKind::kListBegin: text += "["; break;
      case JsonKind::kListEnd: text += "]"; break;
      case JsonKind::kKey: text += "k(" + std::string(event.text) + ")"; break;
      case JsonKind::kString: text += "s(" + std::string(event.text) + ")"; break;
      case JsonKind::kNumber: text += "n(" + std::string(event.text) + ")"; break;
      case JsonKind::kBool: text += event.value ? "t" : "f"; break;
      case JsonKind::kNull: text += "0"; break;
      case JsonKind::kLink: text += "l(" + Cid(event.cid).ToText() + ")"; break;
      case JsonKind::kBytes: text += "b(" + std::string(event.text) + ")"; break;
      case JsonKind::kEnd: return text;
    }
  }
}

}  // namespace

TEST_CASE("dag-json: a document is read event by event") {
  CHECK_EQ(Events(R"( {"a" : [ 1, -2.5e+3, true,false ,null ] , "":{}, "b":[]} )"),
           "{k(a)[n(1)n(-2.5e+3)tf0]k(){}k(b)[]}");
  CHECK_EQ(Events(R"("A\u00e9\ud83d\ude00\n\/\"\\")"), "s(A\xc3\xa9\xf0\x9f\x98\x80\n/\"\\)");
  CHECK_EQ(Events(R"({"/":{"bytes":"aGk"}})"), "b(hi)");
  CHECK_EQ(Events(R"([{"/":"bafkqaaa"},{ "\u002f" : "b\u0061fkqaaa" }])"), "[l(bafkqaaa)l(bafkqaaa)]");
}

TEST_CASE("dag-json: maps that only resemble the reserved forms are ordinary") {
  CHECK_EQ(Events(R"({"/":1})"), "{k(/)n(1)}");
  CHECK_EQ(Events(R"({"/":[{"/":"bafkqaaa"}]})"), "{k(/)[l(bafkqaaa)]}");
  CHECK_EQ(Events(R"({"/":{"bytes":1}})"), "{k(/){k(bytes)n(1)}}");
  CHECK_EQ(Events(R"({"/":{"byte":"aGk"}})"), "{k(/){k(byte)s(aGk)}}");
  CHECK_EQ(Events(R"({"/":{"/":"bafkqaaa"}})"), "{k(/)l(bafkqaaa)}");
  CHECK_EQ(Events(R"({".":1,"/":"x"})"), "{k(.)n(1)k(/)s(x)}");
  CHECK_EQ(Events(R"({"/":{}})"), "{k(/){}}");
}

TEST_CASE("dag-json: malformed documents are refused") {
  const char* const cases[] = {
      "", " ",
      "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "]",
      "}", "[}", "{]", "1 2", "nul", "nulL", "truE", "+1", "01", "-", "1.", ".5", "1e", "1e+", "0x1", "NaN", "Infinity",
      "'a'", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
      "\"\\udc00\"", "\"\xc3\x28\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\xf4\x90\x80\x80\"", "// c\n1",
      "\xef\xbb\xbf 1",
      // reserved forms
      "{\"/\":\"bafkqaaa\",\"y\":1}", "{\"/\":\"x\",\"y\":1}", "{\"/\":\"\"}", "{\"/\":\"/ipfs/bafkqaaa\"}",
      "{\"/\":\"ipfs://bafkqaaa\"}",
      "{\"/\":\"bafkqaaaa\"}", "{\"/\":\"zQmNPWHBrVQiiV8FpyNuEPhB9E2rbvdy9Yx79EY1EJuyf9o\"}",
      "{\"/\":{\"bytes\":\"aGk\"},\"y\":1}", "{\"/\":{\"bytes\":\"aGk\",\"y\":1}}", "{\"/\":{\"bytes\":\"aGk=\"}}",
      "{\"/\":{\"bytes\":\"a!\"}}", "{\"/\":{\"bytes\":\"a\"}}",
  };
  for (const char* json : cases) {
    INFO(json);
    CHECK_CODE(Links(json), kDataLoss);
  }
}

TEST_CASE("dag-json: links come in encoded order") {
  const std::string v0 = "QmNPWHBrVQiiV8FpyNuEPhB9E2rbvdy9Yx79EY1EJuyf9o";
  const auto links =
      ValueOf(Links("{\"z\":{\"/\":\"" + v0 + "\"},\"a\":[{\"/\":\"bafkqaaa\"},{\"/\":{\"bytes\":\"\"}}]}"));
  CHECK_EQ(links, std::vector<std::string>{v0, kCid});
}

TEST_CASE("dag-json: a nesting bomb is refused, the deepest legal nesting is not") {
  CHECK_CODE(Links(std::string(2 << 20, '[')), kDataLoss);
  std::string maps;
  for (int i = 0; i < 200000; ++i) maps += "{\"a\":";
  CHECK_CODE(Links(maps), kDataLoss);
  std::string slashes;  // each looks like a reserved form to come
  for (int i = 0; i < 200000; ++i) slashes += "{\"/\":";
  CHECK_CODE(Links(slashes), kDataLoss);
  CHECK_STATUS_OK(Links(std::string(kJsonDepthMax, '[') + std::string(kJsonDepthMax, ']')));
  CHECK_CODE(Links(std::string(kJsonDepthMax + 1, '[') + std::string(kJsonDepthMax + 1, ']')), kDataLoss);
}

TEST_CASE("dag-json: a lookup finds map keys and list entries") {
  const std::string json = R"({"a" : [1, {"/":"bafkqaaa"}, {"b\u0021": "x"} ], "c": {"/":"bafkqaaa"}})";
  const NodeLookup list = ValueOf(LookupDagJson(AsSpan(json), "a"));
  CHECK_FALSE(list.link);
  CHECK_EQ(AsText(list.value), R"([1, {"/":"bafkqaaa"}, {"b\u0021": "x"} ])");
  CHECK_EQ(AsText(ValueOf(LookupDagJson(list.value, "0")).value), "1");
  CHECK_EQ(ValueOf(LookupDagJson(list.value, "1")).link, CidOf(kCid));
  const NodeLookup map = ValueOf(LookupDagJson(list.value, "2"));
  CHECK_EQ(AsText(ValueOf(LookupDagJson(map.value, "b!")).value), "\"x\"");
  CHECK_EQ(ValueOf(LookupDagJson(AsSpan(json), "c")).link, CidOf(kCid));
  CHECK_CODE(LookupDagJson(AsSpan(json), "b"), kNotFound);
  CHECK_CODE(LookupDagJson(list.value, "3"), kNotFound);
  CHECK_CODE(LookupDagJson(list.value, "00"), kNotFound);
  CHECK_CODE(LookupDagJson(AsSpan("1"), "a"), kNotFound);
  CHECK_CODE(LookupDagJson(AsSpan("[1"), "4"), kDataLoss);
  CHECK_EQ(ValueOf(DagJsonAsLink(AsSpan("{\"/\":\"bafkqaaa\"}"))), CidOf(kCid));
  CHECK_FALSE(ValueOf(DagJsonAsLink(AsSpan("[1]"))));
}

// Goal: rendering is canonical dag-json.
// Method: each dag-cbor and dag-pb fixture must give the bytes of the dag-json fixture of the same name.
TEST_CASE("dag-json: rendering a dag-cbor or dag-pb fixture gives the bytes of its dag-json form") {
  MemoryBlocks blocks("codec-fixtures/fixtures.car");
  const auto names = nlohmann::json::parse(ReadTestData("codec-fixtures/names.json"));
  for (const auto& item : names.items()) {
    const std::string& name = item.key();
    const auto& forms = item.value();
    INFO(name);
    const Cid json_cid = CidOf(forms.at("dag-json").get<std::string>());
    const std::string want(AsText(ValueOf(blocks.Get(json_cid.view())).bytes()));
    for (const char* codec : {"dag-cbor", "dag-json", "dag-pb"}) {
      if (!forms.contains(codec)) continue;
      const Cid cid = CidOf(forms.at(codec).get<std::string>());
      CHECK_EQ(ValueOf(ToDagJson(cid.codec(), ValueOf(blocks.Get(cid.view())).bytes())), want);
    }
  }
}

TEST_CASE("dag-json: the root of dag-pb.car renders as the document beside it") {
  MemoryBlocks blocks("gateway-conformance/dag-pb.car");
  const CidView root = blocks.roots[0].view();
  const auto rendered = nlohmann::json::parse(ValueOf(ToDagJson(root.codec, ValueOf(blocks.Get(root)).bytes())));
  CHECK_EQ(rendered, nlohmann::json::parse(ReadTestData("gateway-conformance/dag-pb.json")));
}

TEST_CASE("dag-json: rendering refuses what JSON cannot hold and replaces text that is not UTF-8") {
  const auto render = [](const std::string& hex) { return ToDagJson(kCodecDagCbor, ValueOf(FromHex(hex))); };
  CHECK_EQ(ValueOf(render("62c328")), "\"\xef\xbf\xbd(\"");
  CHECK_EQ(ValueOf(render("650a22095c01")), R"("\n\"\t\\\u0001")");
  CHECK_EQ(ValueOf(render("fb3ff0000000000000")), "1.0");
  CHECK_EQ(ValueOf(render("fb8000000000000000")), "-0.0");
  CHECK_EQ(ValueOf(render("fb4415af1d78b58c40")), "100000000000000000000.0");
  CHECK_EQ(ValueOf(render("fb444b1ae4d6e2ef50")), "1e+21");
  CHECK_EQ(ValueOf(render("3bffffffffffffffff")), "-18446744073709551616");
  CHECK_EQ(ValueOf(render("a2626262a0616180")), R"({"a":[],"bb":{}})");
  CHECK_EQ(ValueOf(render("a1612f01")), R"({"/":1})");
  for (const char* hex : {"fb7ff8000000000000", "fb7ff0000000000000", "c24101", "a10000", "a1612f6178",
                          "a1612fa16562797465736161", "a161", "0000"}) {
    INFO(hex);
    CHECK_CODE(render(hex), kDataLoss);
  }
  CHECK_CODE(ToDagJson(kCodecRaw, {}), kUnimplemented);
  CHECK_CODE(ToDagJson(kCodecDagCbor, ValueOf(FromHex("83010203")), 3), kResourceExhausted);
  CHECK_CODE(ToDagJson(kCodecDagJson, AsSpan("[1,2]"), 3), kResourceExhausted);
  CHECK_CODE(ToDagJson(kCodecDagJson, AsSpan("[1,2")), kDataLoss);
}

}  // namespace dagstore
