#include "mount/ftp_mount.h"

#include <charconv>
#include <limits>
#include <utility>

#include "mount/remote_url.h"

namespace dagstore {
namespace {

class FtpMount final : public Mount {
 public:
  FtpMount(std::shared_ptr<FtpClient> client, std::shared_ptr<const Credentials> credentials, Url url,
           FtpRequest request)
      : client_(std::move(client)),
        credentials_(std::move(credentials)),
        url_(std::move(url)),
        request_(std::move(request)) {}

  // Each range would cost a connection of its own.
  MountTraits traits() const override { return {.local = false, .random = false, .stable = false}; }
  Url url() const override { return url_; }

  absl::StatusOr<MountStat> Stat(Io&, const WorkContext& work) const override {
    ASSIGN_OR_RETURN(const FtpRequest request, NewRequest(0));
    const absl::StatusOr<FtpStat> found = client_->Stat(request, work);
    if (absl::IsNotFound(found.status())) return MountStat();
    RETURN_IF_ERROR(found.status());
    MountStat stat;
    stat.exists = true;
    stat.ready = true;
    stat.size_known = found->size.has_value();
    stat.size = found->size.value_or(0);
    if (found->mtime_seconds.has_value()) stat.validator = fmt::format("{};{}", *found->mtime_seconds, stat.size);
    return stat;
  }

  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                         uint64_t offset) const override {
    if (offset > 0) {
      // Servers differ in what they do at the end and behind it.
      ASSIGN_OR_RETURN(const MountStat stat, Stat(io, work));
      if (!stat.exists) return NotFound("open {}: no such file", url_.Redacted());
      if (stat.size_known && offset >= stat.size) return NewEmptyStream(work);
      if (offset > std::numeric_limits<int64_t>::max()) return NewEmptyStream(work);
    }
    ASSIGN_OR_RETURN(const FtpRequest request, NewRequest(offset));
    return client_->Open(request, work);
  }

 private:
  absl::StatusOr<FtpRequest> NewRequest(uint64_t offset) const {
    FtpRequest request = request_;
    request.offset = offset;
    if (!url_.userinfo.empty()) {
      const std::string host = url_.host.find(':') == std::string::npos ? url_.host : '[' + url_.host + ']';
      std::string origin = url_.scheme + "://" + host;
      if (!url_.port.empty() && url_.port != "21") origin += ":" + url_.port;
      ASSIGN_OR_RETURN(const Credential* credential,
                       credentials_->Find(url_.userinfo, {Credential::Kind::kBasic}, origin));
      request.user = credential->user;
      request.password = credential->secret;
    }
    return request;
  }

  const std::shared_ptr<FtpClient> client_;
  const std::shared_ptr<const Credentials> credentials_;
  const Url url_;
  const FtpRequest request_;
};

}  // namespace

MountFactory FtpMountFactory(std::shared_ptr<FtpClient> client, std::shared_ptr<const Credentials> credentials) {
  return [client = std::move(client),
          credentials = std::move(credentials)](const Url& url) -> absl::StatusOr<std::unique_ptr<Mount>> {
    RETURN_IF_ERROR(CheckUserinfo(url));
    if (!url.query.empty()) return InvalidArgument("{}: URL with a query", url.scheme);
    if (url.path.size() < 2 || url.path.back() == '/') return InvalidArgument("{}: URL names no file", url.scheme);
    for (const char c : url.path) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        return InvalidArgument("{}: URL with a control byte in its path", url.scheme);
      }
    }
    ASSIGN_OR_RETURN(const HttpUrl host, ParseHost(url));
    FtpRequest request;
    request.host = host.host;
    request.port = url.port.empty() ? 21 : host.port;
    if (url.scheme == "ftps") request.tls = request.port == 990 ? FtpTls::kImplicit : FtpTls::kExplicit;
    request.path = url.path.substr(1);
    return std::make_unique<FtpMount>(client, credentials, url, std::move(request));
  };
}

}  // namespace dagstore
