#include "base/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/check.h"
#include "base/mutex.h"

namespace dagstore {
namespace {

bool HasPrefix(Span address, Span network, int bits) {
  const size_t whole = bits / 8;
  if (!SameBytes(address.first(whole), network.first(whole))) return false;
  const int rest = bits % 8;
  if (rest == 0) return true;
  const uint8_t mask = static_cast<uint8_t>(0xFF << (8 - rest));
  return (address[whole] & mask) == (network[whole] & mask);
}

struct Special {
  const char* network;
  int bits;
  const char* kind;
};

// RFC 6890 and the registries of special-purpose addresses that followed it.
constexpr Special kSpecialV4[] = {
    {"0.0.0.0", 8, "unspecified"},
    {"10.0.0.0", 8, "private"},
    {"100.64.0.0", 10, "shared (carrier NAT)"},
    {"127.0.0.0", 8, "loopback"},
    {"169.254.0.0", 16, "link-local"},
    {"172.16.0.0", 12, "private"},
    {"192.0.0.0", 24, "reserved"},
    {"192.0.2.0", 24, "documentation"},
    {"192.88.99.0", 24, "6to4 relay"},
    {"192.168.0.0", 16, "private"},
    {"198.18.0.0", 15, "benchmarking"},
    {"198.51.100.0", 24, "documentation"},
    {"203.0.113.0", 24, "documentation"},
    {"224.0.0.0", 4, "multicast"},
    {"240.0.0.0", 4, "reserved"},
};
constexpr Special kSpecialV6[] = {
    {"::", 128, "unspecified"},
    {"::1", 128, "loopback"},
    {"fc00::", 7, "private"},
    {"fe80::", 10, "link-local"},
    {"fec0::", 10, "site-local"},
    {"ff00::", 8, "multicast"},
    {"2001::", 23, "reserved (Teredo and others)"},
    {"2001:db8::", 32, "documentation"},
    {"3fff::", 20, "documentation"},
};

// Where an IPv4 address lies inside an IPv6 one, and a router or the kernel may take it out.
struct Wrapped {
  const char* network;
  int bits;
  size_t offset;
  const char* kind;
};
constexpr Wrapped kWrapped[] = {
    {"64:ff9b::", 96, 12, "NAT64 of "},
    {"2002::", 16, 2, "6to4 of "},
};

Span BytesOf(const IpAddress& address) { return address.bytes(); }

// Why `address` is not public; empty if it is.
std::string KindOf(const IpAddress& address) {
  const Span bytes = BytesOf(address);
  if (address.is_v4()) {
    for (const Special& special : kSpecialV4) {
      in_addr network;
      DAGSTORE_CHECK(inet_pton(AF_INET, special.network, &network) == 1);
      if (HasPrefix(bytes, Span(reinterpret_cast<const uint8_t*>(&network), 4), special.bits)) return special.kind;
    }
    return {};
  }
  for (const Special& special : kSpecialV6) {
    in6_addr network;
    DAGSTORE_CHECK(inet_pton(AF_INET6, special.network, &network) == 1);
    if (HasPrefix(bytes, Span(network.s6_addr, 16), special.bits)) return special.kind;
  }
  for (const Wrapped& wrapped : kWrapped) {
    in6_addr network;
    DAGSTORE_CHECK(inet_pton(AF_INET6, wrapped.network, &network) == 1);
    if (!HasPrefix(bytes, Span(network.s6_addr, 16), wrapped.bits)) continue;
    sockaddr_in inside = {};
    inside.sin_family = AF_INET;
    std::memcpy(&inside.sin_addr, bytes.data() + wrapped.offset, 4);
    const absl::StatusOr<IpAddress> v4 = IpAddress::FromSockaddr(reinterpret_cast<const sockaddr&>(inside));
    DAGSTORE_CHECK(v4.ok());
    if (const std::string kind = KindOf(*v4); !kind.empty()) return wrapped.kind + kind;
    return {};
  }
  // Only 2000::/3 has been given out.
  if ((bytes[0] & 0xE0) != 0x20) return "reserved";
  return {};
}

bool IsOfThisMachine(const IpAddress& address) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return false;  // loopback and private ones are refused in any case
  bool found = false;
  for (const ifaddrs* at = all; at != nullptr && !found; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    const absl::StatusOr<IpAddress> own = IpAddress::FromSockaddr(*at->ifa_addr);
    found = own.ok() && *own == address;
  }
  freeifaddrs(all);
  return found;
}

// One question to getaddrinfo, shared by who asks and the thread that waits.
struct Question {
  Mutex mu;
  CondVar answered;
  bool done ABSL_GUARDED_BY(mu) = false;
  int error ABSL_GUARDED_BY(mu) = 0;
  std::vector<IpAddress> addresses ABSL_GUARDED_BY(mu);
};

class SystemResolver final : public Resolver {
 public:
  absl::StatusOr<std::vector<IpAddress>> Resolve(const std::string& host, const WorkContext& work) override {
    RETURN_IF_ERROR(work.Check());
    if (const absl::StatusOr<IpAddress> literal = IpAddress::Parse(host); literal.ok()) {
      return std::vector<IpAddress>{*literal};
    }
    if (asking_->fetch_add(1) >= kAskingMax) {
      asking_->fetch_sub(1);
      return ResourceExhausted("resolve {}: {} names wait for their name server already", host, kAskingMax);
    }
    const auto question = std::make_shared<Question>();
    // Detached: it holds what it needs, and ends when the name server has answered or the system gives up.
    try {
      std::thread([host, question, asking = asking_] {
        Ask(host, *question);
        asking->fetch_sub(1);
      }).detach();
    } catch (const std::system_error&) {
      asking_->fetch_sub(1);
      return ResourceExhausted("resolve {}: the system has no thread left", host);
    }
    MutexLock lock(question->mu);
    while (!question->done) {
      RETURN_IF_ERROR(work.Check());
      question->answered.WaitFor(question->mu, absl::Milliseconds(20));
    }
    if (question->error != 0) return Unavailable("resolve {}: {}", host, gai_strerror(question->error));
    if (question->addresses.empty()) return Unavailable("resolve {}: it has no address", host);
    return question->addresses;
  }

