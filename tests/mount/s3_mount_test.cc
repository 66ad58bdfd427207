#include "mount/s3_mount.h"

#include "tests/conformance/mount_suite.h"
#include "tests/fakes/s3_server.h"
#include "tests/mount/network_testing.h"

namespace dagstore {
namespace {

// Gives every name the address of this machine, as a name server of the lab's would.
class LabResolver final : public Resolver {
 public:
  absl::StatusOr<std::vector<IpAddress>> Resolve(const std::string&, const WorkContext&) override {
    return std::vector<IpAddress>{ValueOf(IpAddress::Parse("127.0.0.1"))};
  }
};

// Endpoints "default" (path style), "virtual", and two whose credential is not for them or wrong.
NetworkMountConfig ConfigFor(const FakeS3& server) {
  NetworkMountConfig config = LoopbackConfig();
  config.network.resolver = std::make_shared<LabResolver>();
  const std::string by_name = fmt::format("http://s3.test:{}", server.port());
  auto credentials = std::make_shared<Credentials>();
  Credential lab = {.kind = Credential::Kind::kAws,
                    .origins = {server.url(), by_name},
                    .user = FakeS3::kAccessKey,
                    .secret = Secret(FakeS3::kSecretKey)};
  CHECK_STATUS_OK(credentials->Add("lab", lab));
  lab.secret = Secret("canary-guess");
  CHECK_STATUS_OK(credentials->Add("wrong", lab));
  lab.origins = {"https://elsewhere.example"};
  CHECK_STATUS_OK(credentials->Add("elsewhere", lab));
  config.credentials = credentials;
  S3Endpoint endpoint = {.url = server.url(), .region = FakeS3::kRegion, .path_style = true, .credential = "lab"};
  config.s3["default"] = endpoint;
  endpoint.credential = "wrong";
  config.s3["wrong"] = endpoint;
  endpoint.credential = "elsewhere";
  config.s3["elsewhere"] = endpoint;
  endpoint.credential = "";
  config.s3["anonymous"] = endpoint;
  config.s3["virtual"] = {
      .url = by_name, .region = FakeS3::kRegion, .path_style = false, .credential = "lab"};
  return config;
}

void CheckS3(const std::string& bucket, const std::string& query) {
  FakeS3 server;
  const Network network(ConfigFor(server));
  const std::string key = "folder/a b%+~*'()\xc3\xa4.car";
  MountUnderTest test;
  test.registry = network.registry;
  test.put = [&](const Bytes& content) {
    server.Put(bucket, key, std::string(AsText(content)));
    Url url;
    url.scheme = "s3";
    url.has_authority = true;
    url.host = bucket;
    url.path = "/" + key;
    if (!query.empty()) url.query = {{"endpoint", query}};
    return ValueOf(network.registry.Make(url));
  };
  test.remove = [&] { server.Remove(bucket, key); };
  test.close_idle = [&] {
    network.clients.CloseIdle();
    server.CloseAll();
  };
  CheckMount(test);
}

TEST_CASE("s3 mount: passes the suite in path style") { CheckS3("cars", ""); }
TEST_CASE("s3 mount: passes the suite in virtual style") { CheckS3("cars", "virtual"); }
TEST_CASE("s3 mount: passes the suite without a credential") { CheckS3("public-cars", "anonymous"); }

TEST_CASE("s3 mount: a wrong key, a credential for others and an unknown endpoint are refused, and nothing leaks") {
  FakeS3 server;
  const Network network(ConfigFor(server));
  server.Put("cars", "a.car", "content");
  for (const char* endpoint : {"wrong", "elsewhere", "anonymous", "unknown"}) {
    CAPTURE(endpoint);
    const auto mount = network.Make(std::string("s3://cars/a.car?endpoint=") + endpoint);
    const absl::Status status = mount->Stat(Io::Posix(), {}).status();
    CHECK_CODE(status, kFailedPrecondition);
    CHECK_EQ(ToString(status).find("canary"), std::string::npos);
    CHECK_CODE(mount->OpenStream(Io::Posix(), {}), kFailedPrecondition);
  }
  CHECK(ValueOf(network.Make("s3://cars/a.car")->Stat(Io::Posix(), {})).exists);
  for (const char* url : {"s3:a", "s3://", "s3://ab/x", "s3://cars", "s3://cars/", "s3://cars/a/", "s3://k:s@cars/a",
                          "s3://cars:80/a", "s3://cars/a?x=y", "s3://cars/a?endpoint=a&endpoint=b", "s3://a..b/c",
                          "s3://cars%2Fx/a", "s3://-cars/a", "s3://cars@evil/a"}) {
    CAPTURE(url);
    CHECK_CODE(network.registry.Make(ValueOf(Url::Parse(url))), kInvalidArgument);
  }
}

TEST_CASE("s3 mount: an endpoint of the wrong region is told the right one, if that can be one") {
  std::atomic<int> status = 301;
  SharedText region;
  HttpServer server([&](const HttpServer::Request&, HttpServer::Connection& connection) {
    connection.Answer(status, "x-amz-bucket-region: " + region.Get() + "\r\n", "");
  });
  NetworkMountConfig config = LoopbackConfig();
  config.s3["default"] = {.url = server.Url(""), .region = "lab-1", .path_style = true};
  const Network network(config);
  const auto messages = [&] {
    const auto mount = network.Make("s3://cars/a.car");
    const absl::Status stat = mount->Stat(Io::Posix(), {}).status();
    const absl::Status range = mount->OpenRange(Io::Posix(), {}, {0, 10}, {}).status();
    const absl::Status list = network.registry.List(ValueOf(Url::Parse("s3://cars/")), {}, [](const MountListEntry&) {
      return absl::OkStatus();
    });
    for (const absl::Status& error : {stat, range, list}) CHECK_CODE(error, kFailedPrecondition);
    return ToString(stat) + ToString(range) + ToString(list);
  };
  const auto count = [](const std::string& text, std::string_view word) {
    int found = 0;
    for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++found;
    return found;
  };
  region.Set("eu-west-2");
  for (const int code : {301, 307, 400, 403}) {
    status = code;
    INFO(messages());
    CHECK_EQ(count(messages(), "in the region \"eu-west-2\", and the endpoint \"default\" is of \"lab-1\""), 3);
  }
  for (const char* other : {"lab-1", "", "<script>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    region.Set(other);
    CHECK_EQ(count(messages(), "region"), 0);
  }
}

TEST_CASE("s3 mount: an object in the archive exists, and is ready once it is restored") {
  FakeS3 server;
  const Network network(ConfigFor(server));
  server.Put("cars", "a.car", "content");
  const auto mount = network.Make("s3://cars/a.car");
  const auto ready = [&](const std::string& headers) {
    server.SetHeaders("cars", "a.car", headers);
    const MountStat stat = ValueOf(mount->Stat(Io::Posix(), {}));
    CHECK(stat.exists);
    return stat.ready;
  };
  CHECK(ready("x-amz-storage-class: STANDARD_IA\r\n"));
  CHECK_FALSE(ready("x-amz-storage-class: GLACIER\r\n"));
  CHECK_FALSE(ready("x-amz-storage-class: DEEP_ARCHIVE\r\nx-amz-restore: ongoing-request=\"true\"\r\n"));
  CHECK(ready("x-amz-storage-class: GLACIER\r\nx-amz-restore: ongoing-request=\"false\", expiry-date=\"x\"\r\n"));
}

TEST_CASE("s3 mount: lists a prefix, page by page") {
  FakeS3 server;
  const Network network(ConfigFor(server));
  std::vector<std::string> wanted;
  for (int i = 0; i < 25; ++i) {
    const std::string key = fmt::format("cars/{:02} &<+\xc3\xa4>.car", i);
    server.Put("bucket", key, std::string(static_cast<size_t>(i), 'x'));
    wanted.push_back(key);
  }
  server.Put("bucket", "cars/", "");
  server.Put("bucket", "other/a.car", "x");
  server.set_page_size(10);
  for (const char* endpoint : {"", "?endpoint=virtual"}) {
    std::vector<std::string> found;
    uint64_t bytes = 0;
    const auto take = [&](const MountListEntry& entry) {
      found.push_back(entry.url.path.substr(1));
      CHECK(entry.size_known);
      bytes += entry.size;
      CHECK(ValueOf(ValueOf(network.registry.Make(entry.url))->Stat(Io::Posix(), {})).exists);
      return absl::OkStatus();
    };
    const Url folder = ValueOf(Url::Parse(std::string("s3://bucket/cars/") + endpoint));
    CHECK_STATUS_OK(network.registry.List(folder, {}, take));
    CHECK(found == wanted);
    CHECK_EQ(bytes, 300);
  }
  const auto none = [](const MountListEntry&) { return Internal("not wanted"); };
  CHECK_CODE(network.registry.List(ValueOf(Url::Parse("s3://bucket/other/")), {}, none), kInternal);
  CHECK_STATUS_OK(network.registry.List(ValueOf(Url::Parse("s3://bucket/none/")), {}, none));
  CHECK_CODE(network.registry.List(ValueOf(Url::Parse("s3://bucket/cars")), {}, none), kInvalidArgument);
  CHECK_CODE(network.registry.List(ValueOf(Url::Parse("s3://bucket/?endpoint=wrong")), {}, none), kFailedPrecondition);
  CHECK_CODE(network.registry.List(ValueOf(Url::Parse("http://127.0.0.1/")), {}, none), kUnimplemented);
  CancelFlag stop;
  stop.Cancel();
  CHECK_CODE(network.registry.List(ValueOf(Url::Parse("s3://bucket/cars/")), {.cancel = &stop}, none), kCancelled);
}

TEST_CASE("s3 mount: a list that lies is refused") {
  SharedText page;
  HttpServer server([&](const HttpServer::Request&, HttpServer::Connection& connection) {
    connection.Answer(200, "", page.Get());
  });
  NetworkMountConfig config = LoopbackConfig();
  config.s3["default"] = {.url = server.Url(""), .path_style = true};
  const Network network(config);
  const auto list = [&](const std::string& body) {
    page.Set(body);
    return network.registry.List(ValueOf(Url::Parse("s3://bucket/cars/")), {},
                                 [](const MountListEntry&) { return absl::OkStatus(); });
  };
  const std::string open = "<ListBucketResult>", close = "</ListBucketResult>";
  CHECK_STATUS_OK(list(open + close));
  CHECK_CODE(list("<html>"), kDataLoss);
  CHECK_CODE(list(""), kDataLoss);
  CHECK_CODE(list(open + "<Contents><Size>1</Size></Contents>" + close), kDataLoss);
  CHECK_CODE(list(open + "<Contents><Key>etc/passwd</Key></Contents>" + close), kDataLoss);
  CHECK_CODE(list(open + "<IsTruncated>true</IsTruncated>" + close), kDataLoss);
  CHECK_CODE(list(open + "<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>" + close),
             kDataLoss);
  CHECK_CODE(list(open + "<EncodingType>url</EncodingType><Contents><Key>cars/%zz</Key></Contents>" + close),
             kDataLoss);
  CHECK_CODE(list(open + std::string(9 << 20, ' ') + close), kResourceExhausted);
}

}  // namespace
}  // namespace dagstore
