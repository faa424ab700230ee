"""Where a call on CUDA runs: streams, order between frameworks, graphs, threads, devices that are not current."""
import ctypes
import os
import subprocess
import sys
import threading

import dlattn
import gpu
import numpy as np
import pytest
from dlattn import _raw, _tensor
from gpu import Case, same_bits, to_torch

torch = gpu.require("torch")
CASES = gpu.cases()
SLEEP = 10**8  # clock cycles: about 60 ms


@pytest.mark.parametrize("first", gpu.MAKERS)
@pytest.mark.parametrize("rest", gpu.MAKERS)
def test_mixed_frameworks(first, rest):
    """The result is the first argument's; its bits are those of torch alone."""
    for name in (first, rest):
        gpu.require(name)
    case = Case("bfloat16", causal=True, seqlens_k=np.array([30, 53], np.int32))
    expected = case.run(to_torch)
    one, other = gpu.MAKERS[first], gpu.MAKERS[rest]
    q, k, v = one(case.q), other(case.k), other(case.v)
    options = {"causal": True, "seqlens_k": other(case.options["seqlens_k"])}
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    dq = dlattn.attention_backward(one(case.dout), q, k, v, out, lse, dlse=other(case.dlse), grads=("dq",),
                                   deterministic=True, **options).dq
    exact = case.run(to_torch, deterministic=True)
    for found in (out, lse, dq):
        assert type(found).__module__.partition(".")[0] == type(q).__module__.partition(".")[0]
    assert same_bits([out, lse, dq], [expected["out"], expected["lse"], exact["dq"]])


def test_the_call_is_queued_on_the_current_stream():
    q = torch.randn(1, 300, 4, 64, device="cuda", dtype=torch.bfloat16)
    expected = dlattn.attention(q, q, q)
    grads = dlattn.attention_backward(q, q, q, q, *dlattn.attention(q, q, q, return_lse=True), deterministic=True)
    buffer, side = torch.zeros_like(q), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP)
        buffer.copy_(q)
        out, lse = dlattn.attention(buffer, buffer, buffer, return_lse=True)
        found = dlattn.attention_backward(buffer, buffer, buffer, buffer, out, lse, deterministic=True)
        assert not side.query(), "the host has waited"
        results = [x.clone() for x in (out, *found[:3])]
    side.synchronize()
    assert same_bits(results, [expected, *grads[:3]])


def test_memory_is_given_back_in_stream_order():
    """Outputs and workspace of a call on a side stream go back to that stream; nothing stays allocated."""
    q = torch.randn(1, 5, 4, 64, device="cuda", dtype=torch.bfloat16)
    k = torch.randn(1, 20000, 4, 64, device="cuda", dtype=torch.bfloat16)
    expected, lse = dlattn.attention(q, k, k, return_lse=True)
    torch.cuda.synchronize()
    before, side = torch.cuda.memory_allocated(), torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP)
        for _ in range(20):  # memory of one call is the next one's, while all of them wait behind the sleep
            last = dlattn.attention(q, k, k)
        assert not side.query()
    side.synchronize()
    assert torch.equal(last, expected)
    del last
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("other", ["cupy"])
def test_the_stream_of_another_framework_is_ordered_before_and_after(other):
    cupy = gpu.require(other)
    q = torch.randn(1, 200, 2, 64, device="cuda", dtype=torch.float32)
    k = torch.randn(1, 200, 2, 64, device="cuda", dtype=torch.float32)
    expected = dlattn.attention(q, k, k)
    source, theirs = cupy.asarray(k.cpu().numpy()), cupy.zeros(k.shape, "float32")
    spin = cupy.RawKernel('extern "C" __global__ void spin(long long n) { long long t = clock64(); '
                          'while (clock64() - t < n); }', "spin")
    spin((1,), (1,), (np.int64(1),))
    torch.cuda.synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        spin((1,), (1,), (np.int64(SLEEP),))
        theirs[...] = source
        torch.cuda._sleep(2 * SLEEP)                # so that the call begins long after `theirs` is ready
        out = dlattn.attention(q, theirs, theirs)
        theirs.fill(0)                              # must wait for the call
        assert not stream.done and not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
    assert torch.equal(out, expected) and not theirs.any()


