// `dagstore add`: registers CARs, many at a time.
#include <glob.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/hashing.h"
#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

namespace fs = std::filesystem;

// Requests under way. The store bounds its own work; this bounds what a stop has to wait for, and
// memory.
constexpr size_t kRequestsMax = 1024;
constexpr size_t kKeyColumnMax = 48;

struct AddOptions {
  std::vector<std::string> sources = {};
  std::string key = {};
  bool lazy = false;
  std::vector<std::string> also = {};
  bool no_verify = false;
  int jobs = 0;
};

// A CAR to be added: a file by its absolute path, or a URL.
struct Source {
  std::string text = {};
  bool is_file = false;
  uint64_t bytes = 0;  // 0 if unknown
};

// ---- From arguments to sources ----

class Expander {
 public:
  explicit Expander(const MountRegistry& mounts) : mounts_(mounts) {}

  void Add(const std::string& text) {
    if (text != "-") return AddOne(text);
    std::string line;
    while (!Interrupted().cancelled() && std::getline(std::cin, line)) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) AddOne(line);
    }
  }

  std::vector<Source> sources = {};
  uint64_t failed = 0;  // arguments that are nothing

 private:
  void AddOne(const std::string& text) {
    std::error_code error;
    const fs::file_status status = fs::status(text, error);
    if (fs::exists(status)) return AddFound(text, status);
    if (const absl::StatusOr<Url> url = Url::Parse(text); url.ok() && IsKnown(url->scheme)) {
      if (url->scheme == "s3" && (url->path.empty() || url->path.back() == '/')) return AddPrefix(text, *url);
      return AddUrl(text, *url);
    } else if (text.find("://") != std::string::npos) {
      return Complain(text,
                      url.ok() ? Message(mounts_.Make(*url).status()) : Message(url.status()));
    }
    if (text.find_first_of("*?[") != std::string::npos) return AddPattern(text);
    const bool is_nothing = status.type() == fs::file_type::not_found;
    Complain(text, is_nothing ? "no such file or folder" : error.message());
  }

  void AddFound(const std::string& path, const fs::file_status& status) {
    if (fs::is_directory(status)) return AddFolder(path);
    if (fs::is_regular_file(status)) return AddFile(path);
    Complain(path, "is neither a file nor a folder");
  }

  void AddUrl(const std::string& text, const Url& url) {
    const bool plain_file =
        url.scheme == "file" && url.query.empty() && !url.path.empty() && url.path[0] == '/';
    if (plain_file) {
      sources.push_back({url.path, /*is_file=*/true, SizeOf(url.path)});
    } else {
      sources.push_back({text, /*is_file=*/false, 0});
    }
  }

  // The *.car objects below a prefix of a bucket.
  void AddPrefix(const std::string& text, const Url& prefix) {
    const size_t before = sources.size();
    const absl::Status status =
        mounts_.List(prefix, InterruptibleWork(), [this](const MountListEntry& entry) -> absl::Status {
          if (entry.url.path.ends_with(".car")) {
            sources.push_back({entry.url.Encoded(), /*is_file=*/false, entry.size_known ? entry.size : 0});
          }
          return absl::OkStatus();
        });
    if (!status.ok()) {
      // Half a list would be taken for the whole.
      sources.resize(before);
      return Complain(text, Message(status));
    }
    if (sources.size() == before) Complain(text, "no *.car object below this prefix");
  }

  void AddFile(const fs::path& path) {
    std::error_code error;
    fs::path folder = path.parent_path();
    if (folder.empty()) folder = ".";
    const fs::path absolute = fs::canonical(folder, error) / path.filename();
    if (error) return Complain(path.string(), error.message());
    sources.push_back({absolute.string(), /*is_file=*/true, SizeOf(absolute.string())});
  }

  void AddFolder(const fs::path& folder) {
    std::error_code error;
    const fs::path root = fs::canonical(folder, error);
    if (error) return Complain(folder.string(), error.message());
    std::vector<std::string> found;
    fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, error);
    for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
      std::error_code ignored;
      if (it->path().extension() == ".car" && it->is_regular_file(ignored))
        found.push_back(it->path().string());
    }
    if (error) Complain(folder.string(), error.message());
    if (found.empty()) return Complain(folder.string(), "no *.car file in this folder");
    std::sort(found.begin(), found.end());  // so that keys do not depend on the file system's order
    for (std::string& path : found) {
      const uint64_t bytes = SizeOf(path);
      sources.push_back({std::move(path), /*is_file=*/true, bytes});
    }
  }

  void AddPattern(const std::string& pattern) {
    glob_t matches = {};
    const int result = glob(pattern.c_str(), 0, nullptr, &matches);
    if (result == 0) {
      for (size_t i = 0; i < matches.gl_pathc; ++i) {
        const std::string path = matches.gl_pathv[i];
        std::error_code error;
        const fs::file_status status = fs::status(path, error);
        if (fs::exists(status))
          AddFound(path, status);
        else
          Complain(path, error.message());  // a link to nothing or to itself, a folder that cannot be searched
      }
    }
    globfree(&matches);
    if (result != 0) Complain(pattern, "no file matches");
  }

  bool IsKnown(const std::string& scheme) const {
    const std::vector<std::string> schemes = mounts_.Schemes();
    return std::find(schemes.begin(), schemes.end(), scheme) != schemes.end();
  }
  static uint64_t SizeOf(const std::string& path) {
    std::error_code error;
    const uint64_t size = fs::file_size(path, error);
    return error ? 0 : size;
  }
  void Complain(const std::string& text, std::string_view cause) {
    ++failed;
    // What looks like a URL may hold a password, whatever is wrong with it.
    const absl::StatusOr<Url> url = Url::Parse(text);
    const bool is_url = text.find("://") != text.npos;
    const std::string name = !is_url ? text.substr(0, 256) : url.ok() ? url->Redacted() : "URL";
    cli::Complain(fmt::format("add {}: {}", name, cause));
  }

  const MountRegistry& mounts_;
};

