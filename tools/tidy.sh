#!/usr/bin/env bash
# Runs clang-tidy (apt-get install clang-tidy) by .clang-tidy over what ships, or over the files named; about 20 minutes
# of a core for all. Not part of CI, which has clang's -Wthread-safety.
#   tools/tidy.sh [FILE.cc...]
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
command -v clang-tidy >/dev/null || { echo "clang-tidy is missing: apt-get install clang-tidy" >&2; exit 2; }
# Built, because the headers that it compiles beforehand are read.
tools/build.sh build-clang -DDAGSTORE_TESTS=ON -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0
files=("$@")
[[ ${#files[@]} -gt 0 ]] || mapfile -t files < <(git ls-files '*.cc' | grep -E '^(base|dag|index|shard|mount|dagstore|tools)/')
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p build-clang \
  2> >(grep -Ev '^[0-9]+ warnings? generated' >&2 || true)
echo "${#files[@]} files: nothing found"
