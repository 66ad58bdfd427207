// Goal: a trace tells what was done for whom, leaves the process as OTLP has it, and never stands in the store's way.
// Method: trees of spans from the engine in the test's hands; bytes decoded by protoc; collectors that misbehave.
#include <algorithm>
#include <cstdio>
#include <map>

#include "base/varint.h"
#include "dagstore/otlp.h"
#include "mount/bytes_mount.h"
#include "tests/dagstore/engine_world.h"
#include "tests/dagstore/store_testing.h"
#include "tests/fakes/fake_spans.h"
#include "tests/fakes/http_server.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

std::string Tree(EngineWorld& world) { return "\n" + SpanTree(world.spans.Take()); }

// ---- Trees ----

TEST_CASE("tracing: the spans of register") {
  EngineWorld world;
  world.traced = true;
  world.Register("k");
  world.Settle();
  world.clock.Advance(absl::Seconds(1));
  world.Finish(JobKind::kInitialize);
  world.Settle();
  const std::vector<SpanRecord> spans = world.spans.Take();
  CHECK_EQ("\n" + SpanTree(spans), R"(
dagstore.register
  shard.initialize
)");
  for (const SpanRecord& span : spans) {
    CHECK_EQ(span.end - span.start, 1'000'000'000);
    CHECK(span.status == SpanStatus::kUnset);
    CHECK_EQ(span.Text(*span.Find("dagstore.shard.key")), "k");
  }
  CHECK(spans[0].Find("dagstore.job.waiters")->number == 1);
}

TEST_CASE("tracing: the spans of an acquire that misses, of a lazy shard, and of one that hits") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.traced = true;
  world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.acquire
  shard.initialize
  shard.open
)");
  world.Acquire("k");
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.acquire
)");
}

TEST_CASE("tickets: TraceOfSharedJob") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.traced = true;
  const Ticket first = world.Acquire("k");
  world.Settle();
  world.Acquire("k");  // joins while the job runs
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  world.Stop(first);  // the initiator leaves; his span ends, the job's goes on as his child
  world.Settle();
  world.Finish(JobKind::kOpen);
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.acquire -> shard.initialize -> shard.open
dagstore.acquire [CANCELLED] (stopped)
  shard.initialize -> dagstore.acquire
  shard.open -> dagstore.acquire
)");
}

TEST_CASE("tracing: the spans of recover, and of a failure") {
  EngineWorld world;
  world.traced = true;
  world.Register("k");
  world.Settle();
  world.Finish(JobKind::kInitialize, DataLoss("no CAR"));
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.register [DATA_LOSS]
  shard.initialize [DATA_LOSS]
)");
  world.Finish(JobKind::kDiscard);
  world.Recover("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.recover
  shard.initialize
)");
}

TEST_CASE("tracing: a fill is a trace of its own, linked to the job that it was") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.traced = true;
  const Ticket leaves = world.Acquire("k");
  world.Settle();
  world.jobs.held()[0].control->progress.SetTotal(100);
  world.jobs.held()[0].control->progress.SetDone(99);
  world.Stop(leaves);
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  CHECK_EQ(Tree(world), R"(
dagstore.acquire [CANCELLED] (stopped)
  shard.initialize
shard.cache_fill -> shard.initialize
)");
}

TEST_CASE("tracing: a sampled waiter of a job that was not sampled sees it, marked as partial") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.Acquire("k");
  world.Settle();
  world.traced = true;
  world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  const std::vector<SpanRecord> spans = world.spans.Named("shard.initialize");
  REQUIRE_EQ(spans.size(), 1);
  CHECK(spans[0].Find("dagstore.trace.partial")->number == 1);
  CHECK_EQ(spans[0].links.size(), 1);
}

TEST_CASE("tracing: a job has a link to each of its waiters, up to a limit, and the rest are counted") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Settle();
  world.traced = true;
  for (int i = 0; i < 200; ++i) world.Acquire("k");
  world.Settle();
  world.Finish(JobKind::kInitialize);
  world.Settle();
  const SpanRecord span = world.spans.Named("shard.initialize").at(0);
  CHECK_EQ(span.links.size(), SpanRecord::kLinksMax - 1);  // the initiator is the parent
  CHECK_EQ(span.links_dropped, 200 - SpanRecord::kLinksMax);
  CHECK_EQ(span.Find("dagstore.job.waiters")->number, 200);
}

