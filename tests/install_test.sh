#!/usr/bin/env bash
# Installs the build into an empty folder, builds examples/ against it by CMake and by pkg-config, and runs both.
# Usage: install_test.sh BUILD_FOLDER SOURCE_FOLDER
set -euo pipefail
build=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >/dev/null
cmake -S "$source/examples" -B "$work/out" -G Ninja -DCMAKE_PREFIX_PATH="$work/usr" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
ninja -C "$work/out" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
hello="bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e 11"
[ "$("$work/out/embed" "$work/repo" "$source/tests/data/boxo/hello.car")" = "$hello" ]

pc=$(find "$work/usr" -name dagstore.pc)
sed -i "s|^prefix=.*|prefix=$work/usr|" "$pc"
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$pc")
# shellcheck disable=SC2046
g++ -O0 "$source/examples/embed.cc" -o "$work/embed" $(pkg-config --cflags --libs dagstore)
[ "$("$work/embed" "$work/repo" "$source/tests/data/boxo/hello.car")" = "$hello" ]
[ "$("$work/usr/bin/dagstore" --repo "$work/repo" find bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e | wc -l)" = 1 ]
echo "installed library: found by CMake and by pkg-config"
