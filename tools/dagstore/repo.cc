// `dagstore ls`, `info`, `stats`: looking.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

using Json = nlohmann::ordered_json;

struct LsOptions {
  std::string state = {};
  std::string prefix = {};
  std::string after = {};
  uint64_t limit = 0;  // 0: all
};

Json ToJson(const ShardInfo& info) {
  Json json = {{"key", info.key.bytes()},
               {"state", StateName(info.state)},
               {"url", info.url},
               {"blocks", info.blocks},
               {"block_bytes", info.block_bytes},
               {"bytes", info.source_bytes},
               {"index_bytes", info.index_bytes},
               {"copy_bytes", info.copy_bytes},
               {"copy_partial", info.copy_partial},
               {"pinned", info.pinned},
               {"inferred_index", info.inferred_index},
               {"lazy", info.lazy},
               {"verified", info.verified},
               {"unverified_blocks", info.unverified_blocks},
               {"registered", TimeText(info.registered)},
               {"indexed", TimeText(info.indexed)}};
  if (!info.error.ok()) json["error"] = ToString(info.error);
  for (const LocationInfo& location : info.locations) {
    Json line = {{"url", location.url}, {"failures", location.failures}};
    if (location.failures != 0) {
      line["last_error"] = ToString(location.last_error);
      line["next_try"] = TimeText(location.next_try);
    }
    json["locations"].push_back(std::move(line));
  }
  return json;
}

void PrintShards(const Context& context, const std::vector<ShardInfo>& shards, bool first_page) {
  if (context.json) {
    for (const ShardInfo& info : shards) PrintLine(ToJson(info));
    return;
  }
  constexpr size_t kKeyColumnMax = 60;
  size_t width = 3;
  for (const ShardInfo& info : shards)
    width = std::max(width, std::min(TextWidth(LineText(info.key.bytes())), kKeyColumnMax));
  if (first_page && StdoutIsTerminal()) {
    Print(fmt::format("{}  {:<12} {:>10} {:>10}\n", PadRight("KEY", width), "STATE", "BLOCKS",
                      "SIZE"));
  }
  for (const ShardInfo& info : shards) {
    std::string line =
        fmt::format("{}  {:<12} {:>10} {:>10}", PadRight(LineText(info.key.bytes()), width),
                    StateName(info.state), info.blocks, HumanBytes(info.source_bytes));
    if (!info.error.ok()) line += "  " + LineText(Message(info.error));
    Print(line + "\n");
  }
}

int RunLs(const Context& context, const LsOptions& options) {
  ListShardsOptions list;
  list.prefix = options.prefix;
  list.after = options.after;
  if (!options.state.empty()) {
    ShardState state;
    if (!StateFromName(options.state, state)) {
      std::string names;
      for (const ShardState known : kAllShardStates)
        names += fmt::format("{}{}", names.empty() ? "" : ", ", StateName(known));
      return UsageError(fmt::format("\"{}\" is no state: {}", options.state, names));
    }
    list.state = state;
  }
  return WithStore(context, [&](DagStore& store) {
    constexpr uint64_t kPage = 1000;
    uint64_t left = options.limit == 0 ? UINT64_MAX : options.limit;
    bool first_page = true;
    while (left != 0) {
      list.shards_max = std::min(left, kPage);
      const absl::StatusOr<ShardPage> page = store.ListShards(list);
      if (!page.ok()) return Fail("ls", page.status());
      PrintShards(context, page->shards, first_page);
      first_page = false;
      left -= page->shards.size();
      if (!page->more || page->shards.empty()) return int{kExitOk};
      list.after = page->shards.back().key.bytes();
      if (!Print("") || Interrupted().cancelled()) return int{kExitFailed};
    }
    if (!context.quiet)
      Complain(fmt::format("there are more: continue with --after '{}'", list.after));
    return int{kExitOk};
  });
}

