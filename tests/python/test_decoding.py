"""A decoding loop: rotary, kv_append and attention on a cache, in rows and in pages, against the whole sequence at once."""
import dlattn
import ml_dtypes
import numpy as np
import pytest

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
B, H, G, D, TOKENS, PAGE = 2, 4, 2, 16, 37, 8


def angles(positions, pairs):
    angle = np.arange(positions)[:, None] / 100 ** (np.arange(pairs) / pairs)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotated(x, cosines, sines, interleaved=False):
    """The formula, in float64, for x [B,S,H,D] from position 0 on."""
    x, pairs = np.asarray(x, np.float64), cosines.shape[1]
    cos, sin = (t[:x.shape[1], None].astype(np.float64) for t in (cosines, sines))
    first, second = (x[..., 0:2 * pairs:2], x[..., 1:2 * pairs:2]) if interleaved else (x[..., :pairs], x[..., pairs:2 * pairs])
    out = x.copy()
    left, right = first * cos - second * sin, first * sin + second * cos
    if interleaved:
        out[..., 0:2 * pairs:2], out[..., 1:2 * pairs:2] = left, right
    else:
        out[..., :pairs], out[..., pairs:2 * pairs] = left, right
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_is_the_formula(dtype, interleaved):
    x = np.random.default_rng(1).standard_normal((B, TOKENS, H, D)).astype(dtype)
    cosines, sines = angles(TOKENS, 6)
    out = dlattn.rotary(x, cosines, sines, interleaved=interleaved)
    assert out.dtype == x.dtype
    exact = rotated(x, cosines, sines, interleaved)
    unit = 2.0**-8 if x.dtype.name == "bfloat16" else np.finfo(x.dtype).eps
    assert np.all(abs(out.astype(np.float64) - exact) <= unit * (abs(exact) + 1e-3 if x.dtype.itemsize == 2 else 4))
    back = dlattn.rotary(out, cosines, sines, interleaved=interleaved, inverse=True)
    assert np.all(abs(back.astype(np.float64) - x.astype(np.float64)) <= 16 * max(unit, 2.0**-24))  # angles: float32


def test_rotary_in_place_and_starts():
    x = np.random.default_rng(2).standard_normal((B, TOKENS, H, D)).astype(np.float32)
    cosines, sines = angles(2 * TOKENS, D // 2)
    whole = dlattn.rotary(x, cosines, sines)
    part = x[:, 5:9].copy()
    assert dlattn.rotary(part, cosines, sines, starts=np.array([5, 5]), out=part) is part
    assert np.array_equal(part, whole[:, 5:9])
    with pytest.raises(dlattn.ArgumentError, match=r"starts\[1\] is 74, expected 0 to 37"):
        dlattn.rotary(x, cosines, sines, starts=[0, 74])


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_is_the_causal_forward(dtype, paged):
    """A prompt of 20 tokens at once, then one token after the other: each step gives the rows of the causal forward over
    the whole, within the rounding of both."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((B, TOKENS, heads, D)).astype(dtype) for heads in (H, G, G))
    cosines, sines = angles(TOKENS, D // 2)
    q_all, k_all = dlattn.rotary(q, cosines, sines), dlattn.rotary(k, cosines, sines)
    whole = dlattn.attention(q_all, k_all, v, causal=True).astype(np.float64)
    pages = -(-TOKENS // PAGE)
    table = rng.permutation(B * pages + 1)[1:].reshape(B, pages).astype(np.int32) if paged else None
    shape = (B * pages + 1, PAGE, G, D) if paged else (B, TOKENS, G, D)
    k_cache, v_cache = np.full(shape, np.nan, dtype), np.full(shape, np.nan, dtype)
    length, unit = 0, 2.0**-8 if dtype == ml_dtypes.bfloat16 else float(np.finfo(dtype).eps)
    for step in [20] + [1] * (TOKENS - 20):
        now, lengths = slice(length, length + step), np.full(B, length, np.int32)
        q_step, k_step = (dlattn.rotary(x[:, now], cosines, sines, starts=lengths) for x in (q, k))
        dlattn.kv_append(k_step, v[:, now], k_cache, v_cache, lengths, block_table=table)
        length += step
        out = dlattn.attention(q_step, k_cache, v_cache, causal=True, seqlens_k=lengths + step, block_table=table)
        assert np.all(abs(out.astype(np.float64) - whole[:, now]) <= 8 * unit), length


def test_rows_by_batch_index():
    rng = np.random.default_rng(4)
    k, v = rng.standard_normal((B, 3, G, D)), rng.standard_normal((B, 3, G, D))
    k_cache, v_cache = np.zeros((5, 4, G, D)), np.zeros((5, 4, G, D))
    assert dlattn.kv_append(k, v, k_cache, v_cache, [1, 0], batch_index=[3, 1]) is None
    assert np.array_equal(k_cache[3, 1:], k[0]) and np.array_equal(v_cache[1, :3], v[1])
    assert not k_cache[[0, 2, 4]].any() and not v_cache[3, 0].any()


def test_refusals():
    k, cache = np.zeros((B, 3, G, D)), np.ones((B, 4, G, D))
    values = cache.copy()
    with pytest.raises(dlattn.ArgumentError, match=r"seqlens\[0\] is 2, expected 0 to 1"):
        dlattn.kv_append(k, k, cache, values, [2, 0])
    with pytest.raises(dlattn.ShapeError, match="k_cache has shape"):
        dlattn.kv_append(k, k, cache[:1], values[:1], [0, 0])
    assert (cache == 1).all() and (values == 1).all()
    q = np.zeros((B, 1, H, D))
    with pytest.raises(dlattn.ArgumentError, match="seqlens_k is NULL"):
        dlattn.attention(q, cache, values, block_table=np.zeros((B, 1), np.int32))
    with pytest.raises(dlattn.ArgumentError, match=r"block_table\[1,0\] is 7, expected a page from 0 to 1"):
        dlattn.attention(q, cache, values, block_table=np.array([[0], [7]], np.int32), seqlens_k=[1, 1])
