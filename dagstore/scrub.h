// Scrub: reads every byte of a shard again, hashes every block, and compares what is there with the
// index.
//
// Owns nothing and changes nothing: the caller decides what to report (Accessor::ReportDamage) and
// to repair. Threads: Worker thread; several shards may be verified side by side. Memory: one
// window of the CAR reader, whatever the shard's size.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "dagstore/accessor.h"

namespace dagstore {

inline constexpr size_t kScrubFindingsMax =
    16;  // described for each shard, so that a ruined one does not fill a log

struct ScrubFinding {
  uint64_t offset = 0;   // of the section in the payload
  std::string cid = {};  // as the section spells it
  std::string what = {};
};

struct ScrubReport {
  uint64_t blocks = 0;                      // sections read
  uint64_t block_bytes = 0;                 // of their data
  uint64_t bad_blocks = 0;                  // do not match their CID
  uint64_t unverifiable_blocks = 0;         // hash function unknown here: nobody vouches for them
  std::vector<ScrubFinding> findings = {};  // the first kScrubFindingsMax
  absl::Status status = absl::OkStatus();   // OK: sound. DataLoss: what is wrong first
  // What to report if it is not: kShard if the CAR itself is wrong, kIndex if the CAR is sound and
  // only the index is not.
  Damage damage = Damage::kShard;

  bool sound() const { return status.ok(); }
};

// Told between batches: bytes of the payload behind us, bytes in all.
using ScrubProgress = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

// What is wrong with the shard is in the report. An error means that it could not be found out:
// Cancelled or DeadlineExceeded from `work`, Unavailable if the source does not serve,
// ResourceExhausted at a limit of the reader.
absl::StatusOr<ScrubReport> VerifyShard(const Accessor& shard, const WorkContext& work,
                                        const ScrubProgress& progress = {});

}  // namespace dagstore
