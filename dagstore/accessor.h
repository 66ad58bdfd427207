// Accessor: the right to read one shard. Move-only; destroying it releases the shard, once.
//
// Threads: belongs to one thread at a time; the blockstore it gives may be used from any.
#pragma once

#include <absl/functional/any_invocable.h>

#include <memory>
#include <optional>
#include <vector>

#include "dagstore/blockstore.h"
#include "dagstore/job.h"
#include "dagstore/open_shard.h"

namespace dagstore {

class TaskQueues;

// What all accessors of an open shard share: the shard, and where to post that one was dropped.
struct Lease {
  std::shared_ptr<const OpenShard> shard = {};
  std::shared_ptr<TaskQueues> queues = {};
  uint32_t slot = 0;
  uint32_t incarnation = 0;
};

class Accessor {
 public:
  Accessor() = default;  // empty
  // For the engine, which has counted the reference.
  explicit Accessor(std::shared_ptr<const Lease> lease) : lease_(std::move(lease)) {}
  Accessor(Accessor&& other) noexcept = default;
  Accessor& operator=(Accessor&& other) noexcept;
  ~Accessor() { Close(); }

  bool empty() const { return lease_ == nullptr; }
  const ShardKey& key() const { return shard()->key; }
  // Blocks of this shard. Valid while the accessor lives.
  std::unique_ptr<Blockstore> NewBlockstore() const;
  // The bytes of the CAR file itself. Valid while the accessor lives.
  const RandomReader& source() const { return *shard()->source; }
  const ShardIndex& index() const { return *shard()->index; }
  const std::shared_ptr<const OpenShard>& shard() const { return lease_->shard; }

  // A reader found something wrong; see Damage for what follows.
  void ReportDamage(const absl::Status& status, Damage damage) const;
  // Releases the shard now. Again: nothing.
  void Close();

 private:
  std::shared_ptr<const Lease> lease_;
};

}  // namespace dagstore
