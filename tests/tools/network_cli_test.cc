// Goal: `dagstore add` takes URLs, lists of them and prefixes of buckets, with what the configuration file gives it,
// and no secret comes out anywhere.
// Method: runs the built program against servers of the test's own.
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/fakes/http_server.h"
#include "tests/fakes/s3_server.h"
#include "tests/tools/process.h"
#include "tools/dagstore/config.h"

namespace dagstore {
namespace {

namespace fs = std::filesystem;

constexpr char kHelloCar[] = "boxo/hello.car";

// A repository, a configuration and a credentials file.
class Site {
 public:
  std::string File(const std::string& name) const { return dir_.File(name); }
  void Configure(const std::string& config) const { WriteTextFile(File("dagstore.toml"), config); }
  void SetCredentials(const std::string& text, mode_t mode = 0600) const {
    WriteTextFile(File("credentials.toml"), text);
    REQUIRE_EQ(chmod(File("credentials.toml").c_str(), mode), 0);
  }
  Outcome Run(std::vector<std::string> arguments, const std::string& input = {}) const {
    arguments.insert(arguments.begin(),
                     {DAGSTORE_BINARY, "--repo", File("repo"), "--config", File("dagstore.toml")});
    return RunProgram(arguments, input);
  }

  absl::StatusOr<cli::Config> Load(const std::string& config) const {
    Configure(config);
    return cli::LoadConfig(File("dagstore.toml"), [](const char* name) -> const char* {
      return std::string_view(name) == "SET" ? "canary-environment" : nullptr;
    });
  }

