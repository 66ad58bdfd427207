#include "base/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <thread>

#include "base/http.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// First and last of each range that is not public, and of what lies beside it; then the same inside IPv6.
constexpr const char* kForbiddenV4[] = {
    "0.0.0.0",         "0.0.0.1",         "0.255.255.255",   "10.0.0.0",        "10.0.0.1",        "10.1.2.3",
    "10.255.255.255",  "100.64.0.0",      "100.64.0.1",      "100.100.100.200", "100.127.255.255", "127.0.0.0",
    "127.0.0.1",       "127.0.0.53",      "127.1.1.1",       "127.255.255.255", "169.254.0.0",     "169.254.169.254",
    "169.254.170.2",   "169.254.255.255", "172.16.0.0",      "172.16.0.1",      "172.17.0.1",      "172.20.10.1",
    "172.31.255.255",  "192.0.0.0",       "192.0.0.8",       "192.0.0.192",     "192.0.0.255",     "192.0.2.0",
    "192.0.2.255",     "192.88.99.0",     "192.88.99.255",   "192.168.0.0",     "192.168.0.1",     "192.168.1.254",
    "192.168.255.255", "198.18.0.0",      "198.18.0.1",      "198.19.255.255",  "198.51.100.0",    "198.51.100.255",
    "203.0.113.0",     "203.0.113.255",   "224.0.0.0",       "224.0.0.1",       "224.0.0.251",     "232.1.1.1",
    "239.255.255.250", "239.255.255.255", "240.0.0.0",       "250.1.2.3",       "255.255.255.254", "255.255.255.255",
};
constexpr const char* kPublicV4[] = {
    "1.0.0.0",       "1.1.1.1",        "8.8.8.8",        "9.255.255.255",  "11.0.0.0",       "100.63.255.255",
    "100.128.0.0",   "126.255.255.255", "128.0.0.0",     "169.253.255.255", "169.255.0.0",   "172.15.255.255",
    "172.32.0.0",    "191.255.255.255", "192.0.1.0",     "192.0.3.0",      "192.88.98.255",  "192.88.100.0",
    "192.167.255.255", "192.169.0.0",  "198.17.255.255", "198.20.0.0",     "198.51.99.255",  "198.51.101.0",
    "203.0.112.255", "203.0.114.0",    "223.255.255.255",
};
constexpr const char* kForbiddenV6[] = {
    "::", "::1", "::2", "::ffff", "::127.0.0.1", "::7f00:1", "::10.0.0.1", "::8.8.8.8", "1::", "100::", "100::1",
    "64:ff9b:1::1", "64:ff9b:1:ffff::", "fc00::", "fc00::1", "fd00::1", "fd00:ec2::254", "fdff:ffff::1", "fe80::",
    "fe80::1", "fe80::a9fe:a9fe", "febf:ffff::1", "fec0::1", "feff::1", "ff00::", "ff01::1", "ff02::1", "ff02::fb",
    "ff0e::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::", "2001:db8::", "2001:db8::1",
    "2001:db8:ffff:ffff::", "3fff::", "3fff::1", "3fff:fff:ffff::", "4000::", "5f00::1", "8000::1", "::fffe:127.0.0.1",
    "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001",
};
constexpr const char* kPublicV6[] = {
    "2000::1", "2001:200::1", "2001:4860:4860::8888", "2001:db7:ffff::1", "2001:db9::1", "2003::1",
    "2400:cb00:2048:1::c629:d7a2", "2606:4700:4700::1111", "2620:fe::fe", "2a00:1450:4001:81b::200e", "3ffe::1",
    "3fff:1000::1",
};
// What some resolver, shell or browser takes for an address of this machine or of its network.
constexpr const char* kNoAddress[] = {
    "", " ", "127.1", "127.0.1", "127", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1", "0177.1",
    "017700000001", "127.0.0.1.", "127.0.0.01", "127.0.0.001", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\n", "127.0.0.256",
    "127.0.0.+1", "127.0.0.1/8", "127.0.0.1:80", "127.0.0.1.1", "127..0.1", ".127.0.0.1", "127.0.0.1%lo", "[::1]",
    "::1%lo", "fe80::1%eth0", "fe80::1%1", ":::1", "::1::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::ffff:127.1",
    "::ffff:0x7f.0.0.1", "::ffff:127.0.0.1.1", "::g", "localhost", "0", "\xef\xbc\x91\x32\x37.0.0.1",
    "\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1", "127\xe3\x80\x82\x30\xe3\x80\x82\x30\xe3\x80\x82\x31",
};

absl::Status Check(const AddressPolicy& policy, const std::string& text) {
  const absl::StatusOr<IpAddress> address = IpAddress::Parse(text);
  if (!address.ok()) return address.status();
  return policy.Check(*address);
}

