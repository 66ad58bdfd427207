#!/usr/bin/env bash
# Plays the simulator for long: seeds of both profiles, then the same seeds in builds of other compilers, whose runs must
# be the same. See docs/testing.md#simulation.
#   tools/sim.sh [SEEDS] [FIRST]       2,000,000 seeds from 1 on, a twentieth of them of the wide profile
#   tools/sim.sh --same BUILD BUILD..  only compares builds
set -euo pipefail
cd "$(dirname "$0")/.."

same() {
  local first='' hash
  for build in "$@"; do
    hash=$("$build/tests/sim/dagstore_sim" --seeds 1:300 --twice 0 | grep -o 'hash [0-9a-f]*$')
    echo "$build: $hash"
    if [[ -n $first && $hash != "$first" ]]; then
      echo "the same seeds run differently in $build" >&2
      exit 1
    fi
    first=$hash
  done
}

if [[ ${1:-} == --same ]]; then
  shift
  same "$@"
  exit
fi
seeds=${1:-2000000}
first=${2:-1}
TARGETS=dagstore_sim tools/build.sh build -DDAGSTORE_TESTS=ON
build/tests/sim/dagstore_sim --seeds "$first:$((seeds - seeds / 20))" --points
build/tests/sim/dagstore_sim --profile wide --seeds "$first:$((seeds / 20))"
builds=()
for build in build build-clang build-asan; do
  [[ -x $build/tests/sim/dagstore_sim ]] && builds+=("$build")
done
same "${builds[@]}"
