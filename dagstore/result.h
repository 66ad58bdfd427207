// What callers get back.
#pragma once

#include <absl/time/time.h>

#include <optional>
#include <string>
#include <vector>

#include "base/task_meta.h"
#include "dagstore/accessor.h"
#include "dagstore/channel.h"
#include "shard/key.h"
#include "shard/state.h"

namespace dagstore {

using Ticket = TicketId;

// Why a request ended before its work did.
enum class StopReason : uint8_t {
  kNone,
  kStopped,       // by Stop(): Cancelled
  kDeadline,      // its own: DeadlineExceeded
  kShuttingDown,  // the store closes: Cancelled
  kJobTimeMax,    // the job was stopped by Options::job_time_max: DeadlineExceeded
};
const char* StopReasonName(StopReason reason);  // "stopped"; "" for kNone

// What a Stop() has done.
enum class StopOutcome : uint8_t {
  kStopped,      // the ticket ended at once: it owned nothing alone
  kStopping,     // it ends when the work that only it wanted has stopped
  kAlreadyDone,  // it had been answered, or there never was such a ticket: nothing
};

// The one terminal result of an accepted request.
struct ShardResult {
  ShardKey key = {};
  Ticket ticket = 0;
  absl::Status status = absl::OkStatus();
  Accessor accessor = {};  // of an acquire that succeeded
  StopReason stop_reason = StopReason::kNone;
  bool work_abandoned = false;  // its work had not stopped within Options::stop_grace, and goes on; Close waits for it
};

// Where a shard's bytes may come from, and what is known of the last attempts.
struct LocationInfo {
  std::string url = {};       // redacted
  uint64_t failures = 0;      // in a row; 0: none, or it has served since
  absl::Status last_error = absl::OkStatus();
  absl::Time next_try = absl::InfinitePast();  // until then others are asked first
};

// A look at one shard.
struct ShardInfo {
  ShardKey key = {};
  ShardState state = ShardState::kNew;
  absl::Status error = absl::OkStatus();  // the cause, if Errored
  uint32_t references = 0;                // accessors out
  bool lazy = false;
  std::string url = {};                   // redacted
  uint64_t blocks = 0;
  uint64_t block_bytes = 0;
  uint64_t unverified_blocks = 0;
  bool verified = false;
  uint64_t source_bytes = 0;
  uint64_t index_bytes = 0;
  uint64_t copy_bytes = 0;                // local copy: what of it is on disk
  bool copy_partial = false;
  bool pinned = false;                    // its copy is never given up
  bool inferred_index = false;            // the index is the one the CAR carries, checked by samples
  std::vector<LocationInfo> locations = {};  // by preference; GetShardInfo only
  uint32_t ordinal = 0;
  absl::Time registered = absl::UnixEpoch();
  absl::Time indexed = absl::UnixEpoch();
};

// An entry of the failure log.
struct FailureEvent {
  absl::Time time = absl::UnixEpoch();
  ShardKey key = {};
  ShardState from = ShardState::kNew;
  ShardState to = ShardState::kNew;
  absl::Status status = absl::OkStatus();
};

// One step of one shard, for trace subscribers.
struct TraceEvent {
  absl::Time time = absl::UnixEpoch();
  ShardKey key = {};
  ShardOp op = ShardOp::kRegister;
  ShardState from = ShardState::kNew;
  ShardState to = ShardState::kNew;
  uint32_t references = 0;
  SpanContext span = {};
  absl::Status status = absl::OkStatus();
};

}  // namespace dagstore
