#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <string>

namespace dagstore {

// Here alone, so that objects do not depend on where the tree lies and a compiler cache serves every checkout.
std::string TestDataPath(const std::string& name) { return std::string(DAGSTORE_TEST_DATA) + "/" + name; }

}  // namespace dagstore
