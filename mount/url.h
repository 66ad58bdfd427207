// Url: scheme, and the rest as bytes. Round-trips any byte; printing for people goes through Redacted() only.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace dagstore {

// A parsed mount URL: scheme ":" ["//" [userinfo "@"] host [":" port]] path ["?" query] ["#" fragment].
// Fields hold decoded bytes; Encoded() escapes again, deterministically: parse(encode(u)) == u for every u.
struct Url {
  std::string scheme = {};    // lower case
  std::string userinfo = {};  // never printed
  std::string host = {};
  std::string port = {};      // digits, or empty
  std::string path = {};
  std::vector<std::pair<std::string, std::string>> query = {};  // in order
  bool has_authority = false;                                   // "//" was there, even if the host is empty

  friend bool operator==(const Url&, const Url&) = default;

  static absl::StatusOr<Url> Parse(std::string_view text);
  // The form that is stored. May hold secrets: never log it.
  std::string Encoded() const;
  // For logs, listings and errors: userinfo gone, query values replaced by "...", control bytes escaped.
  std::string Redacted() const;
};

}  // namespace dagstore
