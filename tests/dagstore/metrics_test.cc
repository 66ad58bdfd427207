// Goal: the table of metrics in the manual is the one that the store gives out, and the figures in it move.
#include "dagstore/metrics.h"

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "mount/bytes_mount.h"
#include "tests/dagstore/store_testing.h"
#include "tests/testing.h"

namespace dagstore {
namespace {

// Name -> type, of the families of a text.
std::map<std::string, std::string> FamiliesOf(const std::string& text) {
  std::map<std::string, std::string> families;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    const size_t space = line.find(' ', 7);
    REQUIRE(families.emplace(line.substr(7, space - 7), line.substr(space + 1)).second);
  }
  return families;
}

// The value of one line, "name{labels}". -1 if there is none.
double ValueIn(const std::string& text, const std::string& name) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + " ")) return std::stod(line.substr(name.size() + 1));
  }
  return -1;
}

TEST_CASE("metrics: the manual names those that are given out, with their types and labels, and no others") {
  const std::string text = MetricsTextOf(StoreStats());
  std::map<std::string, std::string> documented;
  std::set<std::string> labels;
  std::ifstream manual(TestDataPath("../../docs/operations.md"));
  for (std::string line; std::getline(manual, line);) {
    if (!line.starts_with("| `dagstore_")) continue;
    std::vector<std::string> cells;
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, '|');) cells.push_back(cell);
    REQUIRE_GE(cells.size(), 5);
    const std::string name = cells[1].substr(2, cells[1].size() - 4);
    documented[name] = cells[2].substr(1, cells[2].size() - 2);
    for (size_t at = cells[3].find('`'); at != std::string::npos; at = cells[3].find('`', at + 1)) {
      const size_t end = cells[3].find('`', at + 1);
      labels.insert(name + " " + cells[3].substr(at + 1, end - at - 1));
      at = end;
    }
  }
  CHECK(documented == FamiliesOf(text));
  std::set<std::string> given;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t brace = line.find('{');
    if (line.starts_with("#") || brace == std::string::npos) continue;
    std::string name = line.substr(0, brace);
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      const std::string base = name.substr(0, name.rfind(suffix));
      if (name.ends_with(suffix) && documented.contains(base)) name = base;
    }
    for (size_t at = brace; at != std::string::npos && line[at] != '}';) {
      const size_t equals = line.find("=\"", at);
      if (equals == std::string::npos) break;
      const std::string label = line.substr(at + 1, equals - at - 1);
      if (label != "le") given.insert(name + " " + label);
      at = line.find('"', equals + 2) + 1;
    }
  }
  CHECK(given == labels);
}

TEST_CASE("metrics: count what the store does") {
  const auto store = ValueOf(DagStore::Open(StoreOptions("")));
  REQUIRE_STATUS_OK(store->RegisterShardSync(ShardKey("a"), ValueOf(NewBytesMount(MakeCar(1, 3)))));
  CHECK_FALSE(store->RegisterShardSync(ShardKey("bad"), ValueOf(NewBytesMount(Bytes{1, 2, 3}))).ok());
  for (int i = 0; i < 5; ++i) { const Accessor accessor = ValueOf(store->AcquireShardSync(ShardKey("a"))); }
  CHECK_CODE(store->AcquireShardSync(ShardKey("none")), kNotFound);
  CHECK(ValueOf(store->StopSync(4711)) == StopOutcome::kAlreadyDone);
  const Accessor held = ValueOf(store->AcquireShardSync(ShardKey("a")));
  const std::string text = ValueOf(store->MetricsText());
  CHECK_EQ(ValueIn(text, "dagstore_shards{state=\"serving\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_shards{state=\"errored\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_references"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_acquires_total{path=\"inline\"}"), 5);
  CHECK_EQ(ValueIn(text, "dagstore_answers_total{op=\"register\",code=\"ok\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_answers_total{op=\"acquire\",code=\"not_found\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_request_seconds_count{op=\"register\"}"), 2);
  CHECK_EQ(ValueIn(text, "dagstore_jobs_total{kind=\"initialize\",outcome=\"ok\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_jobs_total{kind=\"initialize\",outcome=\"failed\"}"), 1);
  CHECK_EQ(ValueIn(text, "dagstore_stops_total{ticket=\"done\"}"), 1);
  CHECK_GE(ValueIn(text, "dagstore_commits_total"), 2);
  CHECK_GE(ValueIn(text, "dagstore_turn_seconds_bucket{le=\"+Inf\"}"), 3);
  CHECK_EQ(ValueIn(text, "dagstore_read_only"), 0);
  CHECK_EQ(ValueIn(text, "dagstore_lookups_ready"), 1);
}

TEST_CASE("histogram: puts a value into the first range that ends at or above it") {
  Histogram histogram;
  for (const uint64_t value : {0, 1, 2, 4, 5, 16, 17}) histogram.Add(value);
  histogram.Add(UINT64_MAX / 2);
  CHECK_EQ(histogram.counts[0], 2);  // up to 1
  CHECK_EQ(histogram.counts[1], 2);  // up to 4
  CHECK_EQ(histogram.counts[2], 2);  // up to 16
  CHECK_EQ(histogram.counts[3], 1);
  CHECK_EQ(histogram.counts[Histogram::kRanges - 1], 1);
  CHECK_EQ(histogram.count, 8);
  histogram.AddNanos(-5);
  CHECK_EQ(histogram.counts[0], 3);
}

}  // namespace
}  // namespace dagstore
