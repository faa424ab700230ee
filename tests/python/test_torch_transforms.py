"""dlattn.torch.attention under every transform that PyTorch has for a call: torch.compile, torch.func, FakeTensor, export."""
import dlattn
import gpu
import pytest
from gpu import Case, same_bits

torch = pytest.importorskip("torch", reason="torch is not installed (make test-torch)")
from dlattn.torch import attention  # noqa: E402
from torch_problems import CUDA, DEVICES, compiled, normal, run, same, small  # noqa: E402

CASES = gpu.cases()
OPERATORS = torch.ops.dlattn


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


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_torch_func_inside_of_compile(backend):
    q, k, v, bias, sinks = small(requires_grad=False)

    def loss(q, k, v, bias, sinks):
        out, lse = attention(q, k, v, bias=bias, sinks=sinks, causal=True, return_lse=True)
        return out.sin().sum() + lse.cos().sum()

    grad = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))
    assert same(compiled(grad, backend)(q, k, v, bias, sinks), grad(q, k, v, bias, sinks))
    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None, None, None))
    several = torch.stack([q, 2 * q])
    assert same(compiled(mapped, backend)(several, k, v, bias, sinks), mapped(several, k, v, bias, sinks))


def test_autograd_goes_through_what_torch_func_leaves_to_it():
    """Levels that are nested, each with a first derivative of its own."""
    q, k, v, *_ = small()

    def call(q, k):
        return attention(q, k, v.detach(), causal=True)

    expected = torch.autograd.grad(call(q, k).square().sum(), (q, k))
    out, back = torch.func.vjp(lambda q: call(q, k), q.detach())
    assert torch.equal(torch.autograd.grad(out.square().sum(), k)[0], expected[1])
    assert torch.equal(back(2 * out.detach())[0], expected[0])
    inner = torch.func.grad(lambda k: torch.func.vjp(lambda q: call(q, k), q.detach())[0].square().sum())
    assert torch.equal(inner(k.detach()), expected[1])
    rows = torch.func.jacrev(lambda q: call(q, k.detach()))(q.detach())
    assert torch.allclose((rows * 2 * out.detach()[..., None, None, None, None]).sum((0, 1, 2, 3)), expected[0], rtol=1e-12)


def test_forward_mode_is_refused_in_words():
    q, k, v, *_ = small(requires_grad=False)
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        for call in (attention, lambda q, k, v: OPERATORS.attention(q, k, v)[0]):
            assert call(q, k, v).shape == (2, 5, 4, 4)
            with pytest.raises(dlattn.UnsupportedError, match="forward-mode"):
                call(q, forward_ad.make_dual(k, k), v)
    with pytest.raises(dlattn.UnsupportedError, match="forward-mode"):
        torch.func.jvp(lambda q: attention(q, k, v), (q,), (q,))


def test_second_derivatives_are_refused_in_words():
    q, k, v, *_ = small()
    for call in (attention, lambda q, k, v: OPERATORS.attention(q, k, v)[0]):
        out = call(q, k, v)
        grad, = torch.autograd.grad(out.sum(), q, create_graph=True)
        with pytest.raises(dlattn.UnsupportedError, match="first derivatives"):
            (grad.sum() + out.sum()).backward()
    with pytest.raises(dlattn.UnsupportedError, match="first derivatives"):
        torch.func.grad(lambda q: torch.func.grad(lambda q: attention(q, k.detach(), v.detach()).sum())(q).sum())(q.detach())


cuda_only = pytest.mark.skipif(not CUDA, reason="no CUDA device for torch and dlattn")


@cuda_only
def test_inductor_with_cuda_graphs():
    function = compiled(lambda q: attention(q * 2, q, q, causal=True) + 1, "inductor", mode="reduce-overhead")
    for _ in range(4):
        q = torch.randn(1, 64, 2, 64, device="cuda", dtype=torch.bfloat16)
        torch.compiler.cudagraph_mark_step_begin()
        assert torch.equal(function(q), attention(q * 2, q, q, causal=True) + 1)
