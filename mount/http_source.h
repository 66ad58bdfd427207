// HttpSource: a file that some HTTP server serves, whichever way its requests are authorised. What http:, s3: and
// piece: have in common.
//
// Trusts no header that it can check: a 206 must hold the range that was asked, bytes are counted, a validator that was
// given must come back, and a body in any content-encoding is refused.
// Any thread but the loop. Errors as in mount/mount.h, and: DataLoss where the server breaks the protocol;
// Unimplemented from OpenRange and OpenRandom where it serves no ranges (a whole copy is the way then).
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/http.h"
#include "mount/mount.h"

namespace dagstore {

class HttpSource : public std::enable_shared_from_this<HttpSource> {
 public:
  explicit HttpSource(std::shared_ptr<HttpClient> client) : client_(std::move(client)) {}
  virtual ~HttpSource() = default;

  absl::StatusOr<MountStat> Stat(const WorkContext& work) const;
  absl::StatusOr<MountRange> OpenRange(const WorkContext& work, ByteRange range, const std::string& validator) const;
  absl::StatusOr<MountRange> OpenTail(const WorkContext& work, uint64_t size) const;
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(const WorkContext& work, uint64_t offset) const;
  // `validator` may be empty: the one it has now.
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(const WorkContext& work, const std::string& validator) const;

 protected:
  // Servers that have the file, in the order in which they are to be asked. The next is asked when one does not serve.
  virtual size_t servers() const { return 1; }
  // A request to the n-th server for the file with these headers, and with what authorises it.
  virtual absl::StatusOr<HttpRequest> NewRequest(size_t server, const std::string& method,
                                                 const HttpHeaders& headers) const = 0;
  // What this kind of server says about the file besides.
  virtual void Refine(const HttpResponse& response, MountStat* stat) const;
  // A response that is none of 2xx, as an error.
  virtual absl::Status ErrorOf(const HttpResponse& response) const;

 private:
  absl::StatusOr<std::unique_ptr<HttpResponse>> Send(const WorkContext& work, const std::string& method,
                                                     const HttpHeaders& headers) const;
  MountStat StatOf(const HttpResponse& response) const;
  // By a request for the first byte, where HEAD is refused.
  absl::StatusOr<MountStat> StatByGet(const WorkContext& work) const;
  // The answer to a range that begins at the end of the file, or behind it.
  absl::StatusOr<MountRange> OpenNothing(const WorkContext& work, const std::string& validator) const;

  const std::shared_ptr<HttpClient> client_;
  // The server that served last, asked first: one that is dead would cost its timeout each time. A hint.
  mutable std::atomic<size_t> preferred_{0};
};

// The mount of an HttpSource.
class HttpSourceMount : public Mount {
 public:
  HttpSourceMount(Url url, std::shared_ptr<const HttpSource> source)
      : url_(std::move(url)), source_(std::move(source)) {}

  MountTraits traits() const override { return {.random = true, .connects = true}; }
  Url url() const override { return url_; }
  absl::StatusOr<MountStat> Stat(Io& io, const WorkContext& work) const override;
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandom(Io& io, const WorkContext& work) const override;
  absl::StatusOr<std::unique_ptr<RandomReader>> OpenRandomIf(Io& io, const WorkContext& work,
                                                             const std::string& validator) const override;
  absl::StatusOr<MountRange> OpenRange(Io& io, const WorkContext& work, ByteRange range,
                                       const std::string& validator) const override;
  absl::StatusOr<MountRange> OpenTail(Io& io, const WorkContext& work, uint64_t size) const override;
  absl::StatusOr<std::unique_ptr<ByteStream>> OpenStream(Io& io, const WorkContext& work,
                                                         uint64_t offset) const override;

 private:
  const Url url_;
  const std::shared_ptr<const HttpSource> source_;
};

}  // namespace dagstore
