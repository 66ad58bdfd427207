#include "mount/copy_cache.h"

#include <algorithm>
#include <utility>

namespace dagstore {
namespace {

// A victim that was in use is asked again after so long.
constexpr absl::Duration kAskAgain = absl::Milliseconds(500);
// Named and not gone yet. The loop asks after each, and starts a job.
constexpr size_t kVictimsMax = 64;
// Of one choice, those included that were refused a moment ago. All is held up meanwhile.
constexpr size_t kLooksMax = 256;

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
  std::vector<Victim> victims;
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
        if (line_.front() == ticket) {
          if (clock_.Now() >= ask_at) {
            ask_at = clock_.Now() + absl::ToInt64Nanoseconds(kAskAgain);
            ++round_;
          }
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
  std::vector<Victim> victims;
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
  Copy& copy = copies_[name];
  copy.bytes += bytes;
  if (copy.going) going_ += bytes;
  List(name, copy);
}

void CopyCache::Drop(const std::string& name, uint64_t bytes) {
  {
    const MutexLock lock(mu_);
    const auto it = copies_.find(name);
    if (it == copies_.end()) return;
    bytes = std::min(bytes, it->second.bytes);
    it->second.bytes -= bytes;
    if (it->second.going) going_ -= bytes;
    taken_ -= std::min(taken_, bytes);
    List(name, it->second);
  }
  changed_->NotifyAll();
}

void CopyCache::Used(const std::string& name) {
  const MutexLock lock(mu_);
  policy_->Touch(name);
}

void CopyCache::Gone(const std::string& name) {
  std::vector<Victim> victims;
  {
    const MutexLock lock(mu_);
    const auto it = copies_.find(name);
    if (it == copies_.end()) return;
    Copy& copy = it->second;
    const bool was_going = copy.going;
    if (was_going) {
      going_ -= copy.bytes;
      --victims_;
      ++stats_.evictions;
    }
    taken_ -= std::min(taken_, std::exchange(copy.bytes, 0));
    List(name, copy);
    Disown(name, copy);
    copies_.erase(it);
    if (was_going) victims = Choose(Low());  // only a few are named at once: it goes on
  }
  changed_->NotifyAll();
  Evict(std::move(victims));
}

void CopyCache::Found(const std::string& name, uint64_t bytes) {
  {
    const MutexLock lock(mu_);
    TakeNow(bytes);
  }
  Add(name, bytes);
}

void CopyCache::List(const std::string& name, Copy& copy) {
  const bool on_disk = copy.bytes != 0;
  const bool pinned = IsPinned(copy.owner);
  const auto count = [](uint64_t& counter, bool now, bool& counted) {
    counter += static_cast<uint64_t>(now) - static_cast<uint64_t>(counted);
    counted = now;
  };
  count(stats_.copies, on_disk, copy.counted);
  count(stats_.pinned, on_disk && pinned, copy.counted_pinned);
  const bool owned = copy.orphan || (!copy.owner.empty() && !pinned);
  const bool may_go = owned && !copy.going && on_disk;
  if (may_go == copy.listed) return;
  copy.listed = may_go;
  if (may_go) {
    policy_->Insert(name);
  } else {
    policy_->Remove(name);
  }
}

void CopyCache::Disown(const std::string& name, Copy& copy) {
  const auto it = owners_.find(copy.owner);
  copy.owner.clear();
  if (it == owners_.end()) return;
  std::erase(it->second.copies, name);
  if (it->second.copies.empty() && !it->second.pinned) owners_.erase(it);
}

void CopyCache::Own(const std::string& name, const std::string& owner) {
  const MutexLock lock(mu_);
  Copy& copy = copies_[name];
  copy.orphan = false;
  if (copy.owner != owner) {
    Disown(name, copy);
    copy.owner = owner;
    owners_[owner].copies.push_back(name);
  }
  List(name, copy);
}

void CopyCache::OrphanOthers() {
  const MutexLock lock(mu_);
  for (auto& [name, copy] : copies_) {
    copy.orphan = copy.owner.empty();
    List(name, copy);
  }
}

void CopyCache::Pin(const std::string& owner, bool pinned) {
  const MutexLock lock(mu_);
  const auto it = owners_.try_emplace(owner).first;
  it->second.pinned = pinned;
  for (const std::string& name : it->second.copies) List(name, copies_[name]);
  if (!pinned && it->second.copies.empty()) owners_.erase(it);
}

bool CopyCache::IsPinned(const std::string& owner) const {
  const auto it = owners_.find(owner);
  return it != owners_.end() && it->second.pinned;
}

bool CopyCache::Pinned(const std::string& owner) const {
  const MutexLock lock(mu_);
  return IsPinned(owner);
}

std::vector<CopyCache::Victim> CopyCache::Choose(uint64_t target) {
  std::vector<Victim> victims;
  if (!evictor_) return victims;
  const auto enough = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {  // the lock is held
    return taken_ <= target || taken_ - target <= going_;
  };
  if (!enough() && victims_ < kVictimsMax) {
    size_t looks = 0;
    policy_->Walk([&](const std::string& name) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      Copy& copy = copies_[name];
      if (copy.refused != round_) {
        copy.going = true;
        going_ += copy.bytes;
        ++victims_;
        victims.push_back({name, copy.owner});
      }
      return ++looks < kLooksMax && victims_ < kVictimsMax && !enough();
    });
  }
  for (const Victim& victim : victims) List(victim.name, copies_[victim.name]);
  return victims;
}

void CopyCache::Evict(std::vector<Victim> victims) {
  if (!victims.empty()) evictor_(std::move(victims));
}

void CopyCache::EvictionRefused(const std::string& name) {
  {
    const MutexLock lock(mu_);
    ++stats_.evictions_refused;
    const auto it = copies_.find(name);
    if (it == copies_.end() || !it->second.going) return;
    Copy& copy = it->second;
    copy.going = false;
    going_ -= copy.bytes;
    --victims_;
    copy.refused = round_;
    List(name, copy);
    policy_->Touch(name);  // in use: it goes after the others
  }
  changed_->NotifyAll();
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
  stats.waiting = line_.size();
  return stats;
}

}  // namespace dagstore
