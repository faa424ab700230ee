"""dlattn.torch.attention: values and gradients beside the reference, and every transform that PyTorch has for a call."""
import threading
import warnings

import dlattn
import gpu
import numpy as np
import pytest
from gpu import Case, assert_true, same_bits, to_torch

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
from dlattn.torch import attention  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

CUDA = torch.cuda.is_available() and "backend: cuda" in dlattn.explain()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn"))]
CASES = gpu.cases()
OPERATORS = torch.ops.dlattn
FIELDS = ("q", "k", "v", "bias", "sinks")


def leaves(case, device):
    """The problem's tensors as leaves that require grad, and the other options."""
    def make(x):
        return to_torch(x, device)

    options = {name: make(value) if isinstance(value, np.ndarray) else value for name, value in case.options.items()}
    tensors = {name: make(getattr(case, name)) for name in "qkv"}
    tensors.update((name, options[name]) for name in ("bias", "sinks") if name in options)
    options = {name: value for name, value in options.items() if name not in tensors}
    return {name: x.requires_grad_() for name, x in tensors.items()}, options


def run(case, device, function=attention):
    """{name: tensor} of out, lse and all gradients."""
    tensors, options = leaves(case, device)
    out, lse = function(*(tensors[name] for name in "qkv"), return_lse=True, **options,
                        **{name: tensors[name] for name in tensors if name not in "qkv"})
    torch.autograd.backward((out, lse), (to_torch(case.dout, device), to_torch(case.dlse, device)))
    return {"out": out.detach(), "lse": lse.detach(), **{f"d{name}": x.grad for name, x in tensors.items()}}


def normal(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(shape, dtype=dtype, device=device)


def small(requires_grad=True, batch=2):
    """q, k, v, bias and sinks in float64."""
    torch.manual_seed(3)
    tensors = (normal(batch, 5, 4, 3), normal(batch, 6, 2, 3), normal(batch, 6, 2, 4), normal(1, 4, 5, 6), normal(4))
    return [x.requires_grad_(requires_grad) for x in tensors]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, device):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    found = run(case, device)
    assert found["out"].dtype == found["dq"].dtype == getattr(torch, dtype) and found["lse"].dtype == torch.float32
    assert_true(found, {}, case.truth())


