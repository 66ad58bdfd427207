// ShardTable: every shard of the store, at about 130 bytes each at rest (64-byte keys), and 16 more in Directory once
// it is indexed. What only active shards need (waiters, open files, errors) is apart, in ActiveShard.
//
// Threads: the loop, except Directory, which any thread may read.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_set.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "index/top_index.h"
#include "shard/key.h"
#include "shard/state.h"

namespace dagstore {

inline constexpr uint32_t kNoSlot = UINT32_MAX;

struct Slot {
  std::unique_ptr<char[]> key_bytes = nullptr;  // null: the slot is free
  uint16_t key_size = 0;
  ShardState state = ShardState::kNew;
  bool lazy : 1 = false;
  bool has_copy : 1 = false;
  bool recover_on_acquire : 1 = false;
  uint32_t incarnation = 0;  // which life of the slot; never repeats within a process
  uint32_t generation = 0;   // of the last job started
  Ordinal ordinal = 0;       // of the shard index, 0 if none
  uint32_t references = 0;
  uint32_t active = 0;       // 1 + place in the engine's list of active shards; 0: at rest

  std::string_view key() const { return {key_bytes.get(), key_size}; }
};
static_assert(sizeof(Slot) <= 40);

class ShardTable {
 public:
  ShardTable();

  // kNoSlot if absent.
  uint32_t Find(std::string_view key) const;
  // The key must be absent.
  uint32_t Insert(std::string_view key);
  void Erase(uint32_t slot);
  void Reserve(size_t shards) { by_key_.reserve(shards); }

  Slot& operator[](uint32_t slot) { return chunks_[slot >> kChunkBits][slot & (kChunkSlots - 1)]; }
  const Slot& operator[](uint32_t slot) const { return chunks_[slot >> kChunkBits][slot & (kChunkSlots - 1)]; }
  // True if `slot` is in its `incarnation`-th life.
  bool Lives(uint32_t slot, uint32_t incarnation) const {
    return slot < slots_ && (*this)[slot].key_bytes != nullptr && (*this)[slot].incarnation == incarnation;
  }
  size_t size() const { return slots_ - free_.size(); }
  uint32_t slots() const { return slots_; }  // used and free ones

 private:
  static constexpr uint32_t kChunkBits = 14;
  static constexpr uint32_t kChunkSlots = 1 << kChunkBits;

  struct KeyHash {
    using is_transparent = void;
    const ShardTable* table;
    size_t operator()(std::string_view key) const;
    size_t operator()(uint32_t slot) const { return (*this)((*table)[slot].key()); }
  };
  struct KeyEqual {
    using is_transparent = void;
    const ShardTable* table;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, std::string_view b) const { return (*table)[a].key() == b; }
    bool operator()(std::string_view a, uint32_t b) const { return (*table)[b].key() == a; }
  };

  // Where a key goes in `by_key_` is not in the CPU's cache, and waiting for it is most of an insertion. So it is asked
  // for when the slot is taken, and written to some insertions later, or before the next look.
  static constexpr uint32_t kComing = 16;

  void Enter(uint32_t slot) const;
  void EnterAllComing() const;

  std::vector<std::unique_ptr<Slot[]>> chunks_;
  uint32_t slots_ = 0;
  uint32_t next_incarnation_ = 1;
  std::vector<uint32_t> free_;
  mutable absl::flat_hash_set<uint32_t, KeyHash, KeyEqual> by_key_;
  mutable std::array<uint32_t, kComing> coming_;  // a ring; kNoSlot: nothing in this place
  mutable uint32_t next_coming_ = 0;
  mutable bool any_coming_ = false;
};

// Directory: which shard an ordinal of the top-level index stands for, if it is alive. Any thread.
// Written by the loop after a commit, so that no lookup names a shard that is not durable.
class Directory {
 public:
  void Set(Ordinal ordinal, std::string_view key);
  // Lookups name the shard no more, but its ordinal stays alive: a restart may find it, so nothing of it is swept.
  void Hide(Ordinal ordinal);
  void Clear(Ordinal ordinal);
  // Before the store is open to others.
  void Reserve(size_t ordinals);

  // Nullopt if the ordinal is dead or hidden.
  std::optional<ShardKey> KeyOf(Ordinal ordinal) const;
  bool IsAlive(Ordinal ordinal) const;
  size_t alive() const;
  // How many have died so far. What replaces one is set before: who looked from when this was read, and finds it
  // unchanged, has missed no shard.
  uint64_t deaths() const { return deaths_.load(std::memory_order_acquire); }

 private:
  struct Entry {
    const char* key = nullptr;  // in the slot; outlives the entry: the loop clears before it erases
    uint16_t size = 0;
    bool hidden = false;
  };
  mutable SharedMutex mu_;
  // Ordinals are dense but for gaps of destroyed and re-indexed shards; chunks that are all dead are not kept.
  static constexpr uint32_t kChunkBits = 12;
  struct Chunk {
    Entry entries[1 << kChunkBits];
    uint32_t alive = 0;
  };
  std::vector<std::unique_ptr<Chunk>> chunks_ ABSL_GUARDED_BY(mu_);
  size_t alive_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<uint64_t> deaths_{0};
};

}  // namespace dagstore
