// The suite of all mounts, against the servers that people run.
#include "tests/conformance/mount_suite.h"
#include "tests/mount/network_testing.h"
#include "tests/mount/servers.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

constexpr char kPieceCid[] = "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq";

// What is served at `url` lies at `path`.
MountUnderTest FileBehind(const Network& network, const std::string& url, const std::string& path) {
  MountUnderTest test;
  test.registry = network.registry;
  test.put = [&network, url, path](const Bytes& content) {
    // As people replace files; a server that has the old one open goes on with it.
    WriteContent(path + ".new", content);
    fs::rename(path + ".new", path);
    return network.Make(url);
  };
  test.remove = [path] { fs::remove(path); };
  test.close_idle = [&network] { network.clients.CloseIdle(); };
  return test;
}

// One server for all cases: it starts once.
Nginx& TheNginx() {
  static Nginx server;
  return server;
}

NetworkMountConfig NginxConfig() {
  Nginx& server = TheNginx();
  NetworkMountConfig config = LoopbackConfig();
  config.network.ca_file = server.certificate;
  auto credentials = std::make_shared<Credentials>();
  CHECK_STATUS_OK(credentials->Add("archive", {.kind = Credential::Kind::kBasic,
                                               .origins = {server.Url("")},
                                               .user = "archive",
                                               .secret = Secret("canary-password")}));
  CHECK_STATUS_OK(credentials->Add("token", {.kind = Credential::Kind::kBearer,
                                             .origins = {server.TlsUrl("")},
                                             .secret = Secret("canary-token")}));
  config.credentials = credentials;
  config.piece = {{.url = server.Url("/no-pieces-here")}, {.url = server.Url("")}};
  return config;
}

void CheckNginx(const std::string& url, const std::string& file) {
  const Network network(NginxConfig());
  CheckMount(FileBehind(network, url, TheNginx().root() + "/" + file));
}

constexpr char kOddName[] = "a b%#?+&;.car";
constexpr char kOddEscaped[] = "a%20b%25%23%3F+&;.car";

TEST_CASE("http mount: passes the suite against nginx") { CheckNginx(TheNginx().Url("/") + kOddEscaped, kOddName); }
TEST_CASE("http mount: passes the suite over TLS") { CheckNginx(TheNginx().TlsUrl("/") + kOddEscaped, kOddName); }
TEST_CASE("http mount: passes the suite with a signed URL") {
  CheckNginx(TheNginx().Url("/a.car?X-Signature=canary%2B%2F"), "a.car");
}
TEST_CASE("http mount: passes the suite behind a redirect") { CheckNginx(TheNginx().Url("/moved/a.car"), "a.car"); }
TEST_CASE("http mount: passes the suite with a password") {
  CheckNginx(fmt::format("http://archive@127.0.0.1:{}/private/{}", TheNginx().http_port, kOddEscaped), kOddName);
}
TEST_CASE("http mount: passes the suite with a token") {
  CheckNginx(fmt::format("https://token@127.0.0.1:{}/token/{}", TheNginx().https_port, kOddEscaped), kOddName);
}
TEST_CASE("piece mount: passes the suite, also if its first server does not have the piece") {
  CheckNginx(std::string("piece:") + kPieceCid, kPieceCid);
}

