"""The two calls as XLA programs see them: shapes of the results, workspace, and what the library refuses.

Arrays are dicts by the names of the C structs' fields; fields are the other values, as pairs of a name and a number.
"""
from __future__ import annotations

import ctypes
import functools

import jax
import numpy

from .. import _raw
from .._attention import _lse_shape, _lse_word, _out_shape
from .._errors import dtype_error
from .._library import check, library
from .._tensor import WORDS
from . import _handlers

ANY_DEVICE = -1
GRADIENTS = {"dq": "q", "dk": "k", "dv": "v", "dbias": "bias", "dsinks": "sinks"}
_FLOATS = ("scale", "softcap", "dropout")
_NAMES = {word: name for name, word in WORDS.items()}
_OUTPUTS, _GRADIENTS = ("out", "lse"), ("out", "lse", "dout", "dlse", *GRADIENTS)


def _word(name: str, dtype) -> int:
    word = WORDS.get(dtype.name)
    if word is None:
        raise dtype_error(f"{name} has dtype {dtype}; expected float16, bfloat16, float32, float64, an integer or bool")
    return word


class _Description:
    """The C structs of a call whose tensors have shapes and dtypes, but no data."""

    def __init__(self, shapes: tuple, fields: tuple, results: tuple, device: tuple):
        self.attention = _raw.dlattn_attention(ctypes.sizeof(_raw.dlattn_attention))
        backward = "dout" in dict(shapes)
        kind = _raw.dlattn_gradients if backward else _raw.dlattn_outputs
        self.result = kind(ctypes.sizeof(kind))
        self.exec = _raw.dlattn_exec(ctypes.sizeof(_raw.dlattn_exec))
        self._kept = []
        for name, found in (*shapes, *results):
            target = self.result if name in (_GRADIENTS if backward else _OUTPUTS) else self.attention
            setattr(target, name, self._tensor(*found, device))
        for name, value in fields:
            setattr(self.exec if name == "num_threads" else self.attention, name, value)

    def _tensor(self, shape: tuple, word: int, device: tuple) -> int:
        extents = (ctypes.c_int64 * len(shape))(*shape)
        dtype = _raw.DLDataType.from_buffer_copy(word.to_bytes(4, "little"))
        tensor = _raw.DLTensor(None, device, len(shape), dtype, ctypes.addressof(extents))
        self._kept += [extents, tensor]
        return ctypes.addressof(tensor)


@functools.lru_cache(maxsize=4096)
def _workspace(shapes: tuple, fields: tuple, results: tuple) -> int:
    """Bytes that the call uses at best on any CUDA device. Raises what the library says against the call."""
    query = library.dlattn_backward_workspace if "dout" in dict(shapes) else library.dlattn_forward_workspace
    host = _Description(shapes, fields, results, (_raw.kDLCPU, 0))
    check(query(host.attention, host.result, host.exec, None, None))
    device = _Description(shapes, fields, results, (_raw.kDLCUDA, ANY_DEVICE))
    size = ctypes.c_uint64()
    refused = query(device.attention, device.result, device.exec, size, None)
    return 0 if refused else size.value  # what CUDA alone refuses, float64 say, is an error of the program that runs there


def _describe(arrays: dict) -> tuple:
    return tuple((name, (tuple(x.shape), _word(name, x.dtype))) for name, x in arrays.items())


def _attributes(fields: tuple) -> dict:
    return {name: numpy.float64(value) if name in _FLOATS else numpy.int64(value) for name, value in fields}


def _manual_axes(x) -> dict:
    """Inside of shard_map: what says that a result varies over the mesh as `x` does."""
    found = jax.typeof(x)
    if not found.mat.varying:
        return {}
    sharding = jax.sharding.NamedSharding(found.sharding.mesh, jax.sharding.PartitionSpec())
    return {"manual_axis_type": found.mat, "sharding": sharding}


def _call(target: str, arrays: dict, fields: tuple, results: tuple) -> list:
    workspace = _workspace(_describe(arrays), fields, results)
    names = [name for name, _ in results]
    axes = _manual_axes(arrays["q"])
    types = [jax.ShapeDtypeStruct(shape, _NAMES[word], **axes) for _, (shape, word) in results]
    if workspace:  # a result, so that XLA plans it with the program's other memory; on the CPU it is never touched
        names.append("workspace")
        types.append(jax.ShapeDtypeStruct((workspace,), "uint8", **axes))
    call = jax.ffi.ffi_call(target, types)
    return call(*arrays.values(), arguments=" ".join(arrays), results=" ".join(names), **_attributes(fields))


def forward(arrays: dict, fields: tuple, wide: bool) -> tuple:
    """(out, lse); wide: out is float32."""
    q, v = arrays["q"], arrays["v"]
    word = _word("q", q.dtype)
    results = (("out", (_out_shape(q.shape, v.shape), WORDS["float32"] if wide else word)),
               ("lse", (_lse_shape(q.shape, dict(fields).get("layout", 0)), _lse_word(word))))
    out, lse, *_ = _call(_handlers.FORWARD, arrays, fields, results)
    return out, lse


def backward(arrays: dict, fields: tuple, wanted: tuple) -> tuple:
    """The wanted gradients; arrays has out, lse, dout and perhaps dlse too."""
    parents = [(name, arrays[GRADIENTS[name]]) for name in wanted]
    results = tuple((name, (tuple(x.shape), _word(name, x.dtype))) for name, x in parents)
    return tuple(_call(_handlers.BACKWARD, arrays, fields, results)[:len(wanted)])
