#!/bin/sh
# Runs dlattn check on the CUDA device; ends with 77 (skipped) where there is none. Usage: check_cuda.sh COMMAND [ARGUMENT ...]
command=$1
shift
reason=$("$command" check --device cuda --jobs 0 one_element 2>&1 >/dev/null) || case $reason in
*"no CUDA device"*)
    echo "skipped: $reason"
    exit 77
    ;;
esac
exec "$command" check --device cuda "$@"
