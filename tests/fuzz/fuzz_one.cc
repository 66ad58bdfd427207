#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  dagstore::CapAllocations(dagstore::kFuzzBytesPerInputByte * size + dagstore::kFuzzBytesFree);
  dagstore::FuzzOne({data, size});
  dagstore::LiftAllocationCap();
  return 0;
}
