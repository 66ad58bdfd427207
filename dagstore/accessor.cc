#include "dagstore/accessor.h"

#include <utility>

#include "base/mutant.h"
#include "dagstore/queues.h"

namespace dagstore {

Accessor& Accessor::operator=(Accessor&& other) noexcept {
  if (this != &other) {
    Close();
    lease_ = std::move(other.lease_);
    entered_ = other.entered_;
  }
  return *this;
}

std::unique_ptr<Blockstore> Accessor::NewBlockstore() const { return NewShardBlockstore(shard()); }

void Accessor::ReportDamage(const absl::Status& status, Damage damage) const {
  lease_->queues->PushDamage(lease_->meta, lease_->slot, lease_->incarnation, shard()->ordinal, status, damage);
}

void Accessor::PostRelease() const {
  if (Mutant(kMutantReleaseForgotten)) return;
  lease_->queues->PushRelease(lease_->meta, lease_->slot, lease_->incarnation);
}

}  // namespace dagstore
