// Any text as a traceparent header. Properties: what is accepted is valid and written to a header that means the same.
#include "base/check.h"
#include "base/task_meta.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const auto span = SpanContext::FromTraceparent(AsText(input));
  if (!span.ok()) return;
  DAGSTORE_CHECK(span->IsValid() && span->is_remote);
  const auto again = SpanContext::FromTraceparent(span->ToTraceparent());
  DAGSTORE_CHECK(again.ok() && again->trace_id == span->trace_id && again->span_id == span->span_id);
  DAGSTORE_CHECK(again->IsSampled() == span->IsSampled());
}

}  // namespace dagstore
