"""Exact attention, forward and backward, on NumPy arrays, CPU DLPack objects and CUDA arrays of torch, CuPy and JAX.

    import dlattn, numpy as np
    q = k = v = np.random.rand(1, 128, 8, 64).astype("float32")      # [batch, tokens, heads, head size]
    out, lse = dlattn.attention(q, k, v, causal=True, return_lse=True)
    grads = dlattn.attention_backward(np.ones_like(out), q, k, v, out, lse, causal=True)
"""
from ._attention import Gradients, attention, attention_backward, merge
from ._cache import kv_append, rotary
from ._errors import (ArgumentError, CompileError, CudaError, DeviceError, DtypeError, Error, InternalError,
                      OutOfMemoryError, ShapeError, UnsupportedError, WorkspaceError)
from ._inspect import abi_version, dropout_mask, explain, prepare, set_option, version
from ._options import Options

__version__ = version()
__all__ = ["ArgumentError", "CompileError", "CudaError", "DeviceError", "DtypeError", "Error", "Gradients",
           "InternalError", "Options", "OutOfMemoryError", "ShapeError", "UnsupportedError", "WorkspaceError",
           "abi_version", "attention", "attention_backward", "dropout_mask", "explain", "kv_append", "merge",
           "prepare", "rotary", "set_option", "version"]
