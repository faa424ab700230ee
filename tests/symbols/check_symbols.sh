#!/usr/bin/env bash
# The shared library exports exactly the functions of the header, needs only the C library, and cannot be unloaded.
#
# usage: check_symbols.sh <library> <header> <version script>
set -euo pipefail
library=$1 header=$2 map=$3
failed=0

same() { # same <what> <expected> <found>
    if ! diff <(echo "$2") <(echo "$3") >/dev/null; then
        echo "$1 differ (< expected, > found):"
        diff <(echo "$2") <(echo "$3") || true
        failed=1
    fi
}

declared=$(tr '\n' ' ' <"$header" | grep -oE 'DLATTN_API [^;(]*\(' | grep -oE 'dlattn_[a-z0-9_]+' | LC_ALL=C sort)
listed=$(grep -oE '^ +dlattn_[a-z0-9_]+;' "$map" | tr -d ' ;' | LC_ALL=C sort)
exported=$(nm --dynamic --defined-only --format=posix "$library" | awk '$2 != "A" { sub(/@.*/, "", $1); print $1 }' |
    LC_ALL=C sort)
[ "$(wc -l <<<"$declared")" -ge 20 ] || { echo "$header: no functions recognised"; failed=1; }
same "functions of $header and $map" "$declared" "$listed"
same "functions of $header and exports of $library" "$declared" "$exported"

dynamic=$(readelf --dynamic --wide "$library")
abi=$(sed -n 's/^#define DLATTN_ABI_VERSION //p' "$header")
same "sonames" "libdlattn.so.$abi" "$(sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p' <<<"$dynamic")"
foreign=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic" |
    grep -vE '^(lib(c|m)\.so\.6|libpthread\.so\.0|libdl\.so\.2|ld-linux.*)$' || true)
[ -z "$foreign" ] || { echo "$library needs more than the C library: $foreign"; failed=1; }
grep -q NODELETE <<<"$dynamic" || { echo "$library may be unloaded: not linked with -z nodelete"; failed=1; }
grep -qE 'RPATH|RUNPATH|TEXTREL' <<<"$dynamic" && { echo "$library has a run path or text relocations"; failed=1; }
[ $failed = 0 ] && echo "$(wc -l <<<"$exported") functions exported, all of them in the header"
exit $failed
