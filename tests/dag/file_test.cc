#include "dag/file.h"

#include <algorithm>

#include "dag/path.h"
#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

constexpr uint64_t kBytesMax = 16 << 20;

Cid Find(BlockGetter& getter, const std::string& path) {
  ResolvedPath resolved;
  REQUIRE_STATUS_OK(ResolvePath(getter, ValueOf(ParseDagPath(path)), {}, resolved));
  return resolved.terminus().cid;
}

std::string ReadPath(MemoryBlocks& blocks, const std::string& path) {
  const Cid cid = Find(blocks, blocks.roots.at(0).ToText() + "/" + path);
  return ValueOf(ValueOf(UnixFsFile::Open(blocks, cid.view())).ReadAll(kBytesMax));
}

absl::StatusOr<std::string> ReadRange(BlockGetter& getter, const Cid& cid, uint64_t offset, uint64_t length) {
  ASSIGN_OR_RETURN(const UnixFsFile file, UnixFsFile::Open(getter, cid.view()));
  std::string content;
  RETURN_IF_ERROR(file.ReadRange(offset, length, [&](Span bytes) {
    CHECK_FALSE(bytes.empty());
    content += AsText(bytes);
    return absl::OkStatus();
  }));
  return content;
}

std::vector<std::string> NamesOf(BlockGetter& getter, const Cid& cid) {
  std::vector<std::string> names;
  REQUIRE_STATUS_OK(ListDirectory(getter, cid.view(), {}, [&](const DirEntry& entry) {
    names.emplace_back(entry.name);
    return true;
  }));
  return names;
}

}  // namespace

TEST_CASE("file: contents of the fixtures are what their origins say") {
  MemoryBlocks simple("go-car/simple-unixfs.car");
  CHECK_EQ(ReadPath(simple, "a/2/B.txt"), "a2B\n");
  for (int i = 1; i <= 9; ++i) {
    const std::string content = {"abc"[(i - 1) / 3], static_cast<char>('0' + i), "ABCDEFGHI"[i - 1], '\n'};
    CHECK_EQ(ReadPath(simple, fmt::format("{}/{}/{}.txt", content[0], i, content[2])), content);
  }
  MemoryBlocks inlined("go-unixfsnode/QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o.car");
  CHECK_EQ(ReadPath(inlined, ""), "hello world\n");
  MemoryBlocks duplicates("gateway-conformance/dir-with-duplicate-files.car");
  CHECK_EQ(ReadPath(duplicates, "multiblock.txt").size(), 1026);
  MemoryBlocks hello("boxo/hello.car");
  CHECK_EQ(ReadPath(hello, ""), "hello world");
  MemoryBlocks empty("boxo/ipns-hostname-redirects.car");
  CHECK_EQ(ReadPath(empty, "foo/index.html"), "");
  MemoryBlocks adl("lotus/adl_test.car");
  CHECK_EQ(ReadPath(adl, "@content.txt"), "NO ADL");
  CHECK_EQ(ReadPath(adl, "Links/0/Hash"), "ADL");
  MemoryBlocks special("boxo/dir-special-chars.car");
  CHECK_EQ(ReadPath(special, "foo? #<'/bar/file.txt"), "3");
  MemoryBlocks hamt("boxo/directory-with-multilayer-hamt-and-multiblock-files.car");
  CHECK_EQ(ReadPath(hamt, "hamtDir/exampleA"), ReadPath(hamt, "basicDir/exampleA"));
  CHECK_EQ(ReadPath(hamt, "hamtDir/exampleB").size(), 887);
  CHECK_EQ(ReadPath(hamt, "hamtDir/exampleD-hamt-collide-exampleB-seed-364").size(), 1283);
}

TEST_CASE("file: the images of dir.car are whole") {
  MemoryBlocks blocks("web3.storage/dir.car");
  const Cid root = blocks.roots.at(0);
  CHECK_EQ(NamesOf(blocks, root),
           std::vector<std::string>{"dr-is-tired.jpg", "not-distributed.jpg", "youareanonsense.jpg"});
  const std::string image = ReadPath(blocks, "not-distributed.jpg");
  CHECK_EQ(image.size(), 262144 + 152057);
  CHECK_EQ(ToHex(AsSpan(image).first(4)), "ffd8ffe0");
  CHECK_EQ(ToHex(AsSpan(image).last(2)), "ffd9");
  CHECK_EQ(ReadPath(blocks, "dr-is-tired.jpg").size(), 94482);
  CHECK_EQ(ReadPath(blocks, "youareanonsense.jpg").size(), 55415);
}

