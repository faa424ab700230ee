"""Attention as the header's formulas, in NumPy: float64 for all dtypes, long double for float64. Padded BSHD only.

Nothing here is shared with the library. Every result comes with a bound on what rounding may do to it, by the standard
error analysis (Higham, Accuracy and Stability, 2002, section 3.1): a sum of n terms computed with unit roundoff u is
off by at most n*u times the sum of the terms' absolute values; exp turns an absolute error of the score into a
relative error of p. So each bound is u * (number of operations on the path) * (1 + sum |q||k|) * (the same formula with
absolute values), plus one rounding of the result.
"""
from __future__ import annotations

import numpy as np

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def positions(M, N, B, top_left=False, positions=None, seqlens_q=None, seqlens_k=None):
    """i' and j' of every row and key, [B,M] and [B,N]."""
    i, j = np.arange(M)[None], np.arange(N)[None]
    if positions is not None:
        q, k = (np.broadcast_to(np.asarray(start), (B,))[:, None] for start in positions)
        return i + q, j + k
    rows = np.full(B, M) if seqlens_q is None else np.asarray(seqlens_q)
    keys = np.full(B, N) if seqlens_k is None else np.asarray(seqlens_k)
    return i + (np.zeros((B, 1), int) if top_left else (keys - rows)[:, None]), np.broadcast_to(j, (B, N))


