#include "dag/path.h"

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

absl::Status Resolve(BlockGetter& getter, const std::string& path, ResolvedPath& resolved) {
  return ResolvePath(getter, ValueOf(ParseDagPath(path)), {}, resolved);
}

std::string ContentAt(MemoryBlocks& blocks, const std::string& path) {
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(blocks, blocks.roots.at(0).ToText() + "/" + path, resolved));
  return std::string(AsText(resolved.terminus().data.bytes()));
}

}  // namespace

TEST_CASE("path: texts are taken apart") {
  const std::string cid = "bafybeiegxwlgmoh2cny7qlolykdf7aq7g6dlommarldrbm7c4hbckhfcke";
  const struct {
    std::string text;
    std::vector<std::string> segments;
  } cases[] = {
      {cid, {}},
      {cid + "/", {}},
      {"/ipfs/" + cid, {}},
      {"ipfs://" + cid + "/a", {"a"}},
      {"/ipfs/" + cid + "//a///b/", {"a", "b"}},
      {cid + "/a%20b/../.", {"a%20b", "..", "."}},
      {cid + "/\xff\x01", {"\xff\x01"}},
  };
  for (const auto& c : cases) {
    INFO(c.text);
    const DagPath path = ValueOf(ParseDagPath(c.text));
    CHECK_EQ(path.root.ToText(), cid);
    CHECK_EQ(path.segments, c.segments);
  }
  for (const char* bad : {"", "/", "/ipfs/", "/ipfs", "a/b", "/ipns/example.org", "bafy/a"}) {
    INFO(bad);
    CHECK_CODE(ParseDagPath(bad), kInvalidArgument);
  }
  std::string many = cid;
  for (size_t i = 0; i < kPathSegmentsMax; ++i) many += "/a";
  CHECK_STATUS_OK(ParseDagPath(many));
  CHECK_CODE(ParseDagPath(many + "/a"), kInvalidArgument);
  CHECK_CODE(ParseDagPath(cid + "/" + std::string(kPathTextBytesMax, 'a')), kInvalidArgument);
}

TEST_CASE("path: plain directories are walked by name, byte for byte") {
  MemoryBlocks dag_pb("gateway-conformance/dag-pb.car");
  CHECK_EQ(ContentAt(dag_pb, "foo/bar.txt"), "Hello, world!\n");
  CHECK_EQ(ContentAt(dag_pb, "foo.txt"), "Hello, IPFS!\n");
  MemoryBlocks utf8("gateway-conformance/utf8-names.car");
  CHECK_EQ(ContentAt(utf8, "\xc4\x85/\xc4\x99/file-\xc5\xba\xc5\x82.txt"), "I am a txt file on path with utf8\n");
  MemoryBlocks percent("gateway-conformance/dir-with-percent-encoded-filename.car");
  ResolvedPath resolved;
  const std::string root = percent.roots.at(0).ToText();
  const PbNode node = ValueOf(PbNode::Parse(ValueOf(percent.Get(percent.roots[0].view())).bytes()));
  PbLink link;
  PbNode::Cursor at(node);
  REQUIRE(at.Next(link));
  const std::string name(AsText(*link.name));
  CHECK_NE(name.find("%2C"), std::string::npos);
  CHECK_STATUS_OK(Resolve(percent, root + "/" + name, resolved));
  std::string decoded = name;
  decoded.replace(decoded.find("%2C"), 3, ",");
  CHECK_CODE(Resolve(percent, root + "/" + decoded, resolved), kNotFound);
}

TEST_CASE("path: 470.txt is reached through the shards 00 and 6E") {
  MemoryBlocks blocks("gateway-conformance/single-layer-hamt-with-multi-block-files.car");
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(blocks, blocks.roots.at(0).ToText() + "/470.txt", resolved));
  REQUIRE_EQ(resolved.blocks.size(), 3);
  CHECK_EQ(resolved.blocks[0].cid, blocks.roots[0]);
  CHECK(resolved.remainder.empty());
  for (int i = 1; i <= 1000; ++i) {
    const std::string name = fmt::format("{}.txt", i);
    INFO(name);
    CHECK_STATUS_OK(Resolve(blocks, blocks.roots[0].ToText() + "/" + name, resolved));
  }
  for (const char* absent : {"0.txt", "1001.txt", "470.tx", "", "6E470.txt", "00"}) {
    if (*absent == '\0') continue;
    INFO(absent);
    const absl::Status status = Resolve(blocks, blocks.roots[0].ToText() + "/" + absent, resolved);
    CHECK_CODE(status, kNotFound);
    CHECK_NE(ToString(status).find(absent), std::string::npos);
  }
}

