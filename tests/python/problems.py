"""Random attention problems for Hypothesis: sizes around the edges, any set of options, every dtype."""
from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LENGTHS = st.sampled_from([0, 1, 2, 3, 5, 8, 17, 31, 33, 66])
HEAD_SIZES = st.sampled_from([1, 2, 3, 8, 16, 17, 32, 40])


@dataclass
class Problem:
    """Tensors in BSHD and the options of a call."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    options: dict = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return self.q.dtype.name

    def normal(self, *shape, seed=1) -> np.ndarray:
        """A tensor of the problem's dtype, the same for the same shape and seed."""
        return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(self.q.dtype)


@st.composite
def problems(draw, dtypes=tuple(DTYPES), options=True, lengths=LENGTHS):
    B, G, repeat = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    M, N, D, E = draw(lengths), draw(lengths), draw(HEAD_SIZES), draw(HEAD_SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = DTYPES[draw(st.sampled_from(dtypes))]
    H = G * repeat
    q, k, v = (rng.standard_normal(shape).astype(dtype) for shape in ((B, M, H, D), (B, N, G, D), (B, N, G, E)))
    chosen = draw(st.sets(st.sampled_from(sorted(OPTIONS)), max_size=5)) if options else set()
    values = {}
    for name in sorted(chosen):
        values.update(OPTIONS[name](draw, rng, dtype, (B, H, M, N)))
    if "positions" in values:
        values.pop("top_left", None)
    return Problem(q, k, v, values)


def _bound(draw, length):
    return draw(st.one_of(st.none(), st.integers(0, length + 1), st.just(2**63 - 1)))


def _broadcast_shape(draw, sizes):
    shape = tuple(draw(st.sampled_from([1, extent])) for extent in sizes)
    return shape[draw(st.integers(0, 3)):] if shape[0] == 1 else shape


OPTIONS = {
    "causal": lambda draw, rng, dtype, sizes: {"causal": True},
    "top_left": lambda draw, rng, dtype, sizes: {"top_left": True},
    "scale": lambda draw, rng, dtype, sizes: {"scale": draw(st.sampled_from([0.0, 0.5, -0.25, 1.0]))},
    "window": lambda draw, rng, dtype, sizes: {"window": (_bound(draw, sizes[3]), _bound(draw, sizes[3]))},
    "block_window": lambda draw, rng, dtype, sizes: {"block_window": (draw(st.integers(1, 20)),
                                                                      draw(st.integers(1, 4)))},
    "bias": lambda draw, rng, dtype, sizes: {
        "bias": rng.standard_normal(_broadcast_shape(draw, sizes)).astype(
            draw(st.sampled_from([dtype, np.float32])) if dtype is not np.float64 else dtype)},
    "mask": lambda draw, rng, dtype, sizes: {
        "mask": (rng.random(_broadcast_shape(draw, sizes)) < 0.7).astype(draw(st.sampled_from([bool, np.uint8])))},
    "softcap": lambda draw, rng, dtype, sizes: {"softcap": draw(st.sampled_from([0.5, 2.0, 30.0]))},
    "alibi_slopes": lambda draw, rng, dtype, sizes: {
        "alibi_slopes": (rng.random(sizes[1] if draw(st.booleans()) else sizes[:2]) / 4).astype(dtype)},
    "sinks": lambda draw, rng, dtype, sizes: {"sinks": rng.standard_normal(sizes[1]).astype(dtype)},
    "segments": lambda draw, rng, dtype, sizes: {
        "segments": tuple(rng.integers(0, 3, (sizes[0], length)).astype(draw(st.sampled_from([np.int32, np.int64])))
                          for length in sizes[2:])},
    "positions": lambda draw, rng, dtype, sizes: {
        "positions": (draw(st.integers(-40, 40)), rng.integers(-40, 40, sizes[0]))},
    "seqlens_q": lambda draw, rng, dtype, sizes: {"seqlens_q": rng.integers(0, sizes[2] + 1, sizes[0])},
    "seqlens_k": lambda draw, rng, dtype, sizes: {
        "seqlens_k": rng.integers(0, sizes[3] + 1, sizes[0]).astype(np.int32)},
    "dropout": lambda draw, rng, dtype, sizes: {"dropout": draw(st.sampled_from([0.1, 0.5, 0.999, 1.0])),
                                                "seed": draw(st.integers(0, 2**64 - 1)),
                                                "offset": draw(st.integers(0, 2**64 - 1))},
}
