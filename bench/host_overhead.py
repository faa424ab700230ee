"""Host time of an eager call from Python on CUDA, in microseconds: what passes before the call returns, its work queued;
and, for PyTorch's tensors, what passes until its first kernel is launched (see launches.py).

    PYTHONPATH=bindings/python/src DLATTN_LIBRARY=build/release/libdlattn.so python3 bench/host_overhead.py

The problem is tiny, so that the GPU keeps up and never holds the host back. Each row is the median of rounds of calls
that take turns; beside dlattn stand the calls that it replaces, in the same process.
"""
import ctypes
import json
import statistics
import sys
import time

import dlattn
import launches
from dlattn import _library, _options, _raw, _result, _run, _tensor

SHAPE, ROUNDS, CALLS = (1, 64, 4, 64), 60, 50
WHOLE = "torch.sdpa", "dlattn.torch.attention", "dlattn.attention of torch"  # timed to their launch too


def torch_calls():
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.randn(SHAPE, device="cuda", dtype=torch.bfloat16)
    x = q.transpose(1, 2).contiguous()
    leaf = x.detach().clone().requires_grad_()
    out, lse = dlattn.attention(q, q, q, return_lse=True)
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def flash():
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return sdpa(x, x, x)

    flash()
    yield "torch.sdpa", lambda: sdpa(x, x, x)
    yield "torch.sdpa recording a graph", lambda: sdpa(leaf, leaf, leaf)
    yield "torch.empty_like", lambda: torch.empty_like(q)
    yield "dlattn.attention of torch", lambda: dlattn.attention(q, q, q)
    yield "dlattn.attention of torch, causal, lse", lambda: dlattn.attention(q, q, q, causal=True, return_lse=True)
    yield "dlattn.attention of torch, given out", lambda: dlattn.attention(q, q, q, out=out)
    yield from torch_operators(q)
    yield "dlattn.attention_backward of torch", lambda: dlattn.attention_backward(q, q, q, q, out, lse)
    yield "torch flash backward", backward_of_torch(torch, x)
    yield from c_calls(q, out)


def torch_operators(q):
    """dlattn.torch, and its operators as compiled code calls them."""
    import dlattn.torch
    import torch

    leaf, attention = q.clone().requires_grad_(), dlattn.torch.attention
    yield "dlattn.torch.attention", lambda: attention(q, q, q)
    yield "dlattn.torch.attention, causal, lse", lambda: attention(q, q, q, causal=True, return_lse=True)
    yield "dlattn.torch.attention recording a graph", lambda: attention(leaf, leaf, leaf)
    yield "torch.ops.dlattn.attention", lambda: torch.ops.dlattn.attention.default(q, q, q)


def backward_of_torch(torch, x):
    aten = torch.ops.aten
    out, lse, cq, ck, mq, mk, seed, offset, _ = aten._scaled_dot_product_flash_attention(x, x, x)
    return lambda: aten._scaled_dot_product_flash_attention_backward(x, x, x, x, out, lse, cq, ck, mq, mk, 0.0, False,
                                                                     seed, offset)


def c_calls(q, out):
    """The C calls alone, through ctypes, with everything prepared."""
    problem = _options.Problem(q, q, q, {})
    result = _result.Result("out", out, (), 0, q, problem.loans)
    outputs = _raw.dlattn_outputs(ctypes.sizeof(_raw.dlattn_outputs), result.address)
    exec_, needed, library = problem.loans.exec, ctypes.c_uint64(), _library.library
    yield "C: dlattn_forward through ctypes", lambda: library.dlattn_forward(problem.struct, outputs, exec_)
    yield "C: dlattn_forward_workspace through ctypes", lambda: library.dlattn_forward_workspace(
        problem.struct, outputs, exec_, needed, None)
    yield "C: dlattn_version through ctypes", library.dlattn_version
    yield "Python: problem of three tensors", lambda: _options.Problem(q, q, q, {}).loans.release()

    def borrow():
        loans = _run.Loans.take()
        _tensor.borrow("q", q, loans)
        loans.release()

    yield "Python: a tensor borrowed", borrow


def cupy_calls():
    import cupy

    q = cupy.random.standard_normal(SHAPE).astype("float16")
    out = cupy.empty_like(q)
    dlattn.attention(q, q, q)
    yield "dlattn.attention of cupy", lambda: dlattn.attention(q, q, q)
    yield "cupy elementwise kernel", lambda: cupy.add(q, q, out)


def jax_calls():
    import jax

    q = jax.random.normal(jax.random.key(0), SHAPE, dtype=jax.numpy.bfloat16)
    attend = jax.jit(jax.nn.dot_product_attention)
    attend(q, q, q).block_until_ready()
    dlattn.attention(q, q, q)
    yield "dlattn.attention of jax (waits for the end)", lambda: dlattn.attention(q, q, q)
    yield "jax.nn.dot_product_attention, jitted, waiting", lambda: attend(q, q, q).block_until_ready()


def measure(calls, synchronize):
    """{name: median microseconds of one call}."""
    samples = {name: [] for name, _ in calls}
    for round_ in range(ROUNDS + 5):
        for name, call in calls:
            synchronize()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            passed = time.perf_counter() - start
            if round_ >= 5:
                samples[name].append(passed / CALLS * 1e6)
    return {name: statistics.median(times) for name, times in samples.items()}


def main():
    import torch

    if not torch.cuda.is_available():
        print("bench/host_overhead.py: skipped, no CUDA device")
        return 0
    found, reached = {}, {}
    for source in (torch_calls, cupy_calls, jax_calls):
        try:
            calls = list(source())
        except ImportError as reason:
            print(f"{source.__name__}: skipped, {reason}")
            continue
        found.update(measure(calls, torch.cuda.synchronize))
        if source is torch_calls:
            whole = [(name, call) for name, call in calls if name.startswith(WHOLE)]
            try:
                reached = launches.to_launch(whole, torch.cuda.synchronize)
            except OSError as reason:
                print(f"without the times to the launch: {reason}")
    print(" whole call   to launch")
    for name, microseconds in found.items():
        launch = f"{reached[name]:8.2f} us" if name in reached else " " * 11
        print(f"{microseconds:8.2f} us {launch}  {name}")
    if "--json" in sys.argv:
        print(json.dumps({"device": torch.cuda.get_device_name(), "host_us": found, "to_launch_us": reached}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
