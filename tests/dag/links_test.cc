#include "dag/links.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

std::vector<std::string> LinksOf(uint64_t codec, Span block) {
  std::vector<std::string> links;
  REQUIRE_STATUS_OK(ForEachLink(codec, block, [&](const CidView& cid) {
    links.push_back(Cid(cid).ToText());
    return true;
  }));
  return links;
}

absl::Status Scan(uint64_t codec, Span block) {
  return ForEachLink(codec, block, [](const CidView&) { return true; });
}

}  // namespace

TEST_CASE("links: each codec has its own, plain ones have none, unknown ones are not guessed at") {
  const Cid target = ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan("x")));
  Bytes cbor = {0xd8, 0x2a, 0x58, 0x25, 0x00};
  AppendBytes(cbor, target.bytes());
  const std::string json = "{\"/\":\"" + target.ToText() + "\"}";
  const Bytes pb = EncodeDagPb(std::vector<PbLink>{{target.view()}}, std::nullopt);
  const std::vector<std::string> one = {target.ToText()};

  CHECK_EQ(LinksOf(kCodecDagCbor, cbor), one);
  CHECK_EQ(LinksOf(kCodecDagJson, AsSpan(json)), one);
  CHECK_EQ(LinksOf(kCodecDagPb, pb), one);
  for (const uint64_t codec :
       {kCodecRaw, kCodecCbor, kCodecLibp2pKey, kCodecFilCommitmentUnsealed, kCodecFilCommitmentSealed}) {
    CHECK(LinksOf(codec, cbor).empty());
  }
  CHECK(LinksOf(kCodecJson, AsSpan(json)).empty());
  CHECK(LinksOf(kCodecRaw, AsSpan("\xff\xff")).empty());
  for (const uint64_t codec : {kCodecDagJose, kCodecGitRaw, Codec(0xb0), Codec(0x999999)}) {
    CHECK_CODE(Scan(codec, cbor), kUnimplemented);
  }
}

TEST_CASE("links: the plain forms of the gateway fixtures have none, though their bytes would parse") {
  for (const char* name :
       {"plain-cbor", "plain-json", "plain-cbor-that-can-be-dag-cbor", "plain-cbor-that-can-be-dag-json"}) {
    MemoryBlocks blocks(std::string("gateway-conformance/") + name + ".car");
    REQUIRE_EQ(blocks.roots.size(), 1);
    const CidView root = blocks.roots[0].view();
    CHECK(LinksOf(root.codec, ValueOf(blocks.Get(root)).bytes()).empty());
  }
}

TEST_CASE("links: a visitor that says no is not called again") {
  MemoryBlocks blocks("ipld-spec/alice-words-hamt.car");
  int calls = 0;
  const CidView root = blocks.roots[0].view();
  const BlockData data = ValueOf(blocks.Get(root));
  CHECK_STATUS_OK(ForEachLink(root.codec, data.bytes(), [&](const CidView&) { return ++calls < 3; }));
  CHECK_EQ(calls, 3);
}

// Goal: the codecs agree on what a node links to.
// Method: every name of the codec fixtures exists as dag-cbor and dag-json, some as dag-pb. Map keys are ordered
// differently by the two, so the links are compared as sorted lists; for dag-pb the order of Links is the same in all
// three.
TEST_CASE("links: all codec fixtures have equal links in each of their codecs") {
  MemoryBlocks blocks("codec-fixtures/fixtures.car");
  const auto names = nlohmann::json::parse(ReadTestData("codec-fixtures/names.json"));
  CHECK_EQ(names.size(), 128);
  size_t with_links = 0;
  for (const auto& item : names.items()) {
    const std::string& name = item.key();
    const auto& forms = item.value();
    INFO(name);
    const auto links = [&](const char* codec) {
      const Cid cid = CidOf(forms.at(codec).get<std::string>());
      return LinksOf(cid.codec(), ValueOf(blocks.Get(cid.view())).bytes());
    };
    auto cbor = links("dag-cbor");
    auto json = links("dag-json");
    if (forms.contains("dag-pb")) {
      CHECK_EQ(links("dag-pb"), cbor);
      CHECK_EQ(links("dag-pb"), json);
    }
    std::sort(cbor.begin(), cbor.end());
    std::sort(json.begin(), json.end());
    CHECK_EQ(cbor, json);
    with_links += cbor.empty() ? 0 : 1;
  }
  CHECK_GT(with_links, 40);
}

TEST_CASE("links: every block of the real CAR files can be read") {
  const char* const files[] = {"go-car/sample-v1.car",       "kubo/lotus_devnet_genesis.car", "forest/chain4.car",
                               "atproto/repo-tiny.car",      "atproto/dup-block.car",         "beetle/big-foo.car",
                               "ipld-spec/carv1-basic.car",  "iroh-car/testv1.car",           "boxo/fixtures.car",
                               "rs-car/config.toml.size-1.normal.car"};
  for (const char* file : files) {
    INFO(file);
    MemoryBlocks blocks(file);
    for (const Cid& cid : blocks.order) {
      const auto data = blocks.blocks.at(Multihash(cid.hash()).binary());
      CHECK_STATUS_OK(Scan(cid.codec(), data.bytes()));
    }
  }
}

}  // namespace dagstore
