"""Times dlattn on a GPU beside the kernels that PyTorch carries, in one process, and writes one JSON file.

    python bench/compare.py [--rows PATTERN] [--quick] [--peers NAME,...] [--json bench/results/h100.json]

The library and its Python package are taken as they stand (DLATTN_LIBRARY, bindings/python/src). Providers take turns
within a row; a time is the median of rounds of at least 5 ms of device time. The largest error against float32 math is
recorded beside each time, so that a wrong kernel cannot look fast. The rate of an 8192^3 product and the clock of the
same run are recorded too. bench/README.md says what the fields mean.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
WRONG = 0.05  # an error above this fraction of the largest value is no rounding of bfloat16


def read_options():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rows", default="", help="a regular expression for the names of rows")
    options.add_argument("--peers", default="sm80,flash,cudnn,flash3,efficient,flex",
                         help="which peers, with commas; sm80: the portable forward; flash3 only where it is installed; 'none': dlattn alone")
    options.add_argument("--quick", action="store_true", help="the rows that tell most, without FlexAttention, in under a minute")
    options.add_argument("--json", type=Path, help="where the results go; default: nowhere")
    options.add_argument("--commit", default="", help="of the library; default: what git describe says")
    options.add_argument("--host-time", type=Path, help="the program host_time of the build: what C calls cost the host goes into the results")
    options.add_argument("--list", action="store_true", help="the names of the rows")
    options.add_argument("--warm", default="", help=argparse.SUPPRESS)  # K/N: compile for every Nth row from the Kth on, time nothing
    return options.parse_args()


# ---- the machine -----------------------------------------------------------------------------------------------------

def smi(fields: str) -> list[str]:
    run = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"], capture_output=True, text=True)
    return [field.strip() for field in run.stdout.strip().split(",")] if run.returncode == 0 else []


class Clock(threading.Thread):
    """Reads the clock and the power every second while kernels run."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.readings = threading.Event(), []

    def run(self):
        while not self.over.wait(1.0):
            found = smi("clocks.sm,power.draw,utilization.gpu")
            if len(found) == 3 and found[2].isdigit() and int(found[2]) > 50:
                self.readings.append((float(found[0]), float(found[1])))

    def summary(self) -> dict:
        if not self.readings:
            return {}
        clocks, powers = zip(*self.readings)
        return {"sm_mhz_median": statistics.median(clocks), "sm_mhz_lowest": min(clocks), "watts_median": statistics.median(powers),
                "readings": len(clocks)}


def commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=TOP, capture_output=True, text=True)
    return run.stdout.strip()


def machine() -> dict:
    import torch

    found = smi("name,driver_version,clocks.max.sm,power.limit") or [torch.cuda.get_device_name(), "", "", ""]
    properties = torch.cuda.get_device_properties(0)
    return {"gpu": found[0], "driver": found[1], "sm_mhz_most": found[2], "watts_most": found[3],
            "multiprocessors": properties.multi_processor_count, "compute": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda, "system": platform.system(), "arch": platform.machine()}


def host_time(program) -> dict:
    """What bench/host_time.c measures; nothing without it."""
    if not program:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "host.json"
        subprocess.run([program, "--json", found], check=True)
        return {"host": json.loads(found.read_text())}


def gemm() -> float:
    """GFLOP/s of a bfloat16 product of 8192 x 8192 matrices."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = rounds({"gemm": lambda: torch.mm(a, b)}, budget=0.3)["gemm"]
    return 2 * 8192 ** 3 / statistics.median(times) * 1e-6


# ---- times -----------------------------------------------------------------------------------------------------------

def timed(call, count: int) -> float:
    """Milliseconds of device time per call."""
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def rounds(calls: dict, budget: float) -> dict:
    """Milliseconds of each call, in rounds in which all take turns."""
    counts, times = {}, {name: [] for name in calls}
    for name, call in calls.items():  # warms up
        timed(call, 2)
        counts[name] = max(1, min(200, int(5 / max(timed(call, 1), 1e-3))))
    for _ in range(100):
        for name, call in calls.items():
            times[name].append(timed(call, counts[name]))
        spent = max(sum(found) * counts[name] for name, found in times.items())
        if len(times[next(iter(times))]) >= 5 and spent > 1000 * budget:
            break
    return times


def captured(call, copies: int = 20):
    """The call `copies` times in a CUDA graph: device time without the host's."""
    import torch

    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(copies):
            call()
    return graph.replay, copies