def visible(B, H, M, N, *, causal=False, window=None, block_window=None, mask=None, segments=None, top_left=False,
            positions=None, seqlens_q=None, seqlens_k=None, **_):
    """Which scores the masks keep, [B,H,M,N]."""
    at_q, at_k = globals()["positions"](M, N, B, top_left, positions, seqlens_q, seqlens_k)
    i, j = at_q[:, None, :, None], at_k[:, None, None, :]
    keep = np.ones((B, H, M, N), bool)
    if positions is not None:
        keep &= j >= 0
    if causal:
        keep &= j <= i
    if window is not None:
        left, right = (window, window) if np.isscalar(window) else window
        if left is not None and left >= 0:
            keep &= i - j <= left  # written so that INT64_MAX does not overflow
        if right is not None and right >= 0:
            keep &= j - i <= right
    if block_window is not None:
        size, count = block_window
        keep &= (i // size - count < j // size) & (j // size <= i // size)
    if segments is not None:
        q, k = segments if isinstance(segments, tuple) else (segments, segments)
        keep &= q[:, None, :, None] == k[:, None, None, :]
    if mask is not None:
        keep &= mask != 0
    if seqlens_q is not None:
        keep &= np.arange(M)[None, None, :, None] < np.asarray(seqlens_q)[:, None, None, None]
    if seqlens_k is not None:
        keep &= np.arange(N)[None, None, None, :] < np.asarray(seqlens_k)[:, None, None, None]
    return keep


def philox(key, counter):
    """Philox-4x32-10 on arrays of counter words."""
    k0, k1 = (np.uint64(word) for word in key)
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for turn in range(10):
        if turn:
            k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
        first, second = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (second >> shift) ^ c1 ^ k0, second & low, (first >> shift) ^ c3 ^ k1, first & low
    return c0, c1, c2, c3


def dropout_keep(B, H, M, N, *, dropout=0.0, seed=0, offset=0, positions=None, seqlens_q=None, seqlens_k=None, **_):
    """What dropout keeps, [B,H,M,N], by the header's specification; with positions i and j are i' and j'."""
    if dropout == 0:
        return np.ones((B, H, M, N), bool)
    if dropout == 1:
        return np.zeros((B, H, M, N), bool)
    threshold = min(max(int(np.floor(256 * dropout + 0.5)), 1), 255)
    i, j = np.arange(M)[None], np.arange(N)[None]
    if positions is not None:
        i, j = globals()["positions"](M, N, B, False, positions)
    i, j = np.broadcast_to(i, (B, M))[:, None, :, None], np.broadcast_to(j, (B, N))[:, None, None, :]
    bh = (np.arange(B)[:, None] * H + np.arange(H)[None])[:, :, None, None]
    mod = 2**32
    counter = [((j // 32) * 32 + (i % 8) * 4 + (j % 8) // 2) % mod, (i // 16) % mod, bh % mod, offset % mod]
    counter = [np.broadcast_to(word, (B, H, M, N)).astype(np.uint64) for word in counter]
    words = np.stack(philox((seed % mod, (seed // mod + offset // mod) % mod), counter))
    word = np.take_along_axis(words, np.broadcast_to((j // 8) % 4, (B, H, M, N))[None], 0)[0]
    byte = (word >> np.asarray(8 * (((i // 8) % 2) * 2 + j % 2), np.uint64)) & np.uint64(255)
    return byte >= threshold


def dropout_factor(dropout):
    if dropout in (0, 1):
        return 1.0
    return 256 / (256 - min(max(int(np.floor(256 * dropout + 0.5)), 1), 255))


class Reference:
    """One problem. out, lse and their bounds at once; gradients(...) for the backward."""

    def __init__(self, q, k, v, *, scale=None, softcap=0.0, bias=None, alibi_slopes=None, sinks=None, dropout=0.0,
                 **options):
        name = q.dtype.name
        self.real = real = np.longdouble if name == "float64" else np.float64
        self.unit = UNIT[name]                                       # p and ds may be rounded to the input's dtype
        self.row_unit = UNIT["float64" if name == "float64" else "float32"]
        B, M, H, D = q.shape
        N, G, E = k.shape[1], k.shape[2], v.shape[3]
        self.group, self.sizes = H // G, (B, H, M, N, D, E)
        self.q, self.k, self.v = (np.asarray(x, real).transpose(0, 2, 1, 3) for x in (q, k, v))
        self.k, self.v = (np.repeat(x, self.group, 1) for x in (self.k, self.v))
        self.scale = real(1) / np.sqrt(real(D)) if scale is None else real(scale)
        self.keep = dropout_keep(B, H, M, N, dropout=dropout, **options) * real(dropout_factor(dropout))
        s = self.scale * (self.q @ self.k.transpose(0, 1, 3, 2))
        self.size = abs(self.scale) * (abs(self.q) @ abs(self.k).transpose(0, 1, 3, 2))
        self.cap_slope = 1
        if softcap > 0:
            t = np.tanh(s / real(softcap))
            s, self.cap_slope = real(softcap) * t, 1 - t * t
        if alibi_slopes is not None:
            at_q, at_k = positions(M, N, B, **{key: options[key] for key in
                                               ("top_left", "positions", "seqlens_q", "seqlens_k") if key in options})
            slopes = np.broadcast_to(np.asarray(alibi_slopes, real), (B, H))[:, :, None, None]
            term = slopes * abs(at_q[:, None, :, None] - at_k[:, None, None, :])
            s, self.size = s - term, self.size + abs(term)
        if bias is not None:
            s, self.size = s + np.asarray(bias, real), self.size + abs(np.asarray(bias, real))
        self.rows = np.ones((B, 1, M), bool)
        if options.get("seqlens_q") is not None:
            self.rows = np.arange(M)[None, None] < np.asarray(options["seqlens_q"])[:, None, None]
        seen = visible(B, H, M, N, **options)
        self._softmax(np.where(seen, s, -np.inf), sinks)
        self.size = np.where(seen, self.size, 0).max(-1, initial=0)  # [B,H,M]: the largest sum |q||k| of a row
        self._finish()

    def _softmax(self, s, sinks):
        self.sinks = None if sinks is None else np.asarray(sinks, self.real)[None, :, None]
        top = s.max(-1, initial=-np.inf)
        if self.sinks is not None:
            top = np.where(self.rows, np.maximum(top, self.sinks), -np.inf)
        shift = np.where(np.isfinite(top), top, 0)
        total = np.exp(s - shift[..., None]).sum(-1)
        if self.sinks is not None:
            total = total + np.where(self.rows, np.exp(self.sinks - shift), 0)
        with np.errstate(divide="ignore"):
            self.lse_bhm = np.where(total > 0, shift + np.log(total), -np.inf)
        self.s = s

    def weights(self, lse):
        finite = np.isfinite(lse)
        return np.where(finite[..., None], np.exp(self.s - np.where(finite, lse, 0)[..., None]), 0)

    def _finish(self):
        B, H, M, N, D, E = self.sizes
        p = self.weights(self.lse_bhm)
        self.out = ((p * self.keep) @ self.v).transpose(0, 2, 1, 3)
        steps = self.row_unit * (D + N + 16) * (1 + self.size)
        size = ((p * self.keep) @ abs(self.v)).transpose(0, 2, 1, 3)
        self.out_bound = (steps + 2 * self.unit).transpose(0, 2, 1)[..., None] * size + self.unit * abs(self.out)
        self.lse = self.lse_bhm
        self.lse_bound = steps + self.row_unit * abs(np.where(np.isfinite(self.lse), self.lse, 0))

    def gradients(self, dout, out, lse, dlse=None, bias=None):
        """Gradients and their bounds, {name: (value, bound)}, from the library's own out and lse."""
        B, H, M, N, D, E = self.sizes
        dout, out = (np.asarray(x, self.real).transpose(0, 2, 1, 3) for x in (dout, out))
        lse = np.asarray(lse, self.real)
        empty = ~np.isfinite(lse)
        dlse = 0 if dlse is None else np.where(empty, 0, np.asarray(dlse, self.real))
        p = self.weights(lse)
        delta, delta_size = (dout * out).sum(-1) - dlse, (abs(dout) * abs(out)).sum(-1) + abs(dlse)
        dp, dp_size = dout @ self.v.transpose(0, 1, 3, 2), abs(dout) @ abs(self.v).transpose(0, 1, 3, 2)
        ds = p * (dp * self.keep - delta[..., None])
        ds_size = p * (dp_size * self.keep + delta_size[..., None])
        # lse comes in rounded, by at most lse_bound, which is one more relative error of p
        steps = self.row_unit * (2 * D + 2 * E + N + 16) * (1 + self.size) + 4 * self.unit
        steps = steps + self.row_unit * abs(np.where(empty, 0, lse))
        steps = steps[..., None]
        inner, p = ds * self.cap_slope, p * self.keep  # and 1 - tanh^2 is at most 1
        products = {"dq": (inner, ds_size, self.k, abs(self.scale)), "dk": (self._t(inner), self._t(ds_size), self.q,
                    abs(self.scale)), "dv": (self._t(p), self._t(p), dout, 1)}
        final = {}
        for name, (left, size, right, factor) in products.items():
            value = (self.scale if name != "dv" else 1) * left @ right
            grown = size * (steps if name == "dq" else self._t(steps)) + size * self.row_unit * self.group * left.shape[3]
            bound = factor * grown @ abs(right)
            if name != "dq":
                value, bound = (x.reshape(B, H // self.group, self.group, N, x.shape[-1]).sum(2)
                                for x in (value, bound))
            bound = bound + self.unit * abs(value)
            final[name] = (value.transpose(0, 2, 1, 3), bound.transpose(0, 2, 1, 3))
        if bias is not None:
            value, bound = (_sum_to(x, bias.shape) for x in (ds, ds_size * (steps + self.row_unit * ds.size)))
            final["dbias"] = value, bound + self.unit * abs(value)
        if self.sinks is not None:
            weight = np.where(empty, 0, np.exp(self.sinks - np.where(empty, 0, lse))) * self.rows
            value = -(weight * delta).sum((0, 2))
            bound = (weight * delta_size * (steps[..., 0] + B * M * self.row_unit)).sum((0, 2))
            final["dsinks"] = value, bound + self.unit * abs(value)
        return final

    @staticmethod
    def _t(x):
        return x.transpose(0, 1, 3, 2)


def _sum_to(x, shape):
    """Sums over the dimensions that `shape` broadcasts."""
    while x.ndim > len(shape):
        x = x.sum(0)
    axes = tuple(axis for axis, extent in enumerate(shape) if extent == 1 and x.shape[axis] != 1)
    return x.sum(axes, keepdims=True)


def assert_close(found, expected, bound, name="result"):
    """|found - expected| <= bound everywhere, with equal infinities."""
    # results below the normal range are rounded absolutely: by half of the last place, 2^-25 in float16
    tiny = 2.0**-25 if found.dtype.name == "float16" else float(np.finfo(np.float32).tiny)
    found = np.asarray(found, expected.dtype)
    assert found.shape == expected.shape, f"{name}: shape {found.shape}, expected {expected.shape}"
    with np.errstate(invalid="ignore"):
        off = np.where(found == expected, 0, abs(found - expected))
    bad = ~(off <= np.broadcast_to(bound, off.shape) + tiny)
    if bad.any():
        worst = np.unravel_index(np.argmax(np.where(bad, np.nan_to_num(off, nan=np.inf), -1)), off.shape)
        raise AssertionError(f"{name}{list(map(int, worst))}: {found[worst]!r}, expected {expected[worst]!r} within "
                             f"{np.broadcast_to(bound, off.shape)[worst]!r}; {int(bad.sum())} of {bad.size} are off")