TEST_CASE("tracing: a deadline is an error of its span, with the reason; nothing is recorded of what is not sampled") {
  EngineWorld world;
  world.Register("k", /*lazy=*/true);
  world.Acquire("k");
  world.Settle();
  CHECK_EQ(world.spans.size(), 0);
  world.traced = true;
  world.Acquire("k", Deadline::After(world.clock, absl::Seconds(1)));
  world.Settle();
  world.clock.Advance(absl::Seconds(1));
  world.Settle();
  const SpanRecord span = world.spans.Named("dagstore.acquire").at(0);
  CHECK(span.status == SpanStatus::kError);
  CHECK_EQ(span.Text(*span.Find("error.type")), "DEADLINE_EXCEEDED");
  CHECK_EQ(span.Text(*span.Find("dagstore.stop_reason")), "deadline");
  CHECK(span.Find("dagstore.queue.wait_us") != nullptr);
}

// ---- The whole store ----

TEST_CASE("tracing: a store joins the caller's trace, and its workers tell where the time went") {
  TempDir dir;
  auto sink = std::make_shared<FakeSpanSink>();
  Options options = StoreOptions(dir.path() + "/repo");
  options.trace.sink = sink;
  const std::string file = dir.path() + "/a.car";
  WriteBytes(file, MakeCar(1, 10));
  const auto store = ValueOf(DagStore::Open(options));
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  RegisterOptions registering;
  registering.traceparent = header;
  registering.tracestate = "vendor=1, other=2";
  REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), MountOfFile(*store, file), registering));
  AcquireOptions acquiring;
  acquiring.parent = ValueOf(SpanContext::FromTraceparent(header));
  { const Accessor miss = ValueOf(store->AcquireShardSync(ShardKey("a"), acquiring)); }
  { const Accessor hit = ValueOf(store->AcquireShardSync(ShardKey("a"), acquiring)); }
  GcOptions collecting;
  collecting.traceparent = header;
  REQUIRE_STATUS_OK(store->Gc(collecting));
  const std::vector<SpanRecord> spans = sink->Take();
  CHECK_EQ("\n" + SpanTree(spans), R"(
dagstore.acquire (remote parent)
  shard.open
    shard.fetch
dagstore.acquire -> shard.open (remote parent)
dagstore.gc (remote parent)
dagstore.register (remote parent)
  shard.initialize
    shard.fetch
    shard.index
)");
  for (const SpanRecord& span : spans) {
    CHECK_EQ(ToHex(span.span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    CHECK_LE(span.start, span.end);
    if (span.name == std::string_view("dagstore.register")) CHECK_EQ(*span.tracestate, "vendor=1,other=2");
  }
  registering.traceparent = "00-xx";
  CHECK_CODE(store->RegisterShardSync(ShardKey("b"), MountOfFile(*store, file), registering), kInvalidArgument);
  acquiring.parent.flags = 0;
  { const Accessor unseen = ValueOf(store->AcquireShardSync(ShardKey("a"), acquiring)); }
  CHECK_EQ(sink->size(), 0);
  REQUIRE_STATUS_OK(store->Close());
}

TEST_CASE("tracing: of acquires without the loop the ratio is recorded, too") {
  auto sink = std::make_shared<FakeSpanSink>();
  Options options = StoreOptions("");
  options.trace.sink = sink;
  options.trace.seed = 5;
  options.trace.sampler = TraceSampler(TraceSampler::Kind::kParentBased, 0.1);
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), ValueOf(NewBytesMount(MakeCar(1, 1)))));
  { const Accessor first = ValueOf(store->AcquireShardSync(ShardKey("a"))); }
  sink->Take();
  constexpr int kAcquires = 20'000;
  for (int i = 0; i < kAcquires; ++i) { const Accessor hit = ValueOf(store->AcquireShardSync(ShardKey("a"))); }
  const std::vector<SpanRecord> spans = sink->Take();
  CHECK_GT(spans.size(), kAcquires / 13);
  CHECK_LT(spans.size(), kAcquires / 8);
  for (const SpanRecord& span : spans) {
    REQUIRE(options.trace.sampler.Sample({}, span.span));  // any other node decides alike
    REQUIRE(span.span.IsSampled());
  }
}