def host_microseconds(call, ms: float) -> float:
    """Time of a call on the host while the device has nothing else to do: the median of short bursts, few of long calls."""
    import torch

    found = []
    for _ in range(15 if ms < 1 else 5):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(3):
            call()
        found.append((time.perf_counter() - begun) / 3)
    torch.cuda.synchronize()
    return statistics.median(found) * 1e6


def prepare_all(row, data, providers: dict, truth: dict) -> tuple[dict, dict]:
    """Calls and errors of each provider that computes the row."""
    from gpu_providers import Refused, errors

    calls, wrong = {}, {}
    for name, provider in providers.items():
        try:
            begun = time.perf_counter()
            forward, backward = provider.prepare(row, data)
            wrong[name] = errors(truth, forward(), backward() if backward else ())
            calls[name] = (forward, backward)
            if name == "flex":
                print(f"    flex compiled in {time.perf_counter() - begun:.0f} s", flush=True)
        except Refused as reason:
            print(f"    {name} does not compute {row.name}: {str(reason)[:150]}", flush=True)
    return calls, wrong


# ---- compiling -------------------------------------------------------------------------------------------------------

def compile_rows(rows: list) -> None:
    """Runs dlattn's kernels once on each row; they then lie in its disk cache."""
    from gpu_providers import Data, Dlattn, Refused, known_providers

    known = known_providers()
    for row in rows:
        for provider in [known[name] for name in ("dlattn", *row.peers) if isinstance(known[name], Dlattn)]:
            try:
                provider.prepare(row, Data(row))
            except Refused:
                pass  # time_row will say so


def compile_together(count: int) -> float:
    """The same for all rows in several processes, as compiling takes most of a cold run; how many seconds it took."""
    begun, most = time.time(), min(count, 12, len(os.sched_getaffinity(0)))
    arguments = [sys.executable, __file__, *sys.argv[1:]]
    for process in [subprocess.Popen([*arguments, "--warm", f"{k}/{most}"]) for k in range(most)]:
        process.wait()
    return time.time() - begun


# ---- rows ------------------------------------------------------------------------------------------------------------

def time_row(row, providers: dict, budget: float, peak: float) -> list[dict]:
    import torch

    from gpu_providers import Data, reference

    stream = torch.cuda.Stream()  # autograd goes back on the stream of the forward: a capture must find it there
    stream.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_stream(stream)
    data = Data(row)
    calls, wrong = prepare_all(row, data, providers, reference(row, data))
    torch.cuda.synchronize()
    results = []
    for index, which in enumerate(row.passes):
        run = {name: pair[index] for name, pair in calls.items() if pair[index]}
        copies = {name: 1 for name in run}
        if row.small:
            eager = rounds(run, budget / 2)
            for name in list(run):
                run[name], copies[name] = captured(run[name])
        for name, times in rounds(run, budget).items():
            ms = statistics.median(times) / copies[name]
            result = {"provider": name, "language": "python", "version": providers[name].version, "case": row.name, "pass": which,
                      "dtype": row.dtype, "isa": torch.cuda.get_device_name(), "threads": 0, "repeats": len(times), "ms": ms,
                      "gflops": row.flop(index == 1) / ms * 1e-6, "peak_gflops": peak, "problem": row.problem(), "tags": list(row.tags),
                      "host_us": host_microseconds(calls[name][index], ms), "errors": wrong[name]}
            if row.small:
                result["eager_ms"] = statistics.median(eager[name])
            results.append(result)
    return results


