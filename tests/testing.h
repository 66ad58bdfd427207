// What tests of every folder use: status assertions, test data, temporary folders.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status.h"

namespace dagstore {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status) { return status.status(); }

}  // namespace dagstore

// The status itself is shown when it is not what was wanted.
#define CHECK_STATUS_OK(expr) CHECK_EQ(::dagstore::ToString(::dagstore::StatusOf(expr)), "OK")
#define REQUIRE_STATUS_OK(expr) REQUIRE_EQ(::dagstore::ToString(::dagstore::StatusOf(expr)), "OK")
#define CHECK_CODE(expr, Code)                                         \
  do {                                                                 \
    const absl::Status status_seen_ = ::dagstore::StatusOf(expr);      \
    INFO(::dagstore::ToString(status_seen_));                          \
    CHECK_EQ(static_cast<int>(status_seen_.code()), static_cast<int>(absl::StatusCode::Code)); \
  } while (0)

namespace dagstore {

template <typename T>
T ValueOf(absl::StatusOr<T> value) {
  REQUIRE_STATUS_OK(value);
  return std::move(value).value();
}

// A file of tests/data.
std::string TestDataPath(const std::string& name);

inline Bytes ReadTestData(const std::string& name) {
  std::ifstream file(TestDataPath(name), std::ios::binary);
  REQUIRE_MESSAGE(file.good(), "no test data file ", name);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// A folder of its own under $TMPDIR, removed at the end of the test.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "dagstore-test-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace dagstore
