"""Calls that tell or make ready rather than compute: dropout_mask, explain, prepare, set_option, version."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Optional, Sequence, Union

from . import _attention, _nvrtc, _raw, _tensor
from ._library import check, library
from ._options import Array, Options, Problem, with_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

TEXT_BYTES = 1 << 16


def _sides(problem: Problem) -> tuple[int, int, int, int]:
    """B, H, max M and max N of a problem, for the shape of the mask."""
    struct, bhsd = problem.struct, problem.struct.layout == _raw.DLATTN_BHSD
    q, k = _tensor.shape_at(problem.q_address), _tensor.shape_at(problem.k_address)
    if min(len(q), len(k)) < 3:
        return 0, 0, 0, 0
    heads, queries = (q[-3], q[-2]) if bhsd else (q[-2], q[-3])
    keys = k[-2] if bhsd else k[-3]
    batch = q[0] if len(q) == 4 else 0
    if struct.cu_seqlens_q:
        batch = _tensor.shape_at(struct.cu_seqlens_q)[0] - 1
        queries = struct.max_seqlen_q or queries
    if struct.cu_seqlens_k:
        keys = struct.max_seqlen_k or keys
    elif struct.block_table:
        keys = struct.max_seqlen_k or keys * _tensor.shape_at(struct.block_table)[1]
    return batch, heads, queries, keys


@with_options
def dropout_mask(q: Array, k: Array, v: Optional[Array] = None, *, keep: Optional[Array] = None,
                 **options: Unpack[Options]) -> Array:
    """Which scores dropout keeps, for tests and debugging: bool [B,H,max M,max N], True where kept.

    Args:
        q, k, v: as in attention; only their shapes matter, and v may be left out.
        keep: array to write instead of a new one, bool or uint8.
    """
    problem = Problem(q, k, k if v is None else v, options)
    result = problem.output("keep", keep, () if keep is not None else _sides(problem), _tensor.WORDS["bool"])
    problem.launch(library.dlattn_dropout_mask, result.address)
    return result.array()


def _outlines(problem: Problem) -> tuple[int, int, int]:
    """Addresses of out, lse and dout as a call would make them, without data."""
    shape, word = _tensor.shape_at(problem.q_address), _tensor.word_at(problem.q_address)
    out_shape = _attention._out_shape(shape, _tensor.shape_at(problem.v_address))
    lse_shape = _attention._lse_shape(shape, problem.struct.layout)
    return (problem.outline(out_shape, word), problem.outline(lse_shape, _attention._lse_word(word)),
            problem.outline(out_shape, word))


def _outputs(problem: Problem) -> _raw.dlattn_outputs:
    return _raw.dlattn_outputs(ctypes.sizeof(_raw.dlattn_outputs), *_outlines(problem)[:2])


def _gradients(problem: Problem, grads: Sequence[str]) -> _raw.dlattn_gradients:
    _attention._check_names(grads)
    struct = _raw.dlattn_gradients(ctypes.sizeof(_raw.dlattn_gradients), *_outlines(problem))
    for name in grads:
        setattr(struct, name, problem.outline(*problem.look(name)))
    return struct


def _exec(problem: Problem) -> Optional[_raw.dlattn_exec]:
    return problem.exec if problem.loans.run is None else problem.loans.exec


@with_options
def explain(q: Optional[Array] = None, k: Optional[Array] = None, v: Optional[Array] = None, *, backward: bool = False,
            grads: Sequence[str] = _attention.USUAL, **options: Unpack[Options]) -> str:
    """What a call would do, in words, or why it would be refused; without tensors: the library and the machine."""
    text = ctypes.create_string_buffer(TEXT_BYTES)
    address = ctypes.addressof(text)
    if q is None:
        check(library.dlattn_explain(None, None, None, None, address, TEXT_BYTES))
        return text.value.decode(errors="replace")
    problem = Problem(q, k, v, options)
    outputs, gradients = (None, _gradients(problem, grads)) if backward else (_outputs(problem), None)
    library.dlattn_explain(problem.struct, outputs, gradients, _exec(problem), address, TEXT_BYTES)
    return text.value.decode(errors="replace")


@with_options
def prepare(q: Array, k: Array, v: Array, *, backward: bool = False, grads: Sequence[str] = _attention.USUAL,
            **options: Unpack[Options]) -> None:
    """Makes the first attention of such tensors as fast as the next: compiles and loads kernels, starts threads.

    Computes nothing, and reads no data: only shapes, strides, dtypes, the device and the options matter.

    Args:
        q, k, v, options: as in attention.
        backward: also prepare attention_backward, for these grads.

    Raises:
        As attention; CompileError, CudaError.
    """
    problem = Problem(q, k, v, options)
    gradients = _gradients(problem, grads) if backward else None
    check(library.dlattn_prepare(problem.struct, _outputs(problem), gradients, _exec(problem)))
    problem.loans.release()


def set_option(name: str, value: Union[str, int, None]) -> None:
    """A process-wide setting: "num_threads", "cpu_isa" (scalar, avx2, avx512, avx512bf16, amx, neon, auto), "log", or "nvrtc"
    (where the CUDA backend finds its compiler: a file or a folder; the default is that of PyPI's wheels, if installed).

    None restores the default. Raises ArgumentError (unknown name or value), UnsupportedError (not on this machine).
    """
    if name == "nvrtc":
        _nvrtc.chosen_by_user()
    check(library.dlattn_set_option(name.encode(), None if value is None else str(value).encode()))


def version() -> str:
    """The version of the library, "major.minor.patch"."""
    number = library.dlattn_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def abi_version() -> int:
    """Rises when a binary built against an older header would no longer work."""
    return library.dlattn_abi_version()
