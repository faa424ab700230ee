"""The functions of FlashAttention 2's module of the same name. Tensors are [batch, seqlen, heads, headdim], or packed
[total, heads, headdim]; causal and windows are aligned to the bottom right corner."""
from __future__ import annotations

from typing import Optional, Union

import torch

from .. import _raw
from .._errors import argument_error, error
from .._inspect import dropout_mask
from ..torch import attention, kv_append, rotary

CHUNK = 256  # keys whose probabilities one call gives: the largest head size


def _options(causal, window_size, softcap, alibi_slopes, deterministic, softmax_scale) -> dict:
    return {"causal": causal, "window": None if tuple(window_size) == (-1, -1) else tuple(window_size),
            "softcap": softcap, "alibi_slopes": alibi_slopes, "deterministic": deterministic or None,
            "scale": softmax_scale}


def _run(q, k, v, dropout_p, return_attn_probs, options):
    """out, or (out, softmax_lse, S_dmask)."""
    if not return_attn_probs:
        return attention(q, k, v, dropout=dropout_p, **options)
    state = torch.randint(-2**63, 2**63 - 1, (2,), device=q.device, dtype=torch.int64) if dropout_p > 0 else None
    out, lse = attention(q, k, v, dropout=dropout_p, rng_state=state, return_lse=True, **options)
    with torch.no_grad():
        return out, lse, _signed_softmax(q, k, dropout_p, state, options) if dropout_p > 0 else None


def _get_block_size_n(device, head_dim, is_dropout, is_causal):
    """How many keys of S_dmask have one scale in each row: all. FlashAttention's own tests ask this."""
    return 2**30


def _not_compiled(function):
    reason = "S_dmask is made outside of compiled code; expected return_attn_probs=False or dropout_p=0"
    try:
        return torch.compiler.disable(function, reason=reason)
    except TypeError:  # older ones take no reason
        return torch.compiler.disable(function)


@_not_compiled
def _signed_softmax(q, k, dropout_p, state, options):
    """[B,H,max M,max N]: exp(score - the row's largest score), negative where dropout dropped it. For tests: it is stored."""
    if options.get("block_table") is not None:
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "return_attn_probs with dropout and block_table; expected keys that are "
                    "not paged")
    packed = options.get("cu_seqlens_k") is not None
    positions = _places(options["cu_seqlens_k"], k.shape[0])[1] if packed else torch.arange(k.shape[1], device=k.device)
    keys = options["max_seqlen_k"] if packed else k.shape[1]
    parts = []
    for start in range(0, keys, CHUNK):  # the softmax times unit vectors
        width = min(CHUNK, keys - start)
        units = positions[:, None] == torch.arange(start, start + width, device=k.device)
        units = units.to(q.dtype)[:, None].expand(-1, k.shape[-2], -1)
        units = units if packed else units.expand(k.shape[0], *units.shape)
        parts.append(attention(q, k, units, out_dtype=torch.float64 if q.dtype == torch.float64 else torch.float32, **options))
    if not parts:
        return q.new_zeros(dropout_mask(q, k, dropout=dropout_p, rng_state=state, **options).shape)
    found = torch.cat(parts, -1)
    found = (found / found.amax(-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)).to(q.dtype)
    if packed:
        sequence, place = _places(options["cu_seqlens_q"], q.shape[0])
        whole = found.new_zeros((options["cu_seqlens_q"].shape[0] - 1, options["max_seqlen_q"], *found.shape[1:]))
        whole[sequence, place] = found
        found = whole
    found = found.transpose(1, 2)
    keep = dropout_mask(q, k, dropout=dropout_p, rng_state=state, **options)
    return torch.where(keep, found, -found)


def _places(cu_seqlens, total: int):
    """(sequence, place in it) of each packed token."""
    tokens = torch.arange(total, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    sequence = (torch.searchsorted(cu_seqlens, tokens, right=True) - 1).clamp(min=0)
    return sequence, tokens - cu_seqlens[sequence]


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """q [batch, seqlen_q, heads, headdim], k and v [batch, seqlen_k, heads_k, headdim]; heads_k divides heads.

    Returns out as q; with return_attn_probs (out, softmax_lse [batch, heads, seqlen_q], S_dmask [batch, heads, seqlen_q,
    seqlen_k], or None without dropout). S_dmask is the softmax, scaled so that each row's largest is 1, and negative
    where dropout dropped it.
    """
    options = _options(causal, window_size, softcap, alibi_slopes, deterministic, softmax_scale)
    return _run(q, k, v, dropout_p, return_attn_probs, options)


def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                             alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """As flash_attn_func, with kv [batch, seqlen_k, 2, heads_k, headdim]."""
    k, v = kv.unbind(2)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                           return_attn_probs)


