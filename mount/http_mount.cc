#include "mount/http_mount.h"

#include <utility>

#include "mount/http_source.h"
#include "mount/remote_url.h"

namespace dagstore {
namespace {

class PlainHttpSource final : public HttpSource {
 public:
  PlainHttpSource(std::shared_ptr<HttpClient> client, std::shared_ptr<const Credentials> credentials, HttpUrl url,
                  std::string credential_id)
      : HttpSource(std::move(client)),
        credentials_(std::move(credentials)),
        url_(std::move(url)),
        credential_id_(std::move(credential_id)) {}

 protected:
  absl::StatusOr<HttpRequest> NewRequest(size_t, const std::string& method,
                                         const HttpHeaders& headers) const override {
    HttpRequest request;
    request.method = method;
    request.url = url_;
    request.headers = headers;
    if (!credential_id_.empty()) {
      ASSIGN_OR_RETURN(const Credential* credential,
                       credentials_->Find(credential_id_, {Credential::Kind::kBasic, Credential::Kind::kBearer},
                                          url_.Origin()));
      request.private_headers.push_back(credential->kind == Credential::Kind::kBasic
                                            ? BasicAuthorization(credential->user, credential->secret)
                                            : BearerAuthorization(credential->secret));
    }
    return request;
  }

 private:
  const std::shared_ptr<const Credentials> credentials_;
  const HttpUrl url_;
  const std::string credential_id_;
};

}  // namespace

MountFactory HttpMountFactory(std::shared_ptr<HttpClient> client, std::shared_ptr<const Credentials> credentials) {
  return [client = std::move(client),
          credentials = std::move(credentials)](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    RETURN_IF_ERROR(CheckUserinfo(url));
    Url bare = url;
    bare.userinfo.clear();
    const absl::StatusOr<HttpUrl> target = HttpUrl::Parse(bare.Encoded());
    if (!target.ok()) return Annotate(target.status(), url.Redacted());
    return std::make_unique<HttpSourceMount>(
        url, std::make_shared<PlainHttpSource>(client, credentials, *target, url.userinfo));
  };
}

}  // namespace dagstore