TEST_CASE("path: a missing segment is named, and the blocks before it are told") {
  MemoryBlocks blocks("gateway-conformance/dag-pb.car");
  const std::string root = blocks.roots.at(0).ToText();
  ResolvedPath resolved;
  const absl::Status status = Resolve(blocks, root + "/foo/nothing/more", resolved);
  CHECK_CODE(status, kNotFound);
  CHECK_NE(ToString(status).find("segment 2 \"nothing\""), std::string::npos);
  CHECK_EQ(resolved.blocks.size(), 2);
  CHECK_CODE(Resolve(blocks, root + "/foo.txt/x", resolved), kNotFound);  // below a raw leaf
  blocks.Drop(blocks.order.at(1));
  blocks.Drop(blocks.order.at(2));
  blocks.Drop(blocks.order.at(3));
  const absl::Status missing = Resolve(blocks, root + "/foo/bar.txt", resolved);
  CHECK_CODE(missing, kNotFound);
  const std::string foo = "bafybeidryarwh34ygbtyypbu7qjkl4euiwxby6cql6uvosonohkq2kwnkm";
  CHECK_NE(ToString(missing).find(foo + " is missing"), std::string::npos);
}

TEST_CASE("path: dag-cbor maps and lists are walked inside the block, links lead on") {
  MemoryBlocks blocks("gateway-conformance/dag-cbor-traversal.car");
  const std::string root = blocks.roots.at(0).ToText();
  MemoryBlocks own;
  const Cid leaf = own.Put(kCodecRaw, AsSpan("leaf"));
  // {"a": [link, {"b": link}], "c": 1}
  Bytes cbor = ValueOf(FromHex("a2616182d82a582500"));
  AppendBytes(cbor, leaf.bytes());
  AppendBytes(cbor, ValueOf(FromHex("a16162d82a582500")));
  AppendBytes(cbor, leaf.bytes());
  AppendBytes(cbor, ValueOf(FromHex("616301")));
  const std::string link = "{\"/\":\"" + leaf.ToText() + "\"}";
  const std::string json = "{\"a\":[" + link + ",{\"b\":" + link + "}],\"c\":1}";
  for (const Cid& top : {own.Put(kCodecDagCbor, cbor), own.Put(kCodecDagJson, AsSpan(json))}) {
    ResolvedPath resolved;
    for (const char* path : {"/a/0", "/a/1/b"}) {
      REQUIRE_STATUS_OK(Resolve(own, top.ToText() + path, resolved));
      REQUIRE_EQ(resolved.blocks.size(), 2);
      CHECK_EQ(resolved.terminus().cid, leaf);
      CHECK(resolved.remainder.empty());
    }
    REQUIRE_STATUS_OK(Resolve(own, top.ToText() + "/a/1", resolved));
    CHECK_EQ(resolved.blocks.size(), 1);
    CHECK_EQ(resolved.remainder, std::vector<std::string>{"a", "1"});
    REQUIRE_STATUS_OK(Resolve(own, top.ToText() + "/c", resolved));
    CHECK_EQ(resolved.value.size(), 1);
    for (const char* path : {"/x", "/a/2", "/a/x", "/c/d", "/a/1/c", "/a/0/x"}) {
      INFO(path);
      CHECK_CODE(Resolve(own, top.ToText() + path, resolved), kNotFound);
    }
    own.Drop(leaf);
    const absl::Status missing = Resolve(own, top.ToText() + "/a/1/b", resolved);
    CHECK_CODE(missing, kNotFound);
    CHECK_NE(ToString(missing).find("\"b\""), std::string::npos);
    own.Put(kCodecRaw, AsSpan("leaf"));
  }
  // The fixture: two documents deep.
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(blocks, root, resolved));
  CHECK_EQ(resolved.blocks.size(), 1);
}

