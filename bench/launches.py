"""When a call reaches the driver's launch, by CUPTI, which tells of launches by any library alike.

CUPTI comes with PyTorch. A callback costs some tenths of a microsecond, the same for everyone who is timed.
"""
import ctypes
import statistics
import sys
import time
from pathlib import Path

DRIVER, ENTER = 1, 0  # CUPTI_CB_DOMAIN_DRIVER_API, CUPTI_API_ENTER
LAUNCHES = 307, 442, 652, 653  # cuLaunchKernel, cuLaunchKernelEx, and each for a thread's own default stream
_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int))


def _cupti():
    for entry in map(Path, sys.path):
        for folder in ("nvidia/cu13/lib", "nvidia/cuda_cupti/lib"):
            for path in sorted((entry / folder).glob("libcupti.so.*")):
                return ctypes.CDLL(str(path))
    return ctypes.CDLL("libcupti.so")


class Launches:
    """While it is entered, `times` grows by time.perf_counter() at each launch."""

    def __init__(self):
        self.times = []
        self._library, self._subscriber = _cupti(), ctypes.c_void_p()
        self._callback = _Callback(self._seen)

    def _seen(self, _, domain, number, site):  # the call site is the first field of CUpti_CallbackData
        now = time.perf_counter()
        if site[0] == ENTER:
            self.times.append(now)

    def _must(self, name, *arguments):
        status = getattr(self._library, name)(*arguments)
        if status:
            raise OSError(f"{name} of CUPTI gave {status}")

    def __enter__(self):
        self._must("cuptiSubscribe", ctypes.byref(self._subscriber), self._callback, None)
        for number in LAUNCHES:
            self._must("cuptiEnableCallback", 1, self._subscriber, DRIVER, number)
        return self

    def __exit__(self, *_):
        self._must("cuptiUnsubscribe", self._subscriber)


def to_launch(calls, synchronize, rounds=60, each=50):
    """{name: median microseconds from the call to its first launch}; calls take turns."""
    samples = {name: [] for name, _ in calls}
    with Launches() as launches:
        for _ in range(rounds):
            for name, call in calls:
                synchronize()
                for _ in range(each):
                    launches.times.clear()
                    start = time.perf_counter()
                    call()
                    samples[name] += [(at - start) * 1e6 for at in launches.times[:1]]
    return {name: statistics.median(found) for name, found in samples.items() if found}
