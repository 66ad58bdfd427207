// Mount: where the bytes of a shard come from. Made from a URL by a MountRegistry; knows nothing of
// shards.
//
// Threads: a mount is immutable after construction; every method may be called from any worker
// thread, never on the loop.
// Errors: NotFound (the source does not exist), Unavailable (not now; a retry may help),
// FailedPrecondition (forbidden, or the source has changed), InvalidArgument (the URL makes no
// sense, or names no file), ResourceExhausted (a limit of ours), Cancelled, DeadlineExceeded. An
// error is about this call only: the next one asks the source again. Messages show URLs redacted
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/io.h"
#include "base/reader.h"
#include "mount/url.h"

namespace dagstore {

struct MountTraits {
  bool local = false;   // reading costs no network
  bool random = false;  // OpenRandom works: any offset, at a price that does not depend on it
  // The bytes can never change or vanish while a reader is open (bytes:, sealed files).
  bool stable = false;
  // Each request at a time needs a connection, which is kept for those that follow; and OpenTail works. So what will be
  // wanted at once is worth asking for side by side, before more is known of the source.
  bool connects = false;
};

struct MountStat {
  bool exists = false;
  bool ready = false;  // can be opened now (a tape robot may need time)
  uint64_t size = 0;   // meaningful if size_known
  bool size_known = false;
  // Changes when the bytes change: an ETag, or device/inode/size/mtime. Empty if unknown.
  std::string validator = {};
};

// Part of a source, and what the source says of itself with it.
struct MountRange {
  std::unique_ptr<ByteStream> stream = {};
  MountStat stat = {};
};

class Mount {
 public:
  virtual ~Mount() = default;

  virtual MountTraits traits() const = 0;
  // What the registry makes this mount from again. Configuration that lives in the registry (roots,
  // endpoints, credentials) is not in it.
  virtual Url url() const = 0;

  // An absent source is no error: `exists` is false. Anything else that hinders an answer is one.
  virtual absl::StatusOr<MountStat> Stat(Io& io, const WorkContext& work) const = 0;

  // Only if traits().random. `work` is about opening; reads look at nothing but the source.
  virtual absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io& io,
                                                                   const WorkContext& work) const;
  // OpenRandom, if what it opened still has `validator` (of an earlier Stat); FailedPrecondition if
  // it has another.
  virtual absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandomIf(
      Io& io, const WorkContext& work, const std::string& validator) const;

  // Only if traits().random. The bytes of `range`, less at the end of the source; none at or behind it. One round trip
  // where the protocol allows it (this one asks with Stat and OpenRandom first), so that the first read of a source is
  // its Stat as well. With a validator: FailedPrecondition if the source has another now. `range.size` may be
  // UINT64_MAX: to the end. The stream keeps `work`, as OpenStream's does. Unimplemented if the server has no ranges.
  virtual absl::StatusOr<MountRange> OpenRange(Io& io, const WorkContext& work, ByteRange range,
                                               const std::string& validator) const;

  // Only if traits().connects. The last `size` bytes (not 0), or all if it has less: what OpenRange gives where the
  // size is not known yet. Unimplemented if the server has no ranges.
  virtual absl::StatusOr<MountRange> OpenTail(Io& io, const WorkContext& work, uint64_t size) const;

  // From `offset` to the end; empty if that is at or behind the end. The stream keeps `work` and
  // looks at it in Next(): its cancel flag and its clock outlive the stream.
  virtual absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                                 uint64_t offset = 0) const = 0;
};

}  // namespace dagstore
