// Metrics: what a store counts, in the Prometheus text format. The counters are those of the loop (EngineStats) and of
// the parts that have their own; nothing is counted twice, and nothing is paid for before somebody asks.
//
// docs/operations.md#metrics is the table of names; a test holds the two together. Labels have few values: never a key.
#pragma once

#include <string>

namespace dagstore {

struct StoreStats;

// One family after the other, also those whose value is zero. Any thread.
std::string MetricsTextOf(const StoreStats& stats);

}  // namespace dagstore
