#!/usr/bin/env bash
# Installs a build and moves the result elsewhere; nothing in it may remember where it was.
#
# usage: install_and_move.sh <cmake> <build folder> <final prefix>
set -euo pipefail
cmake=$1 build=$2 prefix=$3
rm -rf "$prefix" "$prefix.first"
"$cmake" --install "$build" --prefix "$prefix.first" >/dev/null
mv "$prefix.first" "$prefix"

if grep -rIlF -e "$prefix.first" -e "$build" "$prefix"; then
    echo "these installed files name the first prefix or the build folder"
    exit 1
fi
"$prefix/bin/dlattn" info >/dev/null
find "$prefix" -type f -o -type l | sort | sed "s|^$prefix/||"