// ---- Keys ----

// The n-th choice for a file: its name, then with one folder more each time; at last the whole
// path, which nobody else has.
std::optional<std::string> FileKey(const std::string& path, size_t n) {
  size_t begin = path.size();
  for (size_t i = 0; i <= n; ++i) {
    if (begin == 0) return std::nullopt;
    begin = path.rfind('/', begin - 1);
    if (begin == std::string::npos) begin = 0;
  }
  return path.substr(begin == 0 ? 0 : begin + 1);
}

// The URL without what may be secret: user, password, query. Then, if another has that, with a hash
// of all of it.
std::optional<std::string> UrlKey(const Url& url, size_t n) {
  Url bare = url;
  bare.userinfo.clear();
  bare.query.clear();
  const bool too_long = bare.scheme == "bytes" || bare.Encoded().size() + 17 > kShardKeyBytesMax;
  if (too_long) bare.path.clear();
  if (n == 0 && !too_long) return bare.Encoded();
  uint8_t digest[32];
  Sha256(AsSpan(url.Encoded()), digest);
  if (n > 1) return std::nullopt;
  return fmt::format("{}#{}", bare.Encoded(), ToHex(Span(digest, 8)));
}

// ---- Adding ----

class Adder {
 public:
  Adder(const Context& context, const AddOptions& options, DagStore& store, const NetworkClients& network,
        std::vector<Source> sources)
      : context_(context),
        options_(options),
        store_(store),
        network_(network),
        sources_(std::move(sources)),
        progress_(context, "adding") {
    for (const Source& source : sources_) {
      bytes_total_ += source.bytes;
      if (!source.is_file && source.bytes == 0) sizes_unknown_ = true;
      const std::string_view name =
          source.is_file ? std::string_view(source.text).substr(source.text.rfind('/') + 1) : "";
      key_width_ = std::max(key_width_, std::min(TextWidth(name), kKeyColumnMax));
    }
  }

  int Run(uint64_t failed_before) {
    failed_ = failed_before;
    for (size_t i = 0; i < sources_.size() && !Interrupted().cancelled(); ++i) {
      while (pending_.size() >= kRequestsMax) TakeOne();
      while (auto result = results_.TryReceive()) Take(*std::move(result));
      if (const absl::Status status = Start(i); !status.ok()) Report(i, status);
    }
    while (!pending_.empty()) TakeOne();
    progress_.Clear();
    const uint64_t not_tried = sources_.size() - done_;
    if (!context_.quiet) {
      std::string line = fmt::format("{} added", added_);
      if (existed_ != 0) line += fmt::format(", {} there already", existed_);
      if (failed_ != 0) line += fmt::format(", {} failed", failed_);
      if (stopped_ + not_tried != 0) line += fmt::format(", {} stopped", stopped_ + not_tried);
      Complain(line);
    }
    return failed_ + stopped_ + not_tried == 0 ? kExitOk : kExitFailed;
  }

 private:
  struct Pending {
    size_t source = 0;
    std::string key = {};
    bool existed = false;
  };

