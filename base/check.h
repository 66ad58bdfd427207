// DAGSTORE_CHECK: our own mistakes end the process, in every build, with file, line and reason. Never for bad input.
#pragma once

#include <string_view>

namespace dagstore {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, std::string_view detail = {});
}  // namespace dagstore

#define DAGSTORE_CHECK(condition) \
  (__builtin_expect(!(condition), 0) ? ::dagstore::CheckFailed(__FILE__, __LINE__, #condition) : (void)0)
#define DAGSTORE_CHECK_MSG(condition, detail) \
  (__builtin_expect(!(condition), 0) ? ::dagstore::CheckFailed(__FILE__, __LINE__, #condition, detail) : (void)0)
#define DAGSTORE_CHECK_OK(expr)                                                                        \
  do {                                                                                        \
    if (absl::Status check_ok_ = (expr); !check_ok_.ok())                                     \
      ::dagstore::CheckFailed(__FILE__, __LINE__, #expr, ::dagstore::ToString(check_ok_));    \
  } while (0)
