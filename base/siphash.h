// SipHash-2-4, 64-bit: the keyed hash behind fingerprints, so that nobody outside can choose where a key lands.
#pragma once

#include <array>

#include "base/bytes.h"

namespace dagstore {

using SipKey = std::array<uint8_t, 16>;
uint64_t SipHash(const SipKey& key, Span data);

}  // namespace dagstore
