"""The call surface of FlashAttention 2 (Dao, 2023), computed by dlattn on CPU and CUDA tensors of PyTorch.

    from dlattn.flash_attn import flash_attn_func            # was: from flash_attn import flash_attn_func

Same names, defaults, shapes and return values. What differs, besides what dlattn has more of (float32, float64, CPU
tensors, any head size to 256, head sizes of v other than of q, gradients through softmax_lse):

- softmax_lse of a row that sees no key is -inf (FlashAttention: +inf), and with causal and alibi_slopes it is that of the
  scores as documented (FlashAttention's differs by slope * (i + seqlen_k - seqlen_q));
- dropout draws other random bits: those of dlattn's specification, from torch's generator; its rate is a multiple of
  1/256, and what is kept is multiplied by the inverse of that;
- S_dmask has the sizes of the problem, not rounded up, is None without dropout, and made outside of compiled code;
- num_splits has no effect: the library cuts the keys as it sees fit.
"""
from .flash_attn_interface import (flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func,
                                   flash_attn_varlen_func, flash_attn_varlen_kvpacked_func,
                                   flash_attn_varlen_qkvpacked_func, flash_attn_with_kvcache)

__all__ = ["flash_attn_func", "flash_attn_kvpacked_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
           "flash_attn_varlen_kvpacked_func", "flash_attn_varlen_qkvpacked_func", "flash_attn_with_kvcache"]
