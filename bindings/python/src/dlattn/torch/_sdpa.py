"""F.scaled_dot_product_attention served by dlattn, through torch's registry of flash attention implementations.

The kernels here stand in for those of aten, below autograd, from activate() on. Which of them a call gets is torch's
choice: on the CPU nearly all calls get the flash one; on CUDA float16 and bfloat16 without a mask get the flash one, and
masks and float32 the "efficient" one (see torch.nn.attention.sdpa_kernel).
"""
from __future__ import annotations

import warnings

import torch
from torch.nn import attention as registry

from .. import _raw
from .._errors import argument_error, error
from . import _keywords, _native

NAME = "dlattn"
_BHSD, _BSHD = _raw.DLATTN_BHSD, _raw.DLATTN_BSHD
_ROWS = 32  # the efficient kernel's log-sum-exp has a multiple of so many rows


def _problem(query, scale, causal, dropout, layout=_BHSD, top_left=True):
    """The fields that all of aten's kernels share. is_causal is aligned to the top left corner."""
    fields = {"layout": layout} if layout else {}
    flags = 0
    if top_left:
        flags |= _raw.DLATTN_TOP_LEFT
    if causal:
        flags |= _raw.DLATTN_CAUSAL
    if scale is not None:
        flags |= _raw.DLATTN_SCALE
        fields["scale"] = scale
    if torch.are_deterministic_algorithms_enabled():
        flags |= _raw.DLATTN_DETERMINISTIC
    if dropout:
        fields["dropout"] = dropout
    fields["flags"] = flags
    return fields


def _tensors(query, key, value, rng_state=None, bias=None, **others):
    given = dict(q=query, k=key, v=value, rng_state=rng_state, bias=bias, **others)
    return tuple(given.get(name) for name in _native.TENSORS)


def _random(query, dropout):
    """(the two that aten's kernels return, the one of them that the library reads)."""
    if dropout:
        state = torch.randint(-_keywords.LARGEST, _keywords.LARGEST - 1, (2,), device=query.device, dtype=torch.int64)
    else:
        state = torch.empty(2, dtype=torch.int64, device=query.device)
    return (state.view(torch.uint64), torch.empty((), dtype=torch.uint64, device=query.device),
            state if dropout else None)


def _no_debug_mask(wanted) -> None:
    if wanted:
        raise argument_error("return_debug_mask is True; dlattn stores no attention matrix, see dlattn.dropout_mask")


# ---- scaled_dot_product_attention on the CPU -------------------------------------------------------------------------

