// The table, cell by cell. The rows here are what was decided; the table is what was written.
#include "shard/transition.h"

#include <set>

#include "tests/testing.h"

namespace dagstore {
namespace {

using S = ShardState;
using Op = ShardOp;

Facts With(void (*set)(Facts&)) {
  Facts facts;
  set(facts);
  return facts;
}

TEST_CASE("transition: what each operation does to a shard in each state") {
  const Facts none;
  const Facts fresh = With([](Facts& f) { f.fresh = true; });
  const Facts fresh_lazy = With([](Facts& f) { f.fresh = f.lazy = true; });
  const Facts lazy = With([](Facts& f) { f.lazy = true; });
  const Facts open = With([](Facts& f) { f.open = true; });
  const Facts one_ref = With([](Facts& f) { f.refs = 1; });
  const Facts two_refs = With([](Facts& f) { f.refs = 2; });
  const Facts parked = With([](Facts& f) { f.has_acquirers = true; });
  const Facts transient = With([](Facts& f) { f.transient_error = true; });
  const Facts transient_index = With([](Facts& f) { f.transient_error = f.index_damaged = true; });
  const Facts index = With([](Facts& f) { f.index_damaged = true; });
  const Facts policy = With([](Facts& f) { f.recover_on_acquire = true; });
  const Facts copy = With([](Facts& f) { f.has_copy = true; });
  const Facts copy_in_use = With([](Facts& f) { f.has_copy = true, f.refs = 1; });
  const Facts copy_with_job = With([](Facts& f) { f.has_copy = f.jobs_running = true; });
  constexpr uint32_t kDestroyIdle = kPersistDestroying | kFailParked | kPark | kStartDestroy;
  struct Want {
    S from;
    Op op;
    const Facts& facts;
    Verdict verdict;
    S next;
    uint32_t effects;
  };
  const Want wants[] = {
      {S::kNew, Op::kRegister, fresh_lazy, Verdict::kStep, S::kNew, kPersist | kReply},
      {S::kNew, Op::kRegister, fresh, Verdict::kStep, S::kNew, kPersist | kPark | kQueueInitialize},
      {S::kNew, Op::kRegister, lazy, Verdict::kRefuse, S::kNew, kNothing},
      {S::kNew, Op::kInitialize, none, Verdict::kStep, S::kInitializing, kStartInitialize},
      {S::kNew, Op::kAcquire, none, Verdict::kStep, S::kNew, kPark | kQueueInitialize},
      {S::kNew, Op::kFail, none, Verdict::kIgnore, S::kNew, kNothing},
      {S::kNew, Op::kRecover, none, Verdict::kRefuse, S::kNew, kNothing},
      {S::kNew, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kDestroyIdle},

      {S::kInitializing, Op::kInitialize, none, Verdict::kIgnore, S::kInitializing, kNothing},  // row 24
      {S::kInitializing, Op::kAcquire, none, Verdict::kStep, S::kInitializing, kPark},
      {S::kInitializing, Op::kMakeAvailable, none, Verdict::kStep, S::kAvailable, kPersist | kReplyParked | kStartOpen},
      {S::kInitializing, Op::kFail, none, Verdict::kStep, S::kErrored, kPersist | kFailParked | kNotify},
      {S::kInitializing, Op::kFail, transient, Verdict::kStep, S::kNew, kFailParked},
      {S::kInitializing, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kDestroyIdle | kCancelJobs},  // row 14

      {S::kAvailable, Op::kAcquire, open, Verdict::kStep, S::kServing, kServe},
      {S::kAvailable, Op::kAcquire, none, Verdict::kStep, S::kAvailable, kPark | kStartOpen},
      {S::kAvailable, Op::kServe, parked, Verdict::kStep, S::kServing, kServeParked},
      {S::kAvailable, Op::kServe, none, Verdict::kStep, S::kAvailable, kServeParked},
      {S::kAvailable, Op::kFail, transient, Verdict::kStep, S::kAvailable, kFailParked},
      {S::kAvailable, Op::kFail, transient_index, Verdict::kStep, S::kAvailable, kFailParked},
      {S::kAvailable, Op::kFail, index, Verdict::kStep, S::kRecovering, kNotify | kCancelJobs | kStartInitialize},
      {S::kAvailable, Op::kFail, none, Verdict::kStep, S::kErrored, kPersist | kFailParked | kNotify | kCancelJobs},
      {S::kAvailable, Op::kCollect, copy, Verdict::kStep, S::kAvailable, kPark | kStartCollect},
      {S::kAvailable, Op::kCollect, none, Verdict::kIgnore, S::kAvailable, kNothing},
      {S::kAvailable, Op::kCollect, copy_in_use, Verdict::kIgnore, S::kAvailable, kNothing},
      {S::kAvailable, Op::kCollect, copy_with_job, Verdict::kIgnore, S::kAvailable, kNothing},
      {S::kAvailable, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kDestroyIdle | kHide | kCancelJobs},

      {S::kServing, Op::kAcquire, open, Verdict::kStep, S::kServing, kServe},
      {S::kServing, Op::kAcquire, none, Verdict::kStep, S::kServing, kPark | kStartOpen},
      {S::kServing, Op::kServe, none, Verdict::kStep, S::kServing, kServeParked},
      {S::kServing, Op::kRelease, one_ref, Verdict::kStep, S::kAvailable, kUnref},
      {S::kServing, Op::kRelease, two_refs, Verdict::kStep, S::kServing, kUnref},
      {S::kServing, Op::kFail, one_ref, Verdict::kStep, S::kErrored, kPersist | kFailParked | kNotify | kCancelJobs},
      {S::kServing, Op::kCollect, copy, Verdict::kIgnore, S::kServing, kNothing},  // row 12
      {S::kServing, Op::kDestroy, one_ref, Verdict::kRefuse, S::kServing, kNothing},

      {S::kRecovering, Op::kAcquire, none, Verdict::kStep, S::kRecovering, kPark},
      {S::kRecovering, Op::kRecover, none, Verdict::kStep, S::kRecovering, kPark},  // row 16: joins
      {S::kRecovering, Op::kRelease, one_ref, Verdict::kStep, S::kRecovering, kUnref},  // row 11
      {S::kRecovering, Op::kMakeAvailable, one_ref, Verdict::kStep, S::kServing, kPersist | kReplyParked | kStartOpen},
      {S::kRecovering, Op::kMakeAvailable, none, Verdict::kStep, S::kAvailable, kPersist | kReplyParked | kStartOpen},
      {S::kRecovering, Op::kFail, transient, Verdict::kStep, S::kErrored, kFailParked},
      {S::kRecovering, Op::kFail, none, Verdict::kStep, S::kErrored, kPersist | kFailParked | kNotify},
      {S::kRecovering, Op::kCollect, copy, Verdict::kIgnore, S::kRecovering, kNothing},
      {S::kRecovering, Op::kDestroy, one_ref, Verdict::kRefuse, S::kRecovering, kNothing},
      {S::kRecovering, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kDestroyIdle | kHide | kCancelJobs},

      {S::kErrored, Op::kAcquire, none, Verdict::kRefuse, S::kErrored, kNothing},
      {S::kErrored, Op::kAcquire, policy, Verdict::kStep, S::kRecovering, kPark | kStartInitialize},
      {S::kErrored, Op::kRelease, one_ref, Verdict::kStep, S::kErrored, kUnref},  // row 10
      {S::kErrored, Op::kFail, none, Verdict::kIgnore, S::kErrored, kNothing},    // the first cause stands
      {S::kErrored, Op::kRecover, none, Verdict::kStep, S::kRecovering, kPark | kStartInitialize},
      {S::kErrored, Op::kCollect, copy, Verdict::kStep, S::kErrored, kPark | kStartCollect},
      {S::kErrored, Op::kCollect, none, Verdict::kIgnore, S::kErrored, kNothing},
      {S::kErrored, Op::kCollect, copy_in_use, Verdict::kIgnore, S::kErrored, kNothing},  // row 12
      {S::kErrored, Op::kCollect, copy_with_job, Verdict::kIgnore, S::kErrored, kNothing},
      {S::kErrored, Op::kDestroy, one_ref, Verdict::kRefuse, S::kErrored, kNothing},
      {S::kErrored, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kDestroyIdle | kHide | kCancelJobs},

      {S::kDestroying, Op::kAcquire, none, Verdict::kRefuse, S::kDestroying, kNothing},  // row 15
      {S::kDestroying, Op::kRegister, none, Verdict::kRefuse, S::kDestroying, kNothing},
      {S::kDestroying, Op::kInitialize, none, Verdict::kIgnore, S::kDestroying, kNothing},
      {S::kDestroying, Op::kRecover, none, Verdict::kRefuse, S::kDestroying, kNothing},
      {S::kDestroying, Op::kFail, none, Verdict::kStep, S::kDestroying, kFailParked | kNotify},
      {S::kDestroying, Op::kDestroy, none, Verdict::kStep, S::kDestroying, kPark | kStartDestroy},
      {S::kDestroying, Op::kForget, none, Verdict::kStep, S::kDestroying, kErase | kReplyParked},
  };
  for (const Want& want : wants) {
    const Row& row = Decide(want.from, want.op, want.facts);
    INFO(StateName(want.from), " ", OpName(want.op), " if ", GuardName(row.guard), " -> ", StateName(row.next), ", ",
         EffectNames(row.effects), "; wanted ", EffectNames(want.effects));
    CHECK(row.from == want.from);
    CHECK(row.op == want.op);
    CHECK(row.verdict == want.verdict);
    CHECK(row.next == want.next);
    CHECK_EQ(row.effects, want.effects);
  }
}

TEST_CASE("transition: every state has a row for every operation, whatever the facts") {
  for (const S state : kAllShardStates) {
    for (size_t op = 0; op < kShardOps; ++op) {
      for (uint32_t bits = 0; bits < 1 << 10; ++bits) {
        Facts facts;
        facts.fresh = bits & 1;
        facts.lazy = bits & 2;
        facts.open = bits & 4;
        facts.refs = (bits >> 3) & 3;
        facts.has_acquirers = bits & 32;
        facts.transient_error = bits & 64;
        facts.index_damaged = bits & 128;
        facts.recover_on_acquire = bits & 256;
        facts.has_copy = bits & 512;
        const Row& row = Decide(state, static_cast<Op>(op), facts);
        REQUIRE(row.from == state);
        REQUIRE(row.op == static_cast<Op>(op));
      }
    }
  }
}

TEST_CASE("transition: rules that hold for every row") {
  std::set<std::pair<S, Op>> cells;
  for (const Row& row : TransitionTable()) {
    INFO(StateName(row.from), " ", OpName(row.op), " ", GuardName(row.guard));
    cells.insert({row.from, row.op});
    const auto has = [&](uint32_t effect) { return (row.effects & effect) != 0; };
    // A requester gets one answer: he waits, or is answered, or is served.
    CHECK(has(kPark) + has(kReply) + has(kServe) <= 1);
    // Where a reader may be, nothing is destroyed or collected.
    if (row.from == S::kServing) CHECK_FALSE(has(kPersistDestroying | kStartCollect | kStartDestroy));
    // Only the last release makes a serving shard idle, and no other release changes a state (rows 10, 11).
    if (row.op == Op::kRelease && row.verdict == Verdict::kStep && row.next != row.from) {
      CHECK(row.from == S::kServing);
      CHECK(row.guard == If::kLastRef);
    }
    if (row.op == Op::kRelease && row.verdict == Verdict::kStep) CHECK(has(kUnref));
    // Whoever fails for good is in the failure log; a limit of ours is no failure and is never stored.
    if (row.next == S::kErrored && row.from != S::kErrored) CHECK(has(kNotify) == (row.guard != If::kTransient));
    if (row.guard == If::kTransient) CHECK_FALSE(has(kPersist | kNotify));
    // Destroying is for ever, and durable from its first step.
    if (row.next == S::kDestroying && row.from != S::kDestroying) {
      CHECK(has(kPersistDestroying));
      CHECK(has(kFailParked));
    }
    if (row.from == S::kDestroying) CHECK(row.next == S::kDestroying);
    // What was found by CID is hidden as soon as it is to go.
    if (has(kPersistDestroying) && row.from != S::kNew && row.from != S::kInitializing) CHECK(has(kHide));
    // Only what the store tells itself can be impossible: no caller can bring the process down.
    if (row.verdict == Verdict::kBug) {
      CHECK((row.op == Op::kMakeAvailable || row.op == Op::kServe || row.op == Op::kRelease || row.op == Op::kForget ||
             row.op == Op::kCount));
    }
  }
  CHECK_EQ(cells.size(), kShardStates * kShardOps);
}

TEST_CASE("transition: row 13: after a restart no shard is in a state that waits for a job that died") {
  struct Case {
    S stored, restored;
  };
  for (const Case& c : {Case{S::kNew, S::kNew}, Case{S::kInitializing, S::kNew}, Case{S::kAvailable, S::kAvailable},
                        Case{S::kServing, S::kAvailable}, Case{S::kRecovering, S::kErrored},
                        Case{S::kErrored, S::kErrored}, Case{S::kDestroying, S::kDestroying}}) {
    CHECK(StateAfterRestart(c.stored) == c.restored);
  }
}

TEST_CASE("transition: names are distinct, and states are read back from bytes and names") {
  std::set<std::string_view> names;
  for (const S state : kAllShardStates) {
    names.insert(StateName(state));
    S read = S::kNew;
    CHECK(StateFromByte(static_cast<uint8_t>(state), read));
    CHECK(read == state);
    std::string upper(StateName(state));
    for (char& c : upper) c = static_cast<char>(std::toupper(c));
    CHECK(StateFromName(upper, read));
    CHECK(read == state);
  }
  for (size_t op = 0; op < kShardOps; ++op) names.insert(OpName(static_cast<Op>(op)));
  CHECK_EQ(names.size(), kShardStates + kShardOps);
  S unchanged = S::kServing;
  for (const int bad : {0, 8, 255}) CHECK_FALSE(StateFromByte(static_cast<uint8_t>(bad), unchanged));
  for (const char* bad : {"", "Newer", "Ne", "?"}) CHECK_FALSE(StateFromName(bad, unchanged));
  CHECK(unchanged == S::kServing);
}

TEST_CASE("transition: the printed table has a line for each row, but for those that cannot happen") {
  const std::string text = TransitionTableMarkdown();
  CHECK(text.find("| Errored") != std::string::npos);
  for (const Row& row : TransitionTable()) {
    if (row.verdict == Verdict::kStep) CHECK(text.find(EffectNames(row.effects)) != std::string::npos);
  }
  CHECK_EQ(EffectNames(kPersist | kPark), "Persist, Park");
}

}  // namespace
}  // namespace dagstore
