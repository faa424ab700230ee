#!/usr/bin/env bash
# Public attention tests, pointed at dlattn. They are fetched, or given, and never a part of this tree.
#
#   run.sh fetch <folder>                   FlashAttention's tests from its source package, by pip
#   run.sh flash <folder> [pytest flags]    runs them; needs torch, einops and dlattn
#   run.sh jax <nn_test.py> [pytest flags]  the dot_product_attention tests of JAX's tests/nn_test.py; needs absl-py, scipy
#   run.sh models [family ...]              small models of transformers beside their own attention
#
# PYTHON: the interpreter; SAMPLE, SEED and COST: which cases, see pointed.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
command=${1:-} what=${2:-}
shift $(($# < 2 ? $# : 2))
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

case $command in
fetch)
    mkdir -p "$what"
    FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE "$python" -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation \
        --dest "$what" flash-attn==2.8.3
    tar -xzf "$what"/flash_attn-*.tar.gz -C "$what" --strip-components 2 --wildcards '*/tests/test_flash_attn.py' \
        '*/tests/test_rotary.py' '*/tests/test_util.py'
    # Without a GPU on the CPU; and with a dropout rate that is a multiple of 1/256, which dlattn would round 0.17 to.
    sed -i -e 's/device *= *"cuda"/device=DEVICE/' -e 's/\[0\.0, 0\.17\]/[0.0, 44 \/ 256]/' \
        -e '1i import torch; DEVICE = "cuda" if torch.cuda.is_available() else "cpu"' "$what"/test_*.py
    ;;
flash)
    "$python" -m pytest -q -p pointed -p no:cacheprovider --rootdir "$what" "$what"/test_flash_attn.py "$what"/test_rotary.py "$@"
    ;;
jax)
    POINTED=jax SAMPLE=${SAMPLE:-100} "$python" -m pytest -q -p pointed -p no:cacheprovider --rootdir "$(dirname "$what")" \
        "$what" -k DotProductAttention "$@"
    ;;
models)
    "$python" "$here/models.py" ${what:+"$what"} "$@"
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
