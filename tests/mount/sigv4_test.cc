// The signatures that AWS has published: the examples of the S3 manual, and the suite for all services.
#include "mount/sigv4.h"

#include "tests/testing.h"

namespace dagstore {
namespace {

absl::Time At(int year, int month, int day, int hour, int minute, int second) {
  return absl::FromCivil(absl::CivilSecond(year, month, day, hour, minute, second), absl::UTCTimeZone());
}

std::string AuthorizationOf(const HttpRequest& request) {
  REQUIRE_FALSE(request.private_headers.empty());
  CHECK_EQ(request.private_headers.back().first, "Authorization");
  return request.private_headers.back().second.Reveal();
}

std::string SignatureOf(const HttpRequest& request) {
  const std::string header = AuthorizationOf(request);
  return header.substr(header.find("Signature=") + 10);
}

TEST_CASE("sigv4: the examples of the S3 manual") {
  const SigV4Key key = {.access_key_id = "AKIAIOSFODNN7EXAMPLE",
                        .secret_access_key = Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
                        .region = "us-east-1"};
  struct Case {
    const char* method;
    const char* target;
    HttpHeaders headers;
    const char* body;
    const char* signature;
  };
  const Case cases[] = {
      {"GET", "/test.txt", {{"Range", "bytes=0-9"}}, "",
       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
      {"PUT", "/test%24file.text",
       {{"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
       "Welcome to Amazon S3.", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
      {"GET", "/?lifecycle", {}, "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
      {"GET", "/?max-keys=2&prefix=J", {}, "", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.target);
    HttpRequest request;
    request.method = c.method;
    request.url = ValueOf(HttpUrl::Parse("https://examplebucket.s3.amazonaws.com"));
    request.url.target = c.target;
    request.headers = c.headers;
    request.body = c.body;
    SignV4(&request, key, At(2013, 5, 24, 0, 0, 0));
    CHECK_EQ(SignatureOf(request), c.signature);
    CHECK(AuthorizationOf(request).starts_with(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="));
  }
}

TEST_CASE("sigv4: the suite for all services, where it does not need another service's paths") {
  const SigV4Key key = {.access_key_id = "AKIDEXAMPLE",
                        .secret_access_key = Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
                        .region = "us-east-1",
                        .service = "service"};
  struct Case {
    const char* name;
    const char* method;
    const char* target;
    HttpHeaders headers;
    const char* signature;
  };
  const Case cases[] = {
      {"get-vanilla", "GET", "/", {}, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"post-vanilla", "POST", "/", {}, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
      {"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", {},
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", {},
       "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
      {"get-vanilla-utf8-query", "GET", "/?%E1%88%B4=bar", {},
       "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
      {"get-header-value-trim", "GET", "/", {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}},
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"post-header-key-sort", "POST", "/", {{"My-Header1", "value1"}},
       "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.name);
    HttpRequest request;
    request.method = c.method;
    request.url = ValueOf(HttpUrl::Parse("https://example.amazonaws.com"));
    request.url.target = c.target;
    request.headers = c.headers;
    SignV4(&request, key, At(2015, 8, 30, 12, 36, 0));
    CHECK_EQ(SignatureOf(request), c.signature);
  }
}

TEST_CASE("sigv4: a session token is sent and signed") {
  SigV4Key key = {.access_key_id = "A", .secret_access_key = Secret("b"), .region = "eu-west-1"};
  HttpRequest plain, with_token;
  plain.url = with_token.url = ValueOf(HttpUrl::Parse("https://bucket.example.org:8443/a"));
  SignV4(&plain, key, At(2026, 1, 2, 3, 4, 5));
  key.session_token = Secret("token");
  SignV4(&with_token, key, At(2026, 1, 2, 3, 4, 5));
  CHECK_NE(SignatureOf(plain), SignatureOf(with_token));
  CHECK(AuthorizationOf(with_token).find("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,") !=
        std::string::npos);
}

TEST_CASE("sigv4: keys are escaped once, as S3 does") {
  CHECK_EQ(AwsEncode("a/b c+d%ä~-._", true), "a/b%20c%2Bd%25%C3%A4~-._");
  CHECK_EQ(AwsEncode("a/b", false), "a%2Fb");
}

}  // namespace
}  // namespace dagstore
