#!/usr/bin/env bash
# kill -9 on a real store and on the dagstore command, again and again, and a check of all that was acknowledged.
#   tools/kill_loop.sh [--cycles N] [--seed S]     default 2000 cycles, seed from the clock; the seed is printed
set -euo pipefail
cd "$(dirname "$0")/.."
cycles=2000
seed=$(date +%s)
while [[ $# -gt 0 ]]; do
  case "$1" in
    --cycles) cycles=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    *) echo "usage: tools/kill_loop.sh [--cycles N] [--seed S]" >&2; exit 2 ;;
  esac
done
TARGETS="kill_loop dagstore" tools/build.sh build -DDAGSTORE_TESTS=ON
echo "seed $seed"
build/tests/torture/kill_loop --cycles "$cycles" --seed "$seed" --command "$PWD/build/tools/dagstore"