TEST_CASE("address policy: only public addresses, in whichever clothes they come") {
  const AddressPolicy policy;
  size_t cases = 0;
  const auto refused = [&](const std::string& text) {
    CAPTURE(text);
    CHECK_CODE(Check(policy, text), kFailedPrecondition);
    ++cases;
  };
  const auto allowed = [&](const std::string& text) {
    CAPTURE(text);
    CHECK_CODE(Check(policy, text), kOk);
    ++cases;
  };
  for (const char* text : kForbiddenV4) {
    refused(text);
    refused(std::string("::ffff:") + text);
    refused(std::string("64:ff9b::") + text);
    in_addr v4;
    REQUIRE_EQ(inet_pton(AF_INET, text, &v4), 1);
    const uint32_t number = ntohl(v4.s_addr);
    refused(fmt::format("2002:{:x}:{:x}::1", number >> 16, number & 0xFFFF));
    refused(fmt::format("::ffff:{:x}:{:x}", number >> 16, number & 0xFFFF));
  }
  for (const char* text : kPublicV4) {
    allowed(text);
    allowed(std::string("::ffff:") + text);
    allowed(std::string("64:ff9b::") + text);
  }
  for (const char* text : kForbiddenV6) refused(text);
  for (const char* text : kPublicV6) allowed(text);
  CHECK_GT(cases, 400);
  for (const char* text : kNoAddress) {
    CAPTURE(text);
    CHECK_CODE(IpAddress::Parse(text), kInvalidArgument);
    // Nor does it get into a URL, unless as a name, which the resolver's answer decides on.
    const absl::StatusOr<HttpUrl> url = HttpUrl::Parse(fmt::format("http://{}/", text));
    if (!url.ok()) continue;
    CHECK_MESSAGE((url->host == "localhost" || url->host == "127.0.0.1" || url->host == "::1"), url->host);
  }
}

TEST_CASE("address policy: the operator's list opens the networks in it, and no others") {
  const AddressPolicy policy =
      ValueOf(AddressPolicy::Allowing({"10.1.0.0/16", "127.0.0.1", "fd00:1::/32", "192.168.7.8/31"}));
  for (const char* text : {"10.1.0.0", "10.1.255.255", "127.0.0.1", "fd00:1::9", "fd00:1:ffff::", "192.168.7.8",
                           "192.168.7.9", "::ffff:10.1.2.3", "8.8.8.8", "2606:4700::1"}) {
    CAPTURE(text);
    CHECK_CODE(Check(policy, text), kOk);
  }
  for (const char* text : {"10.0.255.255", "10.2.0.0", "127.0.0.2", "fd00:2::", "192.168.7.7", "192.168.7.10", "::1",
                           "::ffff:10.2.0.0", "169.254.169.254", "64:ff9b::10.1.0.1"}) {
    CAPTURE(text);
    CHECK_CODE(Check(policy, text), kFailedPrecondition);
  }
  CHECK_CODE(Check(ValueOf(AddressPolicy::Allowing({"0.0.0.0/0"})), "127.0.0.1"), kOk);
  CHECK_CODE(Check(ValueOf(AddressPolicy::Allowing({"0.0.0.0/0"})), "::1"), kFailedPrecondition);
  CHECK_CODE(Check(AddressPolicy::AllowingAll(), "::1"), kOk);
  for (const char* text : {"", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "fd00::/129", "host/8",
                           "10.0.0.0/8/8"}) {
    CAPTURE(text);
    CHECK_CODE(AddressPolicy::Allowing({text}), kInvalidArgument);
  }
}

TEST_CASE("address policy: the addresses of this machine are not public") {
  ifaddrs* all = nullptr;
  REQUIRE_EQ(getifaddrs(&all), 0);
  size_t seen = 0;
  for (const ifaddrs* at = all; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    const absl::StatusOr<IpAddress> own = IpAddress::FromSockaddr(*at->ifa_addr);
    if (!own.ok()) continue;
    ++seen;
    CHECK_CODE(AddressPolicy().Check(*own), kFailedPrecondition);
  }
  freeifaddrs(all);
  CHECK_GT(seen, 0);
}

TEST_CASE("resolver: names and literal addresses, checked as a whole") {
  const std::shared_ptr<Resolver> resolver = Resolver::System();
  CHECK_EQ(ValueOf(resolver->Resolve("192.0.2.7", {}))[0].ToString(), "192.0.2.7");
  const std::vector<IpAddress> local = ValueOf(resolver->Resolve("localhost", {}));
  CHECK_FALSE(local.empty());
  CHECK_CODE(ResolveChecked(*resolver, AddressPolicy(), "localhost", {}), kFailedPrecondition);
  CHECK_STATUS_OK(ResolveChecked(*resolver, AddressPolicy::AllowingAll(), "localhost", {}));
  // RFC 6761: never a name.
  CHECK_CODE(resolver->Resolve("no-such-host.invalid", {}), kUnavailable);
  CancelFlag stop;
  stop.Cancel();
  CHECK_CODE(resolver->Resolve("localhost", {.cancel = &stop}), kCancelled);
}

}  // namespace
}  // namespace dagstore
