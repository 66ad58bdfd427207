// DagStore: many CAR files, one verified block store.
//
// A shard is a CAR file under an opaque key, reached through a mount. The store keeps a state machine per shard
// (docs/architecture.md), an index per shard, and one top-level index over all; see README.md for a first program.
//
// Owns the repository folder, the loop thread and the worker threads.
// Threads: every method may be called from any thread but the store's own. Asynchronous methods never block on I/O; the
// Sync forms and the lookups do.
// Answers leave after the synced commit they rest on. What is acknowledged survives a crash.
#pragma once

#include <atomic>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "dagstore/accessor.h"
#include "dagstore/engine.h"
#include "dagstore/event_log.h"
#include "dagstore/options.h"
#include "dagstore/result.h"
#include "index/index_store.h"
#include "index/manifests.h"
#include "mount/upgrader.h"

namespace dagstore {

class DagStore;

// Options that every request takes.
struct RequestOptions {
  Deadline deadline = Deadline::Infinite();
  SpanContext parent = {};       // the caller's span; or give its header:
  std::string traceparent = {};  // InvalidArgument if malformed. `parent` wins
  std::string tracestate = {};   // goes with the header; dropped if malformed, cut to 512 characters by whole entries
};
struct RegisterOptions : RequestOptions {
  bool lazy = false;    // index on first use; the answer comes once the registration is durable
  bool verify = true;   // hash every block while indexing
  // A copy of the bytes that is there already. It is read, never written, moved or deleted. Absolute path.
  std::string existing_transient = {};
  // Further places of the same bytes, by preference; asked when those before them fail. InvalidArgument for a URL that
  // no mount knows, or more than kLocationsMax - 1.
  std::vector<std::string> also = {};
};
struct AcquireOptions : RequestOptions {};
struct DestroyOptions : RequestOptions {};
struct RecoverOptions : RequestOptions {};

// A shard to be acquired again and again: while it is open, Acquire takes about 30 ns and does not touch the loop.
// Holds nothing open. Copies are cheap; each belongs to one thread at a time. The store must outlive it.
class ShardRef {
 public:
  const ShardKey& key() const { return key_; }
  // As DagStore::AcquireShardSync.
  absl::StatusOr<Accessor> Acquire(const AcquireOptions& options = {});

 private:
  friend class DagStore;
  ShardRef(DagStore& store, ShardKey key) : store_(&store), key_(std::move(key)) {}
  DagStore* store_;
  ShardKey key_;
  std::weak_ptr<const Lease> lease_;
};

struct ListShardsOptions : RequestOptions {
  std::optional<ShardState> state = {};
  std::string prefix = {};
  std::string after = {};    // cursor: keys greater than this
  size_t shards_max = 1000;  // per page
};
struct ShardPage {
  std::vector<ShardInfo> shards = {};  // by key
  bool more = false;                   // call again with `after` = the last key
};

struct FindShardsOptions : RequestOptions {
  Ordinal after = 0;         // cursor: 0 for the first page, then what the page before said
  size_t shards_max = 1000;  // per page
};
struct ShardHolder {
  ShardKey key = {};
  bool block = false;  // its index has the block
  bool root = false;   // its CAR header names it as a root
};
struct UnreadShard {
  ShardKey key = {};
  absl::Status error = {};
};
struct ShardHoldersPage {
  std::vector<ShardHolder> shards = {};  // by key; pages follow each other in the order in which shards were indexed
  std::vector<UnreadShard> unread = {};  // may have the block, but their record or index cannot be read now
  Ordinal next_after = 0;                // 0: this was the last
};

struct StoreStats {
  EngineStats engine = {};
  TopIndexStats top = {};
  SpanSinkStats spans = {};
  uint64_t shards = 0;
  uint64_t database_bytes = 0;
  uint64_t syncs = 0;  // synced commits of the database
  uint64_t failures = 0;
  uint64_t quarantined = 0;
  bool lookups_ready = true;
  CopyCacheStats copies = {};
  SourceStats sources = {};
  UpgraderStats upgrader = {};
};

struct GcOptions : RequestOptions {
  uint64_t copy_bytes_target = 0;  // local copies are removed until no more than this is left
};
struct GcResult {
  uint64_t copies_removed = 0;
  uint64_t bytes_removed = 0;
  uint64_t orphans_removed = 0;  // index files, copies and temporaries that no record owns
};

struct QuarantinedRecord {
  std::string key = {};    // of the shard, bytes
  std::string reason = {};
};

class DagStore {
 public:
  friend class ShardRef;
  // Opens or makes a repository. Errors: Repository::Open; ResourceExhausted also if the system has no thread left.
  static absl::StatusOr<std::unique_ptr<DagStore>> Open(Options options);
  ~DagStore();  // Close
  DagStore(const DagStore&) = delete;

