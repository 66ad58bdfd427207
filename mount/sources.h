// Sources: what all fetches of a store share towards the places they fetch from: how many requests run at a time (in
// all and for each host), how fast bytes may come, when a failed attempt is repeated, and what is known of locations
// that failed.
//
// Threads: any worker thread. Waiting goes through WaitPoint; a wait ends with its work.
// Errors: only those of the work that waits (Cancelled, DeadlineExceeded), and ResourceExhausted if its turn did not
// come within SourceLimits::turn_wait_max.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/container/flat_hash_map.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/io.h"
#include "base/mutex.h"
#include "mount/url.h"

namespace dagstore {

struct SourceLimits {
  // Requests at a time, in all: each is a descriptor and a connection, and up to 512 KiB of buffers.
  size_t requests_max = 64;
  // To one host, so that a slow one leaves room for others and a small server is not overrun.
  size_t requests_per_host_max = 16;
  // Bytes a second, all sources together; 0: no cap.
  uint64_t bytes_per_second_max = 0;
  // How long a request waits for its turn.
  absl::Duration turn_wait_max = absl::Minutes(5);
  // Attempts in a row that bring nothing, the first included; one that brings bytes starts the count again.
  int attempts_max = 5;
  // Pause before the second attempt; doubled for each further one, with jitter of half of it either way.
  absl::Duration backoff_min = absl::Milliseconds(200);
  absl::Duration backoff_max = absl::Seconds(30);
  // A server that asks for a longer pause (Retry-After of a 429 or 503) gets it, up to this.
  absl::Duration retry_after_max = absl::Minutes(2);
  // Locations whose failures are remembered.
  size_t failures_kept_max = 4096;
};

// What is known of a location that failed and has not served since.
struct SourceFailure {
  uint64_t failures = 0;  // in a row
  absl::Status last_error = absl::OkStatus();
  absl::Time last = absl::InfinitePast();
  absl::Time next_try = absl::InfinitePast();  // until then it is asked after the other locations of a shard
};

struct SourceStats {
  uint64_t requests = 0;         // begun
  uint64_t requests_running = 0;
  uint64_t requests_waiting = 0;
  uint64_t retries = 0;
  uint64_t bytes = 0;            // received
  uint64_t locations_failed = 0;  // remembered
};

// True if the same source may answer the same question later: Unavailable, and a timeout of the mount's own.
bool IsWorthRetrying(const absl::Status& status);

class Sources {
 public:
  // `seed` makes the jitter; `io` and `clock` must outlive it.
  Sources(const SourceLimits& limits, Io& io, const Clock& clock, uint64_t seed);

  // The right to run one request; destroying it gives it back.
  class Permit {
   public:
    Permit() = default;
    Permit(Permit&& other) noexcept;
    Permit& operator=(Permit&& other) noexcept;
    ~Permit() { Release(); }
    void Release();

   private:
    friend class Sources;
    Permit(Sources* sources, std::string host) : sources_(sources), host_(std::move(host)) {}
    Sources* sources_ = nullptr;
    std::string host_ = {};
  };
  absl::StatusOr<Permit> Begin(const Url& url, const WorkContext& work);
  // The same for a request that nobody needs: none if half of what may run does already.
  std::optional<Permit> TryBegin(const Url& url);
  // True if nothing was asked of the host for as long as connections are kept, so that there is none; true once.
  bool FirstInAWhile(const Url& url);

  // Accounts for bytes that have come, and waits until they fit the cap.
  absl::Status Received(uint64_t bytes, const WorkContext& work);

  // Waits before attempt `attempt` (2 is the first repetition), or says that there are no more: `error` then.
  absl::Status Pause(int attempt, const absl::Status& error, const WorkContext& work);

  // The outcome of asking a location. An error of the asker's own (Cancelled, a limit of ours) is none of the
  // location's.
  void Report(const Url& url, const absl::Status& status);
  // Empty if it did not fail, or has served since.
  SourceFailure FailureOf(const Url& url) const;
  // True while the location should be asked after others.
  bool Resting(const Url& url) const;

  SourceStats Stats() const;
  const SourceLimits& limits() const { return limits_; }
  const Clock& clock() const { return clock_; }

  // Names a location without saying it.
  static uint64_t IdOf(const Url& url);

 private:
  Permit Take(std::string host) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(const std::string& host);
  absl::Duration Backoff(int repetition, const absl::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status SleepUntil(MonotonicNanos until, const WorkContext& work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SourceLimits limits_;
  const Clock& clock_;
  const std::unique_ptr<WaitPoint> changed_;

  mutable Mutex mu_;
  absl::flat_hash_map<std::string, size_t> running_by_host_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, MonotonicNanos> used_by_host_ ABSL_GUARDED_BY(mu_);  // when last
  size_t running_ ABSL_GUARDED_BY(mu_) = 0;
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  MonotonicNanos bytes_due_ ABSL_GUARDED_BY(mu_) = 0;  // when what has come so far fits the cap
  uint64_t random_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, SourceFailure> failures_ ABSL_GUARDED_BY(mu_);
  std::deque<uint64_t> failures_order_ ABSL_GUARDED_BY(mu_);  // oldest first
  SourceStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace dagstore
