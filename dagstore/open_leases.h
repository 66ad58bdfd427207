// OpenLeases: the shards that are open for readers, by key, so that a caller who has a key gets in without the loop.
// Exactly the leases whose gates are open and whose shards are durable: the loop enters and removes them.
//
// Threads: Find any; Set and Clear the loop. 64 locks, each held for one look.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/hash/hash.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "dagstore/accessor.h"

namespace dagstore {

class OpenLeases {
 public:
  // Null if there is none.
  std::shared_ptr<const Lease> Find(std::string_view key) const {
    const size_t hash = KeyHash()(key);
    const Stripe& stripe = stripes_[hash % kStripes];
    const MutexLock lock(stripe.mu);
    const auto it = stripe.leases.find(key, hash);
    return it == stripe.leases.end() ? nullptr : it->second;
  }
  void Set(std::string_view key, std::shared_ptr<const Lease> lease) {
    Stripe& stripe = stripes_[KeyHash()(key) % kStripes];
    const MutexLock lock(stripe.mu);
    stripe.leases.insert_or_assign(std::string(key), std::move(lease));
  }
  void Clear(std::string_view key) {
    std::shared_ptr<const Lease> cleared;  // let go of after the lock
    Stripe& stripe = stripes_[KeyHash()(key) % kStripes];
    const MutexLock lock(stripe.mu);
    const auto it = stripe.leases.find(key);
    if (it == stripe.leases.end()) return;
    cleared = std::move(it->second);
    stripe.leases.erase(it);
  }

 private:
  static constexpr size_t kStripes = 64;
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const {
      return absl::Hash<absl::string_view>{}(absl::string_view(key.data(), key.size()));
    }
  };
  struct KeyEqual {
    using is_transparent = void;
    bool operator()(std::string_view a, std::string_view b) const { return a == b; }
  };
  struct alignas(64) Stripe {
    mutable Mutex mu;
    absl::flat_hash_map<std::string, std::shared_ptr<const Lease>, KeyHash, KeyEqual> leases ABSL_GUARDED_BY(mu);
  };
  Stripe stripes_[kStripes];
};

}  // namespace dagstore
