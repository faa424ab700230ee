#!/usr/bin/env bash
# The tests and examples of the Julia package against a built library.
#
# usage: julia.sh <libdlattn.so> <folder for compiled packages> <C's example> [<folder with the emulated device>]
#
# Ends with 77, a skip, where julia is missing; with DLATTN_NO_SKIP set that is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
skip() {
    echo "skipped: $*"
    [ -n "${DLATTN_NO_SKIP:-}" ] && exit 1 || exit 77
}

command -v julia >/dev/null || skip "no julia on PATH; 1.5 or later, see julialang.org"
julia() { tests/bindings/with_julia.sh "$depot" "$@"; }
depot=$2
julia -e 'f(n) = n == 0 ? error() : f(n - 1); g() = try f(3) catch; end; g()' 2>/dev/null ||
    skip "julia crashes when compiled code throws; on Debian 12 .ci/need_julia repairs that"
export DLATTN_LIBRARY=$1
export OPENBLAS_NUM_THREADS=1 # its threads and ours would wait for each other
run() { julia --threads=2 -O1 "$@"; }
run bindings/julia/DLAttn/test/runtests.jl
if [ -n "${4-}" ]; then
    DLATTN_TEST_CUDA=1 tests/emulated/run.sh "$4" tests/bindings/with_julia.sh "$depot" -O1 bindings/julia/DLAttn/test/runtests.jl cuda
fi

# As a user gets it, by Pkg in a fresh environment; without a registry, which releases with extensions would ask for them.
cat >"$2/install.jl" <<'EOF'
using Pkg
VERSION < v"1.9" || exit()
Pkg.offline(true)
Pkg.activate(mktempdir())
Pkg.develop(PackageSpec(path="bindings/julia/DLAttn"))
using DLAttn
println("DLAttn ", DLAttn.version(), " in an environment of its own")
EOF
mkdir -p "$2/registries/none"
printf '%s\n' 'name = "none"' 'uuid = "00000000-0000-0000-0000-000000000001"' 'repo = ""' '[packages]' >"$2/registries/none/Registry.toml"
JULIA_LOAD_PATH=@:@v#.#:@stdlib run "$2/install.jl"

{ tests/bindings/readme_block.sh julia && echo 'size(g.dk) == size(k) || error("README.md")'; } >"$2/readme.jl"
run "$2/readme.jl"
diff <("$3") <(run examples/julia/attention.jl)
run examples/julia/layer.jl
