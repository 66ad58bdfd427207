#include "base/task_meta.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

TEST_CASE("task meta: a traceparent header round-trips") {
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const SpanContext span = ValueOf(SpanContext::FromTraceparent(header));
  CHECK(span.IsValid());
  CHECK(span.IsSampled());
  CHECK(span.is_remote);
  CHECK_EQ(span.ToTraceparent(), header);
}

TEST_CASE("task meta: malformed traceparent headers are refused") {
  for (std::string_view header :
       {"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"}) {
    CAPTURE(header);
    CHECK_CODE(SpanContext::FromTraceparent(header), kInvalidArgument);
  }
  CHECK_STATUS_OK(SpanContext::FromTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"));
}

TEST_CASE("task meta: a child inherits the deadline or less, detached work is linked and out of reach") {
  const TaskMeta parent(SpanContext::NewRoot(true), Deadline::At(1000), 7);
  const TaskMeta child = parent.Child(parent.span.NewChild(), Deadline::At(2000));
  CHECK_EQ(child.deadline.at(), 1000);
  CHECK_EQ(child.ticket, 7);
  CHECK_EQ(child.span.trace_id, parent.span.trace_id);
  CHECK_NE(child.span.span_id, parent.span.span_id);
  CHECK_EQ(parent.Child(parent.span.NewChild(), Deadline::At(500)).deadline.at(), 500);

  const TaskMeta detached = parent.Detached(SpanContext::NewRoot(false), Deadline::At(5000));
  CHECK_EQ(detached.ticket, 0);
  CHECK_EQ(detached.deadline.at(), 5000);
  CHECK(detached.cause == parent.span);
  CHECK_NE(detached.span.trace_id, parent.span.trace_id);
}

}  // namespace
}  // namespace dagstore
