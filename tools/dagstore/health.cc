// `dagstore verify`, `fsck`, `rebuild`, `quarantine`: is everything still as it was added, and what
// can be done if not.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "dagstore/fsck.h"
#include "dagstore/scrub.h"
#include "tools/dagstore/cli.h"

namespace dagstore::cli {
namespace {

using Json = nlohmann::ordered_json;

struct VerifyOptions {
  std::vector<std::string> keys = {};
  bool all = false;
  bool repair = false;
  int jobs = 0;
};

// Verifies shards side by side; lines are printed as they come.
class Verifier {
 public:
  Verifier(const Context& context, const VerifyOptions& options, DagStore& store,
           std::vector<std::string> keys)
      : context_(context),
        options_(options),
        store_(store),
        keys_(std::move(keys)),
        progress_(context, "verifying") {
    for (const std::string& key : keys_) {
      if (const auto record = store_.lookup().ReadRecord(key); record.ok())
        bytes_total_ += record->source_size;
    }
  }

  int Run() {
    const size_t cores = std::max(1u, std::thread::hardware_concurrency());
    const size_t jobs = std::min(options_.jobs != 0 ? static_cast<size_t>(options_.jobs) : cores,
                                 std::max<size_t>(keys_.size(), 1));
    std::vector<std::thread> threads;
    threads.reserve(jobs);
    try {
      for (size_t i = 1; i < jobs; ++i) threads.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {
      // No thread is left: those that are there do all of it.
    }
    Work();
    for (std::thread& thread : threads) thread.join();
    const MutexLock lock(mu_);
    progress_.Clear();
    if (!context_.quiet) {
      std::string line = fmt::format("{} of {} sound", sound_, Count(keys_.size(), "shard"));
      if (bad_ != 0) line += fmt::format(", {} bad", bad_);
      if (repaired_ != 0) line += fmt::format(" ({} repaired)", repaired_);
      if (Interrupted().cancelled()) line += ", stopped";
      Complain(line);
    }
    return Interrupted().cancelled() ? Worse(code_, kExitFailed) : code_;
  }

 private:
  void Work() {
    while (!Interrupted().cancelled()) {
      const size_t next = next_.fetch_add(1);
      if (next >= keys_.size()) return;
      Verify(keys_[next]);
    }
  }

  void Verify(const std::string& key) {
    const absl::StatusOr<ShardRecord> record = store_.lookup().ReadRecord(key);
    const bool was_errored = record.ok() && record->state == ShardState::kErrored;
    if (was_errored && options_.repair)
      return Recover(key, ScrubReport(), record->Cause(), /*by_store=*/false);
    if (was_errored) return Unreadable(key, record->Cause());
    absl::StatusOr<Accessor> accessor = store_.AcquireShardFor(key, InterruptibleWork());
    if (IsStopped(accessor.status())) return;
    if (!accessor.ok()) return Unreadable(key, accessor.status());
    uint64_t counted = 0;
    const absl::StatusOr<ScrubReport> report =
        VerifyShard(*accessor, InterruptibleWork(), [&](uint64_t done, uint64_t) {
          const MutexLock lock(mu_);
          bytes_done_ += done - counted;
          counted = done;
          progress_.Update(done_, keys_.size(), "shards", bytes_done_, bytes_total_);
        });
    if (!report.ok()) {
      if (!absl::IsCancelled(report.status())) Unreadable(key, report.status());
      return;
    }
    if (report->sound()) {
      const MutexLock lock(mu_);
      ++sound_;
      return Print(key, "ok", *report, absl::OkStatus());
    }
    if (options_.repair && report->damage == Damage::kShard) {
      const std::optional<ScrubReport> mended = Refetch(*accessor, *report);
      if (mended.has_value()) {
        const MutexLock lock(mu_);
        ++bad_;
        ++repaired_;
        return Print(key, "repaired", *mended, report->status);
      }
      if (Interrupted().cancelled()) return;  // nobody knows yet whether it can be mended
    }
    accessor->ReportDamage(report->status, report->damage);
    accessor->Close();
    // A damaged index is built again by the store; damaged data only when asked, because the source
    // has to be mended.
    if (options_.repair || report->damage == Damage::kIndex)
      return Recover(key, *report, report->status, report->damage == Damage::kIndex);
    const MutexLock lock(mu_);
    ++bad_;
    code_ = Worse(code_, kExitFailed);
    Print(key, "bad", *report, report->status);
  }

  // Has bad parts of a partial local copy fetched again, and reads everything once more. Empty if that is not possible,
  // or did not help.
  static std::optional<ScrubReport> Refetch(const Accessor& accessor, const ScrubReport& found) {
    const uint64_t payload = accessor.index().summary().payload_offset;
    ScrubReport report = found;
    // A report names some of the bad blocks; each round mends those.
    for (uint64_t bad = UINT64_MAX; !report.sound() && !report.findings.empty() && report.bad_blocks < bad;) {
      bad = report.bad_blocks;
      for (const ScrubFinding& finding : report.findings) {
        if (!accessor.source().Forget({payload + finding.offset, kSectionBytesLimit}).ok()) return std::nullopt;
      }
      absl::StatusOr<ScrubReport> again = VerifyShard(accessor, InterruptibleWork());
      if (!again.ok()) return std::nullopt;
      report = *std::move(again);
    }
    return report.sound() ? std::optional(report) : std::nullopt;
  }

  // Ctrl-C ended it: that says nothing about the shard.
  static bool IsStopped(const absl::Status& status) {
    return Interrupted().cancelled() && absl::IsCancelled(status);
  }

  // Builds the index again, or waits for the store, which is at it already.
  void Recover(const std::string& key, const ScrubReport& report, const absl::Status& cause,
               bool by_store) {
    absl::Status status = store_.RecoverShardFor(key, InterruptibleWork());
    if (by_store && absl::IsFailedPrecondition(status))
      status = store_.AcquireShardFor(key, InterruptibleWork()).status();
    ScrubReport after = report;
    if (status.ok()) status = CheckRecovered(key, after);
    if (IsStopped(status)) return;
    const MutexLock lock(mu_);
    ++bad_;
    if (status.ok()) {
      ++repaired_;
      return Print(key, "repaired", after, cause);
    }
    code_ = Worse(code_, kExitFailed);
    Print(key, "bad", after, status);
  }

  // An index that was built without hashing the blocks, or that the CAR carries, says nothing of them: they are read
  // again. `report` is what was found before, and becomes what is wrong now.
  absl::Status CheckRecovered(const std::string& key, ScrubReport& report) {
    ASSIGN_OR_RETURN(const ShardRecord record, store_.lookup().ReadRecord(key));
    report.blocks = record.blocks;
    if (record.verified) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Accessor accessor, store_.AcquireShardFor(key, InterruptibleWork()));
    ASSIGN_OR_RETURN(ScrubReport again, VerifyShard(accessor, InterruptibleWork()));
    if (again.sound()) return absl::OkStatus();
    report = std::move(again);
    accessor.ReportDamage(report.status, report.damage);
    return report.status;
  }

