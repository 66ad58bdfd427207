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

class Accessor {
 public:
  Accessor() = default;  // empty
  Accessor(std::shared_ptr<const OpenShard> shard, std::shared_ptr<TaskQueues> queues, uint32_t slot,
           uint32_t incarnation);
  Accessor(Accessor&& other) noexcept;
  Accessor& operator=(Accessor&& other) noexcept;
  ~Accessor() { Close(); }

  bool empty() const { return shard_ == nullptr; }
  const ShardKey& key() const { return shard_->key; }
  // Blocks of this shard. Valid while the accessor lives.
  std::unique_ptr<Blockstore> NewBlockstore() const;
  // The bytes of the CAR file itself. Valid while the accessor lives.
  const RandomReader& source() const { return *shard_->source; }
  const ShardIndex& index() const { return *shard_->index; }
  const std::shared_ptr<const OpenShard>& shard() const { return shard_; }

  // A reader found something wrong; see Damage for what follows.
  void ReportDamage(const absl::Status& status, Damage damage) const;
  // Releases the shard now. Again: nothing.
  void Close();

 private:
  std::shared_ptr<const OpenShard> shard_;
  std::shared_ptr<TaskQueues> queues_;
  uint32_t slot_ = 0;
  uint32_t incarnation_ = 0;
};

}  // namespace dagstore
