"""The DLPack C exchange table of an array type: a DLTensor in one C call, without capsule, copy or synchronisation."""
from __future__ import annotations

import ctypes
from typing import Callable, Optional

from . import _raw

ATTRIBUTE, NAME = "__dlpack_c_exchange_api__", b"dlpack_exchange_api"


class Table(ctypes.Structure):
    """DLPackExchangeAPI of dlpack.h 1.3. Its header is the same in every version."""

    _fields_ = [("version", _raw.DLPackVersion), ("previous", ctypes.c_void_p), ("allocate", ctypes.c_void_p),
                ("managed_from_object", ctypes.c_void_p), ("managed_to_object", ctypes.c_void_p),
                ("tensor_from_object", ctypes.c_void_p), ("current_stream", ctypes.c_void_p)]


# Raises what the C function has set. A DLTensor goes in as it is, which takes ctypes half the time of an address.
Export = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_raw.DLTensor))
# Function objects of our own: the attributes of ctypes.pythonapi belong to every package of the process, and JAX sets their types.
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))


def exporter(kind: type) -> Optional[Callable[[object, _raw.DLTensor], int]]:
    """f(array, DLTensor to fill) for a type that has a table of our DLPack major version, else None.

    Shape and strides of the DLTensor lie inside the array, so it must outlive them.
    """
    capsule = getattr(kind, ATTRIBUTE, None)
    if type(capsule).__name__ != "PyCapsule":
        return None
    address = _pointer(capsule, NAME)
    while address:
        table = Table.from_address(address)
        if table.version.major == _raw.DLPACK_MAJOR_VERSION:
            return Export(table.tensor_from_object) if table.tensor_from_object else None
        address = table.previous
    return None