  absl::Status Start(size_t index) {
    const Source& source = sources_[index];
    Url url;
    if (source.is_file) {
      url.scheme = "file";
      url.has_authority = true;
      url.path = source.text;
    } else {
      ASSIGN_OR_RETURN(url, Url::Parse(source.text));
    }
    ASSIGN_OR_RETURN(std::unique_ptr<Mount> mount, store_.mounts().Make(url));
    ASSIGN_OR_RETURN(const Url stored_url, store_.mounts().Represent(*mount));
    const std::string stored = stored_url.Encoded();
    for (size_t n = 0;; ++n) {
      const std::optional<std::string> key =
          !options_.key.empty() ? (n == 0 ? std::optional(options_.key) : std::nullopt)
          : source.is_file      ? FileKey(source.text, n)
                                : UrlKey(url, n);
      if (!key.has_value()) {
        return AlreadyExists("the key \"{}\" belongs to another file or URL: choose one with --key",
                             ShardKey(options_.key).Printable());
      }
      RETURN_IF_ERROR(ShardKey(*key).Check());
      const auto [claim, is_new] = claimed_.try_emplace(*key, stored);
      if (!is_new) {
        if (claim->second != stored) continue;
        ++done_;  // named twice
        return absl::OkStatus();
      }
      const absl::StatusOr<ShardRecord> record = store_.lookup().ReadRecord(*key);
      if (absl::IsNotFound(record.status())) return Register(index, *key, std::move(mount));
      RETURN_IF_ERROR(record.status());
      if (record->url != stored) {
        claim->second = record->url;
        continue;
      }
      return Existing(index, *key, *record);
    }
  }

  absl::Status Register(size_t index, const std::string& key, std::unique_ptr<Mount> mount) {
    RegisterOptions options;
    options.lazy = options_.lazy;
    options.verify = !options_.no_verify;
    options.also = options_.also;
    ASSIGN_OR_RETURN(const Ticket ticket,
                     store_.RegisterShard(key, std::move(mount), results_, options));
    pending_[ticket] = {index, key, /*existed=*/false};
    return absl::OkStatus();
  }

  // Added before. What was not finished then (killed, failed) is finished now.
  absl::Status Existing(size_t index, const std::string& key, const ShardRecord& record) {
    if (!options_.also.empty() && options_.also != record.also) {
      progress_.Clear();
      cli::Complain(fmt::format("add: \"{}\" is there already: --also is not taken", ShardKey(key).Printable()));
    }
    absl::StatusOr<Ticket> ticket = Ticket{0};
    if (record.state == ShardState::kErrored) {
      ticket = store_.RecoverShard(key, results_);
    } else if (record.state == ShardState::kNew && !options_.lazy) {
      ticket = store_.AcquireShard(key, results_);
    } else {
      ++done_;
      ++existed_;
      CountBytes(index);
      PrintShard(key, record, /*existed=*/true);
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(ticket.status());
    pending_[*ticket] = {index, key, /*existed=*/true};
    return absl::OkStatus();
  }

  void TakeOne() {
    if (Interrupted().cancelled() && !stopping_) {
      stopping_ = true;
      for (const auto& [ticket, pending] : pending_)
        (void)store_.Stop(ticket);  // each is answered all the same
    }
    ShowProgress();
    if (auto result = results_.Receive(Deadline::After(Clock::Real(), absl::Milliseconds(100))))
      Take(*std::move(result));
  }

  void Take(ShardResult result) {
    const auto it = pending_.find(result.ticket);
    const Pending pending = std::move(it->second);
    pending_.erase(it);
    if (!result.status.ok()) {
      if (stopping_ && absl::IsCancelled(result.status)) {
        ++done_;
        ++stopped_;
        return;
      }
      // The record has the cause alone; the line names the file already.
      const absl::StatusOr<ShardRecord> record = store_.lookup().ReadRecord(pending.key);
      const bool kept = record.ok() && record->state == ShardState::kErrored;
      return Report(pending.source,
                    kept ? MakeStatus(result.status.code(), record->error) : result.status);
    }
    result.accessor.Close();
    const absl::StatusOr<ShardRecord> record = store_.lookup().ReadRecord(pending.key);
    if (!record.ok()) return Report(pending.source, record.status());
    ++done_;
    ++(pending.existed ? existed_ : added_);
    CountBytes(pending.source);
    PrintShard(pending.key, *record, pending.existed);
    ShowProgress();
  }

  // What came over the network counts as it comes, not when its shard is done. Sizes that nobody told are learned when
  // a shard is done; until then the bytes are shown without a total.
  void ShowProgress() {
    const uint64_t bytes = std::max(bytes_done_, local_bytes_done_ + network_.bytes_received());
    progress_.Update(done_, sources_.size(), "shards", sizes_unknown_ ? bytes : std::min(bytes, bytes_total_),
                     sizes_unknown_ ? 0 : bytes_total_);
  }

  // A source that needs nothing more.
  void CountBytes(size_t index) {
    bytes_done_ += sources_[index].bytes;
    if (sources_[index].is_file) local_bytes_done_ += sources_[index].bytes;
  }

  void Report(size_t index, const absl::Status& status) {
    ++done_;
    ++failed_;
    CountBytes(index);
    progress_.Clear();
    const absl::StatusOr<Url> url = Url::Parse(sources_[index].text);
    const std::string name =
        sources_[index].is_file || !url.ok() ? sources_[index].text : url->Redacted();
    Fail(fmt::format("add {}", name), status);
  }

  void PrintShard(const std::string& key, const ShardRecord& record, bool existed) {
    progress_.Clear();
    if (context_.json) {
      nlohmann::ordered_json line = {{"key", key},
                                     {"state", StateName(record.state)},
                                     {"blocks", record.blocks},
                                     {"bytes", record.source_size},
                                     {"exists", existed}};
      PrintLine(line);
    } else {
      Print(fmt::format("{}  {:<9} {:>16} {:>10}{}\n", PadRight(LineText(key), key_width_),
                        StateName(record.state), Count(record.blocks, "block"),
                        HumanBytes(record.source_size), existed ? "  exists" : ""));
    }
    (void)fflush(stdout);  // as it happens: a line says that the shard is durable
  }

  const Context& context_;
  const AddOptions& options_;
  DagStore& store_;
  const NetworkClients& network_;
  const std::vector<Source> sources_;
  Progress progress_;
  Channel<ShardResult> results_{kRequestsMax};
  std::unordered_map<Ticket, Pending> pending_;
  std::unordered_map<std::string, std::string> claimed_;  // key -> URL, of this run and what it met
  size_t key_width_ = 8;
  uint64_t bytes_done_ = 0, bytes_total_ = 0, local_bytes_done_ = 0;
  bool sizes_unknown_ = false;
  uint64_t done_ = 0, added_ = 0, existed_ = 0, failed_ = 0, stopped_ = 0;
  bool stopping_ = false;
};

int RunAdd(const Context& context, const AddOptions& options) {
  const MountSetup* mounts = Mounts(context);
  if (mounts == nullptr) return kExitFailed;
  Expander expander(*mounts->registry);
  for (const std::string& text : options.sources) expander.Add(text);
  if (expander.sources.empty())
    return kExitFailed;  // each was explained; do not leave an empty repository
  if (!options.key.empty() && expander.sources.size() != 1) {
    return UsageError(
        fmt::format("--key names one shard, but there are {} CARs", expander.sources.size()));
  }
  if (!options.also.empty() && expander.sources.size() != 1) {
    return UsageError(
        fmt::format("--also names another place of one CAR, but there are {} CARs", expander.sources.size()));
  }
  Options store;
  store.index_threads = options.jobs;
  return WithStore(context, OpenMode::kCreate, std::move(store), [&](DagStore& opened) {
    return Adder(context, options, opened, mounts->clients, std::move(expander.sources)).Run(expander.failed);
  });
}

}  // namespace

