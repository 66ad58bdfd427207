// ShardKey: the opaque name of a shard. Any bytes; never a file name, never a path, never cleaned.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"

namespace dagstore {

inline constexpr size_t kShardKeyBytesMax = 1024;  // so that a key fits every table, message and URL

class ShardKey {
 public:
  ShardKey() = default;
  ShardKey(std::string bytes) : bytes_(std::move(bytes)) {}  // NOLINT: keys are written as text in calls
  ShardKey(const char* text) : bytes_(text) {}               // NOLINT
  explicit ShardKey(std::string_view bytes) : bytes_(bytes) {}

  const std::string& bytes() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }
  // For messages and listings: control bytes, quotes and bytes above 0x7e escaped as \xNN, cut at 256 characters.
  std::string Printable() const;
  // InvalidArgument if empty or longer than kShardKeyBytesMax.
  absl::Status Check() const;
  // Name for files that belong to this key: base32 of the first 20 bytes of its sha2-256. Says nothing about the key.
  std::string FileStem() const;

  friend bool operator==(const ShardKey&, const ShardKey&) = default;
  friend auto operator<=>(const ShardKey&, const ShardKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const ShardKey& key) { return H::combine(std::move(h), key.bytes_); }

 private:
  std::string bytes_;
};

// The escaped form used in messages, for any bytes.
std::string PrintableBytes(std::string_view bytes, size_t characters_max = 256);

}  // namespace dagstore
