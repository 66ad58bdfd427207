// Any text as the configuration file of the command. Properties: it ends; an error is one line of plain text; limits
// that are accepted are within the bounds that the store relies on; what the caller has set stays.
#include <algorithm>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tools/dagstore/config.h"

namespace dagstore {

void FuzzOne(Span input) {
  // No variable is set, and a credentials file beside it is not there.
  const absl::StatusOr<cli::Config> config = cli::ParseConfig(
      std::string(AsText(input)), "/nonexistent/dagstore.toml", [](const char*) -> const char* { return nullptr; });
  if (!config.ok()) {
    const std::string_view message = Message(config.status());
    DAGSTORE_CHECK(message.size() <= 1024);
    DAGSTORE_CHECK(std::all_of(message.begin(), message.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
    return;
  }
  Options options;
  options.open_shards_max = 7;
  config->ApplyTo(&options);
  DAGSTORE_CHECK(options.open_shards_max == 7);
  DAGSTORE_CHECK(options.open_threads >= 1 && options.index_threads >= 0 && options.fetch_threads >= 1);
  DAGSTORE_CHECK(options.copies.low_watermark >= 0 && options.copies.low_watermark <= 1);
  DAGSTORE_CHECK(options.copies.high_watermark >= 0 && options.copies.high_watermark <= 1);
  DAGSTORE_CHECK(options.sources.attempts_max >= 1 && options.sources.backoff_min >= absl::ZeroDuration());
  DAGSTORE_CHECK(options.partial.read_timeout > absl::ZeroDuration());
  DAGSTORE_CHECK(options.car.section_bytes_max <= kSectionBytesLimit);
}

}  // namespace dagstore
