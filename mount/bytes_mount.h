// bytes: mount. The content is in the URL, as base64url without padding: bytes:aGVsbG8. For tests,
// small fixtures and shards that are cheaper to store in a record than to fetch.
#pragma once

#include <memory>

#include "mount/registry.h"

namespace dagstore {

// The content lies in the record and in memory: above this it belongs into a file.
inline constexpr size_t kBytesMountBytesMax = 1024 * 1024;

// ResourceExhausted above kBytesMountBytesMax.
absl::StatusOr<std::unique_ptr<Mount>> NewBytesMount(Bytes content);

MountFactory BytesMountFactory();

}  // namespace dagstore
