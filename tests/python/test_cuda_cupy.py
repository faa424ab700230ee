"""CuPy arrays on CUDA: values beside the formula in CuPy's float64, streams, graphs, views, bad input."""
import dlattn
import gpu
import numpy as np
import pytest
from gpu import Case, assert_true, same_bits, to_cupy

cupy = gpu.require("cupy")
CASES = gpu.cases()
SLEEP = 10**8
SPIN = 'extern "C" __global__ void spin(long long n) { long long t = clock64(); while (clock64() - t < n); }'


def sleep():
    cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(SLEEP),))


def formula(case):
    """out and lse of a case without options, step by step in float64."""
    q, k, v = (cupy.asarray(np.asarray(x, np.float64)).transpose(0, 2, 1, 3) for x in (case.q, case.k, case.v))
    k, v = (cupy.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[3])
    top = scores.max(-1, keepdims=True)
    lse = top + cupy.log(cupy.exp(scores - top).sum(-1, keepdims=True))
    return {"out": (cupy.exp(scores - lse) @ v).transpose(0, 2, 1, 3), "lse": lse[..., 0]}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    found = case.run(to_cupy)
    for key, array in found.items():
        assert isinstance(array, cupy.ndarray), key
    assert found["out"].dtype == found["dq"].dtype == gpu.DTYPES[dtype] and found["lse"].dtype == np.float32
    assert_true(found, formula(case) if name.startswith("full") else {}, case.truth())


def test_views_need_no_copy():
    x = cupy.random.standard_normal((2, 40, 3, 4, 32)).astype("float16")
    q, k, v = x[:, :, 0], x[:, ::-1, 1], x[:, 1::2, 2][:, :, ::-1]
    k = k[:, :20]
    expected = dlattn.attention(*(cupy.ascontiguousarray(y) for y in (q, k, v)), causal=True)
    given = cupy.full((2, 40, 4, 40), 7, "float16")
    assert (dlattn.attention(q, k, v, causal=True) == expected).all()
    view = given[..., 4:36]
    assert dlattn.attention(q, k, v, causal=True, out=view) is view
    assert (view == expected).all() and (given[..., :4] == 7).all() and (given[..., 36:] == 7).all()


def test_empty_arrays():
    q = cupy.zeros((2, 0, 2, 16), "float32")
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert out.shape == q.shape and lse.shape == (2, 2, 0)


@pytest.mark.parametrize("make", [lambda: cupy.cuda.Stream(non_blocking=True), lambda: cupy.cuda.Stream.null,
                                  lambda: cupy.cuda.Stream.ptds], ids=["own", "legacy", "per_thread"])
def test_the_call_is_queued_on_the_current_stream(make):
    q = cupy.random.standard_normal((1, 300, 4, 64)).astype("float16")
    expected, lse = dlattn.attention(q, q, q, return_lse=True)
    grads = dlattn.attention_backward(q, q, q, q, expected, lse, deterministic=True)
    buffer, stream = cupy.zeros_like(q), make()
    sleep()
    cupy.cuda.Device().synchronize()
    with stream:
        sleep()
        buffer[...] = q
        out, lse = dlattn.attention(buffer, buffer, buffer, return_lse=True)
        found = dlattn.attention_backward(buffer, buffer, buffer, buffer, out, lse, deterministic=True)
        assert not stream.done, "the host has waited"
        results = [x.copy() for x in (out, *found[:3])]
        stream.synchronize()
    assert same_bits(results, [expected, *grads[:3]])


def test_the_stream_of_torch_is_ordered_before_and_after():
    torch = gpu.require("torch")
    q = cupy.random.standard_normal((1, 200, 2, 64)).astype("float32")
    expected = dlattn.attention(q, q, q)
    source = gpu.to_torch(q.get())
    theirs, side = torch.zeros_like(source), torch.cuda.Stream()
    mine = cupy.cuda.Stream(non_blocking=True)
    sleep()
    torch.cuda.synchronize()
    with torch.cuda.stream(side), mine:
        torch.cuda._sleep(SLEEP)
        theirs.copy_(source)
        sleep()
        sleep()
        out = dlattn.attention(q, theirs, theirs)
        theirs.zero_()
        assert not mine.done and not side.query()
        mine.synchronize()
    torch.cuda.synchronize()
    assert (out == expected).all() and not theirs.any()


def test_graph_capture_and_replay():
    q = cupy.random.standard_normal((2, 64, 2, 64)).astype("float16")
    lengths = cupy.array([64, 64], "int32")
    out, lse = dlattn.attention(q, q, q, seqlens_k=lengths, return_lse=True)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        dlattn.attention(q, q, q, seqlens_k=lengths, out=out, lse=lse)
        graph = stream.end_capture()
        for length in (64, 5):
            q[...] = q + 1
            lengths[1] = length
            graph.launch(stream)
            stream.synchronize()
            assert same_bits([out, lse], dlattn.attention(q, q, q, seqlens_k=lengths, return_lse=True))


def test_a_device_that_is_not_current():
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one CUDA device only")
    case = Case("float16", causal=True)
    expected = case.run(to_cupy, deterministic=True)

    def there(array):
        with cupy.cuda.Device(1):
            return cupy.asarray(array)

    found = case.run(there, deterministic=True)
    assert cupy.cuda.Device().id == 0 and all(x.device.id == 1 for x in found.values())
    assert same_bits(found.values(), expected.values())
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(there(case.q), to_cupy(case.k), to_cupy(case.v))


def test_bad_input():
    q = cupy.ones((1, 4, 2, 16), "float32")
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(q, q.get(), q)
    with pytest.raises(dlattn.DeviceError, match="k"):
        dlattn.attention(q.get(), q, q.get())
    with pytest.raises(dlattn.DtypeError, match="complex64"):
        dlattn.attention(q.astype("complex64"), q, q)
    with pytest.raises(dlattn.ShapeError, match="v"):
        dlattn.attention(q, q, q[:, :3])


def test_an_error_of_the_driver_names_the_kernel_and_later_calls_work():
    """A launch on the legacy stream while a stream that waits for it is being captured."""
    q = cupy.random.standard_normal((1, 64, 2, 64)).astype("float16")
    expected, out, stream = dlattn.attention(q, q, q), cupy.empty_like(q), cupy.cuda.Stream()
    cupy.cuda.Device().synchronize()
    stream.begin_capture()
    with pytest.raises(dlattn.CudaError, match=r"cuLaunchKernel of forward\w*: CUDA_ERROR_STREAM_CAPTURE"):
        dlattn.attention(q, q, q, out=out)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):  # the driver has given the capture up
        stream.end_capture()
    assert (dlattn.attention(q, q, q, out=out) == expected).all()
