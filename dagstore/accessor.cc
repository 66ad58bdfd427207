#include "dagstore/accessor.h"

#include <utility>

#include "dagstore/queues.h"

namespace dagstore {

Accessor::Accessor(std::shared_ptr<const OpenShard> shard, std::shared_ptr<TaskQueues> queues, uint32_t slot,
                   uint32_t incarnation)
    : shard_(std::move(shard)), queues_(std::move(queues)), slot_(slot), incarnation_(incarnation) {}

Accessor::Accessor(Accessor&& other) noexcept
    : shard_(std::move(other.shard_)),
      queues_(std::move(other.queues_)),
      slot_(other.slot_),
      incarnation_(other.incarnation_) {}

Accessor& Accessor::operator=(Accessor&& other) noexcept {
  if (this != &other) {
    Close();
    shard_ = std::move(other.shard_);
    queues_ = std::move(other.queues_);
    slot_ = other.slot_;
    incarnation_ = other.incarnation_;
  }
  return *this;
}

std::unique_ptr<Blockstore> Accessor::NewBlockstore() const { return NewShardBlockstore(shard_); }

void Accessor::ReportDamage(const absl::Status& status, Damage damage) const {
  if (queues_ != nullptr) queues_->PushDamage(slot_, incarnation_, shard_->ordinal, status, damage);
}

void Accessor::Close() {
  if (queues_ == nullptr) return;
  shard_.reset();
  std::exchange(queues_, nullptr)->PushRelease(slot_, incarnation_);
}

}  // namespace dagstore
