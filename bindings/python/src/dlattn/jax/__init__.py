"""Attention with gradients on JAX arrays, CPU and CUDA, under jit, grad, vmap, shard_map and checkpoint.

    from dlattn.jax import attention

    def loss(q, k, v):
        return attention(q, k, v, causal=True, window=(255, 0)).sum()       # [batch, tokens, heads, head size]

    jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)
"""
from ._attention import attention
from ._nn import dot_product_attention

__all__ = ["attention", "dot_product_attention"]
