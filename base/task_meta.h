// TaskMeta: what every task, event and job carries about its cause, by value. There is no stored context anywhere.
//
// Two derivations only:
//   Child(span)       work done for the ticket: same trace, same deadline or less, reached by the ticket's stop;
//   Detached(span)    a side effect: a new root span linked to its cause, its own deadline, out of reach of the stop.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/clock.h"
#include "base/status.h"

namespace dagstore {

// W3C trace context of a span. 26 bytes, trivially copyable.
struct SpanContext {
  std::array<uint8_t, 16> trace_id = {};
  std::array<uint8_t, 8> span_id = {};
  uint8_t flags = 0;       // bit 0: sampled
  bool is_remote = false;  // came over a wire

  bool IsValid() const { return trace_id != decltype(trace_id){} && span_id != decltype(span_id){}; }
  bool IsSampled() const { return (flags & 1) != 0; }
  friend bool operator==(const SpanContext&, const SpanContext&) = default;

  // "00-<trace>-<span>-<flags>". InvalidArgument unless the header is well formed.
  static absl::StatusOr<SpanContext> FromTraceparent(std::string_view header);
  std::string ToTraceparent() const;
  // A new trace.
  static SpanContext NewRoot(bool sampled);
  // A new span of the same trace; of a new unsampled trace if *this is invalid.
  SpanContext NewChild() const;
};
static_assert(sizeof(SpanContext) == 26 && std::is_trivially_copyable_v<SpanContext>);

// Names one accepted request. 0 = none (work the store started itself).
using TicketId = uint64_t;

struct TaskMeta {
  SpanContext span;
  SpanContext cause;  // of detached work: the span it is linked to
  Deadline deadline;
  TicketId ticket = 0;

  // No default constructor: an event without a meta does not compile.
  TaskMeta(SpanContext span_context, Deadline until, TicketId ticket_id)
      : span(span_context), deadline(until), ticket(ticket_id) {}

  TaskMeta Child(SpanContext child_span, Deadline cap = Deadline::Infinite()) const {
    TaskMeta child(child_span, deadline.Min(cap), ticket);
    return child;
  }
  TaskMeta Detached(SpanContext new_root, Deadline budget) const {
    TaskMeta detached(new_root, budget, 0);
    detached.cause = span;
    return detached;
  }
};
static_assert(std::is_trivially_copyable_v<TaskMeta>);

}  // namespace dagstore
