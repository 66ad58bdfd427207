// The dagstore command. What it can do is in one file for each group of commands.
#include <stdlib.h>

#include <CLI/CLI.hpp>

#include "tools/bench/bench.h"
#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

std::string DefaultRepository() {
  if (const char* repo = getenv("DAGSTORE_REPO"); repo != nullptr && *repo != '\0') return repo;
  if (const char* home = getenv("HOME"); home != nullptr && *home != '\0')
    return std::string(home) + "/.dagstore";
  return {};
}

int Main(int argc, char** argv) {
  Context context;
  if (const char* config = getenv("DAGSTORE_CONFIG"); config != nullptr) context.config = config;
  context.repo = DefaultRepository();
  CLI::App app("Many CAR files, one verified block store.", "dagstore");
  app.set_version_flag("--version", std::string("dagstore ") + DAGSTORE_VERSION);
  app.add_option("--repo", context.repo,
                 "Folder of the repository (default: $DAGSTORE_REPO, else ~/.dagstore)")
      ->type_name("DIR");
  app.add_option("--config", context.config,
                 "Configuration of mounts and limits (default: $DAGSTORE_CONFIG, else none)")
      ->type_name("FILE");
  app.add_flag("--json", context.json, "Data as JSON, one object a line");
  app.add_flag("--quiet", context.quiet,
               "No progress, no summaries, and no output of has, rm, pin, unpin and\n"
               "quarantine --drop: their exit code tells. With --json it is printed all the same");
  app.add_option("--trace", context.trace,
                 "Append the spans of the command to FILE, as OTLP in JSON (-: stderr)")
      ->type_name("FILE");
  app.add_option("--log", context.log, "Append what happens to FILE (-: stderr)")
      ->type_name("FILE");
  app.add_option("--log-level", context.log_level, "debug, info (default), warning, error")
      ->type_name("LEVEL");
  app.add_option("--cache", context.cache_bytes,
                 "Local copies of remote CARs take no more than so many bytes; 10GiB and the like are\n"
                 "understood (default: $DAGSTORE_CACHE, else no limit)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false).description(""))
      ->envname("DAGSTORE_CACHE")
      ->type_name("BYTES");
  app.require_subcommand(1);
  app.fallthrough();  // global options may stand behind the command too
  DefineAddCommand(app, context);
  DefineRepositoryCommands(app, context);
  DefineBlockCommands(app, context);
  DefineManageCommands(app, context);
  DefineHealthCommands(app, context);
  DefineCarCommands(app, context);
  CLI::App* bench =
      app.add_subcommand("bench", "Repeatable benchmarks: [NAME...] [--quick | --large] [--dir D] [--cars D]");
  bench->footer("Benchmarks (default: all):\n" + BenchList());
  bench->prefix_command()->fallthrough(false);  // its arguments are its own
  bench->callback(
      [&context, bench] { context.command = [bench] { return RunBench(bench->remaining()); }; });
  // Last, or every command would have it too.
  app.footer(
      "Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failed, 2 wrong usage,\n"
      "3 no such shard or CID. `dagstore COMMAND --help` tells more; so does `man dagstore`.\n\n"
      "First steps:\n"
      "  dagstore add folder-of-cars/        index every *.car there\n"
      "  dagstore ls                         see what came of it\n"
      "  dagstore get CID > block            a block, whichever CAR it is in\n"
      "  dagstore cat CID/path/to/file       a file, checked block by block\n");

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    if (argc == 1) {
      fmt::print(stderr, "{}", app.help());
      return kExitUsage;
    }
    const CLI::App* at = &app;
    std::string names = "dagstore";
    while (!at->get_subcommands().empty()) {
      at = at->get_subcommands().front();
      names += " " + at->get_name();
    }
    std::string what = error.what();
    if (const std::vector<std::string> rest = app.remaining(/*recurse=*/true);
        !rest.empty() && !at->get_subcommands({}).empty()) {
      what = fmt::format("no command \"{}\"", rest.front());
    }
    return UsageError(fmt::format("{} (see `{} --help`)", what, names));
  }
  SetUpProcess();
  context.name = app.get_subcommands().front()->get_name();
  const int code = context.command();
  return Worse(code, FinishOutput());
}

}  // namespace
}  // namespace dagstore::cli

int main(int argc, char** argv) { return dagstore::cli::Main(argc, argv); }
