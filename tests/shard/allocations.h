// Every allocation of the test binary is seen, so that a test can say what the largest one was.
// Any thread; each has its own figure.
#pragma once

#include <cstddef>

namespace dagstore {

void ForgetAllocations();
size_t LargestAllocation();  // bytes, since ForgetAllocations

}  // namespace dagstore
