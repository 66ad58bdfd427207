// FtpClient: files on FTP servers, as plain blocking code that ends within 50 ms of a stop. Passive, binary, over the
// same checked and pinned addresses as HttpClient.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/http.h"

namespace dagstore {

enum class FtpTls : uint8_t {
  kNone,
  kExplicit,  // AUTH TLS on the usual port; no password and no byte goes without
  kImplicit,  // TLS from the first byte on
};

struct FtpRequest {
  std::string host = {};  // an IPv6 address without its brackets
  uint16_t port = 21;
  FtpTls tls = FtpTls::kNone;
  std::string user = "anonymous";
  Secret password = Secret("anonymous@");
  std::string path = {};  // any bytes but control ones; below the folder of the login, unless it starts with '/'
  uint64_t offset = 0;    // REST; not behind the end of the file
};

struct FtpStat {
  std::optional<uint64_t> size = {};
  std::optional<int64_t> mtime_seconds = {};
};

// Any thread, never the loop. Errors as HttpClient; NotFound if there is no such file, or it is a folder: FTP does not
// tell the two apart. FailedPrecondition if the login is refused. InvalidArgument for a path with control bytes.
class FtpClient {
 public:
  virtual ~FtpClient() = default;
  virtual absl::StatusOr<FtpStat> Stat(const FtpRequest& request, const WorkContext& work) = 0;
  // From `offset` to the end. As the body of HttpResponse.
  virtual absl::StatusOr<std::unique_ptr<ByteStream>> Open(const FtpRequest& request, const WorkContext& work) = 0;
  // Closes the connections that nobody uses.
  virtual void CloseIdle() = 0;
  virtual uint64_t bytes_received() const = 0;  // of files, since the start
};

absl::StatusOr<std::shared_ptr<FtpClient>> NewFtpClient(const HttpClientOptions& options);

}  // namespace dagstore
