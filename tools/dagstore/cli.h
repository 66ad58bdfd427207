// What the groups of commands share: the store, output, progress, exit codes.
//
// Data goes to stdout, everything else to stderr. An error is one line: what failed, the cause, and
// a hint if there is one. Exceptions of the command line parser stay in main.cc.
#pragma once

#include <absl/functional/function_ref.h>
#include <stdio.h>

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.h"
#include "base/text.h"
#include "dagstore/dagstore.h"
#include "mount/network_mounts.h"

namespace CLI {
class App;
}

namespace dagstore::cli {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,  // no such shard or CID
};

struct Config;

// What the configuration makes of the mounts.
struct MountSetup {
  std::shared_ptr<const Config> config = {};
  NetworkClients clients = {};
  std::shared_ptr<const MountRegistry> registry = {};
};

// The options before or after the command's name, and the command that was chosen.
struct Context {
  std::string repo = {};
  std::string config = {};  // a file; empty: none
  bool json = false;
  bool quiet = false;
  std::string name = {};           // of the command, for its span
  std::string trace = {};          // file for spans; empty: as the environment says
  std::string log = {};            // file for the log; empty: none
  std::string log_level = "info";
  uint64_t cache_bytes = UINT64_MAX;  // quota of local copies
  std::function<int()> command = {};
  mutable std::optional<MountSetup> mounts = {};  // see Mounts()
};

// One function for each file of commands; main() calls all of them.
void DefineRepositoryCommands(CLI::App& app, Context& context);  // ls, info, stats
void DefineAddCommand(CLI::App& app, Context& context);
void DefineBlockCommands(CLI::App& app,
                         Context& context);  // get, has, size, find, cat, export, dag, tree
void DefineManageCommands(CLI::App& app, Context& context);  // rm, recover, gc, pin, unpin
void DefineHealthCommands(CLI::App& app, Context& context);  // verify, fsck, rebuild, quarantine
void DefineCarCommands(CLI::App& app, Context& context);     // car ...

// ---- Errors ----

// Prints "dagstore: <what>: <cause>" and gives the exit code: NotFound is kExitNotFound, the rest
// kExitFailed.
int Fail(std::string_view what, const absl::Status& status);
// Prints the line, and gives kExitUsage.
int UsageError(std::string_view what);
void Complain(std::string_view line);  // to stderr, with the program's name
// The worse of two outcomes, when one of several things failed.
int Worse(int a, int b);

// ---- The store ----

enum class OpenMode : uint8_t { kExisting, kCreate };

// Every mount this program knows, as the configuration has them; read at the first call. Null after an error, which was
// printed then.
const MountSetup* Mounts(const Context& context);

// Opens the repository, runs `use`, closes. Only kCreate makes one.
int WithStore(const Context& context, OpenMode mode, Options options,
              absl::FunctionRef<int(DagStore&)> use);
int WithStore(const Context& context, absl::FunctionRef<int(DagStore&)> use);

// ---- Interrupts ----

// Before any thread starts. Ctrl-C and SIGTERM set the flag; a second one ends the process.
void SetUpProcess();
const CancelFlag& Interrupted();
WorkContext InterruptibleWork();

// ---- Output ----

// Everything to stdout. False once stdout is gone (a closed pipe), so that long outputs end.
bool Print(std::string_view text);
bool PrintLine(const nlohmann::ordered_json& line);
// Flushes; kExitFailed if output was lost.
int FinishOutput();
bool StdoutIsTerminal();

std::string PadRight(std::string_view text, size_t width);  // in characters, not bytes
size_t TextWidth(std::string_view text);
std::string HumanBytes(uint64_t bytes);                // "1.2 MiB"
std::string Count(uint64_t n, std::string_view noun);  // "1 block", "2 blocks"
std::string TimeText(absl::Time time);                 // UTC, to the second; "-" for the epoch

// Where data of a command goes: stdout, or a file that appears whole under its name once Finish()
// says so. Errors are never NotFound.
class Output {
 public:
  // `path` empty or "-": stdout.
  static absl::StatusOr<std::unique_ptr<Output>> Open(const std::string& path);
  ~Output();  // removes what is not finished

  absl::Status Append(Span bytes);
  // Files only: over bytes that were appended.
  absl::Status WriteAt(uint64_t offset, Span bytes);
  absl::Status Finish();
  bool is_file() const { return file_ != nullptr; }
  // What is written, or what Finish() will replace.
  bool IsOurs(const FileStat& file) const;
  uint64_t bytes() const { return bytes_; }

 private:
  Output() = default;
  std::string path_, temp_path_, dir_;
  std::unique_ptr<WritableFile> file_;
  std::vector<FileStat> ours_;
  uint64_t bytes_ = 0;
};

// A line on stderr that is drawn again and again, on a terminal, unless --quiet. One thread at a
// time.
class Progress {
 public:
  Progress(const Context& context, std::string verb);
  ~Progress() { Clear(); }

  // `done` of `total` units, called `unit`; bytes may be 0 of 0.
  void Update(uint64_t done, uint64_t total, std::string_view unit, uint64_t bytes_done = 0,
              uint64_t bytes_total = 0);
  // Takes the line away, so that something else can be printed.
  void Clear();

 private:
  const bool enabled_;
  const std::string verb_;
  const MonotonicNanos started_;
  MonotonicNanos drawn_ = 0;
  bool visible_ = false;
};

}  // namespace dagstore::cli
