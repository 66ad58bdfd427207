#include "base/cbor.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/cid.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

constexpr CborMode kModes[] = {CborMode::kLenient, CborMode::kStrict};

// Reads the first item's head.
absl::StatusOr<CborItem> First(std::string_view hex, CborMode mode) {
  const Bytes bytes = ValueOf(FromHex(hex));
  CborReader reader(bytes, mode);
  return reader.Next();
}

// The bytes are exactly one item.
absl::Status WholeItem(Span bytes, CborMode mode) {
  CborReader reader(bytes, mode);
  RETURN_IF_ERROR(reader.Skip());
  if (!reader.AtEnd()) return DataLoss("bytes after the item");
  return absl::OkStatus();
}

absl::Status WholeItem(std::string_view hex, CborMode mode) {
  return WholeItem(ValueOf(FromHex(hex)), mode);
}

}  // namespace

TEST_CASE("cbor reader: heads give kind and value in both modes") {
  const struct {
    const char* hex;
    CborKind kind;
    uint64_t value;
  } kRows[] = {
      {"00", CborKind::kUnsigned, 0},
      {"17", CborKind::kUnsigned, 23},
      {"1818", CborKind::kUnsigned, 24},
      {"18ff", CborKind::kUnsigned, 255},
      {"190100", CborKind::kUnsigned, 256},
      {"19ffff", CborKind::kUnsigned, 65535},
      {"1a00010000", CborKind::kUnsigned, 65536},
      {"1b0000000100000000", CborKind::kUnsigned, uint64_t{1} << 32},
      {"1bffffffffffffffff", CborKind::kUnsigned, UINT64_MAX},
      {"20", CborKind::kNegative, 0},
      {"3bffffffffffffffff", CborKind::kNegative, UINT64_MAX},
      {"43010203", CborKind::kBytes, 3},
      {"60", CborKind::kText, 0},
      {"80", CborKind::kArray, 0},
      {"820102", CborKind::kArray, 2},
      {"a0", CborKind::kMap, 0},
      {"a1616100", CborKind::kMap, 1},
      {"d82a420001", CborKind::kTag, 42},
      {"f4", CborKind::kBool, 0},
      {"f5", CborKind::kBool, 1},
      {"f6", CborKind::kNull, 0},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.hex);
    for (const CborMode mode : kModes) {
      const CborItem item = ValueOf(First(row.hex, mode));
      CHECK_EQ(static_cast<int>(item.kind), static_cast<int>(row.kind));
      CHECK_EQ(item.value, row.value);
      CHECK_STATUS_OK(WholeItem(row.hex, mode));
    }
  }
}

TEST_CASE("cbor reader: floats of every width have their value") {
  const struct {
    const char* hex;
    double number;
    bool strict;  // accepted in strict mode too
  } kRows[] = {
      {"f90000", 0.0, false},
      {"f93c00", 1.0, false},
      {"f9c400", -4.0, false},
      {"f97bff", 65504.0, false},
      {"f90001", 5.960464477539063e-08, false},
      {"f97c00", INFINITY, false},
      {"fa47c35000", 100000.0, false},
      {"fbbff0000000000000", -1.0, true},
      {"fb7e37e43c8800759c", 1.0e+300, true},
      {"fb7ff0000000000000", INFINITY, false},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.hex);
    CHECK_EQ(ValueOf(First(row.hex, CborMode::kLenient)).number, row.number);
    CHECK_EQ(First(row.hex, CborMode::kStrict).ok(), row.strict);
  }
  CHECK(std::isnan(ValueOf(First("f97e00", CborMode::kLenient)).number));
  CHECK(std::isnan(ValueOf(First("fb7ff8000000000000", CborMode::kLenient)).number));
  CHECK_CODE(First("fb7ff8000000000000", CborMode::kStrict), kDataLoss);
}

TEST_CASE("cbor reader: what no mode accepts") {
  const char* kRows[] = {
      "",    // nothing
      "18",  // heads cut short
      "1900",
      "1a000000",
      "1b00000000000000",
      "1c",
      "1d",
      "1e",
      "3c",
      "5d",
      "7e",
      "9c",
      "bd",
      "de",
      "fc",
      "fd",
      "fe",  // reserved
      "1f",
      "3f",
      "5f4100ff",
      "7f6161ff",
      "9fff",
      "bfff",
      "ff",  // indefinite, stray break
      "e0",
      "f3",
      "f8ff",
      "f814",
      "f818",  // simple values
      "42ff",
      "62c3",  // strings past the end
      "5bffffffffffffffff",
      "7bffffffffffffffff",
      "81",
      "8201",
      "9bffffffffffffffff",
      "9b7fffffffffffffff",  // more items than bytes
      "a1",
      "a101",
      "a16161",
      "bbffffffffffffffff",
      "bb8000000000000000",
      "c1",
      "d82a",  // tag around nothing
      "f93c",
      "fa000000",
      "fb00000000000000",
  };
  for (const char* hex : kRows) {
    CAPTURE(hex);
    for (const CborMode mode : kModes) CHECK_CODE(WholeItem(hex, mode), kDataLoss);
  }
}

