#!/usr/bin/env bash
# Packs the Rust crates with the C sources and dlpack.h inside, as they are published.
#
# usage: pack.sh <new folder> <folder that holds dlpack/dlpack.h>     prints the paths of the two archives
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
stage=$(cd "$1" && pwd)
dlpack=$2

cd "$top"
git ls-files bindings/rust | while read -r file; do
    mkdir -p "$stage/$(dirname "${file#bindings/rust/}")"
    cp "$file" "$stage/${file#bindings/rust/}"
done
source=$stage/dlattn-sys/source
git ls-files --cached --others --exclude-standard CMakeLists.txt LICENSE cmake include kernels src | while read -r file; do
    mkdir -p "$source/$(dirname "$file")"
    cp "$file" "$source/$file"
done
mkdir "$source/dlpack"
cp "$dlpack/dlpack/dlpack.h" "$source/dlpack/"

cd "$stage"
cargo package --quiet --workspace --no-verify --allow-dirty --locked --offline --target-dir target
ls "$stage"/target/package/*.crate
