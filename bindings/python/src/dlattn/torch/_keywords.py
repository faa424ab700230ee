"""The keyword arguments of attention as the tensors and fields of a problem (see _native)."""
from __future__ import annotations

import torch

from .. import _raw
from .._errors import argument_error
from .._options import FLAGS, Options, integer, layout_code, number, pair
from ._native import SCALARS, TENSORS

PLACES = {name: place for place, name in enumerate(TENSORS)}
LARGEST = 2**63
_NUMBERS = ("softcap", "dropout")
_LENGTHS = ("max_seqlen_q", "max_seqlen_k")
_SEEDS = ("seed", "offset")
_SCALE, _WINDOW = _raw.DLATTN_SCALE, _raw.DLATTN_WINDOW
_BLOCK_WINDOW, _POSITIONS = _raw.DLATTN_BLOCK_WINDOW, _raw.DLATTN_POSITIONS
_DETERMINISTIC = _raw.DLATTN_DETERMINISTIC


def _signed(value: int) -> int:
    """A 64-bit seed as the int64 that an operator's argument is."""
    if isinstance(value, torch.Tensor):
        value = int(value)
    if not 0 <= value < 2 * LARGEST:
        raise argument_error(f"seed or offset is {value}; expected 0 to {2 * LARGEST - 1}")
    return value - 2 * LARGEST if value >= LARGEST else value


def read(q, options: dict):
    """(tensors behind q, k, v, up to the last that was given; fields; number of threads), from the options."""
    tensors: list = []
    fields: dict = {}
    flags, threads = 0, 0

    def put(name, value):
        if isinstance(value, (list, tuple)):
            value = torch.tensor(value, device=q.device)
        place = PLACES[name] - 3
        tensors.extend([None] * (place + 1 - len(tensors)))
        tensors[place] = value

    for name, value in options.items():
        if value is None:
            continue
        if name in FLAGS:
            if value:
                flags |= FLAGS[name]
        elif name in PLACES:
            put(name, value)
        elif name in _NUMBERS:
            fields[name] = number(name, value)
        elif name in _LENGTHS:
            fields[name] = value
        elif name in _SEEDS:
            fields[name] = _signed(value)
        elif name == "layout":
            fields["layout"] = layout_code(value)
        elif name == "scale":
            fields["scale"] = number("scale", value)
            flags |= _SCALE
        elif name == "window":
            left, right = pair("window", value) if isinstance(value, (tuple, list)) else (value, value)
            fields["window_left"] = -1 if left is None else left
            fields["window_right"] = -1 if right is None else right
            flags |= _WINDOW
        elif name == "block_window":
            fields["block_size"], fields["block_count"] = pair("block_window", value)
            flags |= _BLOCK_WINDOW
        elif name == "segments":
            sides = pair("segments", value) if isinstance(value, (tuple, list)) else (value, value)
            put("q_segments", sides[0])
            put("kv_segments", sides[1])
        elif name == "positions":
            for side, start in zip("qk", pair("positions", value)):
                if isinstance(start, torch.Tensor) and start.dim() == 0 and q.dim() == 4:  # one for all
                    start = start.expand(q.shape[0])
                if isinstance(start, (torch.Tensor, list, tuple)):
                    put(f"{side}_starts", start)
                elif start is not None:
                    fields[f"{side}_start"] = start
            flags |= _POSITIONS
        elif name == "num_threads":
            threads = integer("num_threads", value, -2**31, 2**31)
        else:
            raise TypeError(f"unknown option {name!r}; expected one of {', '.join(Options.__annotations__)}")
    if options.get("deterministic") is None and torch.are_deterministic_algorithms_enabled():
        flags |= _DETERMINISTIC
    if flags:
        fields["flags"] = flags
    if "dropout" in fields and fields["dropout"] and options.get("seed") is None and options.get("rng_state") is None:
        put("rng_state", torch.randint(-LARGEST, LARGEST - 1, (2,), device=q.device, dtype=torch.int64))
    return tensors, fields, threads


assert set(SCALARS) >= set(_LENGTHS) | set(_SEEDS) | set(_NUMBERS)
