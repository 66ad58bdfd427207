#include "shard/record.h"

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/varint.h"

// See docs/format.md#record. Layout: fixed head, length-prefixed body fields in order, CRC-32C of all before it.

namespace dagstore {
namespace {

constexpr size_t kHeadBytes = 8;  // version, state, flags, reserved, ordinal
constexpr size_t kTailBytes = 4;  // checksum

enum Flag : uint8_t {  // stored; never renumber
  kLazy = 1,
  kVerify = 2,
  kVerified = 4,
  kHasCopy = 8,
  kCopyOwned = 16,
  kInferredIndex = 32,  // since version 2
};

uint64_t ZigZag(int64_t v) { return (static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63); }
int64_t UnZigZag(uint64_t v) { return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1); }

void AppendText(std::string& out, std::string_view text) {
  AppendVarint(out, text.size());
  out += text;
}

class FieldReader {
 public:
  explicit FieldReader(Span bytes) : rest_(bytes) {}
  absl::Status Number(uint64_t& out) {
    ASSIGN_OR_RETURN(const Varint number, ReadVarint(rest_));
    rest_ = rest_.subspan(number.size);
    out = number.value;
    return absl::OkStatus();
  }
  absl::Status Number32(uint32_t& out) {
    uint64_t value = 0;
    RETURN_IF_ERROR(Number(value));
    if (value > UINT32_MAX) return DataLoss("record field {} does not fit 32 bits", value);
    out = static_cast<uint32_t>(value);
    return absl::OkStatus();
  }
  absl::Status Fixed32(uint32_t& out) {
    if (rest_.size() < 4) return DataLoss("record ends inside a number");
    out = Load32(rest_.data());
    rest_ = rest_.subspan(4);
    return absl::OkStatus();
  }
  absl::Status Text(std::string& out) {
    uint64_t size = 0;
    RETURN_IF_ERROR(Number(size));
    if (size > rest_.size()) return DataLoss("record text of {} bytes runs past its end", size);
    out = AsText(rest_.first(size));
    rest_ = rest_.subspan(size);
    return absl::OkStatus();
  }
  bool AtEnd() const { return rest_.empty(); }

 private:
  Span rest_;
};

// Checks size, version and checksum; returns the body between head and checksum.
absl::StatusOr<Span> CheckEnvelope(Span bytes) {
  if (bytes.size() < kHeadBytes + kTailBytes) return DataLoss("record of {} bytes is too short", bytes.size());
  if (bytes[0] > kRecordVersion && !Mutant(kMutantNewerRecordRead)) {
    return FailedPrecondition("record version {} is newer than {}", bytes[0], kRecordVersion);
  }
  if (bytes[0] == 0) return DataLoss("record version 0");
  const Span content = bytes.first(bytes.size() - kTailBytes);
  const bool sound = Crc32c(content) == Load32(bytes.data() + content.size());
  if (!sound && !Mutant(kMutantRecordUnchecked)) return DataLoss("record checksum is wrong");
  return content.subspan(kHeadBytes);
}

}  // namespace

std::string EncodeRecord(const ShardRecord& record) {
  uint8_t flags = 0;
  if (record.lazy) flags |= kLazy;
  if (record.verify) flags |= kVerify;
  if (record.verified) flags |= kVerified;
  if (record.copy.has_value()) flags |= kHasCopy;
  if (record.copy.has_value() && record.copy->owned) flags |= kCopyOwned;

  if (record.inferred_index) flags |= kInferredIndex;
  const bool newer = record.inferred_index || !record.also.empty();

  std::string out;
  out.reserve(64 + record.url.size() + record.validator.size() + record.error.size());
  out.push_back(static_cast<char>(newer ? 2 : 1));
  out.push_back(static_cast<char>(record.state));
  out.push_back(static_cast<char>(flags));
  out.push_back(0);
  Append32(out, record.ordinal);

  AppendVarint(out, record.attempts);
  AppendVarint(out, record.index_bytes);
  Append32(out, record.index_checksum);
  AppendVarint(out, record.blocks);
  AppendVarint(out, record.block_bytes);
  AppendVarint(out, record.unverified_blocks);
  AppendVarint(out, record.source_size);
  AppendVarint(out, ZigZag(record.registered_unix_ms));
  AppendVarint(out, ZigZag(record.indexed_unix_ms));
  AppendText(out, record.url);
  AppendText(out, record.validator);
  AppendVarint(out, static_cast<uint64_t>(record.error_code));
  AppendText(out, record.error);
  if (record.copy.has_value()) {
    AppendText(out, record.copy->name);
    AppendVarint(out, record.copy->size);
  }
  if (newer) {
    AppendVarint(out, record.also.size());
    for (const std::string& url : record.also) AppendText(out, url);
    AppendVarint(out, record.indexed_location);
  }
  Append32(out, Crc32c(AsSpan(out)));
  return out;
}

