#include "dag/car_export.h"

#include <nlohmann/json.hpp>

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

absl::StatusOr<Bytes> Export(BlockGetter& getter, const std::string& path, const CarExportOptions& options,
                             CarExportStats* stats = nullptr) {
  Bytes car;
  RETURN_IF_ERROR(ExportCar(
      getter, ValueOf(ParseDagPath(path)), options,
      [&](Span bytes) {
        AppendBytes(car, bytes);
        return absl::OkStatus();
      },
      stats));
  return car;
}

std::vector<std::string> SectionsOf(const Bytes& car) {
  const auto source = NewMemoryReader(Span(car));
  const auto reader = ValueOf(CarReader::Open(*source));
  std::vector<std::string> cids;
  CarSection section;
  while (ValueOf(reader->Next(section))) {
    CHECK_EQ(VerifyBlock(section.cid.hash, section.data), HashCheck::kMatch);
    cids.push_back(Cid(section.cid).ToText());
  }
  return cids;
}

// The requests one row of the expectations speaks of: "dag-scope=entity, dag-scope=all, or entity-bytes=0:*".
std::vector<CarExportOptions> RequestsOf(const std::string& params) {
  const bool dups = params.find("dups=y") != std::string::npos;
  std::vector<CarExportOptions> requests;
  for (const auto& [text, scope] : {std::pair{"dag-scope=block", DagScope::kBlock},
                                    {"dag-scope=entity", DagScope::kEntity}, {"dag-scope=all", DagScope::kAll}}) {
    if (params.find(text) != std::string::npos) requests.push_back({.scope = scope, .dups = dups});
  }
  const std::string key = "entity-bytes=";
  if (const size_t at = params.find(key); at != std::string::npos) {
    const size_t begin = at + key.size();
    const std::string range = params.substr(begin, params.find_first_not_of("-0123456789:*", begin) - begin);
    requests.push_back({.entity_bytes = ValueOf(ParseByteRange(range)), .dups = dups});
    requests.push_back({.scope = DagScope::kEntity, .entity_bytes = ValueOf(ParseByteRange(range)), .dups = dups});
  }
  if (requests.empty()) requests.push_back({.dups = dups});
  return requests;
}

}  // namespace

TEST_CASE("car export: every request of the gateway conformance suite gives its blocks in its order") {
  const auto rows = nlohmann::json::parse(ReadTestData("gateway-conformance/expected-dag-scope.json"));
  CHECK_EQ(rows.size(), 18);
  for (const auto& row : rows) {
    const std::string params = row.at("params");
    const std::string path = row.at("root").get<std::string>() + "/" + row.at("path").get<std::string>();
    const auto want = row.at("blocks_in_order").get<std::vector<std::string>>();
    INFO(row.at("car").get<std::string>(), " ", path, " ", params);
    MemoryBlocks blocks("gateway-conformance/" + row.at("car").get<std::string>());
    for (const CarExportOptions& request : RequestsOf(params)) {
      if (path.find("i-do-not-exist") != std::string::npos) {
        CHECK_CODE(Export(blocks, path, request), kNotFound);
        ResolvedPath resolved;
        CHECK_CODE(ResolvePath(blocks, ValueOf(ParseDagPath(path)), {}, resolved), kNotFound);
        std::vector<std::string> walked;
        for (const PathBlock& block : resolved.blocks) walked.push_back(block.cid.ToText());
        CHECK_EQ(walked, want);
        continue;
      }
      CHECK_EQ(SectionsOf(ValueOf(Export(blocks, path, request))), want);
    }
  }
}

TEST_CASE("car export: the genesis exports to the bytes of its origin, whatever order its blocks had") {
  const Bytes want = ReadTestData("kubo/lotus_devnet_genesis.car");
  const std::string root = "bafy2bzaceaxm23epjsmh75yvzcecsrbavlmkcxnva66bkdebdcnyw3bjrc74u";
  for (const char* file : {"lotus_devnet_genesis", "lotus_devnet_genesis_shuffled_noroots",
                           "lotus_devnet_genesis_shuffled_nulroot", "lotus_devnet_genesis_v2"}) {
    INFO(file);
    MemoryBlocks blocks(std::string("kubo/") + file + ".car");
    CHECK(SameBytes(ValueOf(Export(blocks, root, {.identity_sections = true})), want));
    const auto sections = SectionsOf(ValueOf(Export(blocks, root, {})));
    CHECK_EQ(sections.size(), 143);
  }
}

