"""dlattn.torch.attention: values and gradients beside the reference, dropout, autocast, streams and graphs."""
import threading
import warnings

import dlattn
import gpu
import pytest
from gpu import Case, assert_true, same_bits

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
from dlattn.torch import attention  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_problems import CUDA, DEVICES, compiled, normal, run, same, small  # noqa: E402

CASES = gpu.cases()


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
    with pytest.raises(dlattn.ArgumentError, match="k: Tensor gives no DLPack tensor.*[^\n]$"):
        attention(q, k.to_sparse(), v)
    for name, others in (("q", (q.numpy(), k, v)), ("k", (q, k.numpy(), v)), ("v", (q, k, None))):
        with pytest.raises(dlattn.ArgumentError, match=f"{name} is of type .*; expected a torch.Tensor"):
            attention(*others)
    with pytest.raises(dlattn.ArgumentError, match="bias is of type ndarray; expected a torch.Tensor"):
        attention(q, k, v, bias=q.numpy())
    for name, value in (("softcap", "much"), ("scale", "much"), ("num_threads", 1.5), ("out_dtype", "float64")):
        with pytest.raises(dlattn.ArgumentError, match=f"{name} is {value!r}"):
            attention(q, k, v, **{name: value})
    for shape in ((), (8,), (2, 8), (5, 2, 8), (1, 1, 5, 2, 8)):
        x = torch.ones(shape, dtype=q.dtype, requires_grad=True)
        with pytest.raises(dlattn.ShapeError, match=f"q has rank {len(shape)}, expected 4"):
            attention(x, x, x)
    with pytest.raises(dlattn.ArgumentError, match="window"):
        attention(q, k, v, window=2**70)
    assert torch.isfinite(attention(q, k, v)).all(), "refused calls leave nothing behind"


def test_negative_views():
    """torch keeps the sign of such a view to itself; DLPack would hand the numbers over without it."""
    negative = normal(1, 5, 2, 8, dtype=torch.complex128).conj().imag.requires_grad_()
    positive, others = negative.detach().resolve_neg().requires_grad_(), [normal(1, 5, 2, 8) for _ in range(2)]
    assert negative.is_neg() and not positive.is_neg()
    grads = [torch.autograd.grad(attention(x, *others, causal=True).square().sum(), x)[0] for x in (negative, positive)]
    assert torch.equal(*grads)
    assert torch.equal(*(attention(others[0], x.detach(), others[1]) for x in (negative, positive)))
    bias = negative.detach()[0, :, 0, :5]
    assert torch.equal(*(attention(*others, others[0], bias=x) for x in (bias, bias.resolve_neg())))
    with pytest.raises(dlattn.ArgumentError, match="k is a negative view; expected k.resolve_neg"):
        dlattn.attention(others[0], negative.detach(), others[1])


def test_numbers_as_tensors():
    q, k, v, *_ = (x.detach() for x in small())
    for name, number, given in (("positions", (7, 4), (torch.tensor(7), torch.tensor(4))), ("scale", 0.5, torch.tensor(0.5)),
                                ("seed", 2**63 - 1, torch.tensor(2**63 - 1))):
        options = dict(causal=True, dropout=0.5 if name == "seed" else 0.0)
        assert torch.equal(*(attention(q, k, v, **options, **{name: value}) for value in (number, given)))


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
