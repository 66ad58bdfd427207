// Goal: `dagstore add` takes URLs, lists of them and prefixes of buckets, with what the configuration file gives it,
// and no secret comes out anywhere.
// Method: runs the built program against servers of the test's own.
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "base/text.h"
#include "mount/extent_map.h"
#include "tests/fakes/http_server.h"
#include "tests/fakes/s3_server.h"
#include "tests/made_cars.h"
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
stop_grace = "1.5s"
recover_attempts_max = 7
[limits.copies]
bytes_max = 1_000_000
high_watermark = 1
low_watermark = 0.25
[limits.sources]
attempts_max = 3
backoff_min = "20ms"
[limits.partial]
tail_bytes = 0
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
  CHECK(options.stop_grace == absl::Milliseconds(1500));
  CHECK_EQ(options.recover_attempts_max, 7);
  CHECK_EQ(options.copies.bytes_max, 1'000'000);
  CHECK_EQ(options.copies.high_watermark, 1);
  CHECK_EQ(options.copies.low_watermark, 0.25);
  CHECK_EQ(options.sources.attempts_max, 3);
  CHECK(options.sources.backoff_min == absl::Milliseconds(20));
  CHECK_EQ(options.partial.tail_bytes, 0);
  CHECK(options.sources.backoff_max == Options().sources.backoff_max);
}

// The table of options in the manual: names in its first column, units in the second.
TEST_CASE("config: takes every limit that the manual names") {
  const Site site;
  const std::string manual = ReadTextFile(std::string(DAGSTORE_SOURCE_DIR) + "/docs/operations.md");
  const size_t begin = manual.find("## Options"), end = manual.find("## Tracing");
  REQUIRE(begin < end);
  std::istringstream rows(manual.substr(begin, end - begin));
  int limits = 0;
  for (std::string row; std::getline(rows, row);) {
    if (!row.starts_with("| `")) continue;
    const size_t bar = row.find('|', 1);
    const std::string unit(TrimBlanks(std::string_view(row).substr(bar + 1, row.find('|', bar + 1) - bar - 1)));
    if (unit.empty() || unit == "folder" || row.starts_with("| `trace.")) continue;
    for (size_t at = row.find('`'); at < bar; at = row.find('`', row.find('`', at + 1) + 1)) {
      const std::string name = row.substr(at + 1, row.find('`', at + 1) - at - 1);
      CAPTURE(name);
      const char* value = unit == "time" ? "\"1s\"" : unit == "share" ? "0.5" : unit == "percent" ? "70" : "1_048_576";
      absl::StatusOr<cli::Config> config = site.Load(fmt::format("[limits]\n{} = {}\n", name, value));
      if (!config.ok() && unit != "time" && unit != "share") {
        // Too much of what are threads, say.
        CHECK(Message(config.status()).find("unknown key") == std::string_view::npos);
        config = site.Load(fmt::format("[limits]\n{} = 3\n", name));
        if (!config.ok()) config = site.Load(fmt::format("[limits]\n{} = 2000\n", name));
      }
      CHECK_STATUS_OK(config.status());
      ++limits;
    }
  }
  CHECK_GE(limits, 50);
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
      {"\n[=a]\n", ":2:", "no TOML"},
      {"\nna\u0392x = 1\n", ":2:", "no TOML"},  // its parser would tell the compiler that this cannot be
      {"\n[caf\u00e9]\nx = 1\n", ":2:", "no TOML"},
      {"\n[network]\nalow = []\n", ":3:", "unknown key \"alow\""},
      {"[network]\nallow = [\"10.0.0.0/40\"]\n", ":2:", "no network"},
      {"[network]\nallow = \"10.0.0.0/8\"\n", ":2:", "list"},
      {"[network]\nallow = [1]\n", ":2:", "list"},
      {"[network]\nstall_timeout_seconds = 0\n", ":2:", "1 to"},
      {"[network]\nstall_timeout_seconds = \"1\"\n", ":2:", "whole number"},
      {"network = 1\n", ":1:", "table"},
      {"[file]\nsymlinks = \"no\"\n", ":2:", "true or false"},
      {"[limits]\nstop_grace = 5\n", ":2:", "time with its unit"},
      {"[limits]\nstop_grace = \"5\"\n", ":2:", "a time of 0 to 24h"},
      {"[limits]\nstop_grace = \"-1s\"\n", ":2:", "a time of 0 to 24h"},
      {"[limits.sources]\nattempts_max = 0\n", ":2:", "1 to 1000"},
      {"[limits]\nsources.attempts = 2\n", ":2:", "unknown key \"attempts\" in [limits.sources]"},
      {"[limits]\nsources = 2\n", ":2:", "table"},
      {"[limits.copies]\nlow_watermark = 1.5\n", ":2:", "a number of 0 to 1"},
      {"[limits.copies]\nlow_watermark = nan\n", ":2:", "a number of 0 to 1"},
      {"[limits.copies]\nlow_watermark = \"1\"\n", ":2:", "a number of 0 to 1"},
      {"[limits.nothing]\nx = 1\n", ":1:", "unknown key \"nothing\""},
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

TEST_CASE("config: errors are plain letters, whatever the file holds; no name of a file has a NUL") {
  const Site site;
  const absl::Status absent = site.Load("credentials_file = \"a\\u001b[31m\\ufeff\\nb\"\n").status();
  CHECK_CODE(absent, kNotFound);
  CHECK(Message(absent).find("a\\x1b[31m\\xef\\xbb\\xbf\\x0ab") != std::string_view::npos);
  const absl::Status bad = site.Load("[network]\nallow = [\"\\u0007\"]\n").status();
  CHECK_CODE(bad, kInvalidArgument);
  CHECK(Message(bad).find('\a') == std::string_view::npos);
  site.SetCredentials("", 0600);  // what a NUL would cut the name down to
  CHECK_CODE(site.Load("credentials_file = \"credentials.toml\\u0000x\"\n"), kInvalidArgument);
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

// What a copy of that name has durably.
ExtentMap MapOf(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".map") continue;
    const auto text = ReadSmallFile(Io::Posix(), entry.path(), kExtentMapBytesMax);
    if (text.ok()) return ValueOf(ExtentMap::Decode(*text));
  }
  return ExtentMap();
}