TEST_CASE("cbor reader: what only the lenient mode accepts") {
  const char* kRows[] = {
      "1801",
      "190001",
      "1a00000001",
      "1b0000000000000001",  // not shortest
      "3800",
      "5800",
      "580100",
      "7800",
      "9800",
      "b800",
      "d9002a4100",
      "f7",  // undefined
      "c24101",
      "d830420001",  // tags other than 42
      "d82a6100",
      "d82a40",  // tag 42 around text, around nothing
      "d82a4101",
      "d82a81420001",      // without the 0x00, around an array
      "a10000",            // a key that is not text
      "a2616201616100",    // keys out of order
      "a262616101616202",  // the longer key first
      "a2616100616101",    // a key twice
      "a260006001",        // the empty key twice
      "62c328",
      "61ff",
      "62c080",
      "63eda080",
      "64f4908080",
      "63e08080",
      "64f0808080",  // not UTF-8
  };
  for (const char* hex : kRows) {
    CAPTURE(hex);
    CHECK_CODE(WholeItem(hex, CborMode::kStrict), kDataLoss);
    CHECK_STATUS_OK(WholeItem(hex, CborMode::kLenient));
  }
}

TEST_CASE("cbor reader: valid UTF-8 of every length passes the strict mode") {
  for (const char* hex : {"6141", "62c2a2", "63e282ac", "63ed9fbf", "64f0908d88", "64f48fbfbf"}) {
    CAPTURE(hex);
    CHECK_STATUS_OK(WholeItem(hex, CborMode::kStrict));
  }
}

TEST_CASE("cbor reader: Skip takes one item with all it contains") {
  const Bytes bytes =
      ValueOf(FromHex("83"
                      "01"
                      "a2616182f6f5626262d82a420007"
                      "8102"
                      "182a"));
  CborReader reader(bytes);
  CHECK_EQ(static_cast<int>(ValueOf(reader.Next()).kind), static_cast<int>(CborKind::kArray));
  CHECK_EQ(reader.depth(), 1);
  CHECK_STATUS_OK(reader.Skip());  // 1
  CHECK_EQ(reader.offset(), 2);
  CHECK_STATUS_OK(reader.Skip());  // the map
  CHECK_EQ(reader.offset(), 16);
  CHECK_EQ(reader.depth(), 1);
  CHECK_STATUS_OK(reader.Skip());  // [2], the last of the array
  CHECK_EQ(reader.depth(), 0);
  CHECK_FALSE(reader.AtEnd());
  CHECK_EQ(ValueOf(reader.Next()).value, 42);
  CHECK(reader.AtEnd());
  CHECK_CODE(reader.Skip(), kDataLoss);
}

TEST_CASE("cbor reader: nesting is limited, and a deep bomb costs no stack") {
  for (const uint8_t opener : {0x81, 0xc1}) {
    CAPTURE(int{opener});
    Bytes deepest(kCborDepthMax, opener);
    deepest.push_back(0);
    CHECK_STATUS_OK(WholeItem(deepest, CborMode::kLenient));
    deepest.insert(deepest.begin(), opener);
    CHECK_CODE(WholeItem(deepest, CborMode::kLenient), kDataLoss);
    CHECK_CODE(WholeItem(Bytes(2 << 20, opener), CborMode::kLenient), kDataLoss);
  }
}

TEST_CASE("cbor reader: every prefix of a document is truncated, never more") {
  const Bytes whole = ValueOf(FromHex("a26161831901f4f6fb3ff8000000000000616282d82a43000102a0"));
  REQUIRE_STATUS_OK(WholeItem(whole, CborMode::kStrict));
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const Bytes cut(whole.begin(), whole.begin() + size);
    for (const CborMode mode : kModes) CHECK_CODE(WholeItem(cut, mode), kDataLoss);
  }
}

// Vectors that ask for more than dag-cbor are judged by the profile they name; those of DRISL's CID
// profile and of other CBOR profiles are not ours.
TEST_CASE("cbor reader: strict mode agrees with the dag-cbor vectors of dasl-testing") {
  int judged = 0;
  for (const char* file : {"cid", "indefinite", "integer_range", "map_keys", "numeric_reduction",
                           "short_form", "simple", "utf8"}) {
    const Bytes text = ReadTestData(std::string("dasl-testing/") + file + ".json");
    for (const auto& row : nlohmann::json::parse(text.begin(), text.end())) {
      const std::string type = row["type"];
      const std::string hex = row["data"];
      bool ours = false;
      for (const std::string tag : row["tags"]) {
        ours |= tag == "basic" || tag == "dag-cbor" || (tag == "dasl-cid" && type == "roundtrip");
      }
      if (!ours || type == "invalid_out") continue;
      CAPTURE(hex);
      ++judged;
      const Bytes bytes = ValueOf(FromHex(hex));
      absl::Status status = WholeItem(bytes, CborMode::kStrict);
      if (status.ok() &&
          StartsWith(bytes, ValueOf(FromHex("d82a")))) {  // the CID in it is the caller's to parse
        CborReader reader(bytes, CborMode::kStrict);
        REQUIRE_STATUS_OK(reader.Next());
        status = Cid::FromBytes(ValueOf(reader.Next()).bytes.subspan(1)).status();
      }
      CHECK_EQ(status.ok(), type == "roundtrip");
    }
  }
  CHECK_EQ(judged, 60);
}

TEST_CASE("cbor reader: duplicate keys of codec-fixtures are refused in strict mode") {
  const Bytes text = ReadTestData("codec-fixtures/negative/dag-cbor-decode-duplicate-keys.json");
  const auto rows = nlohmann::json::parse(text.begin(), text.end());
  REQUIRE_FALSE(rows.empty());
  for (const auto& row : rows)
    CHECK_CODE(WholeItem(row["hex"].get<std::string>(), CborMode::kStrict), kDataLoss);
}

}  // namespace dagstore
