#include "dag/traversal.h"

#include <nlohmann/json.hpp>

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

absl::StatusOr<std::vector<std::string>> Visits(BlockGetter& getter, const Cid& root, const TraverseOptions& options,
                                                TraverseStats* stats = nullptr) {
  std::vector<std::string> visits;
  RETURN_IF_ERROR(Traverse(
      getter, root.view(), options,
      [&](const CidView& cid, const BlockData&) {
        visits.push_back(Cid(cid).ToText());
        return absl::OkStatus();
      },
      stats));
  return visits;
}

Bytes CborListOfLinks(const std::vector<Cid>& links) {
  Bytes block = {0x9a};
  Append32Big(block, static_cast<uint32_t>(links.size()));
  for (const Cid& link : links) {
    const uint8_t head[] = {0xd8, 0x2a, 0x58, static_cast<uint8_t>(link.bytes().size() + 1), 0x00};
    AppendBytes(block, head);
    AppendBytes(block, link.bytes());
  }
  return block;
}

// A chain of dag-cbor blocks, made when asked for: block n links to block n - 1. The number is in the digest, so that
// no block needs to be hashed or kept.
class ChainGetter : public BlockGetter {
 public:
  static Cid CidAt(uint64_t n) {
    Bytes digest(32);
    Store64(digest.data(), n);
    return Cid::V1(kCodecDagCbor, {kSha2_256, digest});
  }
  absl::StatusOr<BlockData> Get(const CidView& cid) override {
    const uint64_t n = Load64(cid.hash.digest.data());
    if (n == missing) return NotFound("not in the chain");
    return BlockData(CborListOfLinks(n == 0 ? std::vector<Cid>{} : std::vector<Cid>{CidAt(n - 1)}));
  }
  uint64_t missing = UINT64_MAX;
};

}  // namespace

TEST_CASE("traversal: byte ranges are read strictly") {
  const auto text = [](const char* range) {
    const auto parsed = ParseByteRange(range);
    if (!parsed.ok()) return std::string("refused");
    return fmt::format("{}:{}", parsed->from, parsed->to ? fmt::format("{}", *parsed->to) : "*");
  };
  for (const char* good : {"0:*", "0:0", "-5:*", "512:1023", "512:-256", "-9999:-3", "-3:-3", "-5:3",
                           "9223372036854775807:*", "-9223372036854775808:*"}) {
    CHECK_EQ(text(good), good);
  }
  for (const char* bad : {"", ":", "0", "0:", ":0", "*:0", "*", "0:*:", "a:b", "1:0", "-3:-5", "0x1:2", " 0:1", "0:1 ",
                          "+1:2", "1.5:2", "9223372036854775808:*", "0:9223372036854775808", "--1:*", "0:-"}) {
    INFO(bad);
    CHECK_CODE(ParseByteRange(bad), kInvalidArgument);
  }
}

TEST_CASE("traversal: a byte range means what the vectors of the gateway say") {
  const struct {
    const char* range;
    uint64_t size, begin, end;
  } cases[] = {
      {"0:*", 10, 0, 10},   {"0:0", 10, 0, 1},    {"3:5", 10, 3, 6},     {"3:99", 10, 3, 10},  {"-3:*", 10, 7, 10},
      {"-99:*", 10, 0, 10}, {"0:-1", 10, 0, 9},   {"0:-3", 10, 0, 7},    {"-9:-3", 10, 1, 7},  {"5:-5", 10, 0, 0},
      {"4:-5", 10, 4, 5},   {"10:*", 10, 0, 0},   {"10:20", 10, 0, 0},   {"0:*", 0, 0, 0},     {"-1:*", 0, 0, 0},
      {"0:-99", 10, 0, 0},  {"-3:2", 10, 0, 0},   {"-9:3", 10, 1, 4},    {"0:9223372036854775807", 10, 0, 10},
      {"-9223372036854775808:*", 10, 0, 10}, {"9223372036854775807:*", 10, 0, 0}, {"0:-9223372036854775808", 10, 0, 0},
  };
  for (const auto& c : cases) {
    INFO(c.range, " of ", c.size);
    const Extent extent = ResolveRange(ValueOf(ParseByteRange(c.range)), c.size);
    CHECK_EQ(extent.begin, c.begin);
    CHECK_EQ(extent.end, c.end);
  }
}