absl::StatusOr<RecordHead> DecodeRecordHead(Span bytes) {
  RETURN_IF_ERROR(CheckEnvelope(bytes).status());
  RecordHead head;
  if (!StateFromByte(bytes[1], head.state)) return DataLoss("record state {} is unknown", bytes[1]);
  head.lazy = (bytes[2] & kLazy) != 0;
  head.has_copy = (bytes[2] & kHasCopy) != 0;
  head.ordinal = Load32(bytes.data() + 4);
  return head;
}

absl::Status ShardRecord::Cause() const {
  // NotFound: so older programs stored a source that is gone.
  return Recoded(MakeStatus(static_cast<absl::StatusCode>(error_code), error), absl::StatusCode::kNotFound,
                 absl::StatusCode::kFailedPrecondition);
}

absl::StatusOr<ShardRecord> DecodeRecord(Span bytes) {
  ASSIGN_OR_RETURN(const Span body, CheckEnvelope(bytes));
  ASSIGN_OR_RETURN(const RecordHead head, DecodeRecordHead(bytes));
  ShardRecord record;
  record.state = head.state;
  record.lazy = head.lazy;
  record.ordinal = head.ordinal;
  record.verify = (bytes[2] & kVerify) != 0;
  record.verified = (bytes[2] & kVerified) != 0;

  FieldReader fields(body);
  RETURN_IF_ERROR(fields.Number32(record.attempts));
  RETURN_IF_ERROR(fields.Number(record.index_bytes));
  RETURN_IF_ERROR(fields.Fixed32(record.index_checksum));
  RETURN_IF_ERROR(fields.Number(record.blocks));
  RETURN_IF_ERROR(fields.Number(record.block_bytes));
  RETURN_IF_ERROR(fields.Number(record.unverified_blocks));
  RETURN_IF_ERROR(fields.Number(record.source_size));
  uint64_t number = 0;
  RETURN_IF_ERROR(fields.Number(number));
  record.registered_unix_ms = UnZigZag(number);
  RETURN_IF_ERROR(fields.Number(number));
  record.indexed_unix_ms = UnZigZag(number);
  RETURN_IF_ERROR(fields.Text(record.url));
  RETURN_IF_ERROR(fields.Text(record.validator));
  RETURN_IF_ERROR(fields.Number(number));
  if (number > 16) return DataLoss("record error code {} is unknown", number);
  record.error_code = static_cast<int>(number);
  RETURN_IF_ERROR(fields.Text(record.error));
  if (head.has_copy) {
    TransientRecord copy;
    RETURN_IF_ERROR(fields.Text(copy.name));
    RETURN_IF_ERROR(fields.Number(copy.size));
    copy.owned = (bytes[2] & kCopyOwned) != 0;
    record.copy = std::move(copy);
  }
  if (bytes[0] >= 2) {
    record.inferred_index = (bytes[2] & kInferredIndex) != 0;
    RETURN_IF_ERROR(fields.Number(number));
    if (number >= kLocationsMax) return DataLoss("record has {} further locations", number);
    for (uint64_t left = number; left != 0; --left) {
      std::string url;
      RETURN_IF_ERROR(fields.Text(url));
      record.also.push_back(std::move(url));
    }
    RETURN_IF_ERROR(fields.Number32(record.indexed_location));
    if (record.indexed_location > record.also.size())
      return DataLoss("record was indexed from location {} of {}", record.indexed_location, record.also.size() + 1);
  }
  if (!fields.AtEnd()) return DataLoss("record has bytes after its last field");
  return record;
}

}  // namespace dagstore