  void Unreadable(const std::string& key, const absl::Status& status) {
    const MutexLock lock(mu_);
    code_ = Worse(code_, absl::IsNotFound(store_.lookup().ReadRecord(key).status()) ? kExitNotFound
                                                                                    : kExitFailed);
    ++bad_;
    Print(key, "bad", ScrubReport(), status);
  }

  void Print(const std::string& key, std::string_view verdict, const ScrubReport& report,
             const absl::Status& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ++done_;
    progress_.Clear();
    if (context_.json) {
      Json line = {{"key", key},
                   {"verdict", verdict},
                   {"blocks", report.blocks},
                   {"block_bytes", report.block_bytes},
                   {"bad_blocks", report.bad_blocks},
                   {"unverifiable_blocks", report.unverifiable_blocks}};
      if (!cause.ok()) line["cause"] = ToString(cause);
      for (const ScrubFinding& finding : report.findings) {
        line["findings"].push_back(
            {{"offset", finding.offset}, {"cid", finding.cid}, {"what", finding.what}});
      }
      PrintLine(line);
      return;
    }
    std::string line =
        fmt::format("{:<8}  {}  {}", verdict, LineText(key), Count(report.blocks, "block"));
    if (report.bad_blocks != 0) line += fmt::format(", {} bad", report.bad_blocks);
    if (report.unverifiable_blocks != 0)
      line += fmt::format(", {} of unknown hash functions", report.unverifiable_blocks);
    if (!cause.ok()) line += fmt::format("  {}", LineText(Message(cause)));
    cli::Print(line + "\n");
    for (const ScrubFinding& finding : report.findings) {
      cli::Print(fmt::format("          payload byte {}: {}: {}\n", finding.offset, finding.cid,
                             finding.what));
    }
  }

