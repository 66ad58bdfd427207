// Errors: absl::Status built from fmt strings, and the two macros that pass them on.
//
// Debian's abseil has its own string_view, so messages are built here and nowhere else; std types at our edges.
// Codes mean what docs/architecture.md#errors says:
//   NotFound            no such shard or CID
//   AlreadyExists       the key is taken
//   FailedPrecondition  the state table refused; the source is gone or another; the repository is of another kind
//   InvalidArgument     the caller's input cannot be parsed
//   Unavailable         the source did not serve; a retry may help
//   DataLoss            a hash or a format is wrong
//   ResourceExhausted   a limit of ours (also EMFILE, ENOSPC); never changes durable state
//   DeadlineExceeded, Cancelled
//   Unimplemented       a codec or hash function this build does not know
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace dagstore {

inline absl::Status MakeStatus(absl::StatusCode code, std::string_view message) {
  return absl::Status(code, absl::string_view(message.data(), message.size()));
}

#define DAGSTORE_DEFINE_ERROR(Name)                                                       \
  template <typename... Args>                                                             \
  absl::Status Name(fmt::format_string<Args...> format, Args&&... args) {                 \
    return MakeStatus(absl::StatusCode::k##Name,                                          \
                      fmt::format(format, std::forward<Args>(args)...));                  \
  }
DAGSTORE_DEFINE_ERROR(NotFound)
DAGSTORE_DEFINE_ERROR(AlreadyExists)
DAGSTORE_DEFINE_ERROR(FailedPrecondition)
DAGSTORE_DEFINE_ERROR(InvalidArgument)
DAGSTORE_DEFINE_ERROR(Unavailable)
DAGSTORE_DEFINE_ERROR(DataLoss)
DAGSTORE_DEFINE_ERROR(ResourceExhausted)
DAGSTORE_DEFINE_ERROR(DeadlineExceeded)
DAGSTORE_DEFINE_ERROR(Cancelled)
DAGSTORE_DEFINE_ERROR(Unimplemented)
DAGSTORE_DEFINE_ERROR(Internal)
#undef DAGSTORE_DEFINE_ERROR

// The message without the code, as std::string_view.
inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// "NotFound: no such shard", for logs and people.
std::string ToString(const absl::Status& status);

// The same status, payloads included, with "<context>: " before its message. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// The same message with the code `to`, if the code is `from`: those who are told would take it for something else.
absl::Status Recoded(const absl::Status& status, absl::StatusCode from, absl::StatusCode to);

// A status from errno, classified: ENOENT NotFound; EMFILE, ENFILE, ENOSPC, EDQUOT, ENOMEM ResourceExhausted;
// EACCES, EPERM FailedPrecondition; EIO DataLoss; ELOOP, ENAMETOOLONG, EISDIR, ENOTDIR InvalidArgument; others
// Unavailable.
absl::Status ErrnoStatus(int error, std::string_view what);

}  // namespace dagstore

#define DAGSTORE_CONCAT_INNER(a, b) a##b
#define DAGSTORE_CONCAT(a, b) DAGSTORE_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                          \
  do {                                                 \
    if (absl::Status status_ = (expr); !status_.ok())  \
      return status_;                                  \
  } while (0)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(DAGSTORE_CONCAT(status_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(var, lhs, expr) \
  auto var = (expr);                          \
  if (!var.ok()) return var.status();         \
  lhs = std::move(var).value()
