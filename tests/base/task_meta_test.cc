#include "base/task_meta.h"

#include <set>
#include <type_traits>

#include "tests/testing.h"

namespace dagstore {
namespace {

// An event without a meta does not compile.
static_assert(!std::is_default_constructible_v<TaskMeta>);
static_assert(sizeof(SpanContext) == 26 && std::is_trivially_copyable_v<SpanContext>);
static_assert(std::is_trivially_copyable_v<TaskMeta> && std::is_trivially_copyable_v<Deadline>);

TEST_CASE("task meta: a traceparent header round-trips") {
  const std::string header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const SpanContext span = ValueOf(SpanContext::FromTraceparent(header));
  CHECK(span.IsValid());
  CHECK(span.IsSampled());
  CHECK(span.is_remote);
  CHECK_EQ(span.ToTraceparent(), header);
}

// The cases of the trace-context recommendation's own test harness, by its names; "" = refused.
TEST_CASE("traceparent: the cases of the recommendation") {
  const std::string trace = "12345678901234567890123456789012", span = "1234567890123456";
  const std::string base = "00-" + trace + "-" + span + "-";
  const struct {
    const char* name;
    std::string header;
    std::string want;
  } kCases[] = {
      {"traceparent_included", base + "01", base + "01"},
      {"not sampled", base + "00", base + "00"},
      {"header_empty", "", ""},
      {"version_0x00", "00-" + trace + "-" + span + "-01.", ""},
      {"version_0x00 with more", base + "01-what-the-future-will-be-like", ""},
      {"version_0xcc", "cc-" + trace + "-" + span + "-01", base + "01"},
      {"version_0xcc with more", "cc-" + trace + "-" + span + "-01-what-the-future-will-be-like", base + "01"},
      {"version_0xcc with a dot", "cc-" + trace + "-" + span + "-01.what-the-future-will-be-like", ""},
      {"version_0xff", "ff-" + trace + "-" + span + "-01", ""},
      {"version_illegal_characters dot", ".0-" + trace + "-" + span + "-01", ""},
      {"version_illegal_characters second", "0.-" + trace + "-" + span + "-01", ""},
      {"version_too_long", "000-" + trace + "-" + span + "-01", ""},
      {"version_too_short", "0-" + trace + "-" + span + "-01", ""},
      {"trace_id_all_zero", "00-00000000000000000000000000000000-" + span + "-01", ""},
      {"trace_id_illegal_characters", "00-.2345678901234567890123456789012-" + span + "-01", ""},
      {"trace_id_illegal_characters last", "00-1234567890123456789012345678901.-" + span + "-01", ""},
      {"trace_id upper case", "00-1234567890123456789012345678901A-" + span + "-01", ""},
      {"trace_id_too_long", "00-1" + trace + "-" + span + "-01", ""},
      {"trace_id_too_short", "00-2345678901234567890123456789012-" + span + "-01", ""},
      {"parent_id_all_zero", "00-" + trace + "-0000000000000000-01", ""},
      {"parent_id_illegal_characters", "00-" + trace + "-.234567890123456-01", ""},
      {"parent_id_illegal_characters last", "00-" + trace + "-123456789012345.-01", ""},
      {"parent_id upper case", "00-" + trace + "-123456789012345A-01", ""},
      {"parent_id_too_long", "00-" + trace + "-1" + span + "-01", ""},
      {"parent_id_too_short", "00-" + trace + "-234567890123456-01", ""},
      {"trace_flags_illegal_characters", base + ".0", ""},
      {"trace_flags_illegal_characters second", base + "0.", ""},
      {"trace_flags upper case", base + "0A", ""},
      {"trace_flags_too_long", base + "001", ""},
      {"trace_flags_too_short", base + "1", ""},
      {"ows_handling leading", " " + base + "01", ""},  // the HTTP layer has taken blanks away
      {"ows_handling trailing", base + "01 ", ""},
      {"duplicated, joined by a comma", base + "01," + base + "01", ""},
      {"random flag kept", base + "02", base + "02"},
      {"random flag kept when sampled", base + "03", base + "03"},
      {"unknown flags dropped", base + "ff", base + "03"},
      {"unknown flags dropped, not sampled", base + "fc", base + "00"},
      {"dashes missing", std::string(55, '0'), ""},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    const absl::StatusOr<SpanContext> parsed = SpanContext::FromTraceparent(c.header);
    if (c.want.empty()) {
      CHECK_CODE(parsed, kInvalidArgument);
    } else {
      CHECK_EQ(ValueOf(parsed).ToTraceparent(), c.want);
    }
  }
}

TEST_CASE("tracestate: the cases of the recommendation") {
  const auto many = [](char c, size_t n, std::string_view rest) {
    return fmt::format("{}{}", std::string(n, c), rest);
  };
  std::string full, long_list;
  for (int i = 0; i < 32; ++i) full += fmt::format("{}k{:02}=1", i == 0 ? "" : ",", i);
  for (int i = 0; i < 33; ++i) long_list += fmt::format("{}k{:02}=1", i == 0 ? "" : ",", i);
  const std::string long_value = many('f', 3, "=") + many('1', 256, "");
  const std::string many_long = fmt::format("a={},b={},c={},d={}", many('1', 200, ""), many('2', 200, ""),
                                            many('3', 100, ""), many('4', 100, ""));
  std::string many_short;
  for (int i = 0; i < 10; ++i) many_short += fmt::format("{}k{}={}", i == 0 ? "" : ",", i, std::string(60, 'v'));
  const struct {
    const char* name;
    std::string header;
    std::string want;
  } kCases[] = {
      {"included", "foo=1,bar=2", "foo=1,bar=2"},
      {"header_empty", "", ""},
      {"multiple headers with empties", "foo=1,,bar=2,", "foo=1,bar=2"},
      {"duplicated_keys", "foo=1,foo=1", ""},
      {"duplicated_keys with other values", "foo=1,foo=2", ""},
      {"all_allowed_characters in the key", "0_-*/az=1", "0_-*/az=1"},
      {"all_allowed_characters in the value", "foo= !\"#$%&'()*+-./:;<>?@[\\]^_`{|}~",
       "foo= !\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"},
      {"ows_handling", "foo=1 \t , \t bar=2", "foo=1,bar=2"},
      {"key_illegal_characters blank", "foo =1", ""},
      {"key_illegal_characters upper case", "FOO=1", ""},
      {"key_illegal_characters dot", "foo.bar=1", ""},
      {"key_illegal_vendor_format", "foo@=1", ""},
      {"key_illegal_vendor_format at first", "@foo=1", ""},
      {"key_illegal_vendor_format twice", "foo@@bar=1", ""},
      {"key_illegal_vendor_format three", "foo@bar@baz=1", ""},
      {"vendor", "tenant@system=1", "tenant@system=1"},
      {"member_count_limit", full, full},
      {"member_count_limit passed", long_list, ""},
      {"key_length_limit", many('z', 256, "=1"), many('z', 256, "=1")},
      {"key_length_limit passed", many('z', 257, "=1"), ""},
      {"tenant too long", many('t', 242, "@v=1"), ""},
      {"system too long", "t@" + many('v', 15, "=1"), ""},
      {"value_illegal_characters equals", "foo=bar=baz", ""},
      {"value_illegal_characters none", "foo=", ""},
      {"value_illegal_characters control", "foo=a\x01", ""},
      {"no equals sign", "foo", ""},
      {"value of the longest kind", long_value, long_value},
      {"value too long", "foo=" + many('1', 257, ""), ""},
      {"above 512 characters the long entries go first", many_long,
       fmt::format("a={},c={},d={}", many('1', 200, ""), many('3', 100, ""), many('4', 100, ""))},
      {"above 512 characters the last entries go, whole", many_short, many_short.substr(0, many_short.find(",k8"))},
  };
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    CHECK_EQ(CleanTracestate(c.header), c.want);
    CHECK_LE(CleanTracestate(c.header).size(), 512);
  }
}

TEST_CASE("span ids: differ, repeat by seed, and children stay in the trace") {
  SpanIds ids(7), same(7), other(8);
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const SpanContext root = ids.Root(i % 2 == 0);
    CHECK(root == same.Root(i % 2 == 0));
    CHECK_FALSE(root == other.Root(i % 2 == 0));
    const SpanContext child = TaskMeta(root, Deadline::Infinite(), 1).Child(ids.Next()).span;
    CHECK_EQ(Load64(child.span_id.data()), same.Next());
    (void)other.Next();
    CHECK_EQ(child.trace_id, root.trace_id);
    CHECK_EQ(child.IsSampled(), root.IsSampled());
    for (const SpanContext& span : {root, child, ids.RootOf(i), root.Child(0), root.Child(1), child.Child(0)}) {
      REQUIRE(span.IsValid());
      REQUIRE(seen.insert(span.ToTraceparent()).second);
    }
  }
  CHECK(ids.RootOf(5) == same.RootOf(5));
  CHECK_FALSE(ids.RootOf(5).IsSampled());
  // What has no parent has no child either: nothing of it is recorded.
  CHECK_FALSE(TaskMeta(SpanContext(), Deadline::Infinite(), 1).Child(ids.Next()).span.IsValid());
}

