"""vmap: the mapped dimension becomes part of the batch where that means the same, and a loop elsewhere.

It means the same for padded layouts without dropout (whose random bits count batches), unless sinks are mapped or have a
gradient: they have no batch dimension.
"""
from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from . import _calls

_MASKS = ("bias", "mask")  # right-aligned to [B,H,M,N]
_LOOPS = ("cu_seqlens_q", "cu_seqlens_k", "block_table", "rng_state")


def _each(x, mapped: bool, size: int):
    """With the mapped dimension in front, also where it is not mapped."""
    return x if mapped else jnp.broadcast_to(x, (size, *x.shape))


def _fold(x, mapped: bool, size: int):
    """[size, B, ...] as [size*B, ...]."""
    x = _each(x, mapped, size)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _unfold(x, size: int, batch: int):
    return x.reshape(size, batch, *x.shape[1:])


def _batch(arrays: dict, mapped: dict) -> int:
    return arrays["q"].shape[1 if mapped["q"] else 0]


def _fold_mask(x, mapped: bool, size: int, batch: int, each: bool):
    """bias or mask. each: with a slice per mapped element, also where it is not mapped."""
    if not mapped and not each and (x.ndim < 4 or x.shape[0] == 1):
        return x
    x = _each(x, mapped, size)
    x = x.reshape(size, *(1,) * (5 - x.ndim), *x.shape[1:])
    return jnp.broadcast_to(x, (size, batch, *x.shape[2:])).reshape(size * batch, *x.shape[2:])


def _fold_slopes(x, mapped: bool, size: int, batch: int):
    if not mapped and x.ndim == 1:
        return x
    x = _each(x, mapped, size)
    x = x[:, None] if x.ndim == 2 else x
    return jnp.broadcast_to(x, (size, batch, x.shape[-1])).reshape(size * batch, x.shape[-1])


def _fold_all(arrays: dict, mapped: dict, size: int, bias_each: bool) -> dict:
    batch = _batch(arrays, mapped)
    folded = {}
    for name, x in arrays.items():
        if name in _MASKS:
            folded[name] = _fold_mask(x, mapped[name], size, batch, bias_each and name == "bias")
        elif name == "alibi_slopes":
            folded[name] = _fold_slopes(x, mapped[name], size, batch)
        elif name == "sinks":
            folded[name] = x
        else:
            folded[name] = _fold(x, mapped[name], size)
    return folded


def _must_loop(arrays: dict, mapped: dict, fields: tuple, names: tuple) -> bool:
    return ("dropout" in dict(fields) or any(name in arrays for name in _LOOPS) or mapped.get("sinks", False)
            or "dsinks" in names)


def _loop(function, arrays: dict, mapped: dict):
    fixed = {name: x for name, x in arrays.items() if not mapped[name]}
    moving = {name: x for name, x in arrays.items() if mapped[name]}
    order = tuple(arrays)

    def one(x):
        every = {**fixed, **x}
        return function({name: every[name] for name in order})

    return jax.lax.map(one, moving)


def _unfold_bias(x, shape: tuple, size: int, batch: int):
    """[size*B, h, m, n] as the bias of each element was: summed over B where that had extent 1."""
    x = _unfold(x, size, batch)
    if len(shape) < 4 or shape[0] == 1:
        x = x.sum(1, keepdims=True)
    return x.reshape(size, *shape)


def _with_rule(function, fields: tuple, names: tuple):
    """function(arrays), which gives results of these names, with the rule."""
    call = jax.custom_batching.custom_vmap(function)

    @call.def_vmap
    def rule(size, in_batched, arrays):
        (mapped,) = in_batched
        every = (True,) * len(names)
        if _must_loop(arrays, mapped, fields, names):
            return _loop(call, arrays, mapped), every
        batch, with_bias = _batch(arrays, mapped), "dbias" in names
        results = call(_fold_all(arrays, mapped, size, with_bias))
        shape = arrays["bias"].shape[1 if mapped["bias"] else 0:] if with_bias else ()
        return tuple(_unfold_bias(x, shape, size, batch) if name == "dbias" else _unfold(x, size, batch)
                     for name, x in zip(names, results)), every

    return call


@functools.lru_cache(maxsize=1024)
def forward(fields: tuple, wide: bool):
    """_calls.forward of such problems, with the rule."""
    return _with_rule(lambda arrays: _calls.forward(arrays, fields, wide), fields, ("out", "lse"))


@functools.lru_cache(maxsize=1024)
def backward(fields: tuple, wanted: tuple):
    """_calls.backward of such problems, with the rule."""
    return _with_rule(lambda arrays: _calls.backward(arrays, fields, wanted), fields, wanted)
