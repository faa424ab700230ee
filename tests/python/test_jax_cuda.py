"""dlattn.jax on CUDA: values and gradients of compiled programs, vmap, command buffers, and that the host never waits."""
import ctypes
import time

import gpu
import numpy as np
import pytest

jax = gpu.require("jax")

import jax.numpy as jnp
import test_jax_nn
from dlattn._library import library
from dlattn.jax import _calls, _handlers, attention, dot_product_attention
from jax_programs import check, program, run, split, traced_and_static, x64

CASES = gpu.cases()


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = gpu.Case(dtype, **options)
    found = run(case, put=gpu.to_jax)
    assert all(x.device.platform == "gpu" for x in found.values())
    check(case, found)


@pytest.mark.parametrize("name", ["full_bfloat16", "bias", "lengths", "dropout", "sinks_softcap"])
def test_vmap(name):
    dtype, options = CASES[name]
    cases = [gpu.Case(dtype, **options) for _ in range(3)]
    for turn, case in enumerate(cases):
        case.rng = np.random.default_rng(turn)
        case.q, case.k, case.v, case.dout = (case.normal(*x.shape) for x in (case.q, case.k, case.v, case.dout))
    arrays, rest = split(cases[0])
    traced, static = traced_and_static(rest)
    stacked = {key: np.stack([getattr(case, key) for case in cases]) for key in ("q", "k", "v")}
    axes = {key: 0 if key in stacked else None for key in arrays}
    call = jax.jit(jax.vmap(program(static), in_axes=(axes, None, 0, 0)))
    found = call({**arrays, **stacked}, traced, np.stack([case.dout for case in cases]),
                 np.stack([case.dlse for case in cases]))
    for turn, case in enumerate(cases):
        check(case, {key: x[turn] for key, x in found.items()})


class Calls:
    """Counts the library's calls that XLA makes from the host; a replayed command buffer makes none."""

    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    prepare_kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)

    def __enter__(self):
        self.forward = self.backward = self.prepare = 0
        self.handlers = _handlers._load()
        self.kept = [self._counting(name, kind) for name, kind in (("forward", self.kind), ("backward", self.kind),
                                                                   ("prepare", self.prepare_kind))]
        self._connect(self.kept)
        return self

    def _counting(self, name, kind):
        real = kind(ctypes.cast(getattr(library, f"dlattn_{name}"), ctypes.c_void_p).value)

        def call(*arguments):
            setattr(self, name, getattr(self, name) + 1)
            return real(*arguments)

        return kind(call)

    def _connect(self, functions):
        self.handlers.dlattn_xla_connect(*(ctypes.cast(function, ctypes.c_void_p) for function in functions))

    def __exit__(self, *_):
        self._connect([library.dlattn_forward, library.dlattn_backward, library.dlattn_prepare])


def test_calls_become_parts_of_command_buffers():
    """Six layers in one program: after the first runs the host calls the library no more, and other data counts."""
    layers, runs = 6, 10
    q = [gpu.to_jax(np.random.default_rng(n).standard_normal((2, 256, 4, 64)).astype(gpu.DTYPES["bfloat16"]))
         for n in range(2)]
    expected = []
    for x in q:
        for _ in range(layers):
            x = attention(x, x, x, causal=True)
        expected.append(np.asarray(x))

    @jax.jit
    def network(x):
        for _ in range(layers):
            x = attention(x, x, x, causal=True)
        return x

    with Calls() as calls:
        for turn in range(runs):
            assert np.array_equal(np.asarray(network(q[turn % 2])), expected[turn % 2])
            if turn == 0:
                first = calls.forward
    print(f"{layers} layers, {runs} runs: {calls.forward} host calls of forward, {calls.prepare} of prepare")
    assert first >= layers and calls.prepare >= layers
    assert calls.forward <= layers * runs // 2


def test_training_steps_in_command_buffers_give_what_single_calls_give():
    case = gpu.Case("bfloat16", M=64, N=64, D=64, E=64, causal=True, deterministic=True)
    del case.options["deterministic"]
    arrays, _ = split(case)
    step = program({"causal": True, "deterministic": True})
    whole = jax.jit(lambda *x: [step(*x) for _ in range(3)])
    for _ in range(6):
        for found in whole(arrays, {}, case.dout, case.dlse):
            check(case, found)


def test_the_host_does_not_wait():
    """Behind a quarter of a second of work on the device, forward and backward are queued while it is still busy."""
    size = 8192
    x = gpu.to_jax(np.ones((size, size), np.float32))

    @jax.jit
    def busy(x):
        for _ in range(12):
            x = x @ x / size
        return x

    @jax.jit
    def train(x):
        q = x.ravel()[:2 * 512 * 8 * 64].reshape(2, 512, 8, 64).astype(jnp.bfloat16)
        return jax.grad(lambda q: (attention(q, q, q, causal=True).astype(jnp.float32) ** 2).sum())(q)

    jax.block_until_ready(train(busy(x)))
    start = time.perf_counter()
    result = train(busy(x))
    queued = time.perf_counter() - start
    jax.block_until_ready(result)
    done = time.perf_counter() - start
    print(f"queued after {1e3 * queued:.2f} ms, done after {1e3 * done:.1f} ms")
    assert queued < done / 4


def test_the_workspace_is_the_programs():
    """The backward's workspace is a result of the call, which XLA plans; its size is the library's bound."""
    q = jnp.ones((2, 256, 4, 64), jnp.bfloat16)
    lowered = jax.jit(jax.grad(lambda q: attention(q, q, q).astype(jnp.float32).sum())).lower(q)
    call = lowered.as_text().partition("@dlattn_backward")[2].partition("\n")[0]
    assert 'results = "dq dk dv workspace"' in call
    shape, word = (2, 256, 4, 64), _calls._word("q", q.dtype)
    tensors = tuple((name, (shape, word)) for name in ("q", "k", "v", "out", "dout"))
    lse = (("lse", ((2, 4, 256), _calls._word("lse", jnp.dtype("float32")))),)
    results = tuple((name, (shape, word)) for name in ("dq", "dk", "dv"))
    size = _calls._workspace((*tensors, *lse), (), results)
    assert size >= 4 * q.size and f"tensor<{size}xui8>" in call
    assert lowered.compile().memory_analysis().temp_size_in_bytes >= size


def test_lengths_may_change_between_replays():
    case = gpu.Case("float32")
    call = jax.jit(lambda *x: [attention(*x[:3], seqlens_k=x[3], causal=True) for _ in range(6)])
    for lengths in ([20, 53], [53, 1], [7, 7], [20, 53]):
        case.options = dict(seqlens_k=np.array(lengths, np.int32), causal=True)
        for out in call(case.q, case.k, case.v, case.options["seqlens_k"]):
            check(case, {"out": out})


@pytest.mark.parametrize("name", test_jax_nn.CASES)
def test_dot_product_attention(name):
    case, given = test_jax_nn.case_of(name)
    found = test_jax_nn.results(dot_product_attention, case, given, None)
    with x64():
        expected = test_jax_nn.results(jax.nn.dot_product_attention, case, given, np.float64)
    gpu.assert_true(found, expected, case.truth())


def test_what_cuda_refuses_is_an_error_of_the_program():
    with x64():
        q = jnp.ones((1, 4, 2, 8), jnp.float64)
        with pytest.raises(jax.errors.JaxRuntimeError, match="float64"):
            jax.block_until_ready(jax.jit(attention)(q, q, q))
