// Inputs of the benchmarks: CAR files of a given shape, and a store to put them in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dagstore/dagstore.h"

namespace dagstore {

// Deterministic bytes; `seed` names the sequence.
Bytes SampleBytes(uint64_t seed, size_t size);
// A CARv1 of `blocks` raw blocks of `block_bytes`, sha2-256, with one root.
Bytes SampleCar(uint64_t seed, size_t blocks, size_t block_bytes);
// The same, written to a file; returns the CIDs.
std::vector<Cid> WriteSampleCar(const std::string& path, uint64_t seed, size_t blocks, size_t block_bytes);

Options BenchOptions(const std::string& dir);
std::unique_ptr<DagStore> OpenBenchStore(const Options& options);
std::unique_ptr<Mount> FileMountOf(const DagStore& store, const std::string& path);
std::unique_ptr<Mount> BytesMountOf(const Bytes& bytes);

}  // namespace dagstore