TEST_CASE("file: a one-byte-chunked file of many levels reads as its size says") {
  MemoryBlocks blocks("rs-car/config.toml.size-1.normal.car");
  const UnixFsFile file = ValueOf(UnixFsFile::Open(blocks, blocks.roots.at(0).view()));
  const std::string content = ValueOf(file.ReadAll(kBytesMax));
  CHECK_EQ(content.size(), file.size());
  CHECK_EQ(content.size(), 400);
  CHECK_EQ(ValueOf(ReadRange(blocks, blocks.roots[0], 150, 100)), content.substr(150, 100));
}

TEST_CASE("file: ranges that avoid a missing block are read, others name it") {
  MemoryBlocks blocks("gateway-conformance/file-3k-and-3-blocks-missing-block.car");
  const Cid root = blocks.roots.at(0);
  const UnixFsFile file = ValueOf(UnixFsFile::Open(blocks, root.view()));
  const uint64_t size = file.size();
  CHECK_EQ(size, 3072);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 0, 1001)).size(), 1001);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 0, 1024)).size(), 1024);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 2200, size)).size(), size - 2200);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 2048, size)).size(), 1024);
  for (const auto& [offset, length] : {std::pair{0, 1025}, {1024, 1}, {2047, 1}, {2047, 9}, {0, 3072}}) {
    const absl::Status status = ReadRange(blocks, root, offset, length).status();
    CHECK_CODE(status, kNotFound);
    CHECK_NE(ToString(status).find("Qm"), std::string::npos);
  }
  CHECK_CODE(file.ReadAll(kBytesMax), kNotFound);
  CHECK_CODE(file.ReadAll(size - 1), kResourceExhausted);
}

// Goal: any range is what the whole content has there, and fetches no block outside it.
// Method: a file of three levels with inline data at each, all ranges of a small file.
TEST_CASE("file: every range of a small deep file is exact") {
  MemoryBlocks blocks;
  const auto leaf = [&](const std::string& text) { return blocks.Put(kCodecRaw, AsSpan(text)); };
  const Cid left = blocks.Put(kCodecDagPb, EncodeNode({{"", leaf("cd")}, {"", leaf("")}, {"", leaf("e")}},
                                                      {.data = "b", .size = 4, .block_sizes = {2, 0, 1}}));
  const Cid old_leaf = blocks.Put(kCodecDagPb, EncodeNode({}, {.type = 0, .data = "fg", .size = 2}));
  const FsFields fields = {.data = "a", .size = 12, .block_sizes = {4, 2, 4, 1}, .packed = true};
  const Cid root =
      blocks.Put(kCodecDagPb, EncodeNode({{"", left}, {"", old_leaf}, {"", left}, {"", leaf("h")}}, fields));
  const std::string content = "abcdefgbcdeh";
  CHECK_EQ(ValueOf(ValueOf(UnixFsFile::Open(blocks, root.view())).ReadAll(kBytesMax)), content);
  for (uint64_t offset = 0; offset <= content.size() + 1; ++offset) {
    for (uint64_t length = 0; length <= content.size() + 2; ++length) {
      INFO(offset, "+", length);
      CHECK_EQ(ValueOf(ReadRange(blocks, root, offset, length)),
               offset < content.size() ? content.substr(offset, length) : "");
    }
  }
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 5, UINT64_MAX)), content.substr(5));
  CHECK_EQ(ValueOf(ReadRange(blocks, root, UINT64_MAX, UINT64_MAX)), "");

  blocks.gets = 0;
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 0, 1)), "a");
  CHECK_EQ(blocks.gets, 1);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 5, 2)), "fg");
  CHECK_EQ(blocks.gets, 3);
  CHECK_EQ(ValueOf(ReadRange(blocks, root, 1, 1)), "b");
  CHECK_EQ(blocks.gets, 5);
}

