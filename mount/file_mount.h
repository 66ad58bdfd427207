// file: mount. Regular files only, read with pread: a file of someone else may shrink at any time,
// and a mapping of it would then kill the process.
//
//   file:///srv/cars/a.car       an absolute path (host empty or "localhost")
//   file:a.car                   below the root named "": the repository stays relocatable
//   file:sub/a.car?root=data     below the root named "data"
//
// A path has no ".." component, also not an escaped one. Below a root nothing outside it can be
// reached, whatever links lie there (openat2 with RESOLVE_BENEATH).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "mount/registry.h"

namespace dagstore {

struct FileMountConfig {
  // Name -> folder. The name "" is the root of relative URLs that name none.
  std::map<std::string, std::string> roots = {};
  // Off where the URLs come from strangers.
  bool absolute_paths_allowed = true;
  // Links may stand in a path. On by default: below a root they cannot leave it, and who may name
  // absolute paths needs no link to reach a file.
  bool symlinks_allowed = true;
};

// The validator of a file: device, inode, size and time of change.
std::string FileValidator(const FileStat& stat);

// InvalidArgument from the factory: a foreign host, a user, a port, a query other than root, a zero
// byte, "..". FailedPrecondition from the mount: the root is not configured, or absolute paths are
// off.
MountFactory FileMountFactory(const FileMountConfig& config);

}  // namespace dagstore
