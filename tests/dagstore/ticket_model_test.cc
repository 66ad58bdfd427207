// Goal: the rules of stops and deadlines (docs/architecture.md#stops-and-deadlines) hold in every order of events.
// Method: an explicit-state model of one shard, three acquirers and one who destroys. What a shard does comes from the
// production table (shard/transition.h); the model adds who waits, who has left and what runs. Every reachable state is
// visited and checked. Then the rules are broken, one at a time, and the check must notice: a check that finds nothing
// in a broken model finds nothing in a sound one either.
#include <deque>
#include <unordered_set>

#include "shard/transition.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

enum class Mutant : uint8_t {
  kNone,
  kCancelHitsOthers,    // a stop of one cancels the job of all
  kEarlyAnswer,         // the last who leaves is answered at once
  kJoinsDyingJob,       // a newcomer becomes a member of a job that has been told to stop
  kResultAfterDecided,  // a stop after the answer gives another
  kCancelIsFailure,     // a job that was stopped makes the shard Errored
  kCloseDrops,          // Close forgets those who wait
};

enum class Waits : uint8_t { kNotAsked, kParked, kNextGen, kStopping, kDone };
enum class Got : uint8_t { kNothing, kOk, kError, kStopped, kShutDown };
enum class Work : uint8_t { kNone, kInitialize, kOpen, kDestroy };
enum class Closing : uint8_t { kOpen, kDraining, kStopping };

constexpr size_t kAcquirers = 3;
constexpr size_t kDestroyer = kAcquirers;  // the ticket after them
constexpr size_t kTickets = kAcquirers + 1;

struct ModelState {
  struct Ticket {
    Waits waits = Waits::kNotAsked;
    Got got = Got::kNothing;
    uint8_t results = 0;
    bool has_accessor = false;
    bool asked_to_stop = false;
  };
  struct Job {
    Work work = Work::kNone;
    bool dying = false;
    bool fill = false;       // kept for the cache
    bool straggler = false;  // the grace has passed
  };

  ShardState shard = ShardState::kNew;
  bool exists = true;
  bool open = false;
  bool queued = false;  // an Initialize job that waits for a place
  bool may_recover = true;  // the first acquire of an Errored shard tries again
  uint8_t refs = 0;
  Job job;              // the current one
  Job stale;            // one that a destroy has cut off
  Ticket tickets[kTickets];
  Closing closing = Closing::kOpen;
  uint8_t failed_by_stop = 0;

  std::string Bytes() const { return std::string(reinterpret_cast<const char*>(this), sizeof(*this)); }
};
static_assert(std::is_trivially_copyable_v<ModelState>);
static_assert(std::has_unique_object_representations_v<ModelState>, "compared as bytes");

enum class Act : uint8_t {
  kAsk,          // ticket
  kStop,         // ticket
  kRelease,      // ticket
  kBegin,        // the queued job gets its place
  kEndsWell, kFails, kFailsForGood, kStops,  // the current job
  kStaleEnds,
  kNearlyDone,   // the last leaves a job that is worth finishing; ticket
  kFillTimeIsUp,
  kGraceIsUp,
  kForget,       // the idle shard's data is closed
  kBeginClose, kStopEverything,
};
struct Action {
  Act act = Act::kAsk;
  size_t ticket = 0;
};

class Model {
 public:
  explicit Model(Mutant mutant) : mutant_(mutant) {}

  // The state after `action`; nullopt if it cannot happen in `state`.
  std::optional<ModelState> After(const ModelState& state, const Action& action) {
    s_ = state;
    return Do(action) ? std::optional<ModelState>(s_) : std::nullopt;
  }

