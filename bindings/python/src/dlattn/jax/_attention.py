"""attention(q, k, v, ...) with its derivative."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .. import _raw
from .._errors import argument_error, error
from .._options import Array, Options, with_options
from . import _problem, _vmap
from ._calls import GRADIENTS

if TYPE_CHECKING:
    from typing_extensions import Unpack


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(fields, wide, arrays):
    return _vmap.forward(fields, wide)(arrays)


def _once(function):
    """The function, whose own derivative is refused in our words: it is a derivative already, or a part of one."""
    once = jax.custom_jvp(function, nondiff_argnums=(0, 1))

    @once.defjvp
    def refuse(fields, choice, primals, tangents):
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "dlattn computes first derivatives; the backward of attention cannot be "
                    "differentiated again")

    return once


@_once
def _first_time(fields, wide, arrays):
    return _vmap.forward(fields, wide)(arrays)


@_once
def _first_derivative(fields, wanted, arrays):
    return _vmap.backward(fields, wanted)(arrays)


def _attend_forward(fields, wide, primals):
    arrays = {name: primal.value for name, primal in primals.items()}
    out, lse = _first_time(fields, wide, arrays)
    # the structure of what is kept says which gradients are wanted, since its leaves are arrays
    wanted = {gradient: () for gradient, parent in GRADIENTS.items() if parent in primals and primals[parent].perturbed}
    return (out, lse), (arrays, out, lse, wanted)


def _attend_backward(fields, wide, kept, cotangents):
    arrays, out, lse, wanted = kept
    dout, dlse = cotangents
    q = arrays["q"]
    if isinstance(dout, SymbolicZero):
        dout = jnp.zeros_like(out)
    incoming = {"out": out, "lse": lse, "dout": dout.astype(q.dtype)}
    if not isinstance(dlse, SymbolicZero):
        incoming["dlse"] = dlse
    names = tuple(name for name in GRADIENTS if name in wanted)
    found = _first_derivative(fields, names, {**arrays, **incoming}) if names else ()
    grads = {GRADIENTS[name]: grad for name, grad in zip(names, found)}
    return ({name: grads.get(name) for name in arrays},)


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)
_jitted = jax.jit(_attend, static_argnums=(0, 1), inline=True)  # an eager call is one compiled program


def _place_alike(arrays: dict) -> dict:
    """Arrays that differ in how they lie on several devices, so that one opaque call may take them all.

    Under explicit sharding each becomes whole on every device, as XLA does where sharding is automatic. Inside of
    shard_map those that are the same on every device become arrays that may differ, as the others do; their gradients are
    then summed over the devices."""
    if not any(isinstance(x, jax.core.Tracer) for x in arrays.values()):
        return arrays
    types = {name: jax.typeof(x) for name, x in arrays.items()}
    arrays = {name: jax.sharding.reshard(x, jax.sharding.PartitionSpec()) if any(types[name].sharding.spec) else x
              for name, x in arrays.items()}
    axes = {name: kind.mat.varying for name, kind in types.items()}
    union = frozenset().union(*axes.values())
    return {name: jax.lax.pcast(x, tuple(sorted(union - axes[name])), to="varying") if union - axes[name] else x
            for name, x in arrays.items()}


@with_options
def attention(q: Array, k: Array, v: Array, *, return_lse: bool = False, out_dtype=None, **options: Unpack[Options]):
    """Exact attention with gradients: softmax(scale * q k^T + ...) v, without ever storing the M x N scores.

    Works under jit, grad, vmap, shard_map and checkpoint, on the CPU and on CUDA. Letters and options: see
    ``dlattn.Options``; numbers among them are compiled into the program, arrays may be traced, and so may scalars of
    ``positions``. ``rng_state`` may also be a key of jax.random.

    Args:
        q: [B,M,H,D] (layout "bhsd": [B,H,M,D]; packed [T,H,D] or [H,T,D] with cu_seqlens_q), float16, bfloat16,
            float32 or, on the CPU, float64.
        k: [B,N,G,D]. v: [B,N,G,E]. G divides H; the dtype of q.
        return_lse: also return the log-sum-exp of each row, [B,H,M] (packed [H,T]); it has a gradient too.
        out_dtype: None (the dtype of q) or "float32" (unrounded).

    Returns:
        out, or (out, lse). q, k, v, bias and sinks have gradients, of their own dtype; other arrays have none.

    Raises:
        ArgumentError, ShapeError, DtypeError, UnsupportedError: while tracing, with the library's sentence. What only
        the values of arrays or the device can show is a JaxRuntimeError with the sentence.
    """
    arrays, fields = _problem.read(q, k, v, options)
    if out_dtype is not None and jnp.dtype(out_dtype) not in (jnp.dtype("float32"), arrays["q"].dtype):
        raise argument_error(f"out_dtype is {out_dtype!r}; expected 'float32' or the dtype of q")
    wide = out_dtype is not None and jnp.dtype(out_dtype) != arrays["q"].dtype
    out, lse = _jitted(fields, wide, _place_alike(arrays))
    return (out, lse) if return_lse else out
