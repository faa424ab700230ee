"""dlattn.jax on the CPU: values and gradients under JAX's transformations, against the reference and against NumPy calls."""
import contextlib
import os
import subprocess
import sys

import dlattn
import gpu
import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp
from dlattn.jax import attention
from jax_programs import check, on_the_cpu, program, run, split, traced_and_static, x64

RNG = np.random.default_rng(5)
B, M, N, H, G, D, E = 2, 11, 13, 4, 2, 8, 5


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def integers(high, *shape):
    return RNG.integers(0, high, shape).astype(np.int32)


# Every option, alone and with what it meets.
OPTIONS = {
    "plain": {},
    "causal": dict(causal=True),
    "causal_top_left": dict(causal=True, top_left=True),
    "scale": dict(scale=-0.25),
    "scale_zero": dict(scale=0.0),
    "window": dict(window=(3, 1)),
    "window_one_number": dict(window=2),
    "window_largest": dict(window=(2**63 - 1, None)),
    "block_window": dict(block_window=(4, 2)),
    "bias": dict(bias=normal(B, H, M, N)),
    "bias_of_a_row": dict(bias=normal(H, 1, N)),
    "mask": dict(mask=RNG.random((1, 1, M, N)) < 0.7),
    "mask_of_bytes": dict(mask=(RNG.random((B, H, M, N)) < 0.7).astype(np.uint8)),
    "softcap": dict(softcap=2.0),
    "alibi": dict(alibi_slopes=abs(normal(H))),
    "alibi_of_batches": dict(alibi_slopes=abs(normal(B, H)), causal=True),
    "sinks": dict(sinks=normal(H), causal=True),
    "segments": dict(segments=(integers(3, B, M), integers(3, B, N))),
    "positions": dict(positions=(7, np.array([-2, 3], np.int32)), causal=True),
    "lengths": dict(seqlens_q=np.array([4, 11], np.int32), seqlens_k=np.array([13, 6], np.int32), causal=True),
    "dropout": dict(dropout=0.4, seed=2**63 + 5, offset=9),
    "dropout_all": dict(dropout=1.0),
    "threads": dict(num_threads=1, deterministic=True),
    "many": dict(bias=normal(1, H, M, N), sinks=normal(H), softcap=3.0, window=(5, 0), dropout=0.1, seed=1),
}


def tensors(dtype, options):
    q, k, v = (normal(*shape, dtype=dtype) for shape in ((B, M, H, D), (B, N, G, D), (B, N, G, E)))
    arrays = {"q": q, "k": k, "v": v, **{name: options[name] for name in ("bias", "sinks") if name in options}}
    return arrays, normal(B, M, H, E, dtype=dtype), normal(B, H, M, dtype=np.float64 if dtype == np.float64 else np.float32)


def by_numpy(arrays, options, dout, dlse):
    """The same results from the calls on NumPy arrays."""
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    wanted = [f"d{name}" for name in arrays]
    grads = dlattn.attention_backward(dout, q, k, v, out, lse, dlse=dlse, grads=wanted, **options)
    return {"out": out, "lse": lse, **{name: getattr(grads, name) for name in wanted}}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        got = np.asarray(found[name])
        assert got.dtype == array.dtype and got.shape == array.shape, name
        assert got.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_gives_the_bits_of_the_call_on_numpy(name):
    options = OPTIONS[name]
    arrays, dout, dlse = tensors(np.float32, options)
    traced, static = traced_and_static({key: x for key, x in options.items() if key not in arrays})
    found = jax.jit(program(static))(arrays, traced, dout, dlse)
    assert_same_bits(found, by_numpy(arrays, options, dout, dlse))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_dtype(dtype):
    kind = np.float64 if dtype == "float64" else gpu.DTYPES[dtype]
    for bias_dtype in (kind, np.float32):
        options = dict(bias=normal(1, H, M, N, dtype=bias_dtype), causal=True)
        arrays, dout, dlse = tensors(kind, options)
        with x64(dtype == "float64"):
            found = jax.jit(program({"causal": True}))(arrays, {}, dout, dlse)
        assert_same_bits(found, by_numpy(arrays, options, dout, dlse))


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
def test_packed_sequences_and_both_layouts(layout):
    cu = np.array([0, 5, 5, 12], np.int32)
    axes = (0, 1, 2) if layout == "bshd" else (1, 0, 2)
    q, k, v = (normal(12, heads, size).transpose(axes).copy() for heads, size in ((H, D), (G, D), (G, E)))
    options = dict(cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=7, max_seqlen_k=7, causal=True, layout=layout)
    dout, dlse = normal(12, H, E).transpose(axes).copy(), normal(H, 12)
    arrays = {"q": q, "k": k, "v": v}
    traced, static = traced_and_static(options)
    found = jax.jit(program(static))(arrays, traced, dout, dlse)
    assert_same_bits(found, by_numpy(arrays, options, dout, dlse))
    rows, dout, dlse = {name: np.swapaxes(x[None], 1, 2).copy() for name, x in arrays.items()}, dout[None], dlse[None]
    other = "bhsd" if layout == "bshd" else "bshd"
    found = jax.jit(program({"layout": other}))(rows, {}, np.swapaxes(dout, 1, 2), dlse)
    assert_same_bits(found, by_numpy(rows, {"layout": other}, np.swapaxes(dout, 1, 2).copy(), dlse))


