#!/bin/sh
# Runs dlattn check on the CUDA device; ends with 77 (skipped) where there is none.
# Usage: check_cuda.sh COMMAND [ARGUMENT ...], or check_cuda.sh COMMAND repeats: the same bits in 50 calls of each forward
# and of each deterministic backward, with GQA, bias, dropout, lengths and keys in splits, by every kernel.
command=$1
shift
if [ "${1-}" = repeats ]; then
    shift
    set -- --variant all --repeats 50 "$@" gpu_deterministic_gqa_bf16 gpu_many_tiles_gqa_bf16 gpu_bias_dbias gpu_dropout_across_blocks \
        gpu_split_few_rows gpu_split_bias_mask gpu_split_dropout_lengths gpu_split_long_row_bf16 gpu_packed_bf16 gpu_everything_bf16 \
        gpu_large_gqa_d128 gpu_wide_bias tf32_gqa tf32_bias_dropout gqa_group_of_four everything_packed
fi
reason=$("$command" check --device cuda --jobs 0 one_element 2>&1 >/dev/null) || case $reason in
*"no CUDA device"*)
    echo "skipped: $reason"
    exit 77
    ;;
esac
exec "$command" check --device cuda "$@"
