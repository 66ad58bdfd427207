#include "base/http.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "base/mutex.h"
#include "tests/fakes/http_server.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

HttpClientOptions LoopbackOptions() {
  HttpClientOptions options;
  options.addresses = std::make_shared<AddressPolicy>(ValueOf(AddressPolicy::Allowing({"127.0.0.0/8"})));
  return options;
}

HttpRequest RequestOf(std::string_view url) {
  HttpRequest request;
  request.url = ValueOf(HttpUrl::Parse(url));
  return request;
}

absl::StatusOr<std::string> Get(HttpClient& client, std::string_view url, const WorkContext& work = {}) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpResponse> response, client.Send(RequestOf(url), work));
  if (response->status() != 200) return HttpError(*response);
  return ReadBody(*response, 64 << 20);
}

TEST_CASE("http: how long a server wants to be left alone is kept with its error") {
  SharedText header;
  HttpServer server([&](const HttpServer::Request& request, HttpServer::Connection& connection) {
    connection.Answer(request.target == "/429" ? 429 : request.target == "/403" ? 403 : 503, header.Get(), "");
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  const absl::Time now = absl::FromUnixSeconds(784111777);  // Sun, 06 Nov 1994 08:49:37 GMT
  const auto asked = [&](const std::string& target, const std::string& value) {
    header.Set(value.empty() ? std::string() : "Retry-After: " + value + "\r\n");
    const absl::Status error = Get(*client, server.Url(target)).status();
    CHECK_EQ(absl::IsUnavailable(error), target != "/403");
    CHECK(RetryAfterOf(Annotate(error, "fetch"), now) == RetryAfterOf(error, now));
    return RetryAfterOf(error, now);
  };
  CHECK(asked("/429", "7") == absl::Seconds(7));
  CHECK(asked("/503", "120") == absl::Seconds(120));
  CHECK(asked("/503", "Sun, 06 Nov 1994 08:50:07 GMT") == absl::Seconds(30));
  CHECK(asked("/503", "Sun, 06 Nov 1994 08:40:07 GMT") == absl::ZeroDuration());
  for (const char* nothing : {"", "soon", "-5", "99999999999", "7 7"}) {
    CHECK(asked("/503", nothing) == absl::ZeroDuration());
  }
  CHECK(asked("/503", std::string(65, '1')) == absl::ZeroDuration());
  CHECK(asked("/403", "7") == absl::ZeroDuration());
  CHECK(RetryAfterOf(absl::OkStatus(), now) == absl::ZeroDuration());
}

TEST_CASE("http url: one reading only, or none") {
  struct Case {
    const char* text;
    const char* want;  // null: refused
  };
  const Case cases[] = {
      {"http://example.org", "http://example.org/"},
      {"HTTP://EXAMPLE.org:80/A?b#c", "http://example.org/A?b"},
      {"https://example.org:443/", "https://example.org/"},
      {"https://example.org:8443/%20", "https://example.org:8443/%20"},
      {"http://example.org?q=1", "http://example.org/?q=1"},
      {"http://[::1]:8/x", "http://[::1]:8/x"},
      {"http://[0:0:0:0:0:0:0:1]/x", "http://[::1]/x"},
      {"http://127.0.0.1/", "http://127.0.0.1/"},
      {"http://a_b-c.d/", "http://a_b-c.d/"},
      {"ftp://example.org/", nullptr},
      {"//example.org/", nullptr},
      {"http:/example.org", nullptr},
      {"http:///path", nullptr},
      {"http://user@example.org/", nullptr},
      {"http://user:pw@example.org/", nullptr},
      {"http://127.1/", nullptr},
      {"http://0x7f000001/", nullptr},
      {"http://2130706433/", nullptr},
      {"http://017700000001/", nullptr},
      {"http://0177.0.0.1/", nullptr},
      {"http://127.0.0.1./", nullptr},
      {"http://1.2.3.4.5/", nullptr},
      {"http://[::1/", nullptr},
      {"http://[::1%25lo]/", nullptr},
      {"http://[fe80::1%eth0]/", nullptr},
      {"http://[127.0.0.1]x/", nullptr},
      {"http://exa mple.org/", nullptr},
      {"http://example.org\\@127.0.0.1/", nullptr},
      {"http://example.org:0/", nullptr},
      {"http://example.org:65536/", nullptr},
      {"http://example.org:8a/", nullptr},
      {"http://example.org/\x7f", nullptr},
      {"http://ex\xc3\xa4mple.org/", nullptr},
      {"http://a,b/", nullptr},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const absl::StatusOr<HttpUrl> url = HttpUrl::Parse(c.text);
    if (c.want == nullptr) {
      CHECK_CODE(url, kInvalidArgument);
    } else {
      CHECK_EQ(ValueOf(url).Text(), c.want);
      CHECK(ValueOf(HttpUrl::Parse(c.want)) == *url);
    }
  }
}

TEST_CASE("http url: a location is read as RFC 3986 says") {
  const HttpUrl base = ValueOf(HttpUrl::Parse("https://h.org/b/c/d?q"));
  const std::pair<const char*, const char*> cases[] = {
      {"g", "https://h.org/b/c/g"},         {"./g", "https://h.org/b/c/g"},   {"g/", "https://h.org/b/c/g/"},
      {"/g", "https://h.org/g"},            {"//x.org", "https://x.org/"},    {"?y", "https://h.org/b/c/d?y"},
      {"g?y", "https://h.org/b/c/g?y"},     {"", "https://h.org/b/c/d?q"},    {".", "https://h.org/b/c/"},
      {"..", "https://h.org/b/"},           {"../g", "https://h.org/b/g"},    {"../../../g", "https://h.org/g"},
      {"http://x.org/y", "http://x.org/y"}, {"#f", "https://h.org/b/c/d?q"},  {"g?/../x", "https://h.org/b/c/g?/../x"},
      {"a:b/c", nullptr},                   {"file:///etc/passwd", nullptr},  {"gopher://x", nullptr},
  };
  for (const auto& c : cases) {
    CAPTURE(c.first);
    if (c.second == nullptr) {
      CHECK_CODE(base.Resolve(c.first), kInvalidArgument);
    } else {
      CHECK_EQ(ValueOf(base.Resolve(c.first)).Text(), c.second);
    }
  }
  CHECK_EQ(ValueOf(HttpUrl::Parse("http://h.org/a?token=canary")).Redacted(), "http://h.org/a?...");
}

TEST_CASE("http client: gives status, header and body, and uses a connection again") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    connection.Answer(200, "X-Test:  a b \r\n", request.method + " " + request.target + " " + request.body);
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  for (int i = 0; i < 3; ++i) {
    const auto response = ValueOf(client->Send(RequestOf(server.Url("/a/../b?c=%20")), {}));
    CHECK_EQ(response->status(), 200);
    REQUIRE(response->Header("x-test") != nullptr);
    CHECK_EQ(*response->Header("x-test"), "a b");
    CHECK_EQ(ValueOf(ReadBody(*response, 100)), "GET /a/../b?c=%20 ");
  }
  HttpRequest post = RequestOf(server.Url("/post"));
  post.method = "POST";
  post.headers = {{"Content-Type", "application/json"}};
  post.body = "{}";
  CHECK_EQ(ValueOf(ReadBody(*ValueOf(client->Send(post, {})), 100)), "POST /post {}");
  CHECK_EQ(server.requests().back().Header("content-type"), "application/json");
  CHECK_EQ(server.connections(), 1);
  CHECK_CODE(ReadBody(*ValueOf(client->Send(post, {})), 5), kResourceExhausted);
}

TEST_CASE("http client: no request leaves with a header that was smuggled in") {
  HttpServer server([](const HttpServer::Request&, HttpServer::Connection& c) { c.Answer(200, "", ""); });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  HttpRequest request = RequestOf(server.Url("/"));
  request.headers = {{"A", "b\r\nEvil: yes"}};
  CHECK_CODE(client->Send(request, {}), kInvalidArgument);
  request.headers = {};
  request.private_headers = {{"A", Secret("b\nEvil: yes")}};
  CHECK_CODE(client->Send(request, {}), kInvalidArgument);
  CHECK_EQ(server.requests().size(), 0);
}

TEST_CASE("http client: servers learn of a trace only if they are to") {
  HttpServer server([](const HttpServer::Request&, HttpServer::Connection& c) { c.Answer(200, "", ""); });
  HttpClientOptions options = LoopbackOptions();
  const auto silent = ValueOf(NewHttpClient(options));
  options.send_traceparent = true;
  const auto telling = ValueOf(NewHttpClient(options));
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  WorkContext work;
  REQUIRE_STATUS_OK(telling->Send(RequestOf(server.Url("/no-span")), work).status());
  work.span = ValueOf(SpanContext::FromTraceparent(header));
  REQUIRE_STATUS_OK(silent->Send(RequestOf(server.Url("/silent")), work).status());
  REQUIRE_STATUS_OK(telling->Send(RequestOf(server.Url("/telling")), work).status());
  const std::vector<HttpServer::Request> requests = server.requests();
  REQUIRE_EQ(requests.size(), 3);
  CHECK_FALSE(requests[0].headers.contains("traceparent"));
  CHECK_FALSE(requests[1].headers.contains("traceparent"));
  CHECK_EQ(requests[2].Header("traceparent"), header);
}

TEST_CASE("http client: a body larger than its buffers arrives whole, also when it is read slowly") {
  std::string content(20 << 20, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>((i * 2654435761u) >> 13);
  HttpServer server([&](const HttpServer::Request&, HttpServer::Connection& c) { c.Answer(200, "", content); });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  CHECK(ValueOf(Get(*client, server.Url("/"))) == content);
  const auto response = ValueOf(client->Send(RequestOf(server.Url("/")), {}));
  size_t at = 0;
  bool same = true;
  std::vector<uint8_t> block(300'007);
  while (const size_t n = ValueOf(response->Next(block.size(), block.data()))) {
    same = same && at + n <= content.size() && std::memcmp(block.data(), content.data() + at, n) == 0;
    at += n;
  }
  CHECK(same);
  CHECK_EQ(at, content.size());
}

TEST_CASE("http client: a server that is silent, slow or gone does not hold a stop up") {
  const char* name = nullptr;
  std::string target;
  SUBCASE("before the header") { name = "before the header", target = "/silent"; }
  SUBCASE("in the header") { name = "in the header", target = "/header"; }
  SUBCASE("in the body") { name = "in the body", target = "/body"; }
  CAPTURE(name);
  Notification reached;
  HttpServer server([&](const HttpServer::Request& request, HttpServer::Connection& connection) {
    if (request.target == "/header") connection.Send("HTTP/1.1 200 OK\r\nContent-");
    if (request.target == "/body") connection.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    reached.Notify();
    connection.Hang();
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  CancelFlag stop;
  std::thread stopper([&] {
    reached.WaitForNotification();
    stop.Cancel();
  });
  const absl::StatusOr<std::string> body = Get(*client, server.Url(target), {.cancel = &stop});
  stopper.join();
  CHECK_CODE(body, kCancelled);
}

TEST_CASE("http client: a server without a word is given up after the stall timeout") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    if (request.target == "/body") connection.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    connection.Hang();
  });
  HttpClientOptions options = LoopbackOptions();
  options.stall_timeout = absl::Milliseconds(50);
  const auto client = ValueOf(NewHttpClient(options));
  CHECK_CODE(Get(*client, server.Url("/silent")), kUnavailable);
  CHECK_CODE(Get(*client, server.Url("/body")), kUnavailable);
}

TEST_CASE("http client: a server that drips is given up, though it never stops for the stall timeout") {
  const char* where = nullptr;
  std::string begin;
  SUBCASE("in the header") { where = "in the header", begin = "HTTP/1.1 200 OK\r\n"; }
  SUBCASE("in the body") { where = "in the body", begin = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"; }
  SUBCASE("in the trailer") {
    where = "in the trailer", begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
  }
  CAPTURE(where);
  // Until the client has gone; the pace is the server's nature, not an order of events.
  const std::string drop = std::string_view(where) == "in the body" ? "x" : "X: 1\r\n";
  HttpServer server([&](const HttpServer::Request&, HttpServer::Connection& connection) {
    bool open = connection.Send(begin);
    while (open) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      open = connection.Send(drop);
    }
  });
  HttpClientOptions options = LoopbackOptions();
  options.stall_timeout = absl::Milliseconds(100);
  const auto client = ValueOf(NewHttpClient(options));
  CHECK_CODE(Get(*client, server.Url("/")), kUnavailable);
}

TEST_CASE("http client: time that the reader takes for itself is not the server's") {
  HttpServer server([](const HttpServer::Request&, HttpServer::Connection& connection) {
    connection.Answer(200, "", std::string(3 << 20, 'x'));  // more than is kept for a reader who is away
  });
  HttpClientOptions options = LoopbackOptions();
  options.stall_timeout = absl::Milliseconds(500);
  const auto client = ValueOf(NewHttpClient(options));
  const auto response = ValueOf(client->Send(RequestOf(server.Url("/")), {}));
  uint8_t byte;
  REQUIRE_EQ(ValueOf(response->Next(1, &byte)), 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  CHECK_STATUS_OK(ReadBody(*response, 64 << 20));
}

TEST_CASE("http client: trailers without an end are refused") {
  HttpServer server([](const HttpServer::Request&, HttpServer::Connection& connection) {
    bool open = connection.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n");
    for (int i = 0; open && i < 1'000'000; ++i) open = connection.Send("X-Trailer: 0123456789\r\n");
    connection.Close();
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  CHECK_CODE(Get(*client, server.Url("/")), kResourceExhausted);
}

TEST_CASE("http client: what is no whole answer is an error, and the next request works") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    const std::string& target = request.target;
    if (target == "/short") connection.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    if (target == "/chunk") connection.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n");
    if (target == "/bad-chunk") connection.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n");
    if (target == "/none") connection.Send("");
    if (target == "/0.9") connection.Send("hello");
    if (target == "/reset") {
      connection.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
      return connection.Reset();
    }
    if (target == "/long") connection.Send("HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
    if (target == "/many") {
      connection.Send("HTTP/1.1 200 OK\r\n");
      for (int i = 0; i < 10'000; ++i) connection.Send("X-Header: 0123456789\r\n");
      connection.Send("\r\n");
    }
    if (target == "/ok") return void(connection.Answer(200, "", "fine"));
    connection.Close();
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  for (const char* target : {"/short", "/chunk", "/bad-chunk", "/none", "/0.9", "/reset", "/long", "/many"}) {
    CAPTURE(target);
    const absl::Status status = Get(*client, server.Url(target)).status();
    CAPTURE(ToString(status));
    CHECK((absl::IsUnavailable(status) || absl::IsDataLoss(status) || absl::IsResourceExhausted(status)));
    CHECK_EQ(ValueOf(Get(*client, server.Url("/ok"))), "fine");
  }
  CHECK_CODE(Get(*client, "http://127.0.0.1:1/"), kUnavailable);
}

TEST_CASE("http client: redirects are followed by the rules") {
  HttpServer other([](const HttpServer::Request&, HttpServer::Connection& c) { c.Answer(200, "", "other"); });
  HttpServer server([&](const HttpServer::Request& request, HttpServer::Connection& connection) {
    const std::string& target = request.target;
    const auto to = [&](std::string_view location) {
      connection.Answer(302, fmt::format("Location: {}\r\n", location), "moved");
    };
    if (target == "/1") return to("2");
    if (target == "/2") return to("/3");
    if (target == "/3") return to("/end");
    if (target == "/0") return to("/1");
    if (target == "/loop") return to("/loop");
    if (target == "/other") return to(other.Url("/x"));
    if (target == "/ftp") return to("ftp://127.0.0.1/x");
    if (target == "/file") return to("file:///etc/passwd");
    if (target == "/inward") return to("http://10.0.0.1/");
    if (target == "/meta") return to("http://169.254.169.254/latest/meta-data/");
    if (target == "/user") return to("http://user:pw@127.0.0.1/");
    if (target == "/nowhere") return void(connection.Answer(302, "", ""));
    connection.Answer(200, "", target);
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  CHECK_EQ(ValueOf(Get(*client, server.Url("/1"))), "/end");
  for (const char* target : {"/0", "/loop", "/ftp", "/file", "/inward", "/meta", "/user", "/nowhere"}) {
    CAPTURE(target);
    CHECK_CODE(Get(*client, server.Url(target)), kFailedPrecondition);
  }

  SUBCASE("and what is private goes to the first origin alone") {
    HttpRequest request = RequestOf(server.Url("/other"));
    request.private_headers = {BearerAuthorization(Secret("canary"))};
    CHECK_EQ(ValueOf(client->Send(request, {}))->status(), 200);
    CHECK_EQ(server.requests().back().Header("authorization"), "Bearer canary");
    REQUIRE_EQ(other.requests().size(), 1);
    CHECK_EQ(other.requests()[0].Header("authorization"), "");
    request.url = ValueOf(HttpUrl::Parse(server.Url("/1")));
    CHECK_EQ(ValueOf(client->Send(request, {}))->status(), 200);
    CHECK_EQ(server.requests().back().Header("authorization"), "Bearer canary");
  }

  SUBCASE("and none is followed where the caller says so, or for a POST") {
    HttpRequest request = RequestOf(server.Url("/1"));
    request.follow_redirects = false;
    CHECK_EQ(ValueOf(client->Send(request, {}))->status(), 302);
    request.follow_redirects = true;
    request.method = "POST";
    CHECK_EQ(ValueOf(client->Send(request, {}))->status(), 302);
  }
}

// Answers with the next list at each question: a name server that changes its mind.
class ScriptedResolver final : public Resolver {
 public:
  explicit ScriptedResolver(std::vector<std::vector<std::string>> answers) : answers_(std::move(answers)) {}
  absl::StatusOr<std::vector<IpAddress>> Resolve(const std::string&, const WorkContext&) override {
    MutexLock lock(mu_);
    const std::vector<std::string>& texts = answers_[std::min(asked_++, answers_.size() - 1)];
    std::vector<IpAddress> addresses;
    for (const std::string& text : texts) addresses.push_back(ValueOf(IpAddress::Parse(text)));
    return addresses;
  }

 private:
  const std::vector<std::vector<std::string>> answers_;
  Mutex mu_;
  size_t asked_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST_CASE("http client: a name connects to the addresses that were checked, and to no others") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    if (request.target == "/again") {
      connection.Answer(302, "Location: http://rebound.test:1/\r\n", "");
    } else {
      connection.Answer(200, "", request.Header("host"));
    }
  });
  const auto client_of = [](std::vector<std::vector<std::string>> answers) {
    HttpClientOptions options = LoopbackOptions();
    options.resolver = std::make_shared<ScriptedResolver>(std::move(answers));
    return ValueOf(NewHttpClient(options));
  };
  const std::string url = fmt::format("http://cars.test:{}/", server.port());
  CHECK_EQ(ValueOf(Get(*client_of({{"127.0.0.1"}}), url)), fmt::format("cars.test:{}", server.port()));
  CHECK_CODE(Get(*client_of({{"10.0.0.1"}}), url), kFailedPrecondition);
  CHECK_CODE(Get(*client_of({{"127.0.0.1", "10.0.0.1"}}), url), kFailedPrecondition);
  CHECK_CODE(Get(*client_of({{}}), url), kUnavailable);
  // The second answer is for the second name: each hop is checked.
  CHECK_CODE(Get(*client_of({{"127.0.0.1"}, {"169.254.169.254"}}), url + "again"), kFailedPrecondition);
  CHECK_EQ(server.requests().size(), 2);
}

TEST_CASE("http client: threads share one client") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    connection.Answer(200, "", request.target);
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&client, &server, &right, t] {
      for (int i = 0; i < 20; ++i) {
        const std::string target = fmt::format("/{}/{}", t, i);
        const absl::StatusOr<std::string> body = Get(*client, server.Url(target));
        if (body.ok() && *body == target) right.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(right.load(), 160);
  CHECK(server.connections() <= 8);
}

TEST_CASE("http client: statuses are errors of their kind") {
  HttpServer server([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    connection.Answer(std::stoi(request.target.substr(1)), "", "");
  });
  const auto client = ValueOf(NewHttpClient(LoopbackOptions()));
  const std::pair<int, absl::StatusCode> cases[] = {
      {400, absl::StatusCode::kFailedPrecondition}, {401, absl::StatusCode::kFailedPrecondition},
      {403, absl::StatusCode::kFailedPrecondition}, {404, absl::StatusCode::kNotFound},
      {410, absl::StatusCode::kNotFound},           {408, absl::StatusCode::kUnavailable},
      {412, absl::StatusCode::kFailedPrecondition}, {429, absl::StatusCode::kUnavailable},
      {500, absl::StatusCode::kUnavailable},        {503, absl::StatusCode::kUnavailable}};
  for (const auto& c : cases) {
    CHECK(Get(*client, server.Url(fmt::format("/{}", c.first))).status().code() == c.second);
  }
}

}  // namespace
}  // namespace dagstore