def test_paged_keys_are_forward_only():
    q, pages = normal(B, 1, H, D), normal(5, 4, G, D)
    table, lengths = np.array([[4, 0], [2, 3]], np.int32), np.array([7, 3], np.int32)
    expected = dlattn.attention(q, pages, pages, block_table=table, seqlens_k=lengths)
    call = jax.jit(lambda q, table: attention(q, pages, pages, block_table=table, seqlens_k=lengths))
    assert np.array_equal(call(q, table), expected)
    with pytest.raises(dlattn.Error, match="block_table"):
        jax.grad(lambda q: call(q, table).sum())(q)


def test_an_empty_problem():
    q, k = jnp.zeros((B, 0, H, D)), normal(B, N, G, D)
    assert attention(q, k, k).shape == q.shape
    out, lse = attention(normal(B, M, H, D), k[:, :0], k[:, :0], return_lse=True)
    assert not out.any() and (lse == -np.inf).all()
    grads = jax.grad(lambda q, k: attention(q, k, k).sum(), (0, 1))(q, k)
    assert grads[0].shape == q.shape and not grads[1].any()


def test_out_in_float32():
    arrays, dout, _ = tensors(gpu.DTYPES["bfloat16"], {})
    q, k, v = arrays.values()
    out = jax.jit(lambda *x: attention(*x, out_dtype="float32"))(q, k, v)
    assert out.dtype == np.float32 and np.array_equal(out, dlattn.attention(q, k, v, out_dtype="float32"))
    _, pull = jax.vjp(lambda *x: attention(*x, out_dtype=jnp.float32), q, k, v)
    assert all(grad.dtype == q.dtype and np.isfinite(np.asarray(grad, np.float32)).all()
               for grad in pull(dout.astype(np.float32)))
    assert attention(q, k, v, out_dtype=jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(dlattn.ArgumentError, match="out_dtype"):
        attention(q, k, v, out_dtype="float16")


# ---- which gradients -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wanted", ["q", "k", "v", "bias", "sinks", "qv", ""])
def test_only_the_wanted_gradients_are_computed(wanted):
    options = OPTIONS["many"]
    arrays, dout, dlse = tensors(np.float32, options)
    names = [wanted] if wanted in arrays else list(wanted)
    _, static = traced_and_static({key: x for key, x in options.items() if key not in arrays})

    def loss(moving):
        x = {**arrays, **moving}
        return (attention(x["q"], x["k"], x["v"], bias=x["bias"], sinks=x["sinks"], **static) * dout).sum()

    moving = {name: arrays[name] for name in names}
    text = jax.jit(jax.grad(loss)).lower(moving).as_text()
    assert text.count("custom_call @dlattn_backward") == (1 if names else 0)
    for name in arrays:
        results = text.partition("@dlattn_backward")[2].partition('results = "')[2].partition('"')[0].split()
        assert (f"d{name}" in results) == (name in names)
    expected = by_numpy(arrays, options, dout, np.zeros_like(dlse))
    found = jax.jit(jax.grad(loss))(moving)
    for name in names:
        assert np.array_equal(found[name], expected[f"d{name}"]), name


def test_a_loss_of_lse_alone():
    case = gpu.Case("float32", sinks=normal(4), causal=True)
    case.dout[...] = 0
    arrays, _ = split(case)

    def loss(arrays):
        _, lse = attention(arrays["q"], arrays["k"], arrays["v"], sinks=arrays["sinks"], causal=True, return_lse=True)
        return (lse * case.dlse).sum()

    grads, truth = jax.grad(loss)(arrays), case.truth()
    check(case, {f"d{name}": grad for name, grad in grads.items()})
    assert truth["dsinks"][0].any() and not np.asarray(grads["v"]).any()


# ---- transformations -------------------------------------------------------------------------------------------------

def another(case, turn, **options):
    """The case with other data."""
    found = gpu.Case(case.dtype.__name__ if case.dtype is np.float32 else "bfloat16", **{**case.options, **options})
    found.rng = np.random.default_rng([turn, 99])
    found.q, found.k, found.v, found.dout = (found.normal(*x.shape) for x in (case.q, case.k, case.v, case.dout))
    found.dlse = found.rng.standard_normal(case.dlse.shape).astype(np.float32)
    return found


def case_of(name):
    rng = np.random.default_rng(3)
    some = {
        "plain": {},
        "bias_whole": dict(bias=rng.standard_normal((2, 4, 37, 53)).astype(np.float32)),
        "bias_broadcast": dict(bias=rng.standard_normal((1, 1, 37, 53)).astype(np.float32)),
        "bias_of_rank_two": dict(bias=rng.standard_normal((37, 1)).astype(np.float32)),
        "mask": dict(mask=rng.random((1, 4, 37, 53)) < 0.6),
        "mask_of_rank_one": dict(mask=rng.random(53) < 0.6),
        "alibi": dict(alibi_slopes=rng.random(4).astype(np.float32), causal=True),
        "alibi_of_batches": dict(alibi_slopes=rng.random((2, 4)).astype(np.float32)),
        "sinks": dict(sinks=rng.standard_normal(4).astype(np.float32)),
        "segments": dict(segments=(rng.integers(0, 3, (2, 37)), rng.integers(0, 3, (2, 53)))),
        "lengths": dict(seqlens_q=np.array([20, 37], np.int32), seqlens_k=np.array([53, 9], np.int32), causal=True),
        "starts": dict(positions=(np.array([3, -4], np.int32), np.array([0, 8], np.int32)), causal=True),
        "dropout": dict(dropout=0.3, seed=8),
    }
    return gpu.Case("float32", **some[name])


VMAPPED = ["plain", "bias_whole", "bias_broadcast", "bias_of_rank_two", "mask", "mask_of_rank_one", "alibi",
           "alibi_of_batches", "sinks", "segments", "lengths", "starts", "dropout"]


@pytest.mark.parametrize("options_are_mapped", [False, True])
@pytest.mark.parametrize("name", VMAPPED)
def test_vmap(name, options_are_mapped):
    """Each element is within the bounds of its own problem; its options its own too, or shared by all."""
    first = case_of(name)
    second = another(first, 1)
    if options_are_mapped:
        flip = lambda x: np.flip(x, -1).copy() if isinstance(x, np.ndarray) else x
        second.options = {key: tuple(map(flip, x)) if isinstance(x, tuple) else flip(x) for key, x in first.options.items()}
    cases = [first, second]
    inputs = []
    for case in cases:
        arrays, options = split(case)
        traced, static = traced_and_static(options)
        inputs.append((arrays, traced, case.dout, case.dlse))
    stacked = jax.tree.map(lambda *x: np.stack(x), *inputs)
    axes = jax.tree.map(lambda _: 0, stacked)
    if not options_are_mapped:
        for group in (0, 1):
            for key in axes[group]:
                if key not in ("q", "k", "v"):
                    axes[group][key] = jax.tree.map(lambda _: None, axes[group][key], is_leaf=lambda x: x == 0)
                    stacked[group][key] = inputs[0][group][key]
    found = jax.jit(jax.vmap(program(static), in_axes=axes))(*stacked)
    for turn, case in enumerate(cases):
        check(case, {key: x[turn] for key, x in found.items()})


def test_vmap_of_two_dimensions_with_q_alone_in_one():
    q, k, v = normal(3, 2, B, M, H, D), normal(2, B, N, G, D), normal(2, B, N, G, E)
    bias = normal(2, H, M, N)
    call = lambda q, k, v, bias: attention(q, k, v, bias=bias, causal=True)
    every = jax.vmap(jax.vmap(call), in_axes=(0, None, None, None))
    found = jax.jit(every)(q, k, v, bias)
    for i in range(3):
        for j in range(2):
            expected = dlattn.attention(q[i, j], k[j], v[j], bias=bias[j], causal=True)
            bound = gpu.Reference(q[i, j], k[j], v[j], bias=bias[j][None], causal=True)
            gpu.assert_close(np.asarray(found[i, j]), bound.out, bound.out_bound)
            gpu.assert_close(expected, bound.out, bound.out_bound)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_vmap_over_nothing(dropout):
    call = jax.vmap(lambda q, bias: attention(q, q, q, bias=bias, dropout=dropout))
    grads = jax.grad(lambda *x: call(*x).sum(), (0, 1))(jnp.zeros((0, 1, 4, 2, 8)), jnp.zeros((0, 2, 4, 4)))
    assert [grad.shape for grad in grads] == [(0, 1, 4, 2, 8), (0, 2, 4, 4)]


def test_gradient_of_a_vmapped_function_sums_over_what_was_shared():
    cases = [case_of("bias_broadcast")]
    cases.append(another(cases[0], 2))
    q, k, v, dout = (np.stack([getattr(case, name) for case in cases]) for name in ("q", "k", "v", "dout"))
    bias = cases[0].options["bias"]

    def loss(bias):
        return (jax.vmap(lambda q, k, v: attention(q, k, v, bias=bias))(q, k, v) * dout).sum()

    for case in cases:
        case.dlse[...] = 0
    truths = [case.truth()["dbias"] for case in cases]
    value, bound = (sum(part) for part in zip(*truths))
    gpu.assert_close(np.asarray(jax.jit(jax.grad(loss))(bias)), value, bound + 2.0**-24 * abs(value))


@pytest.mark.parametrize("wrap", ["checkpoint", "scan", "nothing_saveable", "eager"])
def test_checkpoint_and_scan(wrap):
    case = gpu.Case("bfloat16", causal=True, D=32, E=32)
    arrays, _ = split(case)
    case.dlse[...] = 0

    def layer(q, k, v):
        return attention(q, k, v, causal=True)

    wrapped = {"checkpoint": jax.checkpoint(layer), "eager": layer,
               "nothing_saveable": jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable),
               "scan": lambda q, k, v: jax.lax.scan(lambda c, _: (c, layer(q, k, v)), 0, None, length=1)[1][0]}[wrap]
    out, pull = jax.vjp(wrapped if wrap == "eager" else jax.jit(wrapped), *arrays.values())
    check(case, {"out": out, **dict(zip(("dq", "dk", "dv"), pull(jnp.asarray(case.dout))))})


