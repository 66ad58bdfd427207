#include "mount/credentials.h"

#include <algorithm>

namespace dagstore {

bool IsCredentialId(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

absl::Status Credentials::Add(const std::string& id, Credential credential) {
  if (!IsCredentialId(id)) return InvalidArgument("a credential's id is 1 to 64 of A-Z a-z 0-9 . _ -");
  if (credential.origins.empty()) {
    return InvalidArgument("credential {} lists no origins: it would be sent to nobody", id);
  }
  for (const std::string& origin : credential.origins) {
    const size_t host = origin.find("://");
    if (host == origin.npos || origin.find('/', host + 3) != origin.npos || origin.find('@') != origin.npos ||
        std::any_of(origin.begin(), origin.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
      return InvalidArgument("credential {}: an origin is scheme://host[:port] in lower case", id);
    }
  }
  if (credential.secret.empty()) return InvalidArgument("credential {} has no secret", id);
  if (credential.kind != Credential::Kind::kBearer && credential.user.empty()) {
    return InvalidArgument("credential {} has no user (or access key id)", id);
  }
  if (!all_.try_emplace(id, std::move(credential)).second) return AlreadyExists("credential {} is there twice", id);
  return absl::OkStatus();
}

absl::StatusOr<const Credential*> Credentials::Find(const std::string& id, const std::vector<Credential::Kind>& kinds,
                                                    const std::string& origin) const {
  const auto found = all_.find(id);
  if (found == all_.end()) return FailedPrecondition("the credential {} is not configured", id);
  const Credential& credential = found->second;
  if (std::find(kinds.begin(), kinds.end(), credential.kind) == kinds.end()) {
    return FailedPrecondition("the credential {} is of another kind", id);
  }
  if (std::find(credential.origins.begin(), credential.origins.end(), origin) == credential.origins.end()) {
    return FailedPrecondition("the credential {} is not for {}", id, origin);
  }
  return &credential;
}

}  // namespace dagstore
