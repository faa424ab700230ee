"""torch.library operators: what torch.compile, FakeTensor, functorch and every dispatch mode see of a call.

    dlattn::attention(q, k, v, bias?, ..., *, fields) -> (out, lse)
    dlattn::attention_backward(dout, dlse?, out, lse, q, k, v, bias?, ..., *, wanted, fields) -> the wanted gradients

Tensors are those of _native.TENSORS, fields those of _native.SCALARS.
"""
from __future__ import annotations

import functools

import torch

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


class Attention(torch.autograd.Function):
    """Both autograd's kernel of the operator and, called in its place, what torch.func can take apart: that refuses
    every autograd.Function inside an operator."""

    @staticmethod
    def forward(options, *tensors):
        return attention(*tensors, **options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        options, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *tensors)
        ctx.options = {name: value for name, value in options.items() if name != "wide"}

    @staticmethod
    def backward(ctx, dout, dlse):
        out, lse, *tensors = ctx.saved_tensors
        wanted = wanted_of(ctx.needs_input_grad[1:])
        if dout is None and dlse is None or not any(wanted):
            return (None,) * (1 + len(tensors))
        options = {**ctx.options, "wanted": wanted}
        dout = incoming(dout, out, tensors[0])
        if transforms():
            results = AttentionBackward.apply(options, dout, dlse, out, lse, *tensors)
        else:
            results = attention_backward(dout, dlse, out, lse, *tensors, **options)
        return None, *spread(results, wanted, len(tensors))

    @staticmethod
    def vmap(info, in_dims, options, *tensors):
        below = lambda *tensors, **options: Attention.apply(options, *tensors)
        return _vmap.attention(below, info, in_dims[1:], *tensors, **options)


class AttentionBackward(torch.autograd.Function):
    @staticmethod
    def forward(options, *tensors):
        return tuple(attention_backward(*tensors, **options))

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Nothing is kept: see backward."""

    @staticmethod
    def backward(ctx, *grads):
        raise error(_raw.DLATTN_ERR_UNSUPPORTED, "dlattn computes first derivatives; the backward of attention cannot be "
                    "differentiated again")

    @staticmethod
    def vmap(info, in_dims, options, *tensors):
        below = lambda *tensors, **options: AttentionBackward.apply(options, *tensors)
        results, dims = _vmap.attention_backward(below, info, in_dims[1:], *tensors, **options)
        return tuple(results), tuple(dims)


def _with_autograd(operator, function, container):
    """The operator's kernel for autograd: `function` where a gradient may be wanted."""

    def kernel(keyset, *tensors, **options):
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*tensors):
            return container(function.apply(options, *tensors))
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *tensors, **options)

    library.impl(operator.name().partition("::")[2], kernel, "Autograd", with_keyset=True)


_with_autograd(attention, Attention, tuple)
_with_autograd(attention_backward, AttentionBackward, list)
torch.library.register_vmap(attention, functools.partial(_vmap.attention, attention), lib=library)
torch.library.register_vmap(attention_backward, functools.partial(_vmap.attention_backward, attention_backward),
                            lib=library)
