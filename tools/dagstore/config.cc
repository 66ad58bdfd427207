// toml++ asserts that a key begins as keys do before it looks, and says what is wrong, itself: a file that begins with
// "[=" ended the program. Without assertions, and without a compiler that is told to assume them.
#undef NDEBUG
#define TOML_ASSERT(condition) static_cast<void>(0)
#define TOML_EXCEPTIONS 0
#include "tools/dagstore/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>

namespace dagstore::cli {
namespace {

constexpr size_t kConfigBytesMax = 1 << 20;

// ---- Limits ----

// By the name it has in the manual. A limit of a part of the store is in a table of its own: sources.attempts_max.
template <typename T>
struct Limit {
  const char* name;
  T& (*of)(Options&);
  T min;
  T max;
};
#define DAGSTORE_LIMIT(member, min, max) \
  { #member, [](Options& o) -> auto& { return o.member; }, min, max }

constexpr size_t kCountMax = size_t{1} << 50;  // of anything: far above what there is, and no overflow when doubled
constexpr int kThreadsMax = 1024;

const Limit<size_t> kSizes[] = {
    DAGSTORE_LIMIT(requests_max, 1, kCountMax),
    DAGSTORE_LIMIT(turn_tasks_max, 1, kCountMax),
    DAGSTORE_LIMIT(completions_per_request, 1, kCountMax),
    DAGSTORE_LIMIT(jobs_running_max, 1, kCountMax),
    DAGSTORE_LIMIT(open_shards_max, 1, kCountMax),
    DAGSTORE_LIMIT(index_memory_bytes_max, 1 << 20, kCountMax),
    DAGSTORE_LIMIT(failures_kept_max, 0, kCountMax),
    DAGSTORE_LIMIT(inline_index_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(top_index_buffer_entries_max, 1024, kCountMax),
    DAGSTORE_LIMIT(top_index_run_entries_max, 1024, kCountMax),
    DAGSTORE_LIMIT(top_index_filter_entries_max, 0, kCountMax),
    DAGSTORE_LIMIT(top_index_resident_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(embedded_index_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(fill_left_bytes_min, 0, kCountMax),
    DAGSTORE_LIMIT(fill_left_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(fills_running_max, 0, kCountMax),
    DAGSTORE_LIMIT(copies.bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(sources.requests_max, 1, kCountMax),
    DAGSTORE_LIMIT(sources.requests_per_host_max, 1, kCountMax),
    DAGSTORE_LIMIT(sources.bytes_per_second_max, 0, kCountMax),
    DAGSTORE_LIMIT(sources.failures_kept_max, 0, kCountMax),
    DAGSTORE_LIMIT(partial.request_bytes_max, 64 << 10, kCountMax),
    DAGSTORE_LIMIT(partial.read_ahead_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(partial.gap_bytes_max, 0, kCountMax),
    DAGSTORE_LIMIT(partial.map_save_bytes, 64 << 10, kCountMax),
    DAGSTORE_LIMIT(partial.tail_bytes, 0, 64 << 20),
    DAGSTORE_LIMIT(car.header_bytes_max, 1024, kCountMax),
    DAGSTORE_LIMIT(car.roots_max, 0, kCountMax),
    DAGSTORE_LIMIT(car.section_bytes_max, 1024, kSectionBytesLimit),
    DAGSTORE_LIMIT(car.cid_bytes_max, 4, kCidBytesMax),
    DAGSTORE_LIMIT(car.window_bytes, 4096, 1 << 30),
};
const Limit<int> kInts[] = {
    DAGSTORE_LIMIT(index_threads, 0, kThreadsMax),
    DAGSTORE_LIMIT(open_threads, 1, kThreadsMax),
    DAGSTORE_LIMIT(fetch_threads, 1, kThreadsMax),
    DAGSTORE_LIMIT(embedded_index_samples, 2, 1024),
    DAGSTORE_LIMIT(fill_done_percent, 0, 100),
    DAGSTORE_LIMIT(top_index_merge_fan_in, 2, 1024),
    DAGSTORE_LIMIT(sources.attempts_max, 1, 1000),
    DAGSTORE_LIMIT(partial.connections_ahead, 0, 64),
};
const Limit<uint32_t> kCounts[] = {
    DAGSTORE_LIMIT(recover_attempts_max, 1, 1 << 20),
};
const Limit<double> kShares[] = {
    DAGSTORE_LIMIT(copies.high_watermark, 0, 1),
    DAGSTORE_LIMIT(copies.low_watermark, 0, 1),
    DAGSTORE_LIMIT(partial.promote_share, 0, 2),
};
const Limit<absl::Duration> kTimes[] = {
    DAGSTORE_LIMIT(loop_spin, absl::ZeroDuration(), absl::Seconds(1)),
    DAGSTORE_LIMIT(close_grace, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(close_accessor_wait, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(stop_grace, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(job_time_max, absl::Milliseconds(1), absl::Hours(24 * 365)),
    DAGSTORE_LIMIT(fill_time_max, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(copies.wait_max, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(sources.turn_wait_max, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(sources.backoff_min, absl::ZeroDuration(), absl::Hours(1)),
    DAGSTORE_LIMIT(sources.backoff_max, absl::ZeroDuration(), absl::Hours(1)),
    DAGSTORE_LIMIT(sources.retry_after_max, absl::ZeroDuration(), absl::Hours(24)),
    DAGSTORE_LIMIT(partial.read_timeout, absl::Milliseconds(1), absl::Hours(24)),
};
#undef DAGSTORE_LIMIT

// `visit` is called with each array of limits.
template <typename Visit>
void ForEachLimits(Visit visit) {
  visit(kSizes);
  visit(kInts);
  visit(kCounts);
  visit(kShares);
  visit(kTimes);
}

// ---- Reading ----

// Reads the tables of one file. The first error stays; everything after it is ignored.
class Reader {
 public:
  Reader(std::string path, const Environment& environment) : path_(std::move(path)), environment_(environment) {}

  absl::Status status() const { return status_; }
  bool ok() const { return status_.ok(); }

  void Fail(const toml::node& at, std::string_view what) {
    if (ok()) status_ = InvalidArgument("{}:{}: {}", path_, at.source().begin.line, what);
  }
  void Fail(const absl::Status& status) {
    if (ok()) status_ = status;
  }

  std::optional<toml::table> Parse(const std::string& text) {
    toml::parse_result result = toml::parse(text, path_);
    if (result) return std::move(result).table();
    // toml++ quotes the text around an error, which may be a secret.
    if (ok()) status_ = InvalidArgument("{}:{}: no TOML", path_, result.error().source().begin.line);
    return std::nullopt;
  }

  // Refuses keys of `table` that nobody has asked for. `where`: its name, in messages.
  void CheckKeys(const toml::table& table, const std::string& where, const std::set<std::string_view>& known) {
    for (auto&& [key, node] : table) {
      if (known.contains(key.str())) continue;
      std::string message = fmt::format("unknown key \"{}\"{}", Printable(key.str()), where);
      if (ok()) status_ = InvalidArgument("{}:{}: {}", path_, key.source().begin.line, message);
    }
  }

  const toml::table* Table(const toml::table& parent, std::string_view key) {
    const toml::node* node = parent.get(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) Fail(*node, fmt::format("{} is a table", key));
    return node->as_table();
  }

  void Text(const toml::table& table, std::string_view key, std::string* value) {
    Value<std::string>(table, key, "a text", [&](const std::string& text, const toml::node&) { *value = text; });
  }
  void Bool(const toml::table& table, std::string_view key, bool* value) {
    Value<bool>(table, key, "true or false", [&](bool flag, const toml::node&) { *value = flag; });
  }
  std::optional<int64_t> Number(const toml::table& table, std::string_view key, int64_t min, int64_t max) {
    std::optional<int64_t> value;
    Value<int64_t>(table, key, "a whole number", [&](int64_t number, const toml::node& node) {
      if (number < min || number > max) return Fail(node, fmt::format("{} is {} to {}", key, min, max));
      value = number;
    });
    return value;
  }
  // Where limits are: one that is not there stays as it is.
  void Limited(const toml::table& table, std::string_view key, const Limit<absl::Duration>& limit,
               absl::Duration* value) {
    Value<std::string>(table, key, "a time with its unit, such as \"200ms\" or \"10m\"",
                       [&](const std::string& text, const toml::node& node) {
                         absl::Duration time;
                         if (!absl::ParseDuration(text, &time) || time < limit.min || time > limit.max) {
                           return Fail(node,
                                       fmt::format("{} is a time of {} to {}", key, absl::FormatDuration(limit.min),
                                                   absl::FormatDuration(limit.max)));
                         }
                         *value = time;
                       });
  }
  void Limited(const toml::table& table, std::string_view key, const Limit<double>& limit, double* value) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return;
    const std::optional<double> number = node->value<double>();
    if (!node->is_number() || !number.has_value() || !(*number >= limit.min && *number <= limit.max)) {
      return Fail(*node, fmt::format("{} is a number of {} to {}", key, limit.min, limit.max));
    }
    *value = *number;
  }
  template <typename T>
  void Limited(const toml::table& table, std::string_view key, const Limit<T>& limit, T* value) {
    if (const auto number = Number(table, key, static_cast<int64_t>(limit.min), static_cast<int64_t>(limit.max)))
      *value = static_cast<T>(*number);
  }

  void Seconds(const toml::table& table, std::string_view key, absl::Duration* value) {
    if (const std::optional<int64_t> seconds = Number(table, key, 1, 86'400)) *value = absl::Seconds(*seconds);
  }
  std::vector<std::string> Texts(const toml::table& table, std::string_view key) {
    std::vector<std::string> texts;
    const toml::node* node = table.get(key);
    if (node == nullptr) return texts;
    if (!node->is_array()) Fail(*node, fmt::format("{} is a list of texts", key));
    if (const toml::array* array = node->as_array()) {
      for (auto&& element : *array) {
        if (const auto* text = element.as_string()) {
          texts.push_back(text->get());
        } else {
          Fail(element, fmt::format("{} is a list of texts", key));
        }
      }
    }
    return texts;
  }

  // `key` itself, where secrets may be written down, or the environment variable that `key`_env names.
  Secret SecretText(const toml::table& table, const std::string& key, bool inline_allowed) {
    Secret secret;
    Value<std::string>(table, key, "a text", [&](const std::string& text, const toml::node& node) {
      if (!inline_allowed) {
        return Fail(node, fmt::format("{} is a secret: it belongs into the credentials file, or into an environment "
                                      "variable that {}_env names", key, key));
      }
      secret = Secret(text);
    });
    Value<std::string>(table, key + "_env", "the name of an environment variable",
                       [&](const std::string& name, const toml::node& node) {
                         const char* value = environment_(name.c_str());
                         if (value == nullptr || *value == '\0') {
                           return Fail(node, fmt::format("the environment variable {} is not set", Printable(name)));
                         }
                         if (!secret.empty()) return Fail(node, fmt::format("{} is there twice", key));
                         secret = Secret(value);
                       });
    return secret;
  }

  // The tables in `table`, one for each credential, by id.
  void ReadCredentials(const toml::table& table, bool inline_allowed, Credentials* credentials) {
    for (auto&& [id, node] : table) {
      if (!node.is_table()) {
        Fail(node, fmt::format("credential {} is a table", Printable(id.str())));
        continue;
      }
      const toml::table& fields = *node.as_table();
      Credential credential;
      std::string kind;
      Text(fields, "kind", &kind);
      credential.origins = Texts(fields, "origins");
      std::set<std::string_view> known = {"kind", "origins"};
      if (kind == "basic") {
        credential.kind = Credential::Kind::kBasic;
        known.insert({"user", "password", "password_env"});
        Text(fields, "user", &credential.user);
        credential.secret = SecretText(fields, "password", inline_allowed);
      } else if (kind == "bearer") {
        credential.kind = Credential::Kind::kBearer;
        known.insert({"token", "token_env"});
        credential.secret = SecretText(fields, "token", inline_allowed);
      } else if (kind == "aws") {
        credential.kind = Credential::Kind::kAws;
        known.insert({"access_key_id", "secret_access_key", "secret_access_key_env", "session_token",
                      "session_token_env"});
        Text(fields, "access_key_id", &credential.user);
        credential.secret = SecretText(fields, "secret_access_key", inline_allowed);
        credential.session_token = SecretText(fields, "session_token", inline_allowed);
      } else {
        Fail(node, fmt::format("credential {}: kind is basic, bearer or aws", Printable(id.str())));
      }
      CheckKeys(fields, fmt::format(" of a credential of kind {}", Printable(kind)), known);
      if (!ok()) return;
      if (const absl::Status status = credentials->Add(std::string(id.str()), std::move(credential)); !status.ok()) {
        Fail(node, Message(status));
      }
    }
  }

 private:
  template <typename T, typename Use>
  void Value(const toml::table& table, std::string_view key, std::string_view wanted, Use use) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return;
    if (const auto* value = node->as<T>()) {
      use(value->get(), *node);
    } else {
      Fail(*node, fmt::format("{} is {}", key, wanted));
    }
  }

  // Keys come from a file that may be the wrong one.
  static std::string Printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 64)) out += c >= ' ' && c < 0x7f ? c : '?';
    return out;
  }

  const std::string path_;
  const Environment& environment_;
  absl::Status status_ = {};
};

std::string BesidesConfig(const std::string& config, const std::string& path) {
  if (path.empty() || path[0] == '/') return path;
  return (std::filesystem::path(config).parent_path() / path).string();
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  ASSIGN_OR_RETURN(const Bytes bytes, ReadSmallFile(Io::Posix(), path, kConfigBytesMax));
  return std::string(AsText(bytes));
}

// Opened once, looked at, and read: what is read is what was checked.
absl::StatusOr<std::string> ReadCredentialsFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return Annotate(ErrnoStatus(errno, path), "the credentials file");
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer = {fd};
  struct stat stat = {};
  if (fstat(fd, &stat) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(stat.st_mode)) return FailedPrecondition("the credentials file {} is no regular file", path);
  const mode_t mode = stat.st_mode & 07777;
  if (mode != 0600 && mode != 0400) {
    return FailedPrecondition("the credentials file {} has mode {:04o}; it must be 0600 (chmod 600)", path, mode);
  }
  if (stat.st_uid != geteuid() && stat.st_uid != 0) {
    return FailedPrecondition("the credentials file {} belongs to somebody else", path);
  }
  std::string text;
  char block[16 * 1024];
  for (;;) {
    const ssize_t n = read(fd, block, sizeof(block));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path);
    if (n == 0) return text;
    text.append(block, static_cast<size_t>(n));
    if (text.size() > kConfigBytesMax) return ResourceExhausted("{} is above {} bytes", path, kConfigBytesMax);
  }
}

}  // namespace

void Config::ApplyTo(Options* options) const {
  Options defaults, set = limits;
  ForEachLimits([&](const auto& all) {
    for (const auto& limit : all) {
      if (limit.of(*options) == limit.of(defaults)) limit.of(*options) = limit.of(set);
    }
  });
}

absl::StatusOr<Config> LoadConfig(const std::string& path, const Environment& environment) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  return ParseConfig(text, path, environment);
}

absl::StatusOr<Config> ParseConfig(const std::string& text, const std::string& path, const Environment& environment) {
  Reader reader(path, environment);
  const std::optional<toml::table> parsed = reader.Parse(text);
  if (!parsed.has_value()) return reader.status();
  const toml::table& root = *parsed;
  Config config;
  auto credentials = std::make_shared<Credentials>();
  reader.CheckKeys(root, "", {"credentials_file", "credentials", "network", "roots", "file", "s3", "piece", "nfs",
                              "limits"});

  if (const toml::table* table = reader.Table(root, "network")) {
    reader.CheckKeys(*table, " in [network]",
                     {"allow", "connect_timeout_seconds", "stall_timeout_seconds", "ca_file", "idle_connections_max",
                      "send_traceparent"});
    absl::StatusOr<AddressPolicy> policy = AddressPolicy::Allowing(reader.Texts(*table, "allow"));
    if (policy.ok()) {
      config.network.network.addresses = std::make_shared<AddressPolicy>(*std::move(policy));
    } else {
      reader.Fail(*table->get("allow"), Message(policy.status()));
    }
    reader.Seconds(*table, "connect_timeout_seconds", &config.network.network.connect_timeout);
    reader.Seconds(*table, "stall_timeout_seconds", &config.network.network.stall_timeout);
    reader.Text(*table, "ca_file", &config.network.network.ca_file);
    reader.Bool(*table, "send_traceparent", &config.network.network.send_traceparent);
    config.network.network.ca_file = BesidesConfig(path, config.network.network.ca_file);
    if (const auto count = reader.Number(*table, "idle_connections_max", 0, 4096)) {
      config.network.network.idle_connections_max = static_cast<size_t>(*count);
    }
  }
  if (const toml::table* table = reader.Table(root, "roots")) {
    for (auto&& [name, node] : *table) {
      if (const auto* folder = node.as_string()) {
        config.files.roots[std::string(name.str())] = BesidesConfig(path, folder->get());
      } else {
        reader.Fail(node, "a root is the path of a folder");
      }
    }
  }
  if (const toml::table* table = reader.Table(root, "file")) {
    reader.CheckKeys(*table, " in [file]", {"absolute_paths", "symlinks"});
    reader.Bool(*table, "absolute_paths", &config.files.absolute_paths_allowed);
    reader.Bool(*table, "symlinks", &config.files.symlinks_allowed);
  }
  if (const toml::table* table = reader.Table(root, "s3")) {
    for (auto&& [name, node] : *table) {
      if (!node.is_table()) {
        reader.Fail(node, "an S3 endpoint is a table: [s3.default]");
        continue;
      }
      const toml::table& fields = *node.as_table();
      reader.CheckKeys(fields, " of an S3 endpoint", {"endpoint", "region", "style", "credential"});
      S3Endpoint endpoint;
      std::string style = "virtual";
      reader.Text(fields, "endpoint", &endpoint.url);
      reader.Text(fields, "region", &endpoint.region);
      reader.Text(fields, "style", &style);
      reader.Text(fields, "credential", &endpoint.credential);
      endpoint.path_style = style == "path";
      if (style != "path" && style != "virtual") reader.Fail(*fields.get("style"), "style is path or virtual");
      if (!endpoint.url.empty()) {
        const absl::StatusOr<HttpUrl> url = HttpUrl::Parse(endpoint.url);
        if (!url.ok()) reader.Fail(*fields.get("endpoint"), Message(url.status()));
        if (url.ok() && url->target != "/") reader.Fail(*fields.get("endpoint"), "endpoint is http(s)://host[:port]");
      }
      config.network.s3[std::string(name.str())] = endpoint;
    }
  }
  if (const toml::table* table = reader.Table(root, "piece")) {
    reader.CheckKeys(*table, " in [piece]", {"endpoints", "credential"});
    std::string credential;
    reader.Text(*table, "credential", &credential);
    for (const std::string& url : reader.Texts(*table, "endpoints")) {
      const absl::StatusOr<HttpUrl> parsed_url = HttpUrl::Parse(url);
      if (!parsed_url.ok() || parsed_url->target.find('?') != std::string::npos) {
        reader.Fail(*table->get("endpoints"), "an endpoint is http(s)://host[:port][/path]");
      }
      config.network.piece.push_back({.url = url, .credential = credential});
    }
  }
  if (const toml::table* table = reader.Table(root, "nfs")) {
    reader.CheckKeys(*table, " in [nfs]", {"uid", "gid"});
    constexpr int64_t kIdMax = std::numeric_limits<int32_t>::max();
    if (const auto uid = reader.Number(*table, "uid", 0, kIdMax)) config.network.nfs_uid = static_cast<int>(*uid);
    if (const auto gid = reader.Number(*table, "gid", 0, kIdMax)) config.network.nfs_gid = static_cast<int>(*gid);
  }
  if (const toml::table* table = reader.Table(root, "limits")) {
    // The names before the dot are tables.
    std::map<std::string_view, std::set<std::string_view>> known;
    ForEachLimits([&](const auto& all) {
      for (const auto& limit : all) {
        const std::string_view name = limit.name;
        const size_t dot = name.find('.');
        const std::string_view part = dot == name.npos ? std::string_view() : name.substr(0, dot);
        const std::string_view key = dot == name.npos ? name : name.substr(dot + 1);
        known[part].insert(key);
        const toml::table* of = part.empty() ? table : reader.Table(*table, part);
        if (of != nullptr) reader.Limited(*of, key, limit, &limit.of(config.limits));
      }
    });
    for (const auto& [part, keys] : known) {
      if (!part.empty()) known[{}].insert(part);
      const toml::table* of = part.empty() ? nullptr : reader.Table(*table, part);
      if (of != nullptr) reader.CheckKeys(*of, fmt::format(" in [limits.{}]", part), keys);
    }
    reader.CheckKeys(*table, " in [limits]", known[{}]);
  }
  if (const toml::table* table = reader.Table(root, "credentials")) {
    reader.ReadCredentials(*table, /*inline_allowed=*/false, credentials.get());
  }
  std::string credentials_file;
  reader.Text(root, "credentials_file", &credentials_file);
  RETURN_IF_ERROR(reader.status());
  if (!credentials_file.empty()) {
    credentials_file = BesidesConfig(path, credentials_file);
    ASSIGN_OR_RETURN(const std::string secrets, ReadCredentialsFile(credentials_file));
    Reader secret_reader(credentials_file, environment);
    if (const std::optional<toml::table> table = secret_reader.Parse(secrets)) {
      secret_reader.ReadCredentials(*table, /*inline_allowed=*/true, credentials.get());
    }
    RETURN_IF_ERROR(secret_reader.status());
  }
  config.network.credentials = std::move(credentials);
  return config;
}

}  // namespace dagstore::cli
