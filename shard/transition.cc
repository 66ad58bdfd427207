#include "shard/transition.h"

#include <array>

#include "base/check.h"
#include "base/mutant.h"
#include "base/status.h"

namespace dagstore {
namespace {

constexpr ShardState kNew = ShardState::kNew;
constexpr ShardState kInitializing = ShardState::kInitializing;
constexpr ShardState kAvailable = ShardState::kAvailable;
constexpr ShardState kServing = ShardState::kServing;
constexpr ShardState kRecovering = ShardState::kRecovering;
constexpr ShardState kErrored = ShardState::kErrored;
constexpr ShardState kDestroying = ShardState::kDestroying;
using Op = ShardOp;

constexpr Row Step(ShardState from, Op op, If guard, ShardState next, uint32_t effects) {
  return {from, op, guard, Verdict::kStep, next, effects};
}
constexpr Row Refuse(ShardState from, Op op, If guard = If::kAlways) {
  return {from, op, guard, Verdict::kRefuse, from, kNothing};
}
constexpr Row Ignore(ShardState from, Op op, If guard = If::kAlways) {
  return {from, op, guard, Verdict::kIgnore, from, kNothing};
}
constexpr Row Bug(ShardState from, Op op) { return {from, op, If::kAlways, Verdict::kBug, from, kNothing}; }

// clang-format off
constexpr Row kTable[] = {
    //   from           op                   only if                next           effects
    Step(kNew,          Op::kRegister,       If::kFreshLazy,        kNew,          kPersist | kReply),
    Step(kNew,          Op::kRegister,       If::kFresh,            kNew,          kPersist | kPark | kQueueInitialize),
    Refuse(kNew,        Op::kRegister),
    Step(kNew,          Op::kInitialize,     If::kAlways,           kInitializing, kStartInitialize),
    Bug(kNew,           Op::kMakeAvailable),
    Step(kNew,          Op::kAcquire,        If::kAlways,           kNew,          kPark | kQueueInitialize),
    Bug(kNew,           Op::kServe),
    Bug(kNew,           Op::kRelease),
    Ignore(kNew,        Op::kFail),
    Refuse(kNew,        Op::kRecover),
    Ignore(kNew,        Op::kCollect),
    Step(kNew,          Op::kDestroy,        If::kAlways,           kDestroying,   kPersistDestroying | kFailParked | kPark | kStartDestroy),
    Bug(kNew,           Op::kForget),
    Bug(kNew,           Op::kCount),

    Refuse(kInitializing, Op::kRegister),
    Ignore(kInitializing, Op::kInitialize),  // an acquirer was first
    Step(kInitializing, Op::kMakeAvailable,  If::kAlways,           kAvailable,    kPersist | kReplyParked | kStartOpen),
    Step(kInitializing, Op::kAcquire,        If::kAlways,           kInitializing, kPark),
    Bug(kInitializing,  Op::kServe),
    Bug(kInitializing,  Op::kRelease),
    Step(kInitializing, Op::kFail,           If::kTransient,        kNew,          kFailParked),
    Step(kInitializing, Op::kFail,           If::kAlways,           kErrored,      kPersist | kFailParked | kNotify),
    Refuse(kInitializing, Op::kRecover),
    Ignore(kInitializing, Op::kCollect),
    Step(kInitializing, Op::kDestroy,        If::kAlways,           kDestroying,   kPersistDestroying | kFailParked | kPark | kCancelJobs | kStartDestroy),
    Bug(kInitializing,  Op::kForget),
    Bug(kInitializing,  Op::kCount),

    Refuse(kAvailable,  Op::kRegister),
    Ignore(kAvailable,  Op::kInitialize),
    Bug(kAvailable,     Op::kMakeAvailable),
    Step(kAvailable,    Op::kAcquire,        If::kOpen,             kServing,      kServe),
    Step(kAvailable,    Op::kAcquire,        If::kAlways,           kAvailable,    kPark | kStartOpen),
    Step(kAvailable,    Op::kServe,          If::kHasAcquirers,     kServing,      kServeParked),
    Step(kAvailable,    Op::kServe,          If::kAlways,           kAvailable,    kServeParked),  // all have left: they are told
    Bug(kAvailable,     Op::kRelease),
    Step(kAvailable,    Op::kFail,           If::kTransient,        kAvailable,    kFailParked),
    Step(kAvailable,    Op::kFail,           If::kIndexDamaged,     kRecovering,   kNotify | kCancelJobs | kStartInitialize),
    Step(kAvailable,    Op::kFail,           If::kAlways,           kErrored,      kPersist | kFailParked | kNotify | kCancelJobs),
    Refuse(kAvailable,  Op::kRecover),
    Step(kAvailable,    Op::kCollect,        If::kHasCopy,          kAvailable,    kPark | kStartCollect),
    Ignore(kAvailable,  Op::kCollect),
    Step(kAvailable,    Op::kDestroy,        If::kAlways,           kDestroying,   kPersistDestroying | kHide | kFailParked | kPark | kCancelJobs | kStartDestroy),
    Bug(kAvailable,     Op::kForget),
    Step(kAvailable,    Op::kCount,          If::kHasRefs,          kServing,      kNothing),
    Ignore(kAvailable,  Op::kCount),

    Refuse(kServing,    Op::kRegister),
    Ignore(kServing,    Op::kInitialize),
    Bug(kServing,       Op::kMakeAvailable),
    Step(kServing,      Op::kAcquire,        If::kOpen,             kServing,      kServe),
    Step(kServing,      Op::kAcquire,        If::kAlways,           kServing,      kPark | kStartOpen),
    Step(kServing,      Op::kServe,          If::kAlways,           kServing,      kServeParked),
    Step(kServing,      Op::kRelease,        If::kLastRef,          kAvailable,    kUnref),
    Step(kServing,      Op::kRelease,        If::kAlways,           kServing,      kUnref),
    Step(kServing,      Op::kFail,           If::kTransient,        kServing,      kFailParked),
    Step(kServing,      Op::kFail,           If::kIndexDamaged,     kRecovering,   kNotify | kCancelJobs | kStartInitialize),
    Step(kServing,      Op::kFail,           If::kAlways,           kErrored,      kPersist | kFailParked | kNotify | kCancelJobs),
    Refuse(kServing,    Op::kRecover),
    Ignore(kServing,    Op::kCollect),       // in use
    Refuse(kServing,    Op::kDestroy),       // in use: readers would lose their data
    Bug(kServing,       Op::kForget),
    Ignore(kServing,    Op::kCount),

    Refuse(kRecovering, Op::kRegister),
    Ignore(kRecovering, Op::kInitialize),
    Step(kRecovering,   Op::kMakeAvailable,  If::kHasRefs,          kServing,      kPersist | kReplyParked | kStartOpen),
    Step(kRecovering,   Op::kMakeAvailable,  If::kAlways,           kAvailable,    kPersist | kReplyParked | kStartOpen),
    Step(kRecovering,   Op::kAcquire,        If::kAlways,           kRecovering,   kPark),
    Bug(kRecovering,    Op::kServe),
    Step(kRecovering,   Op::kRelease,        If::kAlways,           kRecovering,   kUnref),
    Step(kRecovering,   Op::kFail,           If::kTransient,        kErrored,      kFailParked),  // stored as Errored, or its index is found damaged again
    Step(kRecovering,   Op::kFail,           If::kAlways,           kErrored,      kPersist | kFailParked | kNotify),
    Step(kRecovering,   Op::kRecover,        If::kAlways,           kRecovering,   kPark),
    Ignore(kRecovering, Op::kCollect),
    Refuse(kRecovering, Op::kDestroy,        If::kHasRefs),
    Step(kRecovering,   Op::kDestroy,        If::kAlways,           kDestroying,   kPersistDestroying | kHide | kFailParked | kPark | kCancelJobs | kStartDestroy),
    Bug(kRecovering,    Op::kForget),
    Bug(kRecovering,    Op::kCount),

    Refuse(kErrored,    Op::kRegister),
    Ignore(kErrored,    Op::kInitialize),
    Bug(kErrored,       Op::kMakeAvailable),
    Step(kErrored,      Op::kAcquire,        If::kRecoverOnAcquire, kRecovering,   kPark | kStartInitialize),
    Refuse(kErrored,    Op::kAcquire),       // with the cause
    Bug(kErrored,       Op::kServe),
    Step(kErrored,      Op::kRelease,        If::kAlways,           kErrored,      kUnref),  // stays errored
    Ignore(kErrored,    Op::kFail),          // the first cause stands
    Step(kErrored,      Op::kRecover,        If::kAlways,           kRecovering,   kPark | kStartInitialize),
    Step(kErrored,      Op::kCollect,        If::kHasCopy,          kErrored,      kPark | kStartCollect),
    Ignore(kErrored,    Op::kCollect),
    Refuse(kErrored,    Op::kDestroy,        If::kHasRefs),
    Step(kErrored,      Op::kDestroy,        If::kAlways,           kDestroying,   kPersistDestroying | kHide | kFailParked | kPark | kCancelJobs | kStartDestroy),
    Bug(kErrored,       Op::kForget),
    Bug(kErrored,       Op::kCount),

    Refuse(kDestroying, Op::kRegister),      // until it is gone
    Ignore(kDestroying, Op::kInitialize),
    Bug(kDestroying,    Op::kMakeAvailable),
    Refuse(kDestroying, Op::kAcquire),
    Bug(kDestroying,    Op::kServe),
    Bug(kDestroying,    Op::kRelease),       // destroy waits for the last reference at the door
    Step(kDestroying,   Op::kFail,           If::kAlways,           kDestroying,   kFailParked | kNotify),  // asked again, it tries again
    Refuse(kDestroying, Op::kRecover),
    Ignore(kDestroying, Op::kCollect),
    Step(kDestroying,   Op::kDestroy,        If::kAlways,           kDestroying,   kPark | kStartDestroy),  // joins
    Step(kDestroying,   Op::kForget,         If::kAlways,           kDestroying,   kErase | kReplyParked),
    Bug(kDestroying,    Op::kCount),
};
// clang-format on

constexpr size_t Cell(ShardState state, Op op) {
  return (static_cast<size_t>(state) - 1) * kShardOps + static_cast<size_t>(op);
}

struct CellRows {
  uint16_t first = 0;
  uint16_t count = 0;
};
using Cells = std::array<CellRows, kShardStates * kShardOps>;

constexpr Cells IndexTable() {
  Cells cells = {};
  for (size_t i = 0; i < std::size(kTable); ++i) {
    CellRows& cell = cells[Cell(kTable[i].from, kTable[i].op)];
    if (cell.count == 0) cell.first = static_cast<uint16_t>(i);
    ++cell.count;
  }
  return cells;
}
constexpr Cells kCells = IndexTable();

// Every (state, op) has rows, next to each other, only the last of them unconditional.
constexpr bool Complete() {
  for (const CellRows& cell : kCells) {
    if (cell.count == 0) return false;
    for (size_t i = 0; i < cell.count; ++i) {
      const Row& row = kTable[cell.first + i];
      if (Cell(row.from, row.op) != Cell(kTable[cell.first].from, kTable[cell.first].op)) return false;
      if ((row.guard == If::kAlways) != (i + 1 == cell.count)) return false;
    }
  }
  return true;
}
static_assert(Complete(), "every (state, op) needs rows, the last one and only it unconditional");

// Only a state without references may be destroyed, and nothing but Forget erases.
constexpr bool Sound() {
  for (const Row& row : kTable) {
    if ((row.effects & kErase) != 0 && row.op != Op::kForget) return false;
    if ((row.effects & kPersistDestroying) != 0 && row.next != kDestroying) return false;
    if (row.from == kDestroying && row.next != kDestroying) return false;
    if ((row.effects & kServe) != 0 && row.next != kServing) return false;
    if (row.verdict != Verdict::kStep && (row.next != row.from || row.effects != kNothing)) return false;
  }
  return true;
}
static_assert(Sound());

bool Holds(If guard, const Facts& facts) {
  switch (guard) {
    case If::kAlways: return true;
    case If::kFreshLazy: return facts.fresh && facts.lazy;
    case If::kFresh: return facts.fresh;
    case If::kOpen: return facts.open;
    case If::kHasRefs: return facts.refs != 0;
    case If::kLastRef: return facts.refs == 1;
    case If::kHasAcquirers: return facts.has_acquirers;
    case If::kTransient: return facts.transient_error;
    case If::kIndexDamaged: return facts.index_damaged;
    case If::kRecoverOnAcquire: return facts.recover_on_acquire;
    case If::kHasCopy: return facts.has_copy && facts.refs == 0 && !facts.jobs_running;
  }
  return false;
}

constexpr std::pair<uint32_t, std::string_view> kEffectNames[] = {
    {kPersist, "Persist"},
    {kPersistDestroying, "PersistDestroying"},
    {kFailParked, "FailParked"},
    {kPark, "Park"},
    {kReply, "Reply"},
    {kServe, "Serve"},
    {kServeParked, "ServeParked"},
    {kReplyParked, "ReplyParked"},
    {kUnref, "Unref"},
    {kCancelJobs, "CancelJobs"},
    {kQueueInitialize, "QueueInitialize"},
    {kStartInitialize, "StartInitialize"},
    {kStartOpen, "StartOpen"},
    {kStartCollect, "StartCollect"},
    {kStartDestroy, "StartDestroy"},
    {kErase, "Erase"},
    {kNotify, "Notify"},
    {kHide, "Hide"},
};

// Rows that mutants put in place of the table's (base/mutant.h). Null in every other build.
// clang-format off
const Row* MutantRow([[maybe_unused]] ShardState state, [[maybe_unused]] Op op, [[maybe_unused]] const Facts& facts) {
  if (Mutant(kMutantErroredHeals) && state == kErrored && op == Op::kRelease && facts.refs == 1) {
    static constexpr Row row = Step(kErrored, Op::kRelease, If::kAlways, kAvailable, kUnref);
    return &row;
  }
  if (Mutant(kMutantReleaseIgnored) && state == kRecovering && op == Op::kRelease) {
    static constexpr Row row = Ignore(kRecovering, Op::kRelease);
    return &row;
  }
  if (Mutant(kMutantCollectInUse) && state == kServing && op == Op::kCollect && facts.has_copy) {
    static constexpr Row row = Step(kServing, Op::kCollect, If::kAlways, kServing, kPark | kStartCollect);
    return &row;
  }
  if (Mutant(kMutantAcquireWhileDestroying) && state == kDestroying && op == Op::kAcquire) {
    static constexpr Row row = Step(kDestroying, Op::kAcquire, If::kAlways, kDestroying, kPark);
    return &row;
  }
  if (Mutant(kMutantErrorSticks) && state == kErrored && op == Op::kRecover) {
    static constexpr Row row = Refuse(kErrored, Op::kRecover);
    return &row;
  }
  if (Mutant(kMutantErroredJobsGoOn) && state == kErrored && op == Op::kDestroy && facts.refs == 0) {
    static constexpr Row row = Step(kErrored, Op::kDestroy, If::kAlways, kDestroying, kPersistDestroying | kHide | kFailParked | kPark | kStartDestroy);
    return &row;
  }
  if (Mutant(kMutantSecondRecovery) && state == kRecovering && op == Op::kRecover) {
    static constexpr Row row = Step(kRecovering, Op::kRecover, If::kAlways, kRecovering, kPark | kStartInitialize);
    return &row;
  }
  if (Mutant(kMutantRegisterOverErrored) && state == kErrored && op == Op::kRegister) {
    static constexpr Row row = Step(kErrored, Op::kRegister, If::kAlways, kNew, kPersist | kReply);
    return &row;
  }
  if (Mutant(kMutantDestroyInUse) && state == kServing && op == Op::kDestroy) {
    static constexpr Row row = Step(kServing, Op::kDestroy, If::kAlways, kDestroying, kPersistDestroying | kHide | kFailParked | kPark | kCancelJobs | kStartDestroy);
    return &row;
  }
  if (Mutant(kMutantIndexDamageIsFinal) && state == kAvailable && op == Op::kFail && facts.index_damaged) {
    static constexpr Row row = Step(kAvailable, Op::kFail, If::kAlways, kErrored, kPersist | kFailParked | kNotify | kCancelJobs);
    return &row;
  }
  if (Mutant(kMutantDestroyTwiceUnanswered) && state == kDestroying && op == Op::kDestroy && !facts.fresh) {
    static constexpr Row row = Ignore(kDestroying, Op::kDestroy);
    return &row;
  }
  if (Mutant(kMutantRecoverForgetsRefs) && state == kRecovering && op == Op::kMakeAvailable && facts.refs != 0) {
    static constexpr Row row = Step(kRecovering, Op::kMakeAvailable, If::kAlways, kAvailable, kPersist | kReplyParked | kStartOpen);
    return &row;
  }
  return nullptr;
}
// clang-format on

}  // namespace

std::span<const Row> TransitionTable() { return kTable; }

const Row& Decide(ShardState state, ShardOp op, const Facts& facts) {
  if (const Row* row = MutantRow(state, op, facts)) return *row;
  const CellRows& cell = kCells[Cell(state, op)];
  for (size_t i = cell.first; i + 1 < static_cast<size_t>(cell.first) + cell.count; ++i) {
    if (Holds(kTable[i].guard, facts)) return kTable[i];
  }
  return kTable[cell.first + cell.count - 1];
}

ShardState StateAfterRestart(ShardState stored) {
  if (Mutant(kMutantRestartStuck) && stored == ShardState::kErrored) return ShardState::kRecovering;
  switch (stored) {
    case ShardState::kInitializing: return ShardState::kNew;        // its job died with the process
    case ShardState::kServing: return ShardState::kAvailable;       // its readers too
    case ShardState::kRecovering: return ShardState::kErrored;      // then the policy decides
    default: return stored;
  }
}

std::string_view GuardName(If guard) {
  switch (guard) {
    case If::kAlways: return "";
    case If::kFreshLazy: return "fresh and lazy";
    case If::kFresh: return "fresh";
    case If::kOpen: return "open";
    case If::kHasRefs: return "has references";
    case If::kLastRef: return "last reference";
    case If::kHasAcquirers: return "acquirers parked";
    case If::kTransient: return "error changes nothing durable";
    case If::kIndexDamaged: return "index damaged";
    case If::kRecoverOnAcquire: return "recover on acquire";
    case If::kHasCopy: return "idle local copy of ours";
  }
  return "?";
}

std::string EffectNames(uint32_t effects) {
  std::string out;
  for (const auto& [bit, name] : kEffectNames) {
    if ((effects & bit) == 0) continue;
    if (!out.empty()) out += ", ";
    out += name;
  }
  return out;
}

std::string TransitionTableMarkdown() {
  std::string out = "| from | op | only if | next | effects |\n|---|---|---|---|---|\n";
  for (const Row& row : kTable) {
    std::string_view next = StateName(row.next);
    std::string effects = EffectNames(row.effects);
    if (row.verdict == Verdict::kRefuse) next = "*refused*";
    if (row.verdict == Verdict::kIgnore) next = "*ignored*";
    if (row.verdict == Verdict::kBug) next = "*cannot happen*";
    if ((row.effects & kErase) != 0) next = "(gone)";
    out += fmt::format("| {} | {} | {} | {} | {} |\n", StateName(row.from), OpName(row.op), GuardName(row.guard), next,
                       effects);
  }
  out += "\n| stored as | after a restart |\n|---|---|\n";
  for (ShardState state : kAllShardStates) {
    out += fmt::format("| {} | {} |\n", StateName(state), StateName(StateAfterRestart(state)));
  }
  return out;
}

}  // namespace dagstore
