// EvictionPolicy: which local copy goes when room is needed. Pluggable; the default is a segmented LRU, which a scan
// over many shards does not empty: a copy that was used once is probationary, one that was used again is protected, and
// protected copies go last.
//
// Threads: the cache calls it under its own lock; an implementation needs none, and must not call back.
#pragma once

#include <absl/functional/function_ref.h>

#include <functional>
#include <memory>
#include <string>

namespace dagstore {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void Insert(const std::string& name) = 0;  // not there before
  virtual void Touch(const std::string& name) = 0;   // opened for a reader; may be not there
  virtual void Remove(const std::string& name) = 0;
  // The copies, the best one to remove first, until `visit` says no. It changes nothing.
  virtual void Walk(absl::FunctionRef<bool(const std::string&)> visit) const = 0;
};

// `protected_share`: of the copies, how many may be protected at most.
std::unique_ptr<EvictionPolicy> NewSegmentedLru(double protected_share = 0.8);
std::unique_ptr<EvictionPolicy> NewLru();

using EvictionPolicyFactory = std::function<std::unique_ptr<EvictionPolicy>()>;

}  // namespace dagstore
