"""Attention with gradients on PyTorch tensors, CPU and CUDA.

    from dlattn.torch import attention

    out = attention(q, k, v, causal=True, window=(255, 0))       # [batch, tokens, heads, head size]
    out.square().sum().backward()

activate() lets it serve torch.nn.functional.scaled_dot_product_attention too.
"""
from ._append import kv_append
from ._eager import attention
from ._rotary import rotary
from ._sdpa import activate, deactivate

__all__ = ["activate", "attention", "deactivate", "kv_append", "rotary"]
