#!/usr/bin/env bash
# Builds and runs examples/c against an installed dlattn, found by find_package.
#
# usage: use_cmake.sh <cmake> <prefix>
set -euo pipefail
cmake=$1 prefix=$2
build=$prefix.example-cmake
rm -rf "$build"
"$cmake" -S examples/c -B "$build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="-Wall -Wextra -Werror"
"$cmake" --build "$build"
ldd "$build/attention" | grep -F "$prefix/" # the moved copy, not some other
"$build/attention"