TEST_CASE("add: killed in the middle of a download, it goes on with what was durable, and nothing torn is seen") {
  const Bytes car = CarOf(LargeBlocks(120, 50'000));
  // Serves bytes up to `limit`, and then nothing more until the client has gone.
  std::atomic<uint64_t> limit = 0;
  std::atomic<int> ends_asked = 0;
  Mutex mu;
  std::vector<ByteRange> asked;
  HttpServer web([&](const HttpServer::Request& request, HttpServer::Connection& connection) {
    uint64_t first = 0, last = car.size() - 1;
    const std::string range = request.Header("range");
    if (range.starts_with("bytes=-")) ++ends_asked;
    const bool has_range = std::sscanf(range.c_str(), "bytes=%" SCNu64 "-%" SCNu64, &first, &last) >= 1;
    if (request.method != "GET" || !has_range || range.starts_with("bytes=-"))
      return ServeContent(request, connection, AsText(car), "\"v1\"");
    last = std::min<uint64_t>(last, car.size() - 1);
    if (last != 0) {  // the first byte is asked for to hear of the file
      MutexLock lock(mu);
      asked.push_back({first, last + 1 - first});
    }
    connection.Send(fmt::format("HTTP/1.1 206 X\r\nETag: \"v1\"\r\nContent-Length: {}\r\n"
                                "Content-Range: bytes {}-{}/{}\r\n\r\n",
                                last + 1 - first, first, last, car.size()));
    const uint64_t now = std::clamp<uint64_t>(limit, first, last + 1);
    connection.Send(AsText(Span(car).subspan(first, now - first)));
    if (now <= last) connection.Hang();
  });
  const auto take_asked = [&] {
    MutexLock lock(mu);
    return std::exchange(asked, {});
  };
  const Site site;
  site.Configure("[network]\nallow = [\"127.0.0.1\"]\n[limits.partial]\nmap_save_bytes = 65536\n"
                 "request_bytes_max = 131072\n");
  const std::string folder = site.File("repo/transients");
  ExtentMap durable;
  for (const uint64_t more : {1'500'000, 3'000'000, 4'500'000}) {
    limit = more;
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const pid_t child = Spawn({DAGSTORE_BINARY, "--repo", site.File("repo"), "--config", site.File("dagstore.toml"),
                               "add", web.Url("/a.car")},
                              nowhere, "/dev/null", site.File("err"));
    close(nowhere);
    // Another process writes it: there is nothing to wait on.
    while (!fs::exists(folder) || MapOf(folder).BytesThere() < more - 500'000) {
      REQUIRE_EQ(waitpid(child, nullptr, WNOHANG), 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    REQUIRE_EQ(kill(child, SIGKILL), 0);
    REQUIRE_EQ(Wait(child), -1);
    for (const auto& entry : fs::directory_iterator(folder)) CHECK(entry.path().extension() != ".car");
    // Of what was durable before this life, nothing was asked for again.
    for (const ByteRange& range : take_asked()) {
      for (uint64_t g = 0; g < durable.granules(); ++g) {
        const ByteRange there = durable.RangeOf(g, g + 1);
        const bool overlaps = there.offset < range.offset + range.size && range.offset < there.offset + there.size;
        CHECK_FALSE((durable.Has(g) && overlaps));
      }
    }
    durable = MapOf(folder);
  }
  CHECK_LE(ends_asked, 1);
  limit = car.size();
  const Outcome add = site.Run({"add", web.Url("/a.car")});
  INFO(add.err);
  CHECK_EQ(add.code, 0);
  uint64_t bytes = 0;
  for (const ByteRange& range : take_asked()) bytes += range.size;
  CHECK_LE(bytes, car.size() - durable.BytesThere());
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  REQUIRE_EQ(files.size(), 1);
  CHECK(SameBytes(ValueOf(ReadSmallFile(Io::Posix(), files[0], 2 * car.size())), car));
  CHECK_EQ(site.Run({"fsck"}).code, 0);
  CHECK_EQ(site.Run({"verify", "--all"}).code, 0);
}

// A program that has been told to end by Ctrl-C once `reached` is said.
Outcome Interrupt(const Site& site, std::vector<std::string> arguments, const Notification& reached) {
  arguments.insert(arguments.begin(),
                   {DAGSTORE_BINARY, "--repo", site.File("repo"), "--config", site.File("dagstore.toml")});
  const int out = open(site.File("out").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(out >= 0);
  const pid_t child = Spawn(arguments, out, "/dev/null", site.File("err"));
  close(out);
  CHECK(reached.WaitForNotificationWithTimeout(absl::Minutes(1)));  // or it has ended, and nobody would ever say it
  REQUIRE_EQ(kill(child, SIGINT), 0);
  Outcome outcome;
  outcome.code = Wait(child);
  outcome.out = ReadTextFile(site.File("out"));
  outcome.err = ReadTextFile(site.File("err"));
  return outcome;
}

TEST_CASE("verify: Ctrl-C stops a recover that waits for its server, and says nothing of the shard") {
  std::atomic<bool> hangs = false;
  Notification reached;
  HttpServer web([&](const HttpServer::Request&, HttpServer::Connection& connection) {
    if (!hangs) return void(connection.Answer(503, "", ""));
    if (hangs.exchange(false)) reached.Notify();
    connection.Hang();
  });
  const Site site;
  site.Configure("[network]\nallow = [\"127.0.0.1\"]\n");
  CHECK_EQ(site.Run({"add", web.Url("/a.car")}).code, 1);
  hangs = true;
  const Outcome verify = Interrupt(site, {"verify", "--repair", "--all"}, reached);
  CAPTURE(verify.err);
  CHECK_EQ(verify.code, 1);
  CHECK_EQ(verify.out, "");
  CHECK(verify.err.find("stopped") != std::string::npos);
}

TEST_CASE("verify: Ctrl-C while bad bytes are fetched again leaves the shard as it was") {
  const Bytes car = CarOf(LargeBlocks(120, 50'000));
  const Site site;
  WriteTextFile(site.File("v1.car"), std::string(AsText(car)));
  REQUIRE_EQ(site.Run({"car", "index", "--wrap", site.File("v1.car"), "-o", site.File("v2.car")}).code, 0);
  std::string wrapped = ReadTextFile(site.File("v2.car"));
  // By the index of the CAR itself, of which samples are read: what is bad is none of them. The copy is never made
  // whole: of a whole one no part is fetched again.
  constexpr uint64_t kStep = 1 << 18;
  std::mutex mu;
  std::set<uint64_t> seen;  // steps that were asked for
  std::optional<uint64_t> bad;
  int asked = 0;  // for the bad byte
  Notification reached;
  HttpServer web([&](const HttpServer::Request& request, HttpServer::Connection& connection) {
    uint64_t first = 0, last = 0;
    const std::string range = request.Header("range");
    const bool is_range = std::sscanf(range.c_str(), "bytes=%" SCNu64 "-%" SCNu64, &first, &last) == 2;
    int nth = 0;
    {
      const std::lock_guard lock(mu);
      for (uint64_t at = first / kStep; is_range && at <= last / kStep; ++at) seen.insert(at);
      if (is_range && bad.has_value() && first <= *bad && *bad <= last) nth = ++asked;
    }
    if (nth == 2) reached.Notify();
    if (nth >= 2) return connection.Hang();
    ServeContent(request, connection, wrapped, "\"v1\"");
  });
  site.Configure("[network]\nallow = [\"127.0.0.1\"]\n"
                 "[limits.partial]\nrequest_bytes_max = 131072\nread_timeout = \"1s\"\npromote_share = 2\n");
  REQUIRE_EQ(site.Run({"add", "--no-verify", web.Url("/a.car")}).code, 0);
  {
    const std::lock_guard lock(mu);
    uint64_t at = 1;
    while (seen.contains(at)) ++at;
    REQUIRE((at + 1) * kStep < car.size());
    bad = at * kStep + kStep / 2;
    wrapped[*bad] ^= 1;
  }
  const Outcome verify = Interrupt(site, {"verify", "--repair", "--all"}, reached);
  CAPTURE(verify.err);
  CHECK_EQ(verify.code, 1);
  CHECK_EQ(verify.out, "");
  CHECK_EQ(site.Run({"ls", "--state", "errored"}).out, "");
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
