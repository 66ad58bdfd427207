// Repository: the folder of a store, and everything durable in it. Layout: docs/format.md#repository.
//
//   DAGSTORE       marker: format and store id, as in the database. Refused if it is missing or another's
//   db/            RocksDB: records, small indexes, roots, manifests, quarantine
//   indexes/       shard indexes of large shards
//   top/           runs of the top-level index: derived, can be rebuilt
//   transients/    local copies of remote shards
// Nothing inside holds an absolute path of its own, so the folder can be moved.
//
// Threads: Open and the destructor one and the same; the members are thread-safe themselves.
#pragma once

#include <memory>
#include <string>

#include "base/kv.h"
#include "dagstore/options.h"
#include "index/index_store.h"
#include "index/top_index.h"
#include "mount/upgrader.h"

namespace dagstore {

inline constexpr int kRepositoryFormat = 1;

struct Repository {
  std::string dir = {};       // empty: memory only
  std::string store_id = {};  // 32 hex digits, made once
  SipKey fingerprint_secret = {};
  uint64_t trace_seed = 0;  // of this boot
  Ordinal next_ordinal = 1;
  std::unique_ptr<Kv> kv = {};
  std::unique_ptr<IndexStore> indexes = {};
  std::unique_ptr<TopIndex> top = {};
  std::shared_ptr<CopyCache> copies = {};   // null in memory
  std::unique_ptr<Upgrader> upgrader = {};  // null in memory

  // Makes the repository if `options.dir` is empty or absent.
  // FailedPrecondition: a folder of something else, a newer format, files swapped with another repository's, or another
  // process has it open.
  static absl::StatusOr<std::unique_ptr<Repository>> Open(const Options& options, Io& io);
};

}  // namespace dagstore