TEST_CASE("path: a block that is nothing but a link leads on by itself") {
  MemoryBlocks own;
  const Cid leaf = own.Put(kCodecRaw, AsSpan("leaf"));
  Bytes inner = ValueOf(FromHex("a16161d82a582500"));
  AppendBytes(inner, leaf.bytes());
  const Cid map = own.Put(kCodecDagCbor, inner);
  Bytes link = ValueOf(FromHex("d82a582500"));
  AppendBytes(link, map.bytes());
  const Cid top = own.Put(kCodecDagCbor, link);
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(own, top.ToText() + "/a", resolved));
  CHECK_EQ(resolved.blocks.size(), 3);
  CHECK_EQ(resolved.terminus().cid, leaf);
}

TEST_CASE("path: the first of two equal names wins, and dag-pb nodes without UnixFS have names too") {
  MemoryBlocks own;
  const Cid one = own.Put(kCodecRaw, AsSpan("1"));
  const Cid two = own.Put(kCodecRaw, AsSpan("2"));
  const Cid dir = own.Put(kCodecDagPb, EncodeNode({{"x", one}, {"x", two}}, {.type = 1}));
  const std::string name = "x";
  const Cid bare = own.Put(kCodecDagPb, EncodeDagPb(std::vector<PbLink>{{two.view(), AsSpan(name)}}, std::nullopt));
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(own, dir.ToText() + "/x", resolved));
  CHECK_EQ(resolved.terminus().cid, one);
  REQUIRE_STATUS_OK(Resolve(own, bare.ToText() + "/x", resolved));
  CHECK_EQ(resolved.terminus().cid, two);
  const Cid file = own.Put(kCodecDagPb, EncodeNode({{"x", one}}, {.block_sizes = {1}}));
  CHECK_CODE(Resolve(own, file.ToText() + "/x", resolved), kNotFound);
  CHECK_CODE(Resolve(own, Cid::V1(kCodecGitRaw, one.hash()).ToText() + "/x", resolved), kUnimplemented);
}

TEST_CASE("path: identity CIDs are answered from themselves, oversized ones are refused") {
  MemoryBlocks own;
  const Cid leaf = own.Put(kCodecRaw, AsSpan("leaf"));
  Bytes dir = EncodeNode({{"f", leaf}}, {.type = 1});
  const Cid inlined = Cid::V1(kCodecDagPb, {kIdentity, dir});
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(Resolve(own, inlined.ToText() + "/f", resolved));
  CHECK_EQ(resolved.terminus().cid, leaf);
  CHECK_EQ(own.gets, 1);
  const Cid large = Cid::V1(kCodecRaw, {kIdentity, Bytes(kIdentityDigestBytesMax + 1)});
  CHECK_CODE(Resolve(own, large.ToText(), resolved), kDataLoss);
  const Cid largest = Cid::V1(kCodecRaw, {kIdentity, Bytes(kIdentityDigestBytesMax)});
  CHECK_STATUS_OK(Resolve(own, largest.ToText(), resolved));
}

TEST_CASE("path: budgets end a resolution") {
  MemoryBlocks blocks("gateway-conformance/gateway-cache.car");
  const DagPath path = ValueOf(ParseDagPath(blocks.roots.at(0).ToText() + "/root2/root3/root4/index.html"));
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(ResolvePath(blocks, path, {}, resolved));
  CHECK_EQ(resolved.blocks.size(), 5);
  CHECK_STATUS_OK(ResolvePath(blocks, path, {.blocks_max = 5}, resolved));
  CHECK_CODE(ResolvePath(blocks, path, {.blocks_max = 4}, resolved), kResourceExhausted);
  CHECK_CODE(ResolvePath(blocks, path, {.held_bytes_max = 100}, resolved), kResourceExhausted);
  CancelFlag cancel;
  cancel.Cancel();
  CHECK_CODE(ResolvePath(blocks, path, {.work = {.cancel = &cancel}}, resolved), kCancelled);
}

}  // namespace dagstore
