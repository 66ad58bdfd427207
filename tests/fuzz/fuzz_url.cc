// Any text as a mount URL. Properties: what parses is valid and round-trips through its stored form; the printed form
// is plain, short, and holds neither user info nor query values; the content of bytes: URLs round-trips as well.
#include <algorithm>

#include "base/check.h"
#include "mount/bytes_mount.h"
#include "mount/url.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

constexpr char kSecret[] = "zq7-canary-7qz";

void CheckRedacted(const Url& url) {
  const std::string printed = url.Redacted();
  DAGSTORE_CHECK(printed.size() <= kRedactedBytesMax + 3);
  DAGSTORE_CHECK(std::all_of(printed.begin(), printed.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
  DAGSTORE_CHECK(printed.find(kSecret) == printed.npos);
}

}  // namespace

void FuzzOne(Span input) {
  const auto url = Url::Parse(AsText(input));
  if (!url.ok()) {
    DAGSTORE_CHECK(url.status().message().size() < 200);
    return;
  }
  DAGSTORE_CHECK_OK(url->Validate());
  const std::string encoded = url->Encoded();
  const auto again = Url::Parse(encoded);
  DAGSTORE_CHECK(again.ok() && *again == *url && again->Encoded() == encoded);
  Url secret = *url;
  secret.userinfo.clear();
  secret.query.clear();
  if (secret.Redacted().find(kSecret) == std::string::npos) {  // what is left may be printed
    if (secret.has_authority) secret.userinfo = std::string("me:") + kSecret;
    secret.query = {{"name", kSecret}, {kSecret, ""}};
    CheckRedacted(secret);
  }
  if (url->scheme != "bytes") return;
  const auto mount = BytesMountFactory()(*url);
  if (mount.ok()) DAGSTORE_CHECK((*mount)->url().path == url->path);
}

}  // namespace dagstore
