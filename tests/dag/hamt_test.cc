#include "dag/hamt.h"

#include "base/murmur3.h"
#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

const Cid kLeaf = Cid::V1(kCodecRaw, {kIdentity, {}});

struct Shard {
  std::vector<std::string> names = {};
  std::string bitmap = {};
  uint64_t fanout = 256;
  uint64_t hash_type = 0x22;
  uint64_t type = 5;
};

absl::StatusOr<HamtShard> Open(const Shard& shape, Bytes& block) {
  std::vector<NamedLink> links;
  for (const std::string& name : shape.names) links.push_back({name, kLeaf});
  block = EncodeNode(
      links, {.type = shape.type, .data = shape.bitmap, .hash_type = shape.hash_type, .fanout = shape.fanout});
  ASSIGN_OR_RETURN(const PbNode node, PbNode::Parse(block));
  ASSIGN_OR_RETURN(const UnixFs fs, UnixFs::Decode(*node.data()));
  return HamtShard::Open(node, fs);
}
absl::Status OpenStatus(const Shard& shape) {
  Bytes block;
  return Open(shape, block).status();
}

}  // namespace

TEST_CASE("hamt: the hash of 470.txt is that of the specification") {
  CHECK_EQ(Murmur3X64_64(AsSpan("470.txt")), 0x006e88df5847e67c);
}

TEST_CASE("hamt: bogus fanouts are refused") {
  // CVE-2023-23625, CVE-2023-23626, CVE-2023-23631
  const uint64_t bogus[] = {0,    1,    2,    4,    7,    9,        12,       24,       255,      257,
                            1000, 1023, 1025, 2048, 4096, 1u << 31, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX};
  for (const uint64_t fanout : bogus) {
    INFO(fanout);
    CHECK_CODE(OpenStatus({.fanout = fanout}), kDataLoss);
  }
  for (const uint64_t fanout : {8, 16, 32, 64, 128, 256, 512, 1024}) {
    INFO(fanout);
    CHECK_STATUS_OK(OpenStatus({.fanout = fanout}));
  }
}

TEST_CASE("hamt: shards that do not agree with themselves are refused") {
  CHECK_STATUS_OK(OpenStatus({.names = {"00a", "05b"}, .bitmap = std::string("\x21")}));
  CHECK_CODE(OpenStatus({.names = {"00a"}, .bitmap = std::string("\x21")}), kDataLoss);                 // bits > links
  CHECK_CODE(OpenStatus({.names = {"00a", "05b", "06c"}, .bitmap = std::string("\x21")}), kDataLoss);   // bits < links
  CHECK_CODE(OpenStatus({.names = {"05b", "00a"}, .bitmap = std::string("\x21")}), kDataLoss);          // wrong order
  CHECK_CODE(OpenStatus({.names = {"00a", "5b"}, .bitmap = std::string("\x21")}), kDataLoss);           // short prefix
  CHECK_CODE(OpenStatus({.names = {"0"}, .bitmap = std::string("\x01")}), kDataLoss);
  CHECK_CODE(OpenStatus({.names = {"0a"}, .bitmap = std::string("\x04\x00", 2)}), kDataLoss);           // lower case
  CHECK_STATUS_OK(OpenStatus({.names = {"0A"}, .bitmap = std::string("\x04\x00", 2)}));
  CHECK_CODE(OpenStatus({.bitmap = std::string(33, '\0')}), kDataLoss);  // wider than the fanout
  CHECK_STATUS_OK(OpenStatus({.bitmap = std::string(32, '\0')}));
  CHECK_CODE(OpenStatus({.hash_type = 0x12}), kDataLoss);
  CHECK_CODE(OpenStatus({.type = 1}), kDataLoss);
}

TEST_CASE("hamt: prefixes are as wide as the largest bucket number") {
  CHECK_STATUS_OK(OpenStatus({.names = {"7x"}, .bitmap = std::string("\x80"), .fanout = 8}));
  CHECK_STATUS_OK(OpenStatus({.names = {"Fx"}, .bitmap = std::string("\x80\x00", 2), .fanout = 16}));
  CHECK_STATUS_OK(OpenStatus({.names = {"1Fx"}, .bitmap = std::string("\x80\0\0\0", 4), .fanout = 32}));
  CHECK_STATUS_OK(OpenStatus({.names = {"3FFx"}, .bitmap = "\x80" + std::string(127, '\0'), .fanout = 1024}));
  CHECK_CODE(OpenStatus({.names = {"1F"}, .bitmap = std::string("\x80\0\0\0", 4), .fanout = 8}), kDataLoss);
}

TEST_CASE("hamt: a name is looked for in its bucket, by the bits that are its turn") {
  const uint64_t hash = Murmur3X64_64(AsSpan("470.txt"));  // 00, then 6E
  Bytes block;
  const HamtShard root = ValueOf(Open({.names = {"00", "05b"}, .bitmap = std::string("\x21")}, block));
  const HamtEntry child = ValueOf(root.Find(AsSpan("470.txt"), hash, 0));
  CHECK(child.is_shard);
  CHECK_EQ(root.bits(), 8);

  Bytes below;
  std::string bitmap(14, '\0');
  bitmap[0] = 0x40;  // bucket 0x6e
  const HamtShard shard = ValueOf(Open({.names = {"6E470.txt"}, .bitmap = bitmap}, below));
  const HamtEntry entry = ValueOf(shard.Find(AsSpan("470.txt"), hash, 8));
  CHECK_FALSE(entry.is_shard);
  CHECK_EQ(AsText(entry.name), "470.txt");

  CHECK_CODE(shard.Find(AsSpan("470.txt"), hash, 0), kNotFound);   // another bucket
  CHECK_CODE(shard.Find(AsSpan("other"), hash, 8), kNotFound);     // the bucket holds another name
  CHECK_CODE(shard.Find(AsSpan("470.txt"), hash, 57), kDataLoss);  // no bits left
  CHECK_CODE(shard.Find(AsSpan("470.txt"), hash, 64), kDataLoss);
}

TEST_CASE("hamt: entries are walked in encoded order") {
  Bytes block;
  const HamtShard shard = ValueOf(Open({.names = {"00", "05b", "07"}, .bitmap = std::string("\xa1")}, block));
  HamtShard::Cursor at(shard);
  HamtEntry entry;
  REQUIRE(at.Next(entry));
  CHECK(entry.is_shard);
  REQUIRE(at.Next(entry));
  CHECK_EQ(AsText(entry.name), "b");
  REQUIRE(at.Next(entry));
  CHECK(entry.is_shard);
  CHECK_FALSE(at.Next(entry));
}

}  // namespace dagstore
