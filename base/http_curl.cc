// The HTTP and the FTP client on libcurl: the only file that includes it.
//
// A transfer is driven by the worker that wants it: it holds a multi handle of its own while it lasts, and gives it,
// with the connection inside, to the idle list when the body has ended. So there is no thread of the client's, no byte
// crosses threads, and a slow reader slows its server and nobody else.
#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/ftp.h"
#include "base/http.h"
#include "base/mutex.h"
#include "base/text.h"

namespace dagstore {
namespace {

// How often a waiting transfer looks at its cancel flag, which has no way to wake it.
constexpr int kLookMillis = 20;
// What a transfer may hold of a body that nobody has read yet; then it pauses.
constexpr size_t kBufferBytesMax = 1 << 20;
constexpr long kReadBytes = 256 * 1024;  // one read of the socket
// A connection that was idle for longer has probably been closed by the server.
constexpr long kIdleSecondsMax = 60;

void SetUpCurl() {
  // Before any handle exists, once in the life of the process; never undone: other users of libcurl may be here.
  static const bool done = [] {
    DAGSTORE_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    return true;
  }();
  (void)done;
}

template <typename T>
void Set(CURL* easy, CURLoption option, T value) {
  // Fails for options that this libcurl was built without, and for no memory.
  const CURLcode code = curl_easy_setopt(easy, option, value);
  DAGSTORE_CHECK(code == CURLE_OK);
}

struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using Multi = std::unique_ptr<CURLM, MultiDeleter>;

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
using Easy = std::unique_ptr<CURL, EasyDeleter>;

struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, ListDeleter>;

// Multi handles that hold a living connection each. Any thread.
class IdleConnections {
 public:
  explicit IdleConnections(size_t count_max) : count_max_(count_max) {}

  Multi Take(const std::string& origin) {
    MutexLock lock(mu_);
    for (auto at = idle_.begin(); at != idle_.end(); ++at) {
      if (at->origin != origin) continue;
      Multi multi = std::move(at->multi);
      idle_.erase(at);
      return multi;
    }
    return nullptr;
  }

  void Put(const std::string& origin, Multi multi) {
    std::list<Entry> closed;  // outside the lock
    MutexLock lock(mu_);
    idle_.push_front({.origin = origin, .multi = std::move(multi)});
    if (idle_.size() > count_max_) closed.splice(closed.end(), idle_, std::prev(idle_.end()));
  }

  void Clear() {
    std::list<Entry> closed;
    MutexLock lock(mu_);
    closed.swap(idle_);
  }