@pytest.mark.parametrize("name", ["bias", "sinks_softcap", "dropout"])
def test_the_operators_give_the_bits_of_the_direct_call(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    with torch.utils._python_dispatch._disable_current_modes(), Seen() as seen:
        through = run(case, "cpu")
    assert seen.names == {"dlattn::attention", "dlattn::attention_backward"}
    assert same_bits(through.values(), run(case, "cpu").values())


class Seen(torch.utils._python_dispatch.TorchDispatchMode):
    """Which operators of ours are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "dlattn":
            self.names.add(function._schema.name)
        return function(*args, **(kwargs or {}))


def test_gradcheck():
    def call(q, k, v, bias, sinks):
        return attention(q, k, v, bias=bias, sinks=sinks, causal=True, softcap=3.0, return_lse=True)

    assert torch.autograd.gradcheck(call, small())
    assert torch.autograd.gradcheck(lambda q, k, v, bias, sinks: OPERATORS.attention(q, k, v, bias, None, None, sinks,
                                                                                     flags=1), small())


def test_opcheck():
    q, k, v, bias, sinks = small()
    mask = torch.rand(5, 6) < 0.7
    for args, fields in (((q, k, v, bias, mask, None, sinks), dict(flags=1, softcap=3.0)), ((q, k, v), {}),
                         ((q.detach(), k.detach(), v.detach()), dict(flags=4, window_left=2, window_right=1))):
        torch.library.opcheck(OPERATORS.attention.default, args, fields)
    out, lse = attention(q, k, v, bias=bias, return_lse=True)
    tensors = [x.detach() for x in (torch.ones_like(out), torch.ones_like(lse), out, lse, q, k, v, bias)]
    torch.library.opcheck(OPERATORS.attention_backward.default, tensors, dict(wanted=[True, False, True, True, False]))


@pytest.mark.parametrize("permute", ["bhsd", "strided", "expanded", "qkv"])
def test_outputs_of_fake_tensors_have_the_strides_of_real_ones(permute):
    q, k, v, *_ = (x.detach() for x in small())
    options = {}
    if permute == "bhsd":
        q, k, v, options = *(x.transpose(1, 2).contiguous() for x in (q, k, v)), {"layout": "bhsd"}
    elif permute == "strided":
        q = normal(2, 4, 9, 5).permute(0, 3, 1, 2)[..., ::3]
    elif permute == "expanded":
        q, k, v = q[:1, :, :1].expand(2, -1, 4, -1), k[:, :, :1].expand(-1, -1, 4, -1), v[:, :, :1].expand(-1, -1, 4, -1)
    else:
        q, k, v = normal(2, 5, 3, 4, 3).unbind(2)
    expected = attention(*(x.contiguous() for x in (q, k, v)), return_lse=True, **options)
    real = attention(q, k, v, return_lse=True, **options)
    assert same(real, expected), "strides change no bit"
    leaves_ = [x.detach().requires_grad_() for x in (q, k, v)]
    grads = torch.autograd.grad(attention(*leaves_, **options).sum(), leaves_)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x).requires_grad_() for x in (q, k, v)]
        made = attention(*fakes, return_lse=True, **options)
        fake_grads = torch.autograd.grad(made[0].sum(), fakes)
    for fake, found in zip((*made, *fake_grads), (*real, *grads), strict=True):
        assert fake.shape == found.shape and fake.stride() == found.stride() and fake.dtype == found.dtype


def compiled(function, backend="aot_eager", **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize("name", ["causal", "bias", "sinks_softcap", "lengths", "mask", "dropout", "window"])
def test_compile_gives_the_bits_of_the_eager_call(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    assert same_bits(run(case, "cpu", compiled(attention)).values(), run(case, "cpu").values())


@pytest.mark.parametrize("device", DEVICES)
def test_inductor(device):
    q, k, v = (normal(1, 24, 2, 16, dtype=torch.float32, device=device).requires_grad_() for _ in range(3))

    def call(q, k, v):  # on the CPU nothing to fuse, which would take a C++ compiler half a minute
        return attention(q, k if device == "cpu" else k * 2, v, causal=True)

    found, expected = compiled(call, "inductor")(q, k, v), call(q, k, v)
    assert torch.equal(found, expected)
    grads = [torch.autograd.grad(out.sum(), (q, k, v)) for out in (found, expected)]
    for one, other in zip(*grads):  # dq is summed in any order
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_one_graph_serves_every_length():
    function = compiled(lambda q, window: attention(q, q, q, window=(window, 0), dropout=0.5, seed=2**64 - 1), dynamic=True)
    count = torch._dynamo.utils.counters
    count.clear()
    for length in (7, 12, 30):
        q = normal(2, length, 2, 8)
        assert torch.equal(function(q, length // 2), attention(q, q, q, window=(length // 2, 0), dropout=0.5,
                                                               seed=2**64 - 1))
    assert count["stats"]["unique_graphs"] == 1


def test_compile_draws_dropout_anew():
    function = compiled(lambda q: attention(q, q, q, dropout=0.5))
    q = normal(1, 9, 2, 8)
    assert not torch.equal(function(q), function(q))


def test_export():
    class Layer(torch.nn.Module):
        def forward(self, q, bias):
            return attention(q, q, q, bias=bias, causal=True)

    q, bias = normal(2, 6, 2, 8), normal(6, 6)
    program = torch.export.export(Layer(), (q, bias))
    assert torch.equal(program.module()(q, bias), Layer()(q, bias))


@pytest.mark.parametrize("bias_dim,bias_shape", [(None, (1, 4, 5, 6)), (None, (2, 1, 5, 6)), (0, (1, 4, 5, 6)), (0, (2, 4, 1, 6)),
                                                 (1, (5, 6)), (0, ())])
@pytest.mark.parametrize("sinks_dim", [None, 0])
def test_vmap_of_grad_and_grad_of_vmap(bias_dim, bias_shape, sinks_dim):
    size = 3
    _, k, v, _, sinks = (x.detach() for x in small())
    q = normal(size, 2, 5, 4, 3)
    bias = normal(*bias_shape) if bias_dim is None else normal(size, *bias_shape).movedim(0, bias_dim)
    sinks = sinks if sinks_dim is None else normal(size, 4)
    bias = bias if bias.dim() - (bias_dim is not None) else bias[:, None]

    def loss(q, v, bias, sinks):
        out, lse = attention(q, k, v, bias=bias, sinks=sinks, causal=True, return_lse=True)
        return (out.sin().sum() + lse.cos().sum())

    dims = (0, None, bias_dim, sinks_dim)
    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2, 3)), in_dims=dims)(q, v, bias, sinks)
    each = [[x if dim is None else x.select(dim, index) for x, dim in zip((q, v, bias, sinks), dims)] for index in range(size)]
    expected = [torch.func.grad(loss, argnums=(0, 1, 2, 3))(*one) for one in each]
    for index, one in enumerate(expected):
        for a, b in zip((x[index] for x in found), one, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    total = torch.func.grad(lambda q: torch.func.vmap(loss, in_dims=dims)(q, v, bias, sinks).sum())(q)
    assert torch.allclose(total, found[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", [
    dict(segments=torch.tensor([[0, 0, 1, 1, 1]])), dict(seqlens_k=torch.tensor([4])), dict(dropout=0.5, seed=4),
    dict(alibi_slopes=torch.rand(2)), dict(mask=torch.rand(5, 5) < 0.5), dict(positions=(torch.tensor([3]), 0), causal=True),
    dict(layout="bhsd", causal=True), dict(dropout=0.5, rng_state=torch.tensor([4, 9]))])
def test_vmap_is_a_loop(options):
    q = normal(3, 1, 5, 2, 8, dtype=torch.float32)
    if options.get("layout") == "bhsd":
        q = q.transpose(2, 3)
    call = torch.func.vmap(lambda x: attention(x, x, x, return_lse=True, **options))
    for found, expected in zip(call(q), zip(*(attention(x, x, x, return_lse=True, **options) for x in q)), strict=True):
        assert torch.equal(found, torch.stack(expected))
    mapped = {name: torch.stack([x, x.flip(0), x]) for name, x in options.items() if isinstance(x, torch.Tensor)}
    if mapped:
        def one(x, given):
            return attention(x, x, x, **{**options, **given})

        found = torch.func.vmap(one)(q, mapped)
        for index in range(3):
            assert torch.equal(found[index], one(q[index], {name: x[index] for name, x in mapped.items()}))


def test_vmap_of_packed_sequences_and_nested_vmap():
    cu = torch.tensor([0, 4, 9])
    q = normal(3, 9, 2, 8)

    def call(x):
        return attention(x, x, x, cu_seqlens_q=cu, cu_seqlens_k=cu, causal=True)

    assert torch.equal(torch.func.vmap(call)(q), torch.stack([call(x) for x in q]))
    x = normal(3, 2, 1, 5, 2, 8)
    nested = torch.func.vmap(torch.func.vmap(lambda x: attention(x, x, x), in_dims=1), in_dims=1)(x.movedim(0, 2).movedim(0, 2))
    assert nested.shape[-3:] == (5, 2, 8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(device, dtype):
    q, k, v = (normal(2, 9, 2, 16, dtype=torch.float32, device=device).requires_grad_() for _ in range(3))
    bias = normal(9, 9, dtype=torch.float32, device=device)
    with torch.autocast(device, dtype=dtype):
        out = attention(q, k.to(dtype), v, bias=bias)
        again = compiled(lambda: attention(q, k.to(dtype), v, bias=bias))()
    assert out.dtype == dtype and torch.equal(out, attention(*(x.to(dtype) for x in (q, k, v)), bias=bias))
    assert torch.equal(out, again)
    out.sum().backward()
    assert q.grad.dtype == torch.float32 and q.grad.abs().max() > 0


def test_dropout_follows_the_generator_and_a_given_seed():
    q = normal(1, 40, 2, 16, dtype=torch.float32)
    torch.manual_seed(1)
    first, second = attention(q, q, q, dropout=0.3), attention(q, q, q, dropout=0.3)
    torch.manual_seed(1)
    assert torch.equal(attention(q, q, q, dropout=0.3), first) and not torch.equal(first, second)
    for seed, offset in ((5, 0), (2**64 - 1, 2**63 + 1)):
        expected = dlattn.attention(q, q, q, dropout=0.3, seed=seed, offset=offset)
        assert torch.equal(attention(q, q, q, dropout=0.3, seed=seed, offset=offset), expected)
    x = q.clone().requires_grad_()
    torch.manual_seed(2)
    grad = torch.autograd.grad(attention(x, x, x, dropout=0.3).square().sum(), x)[0]
    torch.manual_seed(2)
    loss = checkpoint(lambda x: attention(x, x, x, dropout=0.3), x, use_reentrant=False).square().sum()
    assert torch.equal(torch.autograd.grad(loss, x)[0], grad), "the recomputed forward drops the same"


def test_gradients_that_nobody_wants_are_not_computed(monkeypatch):
    from dlattn.torch import _native

    asked, original = [], _native.backward
    monkeypatch.setattr(_native, "backward", lambda *a: asked.append(a[6]) or original(*a))
    q, k, v, bias, sinks = small()
    attention(q, k.detach(), v, bias=bias.detach(), sinks=sinks).sum().backward()
    assert asked == [[True, False, True, False, True]] and k.grad is None and bias.grad is None


@pytest.mark.parametrize("grad", [True, False])
def test_losses_of_one_result_alone(grad):
    q, k, v, *_ = small()
    out, lse = attention(q, k, v, return_lse=True)
    first = torch.autograd.grad(lse.sum(), (q, k))
    scores = torch.einsum("bihd,bjhd->bhij", q, k.repeat_interleave(2, 2)) / 3**0.5
    for a, b in zip(first, torch.autograd.grad(scores.logsumexp(-1).sum(), (q, k))):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    with torch.set_grad_enabled(grad):
        assert attention(q, k, v).requires_grad == grad


def test_float32_results():
    q, k, v = (normal(2, 9, 2, 16, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    wide, narrow = attention(q, k, v, out_dtype=torch.float32), attention(q, k, v)
    assert wide.dtype == torch.float32 and torch.equal(wide.bfloat16(), narrow) and not torch.equal(wide, narrow.float())
    wide.sum().backward()
    assert q.grad.dtype == torch.bfloat16
    with pytest.raises(dlattn.ArgumentError, match="out_dtype"):
        attention(q, k, v, out_dtype=torch.float16)


def test_deterministic_follows_torch():
    from dlattn.torch import _keywords

    q = normal(1, 2, 1, 4)
    assert "flags" not in _keywords.read(q, {})[1]
    torch.use_deterministic_algorithms(True)
    try:
        assert _keywords.read(q, {})[1]["flags"] == _keywords.read(q, {"deterministic": True})[1]["flags"] == 64
        assert "flags" not in _keywords.read(q, {"deterministic": False})[1]
    finally:
        torch.use_deterministic_algorithms(False)


def test_second_derivatives_are_refused_in_words():
    q, k, v, *_ = small()
    for call in (attention, lambda q, k, v: OPERATORS.attention(q, k, v)[0]):
        out = call(q, k, v)
        grad, = torch.autograd.grad(out.sum(), q, create_graph=True)
        with pytest.raises(dlattn.UnsupportedError, match="first derivatives"):
            (grad.sum() + out.sum()).backward()
    with pytest.raises(dlattn.UnsupportedError, match="first derivatives"):
        torch.func.grad(lambda q: torch.func.grad(lambda q: attention(q, k.detach(), v.detach()).sum())(q).sum())(q.detach())


def test_saved_tensors_are_guarded():
    q, k, v, *_ = small()
    x = q * 1
    out = attention(x, k, v)
    x.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        out.sum().backward()


def test_bad_input():
    q, k, v, *_ = (x.detach() for x in small())
    for call in (attention, compiled(attention)):
        with pytest.raises(dlattn.ShapeError, match="k"):
            call(q, k[:1], v)
    with pytest.raises(dlattn.DtypeError, match="k"):
        attention(q, k.float(), v)
    with pytest.raises(TypeError, match="no_such_option"):
        attention(q, k, v, no_such_option=1)
    with pytest.raises(dlattn.ArgumentError, match="layout"):
        attention(q, k, v, layout="hbsd")
    with pytest.raises(dlattn.ArgumentError, match="seed"):
        attention(q, k, v, dropout=0.5, seed=2**64)
    with pytest.raises(dlattn.ArgumentError, match="alibi_slopes requires grad"):
        attention(q, k, v, alibi_slopes=torch.ones(4, requires_grad=True))
    with pytest.raises(dlattn.ArgumentError, match="k: Tensor gives no DLPack tensor"):
        attention(q, k.to_sparse(), v)
    with pytest.raises(dlattn.ArgumentError, match="window"):
        attention(q, k, v, window=2**70)
    assert torch.isfinite(attention(q, k, v)).all(), "refused calls leave nothing behind"


def test_options_of_one_call_are_not_those_of_the_next():
    q, k, v, bias, sinks = (x.detach() for x in small())
    plain = attention(q, k, v)
    attention(q, k, v, bias=bias, sinks=sinks, causal=True, softcap=2.0, window=(1, 1))
    assert torch.equal(attention(q, k, v), plain)
    assert torch.equal(attention(q, k, v, bias=bias), dlattn.attention(q, k, v, bias=bias))


def test_threads():
    inputs = [normal(1, 50 + index, 2, 8).requires_grad_() for index in range(4)]

    def work(x):
        return torch.autograd.grad(attention(x, x, x, causal=True, return_lse=True)[1].sum(), x)[0]

    expected, wrong = [work(x) for x in inputs], []

    def loop(index):
        for _ in range(30):
            if not torch.equal(work(inputs[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=loop, args=(index,)) for index in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_meta_tensors_tell_shapes():
    q, k = torch.empty(2, 5, 4, 8, device="meta", requires_grad=True), torch.empty(2, 7, 2, 8, device="meta")
    out, lse = attention(q, k, k, causal=True, return_lse=True)
    assert out.shape == (2, 5, 4, 8) and lse.shape == (2, 4, 5) and out.is_meta and lse.dtype == torch.float32
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape


@pytest.mark.parametrize("device", DEVICES)
def test_empty_tensors(device):
    for shape in ((0, 5, 2, 16), (2, 0, 2, 16), (2, 5, 0, 16)):
        q = torch.zeros(shape, device=device, requires_grad=True)
        out = attention(q, q, q)
        out.sum().backward()
        assert out.shape == q.grad.shape == shape


cuda_only = pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn")


@cuda_only
def test_cuda_graph_of_a_training_step():
    """Captured and replayed with new data; dropout draws anew in each replay."""
    q, k, v = (torch.randn(2, 90, 2, 56, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 90, 90, device="cuda", requires_grad=True)

    def step(dropout):
        out, lse = attention(q, k, v, bias=bias, causal=True, deterministic=True, dropout=dropout, return_lse=True)
        return [out.detach(), *torch.autograd.grad(out.float().square().sum() + lse.sum(), (q, k, v, bias))]

    for dropout in (0.0, 0.3):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step(dropout)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step(dropout)
        seen = []
        for _ in range(2):
            with torch.no_grad():
                q.normal_()
            graph.replay()
            seen.append([x.clone() for x in results])
            if not dropout:
                assert same(results, step(dropout))
        if dropout:
            graph.replay()
            assert not torch.equal(results[0], seen[-1][0])


@cuda_only
def test_inductor_with_cuda_graphs():
    function = compiled(lambda q: attention(q * 2, q, q, causal=True) + 1, "inductor", mode="reduce-overhead")
    for _ in range(4):
        q = torch.randn(1, 64, 2, 64, device="cuda", dtype=torch.bfloat16)
        torch.compiler.cudagraph_mark_step_begin()
        assert torch.equal(function(q), attention(q * 2, q, q, causal=True) + 1)


@cuda_only
def test_the_current_stream_and_no_synchronisation():
    q = torch.randn(1, 300, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    expected = torch.autograd.grad(attention(q, q, q, deterministic=True).sum(), q)[0]
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(10**8)
        grad = torch.autograd.grad(attention(q, q, q, deterministic=True).sum(), q)[0]
        assert not side.query(), "the host has waited"
    side.synchronize()
    assert torch.equal(grad, expected)


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q, k, v, *_ = small()
        attention(q, k, v, causal=True).sum().backward()
