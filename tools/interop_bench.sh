#!/usr/bin/env bash
# interop_bench.sh [FOLDER]: the same work on the same CARs by dagstore and by the Go original (dagstore v0.7.0 of
# filecoin-project, with go-car v2, as Go modules). Needs go, and a build in build/. Samples are written into FOLDER
# (default: a temporary one) unless it holds CARs. Not part of tools/test.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
command -v go >/dev/null || { echo "interop_bench.sh: needs go on the PATH" >&2; exit 1; }
[ -x "$root/build/tools/dagstore" ] || { echo "interop_bench.sh: build first: tools/build.sh build" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/dagstore-interop-XXXXXX")
trap 'rm -rf "$work"' EXIT
cars=${1:-$work/cars}
(cd "$root/tools/bench/go" && go build -o "$work/go-bench" .)
echo "== dagstore"
"$root/build/tools/dagstore" bench folder --cars "$cars" --dir "$work"
echo "== the Go original"
"$work/go-bench" -dir "$work" "$cars"
