#include "base/multihash.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("multihash: is read at the head of longer bytes, and written back the same") {
  const struct { std::string_view hex; uint64_t code; size_t digest_size, size; } kCases[] = {
      {"0000", kIdentity, 0, 2},
      {"0003666f6f", kIdentity, 3, 5},
      {"0003666f6fff", kIdentity, 3, 5},
      {"110a0beec7b5ea3f0fdbc95d", kSha1, 10, 12},
      {"81e4020152", kBlake2b8, 1, 5},
      {"e0e40202aabb00", kBlake2s256, 2, 6},
      {"ffffffffffffffff7f01aa", (uint64_t{1} << 63) - 1, 1, 11},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.hex);
    const Bytes bytes = ValueOf(FromHex(c.hex));
    const ParsedMultihash parsed = ValueOf(ParseMultihash(bytes));
    CHECK_EQ(parsed.value.code, c.code);
    CHECK_EQ(parsed.value.digest.size(), c.digest_size);
    CHECK_EQ(parsed.size, c.size);
    const Multihash owned(parsed.value);
    CHECK(SameBytes(owned.bytes(), Span(bytes).first(c.size)));
    CHECK(owned.view() == parsed.value);
    if (c.size != bytes.size()) CHECK_CODE(Multihash::FromBytes(bytes), kDataLoss);
  }
}

TEST_CASE("multihash: malformed bytes are refused") {
  for (std::string_view hex : {
           "",                       // nothing
           "12",                     // no length
           "1220",                   // no digest
           "1203aabb",               // digest cut off
           "9200020000",             // code not minimal
           "1282000000",             // length not minimal
           "80808080808080808001",   // code of 10 bytes
           "12ffffffffffffffffff01",  // length of 10 bytes
           "12ffffffffffffffff7f",   // length 2^63 - 1
           "b2",                     // code cut off
       }) {
    CAPTURE(hex);
    const Bytes bytes = ValueOf(FromHex(hex));
    CHECK_CODE(ParseMultihash(bytes), kDataLoss);
    CHECK_CODE(Multihash::FromBytes(bytes), kDataLoss);
  }
}

TEST_CASE("multihash: a digest may have the limit and no byte more") {
  for (const size_t size : {kDigestBytesMax, kDigestBytesMax + 1}) {
    Bytes bytes;
    AppendMultihash(bytes, {kIdentity, Bytes(size, 7)});
    if (size <= kDigestBytesMax) {
      CHECK_EQ(ValueOf(ParseMultihash(bytes)).size, bytes.size());
    } else {
      CHECK_CODE(ParseMultihash(bytes), kDataLoss);
    }
  }
}

TEST_CASE("multihash: views sort by code, then digest length, then digest bytes") {
  const Bytes low = {1, 2}, high = {9, 0}, longer = {0, 0, 0};
  const std::vector<MultihashView> sorted = {
      {kSha1, high}, {kSha2_256, {}}, {kSha2_256, low}, {kSha2_256, high}, {kSha2_256, longer}, {kBlake2b256, low}};
  std::vector<MultihashView> shuffled(sorted.rbegin(), sorted.rend());
  std::sort(shuffled.begin(), shuffled.end());
  CHECK(shuffled == sorted);
  CHECK_FALSE(sorted[2] < sorted[2]);
}

TEST_CASE("multihash: another code, length or digest is another key") {
  const Bytes digest(32, 0xab), other(32, 0xac);
  const Span cut = Span(digest).first(20);
  const absl::flat_hash_set<Multihash> set = {
      Multihash(), Multihash({kSha2_256, digest}), Multihash({kSha2_256, other}), Multihash({kSha2_256, cut}),
      Multihash({kBlake2b256, digest}), Multihash({kSha2_256, Bytes(32, 0xab)})};
  CHECK_EQ(set.size(), 5);
  CHECK_NE(Multihash({kSha2_256, digest}), Multihash({kSha2_256, cut}));
  CHECK_NE(Multihash({kSha2_256, digest}), Multihash({kBlake2b256, digest}));
  CHECK_EQ(Multihash({kSha2_256, digest}), Multihash({kSha2_256, Bytes(32, 0xab)}));
}

TEST_CASE("multihash: names are those of the multicodec table, both ways") {
  const struct { uint64_t code; std::string_view name; } kCases[] = {
      {0x00, "identity"},      {0x11, "sha1"},           {0x12, "sha2-256"},        {0x13, "sha2-512"},
      {0x14, "sha3-512"},      {0x15, "sha3-384"},       {0x16, "sha3-256"},        {0x17, "sha3-224"},
      {0x18, "shake-128"},     {0x19, "shake-256"},      {0x1a, "keccak-224"},      {0x1b, "keccak-256"},
      {0x1c, "keccak-384"},    {0x1d, "keccak-512"},     {0x1e, "blake3"},          {0x20, "sha2-384"},
      {0x22, "murmur3-x64-64"}, {0x56, "dbl-sha2-256"},  {0xd5, "md5"},             {0x1013, "sha2-224"},
      {0x1014, "sha2-512-224"}, {0x1015, "sha2-512-256"}, {0xb201, "blake2b-8"},    {0xb220, "blake2b-256"},
      {0xb240, "blake2b-512"}, {0xb241, "blake2s-8"},    {0xb260, "blake2s-256"},
      {0x1011, "fr32-sha256-trunc254-padbintree"},
      {0x1012, "sha2-256-trunc254-padded"},
      {0xb401, "poseidon-bls12_381-a2-fc1"},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    CHECK_EQ(HashName(c.code), c.name);
    CHECK_EQ(ValueOf(HashCodeOf(c.name)), c.code);
  }
  CHECK_EQ(HashName(0xb261), "0xb261");
  CHECK_EQ(HashName(0xb200), "0xb200");
  for (std::string_view name : {"", "sha2", "0x12", "SHA2-256", "blake2b-520", "blake2b-0"}) {
    CAPTURE(name);
    CHECK_CODE(HashCodeOf(name), kNotFound);
  }
}

}  // namespace
}  // namespace dagstore