def _cpu(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    fields = _problem(query, scale, is_causal, dropout_p)
    batch, heads, rows = query.shape[:3]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    lse = torch.empty((batch, rows, heads), dtype=wide).transpose(1, 2)
    return _native.forward(_tensors(query, key, value, bias=_bias(attn_mask, query)), fields, lse=lse)


def _cpu_backward(grad_out, query, key, value, out, logsumexp, dropout_p, is_causal, *, attn_mask=None, scale=None):
    fields = _problem(query, scale, is_causal, dropout_p)
    tensors = _tensors(query, key, value, bias=_bias(attn_mask, query))
    return tuple(_native.backward(grad_out, None, out, logsumexp, tensors, fields, (True, True, True, False, False)))


def _bias(mask, query):
    return mask if mask is None or mask.dtype in (query.dtype, torch.float32) else mask.to(query.dtype)


# ---- scaled_dot_product_attention on CUDA ----------------------------------------------------------------------------

def _flash(query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    _no_debug_mask(return_debug_mask)
    seed, unused, state = _random(query, dropout_p)
    out, lse = _native.forward(_tensors(query, key, value, state), _problem(query, scale, is_causal, dropout_p))
    return out, lse, None, None, query.shape[2], key.shape[2], seed, unused, query.new_empty(0)


def _flash_backward(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
                    philox_seed, philox_offset, *, scale=None):
    fields = _problem(query, scale, is_causal, dropout_p)
    tensors = _tensors(query, key, value, philox_seed if dropout_p else None)
    return tuple(_native.backward(grad_out, None, out, logsumexp, tensors, fields, (True, True, True, False, False)))


def _efficient(query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale=None):
    seed, offset, state = _random(query, dropout_p)
    batch, heads, rows = query.shape[:3]
    kept = -(-rows // _ROWS) * _ROWS if compute_log_sumexp else 0
    whole = torch.empty((batch, heads, kept), dtype=torch.float32, device=query.device)
    lse = whole[:, :, :rows] if kept else False
    tensors = _tensors(query, key, value, state, _bias(attn_bias, query))
    out, _ = _native.forward(tensors, _problem(query, scale, is_causal, dropout_p), lse=lse)
    return out, whole, seed, offset


def _efficient_backward(grad_out, query, key, value, attn_bias, out, logsumexp, philox_seed, philox_offset, dropout_p,
                        grad_input_mask, is_causal=False, *, scale=None):
    fields = _problem(query, scale, is_causal, dropout_p)
    wanted = (*grad_input_mask[:3], attn_bias is not None and grad_input_mask[3], False)
    tensors = _tensors(query, key, value, philox_seed if dropout_p else None, _bias(attn_bias, query))
    found = iter(_native.backward(grad_out, None, out, logsumexp[:, :, :query.shape[2]], tensors, fields, wanted))
    return tuple(next(found) if want else None for want in wanted[:4])


# ---- what varlen_attn and the quantised front ends call --------------------------------------------------------------

def _any_flash_problem(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, state, scale, left,
                       right, seqused_k=None, alibi_slopes=None, block_table=None):
    """FlashAttention's own conventions: [B,M,H,D] or packed, causal aligned to the bottom right corner."""
    fields = _problem(query, scale, is_causal, dropout_p, _BSHD, top_left=False)
    left, right = (-1 if side is None else side for side in (left, right))
    if left >= 0 or right >= 0:
        fields["flags"] |= _raw.DLATTN_WINDOW
        fields.update(window_left=left, window_right=right)
    if cum_seq_q is not None:
        fields.update(max_seqlen_q=max_q, max_seqlen_k=max_k)
    if block_table is not None:  # seqused_k says it all
        cum_seq_k = None
    return _tensors(query, key, value, state, cu_seqlens_q=cum_seq_q, cu_seqlens_k=cum_seq_k, seqlens_k=seqused_k,
                    alibi_slopes=alibi_slopes, block_table=block_table), fields


def _any_flash(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask, *,
               scale=None, window_size_left=None, window_size_right=None, seqused_k=None, alibi_slopes=None,
               block_table=None, num_splits=None):
    """block_table and num_splits since torch 2.12; the library cuts the keys as it sees fit."""
    _no_debug_mask(return_debug_mask)
    seed, unused, state = _random(query, dropout_p)
    tensors, fields = _any_flash_problem(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
                                         state, scale, window_size_left, window_size_right, seqused_k, alibi_slopes,
                                         block_table)
    return *_native.forward(tensors, fields), seed, unused, query.new_empty(0)


def _any_flash_backward(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p,
                        is_causal, rng_state, unused, *, scale=None, window_size_left=None, window_size_right=None):
    tensors, fields = _any_flash_problem(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
                                         rng_state if dropout_p else None, scale, window_size_left, window_size_right)
    return tuple(_native.backward(grad_out, None, out, logsumexp, tensors, fields, (True, True, True, False, False)))


KERNELS = {
    "CPU": {"_scaled_dot_product_flash_attention_for_cpu": _cpu,
            "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_backward},
    "CUDA": {"_scaled_dot_product_flash_attention": _flash,
             "_scaled_dot_product_flash_attention_backward": _flash_backward,
             "_scaled_dot_product_efficient_attention": _efficient,
             "_scaled_dot_product_efficient_attention_backward": _efficient_backward,
             "_flash_attention_forward": _any_flash,
             "_flash_attention_backward": _any_flash_backward},
}


class _Handle:
    """What the registry keeps while dlattn is active."""

    def __init__(self):
        self.library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators|.*Overriding a previously registered",
                                    category=UserWarning)
            for device, kernels in KERNELS.items():
                for name, kernel in kernels.items():
                    self.library.impl(name, kernel, device)

    def remove(self) -> None:
        self.library = None


class _Activation:
    """What activate() returns: its end, as a context manager, brings back what was active before."""

    def __init__(self, before):
        self.before = before

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.before is None:
            deactivate()
        else:
            registry.activate_flash_attention_impl(self.before)


def activate() -> _Activation:
    """Lets dlattn serve F.scaled_dot_product_attention in this process; nothing else does, not even importing dlattn.

    For good, or for a block: ``with dlattn.torch.activate(): ...``. The same as
    ``torch.nn.attention.activate_flash_attention_impl("dlattn")``. A problem that the library refuses (a head size above
    256, float64 on CUDA) raises its error then.
    """
    if not hasattr(registry, "register_flash_attention_impl"):
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, f"torch {torch.__version__} has no registry of flash attention "
                    "implementations; expected 2.11 or later")
    before = registry.current_flash_attention_impl()
    registry.activate_flash_attention_impl(NAME)
    return _Activation(before)


def deactivate() -> None:
    """Gives F.scaled_dot_product_attention back to torch's own kernels."""
    if registry.current_flash_attention_impl() == NAME:
        registry.restore_flash_attention_impl()


if hasattr(registry, "register_flash_attention_impl"):
    registry.register_flash_attention_impl(NAME, register_fn=_Handle)
