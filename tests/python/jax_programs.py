"""What the tests of dlattn.jax share: a problem of gpu.Case as JAX programs, and the comparison of all its results."""
from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest
from dlattn.jax import attention
from gpu import assert_true

DIFFERENTIABLE = ("q", "k", "v", "bias", "sinks")


@pytest.fixture(autouse=True)
def on_the_cpu():
    """For a module that imports it: its programs run on the CPU, also on a machine with a GPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def x64(on=True):
    """float64 and int64 in JAX, which has them off."""
    if not on:
        return contextlib.nullcontext()
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def split(case):
    """The case's tensors that have a gradient, by name, and its other options."""
    arrays = {"q": case.q, "k": case.k, "v": case.v}
    arrays.update({name: case.options[name] for name in ("bias", "sinks") if name in case.options})
    return arrays, {name: value for name, value in case.options.items() if name not in arrays}


def program(static=None):
    """(arrays, traced options, dout, dlse) -> {name: array} of out, lse and all gradients."""

    def results(arrays, traced, dout, dlse):
        def attend(arrays):
            rest = {name: x for name, x in arrays.items() if name not in ("q", "k", "v")}
            return attention(arrays["q"], arrays["k"], arrays["v"], return_lse=True, **rest, **traced, **(static or {}))

        (out, lse), pull = jax.vjp(attend, arrays)
        (grads,) = pull((dout.astype(out.dtype), dlse.astype(lse.dtype)))
        return {"out": out, "lse": lse, **{f"d{name}": grad for name, grad in grads.items()}}

    return results


def traced_and_static(options):
    """Arrays are traced; the rest is compiled in."""
    def is_array(value):
        return isinstance(value, np.ndarray) or isinstance(value, tuple) and any(isinstance(x, np.ndarray) for x in value)

    traced = {name: value for name, value in options.items() if is_array(value)}
    return traced, {name: value for name, value in options.items() if name not in traced}


def run(case, transform=jax.jit, put=lambda x: x):
    """All results of a case by one compiled program."""
    arrays, options = split(case)
    traced, static = traced_and_static(options)
    given = jax.tree.map(put, (arrays, traced, case.dout, case.dlse))
    return transform(program(static))(*given)


def check(case, found):
    assert_true(found, {}, case.truth())
