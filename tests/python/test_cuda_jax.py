"""JAX arrays on CUDA: values beside jax.nn.dot_product_attention, order, lifetimes, bad input."""
import dlattn
import gpu
import numpy as np
import pytest
from gpu import Case, assert_true, same_bits, to_jax

jax = gpu.require("jax")
CASES = gpu.cases()
PEERS = ("full_float32", "full_bfloat16", "full_float16", "causal_square", "bias", "mask")


def dot_product_attention(case):
    """out and gradients in float64 by JAX, from what its attention can say."""
    options = dict(case.options)
    context = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with context(True):
        given = {name: to_jax(np.asarray(options.pop(name), np.float64 if name == "bias" else bool))
                 for name in ("bias", "mask") if name in options}
        causal = options.pop("causal", False)
        assert not options

        def attend(q, k, v, bias=None):
            return jax.nn.dot_product_attention(q, k, v, bias, given.get("mask"), is_causal=causal,
                                                implementation="xla")

        inputs = [to_jax(np.asarray(x, np.float64)) for x in (case.q, case.k, case.v)]
        inputs += [given["bias"]] if "bias" in given else []
        out, pull = jax.vjp(attend, *inputs)
        grads = pull(to_jax(np.asarray(case.dout, np.float64)))
        return {"out": np.asarray(out), **dict(zip(("dq", "dk", "dv", "dbias"), map(np.asarray, grads)))}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = Case(dtype, **{**options, "E": options.get("D", 40)})  # JAX's own wants values as long as keys
    case.dlse[...] = 0  # JAX's attention gives no lse to differentiate
    found = case.run(to_jax)
    for key, array in found.items():
        assert isinstance(array, jax.Array) and array.device.platform == "gpu", key
    assert found["out"].dtype == found["dq"].dtype == gpu.DTYPES[dtype] and found["lse"].dtype == np.float32
    assert_true(found, dot_product_attention(case) if name in PEERS else {}, case.truth())


def test_inputs_that_are_still_being_computed():
    """The call waits for them on the device, and JAX may read the result at once."""
    grow = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: y @ y / 2048, x))
    ones = to_jax(np.ones((2048, 2048), np.float32))
    expected = np.asarray(grow(ones)).ravel()[:2 * 64 * 2 * 32].reshape(2, 64, 2, 32)
    for _ in range(3):
        q = grow(ones).ravel()[:2 * 64 * 2 * 32].reshape(2, 64, 2, 32)
        out = dlattn.attention(q, q, q)
        twice = np.asarray(jax.jit(lambda x: 2 * x)(out))
        plain = to_jax(expected)
        assert (twice == 2 * np.asarray(dlattn.attention(plain, plain, plain))).all()


def test_inputs_and_results_that_go_away_at_once():
    """Memory of a dropped array is JAX's to use again, but not before the call has read it."""
    make = jax.jit(lambda n: jax.numpy.sin(n + jax.numpy.arange(4 * 512 * 4 * 64, dtype=np.float32)).reshape(4, 512, 4, 64))
    expected = [np.asarray(dlattn.attention(*[make(float(n))] * 3)) for n in range(4)]
    for turn in range(40):
        n = turn % 4
        out = dlattn.attention(make(float(n)), make(float(n)), make(float(n)))
        noise = make(99.0 + turn)
        assert np.array_equal(np.asarray(out), expected[n])
        del out, noise


def test_a_torch_call_with_jax_arrays_that_go_away():
    torch = gpu.require("torch")
    q = torch.randn(2, 300, 4, 64, device="cuda", dtype=torch.float32)
    k = q.cpu().numpy()
    expected = dlattn.attention(q, q, q)
    for _ in range(10):
        torch.cuda._sleep(10**7)
        out = dlattn.attention(q, to_jax(k), to_jax(k))
        noise = [to_jax(np.full_like(k, np.nan)) for _ in range(2)]
        assert torch.equal(out, expected)
        del noise


def test_empty_and_permuted_arrays():
    q = jax.numpy.zeros((2, 0, 2, 16), np.float32)
    assert dlattn.attention(q, q, q).shape == q.shape
    x = to_jax(np.random.default_rng(1).standard_normal((2, 2, 30, 16)).astype(np.float32))
    moved = jax.numpy.transpose(x, (0, 2, 1, 3))
    assert same_bits([dlattn.attention(x, x, x, layout="bhsd").transpose(0, 2, 1, 3)],
                     [dlattn.attention(moved, moved, moved)])


def test_bad_input():
    q = to_jax(np.ones((1, 4, 2, 16), np.float32))
    with pytest.raises(dlattn.ArgumentError, match="out: .*read-only"):
        dlattn.attention(q, q, q, out=q)
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(q, np.asarray(q), q)
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(np.asarray(q), q, np.asarray(q))
    with pytest.raises(dlattn.ArgumentError, match="q: .*Tracer gives no DLPack tensor"):
        jax.jit(lambda x: dlattn.attention(x, x, x))(q)
    deleted = jax.numpy.ones((1, 4, 2, 16))
    deleted.delete()
    with pytest.raises(dlattn.ArgumentError, match="k"):
        dlattn.attention(q, deleted, q)
