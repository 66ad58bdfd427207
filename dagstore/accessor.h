// Accessor: the right to read one shard. Move-only; destroying it releases the shard, once.
//
// Threads: belongs to one thread at a time; the blockstore it gives may be used from any.
#pragma once

#include <absl/functional/any_invocable.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/mutant.h"
#include "dagstore/blockstore.h"
#include "dagstore/job.h"
#include "dagstore/open_shard.h"
#include "dagstore/reader_gate.h"

namespace dagstore {

class TaskQueues;

// What all accessors of an open shard share: the shard, where to post that one was dropped, and the gate by which
// readers pass without posting anything.
struct Lease {
  std::shared_ptr<const OpenShard> shard = {};
  std::shared_ptr<TaskQueues> queues = {};
  uint32_t slot = 0;
  uint32_t incarnation = 0;
  TaskMeta meta;  // of the job that opened it: what releases and damage reports say of their cause
  mutable ReaderGate gate{/*open=*/false};

  Lease(std::shared_ptr<const OpenShard> open, std::shared_ptr<TaskQueues> to, uint32_t in_slot, uint32_t life,
        const TaskMeta& opened_by, bool gate_open)
      : shard(std::move(open)),
        queues(std::move(to)),
        slot(in_slot),
        incarnation(life),
        meta(opened_by),
        gate(gate_open) {}
};

class Accessor {
 public:
  Accessor() = default;  // empty
  // For the engine, which has counted the reference.
  explicit Accessor(std::shared_ptr<const Lease> lease) : lease_(std::move(lease)) {}
  // Any thread. Through the gate, without the loop; empty if it is closed.
  static Accessor TryEnter(std::shared_ptr<const Lease> lease) {
    Accessor accessor;
    if (lease == nullptr || !lease->gate.TryEnter()) return accessor;
    accessor.lease_ = std::move(lease);
    accessor.entered_ = true;
    return accessor;
  }
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
  const std::shared_ptr<const Lease>& lease() const { return lease_; }

  // A reader found something wrong; see Damage for what follows.
  void ReportDamage(const absl::Status& status, Damage damage) const;
  // Releases the shard now. Again: nothing.
  void Close() {
    if (lease_ == nullptr) return;
    if (!entered_ || !lease_->gate.TryLeave()) PostRelease();
    if (Mutant(kMutantDoubleRelease)) return;
    lease_.reset();
  }

 private:
  void PostRelease() const;

  std::shared_ptr<const Lease> lease_;
  bool entered_ = false;  // through the gate; else the loop has counted it
};

}  // namespace dagstore
