"""Arrays of any library as borrowed DLTensors.

A tensor is handed to C as the address of a DLTensor. It is filled by the type's DLPack C exchange table (PyTorch),
written from the array's attributes (CuPy, odd NumPy dtypes), or lies inside the array's DLPack capsule, which is kept
unconsumed until the call is over and then frees itself through the producer's deleter. No framework is imported.
"""
from __future__ import annotations

import ctypes
import struct
from typing import Callable, Optional

import numpy

from . import _exchange, _frameworks, _raw
from ._errors import argument_error, dtype_error
from ._run import MOST_DIMS, SLOTS, Loans, Run

MAX_VERSION = (_raw.DLPACK_MAJOR_VERSION, 0)
VERSIONED, LEGACY = b"dltensor_versioned", b"dltensor"
TENSOR_OFFSET = _raw.DLManagedTensorVersioned.dl_tensor.offset
FLAGS_OFFSET = _raw.DLManagedTensorVersioned.flags.offset
NDIM_OFFSET, DTYPE_OFFSET, SHAPE_OFFSET, DEVICE_OFFSET = (getattr(_raw.DLTensor, _field).offset for _field in
                                                          ("ndim", "dtype", "shape", "device"))

TENSOR = struct.Struct("=QiiiIQQQ")  # DLTensor, its dtype as one word
assert TENSOR.size == ctypes.sizeof(_raw.DLTensor)

_is_valid, _pointer = _exchange._is_valid, _exchange._pointer


def _word(code: int, bits: int) -> int:
    """A DLDataType with one lane, read as one little-endian 32-bit number."""
    return code | bits << 8 | 1 << 16


BFLOAT16 = _word(_raw.kDLBfloat, 16)
WORDS = {"bfloat16": BFLOAT16, "bool": _word(_raw.kDLBool, 8)}
for _bits in (8, 16, 32, 64):
    WORDS[f"int{_bits}"], WORDS[f"uint{_bits}"] = _word(_raw.kDLInt, _bits), _word(_raw.kDLUInt, _bits)
    if _bits > 8:
        WORDS[f"float{_bits}"] = _word(_raw.kDLFloat, _bits)
FLOAT32, FLOAT64, UINT8 = WORDS["float32"], WORDS["float64"], WORDS["uint8"]
# What NumPy stores for each dtype; bfloat16 becomes uint16 that is exported under its own name.
STORAGE = {word: numpy.dtype(name) for name, word in WORDS.items() if name != "bfloat16"}
STORAGE[BFLOAT16] = numpy.dtype("uint16")
_words: dict = {}  # see _word_of

# An array's DLTensor: its address, valid while the loans live, and whether the array may be written.
Borrower = Callable[[str, object, Loans], "tuple[int, bool]"]


class Kind:
    """What is known of an array type: how to borrow from it, the framework that it comes from (None: another), and
    how its dtype gives a word (None: see the DLTensor)."""

    __slots__ = ("borrow", "framework", "word_of")

    def __init__(self, borrow: Borrower, framework=None, word_of=None):
        self.borrow, self.framework, self.word_of = borrow, framework, word_of


_kinds: dict = {}


def kind_of(kind: type) -> Kind:
    found = _kinds.get(kind)
    if found is None:
        found = _kinds[kind] = _learn(kind)
    return found


def _learn(kind: type) -> Kind:
    if issubclass(kind, numpy.ndarray):
        return Kind(_borrow_numpy, None, _word_of)
    if issubclass(kind, (list, tuple)):
        return Kind(_borrow_numbers)
    framework = _frameworks.framework_of(kind, WORDS)
    if isinstance(framework, _frameworks.Torch):
        return Kind(_borrower_of_torch(framework, _exchange.exporter(kind)), framework,
                    framework.words.get)
    if isinstance(framework, _frameworks.Cupy):
        return Kind(_borrow_cupy, framework, _word_of)
    return Kind(_borrow_dlpack, framework, None if framework is None else _word_of)


def borrow(name: str, array, loans: Loans) -> int:
    """The address of a DLTensor that describes `array`. It is valid while `loans` lives."""
    return (_kinds.get(type(array)) or kind_of(type(array))).borrow(name, array, loans)[0]


def borrow_output(name: str, array, loans: Loans) -> int:
    """The same for an array that the library writes: it must say that it may be written."""
    address, writable = kind_of(type(array)).borrow(name, array, loans)
    if not writable:
        raise argument_error(f"{name}: this {type(array).__name__} is read-only, or cannot say that it may be written; "
                             "expected a writable array")
    return address


