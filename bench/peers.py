"""Times dlattn beside PyTorch and JAX in one process and writes one JSON file.

    python bench/peers.py [--only PATTERN] [--threads N] [--budget SECONDS] [--output bench/results/peers.json]

All libraries work on the same memory with as many threads, and they take turns, so that a machine that drifts drifts
for all; a time is the median. The multiply-add peak and the pure read rate of the machine come from the command
`dlattn bench` (DLATTN_COMMAND, or build/release/dlattn). bench/README.md says what the fields of the file mean.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def read_options():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--only", default="", help="a regular expression for the names of cases")
    options.add_argument("--threads", type=int, default=0, help="default: every processor this process may use")
    options.add_argument("--budget", type=float, default=0.6, help="seconds per library, case and pass")
    options.add_argument("--output", type=Path, default=TOP / "bench" / "results" / "peers.json")
    options.add_argument("--list", action="store_true", help="the names of the cases")
    return options.parse_args()


# ---- what was measured, and where ------------------------------------------------------------------------------------

def machine(threads: int) -> dict:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    flags = re.search(r"(?:flags|Features)\s*: (.*)", text)
    wanted = re.compile(r"avx2$|fma$|f16c$|avx512|avx_|amx|asimd|bf16|sve")
    return {"cpu": model.group(1) if model else platform.processor() or platform.machine(), "arch": platform.machine(),
            "isa_flags": sorted({flag for flag in (flags.group(1).split() if flags else []) if wanted.match(flag)}),
            "cores": len(os.sched_getaffinity(0)), "threads": threads, "system": platform.system()}


def commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=TOP, capture_output=True, text=True)
    return run.stdout.strip()


def command_bench(*arguments: str) -> dict:
    """One result of `dlattn bench --json`."""
    command = os.environ.get("DLATTN_COMMAND", str(TOP / "build" / "release" / "dlattn"))
    run = subprocess.run([command, "bench", "--json", "--repeats", "3", *arguments], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)[0]


def peaks(threads: int) -> dict:
    """GFLOP/s of multiply-adds by dtype, and GB/s of a loop that reads 67 MB and does nothing else."""
    found = {dtype: command_bench("--threads", str(threads), "--dtype", dtype, "--seq-len", "128")["peak_gflops"]
             for dtype in ("f32", "bf16")}
    decode = command_bench("--threads", str(threads), "--batch-size", "2", "--num-heads", "8", "--kv-heads", "2", "--seq-len", "1",
                           "--seq-len-k", "16384", "--head-dim", "128")
    return {"f32": found["f32"], "f16": found["f32"], "bf16": found["bf16"], "read": decode["peak_read_gbs"]}


# ---- times -----------------------------------------------------------------------------------------------------------

def alternate(calls: dict, budget: float) -> dict:
    """Seconds of each call, in rounds until the budget is spent.

    In a round each library runs a few times in a row, short calls once more before that: threads of the one before
    may still spin on the processors then.
    """
    times, first = {name: [] for name in calls}, {}
    for name, (enter, call) in calls.items():  # warms up
        with enter:
            call()
            begun = time.perf_counter()
            call()
            first[name] = time.perf_counter() - begun
    start = time.perf_counter()
    while True:
        for name, (enter, call) in calls.items():
            with enter:
                short = first[name] < 0.05
                if short:
                    call()
                for _ in range(5 if short else 1):
                    begun = time.perf_counter()
                    call()
                    times[name].append(time.perf_counter() - begun)
        rounds, spent = min(map(len, times.values())), time.perf_counter() - start
        if rounds >= 3 and spent > budget * len(calls) or rounds >= 500:
            return times


def time_case(case, providers: dict, budget: float, peak: dict) -> list[dict]:
    from providers import Data, as_numpy

    data, prepared = Data(case), {}
    for key, provider in providers.items():
        with enter_of(provider):
            prepared[key] = provider.prepare(case, data)
    with enter_of(providers["dlattn"]):
        own = as_numpy(prepared["dlattn"][0](), "dlattn")
    results = []
    for index, name in enumerate(["forward", "backward"][:2 if case.backward else 1]):
        calls = {key: (enter_of(providers[key]), prepared[key][index]) for key in providers}
        for key, times in alternate(calls, budget).items():
            provider, seconds = providers[key], statistics.median(times)
            result = {"provider": provider.name, "language": "python", "version": provider.version, "case": case.name,
                      "pass": name, "dtype": case.dtype, "isa": provider.isa_of(case), "threads": provider.threads,
                      "repeats": len(times), "ms": seconds * 1e3, "gflops": case.flop(index == 1) / seconds * 1e-9,
                      "peak_gflops": peak[case.dtype], "problem": case.problem(), "tags": list(case.tags)}
            if case.decode() and name == "forward":
                result.update(read_gbs=case.kv_bytes() / seconds * 1e-9, peak_read_gbs=peak["read"])
            if provider.name != "dlattn" and name == "forward":
                result["largest_difference"] = float(abs(as_numpy(prepared[key][0](), provider.name) - own).max())
            results.append(result)
    return results


class nothing:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def enter_of(provider):
    return provider if hasattr(provider, "__enter__") else nothing()


def providers_for(case, known: dict) -> dict:
    """By key: dlattn, dlattn-avx2, dlattn-1 (one thread), torch, jax."""
    keys = ["dlattn"] + [name for name in case.peers if name in known]
    keys += [key for key, wanted in (("dlattn-avx2", case.avx2), ("dlattn-1", case.one_thread)) if wanted and key in known]
    return {key: known[key] for key in keys}


def known_providers(threads: int) -> dict:
    from providers import Dlattn, Jax, Torch

    known = {"dlattn": Dlattn(threads), "torch": Torch(threads)}
    if threads > 1:
        known["dlattn-1"] = Dlattn(1)
    try:
        if known["dlattn"].names[0] != "avx2":
            known["dlattn-avx2"] = Dlattn(threads, "avx2")
    except Exception as reason:  # a machine without it
        print(f"without AVX2: {reason}", file=sys.stderr)
    try:
        known["jax"] = Jax(threads)
    except ImportError:
        print("without JAX: it is not installed", file=sys.stderr)
    return known


def line(results: list[dict]) -> str:
    own = next(r for r in results if r["provider"] == "dlattn")
    rate = f"{own['read_gbs']:6.1f} GB/s " if "read_gbs" in own else f"{own['gflops']:6.0f} GF/s {100 * own['gflops'] / own['peak_gflops']:3.0f} %"
    others = [f"{r['provider']} {r['ms'] / own['ms']:.2f}x" if r["provider"] != "dlattn" else
              f"{r['isa']}, {r['threads']} t: {r['gflops']:.0f}" for r in results if r is not own]
    return f"{own['case']:28s} {own['pass']:8s} {own['ms']:9.3f} ms {rate}  {', '.join(others)}"


def main():
    options = read_options()
    sys.path.insert(0, str(Path(__file__).parent))
    from peer_cases import all_cases

    cases = [case for case in all_cases() if re.search(options.only, case.name)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    threads = options.threads or len(os.sched_getaffinity(0))
    known, peak = known_providers(threads), peaks(threads)
    print(f"{threads} threads; peak {peak['f32']:.0f} GFLOP/s (bf16 {peak['bf16']:.0f}), read {peak['read']:.1f} GB/s")
    results = []
    for case in cases:
        found = time_case(case, providers_for(case, known), options.budget, peak)
        for name in ("forward", "backward"):
            if part := [r for r in found if r["pass"] == name]:
                print(line(part), flush=True)
        results += found
    after = peaks(threads)
    document = {"machine": machine(threads), "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "versions": {provider.name: provider.version for provider in known.values()} | {"python": platform.python_version()},
                "peaks": {"before": peak, "after": after}, "results": results}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{len(results)} results in {options.output}")


if __name__ == "__main__":
    main()
