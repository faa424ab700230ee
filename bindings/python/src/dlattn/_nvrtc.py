"""Tells the library where PyPI's NVRTC lies, so that a machine with PyTorch, CuPy or JAX needs no CUDA Toolkit."""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterable, Optional

from ._library import library

FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "nvidia/cu13/bin/x86_64", "nvidia/cuda_nvrtc/bin")
FILES = ("libnvrtc.so.*", "nvrtc64_*.dll")
decided = False  # where NVRTC is, by us or by the user


def wheel_folder(path: Optional[Iterable[str]] = None) -> Optional[str]:
    """The first folder of an installed wheel that holds NVRTC; CUDA 13 before older ones."""
    entries = [Path(entry) for entry in (sys.path if path is None else path) if entry]
    for folder in FOLDERS:
        for entry in entries:
            if any(any((entry / folder).glob(pattern)) for pattern in FILES):
                return str(entry / folder)
    return None


def chosen_by_user() -> None:
    global decided
    decided = True


def announce() -> None:
    """Once per process, when the first CUDA tensor is seen. A user's choice stands."""
    global decided
    if decided:
        return
    decided = True
    if os.environ.get("DLATTN_NVRTC"):
        return
    folder = wheel_folder()
    if folder is not None:
        library.dlattn_set_option(b"nvrtc", os.fsencode(folder))  # a library without CUDA refuses: it needs none
