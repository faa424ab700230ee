"""Tensors of PyTorch to the C calls and back: no autograd, no dispatcher, nothing kept between calls but spare structs.

A problem is a tuple of tensors in the order of the C struct (TENSORS; missing ones at the end may be left out) and a
dict of its other fields (SCALARS), where an absent one is 0.
"""
from __future__ import annotations

import ctypes
import struct

import torch

from .. import _exchange, _nvrtc, _raw
from .._errors import argument_error
from .._library import check, library
from .._run import PROMISED

TENSORS = ("q", "k", "v", "bias", "mask", "alibi_slopes", "sinks", "q_segments", "kv_segments", "cu_seqlens_q",
           "cu_seqlens_k", "seqlens_q", "seqlens_k", "block_table", "q_starts", "k_starts", "rng_state")
SCALARS = ("max_seqlen_q", "max_seqlen_k", "window_left", "window_right", "block_size", "block_count", "q_start",
           "k_start", "scale", "softcap", "dropout", "seed", "offset", "flags", "layout")
BIAS, SINKS = TENSORS.index("bias"), TENSORS.index("sinks")
GRADIENTS = ("dq", "dk", "dv", "dbias", "dsinks")
PARENTS = (0, 1, 2, BIAS, SINKS)  # of the gradients, in TENSORS

_sizeof = ctypes.sizeof
_FLOAT, _DOUBLE = torch.float32, torch.float64
_FIELDS = struct.Struct("=8q3d2qIi")  # SCALARS; seed and offset as the int64 of the same bits
_FIELDS_AT = _raw.dlattn_attention.max_seqlen_q.offset
assert [name for name, *_ in _raw.dlattn_attention._fields_[1:]][:32] == [*TENSORS, *SCALARS]
_EXEC = struct.Struct("=3Q")  # stream, workspace, workspace_bytes
_EXEC_AT = _raw.dlattn_exec.stream.offset
_GRADIENT_INPUTS = ("out", "lse", "dout", "dlse")


def _describer():
    """fill(tensor, DLTensor, sizes): for torch before 2.10, which has no exchange table."""
    from .._tensor import TENSOR, WORDS

    words = {getattr(torch, name): word for name, word in WORDS.items() if hasattr(torch, name)}

    def fill(tensor, slot) -> None:
        if tensor.layout != torch.strided or tensor.dtype not in words:
            raise TypeError(f"layout {tensor.layout}, dtype {tensor.dtype}")
        device = (_raw.kDLCUDA, tensor.get_device()) if tensor.is_cuda else (_raw.kDLCPU, 0)
        rank = tensor.dim()
        slot.sizes = (ctypes.c_int64 * (2 * rank))(*tensor.shape, *tensor.stride())
        start = ctypes.addressof(slot.sizes)
        TENSOR.pack_into(slot, 0, tensor.data_ptr(), *device, rank, words[tensor.dtype], start, start + 8 * rank, 0)

    return fill


_export = _exchange.exporter(torch.Tensor) or _describer()
_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
    lambda device: torch.cuda.current_stream(device).cuda_stream)  # the latter takes 8 us, the former 0.2


