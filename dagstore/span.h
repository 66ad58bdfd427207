// SpanRecord: one finished piece of work as traces show it, in a form that costs no allocation while it is made.
// SpanSink: where finished spans go. dagstore/tracer.h is the real one.
//
// Names and attribute keys are literals of the program and have few values; what differs from case to case (keys,
// counts) is the value of an attribute. docs/operations.md#tracing lists them.
#pragma once

#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "base/task_meta.h"

namespace dagstore {

// OTLP's numbers.
enum class SpanKind : uint8_t { kInternal = 1, kServer = 2, kClient = 3, kProducer = 4, kConsumer = 5 };
enum class SpanStatus : uint8_t { kUnset = 0, kOk = 1, kError = 2 };

// The key of the text that is sent as the message of the status, and as no attribute.
inline constexpr char kStatusMessage[] = "status.message";

// The part of a record that has one size.
struct SpanHead {
  const char* name = "";
  SpanContext span = {};
  SpanContext parent = {};  // invalid: a root
  MonotonicNanos start = 0;
  MonotonicNanos end = 0;
  SpanKind kind = SpanKind::kInternal;
  SpanStatus status = SpanStatus::kUnset;
  uint8_t attribute_count = 0;
  uint16_t attributes_dropped = 0;
  uint16_t text_size = 0;  // of all text values together
  uint32_t links_dropped = 0;
};
static_assert(std::is_trivially_copyable_v<SpanHead>);

// One owner, one thread.
class SpanRecord : public SpanHead {
 public:
  // An acquire has six; more are counted and left out.
  static constexpr size_t kAttributesMax = 12;
  // Of all text values together; a longer one is cut. Most keys and messages fit.
  static constexpr size_t kTextBytesMax = 256;
  // As the specification's default; more are counted and left out.
  static constexpr size_t kLinksMax = 128;

  struct Attribute {
    enum class Type : uint8_t { kInt, kBool, kText };
    const char* key;
    int64_t number;
    uint16_t begin, size;  // of a text
    Type type;
  };

  SpanRecord() = default;
  SpanRecord(const char* span_name, const SpanContext& context, const SpanContext& parent_context,
             MonotonicNanos start_time) {
    name = span_name;
    span = context;
    parent = parent_context;
    start = start_time;
  }
  SpanRecord(const SpanRecord& other) : SpanHead(other), links(other.links), tracestate(other.tracestate) {
    CopyArrays(other);
  }
  SpanRecord(SpanRecord&& other) noexcept
      : SpanHead(other), links(std::move(other.links)), tracestate(std::move(other.tracestate)) {
    CopyArrays(other);
  }
  SpanRecord& operator=(const SpanRecord& other) {
    if (this != &other) *this = SpanRecord(other);
    return *this;
  }
  SpanRecord& operator=(SpanRecord&& other) noexcept {
    SpanHead::operator=(other);
    links = std::move(other.links);
    tracestate = std::move(other.tracestate);
    CopyArrays(other);
    return *this;
  }

  void Add(const char* key, int64_t value) {
    if (Attribute* attribute = New(key)) attribute->number = value;
  }
  void AddBool(const char* key, bool value) {
    if (Attribute* attribute = New(key)) {
      attribute->type = Attribute::Type::kBool;
      attribute->number = value ? 1 : 0;
    }
  }
  void AddText(const char* key, std::string_view value) {
    Attribute* attribute = New(key);
    if (attribute == nullptr) return;
    attribute->type = Attribute::Type::kText;
    attribute->begin = text_size;
    attribute->size = static_cast<uint16_t>(std::min(value.size(), kTextBytesMax - text_size));
    if (attribute->size != 0) std::memcpy(text_.data() + text_size, value.data(), attribute->size);
    text_size = static_cast<uint16_t>(text_size + attribute->size);
  }
  void Link(const SpanContext& other) {
    if (!other.IsValid()) return;
    if (links.size() == kLinksMax) {
      ++links_dropped;
    } else {
      links.push_back(other);
    }
  }
  // OK leaves the status unset. A message is what people read; error.type is what they count.
  void SetStatus(const absl::Status& outcome);

  std::string_view Text(const Attribute& attribute) const { return {text_.data() + attribute.begin, attribute.size}; }
  const Attribute* Find(std::string_view key) const {
    const auto end = attributes.begin() + attribute_count;
    const auto at = std::find_if(attributes.begin(), end, [&](const Attribute& a) { return a.key == key; });
    return at == end ? nullptr : &*at;
  }

  absl::InlinedVector<SpanContext, 1> links = {};
  std::shared_ptr<const std::string> tracestate = {};  // null if the trace has none
  std::array<Attribute, kAttributesMax> attributes;  // the first attribute_count mean something

 private:
  Attribute* New(const char* key) {
    if (attribute_count == kAttributesMax) {
      ++attributes_dropped;
      return nullptr;
    }
    Attribute& attribute = attributes[attribute_count++];
    attribute = {key, 0, 0, 0, Attribute::Type::kInt};
    return &attribute;
  }
  // What means something, and no more: most of a record is room that nobody used.
  void CopyArrays(const SpanRecord& other) {
    std::copy_n(other.attributes.begin(), attribute_count, attributes.begin());
    if (text_size != 0) std::memcpy(text_.data(), other.text_.data(), text_size);
  }

  std::array<char, kTextBytesMax> text_;  // the first text_size bytes mean something
};

struct SpanSinkStats {
  uint64_t recorded = 0;
  uint64_t exported = 0;
  uint64_t dropped_full = 0;    // there was no place
  uint64_t dropped_failed = 0;  // their export failed
  absl::Status last_error = absl::OkStatus();
};

// Any thread. Never blocks, never fails: what there is no place for is dropped and counted.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void Record(SpanRecord&& span) = 0;
  // Waits until what was recorded has left, or `timeout` has passed. Not on the loop.
  virtual absl::Status Flush(absl::Duration timeout) {
    (void)timeout;
    return absl::OkStatus();
  }
  virtual SpanSinkStats Stats() const { return {}; }
};

// Part of Options.
struct TraceOptions {
  // Where finished spans go; null: nothing is traced. A Tracer (dagstore/tracer.h), or a sink of the embedder's own.
  std::shared_ptr<SpanSink> sink = {};
  // Which traces are recorded. If a sink is given and nothing else is said: what callers sample, and 1 % of the rest.
  TraceSampler sampler = TraceSampler(TraceSampler::Kind::kParentBased, 0.01);
  // Of requests that name no parent: a program that is one task from its start to its end sets it.
  SpanContext parent = {};
  // Of the ids of spans. 0: from the system's generator. A simulation sets it.
  uint64_t seed = 0;
};

// The name of a code as error.type has it: "DEADLINE_EXCEEDED".
const char* ErrorType(absl::StatusCode code);

}  // namespace dagstore
