#include "base/task_meta.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/mutant.h"
#include "base/text.h"

namespace dagstore {
namespace {

constexpr uint8_t kSampled = 1;
constexpr uint8_t kRandom = 2;
constexpr uint64_t kLowBits = (uint64_t{1} << 56) - 1;  // what a sampler looks at

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
  span.flags &= kSampled | kRandom;
  span.is_remote = true;
  return span;
}

std::string SpanContext::ToTraceparent() const {
  return fmt::format("00-{}-{}-{:02x}", ToHex(trace_id), ToHex(span_id), flags & (kSampled | kRandom));
}

SpanContext SpanContext::Child(uint64_t number) const {
  SpanContext child = *this;
  child.BecomeChild(SpanIds::NotZero(MixBits(Load64(span_id.data()) + kSplitMixStep * (number + 1))));
  return child;
}

namespace {

bool IsLowerAlphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// "vendor", "tenant@system": as the recommendation has it.
bool IsTracestateKey(std::string_view key) {
  if (key.empty() || key.size() > 256 || !IsLowerAlphanumeric(key[0])) return false;
  size_t ats = 0;
  for (const char c : key) {
    if (c == '@') {
      ++ats;
    } else if (!IsLowerAlphanumeric(c) && c != '_' && c != '-' && c != '*' && c != '/') {
      return false;
    }
  }
  if (ats > 1) return false;
  const size_t at = key.find('@');
  if (at == std::string_view::npos) return true;
  return at >= 1 && at <= 241 && key.size() - at - 1 >= 1 && key.size() - at - 1 <= 14;
}
bool IsTracestateValue(std::string_view value) {
  return !value.empty() && value.size() <= 256 && value.back() != ' ' &&
         std::all_of(value.begin(), value.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7e && c != ',' && c != '='; });
}

}  // namespace

std::string CleanTracestate(std::string_view header) {
  constexpr size_t kBytesMax = 512;
  constexpr size_t kLongEntry = 128;  // dropped first
  constexpr size_t kEntriesMax = 32;
  std::vector<std::string_view> entries;
  for (size_t begin = 0; begin <= header.size();) {
    const size_t end = std::min(header.find(',', begin), header.size());
    const std::string_view entry = TrimBlanks(header.substr(begin, end - begin));
    begin = end + 1;
    if (entry.empty()) continue;
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) return {};
    const std::string_view key = entry.substr(0, equals);
    if (!IsTracestateKey(key) || !IsTracestateValue(entry.substr(equals + 1))) return {};
    for (const std::string_view other : entries) {
      if (other.substr(0, other.find('=')) == key) return {};  // twice
    }
    if (entries.size() == kEntriesMax) return {};
    entries.push_back(entry);
  }
  const auto size = [&] {
    size_t bytes = entries.empty() ? 0 : entries.size() - 1;
    for (const std::string_view entry : entries) bytes += entry.size();
    return bytes;
  };
  // Whole entries only: the long ones, then those at the end, which are the oldest.
  for (size_t i = entries.size(); i-- > 0 && size() > kBytesMax;) {
    if (entries[i].size() > kLongEntry) entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(i));
  }
  while (size() > kBytesMax) entries.pop_back();
  std::string out;
  for (const std::string_view entry : entries) {
    if (!out.empty()) out += ',';
    out += entry;
  }
  return out;
}

SpanContext SpanIds::Make(uint64_t trace_high, uint64_t trace_low, uint64_t span, bool sampled) {
  SpanContext made;
  Store64(made.trace_id.data(), trace_high);
  Store64(made.trace_id.data() + 8, NotZero(trace_low));
  Store64(made.span_id.data(), NotZero(span));
  made.flags = sampled ? kRandom | kSampled : kRandom;
  return made;
}

// Three streams for RootOf, which start elsewhere than Next().
SpanIds::SpanIds(uint64_t seed)
    : root_high_(MixBits(seed ^ 0x6a09e667f3bcc908)),
      root_low_(MixBits(seed ^ 0xbb67ae8584caa73b)),
      root_span_(MixBits(seed ^ 0x3c6ef372fe94f82b)),
      state_(seed) {}

SpanContext SpanIds::RootOf(uint64_t number) const {
  const uint64_t step = kSplitMixStep * number;
  return Make(MixBits(root_high_ + step), MixBits(root_low_ + step), MixBits(root_span_ + step), false);
}

TraceSampler::TraceSampler(Kind kind, double ratio) : parent_based_(kind == Kind::kParentBased) {
  constexpr double kAll = 72057594037927936.0;  // 2^56
  threshold_ = !(ratio > 0) ? 0 : ratio >= 1 ? uint64_t{1} << 56 : static_cast<uint64_t>(std::ceil(ratio * kAll));
}

void TraceSampler::MakeSampled(SpanContext& root) const {
  const uint64_t half = Load64Big(root.trace_id.data() + 8);
  const uint64_t low = static_cast<uint64_t>((static_cast<unsigned __int128>(half & kLowBits) * threshold_) >> 56);
  Store64(root.trace_id.data() + 8, __builtin_bswap64((half & ~kLowBits) | low));
  root.flags |= kSampled;
}

uint64_t TraceSampler::LowBits(const SpanContext& span) {
  return Load64Big(span.trace_id.data() + 8) & kLowBits;  // network order, as W3C has it
}

}  // namespace dagstore
