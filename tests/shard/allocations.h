// Every allocation of the test binary is seen, so that a test can say what the largest one of its
// thread was.
#pragma once

#include <cstddef>

namespace dagstore {

extern thread_local size_t largest_allocation;  // bytes; set it to 0, run, read it

}  // namespace dagstore
