// Manifests: named, versioned sets of CIDs attached to a shard, in table kManifests: which blocks a rule kept, say.
// Format: docs/format.md#manifests.
//
// A manifest is (shard key, rule, version); shard keys and rules are bytes, a version is a number. Its CIDs are stored
// sorted, each once, in chunks with checksums, so that any part of a large set is read without the rest.
//
// Threads: any; the functions change nothing but the batch they are given. A reader sees one snapshot a call.
// Errors: NotFound: no such manifest. DataLoss: a stored value is damaged. ResourceExhausted: a limit below.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cid.h"
#include "base/kv.h"

namespace dagstore {

inline constexpr size_t kManifestRuleBytesMax = 256;          // a name for people and programs
inline constexpr size_t kManifestChunkBytesMax = 64 << 10;    // of one value, checksum included
inline constexpr size_t kManifestShardBytesMax = 64 << 10;    // of the key; a shard key has its own, lower limit

struct ManifestOptions {
  size_t entries_max = 10'000'000;  // CIDs of one manifest; a batch takes 256 MiB of them, 7 million of 36 bytes
};

struct ManifestId {
  std::string shard;  // key bytes
  std::string rule;
  uint64_t version = 0;

  friend bool operator==(const ManifestId&, const ManifestId&) = default;
};

struct ManifestStat {
  uint64_t entries = 0;
  uint64_t bytes = 0;  // of all CIDs
  absl::Time created;  // to the microsecond
};

struct ManifestInfo {
  std::string rule;
  uint64_t version = 0;
  ManifestStat stat;
};

struct ManifestPage {
  std::vector<Cid> cids;  // ascending by bytes
  Cid next_after;         // pass it as `after` for the next page; empty: this was the last
};

class Manifests {
 public:
  // `kv` must outlive it.
  explicit Manifests(Kv& kv, const ManifestOptions& options = {}) : kv_(kv), options_(options) {}

  // Adds the manifest to `batch`, in place of one with the same id. On an error `batch` is unchanged.
  // InvalidArgument: an empty CID or shard key, a rule or key that is too long. `created` is from the wall clock.
  absl::Status Add(KvBatch& batch, const ManifestId& id, std::span<const Cid> cids, absl::Time created) const;
  // Adds the removal to `batch`. OK if there is none.
  absl::Status Drop(KvBatch& batch, const ManifestId& id) const;
  // Adds the removal of everything of the shard to `batch`.
  absl::Status DropShard(KvBatch& batch, std::string_view shard) const;

  absl::StatusOr<ManifestStat> Stat(const ManifestId& id) const;
  absl::StatusOr<bool> Contains(const ManifestId& id, const Cid& cid) const;
  // The first `limit` CIDs greater than `after` (empty: from the first).
  absl::StatusOr<ManifestPage> Get(const ManifestId& id, const Cid& after, size_t limit) const;
  // All manifests of the shard, or of one rule: rules in order of (length, bytes), each with its newest version first.
  // At most `limit`; the next ones follow `after`, the last one seen.
  absl::StatusOr<std::vector<ManifestInfo>> List(std::string_view shard, std::optional<std::string_view> rule,
                                                 const ManifestInfo* after, size_t limit) const;

 private:
  Kv& kv_;
  const ManifestOptions options_;
};

}  // namespace dagstore
