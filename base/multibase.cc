#include "base/multibase.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace dagstore {
namespace {

constexpr size_t kQuadraticTextBytesMax = 64 << 10;

enum class Case : uint8_t { kExact, kBoth };

// bits > 0: RFC 4648 style, that many bits a character, first bit highest, padded to `group` characters if group > 0.
// bits == 0: the bytes are one big-endian number; each leading zero byte is one leading zero digit.
struct Scheme {
  Base base;
  std::string_view alphabet;
  int bits;
  int group;
  Case fold;
};

constexpr std::string_view kBase32Lower = "abcdefghijklmnopqrstuvwxyz234567";
constexpr std::string_view kBase32Up = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
constexpr std::string_view kBase32HexLower = "0123456789abcdefghijklmnopqrstuv";
constexpr std::string_view kBase32HexUp = "0123456789ABCDEFGHIJKLMNOPQRSTUV";
constexpr std::string_view kBase36Lower = "0123456789abcdefghijklmnopqrstuvwxyz";
constexpr std::string_view kBase36Up = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr std::string_view kBase64Plain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kBase64UrlSafe =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr Scheme kSchemes[] = {
    {Base::kBase32, kBase32Lower, 5, 0, Case::kBoth},
    {Base::kBase58Btc, "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", 0, 0, Case::kExact},
    {Base::kBase36, kBase36Lower, 0, 0, Case::kBoth},
    {Base::kBase2, "01", 1, 0, Case::kExact},
    {Base::kBase8, "01234567", 3, 0, Case::kExact},
    {Base::kBase10, "0123456789", 0, 0, Case::kExact},
    {Base::kBase16, "0123456789abcdef", 4, 0, Case::kBoth},
    {Base::kBase16Upper, "0123456789ABCDEF", 4, 0, Case::kBoth},
    {Base::kBase32Upper, kBase32Up, 5, 0, Case::kBoth},
    {Base::kBase32Pad, kBase32Lower, 5, 8, Case::kBoth},
    {Base::kBase32PadUpper, kBase32Up, 5, 8, Case::kBoth},
    {Base::kBase32Hex, kBase32HexLower, 5, 0, Case::kBoth},
    {Base::kBase32HexUpper, kBase32HexUp, 5, 0, Case::kBoth},
    {Base::kBase32HexPad, kBase32HexLower, 5, 8, Case::kBoth},
    {Base::kBase32HexPadUpper, kBase32HexUp, 5, 8, Case::kBoth},
    {Base::kBase32Z, "ybndrfg8ejkmcpqxot1uwisza345h769", 5, 0, Case::kExact},
    {Base::kBase36Upper, kBase36Up, 0, 0, Case::kBoth},
    {Base::kBase58Flickr, "123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ", 0, 0, Case::kExact},
    {Base::kBase64, kBase64Plain, 6, 0, Case::kExact},
    {Base::kBase64Pad, kBase64Plain, 6, 4, Case::kExact},
    {Base::kBase64Url, kBase64UrlSafe, 6, 0, Case::kExact},
    {Base::kBase64UrlPad, kBase64UrlSafe, 6, 4, Case::kExact},
};
constexpr size_t kSchemeCount = std::size(kSchemes);

constexpr uint8_t kNoDigit = 0xff;
using DigitTable = std::array<uint8_t, 256>;

constexpr DigitTable MakeDigits(const Scheme& scheme) {
  DigitTable digits = {};
  for (uint8_t& digit : digits) digit = kNoDigit;
  for (size_t i = 0; i < scheme.alphabet.size(); ++i) {
    const char c = scheme.alphabet[i];
    digits[static_cast<uint8_t>(c)] = static_cast<uint8_t>(i);
    if (scheme.fold == Case::kExact) continue;
    if (c >= 'a' && c <= 'z') digits[static_cast<uint8_t>(c - 'a' + 'A')] = static_cast<uint8_t>(i);
    if (c >= 'A' && c <= 'Z') digits[static_cast<uint8_t>(c - 'A' + 'a')] = static_cast<uint8_t>(i);
  }
  return digits;
}

constexpr std::array<DigitTable, kSchemeCount> kDigits = [] {
  std::array<DigitTable, kSchemeCount> tables = {};
  for (size_t i = 0; i < kSchemeCount; ++i) tables[i] = MakeDigits(kSchemes[i]);
  return tables;
}();

// kSchemeCount if there is none.
size_t FindScheme(Base base) {
  size_t i = 0;
  while (i < kSchemeCount && kSchemes[i].base != base) ++i;
  return i;
}

absl::Status WrongCharacter(char c, size_t position) {
  return InvalidArgument("character 0x{:02x} at position {} is not of this base",
                         static_cast<uint8_t>(c), position);
}

std::string EncodeBits(const Scheme& scheme, Span bytes) {
  std::string out;
  out.reserve((bytes.size() * 8 + scheme.bits - 1) / scheme.bits + scheme.group);
  uint32_t pending = 0;
  int pending_bits = 0;
  const uint32_t mask = (1u << scheme.bits) - 1;
  for (uint8_t byte : bytes) {
    pending = pending << 8 | byte;
    pending_bits += 8;
    while (pending_bits >= scheme.bits) {
      pending_bits -= scheme.bits;
      out.push_back(scheme.alphabet[pending >> pending_bits & mask]);
    }
  }
  if (pending_bits > 0) {
    out.push_back(scheme.alphabet[pending << (scheme.bits - pending_bits) & mask]);
  }
  while (scheme.group > 0 && out.size() % scheme.group != 0) out.push_back('=');
  return out;
}

absl::StatusOr<Bytes> DecodeBits(const Scheme& scheme, const DigitTable& digits,
                                 std::string_view text) {
  if (scheme.group > 0) {
    if (text.size() % scheme.group != 0) return InvalidArgument("padding is incomplete");
    const size_t padded_size = text.size();
    while (!text.empty() && text.back() == '=') text.remove_suffix(1);
    if (padded_size - text.size() >= static_cast<size_t>(scheme.group)) {
      return InvalidArgument("more padding than one group");
    }
  }
  Bytes out;
  out.reserve(text.size() * scheme.bits / 8);
  uint32_t pending = 0;
  int pending_bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t digit = digits[static_cast<uint8_t>(text[i])];
    if (digit == kNoDigit) return WrongCharacter(text[i], i);
    pending = pending << scheme.bits | digit;
    pending_bits += scheme.bits;
    if (pending_bits >= 8) {
      pending_bits -= 8;
      out.push_back(static_cast<uint8_t>(pending >> pending_bits));
    }
  }
  // One text a value: no character without a bit of data, no data in the bits left over.
  if (pending_bits >= scheme.bits) return InvalidArgument("{} characters do not end a byte", text.size());
  if ((pending & ((1u << pending_bits) - 1)) != 0) return InvalidArgument("trailing bits are not zero");
  return out;
}

