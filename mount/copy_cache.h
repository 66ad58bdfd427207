// CopyCache: the account of the local copies: which there are, how many bytes each has on disk, and who waits for room.
//
// Every byte is taken before it is written, so the quota holds at any moment. A whole copy takes its size at once, or,
// if that is unknown, block by block; a partial copy takes what it fetches. Who finds no room waits in line, by the
// deadline of his work; who only wants to keep what he has read (TryTake) does not wait, and goes without. When more
// than the high watermark is taken, or somebody waits, copies are given up until the low watermark is reached: the
// cache names victims, a few at a time, their owner removes them (Gone) or says no (EvictionRefused). An owner may have
// more than one: a victim is named by its own name.
//
// Owns no file. Threads: any worker thread; the short calls (EvictionRefused, Pin) also the loop.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/io.h"
#include "base/mutex.h"
#include "mount/eviction.h"

namespace dagstore {

// Asked for space before it is written. Any worker thread.
class SpaceGate {
 public:
  virtual ~SpaceGate() = default;
  // Takes `bytes`, waiting its turn. ResourceExhausted if they can never fit or the wait took too long; Cancelled or
  // DeadlineExceeded from `work`.
  virtual absl::Status Take(uint64_t bytes, const WorkContext& work) = 0;
  // Takes `bytes` if they fit now and nobody waits.
  virtual bool TryTake(uint64_t bytes) = 0;
  // Gives back what was taken and not written, or written and removed.
  virtual void Return(uint64_t bytes) = 0;

  // `bytes` of what was taken are on disk as part of the copy `name`. Whoever took them returns them no more.
  virtual void Add(const std::string& name, uint64_t bytes) = 0;
  // So many bytes of the copy are not on disk any more, and given back.
  virtual void Drop(const std::string& name, uint64_t bytes) = 0;
  // The copy is removed; what it held is given back.
  virtual void Gone(const std::string& name) = 0;
  virtual uint64_t BytesOf(const std::string& name) const = 0;
  virtual void Used(const std::string& name) = 0;  // opened for a reader
};

struct CopyCacheOptions {
  uint64_t bytes_max = UINT64_MAX;  // the quota
  double high_watermark = 0.95;     // of bytes_max: copies are given up above it
  double low_watermark = 0.85;      // until so much is left
  absl::Duration wait_max = absl::Minutes(10);
  EvictionPolicyFactory policy = {};  // empty: NewSegmentedLru
};

struct CopyCacheStats {
  uint64_t bytes = 0;      // taken, reserved ones included
  uint64_t bytes_peak = 0;
  uint64_t bytes_max = 0;
  uint64_t copies = 0;
  uint64_t pinned = 0;
  uint64_t evictions = 0;
  uint64_t evictions_refused = 0;
  uint64_t waiting = 0;
  uint64_t refused = 0;    // wants that did not fit: not kept, or failed
};

class CopyCache final : public SpaceGate {
 public:
  // `io` and `clock` must outlive it.
  CopyCache(CopyCacheOptions options, Io& io, const Clock& clock);

  absl::Status Take(uint64_t bytes, const WorkContext& work) override;
  bool TryTake(uint64_t bytes) override;
  void Return(uint64_t bytes) override;
  void Add(const std::string& name, uint64_t bytes) override;
  void Drop(const std::string& name, uint64_t bytes) override;
  void Gone(const std::string& name) override;
  uint64_t BytesOf(const std::string& name) const override;
  void Used(const std::string& name) override;

  // A copy that was there when the store opened: `bytes` are taken for it, whatever the quota says.
  void Found(const std::string& name, uint64_t bytes);
  // Whose copy it is: a copy that has no owner is not given up. Kept for a name that holds nothing yet, too.
  void Own(const std::string& name, const std::string& owner);
  // Every copy that was found and is somebody's has its owner by now. The others may be given up as well.
  void OrphanOthers();
  // Copies of a pinned owner are never given up.
  void Pin(const std::string& owner, bool pinned);
  bool Pinned(const std::string& owner) const;

  struct Victim {
    std::string name = {};
    std::string owner = {};  // empty: nobody's
    friend bool operator==(const Victim&, const Victim&) = default;
  };
  // Who removes copies. Called without a lock, on a worker thread; must not wait. Set before anything is taken.
  void SetEvictor(std::function<void(std::vector<Victim> victims)> evictor) { evictor_ = std::move(evictor); }
  // The victim `name` is in use, or could not be removed: another one is chosen, and this one only after others.
  void EvictionRefused(const std::string& name);

  CopyCacheStats Stats() const;

 private:
  struct Copy {
    uint64_t bytes = 0;
    std::string owner = {};
    bool orphan = false;    // has no owner, and will have none
    bool listed = false;    // the policy has it: it may go
    bool going = false;     // named as a victim
    bool counted = false;   // in stats_.copies
    bool counted_pinned = false;
    uint64_t refused = 0;   // round in which its removal was refused
  };
  struct Owner {
    bool pinned = false;
    std::vector<std::string> copies = {};
  };

  // Victims to be named so that no more than `target` bytes stay; a few, more of them when those are gone.
  std::vector<Victim> Choose(uint64_t target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Evict(std::vector<Victim> victims);
  // The policy has it exactly if it may go, and the counts of copies are right.
  void List(const std::string& name, Copy& copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Disown(const std::string& name, Copy& copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsPinned(const std::string& owner) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Low() const;
  uint64_t High() const;
  void TakeNow(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const CopyCacheOptions options_;
  const Clock& clock_;
  const std::unique_ptr<WaitPoint> changed_;
  std::function<void(std::vector<Victim>)> evictor_;

  mutable Mutex mu_;
  uint64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t going_ ABSL_GUARDED_BY(mu_) = 0;  // bytes of victims that are not gone yet
  size_t victims_ ABSL_GUARDED_BY(mu_) = 0;  // how many these are
  absl::flat_hash_map<std::string, Copy> copies_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, Owner> owners_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<EvictionPolicy> policy_ ABSL_GUARDED_BY(mu_);
  std::deque<uint64_t> line_ ABSL_GUARDED_BY(mu_);  // tickets that wait, first come first
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t round_ ABSL_GUARDED_BY(mu_) = 1;
  CopyCacheStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace dagstore
