"""Attention with gradients on PyTorch tensors, CPU and CUDA.

    from dlattn.torch import attention

    out = attention(q, k, v, causal=True, window=(255, 0))       # [batch, tokens, heads, head size]
    out.square().sum().backward()
"""
from ._eager import attention

__all__ = ["attention"]
