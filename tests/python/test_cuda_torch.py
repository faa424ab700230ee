"""PyTorch tensors on CUDA: values beside torch's own attention, streams, graphs, devices, views, bad input."""
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
from gpu import Case, assert_true, same_bits, to_torch

torch = gpu.require("torch")
CASES = gpu.cases()
SLEEP = 10**8  # clock cycles: about 60 ms


def sdpa(case):
    """out, lse and gradients in float64 by torch, from what scaled_dot_product_attention can say."""
    options = dict(case.options)
    q, k, v = (to_torch(np.asarray(x, np.float64)).transpose(1, 2).requires_grad_() for x in (case.q, case.k, case.v))
    bias = options.pop("bias", None)
    mask = options.pop("mask", None)
    extra = None if bias is None else to_torch(bias.astype(np.float64)).requires_grad_()
    attn_mask = extra if mask is None else to_torch(mask)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, enable_gqa=True,
                                                           is_causal=options.pop("causal", False))
    assert not options
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3) / q.shape[3] ** 0.5
    if bias is not None:
        scores = scores + extra
    if mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    if "causal" in case.options:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    lse = scores.logsumexp(-1)
    loss = (out.transpose(1, 2) * to_torch(case.dout).double()).sum() + (lse * to_torch(case.dlse).double()).sum()
    loss.backward()
    found = {"out": out.transpose(1, 2), "lse": lse}
    found.update((f"d{name}", x.grad.transpose(1, 2)) for name, x in zip("qkv", (q, k, v)))
    if bias is not None:
        found["dbias"] = extra.grad
    return {name: x.detach() for name, x in found.items()}


PEERS = ("full_float32", "full_bfloat16", "full_float16", "causal_square", "bias", "mask")


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    dtype, options = CASES[name]
    case = Case(dtype, **options)
    found = case.run(to_torch)
    for key, array in found.items():
        assert isinstance(array, torch.Tensor) and array.is_cuda and not array.requires_grad, key
    assert found["out"].dtype == found["dq"].dtype == getattr(torch, dtype) and found["lse"].dtype == torch.float32
    assert_true(found, sdpa(case) if name in PEERS else {}, case.truth())


@pytest.mark.parametrize("layout", ["bshd", "bhsd"])
def test_views_need_no_copy(layout):
    """Slices of one fused projection, a transposed layout and a broadcast head give the bits of compact tensors."""
    fused = torch.randn(2, 70, 3, 4, 64, device="cuda", dtype=torch.bfloat16)
    q, k, v = fused.unbind(2)
    v = v[:, :, :1].expand(-1, -1, 4, -1)
    k = k[:, ::2][:, :33]
    v = v[:, 1:67:2]
    expected = dlattn.attention(q.contiguous(), k.contiguous(), v.contiguous(), causal=True)
    if layout == "bhsd":
        q, k, v, expected = (x.transpose(1, 2) for x in (q, k, v, expected))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = dlattn.attention(q, k, v, causal=True, layout=layout)
    assert torch.equal(out, expected)
    assert torch.cuda.max_memory_allocated() - before < 3 * out.numel() * out.element_size()
    given = torch.full((2, 70, 4, 80), 7.0, device="cuda", dtype=torch.bfloat16)
    view = given[..., 8:72] if layout == "bshd" else given[..., 8:72].transpose(1, 2)
    assert dlattn.attention(q, k, v, causal=True, layout=layout, out=view) is view
    assert torch.equal(view, expected) and (given[..., :8] == 7).all() and (given[..., 72:] == 7).all()


@pytest.mark.parametrize("shape", [(0, 5, 2, 16), (2, 0, 2, 16), (2, 5, 0, 16)])
def test_empty_tensors(shape):
    q = torch.zeros(shape, device="cuda")
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    assert out.shape == shape and lse.shape == (shape[0], shape[2], shape[1])
    assert dlattn.attention_backward(out, q, q, q, out, lse).dq.shape == shape


def test_no_keys():
    q, k = torch.ones(2, 5, 2, 16, device="cuda"), torch.ones(2, 0, 2, 16, device="cuda")
    out, lse = dlattn.attention(q, k, k, return_lse=True)
    assert (out == 0).all() and (lse == -torch.inf).all()


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


def test_parameters_and_tensors_that_require_grad():
    q = torch.nn.Parameter(torch.randn(1, 20, 2, 32, device="cuda"))
    expected = dlattn.attention(q.detach(), q.detach(), q.detach())
    for tensors in ((q, q.detach(), q.detach()), (q.detach(), q * 2, q.detach())):
        with pytest.raises(dlattn.ArgumentError, match=r"(q|k) requires grad.*detach\(\).*no_grad"):
            dlattn.attention(*tensors)
    with torch.no_grad():
        out = dlattn.attention(q, q, q)
    assert torch.equal(out, expected) and not out.requires_grad and type(out) is torch.Tensor

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out, lse = dlattn.attention(q, k, v, causal=True, return_lse=True)
            ctx.save_for_backward(q, k, v, out, lse)
            return out

        @staticmethod
        def backward(ctx, dout):
            return dlattn.attention_backward(dout, *ctx.saved_tensors, causal=True)[:3]

    Attention.apply(q, q, q).square().sum().backward()
    mine, q.grad = q.grad, None
    x = q.double().transpose(1, 2)
    torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).square().sum().backward()
    assert (mine - q.grad).abs().max() <= 2.0**-16 * q.grad.abs().max()