  // Requests are refused from now on; those accepted are answered; running jobs may finish within Options::close_grace.
  // Accessors that are still out keep reading. The seven steps are in docs/architecture.md#stops-and-deadlines. Again,
  // or at the same time: waits for the first, and nothing. Not from the store's own threads. The folder stays locked
  // until this object is destroyed.
  absl::Status Close();

  // Each accepted request has one ticket and gets exactly one result on `out`. Refused (no result then):
  // InvalidArgument (key, URL, options), ResourceExhausted (`out` is full, or too many requests wait),
  // FailedPrecondition (closed).
  absl::StatusOr<Ticket> RegisterShard(ShardKey key, std::unique_ptr<Mount> mount, const Channel<ShardResult>& out,
                                       const RegisterOptions& options = {});
  absl::StatusOr<Ticket> AcquireShard(ShardKey key, const Channel<ShardResult>& out,
                                      const AcquireOptions& options = {});
  absl::StatusOr<Ticket> DestroyShard(ShardKey key, const Channel<ShardResult>& out,
                                      const DestroyOptions& options = {});
  absl::StatusOr<Ticket> RecoverShard(ShardKey key, const Channel<ShardResult>& out,
                                      const RecoverOptions& options = {});
  // A message to the loop: the ticket ends with Cancelled, once work that only it wanted has stopped. A ticket that is
  // unknown or answered: nothing. FailedPrecondition after Close, which has answered all.
  absl::Status Stop(Ticket ticket);
  // The same, and says what it did.
  absl::StatusOr<StopOutcome> StopSync(Ticket ticket);

  // If `stop` fires, the request is stopped, and its result waited for all the same: when these return, nothing of what
  // they began is running for them any more (or `stop_grace` has passed).
  absl::Status RegisterShardSync(ShardKey key, std::unique_ptr<Mount> mount, const RegisterOptions& options = {},
                                 const std::stop_token& stop = {});
  absl::StatusOr<Accessor> AcquireShardSync(const ShardKey& key, const AcquireOptions& options = {},
                                            const std::stop_token& stop = {});
  // The same for work that is told by a flag when to give up: looked at 50 times a second.
  absl::StatusOr<Accessor> AcquireShardFor(const ShardKey& key, const WorkContext& work);
  absl::Status RecoverShardFor(const ShardKey& key, const WorkContext& work);
  // Waits for the end of a destruction that is under way, and begins none. OK if there is none.
  absl::Status AwaitDestroyed(const ShardKey& key, const WorkContext& work = {});
  // NotFound.
  absl::StatusOr<ShardRef> Resolve(const ShardKey& key);
  absl::Status DestroyShardSync(ShardKey key, const DestroyOptions& options = {}, const std::stop_token& stop = {});
  absl::Status RecoverShardSync(ShardKey key, const RecoverOptions& options = {}, const std::stop_token& stop = {});

  // Looking. DeadlineExceeded between two steps of what takes long, if the options have a deadline.
  // NotFound; Unavailable if its record cannot be read now.
  absl::StatusOr<ShardInfo> GetShardInfo(const ShardKey& key, const RequestOptions& options = {}) const;
  absl::StatusOr<ShardPage> ListShards(const ListShardsOptions& options = {}) const;
  // Exact: every candidate of the top-level index is looked up in its shard index. Sorted; at most `shards_max`. One
  // whose index cannot be read is left out (the page below names it), unless nothing else is found: then its error.
  absl::StatusOr<std::vector<ShardKey>> ShardsContainingMultihash(const MultihashView& hash, size_t shards_max = 1000,
                                                                  const RequestOptions& options = {}) const;
  // The same in pages, for a block that any number of shards may hold: memory is bounded by `shards_max`. A page may be
  // short, even empty, and not the last. A shard that is there from the first page to the last is in one of them.
  absl::StatusOr<ShardHoldersPage> ShardsContainingMultihashPage(const MultihashView& hash,
                                                                 const FindShardsOptions& options = {}) const;
  // The same, with those whose CAR header names the CID as a root, block or not.
  absl::StatusOr<ShardHoldersPage> FindShards(const Cid& cid, const FindShardsOptions& options = {}) const;
  // Shards whose CAR header names this root.
  absl::StatusOr<std::vector<ShardKey>> ShardsWithRoot(const Cid& root, size_t shards_max = 1000,
                                                       const RequestOptions& options = {}) const;
  absl::StatusOr<std::shared_ptr<const ShardIndex>> GetIterableIndex(const ShardKey& key) const;

  // The local copy of a pinned shard is never given up to make room. Durable when it returns. NotFound.
  absl::Status Pin(const ShardKey& key);
  absl::Status Unpin(const ShardKey& key);
  // Fetches what is missing of the local copy of a remote shard. ResourceExhausted if there is no room for it. Blocks.
  absl::Status FetchWhole(const ShardKey& key, const WorkContext& work = {});

