// http: against a server that lies. What honest servers do is in real_servers_test.cc.
#include "mount/http_mount.h"

#include <atomic>
#include <map>

#include "tests/conformance/mount_suite.h"
#include "tests/fakes/http_server.h"
#include "tests/mount/network_testing.h"

namespace dagstore {
namespace {

using Request = HttpServer::Request;
using Connection = HttpServer::Connection;

const std::string& Content() {
  static const std::string content(AsText(TestContent(100'000)));
  return content;
}

// An answer in the wire's own words. `body` is not sent for HEAD.
void Raw(const Request& request, Connection& connection, std::string_view head, std::string_view body) {
  connection.Send(fmt::format("HTTP/1.1 {}\r\n\r\n", head));
  if (request.method != "HEAD") connection.Send(body);
}

// What the mount makes of one GET, by the way it is asked.
struct Outcome {
  absl::Status range = {};   // OpenRange({100, 50}) of the version that Stat saw, and its body
  absl::Status stream = {};  // OpenStream(), and its body
};

absl::Status ReadRange(const Mount& mount, ByteRange range, const std::string& validator) {
  ASSIGN_OR_RETURN(const MountRange opened, mount.OpenRange(Io::Posix(), {}, range, validator));
  ASSIGN_OR_RETURN(const Bytes got, ReadAll(*opened.stream, 4096));
  if (AsText(got) != Content().substr(range.offset, range.size)) return Internal("wrong bytes were given");
  return absl::OkStatus();
}

absl::Status ReadWhole(const Mount& mount) {
  ASSIGN_OR_RETURN(const Bytes got, ReadMount(mount));
  if (AsText(got) != Content()) return Internal("wrong bytes were given");
  return absl::OkStatus();
}

TEST_CASE("http mount: what a lying server sends is an error, never bytes") {
  using Code = absl::StatusCode;
  struct Lie {
    const char* name;
    std::function<void(const Request&, Connection&)> get;  // answers GET; HEAD is honest, with the ETag "v1"
    Code range;
    Code stream;
  };
  const std::string part = Content().substr(100, 50);
  const auto head = [](int status, const std::string& more) { return fmt::format("{} X\r\n{}", status, more); };
  const std::string right = "ETag: \"v1\"\r\nContent-Range: bytes 100-149/100000";
  const auto range_only = [&](std::string range_head, std::string body) {
    return [range_head, body](const Request& request, Connection& connection) {
      if (request.Header("range").empty()) return ServeContent(request, connection, Content(), "\"v1\"");
      Raw(request, connection, range_head, body);
    };
  };
  // clang-format off
  const std::vector<Lie> lies = {
      {"honest", [](const Request& r, Connection& c) { ServeContent(r, c, Content(), "\"v1\""); }, Code::kOk, Code::kOk},
      {"another range", range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 50\r\nContent-Range: bytes 0-49/100000"), part),
       Code::kDataLoss, Code::kOk},
      {"a shorter range", range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 10\r\nContent-Range: bytes 100-109/100000"),
                                     part.substr(0, 10)),
       Code::kDataLoss, Code::kOk},
      {"a longer range",
       range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 60\r\nContent-Range: bytes 100-159/100000"), part + part),
       Code::kDataLoss, Code::kOk},
      {"no Content-Range", range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 50"), part), Code::kDataLoss, Code::kOk},
      {"nonsense as Content-Range",
       range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 50\r\nContent-Range: bytes 100-x/y"), part), Code::kDataLoss,
       Code::kOk},
      {"a range behind its total",
       range_only(head(206, "ETag: \"v1\"\r\nContent-Length: 50\r\nContent-Range: bytes 100-149/120"), part),
       Code::kDataLoss, Code::kOk},
      {"a length that is not the range's", range_only(head(206, right + "\r\nContent-Length: 40"), part.substr(0, 40)),
       Code::kDataLoss, Code::kOk},
      {"several ranges",
       range_only(head(206, right + "\r\nContent-Length: 50\r\nContent-Type: multipart/byteranges; boundary=x"), part),
       Code::kDataLoss, Code::kOk},
      {"more bytes than the range, chunked",
       range_only(head(206, right + "\r\nTransfer-Encoding: chunked"), "3c\r\n" + part + "0123456789\r\n0\r\n\r\n"),
       Code::kDataLoss, Code::kOk},
      {"fewer bytes than the range, chunked",
       range_only(head(206, right + "\r\nTransfer-Encoding: chunked"), "a\r\n0123456789\r\n0\r\n\r\n"),
       Code::kUnavailable, Code::kOk},
      {"another ETag", [](const Request& r, Connection& c) { ServeContent(r, c, Content(), "\"v2\""); },
       Code::kFailedPrecondition, Code::kOk},
      {"another ETag, without a look at If-Match",
       range_only(head(206, "ETag: \"v2\"\r\nContent-Length: 50\r\nContent-Range: bytes 100-149/100000"), part),
       Code::kFailedPrecondition, Code::kOk},
      {"no ETag any more", range_only(head(206, "Content-Length: 50\r\nContent-Range: bytes 100-149/100000"), part),
       Code::kFailedPrecondition, Code::kOk},
      {"no ranges",
       [&](const Request& r, Connection& c) { Raw(r, c, head(200, "ETag: \"v1\"\r\nContent-Length: 100000"), Content()); },
       Code::kUnimplemented, Code::kOk},
      {"gzip",
       [&](const Request& r, Connection& c) {
         const bool range = !r.Header("range").empty();
         Raw(r, c, head(range ? 206 : 200, right + "\r\nContent-Encoding: gzip\r\nContent-Length: 50"), part);
       },
       Code::kDataLoss, Code::kDataLoss},
      {"fewer bytes than Content-Length",
       [&](const Request& r, Connection& c) {
         const bool range = !r.Header("range").empty();
         Raw(r, c, head(range ? 206 : 200, range ? right + "\r\nContent-Length: 50" : "Content-Length: 100000"), "short");
         c.Close();
       },
       Code::kUnavailable, Code::kUnavailable},
      {"a reset in the middle",
       [&](const Request& r, Connection& c) {
         const bool range = !r.Header("range").empty();
         Raw(r, c, head(range ? 206 : 200, range ? right + "\r\nContent-Length: 50" : "Content-Length: 100000"), "short");
         c.Reset();
       },
       Code::kUnavailable, Code::kUnavailable},
      {"nothing", [](const Request&, Connection& c) { c.Close(); }, Code::kUnavailable, Code::kUnavailable},
      {"a page that says sorry", [](const Request&, Connection& c) { c.Answer(503, "Retry-After: 1\r\n", "sorry"); },
       Code::kUnavailable, Code::kUnavailable},
      {"too many requests", [](const Request&, Connection& c) { c.Answer(429, "", ""); }, Code::kUnavailable,
       Code::kUnavailable},
      {"a redirect into the cloud",
       [](const Request&, Connection& c) { c.Answer(302, "Location: http://169.254.169.254/latest/\r\n", ""); },
       Code::kFailedPrecondition, Code::kFailedPrecondition},
      {"a redirect to itself", [](const Request&, Connection& c) { c.Answer(302, "Location: /\r\n", ""); },
       Code::kFailedPrecondition, Code::kFailedPrecondition},
      {"a redirect to a file", [](const Request&, Connection& c) { c.Answer(301, "Location: file:///etc/passwd\r\n", ""); },
       Code::kFailedPrecondition, Code::kFailedPrecondition},
      {"206 for what was no range",
       [&](const Request& r, Connection& c) { Raw(r, c, head(206, right + "\r\nContent-Length: 50"), part); }, Code::kOk,
       Code::kFailedPrecondition},
      {"success without content", [](const Request&, Connection& c) { c.Send("HTTP/1.1 204 X\r\n\r\n"); },
       Code::kFailedPrecondition, Code::kFailedPrecondition},
  };
  // clang-format on
  std::atomic<size_t> at = 0;
  HttpServer server([&](const Request& request, Connection& connection) {
    if (request.method == "HEAD") return ServeContent(request, connection, Content(), "\"v1\"");
    lies[at].get(request, connection);
  });
  NetworkMountConfig config = LoopbackConfig();
  config.network.stall_timeout = absl::Milliseconds(300);
  const Network network(config);
  const std::unique_ptr<Mount> mount = network.Make(server.Url("/a.car"));
  for (size_t i = 0; i < lies.size(); ++i) {
    CAPTURE(lies[i].name);
    at = i;
    const MountStat stat = ValueOf(mount->Stat(Io::Posix(), {}));
    CHECK_EQ(stat.validator, "\"v1\"");
    const Outcome seen = {.range = ReadRange(*mount, {100, 50}, stat.validator), .stream = ReadWhole(*mount)};
    INFO(ToString(seen.range), " / ", ToString(seen.stream));
    CHECK(seen.range.code() == lies[i].range);
    CHECK(seen.stream.code() == lies[i].stream);
    // The next request is not touched by it.
    at = 0;
    CHECK_STATUS_OK(ReadRange(*mount, {100, 50}, stat.validator));
    CHECK_STATUS_OK(ReadWhole(*mount));
  }
}

TEST_CASE("http mount: an endless body is given up by whoever reads it, at a bounded cost") {
  HttpServer server([](const Request&, Connection& connection) {
    connection.Send("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
    while (connection.Send(chunk)) {
    }
  });
  const Network network(LoopbackConfig());
  const auto stream = ValueOf(network.Make(server.Url("/a.car"))->OpenStream(Io::Posix(), {}));
  Bytes block(1 << 20);
  uint64_t read = 0;
  while (read < (32 << 20)) {
    const size_t n = ValueOf(stream->Next(block.size(), block.data()));
    REQUIRE_GT(n, 0);
    read += n;
  }
}

TEST_CASE("http mount: stat asks with GET where HEAD is refused, as for signed URLs") {
  std::atomic<int> head_status = 403;
  SharedText content;
  content.Set(Content());
  HttpServer server([&](const Request& request, Connection& connection) {
    if (request.method == "HEAD") return void(connection.Answer(head_status, "", ""));
    ServeContent(request, connection, content.Get(), "\"v1\"");
  });
  const Network network(LoopbackConfig());
  const auto mount = network.Make(server.Url("/a.car?X-Amz-Signature=canary"));
  for (const int status : {403, 405, 501}) {
    head_status = status;
    const MountStat stat = ValueOf(mount->Stat(Io::Posix(), {}));
    CHECK(stat.exists);
    CHECK_EQ(stat.size, 100'000);
    CHECK_EQ(stat.validator, "\"v1\"");
  }
  content.Set("");
  CHECK_EQ(ValueOf(mount->Stat(Io::Posix(), {})).size, 0);
  head_status = 503;
  CHECK_CODE(mount->Stat(Io::Posix(), {}), kUnavailable);
}

TEST_CASE("http mount: validators are strong tags, weak ones with the size, or dates with the size") {
  SharedText headers;
  HttpServer server([&](const Request&, Connection& connection) { connection.Answer(200, headers.Get(), ""); });
  const Network network(LoopbackConfig());
  const auto mount = network.Make(server.Url("/a.car"));
  const std::pair<const char*, const char*> cases[] = {
      {"ETag: \"x\"\r\nLast-Modified: D\r\n", "\"x\""},
      {"ETag: W/\"x\"\r\nLast-Modified: D\r\n", "W/\"x\";0"},
      {"Last-Modified: D\r\n", "D;0"},
      {"", ""},
  };
  for (const auto& c : cases) {
    headers.Set(c.first);
    CHECK_EQ(ValueOf(mount->Stat(Io::Posix(), {})).validator, c.second);
  }
}

// Defect 39 of the Go original: a request that was stopped left its connection open.
TEST_CASE("http mount: two hundred stopped reads leave no descriptor behind") {
  HttpServer server([](const Request& request, Connection& connection) {
    if (request.method == "HEAD") return ServeContent(request, connection, Content(), "\"v1\"");
    connection.Send("HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n0123456789");
    connection.Hang();
  });
  const Network network(LoopbackConfig());
  const auto mount = network.Make(server.Url("/a.car"));
  const size_t before = DescriptorCount();
  for (int i = 0; i < 200; ++i) {
    CancelFlag stop;
    const auto stream = ValueOf(mount->OpenStream(Io::Posix(), {.cancel = &stop}));
    uint8_t block[100];
    CHECK_EQ(ValueOf(stream->Next(sizeof(block), block)), 10);
    stop.Cancel();
    CHECK_CODE(stream->Next(sizeof(block), block), kCancelled);
  }
  network.clients.CloseIdle();
  server.AwaitClosed();
  CHECK_EQ(DescriptorCount(), before);
}

// Defect 43: limits were off by default, and skipped unless a mount said it was ready, which none did.
TEST_CASE("http mount: says when it is ready, and keeps a bounded number of idle connections") {
  HttpServer server([](const Request& request, Connection& connection) {
    ServeContent(request, connection, Content(), "\"v1\"");
  });
  NetworkMountConfig config = LoopbackConfig();
  config.network.idle_connections_max = 4;
  const Network network(config);
  const auto mount = network.Make(server.Url("/a.car"));
  CHECK(ValueOf(mount->Stat(Io::Posix(), {})).ready);
  const size_t before = DescriptorCount();
  std::vector<std::unique_ptr<ByteStream>> streams;
  for (int i = 0; i < 20; ++i) streams.push_back(ValueOf(mount->OpenStream(Io::Posix(), {})));
  for (const auto& stream : streams) CHECK_EQ(ValueOf(ReadAll(*stream, 1 << 16)).size(), Content().size());
  streams.clear();
  // A client's socket, its wake-up pair, and the server's socket, each.
  CHECK_LE(DescriptorCount(), before + 4 * 4 + 20);
  network.clients.CloseIdle();
  server.AwaitClosed();
  CHECK_LE(DescriptorCount(), before);
}

TEST_CASE("http mount: the end of a file is what the server says it is, or an error") {
  SharedText head;
  HttpServer server([&](const Request& request, Connection& connection) {
    if (head.Get().empty()) return ServeContent(request, connection, Content(), "\"v1\"");
    Raw(request, connection, head.Get(), Content().substr(Content().size() - 50));
  });
  const Network network(LoopbackConfig());
  const auto mount = network.Make(server.Url("/a.car"));
  const auto read = [&](uint64_t size) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(const MountRange opened, mount->OpenTail(Io::Posix(), {}, size));
    CHECK_EQ(opened.stat.size, Content().size());
    CHECK_EQ(opened.stat.validator, "\"v1\"");
    ASSIGN_OR_RETURN(const Bytes got, ReadAll(*opened.stream, 4096));
    return std::string(AsText(got));
  };
  CHECK_EQ(ValueOf(read(50)), Content().substr(Content().size() - 50));
  CHECK_EQ(server.requests().back().Header("range"), "bytes=-50");
  CHECK_EQ(ValueOf(read(1'000'000)), Content());
  CHECK(mount->traits().connects);
  const std::string right = "206 X\r\nETag: \"v1\"\r\nContent-Length: 50\r\nContent-Range: bytes ";
  head.Set(right + "99950-99999/100000");
  CHECK_STATUS_OK(read(50).status());
  for (const char* lie : {"0-49/100000", "99950-99999/*", "99940-99999/100000", "*/100000"}) {
    head.Set(right + lie);
    INFO(lie);
    CHECK_CODE(read(50), kDataLoss);
  }
  head.Set("200 X\r\nETag: \"v1\"\r\nContent-Length: 50");
  CHECK_CODE(read(50), kUnimplemented);
  head.Set("503 X\r\nContent-Length: 50");
  CHECK_CODE(read(50), kUnavailable);
}

// Defect 44: an error of stat that was not "no such file" ended the process.
TEST_CASE("http mount: stat that fails is an error, and nothing else") {
  const Network network(LoopbackConfig());
  CHECK_CODE(network.Make("http://127.0.0.1:1/a.car")->Stat(Io::Posix(), {}), kUnavailable);
  CHECK_CODE(network.Make("http://no-such-host.invalid/a.car")->Stat(Io::Posix(), {}), kUnavailable);
}

// Defect 48: passwords and signed queries in errors and logs.
TEST_CASE("network mounts: no error and no printed URL holds a secret") {
  HttpServer server([](const Request& request, Connection& connection) {
    static const std::map<std::string, int> kStatus = {{"/404", 404}, {"/403", 403}, {"/500", 500}, {"/412", 412}};
    const std::string path = request.target.substr(0, request.target.find('?'));
    if (const auto found = kStatus.find(path); found != kStatus.end()) {
      return void(connection.Answer(found->second, "", "canary"));
    }
    if (path == "/loop") return void(connection.Answer(302, "Location: /loop?canary\r\n", ""));
    if (path == "/out") return void(connection.Answer(302, "Location: http://u:canary@10.0.0.1/?canary\r\n", ""));
    if (path == "/in") return void(connection.Answer(302, "Location: http://10.0.0.1/x?canary\r\n", ""));
    if (path == "/short") connection.Send("HTTP/1.1 200 X\r\nContent-Length: 10\r\nETag: \"canary\"\r\n\r\n");
    if (path == "/range") connection.Send("HTTP/1.1 206 X\r\nContent-Range: bytes canary\r\n\r\n");
    connection.Close();
  });
  NetworkMountConfig config = LoopbackConfig();
  auto credentials = std::make_shared<Credentials>();
  CHECK_STATUS_OK(credentials->Add("id", {.kind = Credential::Kind::kBasic,
                                          .origins = {server.Url("")},
                                          .user = "canary-user",
                                          .secret = Secret("canary")}));
  CHECK_STATUS_OK(credentials->Add("elsewhere", {.kind = Credential::Kind::kBearer,
                                                 .origins = {"https://elsewhere.example"},
                                                 .secret = Secret("canary")}));
  config.credentials = credentials;
  const Network network(config);
  size_t errors = 0;
  const auto check = [&](const absl::Status& status) {
    CAPTURE(ToString(status));
    CHECK_FALSE(status.ok());
    CHECK_EQ(ToString(status).find("canary"), std::string::npos);
    ++errors;
  };
  const std::string host = fmt::format("127.0.0.1:{}", server.port());
  for (const std::string& user : {std::string(), std::string("id@"), std::string("elsewhere@"), std::string("gone@")}) {
    for (const char* path : {"/404", "/403", "/500", "/412", "/loop", "/out", "/in", "/short", "/range", "/none"}) {
      const auto mount = network.Make("http://" + user + host + path + "?token=canary&canary");
      CHECK_EQ(mount->url().Redacted().find("canary"), std::string::npos);
      const absl::StatusOr<MountStat> stat = mount->Stat(Io::Posix(), {});
      if (!stat.ok()) check(stat.status());
      check(ReadWhole(*mount));
      check(ReadRange(*mount, {0, 10}, "\"canary\""));
      check(mount->OpenRandom(Io::Posix(), {}).status());
    }
  }
  for (const char* url : {"http://user:canary@h/a", "https://user:canary@h/a", "ftp://user:canary@h/a",
                          "nfs://user:canary@h/a/b", "s3://user:canary@bucket/a", "s3://bucket/a?secret=canary",
                          "http://h:1:canary/", "http://user:canary@127.1/", "piece:canary", "gopher://u:canary@h/a"}) {
    const absl::StatusOr<Url> parsed = Url::Parse(url);
    check(parsed.ok() ? network.registry.Make(*parsed).status() : parsed.status());
  }
  CHECK_GT(errors, 100);
}

TEST_CASE("credentials: are checked when they are added, and found for their origins only") {
  Credentials all;
  const Credential good = {.kind = Credential::Kind::kBearer, .origins = {"https://h"}, .secret = Secret("s")};
  const auto with = [&](auto change) {
    Credential changed = good;
    change(changed);
    return changed;
  };
  CHECK_CODE(all.Add("", good), kInvalidArgument);
  CHECK_CODE(all.Add("a b", good), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.origins.clear(); })), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.origins = {"h"}; })), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.origins = {"https://h/"}; })), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.origins = {"https://H"}; })), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.secret = Secret(); })), kInvalidArgument);
  CHECK_CODE(all.Add("x", with([](Credential& c) { c.kind = Credential::Kind::kAws; })), kInvalidArgument);
  CHECK_STATUS_OK(all.Add("x", good));
  CHECK_CODE(all.Add("x", good), kAlreadyExists);
  CHECK_STATUS_OK(all.Find("x", {Credential::Kind::kBearer}, "https://h"));
  CHECK_CODE(all.Find("x", {Credential::Kind::kBearer}, "http://h"), kFailedPrecondition);
  CHECK_CODE(all.Find("x", {Credential::Kind::kBearer}, "https://h:8443"), kFailedPrecondition);
  CHECK_CODE(all.Find("x", {Credential::Kind::kBearer}, "https://h.evil"), kFailedPrecondition);
  CHECK_CODE(all.Find("x", {Credential::Kind::kBasic}, "https://h"), kFailedPrecondition);
  CHECK_CODE(all.Find("y", {Credential::Kind::kBearer}, "https://h"), kFailedPrecondition);
}

}  // namespace
}  // namespace dagstore
