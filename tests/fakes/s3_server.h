// An S3 endpoint on 127.0.0.1: buckets of objects in memory, GET, HEAD, ranges, If-Match and lists, every request
// checked against its SigV4 signature with code of its own. Buckets whose name begins with "public" need none.
#pragma once

#include <map>
#include <string>

#include "tests/fakes/http_server.h"

namespace dagstore {

class FakeS3 {
 public:
  static constexpr char kAccessKey[] = "AKCANARYID";
  static constexpr char kSecretKey[] = "canary-secret/key+1";
  static constexpr char kRegion[] = "lab-1";

  FakeS3();

  void Put(const std::string& bucket, const std::string& key, std::string content);
  void Remove(const std::string& bucket, const std::string& key);
  // Headers of the object besides, "Name: value\r\n" each.
  void SetHeaders(const std::string& bucket, const std::string& key, std::string headers);
  void set_page_size(size_t objects) { page_size_ = objects; }

  std::string url() const { return server_.Url(""); }
  uint16_t port() const { return server_.port(); }
  const HttpServer& server() const { return server_; }
  void CloseAll() { server_.AwaitClosed(); }

 private:
  struct Object {
    std::string content = {};
    std::string etag = {};
    std::string headers = {};
  };

  void Serve(const HttpServer::Request& request, HttpServer::Connection& connection);
  std::string List(const std::string& bucket, const std::map<std::string, std::string>& query) const;

  std::atomic<size_t> page_size_{1000};
  mutable Mutex mu_;
  std::map<std::string, std::map<std::string, Object>> buckets_ ABSL_GUARDED_BY(mu_);
  int puts_ ABSL_GUARDED_BY(mu_) = 0;
  HttpServer server_;  // last: it uses all of the above
};

}  // namespace dagstore
