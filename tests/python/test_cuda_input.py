"""PyTorch tensors on CUDA with lengths, offsets and pages out of range, and what is refused."""

import dlattn
import gpu
import numpy as np
import pytest
from gpu import same_bits

torch = gpu.require("torch")


def fenced(*shape, dtype=torch.bfloat16):
    """A tensor between NaNs: what is read beyond it spoils the result."""
    memory = torch.full((3, *shape), torch.nan, device="cuda", dtype=dtype)
    return memory[1].normal_()


@pytest.mark.parametrize("lengths, used", [([10**9, 31], [40, 31]), ([-5, 7], [0, 7]), ([2**31 - 1, -2**31], [40, 0])])
def test_lengths_out_of_range_are_clamped(lengths, used):
    """The device checks what the host may not read: no access leaves the tensors."""
    q, k, v, dout = (fenced(2, 40, 2, 64) for _ in range(4))

    def run(values):
        counts = torch.tensor(values, device="cuda", dtype=torch.int32)
        options = dict(seqlens_q=counts, seqlens_k=counts, causal=True, deterministic=True)
        out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
        return [out, lse, *dlattn.attention_backward(dout, q, k, v, out, lse, **options)[:3]]

    assert same_bits(run(lengths), run(used))


@pytest.mark.parametrize("cu", [[0, 10**9, 50], [-7, 20, 10**6], [50, 20, 0], [2**31 - 1, -2**31, 3]])
def test_offsets_out_of_range_read_nothing_outside(cu):
    """What the rows then hold is not said, but it comes from the tensors, and the context lives."""
    q, k, v, dout = (fenced(50, 2, 64) for _ in range(4))
    offsets = torch.tensor(cu, device="cuda", dtype=torch.int32)
    options = dict(cu_seqlens_q=offsets, cu_seqlens_k=offsets, max_seqlen_q=50, max_seqlen_k=50)
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    grads = dlattn.attention_backward(dout, q, k, v, out, lse, **options)
    assert all(torch.isfinite(x).all() for x in (out, *grads[:3]))


def test_pages_out_of_range_are_page_0():
    q, pages = fenced(2, 3, 2, 64), fenced(4, 16, 2, 64)
    lengths = torch.tensor([40, 48], device="cuda", dtype=torch.int32)

    def run(table):
        table = torch.tensor(table, device="cuda", dtype=torch.int32)
        return dlattn.attention(q, pages, pages, block_table=table, seqlens_k=lengths)

    wild = run([[10**9, 1, 2], [-4, 2**31 - 1, -2**31]])
    assert torch.isfinite(wild).all() and same_bits([wild], [run([[0, 1, 2], [0, 0, 0]])])


def test_bad_input():
    q = torch.randn(2, 9, 2, 32, device="cuda")
    out = torch.full_like(q, -7)
    host = q.cpu()
    for tensors, word in (((q, host, q), "k"), ((host, q, host), "k"), ((q, q, host.numpy()), "v")):
        with pytest.raises(dlattn.DeviceError, match=word):
            dlattn.attention(*tensors)
    with pytest.raises(dlattn.DeviceError, match="seqlens_k"):
        dlattn.attention(q, q, q, seqlens_k=np.array([1, 2], np.int32), out=out)
    with pytest.raises(dlattn.DeviceError, match="out"):
        dlattn.attention(q, q, q, out=host)
    with pytest.raises(dlattn.ShapeError, match="k"):
        dlattn.attention(q, q[:1], q, out=out)
    with pytest.raises(dlattn.DtypeError, match="k"):
        dlattn.attention(q, q.half(), q, out=out)
    with pytest.raises(dlattn.Error, match="float64"):
        dlattn.attention(q.double(), q.double(), q.double())
    with pytest.raises(dlattn.ShapeError, match="out"):
        dlattn.attention(q, q, q, out=q)
    with pytest.raises(dlattn.ArgumentError, match="k: Tensor gives no DLPack tensor"):
        dlattn.attention(q, q.to_sparse(), q)
    assert (out == -7).all() and torch.isfinite(dlattn.attention(q, q, q)).all()