def lead(name: str, array, loans: Loans) -> int:
    """Borrows the tensor that decides where the call runs."""
    kind = _kinds.get(type(array)) or kind_of(type(array))
    framework = kind.framework
    if framework is not None and (device := framework.device_of(array)) is not None:
        loans.run = Run(framework, device, loans.exec)
    address = kind.borrow(name, array, loans)[0]
    if framework is None and kind.word_of is None:  # neither NumPy's nor a known framework's
        if ctypes.c_int32.from_address(address + DEVICE_OFFSET).value in _frameworks.CUDA_DEVICES:
            raise _frameworks.unknown(name, array)
    return address


def _borrow_numpy(name: str, array: numpy.ndarray, loans: Loans) -> tuple[int, bool]:
    writable = array.flags.writeable
    if array.dtype.kind == "V" and _word_of(array.dtype) == BFLOAT16:  # NumPy exports it only as another type
        return _rename_bfloat16(borrow(name, array.view(STORAGE[BFLOAT16]), loans)), writable
    try:
        capsule = array.__dlpack__(max_version=MAX_VERSION)
    except (BufferError, TypeError):  # a dtype that NumPy does not export, or NumPy before 2.1
        return _describe(name, array, array.ctypes.data, (_raw.kDLCPU, 0), loans), writable
    loans.append(capsule)
    return _pointer(capsule, VERSIONED) + TENSOR_OFFSET, writable


def _rename_bfloat16(address: int) -> int:
    """Writes bfloat16 as the dtype of a DLTensor that says uint16."""
    ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value = BFLOAT16
    return address


def _borrow_numbers(name: str, numbers, loans: Loans) -> tuple[int, bool]:
    """Lists and tuples go where the call runs; on CUDA that is a copy for which the host waits."""
    array = numpy.asarray(numbers)
    if loans.run is not None and _word_of(array.dtype):
        array = loans.run.framework.from_host(array, loans.run.device)
    return borrow(name, array, loans), False


def _borrower_of_torch(framework, export) -> Borrower:
    """For one type of tensor. torch's own __dlpack__ takes 4 times as long, and refuses devices that are not current."""
    torch = framework.torch

    def borrow_torch(name: str, array, loans: Loans) -> tuple[int, bool]:
        if array.requires_grad:
            if torch.is_grad_enabled():
                raise argument_error(f"{name} requires grad, and this call records nothing for autograd; expected "
                                     f"{name}.detach(), or a call under torch.no_grad()")
            array = array.detach()
        if array.is_neg():  # the sign is torch's secret: DLPack would tell the numbers without it
            raise argument_error(f"{name} is a negative view; expected {name}.resolve_neg()")
        try:
            if export is None:  # before 2.10
                capsule = torch.utils.dlpack.to_dlpack(array)
                address = _pointer(capsule, LEGACY)
                loans.append(capsule)
            else:
                used = loans.used
                if used < SLOTS:  # loans.slot(), of which there are many in a call
                    loans.used, slot = used + 1, loans.slots[used]
                else:
                    slot = loans.slot()
                export(array, slot.tensor)
                loans.append(array)
                address = slot.address
        except (BufferError, RuntimeError, TypeError, ValueError) as reason:
            first = str(reason).partition("\n")[0]  # torch adds a trace of its C++ frames
            raise argument_error(f"{name}: {type(array).__name__} gives no DLPack tensor: {first}") from reason
        run = loans.run
        if run is not None and run.framework is not framework and array.is_cuda:
            run.admit(framework)
        return address, True

    return borrow_torch


def _borrow_cupy(name: str, array, loans: Loans) -> tuple[int, bool]:
    framework, run = kind_of(type(array)).framework, loans.run
    if run is not None and run.framework is not framework:
        run.admit(framework)
    return _describe(name, array, array.data.ptr, (_raw.kDLCUDA, array.data.device_id), loans), True