TEST_CASE("traversal: blocks come before what they link to, links in encoded order, each block once") {
  MemoryBlocks own;
  const Cid a = own.Put(kCodecRaw, AsSpan("a"));
  const Cid b = own.Put(kCodecRaw, AsSpan("b"));
  const Cid left = own.Put(kCodecDagCbor, CborListOfLinks({b, a}));
  const Cid right = own.Put(kCodecDagCbor, CborListOfLinks({a, left, b}));
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks({left, right, a}));
  const auto texts = [](const std::vector<Cid>& cids) {
    std::vector<std::string> out;
    for (const Cid& cid : cids) out.push_back(cid.ToText());
    return out;
  };
  TraverseStats stats;
  CHECK_EQ(ValueOf(Visits(own, root, {}, &stats)), texts({root, left, b, a, right}));
  CHECK_EQ(stats.blocks, 5);
  CHECK_EQ(stats.links, 8);
  CHECK_EQ(own.gets, 5);
  CHECK_EQ(ValueOf(Visits(own, root, {.dups = true})), texts({root, left, b, a, right, a, left, b, a, b, a}));
  CHECK_EQ(ValueOf(Visits(own, root, {.scope = DagScope::kBlock})), texts({root}));
  CHECK_EQ(ValueOf(Visits(own, root, {.scope = DagScope::kEntity})), texts({root}));
}

TEST_CASE("traversal: v0 and v1 of a CID are one block, raw and dag-pb of one multihash are two") {
  MemoryBlocks own;
  const Cid v1 = own.Put(kCodecDagPb, EncodeNode({}, {.data = "x"}));
  const Cid v0 = Cid::V0(v1.hash().digest);
  const Cid raw = Cid::V1(kCodecRaw, v1.hash());
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks({v0, v1, raw, v0}));
  CHECK_EQ(ValueOf(Visits(own, root, {})), std::vector<std::string>{root.ToText(), v0.ToText(), raw.ToText()});
  CHECK_EQ(ValueOf(Visits(own, root, {.dups = true})).size(), 5);
}

TEST_CASE("traversal: identity CIDs are walked through, and visited on demand") {
  MemoryBlocks own;
  const Cid leaf = own.Put(kCodecRaw, AsSpan("leaf"));
  const Bytes inside = CborListOfLinks({leaf});
  const Cid inlined = Cid::V1(kCodecDagCbor, {kIdentity, inside});
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks({inlined}));
  CHECK_EQ(ValueOf(Visits(own, root, {})), std::vector<std::string>{root.ToText(), leaf.ToText()});
  CHECK_EQ(ValueOf(Visits(own, root, {.visit_identity = true})),
           std::vector<std::string>{root.ToText(), inlined.ToText(), leaf.ToText()});
  CHECK_EQ(ValueOf(Visits(own, inlined, {})), std::vector<std::string>{leaf.ToText()});
  CHECK(ValueOf(Visits(own, CidOf("bafkqaaa"), {})).empty());
  const Cid large = Cid::V1(kCodecRaw, {kIdentity, Bytes(kIdentityDigestBytesMax + 1)});
  const Cid bad = own.Put(kCodecDagCbor, CborListOfLinks({large}));
  CHECK_CODE(Visits(own, bad, {}), kDataLoss);
}

TEST_CASE("traversal: a missing block is named, with the way to it") {
  MemoryBlocks own;
  const Cid gone = own.Put(kCodecRaw, AsSpan("gone"));
  const Cid here = own.Put(kCodecRaw, AsSpan("here"));
  const Cid inner = own.Put(kCodecDagCbor, CborListOfLinks({here, gone}));
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks({here, here, inner}));
  own.Drop(gone);
  const absl::Status status = Visits(own, root, {}).status();
  CHECK_CODE(status, kNotFound);
  CHECK_EQ(std::string(Message(status)), "block " + gone.ToText() + " is missing, at links /2/1 from the root");
  own.Drop(root);
  CHECK_CODE(Visits(own, root, {}), kNotFound);
}

TEST_CASE("traversal: malformed and unknown blocks") {
  MemoryBlocks own;
  const Cid torn = own.Put(kCodecDagCbor, ValueOf(FromHex("81")));
  const Cid opaque = Cid::V1(kCodecGitRaw, own.Put(kCodecRaw, AsSpan("git")).hash());
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks({opaque}));
  const Cid bad = own.Put(kCodecDagCbor, CborListOfLinks({torn}));
  const absl::Status status = Visits(own, bad, {}).status();
  CHECK_CODE(status, kDataLoss);
  CHECK_NE(ToString(status).find(torn.ToText()), std::string::npos);
  CHECK_EQ(ValueOf(Visits(own, root, {})).size(), 2);
  CHECK_CODE(Visits(own, root, {.opaque = OpaquePolicy::kError}), kUnimplemented);
}

