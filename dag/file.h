// UnixFS as files and directories: read a range of a file, list a directory, read a symlink.
// Spec: specs.ipfs.tech/unixfs; docs/format.md#unixfs.
//
// Threads: one per object or call. No recursion.
// Errors: NotFound (a block is missing; the message names it), DataLoss (a block is not what its place requires, or
// sizes do not agree), ResourceExhausted (a limit below), what the getter or the sink says.
#pragma once

#include <absl/functional/function_ref.h>

#include <string>

#include "base/reader.h"
#include "dag/block_getter.h"
#include "dag/unixfs.h"

namespace dagstore {

// Levels of a file below its root. Balanced files of 2^63 bytes have 9; trickle files a few dozen.
inline constexpr size_t kFileDepthMax = 256;

// A regular file: a raw block, or a UnixFS file.
class UnixFsFile {
 public:
  // Reads the root block. FailedPrecondition if it is not a file (a directory, a symlink, another codec).
  // `getter` must outlive the file.
  static absl::StatusOr<UnixFsFile> Open(BlockGetter& getter, const CidView& root,
                                         const WorkContext& work = {});

  uint64_t size() const { return size_; }

  // Hands the bytes [offset, offset + length) to `sink`, in order, in pieces as the blocks have them; clipped to the
  // end of the file. Fetches only blocks with bytes in the range.
  absl::Status ReadRange(uint64_t offset, uint64_t length, absl::FunctionRef<absl::Status(Span)> sink) const;
  // The same into a string. ResourceExhausted if that is more than `bytes_max`.
  absl::StatusOr<std::string> ReadAll(uint64_t bytes_max) const;

 private:
  UnixFsFile(BlockGetter& getter, const CidView& cid, BlockData root, const WorkContext& work)
      : getter_(&getter), cid_(cid), root_(std::move(root)), work_(work) {}

  BlockGetter* getter_;
  Cid cid_;
  BlockData root_;
  WorkContext work_;
  uint64_t size_ = 0;
};

struct DirEntry {
  std::string_view name = {};  // bytes; lives until the visitor returns
  CidView cid = {};            // lives until the visitor returns
  std::optional<uint64_t> tsize = {};  // cumulative, as the link claims; nobody checks it
};

struct ListOptions {
  uint64_t entries_max = uint64_t{1} << 32;
  uint64_t shards_max = uint64_t{1} << 28;  // HAMT shards read
  WorkContext work = {};
};

// All entries of a plain or HAMT directory, in encoded order (HAMT: shards depth first). False ends the listing.
// FailedPrecondition if `root` is not a directory.
absl::Status ListDirectory(BlockGetter& getter, const CidView& root, const ListOptions& options,
                           absl::FunctionRef<bool(const DirEntry&)> visit);

// What a block is, from the block alone.
struct NodeInfo {
  UnixFsKind kind = UnixFsKind::kRaw;
  uint64_t size = 0;       // files: content bytes; symlinks: bytes of the target
  std::string target = {}; // symlinks
};
// FailedPrecondition if the block is neither raw nor UnixFS.
absl::StatusOr<NodeInfo> InspectUnixFs(const CidView& cid, Span block);

}  // namespace dagstore
