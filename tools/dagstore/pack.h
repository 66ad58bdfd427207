// Pack: makes a CAR of files and folders, as UnixFS: leaves of 1 MiB as raw blocks, balanced dag-pb
// nodes of 174 links, plain directories, symlinks. Deterministic: the same names and bytes give the
// same CAR.
//
// Threads: one per call. Memory: a chunk, the links of the nodes that are open, and the CID of
// every block written.
#pragma once

#include <absl/functional/function_ref.h>

#include <string>
#include <vector>

#include "base/io.h"
#include "base/reader.h"
#include "shard/car_writer.h"

namespace dagstore::cli {

inline constexpr size_t kChunkBytes = 1 << 20;  // below what every peer takes as a block (2 MiB)
inline constexpr size_t kLinksPerNode = 174;    // as kubo and go-car
inline constexpr size_t kDirectoryBytesMax =
    1 << 20;  // of a node; larger ones would need a HAMT, which this does not make
inline constexpr size_t kFolderDepthMax = 1024;

struct PackStats {
  uint64_t blocks = 0;
  uint64_t files = 0;
  uint64_t folders = 0;
  uint64_t file_bytes = 0;
};

// Writes sections (without a CAR header) to `sink`, each block once, children first. Gives the
// root: the node of the one input, or of a directory that holds several under their names. Files in
// folders are left out where `leave_out` says so: the CAR that is being written, if it lies in one.
// A file that grows meanwhile is packed as long as it was; DataLoss if it has become shorter.
// InvalidArgument: two inputs of one name, something that is neither file nor folder nor symlink.
// ResourceExhausted: a limit above. What the files say.
absl::StatusOr<Cid> Pack(const std::vector<std::string>& inputs, const ByteSink& sink,
                         absl::FunctionRef<bool(const FileStat&)> leave_out,
                         const WorkContext& work, PackStats& stats);

}  // namespace dagstore::cli
