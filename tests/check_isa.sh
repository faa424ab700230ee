#!/bin/sh
# Runs a command with DLATTN_CPU_ISA set, or exits with 77 when the processor lacks that instruction set.
#
# usage: check_isa.sh <isa> <command> ...        The kernel is asked, not the library: its detection is under test too.
set -eu
isa=$1
shift
case $isa in
    avx2) needs='avx2 fma f16c' ;;
    avx512) needs='avx512f avx512bw avx512dq avx512vl' ;;
    avx512bf16) needs='avx512f avx512bw avx512dq avx512vl avx512_bf16' ;;
    *) needs='' ;;
esac
flags=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
for need in $needs; do
    case $flags in
        *" $need "*) ;;
        *) echo "this processor has no $need"; exit 77 ;;
    esac
done
DLATTN_CPU_ISA=$isa exec "$@"