TEST_CASE("traversal: every budget ends the walk just above it") {
  MemoryBlocks blocks("go-car/simple-unixfs.car");
  const Cid root = blocks.roots.at(0);
  TraverseStats stats;
  CHECK_EQ(ValueOf(Visits(blocks, root, {}, &stats)).size(), 22);
  CHECK_EQ(stats.links, 21);
  CHECK_STATUS_OK(Visits(blocks, root, {.blocks_max = 22, .bytes_max = stats.bytes, .links_max = 21, .depth_max = 3}));
  CHECK_CODE(Visits(blocks, root, {.blocks_max = 21}), kResourceExhausted);
  CHECK_CODE(Visits(blocks, root, {.bytes_max = stats.bytes - 1}), kResourceExhausted);
  CHECK_CODE(Visits(blocks, root, {.links_max = 20}), kResourceExhausted);
  CHECK_CODE(Visits(blocks, root, {.depth_max = 2}), kResourceExhausted);
  CHECK_CODE(Visits(blocks, root, {.pending_bytes_max = 200}), kResourceExhausted);
  CancelFlag cancel;
  TraverseOptions options;
  options.work.cancel = &cancel;
  int visits = 0;
  CHECK_CODE(Traverse(blocks, root.view(), options,
                      [&](const CidView&, const BlockData&) {
                        if (++visits == 3) cancel.Cancel();
                        return absl::OkStatus();
                      }),
             kCancelled);
  CHECK_EQ(visits, 3);
  const auto full = [](const CidView&, const BlockData&) { return Unavailable("full"); };
  CHECK_CODE(Traverse(blocks, root.view(), {}, full), kUnavailable);
}

TEST_CASE("traversal: with dups a small DAG of doublings is stopped by its budget") {
  MemoryBlocks own;
  Cid cid = own.Put(kCodecRaw, AsSpan("x"));
  for (int i = 0; i < 60; ++i) cid = own.Put(kCodecDagCbor, CborListOfLinks({cid, cid}));
  CHECK_EQ(ValueOf(Visits(own, cid, {})).size(), 61);
  CHECK_CODE(Visits(own, cid, {.dups = true, .blocks_max = 100000}), kResourceExhausted);
}

TEST_CASE("traversal: a chain of a million blocks is walked with constant memory for links") {
  ChainGetter chain;
  constexpr uint64_t kLength = 1000000;
  uint64_t visits = 0;
  const auto count = [&](const CidView&, const BlockData&) {
    ++visits;
    return absl::OkStatus();
  };
  TraverseOptions options = {.dups = true, .pending_bytes_max = 1024};
  CHECK_STATUS_OK(Traverse(chain, ChainGetter::CidAt(kLength).view(), options, count));
  CHECK_EQ(visits, kLength + 1);
  options = {.pending_bytes_max = 1024};
  CHECK_STATUS_OK(Traverse(chain, ChainGetter::CidAt(kLength).view(), options, count));
  CHECK_EQ(visits, 2 * (kLength + 1));
  options.depth_max = kLength - 1;
  CHECK_CODE(Traverse(chain, ChainGetter::CidAt(kLength).view(), options, count), kResourceExhausted);
  chain.missing = 17;
  const absl::Status status = Traverse(chain, ChainGetter::CidAt(kLength).view(), {}, count);
  CHECK_CODE(status, kNotFound);
  CHECK_LT(ToString(status).size(), 300);
  CHECK_NE(ToString(status).find("links (999951 more)/0/0"), std::string::npos);
}

TEST_CASE("traversal: every link of the alice-words HAMT resolves inside its file") {
  MemoryBlocks blocks("ipld-spec/alice-words-hamt.car");
  CHECK_EQ(ValueOf(Visits(blocks, blocks.roots.at(0), {})).size(), 36);
}

TEST_CASE("traversal: a file of one-byte chunks is visited far more often than it has blocks") {
  MemoryBlocks blocks("rs-car/config.toml.size-1.normal.car");
  const Cid root = blocks.roots.at(0);
  CHECK_EQ(ValueOf(Visits(blocks, root, {})).size(), 57);
  const size_t all = ValueOf(Visits(blocks, root, {.dups = true})).size();
  CHECK_EQ(all, 404);
  CHECK_EQ(ValueOf(Visits(blocks, root, {.scope = DagScope::kEntity, .dups = true})).size(), all);
  const EntityRange whole;
  CHECK_EQ(ValueOf(Visits(blocks, root, {.scope = DagScope::kEntity, .range = whole, .dups = true})).size(), all);
  CHECK_EQ(ValueOf(Visits(blocks, root, {.scope = DagScope::kEntity, .range = whole})).size(), 57);
}

TEST_CASE("traversal: a partial HAMT has its entity but not all its blocks") {
  MemoryBlocks blocks("helia/hamt-partial.car");
  const Cid root = blocks.roots.at(0);
  const auto entity = ValueOf(Visits(blocks, root, {.scope = DagScope::kEntity}));
  CHECK_EQ(entity.size(), 237);
  const absl::Status status = Visits(blocks, root, {}).status();
  CHECK_CODE(status, kNotFound);
  CHECK_NE(ToString(status).find(" is missing, at links /0"), std::string::npos);
}