  // What is wrong with a state; empty if nothing.
  std::string Check(const ModelState& s) const {
    size_t members = 0, stopping = 0, accessors = 0;
    for (size_t i = 0; i < kTickets; ++i) {
      const ModelState::Ticket& t = s.tickets[i];
      if (t.results > 1) return "a ticket has two results";
      if ((t.waits == Waits::kDone) != (t.results == 1)) return "a ticket is done without a result, or the reverse";
      if (t.got == Got::kStopped && !t.asked_to_stop) return "a ticket that nobody stopped is stopped";
      if (t.got == Got::kShutDown && s.closing == Closing::kOpen) return "a ticket is shut down by an open store";
      accessors += t.has_accessor ? 1 : 0;
      stopping += t.waits == Waits::kStopping ? 1 : 0;
      members += t.waits == Waits::kParked && Wants(i, s.job.work) ? 1 : 0;
      const bool served = s.job.work != Work::kNone || s.stale.work != Work::kNone || s.queued;
      if ((t.waits == Waits::kParked || t.waits == Waits::kNextGen || t.waits == Waits::kStopping) && !served) {
        return "a ticket waits for nothing";
      }
      if (t.waits == Waits::kNextGen && !s.job.dying) return "a ticket waits for the end of a job that does not end";
    }
    if (accessors != s.refs) return "references and accessors differ";
    if (s.failed_by_stop != 0) return "a stop is recorded as a failure";
    if (s.job.work != Work::kNone && s.job.work != Work::kDestroy) {
      if (s.job.dying && members != 0 && s.closing != Closing::kStopping) return "a dying job has members";
      if (members == 0 && stopping == 0 && !s.job.fill && !s.job.straggler && s.closing != Closing::kStopping) {
        return "a job runs, and nobody wants it or waits for its end";
      }
    }
    return {};
  }

  // Nothing can happen any more.
  std::string CheckEnd(const ModelState& s) const {
    if (s.job.work != Work::kNone || s.stale.work != Work::kNone || s.queued) return "closed, and work goes on";
    for (const ModelState::Ticket& t : s.tickets) {
      if (t.waits != Waits::kNotAsked && t.results != 1) return "closed, and a ticket has no result";
    }
    return {};
  }

 private:
  static bool Wants(size_t ticket, Work work) {
    return work != Work::kNone && (ticket == kDestroyer) == (work == Work::kDestroy);
  }
  bool AnyAcquirerWaits() const {
    return std::any_of(s_.tickets, s_.tickets + kAcquirers, [](const ModelState::Ticket& t) {
      return t.waits == Waits::kParked || t.waits == Waits::kNextGen;
    });
  }

  void Decide(size_t ticket, Got got) {
    ModelState::Ticket& t = s_.tickets[ticket];
    t.waits = Waits::kDone;
    t.got = got;
    ++t.results;
    if (got == Got::kOk && ticket != kDestroyer) {
      t.has_accessor = true;
      ++s_.refs;
    }
  }

  // One operation on the shard, by the production table.
  void Step(ShardOp op, size_t ticket, bool transient, bool dying) {
    Facts facts;
    facts.lazy = true;
    facts.open = s_.open;
    facts.refs = s_.refs;
    facts.has_acquirers = AnyAcquirerWaits();
    facts.transient_error = transient;
    facts.recover_on_acquire = s_.may_recover;
    const Row& row = dagstore::Decide(s_.shard, op, facts);
    REQUIRE_MESSAGE(row.verdict != Verdict::kBug, OpName(op), " in ", StateName(s_.shard));
    if (row.verdict != Verdict::kStep) {
      if (ticket < kTickets) Decide(ticket, Got::kError);
      return;
    }
    if ((op == ShardOp::kFail && !transient) || op == ShardOp::kMakeAvailable) s_.may_recover = false;
    s_.shard = row.next;
    const auto has = [&](Effect effect) { return (row.effects & effect) != 0; };
    if (has(kUnref)) --s_.refs;
    if (has(kCancelJobs)) {
      if (s_.job.work != Work::kNone) {
        s_.stale = s_.job;
        s_.stale.dying = true;
        s_.job = {};
      }
      s_.queued = false;
      s_.open = s_.open && row.next != ShardState::kDestroying;
    }
    if (has(kFailParked)) FailParked(dying);
    if (has(kServe)) Decide(ticket, Got::kOk);
    if (has(kServeParked)) {
      for (size_t i = 0; i < kAcquirers; ++i) {
        if (s_.tickets[i].waits == Waits::kParked || s_.tickets[i].waits == Waits::kNextGen) Decide(i, Got::kOk);
      }
    }
    if (has(kReplyParked)) {
      if (s_.tickets[kDestroyer].waits == Waits::kParked) Decide(kDestroyer, Got::kOk);
      for (ModelState::Ticket& t : s_.tickets) {
        if (t.waits == Waits::kNextGen) t.waits = Waits::kParked;  // of a job that has ended well
      }
    }
    if (has(kPark) && ticket < kTickets) {
      const bool late = Wants(ticket, s_.job.work) && s_.job.dying && mutant_ != Mutant::kJoinsDyingJob;
      s_.tickets[ticket].waits = late ? Waits::kNextGen : Waits::kParked;
    }
    if (has(kQueueInitialize)) Step(ShardOp::kInitialize, kTickets, false, false);
    if (has(kStartInitialize)) s_.queued = true;
    if (has(kStartOpen)) StartOpen();
    if (has(kStartDestroy)) StartDestroy();
    if (has(kErase)) s_.exists = false;
  }

