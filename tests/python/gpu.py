"""What the tests on CUDA share: when to skip, arrays of three frameworks from one NumPy array, bounds on the truth."""
from __future__ import annotations

import os
import sys

import dlattn
import ml_dtypes
import numpy as np
import pytest
from reference import Reference, assert_close

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the memory at once

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def require(name):
    """The framework, when it and this build of the library both see a CUDA device; else the module is skipped."""
    framework = pytest.importorskip(name, reason=f"{name} is not installed")
    devices = {"torch": lambda: framework.cuda.device_count(), "cupy": lambda: framework.cuda.runtime.getDeviceCount(),
               "jax": lambda: len(framework.devices("cuda"))}
    try:
        count = devices[name]()
    except Exception as reason:  # each framework has an exception of its own for this
        pytest.skip(f"{name} finds no CUDA device: {str(reason).splitlines()[0]}", allow_module_level=True)
    if not count:
        pytest.skip(f"{name} finds no CUDA device", allow_module_level=True)
    if "backend: cuda" not in dlattn.explain():
        pytest.skip("the library was built without CUDA", allow_module_level=True)
    return framework


def to_torch(array, device="cuda"):
    import torch

    wide = torch.from_numpy(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)
    return wide.to(device, getattr(torch, array.dtype.name))


def to_cupy(array):
    import cupy

    return cupy.asarray(array)


def to_jax(array):
    import jax

    return jax.device_put(array, jax.devices("cuda")[0])


MAKERS = {"torch": to_torch, "cupy": to_cupy, "jax": to_jax}


def to_numpy(array):
    """Any framework's array as NumPy's, of the same dtype."""
    if isinstance(array, np.ndarray):
        return array
    root = type(array).__module__.partition(".")[0]
    if root == "torch":
        name = str(array.dtype).rpartition(".")[2]
        return array.detach().float().cpu().numpy().astype(DTYPES[name]) if name == "bfloat16" else array.cpu().numpy()
    return array.get() if root == "cupy" else np.asarray(array)


class Case:
    """One problem in NumPy: q, k, v, dout, dlse and options, the truth in float64, and bounds on what rounding may do."""

    def __init__(self, dtype, B=2, M=37, N=53, H=4, G=2, D=40, E=24, **options):
        rng = np.random.default_rng([M, N, H, D, E])
        self.dtype, self.options, self.rng = DTYPES[dtype], options, rng
        self.q, self.k, self.v, self.dout = (self.normal(*shape) for shape in (
            (B, M, H, D), (B, N, G, D), (B, N, G, E), (B, M, H, E)))
        self.dlse = rng.standard_normal((B, H, M)).astype(np.float32)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def inputs(self, make):
        return tuple(make(x) for x in (self.q, self.k, self.v))

    def wanted(self):
        return ["dq", "dk", "dv"] + [f"d{name}" for name in ("bias", "sinks") if name in self.options]

    def truth(self):
        """{name: (value, bound)} of out, lse and the gradients. The backward reads an out and an lse that are rounded;
        what that may add comes on top of the reference's bounds."""
        r = Reference(self.q, self.k, self.v, **self.options)
        dlse = np.asarray(self.dlse, np.float64)
        found = r.gradients(self.dout, r.out, r.lse, dlse, self.options.get("bias"))
        dout = np.abs(np.asarray(self.dout, np.float64)).transpose(0, 2, 1, 3)
        finite = np.isfinite(r.lse)
        delta = (dout * r.out_bound.transpose(0, 2, 1, 3)).sum(-1)
        lse_bound = np.where(finite, r.lse_bound, 0)[..., None]
        p = r.weights(r.lse)
        delta_size = ((dout * np.abs(r.out).transpose(0, 2, 1, 3)).sum(-1) + np.where(finite, abs(dlse), 0))[..., None]
        size = (dout @ np.abs(r.v).transpose(0, 1, 3, 2)) * r.keep + delta_size
        ds = p * (delta[..., None] + lse_bound * size)
        extra = {"dq": abs(r.scale) * ds @ abs(r.k), "dk": abs(r.scale) * self._group(ds, abs(r.q), r.group),
                 "dv": self._group(p * r.keep * lse_bound, dout, r.group)}
        extra = {name: x.transpose(0, 2, 1, 3) for name, x in extra.items()}
        if "bias" in self.options:
            shape = self.options["bias"].shape
            axes = tuple(range(4 - len(shape))) + tuple(4 - len(shape) + axis for axis, extent in enumerate(shape)
                                                        if extent == 1 and ds.shape[4 - len(shape) + axis] != 1)
            extra["dbias"] = ds.sum(axes).reshape(shape)
        if "sinks" in self.options:
            weight = np.where(finite, np.exp(r.sinks - np.where(finite, r.lse, 0)), 0)
            extra["dsinks"] = (weight * (delta + lse_bound[..., 0] * delta_size[..., 0])).sum((0, 2))
        return {"out": (r.out, r.out_bound), "lse": (r.lse, r.lse_bound),
                **{name: (value, bound + extra[name]) for name, (value, bound) in found.items()}}

    @staticmethod
    def _group(left, right, group):
        product = left.transpose(0, 1, 3, 2) @ right
        B, H, N, D = product.shape
        return product.reshape(B, H // group, group, N, D).sum(2)

    def run(self, make, **changes):
        """{name: array} from the library, in the framework of `make`."""
        options = {name: make(value) if isinstance(value, np.ndarray) else value for name, value in self.options.items()}
        options.update(changes)
        q, k, v = self.inputs(make)
        out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
        grads = dlattn.attention_backward(make(self.dout), q, k, v, out, lse, dlse=make(self.dlse), grads=self.wanted(),
                                          **options)
        return {"out": out, "lse": lse, **{name: getattr(grads, name) for name in self.wanted()}}


def assert_true(found, expected, truth):
    """Every result is within the bound on the truth, and of what the framework itself computes in float64."""
    for name, array in found.items():
        value, bound = truth[name]
        assert_close(to_numpy(array), value, bound, name)
        if name in expected:
            assert_close(to_numpy(array), np.asarray(to_numpy(expected[name]), np.float64), bound, f"{name} of the peer")


def same_bits(left, right):
    return all(np.array_equal(to_numpy(a), to_numpy(b), equal_nan=True) for a, b in zip(left, right, strict=True))


def cases():
    """Named problems: (dtype, sizes and options)."""
    rng = np.random.default_rng(7)
    bias = rng.standard_normal((1, 4, 37, 53)).astype(np.float32)
    sinks = rng.standard_normal(4).astype(np.float32)
    lengths = np.array([20, 53], np.int32)
    return {
        "full_float32": ("float32", {}),
        "full_bfloat16": ("bfloat16", dict(D=64, E=64)),
        "full_float16": ("float16", dict(D=128, E=128, M=130, N=140)),
        "causal": ("bfloat16", dict(causal=True)),
        "causal_square": ("bfloat16", dict(causal=True, M=64, N=64, D=64, E=64)),
        "window": ("float16", dict(window=(9, 3))),
        "bias": ("bfloat16", dict(bias=bias)),
        "sinks_softcap": ("float32", dict(sinks=sinks, softcap=5.0)),
        "lengths": ("bfloat16", dict(seqlens_k=lengths, causal=True)),
        "mask": ("float32", dict(mask=rng.random((1, 1, 37, 53)) < 0.7)),
        "dropout": ("bfloat16", dict(dropout=0.25, seed=3, offset=2**40)),
    }


if "torch" in sys.modules:  # matrix products of the peers in float32 as they stand
    sys.modules["torch"].backends.cuda.matmul.allow_tf32 = False