 private:
  static constexpr int kAskingMax = 32;  // a thread each

  static void Ask(const std::string& host, Question& question) {
    addrinfo hints = {};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
    std::vector<IpAddress> addresses;
    for (const addrinfo* at = found; error == 0 && at != nullptr; at = at->ai_next) {
      absl::StatusOr<IpAddress> address = IpAddress::FromSockaddr(*at->ai_addr);
      if (!address.ok() || addresses.size() == kAddressesMax) continue;
      if (std::find(addresses.begin(), addresses.end(), *address) == addresses.end()) addresses.push_back(*address);
    }
    if (error == 0) freeaddrinfo(found);
    MutexLock lock(question.mu);
    question.done = true;
    question.error = error;
    question.addresses = std::move(addresses);
    question.answered.NotifyAll();
  }

  const std::shared_ptr<std::atomic<int>> asking_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace

IpAddress::IpAddress(bool v4, Span bytes) : v4_(v4) { std::memcpy(bytes_.data(), bytes.data(), bytes.size()); }

absl::StatusOr<IpAddress> IpAddress::Parse(std::string_view text) {
  const std::string copy(text.substr(0, INET6_ADDRSTRLEN));
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  if (copy.size() == text.size() && inet_pton(AF_INET, copy.c_str(), &v4.sin_addr) == 1) {
    return FromSockaddr(reinterpret_cast<const sockaddr&>(v4));
  }
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  if (copy.size() == text.size() && inet_pton(AF_INET6, copy.c_str(), &v6.sin6_addr) == 1) {
    return FromSockaddr(reinterpret_cast<const sockaddr&>(v6));
  }
  return InvalidArgument("not an IP address");
}

absl::StatusOr<IpAddress> IpAddress::FromSockaddr(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return IpAddress(true, Span(reinterpret_cast<const uint8_t*>(&v4.sin_addr), 4));
  }
  if (address.sa_family == AF_INET6) {
    const Span bytes(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr.s6_addr, 16);
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    if (StartsWith(bytes, kMapped)) return IpAddress(true, bytes.subspan(12));
    return IpAddress(false, bytes);
  }
  return InvalidArgument("neither an IPv4 nor an IPv6 address");
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = {};
  DAGSTORE_CHECK(inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), text, sizeof(text)) != nullptr);
  return text;
}

absl::StatusOr<AddressPolicy> AddressPolicy::Allowing(const std::vector<std::string>& networks) {
  AddressPolicy policy;
  for (const std::string& text : networks) {
    const size_t slash = std::min(text.find('/'), text.size());
    const absl::StatusOr<IpAddress> address = IpAddress::Parse(std::string_view(text).substr(0, slash));
    if (!address.ok()) return InvalidArgument("\"{}\" is no network: write 10.1.0.0/16 or fd00:1::/32", text);
    const int bits_max = static_cast<int>(address->bytes().size()) * 8;
    int bits = bits_max;
    if (slash < text.size()) {
      const char* end = text.data() + text.size();
      const auto [rest, error] = std::from_chars(text.data() + slash + 1, end, bits);
      if (error != std::errc() || rest != end || bits < 0 || bits > bits_max) {
        return InvalidArgument("\"{}\" is no network: the prefix is 0 to {} bits", text, bits_max);
      }
    }
    policy.allowed_.push_back({.address = *address, .prefix_bits = bits});
  }
  return policy;
}

AddressPolicy AddressPolicy::AllowingAll() {
  AddressPolicy policy;
  policy.all_ = true;
  return policy;
}

bool AddressPolicy::Lists(const IpAddress& address) const {
  return std::any_of(allowed_.begin(), allowed_.end(), [&](const Network& network) {
    return network.address.is_v4() == address.is_v4() &&
           HasPrefix(BytesOf(address), BytesOf(network.address), network.prefix_bits);
  });
}

absl::Status AddressPolicy::Check(const IpAddress& address) const {
  if (all_ || Lists(address)) return absl::OkStatus();
  std::string kind = KindOf(address);
  if (kind.empty() && IsOfThisMachine(address)) kind = "of this machine";
  if (kind.empty()) return absl::OkStatus();
  return FailedPrecondition("the address {} is {}, and its network is not on the list of allowed ones",
                            address.ToString(), kind);
}

std::shared_ptr<Resolver> Resolver::System() { return std::make_shared<SystemResolver>(); }

absl::StatusOr<std::vector<IpAddress>> ResolveChecked(Resolver& resolver, const AddressPolicy& policy,
                                                      const std::string& host, const WorkContext& work) {
  ASSIGN_OR_RETURN(std::vector<IpAddress> addresses, resolver.Resolve(host, work));
  if (addresses.empty()) return Unavailable("resolve {}: it has no address", host);
  for (const IpAddress& address : addresses) {
    if (const absl::Status status = policy.Check(address); !status.ok()) return Annotate(status, host);
  }
  return addresses;
}

}  // namespace dagstore
