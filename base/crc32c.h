// CRC-32C (Castagnoli), as in RFC 3720. Hardware instruction where there is one.
#pragma once

#include "base/bytes.h"

namespace dagstore {

// Extends `crc` (0 to begin) by `data`.
uint32_t Crc32c(uint32_t crc, Span data);
inline uint32_t Crc32c(Span data) { return Crc32c(0, data); }

}  // namespace dagstore
