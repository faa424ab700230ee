"""Calls that tell rather than compute: dropout_mask, explain, set_option, version."""
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


@with_options
def explain(q: Optional[Array] = None, k: Optional[Array] = None, v: Optional[Array] = None, *, backward: bool = False,
            grads: Sequence[str] = ("dq", "dk", "dv"), **options: Unpack[Options]) -> str:
    """What a call would do, in words, or why it would be refused; without tensors: the library and the machine."""
    text = ctypes.create_string_buffer(TEXT_BYTES)
    address = ctypes.addressof(text)
    if q is None:
        check(library.dlattn_explain(None, None, None, None, address, TEXT_BYTES))
        return text.value.decode(errors="replace")
    problem = Problem(q, k, v, options)
    exec_ = problem.exec if problem.loans.run is None else problem.loans.exec
    shape, word = _tensor.shape_at(problem.q_address), _tensor.word_at(problem.q_address)
    out_shape = _attention._out_shape(shape, _tensor.shape_at(problem.v_address))
    out = problem.outline(out_shape, word)
    lse = problem.outline(_attention._lse_shape(shape, problem.struct.layout), _attention._lse_word(word))
    if backward:
        struct = _raw.dlattn_gradients(ctypes.sizeof(_raw.dlattn_gradients), out, lse, problem.outline(out_shape, word))
        for name, _ in _attention._wanted(grads, dict.fromkeys(_attention.GRADIENTS)).items():
            setattr(struct, name, problem.outline(*problem.look(name)))
        library.dlattn_explain(problem.struct, None, struct, exec_, address, TEXT_BYTES)
    else:
        outputs = _raw.dlattn_outputs(ctypes.sizeof(_raw.dlattn_outputs), out, lse)
        library.dlattn_explain(problem.struct, outputs, None, exec_, address, TEXT_BYTES)
    return text.value.decode(errors="replace")


def set_option(name: str, value: Union[str, int, None]) -> None:
    """A process-wide setting: "num_threads", "cpu_isa" (scalar, avx2, avx512, avx512bf16, neon, auto), "log", or "nvrtc"
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
