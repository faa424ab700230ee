"""kv_append on torch tensors, as an operator that writes the caches it is given."""
from __future__ import annotations

from typing import Optional

import torch

from .. import _cache
from .._options import layout_code
from ._eager import is_plain
from ._operators import library

library.define("kv_append(Tensor k_new, Tensor v_new, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor seqlens, "
               "Tensor? block_table=None, Tensor? batch_index=None, *, bool bhsd=False) -> ()",
               tags=[torch.Tag.pt2_compliant_tag])
_operator = torch.ops.dlattn.kv_append.default


def _kv_append(k_new, v_new, k_cache, v_cache, seqlens, block_table=None, batch_index=None, *, bhsd=False):
    _cache.kv_append(k_new, v_new, k_cache, v_cache, seqlens, block_table=block_table, batch_index=batch_index,
                     layout="bhsd" if bhsd else "bshd")


library.impl("kv_append", _kv_append, "CPU")
library.impl("kv_append", _kv_append, "CUDA")
torch.library.register_fake(_operator, lambda *_, **__: None, lib=library)


def kv_append(k_new: torch.Tensor, v_new: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor,
              seqlens: torch.Tensor, *, block_table: Optional[torch.Tensor] = None,
              batch_index: Optional[torch.Tensor] = None, layout: str = "bshd") -> None:
    """Copies new keys and values behind the tokens of a cache, in place; also under torch.compile. Arguments as of
    ``dlattn.kv_append``. Nothing gets a gradient."""
    tensors = k_new, v_new, k_cache, v_cache, seqlens, block_table, batch_index
    run = _kv_append if is_plain(*tensors[:3], tensors[3:]) else _operator
    with torch.no_grad():
        run(*tensors, bhsd=bool(layout_code(layout)))