def test_lists_of_lengths_are_copied_to_the_device():
    q = torch.randn(2, 20, 2, 32, device="cuda")
    lengths = torch.tensor([7, 20], device="cuda")
    assert torch.equal(dlattn.attention(q, q, q, seqlens_k=[7, 20]), dlattn.attention(q, q, q, seqlens_k=lengths))


def test_packed_sequences_are_the_padded_ones():
    q, k, v = (torch.randn(50, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    cu = torch.tensor([0, 13, 50], device="cuda", dtype=torch.int32)
    out = dlattn.attention(q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=37, max_seqlen_k=37, causal=True)
    parts = [dlattn.attention(*(x[None, a:b] for x in (q, k, v)), causal=True)[0] for a, b in ((0, 13), (13, 50))]
    plain = torch.cat(parts).double()
    assert (out.double() - plain).abs().max() <= 2.0**-7 * plain.abs().max()


def test_dropout_mask_and_merge_are_the_ones_of_the_cpu():
    case = Case("float32", dropout=0.4, seed=11)
    q, k, v = case.inputs(to_torch)
    keep = dlattn.dropout_mask(q, k, dropout=0.4, seed=11)
    assert keep.is_cuda and same_bits([keep], [dlattn.dropout_mask(case.q, case.k, dropout=0.4, seed=11)])
    cut = 20
    parts = [dlattn.attention(q, x, y, return_lse=True, top_left=True) for x, y in
             ((k[:, :cut], v[:, :cut]), (k[:, cut:], v[:, cut:]))]
    out, lse = dlattn.merge(*zip(*parts))
    whole = Case("float32")
    assert_true({"out": out, "lse": lse}, {}, {name: (value, 2 * bound) for name, (value, bound) in whole.truth().items()})


def test_float32_results_and_explain():
    case = Case("bfloat16")
    q, k, v = case.inputs(to_torch)
    wide = dlattn.attention(q, k, v, out_dtype="float32")
    assert wide.dtype == torch.float32 and torch.equal(wide.bfloat16(), dlattn.attention(q, k, v))
    before = torch.cuda.memory_allocated()
    assert "backend: cuda" in dlattn.explain(q, k, v, causal=True)
    assert "backend: cuda" in dlattn.explain(q, k, v, backward=True)
    assert torch.cuda.memory_allocated() == before


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


def fenced(*shape, dtype=torch.bfloat16):
    """A tensor between NaNs: what is read beyond it spoils the result."""
    memory = torch.full((3, *shape), torch.nan, device="cuda", dtype=dtype)
    return memory[1].normal_()


@pytest.mark.parametrize("lengths, used", [([10**9, 31], [40, 31]), ([-5, 7], [0, 7]), ([2**31 - 1, -2**31], [40, 0])])
def test_lengths_out_of_range_are_clamped(lengths, used):
    """The device checks what the host may not read: no access leaves the tensors."""
    q, k, v, dout = (fenced(2, 40, 2, 64) for _ in range(4))

    def run(values):
        counts = torch.tensor(values, device="cuda", dtype=torch.int32)
        options = dict(seqlens_q=counts, seqlens_k=counts, causal=True, deterministic=True)
        out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
        return [out, lse, *dlattn.attention_backward(dout, q, k, v, out, lse, **options)[:3]]

    assert same_bits(run(lengths), run(used))


@pytest.mark.parametrize("cu", [[0, 10**9, 50], [-7, 20, 10**6], [50, 20, 0], [2**31 - 1, -2**31, 3]])
def test_offsets_out_of_range_read_nothing_outside(cu):
    """What the rows then hold is not said, but it comes from the tensors, and the context lives."""
    q, k, v, dout = (fenced(50, 2, 64) for _ in range(4))
    offsets = torch.tensor(cu, device="cuda", dtype=torch.int32)
    options = dict(cu_seqlens_q=offsets, cu_seqlens_k=offsets, max_seqlen_q=50, max_seqlen_k=50)
    out, lse = dlattn.attention(q, k, v, return_lse=True, **options)
    grads = dlattn.attention_backward(dout, q, k, v, out, lse, **options)
    assert all(torch.isfinite(x).all() for x in (out, *grads[:3]))


def test_pages_out_of_range_are_page_0():
    q, pages = fenced(2, 3, 2, 64), fenced(4, 16, 2, 64)
    lengths = torch.tensor([40, 48], device="cuda", dtype=torch.int32)

    def run(table):
        table = torch.tensor(table, device="cuda", dtype=torch.int32)
        return dlattn.attention(q, pages, pages, block_table=table, seqlens_k=lengths)

    wild = run([[10**9, 1, 2], [-4, 2**31 - 1, -2**31]])
    assert torch.isfinite(wild).all() and same_bits([wild], [run([[0, 1, 2], [0, 0, 0]])])


def test_bad_input():
    q = torch.randn(2, 9, 2, 32, device="cuda")
    out = torch.full_like(q, -7)
    host = q.cpu()
    for tensors, word in (((q, host, q), "k"), ((host, q, host), "k"), ((q, q, host.numpy()), "v")):
        with pytest.raises(dlattn.DeviceError, match=word):
            dlattn.attention(*tensors)
    with pytest.raises(dlattn.DeviceError, match="seqlens_k"):
        dlattn.attention(q, q, q, seqlens_k=np.array([1, 2], np.int32), out=out)
    with pytest.raises(dlattn.DeviceError, match="out"):
        dlattn.attention(q, q, q, out=host)
    with pytest.raises(dlattn.ShapeError, match="k"):
        dlattn.attention(q, q[:1], q, out=out)
    with pytest.raises(dlattn.DtypeError, match="k"):
        dlattn.attention(q, q.half(), q, out=out)
    with pytest.raises(dlattn.Error, match="float64"):
        dlattn.attention(q.double(), q.double(), q.double())
    with pytest.raises(dlattn.ShapeError, match="out"):
        dlattn.attention(q, q, q, out=q)
    with pytest.raises(dlattn.ArgumentError, match="k: Tensor gives no DLPack tensor"):
        dlattn.attention(q, q.to_sparse(), q)
    assert (out == -7).all() and torch.isfinite(dlattn.attention(q, q, q)).all()


def test_a_host_pointer_that_is_marked_as_cuda():
    q = torch.randn(2, 9, 2, 32, device="cuda")
    host = (ctypes.c_float * q.numel())()
    with pytest.raises(dlattn.Error, match="k") as caught:
        dlattn.attention(q, Foreign(q, data=ctypes.addressof(host)), q)
    assert isinstance(caught.value, (dlattn.DeviceError, dlattn.ArgumentError, dlattn.CudaError))
    assert torch.isfinite(dlattn.attention(q, q, q)).all(), "the context still serves"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("page", [1, 16, 64, 48])
def test_pages(dtype, page):
    """Keys in shuffled pages, NaN where no token lies: within the bounds of the same keys in one piece."""
    lengths = np.array([53, 20], np.int32)
    case = Case(dtype, D=64, E=32, causal=True, seqlens_k=lengths)
    pages = -(-53 // page)
    order = np.random.default_rng(page).permutation(2 * pages + 1)
    pools = [np.full((2 * pages + 1, page, *x.shape[2:]), np.nan, x.dtype) for x in (case.k, case.v)]
    for b in range(2):
        for token in range(lengths[b]):
            for pool, x in zip(pools, (case.k, case.v)):
                pool[order[b * pages + token // page], token % page] = x[b, token]
    table = order[:2 * pages].reshape(2, pages).astype(np.int32)
    out, lse = dlattn.attention(to_torch(case.q), *map(to_torch, pools), causal=True, seqlens_k=to_torch(lengths),
                                block_table=to_torch(table), max_seqlen_k=53, return_lse=True)
    truth = case.truth()
    assert_true({"out": out, "lse": lse}, {}, truth)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_append_and_rotate_as_on_the_cpu(dtype):
    rng = np.random.default_rng(5)
    new, values = (rng.standard_normal((2, 3, 2, size)).astype(gpu.DTYPES[dtype]) for size in (64, 40))
    lengths, table = np.array([6, 9], np.int32), np.array([[3, 0, 5], [1, 4, 2]], np.int32)
    caches = [np.zeros((6, 4, 2, size), gpu.DTYPES[dtype]) for size in (64, 40)]
    on_device = [to_torch(x) for x in caches]
    dlattn.kv_append(new, values, *caches, lengths, block_table=table)
    dlattn.kv_append(to_torch(new), to_torch(values), *on_device, to_torch(lengths), block_table=to_torch(table))
    assert same_bits(caches, on_device)
    angle = rng.standard_normal((20, 24)).astype(np.float32)
    tables = np.cos(angle), np.sin(angle)
    for interleaved in (False, True):
        here = dlattn.rotary(new, *tables, starts=lengths, interleaved=interleaved)
        there = dlattn.rotary(to_torch(new), *map(to_torch, tables), starts=to_torch(lengths), interleaved=interleaved)
        unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-23}[dtype]
        difference = abs(gpu.to_numpy(there).astype(np.float64) - here.astype(np.float64))
        assert (difference <= 2 * unit * abs(here.astype(np.float64)) + 2.0**-21).all()  # float32 sums, one rounding each