  void StartOpen() {
    if (s_.shard != ShardState::kAvailable && s_.shard != ShardState::kServing) return;
    if (s_.job.work == Work::kNone && AnyAcquirerWaits()) s_.job = {Work::kOpen, s_.closing == Closing::kStopping};
  }
  void StartDestroy() {
    if (s_.stale.work != Work::kNone || s_.job.work != Work::kNone) return;  // the last of them asks again
    s_.open = false;
    s_.job = {Work::kDestroy};
  }

  void FailParked(bool dying) {
    const bool closing = s_.closing != Closing::kOpen;
    for (size_t i = 0; i < kTickets; ++i) {
      ModelState::Ticket& t = s_.tickets[i];
      if (t.waits == Waits::kNextGen && dying && !closing) {
        t.waits = Waits::kParked;
      } else if (t.waits == Waits::kParked || t.waits == Waits::kNextGen) {
        Decide(i, !dying ? Got::kError : closing ? Got::kShutDown : Got::kStopped);
      }
    }
    if (!AnyAcquirerWaits()) return;
    if (s_.shard == ShardState::kNew) {
      Step(ShardOp::kInitialize, kTickets, false, false);
    } else if (s_.shard == ShardState::kErrored) {
      Step(ShardOp::kRecover, kTickets, false, false);
    } else {
      StartOpen();
    }
  }

  void AnswerStopped() {
    if (s_.stale.work != Work::kNone) return;  // in this model nobody waits for two
    for (size_t i = 0; i < kTickets; ++i) {
      if (s_.tickets[i].waits == Waits::kStopping) {
        Decide(i, s_.tickets[i].asked_to_stop ? Got::kStopped : Got::kShutDown);
      }
    }
  }

  void Leave(size_t ticket, Got got, bool worth_finishing) {
    ModelState::Ticket& t = s_.tickets[ticket];
    const bool member = t.waits == Waits::kParked && Wants(ticket, s_.job.work) && s_.job.work != Work::kDestroy;
    size_t members = 0;
    for (size_t i = 0; i < kTickets; ++i) {
      members += s_.tickets[i].waits == Waits::kParked && Wants(i, s_.job.work) ? 1 : 0;
    }
    const bool last = members == 1 || mutant_ == Mutant::kCancelHitsOthers;
    if (member && last && !s_.job.dying && !s_.job.fill) {
      if (worth_finishing) {
        s_.job.fill = true;
      } else {
        s_.job.dying = true;
      }
    }
    if (member && s_.job.dying && mutant_ != Mutant::kEarlyAnswer) {
      t.waits = Waits::kStopping;
      return;
    }
    Decide(ticket, got);
    const bool wanted = AnyAcquirerWaits() || s_.tickets[kDestroyer].waits == Waits::kParked;
    if (s_.queued && !wanted) {
      s_.queued = false;
      Step(ShardOp::kFail, kTickets, true, true);
    }
  }

