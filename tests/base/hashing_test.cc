#include "base/hashing.h"

#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include <array>
#include <random>
#include <thread>

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
  const nlohmann::json vectors = ReadJson("multiformats/go-multihash-sum-vectors.json");
  CHECK_EQ(vectors.size(), 43);
  for (const auto& row : vectors) {
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
  const nlohmann::json vectors = ReadJson("multiformats/blake3-test_vectors.json");
  CHECK_EQ(vectors["cases"].size(), 35);
  for (const auto& row : vectors["cases"]) {
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

// Computed by a second implementation, which was itself compared with SHA-3.
TEST_CASE("hashing: keccak of lengths around its block") {
  const struct { uint64_t code; size_t size; std::string_view digest; } kCases[] = {
      {kKeccak224, 0, "f71837502ba8e10837bdd8d365adb85591895602fc552b48b7390abd"},
      {kKeccak224, 143, "374a82237511b565f6e4216e9abec3ac081027dc05265c697b32c284"},
      {kKeccak224, 144, "d271397e154ebd140589c670e5b04f0dc287c660db53483683c03525"},
      {kKeccak224, 145, "fb59302af80b4f37c2931f6475bd6a782805dcd14f5087c84e401f5c"},
      {kKeccak256, 0, "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"},
      {kKeccak256, 135, "cbdfd9dee5faad3818d6b06f95a219fd290b0e1706f6a82e5a595b9ce9faca62"},
      {kKeccak256, 136, "7ce759f1ab7f9ce437719970c26b0a66ff11fe3e38e17df89cf5d29c7d7f807e"},
      {kKeccak256, 137, "ac73d4fae68b8453f764007c1a20ce95994187861f0c3227a3a8e99a73a3b1db"},
      {kKeccak256, 1000, "af692982e84a5a9688359025660a7857cd28ee7c8d867cfa1677baf2e6d1f63b"},
      {kKeccak384, 103, "594b7f9a689485dba9802ed9f13e986b0b9bb83b448d402a37a628fedbeee078"},
      {kKeccak384, 104, "7f6de44434fc3011507c34186e81e80174f82052f4c63e67b85fc82835ec7659"},
      {kKeccak384, 105, "1480a097d5c3cc04b85bfba18666c3fd5f246744f8798f247f3c107187d8899a"},
      {kKeccak512, 71, "fe0953f9afdffed7ff9764c2590ff0e6af1b0689e42ddca68d6ef003ddce2671"},
      {kKeccak512, 72, "76fa23369085405345fe6a2831f334113bee6b111056e21072082af56e7c1ab4"},
      {kKeccak512, 73, "e417b9573c871d948d48f62f6b16ea6cd1f1557a462ff5c1ae276d14d2fb43cd"},
  };
  for (const auto& c : kCases) {
    CAPTURE(HashName(c.code));
    CAPTURE(c.size);
    CHECK_EQ(HexDigest(c.code, Counting(c.size)).substr(0, 64), c.digest);
  }
}

TEST_CASE("hashing: BLAKE2 of full size agrees with OpenSSL for every length up to 300") {
  const struct { uint64_t code; const char* name; size_t size; } kCases[] = {
      {kBlake2b512, "BLAKE2B-512", 64}, {kBlake2s256, "BLAKE2S-256", 32}};
  for (const auto& c : kCases) {
    for (size_t size = 0; size <= 300; ++size) {
      CAPTURE(c.name);
      CAPTURE(size);
      const Bytes data = Counting(size);
      Bytes expected(c.size);
      REQUIRE_EQ(EVP_Q_digest(nullptr, c.name, nullptr, data.data(), data.size(), expected.data(), nullptr), 1);
      CHECK_EQ(HexDigest(c.code, data), ToHex(expected));
    }
  }
}

TEST_CASE("hashing: a shorter BLAKE2 is another function, not a prefix") {
  for (uint64_t code = kBlake2b8; code <= kBlake2s256; ++code) {
    CAPTURE(HashName(code));
    const uint64_t full = code <= kBlake2b512 ? kBlake2b512 : kBlake2s256;
    const size_t size = code - (code <= kBlake2b512 ? kBlake2b8 : kBlake2s8) + 1;
    CHECK_EQ(DigestSize(code), size);
    const std::string digest = HexDigest(code, AsSpan("abc"));
    CHECK_EQ(digest.size(), 2 * size);
    if (code != full && size > 2) CHECK_NE(digest, HexDigest(full, AsSpan("abc"), size));
  }
  // As `b2sum -l 160` prints it.
  CHECK_EQ(HexDigest(kBlake2b8 + 19, AsSpan("abc")), "384264f676f39536840523f284921cdc68b6846b");
}

TEST_CASE("hashing: murmur3 agrees with the reference on text") {
  const struct { std::string_view text, digest; } kCases[] = {
      {"", "0000000000000000"},
      {"hello", "cbd8a7b341bd9b02"},
      {"hello, world", "342fac623a5ebc8e"},
      {"19 Jan 2038 at 3:14:07 AM", "b89e5988b737affc"},
      {"The quick brown fox jumps over the lazy dog.", "cd99481f9ee902c9"},
  };
  for (const auto& c : kCases) {
    CHECK_EQ(HexDigest(kMurmur3X64_64, AsSpan(c.text)), c.digest);
    CHECK_EQ(ToHex(Streamed(kMurmur3X64_64, AsSpan(c.text), 3)), c.digest);
  }
}

TEST_CASE("hashing: any split of the input gives the same digest") {
  const Bytes data = Counting(1100);
  for (const KnownDigest& known : kKnown) {
    CAPTURE(HashName(known.code));
    for (size_t size : {0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1100}) {
      const Span part = Span(data).first(size);
      const std::string expected = HexDigest(known.code, part);
      for (size_t piece : {1, 7, 64, 100, 128, 136, 200, 1100}) {
        CAPTURE(size);
        CAPTURE(piece);
        CHECK_EQ(ToHex(Streamed(known.code, part, piece)), expected);
      }
    }
  }
}

TEST_CASE("hashing: unknown functions are unimplemented and unverifiable") {
  for (const uint64_t code : {uint64_t{0x1011}, uint64_t{0x1012}, uint64_t{0xb401}, uint64_t{0xb261}, uint64_t{0x10},
                              (uint64_t{1} << 63) - 1}) {
    CAPTURE(HashName(code));
    CHECK_FALSE(CanHash(code));
    CHECK_EQ(DigestSize(code), 0);
    CHECK_CODE(Digest(code, AsSpan("data")), kUnimplemented);
    CHECK_CODE(NewHasher(code), kUnimplemented);
    CHECK(VerifyBlock({code, Bytes(32)}, AsSpan("data")) == HashCheck::kUnverifiable);
  }
}

TEST_CASE("hashing: identity is the data itself, of one length only") {
  CHECK(CanHash(kIdentity));
  CHECK_EQ(DigestSize(kIdentity), 0);
  CHECK_EQ(AsText(ValueOf(Digest(kIdentity, AsSpan("data")))), "data");
  CHECK_EQ(AsText(ValueOf(Digest(kIdentity, AsSpan("data"), 4))), "data");
  CHECK_CODE(Digest(kIdentity, AsSpan("data"), 3), kInvalidArgument);
  CHECK_CODE(NewHasher(kIdentity), kUnimplemented);
  CHECK(VerifyBlock({kIdentity, {}}, {}) == HashCheck::kMatch);
  CHECK(VerifyBlock({kIdentity, AsSpan("data")}, AsSpan("data")) == HashCheck::kMatch);
  CHECK(VerifyBlock({kIdentity, AsSpan("dat")}, AsSpan("data")) == HashCheck::kMismatch);
  CHECK(VerifyBlock({kIdentity, AsSpan("date")}, AsSpan("data")) == HashCheck::kMismatch);
}

TEST_CASE("hashing: a digest longer than its function gives is refused, a shorter one is a prefix") {
  for (const KnownDigest& known : kKnown) {
    CAPTURE(HashName(known.code));
    const size_t longest = known.code == kBlake3 ? kHashOutputBytesMax : known.size;
    CHECK_EQ(ValueOf(Digest(known.code, AsSpan("abc"), longest)).size(), longest);
    CHECK_CODE(Digest(known.code, AsSpan("abc"), longest + 1), kInvalidArgument);
    const std::string whole = HexDigest(known.code, AsSpan("abc"));
    CHECK_EQ(HexDigest(known.code, AsSpan("abc"), 5), whole.substr(0, 10));
  }
}

TEST_CASE("hashing: a block is checked against any length of its digest that proves something") {
  for (const KnownDigest& known : kKnown) {
    CAPTURE(HashName(known.code));
    const size_t longest = known.code == kBlake3 ? kHashOutputBytesMax : known.size;
    Bytes digest = ValueOf(Digest(known.code, AsSpan("abc"), longest));
    for (size_t size = 0; size <= longest; ++size) {
      CAPTURE(size);
      const Span prefix = Span(digest).first(size);
      const bool proves = size >= kVerifiableDigestBytesMin;
      CHECK(VerifyBlock({known.code, prefix}, AsSpan("abc")) ==
            (proves ? HashCheck::kMatch : HashCheck::kUnverifiable));
      CHECK(VerifyBlock({known.code, prefix}, AsSpan("abd")) ==
            (proves ? HashCheck::kMismatch : HashCheck::kUnverifiable));
    }
    digest.push_back(0);
    const bool proves = digest.size() >= kVerifiableDigestBytesMin;
    CHECK(VerifyBlock({known.code, digest}, AsSpan("abc")) ==
          (proves ? HashCheck::kMismatch : HashCheck::kUnverifiable));
    if (!proves) continue;
    digest.pop_back();
    digest.back() ^= 1;
    CHECK(VerifyBlock({known.code, digest}, AsSpan("abc")) == HashCheck::kMismatch);
  }
}

TEST_CASE("hashing: threads do not disturb each other") {
  std::vector<std::thread> threads;
  std::array<int, 4> wrong = {};
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([t, &wrong] {
      for (size_t i = 0; i < 200; ++i) {
        for (const KnownDigest& known : kKnown) {
          if (HexDigest(known.code, AsSpan("abc")).substr(0, known.abc.size()) != known.abc) ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong, std::array<int, 4>{});
}

TEST_CASE("hashing: blocks checked together get what each gets alone") {
  constexpr uint32_t kSeed = 7;
  CAPTURE(kSeed);
  std::mt19937 random(kSeed);
  std::vector<Bytes> data, digests;
  std::vector<HashJob> jobs;
  const uint64_t codes[] = {kSha2_256, kSha2_256, kSha2_256, kBlake2b256, kIdentity, kSha2_512, 0xb401};
  for (size_t i = 0; i < 700; ++i) {
    data.push_back(Counting(random() % 9 == 0 ? random() % 20000 : random() % 400));
    const uint64_t code = codes[random() % std::size(codes)];
    Bytes digest = CanHash(code) ? ValueOf(Digest(code, data.back())) : Bytes(32);
    if (random() % 5 == 0) digest.resize(random() % 40);                    // truncated, too short or too long
    if (random() % 5 == 0 && !digest.empty()) digest[random() % digest.size()] ^= 4;  // wrong
    digests.push_back(std::move(digest));
    jobs.push_back({{code, {}}, {}, HashCheck::kMatch});
  }
  std::array<size_t, 3> seen = {};
  for (size_t count : {0, 1, 2, 15, 16, 17, 255, 256, 257, 700}) {
    CAPTURE(count);
    for (size_t i = 0; i < count; ++i) {
      jobs[i].hash.digest = digests[i];
      jobs[i].data = data[i];
      jobs[i].result = i % 2 == 0 ? HashCheck::kMatch : HashCheck::kMismatch;
    }
    VerifyBlocks(std::span(jobs).first(count));
    size_t wrong = 0;
    for (size_t i = 0; i < count; ++i) {
      if (jobs[i].result != VerifyBlock(jobs[i].hash, jobs[i].data)) ++wrong;
      ++seen[static_cast<size_t>(jobs[i].result)];
    }
    CHECK_EQ(wrong, 0);
  }
  for (const size_t times : seen) CHECK_GT(times, 0);
}

}  // namespace
}  // namespace dagstore
