"""PyTorch, CuPy and JAX on CUDA: their devices, current streams and allocators. None is imported, only used if loaded.

Every framework answers the same questions:
    device_of(array)           the array's CUDA device, None elsewhere
    stream(device)             the stream on which a call belongs, as a CUstream number (0: legacy default)
    empty(shape, word, device) a new array, ordered by that stream
    empty_like(like)           the same with the shape, the dtype and the device of one of its arrays
    workspace(size, device, stream)  bytes as (their owner, address), ordered likewise
    from_host(array, device)   a NumPy array copied to the device
    fork(device, stream)       `stream` waits for what the framework has in flight
    join(device, stream)       what the framework does next waits for `stream`
    waits                      the host must wait for the call's end: the framework tracks no foreign stream
"""
from __future__ import annotations

import ctypes
import functools
import sys
from typing import Iterable, Optional

from . import _raw
from ._errors import argument_error, error

DRIVER = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")
LEGACY_STREAMS = (0, 1)  # two names of the legacy default stream


class Torch:
    waits = False

    def __init__(self, words: dict):
        self.bytes = words["uint8"]
        self.torch = torch = sys.modules["torch"]
        self.dtypes = {word: getattr(torch, name) for name, word in words.items() if hasattr(torch, name)}
        self.words = {dtype: word for word, dtype in self.dtypes.items()}
        self.devices: dict = {}
        self.empty_like = torch.empty_like  # half the time of empty(); the order of dimensions in memory is kept
        raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # 0.2 us, where current_stream() takes 8
        self.stream = raw or (lambda device: torch.cuda.current_stream(device).cuda_stream)

    def device_of(self, array) -> Optional[int]:
        return array.get_device() if array.is_cuda else None

    def empty(self, shape, word: int, device: int):
        torch = self.torch
        where = self.devices.get(device)
        if where is None:
            where = self.devices[device] = torch.device("cuda", device)
        return torch.empty(shape, dtype=self.dtypes.get(word, torch.float32), device=where)

    def workspace(self, size: int, device: int, stream: int):
        owner = self.empty(size, self.bytes, device)
        return owner, owner.data_ptr()

    def from_host(self, array, device: int):
        return self.torch.from_numpy(array).to(self.torch.device("cuda", device))

    def _foreign(self, device: int, stream: int):
        cuda = self.torch.cuda
        if stream in LEGACY_STREAMS:  # ExternalStream takes the low bits of a number for its own
            return cuda.default_stream(device)
        return cuda.ExternalStream(stream, device=device)

    def fork(self, device: int, stream: int) -> None:
        self._foreign(device, stream).wait_stream(self.torch.cuda.current_stream(device))

    def join(self, device: int, stream: int) -> None:
        self.torch.cuda.current_stream(device).wait_stream(self._foreign(device, stream))


class _Handle:
    """A stream of another framework, by the protocol for streams (version 0)."""

    def __init__(self, stream: int):
        self.stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream


class Cupy:
    waits = False

    def __init__(self, words: dict):
        self.bytes = words["uint8"]
        self.cupy = sys.modules["cupy"]
        self.dtypes = {word: name for name, word in words.items() if name != "bfloat16"}
        if "ml_dtypes" in sys.modules:
            self.dtypes[words["bfloat16"]] = sys.modules["ml_dtypes"].bfloat16

    def device_of(self, array) -> int:
        return array.data.device_id

    def stream(self, device: int) -> int:
        return self.cupy.cuda.get_current_stream(device).ptr

    def empty(self, shape, word: int, device: int):
        return self._empty(shape, self.dtypes.get(word, "float32"), device)

    def empty_like(self, like):
        return self._empty(like.shape, like.dtype, like.data.device_id)

    def _empty(self, shape, dtype, device: int):
        if self.cupy.cuda.runtime.getDevice() == device:
            return self.cupy.empty(shape, dtype)
        with self.cupy.cuda.Device(device):
            return self.cupy.empty(shape, dtype)

    def workspace(self, size: int, device: int, stream: int):
        owner = self.empty(size, self.bytes, device)
        return owner, owner.data.ptr

    def from_host(self, array, device: int):
        with self.cupy.cuda.Device(device):
            return self.cupy.asarray(array)

    def _foreign(self, device: int, stream: int):
        cuda = self.cupy.cuda
        if stream in LEGACY_STREAMS:
            return cuda.Stream.null
        if hasattr(cuda.Stream, "from_external"):  # since 14, where ExternalStream is deprecated
            return cuda.Stream.from_external(_Handle(stream))
        return cuda.ExternalStream(stream, device)

    def fork(self, device: int, stream: int) -> None:
        with self.cupy.cuda.Device(device):
            event = self.cupy.cuda.get_current_stream(device).record()
            self._foreign(device, stream).wait_event(event)

    def join(self, device: int, stream: int) -> None:
        with self.cupy.cuda.Device(device):
            event = self._foreign(device, stream).record()
            self.cupy.cuda.get_current_stream(device).wait_event(event)