int RunInfo(const Context& context, const std::string& key) {
  return WithStore(context, [&](DagStore& store) {
    const absl::StatusOr<ShardInfo> info = store.GetShardInfo(key);
    if (!info.ok()) return Fail("info", info.status());
    std::vector<Cid> roots;
    if (const auto index = store.GetIterableIndex(key); index.ok()) roots = (*index)->roots();
    if (context.json) {
      Json json = ToJson(*info);
      json["roots"] = Json::array();
      for (const Cid& root : roots) json["roots"].push_back(root.ToText());
      PrintLine(json);
      return int{kExitOk};
    }
    const auto row = [](std::string_view name, std::string_view value) {
      Print(fmt::format("{:<12} {}\n", name, value));
    };
    row("key", LineText(info->key.bytes()));
    row("state", StateName(info->state));
    if (!info->error.ok()) row("error", LineText(Message(info->error)));
    row("source", info->url);
    for (size_t i = 0; i < info->locations.size(); ++i) {
      const LocationInfo& location = info->locations[i];
      if (i != 0) row("also", location.url);
      if (location.failures == 0) continue;
      row("", fmt::format("failed {} in a row, again after {}: {}", Count(location.failures, "time"),
                          TimeText(location.next_try), LineText(Message(location.last_error))));
    }
    row("size", fmt::format("{} ({} bytes)", HumanBytes(info->source_bytes), info->source_bytes));
    row("blocks", fmt::format("{} ({} bytes)", info->blocks, info->block_bytes));
    constexpr size_t kRootsShown = 10;
    for (size_t i = 0; i < std::min(roots.size(), kRootsShown); ++i)
      row(i == 0 ? "roots" : "", roots[i].ToText());
    if (roots.size() > kRootsShown)
      row("", fmt::format("and {} more: --json has all", roots.size() - kRootsShown));
    row("index", fmt::format("{} bytes", info->index_bytes));
    if (info->copy_bytes != 0 || info->pinned) {
      row("local copy", fmt::format("{} bytes{}{}", info->copy_bytes, info->copy_partial ? ", of parts" : "",
                                    info->pinned ? ", pinned" : ""));
    }
    if (info->inferred_index) row("", "index as the CAR carries it, samples checked; all once the copy is whole");
    row("verified",
        !info->verified ? "no: hashed when read"
        : info->unverified_blocks != 0
            ? fmt::format("all but {} blocks of unknown hash functions", info->unverified_blocks)
            : "every block, while indexing");
    row("registered", TimeText(info->registered));
    row("indexed", TimeText(info->indexed));
    return int{kExitOk};
  });
}

int RunMetrics(const Context& context) {
  return WithStore(context, [&](DagStore& store) {
    const absl::StatusOr<std::string> text = store.MetricsText();
    if (!text.ok()) return Fail("stats", text.status());
    Print(*text);
    return int{kExitOk};
  });
}