TEST_CASE("file: children that are not what their parent says are refused") {
  MemoryBlocks blocks;
  const Cid two = blocks.Put(kCodecRaw, AsSpan("ab"));
  const Cid dir = blocks.Put(kCodecDagPb, EncodeNode({}, {.type = 1}));
  const Cid cbor = blocks.Put(kCodecDagCbor, ValueOf(FromHex("6161")));
  const Cid no_fs = blocks.Put(kCodecDagPb, EncodeDagPb({}, std::nullopt));
  const Cid torn = blocks.Put(kCodecDagPb, ValueOf(FromHex("0a")));
  const Cid file = blocks.Put(kCodecDagPb, EncodeNode({{"", two}}, {.size = 2, .block_sizes = {2}}));
  const struct {
    const char* what;
    Cid child;
    uint64_t size;
  } cases[] = {{"raw too long", two, 1},   {"raw too short", two, 3},  {"file too long", file, 1},
               {"file too short", file, 3}, {"directory", dir, 2},      {"dag-cbor", cbor, 2},
               {"no UnixFS", no_fs, 2},     {"malformed", torn, 2}};
  for (const auto& c : cases) {
    INFO(c.what);
    const Cid root = blocks.Put(kCodecDagPb, EncodeNode({{"", c.child}}, {.block_sizes = {c.size}}));
    CHECK_CODE(ReadRange(blocks, root, 0, 10), kDataLoss);
  }
  const Cid count = blocks.Put(kCodecDagPb, EncodeNode({{"", two}}, {.size = 2}));
  CHECK_CODE(UnixFsFile::Open(blocks, count.view()), kDataLoss);
  CHECK_CODE(UnixFsFile::Open(blocks, torn.view()), kDataLoss);
  for (const Cid& cid : {dir, cbor, no_fs}) CHECK_CODE(UnixFsFile::Open(blocks, cid.view()), kFailedPrecondition);
}

TEST_CASE("file: a chain of single children is read down to the depth limit") {
  MemoryBlocks blocks;
  Cid cid = blocks.Put(kCodecRaw, AsSpan("x"));
  for (size_t i = 0; i < kFileDepthMax; ++i) {
    cid = blocks.Put(kCodecDagPb, EncodeNode({{"", cid}}, {.size = 1, .block_sizes = {1}}));
  }
  CHECK_EQ(ValueOf(ReadRange(blocks, cid, 0, 1)), "x");
  cid = blocks.Put(kCodecDagPb, EncodeNode({{"", cid}}, {.size = 1, .block_sizes = {1}}));
  CHECK_CODE(ReadRange(blocks, cid, 0, 1), kResourceExhausted);
}

TEST_CASE("file: the parts of a range are hinted, in the order in which they are read") {
  MemoryBlocks own;
  std::vector<Cid> leaves;
  std::vector<uint64_t> sizes;
  std::vector<NamedLink> links;
  for (const char* text : {"first", "second", "third"}) {
    leaves.push_back(own.Put(kCodecRaw, AsSpan(text)));
    links.push_back({"", leaves.back()});
    sizes.push_back(std::string_view(text).size());
  }
  const Cid root = own.Put(kCodecDagPb, EncodeNode(links, {.block_sizes = sizes}));
  CHECK_EQ(ValueOf(ReadRange(own, root, 5, 100)), "secondthird");
  CHECK_EQ(own.hinted, std::vector<std::string>{leaves[1].ToText(), leaves[2].ToText()});
}

TEST_CASE("file: an error of the sink ends the reading") {
  MemoryBlocks blocks("gateway-conformance/dir-with-duplicate-files.car");
  const Cid cid = Find(blocks, blocks.roots.at(0).ToText() + "/multiblock.txt");
  const UnixFsFile file = ValueOf(UnixFsFile::Open(blocks, cid.view()));
  int calls = 0;
  const auto sink = [&](Span) { return ++calls == 2 ? Unavailable("full") : absl::OkStatus(); };
  CHECK_CODE(file.ReadRange(0, 1026, sink), kUnavailable);
  CHECK_EQ(calls, 2);
}

TEST_CASE("file: a HAMT directory lists every entry once, and a partial one names what it lacks") {
  MemoryBlocks blocks("gateway-conformance/single-layer-hamt-with-multi-block-files.car");
  std::vector<std::string> names = NamesOf(blocks, blocks.roots.at(0));
  CHECK_EQ(names.size(), 1000);
  std::sort(names.begin(), names.end());
  CHECK(std::unique(names.begin(), names.end()) == names.end());
  CHECK(std::binary_search(names.begin(), names.end(), "470.txt"));

  MemoryBlocks partial("helia/hamt-partial.car");
  CHECK_EQ(NamesOf(partial, partial.roots.at(0)).size(), 1000);
  const Cid shard = partial.order.back();
  partial.Drop(shard);
  const absl::Status status =
      ListDirectory(partial, partial.roots.at(0).view(), {}, [](const DirEntry&) { return true; });
  CHECK_CODE(status, kNotFound);
  CHECK_NE(ToString(status).find(shard.ToText()), std::string::npos);
}

