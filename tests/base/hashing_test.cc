#include "base/hashing.h"

#include <nlohmann/json.hpp>

#include <array>
#include <random>
#include <thread>

#include "base/blake3.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

nlohmann::json ReadJson(const std::string& name) {
  const Bytes text = ReadTestData(name);
  return nlohmann::json::parse(text.begin(), text.end());
}

Multihash FromHexMultihash(const std::string& hex) {
  return ValueOf(Multihash::FromBytes(ValueOf(FromHex(hex))));
}

// The input of the BLAKE3 vectors, and a good one for every other function.
Bytes Counting(size_t size) {
  Bytes out(size);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(i % 251);
  return out;
}

std::string HexDigest(uint64_t code, Span data, size_t length = 0) {
  return ToHex(ValueOf(Digest(code, data, length)));
}

Bytes Streamed(uint64_t code, Span data, size_t piece) {
  auto hasher = ValueOf(NewHasher(code));
  while (!data.empty()) {
    const size_t n = std::min(piece, data.size());
    hasher->Update(data.first(n));
    data = data.subspan(n);
  }
  return hasher->Finish();
}

// Every function of the table, with what the digest of "abc" begins with.
struct KnownDigest {
  uint64_t code;
  size_t size;
  std::string_view abc;
};
constexpr KnownDigest kKnown[] = {
    {kSha1, 20, "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {kSha2_256, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {kSha2_224, 28, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
    {kSha2_384, 48, "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"},
    {kSha2_512, 64, "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"},
    {kSha2_512_224, 28, "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa"},
    {kSha2_512_256, 32, "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"},
    {kSha3_224, 28, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"},
    {kSha3_256, 32, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"},
    {kSha3_384, 48, "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b2"},
    {kSha3_512, 64, "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e"},
    {kShake128, 32, "5881092dd818bf5cf8a3ddb793fbcba74097d5c526a6d35f97b83351940f2cc8"},
    {kShake256, 64, "483366601360a8771c6863080cc4114d8db44530f8f1e1ee4f94ea37e78b5739"},
    {kKeccak224, 28, "c30411768506ebe1c2871b1ee2e87d38df342317300a9b97a95ec6a8"},
    {kKeccak256, 32, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"},
    {kKeccak384, 48, "f7df1165f033337be098e7d288ad6a2f74409d7a60b49c36642218de161b1f99"},
    {kKeccak512, 64, "18587dc2ea106b9a1563e32b3312421ca164c7f1f07bc922a9c83d77cea3a1e5"},
    {kBlake3, 32, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"},
    {kMd5, 16, "900150983cd24fb0d6963f7d28e17f72"},
    {kDblSha2_256, 32, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358"},
    {kMurmur3X64_64, 8, "b4963f3f3fad7867"},
    {kBlake2b256, 32, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
    {kBlake2b512, 64, "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"},
    {kBlake2s256, 32, "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"},
};

TEST_CASE("hashing: every function gives its published digest of abc, at once and byte by byte") {
  for (const KnownDigest& known : kKnown) {
    CAPTURE(HashName(known.code));
    CHECK(CanHash(known.code));
    CHECK_EQ(DigestSize(known.code), known.size);
    const Bytes digest = ValueOf(Digest(known.code, AsSpan("abc")));
    CHECK_EQ(digest.size(), known.size);
    CHECK_EQ(ToHex(digest).substr(0, known.abc.size()), known.abc);
    CHECK_EQ(ToHex(Streamed(known.code, AsSpan("abc"), 1)), ToHex(digest));
  }
}

TEST_CASE("hashing: the multihash test cases of the specification") {
  const Bytes text = ReadTestData("multiformats/multihash-test_cases.csv");
  std::string_view rest = AsText(text);
  size_t rows = 0;
  const auto next = [&](char end) {
    const size_t at = std::min(rest.find(end), rest.size());
    const std::string_view field = rest.substr(0, at);
    rest.remove_prefix(std::min(at + 1, rest.size()));
    return field;
  };
  REQUIRE_EQ(next('\n'), "algorithm,bits,input,multihash");
  while (!rest.empty()) {
    const std::string_view name = next(','), bits = next(',');
    const std::string input(next(',')), expected(next('\n'));
    CAPTURE(expected);
    const uint64_t code = ValueOf(HashCodeOf(name == "sha3" ? "sha3-512" : name));
    const size_t size = std::stoul(std::string(bits)) / 8;
    const Bytes digest = ValueOf(Digest(code, AsSpan(input), size));
    CHECK_EQ(ToHex(Multihash({code, digest}).bytes()), expected);
    const HashCheck wanted = size < kVerifiableDigestBytesMin ? HashCheck::kUnverifiable : HashCheck::kMatch;
    CHECK(VerifyBlock({code, digest}, AsSpan(input)) == wanted);
    ++rows;
  }
  CHECK_EQ(rows, 260);
}

TEST_CASE("hashing: the sums of go-multihash") {
  for (const auto& row : ReadJson("multiformats/go-multihash-sum-vectors.json")) {
    CAPTURE(row.dump());
    const uint64_t code = row["code"];
    const int64_t length = row["length"];
    const std::string input = row["input"];
    const Multihash expected = FromHexMultihash(row["multihash"]);
    const size_t wanted = length < 0 ? 0 : static_cast<size_t>(length);
    if (code == kBlake3 && wanted > kHashOutputBytesMax) {
      // go-multihash lists it to show that it is refused.
      CHECK_CODE(Digest(code, AsSpan(input), wanted), kInvalidArgument);
      CHECK(VerifyBlock(expected.view(), AsSpan(input)) == HashCheck::kMismatch);
      continue;
    }
    const Bytes digest = ValueOf(Digest(code, AsSpan(input), wanted));
    CHECK_EQ(ToHex(Multihash({code, digest}).bytes()), ToHex(expected.bytes()));
  }
}

TEST_CASE("hashing: the BLAKE3 vectors, every output length and any split of the input") {
  for (const auto& row : ReadJson("multiformats/blake3-test_vectors.json")["cases"]) {
    const Bytes input = Counting(row["input_len"]);
    const std::string expected = row["hash"];
    CAPTURE(input.size());
    Bytes out(expected.size() / 2);
    Blake3(input, out.data(), out.size());
    CHECK_EQ(ToHex(out), expected);
    CHECK_EQ(HexDigest(kBlake3, input), expected.substr(0, 64));
    CHECK_EQ(HexDigest(kBlake3, input, 128), expected.substr(0, 256));
    for (size_t piece : {1, 63, 64, 65, 1023, 1024, 1025, 5000, 16384, 16385}) {
      CAPTURE(piece);
      CHECK_EQ(ToHex(Streamed(kBlake3, input, piece)), expected.substr(0, 64));
    }
  }
}

}  // namespace
}  // namespace dagstore
