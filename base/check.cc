#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace dagstore {

void CheckFailed(const char* file, int line, const char* condition, std::string_view detail) {
  (void)std::fprintf(stderr, "%s:%d: CHECK failed: %s%s%.*s\n", file, line, condition, detail.empty() ? "" : ": ",
                     static_cast<int>(detail.size()), detail.data());
  std::abort();
}

}  // namespace dagstore
