#include "mount/remote_url.h"

#include "mount/credentials.h"

namespace dagstore {

absl::Status CheckUserinfo(const Url& url) {
  if (url.userinfo.empty() || IsCredentialId(url.userinfo)) return absl::OkStatus();
  return InvalidArgument("{}: URL with a password: put it into the credentials file, and its id before the '@'",
                         url.scheme);
}

absl::StatusOr<HttpUrl> ParseHost(const Url& url) {
  Url as_http;
  as_http.scheme = "http";
  as_http.has_authority = true;
  as_http.host = url.host;
  as_http.port = url.port;
  absl::StatusOr<HttpUrl> host = HttpUrl::Parse(as_http.Encoded());
  if (!host.ok()) return InvalidArgument("{}: URL with a bad host or port", url.scheme);
  return host;
}

}  // namespace dagstore
