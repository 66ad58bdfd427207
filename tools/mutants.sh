#!/usr/bin/env bash
# Wakes the mutants of base/mutant_list.h one after the other and says what notices them: the simulator, and after how
# many seeds, or else the unit tests that the list names.
#   tools/mutants.sh [--seeds N] [NUMBER...]     at most N seeds each (default 3000); without NUMBER all mutants
# Prints a line for each and a summary; exits 1 if one survives. The table is left in build-mutants/mutants.tsv.
set -uo pipefail
cd "$(dirname "$0")/.."
seeds=3000
wanted=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --seeds) seeds=$2; shift 2 ;;
    -*) echo "usage: tools/mutants.sh [--seeds N] [NUMBER...]" >&2; exit 2 ;;
    *) wanted+=("$1"); shift ;;
  esac
done
TARGETS="dagstore_sim base_test dag_test dagstore_test index_test mount_test shard_test" \
  tools/build.sh build-mutants -DDAGSTORE_TESTS=ON -DDAGSTORE_MUTANT=runtime || exit 1
sim=build-mutants/tests/sim/dagstore_sim
binary_of() {
  case "$1" in
    'engine:'*|'store:'*|'remote store:'*|'lookups:'*|'fsck:'*|'crash:'*|'event log:'*|'channel:'*|'task queues'*) echo dagstore ;;
    'index '*|'native'*|'embedded'*|'top '*|'roots'*) echo index ;;
    'upgrader'*|'url'*) echo mount ;;
    'record'*|'shard key'*|'car reader'*) echo shard ;;
    'hamt'*|'traversal'*|'path'*) echo dag ;;
    *) echo base ;;
  esac
}

scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR=$scratch  # in memory: the tests sync a lot
trap 'rm -rf "$scratch"' EXIT
# What breaks without a mutant says nothing of any.
if ! DAGSTORE_MUTANT=0 "$sim" --seeds "1:$seeds" --twice 0 --no-shrink >"$scratch/out" 2>&1; then
  cat "$scratch/out"
  echo "the simulator finds something with no mutant awake: mend that first" >&2
  exit 1
fi
table=build-mutants/mutants.tsv
: >"$table"
caught=()
by_test=0
survivors=()
printf '%-6s %-24s %-4s %-10s %s\n' number mutant row seeds 'noticed by'
while IFS=$'\t' read -r name number row where what; do
  if [[ ${#wanted[@]} -gt 0 && ! " ${wanted[*]} " == *" $number "* ]]; then continue; fi
  export DAGSTORE_MUTANT=$number
  timeout 300 "$sim" --seeds "1:$seeds" --twice 0 --no-shrink >"$scratch/out" 2>&1
  code=$?
  taken=-
  if [[ $code -ne 0 ]]; then
    taken=$(grep -oE 'seed [0-9]+' "$scratch/out" | head -1 | cut -d' ' -f2)
    taken=${taken:-?}
    by="simulator$(grep -oE ' rule \([a-z0-9 -]+\)' "$scratch/out" | head -1)"
    [[ $code -eq 124 ]] && by="simulator (no end)"
    [[ $taken =~ ^[0-9]+$ ]] && caught+=("$taken")
  else
    binary=$(binary_of "$where")
    timeout 200 "build-mutants/tests/$binary/${binary}_test" --abort-after=1 --test-case="$where*" >"$scratch/out" 2>&1
    code=$?
    if [[ $code -ne 0 ]]; then
      by="$(grep -m1 '^TEST CASE:' "$scratch/out" | sed 's/TEST CASE: *//')"
      by=${by:-"${binary}_test ($where ends it with $code)"}
      by_test=$((by_test + 1))
    else
      by=SURVIVES
      survivors+=("$number")
    fi
  fi
  unset DAGSTORE_MUTANT
  printf '%-6s %-24s %-4s %-10s %s\n' "$number" "$name" "${row/#0/-}" "$taken" "$by"
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$number" "$name" "$row" "$taken" "$by" "$what" >>"$table"
done < <(sed -nE 's/^  X\(([A-Za-z0-9]+), ([0-9]+), ([0-9]+), "([^"]*)", "(.*)"\)( \\)?$/\1\t\2\t\3\t\4\t\5/p' base/mutant_list.h)

mapfile -t sorted < <(printf '%s\n' "${caught[@]}" | sort -n)
total=$(wc -l <"$table")
echo "$total mutants: ${#caught[@]} noticed by the simulator, median after ${sorted[$((${#sorted[@]} / 2))]:-?} seeds," \
  "$by_test by unit tests, ${#survivors[@]} survive: ${survivors[*]:-none}"
[[ ${#survivors[@]} -eq 0 ]]