TEST_CASE("tracing: a store that records nothing does not keep the next one in that thread from recording") {
  const auto sink = std::make_shared<FakeSpanSink>();
  const auto store_with = [&](double ratio) {
    Options options = StoreOptions("");
    options.trace.sink = sink;
    options.trace.sampler = TraceSampler(TraceSampler::Kind::kParentBased, ratio);
    auto store = ValueOf(DagStore::Open(options));
    REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), ValueOf(NewBytesMount(MakeCar(1, 1)))));
    { const Accessor first = ValueOf(store->AcquireShardSync(ShardKey("a"))); }
    return store;
  };
  const auto silent = store_with(0), all = store_with(1);
  sink->Take();
  for (int i = 0; i < 10; ++i) {
    { const Accessor hit = ValueOf(silent->AcquireShardSync(ShardKey("a"))); }
    CHECK_EQ(sink->size(), static_cast<size_t>(i));
    { const Accessor hit = ValueOf(all->AcquireShardSync(ShardKey("a"))); }
    CHECK_EQ(sink->size(), static_cast<size_t>(i) + 1);
  }
}

// ---- The ring ----

// Holds each batch until it is told to go on.
class HeldExporter final : public SpanExporter {
 public:
  struct Shared {
    Mutex mu;
    CondVar changed;
    bool go ABSL_GUARDED_BY(mu) = false;
    size_t inside ABSL_GUARDED_BY(mu) = 0;
    std::vector<size_t> batches ABSL_GUARDED_BY(mu);
  };
  explicit HeldExporter(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  absl::StatusOr<size_t> Export(std::vector<SpanRecord> batch, const WorkContext& work) override {
    MutexLock lock(shared_->mu);
    ++shared_->inside;
    shared_->changed.NotifyAll();
    while (!shared_->go && work.Check().ok()) shared_->changed.WaitFor(shared_->mu, absl::Milliseconds(10));
    shared_->batches.push_back(batch.size());
    RETURN_IF_ERROR(work.Check());
    return batch.size();
  }

 private:
  const std::shared_ptr<Shared> shared_;
};

SpanRecord SomeSpan(const char* name = "dagstore.acquire") {
  static SpanIds ids(99);
  SpanRecord span(name, ids.Root(true), SpanContext(), 1000);
  span.end = 2000;
  return span;
}

TEST_CASE("tracer: a full ring drops and counts, and nobody waits for the exporter") {
  const auto shared = std::make_shared<HeldExporter::Shared>();
  TracerOptions options;
  options.spans_waiting_max = 8;
  options.batch_spans_max = 4;
  Tracer tracer(options, std::make_unique<HeldExporter>(shared));
  for (int i = 0; i < 4; ++i) tracer.Record(SomeSpan());
  {
    MutexLock lock(shared->mu);
    while (shared->inside == 0) shared->changed.Wait(shared->mu);
  }
  for (int i = 0; i < 11; ++i) tracer.Record(SomeSpan());
  CHECK_EQ(tracer.Stats().dropped_full, 3);
  CHECK_CODE(tracer.Flush(absl::Milliseconds(1)), kDeadlineExceeded);
  {
    MutexLock lock(shared->mu);
    shared->go = true;
    shared->changed.NotifyAll();
  }
  REQUIRE_STATUS_OK(tracer.Flush(absl::Seconds(60)));
  CHECK_EQ(tracer.Stats().recorded, 15);
  CHECK_EQ(tracer.Stats().exported, 12);
  MutexLock lock(shared->mu);
  CHECK(shared->batches == std::vector<size_t>{4, 4, 4});
}

TEST_CASE("tracer: its end exports what is left, but does not wait long for one that hangs") {
  const auto shared = std::make_shared<HeldExporter::Shared>();
  TracerOptions options;
  options.shutdown_timeout = absl::Milliseconds(20);
  {
    Tracer tracer(options, std::make_unique<HeldExporter>(shared));
    tracer.Record(SomeSpan());
  }
  MutexLock lock(shared->mu);
  CHECK_EQ(shared->batches.size(), 1);
}

TEST_CASE("span record: keeps within its limits and counts what it leaves out") {
  SpanRecord span("x", SpanIds(1).Root(true), {}, 0);
  for (size_t i = 0; i < 20; ++i) span.Add("n", static_cast<int64_t>(i));
  CHECK_EQ(span.attribute_count, SpanRecord::kAttributesMax);
  CHECK_EQ(span.attributes_dropped, 20 - SpanRecord::kAttributesMax);
  SpanRecord text("x", SpanIds(1).Root(true), {}, 0);
  text.AddText("a", std::string(200, 'a'));
  text.AddText("b", std::string(200, 'b'));
  text.AddText("c", "c");
  CHECK_EQ(text.Text(*text.Find("a")), std::string(200, 'a'));
  CHECK_EQ(text.Text(*text.Find("b")), std::string(SpanRecord::kTextBytesMax - 200, 'b'));
  CHECK_EQ(text.Text(*text.Find("c")), "");
}

TEST_CASE("span record: copied, moved and used again it says the same") {
  const SpanContext context = SpanIds(1).Root(true);
  SpanRecord span("x", context, {}, 5);
  span.AddText("a", "first");
  span.Add("n", 7);
  span.AddBool("b", true);
  span.Link(context.Child(1));
  span.Link(context.Child(2));
  span.tracestate = std::make_shared<const std::string>("vendor=1");
  const auto check = [&](const SpanRecord& other) {
    CHECK(other.span == context);
    CHECK_EQ(other.start, 5);
    REQUIRE_EQ(other.attribute_count, 3);
    CHECK_EQ(other.Text(*other.Find("a")), "first");
    CHECK_EQ(other.Find("n")->number, 7);
    CHECK_EQ(other.Find("b")->number, 1);
    REQUIRE_EQ(other.links.size(), 2);
    CHECK(other.links[1] == context.Child(2));
    CHECK_EQ(*other.tracestate, "vendor=1");
  };
  const SpanRecord copy = span;
  check(copy);
  SpanRecord used("y", context.Child(3), context, 1);
  for (int i = 0; i < 6; ++i) used.AddText("long", std::string(40, 'z'));
  used = copy;
  check(used);
  const SpanRecord& same = used;
  used = same;
  check(used);
  SpanRecord moved;
  moved = std::move(span);
  check(moved);
  const SpanRecord last(std::move(moved));
  check(last);
}

// ---- OTLP ----

std::vector<SpanRecord> TwoSpans() {
  const SpanContext parent =
      ValueOf(SpanContext::FromTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  std::vector<SpanRecord> spans;
  spans.emplace_back("dagstore.acquire", parent.Child(1), parent, 5'000);
  spans[0].end = 6'000;
  spans[0].kind = SpanKind::kServer;
  spans[0].tracestate = std::make_shared<const std::string>("vendor=1");
  spans[0].AddText("dagstore.shard.key", "k\xff\"\n\xc3\xa9");
  spans[0].Add("dagstore.job.waiters", -3);
  spans[0].AddBool("dagstore.inline", true);
  spans[0].AddText("empty", "");
  spans[0].attributes_dropped = 2;
  spans[0].Link(parent.Child(2));
  spans[0].links_dropped = 4;
  spans[0].SetStatus(Unavailable("no \"answer\""));
  spans.emplace_back("shard.open", spans[0].span.Child(0), spans[0].span, 5'500);
  spans[1].end = 5'600;
  return spans;
}

// What `protoc --decode_raw` makes of bytes.
std::string DecodeRaw(const std::string& bytes) {
  TempDir dir;
  WriteBytes(dir.path() + "/in", AsSpan(bytes));
  const std::string command = fmt::format("protoc --decode_raw < '{}/in' > '{}/out' 2>&1", dir.path(), dir.path());
  REQUIRE_EQ(std::system(command.c_str()), 0);
  return std::string(AsText(ValueOf(ReadSmallFile(Io::Posix(), dir.path() + "/out", 1 << 20))));
}

TEST_CASE("otlp: an independent decoder reads what we write") {
  TraceResource resource;
  resource.attributes.emplace_back("host.name", "h");
  const std::string bytes = EncodeOtlpProtobuf(resource, TwoSpans(), 1'000'000'000'000'000'000);
  // Fields by number, as the protocol has them; ids are compared as bytes below.
  const std::string text = DecodeRaw(bytes);
  for (const char* part : {
           "1: \"service.name\"", "1: \"host.name\"",
           "3: \"vendor=1\"",                                 // trace_state
           "5: \"dagstore.acquire\"", "5: \"shard.open\"",    // name
           "6: 2", "6: 1",                                    // kind
           "7: 0x0de0b6b3a7641388",                           // start_time_unix_nano
           "8: 0x0de0b6b3a7641770",                           // end_time_unix_nano
           "1: \"k\\\\xff\\\"\\n\\303\\251\"",                // bytes that are no UTF-8 are escaped
           "3: 18446744073709551613",                         // an int_value of -3
           "2: 1",                                            // a bool_value
           "10: 2",                                           // dropped_attributes_count
           "14: 4",                                           // dropped_links_count
           "2: \"no \\\"answer\\\"\"",                        // status.message
           "16: 0x00000301", "16: 0x00000101",                // flags: the parent came over a wire; it did not
       }) {
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
  CHECK(text.find("status.message") == std::string::npos);
  const std::string trace = "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c";
  size_t ids = 0;
  for (size_t at = bytes.find(trace); at != std::string::npos; at = bytes.find(trace, at + 1)) ++ids;
  CHECK_EQ(ids, 3);  // two spans and a link
}

TEST_CASE("otlp: JSON is as the protocol wants it") {
  const std::vector<SpanRecord> spans = TwoSpans();
  const std::string id = ToHex(spans[0].span.span_id), child = ToHex(spans[1].span.span_id);
  const std::string link = ToHex(spans[0].links[0].span_id);
  CHECK_EQ(EncodeOtlpJson(TraceResource(), spans, 1'000'000'000'000'000'000),
           R"({"resourceSpans":[{"resource":{"attributes":[{"key":"service.name",)"
           R"("value":{"stringValue":"dagstore"}}]},)"
           R"("scopeSpans":[{"scope":{"name":"dagstore"},"spans":[)"
           R"({"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":")" + id +
               R"(","traceState":"vendor=1","parentSpanId":"b7ad6b7169203331","name":"dagstore.acquire","kind":2,)"
               R"("startTimeUnixNano":"1000000000000005000","endTimeUnixNano":"1000000000000006000","attributes":[)"
               R"({"key":"dagstore.shard.key","value":{"stringValue":"k\\xff\"\u000aé"}},)"
               R"({"key":"dagstore.job.waiters","value":{"intValue":"-3"}},)"
               R"({"key":"dagstore.inline","value":{"boolValue":true}},)"
               R"({"key":"empty","value":{"stringValue":""}},)"
               R"({"key":"error.type","value":{"stringValue":"UNAVAILABLE"}}],"droppedAttributesCount":2,)"
               R"("links":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":")" + link +
               R"(","flags":257}],"droppedLinksCount":4,"status":{"message":"no \"answer\"","code":2},"flags":769},)"
               R"({"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":")" + child + R"(","parentSpanId":")" + id +
               R"(","name":"shard.open","kind":1,"startTimeUnixNano":"1000000000000005500",)"
               R"("endTimeUnixNano":"1000000000000005600","attributes":[],"flags":257}]}]}]})");
}

