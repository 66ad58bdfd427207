// MountRegistry: which schemes exist and how a mount is made from a URL. Filled in main(), where
// one can read what exists; immutable afterwards and shared as std::shared_ptr<const
// MountRegistry>.
//
// A factory carries the configuration of its scheme (roots, endpoints, credentials), so that no URL
// has to. Two of one kind under different names are two schemes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mount/mount.h"

namespace dagstore {

struct FileMountConfig;

// Any thread; does no I/O. InvalidArgument if the URL makes no sense for the scheme. A URL that
// needs configuration which is missing now (an unknown root) makes a mount all the same, and its
// Stat() fails: a record must survive a restart with a shorter configuration.
using MountFactory = std::function<absl::StatusOr<std::unique_ptr<Mount>>(const Url&)>;

// One source below a folder of sources.
struct MountListEntry {
  Url url = {};
  uint64_t size = 0;  // meaningful if size_known
  bool size_known = false;
};
using MountListed = std::function<absl::Status(const MountListEntry&)>;
// Gives the sources below `folder`, in the order of the server, to `listed`, whose first error ends it. Worker thread.
using MountLister = std::function<absl::Status(const Url& folder, const WorkContext& work, const MountListed& listed)>;

// Any thread, after set-up.
class MountRegistry {
 public:
  // Set-up only. AlreadyExists if the scheme is taken, InvalidArgument if it is no lower-case
  // scheme.
  absl::Status Register(const std::string& scheme, MountFactory factory);
  // Set-up only. For a scheme that can list.
  absl::Status RegisterLister(const std::string& scheme, MountLister lister);

  // InvalidArgument for a scheme that is not here, naming those that are.
  absl::StatusOr<std::unique_ptr<Mount>> Make(const Url& url) const;

  // The URL to store for `mount`. Make() accepts it after a restart, or this is an error now:
  // InvalidArgument if the scheme is not here or the URL does not survive being written and read.
  absl::StatusOr<Url> Represent(const Mount& mount) const;

  // Worker thread. The sources below `folder`, a URL whose path is empty or ends with '/'. Unimplemented if the scheme
  // cannot list.
  absl::Status List(const Url& folder, const WorkContext& work, const MountListed& listed) const;

  // Sorted.
  std::vector<std::string> Schemes() const;

 private:
  absl::StatusOr<const MountFactory*> Find(const std::string& scheme) const;

  std::map<std::string, MountFactory> factories_;
  std::map<std::string, MountLister> listers_;
};

// What needs no network: file: and bytes:.
MountRegistry DefaultMounts(const FileMountConfig& files);

}  // namespace dagstore
