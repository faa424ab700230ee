"""The module of FlashAttention's file of the same name: attention on packed q, k and v."""
from __future__ import annotations

import torch

from .._errors import argument_error
from .bert_padding import pad_input, unpad_input
from .flash_attn_interface import flash_attn_qkvpacked_func, flash_attn_varlen_qkvpacked_func


class FlashAttention(torch.nn.Module):
    """Softmax attention, with dropout in training.

    Args:
        softmax_scale: multiplies the scores; None: 1/sqrt(headdim).
        attention_dropout: its rate. device, dtype: without effect, there are no parameters.
    """

    def __init__(self, softmax_scale=None, attention_dropout=0.0, device=None, dtype=None):
        super().__init__()
        self.softmax_scale = softmax_scale
        self.dropout_p = attention_dropout

    def forward(self, qkv, key_padding_mask=None, causal=False, cu_seqlens=None, max_s=None, need_weights=False):
        """(out, None) of qkv [batch, seqlen, 3, heads, headdim], or packed [total, 3, heads, headdim] with cu_seqlens
        and max_s. key_padding_mask [batch, seqlen]: True at tokens; the others get 0."""
        if need_weights:
            raise argument_error("need_weights is True; attention stores no weights, expected False")
        options = dict(dropout_p=self.dropout_p if self.training else 0.0, softmax_scale=self.softmax_scale, causal=causal)
        if cu_seqlens is not None:
            if max_s is None:
                raise argument_error("max_s is None; expected the largest length, with cu_seqlens")
            return flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_s, **options), None
        if key_padding_mask is None:
            return flash_attn_qkvpacked_func(qkv, **options), None
        batch, seqlen = qkv.shape[:2]
        tokens, indices, cu_seqlens, max_s, _ = unpad_input(qkv, key_padding_mask)
        out = flash_attn_varlen_qkvpacked_func(tokens, cu_seqlens, max_s, **options)
        return pad_input(out, indices, batch, seqlen), None
