"""dlattn.jax.dot_product_attention beside jax.nn's own, computed by XLA in float64: values, gradients, and what differs."""
import dlattn
import gpu
import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from dlattn.jax import dot_product_attention
from gpu import Case, assert_true
from jax_programs import on_the_cpu, x64
from reference import UNIT

RNG = np.random.default_rng(11)
BIAS = RNG.standard_normal((2, 4, 37, 53)).astype(np.float32)
MASK = RNG.random((2, 1, 37, 53)) < 0.7
MASK[..., 0] = True  # no row without keys: there the two differ
LENGTHS = dict(query_seq_lengths=np.array([20, 37], np.int32), key_value_seq_lengths=np.array([53, 9], np.int32))

# name: (dtype, sizes, arguments)
CASES = {
    "plain": ("float32", {}, {}),
    "bfloat16": ("bfloat16", {}, dict(is_causal=True)),
    "float16": ("float16", {}, dict(is_causal=True, bias=BIAS)),
    "one_key_head": ("float32", dict(G=1), dict(is_causal=True)),
    "as_many_key_heads": ("float32", dict(G=4), {}),
    "causal_wide": ("float32", {}, dict(is_causal=True)),
    "causal_tall": ("float32", dict(M=53, N=37), dict(is_causal=True)),
    "scale": ("float32", {}, dict(scale=0.3)),
    "bias": ("float32", {}, dict(bias=BIAS)),
    "bias_broadcast": ("float32", {}, dict(bias=BIAS[:1, :1])),
    "bias_of_keys": ("float32", {}, dict(bias=BIAS[:, :1, :1])),
    "bias_and_causal": ("bfloat16", {}, dict(bias=BIAS[:1], is_causal=True)),
    "mask": ("float32", {}, dict(mask=MASK)),
    "mask_bias_causal": ("float32", {}, dict(mask=MASK, bias=BIAS, is_causal=True)),
    "lengths": ("float32", {}, LENGTHS),
    "lengths_causal": ("float32", {}, dict(LENGTHS, is_causal=True)),
    "query_lengths": ("bfloat16", {}, dict(query_seq_lengths=np.array([0, 30], np.int32))),
    "key_lengths": ("float32", {}, dict(key_value_seq_lengths=np.array([1, 30], np.int32))),
    "window": ("float32", {}, dict(local_window_size=(5, 2))),
    "window_one_number": ("float32", {}, dict(local_window_size=3)),
    "window_causal": ("float32", {}, dict(local_window_size=(4, 0), is_causal=True)),
    "window_zero": ("float32", {}, dict(local_window_size=0)),
    "window_lengths": ("float32", dict(M=20, N=20), dict(local_window_size=(20, 3), key_value_seq_lengths=np.array(
        [20, 7], np.int32))),
}
NAMES = {"is_causal": "causal", "query_seq_lengths": "seqlens_q", "key_value_seq_lengths": "seqlens_k",
         "local_window_size": "window"}


def case_of(name):
    dtype, sizes, given = CASES[name]
    options = {NAMES.get(key, key): value for key, value in given.items()}
    case = Case(dtype, **{"D": 16, "E": 16, **sizes, **options, "top_left": True})
    case.dlse[...] = 0
    return case, given


