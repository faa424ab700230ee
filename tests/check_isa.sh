#!/bin/sh
# Runs a command with DLATTN_CPU_ISA set, or exits with 77 when the processor lacks that instruction set.
#
# usage: check_isa.sh <isa> <flag of /proc/cpuinfo> ... -- <command> ...
# The kernel is asked, not the library: the library's detection is under test too.
set -eu
isa=$1
shift
have=" $(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1) "
while [ "$1" != -- ]; do
    case $have in
        *" $1 "*) shift ;;
        *) echo "this processor has no $1"; exit 77 ;;
    esac
done
shift
DLATTN_CPU_ISA=$isa exec "$@"
