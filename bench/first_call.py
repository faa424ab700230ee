"""What the very first call of a process costs, in milliseconds: kernels compiled by NVRTC, and taken from the disk cache.

    PYTHONPATH=bindings/python/src DLATTN_LIBRARY=build/release/libdlattn.so python3 bench/first_call.py

A library that carries its kernels compiled (cmake -DDLATTN_CUBINS=90) needs neither: run it with that one beside.
"""
import os
import subprocess
import sys
import tempfile

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


def main():
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DLATTN_CACHE_DIR": folder}
        print(f"{'first call of a process, ms':44s} {'forward':>9s} {'backward':>9s}")
        for name in ("no compiled kernels on disk", "the same with the disk cache", "once more"):
            run = subprocess.run([sys.executable, "-c", ONE_PROCESS], env=environment, capture_output=True, text=True)
            if run.returncode:
                print(run.stderr)
                return 1
            forward, backward = map(float, run.stdout.split())
            print(f"{name:44s} {forward:9.1f} {backward:9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
