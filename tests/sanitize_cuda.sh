#!/bin/sh
# Runs compute-sanitizer's four tools over a small selection of cases that reaches every kernel file, one summary line
# per tool. Usage: sanitize_cuda.sh COMMAND [TOOL ...]
# Needs a CUDA device and compute-sanitizer. Device memory has no fences then, so that memcheck sees every byte beyond a
# tensor, and the workspace is never written by the harness, so that initcheck sees what is read before it is written.
# The tools run beside each other, each over all groups of cases at a time; DLATTN_SANITIZE_SECONDS (150) is the limit of
# each run. First an ordinary run compiles the kernels into a cache of this script's own, and shows which files it used.
set -eu
command=$1
shift
[ $# -gt 0 ] || set -- memcheck racecheck initcheck synccheck
limit=${DLATTN_SANITIZE_SECONDS:-150}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DLATTN_CACHE_DIR="$work/cache"

# Of each group: a pattern that stands for one case, and the kernels to run it with.
group_1="--variant auto head_sizes_bf16_33_31 gpu_tiles_65_127_bf16 gpu_split_few_rows_bf16 gpu_bias_dbias_bf16 gpu_packed_bf16
    paged_size_16_bf16 paged_table_wild_bf16 paged_decode_misaligned_f16"
group_2="--variant auto gpu_large_causal_d64 gpu_heads_256_256_bf16 gpu_deterministic_gqa_bf16 gpu_segments_shuffled_bf16"
group_3="--variant auto everything_together_f16 gpu_wide_bias_d200 gpu_wide_dropout gpu_misaligned_bf16 bias_broadcast_rows_dbias
    gpu_heads_112_112_bf16"
group_4="--variant auto,generic gpu_everything_bf16 packed_gaps_between_sequences tf32_odd_sizes dropout_bf16
    permuted_strides_bf16"
group_5="--variant sm90 gpu_tiles_129_191_bf16 gpu_window_d128_bf16 gpu_blocks_across_tiles_bf16 gpu_segments_causal_f16 gpu_large_mask_d128
    gpu_packed_bf16 gpu_lengths_bf16 gpu_large_rows_of_no_key_d64"
group_6="--variant sm90 gpu_bias_maps_causal_d128_bf16 gpu_bias_maps_lengths_d256_bf16 gpu_alibi_both_sides_d64_bf16 gpu_dropout_bf16
    gpu_softcap_d64_bf16 gpu_heads_of_a_group_d128_bf16 gpu_wide_packed"
groups="1 2 3 4 5 6"
unreachable="kv_append.cu rotary.cu" # no case calls them

# check GROUP [ARGUMENT ...]
check() {
    eval "words=\$group_$1"
    shift
    # shellcheck disable=SC2086 # a list of words
    "$@" "$command" check --device cuda --jobs "$jobs" --tight --brief $words
}

jobs=8
for group in $groups; do
    (
        export DLATTN_LOG=1
        check $group timeout "$limit" >"$work/plain.$group" 2>&1 || touch "$work/failed"
    ) &
done
wait
if [ -e "$work/failed" ]; then
    echo "FAILED without compute-sanitizer:"
    tail -n 30 "$work"/plain.*
    exit 1
fi
missed=
for kernel in "$(dirname "$0")"/../kernels/*.cu; do
    name=${kernel##*/}
    case " $unreachable " in *" $name "*) continue ;; esac
    grep -q "$name" "$work"/plain.* || missed="$missed $name"
done

jobs=0
for tool in "$@"; do
    for group in $groups; do
        (
            begun=$(date +%s)
            code=0
            check $group timeout "$limit" compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
                >"$work/$tool.$group" 2>&1 || code=$?
            echo "$code $(($(date +%s) - begun))" >"$work/$tool.$group.end"
        ) &
    done
done
wait

failed=0
for tool in "$@"; do
    verdict=ok seconds=0 cases=0
    for group in $groups; do
        read -r code spent <"$work/$tool.$group.end"
        [ "$spent" -le $seconds ] || seconds=$spent
        done_here=$(sed -n 's/^\([0-9]*\) cases, 0 failed.*/\1/p' "$work/$tool.$group")
        cases=$((cases + ${done_here:-0}))
        [ "$code" = 0 ] && [ -n "$done_here" ] && continue
        reason="exit code $code"
        [ "$code" != 124 ] || reason="not done after $limit s"
        [ "$verdict" != ok ] || verdict=FAILED
        verdict="$verdict, group $group: $reason"
        failed=1
        grep -E '^=========|FAIL' "$work/$tool.$group" | head -n 40
        tail -n 5 "$work/$tool.$group"
    done
    echo "compute-sanitizer $tool: $verdict, $cases cases in $seconds s"
done
if [ -n "$missed" ]; then
    echo "FAILED: no case reached$missed"
    failed=1
fi
exit $failed