class Frame:
    """The C structs of one call. Its DLTensors never move, so most addresses in the structs are written once."""

    __slots__ = ("slots", "q", "k", "v", "out", "lse", "addresses", "attention", "fields", "outputs", "gradients", "exec",
                 "needed", "used", "asks", "stream")
    spare: list = []

    def __init__(self):
        names = (*TENSORS, *_GRADIENT_INPUTS, *GRADIENTS)
        self.slots = {name: _raw.DLTensor() for name in names}
        self.q, self.k, self.v, self.out, self.lse = (self.slots[name] for name in ("q", "k", "v", "out", "lse"))
        self.addresses = {name: ctypes.addressof(slot) for name, slot in self.slots.items()}
        self.attention, self.outputs = _raw.dlattn_attention(), _raw.dlattn_outputs()
        self.gradients, self.exec = _raw.dlattn_gradients(), _raw.dlattn_exec()
        for made in (self.attention, self.outputs, self.gradients, self.exec):
            made.struct_size = _sizeof(made)
        for name in ("q", "k", "v"):
            setattr(self.attention, name, self.addresses[name])
        self.outputs.out = self.addresses["out"]
        for name in ("out", "lse", "dout"):
            setattr(self.gradients, name, self.addresses[name])
        self.fields = None  # SCALARS that the struct holds
        self.needed = ctypes.c_uint64()
        self.used: list = []  # optional tensors whose address the struct holds
        self.stream = None  # that exec holds, beside a workspace that is not there
        self.asks: set = set()  # ids of functions whose last call on CUDA used a workspace: they ask for its size first

    def put(self, name: str, tensor) -> int:
        """Describes a tensor in its slot."""
        try:
            _export(tensor, self.slots[name])
        except (BufferError, RuntimeError, TypeError, ValueError) as reason:
            first = str(reason).partition("\n")[0]  # torch adds a trace of its C++ frames
            raise argument_error(f"{name}: {type(tensor).__name__} gives no DLPack tensor: {first}") from reason
        return self.addresses[name]

    def fill(self, tensors: tuple, fields: dict) -> None:
        attention = self.attention
        if self.used:
            for name in self.used:
                setattr(attention, name, None)
            self.used.clear()
        try:
            _export(tensors[0], self.q)
            _export(tensors[1], self.k)
            _export(tensors[2], self.v)
        except (BufferError, RuntimeError, TypeError, ValueError):
            for name, tensor in zip("qkv", tensors):
                self.put(name, tensor)  # again, for a sentence that names it
        if len(tensors) > 3:
            for name, tensor in zip(TENSORS[3:], tensors[3:]):
                if tensor is not None:
                    self.used.append(name)
                    setattr(attention, name, self.put(name, tensor))
        if fields != self.fields:
            self.fields = None
            get = fields.get
            try:
                _FIELDS.pack_into(attention, _FIELDS_AT, *[get(name, 0) for name in SCALARS])
            except struct.error:
                raise argument_error(f"one of {fields} does not fit its field; expected 64-bit integers") from None
            self.fields = dict(fields)

    def launch(self, function, result, workspace, q, num_threads: int) -> None:
        """On CUDA the call is queued on the current stream of q's device, with a workspace from torch's allocator if it uses
        any: it tries without one where it did without the last time (Loans._launch_with in _run.py does so too)."""
        exec_ = owner = None
        if q.is_cuda:
            exec_ = self.exec
            if not _nvrtc.decided:
                _nvrtc.announce()
            stream = _stream(q.get_device())
            if stream != self.stream:
                _EXEC.pack_into(exec_, _EXEC_AT, stream, 0, PROMISED)
                self.stream = stream
            if id(function) in self.asks:
                owner = self.bring(function, workspace, result, q)
        elif num_threads:
            exec_ = _raw.dlattn_exec(_sizeof(_raw.dlattn_exec))
            exec_.num_threads = num_threads
        status = function(self.attention, result, exec_)
        if status == _raw.DLATTN_ERR_WORKSPACE and q.is_cuda and owner is None:
            owner = self.bring(function, workspace, result, q)
            status = function(self.attention, result, exec_)
        if status:
            check(status)

    def bring(self, function, workspace, result, q):
        """The workspace that a call of the function asks for, already in its exec; None where it uses none."""
        status = workspace(self.attention, result, self.exec, self.needed, None)
        if status:
            check(status)
        size = self.needed.value
        if not size:
            self.asks.discard(id(function))
            return None
        self.asks.add(id(function))
        owner = torch.empty(size, dtype=torch.uint8, device=q.device)
        self.stream = None
        self.exec.workspace, self.exec.workspace_bytes = owner.data_ptr(), size
        return owner


def _frame() -> Frame:
    try:
        return Frame.spare.pop()
    except IndexError:  # the first call of all, or one beside another
        return Frame()


def empty_out(q, v, wide: bool = False):
    """out of a problem: q's order of dimensions in memory where it has q's shape, else compact."""
    try:
        same = q.shape[-1] == v.shape[-1]
    except IndexError:  # a number, for the library to refuse
        same = True
    if same:
        return torch.empty_like(q, dtype=torch.float32) if wide else torch.empty_like(q)
    return q.new_empty((*q.shape[:-1], v.shape[-1]), dtype=torch.float32 if wide else q.dtype)


def empty_lse(q, layout: int):
    """[B,H,M], packed [H,T], compact; of a q that the library refuses, anything."""
    dtype = _DOUBLE if q.dtype == _DOUBLE else _FLOAT
    shape = q.shape
    if len(shape) == 4:
        batch, one, other, _ = shape  # sizes one by one: new_empty takes a tuple of them for half as long again
        return q.new_empty(batch, one, other, dtype=dtype) if layout else q.new_empty(batch, other, one, dtype=dtype)
    if len(shape) != 3:
        return q.new_empty(0, dtype=dtype)
    one, other, _ = shape
    return q.new_empty(one, other, dtype=dtype) if layout else q.new_empty(other, one, dtype=dtype)


def forward(tensors: tuple, fields: dict, wide: bool = False, num_threads: int = 0, lse=True):
    """(out, lse). lse: True for a new one, False for None, or a tensor to write."""
    q = tensors[0]
    frame = _frame()
    outputs = frame.outputs
    frame.fill(tensors, fields)
    out = empty_out(q, tensors[2], wide)
    _export(out, frame.out)
    row = None
    if lse is False:
        outputs.lse = None
    else:
        row = empty_lse(q, fields.get("layout", 0)) if lse is True else lse
        _export(row, frame.lse)
        outputs.lse = frame.addresses["lse"]
    frame.launch(library.dlattn_forward, outputs, library.dlattn_forward_workspace, q, num_threads)
    Frame.spare.append(frame)
    return out, row


def backward(dout, dlse, out, lse, tensors: tuple, fields: dict, wanted, num_threads: int = 0) -> list:
    """The wanted gradients, those of q, k, v, bias and sinks for which `wanted` has True; each made like its parent."""
    q = tensors[0]
    frame = _frame()
    struct_, put = frame.gradients, frame.put
    frame.fill(tensors, fields)
    put("out", out)
    put("lse", lse)
    put("dout", dout)
    struct_.dlse = None if dlse is None else put("dlse", dlse)
    results = []
    for name, parent, want in zip(GRADIENTS, PARENTS, wanted):
        if want:
            result = torch.empty_like(tensors[parent])
            results.append(result)
            setattr(struct_, name, put(name, result))
        else:
            setattr(struct_, name, None)
    frame.launch(library.dlattn_backward, struct_, library.dlattn_backward_workspace, q, num_threads)
    Frame.spare.append(frame)
    return results
