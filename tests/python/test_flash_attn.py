"""The call surface of FlashAttention 2, beside a plain formula in float64."""
import inspect

import dlattn
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
import dlattn.flash_attn as flash  # noqa: E402
from dlattn.flash_attn import bert_padding, flash_attn_interface  # noqa: E402
from dlattn.flash_attn.flash_attention import FlashAttention  # noqa: E402
from dlattn.flash_attn.layers.rotary import (apply_rotary_emb, apply_rotary_emb_kv_, apply_rotary_emb_qkv_,  # noqa: E402
                                             apply_rotary_emb_torch)

CUDA = torch.cuda.is_available() and "backend: cuda" in dlattn.explain()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn"))]
DTYPES = {"cpu": torch.float64, "cuda": torch.bfloat16}
BOUNDS = {torch.float64: 1e-12, torch.bfloat16: 3e-2}
COMMON = "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, " \
         "deterministic=False, return_attn_probs=False"
SIGNATURES = {
    "flash_attn_func": f"(q, k, v, {COMMON})", "flash_attn_kvpacked_func": f"(q, kv, {COMMON})",
    "flash_attn_qkvpacked_func": f"(qkv, {COMMON})",
    "flash_attn_varlen_func": f"(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, {COMMON}, block_table=None)",
    "flash_attn_varlen_kvpacked_func": f"(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, {COMMON})",
    "flash_attn_varlen_qkvpacked_func": f"(qkv, cu_seqlens, max_seqlen, {COMMON})",
    "flash_attn_with_kvcache": "(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
                               "cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, "
                               "causal=False, window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, "
                               "alibi_slopes=None, num_splits=0, return_softmax_lse=False)",
}


def test_names_and_defaults():
    assert set(flash.__all__) == set(SIGNATURES)
    for name, expected in SIGNATURES.items():
        assert getattr(flash_attn_interface, name) is getattr(flash, name)
        bare = [parameter.replace(annotation=inspect.Parameter.empty)
                for parameter in inspect.signature(getattr(flash, name)).parameters.values()]
        assert str(inspect.Signature(bare)) == expected


def formula(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, first=0,
            keep=None):
    """(out, lse, p) of [batch, seqlen, heads, headdim]; `first`: keys before it do not exist."""
    q, k, v = q.double(), k.double(), v.double()
    M, N = q.shape[1], k.shape[1]
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    s = torch.einsum("bihd,bjhd->bhij", q, k) * (q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale)
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    distance = torch.arange(M, device=q.device)[:, None] + N - M - torch.arange(N, device=q.device)
    if alibi_slopes is not None:
        s = s - alibi_slopes.double().expand(q.shape[0], -1)[:, :, None, None] * distance.abs()
    hidden = torch.arange(N, device=q.device) < first
    if causal:
        hidden = hidden | (distance < 0)
    if window_size[0] >= 0:
        hidden = hidden | (distance > window_size[0])
    if window_size[1] >= 0:
        hidden = hidden | (-distance > window_size[1])
    s = s.masked_fill(hidden, -torch.inf)
    lse = s.logsumexp(-1)
    p = (s - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    dropped = p if keep is None else p * keep
    return torch.einsum("bhij,bjhd->bihd", dropped, v), lse, p


def tensors(device, M=13, N=19, H=4, G=2, D=16, batch=2, seed=1):
    rng = torch.Generator().manual_seed(seed)
    shapes = (batch, M, H, D), (batch, N, G, D), (batch, N, G, D)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(device, DTYPES[device]).requires_grad_()
            for shape in shapes]


def assert_near(found, expected, dtype=None):
    bound = BOUNDS[dtype or found.dtype]
    assert found.shape == expected.shape
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(found), finite)
    off = (found.double() - expected.double())[finite].abs()
    assert not off.numel() or off.max() <= bound * max(1.0, expected[finite].abs().max())