  const Context& context_;
  const VerifyOptions& options_;
  DagStore& store_;
  const std::vector<std::string> keys_;
  uint64_t bytes_total_ = 0;  // constant once Run begins
  std::atomic<size_t> next_{0};

  Mutex mu_;
  Progress progress_ ABSL_GUARDED_BY(mu_);
  uint64_t bytes_done_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t done_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t sound_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bad_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t repaired_ ABSL_GUARDED_BY(mu_) = 0;
  int code_ ABSL_GUARDED_BY(mu_) = kExitOk;
};

int RunVerify(const Context& context, const VerifyOptions& options) {
  if (options.all != options.keys.empty())
    return UsageError("verify: name shards by KEY, or all of them by --all");
  return WithStore(context, [&](DagStore& store) {
    std::vector<std::string> keys = options.keys;
    ListShardsOptions list;
    for (bool more = options.all; more;) {
      const absl::StatusOr<ShardPage> page = store.ListShards(list);
      if (!page.ok()) return Fail("verify", page.status());
      for (const ShardInfo& info : page->shards) keys.push_back(info.key.bytes());
      more = page->more && !page->shards.empty();
      if (more) list.after = keys.back();
    }
    return Verifier(context, options, store, std::move(keys)).Run();
  });
}

int RunFsck(const Context& context) {
  return WithStore(context, [&](DagStore& store) {
    Progress progress(context, "checking");
    bool lookups = false, indexes = false;
    const absl::StatusOr<FsckReport> report = CheckStore(
        store, InterruptibleWork(),
        [&](const FsckProblem& problem) {
          progress.Clear();
          lookups |= problem.part == FsckPart::kLookup;
          indexes |= problem.part == FsckPart::kIndex;
          if (context.json) {
            Json line = {{"part", FsckPartName(problem.part)},
                         {"problem", ToString(problem.status)}};
            if (!problem.key.empty()) line["key"] = problem.key.bytes();
            PrintLine(line);
          } else {
            Print(fmt::format("{:<10}  {}{}{}\n", FsckPartName(problem.part),
                              LineText(problem.key.bytes()), problem.key.empty() ? "" : "  ",
                              LineText(Message(problem.status))));
          }
        },
        [&](uint64_t done, uint64_t total) { progress.Update(done, total, "shards"); });
    progress.Clear();
    if (!report.ok()) {
      Fail("fsck", report.status());
      return int{kExitFailed};
    }
    if (context.json) {
      PrintLine({{"shards", report->shards},
                 {"errored", report->errored},
                 {"quarantined", report->quarantined},
                 {"indexes", report->indexes},
                 {"entries", report->entries},
                 {"roots", report->roots},
                 {"manifests", report->manifests},
                 {"orphans", report->orphans},
                 {"problems", report->problems}});
    } else if (!context.quiet) {
      Print(fmt::format("{}, {} entries, {}, {} checked: {}\n", Count(report->shards, "shard"),
                        report->entries, Count(report->roots, "root"),
                        Count(report->manifests, "manifest"),
                        report->problems == 0 ? "sound" : Count(report->problems, "problem")));
      if (report->errored != 0) {
        Complain(fmt::format("{} Errored: see `dagstore ls --state errored`",
                             Count(report->errored, "shard")));
      }
      if (report->orphans != 0) {
        Complain(fmt::format("{} orphaned: `dagstore gc` removes what no shard owns",
                             Count(report->orphans, "file")));
      }
      if (lookups) Complain("`dagstore rebuild` makes the lookups again");
      if (indexes)
        Complain("`dagstore verify --all` builds indexes again that are damaged or missing");
    }
    return int{report->problems == 0 ? kExitOk : kExitFailed};
  });
}

int RunRebuild(const Context& context) {
  Options options;
  options.rebuild_top_index = true;
  return WithStore(context, OpenMode::kExisting, std::move(options), [&](DagStore& store) {
    Progress progress(context, "rebuilding");
    while (true) {
      // If it is stopped here, what is missing is made when the store is opened next.
      if (Interrupted().cancelled()) {
        Complain("rebuild: stopped; the next command goes on with it");
        return int{kExitFailed};
      }
      const absl::StatusOr<StoreStats> stats = store.Stats();
      if (!stats.ok()) return Fail("rebuild", stats.status());
      progress.Update(stats->shards - std::min(stats->shards, stats->top.awaited), stats->shards,
                      "shards");
      const absl::Status ready =
          store.AwaitLookups(Deadline::After(Clock::Real(), absl::Milliseconds(100)));
      if (absl::IsDeadlineExceeded(ready)) continue;
      if (!ready.ok()) return Fail("rebuild", ready);
      break;
    }
    progress.Clear();
    const absl::StatusOr<StoreStats> stats = store.Stats();
    if (!stats.ok()) return Fail("rebuild", stats.status());
    if (context.json) {
      PrintLine({{"shards", stats->shards}, {"entries", stats->top.entries}});
    } else {
      Print(fmt::format("{}, {} entries\n", Count(stats->shards, "shard"), stats->top.entries));
    }
    return int{kExitOk};
  });
}

int RunQuarantine(const Context& context, const std::vector<std::string>& drop) {
  return WithStore(context, [&](DagStore& store) {
    if (drop.empty()) {
      const absl::StatusOr<std::vector<QuarantinedRecord>> records =
          store.ListQuarantined(SIZE_MAX);
      if (!records.ok()) return Fail("quarantine", records.status());
      for (const QuarantinedRecord& record : *records) {
        if (context.json) {
          PrintLine({{"key", record.key}, {"reason", record.reason}});
        } else {
          Print(fmt::format("{}  {}\n", LineText(record.key), LineText(record.reason)));
        }
      }
      if (records->empty() && !context.quiet) Complain("nothing is in quarantine");
      return int{kExitOk};
    }
    int code = kExitOk;
    for (const std::string& key : drop) {
      const absl::Status status = store.DropQuarantined(key);
      if (!status.ok()) {
        code = Worse(code, Fail("quarantine", status));
      } else if (context.json) {
        PrintLine({{"key", key}, {"dropped", true}});
      } else if (!context.quiet) {
        Print(fmt::format("{}  dropped\n", LineText(key)));
      }
    }
    return code;
  });
}

}  // namespace

void DefineHealthCommands(CLI::App& app, Context& context) {
  auto o = std::make_shared<VerifyOptions>();
  CLI::App* verify = app.add_subcommand(
      "verify", "Read every byte of shards again, hash every block, compare with the index");
  verify->add_option("KEY", o->keys, "Keys of shards")->type_name("");
  verify->add_flag("--all", o->all, "Every shard");
  verify->add_flag("--repair", o->repair,
                   "Recover shards that are bad: needs their source to be mended");
  verify->add_option("--jobs", o->jobs, "Shards read side by side (default: one per core)")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N");
  verify->footer(
      "A shard with bad bytes becomes Errored: its blocks are served from other shards, if they "
      "are there.\n"
      "Mend or fetch the CAR again, then `dagstore recover KEY`. Exit code 1 if any shard was "
      "bad.\n");
  verify->callback(
      [&context, o] { context.command = [&context, o] { return RunVerify(context, *o); }; });

  CLI::App* fsck = app.add_subcommand(
      "fsck", "Check the repository itself: records, indexes, lookups, roots, manifests");
  fsck->footer("Reads no CAR: that is `dagstore verify`. Exit code 1 if there is any problem.\n");
  fsck->callback([&context] { context.command = [&context] { return RunFsck(context); }; });

  CLI::App* rebuild =
      app.add_subcommand("rebuild", "Make the lookups by CID again from the indexes of the shards");
  rebuild->callback([&context] { context.command = [&context] { return RunRebuild(context); }; });

  auto drop = std::make_shared<std::vector<std::string>>();
  CLI::App* quarantine = app.add_subcommand(
      "quarantine", "List the records that could not be decoded, or give them up");
  quarantine->add_option("--drop", *drop, "Forget the records of these keys")->type_name("KEY...");
  quarantine->footer(
      "A record is set aside when the repository is opened and it is damaged, or of a newer version. "
      "It comes\nback by itself once the program can read it. While any is there, `dagstore gc` removes "
      "no index and no\ncopy: who knows what it owns. Drop it once its CAR was added again, or is not "
      "wanted any more.\n");
  quarantine->callback([&context, drop] {
    context.command = [&context, drop] { return RunQuarantine(context, *drop); };
  });
}

}  // namespace dagstore::cli
