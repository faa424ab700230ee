"""Loads the XLA handlers, a small shared library beside libdlattn, and registers them with JAX.

DLATTN_XLA_LIBRARY names another build of it. Its source is bindings/python/native/xla_ffi.c.
"""
from __future__ import annotations

import ctypes
import os
from pathlib import Path

import jax
from jaxlib import xla_client

from .. import _nvrtc
from .._library import library

FILE = "libdlattn_xla.so"
# Names that programs call by. A change of what a call looks like takes the next number.
FORWARD, BACKWARD = "dlattn_forward_1", "dlattn_backward_1"


def _candidates():
    given = os.environ.get("DLATTN_XLA_LIBRARY")
    if given:
        return [given]
    beside = Path(library._name).resolve().with_name(FILE)
    own = Path(__file__).resolve().parents[1] / FILE
    return [str(path) for path in (beside, own) if path.exists()] or [FILE]


def _load() -> ctypes.CDLL:
    path = _candidates()[0]
    try:
        return ctypes.CDLL(path)
    except OSError as reason:
        raise ImportError(f"dlattn.jax: cannot load {path} ({reason}); install the package with pip, or set "
                          "DLATTN_XLA_LIBRARY to the path of libdlattn_xla.so") from None


def _register() -> None:
    handlers = _load()
    connect = handlers.dlattn_xla_connect
    connect.restype, connect.argtypes = None, [ctypes.c_void_p] * 3
    connect(*(ctypes.cast(function, ctypes.c_void_p)
              for function in (library.dlattn_forward, library.dlattn_backward, library.dlattn_prepare)))
    _nvrtc.announce()
    capsule = jax.ffi.pycapsule
    traits = xla_client.CustomCallTargetTraits.COMMAND_BUFFER_COMPATIBLE
    for name, direction in ((FORWARD, "forward"), (BACKWARD, "backward")):
        jax.ffi.register_ffi_target(name, capsule(handlers[f"dlattn_xla_{direction}_cpu"]), platform="cpu")
        stages = {"initialize": capsule(handlers[f"dlattn_xla_prepare_{direction}_cuda"]),
                  "execute": capsule(handlers[f"dlattn_xla_{direction}_cuda"])}
        jax.ffi.register_ffi_target(name, stages, platform="CUDA", traits=traits)


_register()
