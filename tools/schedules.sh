#!/usr/bin/env bash
# schedules.sh [COUNT] [BUILD FOLDER]: random schedules of stops, deadlines and jobs (default 1,000,000), each of which
# must give every request exactly one result. On all cores; under a minute. A seed that fails is printed:
# DAGSTORE_SCHEDULES=1 DAGSTORE_SCHEDULE_FIRST=<seed> plays it again.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-1000000}
folder=${2:-build}
cores=$(nproc)
each=$(((count + cores - 1) / cores))
pids=()
for ((i = 0; i < cores; ++i)); do
  DAGSTORE_SCHEDULES=$each DAGSTORE_SCHEDULE_FIRST=$((i * each + 1)) \
    "$folder/tests/dagstore/dagstore_test" -tc='tickets: ResultExactlyOnce*' &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
