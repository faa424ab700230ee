"""rotary on torch tensors, as an operator with its gradient, which is the rotation back."""
from __future__ import annotations

from typing import Optional

import torch

from .. import _cache, _raw
from .._options import layout_code
from ._eager import is_plain
from ._operators import library

library.define("rotary(Tensor x, Tensor cosines, Tensor sines, Tensor? starts=None, *, bool interleaved=False, "
               "bool inverse=False) -> Tensor", tags=[torch.Tag.pt2_compliant_tag])
_operator = torch.ops.dlattn.rotary.default


def _rotary(x, cosines, sines, starts=None, *, interleaved=False, inverse=False):
    out = torch.empty_like(x)
    with torch.no_grad():
        return _cache.rotary(x, cosines, sines, starts=starts, interleaved=interleaved, inverse=inverse, out=out)


def _setup_context(ctx, inputs, keyword_only_inputs, output):
    ctx.save_for_backward(*inputs[1:])
    ctx.interleaved, ctx.inverse = keyword_only_inputs["interleaved"], keyword_only_inputs["inverse"]


def _gradient(ctx, dout):
    cosines, sines, starts = ctx.saved_tensors
    return _operator(dout, cosines, sines, starts, interleaved=ctx.interleaved, inverse=not ctx.inverse), None, None, None


library.impl("rotary", _rotary, "CPU")
library.impl("rotary", _rotary, "CUDA")
torch.library.register_fake(_operator, lambda x, *_, **__: torch.empty_like(x), lib=library)
torch.library.register_autograd(_operator, _gradient, setup_context=_setup_context, lib=library)


def rotary(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, *, starts: Optional[torch.Tensor] = None,
           interleaved: bool = False, inverse: bool = False, layout: str = "bshd") -> torch.Tensor:
    """Rotary position embedding of x, with the gradient of x. Arguments as of ``dlattn.rotary``; cosines and sines get
    no gradient."""
    bhsd = layout_code(layout) == _raw.DLATTN_BHSD
    if bhsd:
        x = x.transpose(1, 2)
    direct = is_plain(x, cosines, sines, (starts,)) and not (x.requires_grad and torch.is_grad_enabled())
    out = (_rotary if direct else _operator)(x, cosines, sines, starts, interleaved=interleaved, inverse=inverse)
    return out.transpose(1, 2) if bhsd else out
