"""The few names of CuPy that the package and the tests beside this file use, over the driver itself: arrays on its device 0,
without arithmetic. Names and meanings are CuPy's own."""
import ctypes

import numpy

_driver = ctypes.CDLL("libcuda.so.1")


def _call(name, *arguments):
    status = getattr(_driver, name)(*arguments)
    if status:
        raise RuntimeError(f"{name} reports error {status}")


_call("cuInit", 0)
_context, _stream = ctypes.c_void_p(), ctypes.c_void_p()
_call("cuDevicePrimaryCtxRetain", ctypes.byref(_context), 0)
_call("cuCtxSetCurrent", _context)
_call("cuStreamCreate", ctypes.byref(_stream), 1)


class _Memory:
    """Bytes of the device."""

    device_id = 0

    def __init__(self, size):
        address = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 16)))
        self.ptr = address.value

    def __del__(self):
        _call("cuMemFree_v2", ctypes.c_uint64(self.ptr))


class ndarray:  # CuPy's name
    """Compact, or a permuted view."""

    def __init__(self, data, shape, strides, dtype):
        self.data, self.shape, self.strides, self.dtype, self.itemsize = data, shape, strides, dtype, dtype.itemsize

    @property
    def ndim(self):
        return len(self.shape)

    def transpose(self, *order):
        return ndarray(self.data, tuple(self.shape[n] for n in order), tuple(self.strides[n] for n in order), self.dtype)

    def get(self):
        extents = [stride * (extent - 1) for stride, extent in zip(self.strides, self.shape)]
        raw = numpy.empty(0 if 0 in self.shape else sum(extents) + self.itemsize, numpy.uint8)
        _call("cuStreamSynchronize", _stream)
        _call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(raw.ctypes.data), ctypes.c_uint64(self.data.ptr), ctypes.c_size_t(raw.size), _stream)
        _call("cuStreamSynchronize", _stream)
        return numpy.ndarray(self.shape, self.dtype, raw, 0, self.strides).copy()


def empty(shape, dtype):
    made = numpy.empty(shape, dtype)  # for its strides
    return ndarray(_Memory(made.nbytes), made.shape, made.strides, made.dtype)


def asarray(array):
    array = numpy.ascontiguousarray(array)
    made = empty(array.shape, array.dtype)
    _call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(made.data.ptr), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), _stream)
    _call("cuStreamSynchronize", _stream)
    return made


class cuda:
    class runtime:
        getDevice = staticmethod(lambda: 0)

    class _Stream:
        ptr = _stream.value

    get_current_stream = staticmethod(lambda device: cuda._Stream)
