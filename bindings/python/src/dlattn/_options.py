"""The options that every call shares, and how they become the C struct dlattn_attention."""
from __future__ import annotations

import ctypes
import inspect
import operator
from typing import Any, Optional, Tuple, TypedDict, Union

from . import _raw, _tensor
from ._errors import argument_error
from ._result import Result
from ._run import Loans

Array = Any  # anything with __dlpack__; the result is of the same type
Window = Union[int, Tuple[Optional[int], Optional[int]]]


class Options(TypedDict, total=False):
    """Keyword arguments of attention, attention_backward, dropout_mask and explain. An absent one is off.

    Letters: B batch, H query heads, G key/value heads (G divides H), M queries, N keys, D head size of q and k, E of v.
    float: the dtype of q, or float32. integer: int32 or int64. Lists and tuples of numbers do for integer vectors.
    """

    scale: Optional[float]  # multiplies q.k; None: 1/sqrt(D); 0 and negative values are taken as they are
    causal: bool  # a query sees keys up to its own position; the last query sees the last key, unless top_left
    window: Optional[Window]  # (left, right): keys from position i-left to i+right; None or -1: unlimited; w: (w, w)
    block_window: Optional[tuple[int, int]]  # (size, count): the query's block of `size` keys and count-1 before it
    bias: Optional[Array]  # float, rank 1 to 4, right-aligned to [B,H,M,N]; an extent of 1 broadcasts
    mask: Optional[Array]  # bool or uint8, shapes as bias; nonzero keeps
    softcap: float  # softcap * tanh(score / softcap) when positive
    alibi_slopes: Optional[Array]  # float [H] or [B,H]
    sinks: Optional[Array]  # float [H]: one more score per row, which has no value
    segments: Optional[Union[Array, tuple[Array, Array]]]  # integer ([B,M], [B,N]), or one [B,M] for both sides
    dropout: float  # probability in [0, 1]
    seed: int  # of the dropout, 64 bits
    offset: int  # of the dropout's random stream, 64 bits
    rng_state: Optional[Array]  # [2] 64-bit integers (seed, offset) or [4] uint32: overrides both
    layout: str  # "bshd": [B,M,H,D]; "bhsd": [B,H,M,D]
    top_left: bool  # query i has position i, also when M != N
    positions: Optional[tuple[Union[int, Array, None], Union[int, Array, None]]]  # first position of q and k: int or [B]
    cu_seqlens_q: Optional[Array]  # integer [B+1]: q is packed [T,H,D] (bhsd: [H,T,D])
    cu_seqlens_k: Optional[Array]  # integer [B+1]: k and v are packed
    max_seqlen_q: int  # packed: an upper bound on the lengths of q; 0: the number of tokens
    max_seqlen_k: int
    seqlens_q: Optional[Array]  # integer [B]: used length of each sequence
    seqlens_k: Optional[Array]
    block_table: Optional[Array]  # integer [B,pages]: k and v are pages [P,page,G,D|E]; needs seqlens_k, forward only
    deterministic: bool  # the CPU always is
    allow_tf32: bool
    num_threads: int  # 0: DLATTN_NUM_THREADS, else what the machine allows


TENSORS = ("bias", "mask", "alibi_slopes", "sinks", "rng_state", "cu_seqlens_q", "cu_seqlens_k", "seqlens_q",
           "seqlens_k", "block_table")
INTEGERS = {"seed": (0, 2**64), "offset": (0, 2**64), "max_seqlen_q": (-2**63, 2**63), "max_seqlen_k": (-2**63, 2**63)}
FLAGS = {"causal": _raw.DLATTN_CAUSAL, "top_left": _raw.DLATTN_TOP_LEFT, "deterministic": _raw.DLATTN_DETERMINISTIC,
         "allow_tf32": _raw.DLATTN_ALLOW_TF32}
LAYOUTS = {"bshd": _raw.DLATTN_BSHD, "bhsd": _raw.DLATTN_BHSD}


def integer(name: str, value, low: int = -2**63, high: int = 2**63) -> int:
    """An int that fits its C field; ctypes would wrap it silently."""
    try:
        number = operator.index(value)
    except TypeError:
        raise argument_error(f"{name} is {value!r}; expected an integer") from None
    if not low <= number < high:
        raise argument_error(f"{name} is {number}; expected {low} to {high - 1}")
    return number


