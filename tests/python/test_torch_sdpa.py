"""F.scaled_dot_product_attention served by dlattn: only on request, with torch's own meaning."""
import dlattn
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
import dlattn.torch  # noqa: E402
from dlattn.torch import _native  # noqa: E402
from torch.nn import attention as registry  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention as sdpa  # noqa: E402

CUDA = torch.cuda.is_available() and "backend: cuda" in dlattn.explain()
cuda_only = pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn")
FLASH, EFFICIENT = registry.SDPBackend.FLASH_ATTENTION, registry.SDPBackend.EFFICIENT_ATTENTION
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@pytest.fixture
def calls(monkeypatch):
    """The problems that reach the library."""
    seen, forward, backward = [], _native.forward, _native.backward
    monkeypatch.setattr(_native, "forward", lambda *a, **o: seen.append(("forward", a[1])) or forward(*a, **o))
    monkeypatch.setattr(_native, "backward", lambda *a, **o: seen.append(("backward", a[5])) or backward(*a, **o))
    yield seen
    assert registry.current_flash_attention_impl() is None


def inputs(dtype=torch.float32, device="cpu", B=2, M=37, N=37, H=4, G=4, D=16, E=None):
    torch.manual_seed(5)
    shapes = (B, H, M, D), (B, G, N, D), (B, G, N, E or D)
    return [torch.randn(shape, dtype=dtype, device=device).requires_grad_() for shape in shapes]


def results(q, k, v, **options):
    out = sdpa(q, k, v, **options)
    dout = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(out)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), dout)]


def exact(q, k, v, **options):
    """The same in float64 by torch's plain formula."""
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    if options.get("attn_mask") is not None and options["attn_mask"].is_floating_point():
        options["attn_mask"] = options["attn_mask"].double()
    with registry.sdpa_kernel(registry.SDPBackend.MATH):
        return results(*wide, **options)