TEST_CASE("trace sampler: takes the ratio it is told, and a lower ratio takes a part of a higher one") {
  using Kind = TraceSampler::Kind;
  const SpanIds ids(1);
  const TraceSampler none, off(Kind::kRatio, 0), all(Kind::kRatio, 1), low(Kind::kRatio, 0.01), high(Kind::kRatio, 0.1);
  int in_low = 0, in_high = 0;
  constexpr int kRoots = 100'000;
  for (int i = 0; i < kRoots; ++i) {
    const SpanContext root = ids.RootOf(i);
    REQUIRE_FALSE(none.Sample({}, root));
    REQUIRE_FALSE(off.Sample({}, root));
    REQUIRE(all.Sample({}, root));
    in_low += low.Sample({}, root) ? 1 : 0;
    in_high += high.Sample({}, root) ? 1 : 0;
    if (low.Sample({}, root)) REQUIRE(high.Sample({}, root));
  }
  CHECK_GT(in_low, kRoots / 120);
  CHECK_LT(in_low, kRoots / 80);
  CHECK_GT(in_high, kRoots / 11);
  CHECK_LT(in_high, kRoots / 9);
}

TEST_CASE("trace sampler: a parent decides for its children, if the sampler heeds parents") {
  using Kind = TraceSampler::Kind;
  SpanIds ids(1);
  const SpanContext sampled = ids.Root(true), not_sampled = ids.Root(false);
  CHECK(TraceSampler(Kind::kParentBased, 0).Sample(sampled, sampled.Child(0)));
  CHECK_FALSE(TraceSampler(Kind::kParentBased, 1).Sample(not_sampled, not_sampled.Child(0)));
  CHECK(TraceSampler(Kind::kParentBased, 1).Sample({}, not_sampled));
  CHECK_FALSE(TraceSampler(Kind::kRatio, 0).Sample(sampled, sampled.Child(0)));
  CHECK(TraceSampler(Kind::kRatio, 1).Sample(not_sampled, not_sampled.Child(0)));
  CHECK_FALSE(TraceSampler().Sample(sampled, sampled.Child(0)));
  // The low 56 bits in network order, as other nodes compute it.
  const SpanContext lowest =
      ValueOf(SpanContext::FromTraceparent("00-ffffffffffffffffff00000000000001-0000000000000001-00"));
  const SpanContext highest =
      ValueOf(SpanContext::FromTraceparent("00-000000000000000000ffffffffffffff-0000000000000001-00"));
  CHECK(TraceSampler(Kind::kRatio, 1e-9).Sample({}, lowest));
  CHECK_FALSE(TraceSampler(Kind::kRatio, 0.999).Sample({}, highest));
}

