// TaskMeta: what every task, event and job carries about its cause, by value. There is no stored context anywhere.
//
// Two derivations only:
//   Child(id)         work done for the ticket: same trace, same deadline or less, reached by the ticket's stop;
//   Detached(span)    a side effect: a new root span linked to its cause, its own deadline, out of reach of the stop.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/clock.h"
#include "base/splitmix.h"
#include "base/status.h"

namespace dagstore {

// W3C trace context of a span. 26 bytes, trivially copyable.
struct SpanContext {
  std::array<uint8_t, 16> trace_id = {};
  std::array<uint8_t, 8> span_id = {};
  uint8_t flags = 0;       // bit 0: sampled, bit 1: the trace id is random
  bool is_remote = false;  // came over a wire

  // Neither id is all zeros. Asked of every request, so by words.
  bool IsValid() const {
    uint64_t words[3];
    std::memcpy(words, trace_id.data(), 16);
    std::memcpy(words + 2, span_id.data(), 8);
    return (words[0] | words[1]) != 0 && words[2] != 0;
  }
  bool IsSampled() const { return (flags & 1) != 0; }
  friend bool operator==(const SpanContext&, const SpanContext&) = default;

  // "00-<trace>-<span>-<flags>", and any later version by its prefix. Unknown flags are dropped. InvalidArgument unless
  // the header is well formed.
  static absl::StatusOr<SpanContext> FromTraceparent(std::string_view header);
  std::string ToTraceparent() const;

  // A span of the same trace, named by the parent and `number`: who numbers its children needs no other source of ids.
  SpanContext Child(uint64_t number) const;
  // Turns a parent into its child of that id, which is not 0.
  void BecomeChild(uint64_t id) {
    std::memcpy(span_id.data(), &id, sizeof(id));
    is_remote = false;
  }
};
static_assert(sizeof(SpanContext) == 26 && std::is_trivially_copyable_v<SpanContext>);

// A tracestate header as it may be passed on: whole entries of at most 512 characters together, unknown ones unread.
// Empty if the header is malformed: then it is dropped, and the traceparent stands.
std::string CleanTracestate(std::string_view header);

// Ids of traces and spans: unique, not secret. The same seed gives the same ids, so a simulation can be repeated.
// One owner, one thread; RootOf any.
class SpanIds {
 public:
  explicit SpanIds(uint64_t seed);

  SpanContext Root(bool sampled) {
    const uint64_t high = Next(), low = Next();
    return Make(high, low, Next(), sampled);
  }
  // The id of a span below another.
  uint64_t Next() { return NotZero(NextSplitMix(state_)); }
  // The root span of request `number`, without a place to keep count in. Not sampled; Sample() decides.
  SpanContext RootOf(uint64_t number) const;

 private:
  static uint64_t NotZero(uint64_t id) { return id == 0 ? 1 : id; }
  static SpanContext Make(uint64_t trace_high, uint64_t trace_low, uint64_t span, bool sampled);

  friend struct SpanContext;

  const uint64_t root_high_, root_low_, root_span_;
  uint64_t state_;
};

// Which traces are recorded. The parent decides for its children; a ratio of the roots is taken by the low 56 bits of
// the trace id, so that every node that sees a trace decides alike, and a lower ratio takes a part of what a higher one
// does.
class TraceSampler {
 public:
  enum class Kind : uint8_t { kRatio, kParentBased };
  TraceSampler() = default;  // nothing, not even if the parent is sampled
  // `ratio` 0 to 1.
  TraceSampler(Kind kind, double ratio);

  // Of roots, 0 to 1.
  double ratio() const { return static_cast<double>(threshold_) / 72057594037927936.0; }
  // Changes the trace id of a new root so that every node that looks at it samples it, and marks it as sampled. For
  // whoever has decided by a count instead of an id. The ratio is not 0.
  void MakeSampled(SpanContext& root) const;
  bool Sample(const SpanContext& parent, const SpanContext& span) const {
    if (parent_based_ && parent.IsValid()) return parent.IsSampled();
    return LowBits(span) < threshold_;
  }

 private:
  static uint64_t LowBits(const SpanContext& span);
  bool parent_based_ = false;
  uint64_t threshold_ = 0;  // of 2^56
};

// Names one accepted request. 0 = none (work the store started itself).
using TicketId = uint64_t;

struct TaskMeta {
  SpanContext span;
  SpanContext cause;  // of detached work: the span it is linked to
  Deadline deadline;
  TicketId ticket = 0;

  // No default constructor: an event without a meta does not compile.
  TaskMeta(const SpanContext& span_context, Deadline until, TicketId ticket_id)
      : span(span_context), deadline(until), ticket(ticket_id) {}

  // `span_id` is not 0 (SpanIds::Next). The span is written in its place: one that is made elsewhere and then copied
  // makes the copy wait for the stores, which took three times as long.
  TaskMeta Child(uint64_t span_id, Deadline cap = Deadline::Infinite()) const {
    TaskMeta child(span, deadline.Min(cap), ticket);
    child.span.BecomeChild(span_id);
    return child;
  }
  TaskMeta Detached(const SpanContext& new_root, Deadline budget) const {
    TaskMeta detached(new_root, budget, 0);
    detached.cause = span;
    return detached;
  }
};
static_assert(std::is_trivially_copyable_v<TaskMeta>);

}  // namespace dagstore
