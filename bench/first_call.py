"""What the very first call of a process costs, in milliseconds: kernels compiled by NVRTC, and taken from the disk cache.

    PYTHONPATH=bindings/python/src DLATTN_LIBRARY=build/release/libdlattn.so python3 bench/first_call.py [--kernels]
    DLATTN_NVRTC=.../libnvrtc.so.13 python3 bench/first_call.py --offline build/release/make_cubins [ARCH]

A library that carries its kernels compiled (cmake -DDLATTN_CUBINS=90) needs neither: run it with that one beside.
--kernels: instead, how long NVRTC takes for each forward kernel that the device has and for the backward, full and causal, a
process for each. --offline, without a GPU: the same for all kernels of common calls on an architecture (90), one at a time. The
goal is a second for each kernel.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ONE_PROCESS = """
import time, torch, dlattn
q = torch.randn(2, 1024, 16, 128, device="cuda", dtype=torch.bfloat16)
torch.cuda.synchronize()
times = [time.perf_counter()]
out, lse = dlattn.attention(q, q, q, causal=True, return_lse=True)
torch.cuda.synchronize()
times.append(time.perf_counter())
dlattn.attention_backward(q, q, q, q, out, lse, causal=True)
torch.cuda.synchronize()
times.append(time.perf_counter())
print(*(1e3 * (b - a) for a, b in zip(times, times[1:])))
"""
ONE_KERNEL = """
import sys, time, torch, dlattn
step, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
q = torch.randn(2, 1024, 16, size, device="cuda", dtype=torch.bfloat16)
torch.cuda.synchronize()
for causal in (False, True):
    out, lse = dlattn.attention(q, q, q, causal=causal, return_lse=True) if step == "backward" else (None, None)
    torch.cuda.synchronize()
    dlattn.set_option("cuda_variant", name)
    begun = time.perf_counter()
    try:
        if step == "backward":
            dlattn.attention_backward(q, q, q, q, out, lse, causal=causal)
        else:
            dlattn.attention(q, q, q, causal=causal)
        torch.cuda.synchronize()
        print(1e3 * (time.perf_counter() - begun))
    except dlattn.UnsupportedError:
        print("nan")
    dlattn.set_option("cuda_variant", None)
"""
GOAL_MS, AT_A_TIME = 1000, 4  # so few processes that none waits for a processor


def first_calls(environment):
    print(f"{'first call of a process, ms':44s} {'forward':>9s} {'backward':>9s}")
    for name in ("no compiled kernels on disk", "the same with the disk cache", "once more"):
        run = subprocess.run([sys.executable, "-c", ONE_PROCESS], env=environment, capture_output=True, text=True)
        if run.returncode:
            print(run.stderr)
            return 1
        forward, backward = map(float, run.stdout.split())
        print(f"{name:44s} {forward:9.1f} {backward:9.1f}")
    return 0


def kernel_times(row, environment):
    """First call, full then causal, and what NVRTC took of each kernel of the step by the library's own log."""
    run = subprocess.run([sys.executable, "-c", ONE_KERNEL, *row], env={**environment, "DLATTN_LOG": "1"}, capture_output=True, text=True)
    calls = [float(word) for word in run.stdout.split()]
    compiled = [float(ms) for ms in re.findall(rf"compiled {row[0]}_s\S+ .* in (\d+) ms", run.stderr)]
    return row, calls, compiled, run.stderr if run.returncode else ""


def judged(slowest):
    late = sum(ms > GOAL_MS for ms in slowest)
    print(f"{'NO ' if late else 'yes'} every kernel within {GOAL_MS} ms of compiling; {late} of {len(slowest)} are not")
    return 0


def compile_times(environment):
    import dlattn

    listed = re.search(r"forward kernels \(.*?\): (.*)", dlattn.explain())[1]
    rows = [("forward", *row) for row in re.findall(r"(\S+) to (\d+)", listed) if not row[0].startswith("generic")]
    rows += [("backward", family, size) for family in ("sm90", "sm80") for size in ("64", "128", "256")]
    slowest = []
    print(f"{'kernel, head size':36s} {'first call, full':>17s} {'causal':>8s}   NVRTC: full, causal (ms)")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for (step, name, size), calls, compiled, error in pool.map(lambda row: kernel_times(row, environment), rows):
            if error:
                print(f"{name}: {error}")
                return 1
            if compiled:  # else it is for another architecture
                slowest.append(max(compiled))
                times = ", ".join(f"{ms:.0f}" for ms in compiled)
                print(f"{f'{step} {name}, {size}':36s} {calls[0]:17.0f} {calls[1]:8.0f}   {times}")
    return judged(slowest)


def offline(make_cubins, arch):
    with tempfile.NamedTemporaryFile() as archive:
        command = [make_cubins, "--jobs", "1", "--times", "1", archive.name, arch]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took = {}
    for file, ms in re.findall(r"^\S+ (\S+)\.cu.* in (\d+) ms$", run.stdout, re.M):
        took.setdefault(file, []).append(int(ms))
    print(f"{'sm_' + arch + ', ms':28s} {'kernels':>8s} {'median':>8s} {'most':>8s}")
    for file, times in sorted(took.items()):
        print(f"{file:28s} {len(times):8d} {statistics.median(times):8.0f} {max(times):8d}")
    return judged([ms for times in took.values() for ms in times])


def main():
    if "--offline" in sys.argv:
        return offline(*(sys.argv[sys.argv.index("--offline") + 1:] + ["90"])[:2])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DLATTN_CACHE_DIR": folder}
        return compile_times(environment) if "--kernels" in sys.argv else first_calls(environment)


if __name__ == "__main__":
    sys.exit(main())