def _borrow_dlpack(name: str, array, loans: Loans) -> tuple[int, bool]:
    """Any other object with __dlpack__: JAX on every device, and packages that we do not know."""
    if not hasattr(array, "__dlpack__"):
        raise argument_error(f"{name}: {type(array).__name__} has no __dlpack__; expected a NumPy array or a DLPack "
                             "object")
    capsule = _export(name, array, loans.run)
    loans.append(capsule)
    if _is_valid(capsule, VERSIONED):
        managed = _pointer(capsule, VERSIONED)
        major = ctypes.c_uint32.from_address(managed).value
        if major != _raw.DLPACK_MAJOR_VERSION:
            raise argument_error(f"{name}: DLPack version {major}; expected {_raw.DLPACK_MAJOR_VERSION}")
        flags = ctypes.c_uint64.from_address(managed + FLAGS_OFFSET).value
        return managed + TENSOR_OFFSET, not flags & _raw.DLPACK_FLAG_BITMASK_READ_ONLY
    if _is_valid(capsule, LEGACY):
        return _pointer(capsule, LEGACY), False  # which cannot say whether it may be written
    raise argument_error(f"{name}: __dlpack__ of {type(array).__name__} gave {capsule!r}; expected an unused capsule "
                         "'dltensor_versioned' or 'dltensor'")


def _export(name: str, array, run: Optional[Run]):
    """A capsule of a foreign array, ordered by the call's stream: the new protocol if it knows it, else the legacy."""
    options = {}
    try:
        if run is not None:
            kind, device = array.__dlpack_device__()
            if kind in _frameworks.CUDA_DEVICES:
                options["stream"] = run.consumer_stream(device)
                framework = kind_of(type(array)).framework
                if framework is not run.framework:
                    run.admit(framework)
        try:
            return array.__dlpack__(max_version=MAX_VERSION, **options)
        except TypeError:
            return array.__dlpack__(**options)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as reason:
        raise argument_error(f"{name}: {type(array).__name__} gives no DLPack tensor: {reason}") from reason


def _word_of(dtype: numpy.dtype) -> int:
    """The DLPack number of a NumPy dtype; 0 when it has none. Their names are slow, so they are remembered."""
    word = _words.get(dtype)
    if word is None:
        word = _words[dtype] = WORDS.get(dtype.name, 0) if dtype.isnative else 0
    return word


def _describe(name: str, array, data: int, device: tuple[int, int], loans: Loans) -> int:
    """A DLTensor made by hand from the attributes of a NumPy or CuPy array."""
    word = _word_of(array.dtype)
    if not word:
        raise dtype_error(f"{name} has NumPy dtype {array.dtype}; expected a native float, bfloat16, integer or bool")
    size, strides = array.itemsize, array.strides
    for stride in strides:
        if stride % size:
            raise argument_error(f"{name} has byte strides {strides}; expected multiples of its item size {size}")
    loans.append(array)
    return _fill(data, device, word, array.shape, [stride // size for stride in strides], loans)


def outline(shape: tuple[int, ...], word: int, like: int, loans: Loans) -> int:
    """A compact DLTensor without data, on the device of the DLTensor at `like`: for calls that read shapes alone."""
    device = tuple((ctypes.c_int32 * 2).from_address(like + DEVICE_OFFSET))
    return _fill(0, device, word, shape, None, loans)


def _fill(data: int, device: tuple[int, int], word: int, shape, strides, loans: Loans) -> int:
    """Writes a DLTensor; strides None: compact."""
    slot, ndim = loans.slot(), len(shape)
    if ndim > MOST_DIMS:  # the library will refuse it, in its own words
        shape = strides = ()
    sizes = (*shape, *(strides or ()))
    slot.sizes[:len(sizes)] = sizes
    start = slot.sizes_address
    TENSOR.pack_into(slot.tensor, 0, data, *device, ndim, word, start, 0 if strides is None else start + 8 * len(shape), 0)
    return slot.address


def word_at(address: int) -> int:
    """The dtype of a DLTensor as one number."""
    return ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value


def look(array, address: int) -> tuple[tuple[int, ...], int]:
    """Shape and dtype of an array that lies at `address`: from its attributes, where we know its type."""
    word_of = kind_of(type(array)).word_of
    if word_of is None:
        return shape_at(address), word_at(address)
    return array.shape, word_of(array.dtype) or word_at(address)


def shape_of(array, address: int) -> tuple[int, ...]:
    return array.shape if kind_of(type(array)).word_of is not None else shape_at(address)


def shape_at(address: int) -> tuple[int, ...]:
    """The extents of a DLTensor; () when they make no sense, which the library then says in its own words."""
    ndim = ctypes.c_int32.from_address(address + NDIM_OFFSET).value
    extents = ctypes.c_void_p.from_address(address + SHAPE_OFFSET).value
    if not extents or not 0 < ndim <= 8:
        return ()
    shape = tuple((ctypes.c_int64 * ndim).from_address(extents))
    return shape if min(shape) >= 0 else ()