SHARDED = """
import jax, numpy as np, gpu
from dlattn.jax import attention
from jax.sharding import PartitionSpec as P
from jax_programs import check, program

assert jax.device_count() == 2
mesh = jax.sharding.Mesh(jax.devices(), ("data",))
bias = np.random.default_rng(1).standard_normal((1, 4, 37, 53)).astype(np.float32)
case = gpu.Case("float32", bias=bias, causal=True)
for checked in (True, False):
    # shares of the batch; the bias is the same on both devices, and its gradient is summed over them
    def attend(q, k, v, bias):
        return attention(q, k, v, bias=bias, causal=True, return_lse=True)

    sharded = jax.shard_map(attend, mesh=mesh, in_specs=(P("data"), P("data"), P("data"), P()), out_specs=P("data"),
                            check_vma=checked)
    (out, lse), pull = jax.vjp(jax.jit(sharded), case.q, case.k, case.v, bias)
    grads = jax.jit(pull)((jax.numpy.asarray(case.dout), jax.numpy.asarray(case.dlse)))
    check(case, {"out": out, "lse": lse, **dict(zip(("dq", "dk", "dv", "dbias"), grads))})
    assert len(out.sharding.device_set) == 2
heads = jax.shard_map(lambda *x: attention(*x, causal=True), mesh=mesh, in_specs=P(None, None, "data"),
                      out_specs=P(None, None, "data"))
case = gpu.Case("float32", causal=True)
check(case, {"out": jax.jit(heads)(case.q, case.k, case.v)})

# sharding in types: attention gathers what it is given, and the gradients go back to where their parents are
case.dlse[...] = 0
explicit = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
with jax.set_mesh(explicit):
    q, k, v = (jax.device_put(x, jax.sharding.NamedSharding(explicit, P("data"))) for x in (case.q, case.k, case.v))
    out, pull = jax.vjp(jax.jit(lambda *x: attention(*x, causal=True)), q, k, v)
    grads = pull(jax.numpy.asarray(case.dout))
    assert all(jax.typeof(grad).sharding.spec[0] == "data" for grad in grads)
    check(case, {"out": out, **dict(zip(("dq", "dk", "dv"), grads))})
print("sharded")
"""