// As many digits as fit in 32 bits are handled in one step over the number.
struct Step {
  int digits;
  uint32_t factor;
};
constexpr Step LargestStep(uint32_t radix) {
  Step step = {0, 1};
  while (static_cast<uint64_t>(step.factor) * radix <= UINT32_MAX) {
    step.factor *= radix;
    ++step.digits;
  }
  return step;
}

std::string EncodeNumber(const Scheme& scheme, Span bytes) {
  const uint32_t radix = static_cast<uint32_t>(scheme.alphabet.size());
  const Step step = LargestStep(radix);
  size_t zeros = 0;
  while (zeros < bytes.size() && bytes[zeros] == 0) ++zeros;

  std::vector<uint32_t> limbs;  // low first, in base step.factor
  for (uint8_t byte : bytes.subspan(zeros)) {
    uint64_t carry = byte;
    for (uint32_t& limb : limbs) {
      carry += static_cast<uint64_t>(limb) << 8;
      limb = static_cast<uint32_t>(carry % step.factor);
      carry /= step.factor;
    }
    if (carry > 0) limbs.push_back(static_cast<uint32_t>(carry));
  }
  std::string out;
  for (uint32_t limb : limbs) {
    for (int i = 0; i < step.digits; ++i, limb /= radix) out.push_back(scheme.alphabet[limb % radix]);
  }
  while (!out.empty() && out.back() == scheme.alphabet[0]) out.pop_back();
  out.append(zeros, scheme.alphabet[0]);
  std::reverse(out.begin(), out.end());
  return out;
}

absl::StatusOr<Bytes> DecodeNumber(const Scheme& scheme, const DigitTable& digits,
                                   std::string_view text) {
  if (text.size() > kQuadraticTextBytesMax) {
    return InvalidArgument("text of {} bytes, at most {} in this base", text.size(),
                           kQuadraticTextBytesMax);
  }
  const uint32_t radix = static_cast<uint32_t>(scheme.alphabet.size());
  const Step step = LargestStep(radix);
  size_t zeros = 0;
  while (zeros < text.size() && text[zeros] == scheme.alphabet[0]) ++zeros;

  std::vector<uint32_t> limbs;  // low first, in base 2^32
  for (size_t i = zeros; i < text.size();) {
    uint32_t factor = 1, value = 0;
    for (int n = 0; n < step.digits && i < text.size(); ++n, ++i) {
      const uint8_t digit = digits[static_cast<uint8_t>(text[i])];
      if (digit == kNoDigit) return WrongCharacter(text[i], i);
      factor *= radix;
      value = value * radix + digit;
    }
    uint64_t carry = value;
    for (uint32_t& limb : limbs) {
      carry += static_cast<uint64_t>(limb) * factor;
      limb = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry > 0) limbs.push_back(static_cast<uint32_t>(carry));
  }
  Bytes out;
  for (uint32_t limb : limbs) Append32(out, limb);
  while (!out.empty() && out.back() == 0) out.pop_back();
  out.resize(out.size() + zeros, 0);
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

std::string EncodeBase(Base base, Span bytes) {
  const size_t i = FindScheme(base);
  DAGSTORE_CHECK(i < kSchemeCount);
  return kSchemes[i].bits > 0 ? EncodeBits(kSchemes[i], bytes) : EncodeNumber(kSchemes[i], bytes);
}

absl::StatusOr<Bytes> DecodeBase(Base base, std::string_view text) {
  const size_t i = FindScheme(base);
  if (i == kSchemeCount) {
    return InvalidArgument("no multibase has the prefix 0x{:02x}", static_cast<uint8_t>(base));
  }
  return kSchemes[i].bits > 0 ? DecodeBits(kSchemes[i], kDigits[i], text)
                              : DecodeNumber(kSchemes[i], kDigits[i], text);
}

std::string EncodeMultibase(Base base, Span bytes) {
  return static_cast<char>(base) + EncodeBase(base, bytes);
}

absl::StatusOr<Bytes> DecodeMultibase(std::string_view text) {
  if (text.empty()) return InvalidArgument("empty text has no multibase prefix");
  return DecodeBase(static_cast<Base>(text[0]), text.substr(1));
}

}  // namespace dagstore