int RunStats(const Context& context) {
  return WithStore(context, [&](DagStore& store) {
    const absl::Status ready = store.AwaitLookups();
    const absl::StatusOr<StoreStats> stats = store.Stats();
    if (!ready.ok()) return Fail("stats", ready);
    if (!stats.ok()) return Fail("stats", stats.status());
    uint64_t blocks = 0, block_bytes = 0, source_bytes = 0, index_bytes = 0, copy_bytes = 0;
    ListShardsOptions list;
    while (true) {
      const absl::StatusOr<ShardPage> page = store.ListShards(list);
      if (!page.ok()) return Fail("stats", page.status());
      for (const ShardInfo& info : page->shards) {
        blocks += info.blocks;
        block_bytes += info.block_bytes;
        source_bytes += info.source_bytes;
        index_bytes += info.index_bytes;
        copy_bytes += info.copy_bytes;
      }
      if (!page->more || page->shards.empty()) break;
      list.after = page->shards.back().key.bytes();
    }
    Json states = Json::object();
    for (const ShardState state : kAllShardStates) {
      if (const uint64_t n = stats->engine.shards_by_state[static_cast<size_t>(state)]; n != 0)
        states[std::string(StateName(state))] = n;
    }
    if (context.json) {
      PrintLine({{"shards", stats->shards},
                 {"states", states},
                 {"blocks", blocks},
                 {"block_bytes", block_bytes},
                 {"bytes", source_bytes},
                 {"index_bytes", index_bytes},
                 {"copy_bytes", copy_bytes},
                 {"lookup_entries", stats->top.entries},
                 {"lookup_dead", stats->top.dead},
                 {"lookup_runs", stats->top.runs},
                 {"lookup_bytes", stats->top.bytes},
                 {"lookup_merges", stats->top.merges},
                 {"lookup_merge_failures", stats->top.merge_failures},
                 {"copies", stats->copies.copies},
                 {"copies_pinned", stats->copies.pinned},
                 {"copies_bytes", stats->copies.bytes},
                 {"copies_bytes_max", stats->copies.bytes_max},
                 {"copies_bytes_peak", stats->copies.bytes_peak},
                 {"copies_evicted", stats->copies.evictions},
                 {"copies_refused", stats->copies.refused},
                 {"copies_partial_open", stats->upgrader.copies_partial},
                 {"copies_promoted", stats->upgrader.copies_promoted},
                 {"copies_resumed", stats->upgrader.copies_resumed},
                 {"copies_bytes_not_kept", stats->upgrader.bytes_not_kept},
                 {"source_requests", stats->sources.requests},
                 {"source_retries", stats->sources.retries},
                 {"source_bytes", stats->sources.bytes},
                 {"source_prefetches", stats->upgrader.prefetches},
                 {"copy_granules_rotten", stats->upgrader.granules_rotten},
                 {"source_locations_failed", stats->sources.locations_failed},
                 {"acquires", stats->engine.acquires},
                 {"acquires_inline", stats->engine.acquires_inline},
                 {"database_bytes", stats->database_bytes},
                 {"quarantined", stats->quarantined}});
      return int{kExitOk};
    }
    const auto row = [](std::string_view name, std::string_view value) {
      Print(fmt::format("{:<14} {}\n", name, value));
    };
    row("shards", std::to_string(stats->shards));
    for (const auto& [state, n] : states.items())
      row("  " + state, std::to_string(n.get<uint64_t>()));
    row("CAR files", fmt::format("{} ({} bytes)", HumanBytes(source_bytes), source_bytes));
    row("blocks", fmt::format("{} ({} bytes)", blocks, block_bytes));
    row("shard indexes", HumanBytes(index_bytes));
    row("lookups", fmt::format("{} entries in {} runs, {}", stats->top.entries, stats->top.runs,
                               HumanBytes(stats->top.bytes)));
    if (const uint64_t stored = stats->top.entries - stats->top.buffered; stored != 0) {
      const auto entries = static_cast<double>(stored);
      row("", fmt::format("{:.2f} bytes an entry, {:.1f} % dead, {} merges since open",
                          static_cast<double>(stats->top.bytes) / entries,
                          100 * static_cast<double>(stats->top.dead) / entries, stats->top.merges));
    }
    const CopyCacheStats& copies = stats->copies;
    row("local copies", HumanBytes(copy_bytes));
    if (copies.bytes_max != UINT64_MAX) {
      row("", fmt::format("{} of a quota of {}, {} given up since open", HumanBytes(copies.bytes),
                          HumanBytes(copies.bytes_max), copies.evictions));
    }
    if (copies.pinned != 0) row("", fmt::format("{} of {} pinned", copies.pinned, Count(copies.copies, "copy")));
    if (const SourceStats& sources = stats->sources; sources.requests != 0) {
      row("sources", fmt::format("{} since open, {} repeated, {}", Count(sources.requests, "request"),
                                 sources.retries, HumanBytes(sources.bytes)));
    }
    row("database", HumanBytes(stats->database_bytes));
    if (stats->quarantined != 0)
      row("quarantined", fmt::format("{} records: see `dagstore quarantine`", stats->quarantined));
    return int{kExitOk};
  });
}

}  // namespace

void DefineRepositoryCommands(CLI::App& app, Context& context) {
  auto ls_options = std::make_shared<LsOptions>();
  CLI::App* ls = app.add_subcommand(
      "ls", "List shards: key, state, blocks, size; the cause of those that are Errored");
  ls->add_option("--state", ls_options->state,
                 "Only shards in this state (Available, Errored, New, ...)")
      ->type_name("S");
  ls->add_option("--prefix", ls_options->prefix, "Only keys that begin with this")->type_name("P");
  ls->add_option("--limit", ls_options->limit, "At most so many (default: all)")->type_name("N");
  ls->add_option("--after", ls_options->after, "Only keys after this one: the next page")
      ->type_name("KEY");
  ls->footer("Example:\n  dagstore ls --state errored\n");
  ls->callback([&context, ls_options] {
    context.command = [&context, ls_options] { return RunLs(context, *ls_options); };
  });

  auto key = std::make_shared<std::string>();
  CLI::App* info = app.add_subcommand("info", "Everything about one shard");
  info->add_option("KEY", *key, "Key of the shard")->required()->type_name("");
  info->callback(
      [&context, key] { context.command = [&context, key] { return RunInfo(context, *key); }; });

  CLI::App* stats = app.add_subcommand("stats", "Totals of the repository");
  auto metrics = std::make_shared<bool>(false);
  stats->add_flag("--metrics", *metrics,
                  "What this process has counted since it opened the repository, for Prometheus");
  stats->callback([&context, metrics] {
    context.command = [&context, metrics] {
      return *metrics ? RunMetrics(context) : RunStats(context);
    };
  });
}

}  // namespace dagstore::cli
