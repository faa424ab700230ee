#!/bin/sh
# Runs a command with DLATTN_CPU_ISA set, or exits with 77 when the processor lacks that instruction set.
#
# usage: check_isa.sh <isa> <flags of /proc/cpuinfo, separated by ;> <command> ...
# The kernel is asked, not the library: the library's detection is under test too.
set -eu
isa=$1 needs=$2
shift 2
have=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
for need in $(echo "$needs" | tr ';' ' '); do
    case $have in
        *" $need "*) ;;
        *) echo "this processor has no $need"; exit 77 ;;
    esac
done
DLATTN_CPU_ISA=$isa exec "$@"
