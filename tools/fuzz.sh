#!/usr/bin/env bash
# Builds the fuzz targets with clang, libFuzzer, ASan and UBSan, and runs them one after the other.
#   tools/fuzz.sh [--seconds N] [--no-build] [TARGET...]     N seconds each (default 60); without TARGET all of them
# Prints a line for each: seconds, of which on a processor, executions, features reached. Exits 1 if one found something:
# the input is then in build-fuzz/findings/, and belongs into tests/fuzz/found/TARGET/ together with the mend.
# What it learns stays in build-fuzz/corpus/TARGET/ for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=60
build=true
targets=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --no-build) build=false; shift ;;
    -*) echo "usage: tools/fuzz.sh [--seconds N] [--no-build] [TARGET...]" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
if $build; then
  TARGETS=fuzz_targets tools/build.sh build-fuzz -DDAGSTORE_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++
fi
if [[ ${#targets[@]} -eq 0 ]]; then
  for seeds in build-fuzz/tests/fuzz/fuzz_*.seeds; do
    name=$(basename "$seeds" .seeds)
    targets+=("${name#fuzz_}")
  done
fi
mkdir -p build-fuzz/findings
# A short quarantine: what is freed while one input is looked at fits, and the limit below is for the target.
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0:quarantine_size_mb=32:malloc_context_size=10
export UBSAN_OPTIONS=print_stacktrace=1
TIMEFORMAT='%U %S'
failed=()
printf '%-14s %8s %8s %12s %10s %s\n' target seconds cpu executions features result
for target in "${targets[@]}"; do
  binary=build-fuzz/tests/fuzz/fuzz_$target
  [[ -x $binary ]] || { echo "no such target: $target" >&2; exit 2; }
  corpus=build-fuzz/corpus/$target
  mkdir -p "$corpus"
  mapfile -t seeds < <(grep . "$binary.seeds" || true)
  dict=()
  [[ -f tests/fuzz/dict/$target.dict ]] && dict=("-dict=tests/fuzz/dict/$target.dict")
  case $target in
    varint | cid | multihash | multibase | traceparent | tracestate | url | http_url) max_len=512 ;;
    top_run) max_len=16384 ;;  # a header and a directory take a page each
    *) max_len=8192 ;;
  esac
  log=build-fuzz/findings/$target.log
  result=ok
  begin=$(date +%s)
  cpu=$( { time "$binary" -max_total_time="$seconds" -max_len=$max_len -timeout=25 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/findings/$target-" "${dict[@]}" "$corpus" "${seeds[@]}" \
    >"$log" 2>&1; } 2>&1) || { result="FOUND, see $log"; failed+=("$target"); }
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  features=$(grep -o 'ft: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)
  printf '%-14s %8s %8s %12s %10s %s\n' "$target" $(($(date +%s) - begin)) \
    "$(awk '{printf "%.0f", $1 + $2}' <<<"$cpu")" "${executions:-?}" "${features:-?}" "$result"
done
[[ ${#failed[@]} -eq 0 ]]
