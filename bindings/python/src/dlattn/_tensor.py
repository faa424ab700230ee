"""Arrays of any library as borrowed DLTensors, and results as the caller's own array type.

A tensor is handed to C as the address of a DLTensor. It lies inside the DLPack capsule of the array, which is kept
unconsumed until the call is over and then frees itself through the producer's deleter; no framework is imported.
"""
from __future__ import annotations

import ctypes
import sys

import numpy

from . import _raw
from ._errors import argument_error, dtype_error

MAX_VERSION = (_raw.DLPACK_MAJOR_VERSION, 0)
VERSIONED, LEGACY = b"dltensor_versioned", b"dltensor"
TENSOR_OFFSET = _raw.DLManagedTensorVersioned.dl_tensor.offset
FLAGS_OFFSET = _raw.DLManagedTensorVersioned.flags.offset
DTYPE_OFFSET = _raw.DLTensor.dtype.offset

_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _word(code: int, bits: int) -> int:
    """A DLDataType with one lane, read as one little-endian 32-bit number."""
    return code | bits << 8 | 1 << 16


BFLOAT16 = _word(_raw.kDLBfloat, 16)
WORDS = {"bfloat16": BFLOAT16, "bool": _word(_raw.kDLBool, 8)}
for _bits in (8, 16, 32, 64):
    WORDS[f"int{_bits}"], WORDS[f"uint{_bits}"] = _word(_raw.kDLInt, _bits), _word(_raw.kDLUInt, _bits)
    if _bits > 8:
        WORDS[f"float{_bits}"] = _word(_raw.kDLFloat, _bits)
FLOAT32, FLOAT64 = WORDS["float32"], WORDS["float64"]
# What NumPy stores for each dtype; bfloat16 becomes uint16 that is exported under its own name.
STORAGE = {word: numpy.dtype(name) for name, word in WORDS.items() if name != "bfloat16"}
STORAGE[BFLOAT16] = numpy.dtype("uint16")


def borrow(name: str, array, keep: list) -> int:
    """The address of a DLTensor that describes `array`. It is valid while `keep` lives."""
    return _borrow(name, array, keep)[0]


def borrow_output(name: str, array, keep: list) -> int:
    """The same for an array that the library writes: it must say that it may be written."""
    address, writable = _borrow(name, array, keep)
    if not writable:
        raise argument_error(f"{name}: this {type(array).__name__} is read-only, or cannot say that it may be written; "
                             "expected a writable array")
    return address


def _borrow(name: str, array, keep: list) -> tuple[int, bool]:
    if isinstance(array, numpy.ndarray):
        if array.dtype.kind == "V":
            return _describe(name, array, keep), array.flags.writeable
        try:
            capsule = array.__dlpack__(max_version=MAX_VERSION)
        except (BufferError, TypeError):  # a dtype that NumPy does not export, or NumPy before 2.1
            return _describe(name, array, keep), array.flags.writeable
    elif hasattr(array, "__dlpack__"):
        capsule = _export(name, array)
    elif isinstance(array, (list, tuple)):
        return _borrow(name, numpy.asarray(array), keep)
    else:
        raise argument_error(f"{name}: {type(array).__name__} has no __dlpack__; expected a NumPy array or a DLPack "
                             "object")
    keep.append(capsule)
    if _is_valid(capsule, VERSIONED):
        managed = _pointer(capsule, VERSIONED)
        major = ctypes.c_uint32.from_address(managed).value
        if major != _raw.DLPACK_MAJOR_VERSION:
            raise argument_error(f"{name}: DLPack version {major}; expected {_raw.DLPACK_MAJOR_VERSION}")
        flags = ctypes.c_uint64.from_address(managed + FLAGS_OFFSET).value
        return managed + TENSOR_OFFSET, not flags & _raw.DLPACK_FLAG_BITMASK_READ_ONLY
    if _is_valid(capsule, LEGACY):
        return _pointer(capsule, LEGACY), False
    raise argument_error(f"{name}: __dlpack__ of {type(array).__name__} gave {capsule!r}; expected an unused capsule "
                         "'dltensor_versioned' or 'dltensor'")


