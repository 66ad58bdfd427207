// ShardRecord: what is durable about one shard. Key and value of table kRecords; format: docs/format.md#record.
//
// A record of a newer version, or one whose checksum is wrong, is not decoded and never dropped: the store moves it to
// the quarantine table and leaves the shard's files alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "shard/state.h"

namespace dagstore {

// Written is the oldest version that can say what the record says: 2 only for other locations or an inferred index.
inline constexpr uint8_t kRecordVersion = 2;
inline constexpr size_t kLocationsMax = 16;  // of one shard

// A local copy of the shard's bytes.
struct TransientRecord {
  std::string name = {};  // in the repository's transients folder; or an absolute path that belongs to the user
  uint64_t size = 0;
  bool owned = false;     // ours to delete

  friend bool operator==(const TransientRecord&, const TransientRecord&) = default;
};

struct ShardRecord {
  ShardState state = ShardState::kNew;  // New, Available, Errored or Destroying: what a restart may find
  bool lazy = false;                    // indexed on first use
  bool verify = true;                   // blocks are hashed while indexing
  uint32_t ordinal = 0;                 // of its shard index; 0: none
  uint32_t attempts = 0;                // failed attempts since it was last available
  uint64_t index_bytes = 0;             // of the stored shard index
  uint32_t index_checksum = 0;          // as ShardIndex::Checksum()
  uint64_t blocks = 0;                  // sections in the index
  uint64_t block_bytes = 0;             // sum of their data
  uint64_t unverified_blocks = 0;       // of unknown hash functions
  bool verified = false;                // every other block was hashed when it was indexed
  uint64_t source_size = 0;             // bytes of the source when it was indexed
  int64_t registered_unix_ms = 0;       // for people
  int64_t indexed_unix_ms = 0;
  std::string url = {};                 // encoded; may hold secrets: print the redacted form only
  std::string validator = {};           // of the source when it was indexed (mount/mount.h)
  std::optional<TransientRecord> copy = {};
  int error_code = 0;                   // absl::StatusCode of the cause while Errored
  std::string error = {};               // its text
  // Since version 2.
  std::vector<std::string> also = {};   // further locations of the same bytes, encoded URLs, by preference
  uint32_t indexed_location = 0;        // which gave `validator`: 0 is `url`, then those of `also`
  // The index is the one that the CAR carries, checked by samples only: offsets are its word, sizes are upper bounds.
  // Built again from the bytes once a whole copy is there.
  bool inferred_index = false;

  // Why it is Errored. Never NotFound, which would say that there is no such shard (base/status.h).
  absl::Status Cause() const;
  // The name of the copy that is ours; empty if there is none.
  std::string OwnCopy() const { return copy.has_value() && copy->owned ? copy->name : std::string(); }

  friend bool operator==(const ShardRecord&, const ShardRecord&) = default;
};

std::string EncodeRecord(const ShardRecord& record);
// DataLoss if damaged, FailedPrecondition if newer than this program.
absl::StatusOr<ShardRecord> DecodeRecord(Span bytes);

// What opening a store needs of each record, without decoding the rest. The checksum is checked.
struct RecordHead {
  ShardState state = ShardState::kNew;
  bool lazy = false;
  bool has_copy = false;
  uint32_t ordinal = 0;
};
absl::StatusOr<RecordHead> DecodeRecordHead(Span bytes);

}  // namespace dagstore
