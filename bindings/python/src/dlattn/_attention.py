"""The calls: attention and its backward, merge, dropout_mask, explain, set_option, version."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple, Optional, Sequence

from . import _errors, _raw, _tensor
from ._library import library
from ._options import Array, Options, Problem, dtype_word, layout_code, with_options
from ._result import Result
from ._run import Loans

if TYPE_CHECKING:
    from typing_extensions import Unpack

GRADIENTS = ("dq", "dk", "dv", "dbias", "dsinks")
USUAL = GRADIENTS[:3]
sizeof = ctypes.sizeof
OUTPUTS_SIZE = sizeof(_raw.dlattn_outputs)


class Gradients(NamedTuple):
    """What attention_backward returns; None where a gradient was not wanted."""

    dq: Optional[Array]
    dk: Optional[Array]
    dv: Optional[Array]
    dbias: Optional[Array]
    dsinks: Optional[Array]


def _is_like(q, v) -> bool:
    """Is out like q in everything, as it most often is?"""
    if type(v) is not type(q):
        return False
    left, right = q.shape, v.shape
    return len(left) == len(right) >= 3 and left[-1] == right[-1]


def _out_shape(q: tuple, v: tuple) -> tuple:
    return q if q and v and q[-1] == v[-1] else q[:-1] + v[-1:]


def _lse_shape(q: tuple, layout: int) -> tuple:
    """[B,H,M], packed [H,T], from the shape of q in either layout."""
    if layout == _raw.DLATTN_BHSD or len(q) < 3:
        return q[:-1]
    if len(q) == 4:
        return (q[0], q[2], q[1])  # slices of a torch.Size take three times as long
    return q[:-3] + (q[-2], q[-3])


def _lse_word(word: int) -> int:
    return _tensor.FLOAT64 if word == _tensor.FLOAT64 else _tensor.FLOAT32


@with_options
def attention(q: Array, k: Array, v: Array, *, return_lse: bool = False, out: Optional[Array] = None,
              lse: Optional[Array] = None, out_dtype=None, **options: Unpack[Options]):
    """Exact attention: softmax(scale * q k^T + ...) v, without ever storing the M x N scores.

    Tensors are NumPy arrays or DLPack objects on the CPU (torch, jax, ...), or PyTorch, CuPy and JAX arrays on one
    CUDA device, mixed at will; of any strides, read-only or not; nothing is copied, and the GIL is released. Letters
    and the shared options: see ``dlattn.Options``.

    On CUDA the call runs on the current stream of the framework of q, with memory from that framework's allocator,
    and returns when the work is queued; see the package's README for streams and graphs. For JAX arrays the host waits
    for the end of the call: JAX takes a new array for ready at once and gives the memory of one that was dropped to its
    next program, both in the order of streams of its own, where a call from outside has no place. ``dlattn.jax.attention``
    has one, outside of jit too, and never waits.

    Args:
        q: [B,M,H,D] (layout "bhsd": [B,H,M,D]; packed [T,H,D] or [H,T,D] with cu_seqlens_q), float16, bfloat16,
            float32 or float64.
        k: [B,N,G,D]. v: [B,N,G,E]. G divides H; the dtype of q.
        return_lse: also return the log-sum-exp of each row.
        out: array to write instead of a new one: as q with E, the dtype of q or float32.
        lse: array to write: [B,H,M] (packed [H,T]), float32, or float64 for float64 inputs.
        out_dtype: None (the dtype of q) or "float32" (unrounded).

    Returns:
        out, or (out, lse) with return_lse; of the type of q, or the arrays that were given.

    Raises:
        ArgumentError, ShapeError, DtypeError, DeviceError, UnsupportedError, OutOfMemoryError: with the library's
        sentence; nothing has been written then.
    """
    problem = Problem(q, k, v, options)
    loans, shape, word = problem.loans, (), 0
    if out is None and out_dtype is None and loans.run is not None and _is_like(q, v):
        result = Result("out", None, None, 0, q, loans)
    else:
        shape, word = _tensor.look(q, problem.q_address)
        out_shape = () if out is not None else _out_shape(shape, _tensor.shape_of(v, problem.v_address))
        result = problem.output("out", out, out_shape, dtype_word("out_dtype", out_dtype, word))
    outputs = loans.fill_outputs(result.address)
    if not return_lse and lse is None:
        loans.launch(library.dlattn_forward, problem.struct, outputs, problem.exec, library.dlattn_forward_workspace)
        return result.array()
    if not word:
        shape, word = _tensor.look(q, problem.q_address)
    row = problem.output("lse", lse, _lse_shape(shape, problem.struct.layout), _lse_word(word))
    outputs.lse = row.address
    loans.launch(library.dlattn_forward, problem.struct, outputs, problem.exec, library.dlattn_forward_workspace)
    return (result.array(), row.array()) if return_lse else result.array()


def _check_names(grads: Sequence[str]) -> None:
    for name in grads:
        if name not in GRADIENTS:
            raise TypeError(f"unknown gradient {name!r}; expected some of {', '.join(GRADIENTS)}")


@with_options
def attention_backward(dout: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, *,
                       dlse: Optional[Array] = None, grads: Sequence[str] = USUAL,
                       dq: Optional[Array] = None, dk: Optional[Array] = None, dv: Optional[Array] = None,
                       dbias: Optional[Array] = None, dsinks: Optional[Array] = None, grad_dtype=None,
                       **options: Unpack[Options]) -> Gradients:
    """The gradients of attention, recomputed from out and lse: O(M + N) memory.

    The options must be the forward's. For one part of a split problem pass that part's tensors with the merged out
    and lse; the parts' dq add up.

    Args:
        dout: gradient of out, its shape, the dtype of q. q, k, v: as in attention. out, lse: the forward's results.
        dlse: gradient of lse, its shape; None: zero.
        grads: which gradients are wanted, some of "dq", "dk", "dv", "dbias", "dsinks"; others are not computed.
        dq, dk, dv, dbias, dsinks: arrays to write instead of new ones (shapes of q, k, v, bias, sinks; their dtype or
            float32). A given one is wanted.
        grad_dtype: dtype of new ones: None (that of q, k, v, bias, sinks) or "float32".

    Returns:
        Gradients(dq, dk, dv, dbias, dsinks), of the type of q. dbias has the shape of bias, summed over broadcasts.

    Raises:
        As attention; ArgumentError when dbias or dsinks is wanted without bias or sinks.
    """
    problem = Problem(q, k, v, options)
    loans, borrow = problem.loans, _tensor.borrow
    if grads is not USUAL:
        _check_names(grads)
    addresses = (borrow("out", out, loans), borrow("lse", lse, loans), borrow("dout", dout, loans),
                 0 if dlse is None else borrow("dlse", dlse, loans))
    results = [problem.gradient(name, given, grad_dtype) if given is not None or name in grads else None
               for name, given in zip(GRADIENTS, (dq, dk, dv, dbias, dsinks))]
    struct = loans.fill_gradients(*addresses, *[0 if result is None else result.address for result in results])
    problem.launch(library.dlattn_backward, struct, library.dlattn_backward_workspace)
    return Gradients(*[None if result is None else result.array() for result in results])


def merge(outs: Sequence[Array], lses: Sequence[Array], *, layout: str = "bshd", out: Optional[Array] = None,
          lse: Optional[Array] = None, out_dtype=None) -> tuple[Array, Array]:
    """Joins the results of a problem that was split over its keys.

    Args:
        outs: each as attention's out, all of one shape. lses: each as attention's lse.
        layout: of outs. out, lse: arrays to write instead of new ones. out_dtype: None or "float32".

    Returns:
        (out, lse): lse = log(sum exp(lse_p)), out = sum exp(lse_p - lse) * out_p; of the type of outs[0]. No sink is
        added: pass the sinks to exactly one part.

    Raises:
        ArgumentError, ShapeError, DtypeError, DeviceError, UnsupportedError.
    """
    loans = Loans.take()
    out_addresses = [(_tensor.borrow if index else _tensor.lead)(f"outs[{index}]", array, loans)
                     for index, array in enumerate(outs)]
    lse_addresses = [_tensor.borrow(f"lses[{index}]", array, loans) for index, array in enumerate(lses)]
    if len(out_addresses) != len(lse_addresses) or not out_addresses:
        raise _errors.argument_error(f"{len(out_addresses)} outs and {len(lse_addresses)} lses; expected as many of "
                                     "each, at least one")
    pointers = ctypes.c_void_p * len(out_addresses)
    out_array, lse_array = pointers(*out_addresses), pointers(*lse_addresses)
    code = layout_code(layout)
    parts = _raw.dlattn_parts(sizeof(_raw.dlattn_parts), ctypes.addressof(out_array), ctypes.addressof(lse_array),
                              len(out_addresses), code)
    shape, word = _tensor.shape_at(out_addresses[0]), _tensor.word_at(out_addresses[0])
    word = dtype_word("out_dtype", out_dtype, word)
    result = Result("out", out, shape, word, outs[0], loans)
    row = Result("lse", lse, _tensor.shape_at(lse_addresses[0]), _tensor.word_at(lse_addresses[0]), outs[0], loans)
    loans.launch(library.dlattn_merge, parts, _raw.dlattn_outputs(OUTPUTS_SIZE, result.address, row.address))
    return result.array(), row.array()
