"""vmap: the mapped dimension becomes part of the batch where that means the same, and a loop elsewhere.

It means the same for padded layouts without dropout (whose random bits count batches), unless sinks are mapped, which
have no batch dimension.
"""
from __future__ import annotations

import torch

from ._native import BIAS, PARENTS, SINKS, TENSORS

_MASKS = ("bias", "mask")                            # right-aligned to [B,H,M,N]
_WHOLE = ("alibi_slopes", "sinks", "rng_state")      # may lack a batch dimension
_SLOPES = TENSORS.index("alibi_slopes")
_PACKED = [TENSORS.index(name) for name in ("cu_seqlens_q", "cu_seqlens_k", "block_table", "rng_state")]


def _first(x, dim, size):
    """The mapped dimension in front, also of a tensor that is not mapped."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def _fold(x, dim, size):
    """[size, B, ...] as [size*B, ...]."""
    x = _first(x, dim, size)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _unfold(x, size):
    return x.reshape(size, x.shape[0] // size, *x.shape[1:])


def _fold_mask(x, dim, size, batch, each):
    """bias or mask. each: with a slice per mapped element, also where it is not mapped."""
    if dim is None and not each and (x.dim() < 4 or x.shape[0] == 1):
        return x
    x = _first(x, dim, size)
    x = x.reshape(size, *(1,) * (5 - x.dim()), *x.shape[1:])
    x = x.expand(size, batch, *x.shape[2:])
    return x.reshape(size * batch, *x.shape[2:])


def _fold_slopes(x, dim, size, batch):
    if dim is None and x.dim() == 1:
        return x
    x = _first(x, dim, size)
    return (x[:, None] if x.dim() == 2 else x).expand(size, batch, x.shape[-1]).reshape(size * batch, x.shape[-1])


def _fold_tensors(tensors, dims, size, bias_each):
    batch = tensors[0].shape[0 if dims[0] is None else 1 if dims[0] == 0 else 0]
    folded = []
    for name, x, dim in zip(TENSORS, tensors, dims):
        if x is None:
            folded.append(None)
        elif name in _MASKS:
            folded.append(_fold_mask(x, dim, size, batch, bias_each and name == "bias"))
        elif name == "alibi_slopes":
            folded.append(_fold_slopes(x, dim, size, batch))
        elif name in _WHOLE:
            folded.append(x)
        else:
            folded.append(_fold(x, dim, size))
    return folded


def _must_loop(tensors, dims, fields) -> bool:
    at = dict(enumerate(tensors))
    return bool(fields.get("dropout")) or any(at.get(place) is not None for place in _PACKED) or (
        len(dims) > SINKS and dims[SINKS] is not None)


def _slices(arguments, dims, size):
    for index in range(size):
        yield [x if dim is None else x.select(dim, index) for x, dim in zip(arguments, dims)]


def rule(operator, before, info, in_dims, *arguments, **fields):
    """The rule of an operator, at the level below. before: how many of its arguments come before q; 0: the forward."""
    size, dims = info.batch_size, in_dims[:len(arguments)]
    tensors, tensor_dims = arguments[before:], dims[before:]
    *_, dbias, dsinks = fields.get("wanted", (False, False))
    if dsinks or _must_loop(tensors, tensor_dims, fields):  # dsinks: one of each mapped element
        rows = [operator(*each, **fields) for each in _slices(arguments, dims, size)]
        results = [torch.stack(column) for column in zip(*rows)]
    else:
        incoming = [None if x is None else _fold(x, dim, size) for x, dim in zip(arguments[:before], dims)]
        results = operator(*incoming, *_fold_tensors(tensors, tensor_dims, size, dbias), **fields)
        results = [_unfold(x, size) for x in results]
        if dbias:
            shape = tensors[BIAS].shape
            if tensor_dims[BIAS] is not None:
                shape = shape[:tensor_dims[BIAS]] + shape[tensor_dims[BIAS] + 1:]
            results[-1] = _unfold_bias(results[-1], shape, size)
    return (results, [0] * len(results)) if before else (tuple(results), (0,) * len(results))


def _unfold_bias(x, shape, size):
    """[size, B, h, m, n] as the bias of one element was: summed over B where that had extent 1."""
    if len(shape) < 4 or shape[0] == 1:
        x = x.sum(1, keepdim=True)
    return x.reshape(size, *shape)


assert PARENTS[3] == BIAS and TENSORS[_SLOPES] == "alibi_slopes"
