#include "mount/piece_mount.h"

#include <utility>

#include "base/cid.h"
#include "mount/http_source.h"

namespace dagstore {
namespace {

constexpr uint64_t kSha256Trunc254Padded = 0x1012;
constexpr uint64_t kFr32Sha256Trunc254Padbintree = 0x1011;

bool IsPiece(const Cid& cid) {
  if (cid.version() != 1) return false;
  if (cid.codec() == kCodecFilCommitmentUnsealed) return cid.hash().code == kSha256Trunc254Padded;
  return cid.codec() == kCodecRaw && cid.hash().code == kFr32Sha256Trunc254Padbintree;
}

struct PieceServers {
  std::shared_ptr<const Credentials> credentials;
  std::vector<PieceEndpoint> endpoints;
};

class PieceSource final : public HttpSource {
 public:
  PieceSource(std::shared_ptr<HttpClient> client, std::shared_ptr<const PieceServers> config, std::string cid)
      : HttpSource(std::move(client)), config_(std::move(config)), cid_(std::move(cid)) {}

 protected:
  size_t servers() const override { return config_->endpoints.size(); }

  absl::StatusOr<HttpRequest> NewRequest(size_t server, const std::string& method,
                                         const HttpHeaders& headers) const override {
    const PieceEndpoint& endpoint = config_->endpoints[server];
    HttpRequest request;
    request.method = method;
    request.headers = headers;
    ASSIGN_OR_RETURN(request.url, HttpUrl::Parse(endpoint.url));
    std::string& target = request.url.target;
    if (target.find('?') != target.npos) return FailedPrecondition("a piece endpoint has a query in its URL");
    if (target.back() != '/') target += '/';
    target += "piece/" + cid_;
    if (!endpoint.credential.empty()) {
      ASSIGN_OR_RETURN(const Credential* credential,
                       config_->credentials->Find(endpoint.credential,
                                                  {Credential::Kind::kBasic, Credential::Kind::kBearer},
                                                  request.url.Origin()));
      request.private_headers.push_back(credential->kind == Credential::Kind::kBasic
                                            ? BasicAuthorization(credential->user, credential->secret)
                                            : BearerAuthorization(credential->secret));
    }
    return request;
  }

  void Refine(const HttpResponse&, MountStat* stat) const override {
    stat->validator = stat->size_known ? fmt::format("piece-{}", stat->size) : std::string();
  }

 private:
  const std::shared_ptr<const PieceServers> config_;
  const std::string cid_;
};

}  // namespace

MountFactory PieceMountFactory(std::shared_ptr<HttpClient> client, std::shared_ptr<const Credentials> credentials,
                               const std::vector<PieceEndpoint>& endpoints) {
  const auto config = std::make_shared<const PieceServers>(
      PieceServers{.credentials = std::move(credentials), .endpoints = endpoints});
  return [client = std::move(client), config](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    if (url.has_authority || !url.query.empty()) return InvalidArgument("piece: URL is piece:<piece CID>");
    const absl::StatusOr<Cid> cid = Cid::FromText(url.path);
    if (!cid.ok() || !IsPiece(*cid)) return InvalidArgument("piece: URL without a piece CID (baga..., bafk...)");
    return std::make_unique<HttpSourceMount>(url, std::make_shared<PieceSource>(client, config, cid->ToText()));
  };
}

}  // namespace dagstore