TEST_CASE("car export: chains written depth first give their own bytes again") {
  const char* const files[] = {"go-car/sample-v1.car",
                               "kubo/TestDagStat.car",
                               "gateway-conformance/subdir-with-two-single-block-files.car",
                               "ipld-spec/alice-words-hamt.car",
                               "go-car/simple-unixfs.car"};
  for (const char* file : files) {
    INFO(file);
    MemoryBlocks blocks(file);
    REQUIRE_EQ(blocks.roots.size(), 1);
    CarExportStats stats;
    const Bytes car = ValueOf(Export(blocks, blocks.roots[0].ToText(), {.identity_sections = true}, &stats));
    CHECK(SameBytes(car, ReadTestData(file)));
    CHECK_EQ(stats.bytes_written, car.size());
    CHECK_EQ(stats.walk.blocks, blocks.order.size());
  }
}

TEST_CASE("car export: the probe path gives a header and nothing else") {
  MemoryBlocks none;
  const Bytes car = ValueOf(Export(none, "bafkqaaa", {}));
  CHECK_EQ(car.size(), 26);
  CHECK(SectionsOf(car).empty());
  CHECK_EQ(none.gets, 0);
}

TEST_CASE("car export: nothing is written before the path is resolved, and a hole ends the file inside") {
  MemoryBlocks blocks("gateway-conformance/file-3k-and-3-blocks-missing-block.car");
  const std::string root = blocks.roots.at(0).ToText();
  size_t written = 0;
  const auto sink = [&](Span bytes) {
    written += bytes.size();
    return absl::OkStatus();
  };
  CHECK_CODE(ExportCar(blocks, ValueOf(ParseDagPath(root + "/x")), {}, sink), kNotFound);
  const DagPath absent = ValueOf(ParseDagPath("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"));
  CHECK_CODE(ExportCar(blocks, absent, {}, sink), kNotFound);
  CHECK_EQ(written, 0);
  CHECK_CODE(ExportCar(blocks, ValueOf(ParseDagPath(root)), {}, sink), kNotFound);
  CHECK_GT(written, 0);
  CHECK_STATUS_OK(Export(blocks, root, {.entity_bytes = EntityRange{0, 1023}}));
  CHECK_CODE(Export(blocks, root, {.entity_bytes = EntityRange{0, 1024}}), kNotFound);
  // An explicit scope of all or block does not look at the range.
  CHECK_CODE(Export(blocks, root, {.scope = DagScope::kAll, .entity_bytes = EntityRange{0, 1023}}), kNotFound);
  const CarExportOptions block = {.scope = DagScope::kBlock, .entity_bytes = EntityRange{0, 2000}};
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root, block))).size(), 1);
}

TEST_CASE("car export: paths through dag-cbor cross at links, and end inside a block with that block") {
  MemoryBlocks blocks("gateway-conformance/dag-cbor-traversal.car");
  const std::string root = blocks.roots.at(0).ToText();
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root, {}))).size(), 3);
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root + "/foo/link/bar", {}))).size(), 3);
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root + "/foo/link", {.scope = DagScope::kBlock}))).size(), 2);
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root + "/foo", {}))).size(), 1);
  CHECK_EQ(SectionsOf(ValueOf(Export(blocks, root + "/foo/link/bar/hello", {}))).size(), 3);
  CHECK_CODE(Export(blocks, root + "/foo/link/bar/hello/x", {}), kNotFound);
}

TEST_CASE("car export: an error of the sink ends the export") {
  MemoryBlocks blocks("go-car/simple-unixfs.car");
  int calls = 0;
  const auto sink = [&](Span) { return ++calls == 4 ? Unavailable("gone") : absl::OkStatus(); };
  CHECK_CODE(ExportCar(blocks, {blocks.roots.at(0)}, {}, sink), kUnavailable);
  CHECK_EQ(calls, 4);
  CHECK_CODE(ExportCar(blocks, {}, {}, [](Span) { return absl::OkStatus(); }), kInvalidArgument);
}

}  // namespace dagstore
