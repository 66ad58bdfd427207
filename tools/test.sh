#!/usr/bin/env bash
# Installs what is missing, builds, and passes every test.
#   tools/test.sh          the build that ships
#   tools/test.sh --all    also: clang's thread-safety analysis as errors, ASan with UBSan, and TSan (as CI does)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
all=false
case "${1:-}" in
  '') ;;
  --all) all=true ;;
  *) echo "usage: tools/test.sh [--all]" >&2; exit 2 ;;
esac

run() { (cd "$1" && ctest --output-on-failure -j "$(nproc)"); }
# ThreadSanitizer of g++ 12 cannot place its memory under the address randomisation of recent kernels.
run_plain() { (cd "$1" && setarch "$(uname -m)" -R ctest --output-on-failure -j "$(nproc)"); }

echo "== g++, RelWithDebInfo"
tools/build.sh build -DDAGSTORE_TESTS=ON
run build
if $all; then
  echo "== clang, -Wthread-safety -Werror"
  tools/build.sh build-clang -DDAGSTORE_TESTS=ON -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0
  echo "== g++, AddressSanitizer and UndefinedBehaviorSanitizer"
  tools/build.sh build-asan -DDAGSTORE_SANITIZE=address
  ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 run build-asan
  echo "== g++, ThreadSanitizer"
  tools/build.sh build-tsan -DDAGSTORE_SANITIZE=thread
  TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 second_deadlock_stack=1" run_plain build-tsan
fi
