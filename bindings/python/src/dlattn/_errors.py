"""The library's status codes as exceptions."""
from __future__ import annotations

from . import _raw


class Error(Exception):
    """A call the library refused. The text is the library's sentence: which tensor, what was found, what was expected.

    ``code`` is the status code; codes that this version does not know arrive as plain ``Error``.
    """

    def __init__(self, sentence: str, code: int = 0):
        super().__init__(sentence)
        self.code = code


class ArgumentError(Error, ValueError):
    """A value or a combination that no call accepts."""


class ShapeError(Error, ValueError):
    """Ranks, extents, strides or overlaps that do not fit together."""


class DtypeError(Error, TypeError):
    """A dtype that this tensor may not have."""


class DeviceError(Error):
    """A device the library does not serve, or tensors on two devices."""


class UnsupportedError(Error, NotImplementedError):
    """Well-formed, but no backend of this build computes it; ``dlattn.explain`` says why."""


class WorkspaceError(Error):
    """Workspace too small or misaligned."""


class OutOfMemoryError(Error, MemoryError):
    """Host memory could not be had."""


class CudaError(Error):
    """The CUDA driver reported an error."""


class CompileError(Error):
    """A kernel could not be compiled or loaded."""


class InternalError(Error):
    """A defect of the library: please report it."""


CLASSES = {
    _raw.DLATTN_ERR_ARGUMENT: ArgumentError,
    _raw.DLATTN_ERR_SHAPE: ShapeError,
    _raw.DLATTN_ERR_DTYPE: DtypeError,
    _raw.DLATTN_ERR_DEVICE: DeviceError,
    _raw.DLATTN_ERR_UNSUPPORTED: UnsupportedError,
    _raw.DLATTN_ERR_WORKSPACE: WorkspaceError,
    _raw.DLATTN_ERR_OUT_OF_MEMORY: OutOfMemoryError,
    _raw.DLATTN_ERR_CUDA: CudaError,
    _raw.DLATTN_ERR_COMPILE: CompileError,
    _raw.DLATTN_ERR_INTERNAL: InternalError,
}


def error(status: int, sentence: str) -> Error:
    """The exception for a status code, known or not."""
    return CLASSES.get(status, Error)(sentence, status)


def argument_error(sentence: str) -> ArgumentError:
    """For what the C library cannot see: a Python object that does not become a tensor or a number."""
    return ArgumentError(sentence, _raw.DLATTN_ERR_ARGUMENT)


def dtype_error(sentence: str) -> DtypeError:
    return DtypeError(sentence, _raw.DLATTN_ERR_DTYPE)
