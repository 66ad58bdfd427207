// Multibase: text encodings with a one-character prefix. Those of registry status "final" and a few more.
// Spec: github.com/multiformats/multibase; docs/format.md#multibase.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"

namespace dagstore {

// The prefix character is the identity of a base.
enum class Base : char {
  kBase2 = '0',
  kBase8 = '7',
  kBase10 = '9',
  kBase16 = 'f',
  kBase16Upper = 'F',
  kBase32 = 'b',
  kBase32Upper = 'B',
  kBase32Pad = 'c',
  kBase32PadUpper = 'C',
  kBase32Hex = 'v',
  kBase32HexUpper = 'V',
  kBase32HexPad = 't',
  kBase32HexPadUpper = 'T',
  kBase32Z = 'h',
  kBase36 = 'k',
  kBase36Upper = 'K',
  kBase58Btc = 'z',
  kBase58Flickr = 'Z',
  kBase64 = 'm',
  kBase64Pad = 'M',
  kBase64Url = 'u',
  kBase64UrlPad = 'U',
};

// Without the prefix character.
std::string EncodeBase(Base base, Span bytes);
absl::StatusOr<Bytes> DecodeBase(Base base, std::string_view text);

// With it. Bases that are case-insensitive in the registry accept both cases; trailing bits must be zero.
// InvalidArgument for an unknown prefix, a wrong character, or text above 64 KiB in a base of quadratic cost.
std::string EncodeMultibase(Base base, Span bytes);
absl::StatusOr<Bytes> DecodeMultibase(std::string_view text);

}  // namespace dagstore