def assert_near(found, expected, dtype, factor=8):
    """Rounding errors of sums of some 40 numbers, on the scale of the largest."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        assert (one.double() - other).abs().max() <= factor * 4 * UNIT[dtype] * max(1.0, other.abs().max())


OPTIONS = {
    "plain": {}, "causal": dict(is_causal=True), "scale": dict(scale=0.3),
    "bool mask": dict(attn_mask=torch.rand(37, 37) < 0.8), "bias": dict(attn_mask=torch.randn(2, 1, 37, 37)),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", UNIT)
def test_cpu_calls_are_served(calls, name, dtype):
    q, k, v = inputs(dtype)
    options = dict(OPTIONS[name])
    if name == "bias":
        options["attn_mask"] = options["attn_mask"].to(dtype)
    with dlattn.torch.activate():
        found = results(q, k, v, **options)
    assert [kind for kind, _ in calls] == ["forward", "backward"]
    assert_near(found, exact(q, k, v, **options), dtype)


def test_grouped_heads_and_causal_with_other_lengths(calls):
    q, k, v = inputs(torch.float64, N=50, G=2)
    with dlattn.torch.activate():
        found = results(q, k, v, is_causal=True, enable_gqa=True)
    assert [kind for kind, _ in calls] == ["forward", "backward"]
    assert_near(found, exact(q, k, v, is_causal=True, enable_gqa=True), torch.float64)


def test_only_while_active(calls):
    q, k, v = (x.detach() for x in inputs())
    sdpa(q, k, v)
    with dlattn.torch.activate() as active:
        assert active is not None and registry.current_flash_attention_impl() == "dlattn"
        sdpa(q, k, v)
        with dlattn.torch.activate():
            sdpa(q, k, v)
        sdpa(q, k, v)
    sdpa(q, k, v)
    assert len(calls) == 3
    dlattn.torch.activate()
    sdpa(q, k, v)
    dlattn.torch.deactivate()
    dlattn.torch.deactivate()
    sdpa(q, k, v)
    assert len(calls) == 4
    registry.activate_flash_attention_impl("dlattn")
    sdpa(q, k, v)
    registry.restore_flash_attention_impl()
    assert len(calls) == 5


def test_inside_modules_and_compiled_functions(calls):
    torch.manual_seed(1)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    x = torch.randn(2, 9, 32)
    expected = layer(x)
    q, k, v = inputs()
    with dlattn.torch.activate():
        assert (layer(x) - expected).abs().max() < 1e-5
        assert len(calls) == 1
        torch._dynamo.reset()
        found = torch.compile(lambda q, k, v: sdpa(q, k, v, is_causal=True), fullgraph=True, backend="aot_eager")(q, k, v)
        assert len(calls) == 2
        assert torch.equal(found, sdpa(q, k, v, is_causal=True))


def test_a_refused_problem_raises_the_sentence(calls):
    q, k, v = (x.detach() for x in inputs(D=300))
    with dlattn.torch.activate(), pytest.raises(dlattn.Error, match="300"):
        sdpa(q, k, v)


def test_the_kernel_of_varlen_attn_on_cpu_tensors():
    """torch calls it on CUDA alone; packed tokens, a window, lengths, and pages as torch 2.12 passes them."""
    from dlattn.torch import _sdpa

    q, k, v = (torch.randn(26, 2, 8, dtype=torch.float64) for _ in range(3))
    cu = torch.tensor([0, 10, 26])
    common = dict(window_size_left=5, window_size_right=-1, scale=0.4)
    out, lse, seed, unused, mask = _sdpa._any_flash(q, k, v, cu, cu, 16, 16, 0.0, True, False, **common)
    expected = dlattn.attention(q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu, causal=True, window=(5, None), scale=0.4)
    assert torch.equal(out, expected) and lse.shape == (2, 26) and seed.dtype == unused.dtype == torch.uint64
    grads = _sdpa._any_flash_backward(out, q, k, v, out, lse, cu, cu, 16, 16, 0.0, True, seed, unused, **common)
    peer = dlattn.attention_backward(out, q, k, v, out, lse, cu_seqlens_q=cu, cu_seqlens_k=cu, causal=True,
                                     window=(5, None), scale=0.4)
    assert all(torch.equal(a, b) for a, b in zip(grads, peer[:3]))
    pages = [torch.cat((x, torch.zeros(6, 2, 8, dtype=torch.float64))).view(8, 4, 2, 8) for x in (k, v)]
    table = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    used = torch.tensor([9, 14])
    out, *_ = _sdpa._any_flash(q, *pages, cu, None, 16, 16, 0.0, False, False, seqused_k=used, block_table=table, num_splits=1)
    rows = [pages[0].view(2, 16, 2, 8), pages[1].view(2, 16, 2, 8)]
    assert torch.equal(out[:10], dlattn.attention(q[None, :10], *(x[:1, :9] for x in rows))[0])
    with pytest.raises(dlattn.ArgumentError, match="return_debug_mask"):
        _sdpa._any_flash(q, k, v, cu, cu, 16, 16, 0.0, True, True)


@cuda_only
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, dict(is_causal=True), dict(scale=0.2), dict(enable_gqa=True)])
def test_cuda_flash(calls, dtype, options):
    q, k, v = inputs(dtype, "cuda", M=130, N=130, D=64, G=2 if "enable_gqa" in options else 4)
    with registry.sdpa_kernel(FLASH), dlattn.torch.activate():
        found = results(q, k, v, **options)
    assert [kind for kind, _ in calls] == ["forward", "backward"]
    assert_near(found, exact(q, k, v, **options), dtype, 16)


@cuda_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", ["none", "bool", "bias", "bias with gradient"])
def test_cuda_efficient(calls, dtype, mask):
    q, k, v = inputs(dtype, "cuda", M=130, N=130, D=64)
    options = {"bool": dict(attn_mask=torch.rand(130, 130, device="cuda") < 0.8)}.get(mask, {})
    if "bias" in mask:
        options = dict(attn_mask=torch.randn(2, 1, 130, 130, device="cuda", dtype=dtype))
    with registry.sdpa_kernel(EFFICIENT), dlattn.torch.activate():
        found = results(q, k, v, **options)
        if mask == "bias with gradient":
            bias = options["attn_mask"].requires_grad_()
            found.append(torch.autograd.grad(sdpa(q, k, v, attn_mask=bias).sum(), bias)[0])
    expected = exact(q, k, v, **{name: x.detach() if name == "attn_mask" else x for name, x in options.items()})
    if mask == "bias with gradient":
        wide = bias.detach().double().requires_grad_()
        with registry.sdpa_kernel(registry.SDPBackend.MATH):
            total = sdpa(*(x.detach().double() for x in (q, k, v)), attn_mask=wide).sum()
        expected.append(torch.autograd.grad(total, wide)[0])
    assert {kind for kind, _ in calls} == {"forward", "backward"}
    assert_near(found, expected, dtype, 16)


@cuda_only
def test_cuda_dropout_is_the_same_in_the_backward(calls):
    q, k, v = inputs(torch.bfloat16, "cuda", M=64, N=64, D=64)
    for backend in (FLASH, EFFICIENT):
        with registry.sdpa_kernel(backend), dlattn.torch.activate():
            out = sdpa(q, k, v, dropout_p=0.5)
            dv, = torch.autograd.grad(out, v, out.detach())
        # sum(dv * v) is sum(dout * out), since out is linear in v
        left, right = (dv.double() * v.double()).sum(), out.double().square().sum()
        assert abs(left - right) <= 0.02 * right


@cuda_only
def test_cuda_varlen_attn(calls):
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (torch.randn(50, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    cu = torch.tensor([0, 13, 50], device="cuda", dtype=torch.int32)
    expected = varlen_attn(q, k, v, cu, cu, 37, 37)
    with dlattn.torch.activate():
        found = varlen_attn(q, k, v, cu, cu, 37, 37)
    assert [kind for kind, _ in calls] == ["forward"]
    assert (found.double() - expected.double()).abs().max() <= 2.0**-6 * expected.abs().max()
