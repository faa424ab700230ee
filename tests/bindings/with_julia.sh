#!/usr/bin/env bash
# Runs the julia on PATH with DLAttn of this tree on its load path: the one place that knows how. Of the tests and bench/languages.py.
#
# usage: with_julia.sh <folder for compiled packages> [<argument of julia> ...]     a JULIA_LOAD_PATH that is set stands
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
unwind=$top/.cache/julia/lib # of .ci/need_julia, for the julia of another Debian
if [ -e "$unwind" ] && [ "$(readlink -f "$(command -v julia)")" = /usr/bin/julia ]; then
    export LD_LIBRARY_PATH=$unwind${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
mkdir -p "$1"
export JULIA_DEPOT_PATH=$1:${JULIA_DEPOT_PATH:-} JULIA_LOAD_PATH=${JULIA_LOAD_PATH-$top/bindings/julia/DLAttn:@:@v#.#:@stdlib}
exec julia --startup-file=no "${@:2}"
