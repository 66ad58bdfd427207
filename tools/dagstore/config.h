// The configuration file of the dagstore command: which folders, networks, endpoints and credentials its mounts have,
// and limits of the store. TOML; docs/operations.md#configuration has every key.
//
// A key that is not known is an error, with its line: a limit that was misspelled is no limit. Secrets are in a file of
// their own, which only its owner may read, or in the environment.
#pragma once

#include <functional>
#include <string>

#include "dagstore/options.h"
#include "mount/file_mount.h"
#include "mount/network_mounts.h"

namespace dagstore::cli {

struct Config {
  FileMountConfig files = {};
  NetworkMountConfig network = {};
  Options limits = {};  // of the store; only what [limits] may set differs from the defaults

  // Sets what [limits] has set, unless the caller has set it already.
  void ApplyTo(Options* options) const;
};

// The value of an environment variable; null if it is not set.
using Environment = std::function<const char*(const char* name)>;

// NotFound if `path` is not there; InvalidArgument ("<path>:<line>: ...") for everything that is wrong in it;
// FailedPrecondition for a credentials file that others may read, or of another owner. Relative names of files are
// below the folder of `path`.
absl::StatusOr<Config> LoadConfig(const std::string& path, const Environment& environment);
// The same of a text that was read from `path`.
absl::StatusOr<Config> ParseConfig(const std::string& text, const std::string& path, const Environment& environment);

}  // namespace dagstore::cli
