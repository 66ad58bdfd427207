#include "tests/fakes/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace dagstore {
namespace {

constexpr int kClientMillisMax = 30'000;  // no test needs more; a hang becomes a failure

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

bool ParseHead(std::string_view head, HttpServer::Request* request) {
  const size_t line = head.find("\r\n");
  const std::string_view first = head.substr(0, line);
  const size_t space = first.find(' ');
  const size_t last = first.rfind(' ');
  if (space == first.npos || last == space) return false;
  request->method = first.substr(0, space);
  request->target = first.substr(space + 1, last - space - 1);
  head.remove_prefix(std::min(line + 2, head.size()));
  while (!head.empty()) {
    const size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view field = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    const size_t colon = field.find(':');
    if (colon == field.npos) continue;
    std::string name(field.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request->headers[name] = Trim(field.substr(colon + 1));
  }
  return true;
}

}  // namespace

bool HttpServer::Connection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd fds[2] = {{.fd = fd_, .events = POLLOUT, .revents = 0},
                     {.fd = server_.stop_, .events = POLLIN, .revents = 0}};
    if (poll(fds, 2, kClientMillisMax) <= 0 || fds[1].revents != 0) return open_ = false;
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) return open_ = false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool HttpServer::Connection::Answer(int status, std::string_view headers, std::string_view body) {
  return Send(fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n", status, body.size(), headers)) && Send(body);
}

void HttpServer::Connection::Hang() {
  char ignored[256];
  while (server_.WaitReadable(fd_) && recv(fd_, ignored, sizeof(ignored), MSG_DONTWAIT) > 0) {
  }
  open_ = false;
}

void HttpServer::Connection::Reset() {
  open_ = false;
  reset_ = true;
}

HttpServer::HttpServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  stop_ = eventfd(0, EFD_CLOEXEC);
  DAGSTORE_CHECK(listener_ >= 0 && stop_ >= 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  DAGSTORE_CHECK(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) == 0);
  DAGSTORE_CHECK(listen(listener_, 128) == 0);
  DAGSTORE_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

HttpServer::~HttpServer() {
  const uint64_t one = 1;
  DAGSTORE_CHECK(write(stop_, &one, sizeof(one)) == sizeof(one));
  acceptor_.join();
  std::vector<std::thread> threads;
  {
    MutexLock lock(mu_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  close(listener_);
  close(stop_);
}

std::string HttpServer::Url(std::string_view target) const {
  return fmt::format("http://127.0.0.1:{}{}", port_, target);
}

std::vector<HttpServer::Request> HttpServer::requests() const {
  MutexLock lock(mu_);
  return requests_;
}

bool HttpServer::WaitReadable(int fd) const {
  pollfd fds[2] = {{.fd = fd, .events = POLLIN, .revents = 0}, {.fd = stop_, .events = POLLIN, .revents = 0}};
  return poll(fds, 2, fd == listener_ ? -1 : kClientMillisMax) > 0 && fds[1].revents == 0;
}

void HttpServer::Accept() {
  while (WaitReadable(listener_)) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    connections_.fetch_add(1);
    MutexLock lock(mu_);
    ++open_;
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void HttpServer::Serve(int fd) {
  Connection connection(*this, fd);
  std::string input;
  char block[16 * 1024];
  while (connection.open_) {
    const size_t end = input.find("\r\n\r\n");
    Request request;
    size_t body_size = 0;
    if (end != input.npos) {
      if (!ParseHead(std::string_view(input).substr(0, end), &request)) break;
      const std::string length = request.Header("content-length");
      std::from_chars(length.data(), length.data() + length.size(), body_size);
    }
    if (end == input.npos || input.size() - end - 4 < body_size) {
      if (!WaitReadable(fd)) break;
      const ssize_t n = recv(fd, block, sizeof(block), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (n <= 0) break;
      input.append(block, static_cast<size_t>(n));
      continue;
    }
    request.body = input.substr(end + 4, body_size);
    input.erase(0, end + 4 + body_size);
    {
      MutexLock lock(mu_);
      requests_.push_back(request);
    }
    handler_(request, connection);
  }
  if (connection.reset_) {
    const linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  close(fd);
  MutexLock lock(mu_);
  --open_;
  closed_.NotifyAll();
}

void HttpServer::AwaitClosed() {
  MutexLock lock(mu_);
  while (open_ != 0) closed_.Wait(mu_);
}

void ServeContent(const HttpServer::Request& request, HttpServer::Connection& connection, std::string_view content,
                  std::string_view etag) {
  const bool head = request.method == "HEAD";
  const std::string tag = etag.empty() ? std::string() : fmt::format("ETag: {}\r\n", etag);
  const auto answer = [&](int status, const std::string& headers, std::string_view body) {
    connection.Send(fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n{}{}\r\n", status,
                                body.size(), tag, headers));
    if (!head) connection.Send(body);
  };
  const std::string if_match = request.Header("if-match");
  if (!if_match.empty() && if_match != etag) return answer(412, "", "");
  const std::string range = request.Header("range");
  const std::string if_range = request.Header("if-range");
  if (!range.starts_with("bytes=") || (!if_range.empty() && if_range != etag)) return answer(200, "", content);
  uint64_t first = 0;
  uint64_t last = content.size();
  const char* at = range.data() + 6;
  const char* end = range.data() + range.size();
  if (*at == '-') {  // the last so many
    uint64_t count = 0;
    std::from_chars(at + 1, end, count);
    first = content.size() - std::min<uint64_t>(count, content.size());
  } else {
    at = std::from_chars(at, end, first).ptr;
    if (at < end && *at == '-') std::from_chars(at + 1, end, last);
  }
  if (first >= content.size()) {
    return answer(416, fmt::format("Content-Range: bytes */{}\r\n", content.size()), "");
  }
  last = std::min<uint64_t>(last, content.size() - 1);
  answer(206, fmt::format("Content-Range: bytes {}-{}/{}\r\n", first, last, content.size()),
         content.substr(first, last - first + 1));
}

}  // namespace dagstore
