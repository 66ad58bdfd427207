// A small HTTP/1.1 server on 127.0.0.1 that does what a test tells it, lies included: the handler writes the bytes of
// the answer itself, or does not.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace dagstore {

class HttpServer {
 public:
  struct Request {
    std::string method = {};
    std::string target = {};
    std::map<std::string, std::string> headers = {};  // names in lower case
    std::string body = {};

    std::string Header(const std::string& name) const {
      const auto found = headers.find(name);
      return found == headers.end() ? std::string() : found->second;
    }
  };

  // One client's connection, in the thread that serves it.
  class Connection {
   public:
    Connection(HttpServer& server, int fd) : server_(server), fd_(fd) {}
    // False if the client has gone, or the server stops.
    bool Send(std::string_view bytes);
    // Status line, "Content-Length", `headers` ("Name: value\r\n" each) and the body.
    bool Answer(int status, std::string_view headers, std::string_view body);
    // Nothing more for this client, until it goes or the server stops.
    void Hang();
    // With a reset instead of an orderly end.
    void Reset();
    void Close() { open_ = false; }

   private:
    friend class HttpServer;
    HttpServer& server_;
    const int fd_;
    bool open_ = true;
    bool reset_ = false;
  };

  using Handler = std::function<void(const Request&, Connection&)>;

  // `handler` is called by any number of threads at once.
  explicit HttpServer(Handler handler);
  ~HttpServer();

  uint16_t port() const { return port_; }
  std::string Url(std::string_view target) const;
  std::vector<Request> requests() const;  // so far
  size_t connections() const { return connections_.load(); }
  // Waits until all clients have closed their connections, and this side too.
  void AwaitClosed();

 private:
  void Accept();
  void Serve(int fd);
  // Waits until `fd` can be read; false if the server stops or the time is over.
  bool WaitReadable(int fd) const;

  const Handler handler_;
  int listener_ = -1;
  int stop_ = -1;  // an eventfd that becomes readable
  uint16_t port_ = 0;
  std::atomic<size_t> connections_{0};
  mutable Mutex mu_;
  std::vector<Request> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  size_t open_ ABSL_GUARDED_BY(mu_) = 0;
  CondVar closed_;
  std::thread acceptor_;
};

// A text that a test changes while the threads of a server read it.
class SharedText {
 public:
  void Set(std::string text) {
    MutexLock lock(mu_);
    text_ = std::move(text);
  }
  std::string Get() const {
    MutexLock lock(mu_);
    return text_;
  }

 private:
  mutable Mutex mu_;
  std::string text_ ABSL_GUARDED_BY(mu_);
};

// Serves `content` as an honest server does: GET, HEAD, one range, If-Range, If-Match, and the strong ETag `etag`.
void ServeContent(const HttpServer::Request& request, HttpServer::Connection& connection, std::string_view content,
                  std::string_view etag);

}  // namespace dagstore