// A collector that answers as it is told, one answer for each request; the last again and again.
struct Answer {
  int status = 200;
  std::string headers = {};
  std::string body = {};
};
class Collector {
 public:
  explicit Collector(std::vector<Answer> answers)
      : answers_(std::move(answers)),
        server_([this](const HttpServer::Request&, HttpServer::Connection& connection) {
          const size_t at = std::min(next_.fetch_add(1), answers_.size() - 1);
          const Answer& answer = answers_[at];
          connection.Answer(answer.status, answer.headers, answer.body);
        }) {}
  HttpServer& server() { return server_; }

 private:
  const std::vector<Answer> answers_;
  std::atomic<size_t> next_{0};
  HttpServer server_;
};

std::unique_ptr<SpanExporter> ExporterTo(Collector& collector, bool json = false) {
  HttpClientOptions http;
  http.addresses = std::make_shared<AddressPolicy>(AddressPolicy::AllowingAll());
  OtlpHttpOptions options;
  options.endpoint = collector.server().Url("/v1/traces");
  options.headers = {{"x-token", "secret"}};
  options.json = json;
  options.first_pause = absl::Milliseconds(1);
  options.pause_max = absl::Milliseconds(2);
  return ValueOf(NewOtlpHttpExporter(options, ValueOf(NewHttpClient(http))));
}
WorkContext Within(absl::Duration time) {
  WorkContext work;
  work.clock = &Clock::Real();
  work.deadline = Deadline::After(Clock::Real(), time);
  return work;
}