def times_eager(r: dict, own: dict) -> str:
    return f", eager {r['eager_ms'] / own['eager_ms']:.2f}x" if "eager_ms" in r else ""


def line(results: list[dict]) -> str:
    own = next((r for r in results if r["provider"] == "dlattn"), results[0])
    worst = max(max(r["errors"].values()) for r in results)
    bad = [f"{r['provider']} IS WRONG ({name} {value:.2g})" for r in results for name, value in r["errors"].items() if not value < WRONG]
    others = [f"{r['provider']} {r['gflops'] * 1e-3:.0f} ({r['ms'] / own['ms']:.2f}x{times_eager(r, own)})" for r in results if r is not own]
    eager = f", eager {own['eager_ms'] * 1e3:.1f} us" if "eager_ms" in own else ""
    return (f"{own['case']:26s} {own['pass']:8s} {own['provider']:6s} {own['ms']:8.3f} ms{eager} {own['gflops'] * 1e-3:6.0f} TF/s  "
            f"host {own['host_us']:5.1f} us  {', '.join(others)}  error {worst:.1e}{'  ' if bad else ''}{'; '.join(bad)}")


def write(document: dict, path) -> None:
    """After every row: a run that is cut off leaves what it has."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def main():
    options = read_options()
    sys.path[:0] = [str(Path(__file__).parent), str(TOP / "bindings" / "python" / "src")]
    from gpu_cases import all_rows

    chosen = [row for row in all_rows() if re.search(options.rows, row.name) and (row.quick or not options.quick)]
    if options.list:
        print("\n".join(row.name for row in chosen))
        return
    import torch

    from gpu_providers import known_providers

    warnings.filterwarnings("ignore", message="Attempting to run cuBLAS")
    if not torch.cuda.is_available():
        raise SystemExit("compare: PyTorch finds no CUDA device")
    if options.warm:
        first, step = map(int, options.warm.split("/"))
        return compile_rows(chosen[first::step])
    begun, clock, host = time.time(), Clock(), host_time(options.host_time)  # before anything else keeps the processor busy
    compiling = compile_together(len(chosen))
    wanted = [name for name in options.peers.split(",") if name not in ("none", "")]
    known = known_providers()
    if "flash3" in wanted and known["flash3"].package is None:
        wanted.remove("flash3")
    before, about = gemm(), machine()
    print(f"{about['gpu']}, driver {about['driver']}, PyTorch {torch.__version__}; product of 8192^3: {before * 1e-3:.0f} TFLOP/s", flush=True)
    clock.start()
    document = {"machine": about, "commit": options.commit or commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "versions": {"dlattn": known["dlattn"].version, "torch": torch.__version__, "cudnn": str(torch.backends.cudnn.version()),
                             "python": platform.python_version()},
                "peaks": {"gemm_gflops_before": before, "gemm_gflops_after": before}, "clock": {}, **host, "results": []}
    for row in chosen:
        names = ["dlattn"] + [name for name in row.peers if name in wanted and not (options.quick and name == "flex")]
        try:
            found = time_row(row, {name: known[name] for name in names}, 0.06 if options.quick else 0.15, before)
        except Exception as reason:  # one row that fails leaves the others their results
            print(f"{row.name}: {type(reason).__name__}: {reason}", flush=True)
            continue
        for which in ("forward", "backward"):
            if part := [r for r in found if r["pass"] == which]:
                print(line(part), flush=True)
        document["results"] += found
        document["clock"] = clock.summary()
        write(document, options.json)
    clock.over.set()
    document["peaks"]["gemm_gflops_after"] = gemm()
    write(document, options.json)
    results = document["results"]
    from gpu_goals import print_goals, print_shares

    print_goals(document)
    print_shares(document)
    print(f"{len(results)} results in {time.time() - begun:.0f} s, {compiling:.0f} of them compiling; {document['clock']}; product after: "
          f"{document['peaks']['gemm_gflops_after'] * 1e-3:.0f} TFLOP/s")
    if options.json:
        print(f"{len(results)} results in {options.json}")


if __name__ == "__main__":
    main()