  void JobEnds(bool ok, bool transient) {
    const ModelState::Job job = std::exchange(s_.job, ModelState::Job());
    AnswerStopped();
    if (ok) {
      if (job.work == Work::kOpen) s_.open = true;
      Step(job.work == Work::kInitialize ? ShardOp::kMakeAvailable
           : job.work == Work::kOpen     ? ShardOp::kServe
                                         : ShardOp::kForget,
           kTickets, false, false);
      return;
    }
    const bool cancelled = job.dying && mutant_ != Mutant::kCancelIsFailure;
    Step(ShardOp::kFail, kTickets, transient || cancelled, cancelled);
    if (job.dying && s_.shard == ShardState::kErrored && !cancelled) ++s_.failed_by_stop;
  }

  bool Do(const Action& action) {
    ModelState::Ticket& t = s_.tickets[action.ticket];
    const bool waits = t.waits == Waits::kParked || t.waits == Waits::kNextGen;
    switch (action.act) {
      case Act::kAsk:
        if (t.waits != Waits::kNotAsked || s_.closing != Closing::kOpen || !s_.exists) return false;
        Step(action.ticket == kDestroyer ? ShardOp::kDestroy : ShardOp::kAcquire, action.ticket, false, false);
        return true;
      case Act::kStop:
      case Act::kNearlyDone: {
        if (action.act == Act::kStop && t.waits == Waits::kDone && mutant_ == Mutant::kResultAfterDecided) {
          if (t.results == 1) ++t.results;
          return true;
        }
        if (!waits) return false;  // a no-op
        const bool fill = action.act == Act::kNearlyDone;
        if (fill && (s_.closing != Closing::kOpen || s_.job.work == Work::kNone || s_.job.work == Work::kDestroy)) {
          return false;
        }
        t.asked_to_stop = true;
        Leave(action.ticket, Got::kStopped, fill);
        return true;
      }
      case Act::kRelease:
        if (!t.has_accessor) return false;
        t.has_accessor = false;
        Step(ShardOp::kRelease, kTickets, false, false);
        return true;
      case Act::kBegin:
        if (!s_.queued) return false;
        s_.queued = false;
        s_.job = {Work::kInitialize, s_.closing == Closing::kStopping};
        return true;
      case Act::kEndsWell:
        if (s_.job.work == Work::kNone) return false;
        JobEnds(true, false);
        return true;
      case Act::kFails:
      case Act::kFailsForGood:
        if (s_.job.work == Work::kNone || s_.job.work == Work::kDestroy) return false;
        JobEnds(false, action.act == Act::kFails);
        return true;
      case Act::kStops:
        if (!s_.job.dying) return false;
        JobEnds(false, true);
        return true;
      case Act::kStaleEnds:
        if (s_.stale.work == Work::kNone) return false;
        s_.stale = {};
        AnswerStopped();
        if (s_.shard == ShardState::kDestroying) StartDestroy();
        return true;
      case Act::kFillTimeIsUp: {
        if (!s_.job.fill) return false;
        s_.job.fill = false;
        bool wanted = false;
        for (size_t i = 0; i < kTickets; ++i) {
          wanted = wanted || (s_.tickets[i].waits == Waits::kParked && Wants(i, s_.job.work));
        }
        if (!wanted) s_.job.dying = s_.job.straggler = true;  // nobody waits for its end
        return true;
      }
      case Act::kGraceIsUp:
        if (!s_.job.dying || s_.job.straggler) return false;
        s_.job.straggler = true;
        for (size_t i = 0; i < kTickets; ++i) {
          if (s_.tickets[i].waits == Waits::kStopping) {
            Decide(i, s_.tickets[i].asked_to_stop ? Got::kStopped : Got::kShutDown);
          }
        }
        return true;
      case Act::kForget:
        if (!s_.open || s_.refs != 0) return false;
        s_.open = false;
        return true;
      case Act::kBeginClose:
        if (s_.closing != Closing::kOpen) return false;
        s_.closing = Closing::kDraining;
        for (size_t i = 0; i < kTickets; ++i) {
          if (s_.tickets[i].waits == Waits::kNextGen) Decide(i, Got::kShutDown);
        }
        return true;
      case Act::kStopEverything:
        if (s_.closing != Closing::kDraining) return false;
        s_.closing = Closing::kStopping;
        if (s_.job.work != Work::kDestroy && s_.job.work != Work::kNone) s_.job.dying = true;
        for (size_t i = 0; i < kAcquirers; ++i) {
          if (s_.tickets[i].waits != Waits::kParked && s_.tickets[i].waits != Waits::kNextGen) continue;
          if (mutant_ == Mutant::kCloseDrops) {
            s_.tickets[i].waits = Waits::kNotAsked;
            s_.tickets[i].asked_to_stop = true;  // to be told from one that never asked
            continue;
          }
          Leave(i, Got::kShutDown, false);
        }
        if (s_.queued) {
          s_.queued = false;
          Step(ShardOp::kFail, kTickets, true, true);
        }
        return true;
    }
    return false;
  }

