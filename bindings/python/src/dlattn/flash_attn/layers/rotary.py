"""apply_rotary_emb of FlashAttention's module of this name."""
from __future__ import annotations

from typing import Optional, Union

import torch

from ..._errors import argument_error
from ...torch import rotary
from ..flash_attn_interface import _places


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
        starts = seqlen_offsets
        if not isinstance(starts, torch.Tensor):
            starts = torch.full((x.shape[0],), starts, dtype=torch.int64, device=x.device) if starts else None
        out = rotary(x, cos, sin, starts=starts, interleaved=interleaved)
    else:
        sequence, place = _places(cu_seqlens, x.shape[0])
        offset = seqlen_offsets[sequence] if isinstance(seqlen_offsets, torch.Tensor) else seqlen_offsets
        out = rotary(x[:, None], cos, sin, starts=place + offset, interleaved=interleaved)[:, 0]
    return x.copy_(out) if inplace else out


apply_rotary_emb_func = apply_rotary_emb


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
