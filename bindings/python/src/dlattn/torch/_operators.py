"""torch.library operators: what torch.compile, FakeTensor, functorch and every dispatch mode see of a call.

    dlattn::attention(q, k, v, bias?, ..., *, fields) -> (out, lse)
    dlattn::attention_backward(dout, dlse?, out, lse, q, k, v, bias?, ..., *, wanted, fields) -> the wanted gradients

Tensors are those of _native.TENSORS, fields those of _native.SCALARS.
"""
from __future__ import annotations

import functools

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from .. import _raw
from .._errors import error
from . import _native, _vmap
from ._native import PARENTS, TENSORS

_OPTIONAL = ", ".join(f"Tensor? {name}=None" for name in TENSORS[3:])
_FLOATS = ("scale", "softcap", "dropout")
_FIELDS = ", ".join(f"float {name}=0.0" if name in _FLOATS else f"{'int' if name in ('flags', 'layout') else 'SymInt'} {name}=0"
                    for name in _native.SCALARS)
library = torch.library.Library("dlattn", "DEF")
# The fake kernels give strides that depend on those of the inputs, so these may not be chosen anew.
_tags = [torch.Tag.pt2_compliant_tag]
_tags.append(getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order))
library.define(f"attention(Tensor q, Tensor k, Tensor v, {_OPTIONAL}, *, bool wide=False, int num_threads=0, {_FIELDS}) "
                "-> (Tensor out, Tensor lse)", tags=_tags)
library.define(f"attention_backward(Tensor dout, Tensor? dlse, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, "
                f"{_OPTIONAL}, *, bool[] wanted, int num_threads=0, {_FIELDS}) -> Tensor[]", tags=_tags)
attention = torch.ops.dlattn.attention.default
attention_backward = torch.ops.dlattn.attention_backward.default


def _attention(q, k, v, *rest, wide=False, num_threads=0, **fields):
    return _native.forward((q, k, v, *rest), fields, wide, num_threads)


def _attention_backward(dout, dlse, out, lse, *tensors, wanted, num_threads=0, **fields):
    return _native.backward(dout, dlse, out, lse, tensors, fields, wanted, num_threads)


for _device in ("CPU", "CUDA"):
    library.impl("attention", _attention, _device)
    library.impl("attention_backward", _attention_backward, _device)


@torch.library.register_fake(attention, lib=library)
def _attention_fake(q, k, v, *rest, wide=False, layout=0, **_):
    return _native.empty_out(q, v, wide), _native.empty_lse(q, layout)


@torch.library.register_fake(attention_backward, lib=library)
def _attention_backward_fake(dout, dlse, out, lse, *tensors, wanted, **_):
    return [torch.empty_like(tensors[parent]) for parent, want in zip(PARENTS, wanted) if want]


def transforms() -> bool:
    """Whether torch.func is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def wanted_of(needs_input_grad) -> list:
    """Which of the five gradients are wanted, from what autograd says of q, k, v, bias, ..."""
    return [parent < len(needs_input_grad) and bool(needs_input_grad[parent]) for parent in PARENTS]


def spread(results: list, wanted: list, count: int) -> list:
    """The gradients at the places of their parents among `count` arguments; None elsewhere."""
    grads: list = [None] * count
    found = iter(results)
    for parent, want in zip(PARENTS, wanted):
        if want:
            grads[parent] = next(found)
    return grads


def incoming(dout, out, q):
    """dout as the library takes it: zeros where the loss reads lse alone, and in q's dtype where out was float32."""
    if dout is None:
        return q.new_zeros(()).expand(out.shape)
    return dout if dout.dtype == q.dtype else dout.to(q.dtype)


class _Attention:
    @staticmethod
    def forward(keyset, options, *tensors):
        return _below(attention, keyset, tensors, options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, options, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *tensors)
        ctx.options = {name: value for name, value in options.items() if name != "wide"}

    @staticmethod
    def backward(ctx, dout, dlse):
        out, lse, *tensors = ctx.saved_tensors
        wanted = wanted_of(ctx.needs_input_grad[2:])
        if dout is None and dlse is None or not any(wanted):
            return (None,) * (2 + len(tensors))
        dout = incoming(dout, out, tensors[0])
        results = attention_backward(dout, dlse, out, lse, *tensors, wanted=wanted, **ctx.options)
        return None, None, *spread(results, wanted, len(tensors))


class _AttentionBackward:
    @staticmethod
    def forward(keyset, options, *tensors):
        return tuple(_below(attention_backward, keyset, tensors, options))

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing is kept: see backward."""

    @staticmethod
    def backward(ctx, *grads):
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "dlattn computes first derivatives; the backward of attention cannot be "
                    "differentiated again")


def _below(operator, keyset, tensors, options):
    """The operator without autograd at this level; the levels of torch.func below have a say of their own."""
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad():
        return operator.redispatch(keyset & torch._C._after_autograd_keyset, *tensors, **options)


def _refuse_tangents(tensors) -> None:
    """Forward mode would else give a derivative of zero."""
    if forward_ad._current_level >= 0 and any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "dlattn computes gradients (reverse mode); attention has no forward-mode "
                    "derivative")


def _with_autograd(operator, node, container):
    """The operator's kernel for autograd: `node` where a gradient may be wanted.

    torch.func calls the kernel at each of its levels, and an autograd.Function would start at the first one again."""
    plain = type(node.__name__, (node, torch.autograd.Function), {}).apply
    inside = type(node.__name__, (node, torch.autograd.function._SingleLevelFunction), {}).apply

    def kernel(keyset, *tensors, **options):
        _refuse_tangents(tensors)
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*tensors)):
            with torch._C._AutoDispatchBelowAutograd():
                return operator.redispatch(keyset & torch._C._after_autograd_keyset, *tensors, **options)
        if not transforms():
            return container(plain(keyset, options, *tensors))
        with enable_single_level_autograd_function():
            return container(inside(keyset, options, *tensors))

    library.impl(operator.name().partition("::")[2], kernel, "Autograd", with_keyset=True)


_with_autograd(attention, _Attention, tuple)
_with_autograd(attention_backward, _AttentionBackward, list)
torch.library.register_vmap(attention, functools.partial(_vmap.rule, attention, 0), lib=library)
torch.library.register_vmap(attention_backward, functools.partial(_vmap.rule, attention_backward, 4), lib=library)
