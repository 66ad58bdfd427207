#include "base/cid.h"

#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <cctype>

#include "base/hashing.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// One block, named in both ways.
constexpr std::string_view kV0Text = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR";
constexpr std::string_view kV1Text = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

// The lines of a list that is neither empty nor a comment; spaces count.
std::vector<std::string> ReadLines(const std::string& file) {
  const Bytes bytes = ReadTestData(file);
  std::vector<std::string> lines;
  std::string line;
  for (const uint8_t byte : bytes) {
    if (byte != '\n') {
      line.push_back(static_cast<char>(byte));
      continue;
    }
    if (!line.empty() && line[0] != '#') lines.push_back(line);
    line.clear();
  }
  return lines;
}

TEST_CASE("cid: the corpus of go-cid parses") {
  const Cid v0 = ValueOf(Cid::FromBytes(ReadTestData("multiformats/go-cid-corpus-cid0.bin")));
  CHECK_EQ(v0.version(), 0);
  CHECK_EQ(v0.codec(), kCodecDagPb);
  CHECK_EQ(v0.hash().code, kSha2_256);
  CHECK_EQ(v0.hash().digest.size(), 32);
  CHECK_EQ(ValueOf(Cid::FromText(v0.ToText())), v0);

  const Cid v1 = ValueOf(Cid::FromBytes(ReadTestData("multiformats/go-cid-corpus-cid1.bin")));
  CHECK_EQ(v1.version(), 1);
  CHECK_EQ(v1.codec(), kCodecDagCbor);
  CHECK_EQ(v1.hash().code, kSha2_256);
  CHECK_EQ(v1.ToText().substr(0, 6), "bafyre");
}

TEST_CASE("cid: is read at the head of longer bytes") {
  for (const std::string_view text : {kV0Text, kV1Text}) {
    const Cid cid = ValueOf(Cid::FromText(text));
    Bytes bytes(cid.bytes().begin(), cid.bytes().end());
    AppendBytes(bytes, AsSpan("block data"));
    const CidView view = ValueOf(ParseCid(bytes));
    CHECK_EQ(Cid(view), cid);
    CHECK_EQ(view.bytes.size(), cid.bytes().size());
    CHECK_CODE(Cid::FromBytes(bytes), kDataLoss);
  }
}

TEST_CASE("cid: bytes cut off anywhere are refused") {
  for (const std::string_view text : {kV0Text, kV1Text, std::string_view("bafkqaaa")}) {
    const Cid cid = ValueOf(Cid::FromText(text));
    for (size_t size = 0; size < cid.bytes().size(); ++size) {
      CAPTURE(size);
      CHECK_CODE(ParseCid(cid.bytes().first(size)), kDataLoss);
    }
  }
}

TEST_CASE("cid: malformed bytes are refused") {
  const std::string digest(64, 'a');
  const struct { std::string hex; std::string_view why; } kCases[] = {
      {"00551220" + digest, "explicit version 0"},
      {"02551220" + digest, "version 2, reserved"},
      {"03551220" + digest, "version 3, reserved"},
      {"48551220" + digest, "version 0x48"},
      {"1255" + digest, "version 18 is no CIDv0"},
      {"121f" + digest, "CIDv0 of 31 bytes"},
      {"1221" + digest + "aa", "CIDv0 of 33 bytes"},
      {"1114" + digest, "a bare multihash that is not sha2-256"},
      {"8100551220" + digest, "version not minimal"},
      {"01d5001220" + digest, "codec not minimal"},
      {"0155920020" + digest, "hash code not minimal"},
      {"015512a000" + digest, "hash length not minimal"},
      {"ffffffffffffffffff01551220" + digest, "version of 10 bytes"},
      {"01ffffffffffffffffff011220" + digest, "codec of 10 bytes"},
      {"01551221" + digest, "digest longer than the bytes"},
      {"0155128110" + digest, "digest above the limit"},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.why);
    CHECK_CODE(ParseCid(ValueOf(FromHex(c.hex))), kDataLoss);
    CHECK_CODE(Cid::FromText("f" + c.hex), kInvalidArgument);
  }
}

TEST_CASE("cid: the longest CID is within its limit, one byte more of digest is refused") {
  const Cid longest = Cid::V1((uint64_t{1} << 63) - 1, {(uint64_t{1} << 63) - 1, Bytes(kDigestBytesMax, 1)});
  CHECK_LE(longest.bytes().size(), kCidBytesMax);
  CHECK_EQ(ValueOf(Cid::FromBytes(longest.bytes())), longest);
  CHECK_EQ(ValueOf(Cid::FromText(longest.ToText(Base::kBase2))), longest);
  CHECK_CODE(Cid::FromText(std::string(1 << 20, 'b')), kInvalidArgument);
}

