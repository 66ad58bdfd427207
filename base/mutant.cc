#include "base/mutant.h"

#include <cstdlib>

namespace dagstore {

#if defined(DAGSTORE_MUTANT) && DAGSTORE_MUTANT == 0
const int mutant_awake = [] {
  const char* text = std::getenv("DAGSTORE_MUTANT");
  return text == nullptr ? 0 : std::atoi(text);
}();
#endif

}  // namespace dagstore
