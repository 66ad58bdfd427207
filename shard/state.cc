#include "shard/state.h"

#include <algorithm>

namespace dagstore {

std::string_view StateName(ShardState state) {
  switch (state) {
    case ShardState::kNew: return "New";
    case ShardState::kInitializing: return "Initializing";
    case ShardState::kAvailable: return "Available";
    case ShardState::kServing: return "Serving";
    case ShardState::kRecovering: return "Recovering";
    case ShardState::kErrored: return "Errored";
    case ShardState::kDestroying: return "Destroying";
  }
  return "?";
}

std::string_view OpName(ShardOp op) {
  switch (op) {
    case ShardOp::kRegister: return "Register";
    case ShardOp::kInitialize: return "Initialize";
    case ShardOp::kMakeAvailable: return "MakeAvailable";
    case ShardOp::kAcquire: return "Acquire";
    case ShardOp::kServe: return "Serve";
    case ShardOp::kRelease: return "Release";
    case ShardOp::kFail: return "Fail";
    case ShardOp::kRecover: return "Recover";
    case ShardOp::kCollect: return "Collect";
    case ShardOp::kDestroy: return "Destroy";
    case ShardOp::kForget: return "Forget";
    case ShardOp::kCount: return "Count";
  }
  return "?";
}

bool StateFromByte(uint8_t value, ShardState& state) {
  if (value < 1 || value > kShardStates) return false;
  state = static_cast<ShardState>(value);
  return true;
}

bool StateFromName(std::string_view name, ShardState& state) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  for (ShardState candidate : kAllShardStates) {
    const std::string_view text = StateName(candidate);
    if (std::equal(text.begin(), text.end(), name.begin(), name.end(),
                   [&](char a, char b) { return lower(a) == lower(b); })) {
      state = candidate;
      return true;
    }
  }
  return false;
}

}  // namespace dagstore