  const Mutant mutant_;
  ModelState s_;
};

std::vector<Action> AllActions() {
  std::vector<Action> actions;
  for (const Act act : {Act::kBegin, Act::kEndsWell, Act::kFails, Act::kFailsForGood, Act::kStops, Act::kStaleEnds,
                        Act::kFillTimeIsUp, Act::kGraceIsUp, Act::kForget, Act::kBeginClose, Act::kStopEverything}) {
    actions.push_back({act, 0});
  }
  for (size_t ticket = 0; ticket < kTickets; ++ticket) {
    for (const Act act : {Act::kAsk, Act::kStop, Act::kRelease, Act::kNearlyDone}) actions.push_back({act, ticket});
  }
  return actions;
}

struct Exploration {
  size_t states = 0;
  size_t transitions = 0;
  std::string violation = {};  // the first
};

Exploration Explore(Mutant mutant) {
  Model model(mutant);
  const std::vector<Action> actions = AllActions();
  Exploration found;
  std::unordered_set<std::string> seen;
  std::deque<ModelState> todo;
  const auto visit = [&](const ModelState& state) {
    if (seen.insert(state.Bytes()).second) todo.push_back(state);
  };
  for (const ShardState start : {ShardState::kNew, ShardState::kAvailable, ShardState::kErrored}) {
    ModelState state;
    state.shard = start;
    visit(state);
  }
  while (!todo.empty() && found.violation.empty()) {
    const ModelState state = todo.front();
    todo.pop_front();
    found.violation = model.Check(state);
    if (!found.violation.empty()) break;
    bool moves = false;
    for (const Action& action : actions) {
      const std::optional<ModelState> next = model.After(state, action);
      if (!next.has_value()) continue;
      ++found.transitions;
      const bool outside = action.act == Act::kAsk || action.act == Act::kStop || action.act == Act::kNearlyDone ||
                           action.act == Act::kRelease || action.act == Act::kForget;
      moves = moves || !outside;
      visit(*next);
    }
    if (!moves && state.closing == Closing::kStopping) found.violation = model.CheckEnd(state);
    // Forgotten by the mutant: it waits, and no one knows.
    for (const ModelState::Ticket& t : state.tickets) {
      if (t.waits == Waits::kNotAsked && t.asked_to_stop) found.violation = "closed, and a ticket has no result";
    }
  }
  found.states = seen.size();
  return found;
}

TEST_CASE("ticket model: no order of events breaks a rule") {
  const Exploration sound = Explore(Mutant::kNone);
  CHECK_EQ(sound.violation, "");
  MESSAGE(sound.states, " states, ", sound.transitions, " transitions");
  CHECK_GT(sound.states, 9'000);  // else something is never reached
}

TEST_CASE("ticket model: each broken rule is noticed") {
  const struct {
    Mutant mutant;
    const char* violation;
  } kMutants[] = {
      {Mutant::kCancelHitsOthers, "a dying job has members"},
      {Mutant::kEarlyAnswer, "a job runs, and nobody wants it or waits for its end"},
      {Mutant::kJoinsDyingJob, "a dying job has members"},
      {Mutant::kResultAfterDecided, "a ticket has two results"},
      {Mutant::kCancelIsFailure, "a stop is recorded as a failure"},
      {Mutant::kCloseDrops, "closed, and a ticket has no result"},
  };
  for (const auto& mutant : kMutants) {
    CAPTURE(mutant.violation);
    CHECK_EQ(Explore(mutant.mutant).violation, mutant.violation);
  }
}

}  // namespace
}  // namespace dagstore
