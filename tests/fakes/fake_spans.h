// FakeSpanSink: keeps the spans that were recorded, and prints them as a tree.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "dagstore/span.h"

namespace dagstore {

// Any thread.
class FakeSpanSink final : public SpanSink {
 public:
  void Record(SpanRecord&& span) override {
    MutexLock lock(mu_);
    spans_.push_back(std::move(span));
  }

  std::vector<SpanRecord> Take() {
    MutexLock lock(mu_);
    return std::exchange(spans_, {});
  }
  size_t size() const {
    MutexLock lock(mu_);
    return spans_.size();
  }
  std::vector<SpanRecord> Named(std::string_view name) const {
    MutexLock lock(mu_);
    std::vector<SpanRecord> found;
    for (const SpanRecord& span : spans_) {
      if (span.name == name) found.push_back(span);
    }
    return found;
  }

 private:
  mutable Mutex mu_;
  std::vector<SpanRecord> spans_ ABSL_GUARDED_BY(mu_);
};

// One line a span, children indented below their parents, siblings by name: "name [error.type] -> name of what it links
// to". Spans whose parent is not there stand at the left, marked "(remote parent)".
inline std::string SpanTree(const std::vector<SpanRecord>& spans) {
  const auto name_of = [&](const SpanContext& context) -> std::string {
    for (const SpanRecord& span : spans) {
      if (span.span == context) return span.name;
    }
    return "?";
  };
  const auto line_of = [&](const SpanRecord& span) {
    std::string line = span.name;
    if (const auto* type = span.Find("error.type")) line += fmt::format(" [{}]", span.Text(*type));
    if (const auto* reason = span.Find("dagstore.stop_reason")) line += fmt::format(" ({})", span.Text(*reason));
    if (span.Find("dagstore.trace.partial") != nullptr) line += " (partial)";
    std::vector<std::string> links;
    for (const SpanContext& link : span.links) links.push_back(name_of(link));
    std::sort(links.begin(), links.end());
    for (const std::string& link : links) line += " -> " + link;
    return line;
  };
  std::string out;
  const auto print = [&](const auto& self, const SpanContext* parent, const std::string& indent) -> void {
    std::vector<std::pair<std::string, const SpanRecord*>> below;
    for (const SpanRecord& span : spans) {
      const bool has_parent = std::any_of(spans.begin(), spans.end(),
                                          [&](const SpanRecord& other) { return other.span == span.parent; });
      if (parent == nullptr ? !has_parent : span.parent == *parent) {
        const bool outside = parent == nullptr && span.parent.IsValid();
        below.emplace_back(line_of(span) + (outside ? " (remote parent)" : ""), &span);
      }
    }
    std::sort(below.begin(), below.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& entry : below) {
      out += indent + entry.first + "\n";
      self(self, &entry.second->span, indent + "  ");
    }
  };
  print(print, nullptr, "");
  return out;
}

}  // namespace dagstore
