#include "base/siphash.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr SipKey kKey = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

TEST_CASE("siphash: the vectors of the paper and of the reference code") {
  const struct { size_t size; uint64_t hash; } kCases[] = {
      {0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {2, 0x0d6c8009d9a94f5a}, {3, 0x85676696d7fb7e2d},
      {7, 0xab0200f58b01d137}, {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.size);
    CHECK_EQ(SipHash(kKey, Span(kKey).first(std::min(c.size, kKey.size()))), c.hash);
  }
}

TEST_CASE("siphash: agrees with OpenSSL for every length up to 300") {
  EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "SIPHASH", nullptr);
  REQUIRE(mac != nullptr);
  Bytes data;
  for (size_t size = 0; size <= 300; ++size, data.push_back(static_cast<uint8_t>(size * 37))) {
    CAPTURE(size);
    EVP_MAC_CTX* const context = EVP_MAC_CTX_new(mac);
    size_t wanted_size = 8;
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &wanted_size),
                                     OSSL_PARAM_construct_end()};
    std::array<uint8_t, 8> expected = {};
    size_t written = 0;
    CHECK_EQ(EVP_MAC_init(context, kKey.data(), kKey.size(), parameters), 1);
    CHECK_EQ(EVP_MAC_update(context, data.data(), data.size()), 1);
    CHECK_EQ(EVP_MAC_final(context, expected.data(), &written, expected.size()), 1);
    EVP_MAC_CTX_free(context);
    CHECK_EQ(SipHash(kKey, data), Load64(expected.data()));
  }
  EVP_MAC_free(mac);
}

TEST_CASE("siphash: every byte of the key counts") {
  for (size_t i = 0; i < kKey.size(); ++i) {
    SipKey other = kKey;
    other[i] ^= 0x80;
    CHECK_NE(SipHash(other, AsSpan("a block")), SipHash(kKey, AsSpan("a block")));
  }
}

}  // namespace
}  // namespace dagstore
