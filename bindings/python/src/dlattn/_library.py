"""Finds and loads the shared library: DLATTN_LIBRARY, else the package's own folder, else the system's loader."""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from pathlib import Path

from . import _raw
from ._errors import error

FILE = {"darwin": "libdlattn.dylib", "win32": "dlattn.dll"}.get(sys.platform, "libdlattn.so")


def _path() -> str:
    given = os.environ.get("DLATTN_LIBRARY")
    if given:
        return given
    own = Path(__file__).with_name(FILE)
    if own.exists():
        return str(own)
    return ctypes.util.find_library("dlattn") or FILE


def _load() -> ctypes.CDLL:
    path = _path()
    try:
        library = ctypes.CDLL(path)
    except OSError as reason:
        raise ImportError(f"dlattn: cannot load {path} ({reason}); install the package with pip, or set DLATTN_LIBRARY "
                          "to the path of the shared library") from None
    try:
        _raw.declare(library)
    except AttributeError as reason:
        raise ImportError(f"dlattn: {path} is not the library this package was made for ({reason})") from None
    found = library.dlattn_abi_version()
    if found != _raw.DLATTN_ABI_VERSION:
        raise ImportError(f"dlattn: {path} has ABI version {found}, this package needs {_raw.DLATTN_ABI_VERSION}")
    return library


library = _load()


def check(status: int) -> None:
    """Raises the exception of a failed call, with the library's sentence."""
    if status:
        sentence = library.dlattn_last_error().decode(errors="replace")
        raise error(status, sentence or library.dlattn_status_name(status).decode())
