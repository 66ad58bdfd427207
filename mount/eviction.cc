#include "mount/eviction.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <list>

namespace dagstore {
namespace {

class SegmentedLru final : public EvictionPolicy {
 public:
  explicit SegmentedLru(double protected_share) : protected_share_(protected_share) {}

  void Insert(const std::string& name) override {
    probation_.push_back(name);
    places_[name] = {false, std::prev(probation_.end())};
  }

  void Touch(const std::string& name) override {
    const auto it = places_.find(name);
    if (it == places_.end()) return;
    Place& place = it->second;
    protected_.splice(protected_.end(), place.kept ? protected_ : probation_, place.at);
    place.kept = true;
    const double most = std::max(1.0, protected_share_ * static_cast<double>(places_.size()));
    while (static_cast<double>(protected_.size()) > most) {
      const auto oldest = protected_.begin();
      places_[*oldest].kept = false;
      probation_.splice(probation_.end(), protected_, oldest);
    }
  }

  void Remove(const std::string& name) override {
    const auto it = places_.find(name);
    if (it == places_.end()) return;
    (it->second.kept ? protected_ : probation_).erase(it->second.at);
    places_.erase(it);
  }

  void Walk(absl::FunctionRef<bool(const std::string&)> visit) const override {
    for (const auto* list : {&probation_, &protected_}) {
      for (const std::string& name : *list) {
        if (!visit(name)) return;
      }
    }
  }

 private:
  struct Place {
    bool kept = false;
    std::list<std::string>::iterator at = {};
  };
  const double protected_share_;
  std::list<std::string> probation_;  // least recently used first
  std::list<std::string> protected_;
  absl::flat_hash_map<std::string, Place> places_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> NewSegmentedLru(double protected_share) {
  return std::make_unique<SegmentedLru>(protected_share);
}
std::unique_ptr<EvictionPolicy> NewLru() { return NewSegmentedLru(1.0); }

}  // namespace dagstore
