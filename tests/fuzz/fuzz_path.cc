// Any text as a path into a DAG. Properties: limits hold; segments are parts of the text without slashes; the canonical
// spelling of what was read is read as the same.
#include "base/check.h"
#include "dag/path.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {

void FuzzOne(Span input) {
  const auto path = ParseDagPath(AsText(input));
  if (!path.ok()) return;
  DAGSTORE_CHECK(!path->root.empty() && path->segments.size() <= kPathSegmentsMax);
  std::string text = "/ipfs/" + path->root.ToText();
  for (const std::string& segment : path->segments) {
    DAGSTORE_CHECK(!segment.empty() && segment.find('/') == segment.npos);
    text += "/" + segment;
  }
  if (text.size() > kPathTextBytesMax) return;
  const auto again = ParseDagPath(text);
  DAGSTORE_CHECK(again.ok() && again->root == path->root && again->segments == path->segments);
}

}  // namespace dagstore
