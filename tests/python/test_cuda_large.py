"""Tensors of more than 2^31 elements, strides that reach as far, and more batches or heads than a grid has blocks.

A wrong address gives values that have nothing to do with the truth, so a fiftieth of the largest value is enough to
see it; how precise results are is judged elsewhere. The truth is float64 math by torch on the part that is looked at.
"""
import dlattn
import gpu
import pytest

torch = gpu.require("torch")
FAR = 2**31 + 8  # elements


@pytest.fixture(autouse=True)
def give_memory_back():
    yield
    torch.cuda.empty_cache()


def require_memory(gigabytes):
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes} GiB of device memory, {free:.0f} are free")


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def truth(q, k, v, dout, keep=None, bias=None):
    """out, dq, dk, dv, dbias of [tokens, size] by float64 math."""
    q, k, v = (x.double().requires_grad_() for x in (q, k, v))
    bias = torch.zeros(len(q), len(k), device="cuda", dtype=torch.float64) if bias is None else bias.double()
    bias.requires_grad_()
    s = q @ k.T / q.shape[-1] ** 0.5 + bias
    if keep is not None:
        s = s.masked_fill(~keep, -torch.inf)
    out = s.softmax(-1) @ v
    return (out.detach(), *torch.autograd.grad(out, (q, k, v, bias), dout.double()))


def assert_near(found, expected, name):
    assert not found.isnan().any(), name
    difference, size = (found.double() - expected).abs().max(), expected.abs().max()
    assert difference <= size / 50, f"{name} is off by {difference}, its largest value is {size}"


def test_more_than_two_to_the_31_elements():
    require_memory(56)
    S, window, part = FAR // 256 + 4096, 63, 256
    q, k, v, dout = (normal(1, S, 1, 256) for _ in range(4))
    out, lse = dlattn.attention(q, k, v, causal=True, window=(window, -1), return_lse=True)
    dq, dk, dv = dlattn.attention_backward(dout, q, k, v, out, lse, causal=True, window=(window, -1))[:3]
    assert out.numel() > 2**31
    whole = part + window + 1
    i = torch.arange(whole, device="cuda")
    keep = (i[None] <= i[:, None]) & (i[None] >= i[:, None] - window)
    expected = truth(*(x[0, -whole:, 0] for x in (q, k, v, dout)), keep)
    for name, array, value in zip(("out", "dq", "dk", "dv"), (out, dq, dk, dv), expected):
        assert_near(array[0, -part:, 0], value[-part:], name)


@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_strides_that_reach_beyond_two_to_the_31(dimension):
    """Every tensor is a view of one array whose elements of that dimension lie far from each other."""
    require_memory(12)
    shape = (2, 70, 3, 64)
    step = FAR // (shape[dimension] - 1)
    memory = torch.full((step * (shape[dimension] - 1) + 10**6,), torch.nan, device="cuda", dtype=torch.bfloat16)
    strides, inner = [0] * 4, 1
    for d in reversed(range(4)):
        if d == dimension:
            strides[d] = step
        else:
            strides[d], inner = inner, inner * shape[d]
    views = [memory.as_strided(shape, strides, n * 100_000) for n in range(8)]
    q, k, v, dout, out, dq, dk, dv = views
    for x in (q, k, v, dout):
        x.copy_(normal(*shape))
    _, lse = dlattn.attention(q, k, v, causal=True, out=out, return_lse=True)
    dlattn.attention_backward(dout, q, k, v, out, lse, causal=True, dq=dq, dk=dk, dv=dv)
    keep = torch.ones(70, 70, device="cuda", dtype=torch.bool).tril()
    for b, h in ((0, 0), (1, 2)):
        expected = truth(*(x[b, :, h] for x in (q, k, v, dout)), keep)
        for name, array, value in zip(("out", "dq", "dk", "dv"), (out, dq, dk, dv), expected):
            assert_near(array[b, :, h], value, name)


@pytest.mark.parametrize("B,H", [(70_000, 1), (1, 70_000), (300, 300)])
def test_more_batches_and_heads_than_a_grid_has_blocks(B, H):
    q, k, v, dout = (normal(B, 5, H, 16) for _ in range(4))
    out, lse = dlattn.attention(q, k, v, return_lse=True)
    dq, dk, dv = dlattn.attention_backward(dout, q, k, v, out, lse)[:3]
    for b, h in ((0, 0), (B - 1, H - 1), (B // 2, H // 2)):
        expected = truth(*(x[b, :, h] for x in (q, k, v, dout)))
        for name, array, value in zip(("out", "dq", "dk", "dv"), (out, dq, dk, dv), expected):
            assert_near(array[b, :, h], value, name)
    for name, array in (("out", out), ("dq", dq), ("dk", dk), ("dv", dv)):
        assert array.isfinite().all(), name


def test_a_bias_and_its_gradient_of_more_than_two_to_the_31_elements():
    require_memory(24)
    S, part = 46_400, 64
    q, k, v, dout, bias = normal(1, S, 1, 64), normal(1, S, 1, 64), normal(1, S, 1, 64), normal(1, S, 1, 64), normal(1, 1, S, S)
    out, lse = dlattn.attention(q, k, v, bias=bias, return_lse=True)
    found = dlattn.attention_backward(dout, q, k, v, out, lse, bias=bias, grads=("dq", "dbias"))
    expected = truth(q[0, -part:, 0], k[0, :, 0], v[0, :, 0], dout[0, -part:, 0], bias=bias[0, 0, -part:])
    assert bias.numel() > 2**31
    assert_near(out[0, -part:, 0], expected[0], "out")
    assert_near(found.dq[0, -part:, 0], expected[1], "dq")
    assert_near(found.dbias[0, 0, -part:], expected[4], "dbias")


def test_a_mask_of_more_than_two_to_the_31_elements():
    require_memory(12)
    S, part = 46_400, 64
    q, k, v, dout = (normal(1, S, 1, 64) for _ in range(4))
    mask = torch.ones(S, S, device="cuda", dtype=torch.bool)
    mask[-part:] = torch.rand(part, S, device="cuda") < 0.01
    out, lse = dlattn.attention(q, k, v, mask=mask, return_lse=True)
    dq = dlattn.attention_backward(dout, q, k, v, out, lse, mask=mask, grads=("dq",)).dq
    expected = truth(q[0, -part:, 0], k[0, :, 0], v[0, :, 0], dout[0, -part:, 0], mask[-part:])
    assert_near(out[0, -part:, 0], expected[0], "out")
    assert_near(dq[0, -part:, 0], expected[1], "dq")