 private:
  struct Entry {
    std::string origin;
    Multi multi;
  };
  const size_t count_max_;
  Mutex mu_;
  std::list<Entry> idle_ ABSL_GUARDED_BY(mu_);  // the latest first
};

struct Shared {
  explicit Shared(const HttpClientOptions& o) : options(o), idle(o.idle_connections_max) {}
  const HttpClientOptions options;
  IdleConnections idle;
  std::atomic<uint64_t> bytes_received{0};
};

absl::Status TransferError(CURLcode code, const std::string& what, const char* detail) {
  const std::string text = fmt::format("{}: {}", what, *detail != '\0' ? detail : curl_easy_strerror(code));
  switch (code) {
    case CURLE_OUT_OF_MEMORY:
      return ResourceExhausted("{}", text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_LOGIN_DENIED:
    case CURLE_REMOTE_ACCESS_DENIED:
    case CURLE_USE_SSL_FAILED:
      return FailedPrecondition("{}", text);
    case CURLE_REMOTE_FILE_NOT_FOUND:
      return NotFound("{}", text);
    case CURLE_UNSUPPORTED_PROTOCOL:  // of the answer: HTTP/0.9
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
      return DataLoss("{}", text);
    default:
      return Unavailable("{}", text);
  }
}

// One request to one address, and its answer as it arrives.
class Transfer {
 public:
  Transfer(std::shared_ptr<Shared> shared, HttpUrl url, const WorkContext& work)
      : shared_(std::move(shared)), url_(std::move(url)), origin_(url_.Origin()), work_(work) {}
  Transfer(const Transfer&) = delete;
  ~Transfer() { Detach(false); }

  // Returns when the header is there.
  absl::Status Start(const HttpRequest& request, bool with_private_headers,
                     const std::vector<IpAddress>& addresses) {
    method_ = request.method;
    RETURN_IF_ERROR(SetUp("http,https", url_.Text()));
    CURL* easy = easy_.get();
    Set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    Set(easy, CURLOPT_PATH_AS_IS, 1L);
    Set(easy, CURLOPT_USERAGENT, shared_->options.user_agent.c_str());
    Set(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
    Set(easy, CURLOPT_HEADERDATA, this);
    RETURN_IF_ERROR(SetRequest(request, with_private_headers));
    RETURN_IF_ERROR(Pin(addresses));
    RETURN_IF_ERROR(Begin([this] { return header_done_; }));
    if (!header_done_) return DataLoss("{}: the answer has no header", What());
    return absl::OkStatus();
  }

  // Returns when the first byte is there, or it is known that there is none.
  absl::Status StartFtp(const FtpRequest& request, bool stat_only, const std::vector<IpAddress>& addresses) {
    method_ = stat_only ? "stat" : "read";
    origin_ = fmt::format("{}@{}", request.user, url_.Origin());  // a connection is logged in
    const bool implicit = request.tls == FtpTls::kImplicit;
    RETURN_IF_ERROR(SetUp(implicit ? "ftps" : "ftp", url_.Text()));
    CURL* easy = easy_.get();
    Set(easy, CURLOPT_USERNAME, request.user.c_str());
    Set(easy, CURLOPT_PASSWORD, request.password.Reveal().c_str());
    Set(easy, CURLOPT_USE_SSL, static_cast<long>(request.tls == FtpTls::kNone ? CURLUSESSL_NONE : CURLUSESSL_ALL));
    // The path is sent whole, and the data connection goes to the address of the control connection, not to one that
    // the server names.
    Set(easy, CURLOPT_FTP_FILEMETHOD, static_cast<long>(CURLFTPMETHOD_NOCWD));
    Set(easy, CURLOPT_FTP_SKIP_PASV_IP, 1L);
    Set(easy, CURLOPT_FILETIME, 1L);
    if (stat_only) {
      Set(easy, CURLOPT_NOBODY, 1L);
      // libcurl makes HTTP headers of what it learns, and gives them to both.
      Set(easy, CURLOPT_HEADERFUNCTION, &Transfer::Ignore);
      Set(easy, CURLOPT_WRITEFUNCTION, &Transfer::Ignore);
    }
    Set(easy, CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(request.offset));
    RETURN_IF_ERROR(Pin(addresses));
    return Begin([this] { return !buffer_.empty(); });
  }

  FtpStat StatOfFile() const {
    curl_off_t size = -1;
    curl_off_t mtime = -1;
    curl_easy_getinfo(easy_.get(), CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &size);
    curl_easy_getinfo(easy_.get(), CURLINFO_FILETIME_T, &mtime);
    FtpStat stat;
    if (size >= 0) stat.size = static_cast<uint64_t>(size);
    if (mtime >= 0) stat.mtime_seconds = mtime;
    return stat;
  }

  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) {
    if (size == 0) return size_t{0};
    RETURN_IF_ERROR(work_.Check());
    if (buffer_.size() == taken_) {
      buffer_.clear();
      taken_ = 0;
      // What arrives meanwhile goes where it is wanted: a copy less.
      room_ = {out, size};
      if (paused_) {
        paused_ = false;
        // Gives what it holds to OnBody at once.
        if (const CURLcode code = curl_easy_pause(easy_.get(), CURLPAUSE_CONT); code != CURLE_OK && !ended_) {
          End(code);
        }
      }
      const absl::Status driven = Drive([this] { return filled_ != 0; });
      room_ = {};
      const size_t filled = std::exchange(filled_, 0);
      RETURN_IF_ERROR(driven);
      return filled;  // 0 at the end
    }
    const size_t n = std::min(size, buffer_.size() - taken_);
    std::memcpy(out, buffer_.data() + taken_, n);
    taken_ += n;
    return n;
  }

  int status() const { return status_; }
  const HttpHeaders& headers() const { return headers_; }
  const HttpUrl& url() const { return url_; }

 private:
  std::string What() const { return fmt::format("{} {}", method_, url_.Redacted()); }

  // What both protocols have in common.
  absl::Status SetUp(const char* protocols, const std::string& url) {
    easy_.reset(curl_easy_init());
    if (easy_ == nullptr) return ResourceExhausted("{}: no memory for a transfer", What());
    const HttpClientOptions& options = shared_->options;
    CURL* easy = easy_.get();
    Set(easy, CURLOPT_ERRORBUFFER, error_);
    Set(easy, CURLOPT_NOSIGNAL, 1L);
    Set(easy, CURLOPT_PROTOCOLS_STR, protocols);
    Set(easy, CURLOPT_FOLLOWLOCATION, 0L);
    Set(easy, CURLOPT_PROXY, "");
    Set(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    Set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    Set(easy, CURLOPT_URL, url.c_str());
    Set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(options.connect_timeout)));
    Set(easy, CURLOPT_BUFFERSIZE, kReadBytes);
    Set(easy, CURLOPT_MAXAGE_CONN, kIdleSecondsMax);
    Set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    if (!options.ca_file.empty()) Set(easy, CURLOPT_CAINFO, options.ca_file.c_str());
    Set(easy, CURLOPT_OPENSOCKETFUNCTION, &Transfer::OnSocket);
    Set(easy, CURLOPT_OPENSOCKETDATA, this);
    Set(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
    Set(easy, CURLOPT_WRITEDATA, this);
    return absl::OkStatus();
  }

  // On a connection that is there, or a new one.
  template <typename Enough>
  absl::Status Begin(Enough enough) {
    multi_ = shared_->idle.Take(origin_);
    if (multi_ == nullptr) multi_.reset(curl_multi_init());
    if (multi_ == nullptr) return ResourceExhausted("{}: no descriptors for a connection", What());
    curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, 1L);
    DAGSTORE_CHECK(curl_multi_add_handle(multi_.get(), easy_.get()) == CURLM_OK);
    attached_ = true;
    absl::Status status = Drive(enough);
    if (!status.ok()) Detach(false);
    return status;
  }

  absl::Status SetRequest(const HttpRequest& request, bool with_private_headers) {
    CURL* easy = easy_.get();
    if (request.method == "HEAD") {
      Set(easy, CURLOPT_NOBODY, 1L);
    } else if (request.method != "GET") {
      Set(easy, CURLOPT_POST, 1L);
      Set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      Set(easy, CURLOPT_COPYPOSTFIELDS, request.body.c_str());
      Set(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    // No "100 Continue": it costs a round trip. No form type for a body that is none.
    if (!AddHeader("Expect", "") || (!request.body.empty() && !AddHeader("Content-Type", ""))) {
      return ResourceExhausted("{}: no memory for the header", What());
    }
    if (shared_->options.send_traceparent && work_.span.IsValid() &&
        !AddHeader("traceparent", work_.span.ToTraceparent())) {
      return ResourceExhausted("{}: no memory for the header", What());
    }
    for (const auto& header : request.headers) {
      if (!AddHeader(header.first, header.second)) return InvalidArgument("{}: bad header {}", What(), header.first);
    }
    if (with_private_headers) {
      for (const auto& header : request.private_headers) {
        if (!AddHeader(header.first, header.second.Reveal())) {
          return InvalidArgument("{}: bad header {}", What(), header.first);
        }
      }
    }
    Set(easy, CURLOPT_HTTPHEADER, request_headers_.get());
    return absl::OkStatus();
  }

  // An empty value takes the header away.
  bool AddHeader(const std::string& name, const std::string& value) {
    const auto plain = [](const std::string& text) {
      return std::none_of(text.begin(), text.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
    };
    if (name.empty() || !plain(name) || !plain(value) || name.find(':') != name.npos) return false;
    curl_slist* longer = curl_slist_append(request_headers_.get(), (name + ": " + value).c_str());
    if (longer == nullptr) return false;
    (void)request_headers_.release();  // `longer` begins with it
    request_headers_.reset(longer);
    return true;
  }

  // The host name means these addresses and nothing else, whatever name servers say by now.
  absl::Status Pin(const std::vector<IpAddress>& addresses) {
    const std::string host = url_.host.find(':') == url_.host.npos ? url_.host : '[' + url_.host + ']';
    std::string entry = fmt::format("+{}:{}:", host, url_.port);
    for (size_t i = 0; i < addresses.size(); ++i) {
      if (i > 0) entry += ',';
      entry += addresses[i].is_v4() ? addresses[i].ToString() : '[' + addresses[i].ToString() + ']';
    }
    pinned_.reset(curl_slist_append(nullptr, entry.c_str()));
    if (pinned_ == nullptr) return ResourceExhausted("{}: no memory", What());
    Set(easy_.get(), CURLOPT_RESOLVE, pinned_.get());
    return absl::OkStatus();
  }

  // Runs the transfer until `enough()`, or it has ended. Whatever has arrived before an error is given first.
  template <typename Enough>
  absl::Status Drive(Enough enough) {
    const Clock& clock = Clock::Real();
    const HttpClientOptions& options = shared_->options;
    MonotonicNanos looked_at = clock.Now();
    for (;;) {
      if (enough()) return absl::OkStatus();
      if (ended_) return outcome_;
      RETURN_IF_ERROR(work_.Check());
      int running = 0;
      if (const CURLMcode code = curl_multi_perform(multi_.get(), &running); code != CURLM_OK) {
        ended_ = true;
        outcome_ = Unavailable("{}: {}", What(), curl_multi_strerror(code));
        continue;
      }
      int left = 0;
      while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
        if (message->msg != CURLMSG_DONE) continue;
        End(message->data.result);
        break;  // there is no other transfer in this handle, and maybe no handle any more
      }
      const MonotonicNanos now = clock.Now();
      window_waited_ += now - std::exchange(looked_at, now);
      if (window_bytes_ >= options.stall_bytes_min) BeginWindow();
      if (ended_ || enough()) continue;
      if (window_waited_ > absl::ToInt64Nanoseconds(options.stall_timeout)) {
        ended_ = true;
        outcome_ = Unavailable("{}: {} bytes in {}, less than {}", What(), window_bytes_,
                               absl::FormatDuration(options.stall_timeout), options.stall_bytes_min);
        continue;
      }
      curl_multi_poll(multi_.get(), nullptr, 0, kLookMillis, nullptr);
    }
  }

  void BeginWindow() {
    window_waited_ = 0;
    window_bytes_ = 0;
  }

  void End(CURLcode code) {
    ended_ = true;
    if (code != CURLE_OK) {
      outcome_ = !own_error_.ok() ? own_error_ : TransferError(code, What(), error_);
      return;
    }
    Detach(true);
  }

  // `whole`: the connection can serve another request.
  void Detach(bool whole) {
    if (!attached_) return;
    attached_ = false;
    curl_multi_remove_handle(multi_.get(), easy_.get());
    if (whole) {
      shared_->idle.Put(origin_, std::move(multi_));
    } else {
      multi_.reset();
    }
  }

  static curl_socket_t OnSocket(void* self, curlsocktype, curl_sockaddr* address) {
    auto& transfer = *static_cast<Transfer*>(self);
    const absl::StatusOr<IpAddress> ip = IpAddress::FromSockaddr(address->addr);
    transfer.own_error_ = ip.ok() ? transfer.shared_->options.addresses->Check(*ip) : ip.status();
    if (!transfer.own_error_.ok()) {
      transfer.own_error_ = Annotate(transfer.own_error_, transfer.What());
      return CURL_SOCKET_BAD;
    }
    const int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0) transfer.own_error_ = ErrnoStatus(errno, transfer.What());
    return fd;
  }

  static size_t OnHeader(char* data, size_t one, size_t size, void* self) {
    (void)one;
    return static_cast<Transfer*>(self)->TakeHeader(std::string_view(data, size)) ? size : 0;
  }

  static size_t Ignore(char*, size_t one, size_t size, void*) { return one * size; }

  bool TakeHeader(std::string_view line) {
    window_bytes_ += line.size();
    header_bytes_ += line.size();  // trailers too: libcurl keeps them all
    if (header_bytes_ > kHttpHeaderBytesMax) {
      own_error_ = ResourceExhausted("{}: a header of more than {} bytes", What(), kHttpHeaderBytesMax);
      return false;
    }
    if (header_done_) return true;  // a trailer: nothing we would believe
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {
      headers_.clear();
      long status = 0;
      curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
      status_ = static_cast<int>(status);
      return true;
    }
    if (line.empty()) {
      header_done_ = status_ >= 200;
      if (header_done_) BeginWindow();  // a slow server may think once more before the body
      return true;
    }
    const size_t colon = line.find(':');
    if (colon == line.npos) return true;
    headers_.emplace_back(LowerAscii(line.substr(0, colon)), TrimBlanks(line.substr(colon + 1)));
    return true;
  }

  static size_t OnBody(char* data, size_t one, size_t size, void* self) {
    (void)one;
    auto& transfer = *static_cast<Transfer*>(self);
    if (transfer.buffer_.size() - transfer.taken_ >= kBufferBytesMax) {
      transfer.paused_ = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    transfer.window_bytes_ += size;
    transfer.shared_->bytes_received.fetch_add(size, std::memory_order_relaxed);
    const size_t direct = std::min(size, transfer.room_.size() - transfer.filled_);
    if (direct != 0) std::memcpy(transfer.room_.data() + transfer.filled_, data, direct);
    transfer.filled_ += direct;
    AppendBytes(transfer.buffer_, Span(reinterpret_cast<const uint8_t*>(data) + direct, size - direct));
    return size;
  }

  const std::shared_ptr<Shared> shared_;
  const HttpUrl url_;
  std::string origin_;  // of the connection, in the idle list
  const WorkContext work_;
  std::string method_ = {};

  HeaderList request_headers_ = nullptr;
  HeaderList pinned_ = nullptr;
  char error_[CURL_ERROR_SIZE] = {};
  Multi multi_ = nullptr;
  Easy easy_ = nullptr;
  bool attached_ = false;

  // Of the answer.
  int status_ = 0;
  HttpHeaders headers_ = {};
  size_t header_bytes_ = 0;
  bool header_done_ = false;
  Bytes buffer_ = {};  // from taken_ on: arrived, not read yet
  size_t taken_ = 0;
  std::span<uint8_t> room_ = {};  // of the reader that waits
  size_t filled_ = 0;             // of it
  bool paused_ = false;

  // Since the server last gave `stall_bytes_min`. Only time in Drive counts: the reader may take its own.
  MonotonicNanos window_waited_ = 0;
  size_t window_bytes_ = 0;
  absl::Status own_error_ = {};  // why a callback of ours has stopped the transfer
  bool ended_ = false;
  absl::Status outcome_ = {};
};

class CurlResponse final : public HttpResponse {
 public:
  explicit CurlResponse(std::unique_ptr<Transfer> transfer) : transfer_(std::move(transfer)) {}
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override { return transfer_->Next(size, out); }
  int status() const override { return transfer_->status(); }
  const HttpHeaders& headers() const override { return transfer_->headers(); }
  const HttpUrl& url() const override { return transfer_->url(); }

 private:
  const std::unique_ptr<Transfer> transfer_;
};

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

class CurlClient final : public HttpClient {
 public:
  explicit CurlClient(const HttpClientOptions& options) : shared_(std::make_shared<Shared>(options)) {}

  absl::StatusOr<std::unique_ptr<HttpResponse>> Send(const HttpRequest& request, const WorkContext& work) override {
    HttpUrl url = request.url;
    const bool may_follow = request.follow_redirects && (request.method == "GET" || request.method == "HEAD");
    bool at_origin = true;
    for (int hop = 0;; ++hop) {
      RETURN_IF_ERROR(work.Check());
      ASSIGN_OR_RETURN(const std::vector<IpAddress> addresses,
                       ResolveChecked(*shared_->options.resolver, *shared_->options.addresses, url.host, work));
      auto transfer = std::make_unique<Transfer>(shared_, url, work);
      RETURN_IF_ERROR(transfer->Start(request, at_origin, addresses));
      auto response = std::make_unique<CurlResponse>(std::move(transfer));
      if (!may_follow || !IsRedirect(response->status())) return response;
      if (hop == kHttpRedirectsMax) {
        return FailedPrecondition("{}: more than {} redirects", request.url.Redacted(), kHttpRedirectsMax);
      }
      ASSIGN_OR_RETURN(HttpUrl next, Redirect(url, *response));
      at_origin = at_origin && next.Origin() == url.Origin();
      url = std::move(next);
    }
  }

  void CloseIdle() override { shared_->idle.Clear(); }
  uint64_t bytes_received() const override { return shared_->bytes_received.load(std::memory_order_relaxed); }

 private:
  static absl::StatusOr<HttpUrl> Redirect(const HttpUrl& from, const HttpResponse& response) {
    const std::string* location = response.Header("location");
    if (location == nullptr) return FailedPrecondition("{}: a redirect to nowhere", from.Redacted());
    absl::StatusOr<HttpUrl> to = from.Resolve(*location);
    if (!to.ok()) return FailedPrecondition("{}: redirect refused: {}", from.Redacted(), Message(to.status()));
    if (from.scheme == "https" && to->scheme != "https") {
      return FailedPrecondition("{}: a redirect from https to http", from.Redacted());
    }
    return to;
  }

  const std::shared_ptr<Shared> shared_;
};

class FtpStream final : public ByteStream {
 public:
  explicit FtpStream(std::unique_ptr<Transfer> transfer) : transfer_(std::move(transfer)) {}
  absl::StatusOr<size_t> Next(size_t size, uint8_t* out) override { return transfer_->Next(size, out); }

 private:
  const std::unique_ptr<Transfer> transfer_;
};

class CurlFtpClient final : public FtpClient {
 public:
  explicit CurlFtpClient(const HttpClientOptions& options) : shared_(std::make_shared<Shared>(options)) {}

  absl::StatusOr<FtpStat> Stat(const FtpRequest& request, const WorkContext& work) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Transfer> transfer, Start(request, /*stat_only=*/true, work));
    uint8_t byte;
    ASSIGN_OR_RETURN(const size_t n, transfer->Next(1, &byte));  // to its end
    if (n != 0) return Internal("a question about a file was answered with its bytes");
    return transfer->StatOfFile();
  }

  absl::StatusOr<std::unique_ptr<ByteStream>> Open(const FtpRequest& request, const WorkContext& work) override {
    ASSIGN_OR_RETURN(std::unique_ptr<Transfer> transfer, Start(request, /*stat_only=*/false, work));
    return std::make_unique<FtpStream>(std::move(transfer));
  }

  void CloseIdle() override { shared_->idle.Clear(); }
  uint64_t bytes_received() const override { return shared_->bytes_received.load(std::memory_order_relaxed); }

 private:
  absl::StatusOr<std::unique_ptr<Transfer>> Start(const FtpRequest& request, bool stat_only, const WorkContext& work) {
    RETURN_IF_ERROR(work.Check());
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
    for (const std::string* text : {&request.path, &request.user, &request.password.Reveal()}) {
      if (std::any_of(text->begin(), text->end(), is_control)) {
        return InvalidArgument("FTP to {}: control bytes in the path, the user or the password", request.host);
      }
    }
    HttpUrl url;
    url.scheme = request.tls == FtpTls::kImplicit ? "ftps" : "ftp";
    url.host = request.host;
    url.port = request.port;
    // Two slashes: from the root of the server.
    const bool from_root = request.path.starts_with('/');
    url.target = from_root ? "/%2F" : "/";
    AppendPercentEncoded(url.target, std::string_view(request.path).substr(from_root ? 1 : 0), "/");
    ASSIGN_OR_RETURN(const std::vector<IpAddress> addresses,
                     ResolveChecked(*shared_->options.resolver, *shared_->options.addresses, url.host, work));
    auto transfer = std::make_unique<Transfer>(shared_, std::move(url), work);
    RETURN_IF_ERROR(transfer->StartFtp(request, stat_only, addresses));
    return transfer;
  }

  const std::shared_ptr<Shared> shared_;
};

absl::Status CheckOptions(const HttpClientOptions& options) {
  SetUpCurl();
  if (options.addresses == nullptr || options.resolver == nullptr) {
    return InvalidArgument("an HTTP client needs an address policy and a resolver");
  }
  if (options.connect_timeout <= absl::ZeroDuration() || options.stall_timeout <= absl::ZeroDuration() ||
      options.stall_bytes_min == 0) {
    return InvalidArgument("timeouts and the least bytes of an HTTP client are above zero");
  }
  if (!options.ca_file.empty() && access(options.ca_file.c_str(), R_OK) != 0) {
    return InvalidArgument("the certificates in {} cannot be read", options.ca_file);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<HttpClient>> NewHttpClient(const HttpClientOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  return std::make_shared<CurlClient>(options);
}

absl::StatusOr<std::shared_ptr<FtpClient>> NewFtpClient(const HttpClientOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  return std::make_shared<CurlFtpClient>(options);
}

}  // namespace dagstore
