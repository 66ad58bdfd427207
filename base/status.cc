#include "base/status.h"

#include <cerrno>
#include <cstring>

namespace dagstore {

std::string ToString(const absl::Status& status) {
  if (status.ok()) return "OK";
  return fmt::format("{}: {}", absl::StatusCodeToString(status.code()), Message(status));
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated = MakeStatus(status.code(), fmt::format("{}: {}", context, Message(status)));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

absl::Status Recoded(const absl::Status& status, absl::StatusCode from, absl::StatusCode to) {
  return status.code() == from ? MakeStatus(to, Message(status)) : status;
}

absl::Status ErrnoStatus(int error, std::string_view what) {
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  switch (error) {
    case ENOENT:
      code = absl::StatusCode::kNotFound;
      break;
    case EEXIST:
      code = absl::StatusCode::kAlreadyExists;
      break;
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
      code = absl::StatusCode::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = absl::StatusCode::kFailedPrecondition;
      break;
    case EIO:
      code = absl::StatusCode::kDataLoss;
      break;
    case ELOOP:
    case ENAMETOOLONG:
    case EISDIR:
    case ENOTDIR:
    case EINVAL:
      code = absl::StatusCode::kInvalidArgument;
      break;
    default:
      break;
  }
  return MakeStatus(code, fmt::format("{}: {}", what, std::strerror(error)));
}

}  // namespace dagstore
