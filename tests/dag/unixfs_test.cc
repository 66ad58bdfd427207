#include "dag/unixfs.h"

#include "tests/dag/memory_blocks.h"

namespace dagstore {
namespace {

std::vector<uint64_t> SizesOf(const UnixFs& fs) {
  std::vector<uint64_t> sizes;
  uint64_t size = 0;
  for (UnixFs::SizeCursor at(fs); at.Next(size);) sizes.push_back(size);
  return sizes;
}

}  // namespace

TEST_CASE("unixfs: a file with inline data and block sizes, packed or not") {
  for (const bool packed : {false, true}) {
    const Bytes message = EncodeFs({.data = "abc", .size = 3 + 300 + 7, .block_sizes = {300, 0, 7}, .packed = packed});
    const UnixFs fs = ValueOf(UnixFs::Decode(message));
    CHECK_EQ(fs.kind(), UnixFsKind::kFile);
    CHECK_EQ(AsText(fs.data()), "abc");
    CHECK_EQ(fs.content_size(), 310);
    CHECK_EQ(fs.block_size_count(), 3);
    CHECK_EQ(SizesOf(fs), std::vector<uint64_t>{300, 0, 7});
    CHECK_STATUS_OK(fs.CheckFile(3));
    CHECK_CODE(fs.CheckFile(2), kDataLoss);
  }
}

TEST_CASE("unixfs: packed and unpacked sizes may be mixed, and unknown fields are passed over") {
  // type file; blocksizes 1; packed 2 3; field 20 as fixed32; blocksizes 4; packed, empty; field 9 bytes
  const Bytes message = ValueOf(FromHex("0802" "2001" "22020203" "a50101020304" "2004" "2200" "4a0161"));
  const UnixFs fs = ValueOf(UnixFs::Decode(message));
  CHECK_EQ(SizesOf(fs), std::vector<uint64_t>{1, 2, 3, 4});
  CHECK_EQ(fs.content_size(), 10);
}

TEST_CASE("unixfs: mode and mtime are read") {
  // directory; mode 0644; mtime {seconds 5, nanoseconds 10}
  const Bytes message = ValueOf(FromHex("0801" "38a403" "4207" "0805" "150a000000"));
  const auto fs = UnixFs::Decode(message);
  REQUIRE_STATUS_OK(fs);
  CHECK_EQ(fs->mode(), 0644);
  CHECK_EQ(fs->mtime_seconds(), 5);
}

TEST_CASE("unixfs: sizes that do not agree are found") {
  const auto check = [](const FsFields& fields, uint64_t links) {
    const Bytes message = EncodeFs(fields);
    return ValueOf(UnixFs::Decode(message)).CheckFile(links);
  };
  CHECK_STATUS_OK(check({.type = 0, .data = "ab", .size = 2}, 0));
  CHECK_STATUS_OK(check({.data = "ab"}, 0));  // no declared size
  CHECK_STATUS_OK(check({}, 0));
  CHECK_CODE(check({.data = "ab", .size = 3}, 0), kDataLoss);
  CHECK_CODE(check({.size = 5, .block_sizes = {4}}, 1), kDataLoss);
  CHECK_CODE(check({.size = 4, .block_sizes = {4}}, 2), kDataLoss);
  CHECK_CODE(check({.type = 1}, 0), kDataLoss);
}

TEST_CASE("unixfs: malformed messages are refused") {
  const char* const cases[] = {
      "",                        // no type
      "1200",                    // no type
      "0806",                    // type 6
      "08ffffffffffffffffff01",  // type 2^64-1
      "08020802",                // type twice
      "080212001200",            // data twice
      "080218011801",            // size twice
      "0a0102",                  // type as bytes
      "08021001",                // data as a number
      "080225",                  // block size as fixed32, cut off
      "08022500000000",          // block size as fixed32
      "0802220180",              // packed varint cut off
      "08022005" "20ffffffffffffffff7f",  // sum above 2^63
      "080220ffffffffffffffffff01",
      "08024201" "08",           // mtime cut off
      "0802420008",              // field without a value
      "0802" "0b",               // group
      "0802" "1205",             // data past the end
  };
  for (const char* hex : cases) {
    INFO(hex);
    CHECK_CODE(UnixFs::Decode(ValueOf(FromHex(hex))), kDataLoss);
  }
  // Block sizes up to 2^63 - 1 are allowed, but not with inline data on top.
  CHECK_STATUS_OK(UnixFs::Decode(ValueOf(FromHex("080220ffffffffffffffff7f"))));
  CHECK_CODE(UnixFs::Decode(ValueOf(FromHex("080212016120ffffffffffffffff7f"))), kDataLoss);
}

TEST_CASE("unixfs: every dag-pb block of the fixtures that is a file agrees with itself") {
  const char* const files[] = {"gateway-conformance/single-layer-hamt-with-multi-block-files.car",
                               "gateway-conformance/dir-with-duplicate-files.car", "go-car/simple-unixfs.car",
                               "boxo/directory-with-multilayer-hamt-and-multiblock-files.car", "beetle/big-foo.car",
                               "rs-car/config.toml.size-1.normal.car", "web3.storage/dir.car"};
  int count = 0;
  for (const char* file : files) {
    INFO(file);
    MemoryBlocks blocks(file);
    for (const Cid& cid : blocks.order) {
      if (cid.codec() != kCodecDagPb) continue;
      const BlockData data = ValueOf(blocks.Get(cid.view()));
      const PbNode node = ValueOf(PbNode::Parse(data.bytes()));
      const UnixFs fs = ValueOf(UnixFs::Decode(node.data().value_or(Span())));
      if (!fs.IsFile()) continue;
      CHECK_STATUS_OK(fs.CheckFile(node.link_count()));
      ++count;
    }
  }
  CHECK_GT(count, 1000);
}

}  // namespace dagstore