 private:
  TempDir dir_;
};

std::string Car() {
  const Bytes bytes = ReadTestData(kHelloCar);
  return std::string(AsText(bytes));
}

TEST_CASE("config: every key is read, and relative paths are beside the file") {
  const Site site;
  site.SetCredentials(
      "[archive]\nkind = \"basic\"\norigins = [\"https://a.example\"]\nuser = \"u\"\npassword = \"p\"\n");
  const cli::Config config = ValueOf(site.Load(R"(
credentials_file = "credentials.toml"
[credentials.env]
kind = "bearer"
origins = ["https://b.example:8443"]
token_env = "SET"
[network]
allow = ["10.1.0.0/16", "fd00::/8"]
connect_timeout_seconds = 3
stall_timeout_seconds = 7
ca_file = "ca.pem"
idle_connections_max = 5
[roots]
"" = "cars"
data = "/data"
[file]
absolute_paths = false
symlinks = false
[s3.default]
endpoint = "https://s3.example"
region = "eu-1"
style = "path"
credential = "aws"
[piece]
endpoints = ["https://p.example/x", "http://q.example:1"]
credential = "env"
[nfs]
uid = 12
gid = 13
[limits]
index_threads = 2
open_shards_max = 9
)"));
  CHECK_EQ(config.files.roots.at(""), site.File("cars"));
  CHECK_EQ(config.files.roots.at("data"), "/data");
  CHECK_FALSE(config.files.absolute_paths_allowed);
  CHECK_FALSE(config.files.symlinks_allowed);
  const HttpClientOptions& network = config.network.network;
  CHECK_STATUS_OK(network.addresses->Check(ValueOf(IpAddress::Parse("10.1.2.3"))));
  CHECK_CODE(network.addresses->Check(ValueOf(IpAddress::Parse("10.2.2.3"))), kFailedPrecondition);
  CHECK(network.connect_timeout == absl::Seconds(3));
  CHECK(network.stall_timeout == absl::Seconds(7));
  CHECK_EQ(network.ca_file, site.File("ca.pem"));
  CHECK_EQ(network.idle_connections_max, 5);
  const S3Endpoint& s3 = config.network.s3.at("default");
  CHECK_EQ(s3.url, "https://s3.example");
  CHECK_EQ(s3.region, "eu-1");
  CHECK(s3.path_style);
  CHECK_EQ(s3.credential, "aws");
  REQUIRE_EQ(config.network.piece.size(), 2);
  CHECK_EQ(config.network.piece[1].url, "http://q.example:1");
  CHECK_EQ(config.network.piece[1].credential, "env");
  CHECK_EQ(config.network.nfs_uid, 12);
  CHECK_EQ(config.network.nfs_gid, 13);
  const auto& credentials = *config.network.credentials;
  CHECK_EQ(ValueOf(credentials.Find("archive", {Credential::Kind::kBasic}, "https://a.example"))->secret.Reveal(), "p");
  CHECK_EQ(ValueOf(credentials.Find("env", {Credential::Kind::kBearer}, "https://b.example:8443"))->secret.Reveal(),
           "canary-environment");
  Options options;
  options.open_shards_max = 4;  // the caller's wins
  config.ApplyTo(&options);
  CHECK_EQ(options.index_threads, 2);
  CHECK_EQ(options.open_shards_max, 4);
}

TEST_CASE("config: what is wrong is named with its line, and no secret is quoted") {
  const Site site;
  struct Case {
    const char* text;
    const char* line;  // and a word of the message
    const char* word;
  };
  // clang-format off
  const Case cases[] = {
      {"x = 1\n", ":1:", "unknown key \"x\""},
      {"\n[network]\nalow = []\n", ":3:", "unknown key \"alow\""},
      {"[network]\nallow = [\"10.0.0.0/40\"]\n", ":2:", "no network"},
      {"[network]\nallow = \"10.0.0.0/8\"\n", ":2:", "list"},
      {"[network]\nallow = [1]\n", ":2:", "list"},
      {"[network]\nstall_timeout_seconds = 0\n", ":2:", "1 to"},
      {"[network]\nstall_timeout_seconds = \"1\"\n", ":2:", "whole number"},
      {"network = 1\n", ":1:", "table"},
      {"[file]\nsymlinks = \"no\"\n", ":2:", "true or false"},
      {"[roots]\na = 1\n", ":2:", "folder"},
      {"[s3]\na = 1\n", ":2:", "table"},
      {"[s3.a]\nstyle = \"both\"\n", ":2:", "path or virtual"},
      {"[s3.a]\nendpoint = \"ftp://h\"\n", ":2:", "http"},
      {"[s3.a]\nendpoint = \"https://h/path\"\n", ":2:", "host"},
      {"[s3.a]\nsecret_access_key = \"canary\"\n", ":2:", "unknown key"},
      {"[piece]\nendpoints = [\"https://h/?canary\"]\n", ":2:", "endpoint"},
      {"[nfs]\nuid = -1\n", ":2:", "0 to"},
      {"[limits]\nindex_thread = 1\n", ":2:", "unknown key"},
      {"[limits]\nindex_threads = 5000\n", ":2:", "0 to"},
      {"[credentials.a]\nkind = \"bearer\"\norigins = [\"https://h\"]\ntoken = \"canary\"\n", ":4:", "credentials file"},
      {"[credentials.a]\nkind = \"bearer\"\norigins = [\"https://h\"]\ntoken_env = \"UNSET\"\n", ":4:", "not set"},
      {"[credentials.a]\nkind = \"bearer\"\ntoken_env = \"SET\"\n", ":1:", "origins"},
      {"[credentials.a]\nkind = \"basic\"\norigins = [\"https://h\"]\npassword_env = \"SET\"\n", ":1:", "user"},
      {"[credentials.a]\nkind = \"key\"\n", ":1:", "kind"},
      {"[credentials.a]\nkind = \"bearer\"\norigins = [\"https://h\"]\ntoken_env = \"SET\"\npassword = \"canary\"\n", ":5:",
       "unknown key"},
      {"[credentials]\na = \"canary\"\n", ":2:", "table"},
      {"token = \"canary\n", ":1:", "no TOML"},
      {"a = 1\na = 2\n", ":2:", "no TOML"},
  };
  // clang-format on
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const absl::Status status = site.Load(c.text).status();
    INFO(ToString(status));
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(Message(status).find(std::string("dagstore.toml") + c.line) != std::string_view::npos);
    CHECK(Message(status).find(c.word) != std::string_view::npos);
    CHECK(Message(status).find("canary") == std::string_view::npos);
  }
  CHECK_CODE(cli::LoadConfig(site.File("none.toml"), {}), kNotFound);
}

TEST_CASE("config: a credentials file that others may read is refused, whoever wrote it") {
  const Site site;
  const std::string config = "credentials_file = \"credentials.toml\"\n";
  const std::string text = "[a]\nkind = \"bearer\"\norigins = [\"https://h\"]\ntoken = \"canary\"\n";
  for (const mode_t mode : {0644, 0640, 0604, 0660, 0700, 0602, 04600}) {
    CAPTURE(mode);
    site.SetCredentials(text, mode);
    CHECK_CODE(site.Load(config), kFailedPrecondition);
  }
  for (const mode_t mode : {0600, 0400}) {
    fs::remove(site.File("credentials.toml"));
    site.SetCredentials(text, mode);
    CHECK_STATUS_OK(site.Load(config));
  }
  fs::rename(site.File("credentials.toml"), site.File("real.toml"));
  CHECK_CODE(site.Load(config), kNotFound);
  fs::create_symlink("real.toml", site.File("credentials.toml"));
  CHECK_CODE(site.Load(config), kInvalidArgument);
  fs::remove(site.File("credentials.toml"));
  fs::create_directory(site.File("credentials.toml"));
  CHECK_CODE(site.Load(config), kFailedPrecondition);
  fs::remove(site.File("credentials.toml"));
  site.SetCredentials("[a]\nkind = \"bearer\"\norigins = [\"https://h\"]\ntoken = canary\n");
  const absl::Status status = site.Load(config).status();
  CHECK_CODE(status, kInvalidArgument);
  CHECK(Message(status).find("credentials.toml:4:") != std::string_view::npos);
  CHECK(Message(status).find("canary") == std::string_view::npos);
}

TEST_CASE("add: takes URLs, a list on stdin and a prefix of a bucket, and says what it cannot take") {
  const Site site;
  HttpServer web([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    static const std::string car = Car();
    if (request.target.starts_with("/missing")) return void(connection.Answer(404, "", ""));
    ServeContent(request, connection, car, "\"v1\"");
  });
  FakeS3 s3;
  for (const char* key : {"2024/a.car", "2024/sub/b c.car", "2024/readme.txt", "2023/c.car"}) {
    s3.Put("cars", key, Car());
  }
  s3.set_page_size(2);
  site.SetCredentials(fmt::format("[lab]\nkind = \"aws\"\norigins = [\"{}\"]\naccess_key_id = \"{}\"\n"
                                  "secret_access_key = \"{}\"\n",
                                  s3.url(), FakeS3::kAccessKey, FakeS3::kSecretKey));
  site.Configure(fmt::format("credentials_file = \"credentials.toml\"\n[network]\nallow = [\"127.0.0.1\"]\n"
                             "[s3.default]\nendpoint = \"{}\"\nregion = \"{}\"\nstyle = \"path\"\n"
                             "credential = \"lab\"\n",
                             s3.url(), FakeS3::kRegion));
  Outcome add = site.Run({"add", web.Url("/one.car"), "s3://cars/2024/"});
  INFO(add.err);
  CHECK_EQ(add.code, 0);
  CHECK(add.out.find(web.Url("/one.car")) != std::string::npos);
  CHECK(add.out.find("s3://cars/2024/a.car") != std::string::npos);
  CHECK(add.out.find("s3://cars/2024/sub/b%20c.car") != std::string::npos);
  CHECK(add.err.find("3 added") != std::string::npos);
  const std::string list = web.Url("/two.car") + "\n" + web.Url("/missing.car?canary") + "\n" + web.Url("/one.car") +
                           "\nhttp://user:canary@127.0.0.1/x.car\nhttp://10.0.0.1/y.car\n";
  add = site.Run({"add", "-"}, list);
  INFO(add.err);
  CHECK_EQ(add.code, 1);
  CHECK(add.err.find("1 added, 1 there already, 3 failed") != std::string::npos);
  CHECK(add.err.find("missing.car?...") != std::string::npos);
  CHECK(add.err.find("list of allowed ones") != std::string::npos);
  CHECK(add.err.find("canary") == std::string::npos);
  const Outcome find = site.Run({"find", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"});
  CHECK_EQ(find.code, 0);
  CHECK(find.out.find(web.Url("/two.car")) != std::string::npos);
  CHECK(find.out.find("s3://cars/2024/a.car") != std::string::npos);
  CHECK_EQ(site.Run({"add", "s3://cars/none/"}).code, 1);
  CHECK(site.Run({"add", "s3://cars/2024/?endpoint=gone"}).err.find("not configured") != std::string::npos);
}

// Secrets in every place that a secret can be given, and a look at everything that comes out. What is signed into a URL
// is part of the URL that the record keeps; nothing else of the store holds it, and no output does.
TEST_CASE("add: no secret is in any output, and none of a credential in any file of the repository") {
  const Site site;
  HttpServer web([](const HttpServer::Request& request, HttpServer::Connection& connection) {
    static const std::string car = Car();
    if (request.target.starts_with("/bad")) return ServeContent(request, connection, "no car: " + car, "\"v1\"");
    if (request.target.starts_with("/503")) return void(connection.Answer(503, "", ""));
    if (request.Header("authorization") != "Bearer canary-bearer" && !request.target.starts_with("/signed")) {
      return void(connection.Answer(403, "", ""));
    }
    ServeContent(request, connection, car, "\"v1\"");
  });
  FakeS3 s3;
  s3.Put("cars", "a.car", Car());
  s3.Put("cars", "bad.car", "bad");
  site.SetCredentials(fmt::format("[web]\nkind = \"bearer\"\norigins = [\"{}\"]\ntoken = \"canary-bearer\"\n"
                                  "[lab]\nkind = \"aws\"\norigins = [\"{}\"]\naccess_key_id = \"{}\"\n"
                                  "secret_access_key = \"{}\"\nsession_token = \"canary-session\"\n",
                                  web.Url(""), s3.url(), FakeS3::kAccessKey, FakeS3::kSecretKey));
  site.Configure(fmt::format("credentials_file = \"credentials.toml\"\n[network]\nallow = [\"127.0.0.1\"]\n"
                             "[s3.default]\nendpoint = \"{}\"\nregion = \"{}\"\nstyle = \"path\"\n"
                             "credential = \"lab\"\n",
                             s3.url(), FakeS3::kRegion));
  const auto with_id = [&](const std::string& target) {
    return fmt::format("http://web@127.0.0.1:{}{}", web.port(), target);
  };
  std::string output;
  const auto run = [&](std::vector<std::string> arguments) {
    const Outcome outcome = site.Run(std::move(arguments));
    output += outcome.out + outcome.err;
    return outcome.code;
  };
  CHECK_EQ(run({"add", with_id("/a.car"), "s3://cars/a.car"}), 0);
  CHECK_EQ(run({"add", web.Url("/signed.car?X-Amz-Signature=signed-canary")}), 0);
  CHECK_EQ(run({"add", with_id("/bad.car"), with_id("/503.car"), "s3://cars/bad.car", web.Url("/403.car"),
                "http://u:canary-password@127.0.0.1/a.car"}),
           1);
  const std::string key = fmt::format("http://127.0.0.1:{}/a.car", web.port());
  CHECK_EQ(run({"info", key}), 0);
  CHECK_EQ(run({"info", key, "--json"}), 0);
  CHECK_EQ(run({"ls"}), 0);
  CHECK_EQ(run({"ls", "--json"}), 0);
  CHECK_EQ(run({"stats"}), 0);
  CHECK_EQ(run({"stats", "--json"}), 0);
  run({"recover", "--errored"});
  run({"verify", "--all"});
  run({"fsck"});
  CAPTURE(output);
  CHECK(output.find("a.car") != std::string::npos);
  CHECK(output.find("canary") == std::string::npos);
  CHECK(output.find(FakeS3::kSecretKey) == std::string::npos);
  size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(site.File("repo"))) {
    if (!entry.is_regular_file()) continue;
    ++files;
    const std::string content = ReadTextFile(entry.path());
    CAPTURE(entry.path().string());
    for (const char* secret : {"canary-bearer", "canary-session", FakeS3::kSecretKey, "canary-password"}) {
      CHECK(content.find(secret) == std::string::npos);
    }
  }
  CHECK_GT(files, 3);
}

}  // namespace
}  // namespace dagstore
