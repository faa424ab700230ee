"""PyTorch tensors on CUDA: values beside torch's own attention, views, lengths, pages, results unrounded."""

import dlattn
import gpu
import numpy as np
import pytest
from gpu import Case, assert_true, same_bits, to_torch

torch = gpu.require("torch")
CASES = gpu.cases()


def sdpa(case):
    """out, lse and gradients in float64 by torch, from what scaled_dot_product_attention can say."""
    options = dict(case.options)
    q, k, v = (to_torch(np.asarray(x, np.float64)).transpose(1, 2).requires_grad_() for x in (case.q, case.k, case.v))
    bias = options.pop("bias", None)
    mask = options.pop("mask", None)
    extra = None if bias is None else to_torch(bias.astype(np.float64)).requires_grad_()
    attn_mask = extra if mask is None else to_torch(mask)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, enable_gqa=True,
                                                           is_causal=options.pop("causal", False))
    assert not options
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3) / q.shape[3] ** 0.5
    if bias is not None:
        scores = scores + extra
    if mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    if "causal" in case.options:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    lse = scores.logsumexp(-1)
    loss = (out.transpose(1, 2) * to_torch(case.dout).double()).sum() + (lse * to_torch(case.dlse).double()).sum()
    loss.backward()
    found = {"out": out.transpose(1, 2), "lse": lse}
    found.update((f"d{name}", x.grad.transpose(1, 2)) for name, x in zip("qkv", (q, k, v)))
    if bias is not None:
        found["dbias"] = extra.grad
    return {name: x.detach() for name, x in found.items()}


PEERS = ("full_float32", "full_bfloat16", "full_float16", "causal_square", "bias", "mask")


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    found = case.run(to_torch)
    for key, array in found.items():
        assert isinstance(array, torch.Tensor) and array.is_cuda and not array.requires_grad, key
    assert found["out"].dtype == found["dq"].dtype == getattr(torch, dtype) and found["lse"].dtype == torch.float32
    assert_true(found, sdpa(case) if name in PEERS else {}, case.truth())


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
def test_views_need_no_copy(layout):
    """Slices of one fused projection, a transposed layout and a broadcast head give the bits of compact tensors."""
    fused = torch.randn(2, 70, 3, 4, 64, device="cuda", dtype=torch.bfloat16)
    q, k, v = fused.unbind(2)
    v = v[:, :, :1].expand(-1, -1, 4, -1)
    k = k[:, ::2][:, :33]
    v = v[:, 1:67:2]
    expected = dlattn.attention(q.contiguous(), k.contiguous(), v.contiguous(), causal=True)
    if layout == "bhsd":
        q, k, v, expected = (x.transpose(1, 2) for x in (q, k, v, expected))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = dlattn.attention(q, k, v, causal=True, layout=layout)
    assert torch.equal(out, expected)
    assert torch.cuda.max_memory_allocated() - before < 3 * out.numel() * out.element_size()
    given = torch.full((2, 70, 4, 80), 7.0, device="cuda", dtype=torch.bfloat16)
    view = given[..., 8:72] if layout == "bshd" else given[..., 8:72].transpose(1, 2)
    assert dlattn.attention(q, k, v, causal=True, layout=layout, out=view) is view
    assert torch.equal(view, expected) and (given[..., :8] == 7).all() and (given[..., 72:] == 7).all()


@pytest.mark.parametrize("shape", [(0, 5, 2, 16), (2, 0, 2, 16), (2, 5, 0, 16)])
def test_empty_tensors(shape):
    q = torch.zeros(shape, device="cuda")
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert out.shape == shape and lse.shape == (shape[0], shape[2], shape[1])
    assert dlattn.attention_backward(out, q, q, q, out, lse).dq.shape == shape


def test_no_keys():
    q, k = torch.ones(2, 5, 2, 16, device="cuda"), torch.ones(2, 0, 2, 16, device="cuda")
    out, lse = dlattn.attention(q, k, k, return_lse=True)
    assert (out == 0).all() and (lse == -torch.inf).all()


def test_parameters_and_tensors_that_require_grad():
    q = torch.nn.Parameter(torch.randn(1, 20, 2, 32, device="cuda"))
    expected = dlattn.attention(q.detach(), q.detach(), q.detach())
    for tensors in ((q, q.detach(), q.detach()), (q.detach(), q * 2, q.detach())):
        with pytest.raises(dlattn.ArgumentError, match=r"(q|k) requires grad.*detach\(\).*no_grad"):
            dlattn.attention(*tensors)
    with torch.no_grad():
        out = dlattn.attention(q, q, q)
    assert torch.equal(out, expected) and not out.requires_grad and type(out) is torch.Tensor

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out, lse = dlattn.attention(q, k, v, causal=True, return_lse=True)
            ctx.save_for_backward(q, k, v, out, lse)
            return out

        @staticmethod
        def backward(ctx, dout):
            return dlattn.attention_backward(dout, *ctx.saved_tensors, causal=True)[:3]

    Attention.apply(q, q, q).square().sum().backward()
    mine, q.grad = q.grad, None
    x = q.double().transpose(1, 2)
    torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).square().sum().backward()
    assert (mine - q.grad).abs().max() <= 2.0**-16 * q.grad.abs().max()