  absl::StatusOr<GcResult> Gc(const GcOptions& options = {});
  absl::StatusOr<StoreStats> Stats() const;
  // In the Prometheus text format, for whoever serves it. docs/operations.md#metrics names them.
  absl::StatusOr<std::string> MetricsText() const;
  // Jobs that have been told to stop and have not, within Options::stop_grace: "initialize of shard "k" (job 7)".
  absl::StatusOr<std::vector<std::string>> Stragglers() const;
  absl::StatusOr<std::vector<QuarantinedRecord>> ListQuarantined(size_t records_max = 1000) const;
  // Gives up what a record that could not be decoded may still name: from now on `gc` removes files that only it knew.
  // NotFound if nothing is set aside under that key.
  absl::Status DropQuarantined(const ShardKey& key);

  // Newest first.
  std::vector<FailureEvent> FailureLog(size_t events_max = 100) const;
  std::shared_ptr<EventLog<FailureEvent>::Subscription> SubscribeFailures(size_t events_kept_max = 256);
  std::shared_ptr<EventLog<TraceEvent>::Subscription> SubscribeTrace(size_t events_kept_max = 4096);

  // Sets of CIDs by rule and version, attached to shards; removed with them. NotFound if there is no such shard.
  absl::Status AddManifest(const ShardKey& key, const std::string& rule, uint64_t version, std::span<const Cid> cids,
                           const RequestOptions& options = {});
  absl::Status DropManifest(const ShardKey& key, const std::string& rule, uint64_t version,
                            const RequestOptions& options = {});
  // For looking: Stat, Get, List, Contains.
  Manifests ReadManifests() const;

  // Waits until lookups by CID are complete: after a crash, until what the top-level index had in memory was added
  // again.
  absl::Status AwaitLookups(Deadline deadline = Deadline::Infinite()) const;

  const Options& options() const;
  const MountRegistry& mounts() const;

  // For the modules of the store (IndexedBlockstore, fsck): what a lookup needs. Any thread.
  struct Lookup;
  const Lookup& lookup() const;

 private:
  struct Core;
  explicit DagStore(std::unique_ptr<Core> core);
  // `root` may be null.
  absl::StatusOr<ShardHoldersPage> HoldersPage(const MultihashView& hash, const Cid* root,
                                               const FindShardsOptions& options) const;
  std::unique_ptr<Core> core_;
};

// Read-only parts of a store, thread-safe.
struct DagStore::Lookup {
  Kv* kv = nullptr;
  Io* io = nullptr;
  IndexStore* indexes = nullptr;
  TopIndex* top = nullptr;
  const Directory* directory = nullptr;
  SipKey fingerprint_secret = {};

  std::function<absl::Status()> heal = {};  // makes damaged parts of the top-level index again; may take long
  const std::atomic<bool>* incomplete = nullptr;  // that broke off
  // What `find` says, once more if anything had to be made again first.
  absl::Status Healed(absl::FunctionRef<absl::Status()> find) const;

  // The live shards that may hold each multihash, `candidates_max` of them if there are more: `visit(index into hashes,
  // ordinal, key)`. If a run of the top-level index turns out damaged it is made again from the shard indexes first, so
  // that no shard is missing.
  absl::Status FindCandidates(std::span<const MultihashView> hashes, size_t candidates_max,
                              absl::FunctionRef<void(size_t, Ordinal, const ShardKey&)> visit) const;
  // A page of ordinals that may hold it, as TopIndex::FindPage; healed likewise.
  absl::Status FindCandidatePage(const MultihashView& hash, Ordinal after, size_t ordinals_max,
                                 std::vector<Ordinal>& page) const;
  // Calls `look`, which says whether it met an ordinal that is dead, again while others died beside it: their shards
  // may have been indexed again in between, and be alive under an ordinal that came too late to be seen.
  absl::Status LookSteadily(absl::FunctionRef<absl::StatusOr<bool>()> look) const;
  // Whether the shard has the multihash, by the index that it has now.
  absl::StatusOr<bool> Holds(const ShardKey& key, const MultihashView& hash) const;
  // Null if there is no such shard (any more), or it has none.
  absl::StatusOr<std::shared_ptr<const ShardIndex>> CurrentIndex(const ShardKey& key) const;
  // NotFound, DataLoss.
  absl::StatusOr<ShardRecord> ReadRecord(const ShardKey& key) const;
  // The index a record names. DataLoss, also if it is gone.
  absl::StatusOr<std::shared_ptr<const ShardIndex>> OpenIndex(const ShardRecord& record) const;
};

}  // namespace dagstore
