#include "shard/key.h"

#include "base/hashing.h"
#include "base/multibase.h"
#include "base/mutant.h"
#include "base/text.h"

namespace dagstore {

std::string PrintableBytes(std::string_view bytes, size_t characters_max) {
  std::string out;
  for (char c : bytes) {
    if (out.size() + 4 > characters_max) return out + "...";
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte > 0x7e || c == '\\' || c == '"') {
      AppendEscaped(out, c);
    } else {
      out += c;
    }
  }
  return out;
}

std::string ShardKey::Printable() const { return PrintableBytes(bytes_); }

absl::Status ShardKey::Check() const {
  if (bytes_.empty()) return InvalidArgument("shard key is empty");
  if (bytes_.size() > kShardKeyBytesMax) {
    return InvalidArgument("shard key of {} bytes is longer than {}", bytes_.size(), kShardKeyBytesMax);
  }
  return absl::OkStatus();
}

std::string ShardKey::FileStem() const {
  if (Mutant(kMutantStemIsKey)) return bytes_;
  uint8_t digest[32];
  Sha256(AsSpan(bytes_), digest);
  return EncodeBase(Base::kBase32, Span(digest, 20));
}

}  // namespace dagstore
