#!/usr/bin/env bash
# The Rust crates as a user gets them: packed, unpacked, used by a program that has nothing but the archives, so that the
# C library is built from the sources inside and linked in.
#
# usage: rust_packed.sh <folder> <folder that holds dlpack/dlpack.h>     a skip (77) without cargo, as rust.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
skip() {
    echo "skipped: $*"
    [ -n "${DLATTN_NO_SKIP:-}" ] && exit 1 || exit 77
}

command -v cargo >/dev/null || skip "no cargo on PATH"
oldest=1.90 # the first that packs a whole workspace
found=$(cargo --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' $oldest "$found" | sort -V | head -n 1)" = $oldest ] || skip "cargo $found cannot pack a workspace"
(cd bindings/rust && { cargo fetch --locked || cargo fetch --locked --offline; }) || skip "the packages could not be fetched"

rm -rf "$1"
bindings/rust/pack.sh "$1/stage" "$2"
cd "$1"
for archive in stage/target/package/*.crate; do tar xzf "$archive"; done
mkdir -p program/src
cat >program/Cargo.toml <<'EOF'
[package]
name = "program"
version = "0.1.0"
edition = "2021"
[dependencies]
dlattn = { path = "../dlattn-0.1.0" }
ndarray = "*"
[patch.crates-io]
dlattn-sys = { path = "../dlattn-sys-0.1.0" }
EOF
{ # README.md's lines as they stand
    echo 'fn readme(q: Array4<f32>, k: Array4<f32>, v: Array4<f32>, dout: Array4<f32>) -> dlattn::Result<()> {'
    "$top"/tests/bindings/readme_block.sh rust
    echo 'assert_eq!((gradients.dq.shape(), gradients.dv.shape()), (q.shape(), v.shape())); Ok(()) }'
} >program/src/main.rs
cat >>program/src/main.rs <<'EOF'
use ndarray::Array4;

fn main() -> dlattn::Result<()> {
    let q = Array4::from_shape_fn((1, 4, 1, 4), |(_, i, _, d)| if i == d { 1f32 } else { 0.0 });
    let attention = dlattn::Attention::new(&q, &q, &q).causal();
    let forward = attention.forward()?;
    assert_eq!(forward.out[[0, 0, 0, 0]], 1.0);
    assert_eq!(attention.backward(&forward, &q)?.dq.shape(), q.shape());
    readme(q.clone(), q.clone(), q.clone(), q.clone())?;
    assert!(dlattn::explain().contains("backend: cuda"), "the CUDA backend travels in the library");
    println!("libdlattn {}", dlattn::version());
    Ok(())
}
EOF
# Without optimisation: this is about what is built and linked, and takes a fraction of the time.
cd program
unset DLATTN_LIB_DIR DLATTN_DLPACK_INCLUDE_DIR LD_LIBRARY_PATH
export DLATTN_BUILD_TYPE=Debug PKG_CONFIG_LIBDIR=/nonexistent CARGO_TARGET_DIR=$PWD/../target
cargo run --offline
if readelf -d "$CARGO_TARGET_DIR/debug/program" | grep -q 'NEEDED.*dlattn'; then
    echo "the program needs libdlattn.so; it should carry the library in itself"
    exit 1
fi
