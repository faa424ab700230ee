#!/usr/bin/env bash
# The tests and examples of the Rust crates against a built library.
#
# usage: rust.sh <folder of libdlattn.so> <folder for what is built> <C's example> [<folder with the emulated device>]
#
# Ends with 77, a skip, where cargo is missing or its packages cannot be had; with DLATTN_NO_SKIP set that is a failure.
set -euo pipefail
cd "$(dirname "$0")/../../bindings/rust"
skip() {
    echo "skipped: $*"
    [ -n "${DLATTN_NO_SKIP:-}" ] && exit 1 || exit 77
}

command -v cargo >/dev/null || skip "no cargo on PATH; on Debian or Ubuntu: apt-get install cargo-web, or cargo"
export DLATTN_LIB_DIR=$1 LD_LIBRARY_PATH=$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} CARGO_TARGET_DIR=$2
cargo fetch --locked || cargo fetch --locked --offline || skip "the packages of Cargo.lock could not be fetched"
cargo test --locked --offline
cargo test --locked --offline --no-default-features --test calls # without ndarray
if [ -n "${4-}" ]; then ../../tests/emulated/run.sh "$4" cargo test --locked --offline --test cuda -- --ignored; fi
diff <("$3") <(cargo run --quiet --locked --offline --example attention)
cargo run --quiet --locked --offline --example generate
