// Secret: text that must never be printed. It has no formatter, no operator<< and no conversion: code that would log it
// does not compile, and the one place that sends it says Reveal().
#pragma once

#include <string>
#include <utility>

namespace dagstore {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string text) : text_(std::move(text)) {}

  bool empty() const { return text_.empty(); }
  // For the wire or a hash only.
  const std::string& Reveal() const { return text_; }

  friend bool operator==(const Secret&, const Secret&) = default;

 private:
  std::string text_ = {};
};

}  // namespace dagstore
