#!/bin/sh
# Runs compute-sanitizer's four tools over a small selection of cases. Usage: sanitize_cuda.sh COMMAND [TOOL ...]
# Needs a CUDA device and compute-sanitizer. Device memory has no fences then, so that memcheck sees every byte beyond a
# tensor, and the workspace is never written by the harness, so that initcheck sees what is read before it is written.
set -eu
command=$1
shift
[ $# -gt 0 ] || set -- memcheck racecheck initcheck synccheck
cases="plain_f16 plain_bf16 head_sizes_bf16_33_31 causal_bf16 causal_rows_without_keys_bf16 decode_gqa_long_keys_bf16
    bias_f32_for_bf16 bias_broadcast_batch_head_dbias mask_bf16 packed_gqa_bf16 packed_gaps_between_sequences dropout_bf16
    everything_together everything_together_f16 everything_together_bf16 everything_packed gpu_tiles_65_127_bf16
    gpu_heads_256_256_bf16 gpu_bias_dbias_bf16 gpu_split_few_rows_bf16 gpu_window_across_tiles_bf16"
failed=0
for tool in "$@"; do
    echo "== compute-sanitizer --tool $tool"
    # shellcheck disable=SC2086 # a list of words
    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
        "$command" check --device cuda --variant all --jobs 0 --tight --repeats 1 $cases || failed=1
done
exit $failed
