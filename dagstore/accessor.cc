#include "dagstore/accessor.h"

#include <utility>

#include "dagstore/queues.h"

namespace dagstore {

Accessor& Accessor::operator=(Accessor&& other) noexcept {
  if (this != &other) {
    Close();
    lease_ = std::move(other.lease_);
  }
  return *this;
}

std::unique_ptr<Blockstore> Accessor::NewBlockstore() const { return NewShardBlockstore(shard()); }

void Accessor::ReportDamage(const absl::Status& status, Damage damage) const {
  lease_->queues->PushDamage(lease_->slot, lease_->incarnation, shard()->ordinal, status, damage);
}

void Accessor::Close() {
  if (lease_ == nullptr) return;
  const std::shared_ptr<const Lease> lease = std::exchange(lease_, nullptr);
  lease->queues->PushRelease(lease->slot, lease->incarnation);
}

}  // namespace dagstore