def test_lists_of_lengths_are_copied_to_the_device():
    q = torch.randn(2, 20, 2, 32, device="cuda")
    lengths = torch.tensor([7, 20], device="cuda")
    assert torch.equal(dlattn.attention(q, q, q, seqlens_k=[7, 20]), dlattn.attention(q, q, q, seqlens_k=lengths))


def test_packed_sequences_are_the_padded_ones():
    q, k, v = (torch.randn(50, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    cu = torch.tensor([0, 13, 50], device="cuda", dtype=torch.int32)
    out = dlattn.attention(q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=37, max_seqlen_k=37, causal=True)
    parts = [dlattn.attention(*(x[None, a:b] for x in (q, k, v)), causal=True)[0] for a, b in ((0, 13), (13, 50))]
    plain = torch.cat(parts).double()
    assert (out.double() - plain).abs().max() <= 2.0**-7 * plain.abs().max()


def test_dropout_mask_and_merge_are_the_ones_of_the_cpu():
    case = Case("float32", dropout=0.4, seed=11)
    q, k, v = case.inputs(to_torch)
    keep = dlattn.dropout_mask(q, k, dropout=0.4, seed=11)
    assert keep.is_cuda and same_bits([keep], [dlattn.dropout_mask(case.q, case.k, dropout=0.4, seed=11)])
    cut = 20
    parts = [dlattn.attention(q, x, y, return_lse=True, top_left=True) for x, y in
             ((k[:, :cut], v[:, :cut]), (k[:, cut:], v[:, cut:]))]
    out, lse = dlattn.merge(*zip(*parts))
    whole = Case("float32")
    assert_true({"out": out, "lse": lse}, {}, {name: (value, 2 * bound) for name, (value, bound) in whole.truth().items()})


def test_float32_results_and_explain():
    case = Case("bfloat16")
    q, k, v = case.inputs(to_torch)
    wide = dlattn.attention(q, k, v, out_dtype="float32")
    assert wide.dtype == torch.float32 and torch.equal(wide.bfloat16(), dlattn.attention(q, k, v))
    before = torch.cuda.memory_allocated()
    assert "backend: cuda" in dlattn.explain(q, k, v, causal=True)
    assert "backend: cuda" in dlattn.explain(q, k, v, backward=True)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("page", [1, 16, 64, 48])
def test_pages(dtype, page):
    """Keys in shuffled pages, NaN where no token lies: within the bounds of the same keys in one piece."""
    lengths = np.array([53, 20], np.int32)
    case = Case(dtype, D=64, E=32, causal=True, seqlens_k=lengths)
    pages = -(-53 // page)
    order = np.random.default_rng(page).permutation(2 * pages + 1)
    pools = [np.full((2 * pages + 1, page, *x.shape[2:]), np.nan, x.dtype) for x in (case.k, case.v)]
    for b in range(2):
        for token in range(lengths[b]):
            for pool, x in zip(pools, (case.k, case.v)):
                pool[order[b * pages + token // page], token % page] = x[b, token]
    table = order[:2 * pages].reshape(2, pages).astype(np.int32)
    out, lse = dlattn.attention(to_torch(case.q), *map(to_torch, pools), causal=True, seqlens_k=to_torch(lengths),
                                block_table=to_torch(table), max_seqlen_k=53, return_lse=True)
    truth = case.truth()
    assert_true({"out": out, "lse": lse}, {}, truth)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_append_and_rotate_as_on_the_cpu(dtype):
    rng = np.random.default_rng(5)
    new, values = (rng.standard_normal((2, 3, 2, size)).astype(gpu.DTYPES[dtype]) for size in (64, 40))
    lengths, table = np.array([6, 9], np.int32), np.array([[3, 0, 5], [1, 4, 2]], np.int32)
    caches = [np.zeros((6, 4, 2, size), gpu.DTYPES[dtype]) for size in (64, 40)]
    on_device = [to_torch(x) for x in caches]
    dlattn.kv_append(new, values, *caches, lengths, block_table=table)
    dlattn.kv_append(to_torch(new), to_torch(values), *on_device, to_torch(lengths), block_table=to_torch(table))
    assert same_bits(caches, on_device)
    angle = rng.standard_normal((20, 24)).astype(np.float32)
    tables = np.cos(angle), np.sin(angle)
    for interleaved in (False, True):
        here = dlattn.rotary(new, *tables, starts=lengths, interleaved=interleaved)
        there = dlattn.rotary(to_torch(new), *map(to_torch, tables), starts=to_torch(lengths), interleaved=interleaved)
        unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-23}[dtype]
        difference = abs(gpu.to_numpy(there).astype(np.float64) - here.astype(np.float64))
        assert (difference <= 2 * unit * abs(here.astype(np.float64)) + 2.0**-21).all()  # float32 sums, one rounding each