TEST_CASE("otlp: posts batches to a collector") {
  for (const bool json : {false, true}) {
    Collector collector(std::vector<Answer>(1));
    const auto exporter = ExporterTo(collector, json);
    CHECK_EQ(ValueOf(exporter->Export(TwoSpans(), Within(absl::Seconds(30)))), 2);
    REQUIRE_EQ(collector.server().requests().size(), 1);
    const HttpServer::Request request = collector.server().requests()[0];
    CHECK_EQ(request.method, "POST");
    CHECK_EQ(request.target, "/v1/traces");
    CHECK_EQ(request.Header("content-type"), json ? "application/json" : "application/x-protobuf");
    CHECK_EQ(request.Header("x-token"), "secret");
    if (json) {
      CHECK(request.body.starts_with(R"({"resourceSpans":)"));
    } else {
      CHECK(DecodeRaw(request.body).find("5: \"shard.open\"") != std::string::npos);
    }
  }
}

TEST_CASE("otlp: only what may help is tried again") {
  const std::string partial("\x0a\x04\x08\x01\x12\x00", 6);  // partial_success { rejected_spans: 1 }
  std::string nested;  // field 1 in field 1, half a million deep
  for (int i = 0; i < 500'000; ++i) {
    std::string head = "\x0a";
    AppendVarint(head, nested.size());
    nested.append(head.rbegin(), head.rend());
  }
  std::reverse(nested.begin(), nested.end());
  const struct {
    const char* name;
    std::vector<Answer> answers;
    int delivered;  // -1: an error
    size_t requests;
  } kCases[] = {
      {"good", {{200}}, 2, 1},
      {"busy, then good", {{503}, {429}, {502}, {504}, {200}}, 2, 5},
      {"busy, and says for how long", {{503, "Retry-After: 0\r\n"}, {200}}, 2, 2},
      {"busy, until a time that has passed", {{429, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"}, {200}}, 2, 2},
      {"busy for longer than we wait", {{503, "Retry-After: 3600\r\n"}, {200}}, -1, 1},
      {"a bad request", {{400}, {200}}, -1, 1},
      {"not found", {{404}, {200}}, -1, 1},
      {"an error of the server", {{500}, {200}}, -1, 1},
      {"redirected", {{307, "Location: /elsewhere\r\n"}, {200}}, -1, 1},
      {"a part is rejected", {{200, "", partial}, {200}}, 1, 1},
      {"the answer makes no sense", {{200, "", "\xff\xff\xff"}, {200}}, 2, 1},
      {"the answer wants a deep stack", {{200, "", nested}, {200}}, 2, 1},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    Collector collector(c.answers);
    const auto exporter = ExporterTo(collector);
    const absl::StatusOr<size_t> delivered = exporter->Export(TwoSpans(), Within(absl::Seconds(30)));
    CHECK_EQ(delivered.ok() ? static_cast<int>(*delivered) : -1, c.delivered);
    CHECK_EQ(collector.server().requests().size(), c.requests);
  }
}

TEST_CASE("otlp: a collector that is not there costs the store nothing") {
  TempDir dir;
  TraceConfig config;
  config.enabled = true;
  {
    Collector gone(std::vector<Answer>(1));
    config.endpoint = gone.server().Url("/v1/traces");
  }
  config.tracer.export_timeout = absl::Milliseconds(50);
  Options options = StoreOptions(dir.path() + "/repo");
  const std::shared_ptr<Tracer> tracer = ValueOf(NewTracer(config));
  options.trace.sink = tracer;
  options.trace.sampler = TraceSampler(TraceSampler::Kind::kRatio, 1);
  const auto store = ValueOf(DagStore::Open(options));
  REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), ValueOf(NewBytesMount(MakeCar(1, 1)))));
  REQUIRE_STATUS_OK(store->Close());
  CHECK_EQ(tracer->Stats().exported, 0);
  CHECK_GT(tracer->Stats().dropped_failed, 0);
  CHECK_FALSE(tracer->Stats().last_error.ok());
  config.endpoint = "ftp://nowhere";
  CHECK_CODE(NewTracer(config), kInvalidArgument);
  config.enabled = false;
  CHECK(ValueOf(NewTracer(config)) == nullptr);
}

