// HttpClient: HTTP requests from worker threads, as plain blocking code that ends within 50 ms of a stop.
//
// One client for the process, shared by all workers and all mounts: it owns the idle connections. It knows nothing of
// ranges or validators: that is mount/http_source.h.
//
// Safety (docs/operations.md#network-mounts): only http and https; no proxy and no .netrc from the environment; every
// address is checked before it is connected to, and again by the socket itself; redirects are followed here, at most
// kHttpRedirectsMax, never from https to http, and what is private is sent to the first origin only; bodies are never
// decompressed. Messages show no query and no header.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/reader.h"
#include "base/secret.h"

namespace dagstore {

inline constexpr int kHttpRedirectsMax = 3;
inline constexpr size_t kHttpUrlBytesMax = 16 * 1024;
// Of one response, trailers included: what nginx and Apache can send is below it.
inline constexpr size_t kHttpHeaderBytesMax = 64 * 1024;

// An absolute http(s) URL, in parts. The host is lower case, IPv6 without brackets; the port is never 0.
struct HttpUrl {
  std::string scheme = {};
  std::string host = {};
  uint16_t port = 0;
  std::string target = {};  // path and query as they are sent: starts with '/', ASCII without spaces

  // InvalidArgument for everything that two parsers might read in two ways: user names, control bytes, spaces, short or
  // octal addresses, an empty host.
  static absl::StatusOr<HttpUrl> Parse(std::string_view text);
  // What a Location header means here.
  absl::StatusOr<HttpUrl> Resolve(std::string_view reference) const;

  std::string Origin() const;    // https://host[:port]
  std::string Text() const { return Origin() + target; }
  std::string Redacted() const;  // without the query's values

  friend bool operator==(const HttpUrl&, const HttpUrl&) = default;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;  // names in lower case in responses

struct HttpRequest {
  std::string method = "GET";
  HttpUrl url = {};
  HttpHeaders headers = {};
  // Authorization and the like: to the first origin only, never to where a redirect leads.
  std::vector<std::pair<std::string, Secret>> private_headers = {};
  std::string body = {};
  // Of GET and HEAD. Others, and all where this is off, return the 3xx as it is.
  bool follow_redirects = true;
};

std::pair<std::string, Secret> BasicAuthorization(const std::string& user, const Secret& password);
std::pair<std::string, Secret> BearerAuthorization(const Secret& token);

// The header has arrived. The body is the stream: Next() gives what has come, waits if nothing has, and is Unavailable
// where the body is shorter than its Content-Length. It looks at the WorkContext of Send(). One thread; destroying it
// early closes the connection.
class HttpResponse : public ByteStream {
 public:
  virtual int status() const = 0;
  virtual const HttpHeaders& headers() const = 0;
  // The URL that answered: after redirects.
  virtual const HttpUrl& url() const = 0;
  // The value of the first header of that (lower case) name; null if there is none.
  const std::string* Header(std::string_view name) const;
};

struct HttpClientOptions {
  std::shared_ptr<const AddressPolicy> addresses = std::make_shared<AddressPolicy>();
  std::shared_ptr<Resolver> resolver = Resolver::System();
  // Until the connection (TLS included) stands.
  absl::Duration connect_timeout = absl::Seconds(10);
  // With less than `stall_bytes_min` from the server while we wait for it: one that has not begun, has stopped, or
  // drips, which would hold its connection and whoever waits for ever. Begins anew when the header is complete.
  absl::Duration stall_timeout = absl::Seconds(30);
  // Of header, body and trailers. A modem of 2400 baud gives seven times as much.
  size_t stall_bytes_min = 1024;
  // A file of certificates in PEM, instead of the system's.
  std::string ca_file = {};
  // Idle connections kept for the next request; each costs three descriptors.
  size_t idle_connections_max = 16;
  std::string user_agent = "dagstore";
  // Tells servers the trace that a request belongs to (W3C traceparent). Off: they are others' servers, mostly.
  bool send_traceparent = false;
};

// Any thread, never the loop. Errors: Unavailable (no connection, no answer, cut off: a retry may help),
// FailedPrecondition (a forbidden address or redirect, a bad certificate), ResourceExhausted (descriptors, memory, a
// header above the limit), DataLoss (no HTTP), Cancelled, DeadlineExceeded. A 404 or 503 is a response, no error.
class HttpClient {
 public:
  virtual ~HttpClient() = default;

  virtual absl::StatusOr<std::unique_ptr<HttpResponse>> Send(const HttpRequest& request, const WorkContext& work) = 0;

  // Closes the connections that nobody uses.
  virtual void CloseIdle() = 0;
  // Bytes of bodies, of all transfers since the start.
  virtual uint64_t bytes_received() const = 0;
};

// InvalidArgument if the options make no sense (a certificate file that cannot be read).
absl::StatusOr<std::shared_ptr<HttpClient>> NewHttpClient(const HttpClientOptions& options);

// The rest of a body that is small. ResourceExhausted above `size_max`.
absl::StatusOr<std::string> ReadBody(HttpResponse& response, size_t size_max);

// How long the server wants to be left alone, of an error that HttpError made of a 429 or 5xx with Retry-After; zero if
// it does not say. `now`: for servers that name a date.
absl::Duration RetryAfterOf(const absl::Status& status, absl::Time now);

// A response that is none of 2xx, as an error: 404 and 410 NotFound; 412 FailedPrecondition (it has changed); 408, 425,
// 429 and 5xx Unavailable; the others, forbidden (401, 403, 407) among them, FailedPrecondition.
absl::Status HttpError(const HttpResponse& response);

}  // namespace dagstore