def number(name: str, value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise argument_error(f"{name} is {value!r}; expected a number") from None


def layout_code(name: str) -> int:
    try:
        return LAYOUTS[name]
    except (KeyError, TypeError):
        raise argument_error(f"layout is {name!r}; expected 'bshd' or 'bhsd'") from None


def pair(name: str, value) -> tuple:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise argument_error(f"{name} is {value!r}; expected a pair") from None
    return first, second


class Problem:
    """dlattn_attention filled from Python arguments; `loans` owns what its addresses point to during the call."""

    __slots__ = ("struct", "loans", "exec", "q", "arrays", "q_address", "v_address", "k_address")

    def __init__(self, q, k, v, options: dict):
        self.loans = loans = Loans.take()
        self.exec, self.q = None, q
        self.arrays = k, v, options
        self.q_address = _tensor.lead("q", q, loans)
        self.k_address = _tensor.borrow("k", k, loans)
        self.v_address = _tensor.borrow("v", v, loans)
        self.struct = loans.fill_attention(self.q_address, self.k_address, self.v_address)
        for name, value in options.items():
            if value is not None:
                self._set(name, value)

    def _set(self, name: str, value) -> None:
        struct = self.struct
        if name in FLAGS:
            if value:
                struct.flags |= FLAGS[name]
        elif name == "layout":
            struct.layout = layout_code(value)
        elif name in TENSORS:
            setattr(struct, name, _tensor.borrow(name, value, self.loans))
        elif name in INTEGERS:
            setattr(struct, name, integer(name, value, *INTEGERS[name]))
        elif name in ("softcap", "dropout"):
            setattr(struct, name, number(name, value))
        elif name in SPECIAL:
            SPECIAL[name](self, value)
        else:
            raise TypeError(f"unknown option {name!r}; expected one of {', '.join(Options.__annotations__)}")

    def _set_scale(self, value) -> None:
        self.struct.scale = number("scale", value)
        self.struct.flags |= _raw.DLATTN_SCALE

    def _set_window(self, value) -> None:
        left, right = (value, value) if hasattr(value, "__index__") else pair("window", value)
        self.struct.window_left = -1 if left is None else integer("window", left)
        self.struct.window_right = -1 if right is None else integer("window", right)
        self.struct.flags |= _raw.DLATTN_WINDOW

    def _set_block_window(self, value) -> None:
        size, count = pair("block_window", value)
        self.struct.block_size, self.struct.block_count = integer("block_size", size), integer("block_count", count)
        self.struct.flags |= _raw.DLATTN_BLOCK_WINDOW

    def _set_segments(self, value) -> None:
        q, k = pair("segments", value) if isinstance(value, (tuple, list)) else (value, value)
        self.struct.q_segments = _tensor.borrow("q_segments", q, self.loans)
        self.struct.kv_segments = _tensor.borrow("kv_segments", k, self.loans)

    def _set_positions(self, value) -> None:
        for side, start in zip("qk", pair("positions", value)):
            if hasattr(start, "__dlpack__") and getattr(start, "ndim", 1) or isinstance(start, (list, tuple)):
                setattr(self.struct, f"{side}_starts", _tensor.borrow(f"{side}_starts", start, self.loans))
            elif start is not None:
                setattr(self.struct, f"{side}_start", integer(f"{side}_start", start))
        self.struct.flags |= _raw.DLATTN_POSITIONS

    def _set_num_threads(self, value) -> None:
        self.exec = _raw.dlattn_exec(ctypes.sizeof(_raw.dlattn_exec))
        self.exec.num_threads = integer("num_threads", value, -2**31, 2**31)

    def parent(self, gradient: str):
        """The tensor that a gradient belongs to, or None."""
        if gradient == "dq":
            return self.q
        k, v, options = self.arrays
        return k if gradient == "dk" else v if gradient == "dv" else options.get(gradient[1:])

    def look(self, gradient: str) -> tuple[tuple, int]:
        """Shape and dtype of a gradient's parent. dbias without bias: as q; the library refuses it."""
        parent = self.parent(gradient)
        if parent is None:
            return _tensor.look(self.q, self.q_address)
        return _tensor.look(parent, getattr(self.struct, gradient[1:]))

    def gradient(self, name: str, given, dtype) -> Result:
        """The array of a gradient: the one that was given, or a new one in the dtype of its parent or the one named."""
        parent = self.parent(name)
        if given is not None:
            return self.output(name, given, (), 0, parent)
        if dtype is None and type(parent) is type(self.q) and self.loans.run is not None:
            return Result(name, None, None, 0, parent, self.loans)
        shape, word = self.look(name)
        return self.output(name, None, shape, dtype_word("grad_dtype", dtype, word), parent)

    def output(self, name: str, given, shape: tuple, word: int, like=None) -> Result:
        """`like`: an array of the type wanted, and most often of the shape; None: q."""
        like = self.q if like is None or self.loans.run is None else like
        return Result(name, given, shape, word, like, self.loans)

    def outline(self, shape: tuple, word: int) -> int:
        """An output that only its shape matters of, on the device of q."""
        return _tensor.outline(shape, word, self.q_address, self.loans)

    def launch(self, function, result, workspace=None) -> None:
        """Calls function(problem, result, exec); workspace: the function that says how much of it a call on CUDA uses."""
        self.loans.launch(function, self.struct, result, self.exec, workspace)


SPECIAL = {"scale": Problem._set_scale, "window": Problem._set_window, "block_window": Problem._set_block_window,
           "segments": Problem._set_segments, "positions": Problem._set_positions,
           "num_threads": Problem._set_num_threads}


def with_options(function):
    """Shows the shared options in the signature that help() and editors print."""
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    defaults = {"causal": False, "top_left": False, "deterministic": False, "allow_tf32": False, "layout": "bshd",
                "softcap": 0.0, "dropout": 0.0, "seed": 0, "offset": 0, "max_seqlen_q": 0, "max_seqlen_k": 0,
                "num_threads": 0}
    shared = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind)
              for name, kind in Options.__annotations__.items()]
    function.__signature__ = signature.replace(parameters=own + shared)
    return function


def dtype_word(name: str, value, default: int) -> int:
    """A dtype argument ("float32", numpy.float32, None) as the number of its DLDataType."""
    if value is None:
        return default
    text = value if isinstance(value, str) else getattr(value, "name", getattr(value, "__name__", str(value)))
    word = _tensor.WORDS.get(text.rpartition(".")[2])
    if word is None:
        raise argument_error(f"{name} is {value!r}; expected 'float32' or the dtype of q")
    return word