TEST_CASE("task meta: a child of what came over a wire is ours") {
  SpanContext remote = ValueOf(SpanContext::FromTraceparent("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"));
  REQUIRE(remote.is_remote);
  SpanIds ids(1);
  const TaskMeta child = TaskMeta(remote, Deadline::Infinite(), 1).Child(ids.Next());
  CHECK_FALSE(child.span.is_remote);
  CHECK(child.span.IsSampled());
  CHECK_EQ(child.span.trace_id, remote.trace_id);
}

TEST_CASE("task meta: a child inherits the deadline or less, detached work is linked and out of reach") {
  SpanIds ids(1);
  const TaskMeta parent(ids.Root(true), Deadline::At(1000), 7);
  const TaskMeta child = parent.Child(ids.Next(), Deadline::At(2000));
  CHECK_EQ(child.deadline.at(), 1000);
  CHECK_EQ(child.ticket, 7);
  CHECK_EQ(child.span.trace_id, parent.span.trace_id);
  CHECK_NE(child.span.span_id, parent.span.span_id);
  CHECK_EQ(parent.Child(ids.Next(), Deadline::At(500)).deadline.at(), 500);

  const TaskMeta detached = parent.Detached(ids.Root(false), Deadline::At(5000));
  CHECK_EQ(detached.ticket, 0);
  CHECK_EQ(detached.deadline.at(), 5000);
  CHECK(detached.cause == parent.span);
  CHECK_NE(detached.span.trace_id, parent.span.trace_id);
}

}  // namespace
}  // namespace dagstore
