"""Attention of Hugging Face transformers by dlattn.

    import dlattn.huggingface

    dlattn.huggingface.register()
    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="dlattn")

Grouped heads are not repeated, causal masks and sliding windows are not stored, padding is one row of bools per sequence;
softcap and sinks work, with gradients. Other patterns (packed sequences, chunks, prefixes, static caches) come as the
dense bool mask that transformers makes for sdpa.
"""
from __future__ import annotations

from typing import Optional

import torch
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

from . import _raw
from ._errors import error
from .torch import attention

NAME = "dlattn"


def attention_forward(module, query, key, value, attention_mask, dropout: float = 0.0, scaling: Optional[float] = None,
                      is_causal: Optional[bool] = None, sliding_window: Optional[int] = None,
                      softcap: Optional[float] = None, s_aux=None, position_bias=None, cache=None, **_):
    """What AttentionInterface calls: query [B,H,M,D], key and value [B,G,N,D] give ([B,M,H,D], None).

    attention_mask, as attention_mask_of makes it: None or [B,N] bool (padding), beside which is_causal and sliding_window
    count; or rank 4, bool or additive, which says everything.
    """
    if cache is not None:
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "transformers' paged cache of continuous batching is not served; expected "
                    "the generation without it, or attn_implementation='sdpa'")
    options: dict = {"bias": position_bias}
    if attention_mask is not None and attention_mask.dim() == 4:
        if attention_mask.dtype == torch.bool:
            options["mask"] = attention_mask
        else:
            options["bias"] = attention_mask if position_bias is None else attention_mask + position_bias
    else:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        options["causal"] = bool(causal)
        if attention_mask is not None:
            options["mask"] = attention_mask[:, None, None, :].bool()
        if sliding_window is not None:  # of which the token itself is one
            options["window"] = (sliding_window - 1, 0 if causal else sliding_window - 1)
    if softcap is not None:
        options["softcap"] = softcap
    if s_aux is not None:
        options["sinks"] = s_aux
    for name in ("bias", "sinks"):  # float32 or the dtype of the query
        given = options.get(name)
        if given is not None and given.dtype not in (query.dtype, torch.float32):
            options[name] = given.to(query.dtype)
    out = attention(*(x.transpose(1, 2) for x in (query, key, value)), scale=scaling, dropout=dropout, **options)
    return out.contiguous(), None


def _same(left, right) -> bool:
    """Whether two mask functions are the same, also as closures that were made twice."""
    if left is right or getattr(left, "__code__", None) is None or left.__code__ is not getattr(right, "__code__", None):
        return left is right
    cells = [[cell.cell_contents for cell in function.__closure__ or ()] for function in (left, right)]
    return all(_same_value(*pair) for pair in zip(*cells))


def _same_value(left, right) -> bool:
    if callable(left) and callable(right):
        return _same(left, right)
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        return all(_same_value(*pair) for pair in zip(left, right))
    return type(left) is type(right) and isinstance(left, (int, float)) and left == right


def _is_told_by_flags(mask_function, local_size: Optional[int]) -> bool:
    """Whether is_causal and sliding_window say all that the function does."""
    if mask_function is masking_utils.causal_mask_function:
        return True
    if local_size is None or torch.compiler.is_compiling():
        return False
    return _same(mask_function, masking_utils.sliding_window_causal_mask_function(local_size))


def attention_mask_of(batch_size: int, q_length: int, kv_length: int, q_offset=0, kv_offset=0,
                      mask_function=masking_utils.causal_mask_function, attention_mask=None,
                      local_size: Optional[int] = None, allow_is_causal_skip: bool = True, **options):
    """What AttentionMaskInterface calls: None or [B,N] where is_causal, sliding_window and padding say it all, else the
    dense mask of sdpa. Queries are then the last of the keys' tokens."""
    fits = isinstance(q_offset, int) and isinstance(kv_offset, int) and q_offset + q_length == kv_offset + kv_length
    if attention_mask is not None:
        fits = fits and attention_mask.dim() == 2 and attention_mask.shape[1] >= kv_offset + kv_length
    if not (fits and allow_is_causal_skip and _is_told_by_flags(mask_function, local_size)):
        return masking_utils.sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
                                       kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask,
                                       local_size=local_size, allow_is_causal_skip=False, **options)
    if attention_mask is None:
        return None
    padding = attention_mask[:, kv_offset:kv_offset + kv_length].bool()
    # the question makes the host wait; transformers asks it too, once per forward
    return None if not torch.compiler.is_compiling() and bool(padding.all()) else padding


def register(name: str = NAME) -> str:
    """Makes attn_implementation="dlattn" (or another name) known to transformers; returns the name."""
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, attention_mask_of)
    return name
