#include "mount/copy_cache.h"

#include <algorithm>
#include <utility>

namespace dagstore {
namespace {

// A victim that was in use is asked again after so long.
constexpr absl::Duration kAskAgain = absl::Milliseconds(500);

}  // namespace

CopyCache::CopyCache(CopyCacheOptions options, Io& io, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      changed_(io.NewWaitPoint()),
      policy_(options_.policy ? options_.policy() : NewSegmentedLru()) {}

uint64_t CopyCache::Low() const {
  return static_cast<uint64_t>(static_cast<double>(options_.bytes_max) * options_.low_watermark);
}
uint64_t CopyCache::High() const {
  return static_cast<uint64_t>(static_cast<double>(options_.bytes_max) * options_.high_watermark);
}

void CopyCache::TakeNow(uint64_t bytes) {
  taken_ += bytes;
  stats_.bytes_peak = std::max(stats_.bytes_peak, taken_);
}

absl::Status CopyCache::Take(uint64_t bytes, const WorkContext& work) {
  const Deadline patience = Deadline::After(clock_, options_.wait_max);
  std::vector<std::string> victims;
  {
    const MutexLock lock(mu_);
    if (bytes > options_.bytes_max) {
      ++stats_.refused;
      return ResourceExhausted("{} bytes do not fit the quota of {} bytes for local copies", bytes, options_.bytes_max);
    }
    if (line_.empty() && bytes <= options_.bytes_max - std::min(taken_, options_.bytes_max)) {
      TakeNow(bytes);
      if (taken_ > High()) victims = Choose(Low());
    } else {
      const LongWait wait(work.stand_ins);
      const uint64_t ticket = next_ticket_++;
      line_.push_back(ticket);
      absl::Status status;
      MonotonicNanos ask_at = 0;
      for (;;) {
        const bool fits = bytes <= options_.bytes_max - std::min(taken_, options_.bytes_max);
        if (line_.front() == ticket && fits) break;
        status = work.Check();
        if (status.ok() && patience.Passed(clock_.Now())) {
          status = ResourceExhausted("no room for {} bytes within {}: {} of {} are taken by copies in use or pinned",
                                     bytes, absl::FormatDuration(options_.wait_max), taken_, options_.bytes_max);
        }
        if (!status.ok()) break;
        if (line_.front() == ticket && clock_.Now() >= ask_at) {
          ask_at = clock_.Now() + absl::ToInt64Nanoseconds(kAskAgain);
          ++round_;
          const uint64_t room = std::min(options_.bytes_max - bytes, std::max(Low(), bytes) - bytes);
          victims = Choose(room);
          if (!victims.empty()) {
            mu_.Unlock();
            Evict(std::exchange(victims, {}));
            mu_.Lock();
            continue;
          }
        }
        changed_->Wait(mu_, kWaitSlice);
      }
      line_.erase(std::find(line_.begin(), line_.end(), ticket));
      if (!status.ok()) {
        ++stats_.refused;
        changed_->NotifyAll();  // the next in line may fit
        return status;
      }
      TakeNow(bytes);
      changed_->NotifyAll();
    }
  }
  Evict(std::move(victims));
  return absl::OkStatus();
}

bool CopyCache::TryTake(uint64_t bytes) {
  std::vector<std::string> victims;
  bool fits = false;
  {
    const MutexLock lock(mu_);
    fits = line_.empty() && taken_ <= options_.bytes_max && bytes <= options_.bytes_max - taken_;
    if (fits) {
      TakeNow(bytes);
    } else {
      ++stats_.refused;
      ++round_;
    }
    if (!fits || taken_ > High()) victims = Choose(Low());
  }
  Evict(std::move(victims));
  return fits;
}

void CopyCache::Return(uint64_t bytes) {
  if (bytes == 0) return;
  {
    const MutexLock lock(mu_);
    taken_ -= std::min(taken_, bytes);
  }
  changed_->NotifyAll();
}

void CopyCache::Add(const std::string& name, uint64_t bytes) {
  const MutexLock lock(mu_);
  auto [it, fresh] = copies_.try_emplace(name);
  if (fresh) policy_->Insert(name);
  if (it->second.going) going_ += bytes;
  it->second.bytes += bytes;
}

void CopyCache::Drop(const std::string& name, uint64_t bytes) {
  {
    const MutexLock lock(mu_);
    const auto it = copies_.find(name);
    if (it == copies_.end()) return;
    bytes = std::min(bytes, it->second.bytes);
    if (it->second.going) going_ -= bytes;
    it->second.bytes -= bytes;
    taken_ -= std::min(taken_, bytes);
  }
  changed_->NotifyAll();
}

void CopyCache::Used(const std::string& name) {
  const MutexLock lock(mu_);
  policy_->Touch(name);
}

void CopyCache::Gone(const std::string& name) {
  {
    const MutexLock lock(mu_);
    const auto it = copies_.find(name);
    if (it == copies_.end()) return;
    if (it->second.going) {
      going_ -= it->second.bytes;
      ++stats_.evictions;
    }
    taken_ -= std::min(taken_, it->second.bytes);
    copies_.erase(it);
    policy_->Remove(name);
  }
  changed_->NotifyAll();
}

void CopyCache::Found(const std::string& name, uint64_t bytes) {
  {
    const MutexLock lock(mu_);
    TakeNow(bytes);
  }
  Add(name, bytes);
}

void CopyCache::Own(const std::string& name, std::string owner) {
  const MutexLock lock(mu_);
  auto [it, fresh] = copies_.try_emplace(name);
  if (fresh) policy_->Insert(name);
  it->second.owner = std::move(owner);
}

void CopyCache::Pin(const std::string& owner, bool pinned) {
  const MutexLock lock(mu_);
  if (pinned) {
    pinned_[owner] = true;
  } else {
    pinned_.erase(owner);
  }
}

bool CopyCache::Pinned(const std::string& owner) const {
  const MutexLock lock(mu_);
  return pinned_.contains(owner);
}

std::vector<std::string> CopyCache::Choose(uint64_t target) {
  std::vector<std::string> owners;
  if (!evictor_) return owners;
  while (taken_ > target && taken_ - target > going_) {
    const auto allowed = [&](const std::string& candidate) ABSL_NO_THREAD_SAFETY_ANALYSIS {  // the lock is held
      const auto it = copies_.find(candidate);
      return it != copies_.end() && !it->second.going && !it->second.owner.empty() && it->second.bytes != 0 &&
             it->second.refused != round_ && !pinned_.contains(it->second.owner);
    };
    const std::optional<std::string> name = policy_->Victim(allowed);
    if (!name.has_value()) break;
    Copy& copy = copies_[*name];
    copy.going = true;
    going_ += copy.bytes;
    owners.push_back(copy.owner);
  }
  return owners;
}

void CopyCache::Evict(std::vector<std::string> owners) {
  if (!owners.empty()) evictor_(std::move(owners));
}

void CopyCache::EvictionRefused(const std::string& owner) {
  {
    const MutexLock lock(mu_);
    ++stats_.evictions_refused;
    for (auto& [name, copy] : copies_) {
      if (!copy.going || copy.owner != owner) continue;
      copy.going = false;
      going_ -= copy.bytes;
      copy.refused = round_;
      policy_->Touch(name);  // in use: it goes after the others
    }
  }
  changed_->NotifyAll();
}

size_t CopyCache::Shrink(uint64_t bytes) {
  std::vector<std::string> victims;
  {
    const MutexLock lock(mu_);
    ++round_;
    victims = Choose(bytes);
  }
  const size_t named = victims.size();
  Evict(std::move(victims));
  return named;
}

uint64_t CopyCache::BytesOf(const std::string& name) const {
  const MutexLock lock(mu_);
  const auto it = copies_.find(name);
  return it == copies_.end() ? 0 : it->second.bytes;
}

CopyCacheStats CopyCache::Stats() const {
  const MutexLock lock(mu_);
  CopyCacheStats stats = stats_;
  stats.bytes = taken_;
  stats.bytes_max = options_.bytes_max;
  stats.copies = 0;
  for (const auto& [name, copy] : copies_) {
    if (copy.bytes != 0) ++stats.copies;
    if (copy.bytes != 0 && pinned_.contains(copy.owner)) ++stats.pinned;
  }
  stats.waiting = line_.size();
  return stats;
}

}  // namespace dagstore
