// Any bytes as the record of a shard, as they are and with the checksum made right, so that what lies behind it is
// reached. Properties: head and whole agree; what is read is written to bytes that are read as the same.
#include "base/check.h"
#include "base/crc32c.h"
#include "shard/record.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void CheckRecord(Span bytes) {
  const auto head = DecodeRecordHead(bytes);
  const auto record = DecodeRecord(bytes);
  DAGSTORE_CHECK(head.ok() || !record.ok());
  if (!record.ok()) return;
  DAGSTORE_CHECK(head->state == record->state && head->lazy == record->lazy && head->ordinal == record->ordinal);
  DAGSTORE_CHECK(head->has_copy == record->copy.has_value());
  const std::string encoded = EncodeRecord(*record);
  const auto again = DecodeRecord(AsSpan(encoded));
  DAGSTORE_CHECK(again.ok() && *again == *record);
}

}  // namespace

void FuzzOne(Span input) {
  CheckRecord(input);
  if (input.size() < 4) return;
  Bytes sealed(input.begin(), input.end());
  Store32(sealed.data() + sealed.size() - 4, Crc32c(Span(sealed).first(sealed.size() - 4)));
  CheckRecord(sealed);
}

}  // namespace dagstore
