#!/usr/bin/env bash
# build.sh FOLDER [cmake options]: configures and builds. CXX chooses the compiler, TARGETS what to build.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
export CCACHE_SLOPPINESS=pch_defines,time_macros
cmake -S . -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
# shellcheck disable=SC2086
ninja -C "$folder" ${TARGETS:-} >"$folder.log" 2>&1 || { grep -v '^\[' "$folder.log" | head -100 >&2; exit 1; }
rm -f "$folder.log"