def test_shard_map_over_the_batch_and_over_heads():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "sharded\n", done.stderr[-3000:]


def test_second_derivatives_are_refused():
    q = normal(1, 4, 2, 8)
    once = jax.grad(lambda x: attention(x, q, q).sum())
    with pytest.raises(dlattn.UnsupportedError, match="first derivatives"):
        jax.grad(lambda x: once(x).sum())(q)


# ---- random numbers --------------------------------------------------------------------------------------------------

def test_rng_states_of_all_kinds_give_the_bits_of_the_seed():
    q = normal(B, M, H, D)
    seed, offset = 0x123456789ABCDEF0, 2**40 + 3
    expected = dlattn.attention(q, q, q, dropout=0.5, seed=seed, offset=offset)
    state = np.array([seed, offset], np.uint64)
    words = jnp.asarray(state.view(np.uint32))
    for given in (state, state.astype(np.int64), state.view(np.uint32), words):
        assert np.array_equal(attention(q, q, q, dropout=0.5, rng_state=given), expected)
    call = jax.jit(lambda q, state: attention(q, q, q, dropout=0.5, rng_state=state))
    assert np.array_equal(call(q, words), expected)
    assert not np.array_equal(call(q, words + 1), expected) and call._cache_size() == 1


def test_keys_of_jax_random_are_states():
    q = normal(B, M, H, D)
    typed, raw = (jax.random.fold_in(key(7), 1) for key in (jax.random.key, jax.random.PRNGKey))
    first, second = np.asarray(raw).tolist()
    expected = dlattn.attention(q, q, q, dropout=0.5, seed=first + (second << 32))
    call = jax.jit(lambda key: attention(q, q, q, dropout=0.5, rng_state=key))
    assert np.array_equal(call(typed), expected) and np.array_equal(call(raw), expected)
    found = jax.vmap(call)(jax.random.split(typed, 3))
    assert len({np.asarray(x).tobytes() for x in found}) == 3