OPTIONS = {
    "plain": {}, "causal": dict(causal=True), "window": dict(window_size=(4, 2)), "left": dict(window_size=(3, -1), causal=True),
    "softcap": dict(softcap=1.5, softmax_scale=0.7), "alibi": dict(alibi_slopes=torch.tensor([0.5, 0.25, 0.125, 0.1])),
    "alibi of batches": dict(alibi_slopes=torch.rand(2, 4), causal=True),
}


def placed(options, device):
    return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in options.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_of_every_packing(name, device):
    options = placed(OPTIONS[name], device)
    q, k, v = tensors(device)
    expected, lse, _ = formula(q, k, v, **options)
    dout = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64, device=device).reshape(expected.shape)
    grads = torch.autograd.grad((expected * dout).sum(), (q, k, v))
    out, found_lse, s_dmask = flash.flash_attn_func(q, k, v, return_attn_probs=True, **options)
    assert s_dmask is None and out.dtype == q.dtype
    assert_near(out, expected)
    assert_near(found_lse, lse, q.dtype)
    for one, other in zip(torch.autograd.grad(out, (q, k, v), dout.to(out)), grads):
        assert_near(one, other)
    kv = torch.stack((k, v), 2)
    assert torch.equal(flash.flash_attn_kvpacked_func(q, kv, **options), out)
    packed = [x.flatten(0, 1) for x in (q, k, v)]
    lengths = [torch.arange(3, device=device, dtype=torch.int32) * x.shape[1] for x in (q, k)]
    if name != "alibi of batches" or device == "cpu":
        varlen = flash.flash_attn_varlen_func(*packed, *lengths, 13, 19, **options)
        assert_near(varlen, out.detach().flatten(0, 1))
        assert torch.equal(flash.flash_attn_varlen_kvpacked_func(packed[0], kv.flatten(0, 1), *lengths, 13, 19, **options),
                           varlen)