def _export(name: str, array):
    """A capsule of a foreign array: the new protocol if it knows it, else the legacy one."""
    try:
        try:
            return array.__dlpack__(max_version=MAX_VERSION)
        except TypeError:
            return array.__dlpack__()
    except (BufferError, RuntimeError, TypeError, ValueError) as reason:
        raise argument_error(f"{name}: {type(array).__name__} gives no DLPack tensor: {reason}") from reason


def _describe(name: str, array: numpy.ndarray, keep: list) -> int:
    """A DLTensor made by hand from a NumPy array."""
    word = WORDS.get(array.dtype.name) if array.dtype.isnative else None
    if word is None:
        raise dtype_error(f"{name} has NumPy dtype {array.dtype}; expected a native float, bfloat16, integer or bool")
    size = array.itemsize
    if any(stride % size for stride in array.strides):
        raise argument_error(f"{name} has byte strides {array.strides}; expected multiples of its item size {size}")
    extents = ctypes.c_int64 * max(array.ndim, 1)
    shape, strides = extents(*array.shape), extents(*(stride // size for stride in array.strides))
    tensor = _raw.DLTensor(data=array.__array_interface__["data"][0], device=_raw.DLDevice(_raw.kDLCPU, 0),
                           ndim=array.ndim, dtype=_raw.DLDataType(word & 255, word >> 8 & 255, 1),
                           shape=ctypes.addressof(shape), strides=ctypes.addressof(strides))
    keep += (array, shape, strides, tensor)
    return ctypes.addressof(tensor)


def word_at(address: int) -> int:
    """The dtype of a DLTensor as one number."""
    return ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value


def shape_at(address: int) -> tuple[int, ...]:
    """The extents of a DLTensor; () when they make no sense, which the library then says in its own words."""
    tensor = _raw.DLTensor.from_address(address)
    if not tensor.shape or not 0 < tensor.ndim <= 8:
        return ()
    shape = tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.shape))
    return shape if min(shape) >= 0 else ()


class Result:
    """An output: NumPy memory that the library writes, then handed over as the type of `like`."""

    __slots__ = ("address", "_array", "_word", "_like")

    def __init__(self, name: str, given, shape: tuple[int, ...], word: int, like, keep: list):
        self._word, self._like = word, like
        if given is not None:
            self._array, self._like = given, None
            self.address = borrow_output(name, given, keep)
            return
        self._array = numpy.empty(shape, STORAGE.get(word, numpy.float32))
        self.address = borrow(name, self._array, keep)
        if word == BFLOAT16:
            ctypes.c_uint32.from_address(self.address + DTYPE_OFFSET).value = word

    def array(self):
        if self._like is None:
            return self._array
        if isinstance(self._like, numpy.ndarray):
            return self._array.view(_numpy_bfloat16(self._like)) if self._word == BFLOAT16 else self._array
        return _hand_over(self._array, self._word, self._like)


class _Bfloat16:
    """uint16 memory of NumPy as a bfloat16 DLPack object: NumPy's own capsule with another dtype written into it."""

    def __init__(self, array: numpy.ndarray):
        self._array = array

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options):
        capsule = self._array.__dlpack__(**options)
        if _is_valid(capsule, VERSIONED):
            address = _pointer(capsule, VERSIONED) + TENSOR_OFFSET
        else:
            address = _pointer(capsule, LEGACY)
        ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value = BFLOAT16
        return capsule


def _hand_over(array: numpy.ndarray, word: int, like):
    """The array as the type of `like`: by its array-API namespace, else by from_dlpack of the package it comes from."""
    source = _Bfloat16(array) if word == BFLOAT16 else array
    namespace = getattr(like, "__array_namespace__", None)
    if namespace is not None:
        return namespace().from_dlpack(source)
    for kind in type(like).__mro__:
        package = sys.modules.get(kind.__module__.partition(".")[0])
        if hasattr(package, "from_dlpack"):
            return package.from_dlpack(source)
    return array.view(_numpy_bfloat16(like)) if word == BFLOAT16 else array


def _numpy_bfloat16(like) -> numpy.dtype:
    """NumPy's bfloat16: the dtype of the caller's own array, else that of ml_dtypes."""
    dtype = getattr(like, "dtype", None)
    if isinstance(dtype, numpy.dtype) and dtype.name == "bfloat16":
        return dtype
    import ml_dtypes

    return numpy.dtype(ml_dtypes.bfloat16)
