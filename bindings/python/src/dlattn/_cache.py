"""What a decoding step does beside attention: kv_append and rotary."""
from __future__ import annotations

from ctypes import sizeof
from typing import Optional

from . import _raw, _tensor
from ._library import library
from ._options import Array, layout_code
from ._result import Result
from ._run import Loans


def _append(cache, _, exec_) -> int:
    return library.dlattn_kv_append(cache, exec_)


def _rotate(rotation, _, exec_) -> int:
    return library.dlattn_rotary(rotation, exec_)


def kv_append(k_new: Array, v_new: Array, k_cache: Array, v_cache: Array, seqlens: Array, *,
              block_table: Optional[Array] = None, batch_index: Optional[Array] = None, layout: str = "bshd") -> None:
    """Copies new keys and values behind the tokens of a cache, in place: token s of sequence b becomes token
    seqlens[b] + s. seqlens is not changed.

    Args:
        k_new: [B,S,G,D] (layout "bhsd": [B,G,S,D]). v_new: [B,S,G,E].
        k_cache, v_cache: [B,capacity,G,D] and [B,capacity,G,E]; with batch_index any number of rows; with block_table
            pages [P,page,G,D] and [P,page,G,E]. The dtype of k_new.
        seqlens: integer [B], tokens already there.
        block_table: integer [B,pages], the pages of each sequence, as attention takes it.
        batch_index: integer [B], the row of each sequence.

    Raises:
        ArgumentError (on the CPU, when a token has no place; on CUDA it is dropped), ShapeError, DtypeError, DeviceError.
    """
    loans = Loans.take()
    lead = _tensor.lead("k_new", k_new, loans)
    outputs = [Result(name, array, (), 0, k_new, loans) for name, array in (("k_cache", k_cache), ("v_cache", v_cache))]
    cache = _raw.dlattn_cache(sizeof(_raw.dlattn_cache), k_new=lead, v_new=_tensor.borrow("v_new", v_new, loans),
                              seqlens=_tensor.borrow("seqlens", seqlens, loans), k_cache=outputs[0].address,
                              v_cache=outputs[1].address, layout=layout_code(layout))
    if block_table is not None:
        cache.block_table = _tensor.borrow("block_table", block_table, loans)
    if batch_index is not None:
        cache.batch_index = _tensor.borrow("batch_index", batch_index, loans)
    loans.launch(_append, cache, None)


def rotary(x: Array, cosines: Array, sines: Array, *, starts: Optional[Array] = None, interleaved: bool = False,
           inverse: bool = False, layout: str = "bshd", out: Optional[Array] = None) -> Array:
    """Rotary position embedding (Su et al., 2021): pairs of the first R elements of each head are rotated by the angles
    of their token's position, (x, y) -> (x cos - y sin, x sin + y cos); the rest is copied.

    Args:
        x: [B,S,H,D] (layout "bhsd": [B,H,S,D]).
        cosines, sines: [positions, R/2], R <= D, the dtype of x or float32.
        starts: integer [B], the position of each sequence's first token; None: 0.
        interleaved: pairs are (2r, 2r+1) instead of (r, r + R/2).
        inverse: rotate back. That is the backward: the gradient of x is the gradient of the result, rotated back.
        out: array to write instead of a new one; x itself rotates in place.

    Returns:
        the rotated x, of its type and dtype.

    Raises:
        ArgumentError (on the CPU, for a position outside of cosines; on CUDA it is clamped), ShapeError, DtypeError,
        DeviceError, UnsupportedError.
    """
    loans = Loans.take()
    lead = _tensor.lead("x", x, loans)
    rotation = _raw.dlattn_rotation(sizeof(_raw.dlattn_rotation), x=lead, layout=layout_code(layout), interleaved=interleaved,
                                    inverse=inverse, cosines=_tensor.borrow("cosines", cosines, loans),
                                    sines=_tensor.borrow("sines", sines, loans))
    if starts is not None:
        rotation.starts = _tensor.borrow("starts", starts, loans)
    shape, word = ((), 0) if out is not None else _tensor.look(x, lead)
    result = Result("out", out, shape, word, x, loans)
    rotation.out = result.address
    loans.launch(_rotate, rotation, None)
    return result.array()