TEST_CASE("otlp: a file gets one request a line") {
  TempDir dir;
  const std::string path = dir.path() + "/spans";
  {
    const auto exporter = ValueOf(NewOtlpFileExporter(path, TraceResource()));
    CHECK_EQ(ValueOf(exporter->Export(TwoSpans(), {})), 2);
    CHECK_EQ(ValueOf(exporter->Export(TwoSpans(), {})), 2);
  }
  const std::string text(AsText(ValueOf(ReadSmallFile(Io::Posix(), path, 1 << 20))));
  CHECK_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  CHECK_EQ(text.substr(0, 18), "{\"resourceSpans\":[");
  CHECK_CODE(NewOtlpFileExporter(dir.path() + "/no/such", TraceResource()), kNotFound);
}

// ---- The environment ----

absl::StatusOr<TraceConfig> ConfigOf(const std::map<std::string, std::string>& variables) {
  return TraceConfig::FromEnvironment([&](const char* name) -> const char* {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  });
}

TEST_CASE("trace config: reads the environment as the specification says") {
  CHECK_FALSE(ValueOf(ConfigOf({})).enabled);
  TraceConfig config = ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"}}));
  CHECK(config.enabled);
  CHECK_EQ(config.endpoint, "http://c:4318/v1/traces");
  CHECK(config.sampler.Sample({}, SpanIds(1).Root(false)));  // parentbased_always_on
  CHECK_FALSE(config.sampler.Sample(SpanIds(1).Root(false), SpanIds(1).Root(false)));
  CHECK_EQ(config.tracer.spans_waiting_max, 2048);
  CHECK_EQ(ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/x/"}})).endpoint, "http://c/x/v1/traces");
  CHECK_EQ(ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"},
                             {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d/as-is"}})).endpoint, "http://d/as-is");
  CHECK_EQ(ValueOf(ConfigOf({{"OTEL_TRACES_EXPORTER", "otlp"}})).endpoint, "http://localhost:4318/v1/traces");
  const std::string endpoint = "http://c:4318";
  CHECK_FALSE(ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, {"OTEL_SDK_DISABLED", "TRUE"}})).enabled);
  CHECK_FALSE(ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, {"OTEL_TRACES_EXPORTER", "none"}})).enabled);

  config = ValueOf(ConfigOf({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint},
                             {"OTEL_SERVICE_NAME", "mine"},
                             {"OTEL_RESOURCE_ATTRIBUTES", "service.name=other, host.name=a%2Cb"},
                             {"OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=k%20y,x=1"},
                             {"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=2"},
                             {"OTEL_EXPORTER_OTLP_TIMEOUT", "5000"},
                             {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "6000"},
                             {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
                             {"OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"},
                             {"OTEL_TRACES_SAMPLER", "parentbased_traceidratio"},
                             {"OTEL_TRACES_SAMPLER_ARG", "0.25"},
                             {"OTEL_BSP_MAX_QUEUE_SIZE", "7"},
                             {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"},
                             {"OTEL_BSP_SCHEDULE_DELAY", "100"},
                             {"OTEL_BSP_EXPORT_TIMEOUT", "200"}}));
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  CHECK(config.resource.attributes == Pairs{{"service.name", "mine"}, {"host.name", "a,b"}});
  CHECK(config.headers == Pairs{{"api-key", "k y"}, {"x", "2"}});
  CHECK(config.request_timeout == absl::Seconds(6));
  CHECK(config.json);
  CHECK_EQ(config.ca_file, "/ca.pem");
  CHECK_EQ(config.sampler.ratio(), doctest::Approx(0.25));
  CHECK_EQ(config.tracer.spans_waiting_max, 7);
  CHECK_EQ(config.tracer.batch_spans_max, 3);
  CHECK(config.tracer.delay == absl::Milliseconds(100));
  CHECK(config.tracer.export_timeout == absl::Milliseconds(200));

  for (const char* sampler : {"always_on", "always_off", "traceidratio", "parentbased_always_on",
                              "parentbased_always_off", "parentbased_traceidratio"}) {
    CHECK_STATUS_OK(ConfigOf({{"OTEL_TRACES_SAMPLER", sampler}}));
  }
  const std::pair<const char*, const char*> kBad[] = {
      {"OTEL_TRACES_SAMPLER", "sometimes"},      {"OTEL_TRACES_SAMPLER_ARG", "1.5"},
      {"OTEL_TRACES_SAMPLER_ARG", "x"},          {"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"},
      {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},   {"OTEL_TRACES_EXPORTER", "zipkin"},
      {"OTEL_RESOURCE_ATTRIBUTES", "novalue"},   {"OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"},
      {"OTEL_BSP_MAX_QUEUE_SIZE", "0"},          {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"},
  };
  for (const auto& bad : kBad) {
    CAPTURE(bad.first);
    const absl::Status status = ConfigOf({{bad.first, bad.second}}).status();
    CHECK_CODE(status, kInvalidArgument);
    CHECK(Message(status).find(bad.first) != std::string_view::npos);
  }
}

// ---- Logs ----

TEST_CASE("log: a line carries its trace, and nobody can make two of one") {
  const SpanContext span =
      ValueOf(SpanContext::FromTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  CHECK_EQ(LogLine(span, "shard \"a\nb\" \x1b[31m failed"),
           "trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331 shard \"a\\x0ab\" \\x1b[31m failed");
  CHECK_EQ(LogLine({}, "plain"), "plain");
  CHECK_LT(LogLine({}, std::string(100'000, 'x')).size(), 5000);
}

TEST_CASE("log: failures of a store are written with the trace they belong to, from a level on") {
  TempDir dir;
  LogOptions log;
  log.file = dir.path() + "/log";
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  {
    Options options = StoreOptions(dir.path() + "/repo");
    options.log = ValueOf(NewLogSink(log));
    const auto store = ValueOf(DagStore::Open(options));
    WriteBytes(dir.path() + "/bad.car", AsSpan(std::string_view("no CAR at all")));
    RegisterOptions registering;
    registering.traceparent = header;
    const ShardKey key("bad\n");
    CHECK_FALSE(store->RegisterShardSync(key, MountOfFile(*store, dir.path() + "/bad.car"), registering).ok());
    REQUIRE_STATUS_OK(store->Close());
  }
  const std::string text(AsText(ValueOf(ReadSmallFile(Io::Posix(), log.file, 1 << 20))));
  CHECK_EQ(std::count(text.begin(), text.end(), '\n'), 1);  // "closing" is below the level
  CHECK(text.find(" warning trace_id=0af7651916cd43dd8448eb211c80319c span_id=") != std::string::npos);
  CHECK(text.find("shard \"bad\\x0a\" Initializing -> Errored") != std::string::npos);
  CHECK_CODE(NewLogSink({LogLevel::kInfo, "/proc/nothing/log"}), kUnavailable);
}

}  // namespace
}  // namespace dagstore