@pytest.mark.parametrize("device", DEVICES)
def test_packed_qkv(device):
    q, k, v = tensors(device, M=15, N=15, G=4)
    qkv = torch.stack((q, k, v), 2).detach().requires_grad_()
    out = flash.flash_attn_qkvpacked_func(qkv, causal=True)
    expected, *_ = formula(*qkv.unbind(2), causal=True)
    assert_near(out, expected)
    grad, = torch.autograd.grad(out.sum(), qkv)
    assert_near(grad, torch.autograd.grad(expected.sum(), qkv)[0])
    cu = torch.tensor([0, 4, 4, 30], device=device, dtype=torch.int32)
    flat = qkv.detach().flatten(0, 1).requires_grad_()
    out, lse, _ = flash.flash_attn_varlen_qkvpacked_func(flat, cu, 26, causal=True, return_attn_probs=True)
    parts = [formula(*(x[None] for x in flat[a:b].unbind(1)), causal=True) for a, b in ((0, 4), (4, 30))]
    assert_near(out, torch.cat([part[0][0] for part in parts]))
    assert_near(lse, torch.cat([part[1][0] for part in parts], 1), out.dtype)
    assert_near(torch.autograd.grad(out.sum(), flat)[0],
                torch.autograd.grad(sum(part[0].sum() for part in parts), flat)[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("causal", [False, True])
def test_dropout_and_s_dmask(device, causal):
    q, k, v = tensors(device, M=70, N=300)
    torch.manual_seed(3)
    out, lse, s_dmask = flash.flash_attn_func(q, k, v, 0.25, causal=causal, return_attn_probs=True)
    assert s_dmask.shape == (2, 4, 70, 300) and not s_dmask.requires_grad
    keep = ~torch.signbit(s_dmask)
    assert abs(keep.double().mean() - 0.75) < 0.02
    expected, expected_lse, p = formula(q, k, v, causal=causal, keep=keep.double() / 0.75)
    assert_near(s_dmask.abs(), p / p.amax(-1, keepdim=True).clamp(min=1e-300), q.dtype)
    assert_near(out, expected)
    assert_near(lse, expected_lse, q.dtype)
    for one, other in zip(torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(expected.sum(), (q, k, v))):
        assert_near(one, other)
    torch.manual_seed(3)
    assert torch.equal(flash.flash_attn_func(q, k, v, 0.25, causal=causal, return_attn_probs=True)[0], out)
    assert not torch.equal(flash.flash_attn_func(q, k, v, 0.25, causal=causal), out)


@pytest.mark.parametrize("device", DEVICES)
def test_s_dmask_of_packed_sequences(device):
    q, k, v = (x.detach() for x in tensors(device, M=30, N=30, batch=1))
    cu_q, cu_k = (torch.tensor(x, device=device, dtype=torch.int32) for x in ([0, 11, 30], [0, 20, 30]))
    out, _, s_dmask = flash.flash_attn_varlen_func(q[0], k[0], v[0], cu_q, cu_k, 19, 20, 0.5, causal=True,
                                                   return_attn_probs=True)
    assert s_dmask.shape == (2, 4, 19, 20)
    for b, (i, j) in enumerate(((slice(0, 11), slice(0, 20)), (slice(11, 30), slice(20, 30)))):
        part = s_dmask[b:b + 1, :, :i.stop - i.start, :j.stop - j.start]
        expected, _, p = formula(q[:, i], k[:, j], v[:, j], causal=True, keep=~torch.signbit(part) * 2.0)
        assert_near(part.abs(), p / p.amax(-1, keepdim=True).clamp(min=1e-300), q.dtype)
        assert_near(out[i], expected[0])


def test_s_dmask_of_rows_and_problems_without_keys():
    q, k, v = tensors("cpu", M=7, N=3)
    s_dmask = flash.flash_attn_func(q, k, v, 0.5, causal=True, return_attn_probs=True)[2]
    assert (s_dmask[:, :, :4] == 0).all() and (s_dmask[:, :, 4:].abs().amax(-1) == 1).all()
    assert flash.flash_attn_func(q, k[:, :0], v[:, :0], 0.5, return_attn_probs=True)[2].shape == (2, 4, 7, 0)


def test_rows_without_keys_and_deterministic():
    q, k, v = tensors("cpu", M=7, N=3)
    out, lse, _ = flash.flash_attn_func(q, k, v, causal=True, return_attn_probs=True, deterministic=True)
    assert (out[:, :4] == 0).all() and (lse[:, :, :4] == -torch.inf).all() and torch.isfinite(lse[:, :, 4:]).all()


# ---- the module and the padding --------------------------------------------------------------------------------------

@pytest.mark.parametrize("causal", [False, True])
def test_module(causal):
    q, k, v = tensors("cpu", M=9, N=9, G=4)
    qkv = torch.stack((q, k, v), 2)
    layer = FlashAttention(softmax_scale=0.3, attention_dropout=0.9).eval()
    expected, *_ = formula(q, k, v, softmax_scale=0.3, causal=causal)
    out, weights = layer(qkv, causal=causal)
    assert weights is None
    assert_near(out, expected)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    padded, _ = layer(qkv, key_padding_mask=mask, causal=causal)
    short, *_ = formula(*(x[1:, :5] for x in (q, k, v)), softmax_scale=0.3, causal=causal)
    assert_near(padded[0], expected[0])
    assert_near(padded[1, :5], short[0])
    assert (padded[1, 5:] == 0).all()
    flat, _ = layer(qkv.flatten(0, 1), cu_seqlens=torch.tensor([0, 9, 18]), max_s=9, causal=causal)
    assert_near(flat.view(out.shape), expected)
    assert not torch.equal(layer.train()(qkv, causal=causal)[0], out)
    with pytest.raises(dlattn.ArgumentError, match="need_weights"):
        layer(qkv, need_weights=True)
    with pytest.raises(dlattn.ArgumentError, match="max_s"):
        layer(qkv, cu_seqlens=torch.tensor([0, 9]))


def test_padding():
    x = torch.randn(3, 5, 2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
    tokens, indices, cu, longest, used = bert_padding.unpad_input(x, mask)
    assert torch.equal(tokens, x[mask.bool()]) and indices.tolist() == [0, 1, 6, 8, 9]
    assert cu.tolist() == [0, 2, 5, 5] and cu.dtype == torch.int32 and longest == 3 and used.tolist() == [2, 3, 0]
    assert torch.equal(bert_padding.pad_input(tokens, indices, 3, 5), x * mask[:, :, None, None])
    assert torch.autograd.gradcheck(lambda x: bert_padding.pad_input(bert_padding.unpad_input(x, mask)[0].sin(), indices, 3, 5), x)
    unused = torch.tensor([[0, 0, 1, 0, 0], [0] * 5, [0] * 5])
    tokens, _, cu, longest, used = bert_padding.unpad_input(x, mask.bool(), unused.bool())
    assert cu.tolist() == [0, 3, 6, 6] and used.tolist() == [2, 3, 0] and tokens.shape[0] == 6
    lengths = torch.tensor([[2, 3, 0, 0, 0], [4, 0, 0, 0, 0], [1, 1, 1, 0, 0]])
    tokens, indices, cu, longest = bert_padding.unpad_input_for_concatenated_sequences(x, lengths)
    assert cu.tolist() == [0, 2, 5, 9, 10, 11, 12] and longest == 4
    assert torch.equal(tokens, torch.cat((x[0], x[1, :4], x[2, :3])))
    taken, whole = bert_padding.index_first_axis_residual(x, torch.tensor([2, 0]))
    assert torch.equal(taken, x[[2, 0]]) and torch.equal(whole, x)
    assert torch.equal(bert_padding.index_first_axis(x, torch.tensor([1])), x[1:2])
    assert bert_padding.index_put_first_axis(x[:1], torch.tensor([2]), 4)[2].equal(x[0])


# ---- rotary ----------------------------------------------------------------------------------------------------------

def angles(positions, half, device="cpu", dtype=torch.float64):
    angle = torch.rand(positions, half, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 6
    return [x.to(device, dtype) for x in (angle.cos(), angle.sin())]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("half", [3, 8])
def test_rotary(device, interleaved, half):
    x, *_ = tensors(device, M=7)
    cos, sin = angles(30, half, device, x.dtype)
    for offsets in (0, 5, torch.tensor([2, 9], device=device)):
        out = apply_rotary_emb(x, cos, sin, interleaved, seqlen_offsets=offsets)
        rows = torch.as_tensor(offsets, device=device).expand(2)[:, None] + torch.arange(7, device=device)
        expected = apply_rotary_emb_torch(x.double(), cos.double()[rows], sin.double()[rows], interleaved)
        assert_near(out, expected)
        dout = torch.linspace(-1, 1, x.numel(), device=device, dtype=torch.float64).reshape(x.shape)
        assert_near(torch.autograd.grad(out, x, dout.to(out))[0], torch.autograd.grad(expected, x, dout)[0])
        y = x.detach().clone()
        assert apply_rotary_emb(y, cos, sin, interleaved, inplace=True, seqlen_offsets=offsets) is y
        assert torch.equal(y, out)
    cu = torch.tensor([0, 3, 3, 14], device=device, dtype=torch.int32)
    flat = apply_rotary_emb(x.flatten(0, 1), cos, sin, interleaved, cu_seqlens=cu, max_seqlen=11,
                            seqlen_offsets=torch.tensor([4, 1, 2], device=device))
    rows = torch.cat((torch.arange(3) + 4, torch.arange(11) + 2)).to(device)
    expected = apply_rotary_emb_torch(x.double().flatten(0, 1)[None], cos.double()[rows], sin.double()[rows], interleaved)
    assert_near(flat, expected[0])


def test_rotary_as_an_operator():
    x, *_ = (x.detach().requires_grad_() for x in tensors("cpu", M=5))
    cos, sin = angles(9, 4)
    torch.library.opcheck(torch.ops.dlattn.rotary.default, (x, cos, sin, torch.tensor([1, 3])), dict(interleaved=True))
    assert torch.autograd.gradcheck(lambda x: apply_rotary_emb(x, cos, sin, seqlen_offsets=2), x)
    torch._dynamo.reset()
    function = torch.compile(lambda x: apply_rotary_emb(x, cos, sin).sin(), fullgraph=True, backend="aot_eager")
    assert torch.equal(function(x), apply_rotary_emb(x, cos, sin).sin())
    with pytest.raises(dlattn.ArgumentError, match="rank"):
        apply_rotary_emb(x[0], cos, sin)


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("packing", ["x", "qkv", "heads", "kv"])
def test_rotary_in_place(packing, leaf):
    """The tensor that was given holds the result, and its gradient is that of the rotation, also for a leaf."""
    torch.manual_seed(2)
    cos, sin = angles(12, 4)
    start = torch.tensor([1, 3])
    shape = {"x": (2, 7, 3, 16), "qkv": (2, 7, 3, 3, 16), "heads": (2, 7, 8, 16), "kv": (2, 7, 2, 3, 16)}[packing]
    given = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x = given if leaf else given * 1

    def turned(x, scale=1):
        angle = [scale * y[start[:, None] + torch.arange(7)] for y in (cos, sin)]
        return apply_rotary_emb_torch(x, *angle)

    if packing == "x":
        expected = turned(x)
        found = apply_rotary_emb(x, cos, sin, inplace=True, seqlen_offsets=start)
    elif packing == "kv":
        expected = torch.stack((turned(x[:, :, 0]), x[:, :, 1]), 2)
        found = apply_rotary_emb_kv_(x, cos, sin, seqlen_offsets=start)
    elif packing == "qkv":
        expected = torch.stack((turned(x[:, :, 0]), turned(x[:, :, 1], 2), x[:, :, 2]), 2)
        found = apply_rotary_emb_qkv_(x, cos, sin, 2 * cos, 2 * sin, seqlen_offsets=start)
    else:
        with pytest.raises(dlattn.ArgumentError, match="num_heads_q"):
            apply_rotary_emb_qkv_(x, cos, sin)
        expected = torch.cat((turned(x[:, :, :4]), turned(x[:, :, 4:6]), x[:, :, 6:]), 2)
        found = apply_rotary_emb_qkv_(x, cos, sin, seqlen_offsets=start, num_heads_q=4)
    expected = expected.detach().clone()
    assert_near(found.detach(), expected)
    assert torch.equal(x.detach(), found.detach())
    dout = torch.randn(shape, dtype=torch.float64)
    grad, = torch.autograd.grad(found, given, dout)
    fresh = torch.randn(shape, dtype=torch.float64)
    back = (grad * fresh).sum()  # the rotation is linear: <grad, y> is <dout, rotated y>
    with torch.no_grad():
        again = {"x": lambda: apply_rotary_emb(fresh, cos, sin, seqlen_offsets=start),
                 "kv": lambda: apply_rotary_emb_kv_(fresh, cos, sin, seqlen_offsets=start),
                 "qkv": lambda: apply_rotary_emb_qkv_(fresh, cos, sin, 2 * cos, 2 * sin, seqlen_offsets=start),
                 "heads": lambda: apply_rotary_emb_qkv_(fresh, cos, sin, seqlen_offsets=start, num_heads_q=4)}[packing]()
    assert torch.allclose(back, (dout * again).sum(), rtol=1e-10)


# ---- decoding --------------------------------------------------------------------------------------------------------

def cache_of(device, capacity=40, rows=2, page=None):
    """k and v caches of the dtype, random everywhere."""
    rng = torch.Generator().manual_seed(4)
    shape = (rows, capacity, 2, 16)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(device, DTYPES[device]) for _ in range(2)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["rows", "batch index", "pages"])
@pytest.mark.parametrize("options", [dict(causal=True), dict(window_size=(6, 0)), {}, dict(softcap=2.0, causal=True),
                                     dict(causal=True, alibi_slopes=torch.tensor([0.5, 0.2, 0.1, 0.05]))])
@pytest.mark.parametrize("new", [0, 1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_kvcache(device, where, options, new, turned):
    options = placed(options, device)
    q, k, v = (x.detach() for x in tensors(device, M=max(new, 2), N=max(new, 1)))
    lengths = torch.tensor([17, 30], dtype=torch.int32, device=device)
    keys, values = cache_of(device)
    logical = [keys.clone(), values.clone()]
    extra = {}
    if where == "batch index":
        index = torch.tensor([3, 1], dtype=torch.int32, device=device)
        keys, values = cache_of(device, rows=4)
        logical, extra = [keys[[3, 1]].clone(), values[[3, 1]].clone()], dict(cache_batch_idx=index)
    elif where == "pages":
        table = torch.tensor([[4, 0, 7, 2, 5], [1, 3, 6, 9, 8]], dtype=torch.int32, device=device)
        pages = [x.reshape(10, 8, 2, 16) for x in (keys, values)]
        keys, values = (torch.zeros_like(x).index_copy(0, table.flatten().long(), x) for x in pages)
        extra = dict(block_table=table)
    cos, sin = angles(50, 8, device, q.dtype)
    seen_q, seen_k = q.double(), k.double()
    if turned:
        turn = [x.double() for x in (cos, sin)]
        rows = [lengths.long()[:, None] + torch.arange(size, device=device) for size in (q.shape[1], k.shape[1])]
        if not (options.get("causal") or options.get("window_size")):
            rows[0] = lengths.long()[:, None].expand(-1, q.shape[1])
        seen_q, seen_k = (apply_rotary_emb_torch(x, *(y[row] for y in turn), True).to(q.dtype)
                          for x, row in zip((seen_q, seen_k), rows))
        extra.update(rotary_cos=cos, rotary_sin=sin)
    given = dict(k=k, v=v) if new else {}
    out, lse = flash.flash_attn_with_kvcache(q, keys, values, **given, cache_seqlens=lengths, return_softmax_lse=True,
                                             **extra, **options)
    for b, length in enumerate(lengths.tolist()):
        end = length + (k.shape[1] if new else 0)
        if new:
            logical[0][b, length:end], logical[1][b, length:end] = seen_k[b].to(k.dtype), v[b]
        expected, expected_lse, _ = formula(seen_q[b:b + 1], logical[0][b:b + 1, :end], logical[1][b:b + 1, :end], **options)
        assert_near(out[b:b + 1], expected, q.dtype)
        assert_near(lse[b:b + 1], expected_lse, q.dtype)
    if where == "pages":
        keys, values = (x[table.long()].flatten(1, 2) for x in (keys, values))
    elif where == "batch index":
        assert torch.equal(keys[[0, 2]], cache_of(device, rows=4)[0][[0, 2]])
        keys, values = keys[[3, 1]], values[[3, 1]]
    assert_near(keys, logical[0], q.dtype)
    assert torch.equal(values, logical[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["rows", "batch index"])
def test_kvcache_with_padding_on_the_left(device, where):
    q, k, v = (x.detach() for x in tensors(device, M=2, N=2))
    keys, values = cache_of(device)
    extra = dict(cache_batch_idx=torch.tensor([1, 0], dtype=torch.int32, device=device)) if where == "batch index" else {}
    left = torch.tensor([5, 0], dtype=torch.int32, device=device)
    out = flash.flash_attn_with_kvcache(q, keys, values, k, v, cache_seqlens=torch.tensor([20, 20], device=device), causal=True,
                                        cache_leftpad=left, **extra)
    if where == "batch index":
        keys, values = keys.flip(0), values.flip(0)
    for b in range(2):
        expected, *_ = formula(q[b:b + 1], keys[b:b + 1, :22], values[b:b + 1, :22], causal=True, first=int(left[b]))
        assert_near(out[b:b + 1], expected)


def test_kvcache_lengths_as_a_number_or_none():
    q, k, v = (x.detach() for x in tensors("cpu", M=1, N=1))
    keys, values = cache_of("cpu")
    whole = flash.flash_attn_with_kvcache(q, keys, values)
    assert_near(whole, formula(q, keys, values)[0])
    first = flash.flash_attn_with_kvcache(q, keys, values, cache_seqlens=12)
    assert_near(first, formula(q, keys[:, :12], values[:, :12])[0])
    flash.flash_attn_with_kvcache(q, keys, values, k, v, cache_seqlens=12)
    assert torch.equal(keys[:, 12], k[:, 0]) and torch.equal(values[:, 12], v[:, 0])
    for bad, word in ((dict(k=k), "both or neither"), (dict(k=k, v=v), "cache_seqlens"), (dict(rotary_cos=k), "cache_seqlens|both")):
        with pytest.raises(dlattn.ArgumentError, match=word):
            flash.flash_attn_with_kvcache(q, keys, values, **bad)
    with pytest.raises(dlattn.ArgumentError):
        flash.flash_attn_with_kvcache(q, keys, values, k, v, cache_seqlens=40)


@pytest.mark.parametrize("device", DEVICES)
def test_varlen_with_pages(device):
    q, _, _ = (x.detach() for x in tensors(device, M=10, batch=1))
    keys, values = cache_of(device)
    table = torch.arange(10, dtype=torch.int32, device=device).view(2, 5)
    cu_q, cu_k = (torch.tensor(x, dtype=torch.int32, device=device) for x in ([0, 4, 10], [0, 13, 50]))
    out = flash.flash_attn_varlen_func(q[0], keys.view(10, 8, 2, 16), values.view(10, 8, 2, 16), cu_q, cu_k, 6, 37,
                                       causal=True, block_table=table)
    for b, (rows, length) in enumerate(((slice(0, 4), 13), (slice(4, 10), 37))):
        expected, *_ = formula(q[:, rows], keys[b:b + 1, :length], values[b:b + 1, :length], causal=True)
        assert_near(out[rows], expected[0])
    with pytest.raises(dlattn.UnsupportedError, match="block_table"):
        flash.flash_attn_varlen_func(q[0], keys.view(10, 8, 2, 16), values.view(10, 8, 2, 16), cu_q, cu_k, 6, 37, 0.5,
                                     block_table=table, return_attn_probs=True)


def test_compiled():
    torch._dynamo.reset()
    q, k, v = tensors("cpu")
    function = torch.compile(lambda q, k, v: flash.flash_attn_func(q, k, v, causal=True), fullgraph=True, backend="aot_eager")
    assert torch.equal(function(q, k, v), flash.flash_attn_func(q, k, v, causal=True))


def test_s_dmask_is_made_outside_of_compiled_code():
    q, k, v = (x.detach() for x in tensors("cpu"))

    def call(q, k, v):
        torch.manual_seed(3)
        return flash.flash_attn_func(q, k, v, 0.25, return_attn_probs=True)

    torch._dynamo.reset()
    for found, expected in zip(torch.compile(call, backend="aot_eager")(q, k, v), call(q, k, v), strict=True):
        assert torch.equal(found, expected)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="S_dmask is made outside"):
        torch.compile(lambda q: flash.flash_attn_func(q, k, v, 0.25, return_attn_probs=True), fullgraph=True)(q)
