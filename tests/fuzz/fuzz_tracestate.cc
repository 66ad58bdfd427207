// Any text as a tracestate header. Properties: what is passed on is short, plain, made of entries of the input, and
// passed on unchanged by the next one.
#include <algorithm>

#include "base/check.h"
#include "base/task_meta.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const std::string clean = CleanTracestate(AsText(input));
  DAGSTORE_CHECK(clean.size() <= 512);
  DAGSTORE_CHECK(std::all_of(clean.begin(), clean.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
  DAGSTORE_CHECK(CleanTracestate(clean) == clean);
  for (size_t at = 0; at < clean.size();) {
    const size_t end = std::min(clean.find(',', at), clean.size());
    const std::string entry = clean.substr(at, end - at);
    DAGSTORE_CHECK(!entry.empty() && entry.find('=') != entry.npos);
    DAGSTORE_CHECK(AsText(input).find(entry) != std::string_view::npos);
    at = end + 1;
  }
}

}  // namespace dagstore
