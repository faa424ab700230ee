"""Calls from Python on the emulated device, with a stand-in for CuPy: arrays, options and workspaces through ctypes."""
import os

import dlattn
import gpu
import pytest
from gpu import Case, assert_true, same_bits, to_cupy, to_numpy

import cupy

CASES = gpu.cases()


def test_this_is_the_stand_in():
    assert os.path.dirname(cupy.__file__) == os.path.dirname(__file__)
    assert "backend: cuda" in dlattn.explain()


@pytest.mark.parametrize("name", ["full_bfloat16", "causal", "bias", "sinks_softcap", "lengths"])
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    found = case.run(to_cupy)
    assert all(isinstance(array, cupy.ndarray) for array in found.values())
    assert found["out"].dtype == gpu.DTYPES[dtype] and found["lse"].dtype == gpu.DTYPES["float32"]
    assert_true(found, {}, case.truth())
    assert same_bits(case.run(to_cupy).values(), found.values())  # as the functions are called once they are known


def test_a_workspace_comes_and_goes():
    """Few rows and many keys are split, which takes a workspace; the next call takes none."""
    few, many = Case("float16", M=2, N=900, D=32, E=32), Case("float16", M=60, N=20, D=32, E=32)
    for case in (few, many, few, few, many, many):
        q, k, v = case.inputs(to_cupy)
        assert_true({"out": dlattn.attention(q, k, v)}, {}, case.truth())


def test_views_and_given_outputs():
    case = Case("float16", D=32, E=32)
    q, k, v = case.inputs(to_cupy)
    whole = dlattn.attention(q, k, v)
    out = cupy.empty((2, 4, 37, 32), "float16").transpose(0, 2, 1, 3)
    assert dlattn.attention(q, k, v, out=out) is out
    assert same_bits([out], [whole])


def test_bad_input_is_refused():
    q, k, v = Case("float16").inputs(to_cupy)
    with pytest.raises(dlattn.Error, match="heads"):
        dlattn.attention(q, cupy.empty((2, 53, 3, 40), "float16"), cupy.empty((2, 53, 3, 24), "float16"))
    with pytest.raises(dlattn.Error):
        dlattn.attention(q, to_numpy(k), to_numpy(v))


@pytest.mark.parametrize("kernels,size", [("sm90", 64), ("sm90", 128), ("sm80", 64)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_results_of_any_stride_and_type(kernels, size, dtype):
    """Out and gradients whose columns are not neighbours, or floats, leave another way, with the same values."""
    case = Case("float16", M=70, N=140, D=size, E=size)
    q, k, v = case.inputs(to_cupy)
    dout = to_cupy(to_numpy(q)[::-1].copy())
    tensors = dict(dq=q, dk=k, dv=v)
    dlattn.set_option("cuda_variant", kernels)
    try:
        whole, lse = dlattn.attention(q, k, v, causal=True, return_lse=True)
        apart = [cupy.empty([a.shape[n] for n in (0, 2, 3, 1)], dtype).transpose(0, 3, 1, 2) for a in (q, *tensors.values())]
        out = apart.pop(0)
        dlattn.attention(q, k, v, causal=True, out=out)
        assert same_bits([whole], [to_numpy(out).astype("float16")])
        for deterministic in (False, True)[:1 + (kernels == "sm80")]:
            compact = dlattn.attention_backward(dout, q, k, v, whole, lse, causal=True, deterministic=deterministic)
            dlattn.attention_backward(dout, q, k, v, whole, lse, causal=True, deterministic=deterministic, **dict(zip(tensors, apart)))
            for name, odd in zip(tensors, apart):
                one, other = to_numpy(getattr(compact, name)).astype("float32"), to_numpy(odd).astype("float32")
                assert abs(one - other).max() <= 1e-3 * abs(one).max(), name  # sums of dq in another order
    finally:
        dlattn.set_option("cuda_variant", None)
