#include "base/task_meta.h"

#include <random>

#include "base/bytes.h"
#include "base/mutant.h"

namespace dagstore {
namespace {

// Ids need to be unique, not secret. One generator a thread, seeded from the system.
uint64_t RandomId() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  uint64_t id = 0;
  while (id == 0) id = generator();
  return id;
}

bool ParseLowerHex(std::string_view text, uint8_t* out) {
  for (char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  auto bytes = FromHex(text);
  if (!bytes.ok()) return false;
  std::memcpy(out, bytes->data(), bytes->size());
  return true;
}

}  // namespace

absl::StatusOr<SpanContext> SpanContext::FromTraceparent(std::string_view header) {
  constexpr size_t kSize = 55;
  SpanContext span;
  uint8_t version = 0;
  if (header.size() < kSize || header[2] != '-' || header[35] != '-' || header[52] != '-' ||
      !ParseLowerHex(header.substr(0, 2), &version) ||
      !ParseLowerHex(header.substr(3, 32), span.trace_id.data()) ||
      !ParseLowerHex(header.substr(36, 16), span.span_id.data()) ||
      !ParseLowerHex(header.substr(53, 2), &span.flags)) {
    return InvalidArgument("traceparent is not of the form 00-<32 hex>-<16 hex>-<2 hex>");
  }
  if (version == 0xff) return InvalidArgument("traceparent version ff is invalid");
  if (version == 0 ? header.size() != kSize : (header.size() > kSize && header[kSize] != '-')) {
    return InvalidArgument("traceparent has trailing characters");
  }
  if (!span.IsValid() && !Mutant(kMutantZeroTraceTaken)) return InvalidArgument("traceparent has an all-zero id");
  span.is_remote = true;
  return span;
}

std::string SpanContext::ToTraceparent() const {
  return fmt::format("00-{}-{}-{:02x}", ToHex(trace_id), ToHex(span_id), flags & 3);
}

SpanContext SpanContext::NewRoot(bool sampled) {
  SpanContext span;
  Store64(span.trace_id.data(), RandomId());
  Store64(span.trace_id.data() + 8, RandomId());
  Store64(span.span_id.data(), RandomId());
  span.flags = sampled ? 3 : 2;  // bit 1: the trace id is random
  return span;
}

SpanContext SpanContext::NewChild() const {
  if (!IsValid()) return NewRoot(false);
  SpanContext child = *this;
  Store64(child.span_id.data(), RandomId());
  child.is_remote = false;
  return child;
}

}  // namespace dagstore