// Goal: without dups, a node that stands at two places of a file gives the blocks of both.
// Method: a node with two leaves, twice in a row. The range begins inside its first place and ends inside its second,
// and needs the second leaf there and the first leaf here.
TEST_CASE("traversal: a node partly in the range is walked again where other parts of it are") {
  MemoryBlocks own;
  const Cid a = own.Put(kCodecRaw, AsSpan("aa"));
  const Cid b = own.Put(kCodecRaw, AsSpan("bb"));
  const Cid node = own.Put(kCodecDagPb, EncodeNode({{"", a}, {"", b}}, {.block_sizes = {2, 2}}));
  const Cid root = own.Put(kCodecDagPb, EncodeNode({{"", node}, {"", node}, {"", node}}, {.block_sizes = {4, 4, 4}}));
  const auto visits = [&](int64_t from, int64_t to, bool dups) {
    return ValueOf(Visits(own, root, {.scope = DagScope::kEntity, .range = EntityRange{from, to}, .dups = dups}));
  };
  const std::string r = root.ToText(), n = node.ToText(), ta = a.ToText(), tb = b.ToText();
  using Texts = std::vector<std::string>;
  CHECK_EQ(visits(2, 5, false), Texts{r, n, tb, ta});
  CHECK_EQ(visits(2, 5, true), Texts{r, n, tb, n, ta});
  CHECK_EQ(visits(2, 11, false), Texts{r, n, tb, ta});
  CHECK_EQ(visits(2, 11, true), Texts{r, n, tb, n, ta, tb, n, ta, tb});
  CHECK_EQ(visits(0, 0, false), Texts{r, n, ta});
  CHECK_EQ(visits(12, 20, false), Texts{r});
}

TEST_CASE("traversal: an entity must be built of what it is") {
  MemoryBlocks own;
  const Cid leaf = own.Put(kCodecRaw, AsSpan("ab"));
  const Cid dir = own.Put(kCodecDagPb, EncodeNode({{"x", leaf}}, {.type = 1}));
  const Cid cbor = own.Put(kCodecDagCbor, CborListOfLinks({leaf}));
  const TraverseOptions entity = {.scope = DagScope::kEntity};
  const auto file_of = [&](const Cid& child) {
    return own.Put(kCodecDagPb, EncodeNode({{"", child}}, {.block_sizes = {2}}));
  };
  CHECK_CODE(Visits(own, file_of(dir), entity), kDataLoss);
  CHECK_CODE(Visits(own, file_of(cbor), entity), kDataLoss);
  CHECK_EQ(ValueOf(Visits(own, file_of(leaf), entity)).size(), 2);
  const auto shard_of = [&](const Cid& child) {
    const FsFields fields = {.type = 5, .data = "\x01", .hash_type = 0x22, .fanout = 256};
    return own.Put(kCodecDagPb, EncodeNode({{"00", child}}, fields));
  };
  CHECK_CODE(Visits(own, shard_of(leaf), entity), kDataLoss);
  CHECK_CODE(Visits(own, shard_of(dir), entity), kDataLoss);
  // Directories, symlinks and nodes without UnixFS stand for themselves.
  CHECK_EQ(ValueOf(Visits(own, dir, entity)).size(), 1);
  CHECK_EQ(ValueOf(Visits(own, own.Put(kCodecDagPb, EncodeNode({}, {.type = 4, .data = "t"})), entity)).size(), 1);
  const Cid bare = own.Put(kCodecDagPb, EncodeDagPb(std::vector<PbLink>{{leaf.view()}}, std::nullopt));
  CHECK_EQ(ValueOf(Visits(own, bare, entity)).size(), 1);
  // A file whose sizes are no use can be taken whole, but not by a range.
  const Cid odd = own.Put(kCodecDagPb, EncodeNode({{"", leaf}}, {}));
  CHECK_EQ(ValueOf(Visits(own, odd, entity)).size(), 2);
  CHECK_CODE(Visits(own, odd, {.scope = DagScope::kEntity, .range = EntityRange{}}), kDataLoss);
}

TEST_CASE("traversal: the next links are hinted, nearest first") {
  MemoryBlocks own;
  std::vector<Cid> leaves;
  for (const char* text : {"1", "2", "3"}) leaves.push_back(own.Put(kCodecRaw, AsSpan(text)));
  leaves.insert(leaves.begin() + 1, CidOf("bafkqaaa"));
  const Cid root = own.Put(kCodecDagCbor, CborListOfLinks(leaves));
  CHECK_STATUS_OK(Visits(own, root, {.prefetch_links_max = 2}));
  CHECK_EQ(own.hinted, std::vector<std::string>{leaves[0].ToText(), leaves[2].ToText()});
}

}  // namespace dagstore