def test_threads_with_streams_of_their_own():
    rng = torch.Generator("cuda").manual_seed(1)
    inputs = [torch.randn(2, 100, 4, 64, device="cuda", dtype=torch.float16, generator=rng) for _ in range(4)]
    expected = [dlattn.attention(q, q, q, causal=True) for q in inputs]
    torch.cuda.synchronize()
    wrong = []

    def work(index):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                if not torch.equal(dlattn.attention(*[inputs[index]] * 3, causal=True), expected[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def test_graph_capture_and_replay_with_changed_data_lengths_and_rng_state():
    """Captured without a warm-up, with a head size of its own: kernels may be compiled and loaded inside. Only this
    thread is watched, since those of JAX may be at work in this process."""
    shape = (2, 90, 2, 56)
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    lengths = torch.tensor([90, 90], device="cuda", dtype=torch.int32)
    state = torch.tensor([1, 2], device="cuda", dtype=torch.int64)
    options = dict(causal=True, seqlens_k=lengths, dropout=0.2, rng_state=state, deterministic=True)

    def step():
        out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
        return [out, lse, *dlattn.attention_backward(dout, q, k, v, out, lse, **options)[:3]]

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = step()
    seen = []
    for trial in range(3):
        for x in (q, k, v, dout):
            x.normal_()
        lengths.copy_(torch.tensor([90 - 31 * trial, 17 + trial]))
        state.copy_(torch.tensor([5, 2**40 + trial]))
        graph.replay()
        seen.append([x.clone() for x in results])
        assert same_bits(results, step())
    lengths_only = step()
    state.add_(1)
    graph.replay()
    assert not same_bits(results[:1], lengths_only[:1])


FIRST_CALL = """
import dlattn, torch
q = torch.randn(1, 70, 2, 64, device="cuda", dtype=torch.bfloat16)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph, capture_error_mode="global"):
    out, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
    grads = dlattn.attention_backward(q, q, q, q, out, lse, causal=True, deterministic=True)
q.normal_()
graph.replay()
expected, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
assert torch.equal(out, expected)
assert torch.equal(grads.dk, dlattn.attention_backward(q, q, q, q, out, lse, causal=True, deterministic=True).dk)
print("captured")
"""


def test_the_first_call_of_a_process_inside_a_global_capture(tmp_path):
    """NVRTC is found and loaded, kernels are compiled and loaded, all while no unsafe call is allowed."""
    environment = {**os.environ, "DLATTN_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", FIRST_CALL], env=environment, capture_output=True, text=True)
    assert result.stdout == "captured\n", result.stdout + result.stderr


PREPARED = """
import dlattn, sys, torch
q = torch.randn(2, 70, 4, 64, device="cuda", dtype=torch.bfloat16)
k = torch.randn(2, 3000, 2, 64, device="cuda", dtype=torch.bfloat16)
before = torch.cuda.memory_allocated()
dlattn.prepare(q, k, k, causal=True, backward=True)
assert torch.cuda.max_memory_allocated() == before
print("prepared", file=sys.stderr)
out, lse = dlattn.attention(q, k, k, causal=True, return_lse=True)
dlattn.attention_backward(out, q, k, k, out, lse, causal=True)
"""


def test_prepare_compiles_ahead(tmp_path):
    environment = {**os.environ, "DLATTN_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path), "DLATTN_LOG": "1"}
    result = subprocess.run([sys.executable, "-c", PREPARED], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ahead, after = result.stderr.split("prepared\n")
    assert ahead.count(".cu") >= 3 and ".cu" not in after, result.stderr


second = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device only")


@second
@pytest.mark.parametrize("name", ["causal", "dropout", "lengths"])
def test_a_device_that_is_not_current(name):
    """Forward, backward and their workspaces."""
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    expected = case.run(to_torch, deterministic=True)
    found = case.run(lambda x: to_torch(x, "cuda:1"), deterministic=True)
    assert torch.cuda.current_device() == 0
    assert all(x.device.index == 1 for x in found.values()) and same_bits(found.values(), expected.values())


@second
def test_split_keys_prepare_merge_and_dropout_mask_on_a_device_that_is_not_current():
    q, k = torch.randn(1, 5, 4, 64, dtype=torch.bfloat16), torch.randn(1, 20000, 4, 64, dtype=torch.bfloat16)
    results = []
    for device in ("cuda:0", "cuda:1"):
        here, keys = q.to(device), k.to(device)
        dlattn.prepare(here, keys, keys, backward=True)
        explained = dlattn.explain(here, keys, keys)
        assert "backend: cuda" in explained and "workspace: 0 " not in explained
        whole = dlattn.attention(here, keys, keys, return_lse=True)  # cut into parts, which lie in the workspace
        parts = [dlattn.attention(here, part, part, return_lse=True, top_left=True) for part in keys.split(9000, 1)]
        merged = dlattn.merge(*zip(*parts))
        keep = dlattn.dropout_mask(here, keys[:, :300], dropout=0.5, seed=3)
        assert all(x.device == here.device for x in (*whole, *merged, keep))
        results.append([*whole, *merged, keep])
    assert torch.cuda.current_device() == 0 and same_bits(*results)


@second
def test_streams_of_a_device_that_is_not_current():
    q, side = torch.randn(1, 37, 2, 40, device="cuda:1"), torch.cuda.Stream(1)
    with torch.cuda.stream(side):
        torch.cuda._sleep(SLEEP)
        later = q + 1
        torch.cuda.set_device(0)
        out = dlattn.attention(later, later, later)
    side.synchronize()
    assert torch.equal(out, dlattn.attention(q + 1, q + 1, q + 1))
    here = q.to("cuda:0")
    for tensors, word in (((q, here, q), "k"), ((here, here, q), "v")):
        with pytest.raises(dlattn.DeviceError, match=f"{word} is on kDLCUDA"):
            dlattn.attention(*tensors)


class Foreign:
    """A CUDA array of a package that the binding does not know."""

    def __init__(self, tensor, versioned=True, flags=0, data=None):
        self.tensor, self.versioned, self.flags, self.data, self.streams = tensor, versioned, flags, data, []

    def __dlpack_device__(self):
        return _raw.kDLCUDA, self.tensor.device.index

    def __dlpack__(self, *, stream=None, **options):
        if options and not self.versioned:
            raise TypeError("unexpected keyword max_version")
        self.streams.append(stream)
        capsule = self.tensor.__dlpack__(stream=stream, **options)
        if self.versioned:
            managed = _raw.DLManagedTensorVersioned.from_address(_tensor._pointer(capsule, b"dltensor_versioned"))
            managed.flags |= self.flags
            if self.data is not None:
                managed.dl_tensor.data = self.data
        return capsule


@pytest.mark.parametrize("versioned", [True, False])
def test_arrays_of_unknown_packages(versioned):
    q = torch.randn(1, 30, 2, 32, device="cuda")
    expected, side = dlattn.attention(q, q, q), torch.cuda.Stream()
    torch.cuda.synchronize()
    k = Foreign(q, versioned, flags=_raw.DLPACK_FLAG_BITMASK_READ_ONLY)
    assert torch.equal(dlattn.attention(q, k, k), expected) and k.streams == [1, 1]
    with torch.cuda.stream(side):
        assert torch.equal(dlattn.attention(q, k, k), expected) and k.streams[2:] == [side.cuda_stream] * 2
    with pytest.raises(dlattn.ArgumentError, match="out: .*read-only"):
        dlattn.attention(q, q, q, out=k)
    with pytest.raises(dlattn.ArgumentError, match="q: this Foreign lies on CUDA"):
        dlattn.attention(k, q, q)


def test_torch_without_an_exchange_table(monkeypatch):
    case = Case("bfloat16", causal=True)
    expected = case.run(to_torch, deterministic=True)
    framework = _tensor.kind_of(torch.Tensor).framework
    old = _tensor.Kind(_tensor._borrower_of_torch(framework, None), framework)
    monkeypatch.setitem(_tensor._kinds, torch.Tensor, old)
    assert same_bits(case.run(to_torch, deterministic=True).values(), expected.values())


def test_a_host_pointer_that_is_marked_as_cuda():
    q = torch.randn(2, 9, 2, 32, device="cuda")
    host = (ctypes.c_float * q.numel())()
    with pytest.raises(dlattn.Error, match="k") as caught:
        dlattn.attention(q, Foreign(q, data=ctypes.addressof(host)), q)
    assert isinstance(caught.value, (dlattn.DeviceError, dlattn.ArgumentError, dlattn.CudaError))
    assert torch.isfinite(dlattn.attention(q, q, q)).all(), "the context still serves"