void DefineAddCommand(CLI::App& app, Context& context) {
  auto o = std::make_shared<AddOptions>();
  CLI::App* add =
      app.add_subcommand("add", "Add CAR files: from here on their blocks are found by CID");
  add->add_option("SOURCE", o->sources,
                  "A CAR file, a folder (its *.car files, at any depth), a quoted glob, a URL\n"
                  "(http, https, s3, ftp, ftps, nfs, piece, file, bytes), s3://bucket/prefix/ for its\n"
                  "*.car objects, or - to read one of these from each line of stdin")
      ->required()
      ->type_name("");
  add->add_option(
         "--key", o->key,
         "Name of the shard, if there is one source. Default: the file's name, with folders\n"
         "before it if another shard has that; for URLs the URL without user and query")
      ->type_name("KEY");
  add->add_flag("--lazy", o->lazy, "Register only; index when it is first needed by key");
  add->add_option("--also", o->also,
                  "Another URL of the same bytes, if there is one source; asked when those before it\n"
                  "fail. May be repeated; not taken where the shard is there already")
      ->allow_extra_args(false)  // one each time: what follows is a source
      ->type_name("URL");
  add->add_flag("--no-verify", o->no_verify,
                "Index without hashing every block (blocks are still hashed when read)");
  add->add_option("--jobs", o->jobs, "CARs indexed side by side (default: one per core)")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N");
  add->footer(
      "Files are read where they are and not copied; what is behind a URL is fetched.\n"
      "Prints a line for each shard when it is durable:\n"
      "key, state, blocks, bytes. A CAR that is there already is no error; one that failed before "
      "or was\n"
      "interrupted is tried again. A bad CAR is kept as Errored with the reason, and the others go "
      "on.\n\n"
      "Examples:\n"
      "  dagstore add archive/                     every *.car below archive/\n"
      "  dagstore add --key genesis chain.car      one file, under a name of your own\n"
      "  find /srv -name '*.car' | dagstore add -  a list\n"
      "  dagstore add https://host/a.car           from a web server\n"
      "  dagstore --config lab.toml add s3://cars/2024/\n"
      "                                            every *.car object of a prefix\n");
  add->callback([&context, o] { context.command = [&context, o] { return RunAdd(context, *o); }; });
}

}  // namespace dagstore::cli