def results(function, case, given, dtype):
    """{name: array}: out and gradients by `function`, in one program where all arrays are traced."""
    arrays = {"query": case.q, "key": case.k, "value": case.v}
    if "bias" in given:
        arrays["bias"] = given["bias"]
    rest = {key: value for key, value in given.items() if key not in arrays}
    numbers = {key: value for key, value in rest.items() if not isinstance(value, np.ndarray)}
    rest = {key: value for key, value in rest.items() if key not in numbers}
    arrays = {key: np.asarray(value, dtype or value.dtype) for key, value in arrays.items()}

    def program(arrays, rest, dout):
        out, pull = jax.vjp(lambda x: function(**x, **rest, **numbers), arrays)
        return out, pull(dout.astype(out.dtype))[0]

    out, grads = jax.jit(program)(arrays, rest, case.dout if dtype is None else case.dout.astype(dtype))
    named = {"out": out, "dq": grads["query"], "dk": grads["key"], "dv": grads["value"]}
    if "bias" in grads:
        named["dbias"] = grads["bias"]
    return {key: np.asarray(value) for key, value in named.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_jax_nn(name):
    case, given = case_of(name)
    found = results(dot_product_attention, case, given, None)
    with x64():
        expected = results(jax.nn.dot_product_attention, case, given, np.float64)
    for key, array in found.items():
        parent = {"out": case.q, "dq": case.q, "dk": case.k, "dv": case.v, "dbias": given.get("bias")}[key]
        assert array.dtype == parent.dtype and array.shape == expected[key].shape, key
    assert_true(found, expected, case.truth())


def test_without_the_batch_dimension():
    case, given = case_of("bias_and_causal")
    bias = given["bias"][0]
    call = lambda function: function(case.q[0], case.k[0], case.v[0], bias, is_causal=True, return_residual=True)
    out, residual = call(dot_product_attention)
    peer, peer_residual = call(jax.nn.dot_product_attention)
    assert out.shape == peer.shape and residual.shape == peer_residual.shape and residual.dtype == peer_residual.dtype
    value, bound = case.truth()["out"]
    gpu.assert_close(np.asarray(out), value[0], bound[0])


@pytest.mark.parametrize("name", ["plain", "bfloat16", "bias", "mask_bias_causal"])
def test_vmap_of_unbatched_arrays(name):
    """bias per element, the mask shared by all, absent ones passed as None."""
    case, given = case_of(name)
    bias, mask = given.get("bias"), given.get("mask")
    mask = None if mask is None else mask[0]
    case.options["mask"] = None if mask is None else mask[None]

    def attend(q, k, v, bias, mask):
        return dot_product_attention(q, k, v, bias, mask, is_causal=given.get("is_causal", False))

    call = jax.vmap(attend, in_axes=(0, 0, 0, None if bias is None else 0, None))
    out, pull = jax.vjp(lambda *x: call(*x, mask), case.q, case.k, case.v, bias)
    grads = dict(zip(("dq", "dk", "dv", "dbias"), jax.jit(pull)(jax.numpy.asarray(case.dout))))
    if bias is None:
        assert grads.pop("dbias") is None
    assert_true({"out": out, **grads}, {}, case.truth())


def test_vjp_of_all_arguments_integers_and_booleans_too():
    case, given = case_of("lengths")
    mask = MASK[:1]
    case.options["mask"] = mask
    call = lambda q, k, v, mask, rows, keys: dot_product_attention(q, k, v, None, mask, query_seq_lengths=rows,
                                                                   key_value_seq_lengths=keys)
    out, pull = jax.vjp(call, case.q, case.k, case.v, mask, *given.values())
    dq, dk, dv, *others = pull(jax.numpy.asarray(case.dout))
    assert all(x.dtype == jax.dtypes.float0 for x in others)
    assert_true({"out": out, "dq": dq, "dk": dk, "dv": dv}, {}, case.truth())


@pytest.mark.parametrize("name", ["plain", "bfloat16", "bias", "lengths", "window"])
def test_the_residual(name):
    """[B,T,N] of key's dtype, without gradient."""
    case, given = case_of(name)
    arguments = {"return_residual": True, **given}
    out, residual = dot_product_attention(case.q, case.k, case.v, **arguments)
    _, peer = jax.nn.dot_product_attention(case.q, case.k, case.v, **arguments)
    assert residual.shape == peer.shape and residual.dtype == peer.dtype
    value, bound = case.truth()["lse"]
    rows = np.isfinite(value)
    bound = bound + np.where(rows, UNIT[np.dtype(case.dtype).name] * abs(np.where(rows, value, 0)), 0)
    gpu.assert_close(np.asarray(residual).swapaxes(1, 2), value, bound)
    grad = jax.grad(lambda q: dot_product_attention(q, case.k, case.v, **arguments)[1].astype(np.float32).sum())(case.q)
    assert not np.asarray(grad).any()


def test_a_query_that_sees_no_key_gives_zero():
    """jax.nn averages over the values there; the seam is written down in the documentation."""
    case, _ = case_of("plain")
    mask = np.ones((1, 1, 37, 53), bool)
    mask[0, 0, 5] = False
    out, residual = dot_product_attention(case.q, case.k, case.v, mask=mask, return_residual=True)
    peer = np.asarray(jax.nn.dot_product_attention(case.q, case.k, case.v, mask=mask))
    mean = np.repeat(case.v.mean(1), 2, 1)
    assert not np.asarray(out)[:, 5].any() and (np.asarray(residual)[:, 5] == -np.inf).all()
    assert np.abs(peer[:, 5] - mean).max() < 2.0**-20 * np.abs(case.v).sum()
    grads = jax.grad(lambda q: dot_product_attention(q, case.k, case.v, mask=mask).sum())(case.q)
    assert not np.asarray(grads)[:, 5].any()


def test_values_of_another_size_than_keys():
    case = Case("float32", D=16, E=24, top_left=True)
    out = dot_product_attention(case.q, case.k, case.v)
    assert_true({"out": out}, {}, case.truth())


def test_bias_of_another_dtype():
    case, given = case_of("bias_and_causal")
    half = given["bias"].astype(np.float16)
    out, pull = jax.vjp(lambda b: dot_product_attention(case.q, case.k, case.v, b, is_causal=True), half)
    expected = dot_product_attention(case.q, case.k, case.v, half.astype(np.float32), is_causal=True)
    assert np.array_equal(out, expected) and pull(out)[0].dtype == np.float16


def test_bad_input():
    case, _ = case_of("plain")
    q, k, v = case.q, case.k, case.v
    with pytest.raises(dlattn.ArgumentError, match="implementation"):
        dot_product_attention(q, k, v, implementation="flash")
    with pytest.raises(dlattn.ArgumentError, match="mask has dtype float32"):
        dot_product_attention(q, k, v, mask=np.ones((1, 1, 37, 53), np.float32))
    with pytest.raises(dlattn.ArgumentError, match="local_window_size"):
        dot_product_attention(q, k, v, local_window_size=(3, -1))
    with pytest.raises(dlattn.ShapeError, match="heads"):
        dot_product_attention(q[:, :, :3], k, v)
    for implementation in (None, "xla", "cudnn"):
        assert dot_product_attention(q, k, v, implementation=implementation).shape == q.shape
