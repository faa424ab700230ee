"""attention on torch tensors, with gradients.

Plain tensors outside every transform go straight to the C library, in an autograd.Function where a gradient may be
wanted; whatever else there is (torch.compile, torch.func, FakeTensor, other modes and subclasses) sees operators.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import torch
from torch.autograd import forward_ad

from .._errors import argument_error
from .._options import with_options
from . import _keywords, _native, _operators
from ._native import BIAS, SINKS, TENSORS

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._options import Options

_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_SLOPES = TENSORS.index("alibi_slopes") - 3  # behind q, k, v
# Functions of C, by one name each: every lookup and every wrapper in Python is a tenth of a microsecond.
_compiling = getattr(torch.compiler, "is_dynamo_compiling", torch.compiler.is_compiling)
_recording = torch.is_grad_enabled
_deterministic = torch.are_deterministic_algorithms_enabled
_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_any_autocast = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)


def is_plain(q, k, v, others=()) -> bool:
    """Whether nothing but the C library needs to see a call with these tensors."""
    if _compiling() or _modes() or _transforms() is not None or forward_ad._current_level >= 0:
        return False
    if type(q) not in _PLAIN or type(k) not in _PLAIN or type(v) not in _PLAIN:
        return False
    if q.is_meta or q.is_neg() or k.is_neg() or v.is_neg():  # DLPack would hand a negative view over with the wrong sign
        return False
    for x in others:
        if x is not None and (type(x) not in _PLAIN or x.is_neg()):
            return False
    return True


class _Attention(torch.autograd.Function):
    """Records a call whose results are already there: on CUDA the kernel runs while the graph is made."""

    @staticmethod
    def forward(ctx, done, *tensors):
        out, lse, return_lse, *ctx.call = done  # one argument: each costs something, and each result a microsecond
        ctx.save_for_backward(out, lse, *tensors)
        if not return_lse:
            return out
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse=None):
        out, lse, *tensors = ctx.saved_tensors
        fields, num_threads = ctx.call
        wanted = _operators.wanted_of(ctx.needs_input_grad[1:])
        if dout is None and dlse is None:
            return (None,) * (1 + len(tensors))
        dout = _operators.incoming(dout, out, tensors[0])
        # with create_graph the operator records what refuses a second derivative
        direct = not torch.is_grad_enabled() and is_plain(dout, out, lse, tensors)
        run = _native.backward if direct else _through_operator
        results = run(dout, dlse, out, lse, tuple(tensors), fields, wanted, num_threads)
        return None, *_operators.spread(results, wanted, len(tensors))


# What Function.apply calls in the end: outside of torch.func the rest of it is 4 us of nothing.
_apply = super(torch.autograd.Function, _Attention).apply


def _through_operator(dout, dlse, out, lse, tensors, fields, wanted, num_threads):
    return _operators.attention_backward(dout, dlse, out, lse, *tensors, wanted=wanted, num_threads=num_threads, **fields)


def _autocast(q, k, v, rest):
    """Under autocast: q, k, v in its dtype; bias, slopes and sinks likewise, unless they are float32, which they may be."""
    device = "cuda" if q.is_cuda else "cpu"
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        q, k, v = (x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in (q, k, v))
        rest = [x.to(q.dtype) if x is not None and x.is_floating_point() and x.dtype not in (q.dtype, torch.float32)
                else x for x in rest]
    return q, k, v, rest


@with_options
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, return_lse: bool = False,
              out_dtype: Optional[torch.dtype] = None, **options: Unpack[Options]):
    """Exact attention with gradients of q, k, v, bias and sinks, also through the log-sum-exp.

    On CPU and CUDA tensors of any strides; works under autograd, torch.compile(fullgraph=True), torch.func, autocast
    and CUDA graphs. Letters and the shared options: see ``dlattn.Options``; the differences are

    - dropout without ``seed`` and ``rng_state`` draws its random stream from torch's generator (torch.manual_seed);
    - ``deterministic`` is True by default under torch.use_deterministic_algorithms(True).

    Args:
        q: [B,M,H,D] (layout "bhsd": [B,H,M,D]; packed [T,H,D] or [H,T,D] with cu_seqlens_q), float16, bfloat16,
            float32 or float64 (CPU).
        k: [B,N,G,D]. v: [B,N,G,E]. G divides H; the dtype of q.
        return_lse: also return the log-sum-exp of each row, [B,H,M] (packed [H,T]), float32 or float64.
        out_dtype: None (the dtype of q) or torch.float32 (unrounded).

    Returns:
        out, or (out, lse) with return_lse.
    """
    wide = out_dtype is not None and out_dtype != q.dtype
    if wide and out_dtype != torch.float32:
        raise argument_error(f"out_dtype is {out_dtype!r}; expected None, torch.float32 or the dtype of q")
    tensors, fields, threads = (), {}, 0
    if options or _deterministic():
        tensors, fields, threads = _keywords.read(q, options)
    if _any_autocast():
        q, k, v, tensors = _autocast(q, k, v, tensors)
    if not is_plain(q, k, v, tensors):
        _require_tensors(q, k, v, *tensors)
        _refuse_slopes(tensors)
        fields.update(wide=wide, num_threads=threads)
        out, lse = _operators.attention(q, k, v, *tensors, **fields)
    elif _recording() and (q.requires_grad or k.requires_grad or v.requires_grad
                           or (tensors and any(x is not None and x.requires_grad for x in tensors))):
        if tensors:
            _refuse_slopes(tensors)
        tensors = (q, k, v, *tensors)
        return _apply((*_native.forward(tensors, fields, wide, threads), return_lse, fields, threads), *tensors)
    else:
        out, lse = _native.forward((q, k, v, *tensors), fields, wide, threads, return_lse)
    return (out, lse) if return_lse else out


def _require_tensors(*tensors) -> None:
    for place, x in enumerate(tensors):
        if not isinstance(x, torch.Tensor) and (x is not None or place < 3):
            raise argument_error(f"{TENSORS[place]} is of type {type(x).__name__}; expected a torch.Tensor")


def _refuse_slopes(tensors) -> None:
    slopes = tensors[_SLOPES] if len(tensors) > _SLOPES else None
    if slopes is not None and slopes.requires_grad and _recording():
        raise argument_error("alibi_slopes requires grad, and the library gives no gradient of it; expected "
                             "alibi_slopes.detach()")


assert (BIAS, SINKS) == _native.PARENTS[3:]
