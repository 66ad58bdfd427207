#include "dagstore/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>

#include "base/text.h"
#include "dagstore/dagstore.h"

namespace dagstore {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kMicrosPerSecond = 1e6;

// Gathers families; each is begun by one of the first three and gets its metrics by Add.
class Families {
 public:
  void Counter(const char* name, const char* help) { Begin(MetricType::Counter, name, help); }
  void Gauge(const char* name, const char* help) { Begin(MetricType::Gauge, name, help); }
  // Families of one metric without labels.
  template <typename Number>
  void Counter(const char* name, const char* help, Number value) {
    Counter(name, help);
    Add(static_cast<double>(value));
  }
  template <typename Number>
  void Gauge(const char* name, const char* help, Number value) {
    Gauge(name, help);
    Add(static_cast<double>(value));
  }
  void Histograms(const char* name, const char* help) { Begin(MetricType::Histogram, name, help); }

  void Add(double value, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    families_.back().metric.push_back(std::move(metric));
  }
  // `unit`: of the histogram's values in one of ours.
  void Add(const Histogram& histogram, double unit, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.histogram.sample_count = histogram.count;
    metric.histogram.sample_sum = static_cast<double>(histogram.sum) / unit;
    uint64_t cumulative = 0;
    for (size_t range = 0; range < Histogram::kRanges; ++range) {
      cumulative += histogram.counts[range];
      const bool last = range + 1 == Histogram::kRanges;
      metric.histogram.bucket.push_back({cumulative, last ? std::numeric_limits<double>::infinity()
                                                          : static_cast<double>(Histogram::End(range)) / unit});
    }
    families_.back().metric.push_back(std::move(metric));
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  void Begin(MetricType type, const char* name, const char* help) {
    MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = type;
    families_.push_back(std::move(family));
  }
  std::vector<MetricFamily> families_;
};

// Operations that callers ask for, and the rest.
constexpr ShardOp kAskedOps[] = {ShardOp::kRegister, ShardOp::kAcquire, ShardOp::kRecover, ShardOp::kCollect,
                                 ShardOp::kDestroy, ShardOp::kInitialize};
std::string OpLabel(ShardOp op) { return op == ShardOp::kInitialize ? "other" : LowerAscii(OpName(op)); }

void AddShards(Families& out, const StoreStats& stats) {
  out.Gauge("dagstore_shards", "Shards by state");
  for (const ShardState state : kAllShardStates) {
    out.Add(static_cast<double>(stats.engine.shards_by_state[static_cast<size_t>(state)]),
            {{"state", LowerAscii(StateName(state))}});
  }
  out.Gauge("dagstore_references", "Accessors that are out", stats.engine.references);
  out.Gauge("dagstore_open_shards", "Shards whose data and index are open", stats.engine.open_shards);
  out.Gauge("dagstore_active_shards", "Shards to which something happens or that are open", stats.engine.active_shards);
  out.Gauge("dagstore_quarantined_records", "Records that could not be decoded", stats.quarantined);
}

void AddLoop(Families& out, const EngineStats& engine) {
  out.Gauge("dagstore_queue_depth", "What waits for the loop or for a place, by queue");
  out.Add(static_cast<double>(engine.requests_waiting), {{"queue", "requests"}});
  out.Add(static_cast<double>(engine.completions_waiting), {{"queue", "completions"}});
  out.Add(static_cast<double>(engine.jobs_waiting), {{"queue", "jobs"}});
  out.Add(static_cast<double>(engine.timers), {{"queue", "timers"}});
  out.Histograms("dagstore_queue_wait_seconds", "Time of requests in the queue; of every 64th acquire, of all others");
  out.Add(engine.queue_wait, kMicrosPerSecond);
  out.Counter("dagstore_turns_total", "Turns of the loop that did something", engine.turns);
  out.Counter("dagstore_tasks_total", "Tasks run by the loop", engine.tasks);
  out.Histograms("dagstore_turn_seconds", "Time of turns");
  out.Add(engine.turn_time, kMicrosPerSecond);
  out.Gauge("dagstore_turn_seconds_max", "The longest turn since the store was opened");
  out.Add(static_cast<double>(engine.turn_nanos_max) / 1e9);
  out.Counter("dagstore_turns_over_5ms_total", "Turns that were too long", engine.turns_over_5ms);
  out.Histograms("dagstore_step_seconds", "Time of every 64th task");
  out.Add(engine.step_time, kMicrosPerSecond);
}

void AddRequests(Families& out, const EngineStats& engine) {
  out.Counter("dagstore_acquires_total", "Acquires that were asked for, by their way");
  out.Add(static_cast<double>(engine.acquires - engine.acquires_inline), {{"path", "loop"}});
  out.Add(static_cast<double>(engine.acquires_inline), {{"path", "inline"}});
  out.Counter("dagstore_answers_total", "Results of requests through the loop, by operation and code");
  for (const ShardOp op : kAskedOps) {
    for (size_t code = 0; code < kStatusCodes; ++code) {
      const uint64_t answers = engine.answers_by_code[static_cast<size_t>(op)][code];
      if (answers == 0 && code != 0) continue;  // most pairs never happen
      out.Add(static_cast<double>(answers),
              {{"op", OpLabel(op)}, {"code", LowerAscii(ErrorType(static_cast<absl::StatusCode>(code)))}});
    }
  }
  out.Histograms("dagstore_request_seconds", "Time to the answer, by operation; of every 64th acquire, of all others");
  for (const ShardOp op : kAskedOps) {
    out.Add(engine.latency[static_cast<size_t>(op)], kMicrosPerSecond, {{"op", OpLabel(op)}});
  }
  out.Counter("dagstore_stops_total", "Stops, by whether the ticket was still waiting");
  out.Add(static_cast<double>(engine.stops - engine.stops_late), {{"ticket", "waiting"}});
  out.Add(static_cast<double>(engine.stops_late), {{"ticket", "done"}});
  out.Counter("dagstore_deadlines_missed_total", "Requests that were ended by their deadline", engine.deadlines_missed);
  out.Counter("dagstore_work_abandoned_total", "Requests answered before the work they stopped had ended",
              engine.work_abandoned);
}

void AddJobs(Families& out, const EngineStats& engine) {
  constexpr const char* kOutcomes[] = {"ok", "failed", "stopped"};
  out.Gauge("dagstore_jobs_running", "Jobs with the workers, by kind");
  for (size_t kind = 0; kind < kJobKinds; ++kind) {
    out.Add(static_cast<double>(engine.jobs_running_by_kind[kind]), {{"kind", JobName(static_cast<JobKind>(kind))}});
  }
  out.Counter("dagstore_jobs_total", "Jobs that have ended, by kind and outcome");
  for (size_t kind = 0; kind < kJobKinds; ++kind) {
    for (size_t outcome = 0; outcome < std::size(kOutcomes); ++outcome) {
      out.Add(static_cast<double>(engine.jobs_done[kind][outcome]),
              {{"kind", JobName(static_cast<JobKind>(kind))}, {"outcome", kOutcomes[outcome]}});
    }
  }
  out.Histograms("dagstore_job_seconds", "Time of jobs, their wait for a worker included, by kind");
  for (size_t kind = 0; kind < kJobKinds; ++kind) {
    out.Add(engine.job_time[kind], kMicrosPerSecond, {{"kind", JobName(static_cast<JobKind>(kind))}});
  }
  out.Gauge("dagstore_stragglers", "Jobs that were told to stop and have not within stop_grace", engine.stragglers);
  out.Counter("dagstore_fills_kept_total", "Copies that went on when their last caller left", engine.fills_kept);
  out.Gauge("dagstore_fills_running", "Such copies that run", engine.fills_running);
  out.Counter("dagstore_stale_completions_total", "Results of work for shards or jobs that are no more",
              engine.stale_completions);
  out.Counter("dagstore_failures_total", "Entries of the failure log, by code");
  for (size_t code = 1; code < kStatusCodes; ++code) {
    if (engine.failures_by_code[code] == 0 && static_cast<absl::StatusCode>(code) != absl::StatusCode::kUnavailable &&
        static_cast<absl::StatusCode>(code) != absl::StatusCode::kDataLoss) {
      continue;
    }
    out.Add(static_cast<double>(engine.failures_by_code[code]),
            {{"code", LowerAscii(ErrorType(static_cast<absl::StatusCode>(code)))}});
  }
}

void AddStorage(Families& out, const StoreStats& stats) {
  const EngineStats& engine = stats.engine;
  out.Counter("dagstore_commits_total", "Batches handed to the database", engine.commits);
  out.Histograms("dagstore_commit_changes", "Changes in one batch");
  out.Add(engine.batch_changes, 1);
  out.Histograms("dagstore_commit_seconds", "Time of a synced commit, the way through the loop included");
  out.Add(engine.commit_time, kMicrosPerSecond);
  out.Counter("dagstore_syncs_total", "Synced writes of the database", stats.syncs);
  out.Gauge("dagstore_read_only", "1 after a commit has failed");
  out.Add(engine.store_error.ok() ? 0 : 1);
  out.Gauge("dagstore_database_bytes", "Size of the database", stats.database_bytes);
  out.Gauge("dagstore_top_index_entries", "Entries of the top-level index, by place; dead ones are in both");
  const uint64_t in_runs = stats.top.entries - std::min(stats.top.entries, stats.top.buffered);
  out.Add(static_cast<double>(in_runs), {{"place", "runs"}});
  out.Add(static_cast<double>(stats.top.buffered), {{"place", "memory"}});
  out.Gauge("dagstore_top_index_dead_entries", "Of dropped shards, until a merge", stats.top.dead);
  out.Gauge("dagstore_top_index_runs", "Files of the top-level index, by health");
  out.Add(static_cast<double>(stats.top.runs - std::min(stats.top.runs, stats.top.runs_damaged)), {{"health", "good"}});
  out.Add(static_cast<double>(stats.top.runs_damaged), {{"health", "damaged"}});
  out.Gauge("dagstore_top_index_bytes", "Size of the runs", stats.top.bytes);
  out.Counter("dagstore_top_index_merges_total", "Merges of runs, by outcome");
  out.Add(static_cast<double>(stats.top.merges), {{"outcome", "ok"}});
  out.Add(static_cast<double>(stats.top.merge_failures), {{"outcome", "failed"}});
  out.Gauge("dagstore_lookups_ready", "1 once lookups by CID are complete");
  out.Add(stats.lookups_ready ? 1 : 0);
}

void AddCopies(Families& out, const StoreStats& stats) {
  const CopyCacheStats& copies = stats.copies;
  out.Gauge("dagstore_copy_bytes", "Bytes of local copies, with what is reserved for those being made", copies.bytes);
  out.Gauge("dagstore_copy_bytes_peak", "The most of them since the store was opened", copies.bytes_peak);
  out.Gauge("dagstore_copy_bytes_max", "The quota of local copies", copies.bytes_max);
  out.Gauge("dagstore_copies", "Local copies, by whether they may be given up");
  out.Add(static_cast<double>(copies.copies - std::min(copies.copies, copies.pinned)), {{"pinned", "no"}});
  out.Add(static_cast<double>(copies.pinned), {{"pinned", "yes"}});
  out.Gauge("dagstore_copies_partial", "Partial copies that are open", stats.upgrader.copies_partial);
  out.Counter("dagstore_copy_evictions_total", "Copies named to be given up, by outcome");
  out.Add(static_cast<double>(copies.evictions), {{"outcome", "ok"}});
  out.Add(static_cast<double>(copies.evictions_refused), {{"outcome", "refused"}});
  out.Gauge("dagstore_copies_waiting", "Copies that wait for room", copies.waiting);
  out.Counter("dagstore_copy_room_refused_total", "Wants of room that did not fit", copies.refused);
  out.Counter("dagstore_copies_promoted_total", "Partial copies made whole because most of them was there",
              stats.upgrader.copies_promoted);
  out.Counter("dagstore_copies_resumed_total", "Partial copies gone on with after an interruption",
              stats.upgrader.copies_resumed);
  out.Counter("dagstore_copy_bytes_not_kept_total", "Bytes handed to readers without room to keep them",
              stats.upgrader.bytes_not_kept);
  out.Counter("dagstore_prefetches_total", "Requests made ahead of their readers", stats.upgrader.prefetches);
  out.Counter("dagstore_copy_granules_rotten_total", "Parts of partial copies that had rotten and were fetched again",
              stats.upgrader.granules_rotten);
}

void AddSources(Families& out, const SourceStats& sources) {
  out.Counter("dagstore_source_requests_total", "Requests to remote sources", sources.requests);
  out.Gauge("dagstore_source_requests", "Requests to remote sources that run, or wait for their turn");
  out.Add(static_cast<double>(sources.requests_running), {{"state", "running"}});
  out.Add(static_cast<double>(sources.requests_waiting), {{"state", "waiting"}});
  out.Counter("dagstore_source_retries_total", "Attempts that were repeated", sources.retries);
  out.Counter("dagstore_source_bytes_total", "Bytes received from remote sources", sources.bytes);
  out.Gauge("dagstore_source_locations_failed", "Locations that failed and have not served since",
            sources.locations_failed);
}

void AddSpans(Families& out, const SpanSinkStats& spans) {
  out.Counter("dagstore_spans_total", "Spans of sampled traces, by what became of them");
  out.Add(static_cast<double>(spans.exported), {{"result", "exported"}});
  out.Add(static_cast<double>(spans.dropped_full), {{"result", "dropped_full"}});
  out.Add(static_cast<double>(spans.dropped_failed), {{"result", "dropped_failed"}});
}

}  // namespace

std::string MetricsTextOf(const StoreStats& stats) {
  Families out;
  AddShards(out, stats);
  AddLoop(out, stats.engine);
  AddRequests(out, stats.engine);
  AddJobs(out, stats.engine);
  AddStorage(out, stats);
  AddCopies(out, stats);
  AddSources(out, stats.sources);
  AddSpans(out, stats.spans);
  return out.Text();
}

}  // namespace dagstore
