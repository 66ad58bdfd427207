// Addresses: which of them this process may connect to, and how a host name becomes one.
//
// URLs of shards may come from strangers. What they name must not reach services that trust their network: a name is
// resolved once, every address it has is checked, and the connection goes to a checked address and no other, so that
// a name server cannot give one answer to the check and another to the connection. Repeated on every redirect.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/reader.h"

struct sockaddr;

namespace dagstore {

// An IPv4 or IPv6 address. IPv4 in IPv6 clothes (::ffff:a.b.c.d) is IPv4.
class IpAddress {
 public:
  // "a.b.c.d" or an IPv6 address without brackets and zone. InvalidArgument for all else, also for the short, octal and
  // hexadecimal forms that some resolvers take ("127.1", "0x7f000001").
  static absl::StatusOr<IpAddress> Parse(std::string_view text);
  // InvalidArgument if it is neither AF_INET nor AF_INET6.
  static absl::StatusOr<IpAddress> FromSockaddr(const sockaddr& address);

  bool is_v4() const { return v4_; }
  Span bytes() const { return Span(bytes_).first(v4_ ? 4 : 16); }
  std::string ToString() const;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  IpAddress(bool v4, Span bytes);

  bool v4_ = true;
  std::array<uint8_t, 16> bytes_ = {};
};

// Public addresses, and the networks that the operator lists. Not public: loopback, private, shared (CGNAT), link-local
// (169.254.169.254 tells cloud credentials), multicast, unspecified, documentation, and IPv6 that carries one of these
// inside (mapped, compatible, NAT64, 6to4, Teredo). Nor are the addresses of this machine.
// Any thread.
class AddressPolicy {
 public:
  AddressPolicy() = default;  // public addresses only
  // `networks`: "10.1.0.0/16", "fd00:1::/32", or single addresses. InvalidArgument for what is none.
  static absl::StatusOr<AddressPolicy> Allowing(const std::vector<std::string>& networks);
  // For destinations that the operator has written into the configuration himself.
  static AddressPolicy AllowingAll();

  // FailedPrecondition if it may not be connected to; the message names the address and its kind.
  absl::Status Check(const IpAddress& address) const;

 private:
  struct Network {
    IpAddress address;
    int prefix_bits;
  };
  bool Lists(const IpAddress& address) const;

  std::vector<Network> allowed_ = {};
  bool all_ = false;
};

// Host names to addresses. Any thread; calls may take seconds and are not to be made on the loop.
class Resolver {
 public:
  virtual ~Resolver() = default;
  // At least one address, at most kAddressesMax. Unavailable if there is none now. Stops within 50 ms when `work` says
  // so, even if the name server is silent.
  virtual absl::StatusOr<std::vector<IpAddress>> Resolve(const std::string& host, const WorkContext& work) = 0;

  static constexpr size_t kAddressesMax = 16;

  // getaddrinfo in a thread of its own for each question (it cannot be interrupted, and is left behind at a stop).
  // ResourceExhausted while 32 of them are stuck, or no thread is left. Needs no thread for a literal address.
  static std::shared_ptr<Resolver> System();
};

// Resolves `host`, and checks every address. One that is forbidden refuses all: whoever answers so is lying.
absl::StatusOr<std::vector<IpAddress>> ResolveChecked(Resolver& resolver, const AddressPolicy& policy,
                                                      const std::string& host, const WorkContext& work);

}  // namespace dagstore
