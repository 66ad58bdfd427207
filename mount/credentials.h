// Credentials: passwords, tokens and keys, apart from the URLs that need them. A URL names one by its id
// (https://archive@host/a.car) or the configuration of an endpoint does; records and listings hold the id.
//
// A credential is sent to the origins it lists and to nobody else: a URL may come from a stranger, who would like to
// see it sent to his own server. Immutable after set-up; any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"

namespace dagstore {

struct Credential {
  enum class Kind : uint8_t {
    kBasic,   // user and password: http, ftp
    kBearer,  // a token: http, piece
    kAws,     // access key, secret key, perhaps a session token: s3
  };
  Kind kind = Kind::kBasic;
  // Where it may be sent: scheme://host[:port], lower case, without a path.
  std::vector<std::string> origins = {};
  std::string user = {};       // kBasic: the user; kAws: the access key id
  Secret secret = {};          // password, token or secret access key
  Secret session_token = {};   // kAws, may be empty
};

class Credentials {
 public:
  // InvalidArgument for an empty id or one with other than [A-Za-z0-9._-], a credential without origins or secret;
  // AlreadyExists for an id that is taken.
  absl::Status Add(const std::string& id, Credential credential);
  // FailedPrecondition if there is no such id (a record must survive a shorter configuration), if it is of another
  // kind, or if it is not for `origin`.
  absl::StatusOr<const Credential*> Find(const std::string& id, const std::vector<Credential::Kind>& kinds,
                                         const std::string& origin) const;
  bool empty() const { return all_.empty(); }

 private:
  std::map<std::string, Credential> all_ = {};
};

// "[A-Za-z0-9._-]", 1 to 64 of them.
bool IsCredentialId(std::string_view id);

}  // namespace dagstore
