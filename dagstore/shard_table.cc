#include "dagstore/shard_table.h"

#include <absl/hash/hash.h>

#include <cstring>
#include <utility>

#include "base/check.h"

namespace dagstore {

size_t ShardTable::KeyHash::operator()(std::string_view key) const {
  return absl::Hash<absl::string_view>{}(absl::string_view(key.data(), key.size()));
}

ShardTable::ShardTable() : by_key_(0, KeyHash{this}, KeyEqual{this}) { coming_.fill(kNoSlot); }

void ShardTable::Enter(uint32_t slot) const { DAGSTORE_CHECK(by_key_.insert(slot).second); }

void ShardTable::EnterAllComing() const {
  if (!any_coming_) return;
  for (uint32_t& slot : coming_) {
    if (slot != kNoSlot) Enter(std::exchange(slot, kNoSlot));
  }
  any_coming_ = false;
}

uint32_t ShardTable::Find(std::string_view key) const {
  EnterAllComing();
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? kNoSlot : *it;
}

uint32_t ShardTable::Insert(std::string_view key) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if ((slots_ & (kChunkSlots - 1)) == 0) chunks_.push_back(std::make_unique<Slot[]>(kChunkSlots));
    index = slots_++;
  }
  Slot& slot = (*this)[index];
  slot = Slot();
  slot.key_bytes = std::make_unique_for_overwrite<char[]>(key.size());
  std::memcpy(slot.key_bytes.get(), key.data(), key.size());
  slot.key_size = static_cast<uint16_t>(key.size());
  slot.incarnation = next_incarnation_++;

  by_key_.prefetch(index);
  uint32_t& coming = coming_[next_coming_++ % kComing];
  if (coming != kNoSlot) Enter(coming);
  coming = index;
  any_coming_ = true;
  return index;
}

void ShardTable::Erase(uint32_t slot) {
  EnterAllComing();
  by_key_.erase(slot);
  (*this)[slot] = Slot();
  free_.push_back(slot);
}

void Directory::Set(Ordinal ordinal, std::string_view key) {
  WriterMutexLock lock(mu_);
  const size_t at = ordinal >> kChunkBits;
  if (at >= chunks_.size()) chunks_.resize(at + 1);
  if (chunks_[at] == nullptr) chunks_[at] = std::make_unique<Chunk>();
  Entry& entry = chunks_[at]->entries[ordinal & ((1 << kChunkBits) - 1)];
  if (entry.key == nullptr) {
    ++chunks_[at]->alive;
    ++alive_;
  }
  entry = {key.data(), static_cast<uint16_t>(key.size())};
}

void Directory::Hide(Ordinal ordinal) {
  WriterMutexLock lock(mu_);
  const size_t at = ordinal >> kChunkBits;
  if (at >= chunks_.size() || chunks_[at] == nullptr) return;
  chunks_[at]->entries[ordinal & ((1 << kChunkBits) - 1)].hidden = true;
}

void Directory::Clear(Ordinal ordinal) {
  WriterMutexLock lock(mu_);
  const size_t at = ordinal >> kChunkBits;
  if (at >= chunks_.size() || chunks_[at] == nullptr) return;
  Entry& entry = chunks_[at]->entries[ordinal & ((1 << kChunkBits) - 1)];
  if (entry.key == nullptr) return;
  entry = {};
  --alive_;
  if (--chunks_[at]->alive == 0) chunks_[at].reset();
  deaths_.fetch_add(1, std::memory_order_release);
}

void Directory::Reserve(size_t ordinals) {
  WriterMutexLock lock(mu_);
  chunks_.reserve((ordinals >> kChunkBits) + 1);
}

std::optional<ShardKey> Directory::KeyOf(Ordinal ordinal) const {
  ReaderMutexLock lock(mu_);
  const size_t at = ordinal >> kChunkBits;
  if (at >= chunks_.size() || chunks_[at] == nullptr) return std::nullopt;
  const Entry& entry = chunks_[at]->entries[ordinal & ((1 << kChunkBits) - 1)];
  if (entry.key == nullptr || entry.hidden) return std::nullopt;
  return ShardKey(std::string_view(entry.key, entry.size));
}

bool Directory::IsAlive(Ordinal ordinal) const {
  ReaderMutexLock lock(mu_);
  const size_t at = ordinal >> kChunkBits;
  return at < chunks_.size() && chunks_[at] != nullptr &&
         chunks_[at]->entries[ordinal & ((1 << kChunkBits) - 1)].key != nullptr;
}

size_t Directory::alive() const {
  ReaderMutexLock lock(mu_);
  return alive_;
}

}  // namespace dagstore
