#!/usr/bin/env bash
# Installs what is missing, builds, makes a repository of real CAR files, and shows what one does with it.
# Usage: tools/quickstart.sh [folder of CAR files]   (default: the test data)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
echo "Building (a few minutes the first time) ..." >&2
TARGETS=dagstore tools/build.sh build -DDAGSTORE_TESTS=OFF
dagstore=$PWD/build/tools/dagstore

repo=$(mktemp -d)
trap 'rm -rf "$repo"' EXIT
export DAGSTORE_REPO=$repo/repo
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

cars=("$@")
if [ ${#cars[@]} -eq 0 ]; then
  cars=(tests/data/go-car/sample-v1.car tests/data/go-car/simple-unixfs.car tests/data/go-car/sample-wrapped-v2.car
        tests/data/kubo/lotus_devnet_genesis.car tests/data/beetle/big-foo.car tests/data/web3.storage/dir.car)
fi
say "$dagstore" add "${cars[@]}"
say "$dagstore" ls
if [ $# -eq 0 ]; then
  block=bafy2bzacebohz654namrgmwjjx4qmtwgxixsd7pn4tlanyrc3g3hwj75hlxrw
  say "$dagstore" find $block
  say "$dagstore" get $block -o "$repo/block"
  cmp "$repo/block" tests/data/go-car/$block.block && echo "the block is the one its CID names: $(wc -c <"$repo/block") bytes"
  say "$dagstore" cat QmPLPpnptHc1DMhJAWNYMTqBTqqRQNy5WsY7F9pZgsBfMT/a/2/B.txt
fi
say "$dagstore" stats
