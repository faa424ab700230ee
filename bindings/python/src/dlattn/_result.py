"""Outputs: arrays that the caller gave, or new ones in the caller's own array type."""
from __future__ import annotations

import sys

import numpy

from ._run import Loans
from ._tensor import (BFLOAT16, LEGACY, STORAGE, TENSOR_OFFSET, VERSIONED, _is_valid, _pointer, _rename_bfloat16, borrow,
                      borrow_output)


class Result:
    """An output. On CUDA it is made by the framework of the call's first tensor; on the CPU it is NumPy memory, handed
    over as the type of `like` when the library has written it."""

    __slots__ = ("address", "_array", "_word", "_like")

    def __init__(self, name: str, given, shape: tuple[int, ...], word: int, like, loans: Loans):
        self._word, self._like = word, like
        if given is not None:
            self._array, self._like = given, None
            self.address = borrow_output(name, given, loans)
        elif loans.run is not None:
            self._array, self._like = loans.run.empty(shape, word, like), None
            self.address = borrow(name, self._array, loans)
        else:
            self._array = numpy.empty(shape, STORAGE.get(word, numpy.float32))
            self.address = borrow(name, self._array, loans)
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
