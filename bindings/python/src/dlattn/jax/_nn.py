"""dot_product_attention: the call of jax.nn, computed by dlattn."""
from __future__ import annotations

import jax
import jax.numpy as jnp

from .._errors import argument_error
from ._attention import attention


def _batched(x, rank: int):
    """With the dimensions in front that were left out."""
    return None if x is None else x.reshape((1,) * (rank - x.ndim) + x.shape) if x.ndim < rank else x


def _window(value):
    if value is None:
        return None
    left, right = (value, value) if isinstance(value, int) else value
    if left < 0 or right < 0:
        raise argument_error(f"local_window_size is {value!r}; expected bounds of 0 or more")
    return left, right


def dot_product_attention(query, key, value, bias=None, mask=None, *, scale=None, is_causal=False, query_seq_lengths=None,
                          key_value_seq_lengths=None, local_window_size=None, implementation=None, return_residual=False):
    """jax.nn.dot_product_attention by dlattn: the same arguments, shapes and meaning, in O(T + S) memory.

    Causal masks and windows count positions from the first query and the first key. Two things differ: a query that sees
    no key gives 0 where jax.nn averages over all values, and its residual is -inf; and value may have heads of another
    size than key.

    Args:
        query: [B,T,N,H] or [T,N,H]. key: [B,S,K,H] or [S,K,H]. value: as key. K divides N.
        bias: float, of up to 4 dimensions that broadcast to [B,N,T,S]. It has a gradient.
        mask: bool, shapes as bias; True takes part.
        scale: a number; None: 1/sqrt(H).
        is_causal: query t sees keys up to t.
        query_seq_lengths, key_value_seq_lengths: int32 [B]. Rows past the former are 0.
        local_window_size: (left, right), or one number for both: query t sees keys t-left to t+right.
        implementation: None, "xla" or "cudnn", which change nothing here.
        return_residual: also return the log-sum-exp, [B,T,N] or [T,N], of key's dtype and without gradient.

    Returns:
        out, of query's shape with value's head size, or (out, residual).

    Raises:
        As attention.
    """
    if implementation not in (None, "xla", "cudnn"):
        raise argument_error(f"implementation is {implementation!r}; expected None, 'xla' or 'cudnn'")
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    bias = None if bias is None else jnp.asarray(bias)
    mask = None if mask is None else jnp.asarray(mask)
    if mask is not None and mask.dtype != bool:
        raise argument_error(f"mask has dtype {mask.dtype}; expected bool (pass an additive mask as bias)")
    if bias is not None and bias.dtype not in (query.dtype, jnp.float32):
        bias = bias.astype(jnp.float32)
    out, lse = attention(_batched(query, 4), _batched(key, 4), _batched(value, 4), return_lse=True, bias=bias, mask=mask,
                         scale=scale, causal=is_causal, top_left=True, seqlens_q=query_seq_lengths,
                         seqlens_k=key_value_seq_lengths, window=_window(local_window_size))
    out = out.reshape(*query.shape[:-1], value.shape[-1])
    if not return_residual:
        return out
    lse = jax.lax.stop_gradient(jnp.swapaxes(lse, 1, 2).astype(key.dtype))
    return out, lse.reshape(query.shape[:-1])
