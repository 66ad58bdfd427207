// States of a shard and the operations that move it. Names are those of the Go original; Destroying, Serve, Forget,
// Collect and Count are ours. What moves where is shard/transition.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dagstore {

enum class ShardState : uint8_t {  // stored; never renumber
  kNew = 1,           // registered, not indexed
  kInitializing = 2,  // a job fetches and indexes it; stored as kNew
  kAvailable = 3,     // data reachable, index complete, found by CID: all three durable
  kServing = 4,       // available and acquired at least once; stored as kAvailable
  kRecovering = 5,    // a job indexes it again after an error; stored as kErrored
  kErrored = 6,       // the cause is kept
  kDestroying = 7,    // durable: from here the shard only goes away
};
inline constexpr size_t kShardStates = 7;
inline constexpr ShardState kAllShardStates[kShardStates] = {
    ShardState::kNew,        ShardState::kInitializing, ShardState::kAvailable, ShardState::kServing,
    ShardState::kRecovering, ShardState::kErrored,      ShardState::kDestroying};

enum class ShardOp : uint8_t {
  kRegister,
  kInitialize,     // internal: begin to fetch and index
  kMakeAvailable,  // completion: fetched and indexed
  kAcquire,
  kServe,          // completion: data and index are open
  kRelease,
  kFail,           // completion: a job failed; or a reader found damage
  kRecover,
  kCollect,        // drop the local copy of a remote shard
  kDestroy,
  kForget,         // completion: everything of the shard is gone but its record
  kCount,          // internal: readers who came in without the loop have been counted
};
inline constexpr size_t kShardOps = 12;

std::string_view StateName(ShardState state);  // "Available"
std::string_view OpName(ShardOp op);           // "MakeAvailable"
// False if `value` is no state.
bool StateFromByte(uint8_t value, ShardState& state);
// Case-insensitive; false if there is no such state.
bool StateFromName(std::string_view name, ShardState& state);

}  // namespace dagstore