def test_a_traced_position_decodes_without_a_new_program():
    """A cache of fixed size, of which `step` tokens are valid: the position is a traced scalar."""
    cache, q = normal(B, N, G, D), normal(B, 1, H, D)
    call = jax.jit(lambda step: attention(q, cache, cache, causal=True, positions=(step, 0)))
    for step in (0, 4, N - 1):
        assert np.array_equal(call(step), dlattn.attention(q, cache, cache, causal=True, positions=(step, 0)))
    assert call._cache_size() == 1


# ---- bad input -------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def refused(kind, match):
    with pytest.raises(kind, match=match) as caught:
        yield
    assert isinstance(caught.value, dlattn.Error) or kind is TypeError


def test_what_tracing_refuses():
    q = normal(1, 4, 2, 8)
    with refused(dlattn.ShapeError, "v"):
        jax.jit(attention)(q, q, q[:, :3])
    with refused(dlattn.ShapeError, "bias"):
        attention(q, q, q, bias=normal(3, 3))
    with refused(dlattn.DtypeError, "k"):
        attention(q, q.astype(np.float16), q)
    with refused(dlattn.DtypeError, "q has dtype complex64"):
        attention(q.astype(np.complex64), q, q)
    with refused(dlattn.ArgumentError, "softcap is a traced value"):
        jax.jit(lambda c: attention(q, q, q, softcap=c))(1.0)
    with refused(dlattn.ArgumentError, "layout"):
        attention(q, q, q, layout="bsdh")
    with refused(dlattn.ArgumentError, "dropout"):
        attention(q, q, q, dropout=1.5)
    with refused(TypeError, "unknown option 'colour'"):
        attention(q, q, q, colour=1)


def test_what_only_values_show_is_an_error_of_xla_with_the_sentence():
    q = normal(2, 4, 2, 8)
    call = jax.jit(lambda lengths: attention(q, q, q, seqlens_k=lengths))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARGUMENT: seqlens_k\[1\] is 99, expected 0 to 4"):
        jax.block_until_ready(call(np.array([3, 99], np.int32)))
    assert np.array_equal(call(np.array([3, 2], np.int32)), dlattn.attention(q, q, q, seqlens_k=[3, 2]))
