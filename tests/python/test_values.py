"""Values and gradients against the NumPy reference, over random problems of every dtype and option."""
import dlattn
import numpy as np
import pytest
from hypothesis import given, settings
from problems import DTYPES, problems
from reference import Reference, assert_close, dropout_keep


def check(problem):
    """Forward and every gradient of one problem within the reference's bounds."""
    q, k, v, options = problem.q, problem.k, problem.v, problem.options
    reference = Reference(q, k, v, **options)
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    assert out.dtype == q.dtype
    assert_close(out, reference.out, reference.out_bound, "out")
    assert_close(lse, reference.lse, reference.lse_bound, "lse")

    dout, dlse = problem.normal(*out.shape), problem.normal(*lse.shape, seed=2).astype(lse.dtype)
    wanted = ["dq", "dk", "dv"] + [f"d{name}" for name in ("bias", "sinks") if name in options]
    found = dlattn.attention_backward(dout, q, k, v, out, lse, dlse=dlse, grads=wanted, **options)
    expected = reference.gradients(dout, out, lse, dlse, options.get("bias"))
    for name in wanted:
        assert_close(getattr(found, name), *expected[name], name)


@settings(max_examples=400)
@given(problems())
def test_random_problems_match_the_reference(problem):
    check(problem)


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=problems(options=False))
@settings(max_examples=10)
def test_plain_attention_in_every_dtype(dtype, problem):
    problem.q, problem.k, problem.v = (x.astype(DTYPES[dtype]) for x in (problem.q, problem.k, problem.v))
    check(problem)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float32_results_are_the_unrounded_ones(dtype):
    rng = np.random.default_rng(3)
    q, k, v, dout = (rng.standard_normal((2, 9, 4, 16)).astype(DTYPES[dtype]) for _ in range(4))
    out, lse = dlattn.attention(q, k, v, return_lse=True)
    wide = dlattn.attention(q, k, v, out_dtype="float32")
    assert wide.dtype == np.float32
    assert (wide.astype(q.dtype) == out).all() and (wide != out).any()
    narrow = dlattn.attention_backward(dout, q, k, v, out, lse)
    wide = dlattn.attention_backward(dout, q, k, v, out, lse, grad_dtype=np.float32)
    for name in ("dq", "dk", "dv"):
        assert getattr(wide, name).dtype == np.float32
        assert (getattr(wide, name).astype(q.dtype) == getattr(narrow, name)).all(), name


@given(problems(dtypes=("float32",)))
@settings(max_examples=25)
def test_dropout_mask_is_the_specified_one(problem):
    B, M, H, _ = problem.q.shape
    options = {"dropout": 0.3, **problem.options}
    keep = dlattn.dropout_mask(problem.q, problem.k, **options)
    assert (keep == dropout_keep(B, H, M, problem.k.shape[1], **options)).all()


@pytest.mark.parametrize("N", [0, 1, 7])
def test_rows_without_keys_are_zero(N):
    q, k = np.ones((1, 3, 2, 4), np.float32), np.ones((1, N, 2, 4), np.float32)
    out, lse = dlattn.attention(q, k, k, mask=np.zeros((1, 1), bool), return_lse=True)
    assert (out == 0).all() and (lse == -np.inf).all()
    grads = dlattn.attention_backward(np.ones_like(out), q, k, k, out, lse, dlse=np.full_like(lse, np.nan),
                                      mask=np.zeros((1, 1), bool))
    assert all((grad == 0).all() for grad in grads[:3])


def test_hidden_keys_never_matter_whatever_they_hold():
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, 40, 2, 8)).astype(np.float32) for _ in range(3))
    clean = dlattn.attention(q, k, v, seqlens_k=[20])
    k[:, 20:], v[:, 20:] = np.nan, np.inf
    assert (dlattn.attention(q, k, v, seqlens_k=[20]) == clean).all()


def test_integer_segments_and_one_array_for_both_sides():
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((2, 12, 2, 8)).astype(np.float64) for _ in range(3))
    segments = rng.integers(0, 3, (2, 12))
    one, two = (dlattn.attention(q, k, v, segments=s) for s in (segments, (segments, segments)))
    assert (one == two).all()
    reference = Reference(q, k, v, segments=segments)
    assert_close(one, reference.out, reference.out_bound)


@pytest.mark.parametrize("state", [np.array([5, 2**33 + 1], np.uint64), np.array([5, 0, 1, 2], np.uint32)], ids=str)
def test_rng_state_overrides_seed_and_offset(state):
    q = np.random.default_rng(8).standard_normal((1, 40, 2, 8)).astype(np.float32)
    expected = dlattn.attention(q, q, q, dropout=0.5, seed=5, offset=2**33 + 1)
    assert (dlattn.attention(q, q, q, dropout=0.5, seed=9, rng_state=state) == expected).all()
    assert (dlattn.attention(q, q, q, dropout=0.5, seed=9) != expected).any()


def test_dropout_mask_of_packed_sequences():
    q, cu = np.zeros((9, 2, 4), np.float32), np.array([0, 4, 9])
    keep = dlattn.dropout_mask(q, q, cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=5, max_seqlen_k=5, dropout=0.5)
    assert (keep == dropout_keep(2, 2, 5, 5, dropout=0.5)).all()


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
def test_merge_gives_its_own_dtype_and_layout(layout):
    q = np.random.default_rng(9).standard_normal((2, 6, 3, 8)).astype(DTYPES["bfloat16"])
    out, lse = dlattn.attention(q, q, q, layout=layout, return_lse=True)
    merged, merged_lse = dlattn.merge([out, out], [lse, lse], layout=layout)
    assert merged.dtype == q.dtype and (merged == out).all()
    assert merged_lse.dtype == np.float32 and np.allclose(merged_lse, lse + np.log(2), rtol=2.0**-22)
    assert dlattn.merge([out], [lse], layout=layout, out_dtype="float32")[0].dtype == np.float32
