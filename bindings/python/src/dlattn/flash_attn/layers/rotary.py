"""apply_rotary_emb of FlashAttention's module of this name, and its forms for packed qkv and kv."""
from __future__ import annotations

from typing import Optional, Union

import torch

from ..._errors import argument_error
from ...torch import rotary
from ..flash_attn_interface import _places


def _starts(offsets: Union[int, torch.Tensor], x) -> Optional[torch.Tensor]:
    if isinstance(offsets, torch.Tensor):
        return offsets
    return torch.full((x.shape[0],), offsets, dtype=torch.int64, device=x.device) if offsets else None


def _written(x, out):
    """x after it took the values of `out`. A leaf takes them behind autograd's back, and `out` stands for the result."""
    if x.is_leaf and x.requires_grad and torch.is_grad_enabled():
        x.detach().copy_(out.detach())
        return out
    return x.copy_(out)


def apply_rotary_emb(x, cos, sin, interleaved=False, inplace=False, seqlen_offsets: Union[int, torch.Tensor] = 0,
                     cu_seqlens: Optional[torch.Tensor] = None, max_seqlen: Optional[int] = None):
    """Rotates the first rotary_dim elements of each head of x by the position of its token.

    x: [batch, seqlen, heads, headdim], or packed [total, heads, headdim] with cu_seqlens. cos, sin: [positions,
    rotary_dim / 2]. interleaved: pairs are (2r, 2r+1), else (r, r + rotary_dim / 2). inplace: writes x itself.
    seqlen_offsets: the first token's position, one number or [batch]. max_seqlen is not needed.
    """
    if x.dim() != (4 if cu_seqlens is None else 3):
        raise argument_error(f"x has rank {x.dim()}; expected 4, or 3 with cu_seqlens")
    if cu_seqlens is None:
        out = rotary(x, cos, sin, starts=_starts(seqlen_offsets, x), interleaved=interleaved)
    else:
        sequence, place = _places(cu_seqlens, x.shape[0])
        offset = seqlen_offsets[sequence] if isinstance(seqlen_offsets, torch.Tensor) else seqlen_offsets
        out = rotary(x[:, None], cos, sin, starts=place + offset, interleaved=interleaved)[:, 0]
    return _written(x, out) if inplace else out


apply_rotary_emb_func = apply_rotary_emb


def apply_rotary_emb_qkv_(qkv, cos, sin, cos_k=None, sin_k=None, interleaved=False,
                          seqlen_offsets: Union[int, torch.Tensor] = 0, num_heads_q: Optional[int] = None):
    """Rotates q and k of qkv [batch, seqlen, 3, heads, headdim], or [batch, seqlen, num_heads_q + 2 * heads_k, headdim], in
    place. cos_k, sin_k: those of k, where they are others. Returns qkv."""
    if qkv.dim() == 5:
        parts, join = qkv.unbind(2), torch.stack
    elif num_heads_q is None:
        raise argument_error(f"num_heads_q is None, and qkv has rank {qkv.dim()}; expected a number, or rank 5")
    else:
        heads = (qkv.shape[2] - num_heads_q) // 2
        parts, join = qkv.split((num_heads_q, heads, heads), 2), torch.cat
    q, k, v = parts
    starts = _starts(seqlen_offsets, q)
    q = rotary(q, cos, sin, starts=starts, interleaved=interleaved)
    k = rotary(k, cos if cos_k is None else cos_k, sin if sin_k is None else sin_k, starts=starts, interleaved=interleaved)
    return _written(qkv, join((q, k, v), 2))


def apply_rotary_emb_kv_(kv, cos, sin, interleaved=False, seqlen_offsets: Union[int, torch.Tensor] = 0):
    """Rotates k of kv [batch, seqlen, 2, heads_k, headdim] in place. Returns kv."""
    k, v = kv.unbind(2)
    k = rotary(k, cos, sin, starts=_starts(seqlen_offsets, k), interleaved=interleaved)
    return _written(kv, torch.stack((k, v), 2))


def apply_rotary_emb_torch(x, cos, sin, interleaved=False):
    """The same in PyTorch's own operations, with cos and sin [seqlen, rotary_dim / 2] or [batch, seqlen, rotary_dim / 2]."""
    half = cos.shape[-1]
    turned, rest = x[..., :2 * half], x[..., 2 * half:]
    cos, sin = cos[..., None, :], sin[..., None, :]
    if interleaved:
        first, second = turned[..., ::2], turned[..., 1::2]
        pairs = torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)
    else:
        first, second = turned[..., :half], turned[..., half:]
        pairs = torch.cat((first * cos - second * sin, first * sin + second * cos), -1)
    return torch.cat((pairs, rest), -1)
