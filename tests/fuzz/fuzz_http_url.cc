// Any text as an http URL, as what a server redirects to, as an address and as a network. Properties: what is accepted
// is written as a text that is read as the same; a redirect leads to a URL of the same kind; an address that is not
// public is public under no other spelling.
#include "base/address.h"
#include "base/check.h"
#include "base/http.h"
#include "tests/fuzz/fuzz.h"

namespace dagstore {
namespace {

void CheckUrl(const HttpUrl& url) {
  const std::string text = url.Origin() + url.target;
  const auto again = HttpUrl::Parse(text);
  DAGSTORE_CHECK(again.ok() && again->Origin() == url.Origin() && again->target == url.target);
  DAGSTORE_CHECK(url.scheme == "http" || url.scheme == "https");
  for (const char c : text) DAGSTORE_CHECK(c > 0x20 && c < 0x7f);
}

}  // namespace

void FuzzOne(Span input) {
  const std::string_view text = AsText(input);
  if (const auto url = HttpUrl::Parse(text); url.ok()) {
    CheckUrl(*url);
    if (const auto same = url->Resolve(""); same.ok()) CheckUrl(*same);
  }
  const auto base = HttpUrl::Parse("https://example.com/a/b?c");
  DAGSTORE_CHECK_OK(base.status());
  if (const auto to = base->Resolve(text); to.ok()) CheckUrl(*to);

  if (const auto address = IpAddress::Parse(text); address.ok()) {
    const auto again = IpAddress::Parse(address->ToString());
    DAGSTORE_CHECK(again.ok() && *again == *address);
    const AddressPolicy strict;
    DAGSTORE_CHECK(strict.Check(*again).ok() == strict.Check(*address).ok());
    DAGSTORE_CHECK_OK(AddressPolicy::AllowingAll().Check(*address));
    const auto listed = AddressPolicy::Allowing({address->ToString()});
    DAGSTORE_CHECK(listed.ok() && listed->Check(*address).ok());
  }
  AddressPolicy::Allowing({std::string(text)}).status().IgnoreError();
}

}  // namespace dagstore