TEST_CASE("file: listings are bounded, stop on demand, and refuse what is no directory") {
  MemoryBlocks blocks("gateway-conformance/single-layer-hamt-with-multi-block-files.car");
  const Cid root = blocks.roots.at(0);
  const auto list = [&](const Cid& cid, const ListOptions& options, int stop_after = -1) {
    return ListDirectory(blocks, cid.view(), options, [&](const DirEntry&) { return --stop_after != 0; });
  };
  CHECK_STATUS_OK(list(root, {.entries_max = 1000}));
  CHECK_CODE(list(root, {.entries_max = 999}), kResourceExhausted);
  CHECK_STATUS_OK(list(root, {.shards_max = 237}));
  CHECK_CODE(list(root, {.shards_max = 236}), kResourceExhausted);
  CHECK_STATUS_OK(list(root, {.entries_max = 5}, 5));
  const Cid file = Find(blocks, root.ToText() + "/1.txt");
  CHECK_CODE(list(file, {}), kFailedPrecondition);
  CHECK_CODE(list(Cid::V1(kCodecRaw, file.hash()), {}), kFailedPrecondition);

  MemoryBlocks plain("gateway-conformance/dag-pb.car");
  std::vector<std::string> lines;
  CHECK_STATUS_OK(ListDirectory(plain, plain.roots.at(0).view(), {}, [&](const DirEntry& entry) {
    lines.push_back(fmt::format("{} {} {}", entry.name, Cid(entry.cid).ToText(), *entry.tsize));
    return true;
  }));
  CHECK_EQ(lines, std::vector<std::string>{
                      "foo bafybeidryarwh34ygbtyypbu7qjkl4euiwxby6cql6uvosonohkq2kwnkm 69",
                      "foo.txt bafkreic3ondyhizrzeoufvoodehinugpj3ecruwokaygl7elezhn2khqfa 13"});
}

TEST_CASE("file: a HAMT of shards in shards ends with the bits of its hash") {
  MemoryBlocks blocks;
  Cid cid = blocks.Put(kCodecDagPb, EncodeNode({}, {.type = 5, .hash_type = 0x22, .fanout = 256}));
  const auto wrap = [&] {
    const FsFields fields = {.type = 5, .data = "\x01", .hash_type = 0x22, .fanout = 256};
    cid = blocks.Put(kCodecDagPb, EncodeNode({{"00", cid}}, fields));
  };
  for (int i = 0; i < 7; ++i) wrap();
  CHECK(NamesOf(blocks, cid).empty());
  wrap();
  CHECK_CODE(ListDirectory(blocks, cid.view(), {}, [](const DirEntry&) { return true; }), kDataLoss);
}

TEST_CASE("file: a node says what it is from its block alone") {
  const auto inspect = [](uint64_t codec, Span block) {
    return InspectUnixFs(Cid::V1(codec, {kSha2_256, {}}).view(), block);
  };
  CHECK_EQ(ValueOf(inspect(kCodecRaw, AsSpan("abc"))).size, 3);
  const NodeInfo link = ValueOf(inspect(kCodecDagPb, EncodeNode({}, {.type = 4, .data = "../there"})));
  CHECK_EQ(link.kind, UnixFsKind::kSymlink);
  CHECK_EQ(link.target, "../there");
  CHECK_EQ(ValueOf(inspect(kCodecDagPb, EncodeNode({}, {.data = "x", .block_sizes = {9}}))).size, 10);
  CHECK_EQ(ValueOf(inspect(kCodecDagPb, EncodeNode({}, {.type = 1}))).kind, UnixFsKind::kDirectory);
  CHECK_CODE(inspect(kCodecDagPb, {}), kFailedPrecondition);
  CHECK_CODE(inspect(kCodecDagCbor, {}), kFailedPrecondition);
  CHECK_CODE(inspect(kCodecDagPb, AsSpan("\x01")), kDataLoss);
}

}  // namespace dagstore