class Jax:
    """JAX has no current stream. Its own protocol for foreign work is one more stream per device; an array makes that
    stream wait for itself (__dlpack__). JAX does not know when a foreign kernel ends, so the host waits for it: then
    results may be read at once, and memory of the inputs may be reused.

    Without that wait a result could still be handed over (from_dlpack takes a stream), but an input could not: its
    capsule would have to live until the kernel ends, and meanwhile JAX refuses to donate the array, so a jitted step
    that does would fail now and then. Only a call from within XLA, as dlattn.jax makes it, knows both ends."""

    waits = True

    def __init__(self, words: dict):
        self.bytes = words["uint8"]
        self.jax = sys.modules["jax"]
        self.dtypes = {word: getattr(self.jax.numpy, name) for name, word in words.items() if name != "bool"}
        self.dtypes[words["bool"]] = self.jax.numpy.bool_
        self.devices: dict = {}
        self._maker = functools.lru_cache(maxsize=256)(self._make_maker)

    def device_of(self, array) -> Optional[int]:
        kind, device = array.__dlpack_device__()
        return device if kind in CUDA_DEVICES else None

    def _device(self, number: int):
        """The JAX device with the number that CUDA and DLPack use."""
        if number not in self.devices:
            self.devices.update((device.local_hardware_id, device) for device in self.jax.local_devices(backend="cuda"))
        return self.devices[number]

    def stream(self, device: int) -> int:
        return self._device(device).get_stream_for_external_ready_events()

    def empty(self, shape, word: int, device: int):
        dtype = self.dtypes.get(word, self.jax.numpy.float32)
        return self._maker(tuple(shape) if isinstance(shape, Iterable) else (shape,), dtype, self._device(device))()

    def empty_like(self, like):
        return self._maker(like.shape, like.dtype, like.device)()

    def _make_maker(self, shape: tuple, dtype, device):
        """jax.numpy.empty, compiled for one shape: then it takes a fifth of the time."""
        place = self.jax.sharding.SingleDeviceSharding(device)
        return self.jax.jit(lambda: self.jax.numpy.empty(shape, dtype), out_shardings=place)

    def workspace(self, size: int, device: int, stream: int):
        owner = self.empty(size, self.bytes, device)
        return (owner, owner.__dlpack__(stream=stream)), owner.unsafe_buffer_pointer()

    def from_host(self, array, device: int):
        return self.jax.device_put(array, self._device(device))

    def fork(self, device: int, stream: int) -> None:
        """Nothing: each array orders itself when it is exported."""

    def join(self, device: int, stream: int) -> None:
        """Nothing: see waits."""


CUDA_DEVICES = (_raw.kDLCUDA, _raw.kDLCUDAManaged)
# By package: who serves it, and what the names of its array types contain.
CLASSES = {"torch": (Torch, "Tensor"), "cupy": (Cupy, "ndarray"), "jaxlib": (Jax, "Array")}
_loaded: dict = {}


def framework_of(kind: type, words: dict):
    """The framework that an array type comes from, or None."""
    for base in kind.__mro__:
        package = str(base.__module__).partition(".")[0]
        made, arrays = CLASSES.get(package, (None, ""))
        if made is not None and arrays in base.__name__:
            if made not in _loaded:
                _loaded[made] = made(words)
            return _loaded[made]
    return None


def wait(stream: int) -> None:
    """Lets the host wait for a stream, whoever made it."""
    if "driver" not in _loaded:
        _loaded["driver"] = ctypes.CDLL(DRIVER)
    status = _loaded["driver"].cuStreamSynchronize(ctypes.c_void_p(stream))
    if status:
        raise error(_raw.DLATTN_ERR_CUDA, f"cuStreamSynchronize: CUDA error {status} after the call, which waits "
                    "because an array comes from JAX or a package without streams")


def unknown(name: str, array) -> Exception:
    return argument_error(f"{name}: this {type(array).__name__} lies on CUDA, and results can be made there for "
                          "PyTorch, CuPy and JAX; expected an array of one of them")
