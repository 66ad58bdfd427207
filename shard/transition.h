// The table: what every operation does to a shard in every state. Pure, constexpr, complete by static_assert.
//
// Decides only. dagstore/engine.cc drives it, dagstore/job_executor.cc does. `dagstore car` does not need it;
// docs/architecture.md prints it (tools/print_states), and a test fails when the two differ.
#pragma once

#include <span>
#include <string>

#include "shard/state.h"

namespace dagstore {

// Condition of a row. Rows of one (state, op) are tried in order; the last is unconditional.
enum class If : uint8_t {
  kAlways,
  kFreshLazy,         // the shard was created by this very request, to be indexed on first use
  kFresh,             // the same, to be indexed now
  kOpen,              // data and index are open already
  kHasRefs,           // accessors are out
  kLastRef,           // this is the last one
  kHasAcquirers,      // acquirers are parked
  kTransient,         // the error is a limit of ours, a stop or a deadline: it changes nothing durable
  kIndexDamaged,      // the index, not the data: it can be built again
  kRecoverOnAcquire,  // policy, once after a restart
  kHasCopy,           // a local copy that is ours, not in use
};

// What the engine does when a row fires. A set; the order of doing is fixed in the engine: memory, store, jobs,
// answers.
enum Effect : uint32_t {
  kNothing = 0,
  kPersist = 1 << 0,          // write the record
  kPersistDestroying = 1 << 1,  // move the record to the table of shards being destroyed
  kFailParked = 1 << 2,       // everyone parked so far gets the error
  kPark = 1 << 3,             // the requester waits
  kReply = 1 << 4,            // the requester is answered: done
  kServe = 1 << 5,            // the requester gets an accessor: one reference more
  kServeParked = 1 << 6,      // every parked acquirer gets an accessor
  kReplyParked = 1 << 7,      // everyone parked who did not ask for an accessor is answered: done
  kUnref = 1 << 8,            // one reference less
  kCancelJobs = 1 << 9,       // running jobs are told to stop; their results will be dropped
  kQueueInitialize = 1 << 10,  // stage Initialize
  kStartInitialize = 1 << 11,  // job: fetch, index
  kStartOpen = 1 << 12,       // job: open data and index, if acquirers are parked and none runs
  kStartCollect = 1 << 13,    // job: forget the local copy
  kStartDestroy = 1 << 14,    // job: remove index and copies, once no job runs
  kErase = 1 << 15,           // the shard is no more
  kNotify = 1 << 16,          // failure log
  kHide = 1 << 17,            // lookups by CID stop naming the shard at once
};

enum class Verdict : uint8_t {
  kStep,
  kRefuse,  // the requester gets an error; nothing changes
  kIgnore,  // late or redundant; nothing changes
  kBug,     // cannot happen: DAGSTORE_CHECK
};

struct Row {
  ShardState from = ShardState::kNew;
  ShardOp op = ShardOp::kRegister;
  If guard = If::kAlways;
  Verdict verdict = Verdict::kBug;
  ShardState next = ShardState::kNew;
  uint32_t effects = kNothing;
};

// What the guards look at. Filled in by the engine for each step.
struct Facts {
  bool fresh = false;
  bool lazy = false;
  bool open = false;
  uint32_t refs = 0;
  bool has_acquirers = false;
  bool transient_error = false;
  bool index_damaged = false;
  bool recover_on_acquire = false;
  bool jobs_running = false;
  bool has_copy = false;
};

// All rows, in order. For the printer and the tests.
std::span<const Row> TransitionTable();

// The row that fires. Total: every (state, op) has one.
const Row& Decide(ShardState state, ShardOp op, const Facts& facts);

// The state a shard is given when a store opens that was closed or killed while the shard was in `stored`.
ShardState StateAfterRestart(ShardState stored);

std::string_view GuardName(If guard);
// "Persist, Park"
std::string EffectNames(uint32_t effects);
// The table as Markdown, as it stands in docs/architecture.md.
std::string TransitionTableMarkdown();

}  // namespace dagstore
