#include "mount/registry.h"

#include <utility>

#include "base/check.h"
#include "mount/bytes_mount.h"
#include "mount/file_mount.h"

namespace dagstore {

absl::Status MountRegistry::Register(const std::string& scheme, MountFactory factory) {
  Url url;
  url.scheme = scheme;
  if (!url.Validate().ok()) return InvalidArgument("mount scheme is no lower-case URL scheme");
  const auto [unused, added] = factories_.try_emplace(scheme, std::move(factory));
  if (!added) return AlreadyExists("mount scheme '{}' is registered already", scheme);
  return absl::OkStatus();
}

absl::StatusOr<const MountFactory*> MountRegistry::Find(const std::string& scheme) const {
  const auto found = factories_.find(scheme);
  if (found == factories_.end()) {
    return InvalidArgument("no mount for the scheme '{}'; known: {}", scheme,
                           fmt::join(Schemes(), ", "));
  }
  return &found->second;
}

absl::StatusOr<std::unique_ptr<Mount>> MountRegistry::Make(const Url& url) const {
  RETURN_IF_ERROR(url.Validate());
  ASSIGN_OR_RETURN(const MountFactory* factory, Find(url.scheme));
  return (*factory)(url);
}

absl::StatusOr<Url> MountRegistry::Represent(const Mount& mount) const {
  Url url = mount.url();
  RETURN_IF_ERROR(url.Validate());
  RETURN_IF_ERROR(Find(url.scheme).status());
  ASSIGN_OR_RETURN(const Url reread, Url::Parse(url.Encoded()));
  if (reread != url) return InvalidArgument("{} does not survive being stored", url.Redacted());
  return url;
}

absl::Status MountRegistry::RegisterLister(const std::string& scheme, MountLister lister) {
  RETURN_IF_ERROR(Find(scheme).status());
  if (!listers_.try_emplace(scheme, std::move(lister)).second) {
    return AlreadyExists("mount scheme '{}' can list already", scheme);
  }
  return absl::OkStatus();
}

absl::Status MountRegistry::List(const Url& folder, const WorkContext& work, const MountListed& listed) const {
  RETURN_IF_ERROR(folder.Validate());
  RETURN_IF_ERROR(Find(folder.scheme).status());
  const auto found = listers_.find(folder.scheme);
  if (found == listers_.end()) return Unimplemented("{}: URLs cannot be listed", folder.scheme);
  if (!folder.path.empty() && folder.path.back() != '/') {
    return InvalidArgument("{} is no folder: it does not end with '/'", folder.Redacted());
  }
  return found->second(folder, work, listed);
}

std::vector<std::string> MountRegistry::Schemes() const {
  std::vector<std::string> schemes;
  for (const auto& [scheme, unused] : factories_) schemes.push_back(scheme);
  return schemes;
}

MountRegistry DefaultMounts(const FileMountConfig& files) {
  MountRegistry registry;
  DAGSTORE_CHECK_OK(registry.Register("file", FileMountFactory(files)));
  DAGSTORE_CHECK_OK(registry.Register("bytes", BytesMountFactory()));
  return registry;
}

}  // namespace dagstore
