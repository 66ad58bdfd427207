#include "shard/record.h"

#include <cstdlib>

#include "base/crc32c.h"
#include "base/varint.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

ShardRecord Full() {
  ShardRecord record;
  record.state = ShardState::kErrored;
  record.lazy = true;
  record.verify = false;
  record.ordinal = 0x01020304;
  record.attempts = 3;
  record.index_bytes = uint64_t{1} << 40;
  record.index_checksum = 0xdeadbeef;
  record.blocks = 1'000'000;
  record.block_bytes = uint64_t{32} << 30;
  record.unverified_blocks = 2;
  record.verified = true;
  record.source_size = (uint64_t{32} << 30) + 51;
  record.registered_unix_ms = 1'700'000'000'123;
  record.indexed_unix_ms = -1;
  record.url = "https://example.org/a%20b.car?token=s3cret";
  record.validator = std::string("\"etag\"\0with zero", 16);
  record.copy = TransientRecord{"abc.5.car", 77, /*owned=*/true};
  record.error_code = static_cast<int>(absl::StatusCode::kDataLoss);
  record.error = "section at 51: not a CID";
  return record;
}

ShardRecord Elsewhere() {
  ShardRecord record = Full();
  record.also = {"https://mirror.example/a.car", "s3://bucket/a.car"};
  record.indexed_location = 2;
  record.inferred_index = true;
  return record;
}

// What a golden file holds: hex, 32 bytes a line. Written anew if DAGSTORE_UPDATE_GOLDEN is set.
Bytes Golden(const std::string& name, const std::string& encoded) {
  const std::string path = TestDataPath("../golden/" + name);
  if (std::getenv("DAGSTORE_UPDATE_GOLDEN") != nullptr) {
    std::ofstream file(path);
    for (size_t at = 0; at < encoded.size(); at += 32)
      file << ToHex(AsSpan(encoded).subspan(at).first(std::min<size_t>(32, encoded.size() - at))) << "\n";
  }
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), "no golden file ", path);
  Bytes out;
  char digits[3] = {};
  while (file >> digits[0] >> digits[1]) out.push_back(static_cast<uint8_t>(std::strtoul(digits, nullptr, 16)));
  return out;
}

std::string Sealed(std::string content) {  // with a right checksum
  Append32(content, Crc32c(AsSpan(content)));
  return content;
}

TEST_CASE("record: every field survives being written and read, also the empty ones and the largest") {
  constexpr uint64_t kLargest = INT64_MAX;  // what a varint holds
  ShardRecord largest = Full();
  largest.ordinal = largest.attempts = largest.index_checksum = UINT32_MAX;
  largest.index_bytes = largest.blocks = largest.block_bytes = largest.unverified_blocks = largest.source_size =
      kLargest;
  largest.registered_unix_ms = INT64_MAX / 2;
  largest.indexed_unix_ms = INT64_MIN / 2;
  largest.copy->size = kLargest;
  largest.copy->owned = false;
  largest.error_code = 16;
  largest.url = std::string(2 << 20, 'x');
  ShardRecord inferred = Full();
  inferred.inferred_index = true;
  for (const ShardRecord& record : {ShardRecord(), Full(), largest, Elsewhere(), inferred}) {
    const std::string encoded = EncodeRecord(record);
    CHECK(ValueOf(DecodeRecord(AsSpan(encoded))) == record);
    const RecordHead head = ValueOf(DecodeRecordHead(AsSpan(encoded)));
    CHECK(head.state == record.state);
    CHECK_EQ(head.lazy, record.lazy);
    CHECK_EQ(head.has_copy, record.copy.has_value());
    CHECK_EQ(head.ordinal, record.ordinal);
  }
}

TEST_CASE("record: each version has the bytes it has on disks already") {
  for (const auto& file : {std::pair{"record_v1.hex", Full()}, {"record_v1_new.hex", ShardRecord()},
                           {"record_v2.hex", Elsewhere()}}) {
    const std::string name = file.first;
    const ShardRecord& record = file.second;
    CAPTURE(name);
    const std::string encoded = EncodeRecord(record);
    const Bytes golden = Golden(name, encoded);
    CHECK(SameBytes(AsSpan(encoded), golden));
    CHECK(ValueOf(DecodeRecord(golden)) == record);
  }
}

