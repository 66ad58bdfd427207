#include "base/kv.h"

#include <iterator>

namespace dagstore {

const char* KvTableName(KvTable table) {
  switch (table) {
    case KvTable::kMeta:
      return "meta";
    case KvTable::kRecords:
      return "records";
    case KvTable::kDestroying:
      return "destroying";
    case KvTable::kIndexes:
      return "indexes";
    case KvTable::kTopIndex:
      return "top_index";
    case KvTable::kRoots:
      return "roots";
    case KvTable::kManifests:
      return "manifests";
    case KvTable::kQuarantine:
      return "quarantine";
  }
  DAGSTORE_CHECK_MSG(false, "no such table");
}

void KvBatch::Append(KvBatch&& other) {
  DAGSTORE_CHECK(this != &other);
  changes_.insert(changes_.end(), std::make_move_iterator(other.changes_.begin()),
                  std::make_move_iterator(other.changes_.end()));
  bytes_ += std::exchange(other.bytes_, 0);
  other.changes_.clear();
}

absl::Status CheckKvBatch(const KvBatch& batch) {
  if (batch.bytes() > kKvBatchBytesMax) {
    return ResourceExhausted("a batch of {} bytes is above the limit of {}", batch.bytes(), kKvBatchBytesMax);
  }
  for (const KvBatch::Change& change : batch.changes()) {
    if (change.key.size() > kKvKeyBytesMax) {
      return InvalidArgument("a key of {} bytes is above the limit of {}", change.key.size(), kKvKeyBytesMax);
    }
  }
  return absl::OkStatus();
}

std::string KvPrefixEnd(std::string_view prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.remove_suffix(1);
  // Nothing follows a run of 0xff but a longer run: one byte longer than any key.
  if (prefix.empty()) return std::string(kKvKeyBytesMax + 1, '\xff');
  std::string end(prefix);
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace dagstore
