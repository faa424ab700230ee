#!/usr/bin/env bash
# Builds and runs examples/c against an installed dlattn, found by pkg-config.
#
# usage: use_pkgconfig.sh <prefix>
set -euo pipefail
prefix=$1
build=$prefix.example-pkgconfig
pc=$(dirname "$(find "$prefix" -name dlattn.pc)")
export PKG_CONFIG_PATH=$pc
library_dir=$(pkg-config --variable=libdir dlattn)
rm -rf "$build"
cp -r examples/c "$build"
make -C "$build" CFLAGS="-std=c11 -Wall -Wextra -Werror"
LD_LIBRARY_PATH=$library_dir ldd "$build/attention" | grep -F "$prefix/"
LD_LIBRARY_PATH=$library_dir "$build/attention"
