// `dagstore rm`, `recover`, `gc`, `pin`, `unpin`: changing what is there.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kRequestsMax = 256;  // under way at a time

// Sends one request for each key, and calls `done` for each answer as it comes. False if it was
// interrupted.
bool ForEachKey(
    const Context& context, const char* verb, const std::vector<std::string>& keys, DagStore& store,
    absl::FunctionRef<absl::StatusOr<Ticket>(const ShardKey&, const Channel<ShardResult>&)> send,
    absl::FunctionRef<void(const ShardKey&, const absl::Status&)> done) {
  const Channel<ShardResult> results(kRequestsMax);
  std::unordered_map<Ticket, bool> pending;
  Progress progress(context, verb);
  uint64_t answered = 0;
  bool stopping = false;
  const auto take = [&](ShardResult result) {
    pending.erase(result.ticket);
    ++answered;
    progress.Clear();
    done(result.key, result.status);
  };
  const auto wait = [&] {
    if (Interrupted().cancelled() && !stopping) {
      stopping = true;
      for (const auto& [ticket, unused] : pending) (void)store.Stop(ticket);
    }
    progress.Update(answered, keys.size(), "shards");
    if (auto result = results.Receive(Deadline::After(Clock::Real(), absl::Milliseconds(100))))
      take(*std::move(result));
  };
  for (const std::string& key : keys) {
    while (pending.size() >= kRequestsMax) wait();
    if (Interrupted().cancelled()) break;
    const absl::StatusOr<Ticket> ticket = send(key, results);
    if (ticket.ok()) {
      pending[*ticket] = true;
    } else {
      ++answered;
      progress.Clear();
      done(key, ticket.status());
    }
  }
  while (!pending.empty()) wait();
  return !Interrupted().cancelled();
}

int RunRm(const Context& context, const std::vector<std::string>& keys) {
  return WithStore(context, [&](DagStore& store) {
    int code = kExitOk;
    const bool whole = ForEachKey(
        context, "removing", keys, store,
        [&](const ShardKey& key, const Channel<ShardResult>& out) {
          return store.DestroyShard(key, out);
        },
        [&](const ShardKey& key, const absl::Status& status) {
          if (!status.ok()) {
            code = Worse(code, Fail(fmt::format("rm {}", LineText(key.bytes())), status));
          } else if (context.json) {
            PrintLine({{"key", key.bytes()}, {"removed", true}});
          } else if (!context.quiet) {
            Print(fmt::format("{}  removed\n", LineText(key.bytes())));
          }
        });
    return whole ? code : Worse(code, kExitFailed);
  });
}

int RunRecover(const Context& context, std::vector<std::string> keys, bool errored) {
  if (errored != keys.empty())
    return UsageError("recover: name shards by KEY, or all that failed by --errored");
  return WithStore(context, [&](DagStore& store) {
    ListShardsOptions list;
    list.state = ShardState::kErrored;
    for (bool more = errored; more;) {
      const absl::StatusOr<ShardPage> page = store.ListShards(list);
      if (!page.ok()) return Fail("recover", page.status());
      for (const ShardInfo& info : page->shards) keys.push_back(info.key.bytes());
      more = page->more && !page->shards.empty();
      if (more) list.after = keys.back();
    }
    if (errored && keys.empty() && !context.quiet) Complain("no shard is Errored");
    int code = kExitOk;
    const bool whole = ForEachKey(
        context, "recovering", keys, store,
        [&](const ShardKey& key, const Channel<ShardResult>& out) {
          return store.RecoverShard(key, out);
        },
        [&](const ShardKey& key, const absl::Status& status) {
          const absl::StatusOr<ShardRecord> record = store.lookup().ReadRecord(key);
          if (!status.ok() || !record.ok()) {
            // The record has the cause alone; the line names the shard already.
            const bool kept =
                record.ok() && record->state == ShardState::kErrored && !absl::IsCancelled(status);
            const absl::Status cause = !record.ok() ? record.status()
                                       : kept       ? MakeStatus(status.code(), record->error)
                                                    : status;
            code = Worse(code, Fail(fmt::format("recover {}", LineText(key.bytes())), cause));
          } else if (context.json) {
            PrintLine({{"key", key.bytes()},
                       {"state", StateName(record->state)},
                       {"blocks", record->blocks},
                       {"bytes", record->source_size}});
          } else {
            Print(fmt::format("{}  {} {:>16} {:>10}\n", LineText(key.bytes()),
                              StateName(record->state), Count(record->blocks, "block"),
                              HumanBytes(record->source_size)));
          }
        });
    return whole ? code : Worse(code, kExitFailed);
  });
}