def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                              alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """As flash_attn_func, with qkv [batch, seqlen, 3, heads, headdim]."""
    q, k, v = qkv.unbind(2)
    return flash_attn_func(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                           return_attn_probs)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False, return_attn_probs=False, block_table=None):
    """q [total_q, heads, headdim], k and v [total_k, heads_k, headdim]; sequence b is tokens cu_seqlens[b] to
    cu_seqlens[b+1] - 1. With block_table [batch, pages] k and v are pages [pages, page, heads_k, headdim], and
    cu_seqlens_k tells their lengths (forward only).

    Returns out as q; with return_attn_probs (out, softmax_lse [heads, total_q], S_dmask [batch, heads, max_seqlen_q,
    max_seqlen_k], or None without dropout).
    """
    options = _options(causal, window_size, softcap, alibi_slopes, deterministic, softmax_scale)
    options.update(cu_seqlens_q=cu_seqlens_q, max_seqlen_q=int(max_seqlen_q), max_seqlen_k=int(max_seqlen_k))
    if block_table is None:
        options.update(cu_seqlens_k=cu_seqlens_k)
    else:
        options.update(seqlens_k=cu_seqlens_k.diff(), block_table=block_table)
    return _run(q, k, v, dropout_p, return_attn_probs, options)


def flash_attn_varlen_kvpacked_func(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                                    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """As flash_attn_varlen_func, with kv [total_k, 2, heads_k, headdim]."""
    k, v = kv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p,
                                  softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False,
                                     window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
                                     return_attn_probs=False):
    """As flash_attn_varlen_func, with qkv [total, 3, heads, headdim]."""
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, dropout_p, softmax_scale,
                                  causal, window_size, softcap, alibi_slopes, deterministic, return_attn_probs)


@torch.no_grad()
def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None,
                            cache_seqlens: Optional[Union[int, torch.Tensor]] = None,
                            cache_batch_idx: Optional[torch.Tensor] = None,
                            cache_leftpad: Optional[torch.Tensor] = None,
                            block_table: Optional[torch.Tensor] = None, softmax_scale=None, causal=False,
                            window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0,
                            return_softmax_lse=False):
    """A decoding step: writes k and v behind the cache's tokens, in place, and attends to what is there then.

    q [batch, seqlen_q, heads, headdim]; k_cache, v_cache [batch_cache, seqlen_cache, heads_k, headdim], or pages [pages,
    page, heads_k, headdim] with block_table [batch, pages]; k, v [batch, seqlen_new, heads_k, headdim]. cache_seqlens
    ([batch], or one number): tokens already there. cache_batch_idx [batch]: the cache row of each sequence.
    cache_leftpad [batch]: tokens to skip at the start of each.

    rotary_cos, rotary_sin [positions, rotary_dim / 2]: k is rotated from position cache_seqlens on, and so is q where
    causal or a window count; else all of q is at position cache_seqlens.

    Returns out as q, or (out, softmax_lse [batch, heads, seqlen_q]). No gradients.
    """
    batch, queries = q.shape[:2]
    if isinstance(cache_seqlens, int):
        cache_seqlens = torch.full((batch,), cache_seqlens, dtype=torch.int32, device=q.device)
    if (k is None) != (v is None):
        raise argument_error("k and v of the new tokens: one is None; expected both or neither")
    if cache_seqlens is None and (k is not None or rotary_cos is not None or block_table is not None):
        raise argument_error("cache_seqlens is None; with k and v, rotary_cos or block_table, expected a number or [batch]")
    if (rotary_cos is None) != (rotary_sin is None):
        raise argument_error("rotary_cos and rotary_sin: one is None; expected both or neither")
    options = _options(causal, window_size, softcap, alibi_slopes, False, softmax_scale)
    if rotary_cos is not None:
        turn = dict(starts=cache_seqlens, interleaved=rotary_interleaved)
        if causal or options["window"]:
            q = rotary(q, rotary_cos, rotary_sin, **turn)
        else:
            q = rotary(q.flatten(1, 2)[:, None], rotary_cos, rotary_sin, **turn).view(q.shape)
        k = None if k is None else rotary(k, rotary_cos, rotary_sin, **turn)
    lengths = cache_seqlens
    if k is not None:
        kv_append(k, v, k_cache, v_cache, cache_seqlens, block_table=block_table, batch_index=cache_batch_idx)
        lengths = cache_seqlens + k.shape[1]
    if cache_batch_idx is not None:  # a row of the cache is a page
        block_table = cache_batch_idx[:, None]
    if lengths is None and (cache_leftpad is not None or block_table is not None):
        lengths = torch.full((batch,), k_cache.shape[1], dtype=torch.int32, device=q.device)
    if cache_leftpad is not None:
        options["positions"] = (lengths - cache_leftpad - queries, -cache_leftpad)
    out, lse = attention(q, k_cache, v_cache, seqlens_k=lengths, block_table=block_table, return_lse=True, **options)
    return (out, lse) if return_softmax_lse else out
