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
NDIM_OFFSET, DTYPE_OFFSET, SHAPE_OFFSET = (getattr(_raw.DLTensor, _field).offset for _field in
                                           ("ndim", "dtype", "shape"))

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
_words: dict = {}  # see _word_of


def borrow(name: str, array, keep: list) -> int:
    """The address of a DLTensor that describes `array`. It is valid while `keep` lives."""
    if not isinstance(array, numpy.ndarray):
        return _borrow_foreign(name, array, keep)[0]
    if array.dtype.kind == "V" and _word_of(array.dtype) == BFLOAT16:  # NumPy exports it only as another type
        return _rename_bfloat16(borrow(name, array.view(STORAGE[BFLOAT16]), keep))
    try:
        capsule = array.__dlpack__(max_version=MAX_VERSION)
    except (BufferError, TypeError):  # a dtype that NumPy does not export, or NumPy before 2.1
        return _describe(name, array, keep)
    keep.append(capsule)
    return _pointer(capsule, VERSIONED) + TENSOR_OFFSET


def _rename_bfloat16(address: int) -> int:
    """Writes bfloat16 as the dtype of a DLTensor that says uint16."""
    ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value = BFLOAT16
    return address


def borrow_output(name: str, array, keep: list) -> int:
    """The same for an array that the library writes: it must say that it may be written."""
    if isinstance(array, numpy.ndarray):
        address, writable = borrow(name, array, keep), array.flags.writeable
    else:
        address, writable = _borrow_foreign(name, array, keep)
    if not writable:
        raise argument_error(f"{name}: this {type(array).__name__} is read-only, or cannot say that it may be written; "
                             "expected a writable array")
    return address


def _borrow_foreign(name: str, array, keep: list) -> tuple[int, bool]:
    """Address, and whether the array may be written, which legacy capsules cannot say."""
    if isinstance(array, (list, tuple)):
        return borrow(name, numpy.asarray(array), keep), False
    if not hasattr(array, "__dlpack__"):
        raise argument_error(f"{name}: {type(array).__name__} has no __dlpack__; expected a NumPy array or a DLPack "
                             "object")
    capsule = _export(name, array)
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


def _word_of(dtype: numpy.dtype) -> int:
    """The DLPack number of a NumPy dtype; 0 when it has none. Their names are slow, so they are remembered."""
    word = _words.get(dtype)
    if word is None:
        word = _words[dtype] = WORDS.get(dtype.name, 0) if dtype.isnative else 0
    return word


def _describe(name: str, array: numpy.ndarray, keep: list) -> int:
    """A DLTensor made by hand from a NumPy array."""
    word = _word_of(array.dtype)
    if not word:
        raise dtype_error(f"{name} has NumPy dtype {array.dtype}; expected a native float, bfloat16, integer or bool")
    size, ndim = array.itemsize, array.ndim
    if any(stride % size for stride in array.strides):
        raise argument_error(f"{name} has byte strides {array.strides}; expected multiples of its item size {size}")
    sizes = (ctypes.c_int64 * (2 * ndim))(*array.shape, *(stride // size for stride in array.strides))
    start = ctypes.addressof(sizes)
    tensor = _raw.DLTensor(array.ctypes.data, (_raw.kDLCPU, 0), ndim, (word & 255, word >> 8 & 255, 1), start,
                           start + 8 * ndim)
    keep += (array, sizes, tensor)
    return ctypes.addressof(tensor)


def word_at(address: int) -> int:
    """The dtype of a DLTensor as one number."""
    return ctypes.c_uint32.from_address(address + DTYPE_OFFSET).value


def shape_of(array, address: int) -> tuple[int, ...]:
    """The extents of an array that lies at `address`, as a DLTensor says them."""
    return array.shape if isinstance(array, numpy.ndarray) else shape_at(address)


def shape_at(address: int) -> tuple[int, ...]:
    """The extents of a DLTensor; () when they make no sense, which the library then says in its own words."""
    ndim = ctypes.c_int32.from_address(address + NDIM_OFFSET).value
    extents = ctypes.c_void_p.from_address(address + SHAPE_OFFSET).value
    if not extents or not 0 < ndim <= 8:
        return ()
    shape = tuple((ctypes.c_int64 * ndim).from_address(extents))
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
            _rename_bfloat16(self.address)

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
        _rename_bfloat16(address)
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
