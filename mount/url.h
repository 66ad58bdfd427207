// Url: scheme, and the rest as bytes. Round-trips any byte; printing for people goes through
// Redacted() only.
//
// Spec: RFC 3986, with these decisions. One-letter schemes are refused: "C:\cars\a.car" is a path,
// not a URL. A fragment is refused: it would silently cut a file name at '#'. Bytes that RFC 3986
// wants escaped are accepted as they are (people type file:///cars/my file.car), control bytes are
// not. '+' is a plus, never a space. A query item without '=' is the same as one with an empty
// value. %2F in a path is a slash. Error messages never quote the text: it may hold a password.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace dagstore {

// Longest text of a URL. As long as what web servers accept in a request line; a record stays
// small.
inline constexpr size_t kUrlBytesMax = 8 * 1024;
// The same for "bytes:", whose path is the content: 1 MiB in base64, and slack.
inline constexpr size_t kBytesUrlBytesMax = 1408 * 1024;
// Schemes are words; longer ones are mistakes, and errors show the scheme.
inline constexpr size_t kSchemeBytesMax = 32;
// Redacted() cuts longer texts, so that one URL cannot fill a log.
inline constexpr size_t kRedactedBytesMax = 512;

// A parsed mount URL: scheme ":" ["//" [userinfo "@"] host [":" port]] path ["?" query].
// Fields hold decoded bytes; Encoded() escapes again, deterministically: Parse(u.Encoded()) == u
// for every u that Validate() accepts.
struct Url {
  std::string scheme = {};    // lower case
  std::string userinfo = {};  // "user:password"; never printed
  std::string host = {};      // an IPv6 address without its brackets
  std::string port = {};      // digits, or empty
  std::string path = {};
  std::vector<std::pair<std::string, std::string>> query = {};  // in order
  bool has_authority = false;  // "//" was there, even if the host is empty

  friend bool operator==(const Url&, const Url&) = default;

  // InvalidArgument for what is no URL, ResourceExhausted for text above the limit.
  static absl::StatusOr<Url> Parse(std::string_view text);
  // OK if Parse() can give exactly this value back: the scheme is a lower-case scheme, the
  // authority's fields are empty without an authority, a path after one is empty or starts with
  // '/', and the text keeps the limit.
  absl::Status Validate() const;
  // The form that is stored. May hold secrets: never log it.
  std::string Encoded() const;
  // For logs, listings and errors: userinfo gone, query values replaced by "...", all but plain
  // ASCII escaped, cut at kRedactedBytesMax. A query item without a value may be a token: it is
  // replaced as a whole.
  std::string Redacted() const;
};

}  // namespace dagstore
