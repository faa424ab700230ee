"""Properties that hold whatever the values: heads, splits, strides, layouts, packing, threads, finite differences."""
import dlattn
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problems
from reference import Reference, assert_close

GRADIENTS = ("dq", "dk", "dv", "dbias", "dsinks")


def run(problem, **changes):
    """(out, lse, gradients...) of a problem, with every gradient it has."""
    options = {**problem.options, **changes}
    q, k, v = problem.q, problem.k, problem.v
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    dout = problem.normal(*q.shape[:3], v.shape[3])
    wanted = ["dq", "dk", "dv"] + [f"d{name}" for name in ("bias", "sinks") if name in options]
    grads = dlattn.attention_backward(dout, q, k, v, out, lse, grads=wanted, **options)
    return [out, lse, *(grad for grad in grads if grad is not None)]


def same(left, right):
    return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in zip(left, right, strict=True))


@given(problems(dtypes=("float32", "float64")), st.randoms(use_true_random=False))
def test_permuting_the_heads_permutes_the_results(problem, random):
    """Groups of query heads with their key/value head, in another order."""
    problem.options = {name: value for name, value in problem.options.items()
                       if name not in ("dropout", "seed", "offset")}  # dropout's bits depend on the head's number
    H, G = problem.q.shape[2], problem.k.shape[2]
    order = random.sample(range(G), G)
    heads = [g * (H // G) + r for g in order for r in range(H // G)]
    options = dict(problem.options)
    for name, axis in (("bias", -3), ("mask", -3), ("alibi_slopes", -1), ("sinks", -1)):
        if name in options and options[name].ndim >= -axis and options[name].shape[axis] > 1:
            options[name] = np.take(options[name], heads, axis)
    out, lse = dlattn.attention(problem.q, problem.k, problem.v, return_lse=True, **problem.options)
    moved, moved_lse = dlattn.attention(problem.q[:, :, heads], problem.k[:, :, order], problem.v[:, :, order],
                                        return_lse=True, **options)
    assert (moved == out[:, :, heads]).all() and (moved_lse == lse[:, heads]).all()


@given(problems(dtypes=("float64",)), st.data())
def test_merging_a_split_over_the_keys_gives_the_whole(problem, data):
    q, k, v, options = problem.q, problem.k, problem.v, dict(problem.options)
    options.pop("segments", None), options.pop("seqlens_q", None), options.pop("seqlens_k", None)
    options.pop("dropout", None)
    B, M, H, _ = q.shape
    N = k.shape[1]
    q_start, k_start = options.pop("positions", (0 if options.pop("top_left", False) else N - M, 0))
    bias, mask, sinks = (options.pop(name, None) for name in ("bias", "mask", "sinks"))
    cut = data.draw(st.integers(0, N))
    dout, dlse = problem.normal(B, M, H, v.shape[3]), problem.normal(B, H, M, seed=2)

    def part(start, stop, with_sinks):
        keys = slice(start, stop)
        own = {**options, "positions": (q_start, np.broadcast_to(k_start, (B,)) + start)}
        for name, x in (("bias", bias), ("mask", mask)):
            if x is not None:
                own[name] = x[..., keys] if x.shape[-1] == N != 1 else x
        if sinks is not None and with_sinks:
            own["sinks"] = sinks
        return k[:, keys], v[:, keys], own

    whole_k, whole_v, whole = part(0, N, True)
    out, lse = dlattn.attention(q, whole_k, whole_v, return_lse=True, **whole)
    parts = [part(0, cut, True), part(cut, N, False)]
    results = [dlattn.attention(q, pk, pv, return_lse=True, **own) for pk, pv, own in parts]
    merged_out, merged_lse = dlattn.merge([r[0] for r in results], [r[1] for r in results])
    reference = Reference(q, whole_k, whole_v, **whole)
    assert_close(merged_out, reference.out, 2 * reference.out_bound, "merged out")
    assert_close(merged_lse, reference.lse, 2 * reference.lse_bound, "merged lse")

    wanted = ["dq", "dk", "dv"]
    pieces = [dlattn.attention_backward(dout, q, pk, pv, merged_out, merged_lse, dlse=dlse, grads=wanted, **own)
              for pk, pv, own in parts]
    expected = reference.gradients(dout, merged_out, merged_lse, dlse)
    assert_close(pieces[0].dq + pieces[1].dq, expected["dq"][0], 2 * expected["dq"][1], "dq")
    for name in ("dk", "dv"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces], 1)
        assert_close(joined, expected[name][0], 2 * expected[name][1], name)


def strided(x, kind):
    """The same values behind other strides: gaps, reversed axes, Fortran order, an odd offset."""
    if kind == "gaps":
        wide = np.full([2 * extent for extent in x.shape], np.nan).astype(x.dtype)
        view = wide[tuple(slice(0, 2 * extent, 2) for extent in x.shape)]
    elif kind == "reversed":
        view = np.empty(x.shape, x.dtype)[::-1, ::-1, ::-1, ::-1]
    elif kind == "fortran":
        view = np.empty(x.shape, x.dtype, order="F")
    else:
        view = np.empty(x.size + 3, x.dtype)[3:].reshape(x.shape)
    view[...] = x
    return view


@given(problems(), st.sampled_from(["gaps", "reversed", "fortran", "offset"]))
def test_strides_do_not_matter(problem, kind):
    expected = run(problem)
    problem.q, problem.k, problem.v = (strided(x, kind) for x in (problem.q, problem.k, problem.v))
    assert same(run(problem), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", ["gaps", "reversed", "fortran"])
def test_strides_do_not_matter_to_few_rows(dtype, kind):
    """The decode path reads keys in place where it can; where it cannot, its sums must run in the same order."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((2, length, 2, 64)).astype(dtype) for length in (1, 77, 77))
    for apart in ("k", "v", "kv"):
        moved = {"k": strided(k, kind) if "k" in apart else k, "v": strided(v, kind) if "v" in apart else v}
        expected = dlattn.attention(q, k, v, return_lse=True)
        assert same(dlattn.attention(strided(q, kind), return_lse=True, **moved), expected)


@given(problems(options=False), st.sampled_from(["gaps", "reversed", "fortran", "offset"]))
def test_outputs_with_strides_get_the_same_values(problem, kind):
    expected = run(problem)
    out = strided(np.zeros_like(expected[0]), kind)
    lse = np.zeros((*expected[1].shape, 2), expected[1].dtype)[..., 1]
    dlattn.attention(problem.q, problem.k, problem.v, out=out, lse=lse)
    grads = {name: strided(np.zeros_like(x), kind) for name, x in zip(GRADIENTS, expected[2:])}
    dout = problem.normal(*out.shape)
    returned = dlattn.attention_backward(dout, problem.q, problem.k, problem.v, out, lse, grads=(), **grads)
    assert all(getattr(returned, name) is grads[name] for name in grads)
    assert same([out, lse, *grads.values()], expected)


@given(problems())
def test_the_two_layouts_agree(problem):
    expected = run(problem)

    def swap(x):
        return np.ascontiguousarray(x.swapaxes(1, 2))

    q, k, v = swap(problem.q), swap(problem.k), swap(problem.v)
    out, lse = dlattn.attention(q, k, v, layout="bhsd", return_lse=True, **problem.options)
    dout = swap(problem.normal(*expected[0].shape))
    grads = dlattn.attention_backward(dout, q, k, v, out, lse, layout="bhsd", **problem.options)
    assert same([swap(out), lse, *(swap(x) for x in grads[:3])], expected[:5])


@given(problems(dtypes=("float32", "bfloat16")), st.sampled_from([2, 3, 7]))
def test_threads_do_not_change_a_bit(problem, threads):
    assert same(run(problem, num_threads=threads), run(problem, num_threads=1))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1, max_size=4), st.booleans(),
       st.sampled_from(["bshd", "bhsd"]), st.sampled_from([np.int32, np.int64]))
@settings(max_examples=30)
def test_packed_sequences_are_computed_one_by_one(lengths, causal, layout, integer):
    rng = np.random.default_rng([len(lengths), *np.ravel(lengths)])
    cu_q, cu_k = (np.cumsum([0, *column]).astype(integer) for column in zip(*lengths))
    q, k, v, dout = (rng.standard_normal((size, heads, D)) for size, heads, D in
                     ((cu_q[-1], 4, 8), (cu_k[-1], 2, 8), (cu_k[-1], 2, 5), (cu_q[-1], 4, 5)))
    options = {"causal": causal, "sinks": rng.standard_normal(4)}
    turn = (lambda x: x.swapaxes(0, 1)) if layout == "bhsd" else (lambda x: x)
    packed = {"cu_seqlens_q": cu_q, "cu_seqlens_k": cu_k, "layout": layout, **options}
    out, lse = dlattn.attention(turn(q), turn(k), turn(v), return_lse=True, **packed)
    grads = dlattn.attention_backward(turn(dout), turn(q), turn(k), turn(v), out, lse,
                                      grads=("dq", "dk", "dv", "dsinks"), **packed)
    out, dq, dk, dv = (turn(x) for x in (out, *grads[:3]))
    assert lse.shape == (4, cu_q[-1])
    for b in range(len(lengths)):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        reference = Reference(q[None, rows], k[None, keys], v[None, keys], **options)
        assert_close(out[None, rows], reference.out, reference.out_bound, "out")
        assert_close(lse[None, :, rows], reference.lse, reference.lse_bound, "lse")
        expected = reference.gradients(dout[None, rows], out[None, rows], lse[None, :, rows])
        for name, found in (("dq", dq[None, rows]), ("dk", dk[None, keys]), ("dv", dv[None, keys])):
            assert_close(found, *expected[name], name)


@pytest.mark.parametrize("options", [
    {}, {"causal": True, "window": (6, 2)}, {"softcap": 1.5, "scale": -0.4}, {"dropout": 0.4, "seed": 7},
    {"block_window": (4, 2), "top_left": True}], ids=str)
def test_gradients_are_the_derivatives(options):
    """Central differences of sum(dout*out) + sum(dlse*lse) along random directions, in float64.

    The error of a central difference grows with the square of its step, so the differences with steps h and 2h are
    three times the error of the former apart; rounding adds u/h times the size of the sum and the operations behind.
    """
    rng = np.random.default_rng(11)
    tensors = {"q": (2, 9, 4, 8), "k": (2, 13, 2, 8), "v": (2, 13, 2, 5), "bias": (1, 4, 1, 13), "sinks": (4,)}
    tensors = {name: rng.standard_normal(shape) for name, shape in tensors.items()}
    options = {**options, "alibi_slopes": rng.random(4)}
    dout, dlse = rng.standard_normal((2, 9, 4, 5)), rng.standard_normal((2, 4, 9))

    def loss(x):
        out, lse = dlattn.attention(**x, return_lse=True, **options)
        return (dout * out).sum() + (dlse * lse).sum()

    out, lse = dlattn.attention(**tensors, return_lse=True, **options)
    grads = dlattn.attention_backward(dout, out=out, lse=lse, dlse=dlse, grads=GRADIENTS, **tensors, **options)
    h = 2.0**-12
    size = abs(dout * out).sum() + abs(dlse * lse).sum()
    rounding = 2.0**-53 / h * size * (13 + 8 + 16)
    for name, grad in zip(tensors, grads):
        direction = rng.standard_normal(tensors[name].shape)
        direction /= np.linalg.norm(direction)
        found = (grad * direction).sum()
        near, far = ((loss({**tensors, name: tensors[name] + step * direction})
                      - loss({**tensors, name: tensors[name] - step * direction})) / (2 * step) for step in (h, 2 * h))
        assert abs(near - found) <= abs(far - near) + rounding, name
