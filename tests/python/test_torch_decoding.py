"""Decoding with torch: kv_append as an operator, flash_attn_with_kvcache under torch.compile, the generation example."""
import os
import subprocess
import sys
from pathlib import Path

import dlattn
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
from dlattn.flash_attn import flash_attn_with_kvcache  # noqa: E402
from dlattn.torch import kv_append, rotary  # noqa: E402
from torch_problems import DEVICES, compiled, normal  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/python/generate_torch.py"
TABLE = [[4, 0, 7, 2, 5], [1, 3, 6, 9, 8]]
PLACES = {"rows": {}, "pages": {"block_table": TABLE}, "batch index": {"cache_batch_idx": [3, 1]},
          "padding on the left": {"cache_leftpad": [5, 0]}}


def integers(values, device="cpu"):
    return torch.tensor(values, dtype=torch.int32, device=device)


def caches(where, dtype=torch.float32, device="cpu"):
    torch.manual_seed(4)
    shape = {"pages": (10, 8), "batch index": (4, 40)}.get(where, (2, 40))
    return [normal(*shape, 2, 16, dtype=dtype, device=device) for _ in range(2)]


@pytest.mark.parametrize("where", ["rows", "pages", "batch index"])
def test_opcheck(where):
    new = normal(2, 3, 2, 16, dtype=torch.float32)
    table, index = (None if PLACES[where].get(name) is None else integers(PLACES[where][name])
                    for name in ("block_table", "cache_batch_idx"))
    arguments = (new, 2 * new, *caches(where), integers([17, 30]), table, index)
    torch.library.opcheck(torch.ops.dlattn.kv_append.default, arguments)
    direct, through = caches(where), caches(where)
    dlattn.kv_append(new, 2 * new, *direct, *arguments[4:5], block_table=table, batch_index=index)
    kv_append(new, 2 * new, *through, *arguments[4:5], block_table=table, batch_index=index)
    assert all(torch.equal(*pair) for pair in zip(direct, through))
    assert not torch.equal(through[0], caches(where)[0])


def test_layouts_and_bad_input():
    new, where = normal(2, 3, 2, 16, dtype=torch.float32), integers([1, 2])
    rows, turned = caches("rows"), [x.transpose(1, 2).contiguous() for x in caches("rows")]
    kv_append(new, new, *rows, where)
    kv_append(new.transpose(1, 2), new.transpose(1, 2), *turned, where, layout="bhsd")
    assert all(torch.equal(x, y.transpose(1, 2)) for x, y in zip(rows, turned))
    for call in (lambda: kv_append(new, new, *rows, where, layout="sbhd"),
                 lambda: rotary(new, new[0, :, 0, :4], new[0, :, 0, :4], layout="sbhd")):
        with pytest.raises(dlattn.ArgumentError, match="layout"):
            call()
    with pytest.raises(dlattn.ShapeError, match="k_cache|k_new"):
        kv_append(new[:1], new[:1], *rows, where)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", PLACES)
def test_kvcache_in_one_graph(where, device):
    """The bits of the eager call, in the result and in the caches, with rotary, for lengths that change."""
    dtype, backend = (torch.float32, "aot_eager") if device == "cpu" else (torch.bfloat16, "inductor")
    q = normal(2, 2, 4, 16, dtype=dtype, device=device)
    new = normal(2, 2, 2, 16, dtype=dtype, device=device)
    angles = normal(50, 4, dtype=torch.float32, device=device)
    extra = {name: integers(value, device) for name, value in PLACES[where].items()}

    def step(q, k, v, keys, values, lengths):
        return flash_attn_with_kvcache(q, keys, values, k, v, rotary_cos=angles.cos(), rotary_sin=angles.sin(),
                                       cache_seqlens=lengths, causal=True, return_softmax_lse=True, **extra)

    one, other = caches(where, dtype, device), caches(where, dtype, device)
    whole = compiled(step, backend)
    counters = torch._dynamo.utils.counters
    counters.clear()
    for lengths in ([17, 30], [19, 32], [0, 7]):
        expected = step(q, new, 2 * new, *one, integers(lengths, device))
        found = whole(q, new, 2 * new, *other, integers(lengths, device))
        for pair in zip((*found, *other), (*expected, *one), strict=True):
            assert torch.equal(*pair) or device == "cuda" and torch.allclose(*pair, rtol=1e-2, atol=1e-2)
    assert counters["stats"]["unique_graphs"] == 1


def test_kvcache_compiled_with_a_number_for_all_lengths():
    q = normal(2, 1, 2, 16, dtype=torch.float32)
    whole = compiled(lambda q, keys, values, length: flash_attn_with_kvcache(q, keys, values, q, q, cache_seqlens=length))
    one, other = caches("rows"), caches("rows")
    for length in (3, 9, 20, 39):
        assert torch.equal(whole(q, *one, length), flash_attn_with_kvcache(q, *other, q, q, cache_seqlens=length))
    assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("paged", [[], ["--pages"]])
def test_the_example_generates_what_full_recomputation_does(paged, device):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, EXAMPLE, "--device", device, "--tokens", "24", *paged], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as full recomputation" in done.stdout