TEST_CASE("cid: every base shows a v1 CID and reads it back") {
  const Cid cid = ValueOf(Cid::FromText(kV1Text));
  CHECK_EQ(cid.ToText(), kV1Text);
  for (const char prefix : std::string_view("079fFbBcCvVtThkKzZmMuU")) {
    CAPTURE(prefix);
    const std::string text = cid.ToText(static_cast<Base>(prefix));
    CHECK_EQ(text[0], prefix);
    CHECK_EQ(ValueOf(Cid::FromText(text)), cid);
  }
  CHECK_EQ(cid.ToText(Base::kBase58Btc), "zdj7Wic6KcJAfWz1c9o4M6kq9Lwd5BfbxkVafnrojaaGiSFxM");
}

TEST_CASE("cid: v0 is base58btc without prefix, and shows its v1 form in any base") {
  const Cid v0 = ValueOf(Cid::FromText(kV0Text));
  CHECK_EQ(v0.version(), 0);
  CHECK_EQ(v0.ToText(), kV0Text);
  const Cid v1 = v0.ToV1();
  CHECK_EQ(v1.version(), 1);
  CHECK_EQ(v1.ToText(), kV1Text);
  CHECK_EQ(v1.codec(), kCodecDagPb);
  CHECK(v1.hash() == v0.hash());
  CHECK_NE(v1, v0);
  CHECK_EQ(v1.ToV1(), v1);
  CHECK_EQ(v0.ToText(Base::kBase32), v1.ToText());
  CHECK_EQ(v0.ToText(Base::kBase58Btc), v1.ToText(Base::kBase58Btc));
  CHECK_EQ(Cid::V0(v0.hash().digest), v0);
}

TEST_CASE("cid: a v0 CID with a multibase prefix is refused") {
  const Cid v0 = ValueOf(Cid::FromText(kV0Text));
  for (const char prefix : std::string_view("079fFbBcCvVtThkKzZmMuU")) {
    CAPTURE(prefix);
    CHECK_CODE(Cid::FromText(EncodeMultibase(static_cast<Base>(prefix), v0.bytes())), kInvalidArgument);
  }
}

TEST_CASE("cid: text that is not a CID is refused") {
  const std::string v0(kV0Text), v1(kV1Text);
  for (const std::string& text : {
           std::string(), std::string("b"), std::string("/ipfs/"), std::string("ipfs://"), std::string("noop"),
           v0.substr(0, 45), v0 + "R", "Q" + v0.substr(2), "Qn" + v0.substr(2), "z" + v0, "b" + v0, v1 + " ", " " + v1,
           v1 + "/", v1 + "/path", "/ipfs/" + v1 + "/path", "ipfs://" + v1 + "?x=1", "/ipns/" + v1, "IPFS://" + v1,
           "/ipfs//ipfs/" + v1, "ipfs:///ipfs/" + v1, v1.substr(0, v1.size() - 1), v1 + "a", v1.substr(1),
           v1.substr(0, v1.size() - 1) + "j",  // trailing bits
           v1 + std::string(1, '\0')}) {
    CAPTURE(text);
    CHECK_CODE(Cid::FromText(text), kInvalidArgument);
  }
}

TEST_CASE("cid: text may be upper case where the base allows it, and stand behind /ipfs/ or ipfs://") {
  const Cid v0 = ValueOf(Cid::FromText(kV0Text)), v1 = ValueOf(Cid::FromText(kV1Text));
  std::string upper(kV1Text);
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  CHECK_EQ(ValueOf(Cid::FromText(upper)), v1);
  CHECK_EQ(ValueOf(Cid::FromText("b" + upper.substr(1))), v1);
  for (const std::string prefix : {"/ipfs/", "ipfs://"}) {
    CHECK_EQ(ValueOf(Cid::FromText(prefix + std::string(kV0Text))), v0);
    CHECK_EQ(ValueOf(Cid::FromText(prefix + std::string(kV1Text))), v1);
  }
}

TEST_CASE("cid: well-known CIDs mean what they should") {
  const Cid empty = ValueOf(Cid::FromText("bafkqaaa"));
  CHECK(empty.IsIdentity());
  CHECK_EQ(empty.codec(), kCodecRaw);
  CHECK(empty.hash().digest.empty());
  CHECK_EQ(ToHex(empty.bytes()), "01550000");
  CHECK_EQ(ValueOf(Cid::Of(kCodecRaw, kIdentity, {})), empty);

  const Cid directory = ValueOf(Cid::FromText("bafyaabakaieac"));
  CHECK(directory.IsIdentity());
  CHECK_EQ(directory.codec(), kCodecDagPb);
  CHECK_EQ(ToHex(directory.hash().digest), "0a020801");

  const Cid hello = ValueOf(Cid::FromText("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"));
  CHECK_EQ(ValueOf(Cid::Of(kCodecRaw, kSha2_256, AsSpan("hello world"))), hello);
}