int RunGc(const Context& context, uint64_t target) {
  return WithStore(context, [&](DagStore& store) {
    GcOptions options;
    options.copy_bytes_target = target;
    const absl::StatusOr<GcResult> result = store.Gc(options);
    if (!result.ok()) return Fail("gc", result.status());
    if (context.json) {
      PrintLine({{"copies_removed", result->copies_removed},
                 {"bytes_removed", result->bytes_removed},
                 {"orphans_removed", result->orphans_removed}});
    } else {
      Print(fmt::format("{} local copies removed ({}), {} orphans removed\n",
                        result->copies_removed, HumanBytes(result->bytes_removed),
                        result->orphans_removed));
    }
    return int{kExitOk};
  });
}

int RunPin(const Context& context, const std::vector<std::string>& keys, bool pin, bool whole) {
  return WithStore(context, [&](DagStore& store) {
    int code = kExitOk;
    for (const std::string& key : keys) {
      if (Interrupted().cancelled()) return Worse(code, kExitFailed);
      absl::Status status = pin ? store.Pin(key) : store.Unpin(key);
      if (status.ok() && whole) status = store.FetchWhole(key, InterruptibleWork());
      if (!status.ok()) {
        code = Worse(code, Fail(fmt::format("{} {}", pin ? "pin" : "unpin", LineText(key)), status));
      } else if (context.json) {
        PrintLine({{"key", key}, {"pinned", pin}});
      } else if (!context.quiet) {
        Print(fmt::format("{}  {}\n", LineText(key), pin ? "pinned" : "unpinned"));
      }
    }
    return code;
  });
}

}  // namespace

void DefineManageCommands(CLI::App& app, Context& context) {
  auto rm_keys = std::make_shared<std::vector<std::string>>();
  CLI::App* rm = app.add_subcommand(
      "rm", "Remove shards: index, local copy, everything but the CAR file itself");
  rm->add_option("KEY", *rm_keys, "Keys of shards")->required()->type_name("");
  rm->callback([&context, rm_keys] {
    context.command = [&context, rm_keys] { return RunRm(context, *rm_keys); };
  });

  struct Recover {
    std::vector<std::string> keys = {};
    bool errored = false;
  };
  auto o = std::make_shared<Recover>();
  CLI::App* recover =
      app.add_subcommand("recover", "Try shards again that are Errored: fetch, verify and index");
  recover->add_option("KEY", o->keys, "Keys of shards")->type_name("");
  recover->add_flag("--errored", o->errored, "All shards that are Errored");
  recover->callback([&context, o] {
    context.command = [&context, o] { return RunRecover(context, o->keys, o->errored); };
  });

  struct PinOptions {
    std::vector<std::string> keys = {};
    bool whole = false;
  };
  for (const bool pinning : {true, false}) {
    auto p = std::make_shared<PinOptions>();
    CLI::App* pin = app.add_subcommand(
        pinning ? "pin" : "unpin",
        pinning ? "Keep the local copies of shards, whatever needs room"
                : "Let local copies go again when room is needed");
    pin->add_option("KEY", p->keys, "Keys of shards")->required()->type_name("");
    if (pinning) pin->add_flag("--whole", p->whole, "Fetch what is missing of the copies now");
    pin->callback([&context, p, pinning] {
      context.command = [&context, p, pinning] { return RunPin(context, p->keys, pinning, p->whole); };
    });
  }

  auto target = std::make_shared<uint64_t>(0);
  CLI::App* gc =
      app.add_subcommand("gc", "Remove local copies of remote CARs, and files that no shard owns");
  gc->add_option(
        "--target", *target,
        "Keep local copies up to so many bytes; 10GiB and the like are understood (default: 0)")

      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false).description(""))
      ->type_name("BYTES");
  gc->callback([&context, target] {
    context.command = [&context, target] { return RunGc(context, *target); };
  });
}

}  // namespace dagstore::cli
