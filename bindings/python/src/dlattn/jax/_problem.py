"""The keyword arguments of attention as arrays, which JAX traces, and fields, which are compiled into the program."""
from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy

from .. import _raw
from .._errors import argument_error
from .._options import FLAGS, INTEGERS, Options, integer, layout_code, number, pair

ARRAYS = ("bias", "mask", "alibi_slopes", "sinks", "cu_seqlens_q", "cu_seqlens_k", "seqlens_q", "seqlens_k", "block_table")
_STATIC = "is a traced value; expected a Python number, since it is compiled into the program"


def _static(name: str, value):
    if isinstance(value, jax.core.Tracer):
        raise argument_error(f"{name} {_STATIC}")
    return value


def _array(value) -> jax.Array:
    return value if isinstance(value, jax.Array) else jnp.asarray(value)  # asarray of an Array takes 20 us


def _signed(value: int) -> int:
    """64 bits as the int64 that an attribute of XLA is."""
    return value - 2**64 if value >= 2**63 else value


def rng_state(value) -> jax.Array:
    """[2] 64-bit integers, [4] uint32, or a key of jax.random, whose words become the seed."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        if value.shape == (2,) and value.dtype == jnp.uint32:
            value = jnp.concatenate([value, jnp.zeros(2, jnp.uint32)])
        return value
    words = numpy.asarray(value)
    if words.dtype.kind in "iu" and words.dtype.itemsize == 8:  # which JAX would cut to 32 bits
        words = words.view(numpy.uint32)
    return jnp.asarray(words)


def _window(value) -> dict:
    if hasattr(value, "__index__"):
        value = (value, value)
    left, right = (-1 if bound is None else integer("window", _static("window", bound)) for bound in pair("window", value))
    return {"window_left": left, "window_right": right}


def _positions(value, batch: tuple) -> tuple[dict, dict]:
    """First positions: numbers become fields, arrays [B] or scalars, traced ones too, become arrays."""
    arrays, fields = {}, {}
    for side, start in zip("qk", pair("positions", value)):
        if isinstance(start, (jax.Array, numpy.ndarray, list, tuple)):
            start = _array(start)
            arrays[f"{side}_starts"] = start if start.ndim else jnp.broadcast_to(start, batch)
        elif start is not None:
            fields[f"{side}_start"] = integer(f"{side}_start", start)
    return arrays, fields


def read(q, k, v, options: dict) -> tuple[dict, tuple]:
    """(arrays by name, fields as sorted pairs of a name and a number)."""
    arrays = {"q": _array(q), "k": _array(k), "v": _array(v)}
    fields, flags = {}, 0
    for name, value in options.items():
        if value is None:
            continue
        if name in FLAGS:
            if operator.truth(_static(name, value)):
                flags |= FLAGS[name]
        elif name in ARRAYS:
            arrays[name] = _array(value)
        elif name == "rng_state":
            arrays[name] = rng_state(value)
        elif name in ("seed", "offset"):
            fields[name] = _signed(integer(name, _static(name, value), *INTEGERS[name]))
        elif name in INTEGERS:
            fields[name] = integer(name, _static(name, value), *INTEGERS[name])
        elif name in ("softcap", "dropout"):
            fields[name] = number(name, _static(name, value))
        elif name == "scale":
            fields[name] = number(name, _static(name, value))
            flags |= _raw.DLATTN_SCALE
        elif name == "layout":
            fields[name] = layout_code(value)
        elif name == "window":
            fields.update(_window(value))
            flags |= _raw.DLATTN_WINDOW
        elif name == "block_window":
            size, count = pair(name, value)
            fields["block_size"], fields["block_count"] = integer("block_size", size), integer("block_count", count)
            flags |= _raw.DLATTN_BLOCK_WINDOW
        elif name == "segments":
            sides = pair(name, value) if isinstance(value, (tuple, list)) else (value, value)
            arrays["q_segments"], arrays["kv_segments"] = map(_array, sides)
        elif name == "positions":
            packed = options.get("cu_seqlens_q")
            batch = arrays["q"].shape[:1] if packed is None else (len(packed) - 1,)
            more, numbers = _positions(value, batch)
            arrays.update(more)
            fields.update(numbers)
            flags |= _raw.DLATTN_POSITIONS
        elif name == "num_threads":
            fields[name] = integer(name, value, -2**31, 2**31)
        else:
            raise TypeError(f"unknown option {name!r}; expected one of {', '.join(Options.__annotations__)}")
    fields["flags"] = flags
    # 0 is what an absent field is; and which of two zeros a scale is matters to nobody
    return arrays, tuple(sorted((name, value) for name, value in fields.items() if value))