TEST_CASE("piece mount: asks the next server when one is dead, and calls nothing absent that it could not ask for") {
  NetworkMountConfig config = NginxConfig();
  config.piece = {{.url = "http://127.0.0.1:1"}, {.url = TheNginx().Url("")}, {.url = "http://127.0.0.1:2/x"}};
  const Network network(config);
  const std::unique_ptr<Mount> mount = network.Make(std::string("piece:") + kPieceCid);
  const std::string path = TheNginx().root() + "/" + kPieceCid;
  WriteContent(path, AsSpan("content"));
  CHECK_EQ(ValueOf(mount->Stat(Io::Posix(), {})).size, 7);
  CHECK(SameBytes(ValueOf(ReadMount(*mount)), AsSpan("content")));
  fs::remove(path);
  CHECK_CODE(mount->Stat(Io::Posix(), {}), kUnavailable);
  CHECK_CODE(mount->OpenStream(Io::Posix(), {}), kUnavailable);
  // A record outlives the configuration.
  const Network without(LoopbackConfig());
  CHECK_CODE(without.Make(std::string("piece:") + kPieceCid)->Stat(Io::Posix(), {}), kFailedPrecondition);
  for (const char* url : {"piece:", "piece:a", "piece://h/a", "piece:bafkqaaa", "piece:/etc/passwd",
                          "piece:QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}) {
    CAPTURE(url);
    CHECK_CODE(network.registry.Make(ValueOf(Url::Parse(url))), kInvalidArgument);
  }
}

TEST_CASE("http mount: nginx lets nobody in without the credential, and only its origin gets it") {
  Nginx& server = TheNginx();
  NetworkMountConfig config = LoopbackConfig();
  config.network.ca_file = server.certificate;
  config.credentials = OneCredential("archive", {.kind = Credential::Kind::kBasic,
                                                 .origins = {server.TlsUrl("")},
                                                 .user = "archive",
                                                 .secret = Secret("canary-password")});
  const Network network(config);
  WriteContent(server.root() + "/a.car", AsSpan("content"));
  const std::string host = fmt::format("127.0.0.1:{}", server.https_port);
  CHECK(ValueOf(network.Make("https://archive@" + host + "/private/a.car")->Stat(Io::Posix(), {})).exists);
  for (const std::string& url :
       {"https://" + host + "/private/a.car", "https://other@" + host + "/private/a.car",
        fmt::format("http://archive@127.0.0.1:{}/private/a.car", server.http_port)}) {
    CAPTURE(url);
    CHECK_CODE(network.Make(url)->Stat(Io::Posix(), {}), kFailedPrecondition);
    CHECK_CODE(network.Make(url)->OpenStream(Io::Posix(), {}), kFailedPrecondition);
  }
  // A certificate that nobody vouches for.
  const Network strangers(LoopbackConfig());
  CHECK_CODE(strangers.Make("https://" + host + "/a.car")->Stat(Io::Posix(), {}), kFailedPrecondition);
}

void CheckFtp(FtpServer& server, const std::string& scheme, const std::string& user) {
  NetworkMountConfig config = LoopbackConfig();
  config.network.ca_file = server.certificate;
  config.credentials = OneCredential("archive", {.kind = Credential::Kind::kBasic,
                                                 .origins = {fmt::format("{}://127.0.0.1:{}", scheme, server.port)},
                                                 .user = "archive",
                                                 .secret = Secret("canary-password")});
  const Network network(config);
  fs::create_directories(server.root() + "/sub folder");
  CheckMount(FileBehind(network,
                        fmt::format("{}://{}127.0.0.1:{}/sub%20folder/a%23b.car", scheme, user, server.port),
                        server.root() + "/sub folder/a#b.car"));
}

FtpServer& TheFtpServer() {
  static FtpServer server(/*tls=*/false);
  return server;
}

TEST_CASE("ftp mount: passes the suite against pyftpdlib") { CheckFtp(TheFtpServer(), "ftp", ""); }
TEST_CASE("ftp mount: passes the suite with a password") { CheckFtp(TheFtpServer(), "ftp", "archive@"); }
TEST_CASE("ftp mount: passes the suite over TLS") {
  static FtpServer server(/*tls=*/true);
  CheckFtp(server, "ftps", "archive@");
}

TEST_CASE("ftp mount: a refused login is an error of its own, and a URL names one file") {
  FtpServer& server = TheFtpServer();
  NetworkMountConfig config = LoopbackConfig();
  const std::string origin = fmt::format("ftp://127.0.0.1:{}", server.port);
  config.credentials = OneCredential("wrong", {.kind = Credential::Kind::kBasic,
                                               .origins = {origin},
                                               .user = "archive",
                                               .secret = Secret("canary-guess")});
  const Network network(config);
  WriteContent(server.root() + "/a.car", AsSpan("content"));
  CHECK(ValueOf(network.Make(origin + "/a.car")->Stat(Io::Posix(), {})).exists);
  CHECK(ValueOf(network.Make(origin + "//a.car")->Stat(Io::Posix(), {})).exists);
  CHECK_CODE(network.Make(fmt::format("ftp://wrong@127.0.0.1:{}/a.car", server.port))->Stat(Io::Posix(), {}),
             kFailedPrecondition);
  for (const char* url : {"ftp://h", "ftp://h/", "ftp://h/a/", "ftp://h/a?x", "ftp://u:p@h/a", "ftp://h/a%0Ab",
                          "ftp://0x7f.1/a", "ftp://h/a%0D%0ADELE%20x"}) {
    CAPTURE(url);
    CHECK_CODE(network.registry.Make(ValueOf(Url::Parse(url))), kInvalidArgument);
  }
}

TEST_CASE("nfs mount: passes the suite against nfs-ganesha") {
  if (!NfsServer::CanRun()) {
    MESSAGE("not root: nfs-ganesha cannot open files by handle, so this was not tested");
    return;
  }
  static NfsServer server;
  const Network network(LoopbackConfig());
  fs::create_directories(server.root() + "/sub");
  const auto url_of = [&](const std::string& path) {
    return fmt::format("nfs://127.0.0.1:{}{}{}?mountport={}", server.port, server.root(), path, server.mount_port);
  };
  MountUnderTest test = FileBehind(network, url_of("/sub/a.car"), server.root() + "/sub/a.car");
  test.not_files.push_back([&] {
    fs::create_directories(server.root() + "/sub/folder");
    return network.Make(url_of("/sub/folder"));
  });
  CheckMount(test);
}

TEST_CASE("nfs mount: a URL names one file of a host, and nothing above it") {
  const Network network(LoopbackConfig());
  for (const char* url : {"nfs://h", "nfs://h/", "nfs://h/a/", "nfs:///a/b", "nfs:a", "nfs://u@h/a", "nfs://h/a/../b",
                          "nfs://h/a?mountport=0", "nfs://h/a?mountport=1&mountport=2", "nfs://h/a?uid=0",
                          "nfs://h/a?mountport=1%26uid%3D0", "nfs://127.1/a/b"}) {
    CAPTURE(url);
    CHECK_CODE(network.registry.Make(ValueOf(Url::Parse(url))), kInvalidArgument);
  }
  // Nobody listens, and an address that may not be reached.
  CHECK_CODE(network.Make("nfs://127.0.0.1:1/a/b?mountport=1")->Stat(Io::Posix(), {}), kUnavailable);
  CHECK_CODE(network.Make("nfs://10.0.0.1/a/b")->Stat(Io::Posix(), {}), kFailedPrecondition);
}

}  // namespace
}  // namespace dagstore
