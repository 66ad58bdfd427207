// CRC-32C (Castagnoli), as in RFC 3720. Hardware instruction where there is one, found at run time.
//
// Any thread.
#pragma once

#include "base/bytes.h"

namespace dagstore {

// Extends `crc` (0 to begin) by `data`.
uint32_t Crc32c(uint32_t crc, Span data);
inline uint32_t Crc32c(Span data) { return Crc32c(0, data); }

// The same by tables: what runs where the instruction is missing. Here so that tests can compare the two.
uint32_t Crc32cPortable(uint32_t crc, Span data);

}  // namespace dagstore
