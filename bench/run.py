"""Python's runner for bench/languages.py: times named bench cases through the package dlattn, on NumPy arrays.

    python bench/run.py CASES.json THREADS BUDGET      names of cases on stdin, one a line

Each name is answered with one line: a JSON array of results, as bench/README.md says; so do bench/run.c, run.jl, run.rs.
"""
import argparse
import json
import statistics
import sys
import time

import dlattn
import ml_dtypes
import numpy

DTYPES = {"f32": numpy.float32, "f16": numpy.float16, "bf16": ml_dtypes.bfloat16, "f64": numpy.float64}
SHORTEST = 50e-6  # a sample is one call, or as many as take these seconds
NUMBERS = {name: number for number, name in enumerate(("q", "k", "v", "dout", "bias", "mask", "sinks"), 1)}


# ---- the data, by the rule of bench/README.md ------------------------------------------------------------------------

def bits(name: str, shape) -> numpy.ndarray:
    count = int(numpy.prod(shape))
    x = numpy.arange(count, dtype=numpy.uint32) + numpy.uint32(NUMBERS[name] * 0x9E3779B9 % 2**32)
    x = (x ^ x >> 16) * numpy.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * numpy.uint32(0x846CA68B)
    return (x ^ x >> 16).reshape(shape)


def floats(name: str, shape, dtype) -> numpy.ndarray:
    return ((bits(name, shape) >> 8).astype(numpy.float32) * numpy.float32(2**-23) - 1).astype(dtype)


def segments(case: dict, length: int) -> numpy.ndarray:
    return (numpy.arange(length) * 4 // length - 1 + numpy.arange(case["B"])[:, None]).astype(numpy.int32)


class Problem:
    """The arrays of a case, and its two passes as functions without arguments."""

    def __init__(self, case: dict, threads: int):
        dtype, sides = DTYPES[case["dtype"]], {"bshd": "b{}{}{}", "bhsd": "b{1}{0}{2}"}[case["layout"]]
        extents = {letter.lower(): case[letter] for letter in "BHGMNDE"}

        def shape(letters: str) -> tuple:
            return tuple(extents.get(letter, 1) for letter in letters)

        self.q = floats("q", shape(sides.format("m", "h", "d")), dtype)
        self.k = floats("k", shape(sides.format("n", "g", "d")), dtype)
        self.v = floats("v", shape(sides.format("n", "g", "e")), dtype)
        self.out = numpy.empty(shape(sides.format("m", "h", "e")), dtype)
        self.lse = numpy.empty(shape("bhm"), numpy.float64 if case["dtype"] == "f64" else numpy.float32)
        self.options = self.read_options(case, threads, dtype, shape)
        if "forward_only" not in case:
            self.dout = floats("dout", self.out.shape, dtype)
            parents = {"dq": self.q, "dk": self.k, "dv": self.v, "dbias": self.options.get("bias"), "dsinks": self.options.get("sinks")}
            self.gradients = {name: numpy.empty_like(parent) for name, parent in parents.items() if parent is not None}

    @staticmethod
    def read_options(case, threads, dtype, shape) -> dict:
        options = {"num_threads": threads, "layout": case["layout"]}
        options.update({flag: True for flag in case["flags"] if flag in ("causal", "top_left", "deterministic", "allow_tf32")})
        options.update({name: case[name] for name in ("window", "block_window", "scale", "softcap", "dropout", "seed", "offset") if name in case})
        if "bias" in case:
            options["bias"] = floats("bias", shape(case["bias"]), dtype)
        if "mask" in case:
            options["mask"] = (bits("mask", shape(case["mask"])) % 8 < 5).astype(numpy.uint8)
        if "alibi" in case:
            count = shape(case["alibi"])
            options["alibi_slopes"] = (0.5 ** (1 + numpy.arange(int(numpy.prod(count))) % 7)).astype(dtype).reshape(count)
        if "sinks" in case:
            options["sinks"] = floats("sinks", shape("h"), dtype)
        if "segments" in case:
            options["segments"] = segments(case, case["M"]), segments(case, case["N"])
        return options

    def forward(self):
        dlattn.attention(self.q, self.k, self.v, out=self.out, lse=self.lse, **self.options)

    def backward(self):
        dlattn.attention_backward(self.dout, self.q, self.k, self.v, self.out, self.lse, grads=(), **self.gradients, **self.options)


# ---- times -----------------------------------------------------------------------------------------------------------

def timed(call, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def median(call, budget: float) -> tuple[float, int]:
    """Seconds of a call, and how many calls were timed; at least three come before."""
    begun, each = time.perf_counter(), [timed(call, 1) for _ in range(3)]
    while time.perf_counter() - begun < 0.1 * budget:
        each.append(timed(call, 1))
    burst = int(SHORTEST / min(each)) + 1 if min(each) < SHORTEST else 1
    samples = min(100000, max(5, int(budget / (min(each) * burst))))
    return statistics.median(timed(call, burst) for _ in range(samples)), samples * burst


def mean_abs(arrays) -> float:
    """The sum of each array's mean absolute value: the same in every language."""
    return sum(float(numpy.abs(array.astype(numpy.float64)).mean()) for array in arrays)


def results(case: dict, threads: int, budget: float) -> list[dict]:
    problem, found = Problem(case, threads), []
    for name in ("forward", "backward")[:1 if "forward_only" in case else 2]:
        seconds, repeats = median(getattr(problem, name), budget)
        arrays = [problem.out] if name == "forward" else problem.gradients.values()
        found.append({"provider": "dlattn", "language": "python", "version": dlattn.version(), "case": case["name"], "pass": name,
                      "dtype": case["dtype"], "threads": threads, "repeats": repeats, "ms": seconds * 1e3, "mean_abs": mean_abs(arrays)})
    return found


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("cases", help="what dlattn bench --list --json prints")
    options.add_argument("threads", type=int)
    options.add_argument("budget", type=float, help="seconds per case and pass")
    options = options.parse_args()
    with open(options.cases, encoding="utf-8") as file:
        cases = {case["name"]: case for case in json.load(file)}
    for name in sys.stdin:
        print(json.dumps(results(cases[name.strip()], options.threads, options.budget)), flush=True)


if __name__ == "__main__":
    main()