TEST_CASE("record: row 27: every cut and every flipped bit is DataLoss, never another record") {
  for (const std::string& encoded : {EncodeRecord(Full()), EncodeRecord(Elsewhere())}) {
  for (size_t size = 0; size < encoded.size(); ++size) {
    CAPTURE(size);
    CHECK_CODE(DecodeRecord(AsSpan(encoded).first(size)), kDataLoss);
    CHECK_CODE(DecodeRecordHead(AsSpan(encoded).first(size)), kDataLoss);
  }
  for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    CAPTURE(bit);
    std::string flipped = encoded;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto code = DecodeRecord(AsSpan(flipped)).status().code();
    // A flip in the version byte looks like a newer program's record: kept as well.
    CHECK((code == absl::StatusCode::kDataLoss || (bit < 8 && code == absl::StatusCode::kFailedPrecondition)));
    CHECK_FALSE(DecodeRecordHead(AsSpan(flipped)).ok());
  }
  CHECK_CODE(DecodeRecord(AsSpan(encoded + "x")), kDataLoss);
  }
}

TEST_CASE("record: what version 1 can say is written as version 1, so that older programs read it") {
  CHECK_EQ(EncodeRecord(Full())[0], 1);
  CHECK_EQ(EncodeRecord(Elsewhere())[0], 2);
  ShardRecord many = Full();
  many.also.resize(kLocationsMax, "https://mirror.example/a.car");
  CHECK_CODE(DecodeRecord(AsSpan(EncodeRecord(many))), kDataLoss);
  ShardRecord outside = Elsewhere();
  outside.indexed_location = 3;
  CHECK_CODE(DecodeRecord(AsSpan(EncodeRecord(outside))), kDataLoss);
}

TEST_CASE("record: row 27: one of a newer version is FailedPrecondition, whatever else it holds") {
  for (const int version : {3, 200, 255}) {
    std::string newer = EncodeRecord(Full());
    newer[0] = static_cast<char>(version);
    CHECK_CODE(DecodeRecord(AsSpan(newer)), kFailedPrecondition);
    CHECK_CODE(DecodeRecordHead(AsSpan(newer)), kFailedPrecondition);
  }
  std::string zero = EncodeRecord(Full());
  zero[0] = 0;
  CHECK_CODE(DecodeRecord(AsSpan(zero)), kDataLoss);
}

TEST_CASE("record: what no program of ours writes is DataLoss, though the checksum is right") {
  const std::string encoded = EncodeRecord(ShardRecord());
  const std::string content = encoded.substr(0, encoded.size() - 4);
  CHECK_STATUS_OK(DecodeRecord(AsSpan(Sealed(content))));
  const auto with_byte = [&](size_t at, int value) {
    std::string changed = content;
    changed[at] = static_cast<char>(value);
    return Sealed(changed);
  };
  CHECK_CODE(DecodeRecord(AsSpan(with_byte(1, 0))), kDataLoss);   // no such state
  CHECK_CODE(DecodeRecord(AsSpan(with_byte(1, 8))), kDataLoss);
  CHECK_CODE(DecodeRecord(AsSpan(Sealed(content + '\0'))), kDataLoss);
  for (size_t size = 0; size < content.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(DecodeRecord(AsSpan(Sealed(content.substr(0, size)))).ok());
  }
  // Texts that claim more than there is allocate nothing.
  std::string huge =
      content.substr(0, 8) + std::string(1, '\0') + std::string(1, '\0') + std::string(4, '\0') + std::string(6, '\0');
  AppendVarint(huge, uint64_t{1} << 62);
  CHECK_CODE(DecodeRecord(AsSpan(Sealed(huge))), kDataLoss);
  // An attempts field beyond 32 bits, an error code that is none.
  std::string wide = content.substr(0, 8);
  AppendVarint(wide, uint64_t{1} << 32);
  wide += content.substr(9);
  CHECK_CODE(DecodeRecord(AsSpan(Sealed(wide))), kDataLoss);
  ShardRecord bad_code;
  bad_code.error_code = 17;
  CHECK_CODE(DecodeRecord(AsSpan(EncodeRecord(bad_code))), kDataLoss);
}

}  // namespace
}  // namespace dagstore