TEST_CASE("cid: the two unsafe CIDs of kubo parse, and vouch for nothing") {
  const Cid function = ValueOf(Cid::FromText("bafksebhh7d53e"));
  CHECK_EQ(function.hash().code, kMurmur3X64_64);
  CHECK(VerifyBlock(function.hash(), {}) == HashCheck::kUnverifiable);

  const Cid digest = ValueOf(Cid::FromText("bafkreez3itiri7ghbbf6lzej7paxyxy2qznpw"));
  CHECK_EQ(digest.hash().code, kSha2_256);
  CHECK_LT(digest.hash().digest.size(), kVerifiableDigestBytesMin);
  CHECK(VerifyBlock(digest.hash(), {}) == HashCheck::kUnverifiable);
}

// The atproto list is of syntax: 8 to 256 letters, digits, + and =. Whether they decode is not its subject.
TEST_CASE("cid: of what atproto accepts, only the text that is no CID is refused") {
  const std::string not_a_cid[] = {
      "mBcDxtdWx0aWhhc2g+",                 // base64 of a length no encoder gives
      "z7x3CtScH765HvShXT",                 // 0x01 0x70, then the characters "<multihash>"
      "7134036155352661643226414134664076",  // the same, in an older reading of base 8
  };
  size_t refused = 0;
  for (const std::string& line : ReadLines("atproto/cid_syntax_valid.txt")) {
    CAPTURE(line);
    if (std::find(std::begin(not_a_cid), std::end(not_a_cid), line) != std::end(not_a_cid)) {
      CHECK_CODE(Cid::FromText(line), kInvalidArgument);
      ++refused;
    } else {
      CHECK_STATUS_OK(Cid::FromText(line));
    }
  }
  CHECK_EQ(refused, std::size(not_a_cid));
}

TEST_CASE("cid: of what atproto refuses, only the v0 CID is one") {
  size_t accepted = 0;
  for (const std::string& line : ReadLines("atproto/cid_syntax_invalid.txt")) {
    CAPTURE(line);
    if (line == kV0Text) {
      CHECK_STATUS_OK(Cid::FromText(line));
      ++accepted;
    } else {
      CHECK_CODE(Cid::FromText(line), kInvalidArgument);
    }
  }
  CHECK_EQ(accepted, 1);
}

TEST_CASE("cid: an identity CID beyond the limit parses and is refused at the door") {
  for (const size_t size : {kIdentityDigestBytesMax, kIdentityDigestBytesMax + 1}) {
    const Bytes data(size, 'x');
    const Cid cid = ValueOf(Cid::FromBytes(Cid::V1(kCodecRaw, {kIdentity, data}).bytes()));
    CHECK(VerifyBlock(cid.hash(), data) == HashCheck::kMatch);
    if (size <= kIdentityDigestBytesMax) {
      CHECK_STATUS_OK(CheckIdentity(cid.view()));
      CHECK_EQ(ValueOf(Cid::Of(kCodecRaw, kIdentity, data)), cid);
    } else {
      CHECK_CODE(CheckIdentity(cid.view()), kInvalidArgument);
      CHECK_CODE(Cid::Of(kCodecRaw, kIdentity, data), kInvalidArgument);
    }
  }
  const Cid other = Cid::V1(kCodecRaw, {0x3f, Bytes(kIdentityDigestBytesMax + 1, 1)});
  CHECK_STATUS_OK(CheckIdentity(other.view()));
}

TEST_CASE("cid: of an unknown function cannot be made") {
  CHECK_CODE(Cid::Of(kCodecRaw, 0xb401, AsSpan("data")), kUnimplemented);
}

TEST_CASE("cid: sorts and hashes by its bytes") {
  const Cid a = ValueOf(Cid::FromText(kV1Text)), b = ValueOf(Cid::FromText(kV0Text));
  CHECK(a < b);  // 0x01 before 0x12
  CHECK(Cid() < a);
  CHECK(Cid().empty());
  const absl::flat_hash_set<Cid> set = {Cid(), a, b, b.ToV1()};
  CHECK_EQ(set.size(), 3);  // the two texts name one block
  CHECK(set.contains(ValueOf(Cid::FromText(kV0Text))));
}

TEST_CASE("cid: codecs have the names of the multicodec table") {
  const struct { uint64_t codec; std::string_view name; } kCases[] = {
      {0x51, "cbor"},       {0x55, "raw"},      {0x70, "dag-pb"},   {0x71, "dag-cbor"}, {0x72, "libp2p-key"},
      {0x78, "git-raw"},    {0x85, "dag-jose"}, {0x0129, "dag-json"}, {0x0200, "json"}, {0x0202, "car"},
      {0xf101, "fil-commitment-unsealed"}, {0xf102, "fil-commitment-sealed"}, {0x1234, "0x1234"},
  };
  for (const auto& c : kCases) CHECK_EQ(CodecName(c.codec), c.name);
}

}  // namespace
}  // namespace dagstore
