#!/bin/sh
# Runs a command with the CUDA device of this folder: run.sh BUILD COMMAND [ARGUMENT ...]
#
#   tests/emulated/run.sh build/release build/release/dlattn check --device cuda --brief gpu_segments
set -eu
folder=$(cd "$1" && pwd)/emulated
shift
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" DLATTN_NVRTC="$folder/libnvrtc.so.13" DLATTN_CACHE_DIR="$folder/cache"
exec "$@"
